//! The buffer pool.
//!
//! A buffer is a fixed slot: a cold header line, [`HEADROOM`] bytes in front of the packet, and [`DATA_SIZE`] bytes of data, or
//! more where the operator wants jumbo frames. The stride is an odd number of cache lines, so that the headers of a vector of packets
//! spread over all sets of the first-level cache.

use crate::mapping::{PageSize, Region};
use std::io;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Bytes from one buffer to the next, unless the pool is made for longer packets: 37 cache lines.
const STRIDE: usize = 2368;
/// A pool's stride at most, so that an offset in a buffer fits 16 bits: an odd number of cache lines.
const MAX_STRIDE: usize = 1021 * 64;
/// Bytes of the cold header at the start of a buffer.
pub const COLD: usize = 64;
/// Bytes between the cold header and the place where received data starts.
pub const HEADROOM: usize = 256;
/// Offset in the buffer where received data starts.
pub const DATA_START: u16 = (COLD + HEADROOM) as u16;
/// Bytes of data that every buffer holds behind the headroom; [`Memory::data_size`] says what those of a pool hold.
pub const DATA_SIZE: usize = STRIDE - COLD - HEADROOM;
/// No view of a header is longer than this, and no packet starts later than this before the end of its buffer.
pub const MAX_HEADER: usize = 64;

const _: () = assert!(STRIDE.is_multiple_of(64) && (STRIDE / 64) % 2 == 1 && MAX_STRIDE <= u16::MAX as usize);

/// Bytes of data that a pool's buffers can be made to hold at most.
pub const MAX_DATA_SIZE: usize = MAX_STRIDE - COLD - HEADROOM;

/// Where the buffers of a pool lie. A cheap copy, which says nothing of who owns which.
#[derive(Clone, Copy, Debug)]
pub struct Memory {
    base: *mut u8,
    stride: usize,
}

// SAFETY: an address and a number; whoever uses them needs the right to a buffer.
unsafe impl Send for Memory {}
// SAFETY: as above.
unsafe impl Sync for Memory {}

impl Memory {
    /// Address of buffer 0, which is page aligned.
    #[inline(always)]
    pub fn base(self) -> *mut u8 {
        self.base
    }

    /// Bytes from one buffer to the next, at most 65,535.
    #[inline(always)]
    pub fn stride(self) -> usize {
        self.stride
    }

    /// Bytes of data that a buffer holds behind the headroom.
    #[inline(always)]
    pub fn data_size(self) -> usize {
        self.stride - COLD - HEADROOM
    }

    /// Address of byte `offset` of a buffer: inside the pool if the buffer is one of it and the offset is below the stride.
    #[inline(always)]
    pub fn at(self, buffer: u32, offset: u16) -> *mut u8 {
        self.base.wrapping_add(buffer as usize * self.stride + usize::from(offset))
    }
}

/// Indices that move between a worker's cache and the pool at a time.
const BATCH: usize = 256;

/// The right to one buffer of the pool. Whoever holds it owns the buffer: it is neither `Copy` nor constructible
/// outside the engine, and must go back by [`BufferCache::free`] or into a frame.
#[derive(Debug, PartialEq, Eq)]
#[repr(transparent)]
pub struct BufferIndex(pub(crate) u32);

impl BufferIndex {
    /// Gives the number out for a ring that the kernel shares. The buffer is owned by that ring until
    /// [`BufferIndex::from_raw`] brings it back.
    #[inline(always)]
    pub fn into_raw(self) -> u32 {
        self.0
    }

    /// Takes back what [`BufferIndex::into_raw`] gave out.
    ///
    /// # Safety
    /// `raw` came from `into_raw` of a buffer of the same pool, and was not taken back since.
    #[inline(always)]
    pub unsafe fn from_raw(raw: u32) -> BufferIndex {
        BufferIndex(raw)
    }
}

/// Who holds a buffer, in the checked build.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner(u16);

