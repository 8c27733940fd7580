//! Sessions: the flows that a permit+reflect rule let in or out, whose packets pass in both directions until they have been silent for long.
//!
//! One table of fixed size, shared by all workers, since the two directions of a flow may be on different ones. A session lives in one of two
//! buckets of eight, chosen by a seeded hash. Nobody waits: readers take no lock, and a writer that finds a bucket locked lets the packet pass without
//! a session, which the next packet opens.
//!
//! Fairness: each interface has a share. Who needs room takes what has expired, then the oldest session of its *own* interface, half-open ones
//! first; never another interface's. So a flood costs the sessions of the interface that it comes in at.

pub use super::session::{EPOCHS, Opener, SessionKey, State, Ticks, Timeouts};
use super::session_bucket::{Bucket, Hint, Least, WAYS};
use crate::wire::ip4::IpProtocol;
use std::cell::Cell;
use std::fmt;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};
use wharf_engine::{SwIfIndex, mapping};
use zerocopy::{FromZeros, KnownLayout};

/// Free ways of a bucket from which on new sessions may be put into another.
const CROWDED: usize = 3;
/// Interfaces that can have sessions: those with a lower index.
const MAX_OWNERS: usize = 1 << 16;
/// Other buckets where an interface beyond its share looks for a session of its own to give up.
const HUNT: usize = 8;

/// Buckets of a part, see [`SessionTable::sweep`].
const PART: usize = 256;

/// Key, [`State`], [`Opener`].
#[derive(FromZeros, KnownLayout)]
#[repr(C, align(64))]
struct Record([AtomicU64; 8]);

/// A bucket and its records: side by side, so that they are in one page.
#[derive(FromZeros, KnownLayout)]
#[repr(C, align(64))]
struct Set {
    bucket: Bucket,
    records: [Record; WAYS],
}

const _: () = assert!(size_of::<Set>() == 64 * (1 + WAYS));
const STATE: usize = 6;
const OPENER: usize = 7;

/// See the module.
pub struct SessionTable {
    sets: Box<[Set]>,
    /// By interface: how many it has, and the bucket where it last had to give one up.
    counts: Box<[AtomicU32]>,
    hands: Box<[AtomicU32]>,
    limit: usize,
    seed: [u64; 4],
    mask: u64,
}

impl fmt::Debug for SessionTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionTable").field("limit", &self.limit).finish_non_exhaustive()
    }
}

/// The table's memory could not be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no memory for {0} sessions")]
pub struct NoMemory(usize);

/// A session that was found.
#[derive(Clone, Copy, Debug)]
pub struct Found {
    slot: usize,
    /// Its state.
    pub state: State,
    /// Who opened it.
    pub opener: Opener,
}

/// A session that was not found.
#[derive(Clone, Copy, Debug)]
pub struct Miss {
    hash: u64,
    /// [`Bucket::lock`] of the first bucket before the look; odd if that says nothing.
    seen: u32,
}

/// The lookups that are to come: first their bucket is asked for, and some packets later, when that is there, their record.
#[derive(Debug, Default)]
pub(super) struct Ahead {
    hashes: [Cell<u64>; 4],
    at: Cell<usize>,
}

impl Ahead {
    /// A packet of this key will be looked up.
    #[inline(always)]
    pub(super) fn ask(&self, sessions: &SessionTable, key: &SessionKey, now: Ticks) {
        let hash = sessions.hash(key);
        sessions.prefetch_bucket(hash);
        let at = self.at.get();
        self.at.set(at.wrapping_add(1));
        sessions.prefetch_record(self.hashes[at % 4].replace(hash), key.interface(), now);
    }
}

/// What [`SessionTable::open`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opened {
    /// There is a new session.
    New,
    /// There is, and an older one of the interface had to go.
    Recycled,
    /// It was there.
    Known,
    /// Another worker is at the bucket.
    Busy,
    /// The interface has its share, and none of its own to give up.
    Full,
}

/// A session, to be shown.
#[derive(Clone, Copy, Debug)]
pub struct Session {
    /// The flow.
    pub key: SessionKey,
    /// See there.
    pub state: State,
    /// See there.
    pub opener: Opener,
}

