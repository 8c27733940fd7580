//! What the control plane publishes for the acl nodes.

use super::lists::Lists;
use super::macip::MacIpList;
use super::sessions::{SessionTable, Timeouts};
use std::sync::Arc;
use wharf_engine::SwIfIndex;
use wharf_engine::counter::Combined;

/// Packets that an interface receives, or sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Direction {
    /// It receives them.
    Input,
    /// It sends them.
    Output,
}

/// VPP's words.
impl std::fmt::Display for Direction {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if *self == Direction::Input { "input" } else { "output" })
    }
}

/// What an interface's lists say in one direction.
#[derive(Clone, Debug, Default)]
pub struct Side {
    /// The rules; `None` lets everything pass. What matches none is dropped.
    pub lists: Option<Arc<Lists>>,
    /// Version of the lists: what sessions of an older one do is looked up again.
    pub epoch: u32,
    /// EtherTypes that pass besides those of IP; `None` is all.
    pub etypes: Option<Arc<[u16]>>,
}

/// The policy of an interface.
#[derive(Clone, Debug, Default)]
pub struct InterfaceAcl {
    /// For received packets.
    pub input: Side,
    /// For packets to be sent.
    pub output: Side,
    /// Whether a rule, of either direction, opens sessions.
    pub reflects: bool,
    /// Whether packets are sent without an Ethernet header.
    pub ip_mode: bool,
    /// Who may send what, by MAC and IP address.
    pub macip: Option<Arc<MacIpList>>,
}

impl InterfaceAcl {
    /// One direction.
    #[inline(always)]
    pub fn side(&self, direction: Direction) -> &Side {
        match direction {
            Direction::Input => &self.input,
            Direction::Output => &self.output,
        }
    }
}

/// All that the nodes read.
#[derive(Clone, Debug)]
pub struct AclTables {
    /// By `sw_if_index`.
    pub interfaces: Vec<Option<Arc<InterfaceAcl>>>,
    /// Matches per rule, by [`super::ListedRule::counter`].
    pub counters: Arc<Combined>,
    /// The sessions; `None` while no rule opens any.
    pub sessions: Option<Arc<SessionTable>>,
    /// Sessions that an interface may have.
    pub share: u32,
    /// How long sessions live.
    pub timeouts: Timeouts,
}

impl Default for AclTables {
    fn default() -> AclTables {
        AclTables {
            interfaces: Vec::new(),
            counters: Arc::new(Combined::new(0)),
            sessions: None,
            share: 0,
            timeouts: Timeouts::default(),
        }
    }
}

impl AclTables {
    /// The policy of an interface that has one.
    #[inline(always)]
    pub fn interface(&self, index: SwIfIndex) -> Option<&InterfaceAcl> {
        self.interfaces.get(index.index()).and_then(Option::as_deref)
    }
}
