//! What ARP needs to know of the interfaces.

use crate::wire::ethernet::MacAddress;
use crate::wire::ip4::Ip4Prefix;
use std::net::Ipv4Addr;
use wharf_engine::SwIfIndex;

/// One interface.
#[derive(Clone, Debug, Default)]
pub struct ArpInterface {
    /// Its MAC address.
    pub mac: MacAddress,
    /// Its addresses, each with the subnet it is in.
    pub addresses: Vec<(Ipv4Addr, Ip4Prefix)>,
}

impl ArpInterface {
    /// Whether `address` is one of its own.
    pub fn is_own(&self, address: Ipv4Addr) -> bool {
        self.addresses.iter().any(|(own, _)| *own == address)
    }

    /// Whether `address` can be a neighbour's: in a subnet of the interface, and not its own.
    pub fn is_neighbour(&self, address: Ipv4Addr) -> bool {
        !self.is_own(address) && self.addresses.iter().any(|(_, subnet)| subnet.contains(address))
    }
}

/// All interfaces, by `sw_if_index`; one without addresses does not speak ARP.
#[derive(Clone, Debug, Default)]
pub struct ArpTables {
    /// The interfaces.
    pub interfaces: Vec<ArpInterface>,
}

impl ArpTables {
    /// An interface that speaks ARP.
    pub fn get(&self, index: SwIfIndex) -> Option<&ArpInterface> {
        self.interfaces.get(index.index()).filter(|i| !i.addresses.is_empty())
    }
}