impl Owner {
    /// In the pool or in a worker's cache.
    pub const FREE: Owner = Owner(0);
    /// In a frame, a handoff ring or a node's hold queue.
    pub const GRAPH: Owner = Owner(1);
    /// Lent to the kernel or a peer by the rings of an interface.
    pub fn device(sw_if_index: crate::SwIfIndex) -> Owner {
        Owner((sw_if_index.0 as u16).saturating_add(2))
    }
}

/// What to build a pool from.
#[derive(Clone, Debug)]
pub struct PoolConfig {
    /// Buffers at start.
    pub buffers: u32,
    /// Buffers that it may grow to.
    pub limit: u32,
    /// Pages to use.
    pub pages: PageSize,
    /// Bytes of data that a buffer holds: rounded up, [`DATA_SIZE`] to [`MAX_DATA_SIZE`].
    pub data_size: usize,
}

impl PoolConfig {
    /// A pool of so many buffers, and no more, on small pages.
    pub fn fixed(buffers: u32) -> PoolConfig {
        PoolConfig { buffers, limit: buffers, pages: PageSize::Small, data_size: DATA_SIZE }
    }
}

impl Default for PoolConfig {
    fn default() -> Self {
        PoolConfig { buffers: 8192, limit: 65_536, pages: PageSize::Auto, data_size: DATA_SIZE }
    }
}

/// All packet memory of the process.
#[derive(Debug)]
pub struct Pool {
    memory: Memory,
    total: AtomicU32,
    limit: u32,
    pages: PageSize,
    free_hint: AtomicU32,
    reserved: AtomicU32,
    alloc_failures: AtomicU64,
    inner: Mutex<Inner>,
    #[cfg(any(debug_assertions, feature = "checked"))]
    owners: Box<[std::sync::atomic::AtomicU16]>,
}

#[derive(Debug)]
struct Inner {
    region: Region,
    free: Vec<u32>,
}

// SAFETY: `memory` lies in `region`, which lives as long as the pool. The bytes of a buffer are reached only
// through the owning `BufferIndex`, of which there is one.
unsafe impl Send for Pool {}
// SAFETY: as above; the free list is behind a mutex.
unsafe impl Sync for Pool {}

/// Why buffers were refused.
#[derive(Debug, thiserror::Error)]
pub enum PoolError {
    /// The memory could not be mapped.
    #[error("cannot map {mib} MiB of buffer memory: {source}")]
    Map {
        /// What was asked for.
        mib: usize,
        /// What the kernel said.
        source: io::Error,
    },
    /// Too few buffers for a new interface.
    #[error(
        "out of buffers: {wanted} needed, {available} of {limit} not yet reserved; raise `buffers {{ buffers-per-numa }}' or its `limit'"
    )]
    Exhausted {
        /// Buffers asked for.
        wanted: u32,
        /// Buffers that are left.
        available: u32,
        /// The pool's limit.
        limit: u32,
    },
}

/// A look at the pool for `show buffers`.
#[derive(Clone, Debug)]
pub struct PoolStats {
    /// Buffers mapped.
    pub total: u32,
    /// Buffers that it may grow to.
    pub limit: u32,
    /// In the pool's own list.
    pub available: u32,
    /// Set aside for interfaces.
    pub reserved: u32,
    /// Allocations that got less than they asked for.
    pub alloc_failures: u64,
    /// Chunks on huge pages.
    pub huge_chunks: usize,
    /// Chunks in all.
    pub chunks: usize,
}

