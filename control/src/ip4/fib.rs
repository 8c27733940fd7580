//! One IPv4 routing table: the routes as asked for, and their compiled form.

use super::RouteNumbers;
use crate::rib::Rib;
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use wharf_engine::SwIfIndex;
use wharf_engine::mtrie::{Mtrie, MtrieError, MtrieWriter};
use wharf_engine::rcu::Domain;
use wharf_nodes::ip4::{AdjIndex, CountedRoutes};
use wharf_nodes::wire::ip4::Ip4Prefix;

/// Routes in a table at most.
pub const MAX_ROUTES: usize = 2 << 20;
/// 1 KiB each: enough for a full Internet table several times over.
const MAX_PLIES: u32 = 512 << 10;

/// Who wants a route. The first in this order wins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RouteSource {
    /// An interface's address.
    Interface,
    /// The operator.
    Cli,
    /// A resolved neighbour.
    Neighbour,
}

/// Where a route leads, as it was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Via {
    /// To a neighbour on an interface.
    NextHop(Ipv4Addr, SwIfIndex),
    /// Into the subnet on an interface.
    Attached(SwIfIndex),
    /// To us.
    Local(SwIfIndex),
    /// Nowhere.
    Drop,
    /// To the host.
    Punt,
}

impl Via {
    /// The interface that it needs.
    pub fn interface(&self) -> Option<SwIfIndex> {
        match self {
            Via::NextHop(_, i) | Via::Attached(i) | Via::Local(i) => Some(*i),
            Via::Drop | Via::Punt => None,
        }
    }
}

/// One way of one source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Way {
    /// Who wants it.
    pub source: RouteSource,
    /// Where it leads.
    pub via: Via,
    /// Its adjacency.
    pub adjacency: u32,
}

/// All ways to a prefix, the one in force first.
#[derive(Clone, Debug)]
pub struct Route {
    best: Way,
    /// What the compiled form has for the prefix: the adjacency of that way, or the route's number.
    leaf: u32,
    others: Box<[Way]>,
}

impl Route {
    /// The way in force.
    pub fn best(&self) -> &Way {
        &self.best
    }

    /// Its number, if it is counted by itself.
    pub fn number(&self) -> Option<u32> {
        CountedRoutes::number(AdjIndex(self.leaf))
    }

    /// All ways.
    pub fn ways(&self) -> impl Iterator<Item = &Way> {
        std::iter::once(&self.best).chain(self.others.iter())
    }
}

/// A routing table.
#[derive(Debug)]
pub struct Fib {
    /// Number in the workers' list of tables.
    pub index: u32,
    rib: Rib<Route>,
    /// How many ways need an interface: most are needed by none of a million routes.
    uses: BTreeMap<SwIfIndex, usize>,
    writer: Arc<Mutex<MtrieWriter>>,
    domain: Arc<Domain>,
    /// For routes that are counted one by one.
    numbers: Option<RouteNumbers>,
}

impl Fib {
    /// An empty table; with numbers, its routes are counted one by one.
    pub fn new(index: u32, domain: &Arc<Domain>, numbers: Option<RouteNumbers>) -> Fib {
        let writer = Arc::new(Mutex::new(MtrieWriter::new(MAX_PLIES)));
        Fib { index, rib: Rib::new(), uses: BTreeMap::new(), writer, domain: Arc::clone(domain), numbers }
    }

    fn writer(&self) -> MutexGuard<'_, MtrieWriter> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The compiled form.
    pub fn compiled(&self) -> Arc<Mtrie> {
        Arc::clone(self.writer().table())
    }

    /// The routes.
    pub fn routes(&self) -> &Rib<Route> {
        &self.rib
    }

    /// Bytes of the compiled form and of the routes.
    pub fn memory_bytes(&self) -> (usize, usize) {
        (self.writer().memory_bytes(), self.rib.memory_bytes())
    }

    /// Adds a way or replaces the one of the same source; returns the adjacency that is no longer used by it.
    ///
    /// Errors: the compiled table is full; nothing has changed then.
    pub fn insert(&mut self, prefix: Ip4Prefix, way: Way) -> Result<Option<u32>, MtrieError> {
        let Some(route) = self.rib.get(prefix) else {
            let leaf = self.numbers.as_ref().map_or(way.adjacency, |numbers| numbers.acquire(way.adjacency));
            let inserted = self.writer().insert(prefix.to_bits(), prefix.len(), leaf);
            if let Err(full) = inserted {
                self.release(leaf);
                return Err(full);
            }
            self.rib.insert(prefix, Route { best: way, leaf, others: Box::default() });
            self.count(way.via, true);
            return Ok(None);
        };
        let mut ways: Vec<Way> = route.ways().copied().collect();
        let replaced = ways.iter().position(|w| w.source == way.source).map(|i| ways.remove(i));
        ways.push(way);
        self.set(prefix, ways)?;
        self.count(way.via, true);
        if let Some(old) = replaced {
            self.count(old.via, false);
        }
        Ok(replaced.map(|old| old.adjacency))
    }

