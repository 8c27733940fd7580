//! Operations on IPv4 tables, routes and neighbours, and the adjacencies that come of them.

use super::{
    AdjacencyKey, Fib, MAX_ROUTES, Neighbour, NeighbourState, Route, RouteNumbers, RouteSource, Via,
};
use crate::config::Object;
use crate::dataplane::{Dataplane, OpError};
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use wharf_engine::SwIfIndex;
use wharf_engine::counter::{Combined, Count, MAX_COUNTERS};
use wharf_nodes::ip4::{Adjacency, AdjacencyKind, CountedRoutes};
use wharf_nodes::wire::ethernet::{EtherType, EthernetHeader, MacAddress};
use wharf_nodes::wire::ip4::Ip4Prefix;
use zerocopy::IntoBytes;

impl Dataplane {
    fn make_adjacency(&self, key: AdjacencyKey) -> Adjacency {
        let on = |interface: SwIfIndex| {
            let record = self.interfaces.get(&interface);
            let mut adjacency =
                Adjacency { tx: interface, mtu: record.map_or(0, |r| r.mtu), ..Adjacency::default() };
            if record.is_some_and(|r| r.point_to_point) {
                adjacency.kind = AdjacencyKind::PointToPoint;
            } else {
                adjacency.kind = AdjacencyKind::Arp;
            }
            adjacency
        };
        match key {
            AdjacencyKey::Drop => Adjacency { kind: AdjacencyKind::Drop, ..Adjacency::default() },
            AdjacencyKey::Punt => Adjacency { kind: AdjacencyKind::Punt, ..Adjacency::default() },
            AdjacencyKey::Local => Adjacency { kind: AdjacencyKind::Local, ..Adjacency::default() },
            AdjacencyKey::Glean(interface) => on(interface),
            AdjacencyKey::Neighbour(interface, address) => {
                let mut adjacency = on(interface);
                adjacency.next_hop = address.to_bits();
                if adjacency.kind == AdjacencyKind::Arp {
                    self.complete(&mut adjacency, interface, address);
                }
                adjacency
            }
        }
    }

    /// Fills an adjacency's header in if the neighbour is known.
    fn complete(&self, adjacency: &mut Adjacency, interface: SwIfIndex, address: Ipv4Addr) {
        let resolved = |n: &&Neighbour| n.state != NeighbourState::Incomplete;
        let known = match address.is_multicast() {
            // RFC 1112 section 6.4: nobody has to be asked.
            true => Some(MacAddress::ip4_multicast(address)),
            false => self.neighbours.get(interface, address).filter(resolved).map(|n| n.mac),
        };
        let own = self.interfaces.get(&interface).map_or(MacAddress::ZERO, |i| i.mac);
        match known {
            Some(mac) => {
                let header = EthernetHeader::new(mac, own, EtherType::IP4);
                adjacency.rewrite.copy_from_slice(header.as_bytes());
                adjacency.kind = AdjacencyKind::Rewrite;
            }
            None => adjacency.kind = AdjacencyKind::Arp,
        }
    }

    pub(crate) fn adjacency_key(via: Via) -> AdjacencyKey {
        match via {
            Via::NextHop(address, interface) => AdjacencyKey::Neighbour(interface, address),
            Via::Attached(interface) => AdjacencyKey::Glean(interface),
            Via::Local(_) => AdjacencyKey::Local,
            Via::Drop => AdjacencyKey::Drop,
            Via::Punt => AdjacencyKey::Punt,
        }
    }

    /// Takes a reference on the adjacency of a way, which is made if it is not there.
    pub(crate) fn acquire(&mut self, via: Via) -> Result<u32, OpError> {
        let key = Self::adjacency_key(via);
        if let Some(index) = self.adjacencies.find(key) {
            self.adjacencies.acquire(key, Adjacency::default);
            return Ok(index);
        }
        let entry = self.make_adjacency(key);
        match self.adjacencies.acquire(key, || entry) {
            Some(index) => Ok(index),
            None => OpError::refused("too many adjacencies"),
        }
    }

    fn fib_mut(&mut self, table: u32) -> Result<&mut Fib, OpError> {
        match self.fibs.get_mut(&table) {
            Some(fib) => Ok(fib),
            None => OpError::parameter("table", format!("there is no IPv4 table {table}")),
        }
    }