impl Pool {
    /// Maps a pool.
    pub fn new(config: &PoolConfig) -> Result<Arc<Pool>, PoolError> {
        let limit = config.limit.max(config.buffers).max(BATCH as u32);
        let lines = (config.data_size.clamp(DATA_SIZE, MAX_DATA_SIZE) + COLD + HEADROOM).div_ceil(64);
        let stride = (lines | 1) * 64;
        let bytes = limit as usize * stride;
        let map_error = |source| PoolError::Map { mib: bytes >> 20, source };
        let mut region = Region::reserve(bytes).map_err(map_error)?;
        region
            .commit(config.buffers as usize * stride, config.pages)
            .map_err(|source| PoolError::Map { mib: (config.buffers as usize * stride) >> 20, source })?;
        let total = ((region.committed() / stride) as u32).min(limit);
        let pool = Pool {
            memory: Memory { base: region.base(), stride },
            total: AtomicU32::new(total),
            limit,
            pages: config.pages,
            free_hint: AtomicU32::new(total),
            reserved: AtomicU32::new(0),
            alloc_failures: AtomicU64::new(0),
            inner: Mutex::new(Inner { region, free: (0..total).rev().collect() }),
            #[cfg(any(debug_assertions, feature = "checked"))]
            owners: (0..limit).map(|_| std::sync::atomic::AtomicU16::new(0)).collect(),
        };
        Ok(Arc::new(pool))
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where the buffers lie.
    #[inline(always)]
    pub fn memory(&self) -> Memory {
        self.memory
    }

    /// Buffers mapped now. Grows, never shrinks.
    pub fn total(&self) -> u32 {
        self.total.load(Ordering::Acquire)
    }

    /// Address of a buffer's first byte. The memory is the owner's alone.
    #[inline(always)]
    pub fn address(&self, buffer: &BufferIndex) -> *mut u8 {
        self.memory.at(buffer.0, 0)
    }

    /// The data of a buffer from `start` on, as bytes. `start` is capped to the buffer's end.
    pub fn bytes_mut<'a>(&'a self, buffer: &'a mut BufferIndex, start: u16) -> &'a mut [u8] {
        let stride = self.memory.stride;
        let start = usize::from(start).clamp(COLD, stride);
        // SAFETY: [start, stride) is inside the buffer, an index is always below `total`, and `&mut BufferIndex` is the only way
        // to the buffer.
        unsafe { std::slice::from_raw_parts_mut(self.address(buffer).add(start), stride - start) }
    }

    /// Grows by a chunk when fewer than a quarter of the buffers are free. The main thread calls this regularly:
    /// mapping and zeroing memory is nothing for a worker. Returns whether it grew.
    pub fn maintain(&self) -> bool {
        let total = self.total();
        if total >= self.limit || self.free_hint.load(Ordering::Relaxed) >= total / 4 {
            return false;
        }
        let mut inner = self.inner();
        let stride = self.memory.stride;
        let step = (total as usize / 2 * stride).min(inner.region.limit() - inner.region.committed());
        if step == 0 || inner.region.commit(step, self.pages).is_err() {
            return false;
        }
        let grown = ((inner.region.committed() / stride) as u32).min(self.limit);
        inner.free.extend((total..grown).rev());
        self.free_hint.store(inner.free.len() as u32, Ordering::Relaxed);
        self.total.store(grown, Ordering::Release);
        true
    }

    /// Sets `count` buffers aside for an interface, or refuses: so that an interface that comes up can also work.
    pub fn reserve(self: &Arc<Self>, count: u32) -> Result<Quota, PoolError> {
        let usable = self.limit - self.limit / 4;
        let mut reserved = self.reserved.load(Ordering::Relaxed);
        loop {
            let available = usable.saturating_sub(reserved);
            if count > available {
                return Err(PoolError::Exhausted { wanted: count, available, limit: self.limit });
            }
            match self.reserved.compare_exchange_weak(
                reserved,
                reserved + count,
                Ordering::Relaxed,
                Ordering::Relaxed,
            ) {
                Ok(_) => break,
                Err(now) => reserved = now,
            }
        }
        Ok(Quota {
            pool: Arc::clone(self),
            limit: count,
            used: AtomicU32::new(0),
            refused: AtomicU64::new(0),
        })
    }

    /// Numbers for `show buffers`.
    pub fn stats(&self) -> PoolStats {
        let inner = self.inner();
        let (huge_chunks, chunks) = inner.region.chunks();
        PoolStats {
            total: self.total(),
            limit: self.limit,
            available: inner.free.len() as u32,
            reserved: self.reserved.load(Ordering::Relaxed),
            alloc_failures: self.alloc_failures.load(Ordering::Relaxed),
            huge_chunks,
            chunks,
        }
    }

    /// Takes one buffer straight from the pool; for the main thread, which has no cache.
    pub fn alloc_one(&self) -> Option<BufferIndex> {
        let mut inner = self.inner();
        let index = inner.free.pop()?;
        self.free_hint.store(inner.free.len() as u32, Ordering::Relaxed);
        drop(inner);
        self.change_owner(index, Owner::FREE, Owner::GRAPH);
        Some(BufferIndex(index))
    }

    /// Gives one buffer straight back to the pool.
    pub fn free_one(&self, buffer: BufferIndex) {
        self.change_owner(buffer.0, Owner::GRAPH, Owner::FREE);
        let mut inner = self.inner();
        inner.free.push(buffer.0);
        self.free_hint.store(inner.free.len() as u32, Ordering::Relaxed);
    }

    /// Records that a buffer went from one owner to another; the checked build panics when it was not theirs to give.
    #[inline(always)]
    #[allow(unused_variables, reason = "owners exist in the checked build only")]
    pub fn change_owner(&self, index: u32, from: Owner, to: Owner) {
        #[cfg(any(debug_assertions, feature = "checked"))]
        {
            let was = self.owners[index as usize].swap(to.0, Ordering::AcqRel);
            assert_eq!(Owner(was), from, "buffer {index} changes owner to {to:?}");
        }
    }

    /// How many buffers each owner holds, in the checked build: `(free, graph, devices)`.
    #[cfg(any(debug_assertions, feature = "checked"))]
    pub fn census(&self) -> (u32, u32, u32) {
        let mut counts = (0, 0, 0);
        for owner in &self.owners[..self.total() as usize] {
            match Owner(owner.load(Ordering::Acquire)) {
                Owner::FREE => counts.0 += 1,
                Owner::GRAPH => counts.1 += 1,
                _ => counts.2 += 1,
            }
        }
        counts
    }

    /// How many buffers each owner holds, `(free, graph, devices)`; `None` in a build without owners.
    pub fn owners(&self) -> Option<(u32, u32, u32)> {
        #[cfg(any(debug_assertions, feature = "checked"))]
        return Some(self.census());
        #[cfg(not(any(debug_assertions, feature = "checked")))]
        None
    }

    /// Whether buffers have owners in this build.
    pub const CHECKED: bool = cfg!(any(debug_assertions, feature = "checked"));
}

/// Buffers set aside for one interface; given back when dropped.
#[derive(Debug)]
pub struct Quota {
    pool: Arc<Pool>,
    limit: u32,
    used: AtomicU32,
    refused: AtomicU64,
}

impl Quota {
    /// How many of `want` the interface may take now. The caller is its only taker.
    #[inline]
    pub fn charge(&self, want: u32) -> u32 {
        let used = self.used.load(Ordering::Relaxed);
        let granted = want.min(self.limit.saturating_sub(used));
        if granted < want {
            self.refused
                .store(self.refused.load(Ordering::Relaxed) + u64::from(want - granted), Ordering::Relaxed);
        }
        self.used.store(used + granted, Ordering::Relaxed);
        granted
    }

