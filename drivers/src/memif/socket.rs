//! Control sockets: who may connect, and who was refused.

use super::info::SocketInfo;
use memif::{Address, Listener, PeerCredentials, Role};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::{Duration, Instant};
use wharf_engine::SwIfIndex;

/// Refused clients of a socket that are told of within [`TELL`]; all are counted.
const TOLD: u32 = 10;
const TELL: Duration = Duration::from_secs(1);

/// Who may connect to a socket: its users, or its groups; everybody if neither is named.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Access {
    /// User ids.
    pub uids: Vec<u32>,
    /// Group ids.
    pub gids: Vec<u32>,
}

/// A control socket.
#[derive(Debug)]
pub(super) struct Socket {
    pub(super) address: Address,
    pub(super) access: Access,
    /// While server interfaces use the socket.
    pub(super) listener: Option<Listener>,
    /// The role of its interfaces; meaningless while there are none.
    pub(super) role: Role,
    /// By id.
    pub(super) interfaces: BTreeMap<u32, SwIfIndex>,
    /// Clients refused, by kind.
    pub(super) refused: BTreeMap<&'static str, u64>,
    pub(super) telling: Telling,
}

/// Keeps a client that comes back and back from flooding the log.
#[derive(Debug, Default)]
pub(super) struct Telling {
    since: Option<Instant>,
    told: u32,
    silent: u64,
}

impl Telling {
    /// Whether to tell of one more; if so, how many were not told before it.
    pub(super) fn tell(&mut self, now: Instant) -> Option<u64> {
        if self.since.is_none_or(|since| now.saturating_duration_since(since) >= TELL) {
            (self.since, self.told) = (Some(now), 0);
        }
        if self.told == TOLD {
            self.silent += 1;
            return None;
        }
        self.told += 1;
        Some(std::mem::take(&mut self.silent))
    }
}

impl Socket {
    pub(super) fn new(address: Address, access: Access) -> Socket {
        Socket {
            address,
            access,
            listener: None,
            role: Role::Server,
            interfaces: BTreeMap::new(),
            refused: BTreeMap::new(),
            telling: Telling::default(),
        }
    }

    pub(super) fn info(&self, id: u32) -> SocketInfo {
        SocketInfo {
            id,
            listener: self.listener.is_some(),
            interfaces: self.interfaces.len(),
            filename: self.address.to_string(),
            refused: self.refused.iter().map(|(kind, n)| ((*kind).to_owned(), *n)).collect(),
        }
    }
}

/// Who was refused and why, for people.
pub(super) fn describe_refusal(reason: &str, peer: Option<PeerCredentials>, silent: u64) -> String {
    let mut text = reason.to_owned();
    if let Some(peer) = peer {
        let _ = write!(text, " (process {}, user {}", peer.pid, peer.uid);
        for word in [peer.network_namespace(), peer.cgroup()].into_iter().flatten() {
            text.push_str(", ");
            text.push_str(&word);
        }
        text.push(')');
    }
    if silent != 0 {
        let _ = write!(text, ", and {silent} more before");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_refusals_is_told_of_in_a_few_lines() {
        let (mut telling, start) = (Telling::default(), Instant::now());
        let told: Vec<_> = (0..1000).filter_map(|_| telling.tell(start)).collect();
        assert_eq!(told, [0; 10]);
        assert_eq!(telling.tell(start + TELL), Some(990));
        assert_eq!(describe_refusal("no", None, 990), "no, and 990 more before");
    }
}