/// Every bit of the result depends on every bit of `seed` (the finalizer of SplitMix64).
fn spread(seed: u64) -> u64 {
    let a = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let b = (a ^ a >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let c = (b ^ b >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    (c ^ c >> 31) | 1
}

impl SessionTable {
    /// A table of up to `limit` sessions (at least 1024, at most 2^23), and twice as many places. `seed` should be random.
    ///
    /// # Errors
    /// When there is no memory. All of it is taken at once, on huge pages where there are some: a worker would have to wait for pages, and
    /// to find them in the page table.
    pub fn new(limit: usize, seed: [u64; 4]) -> Result<SessionTable, NoMemory> {
        let limit = limit.clamp(1024, 1 << 23);
        let buckets = (2 * limit / WAYS).next_power_of_two();
        let none = |()| NoMemory(limit);
        Ok(SessionTable {
            sets: mapping::zeroed(buckets).ok_or_else(|| none(()))?,
            counts: <[AtomicU32]>::new_box_zeroed_with_elems(MAX_OWNERS).map_err(|_| none(()))?,
            hands: <[AtomicU32]>::new_box_zeroed_with_elems(MAX_OWNERS).map_err(|_| none(()))?,
            limit,
            // Few bits set would leave few bits mixed.
            seed: seed.map(spread),
            mask: buckets as u64 - 1,
        })
    }

    /// Sessions that there may be, of all interfaces.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// Sessions of an interface.
    pub fn count(&self, interface: SwIfIndex) -> u32 {
        self.counts.get(interface.index()).map_or(0, |count| count.load(Ordering::Relaxed))
    }

    /// Bytes that the table takes.
    pub fn bytes(&self) -> usize {
        self.sets.len() * size_of::<Set>() + (self.counts.len() + self.hands.len()) * 4
    }

    #[inline(always)]
    fn bucket(&self, at: usize) -> Option<&Bucket> {
        self.sets.get(at).map(|set| &set.bucket)
    }

    #[inline(always)]
    fn record(&self, slot: usize) -> Option<&Record> {
        self.sets.get(slot / WAYS).map(|set| &set.records[slot % WAYS])
    }

    #[inline(always)]
    fn hash(&self, key: &SessionKey) -> u64 {
        let fold = |a: u64, b: u64| {
            let wide = u128::from(a) * u128::from(b);
            (wide >> 64) as u64 ^ wide as u64
        };
        let [a, b, c, d, flow, owner] = key.0;
        let [s0, s1, s2, s3] = self.seed;
        let mut hash = fold(a ^ s0, flow ^ s1);
        if flow & 1 != 0 {
            hash = fold(fold(hash ^ b ^ s1, c ^ s2), d ^ s0);
        }
        fold(hash ^ owner ^ s2, s3)
    }

    #[inline(always)]
    fn places(&self, hash: u64) -> [usize; 2] {
        let first = hash >> 32 & self.mask;
        [first as usize, (first ^ (hash & self.mask | 1)) as usize]
    }

    #[inline(always)]
    fn tag(hash: u64) -> u32 {
        (hash as u32).max(1)
    }

    /// The two buckets where the session of a key may be: who knows the seed can find keys that meet there.
    pub fn buckets(&self, key: &SessionKey) -> [usize; 2] {
        self.places(self.hash(key))
    }

    /// Asks the processor for the line where a lookup begins.
    #[inline(always)]
    fn prefetch_bucket(&self, hash: u64) {
        let [first, _] = self.places(hash);
        if let Some(bucket) = self.bucket(first) {
            wharf_engine::prefetch(bucket);
        }
    }

    /// Asks the processor for the line that a lookup reads next, when the first has come; of a session that is not there for what it takes to open it.
    #[inline(always)]
    fn prefetch_record(&self, hash: u64, owner: SwIfIndex, now: Ticks) {
        let [first, second] = self.places(hash);
        let Some(set) = self.sets.get(first) else { return };
        match set.bucket.hits(Self::tag(hash)) {
            0 => {
                self.bucket(second).into_iter().for_each(|bucket| wharf_engine::prefetch(bucket));
                let way = set.bucket.least(owner, 0, now).map_or(0, Least::way);
                wharf_engine::prefetch(&set.records[way]);
            }
            hits => wharf_engine::prefetch(&set.records[hits.trailing_zeros() as usize % WAYS]),
        }
    }

    /// The session of a key, expired ones included.
    pub fn find(&self, key: &SessionKey) -> Option<Found> {
        self.look(key).ok()
    }

    /// As [`SessionTable::find`]; what is known of one that is not there is for [`SessionTable::open_missed`].
    ///
    /// # Errors
    /// There is none.
    #[inline(always)]
    pub fn look(&self, key: &SessionKey) -> Result<Found, Miss> {
        let hash = self.hash(key);
        let [first, second] = self.places(hash);
        // Before all else is read there.
        let seen = self.bucket(first).map_or(1, |bucket| bucket.lock.load(Ordering::Acquire));
        let found = match self.find_in(first, Self::tag(hash), key) {
            None => self.find_in(second, Self::tag(hash), key),
            found => found,
        };
        found.ok_or(Miss { hash, seen })
    }

    /// What is known of a key whose session went since it was found.
    #[inline(always)]
    pub fn missed(&self, key: &SessionKey) -> Miss {
        Miss { hash: self.hash(key), seen: 1 }
    }

    #[inline(always)]
    fn find_in(&self, at: usize, tag: u32, key: &SessionKey) -> Option<Found> {
        let mut hits = self.bucket(at)?.hits(tag);
        while hits != 0 {
            let way = hits.trailing_zeros() as usize;
            hits &= hits - 1;
            if let Some(found) = self.read(at, way, tag, key) {
                return Some(found);
            }
        }
        None
    }

    #[inline(always)]
    fn read(&self, at: usize, way: usize, tag: u32, key: &SessionKey) -> Option<Found> {
        let slot = at * WAYS + way;
        let tags = &self.bucket(at)?.tags;
        let record = &self.record(slot)?.0;
        // The tag is taken away before a record is written, and put back after: seen twice, what is between is whole.
        (tags[way & 7].load(Ordering::Acquire) == tag).then_some(())?;
        let differs = (0..6).fold(0, |d, i| d | (record[i].load(Ordering::Relaxed) ^ key.0[i]));
        let state = State(record[STATE].load(Ordering::Relaxed));
        let opener = Opener::of(record[OPENER].load(Ordering::Relaxed));
        fence(Ordering::Acquire);
        let whole = tags[way & 7].load(Ordering::Relaxed) == tag;
        (differs == 0 && whole).then_some(Found { slot, state, opener })
    }

    /// A packet of a session came: its time is now, and its flags are noted. Writes only when that changes something.
    #[inline(always)]
    pub fn touch(&self, found: &Found, now: Ticks, flags: u8, output: bool) {
        let new = found.state.seen(now, flags, output);
        if new != found.state
            && let Some(record) = self.record(found.slot)
        {
            // Fails when another worker saw a packet of the session, or it is gone: then this one does not matter.
            let (old, state) = (found.state, &record.0[STATE]);
            let seen = state.compare_exchange(old.0, new.0, Ordering::Relaxed, Ordering::Relaxed);
            if new.is_established() != old.is_established() && seen.is_ok() {
                self.hint(found.slot, new);
            }
        }
    }

    #[cold]
    fn hint(&self, slot: usize, state: State) {
        if let Some(bucket) = self.bucket(slot / WAYS) {
            bucket.hints[slot % WAYS].store(Hint::of(state).0, Ordering::Relaxed);
        }
    }

    /// Whether a session has been silent for too long.
    #[inline(always)]
    pub fn is_expired(&self, key: &SessionKey, found: &Found, now: Ticks, timeouts: &Timeouts) -> bool {
        found.state.is_expired(key.is_tcp(), now, timeouts)
    }

    /// Notes that a session stands under another version of the lists.
    pub fn confirm(&self, found: &Found, opener: Opener) {
        if let Some(record) = self.record(found.slot) {
            let (old, new) = (found.opener.bits(), opener.bits());
            let _ = record.0[OPENER].compare_exchange(old, new, Ordering::Relaxed, Ordering::Relaxed);
        }
    }

    /// Opens a session for an interface whose share is `share`.
    pub fn open(
        &self,
        key: &SessionKey,
        flags: u8,
        opener: Opener,
        now: Ticks,
        timeouts: &Timeouts,
        share: u32,
    ) -> Opened {
        self.open_missed(key, self.missed(key), flags, opener, now, timeouts, share)
    }

    /// As [`SessionTable::open`], behind a look for the session.
    #[inline(always)]
    #[allow(clippy::too_many_arguments)] // They have nothing in common.
    pub fn open_missed(
        &self,
        key: &SessionKey,
        Miss { hash, seen }: Miss,
        flags: u8,
        opener: Opener,
        now: Ticks,
        timeouts: &Timeouts,
        share: u32,
    ) -> Opened {
        let owner = key.interface();
        let Some(count) = self.counts.get(owner.index()) else { return Opened::Full };
        let tag = Self::tag(hash);
        let [first, second] = self.places(hash);
        // Who opens a session holds its first bucket: nobody else opens the same one meanwhile, or did since nobody was there.
        let Some(a) = self.lock(first) else { return Opened::Busy };
        if a.was != seen && self.find_in(first, tag, key).or_else(|| self.find_in(second, tag, key)).is_some()
        {
            return Opened::Known;
        }
        let is_full = count.load(Ordering::Relaxed) >= share;
        // The usual case of a flood, and one line to look at: a half-open session of the interface's own makes room.
        if is_full && let Some(slot) = a.half_open_of(owner, now) {
            self.write(slot, tag, key, State::new(now, flags, opener.output), opener);
            return Opened::Recycled;
        }
        let mut recycled = Opened::New;
        let mut free = a.take_free();
        let is_crowded = a.free() <= CROWDED;
        if is_full
            && !is_crowded
            && let Some(slot) = free
            && self.make_room(owner, [first; 2], now, timeouts, false)
        {
            self.write(slot, tag, key, State::new(now, flags, opener.output), opener);
            return Opened::Recycled;
        }
        // Held, as the first is, until the session is written.
        let mut other = None;
        // The first bucket is the one that lookups read first; the second is for when that fills up.
        if is_crowded || is_full {
            let Some(b) = self.lock(second) else { return Opened::Busy };
            let b = &*other.insert(b);
            if is_full
                && a.bucket.least(owner, 0, now).is_none()
                && let Some(slot) = b.half_open_of(owner, now)
            {
                self.write(slot, tag, key, State::new(now, flags, opener.output), opener);
                return Opened::Recycled;
            }
            if b.free() > a.free() && is_crowded {
                free = b.take_free();
            }
            if free.is_none() {
                free = a.expired(now, timeouts).or_else(|| b.expired(now, timeouts));
            }
            if free.is_none() || count.load(Ordering::Relaxed) >= share {
                recycled = Opened::Recycled;
                match oldest_of([&a, b], owner, now, timeouts) {
                    Some(here) => free = Some(here),
                    // There is room here, but not for this interface before one of its own has gone elsewhere.
                    None if free.is_some() && self.make_room(owner, [first, second], now, timeouts, true) => {
                        count.fetch_sub(1, Ordering::Relaxed);
                    }
                    None => return Opened::Full,
                }
            }
        }
        let Some(slot) = free else { return Opened::Full };
        self.release(slot);
        self.write(slot, tag, key, State::new(now, flags, opener.output), opener);
        count.fetch_add(1, Ordering::Relaxed);
        recycled
    }

    /// Takes a session of `owner`, half-open or `any`, out of some other bucket than `not`, but not out of its count. A hand that goes round looks at one
    /// bucket after the other, so that their lines can be asked for beforehand, and what has been there for long goes first.
    #[inline(always)]
    fn make_room(
        &self,
        owner: SwIfIndex,
        not: [usize; 2],
        now: Ticks,
        timeouts: &Timeouts,
        any: bool,
    ) -> bool {
        let Some(hand) = self.hands.get(owner.index()) else { return false };
        let behind = |at: usize, n: usize| (at + n) & self.mask as usize;
        let mut at = hand.load(Ordering::Relaxed) as usize;
        let found = (0..HUNT).any(|_| {
            at = behind(at, 1);
            // A look first: some have none of its own.
            let has = self.bucket(at).is_some_and(|bucket| bucket.least(owner, 0, now).is_some());
            let Some(locked) = (if not.contains(&at) || !has { None } else { self.lock(at) }) else {
                return false;
            };
            let half_open = locked.half_open_of(owner, now);
            let victim = half_open.or_else(|| oldest_of([&locked], owner, now, timeouts).filter(|_| any));
            victim.inspect(|slot| locked.bucket.tags[slot % WAYS].store(0, Ordering::Relaxed)).is_some()
        });
        // Workers that share an interface move it together; where it is exactly does not matter.
        hand.store(at as u32, Ordering::Relaxed);
        if let Some(next) = self.sets.get(behind(at, 1)) {
            let way = next.bucket.least(owner, 0, now).map_or(0, Least::way);
            wharf_engine::prefetch(&next.records[way]);
        }
        for n in [2, 3] {
            self.bucket(behind(at, n)).into_iter().for_each(|bucket| wharf_engine::prefetch(bucket));
        }
        found
    }

    #[inline(always)]
    fn write(&self, slot: usize, tag: u32, key: &SessionKey, state: State, opener: Opener) {
        let (Some(record), Some(bucket)) = (self.record(slot), self.bucket(slot / WAYS)) else {
            return;
        };
        // What was there is not what will be: readers look at the tag before and after.
        bucket.tags[slot % WAYS].store(0, Ordering::Relaxed);
        fence(Ordering::Release);
        let [a, b, c, d, flow, owner] = key.0;
        let words = [a, b, c, d, flow, owner, state.0, opener.bits()];
        for (to, word) in record.0.iter().zip(words) {
            to.store(word, Ordering::Relaxed);
        }
        let way = slot % WAYS;
        bucket.hints[way].store(Hint::of(state).0, Ordering::Relaxed);
        bucket.owners[way].store(key.interface().0 as u8, Ordering::Relaxed);
        bucket.tags[way].store(tag, Ordering::Release);
    }

    /// Empties a slot whose bucket is locked.
    fn release(&self, slot: usize) {
        let (Some(record), Some(bucket)) = (self.record(slot), self.bucket(slot / WAYS)) else {
            return;
        };
        let tag = &bucket.tags[slot % WAYS];
        if tag.load(Ordering::Relaxed) == 0 {
            return;
        }
        tag.store(0, Ordering::Relaxed);
        if let Some(count) = self.counts.get(record.0[5].load(Ordering::Relaxed) as usize) {
            count.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Forgets a session. Not when another worker is at its bucket: who needs it gone asks again.
    pub fn close(&self, key: &SessionKey) {
        let hash = self.hash(key);
        for at in self.places(hash) {
            if let Some(found) = self.find_in(at, Self::tag(hash), key)
                && let Some(_locked) = self.lock(at)
                && self.find_in(at, Self::tag(hash), key).is_some()
            {
                self.release(found.slot);
            }
        }
    }

    /// Parts of the table, for [`SessionTable::sweep`] and [`SessionTable::list`].
    pub fn parts(&self) -> usize {
        self.sets.len().div_ceil(PART)
    }

    fn slots(&self, part: usize) -> impl Iterator<Item = usize> + '_ {
        let buckets = part * PART..((part + 1) * PART).min(self.sets.len());
        buckets.flat_map(|at| at * WAYS..(at + 1) * WAYS).filter(|slot| {
            let tags = self.bucket(slot / WAYS).map(|b| &b.tags);
            tags.is_some_and(|tags| tags[slot % WAYS].load(Ordering::Relaxed) != 0)
        })
    }

    fn session(&self, slot: usize) -> Option<Session> {
        let words = &self.record(slot)?.0;
        let word = |i: usize| words[i].load(Ordering::Relaxed);
        let key = SessionKey(std::array::from_fn(word));
        // One that is being written is left out.
        self.find(&key).filter(|found| found.slot == slot).map(|found| Session {
            key,
            state: found.state,
            opener: found.opener,
        })
    }

    /// The sessions of a part.
    pub fn list(&self, part: usize) -> Vec<Session> {
        self.slots(part).filter_map(|slot| self.session(slot)).collect()
    }

    /// Forgets the sessions of a part that `unwanted` says so of.
    pub fn sweep(&self, part: usize, mut unwanted: impl FnMut(&Session) -> bool) -> usize {
        let mut gone = 0;
        for session in self.list(part) {
            if unwanted(&session) {
                self.close(&session.key);
                gone += 1;
            }
        }
        gone
    }

    /// Whether a listed session has been silent for too long.
    pub fn has_expired(session: &Session, now: Ticks, timeouts: &Timeouts) -> bool {
        session.state.is_expired(session.key.is_tcp(), now, timeouts)
    }

    fn lock(&self, at: usize) -> Option<Locked<'_>> {
        let bucket = self.bucket(at)?;
        let was = bucket.lock.load(Ordering::Relaxed);
        let is_free = was & 1 == 0;
        let locked = is_free
            && bucket.lock.compare_exchange(was, was + 1, Ordering::Acquire, Ordering::Relaxed).is_ok();
        locked.then_some(Locked { table: self, bucket, at, was })
    }
}

/// A bucket that this thread alone may write.
struct Locked<'a> {
    table: &'a SessionTable,
    bucket: &'a Bucket,
    at: usize,
    /// The lock's number before.
    was: u32,
}

impl Locked<'_> {
    /// The ways that are in use.
    fn used(&self) -> impl Iterator<Item = usize> + use<> {
        let used = !self.bucket.free();
        (0..WAYS).filter(move |way| used >> way & 1 != 0)
    }

    #[inline(always)]
    fn free(&self) -> usize {
        self.bucket.free().count_ones() as usize
    }

    #[inline(always)]
    fn take_free(&self) -> Option<usize> {
        let free = self.bucket.free();
        (free != 0).then(|| self.at * WAYS + free.trailing_zeros() as usize)
    }

    fn state(&self, way: usize) -> (SwIfIndex, bool, State) {
        let record = self.table.record(self.at * WAYS + way);
        let word = |i: usize| record.map_or(0, |r| r.0[i].load(Ordering::Relaxed));
        let is_tcp = (word(4) >> 8) as u8 == IpProtocol::TCP.0;
        (SwIfIndex(word(5) as u32), is_tcp, State(word(STATE)))
    }

    /// The session of an interface that it misses least, if that is half-open and its hint says how things are.
    #[inline(always)]
    fn half_open_of(&self, owner: SwIfIndex, now: Ticks) -> Option<usize> {
        let least = self.bucket.least(owner, 0, now).filter(|least| least.is_half_open())?;
        let (has, _, state) = self.state(least.way());
        let fits = has == owner && Hint::of(state).rank(now) == least.rank();
        fits.then_some(self.at * WAYS + least.way())
    }

    fn hint(&self, way: usize) -> Hint {
        Hint(self.bucket.hints[way].load(Ordering::Relaxed))
    }

    fn expired(&self, now: Ticks, timeouts: &Timeouts) -> Option<usize> {
        let least = timeouts.udp_idle.min(timeouts.tcp_transient).min(timeouts.tcp_idle).0 >> Hint::SHIFT;
        let is_expired = |way: &usize| {
            if self.hint(*way).age(now) < least {
                return false;
            }
            let (_, is_tcp, state) = self.state(*way);
            state.is_expired(is_tcp, now, timeouts)
        };
        self.used().find(is_expired).map(|way| self.at * WAYS + way)
    }
}

