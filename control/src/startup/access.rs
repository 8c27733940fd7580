//! The `access` stanza: who may use the control sockets beside their owner and group, to do what, and how much.

use super::display::Stanza;
use super::words::{ConfigError, Reader, Warning};
use crate::access::Limits;

/// The `access` stanza. Users and groups are names or numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AccessConfig {
    /// Users who may change something.
    pub read_write_uids: Vec<String>,
    /// Groups that may change something.
    pub read_write_gids: Vec<String>,
    /// Users who may only look.
    pub read_only_uids: Vec<String>,
    /// Groups that may only look.
    pub read_only_gids: Vec<String>,
    /// How much.
    pub limits: Limits,
}

pub(super) const KEYS: &[&str] = &[
    "read-write-uid",
    "read-write-gid",
    "read-only-uid",
    "read-only-gid",
    "api-clients",
    "api-rate",
    "api-request-size",
    "cli-clients",
    "cli-rate",
    "cli-request-size",
];

/// The smallest and the largest size of a request that can be asked for, in bytes. Less would not do for what clients begin with.
const SIZES: (u32, u32) = (4 << 10, 64 << 20);

impl AccessConfig {
    pub(super) fn read(&mut self, mut reader: Reader<'_>) -> Result<Vec<Warning>, ConfigError> {
        while let Some(key) = reader.key()? {
            match key.text.as_str() {
                "read-write-uid" => self.read_write_uids.push(reader.text(key, "a user")?),
                "read-write-gid" => self.read_write_gids.push(reader.text(key, "a group")?),
                "read-only-uid" => self.read_only_uids.push(reader.text(key, "a user")?),
                "read-only-gid" => self.read_only_gids.push(reader.text(key, "a group")?),
                "api-clients" => self.limits.api_clients = reader.number(key, 1, 65536)?,
                "api-rate" => self.limits.api_rate = reader.number(key, 0, 100_000_000)?,
                "api-request-size" => {
                    self.limits.api_request = reader.number(key, SIZES.0, SIZES.1)? as usize
                }
                "cli-request-size" => {
                    self.limits.cli_request = reader.number(key, SIZES.0, SIZES.1)? as usize
                }
                "cli-clients" => self.limits.cli_clients = reader.number(key, 1, 1024)?,
                "cli-rate" => self.limits.cli_rate = reader.number(key, 0, 100_000_000)?,
                _ => reader.unknown(key),
            }
        }
        Ok(reader.warnings)
    }

    pub(super) fn stanza(&self) -> Stanza {
        let mut stanza = Stanza::new("access");
        for (key, names) in [
            ("read-write-uid", &self.read_write_uids),
            ("read-write-gid", &self.read_write_gids),
            ("read-only-uid", &self.read_only_uids),
            ("read-only-gid", &self.read_only_gids),
        ] {
            names.iter().for_each(|name| stanza.value(key, Some(name)));
        }
        let (ours, usual) = (&self.limits, Limits::default());
        let said = |ours, usual| (ours != usual).then_some(ours);
        stanza.value("api-clients", said(ours.api_clients, usual.api_clients));
        stanza.value("api-request-size", said(ours.api_request, usual.api_request));
        stanza.value("cli-clients", said(ours.cli_clients, usual.cli_clients));
        stanza.value("cli-request-size", said(ours.cli_request, usual.cli_request));
        let said = |ours, usual| (ours != usual).then_some(ours);
        stanza.value("api-rate", said(ours.api_rate, usual.api_rate));
        stanza.value("cli-rate", said(ours.cli_rate, usual.cli_rate));
        stanza
    }
}
