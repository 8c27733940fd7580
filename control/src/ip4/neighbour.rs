//! The neighbour table: who is where, and who is being asked for.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::ops::Bound;
use std::time::{Duration, Instant};
use wharf_engine::SwIfIndex;
use wharf_nodes::wire::MacAddress;

/// Neighbours on one interface at most.
pub(super) const MAX_PER_INTERFACE: usize = 8192;
/// Neighbours in all at most.
pub const MAX_NEIGHBOURS: usize = 65_536;
/// Requests before giving up.
const TRIES: u32 = 3;
/// Time between two requests.
const RETRY: Duration = Duration::from_secs(1);
/// Age at which a learned neighbour is asked whether it is still there.
pub const DEFAULT_AGE: Duration = Duration::from_secs(300);

/// How sure we are of a neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NeighbourState {
    /// Asked for, not known.
    Incomplete,
    /// Learned.
    Dynamic,
    /// Set by the operator; never ages.
    Static,
    /// Learned, old, and asked again.
    Probing,
}

/// A neighbour.
#[derive(Clone, Debug)]
pub struct Neighbour {
    /// Its MAC address, once known.
    pub mac: MacAddress,
    /// See there.
    pub state: NeighbourState,
    /// When it was last heard of, or first asked for.
    pub updated: Instant,
    /// Whether it has a host route of its own.
    pub in_fib: bool,
    tries: u32,
    next_try: Instant,
}

/// Why a neighbour is refused.
#[derive(Debug, thiserror::Error)]
pub enum NeighboursError {
    /// The interface has too many.
    #[error("the interface has {MAX_PER_INTERFACE} neighbours already")]
    PerInterface,
    /// There are too many.
    #[error("there are {MAX_NEIGHBOURS} neighbours already")]
    Total,
}

/// What is to be done about a neighbour now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Due {
    /// Send a request for it.
    Ask(SwIfIndex, Ipv4Addr),
    /// It does not answer: forget it.
    GiveUp(SwIfIndex, Ipv4Addr),
}

/// All neighbours, by interface and address.
#[derive(Debug)]
pub struct Neighbours {
    entries: BTreeMap<(SwIfIndex, Ipv4Addr), Neighbour>,
    /// Age at which a learned one is probed; `None` never.
    pub age: Option<Duration>,
}

impl Default for Neighbours {
    fn default() -> Self {
        Neighbours { entries: BTreeMap::new(), age: Some(DEFAULT_AGE) }
    }
}

impl Neighbours {
    /// One neighbour.
    pub fn get(&self, interface: SwIfIndex, address: Ipv4Addr) -> Option<&Neighbour> {
        self.entries.get(&(interface, address))
    }

    /// All of them, in order.
    pub fn iter(&self) -> impl Iterator<Item = (SwIfIndex, Ipv4Addr, &Neighbour)> {
        self.entries.iter().map(|((i, a), n)| (*i, *a, n))
    }

    /// Those behind one, which need not be there; all, without one.
    pub fn iter_after(
        &self,
        last: Option<(SwIfIndex, Ipv4Addr)>,
    ) -> impl Iterator<Item = (SwIfIndex, Ipv4Addr, &Neighbour)> {
        let from = last.map_or(Bound::Unbounded, Bound::Excluded);
        self.entries.range((from, Bound::Unbounded)).map(|((i, a), n)| (*i, *a, n))
    }

    /// The neighbours on one interface.
    pub fn on(&self, interface: SwIfIndex) -> impl Iterator<Item = (Ipv4Addr, &Neighbour)> {
        let range = (interface, Ipv4Addr::UNSPECIFIED)..=(interface, Ipv4Addr::BROADCAST);
        self.entries.range(range).map(|((_, a), n)| (*a, n))
    }

    fn make_room(&mut self, interface: SwIfIndex) -> Result<(), NeighboursError> {
        if self.entries.len() >= MAX_NEIGHBOURS {
            return Err(NeighboursError::Total);
        }
        if self.on(interface).count() >= MAX_PER_INTERFACE {
            return Err(NeighboursError::PerInterface);
        }
        Ok(())
    }