    /// Gives `count` back.
    #[inline]
    pub fn release(&self, count: u32) {
        let used = self.used.load(Ordering::Relaxed);
        debug_assert!(count <= used);
        self.used.store(used.saturating_sub(count), Ordering::Relaxed);
    }

    /// `(used, limit, refused)`.
    pub fn usage(&self) -> (u32, u32, u64) {
        (self.used.load(Ordering::Relaxed), self.limit, self.refused.load(Ordering::Relaxed))
    }
}

impl Drop for Quota {
    fn drop(&mut self) {
        self.pool.reserved.fetch_sub(self.limit, Ordering::Relaxed);
    }
}

/// A worker's own stock of free buffers; it meets the pool's lock once per 256 buffers at most.
#[derive(Debug)]
pub struct BufferCache {
    pool: Arc<Pool>,
    free: Vec<u32>,
    /// Where [`BufferCache::exchange`] looks next in the pool's list.
    cursor: usize,
}

impl BufferCache {
    /// An empty cache over `pool`.
    pub fn new(pool: Arc<Pool>) -> BufferCache {
        BufferCache { pool, free: Vec::with_capacity(4 * BATCH), cursor: 0 }
    }

    /// The pool.
    #[inline(always)]
    pub fn pool(&self) -> &Arc<Pool> {
        &self.pool
    }

