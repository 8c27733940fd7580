//! Which buffers the kernel has. Its rings never give back what a deleted device held, so we keep the list.

use std::sync::atomic::{AtomicU64, Ordering};
use wharf_engine::buffer::{BufferIndex, Owner, Pool};

/// A bit per buffer of the pool; written by the worker that runs the queue.
#[derive(Debug)]
pub(super) struct Lent {
    bits: Box<[AtomicU64]>,
}

impl Lent {
    pub(super) fn new(buffers: u32) -> Lent {
        Lent { bits: (0..buffers.div_ceil(64)).map(|_| AtomicU64::new(0)).collect() }
    }

    #[inline(always)]
    fn change(&self, buffer: u32, change: impl FnOnce(u64, u64) -> u64) -> bool {
        let Some(word) = self.bits.get(buffer as usize / 64) else { return false };
        let (old, bit) = (word.load(Ordering::Relaxed), 1 << (buffer % 64));
        word.store(change(old, bit), Ordering::Relaxed);
        old & bit != 0
    }

    /// The kernel gets a buffer.
    #[inline(always)]
    pub(super) fn give(&self, buffer: BufferIndex) {
        let was = self.change(buffer.into_raw(), |old, bit| old | bit);
        debug_assert!(!was);
    }

    /// The kernel gives a buffer back; `None` if it did not have it.
    #[inline(always)]
    pub(super) fn take(&self, buffer: u32) -> Option<BufferIndex> {
        // SAFETY: the bit was set when the buffer was given away, and is clear now: it is taken back once.
        self.change(buffer, |old, bit| old & !bit).then(|| unsafe { BufferIndex::from_raw(buffer) })
    }

    /// Gives everything back to the pool, once the socket is closed and the kernel can touch it no more.
    pub(super) fn reclaim(&self, pool: &Pool, owner: Owner) -> u32 {
        let mut count = 0;
        for buffer in 0..self.bits.len() as u32 * 64 {
            if let Some(index) = self.take(buffer) {
                pool.change_owner(buffer, owner, Owner::GRAPH);
                pool.free_one(index);
                count += 1;
            }
        }
        count
    }
}