    /// Removes the way of a source; returns it.
    pub fn remove(&mut self, prefix: Ip4Prefix, source: RouteSource) -> Option<Way> {
        let route = self.rib.get(prefix)?;
        let leaf = route.leaf;
        let mut ways: Vec<Way> = route.ways().copied().collect();
        let removed = ways.iter().position(|w| w.source == source).map(|i| ways.remove(i))?;
        if ways.is_empty() {
            let covering = self.rib.covering(prefix).map(|(p, r)| (p.len(), r.leaf));
            self.rib.remove(prefix);
            let retired = {
                let mut writer = self.writer();
                writer.remove(prefix.to_bits(), prefix.len(), covering);
                writer.take_retired()
            };
            self.release(leaf);
            if !retired.is_empty() {
                let writer = Arc::clone(&self.writer);
                self.domain.retire(move || {
                    writer.lock().unwrap_or_else(PoisonError::into_inner).reclaim(retired);
                });
            }
        } else {
            // The prefix is there already, so the compiled table cannot be too full to change its value.
            let changed = self.set(prefix, ways);
            debug_assert!(changed.is_ok());
        }
        self.count(removed.via, false);
        Some(removed)
    }

    fn release(&self, leaf: u32) {
        if let Some(numbers) = &self.numbers {
            numbers.release(leaf, &self.domain);
        }
    }

    fn count(&mut self, via: Via, more: bool) {
        let Some(interface) = via.interface() else { return };
        let uses = self.uses.entry(interface).or_default();
        *uses = if more { *uses + 1 } else { uses.saturating_sub(1) };
        if *uses == 0 {
            self.uses.remove(&interface);
        }
    }

    /// The ways that need an interface.
    pub fn through(&self, interface: SwIfIndex) -> impl Iterator<Item = (Ip4Prefix, RouteSource)> {
        let count = self.uses.get(&interface).copied().unwrap_or_default();
        let ways = self.rib.iter().flat_map(|(prefix, route)| route.ways().map(move |way| (prefix, *way)));
        let needing = ways.filter(move |(_, way)| way.via.interface() == Some(interface));
        needing.map(|(prefix, way)| (prefix, way.source)).take(count)
    }

    /// Looks at up to `most` routes behind a place: those that a source wants through an interface, and the place to go on from; none at
    /// the end, or when no route needs the interface.
    pub fn through_after(
        &self,
        interface: SwIfIndex,
        source: RouteSource,
        last: Option<Ip4Prefix>,
        most: usize,
    ) -> (Vec<Ip4Prefix>, Option<Ip4Prefix>) {
        if !self.uses.contains_key(&interface) {
            return (Vec::new(), None);
        }
        let needs = |way: &Way| way.source == source && way.via.interface() == Some(interface);
        let (mut found, mut to) = (Vec::new(), None);
        for (prefix, route) in self.rib.iter_after(last).take(most) {
            to = Some(prefix);
            if route.ways().any(needs) {
                found.push(prefix);
            }
        }
        (found, to)
    }

    fn set(&mut self, prefix: Ip4Prefix, mut ways: Vec<Way>) -> Result<(), MtrieError> {
        ways.sort_by_key(|w| w.source);
        let best = ways.remove(0);
        let before = self.rib.get(prefix).map(|route| route.leaf);
        let leaf = match (&self.numbers, before) {
            (Some(numbers), Some(leaf)) => numbers.change(leaf, best.adjacency),
            _ => best.adjacency,
        };
        if before != Some(leaf) {
            self.writer().insert(prefix.to_bits(), prefix.len(), leaf)?;
        }
        self.rib.insert(prefix, Route { best, leaf, others: ways.into() });
        Ok(())
    }
}

