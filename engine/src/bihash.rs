//! A bounded hash table of 64-bit keys and values that many workers read and write at once.
//!
//! Set-associative, as a processor's cache is: a key lives in one of two *buckets* of seven, chosen by a seeded hash, and nothing ever grows
//! or moves. A full pair of buckets gives up one of its own entries, so that whoever crafts colliding keys loses only entries beside
//! them. A bucket is two cache lines. It has a byte of each key's hash, its *tag*, in one word, so that a lookup compares one key and not seven; the
//! first entries to be taken are in the line of that word. The second bucket is looked at only when the first has once overflowed.
//!
//! Readers take no lock: a bucket carries a version, odd while it is written, and a reader that saw it change looks again. Writers lock
//! the bucket and never wait: who finds it locked is told [`Put::Busy`], and tries again with the next packet.

use crate::mapping::zeroed;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering, fence};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout};

/// Entries of a bucket.
pub const WAYS: usize = 7;
/// Buckets of a table at least.
pub const MIN_BUCKETS: usize = 64;
/// Buckets of a table at most: as many as a [`Place`] tells apart.
pub const MAX_BUCKETS: usize = 1 << 24;
/// Bytes of a bucket.
pub const BUCKET_SIZE: usize = size_of::<Bucket>();
/// The key of an empty entry; no key may be it.
const EMPTY: u64 = 0;
/// Bit of [`Bucket::version`]: some key of this bucket may live in its second one.
const OVERFLOWED: u64 = 2;
const LOCKED: u64 = 1;
const STEP: u64 = 4;
/// How often a reader looks again at a bucket that is being written.
const RETRIES: usize = 8;
/// Buckets that share a mark "was ever used", which spares a scan the untouched part of the table.
const GROUP: usize = MIN_BUCKETS;

/// A byte for each entry.
mod tags {
    /// The lowest bit of each.
    pub(super) const LOW: u64 = 0x0001_0101_0101_0101;
    /// The highest of each, which is set if the entry is taken.
    pub(super) const HIGH: u64 = LOW << 7;
    /// All bits of the first.
    pub(super) const ONE: u64 = 0xff;

    /// The tag of a key, in each byte. Neither bucket is chosen by these bits of the hash.
    #[inline(always)]
    pub(super) fn of(place: super::Place) -> u64 {
        u64::from(place.0 & 0x7f | 0x80).wrapping_mul(LOW)
    }
}

/// Where in a table a key is looked for, of [`Bihash::place`]: the upper half of its hash.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable)]
#[repr(transparent)]
pub struct Place(u32);

impl Place {
    #[inline(always)]
    fn of(hash: u64) -> Place {
        Place((hash >> 32) as u32)
    }
}

#[derive(FromZeros, KnownLayout)]
#[repr(C)]
struct Entry {
    key: AtomicU64,
    value: AtomicU64,
}

#[derive(FromZeros, KnownLayout)]
#[repr(C, align(128))]
struct Bucket {
    version: AtomicU64,
    tags: AtomicU64,
    entries: [Entry; WAYS],
}

const _: () = assert!(BUCKET_SIZE == 128);

/// What [`Bihash::put`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Put {
    /// The key is new.
    Added,
    /// The key had this value.
    Changed(u64),
    /// The key is new, and an entry had to go for it.
    Evicted {
        /// The key that is gone.
        key: u64,
        /// Its value.
        value: u64,
    },
    /// The caller did not want a change.
    Kept,
    /// Another thread is at this bucket.
    Busy,
    /// No entry of the buckets may be given up.
    Full,
}

/// What becomes of an entry that [`Bihash::scan`] comes by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It stays.
    Keep,
    /// It goes.
    Remove,
}

/// The table.
pub struct Bihash {
    buckets: Box<[Bucket]>,
    used: Box<[AtomicU64]>,
    seed: [u64; 2],
    mask: u64,
}

impl fmt::Debug for Bihash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bihash").field("buckets", &self.buckets.len()).finish_non_exhaustive()
    }
}

/// The table's memory could not be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no memory for a table of {0} buckets")]
pub struct NoMemory(usize);