    /// Free buffers in the cache.
    pub fn cached(&self) -> usize {
        self.free.len()
    }

    /// Makes at least `want` (at most 256) buffers available; returns how many are.
    #[inline]
    pub(crate) fn stock(&mut self, want: usize) -> usize {
        if self.free.len() < want {
            self.refill(want);
        }
        want.min(self.free.len())
    }

    #[cold]
    fn refill(&mut self, want: usize) {
        let mut inner = self.pool.inner();
        let have = inner.free.len();
        let take = BATCH.max(want).min(have);
        self.free.extend(inner.free.drain(have - take..));
        self.pool.free_hint.store(inner.free.len() as u32, Ordering::Relaxed);
        if self.free.len() < want {
            self.pool.alloc_failures.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Lends `n` free indices, no more than [`BufferCache::stock`] returned.
    #[inline(always)]
    pub(crate) fn lend(&mut self, n: usize) -> Lent<'_> {
        let n = n.min(self.free.len());
        Lent { pool: &self.pool, free: &mut self.free, n }
    }

    /// A single buffer whose index satisfies `wanted`. Looks at the cache, and when that has none, at one batch of the
    /// pool's list: the next call at the next one.
    pub fn alloc_where(&mut self, wanted: impl Fn(u32) -> bool) -> Option<BufferIndex> {
        if self.stock(1) == 0 {
            return None;
        }
        let position = |free: &[u32]| free.iter().rposition(|&index| wanted(index));
        let at = match position(&self.free) {
            Some(at) => at,
            None => {
                self.exchange(&wanted);
                position(&self.free)?
            }
        };
        let index = self.free.swap_remove(at);
        self.pool.change_owner(index, Owner::FREE, Owner::GRAPH);
        Some(BufferIndex(index))
    }

    /// Swaps buffers that are not `wanted` for ones of the pool that are: a cache full of the wrong ones would starve
    /// its worker beside a full pool.
    #[cold]
    fn exchange(&mut self, wanted: &impl Fn(u32) -> bool) {
        let mut inner = self.pool.inner();
        let from = if self.cursor < inner.free.len() { self.cursor } else { 0 };
        let to = (from + BATCH).min(inner.free.len());
        let mut mine = self.free.iter_mut().filter(|index| !wanted(**index));
        for theirs in inner.free[from..to].iter_mut().filter(|index| wanted(**index)) {
            let Some(mine) = mine.next() else { break };
            std::mem::swap(mine, theirs);
        }
        self.cursor = to;
    }

    /// A single buffer.
    #[inline]
    pub fn alloc(&mut self) -> Option<BufferIndex> {
        if self.stock(1) == 0 {
            return None;
        }
        let index = self.free.pop()?;
        self.pool.change_owner(index, Owner::FREE, Owner::GRAPH);
        Some(BufferIndex(index))
    }

    /// Gives buffers back.
    #[inline(always)]
    pub fn free(&mut self, buffer: BufferIndex) {
        self.free_iter(std::iter::once(buffer));
    }

    /// Gives many buffers back.
    #[inline(always)]
    pub fn free_iter(&mut self, buffers: impl Iterator<Item = BufferIndex>) {
        let pool = &self.pool;
        self.free.extend(buffers.map(|buffer| {
            pool.change_owner(buffer.0, Owner::GRAPH, Owner::FREE);
            buffer.0
        }));
        if self.free.len() > 3 * BATCH {
            self.spill();
        }
    }

    #[cold]
    fn spill(&mut self) {
        let at = 2 * BATCH;
        let mut inner = self.pool.inner();
        inner.free.extend(self.free.drain(at..));
        self.pool.free_hint.store(inner.free.len() as u32, Ordering::Relaxed);
    }
}

/// Free indices of a cache that are about to be used.
pub(crate) struct Lent<'a> {
    pool: &'a Pool,
    free: &'a mut Vec<u32>,
    /// At most the length of `free`.
    n: usize,
}

impl Lent<'_> {
    /// How many there are.
    #[inline(always)]
    pub(crate) fn len(&self) -> usize {
        self.n
    }