impl Way {
    /// A way.
    pub fn new(source: RouteSource, via: Via, adjacency: u32) -> Way {
        Way { source, via, adjacency }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wharf_engine::counter::{Combined, Count};

    fn prefix(text: &str) -> Ip4Prefix {
        text.parse().unwrap()
    }

    #[test]
    fn the_first_source_wins_and_the_next_takes_over() {
        let domain = Domain::new(0);
        let mut fib = Fib::new(0, &domain, None);
        let at = |a: [u8; 4]| u32::from_be_bytes(a);
        let way = |source, adjacency| Way::new(source, Via::Drop, adjacency);
        fib.insert(prefix("10.0.0.0/8"), way(RouteSource::Cli, 1)).unwrap();
        fib.insert(prefix("10.1.0.0/16"), way(RouteSource::Cli, 2)).unwrap();
        fib.insert(prefix("10.1.0.0/16"), way(RouteSource::Interface, 3)).unwrap();
        let table = fib.compiled();
        assert_eq!(table.lookup(at([10, 1, 2, 3])), 3);
        assert_eq!(fib.insert(prefix("10.1.0.0/16"), way(RouteSource::Cli, 4)).unwrap(), Some(2));
        assert_eq!(table.lookup(at([10, 1, 2, 3])), 3);
        assert_eq!(fib.remove(prefix("10.1.0.0/16"), RouteSource::Interface).unwrap().adjacency, 3);
        assert_eq!(table.lookup(at([10, 1, 2, 3])), 4);
        assert!(fib.remove(prefix("10.1.0.0/16"), RouteSource::Interface).is_none());
        fib.remove(prefix("10.1.0.0/16"), RouteSource::Cli).unwrap();
        assert_eq!(table.lookup(at([10, 1, 2, 3])), 1);
        assert_eq!(fib.through(SwIfIndex(7)).count(), 0);
        fib.insert(prefix("10.2.0.0/16"), Way::new(RouteSource::Cli, Via::Attached(SwIfIndex(7)), 5))
            .unwrap();
        assert!(fib.through(SwIfIndex(7)).eq([(prefix("10.2.0.0/16"), RouteSource::Cli)]));
        fib.insert(prefix("10.2.0.0/16"), Way::new(RouteSource::Cli, Via::Attached(SwIfIndex(8)), 6))
            .unwrap();
        assert_eq!([7, 8].map(|i| fib.through(SwIfIndex(i)).count()), [0, 1]);
        let from = |last| fib.through_after(SwIfIndex(8), RouteSource::Cli, last, 1);
        assert_eq!(from(None), (vec![], Some(prefix("10.0.0.0/8"))));
        assert_eq!(
            from(Some(prefix("10.0.0.0/8"))),
            (vec![prefix("10.2.0.0/16")], Some(prefix("10.2.0.0/16")))
        );
        assert_eq!(from(Some(prefix("10.2.0.0/16"))), (vec![], None));
        assert_eq!(fib.through_after(SwIfIndex(7), RouteSource::Cli, None, 1), (vec![], None));
        fib.remove(prefix("10.2.0.0/16"), RouteSource::Cli).unwrap();
        assert!(fib.uses.is_empty());
        fib.remove(prefix("10.0.0.0/8"), RouteSource::Cli).unwrap();
        assert_eq!(table.lookup(at([10, 1, 2, 3])), 0);
        assert!(fib.routes().is_empty());
    }

    #[test]
    fn a_counted_route_keeps_its_number_and_gives_it_back_after_a_grace_period() {
        let domain = Domain::new(0);
        let routes = Arc::new(CountedRoutes::new(Combined::new(1)));
        let numbers = RouteNumbers::new(Arc::clone(&routes));
        let mut fib = Fib::new(0, &domain, Some(numbers));
        let leads = |fib: &Fib, a: [u8; 4]| {
            let leaf = AdjIndex(fib.compiled().lookup(u32::from_be_bytes(a)));
            (CountedRoutes::number(leaf), routes.resolve(leaf).0)
        };
        let way = |source, adjacency| Way::new(source, Via::Drop, adjacency);
        fib.insert(prefix("10.0.0.0/8"), way(RouteSource::Cli, 7)).unwrap();
        fib.insert(prefix("10.1.0.0/16"), way(RouteSource::Cli, 7)).unwrap();
        assert_eq!(leads(&fib, [10, 0, 0, 1]), (Some(0), 7));
        assert_eq!(leads(&fib, [10, 1, 0, 1]), (Some(1), 7));
        // Another way, a better one, and back.
        fib.insert(prefix("10.1.0.0/16"), way(RouteSource::Cli, 8)).unwrap();
        assert_eq!(leads(&fib, [10, 1, 0, 1]), (Some(1), 8));
        fib.insert(prefix("10.1.0.0/16"), way(RouteSource::Interface, 9)).unwrap();
        assert_eq!(leads(&fib, [10, 1, 0, 1]), (Some(1), 9));
        fib.remove(prefix("10.1.0.0/16"), RouteSource::Interface).unwrap();
        assert_eq!(leads(&fib, [10, 1, 0, 1]), (Some(1), 8));
        // Gone: its addresses are the other's, which counts on by its number.
        routes.counters().add(wharf_engine::WorkerIndex(0), 1, 5, 500);
        fib.remove(prefix("10.1.0.0/16"), RouteSource::Cli).unwrap();
        assert_eq!(leads(&fib, [10, 1, 0, 1]), (Some(0), 7));
        domain.reclaim();
        fib.insert(prefix("11.0.0.0/8"), way(RouteSource::Cli, 6)).unwrap();
        assert_eq!(leads(&fib, [11, 0, 0, 1]), (Some(1), 6));
        assert_eq!(routes.counters().get(1), Count::default(), "a new route counts from zero");
    }
}