/// The session that an interface misses least: half-open ones before established ones, then the oldest. An established one that has
/// not been silent for an eighth of its time is not given up at all.
#[inline(never)]
fn oldest_of<const N: usize>(
    buckets: [&Locked<'_>; N],
    owner: SwIfIndex,
    now: Ticks,
    timeouts: &Timeouts,
) -> Option<usize> {
    // Ways of others, although the lower bits of who has them are the same.
    let mut others = [0; N];
    // Each look puts one hint right, or finds another's way.
    for _ in 0..2 * WAYS * N {
        let least = |at: usize| buckets[at].bucket.least(owner, others[at], now).map(|least| (least, at));
        let (least, at) = (0..N).filter_map(least).max()?;
        let (locked, way) = (buckets[at], least.way());
        let (has, _, state) = locked.state(way);
        let real = Hint::of(state);
        if has != owner {
            others[at] |= 1 << way;
        } else if real.rank(now) == least.rank() {
            let age = now.0.saturating_sub(state.last().0);
            let stays = state.is_established() && age <= timeouts.tcp_idle.0 / 8;
            return (!stays).then_some(locked.at * WAYS + way);
        } else {
            locked.bucket.hints[way].store(real.0, Ordering::Relaxed);
        }
    }
    None
}

impl Drop for Locked<'_> {
    fn drop(&mut self) {
        self.bucket.lock.store(self.was.wrapping_add(2), Ordering::Release);
    }
}

#[cfg(test)]
#[path = "sessions_tests.rs"]
mod tests;
