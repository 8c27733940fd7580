//! A bounded hash table of 64-bit keys and values that many workers read and write at once.
//!
//! Set-associative, as a processor's cache is: a key lives in one of two *buckets* of seven, chosen by a seeded hash, and nothing ever grows
//! or moves. A full pair of buckets gives up one of its own entries, so that whoever crafts colliding keys loses only entries beside
//! them. A bucket is two cache lines, the first of which answers whether the key is there. The second bucket is looked at only when the
//! first has once overflowed.
//!
//! Readers take no lock: a bucket carries a version, odd while it is written, and a reader that saw it change looks again. Writers lock
//! the bucket and never wait: who finds it locked is told [`Put::Busy`], and tries again with the next packet.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering, fence};
use zerocopy::{FromZeros, KnownLayout};

/// Entries of a bucket.
pub const WAYS: usize = 7;
/// The key of an empty entry; no key may be it.
const EMPTY: u64 = 0;
/// Bit of [`Bucket::version`]: some key of this bucket may live in its second one.
const OVERFLOWED: u64 = 2;
const LOCKED: u64 = 1;
const STEP: u64 = 4;
/// How often a reader looks again at a bucket that is being written.
const RETRIES: usize = 8;
/// Buckets that share a mark "was ever used", which spares a scan the untouched part of the table.
const GROUP: usize = 64;

#[derive(FromZeros, KnownLayout)]
#[repr(C, align(128))]
struct Bucket {
    version: AtomicU64,
    keys: [AtomicU64; WAYS],
    values: [AtomicU64; WAYS],
    _pad: u64,
}

