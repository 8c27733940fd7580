//! The table of MAC addresses of all bridge domains, VPP's L2FIB.
//!
//! Workers learn into it as frames pass, and read it for each frame; main adds static entries, ages and flushes. It is bounded in three ways: as
//! a whole, per domain and per port. A port at its limit teaches nothing new, and what is known stays: a flood of source
//! addresses costs the flooding port its own entries, and nobody else anything.

use crate::wire::ethernet::MacAddress;
use std::fmt;
use std::sync::atomic::{AtomicU32, Ordering};
use wharf_engine::SwIfIndex;
use wharf_engine::bihash::{Bihash, NoMemory, Place, Put, Verdict};

/// Interfaces and domains that can be told apart here.
pub const MAX_PORTS: usize = 4096;
/// Buckets of the table, as VPP has them; each holds seven addresses.
pub const DEFAULT_BUCKETS: usize = 1 << 18;
/// Addresses that a port may teach.
pub const DEFAULT_PORT_LIMIT: u32 = 4096;
/// Addresses that a domain may learn.
pub const DEFAULT_DOMAIN_LIMIT: u32 = 65_536;
/// How often an address may move within one [`Stamp`]; what flaps faster is a loop or an attack.
pub const MAX_MOVES: u8 = 10;

/// Number of a bridge domain in the tables, from 1; VPP's `bd_index`.
pub type DomainIndex = u16;

/// Stamps until a frame from a known address is worth writing down again, 8.6 s.
const FRESH: u16 = 8;

/// A moment, in units of 2^30 nanoseconds (1.07 s) modulo 65,536.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp(pub u16);

impl Stamp {
    /// Of a worker's clock in nanoseconds.
    #[inline(always)]
    pub fn of(nanos: u64) -> Stamp {
        Stamp((nanos >> 30) as u16)
    }

    /// Units from `earlier` to here.
    #[inline(always)]
    pub fn since(self, earlier: Stamp) -> u16 {
        self.0.wrapping_sub(earlier.0)
    }

    /// Minutes as units.
    pub fn minutes(minutes: u8) -> u16 {
        ((u64::from(minutes) * 60_000_000_000) >> 30) as u16
    }
}

/// What the table knows of an address: port (16 bits), stamp (16), moves within the stamp (8), flags (8).
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct MacEntry(u64);

impl MacEntry {
    const STATIC: u64 = 1 << 40;
    const FILTER: u64 = 1 << 41;
    const BVI: u64 = 1 << 42;

    /// A learned address.
    #[inline(always)]
    pub fn learned(port: SwIfIndex, now: Stamp, moves: u8) -> MacEntry {
        MacEntry(u64::from(port.0 as u16) | u64::from(now.0) << 16 | u64::from(moves) << 32)
    }

    /// An address that the operator set; it is not learned, does not age, and does not move.
    pub fn fixed(port: SwIfIndex) -> MacEntry {
        MacEntry(u64::from(port.0 as u16) | MacEntry::STATIC)
    }

    /// The address of a domain's own router interface.
    pub fn bvi(port: SwIfIndex) -> MacEntry {
        MacEntry(MacEntry::fixed(port).0 | MacEntry::BVI)
    }

    /// An address whose frames, from it and to it, are dropped.
    pub fn filter() -> MacEntry {
        MacEntry(MacEntry::fixed(SwIfIndex::NONE).0 | MacEntry::FILTER)
    }

    /// The port behind which it is.
    #[inline(always)]
    pub fn port(self) -> SwIfIndex {
        SwIfIndex(u32::from(self.0 as u16))
    }

    /// When it was last seen, if learned.
    #[inline(always)]
    pub fn stamp(self) -> Stamp {
        Stamp((self.0 >> 16) as u16)
    }

    #[inline(always)]
    fn moves(self) -> u8 {
        (self.0 >> 32) as u8
    }

    /// Set by the operator.
    #[inline(always)]
    pub fn is_static(self) -> bool {
        self.0 & MacEntry::STATIC != 0
    }

    /// See [`MacEntry::filter`].
    #[inline(always)]
    pub fn is_filter(self) -> bool {
        self.0 & MacEntry::FILTER != 0
    }

    /// See [`MacEntry::bvi`].
    #[inline(always)]
    pub fn is_bvi(self) -> bool {
        self.0 & MacEntry::BVI != 0
    }

    /// Whether a frame from behind `port` has nothing to teach about it at this moment. A stamp may be a little old: ages are minutes.
    #[inline(always)]
    pub fn is_fresh(self, port: SwIfIndex, now: Stamp) -> bool {
        let recent = now.since(self.stamp()) < FRESH;
        // A filter's port is none.
        self.0 as u16 == port.0 as u16 && (recent | self.is_static())
    }

    /// The bits, for a trace.
    pub fn raw(self) -> u64 {
        self.0
    }
}