impl Bihash {
    /// A table of `buckets` (rounded up to a power of two, at least [`MIN_BUCKETS`] and at most [`MAX_BUCKETS`]) times [`WAYS`] entries at most. Up to a third of the
    /// capacity next to nothing is given up, whatever the keys; at half of it one in a thousand is. `seed` should be random: who knows it can make keys collide.
    pub fn new(buckets: usize, seed: [u64; 2]) -> Result<Bihash, NoMemory> {
        let count = buckets.clamp(GROUP, MAX_BUCKETS).next_power_of_two();
        let buckets = zeroed::<Bucket>(count).ok_or(NoMemory(count))?;
        let used = (0..count / GROUP).map(|_| AtomicU64::new(0)).collect();
        Ok(Bihash { buckets, used, seed: [seed[0], seed[1] | 1], mask: count as u64 - 1 })
    }

    /// Bytes of its buckets.
    pub fn memory(&self) -> usize {
        size_of_val(&*self.buckets)
    }

    /// Entries that there is room for.
    pub fn capacity(&self) -> usize {
        self.buckets.len() * WAYS
    }

    #[inline(always)]
    fn hash(&self, key: u64) -> u64 {
        let wide = u128::from(key ^ self.seed[0]) * u128::from(self.seed[1]);
        let folded = (wide >> 64) as u64 ^ wide as u64;
        // One more round: the low bits of one product alone leave runs of neighbouring keys in neighbouring buckets.
        folded.wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }

    #[inline(always)]
    fn first(&self, place: Place) -> usize {
        (u64::from(place.0 >> 8) & self.mask) as usize
    }

    #[inline(always)]
    fn second(&self, hash: u64) -> usize {
        // Never the first one again.
        let step = hash & self.mask | 1;
        (self.first(Place::of(hash)) as u64 ^ step) as usize
    }

    /// Bucket `at`, which is one of those that [`Bihash::first`] and [`Bihash::second`] name.
    #[inline(always)]
    fn bucket(&self, at: usize) -> &Bucket {
        debug_assert!(at < self.buckets.len());
        // SAFETY: both give numbers up to `mask`, which `new` made one less than the number of buckets, a power of two: `first` by the
        // mask, `second` by an exclusive or of two numbers below that power.
        unsafe { self.buckets.get_unchecked(at) }
    }

    /// Where `key` is looked for. A node that hands it on spares the next one the hash.
    #[inline(always)]
    pub fn place(&self, key: u64) -> Place {
        Place::of(self.hash(key))
    }

    /// Asks the processor for the lines of the bucket.
    #[inline(always)]
    pub fn prefetch(&self, place: Place) {
        let bucket = std::ptr::from_ref(self.bucket(self.first(place)));
        crate::prefetch(bucket);
        crate::prefetch(bucket.cast::<u8>().wrapping_add(64));
    }

    /// The value of `key`.
    #[inline(always)]
    pub fn get(&self, key: u64) -> Option<u64> {
        self.get_at(key, self.place(key))
    }

    /// The value of `key`, whose place is known. At another place it is not found.
    #[inline(always)]
    pub fn get_at(&self, key: u64, place: Place) -> Option<u64> {
        let (found, overflowed) = self.bucket(self.first(place)).read(key, place);
        if found.is_none() && overflowed {
            return self.get_second(key);
        }
        found
    }

    #[cold]
    #[inline(never)]
    fn get_second(&self, key: u64) -> Option<u64> {
        let hash = self.hash(key);
        self.bucket(self.second(hash)).read(key, Place::of(hash)).0
    }

    /// Replaces the value of `key` if it is still `old`. Never waits; cheap, for a time stamp.
    #[inline]
    pub fn refresh(&self, key: u64, old: u64, new: u64) -> bool {
        let hash = self.hash(key);
        let place = Place::of(hash);
        for at in [self.first(place), self.second(hash)] {
            let bucket = self.bucket(at);
            if let Some(i) = bucket.position(key, place) {
                return bucket.entries[i]
                    .value
                    .compare_exchange(old, new, Ordering::AcqRel, Ordering::Relaxed)
                    .is_ok();
            }
        }
        false
    }

