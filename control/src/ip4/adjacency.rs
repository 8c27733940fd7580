//! The adjacencies: one entry per distinct place that packets can go to, shared by all routes that lead there.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, PoisonError};
use wharf_engine::SwIfIndex;
use wharf_engine::counter::{Combined, MAX_COUNTERS};
use wharf_engine::rcu::Domain;
use wharf_nodes::ip4::{Adjacency, AdjacencyKind};

/// What an adjacency is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum AdjacencyKey {
    /// Drop.
    Drop,
    /// One of our own addresses.
    Local,
    /// The host.
    Punt,
    /// A connected subnet: the neighbour is the packet's destination.
    Glean(SwIfIndex),
    /// A neighbour.
    Neighbour(SwIfIndex, Ipv4Addr),
}

#[derive(Debug, Default)]
struct Slot {
    key: Option<AdjacencyKey>,
    routes: u32,
}

/// All adjacencies. Index 0 is "no route" and never changes.
#[derive(Debug)]
pub struct AdjacencyTable {
    slots: Vec<Slot>,
    entries: Vec<Adjacency>,
    by_key: HashMap<AdjacencyKey, u32>,
    free: Arc<Mutex<Vec<u32>>>,
    counters: Arc<Combined>,
    dirty: bool,
    /// One came since the entries were taken last.
    new: bool,
}

impl AdjacencyTable {
    /// A table that is counted there.
    pub fn new(counters: Combined) -> AdjacencyTable {
        counters.ensure(0);
        let counters = Arc::new(counters);
        AdjacencyTable {
            slots: vec![Slot::default()],
            entries: vec![Adjacency::default()],
            by_key: HashMap::new(),
            free: Arc::default(),
            counters,
            dirty: true,
            new: false,
        }
    }

    /// Packets and bytes per adjacency.
    pub fn counters(&self) -> &Arc<Combined> {
        &self.counters
    }

    /// The entries as the workers get them.
    pub fn entries(&self) -> &[Adjacency] {
        &self.entries
    }

    /// Whether the entries changed since the last call.
    pub fn take_dirty(&mut self) -> bool {
        self.new = false;
        std::mem::take(&mut self.dirty)
    }

    /// Whether the entries changed since the last [`AdjacencyTable::take_dirty`].
    pub fn is_dirty(&self) -> bool {
        self.dirty
    }

    /// Whether there is one that the workers do not have.
    pub fn has_new(&self) -> bool {
        self.new
    }

    /// What adjacency `index` is for.
    pub fn key(&self, index: u32) -> Option<AdjacencyKey> {
        self.slots.get(index as usize).and_then(|s| s.key)
    }

    /// The adjacency for `key`, if there is one.
    pub fn find(&self, key: AdjacencyKey) -> Option<u32> {
        self.by_key.get(&key).copied()
    }

    /// Takes a reference on the adjacency for `key`; `make` fills a new one. `None` when the table is full.
    pub fn acquire(&mut self, key: AdjacencyKey, make: impl FnOnce() -> Adjacency) -> Option<u32> {
        if let Some(&index) = self.by_key.get(&key) {
            self.slots[index as usize].routes += 1;
            return Some(index);
        }
        let free = self.free.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let index = match free {
            Some(index) => index,
            None if self.slots.len() < MAX_COUNTERS => {
                self.slots.push(Slot::default());
                self.entries.push(Adjacency::default());
                self.slots.len() as u32 - 1
            }
            None => return None,
        };
        self.counters.ensure(index);
        // No worker has it: it is new, or a grace period has passed.
        self.counters.reset(index);
        self.slots[index as usize] = Slot { key: Some(key), routes: 1 };
        self.entries[index as usize] = make();
        self.by_key.insert(key, index);
        (self.dirty, self.new) = (true, true);
        Some(index)
    }

    /// Gives a reference back. The last one frees the adjacency, for use once no worker can still have it.
    pub fn release(&mut self, index: u32, domain: &Domain) {
        let Some(slot) = self.slots.get_mut(index as usize) else { return };
        slot.routes = slot.routes.saturating_sub(1);
        if slot.routes != 0 || index == 0 {
            return;
        }
        if let Some(key) = slot.key.take() {
            self.by_key.remove(&key);
        }
        self.entries[index as usize] = Adjacency { kind: AdjacencyKind::Drop, ..Adjacency::default() };
        self.dirty = true;
        let free = Arc::clone(&self.free);
        domain.retire(move || free.lock().unwrap_or_else(PoisonError::into_inner).push(index));
    }

    /// Changes an entry in place; the index, and so all routes to it, stay.
    pub fn change(&mut self, index: u32, change: impl FnOnce(&mut Adjacency)) {
        if let Some(entry) = self.entries.get_mut(index as usize) {
            change(entry);
            self.dirty = true;
        }
    }

    /// The adjacencies with their keys.
    pub fn iter(&self) -> impl Iterator<Item = (u32, AdjacencyKey)> + '_ {
        self.slots.iter().enumerate().filter_map(|(i, s)| s.key.map(|k| (i as u32, k)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_adjacency_is_shared_and_reused_only_after_a_grace_period() {
        let domain = Domain::new(1);
        let mut table = AdjacencyTable::new(Combined::new(1));
        let key = AdjacencyKey::Glean(SwIfIndex(1));
        let a = table.acquire(key, Adjacency::default).unwrap();
        assert_eq!(table.acquire(key, || unreachable!()), Some(a));
        table.release(a, &domain);
        assert_eq!(table.find(key), Some(a));
        let mut reader = wharf_engine::rcu::Reader::new(Arc::clone(&domain), 0);
        reader.online();
        reader.settle(|| {});
        table.release(a, &domain);
        assert_eq!(table.find(key), None);
        let b = table.acquire(AdjacencyKey::Drop, Adjacency::default).unwrap();
        assert_ne!(a, b);
        reader.offline();
        domain.reclaim();
        assert_eq!(table.acquire(AdjacencyKey::Punt, Adjacency::default), Some(a));
    }
}