impl fmt::Debug for MacEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MacEntry")
            .field("port", &self.port())
            .field("stamp", &self.stamp())
            .field("flags", &(self.0 >> 40))
            .finish()
    }
}

/// Domain and address as one key, the address as its bytes lie in a frame.
#[inline(always)]
pub fn key(domain: DomainIndex, mac: MacAddress) -> u64 {
    let [a, b, c, d, e, f] = mac.0;
    u64::from(domain) << 48 | u64::from_le_bytes([a, b, c, d, e, f, 0, 0])
}

fn domain_of(key: u64) -> DomainIndex {
    (key >> 48) as DomainIndex
}

fn mac_of(key: u64) -> MacAddress {
    let [a, b, c, d, e, f, ..] = key.to_le_bytes();
    MacAddress([a, b, c, d, e, f])
}

/// What became of a frame's source address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Learned {
    /// It was known; if need be its stamp is new.
    Known,
    /// It is new.
    New,
    /// It was behind another port.
    Moved,
    /// Its port, its domain or the table has as many as it may.
    Limit,
    /// It moves too often, and stays where it is for now.
    Damped,
    /// The operator has put it behind another port.
    Violation,
    /// The operator wants its frames dropped.
    Filtered,
    /// Another worker is writing there; the next frame will teach it.
    Busy,
}

/// Why a static address is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MacTableError {
    /// All entries that it could take are static.
    #[error("no room in the MAC table beside other static entries")]
    Full,
    /// Workers keep writing there.
    #[error("the MAC table is busy")]
    Busy,
}

/// How often main tries again where a worker is writing.
const PATIENCE: usize = 10_000;

/// The table.
#[derive(Debug)]
pub struct MacTable {
    hash: Bihash,
    ports: Box<[AtomicU32]>,
    domains: Box<[AtomicU32]>,
    learned: AtomicU32,
    fixed: AtomicU32,
    limit: u32,
}

impl MacTable {
    /// A table of `buckets` times seven addresses, of which `limit` may be learned, with a random `seed`: without a limit, and
    /// at most, three in four.
    pub fn new(buckets: usize, limit: Option<u32>, seed: [u64; 2]) -> Result<MacTable, NoMemory> {
        let hash = Bihash::new(buckets, seed)?;
        let most = MacTable::most_learned(hash.capacity());
        let zeroes = || (0..MAX_PORTS).map(|_| AtomicU32::new(0)).collect();
        Ok(MacTable {
            hash,
            ports: zeroes(),
            domains: zeroes(),
            learned: AtomicU32::new(0),
            fixed: AtomicU32::new(0),
            limit: limit.unwrap_or(most).min(most),
        })
    }

    /// How many addresses may be learned where there is room for so many: three in four. Where buckets fill up, one address costs another its place.
    fn most_learned(capacity: usize) -> u32 {
        (capacity / 4 * 3) as u32
    }

    /// Addresses that may be learned in all.
    pub fn limit(&self) -> u32 {
        self.limit
    }

    /// Addresses that there is room for.
    pub fn capacity(&self) -> usize {
        self.hash.capacity()
    }

    /// Bytes of the table.
    pub fn memory(&self) -> usize {
        self.hash.memory()
    }

    /// Where a key is looked for; asks the processor for what is there.
    #[inline(always)]
    pub fn prefetch(&self, key: u64) -> Place {
        let place = self.hash.place(key);
        self.hash.prefetch(place);
        place
    }

    /// The entry of a key.
    #[inline(always)]
    pub fn get(&self, key: u64) -> Option<MacEntry> {
        self.hash.get(key).map(MacEntry)
    }

    /// The entry of a key whose place is known.
    #[inline(always)]
    pub fn get_at(&self, key: u64, place: Place) -> Option<MacEntry> {
        self.hash.get_at(key, place).map(MacEntry)
    }