    /// Gives `key` the value that `decide` makes of its present one; `None` leaves all as it is. When a new key finds both its
    /// buckets full, the entry goes for which `rank` says the highest number; `None` protects an entry.
    pub fn put(
        &self,
        key: u64,
        decide: impl FnOnce(Option<u64>) -> Option<u64>,
        rank: impl Fn(u64) -> Option<u64>,
    ) -> Put {
        if key == EMPTY {
            return Put::Full;
        }
        let hash = self.hash(key);
        let place = Place::of(hash);
        let (first, second) = (self.first(place), self.second(hash));
        // All writers of a key come by its first bucket, so holding that one makes them take turns.
        let Some(mut a) = self.bucket(first).lock() else { return Put::Busy };
        if let Some(i) = a.bucket.position(key, place) {
            return a.change(i, decide);
        }
        let free = a.bucket.free();
        if free.is_some() && !a.overflowed {
            return self.add(first, &mut a, free, (key, place), decide);
        }
        let Some(mut b) = self.bucket(second).lock() else { return Put::Busy };
        if let Some(i) = b.bucket.position(key, place) {
            return b.change(i, decide);
        }
        if free.is_some() {
            return self.add(first, &mut a, free, (key, place), decide);
        }
        let free = b.bucket.free();
        if free.is_some() {
            a.overflowed = true;
            return self.add(second, &mut b, free, (key, place), decide);
        }
        let Some(new) = decide(None) else { return Put::Kept };
        let best = |bucket: &Bucket| {
            let ranked = |i: usize| rank(bucket.entries[i].value.load(Ordering::Relaxed)).map(|r| (r, i));
            (0..WAYS).filter_map(ranked).max()
        };
        let (there, i) = match (best(a.bucket), best(b.bucket)) {
            (Some((ra, i)), Some((rb, _))) if ra >= rb => (&mut a, i),
            (_, Some((_, j))) => {
                a.overflowed = true;
                (&mut b, j)
            }
            (Some((_, i)), None) => (&mut a, i),
            (None, None) => return Put::Full,
        };
        let (old_key, old) = there.replace(i, key, new, tags::of(place));
        Put::Evicted { key: old_key, value: old }
    }

    fn add(
        &self,
        at: usize,
        bucket: &mut Locked<'_>,
        free: Option<usize>,
        (key, place): (u64, Place),
        decide: impl FnOnce(Option<u64>) -> Option<u64>,
    ) -> Put {
        let (Some(i), Some(value)) = (free, decide(None)) else { return Put::Kept };
        bucket.replace(i, key, value, tags::of(place));
        self.used[at / GROUP].store(1, Ordering::Relaxed);
        Put::Added
    }

    /// Removes `key` if `wanted` says so of its value. `Err` when another thread is at the bucket.
    pub fn remove(&self, key: u64, wanted: impl Fn(u64) -> bool) -> Result<Option<u64>, Busy> {
        let hash = self.hash(key);
        let place = Place::of(hash);
        let mut first = self.bucket(self.first(place)).lock().ok_or(Busy)?;
        if let Some(i) = first.bucket.position(key, place) {
            return Ok(first.take(i, wanted));
        }
        let mut second = self.bucket(self.second(hash)).lock().ok_or(Busy)?;
        Ok(second.bucket.position(key, place).and_then(|i| second.take(i, wanted)))
    }

    /// Parts of the table for [`Bihash::scan`].
    pub fn parts(&self) -> usize {
        self.used.len()
    }

    /// Comes by each entry of one part (`0..parts()`) of the table, with its key and value. An entry that another thread is writing at this
    /// moment may be missed, and one whose value changed since `judge` saw it is not removed. Returns what was.
    pub fn scan(&self, part: usize, mut judge: impl FnMut(u64, u64) -> Verdict) -> Vec<(u64, u64)> {
        let mut removed = Vec::new();
        if self.used.get(part).is_none_or(|u| u.load(Ordering::Relaxed) == 0) {
            return removed;
        }
        for bucket in &self.buckets[part * GROUP..(part + 1) * GROUP] {
            for i in 0..WAYS {
                let entry = &bucket.entries[i];
                let key = entry.key.load(Ordering::Acquire);
                if key == EMPTY {
                    continue;
                }
                let value = entry.value.load(Ordering::Acquire);
                if entry.key.load(Ordering::Acquire) == key
                    && judge(key, value) == Verdict::Remove
                    && let Some(mut locked) = bucket.lock()
                    && entry.key.load(Ordering::Relaxed) == key
                    && entry.value.load(Ordering::Relaxed) == value
                {
                    removed.push(locked.replace(i, EMPTY, 0, 0));
                }
            }
        }
        removed
    }
}

/// Another thread is writing there: try again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Busy;

struct Locked<'a> {
    bucket: &'a Bucket,
    version: u64,
    overflowed: bool,
}

impl Drop for Locked<'_> {
    fn drop(&mut self) {
        let flag = if self.overflowed { OVERFLOWED } else { 0 };
        let next = (self.version & !(OVERFLOWED | LOCKED)).wrapping_add(STEP) | flag;
        self.bucket.version.store(next, Ordering::Release);
    }
}