    /// The `k`-th, counted from the one that was freed last: that one is most likely in the processor's cache.
    #[inline(always)]
    pub(crate) fn get(&self, k: usize) -> Option<u32> {
        // SAFETY: k < n <= free.len().
        (k < self.n).then(|| unsafe { *self.free.get_unchecked(self.free.len() - 1 - k) })
    }

    /// Those from the `k`-th on, the last one first.
    #[inline(always)]
    pub(crate) fn rest(&self, k: usize) -> &[u32] {
        let n = self.free.len();
        self.free.get(n - self.n..n - k.min(self.n)).unwrap_or_default()
    }

    /// Takes the first `used` out of the cache: they now belong to the frame that they were written to.
    #[inline(always)]
    pub(crate) fn keep_from(&mut self, used: usize) {
        let at = self.free.len() - used.min(self.n);
        if Pool::CHECKED {
            for &index in &self.free[at..] {
                self.pool.change_owner(index, Owner::FREE, Owner::GRAPH);
            }
        }
        self.free.truncate(at);
    }
}

impl Drop for BufferCache {
    fn drop(&mut self) {
        self.pool.inner().free.append(&mut self.free);
    }
}

#[cfg(all(test, any(debug_assertions, feature = "checked")))]
mod tests {
    use super::*;

    fn pool(buffers: u32, limit: u32) -> Arc<Pool> {
        Pool::new(&PoolConfig { limit, ..PoolConfig::fixed(buffers) }).unwrap()
    }

    #[test]
    fn every_buffer_comes_back() {
        let pool = pool(1000, 1000);
        let mut cache = BufferCache::new(Arc::clone(&pool));
        let total = pool.total();
        let mut held = Vec::new();
        while let Some(buffer) = cache.alloc() {
            held.push(buffer);
        }
        assert_eq!(held.len() as u32, total);
        assert_eq!(pool.stats().alloc_failures, 1);
        assert_eq!(pool.census(), (0, total, 0));
        cache.free_iter(held.drain(..));
        drop(cache);
        assert_eq!(pool.census(), (total, 0, 0));
        assert_eq!(pool.stats().available, total);
    }

    #[test]
    #[should_panic(expected = "changes owner")]
    fn a_double_free_is_found() {
        let pool = pool(512, 512);
        let mut cache = BufferCache::new(pool);
        let buffer = cache.alloc().unwrap();
        let raw = buffer.into_raw();
        // SAFETY: deliberately broken; the checked build must notice.
        cache.free(unsafe { BufferIndex::from_raw(raw) });
        // SAFETY: as above.
        cache.free(unsafe { BufferIndex::from_raw(raw) });
    }

    #[test]
    fn grows_when_low_up_to_its_limit() {
        let pool = pool(1000, 4000);
        let first = pool.total();
        assert!(!pool.maintain());
        let mut cache = BufferCache::new(Arc::clone(&pool));
        let mut held = Vec::new();
        while let Some(buffer) = cache.alloc() {
            held.push(buffer);
            pool.maintain();
        }
        assert!(first < 4000);
        assert_eq!(held.len(), 4000);
        cache.free_iter(held.drain(..));
    }

    #[test]
    fn a_quota_is_refused_by_name_and_given_back() {
        let pool = pool(1024, 1024);
        let quota = pool.reserve(700).unwrap();
        let error = pool.reserve(100).unwrap_err().to_string();
        assert!(error.contains("100 needed, 68 of 1024"), "{error}");
        assert_eq!(quota.charge(600), 600);
        assert_eq!(quota.charge(200), 100);
        quota.release(700);
        assert_eq!(quota.usage(), (0, 700, 100));
        drop(quota);
        pool.reserve(700).unwrap();
    }
}
