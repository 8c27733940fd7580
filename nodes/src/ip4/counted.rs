//! Routes that are counted one by one.

use super::AdjIndex;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use wharf_engine::counter::{Combined, MAX_COUNTERS};
use wharf_engine::mtrie::MAX_VALUE;

/// Set in the leaf of a counted route; the rest is the route's number.
const COUNTED: u32 = (MAX_VALUE >> 1) + 1;
const _: () = assert!(MAX_COUNTERS < COUNTED as usize && COUNTED < MAX_VALUE);
/// Routes in a page of the map.
const PAGE: usize = 4096;

/// Where each counted route leads, and the packets and bytes that took it.
///
/// The leaf of other routes is an adjacency, which all routes to one place share. That of a counted route is its number here: no adjacency
/// has it, so `ip4-lookup` sees with the look at the adjacency that it is one, and those who don't count pay nothing.
#[derive(Debug)]
pub struct CountedRoutes {
    /// By number, in pages that are made as they are needed.
    adjacencies: Box<[OnceLock<Box<[AtomicU32]>>]>,
    counters: Combined,
}

impl CountedRoutes {
    /// No route yet; counted there.
    pub fn new(counters: Combined) -> CountedRoutes {
        let adjacencies = (0..MAX_COUNTERS / PAGE).map(|_| OnceLock::new()).collect();
        CountedRoutes { adjacencies, counters }
    }

    /// Packets and bytes, by number.
    pub fn counters(&self) -> &Combined {
        &self.counters
    }

    /// The leaf of route `number`, which is below [`MAX_COUNTERS`].
    pub fn leaf(number: u32) -> AdjIndex {
        AdjIndex(number | COUNTED)
    }

    /// The number of the counted route that a leaf is of, if it is.
    pub fn number(leaf: AdjIndex) -> Option<u32> {
        (leaf.0 & COUNTED != 0).then_some(leaf.0 & !COUNTED)
    }

    /// Where route `number` leads from now on. The control plane calls it, with adjacencies that the workers have.
    pub fn set(&self, number: u32, adjacency: AdjIndex) {
        let page = self.adjacencies.get(number as usize / PAGE).map(|page| {
            page.get_or_init(|| (0..PAGE).map(|_| AtomicU32::new(AdjIndex::NO_ROUTE.0)).collect())
        });
        if let Some(slot) = page.and_then(|page| page.get(number as usize % PAGE)) {
            slot.store(adjacency.0, Ordering::Release);
        }
    }

    /// The adjacency that a leaf leads to: its own, or its route's.
    pub fn resolve(&self, leaf: AdjIndex) -> AdjIndex {
        let Some(number) = CountedRoutes::number(leaf) else { return leaf };
        let page = self.adjacencies.get(number as usize / PAGE).and_then(OnceLock::get);
        let slot = page.and_then(|page| page.get(number as usize % PAGE));
        slot.map_or(AdjIndex::NO_ROUTE, |slot| AdjIndex(slot.load(Ordering::Acquire)))
    }
}