impl Locked<'_> {
    /// Gives entry `i` to a key of these [`tags`]; 0 for none. Returns what was there.
    fn replace(&mut self, i: usize, key: u64, value: u64, tags: u64) -> (u64, u64) {
        let entry = &self.bucket.entries[i];
        let old_key = entry.key.load(Ordering::Relaxed);
        // The entry is empty while its value changes: `refresh` and `scan`, which look without the version, never see one
        // key's value under another key. A tag that is not the key's only makes them miss it.
        entry.key.store(EMPTY, Ordering::Release);
        let old = entry.value.swap(value, Ordering::AcqRel);
        entry.key.store(key, Ordering::Release);
        let mask = tags::ONE << (8 * i);
        let all = self.bucket.tags.load(Ordering::Relaxed) & !mask | tags & mask;
        self.bucket.tags.store(all, Ordering::Release);
        (old_key, old)
    }

    fn change(&mut self, i: usize, decide: impl FnOnce(Option<u64>) -> Option<u64>) -> Put {
        let value = &self.bucket.entries[i].value;
        match decide(Some(value.load(Ordering::Acquire))) {
            Some(new) => Put::Changed(value.swap(new, Ordering::AcqRel)),
            None => Put::Kept,
        }
    }

    fn take(&mut self, i: usize, wanted: impl Fn(u64) -> bool) -> Option<u64> {
        let value = self.bucket.entries[i].value.load(Ordering::Acquire);
        wanted(value).then(|| self.replace(i, EMPTY, 0, 0).1)
    }
}

impl Bucket {
    /// Where `key` is. Whose tag is another's needs a second look, once in a hundred times.
    #[inline(always)]
    fn position(&self, key: u64, place: Place) -> Option<usize> {
        let differs = self.tags.load(Ordering::Acquire) ^ tags::of(place);
        // Bytes that are zero, and perhaps some behind the first of them: what counts is the key.
        let mut hits = differs.wrapping_sub(tags::LOW) & !differs & tags::HIGH;
        while hits != 0 {
            let i = (hits.trailing_zeros() / 8) as usize;
            if self.entries.get(i).is_some_and(|entry| entry.key.load(Ordering::Acquire) == key) {
                return Some(i);
            }
            hits &= hits - 1;
        }
        None
    }

    /// An entry that is not taken: the first, so that the line of the tags fills first.
    fn free(&self) -> Option<usize> {
        let free = !self.tags.load(Ordering::Relaxed) & tags::HIGH;
        (free != 0).then(|| (free.trailing_zeros() / 8) as usize)
    }

    /// The value of `key`, and whether the key may be in its second bucket.
    #[inline(always)]
    fn read(&self, key: u64, place: Place) -> (Option<u64>, bool) {
        match self.try_read(key, place) {
            Some(found) => found,
            None => self.read_again(key, place),
        }
    }

    #[cold]
    #[inline(never)]
    fn read_again(&self, key: u64, place: Place) -> (Option<u64>, bool) {
        for _ in 1..RETRIES {
            std::hint::spin_loop();
            if let Some(found) = self.try_read(key, place) {
                return found;
            }
        }
        (None, false)
    }

    /// `None` when somebody was writing.
    #[inline(always)]
    fn try_read(&self, key: u64, place: Place) -> Option<(Option<u64>, bool)> {
        let version = self.version.load(Ordering::Acquire);
        let at = self.position(key, place);
        let value = at.and_then(|i| self.entries.get(i)).map(|entry| entry.value.load(Ordering::Acquire));
        fence(Ordering::Acquire);
        let still = version & LOCKED == 0 && self.version.load(Ordering::Relaxed) == version;
        still.then_some((value, version & OVERFLOWED != 0))
    }

    fn lock(&self) -> Option<Locked<'_>> {
        let version = self.version.load(Ordering::Relaxed);
        if version & LOCKED != 0 {
            return None;
        }
        let taken =
            self.version.compare_exchange(version, version | LOCKED, Ordering::Acquire, Ordering::Relaxed);
        // What is written next must not be seen before the odd version.
        fence(Ordering::SeqCst);
        let overflowed = version & OVERFLOWED != 0;
        taken.ok().map(|_| Locked { bucket: self, version, overflowed })
    }
}

#[cfg(test)]
mod tests;