    /// Starts asking for a neighbour; true if a request is due now.
    pub fn ask(
        &mut self,
        interface: SwIfIndex,
        address: Ipv4Addr,
        now: Instant,
    ) -> Result<bool, NeighboursError> {
        if self.entries.contains_key(&(interface, address)) {
            return Ok(false);
        }
        self.make_room(interface)?;
        let neighbour = Neighbour {
            mac: MacAddress::ZERO,
            state: NeighbourState::Incomplete,
            updated: now,
            in_fib: false,
            tries: 1,
            next_try: now + RETRY,
        };
        self.entries.insert((interface, address), neighbour);
        Ok(true)
    }

    /// Records where a neighbour is. A static one is not changed by what is learned. Returns whether something changed.
    pub fn set(
        &mut self,
        interface: SwIfIndex,
        address: Ipv4Addr,
        mac: MacAddress,
        fixed: bool,
        now: Instant,
    ) -> Result<bool, NeighboursError> {
        let state = if fixed { NeighbourState::Static } else { NeighbourState::Dynamic };
        if let Some(entry) = self.entries.get_mut(&(interface, address)) {
            if entry.state == NeighbourState::Static && !fixed {
                return Ok(false);
            }
            let changed = entry.mac != mac || entry.state == NeighbourState::Incomplete;
            (entry.mac, entry.state, entry.updated, entry.tries) = (mac, state, now, 0);
            return Ok(changed);
        }
        self.make_room(interface)?;
        let neighbour = Neighbour { mac, state, updated: now, in_fib: false, tries: 0, next_try: now };
        self.entries.insert((interface, address), neighbour);
        Ok(true)
    }

    /// Records whether a neighbour has its host route.
    pub fn set_in_fib(&mut self, interface: SwIfIndex, address: Ipv4Addr, in_fib: bool) {
        if let Some(entry) = self.entries.get_mut(&(interface, address)) {
            entry.in_fib = in_fib;
        }
    }

    /// Forgets a neighbour.
    pub fn remove(&mut self, interface: SwIfIndex, address: Ipv4Addr) -> Option<Neighbour> {
        self.entries.remove(&(interface, address))
    }

    /// What is to be done now; at most a thousand things.
    pub fn due(&mut self, now: Instant) -> Vec<Due> {
        let mut due = Vec::new();
        for ((interface, address), entry) in &mut self.entries {
            match entry.state {
                NeighbourState::Static => continue,
                NeighbourState::Dynamic => {
                    if self.age.is_none_or(|age| now.saturating_duration_since(entry.updated) < age) {
                        continue;
                    }
                    (entry.state, entry.tries, entry.next_try) = (NeighbourState::Probing, 0, now);
                }
                NeighbourState::Incomplete | NeighbourState::Probing => {}
            }
            if now < entry.next_try {
                continue;
            }
            due.push(match entry.tries {
                TRIES.. => Due::GiveUp(*interface, *address),
                _ => Due::Ask(*interface, *address),
            });
            entry.tries += 1;
            entry.next_try = now + RETRY;
            if due.len() == 1000 {
                break;
            }
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn asks_three_times_then_gives_up_and_probes_what_is_old() {
        let (i, a, t0) = (SwIfIndex(1), Ipv4Addr::new(10, 0, 0, 2), Instant::now());
        let mut table = Neighbours::default();
        assert!(table.ask(i, a, t0).unwrap());
        assert!(!table.ask(i, a, t0).unwrap());
        assert!(table.due(t0).is_empty());
        let at = |s: u64| t0 + Duration::from_secs(s);
        assert_eq!(table.due(at(1)), [Due::Ask(i, a)]);
        assert_eq!(table.due(at(2)), [Due::Ask(i, a)]);
        assert_eq!(table.due(at(3)), [Due::GiveUp(i, a)]);
        let mac = MacAddress::local(1);
        assert!(table.set(i, a, mac, false, at(3)).unwrap());
        assert!(!table.set(i, a, mac, false, at(4)).unwrap());
        assert!(table.due(at(303)).is_empty());
        assert_eq!(table.due(at(304)), [Due::Ask(i, a)]);
        assert_eq!(table.get(i, a).unwrap().state, NeighbourState::Probing);
        table.set(i, a, mac, false, at(305)).unwrap();
        assert_eq!(table.get(i, a).unwrap().state, NeighbourState::Dynamic);
        let fixed = MacAddress::local(2);
        assert!(table.set(i, a, fixed, true, at(306)).unwrap());
        assert!(!table.set(i, a, mac, false, at(307)).unwrap());
        assert_eq!(table.get(i, a).unwrap().mac, fixed);
        assert!(table.due(at(99_999)).is_empty());
    }
}
