//! The IPv4 addresses of interfaces, and the routes that come with them.

use super::{RouteSource, Via};
use crate::dataplane::{Dataplane, OpError};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use wharf_engine::SwIfIndex;
use wharf_nodes::wire::ip4::Ip4Prefix;

impl Dataplane {
    /// Gives an interface an address: with it come the routes to the subnet and to itself.
    pub fn add_address(&mut self, index: SwIfIndex, address: Ipv4Addr, len: u8) -> Result<(), OpError> {
        let bad = address.is_unspecified()
            || address.is_multicast()
            || address.is_broadcast()
            || address.is_loopback();
        if bad || !(1..=32).contains(&len) {
            let why = format!("{address}/{len} is not an address for an interface");
            return OpError::parameter("prefix", why);
        }
        let record = self.record_mut(index)?;
        if record.sub.is_some() && record.own_tags().is_none() {
            let why = format!("{} does not match its tags exactly, so it cannot have addresses", record.name);
            return OpError::parameter("interface", why);
        }
        if record.mode.is_l2() && !record.mode.is_bvi() {
            let name = record.name.clone();
            let why = format!("{name} is in L2 mode; `set interface l3 {name}' first");
            return OpError::parameter("interface", why);
        }
        let (table, subnet) = (record.table, Ip4Prefix::clamped(address, len));
        for (other, interface) in &self.interfaces {
            let overlaps = |(a, l): &&(Ipv4Addr, u8)| {
                let taken = Ip4Prefix::clamped(*a, *l);
                *a == address || *other != index && (taken.covers(subnet) || subnet.covers(taken))
            };
            if interface.table == table
                && let Some((a, l)) = interface.addresses.iter().find(overlaps)
            {
                let why = format!("{address}/{len} is in conflict with {a}/{l} of {}", interface.name);
                return OpError::parameter("prefix", why);
            }
        }
        let addresses = [&self.record(index)?.addresses[..], &[(address, len)]].concat();
        self.set_addresses(index, addresses)?;
        self.announce(index);
        Ok(())
    }

    /// Takes an address from an interface, with its routes and the neighbours in its subnet.
    pub fn delete_address(&mut self, index: SwIfIndex, address: Ipv4Addr, len: u8) -> Result<(), OpError> {
        let record = self.record_mut(index)?;
        let mut addresses = record.addresses.clone();
        let Some(at) = addresses.iter().position(|a| *a == (address, len)) else {
            let why = format!("{} has no address {address}/{len}", record.name);
            return OpError::parameter("prefix", why);
        };
        addresses.remove(at);
        let subnet = Ip4Prefix::clamped(address, len);
        let still = addresses.iter().any(|(a, l)| Ip4Prefix::clamped(*a, *l) == subnet);
        let gone: Vec<Ipv4Addr> =
            self.neighbours.on(index).map(|(a, _)| a).filter(|a| !still && subnet.contains(*a)).collect();
        gone.into_iter().for_each(|a| self.forget_neighbour(index, a));
        self.set_addresses(index, addresses)
    }

    /// Sets an interface's addresses and the routes that come with them, or changes nothing.
    fn set_addresses(&mut self, index: SwIfIndex, addresses: Vec<(Ipv4Addr, u8)>) -> Result<(), OpError> {
        let record = self.record(index)?;
        let (table, old) = (record.table, connected_routes(index, &record.addresses));
        let new = connected_routes(index, &addresses);
        if let Err(error) = self.change_routes(table, &old, &new) {
            self.change_routes(table, &new, &old)?;
            return Err(error);
        }
        self.record_mut(index)?.addresses = addresses;
        self.publish();
        Ok(())
    }

    /// From the routes of an interface's old addresses to those of its new ones.
    fn change_routes(
        &mut self,
        table: u32,
        old: &ConnectedRoutes,
        new: &ConnectedRoutes,
    ) -> Result<(), OpError> {
        for (prefix, via) in new.iter().filter(|(prefix, via)| old.get(prefix) != Some(via)) {
            self.add_route(table, *prefix, RouteSource::Interface, *via)?;
        }
        for prefix in old.keys().filter(|prefix| !new.contains_key(prefix)) {
            // Gone already when what failed half way is taken back.
            let _ = self.delete_route(table, *prefix, RouteSource::Interface);
        }
        Ok(())
    }
}

/// What an interface's addresses put into its table.
type ConnectedRoutes = BTreeMap<Ip4Prefix, Via>;

/// The subnets and the addresses themselves. What is sent to a subnet's first address or to its broadcast address goes
/// nowhere: "a router MUST NOT forward network-directed broadcasts" unless told to (RFC 2644; RFC 1812 section 5.3.5.2).
fn connected_routes(index: SwIfIndex, addresses: &[(Ipv4Addr, u8)]) -> ConnectedRoutes {
    let subnets = || addresses.iter().map(|(a, len)| Ip4Prefix::clamped(*a, *len));
    let mut routes = ConnectedRoutes::new();
    let ends = subnets().filter_map(Ip4Prefix::non_hosts).flatten();
    routes.extend(ends.map(|end| (Ip4Prefix::host(end), Via::Drop)));
    routes.extend(subnets().map(|subnet| (subnet, Via::Attached(index))));
    routes.extend(addresses.iter().map(|(own, _)| (Ip4Prefix::host(*own), Via::Local(index))));
    routes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_that_come_with_addresses() {
        let index = SwIfIndex(7);
        let routes = |addresses: &[([u8; 4], u8)]| -> Vec<(String, Via)> {
            let addresses: Vec<_> = addresses.iter().map(|(a, len)| (Ipv4Addr::from(*a), *len)).collect();
            let routes = connected_routes(index, &addresses);
            routes.into_iter().map(|(prefix, via)| (prefix.to_string(), via)).collect()
        };
        let (local, attached) = (Via::Local(index), Via::Attached(index));
        let list =
            |list: &[(&str, Via)]| list.iter().map(|(p, via)| (p.to_string(), *via)).collect::<Vec<_>>();
        assert_eq!(
            routes(&[([10, 0, 0, 1], 24)]),
            list(&[
                ("10.0.0.0/24", attached),
                ("10.0.0.0/32", Via::Drop),
                ("10.0.0.1/32", local),
                ("10.0.0.255/32", Via::Drop),
            ])
        );
        assert_eq!(
            routes(&[([10, 0, 0, 0], 31)]),
            list(&[("10.0.0.0/31", attached), ("10.0.0.0/32", local)])
        );
        assert_eq!(routes(&[([10, 0, 0, 9], 32)]), list(&[("10.0.0.9/32", local)]));
        // An own address is ours also where another subnet ends.
        assert_eq!(
            routes(&[([10, 0, 0, 1], 30), ([10, 0, 0, 3], 32)]),
            list(&[
                ("10.0.0.0/30", attached),
                ("10.0.0.0/32", Via::Drop),
                ("10.0.0.1/32", local),
                ("10.0.0.3/32", local),
            ])
        );
    }
}