    /// What is to be done about a source address whose entry is not [`MacEntry::is_fresh`]. `limits` are those of the port and the
    /// domain.
    #[cold]
    pub fn learn(&self, key: u64, port: SwIfIndex, now: Stamp, limits: [u32; 2]) -> Learned {
        match self.get(key) {
            Some(old) if old.is_filter() => return Learned::Filtered,
            Some(old) if old.is_static() => {
                return if old.port() == port { Learned::Known } else { Learned::Violation };
            }
            Some(old) if old.port() == port => {
                self.hash.refresh(key, old.0, MacEntry::learned(port, now, 0).0);
                return Learned::Known;
            }
            // Looked at before the bucket is locked: a port at its limit can't keep others from it.
            _ if self.of_port(port) >= limits[0] => return Learned::Limit,
            None if self.of_domain(key) >= limits[1] || self.len().1 >= self.limit => return Learned::Limit,
            _ => {}
        }
        let mut damped = false;
        let decide = |old: Option<u64>| match old.map(MacEntry) {
            None => Some(MacEntry::learned(port, now, 0).0),
            Some(old) if old.is_static() => None,
            Some(old) => {
                let moves = if old.stamp() == now { old.moves().saturating_add(1) } else { 1 };
                damped = moves > MAX_MOVES;
                (!damped).then(|| MacEntry::learned(port, now, moves).0)
            }
        };
        // The oldest goes, if one must.
        let rank = |value: u64| {
            let entry = MacEntry(value);
            (!entry.is_static()).then(|| u64::from(now.since(entry.stamp())))
        };
        match self.hash.put(key, decide, rank) {
            Put::Added => {
                self.count(key, port, 1);
                Learned::New
            }
            Put::Changed(old) => {
                let old = MacEntry(old);
                if old.port() == port {
                    return Learned::Known;
                }
                self.count_port(old.port(), -1);
                self.count_port(port, 1);
                Learned::Moved
            }
            Put::Evicted { key: gone, value } => {
                self.count(gone, MacEntry(value).port(), -1);
                self.count(key, port, 1);
                Learned::New
            }
            Put::Kept if damped => Learned::Damped,
            Put::Kept => Learned::Violation,
            Put::Busy => Learned::Busy,
            Put::Full => Learned::Limit,
        }
    }

    fn count_port(&self, port: SwIfIndex, by: i32) {
        if let Some(count) = self.ports.get(port.index()) {
            count.fetch_add(by as u32, Ordering::Relaxed);
        }
    }

    fn count(&self, key: u64, port: SwIfIndex, by: i32) {
        self.count_port(port, by);
        if let Some(count) = self.domains.get(usize::from(domain_of(key))) {
            count.fetch_add(by as u32, Ordering::Relaxed);
        }
        self.learned.fetch_add(by as u32, Ordering::Relaxed);
    }

    /// Learned addresses behind a port.
    pub fn of_port(&self, port: SwIfIndex) -> u32 {
        self.ports.get(port.index()).map_or(u32::MAX, |c| c.load(Ordering::Relaxed))
    }

    /// Learned addresses of the domain of a key.
    pub fn of_domain(&self, key: u64) -> u32 {
        self.domains.get(usize::from(domain_of(key))).map_or(u32::MAX, |c| c.load(Ordering::Relaxed))
    }

    /// Addresses in all, and how many of them are learned.
    pub fn len(&self) -> (u32, u32) {
        let learned = self.learned.load(Ordering::Relaxed);
        (learned + self.fixed.load(Ordering::Relaxed), learned)
    }

    // What follows is for main.

    /// Sets an address; replaces what was learned or set about it.
    pub fn set(&self, key: u64, entry: MacEntry) -> Result<(), MacTableError> {
        let rank = |value: u64| (!MacEntry(value).is_static()).then_some(0);
        for _ in 0..PATIENCE {
            let gone = match self.hash.put(key, |_| Some(entry.0), rank) {
                Put::Busy => {
                    std::hint::spin_loop();
                    continue;
                }
                Put::Full | Put::Kept => return Err(MacTableError::Full),
                Put::Added => None,
                Put::Changed(old) => Some((key, MacEntry(old))),
                Put::Evicted { key, value } => Some((key, MacEntry(value))),
            };
            self.fixed.fetch_add(1, Ordering::Relaxed);
            if let Some((key, old)) = gone {
                self.forget(key, old);
            }
            return Ok(());
        }
        Err(MacTableError::Busy)
    }

    fn forget(&self, key: u64, entry: MacEntry) {
        if entry.is_static() {
            self.fixed.fetch_sub(1, Ordering::Relaxed);
        } else {
            self.count(key, entry.port(), -1);
        }
    }

    /// Removes an address, and says what was known of it.
    pub fn remove(&self, key: u64) -> Result<Option<MacEntry>, MacTableError> {
        for _ in 0..PATIENCE {
            match self.hash.remove(key, |_| true) {
                Ok(gone) => {
                    let gone = gone.map(MacEntry);
                    if let Some(entry) = gone {
                        self.forget(key, entry);
                    }
                    return Ok(gone);
                }
                Err(_) => std::hint::spin_loop(),
            }
        }
        Err(MacTableError::Busy)
    }

    /// Parts for [`MacTable::sweep`].
    pub fn parts(&self) -> usize {
        self.hash.parts()
    }

    /// Comes by each entry of one part, and removes those that `gone` names.
    pub fn sweep(&self, part: usize, mut gone: impl FnMut(DomainIndex, MacAddress, MacEntry) -> bool) {
        let removed =
            self.hash.scan(part, |key, value| match gone(domain_of(key), mac_of(key), MacEntry(value)) {
                true => Verdict::Remove,
                false => Verdict::Keep,
            });
        for (key, value) in removed {
            self.forget(key, MacEntry(value));
        }
    }
}