const _: () = assert!(size_of::<Bucket>() == 128);

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
    /// A table of `buckets` (rounded up to a power of two, at least 64 and at most 2^24) times [`WAYS`] entries at most. Memory is
    /// touched only as entries come. Up to a third of the capacity next to nothing is given up, whatever the keys; at half of it one in a
    /// thousand is. `seed` should be random: who knows it can make keys collide.
    pub fn new(buckets: usize, seed: [u64; 2]) -> Result<Bihash, NoMemory> {
        let count = buckets.clamp(GROUP, 1 << 24).next_power_of_two();
        let buckets = <[Bucket]>::new_box_zeroed_with_elems(count).map_err(|_| NoMemory(count))?;
        let used = (0..count / GROUP).map(|_| AtomicU64::new(0)).collect();
        Ok(Bihash { buckets, used, seed: [seed[0], seed[1] | 1], mask: count as u64 - 1 })
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
    fn first(&self, hash: u64) -> usize {
        (hash >> 40 & self.mask) as usize
    }

    #[inline(always)]
    fn second(&self, hash: u64) -> usize {
        // Never the first one again.
        let step = hash & self.mask | 1;
        (self.first(hash) as u64 ^ step) as usize
    }

    /// Bucket `at`, which is one of those that [`Bihash::first`] and [`Bihash::second`] name.
    #[inline(always)]
    fn bucket(&self, at: usize) -> &Bucket {
        debug_assert!(at < self.buckets.len());
        // SAFETY: both give numbers up to `mask`, which `new` made one less than the number of buckets, a power of two: `first` by the
        // mask, `second` by an exclusive or of two numbers below that power.
        unsafe { self.buckets.get_unchecked(at) }
    }

    /// Asks the processor for the lines of `key`'s bucket.
    #[inline(always)]
    pub fn prefetch(&self, key: u64) {
        let bucket = std::ptr::from_ref(self.bucket(self.first(self.hash(key))));
        crate::prefetch(bucket);
        crate::prefetch(bucket.cast::<u8>().wrapping_add(64));
    }

    /// The value of `key`.
    #[inline(always)]
    pub fn get(&self, key: u64) -> Option<u64> {
        let hash = self.hash(key);
        let bucket = self.bucket(self.first(hash));
        let (found, overflowed) = bucket.read(key);
        if found.is_none() && overflowed {
            return self.get_second(key, hash);
        }
        found
    }

    #[cold]
    fn get_second(&self, key: u64, hash: u64) -> Option<u64> {
        self.bucket(self.second(hash)).read(key).0
    }

    /// Replaces the value of `key` if it is still `old`. Never waits; cheap, for a time stamp.
    #[inline]
    pub fn refresh(&self, key: u64, old: u64, new: u64) -> bool {
        let hash = self.hash(key);
        for at in [self.first(hash), self.second(hash)] {
            let bucket = self.bucket(at);
            if let Some(i) = bucket.position(key) {
                return bucket.values[i]
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
        let (first, second) = (self.first(hash), self.second(hash));
        // All writers of a key come by its first bucket, so holding that one makes them take turns.
        let Some(mut a) = self.bucket(first).lock() else { return Put::Busy };
        if let Some(i) = a.bucket.position(key) {
            return a.change(i, decide);
        }
        let free = a.bucket.position(EMPTY);
        if free.is_some() && !a.overflowed {
            return self.add(first, &mut a, free, key, decide);
        }
        let Some(mut b) = self.bucket(second).lock() else { return Put::Busy };
        if let Some(i) = b.bucket.position(key) {
            return b.change(i, decide);
        }
        if free.is_some() {
            return self.add(first, &mut a, free, key, decide);
        }
        let free = b.bucket.position(EMPTY);
        if free.is_some() {
            a.overflowed = true;
            return self.add(second, &mut b, free, key, decide);
        }
        let Some(new) = decide(None) else { return Put::Kept };
        let best = |bucket: &Bucket| {
            let ranked = |i: usize| rank(bucket.values[i].load(Ordering::Relaxed)).map(|r| (r, i));
            (0..WAYS).filter_map(ranked).max()
        };
        let (place, i) = match (best(a.bucket), best(b.bucket)) {
            (Some((ra, i)), Some((rb, _))) if ra >= rb => (&mut a, i),
            (_, Some((_, j))) => {
                a.overflowed = true;
                (&mut b, j)
            }
            (Some((_, i)), None) => (&mut a, i),
            (None, None) => return Put::Full,
        };
        let (old_key, old) = place.replace(i, key, new);
        Put::Evicted { key: old_key, value: old }
    }

    fn add(
        &self,
        at: usize,
        place: &mut Locked<'_>,
        free: Option<usize>,
        key: u64,
        decide: impl FnOnce(Option<u64>) -> Option<u64>,
    ) -> Put {
        let (Some(i), Some(value)) = (free, decide(None)) else { return Put::Kept };
        place.replace(i, key, value);
        self.used[at / GROUP].store(1, Ordering::Relaxed);
        Put::Added
    }

    /// Removes `key` if `wanted` says so of its value. `Err` when another thread is at the bucket.
    pub fn remove(&self, key: u64, wanted: impl Fn(u64) -> bool) -> Result<Option<u64>, Busy> {
        let hash = self.hash(key);
        let mut first = self.bucket(self.first(hash)).lock().ok_or(Busy)?;
        if let Some(i) = first.bucket.position(key) {
            return Ok(first.take(i, wanted));
        }
        let mut second = self.bucket(self.second(hash)).lock().ok_or(Busy)?;
        Ok(second.bucket.position(key).and_then(|i| second.take(i, wanted)))
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
                let key = bucket.keys[i].load(Ordering::Acquire);
                if key == EMPTY {
                    continue;
                }
                let value = bucket.values[i].load(Ordering::Acquire);
                if bucket.keys[i].load(Ordering::Acquire) == key
                    && judge(key, value) == Verdict::Remove
                    && let Some(mut locked) = bucket.lock()
                    && locked.bucket.keys[i].load(Ordering::Relaxed) == key
                    && locked.bucket.values[i].load(Ordering::Relaxed) == value
                {
                    removed.push(locked.replace(i, EMPTY, 0));
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
    fn replace(&mut self, i: usize, key: u64, value: u64) -> (u64, u64) {
        let old_key = self.bucket.keys[i].load(Ordering::Relaxed);
        // The entry is empty while its value changes: `refresh` and `scan`, which look without the version, never see one
        // key's value under another key.
        self.bucket.keys[i].store(EMPTY, Ordering::Release);
        let old = self.bucket.values[i].swap(value, Ordering::AcqRel);
        self.bucket.keys[i].store(key, Ordering::Release);
        (old_key, old)
    }

    fn change(&mut self, i: usize, decide: impl FnOnce(Option<u64>) -> Option<u64>) -> Put {
        let old = self.bucket.values[i].load(Ordering::Acquire);
        match decide(Some(old)) {
            Some(new) => Put::Changed(self.bucket.values[i].swap(new, Ordering::AcqRel)),
            None => Put::Kept,
        }
    }

    fn take(&mut self, i: usize, wanted: impl Fn(u64) -> bool) -> Option<u64> {
        wanted(self.bucket.values[i].load(Ordering::Acquire)).then(|| self.replace(i, EMPTY, 0).1)
    }
}

impl Bucket {
    /// Where `key` is. Compares all seven without a branch: which one it is can't be predicted.
    #[inline(always)]
    fn position(&self, key: u64) -> Option<usize> {
        let mut found = 0u32;
        for i in 0..WAYS {
            found |= u32::from(self.keys[i].load(Ordering::Acquire) == key) << i;
        }
        (found != 0).then(|| (found.trailing_zeros() as usize).min(WAYS - 1))
    }

    #[inline(always)]
    fn read(&self, key: u64) -> (Option<u64>, bool) {
        for _ in 0..RETRIES {
            let version = self.version.load(Ordering::Acquire);
            let value = self.position(key).map(|i| self.values[i].load(Ordering::Acquire));
            fence(Ordering::Acquire);
            if version & LOCKED == 0 && self.version.load(Ordering::Relaxed) == version {
                return (value, version & OVERFLOWED != 0);
            }
            std::hint::spin_loop();
        }
        (None, false)
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
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;
    use std::sync::atomic::AtomicBool;

    const SEED: [u64; 2] = [0x1234_5678_9abc_def0, 0x0fed_cba9_8765_4321];

    fn table(buckets: usize) -> Bihash {
        Bihash::new(buckets, SEED).unwrap()
    }

    fn set(t: &Bihash, key: u64, value: u64) -> Put {
        t.put(key, |_| Some(value), Some)
    }

    #[derive(Clone, Debug)]
    enum Op {
        Put(u64, u64),
        Remove(u64),
        Refresh(u64, u64),
        Sweep(u64),
    }

    fn ops() -> impl Strategy<Value = Vec<Op>> {
        // More keys than a table of 64 buckets has room for, so that all its ways to run out are gone through.
        let key = 1u64..700;
        prop::collection::vec(
            prop_oneof![
                8 => (key.clone(), 1u64..1000).prop_map(|(k, v)| Op::Put(k, v)),
                2 => key.clone().prop_map(Op::Remove),
                1 => (key, 1u64..1000).prop_map(|(k, v)| Op::Refresh(k, v)),
                1 => (1u64..1000).prop_map(Op::Sweep),
            ],
            0..2000,
        )
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn agrees_with_a_map(ops in ops(), seed: [u64; 2]) {
            let table = Bihash::new(64, seed).unwrap();
            let mut map = HashMap::new();
            for op in ops {
                match op {
                    Op::Put(key, value) => match table.put(key, |_| Some(value), Some) {
                        Put::Added => prop_assert_eq!(map.insert(key, value), None),
                        Put::Changed(old) => prop_assert_eq!(map.insert(key, value), Some(old)),
                        Put::Evicted { key: gone, value: old } => {
                            prop_assert_eq!(map.remove(&gone), Some(old));
                            prop_assert_eq!(map.insert(key, value), None);
                        }
                        other => prop_assert!(false, "{:?}", other),
                    },
                    Op::Remove(key) => prop_assert_eq!(table.remove(key, |_| true).unwrap(), map.remove(&key)),
                    Op::Refresh(key, new) => {
                        let old = map.get(&key).copied();
                        prop_assert!(!table.refresh(key, old.unwrap_or(0) + 1, new));
                        prop_assert_eq!(table.refresh(key, old.unwrap_or(0), new), old.is_some());
                        map.entry(key).and_modify(|v| *v = new);
                    }
                    Op::Sweep(limit) => {
                        for part in 0..table.parts() {
                            let gone = table.scan(part, |key, value| {
                                assert_eq!(map.get(&key), Some(&value));
                                if value < limit { Verdict::Remove } else { Verdict::Keep }
                            });
                            assert!(gone.iter().all(|(key, value)| *value < limit && map.remove(key) == Some(*value)));
                        }
                        assert!(map.values().all(|value| *value >= limit));
                    }
                }
            }
            for key in 1..700 {
                prop_assert_eq!(table.get(key), map.get(&key).copied());
            }
        }
    }

    #[test]
    fn holds_a_third_of_its_capacity_without_giving_anything_up() {
        let t = table(1024);
        let keys = t.capacity() as u64 / 3;
        for key in 1..=keys {
            assert_eq!(set(&t, key << 16 | 7, key), Put::Added, "{key} of {keys}");
        }
        assert!((1..=keys).all(|key| t.get(key << 16 | 7) == Some(key)));
    }

    #[test]
    fn protected_entries_stay() {
        let t = table(64);
        let keep = |value: u64| (value >= 1000).then_some(value);
        (1..=1000).for_each(|key| _ = t.put(key, |_| Some(1), keep));
        let full = (1..=1000).filter(|key| t.get(*key).is_some()).count();
        assert!((1001..=2000).all(|key| matches!(t.put(key, |_| Some(1), keep), Put::Full | Put::Added)));
        assert!((1..=1000).filter(|key| t.get(*key).is_some()).count() == full);
        assert_eq!(t.put(EMPTY, |_| Some(1), keep), Put::Full);
    }

    #[test]
    fn a_reader_never_sees_one_keys_value_under_another() {
        let t = table(64);
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for part in 0..2 {
                let (t, stop) = (&t, &stop);
                scope.spawn(move || {
                    let mut key = 0;
                    while !stop.load(Ordering::Relaxed) {
                        key = (key + 1) % 2000;
                        let key = key * 2 + part + 1;
                        t.put(key, |_| Some(key * 3), Some);
                        t.refresh(key, key * 3, key * 3);
                        let _ = t.remove(key / 2, |_| true);
                    }
                });
            }
            for _ in 0..20 {
                for key in 1..4000 {
                    assert!(t.get(key).is_none_or(|value| value == key * 3));
                }
                for part in 0..t.parts() {
                    t.scan(part, |key, value| {
                        assert_eq!(value, key * 3);
                        Verdict::Keep
                    });
                }
            }
            stop.store(true, Ordering::Relaxed);
        });
    }

    #[test]
    fn crafted_for_one_seed_is_nothing_for_another() {
        let known = table(1 << 12);
        let crafted: Vec<u64> = (1u64..).filter(|k| known.first(known.hash(*k)) == 5).take(200).collect();
        let other = Bihash::new(1 << 12, [77, 99]).unwrap();
        crafted.iter().for_each(|key| assert_eq!(set(&other, *key, 1), Put::Added));
        assert!(crafted.iter().all(|key| other.get(*key) == Some(1)));
    }
}
