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

    /// Whether `address` can be a neighbour's: a host's in a subnet of the interface, and not its own.
    pub fn is_neighbour(&self, address: Ipv4Addr) -> bool {
        let has = |subnet: &Ip4Prefix| {
            subnet.contains(address) && !subnet.non_hosts().is_some_and(|ends| ends.contains(&address))
        };
        !self.is_own(address) && self.addresses.iter().any(|(_, subnet)| has(subnet))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_are_hosts_of_the_subnet() {
        let on = |own: [u8; 4], len| ArpInterface {
            addresses: vec![(own.into(), Ip4Prefix::clamped(own.into(), len))],
            ..ArpInterface::default()
        };
        let neighbours = |own: [u8; 4], len, last: [u8; 4]| {
            last.map(|last| on(own, len).is_neighbour([10, 0, 0, last].into()))
        };
        assert_eq!(neighbours([10, 0, 0, 1], 24, [0, 1, 2, 255]), [false, false, true, false]);
        assert_eq!(neighbours([10, 0, 0, 4], 31, [3, 4, 5, 6]), [false, false, true, false]);
        assert_eq!(neighbours([10, 0, 0, 4], 32, [3, 4, 5, 255]), [false; 4]);
    }
}
