//! The numbers of routes that are counted one by one.

use std::sync::{Arc, Mutex, PoisonError};
use wharf_engine::counter::MAX_COUNTERS;
use wharf_engine::rcu::Domain;
use wharf_nodes::ip4::{AdjIndex, CountedRoutes};

/// Gives numbers, which `/net/route/to` of the stats segment is by, to routes of all tables.
#[derive(Clone, Debug)]
pub struct RouteNumbers {
    routes: Arc<CountedRoutes>,
    given: Arc<Mutex<Given>>,
}

#[derive(Debug, Default)]
struct Given {
    /// Numbers below this have been given.
    next: u32,
    /// Those that can be given again.
    free: Vec<u32>,
}

impl RouteNumbers {
    /// None given yet.
    pub fn new(routes: Arc<CountedRoutes>) -> RouteNumbers {
        RouteNumbers { routes, given: Arc::default() }
    }

    /// What the workers read.
    pub fn routes(&self) -> &Arc<CountedRoutes> {
        &self.routes
    }

    fn take(&self) -> Option<u32> {
        let mut given = self.given.lock().unwrap_or_else(PoisonError::into_inner);
        given.free.pop().or_else(|| {
            let number = (given.next as usize) < MAX_COUNTERS;
            number.then(|| {
                given.next += 1;
                given.next - 1
            })
        })
    }

    /// The leaf of a new route. When all numbers are given, the route is not counted: the leaf is the adjacency.
    pub(super) fn acquire(&self, adjacency: u32) -> u32 {
        let Some(number) = self.take() else { return adjacency };
        self.routes.counters().ensure(number);
        // No worker has it: it is new, or a grace period has passed.
        self.routes.counters().reset(number);
        self.routes.set(number, AdjIndex(adjacency));
        CountedRoutes::leaf(number).0
    }

    /// Has a route lead elsewhere; returns its leaf.
    pub(super) fn change(&self, leaf: u32, adjacency: u32) -> u32 {
        let Some(number) = CountedRoutes::number(AdjIndex(leaf)) else { return adjacency };
        self.routes.set(number, AdjIndex(adjacency));
        leaf
    }

    /// The route is gone; its number is for use once no worker can still have it.
    pub(super) fn release(&self, leaf: u32, domain: &Domain) {
        let Some(number) = CountedRoutes::number(AdjIndex(leaf)) else { return };
        let given = Arc::clone(&self.given);
        domain.retire(move || given.lock().unwrap_or_else(PoisonError::into_inner).free.push(number));
    }
}
