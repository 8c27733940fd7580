//! What a command's function receives: its arguments; and what it returns when it can't: an error.

use std::fmt::{self, Display};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use super::value::{FromValue, Prefix, Value, read};

/// Why a command failed, in words for the operator.
///
/// Every `std::error::Error` converts into it, so that `?` works on the operations; for that reason it is
/// not one itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CliError(String);

impl CliError {
    /// An error with this message. No trailing newline, no leading path: the tree adds the path.
    pub fn new(message: impl Into<String>) -> CliError {
        CliError(message.into())
    }

    /// The same error with `prefix: ` in front.
    pub(crate) fn within(self, prefix: &str) -> CliError {
        CliError(format!("{prefix}: {}", self.0))
    }
}

impl Display for CliError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<E: std::error::Error> From<E> for CliError {
    fn from(error: E) -> CliError {
        CliError(error.to_string())
    }
}

/// One matched keyword or parameter.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) name: Arc<str>,
    pub(crate) value: Value,
    /// Which turn of the repeated group it belongs to, from 1; 0 outside.
    pub(crate) turn: u32,
}

/// The arguments of one run of a command, by the names that its syntax gives them.
#[derive(Clone, Debug)]
pub struct Args {
    pub(crate) entries: Vec<Entry>,
    /// Every name of the syntax: asking for another one is a mistake in the command.
    pub(crate) declared: Arc<[Arc<str>]>,
}

impl Args {
    fn check(&self, name: &str) -> Result<(), CliError> {
        let declared = self.declared.iter().any(|known| &**known == name);
        debug_assert!(declared, "`{name}' is not in the syntax of this command");
        match declared {
            true => Ok(()),
            false => Err(CliError::new(format!("`{name}' is not in the syntax of this command"))),
        }
    }

    fn values<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Value> {
        self.entries.iter().filter(move |entry| &*entry.name == name).map(|entry| &entry.value)
    }

    /// Whether the keyword or parameter was given.
    pub fn flag(&self, name: &str) -> bool {
        let _ = self.check(name);
        self.values(name).next().is_some()
    }

    /// The value of an optional parameter, `None` when it was not given.
    pub fn opt<T: FromValue>(&self, name: &str) -> Result<Option<T>, CliError> {
        self.check(name)?;
        self.values(name).find(|value| **value != Value::Flag).map(|value| read(name, value)).transpose()
    }

    /// The value of a parameter that this command can't do without.
    pub fn get<T: FromValue>(&self, name: &str) -> Result<T, CliError> {
        self.opt(name)?.ok_or_else(|| CliError::new(format!("missing <{name}>")))
    }

    /// All values of a parameter that a repeated group holds.
    pub fn all<T: FromValue>(&self, name: &str) -> Result<Vec<T>, CliError> {
        self.check(name)?;
        self.values(name).filter(|value| **value != Value::Flag).map(|value| read(name, value)).collect()
    }

    /// A required number.
    pub fn u32(&self, name: &str) -> Result<u32, CliError> {
        self.get(name)
    }

    /// A required number of at most 65535.
    pub fn u16(&self, name: &str) -> Result<u16, CliError> {
        self.get(name)
    }

    /// A required address of either family.
    pub fn ip(&self, name: &str) -> Result<IpAddr, CliError> {
        self.get(name)
    }

    /// A required IPv4 address.
    pub fn ip4(&self, name: &str) -> Result<Ipv4Addr, CliError> {
        self.get(name)
    }

    /// A required prefix, host bits as written.
    pub fn prefix(&self, name: &str) -> Result<Prefix, CliError> {
        self.get(name)
    }

    /// A required MAC address.
    pub fn mac(&self, name: &str) -> Result<[u8; 6], CliError> {
        self.get(name)
    }

    /// A required text: of a `<word>`, `<path>`, `<node>`, `<block>`, or the name of an `<interface>`.
    pub fn text(&self, name: &str) -> Result<String, CliError> {
        self.get(name)
    }

    /// The software interface index of a required `<interface>`.
    pub fn interface(&self, name: &str) -> Result<u32, CliError> {
        self.opt_interface(name)?.ok_or_else(|| CliError::new(format!("missing <{name}>")))
    }

    /// The software interface index of an optional `<interface>`.
    pub fn opt_interface(&self, name: &str) -> Result<Option<u32>, CliError> {
        self.check(name)?;
        match self.values(name).find(|value| **value != Value::Flag) {
            None => Ok(None),
            Some(Value::Interface { index, .. }) => Ok(Some(*index)),
            Some(_) => Err(CliError::new(format!("<{name}> is not declared as an interface"))),
        }
    }

    /// The text that a `<line>` parameter took, empty when there was none.
    pub fn rest(&self, name: &str) -> String {
        self.opt(name).ok().flatten().unwrap_or_default()
    }

    /// The arguments of each turn of the repeated group (`{via <ip4> [weight <n>]}...`), in order.
    pub fn turns(&self) -> Vec<Args> {
        let count = self.entries.iter().map(|entry| entry.turn).max().unwrap_or(0);
        (1..=count)
            .map(|turn| Args {
                entries: self.entries.iter().filter(|entry| entry.turn == turn).cloned().collect(),
                declared: self.declared.clone(),
            })
            .collect()
    }
}
