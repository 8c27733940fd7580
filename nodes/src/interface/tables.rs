//! The table of interfaces.

use crate::wire::ethernet::MacAddress;
use wharf_engine::SwIfIndex;

/// What an interface does with the frames that it receives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum L2Mode {
    /// They go to the protocol of their EtherType.
    #[default]
    L3,
    /// They go out of another interface, unchanged.
    Xconnect(SwIfIndex),
}

/// One interface.
#[derive(Clone, Debug, Default)]
pub struct InterfaceEntry {
    /// Whether there is such an interface and it is administratively up.
    pub up: bool,
    /// What becomes of received frames.
    pub mode: L2Mode,
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
}

impl InterfaceTables {
    /// One interface.
    #[inline(always)]
    pub fn get(&self, index: SwIfIndex) -> Option<&InterfaceEntry> {
        self.list.get(index.index())
    }
}