    /// Adds a route, or replaces the one that the same source had.
    pub fn add_route(
        &mut self,
        table: u32,
        prefix: Ip4Prefix,
        source: RouteSource,
        via: Via,
    ) -> Result<(), OpError> {
        self.touch_route(table, prefix, source);
        if self.fib_mut(table)?.routes().len() >= MAX_ROUTES {
            return OpError::parameter("prefix", format!("table {table} has {MAX_ROUTES} routes already"));
        }
        let adjacency = self.acquire(via)?;
        if self.adjacencies.has_new() {
            self.publish_adjacencies_now();
        }
        let way = crate::ip4::Way::new(source, via, adjacency);
        match self.fib_mut(table)?.insert(prefix, way) {
            Ok(replaced) => {
                if let Some(old) = replaced {
                    self.adjacencies.release(old, self.engine.domain());
                }
                Ok(())
            }
            Err(error) => {
                self.adjacencies.release(adjacency, self.engine.domain());
                OpError::parameter("prefix", error.to_string())
            }
        }
    }

    fn touch_route(&mut self, table: u32, prefix: Ip4Prefix, source: RouteSource) {
        if source == RouteSource::Cli {
            self.changes.touch(Object::Route(table, prefix));
        }
    }

    /// Removes a source's route; the packets on their way along it arrive.
    pub fn delete_route(
        &mut self,
        table: u32,
        prefix: Ip4Prefix,
        source: RouteSource,
    ) -> Result<(), OpError> {
        self.touch_route(table, prefix, source);
        match self.fib_mut(table)?.remove(prefix, source) {
            Some(way) => {
                self.adjacencies.release(way.adjacency, self.engine.domain());
                Ok(())
            }
            None => {
                OpError::parameter("prefix", format!("there is no such route to {prefix} in table {table}"))
            }
        }
    }

    /// The interface through whose subnet `next_hop` is reached.
    pub fn resolve(&self, table: u32, next_hop: Ipv4Addr) -> Option<SwIfIndex> {
        let (_, route) = self.fibs.get(&table)?.routes().lookup(next_hop)?;
        route.ways().find_map(|way| match way.via {
            Via::Attached(interface) | Via::NextHop(_, interface) => Some(interface),
            _ => None,
        })
    }

    /// Creates an empty table, or says that it is there.
    pub fn add_table(&mut self, table: u32) -> Result<(), OpError> {
        if self.fibs.contains_key(&table) {
            return Ok(());
        }
        if self.fibs.len() >= 4096 {
            return OpError::parameter("table", "there are 4096 IPv4 tables already");
        }
        let index = self.fibs.len() as u32;
        self.changes.touch(Object::Table(table));
        self.fibs.insert(table, Fib::new(index, self.engine.domain(), self.route_numbers.clone()));
        self.publish();
        Ok(())
    }

    /// Deletes a table without routes and interfaces. Table 0 stays.
    pub fn delete_table(&mut self, table: u32) -> Result<(), OpError> {
        if table == 0 {
            return OpError::parameter("table", "table 0 cannot be deleted");
        }
        let routes = self.fib_mut(table)?.routes().len();
        if routes != 0 {
            return OpError::parameter("table", format!("table {table} still has {routes} routes"));
        }
        if let Some(index) = self.vxlan.list.iter().find(|(_, t)| t.table == table).map(|(i, _)| *i) {
            return OpError::refused(format!("table {table} is used by {}", self.interface_name(index)));
        }
        if let Some(user) = self.interfaces.values().find(|i| i.table == table) {
            return OpError::parameter("table", format!("table {table} is used by {}", user.name));
        }
        self.changes.touch(Object::Table(table));
        self.fibs.remove(&table);
        for (index, fib) in self.fibs.values_mut().enumerate() {
            fib.index = index as u32;
        }
        self.publish();
        Ok(())
    }

    /// Has routes counted one by one, in `/net/route/to` of the stats segment, as VPP counts them. For a start: table 0 begins anew.
    ///
    /// # Errors
    /// The segment has no room.
    pub fn count_routes(&mut self) -> Result<(), OpError> {
        let no_memory = |error| OpError::System("no memory for counters of routes".into(), error);
        let stats = self.engine.stats();
        let counters = Combined::within(stats.segment(), self.engine.workers(), MAX_COUNTERS, 2);
        let counters = counters.map_err(no_memory)?;
        let shown = counters.table().and_then(|table| stats.table("/net/route/to", table));
        shown.ok_or(std::io::ErrorKind::OutOfMemory.into()).map_err(no_memory)?;
        let numbers = RouteNumbers::new(Arc::new(CountedRoutes::new(counters)));
        self.fibs.insert(0, Fib::new(0, self.engine.domain(), Some(numbers.clone())));
        self.route_numbers = Some(numbers);
        self.publish();
        Ok(())
    }

    /// Whether routes are counted one by one, and by what numbers.
    pub fn route_numbers(&self) -> Option<&RouteNumbers> {
        self.route_numbers.as_ref()
    }

    /// Where a route is counted: its number in `/net/route/to` when routes are counted one by one, its adjacency's in `/net/adjacency`
    /// otherwise; `None` for a route beyond those that can be counted.
    pub fn stats_index(&self, route: &Route) -> Option<u32> {
        match &self.route_numbers {
            Some(_) => route.number(),
            None => Some(route.best().adjacency),
        }
    }

