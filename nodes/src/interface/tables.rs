//! The table of interfaces.

use crate::ethernet::{SubInterfaces, SubOutput};
use crate::wire::ethernet::MacAddress;
use std::sync::Arc;
use wharf_engine::SwIfIndex;

/// Where frames go that an interface receives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum InputMode {
    /// To the protocol of their EtherType.
    #[default]
    L3,
    /// To `l2-input`, as they are.
    L2,
    /// To a sub-interface, by their VLAN tags: see [`InterfaceTables::trunks`].
    Trunk,
}

/// One interface.
#[derive(Clone, Debug, Default)]
pub struct InterfaceEntry {
    /// Whether there is such an interface and it is administratively up.
    pub up: bool,
    /// What becomes of received frames.
    pub mode: InputMode,
    /// Its own address: frames to others are not for the L3 protocols.
    pub mac: MacAddress,
    /// Whether it has an IPv4 address.
    pub ip4: bool,
}

/// All interfaces, by `sw_if_index`.
#[derive(Clone, Debug, Default)]
pub struct InterfaceTables {
    /// The entries; a free index has the default entry, which is down.
    pub list: Vec<InterfaceEntry>,
    /// The sub-interfaces of those whose mode is [`InputMode::Trunk`].
    pub trunks: Vec<Option<Arc<SubInterfaces>>>,
    /// The ways out of sub-interfaces.
    pub outputs: Vec<Option<SubOutput>>,
}

impl InterfaceTables {
    /// One interface.
    #[inline(always)]
    pub fn get(&self, index: SwIfIndex) -> Option<&InterfaceEntry> {
        self.list.get(index.index())
    }
}