    /// Packets and bytes of a route, or of all routes to the same place, as [`Dataplane::stats_index`] has it.
    pub fn route_count(&self, route: &Route) -> Count {
        let index = self.stats_index(route);
        match (&self.route_numbers, index) {
            (_, None) => Count::default(),
            (Some(numbers), Some(number)) => numbers.routes().counters().get(number),
            (None, Some(adjacency)) => self.adjacencies.counters().get(adjacency),
        }
    }

    /// The table that an interface is in.
    pub(crate) fn table_of(&self, interface: SwIfIndex) -> u32 {
        self.interfaces.get(&interface).map_or(0, |i| i.table)
    }

    /// Sets after how many seconds a learned neighbour is asked whether it is still there; 0 is never.
    pub fn set_neighbour_age(&mut self, seconds: u32) {
        self.changes.touch(Object::Settings);
        self.neighbours.age = (seconds != 0).then(|| Duration::from_secs(seconds.into()));
    }

    /// Records a neighbour; with a host route if `in_fib` and its subnet is connected.
    pub fn set_neighbour(
        &mut self,
        interface: SwIfIndex,
        address: Ipv4Addr,
        mac: MacAddress,
        fixed: bool,
        in_fib: bool,
        now: Instant,
    ) -> Result<(), OpError> {
        if mac.is_multicast() || mac.is_zero() {
            return OpError::parameter("mac", format!("{mac} is not the address of a neighbour"));
        }
        if self.interfaces.get(&interface).is_some_and(|i| i.point_to_point) {
            let name = self.interface_name(interface);
            let why = format!("{name} is in IP mode: it has one peer and no neighbours");
            return OpError::parameter("interface", why);
        }
        if fixed {
            self.changes.touch(Object::Neighbour(interface, address));
        }
        let changed = match self.neighbours.set(interface, address, mac, fixed, now) {
            Ok(changed) => changed,
            Err(error) => return OpError::parameter("ip4", error.to_string()),
        };
        if !changed {
            return Ok(());
        }
        self.refresh_adjacency(interface, address);
        let connected = self.interfaces.get(&interface).is_some_and(|i| i.can_arp(address));
        let known = self.neighbours.get(interface, address).is_some_and(|n| n.in_fib);
        if in_fib && connected && !known {
            let table = self.table_of(interface);
            let via = Via::NextHop(address, interface);
            self.add_route(table, Ip4Prefix::host(address), RouteSource::Neighbour, via)?;
            self.neighbours.set_in_fib(interface, address, true);
        }
        self.publish_adjacencies();
        // Packets that wait for this neighbour are held by workers that may be asleep.
        self.engine.wake_workers();
        Ok(())
    }

    fn refresh_adjacency(&mut self, interface: SwIfIndex, address: Ipv4Addr) {
        let key = AdjacencyKey::Neighbour(interface, address);
        if let Some(index) = self.adjacencies.find(key) {
            let entry = self.make_adjacency(key);
            self.adjacencies.change(index, |old| *old = entry);
        }
    }

    /// Fills all adjacencies of an interface anew: its MAC address or MTU changed.
    pub(crate) fn refresh_interface(&mut self, interface: SwIfIndex) {
        let of = |key: &AdjacencyKey| match key {
            AdjacencyKey::Neighbour(i, _) | AdjacencyKey::Glean(i) => *i == interface,
            _ => false,
        };
        let list: Vec<_> = self.adjacencies.iter().filter(|(_, key)| of(key)).collect();
        for (index, key) in list {
            let entry = self.make_adjacency(key);
            self.adjacencies.change(index, |old| *old = entry);
        }
    }

    /// Forgets a neighbour and its host route.
    pub fn forget_neighbour(&mut self, interface: SwIfIndex, address: Ipv4Addr) {
        let Some(neighbour) = self.neighbours.remove(interface, address) else { return };
        if neighbour.state == NeighbourState::Static {
            self.changes.touch(Object::Neighbour(interface, address));
        }
        if neighbour.in_fib {
            let table = self.table_of(interface);
            let gone = self.delete_route(table, Ip4Prefix::host(address), RouteSource::Neighbour);
            debug_assert!(gone.is_ok());
        }
        self.refresh_adjacency(interface, address);
        self.publish_adjacencies();
    }

    /// Every route of every table that needs `interface`.
    pub(crate) fn routes_through(&self, interface: SwIfIndex) -> Vec<(u32, Ip4Prefix, RouteSource)> {
        let of = |(table, fib): (&u32, &Fib)| -> Vec<_> {
            fib.through(interface).map(|(prefix, source)| (*table, prefix, source)).collect()
        };
        self.fibs.iter().flat_map(of).collect()
    }
}
