//! The four rings between a socket and the kernel (Documentation/networking/af_xdp.rst).
//!
//! All are single-producer, single-consumer arrays with two free-running `u32` indices in shared
//! memory. Each side keeps its own index privately and a cached copy of the other's, so that the
//! shared cache line is touched once a batch:
//!
//! | ring | entry | written by | type |
//! |---|---|---|---|
//! | fill | chunk address | us | [`FillRing`] |
//! | RX | [`Descriptor`] | kernel | [`RxRing`] |
//! | TX | [`Descriptor`] | us | [`TxRing`] |
//! | completion | frame address | kernel | [`CompletionRing`] |
//!
//! What the kernel writes is masked or clamped before use, so a wild index costs packets, not
//! memory safety.

use std::{
    ptr::NonNull,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering, fence},
    },
};

/// An RX or TX ring entry: `struct xdp_desc` of linux/if_xdp.h.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Descriptor {
    /// Address in the UMEM; from the kernel `chunk | offset << 48`.
    pub addr: u64,
    /// Bytes of the frame.
    pub len: u32,
    /// XDP_PKT_CONTD, XDP_TX_METADATA.
    pub options: u32,
}

/// Empty chunks for the kernel to receive into.
pub type FillRing = Producer<u64>;
/// Received frames.
pub type RxRing = Consumer<Descriptor>;
/// Frames to send.
pub type TxRing = Producer<Descriptor>;
/// Frames whose buffers the kernel has given back.
pub type CompletionRing = Consumer<u64>;

pub(crate) mod sealed {
    /// Plain old data that any bit pattern is a valid value of.
    pub trait Entry: Copy + Send + 'static {}
    impl Entry for u64 {}
    impl Entry for super::Descriptor {}
}
use sealed::Entry;

/// Where a ring's parts lie, as pointers into its memory.
pub(crate) struct Layout<T> {
    pub(crate) producer: NonNull<AtomicU32>,
    pub(crate) consumer: NonNull<AtomicU32>,
    pub(crate) flags: NonNull<AtomicU32>,
    pub(crate) entries: NonNull<T>,
    /// A power of two.
    pub(crate) size: u32,
}

/// Keeps a ring's memory alive: the socket's mapping or, in tests, a heap block that the other
/// side shares.
pub(crate) type Memory = Arc<dyn Send + Sync>;

/// One side's view of a ring: where it is, and where we are in it.
struct Cursor<T> {
    layout: Layout<T>,
    /// Our own index: the producer's in a [`Producer`], the consumer's in a [`Consumer`].
    ours: u32,
    /// The last index of the other side that we read.
    theirs: u32,
    _memory: Memory,
}

// SAFETY: the pointers are into `_memory`, which moves along; the cursor is the only user of its
// side of the ring, and the other side is reached by atomics.
unsafe impl<T: Entry> Send for Cursor<T> {}

impl<T: Entry> Cursor<T> {
    fn producer(&self) -> &AtomicU32 {
        // SAFETY: `Producer::new` and `Consumer::new` demand pointers valid while `_memory` lives.
        unsafe { self.layout.producer.as_ref() }
    }

    fn consumer(&self) -> &AtomicU32 {
        // SAFETY: as for `producer`.
        unsafe { self.layout.consumer.as_ref() }
    }

    fn flags(&self) -> &AtomicU32 {
        // SAFETY: as for `producer`.
        unsafe { self.layout.flags.as_ref() }
    }

    fn entry(&self, index: u32) -> NonNull<T> {
        let slot = index & (self.layout.size - 1);
        // SAFETY: the mask keeps `slot` below `size`, the number of entries that the
        // constructors demand behind `entries`.
        unsafe { self.layout.entries.add(slot as usize) }
    }
}

/// The writing side of a ring: ours for fill and TX.
pub struct Producer<T>(Cursor<T>);

/// The reading side of a ring: ours for RX and completion.
pub struct Consumer<T>(Cursor<T>);

impl<T: Entry> Producer<T> {
    /// Takes the writing side of the ring at `layout`, at whatever index it stands.
    ///
    /// # Safety
    ///
    /// While `memory` lives, the index and flag pointers of `layout` must be valid for atomic
    /// access and its `entries` for writes of `size` (a power of two) entries, and no other
    /// `Producer` may exist for the ring.
    pub(crate) unsafe fn new(layout: Layout<T>, memory: Memory) -> Producer<T> {
        let mut cursor = Cursor { layout, ours: 0, theirs: 0, _memory: memory };
        cursor.ours = cursor.producer().load(Ordering::Relaxed);
        cursor.theirs = cursor.consumer().load(Ordering::Acquire);
        Producer(cursor)
    }

    /// Number of entries the ring holds.
    pub fn size(&self) -> u32 {
        self.0.layout.size
    }

    /// Entries written that the other side has not taken yet, by its own index as of now.
    pub fn pending(&self) -> u32 {
        self.0.ours.wrapping_sub(self.0.consumer().load(Ordering::Acquire)).min(self.size())
    }

    /// Makes room for up to `count` entries; the reservation may be for fewer, or none.
    #[inline]
    pub fn reserve(&mut self, count: u32) -> Reservation<'_, T> {
        let mut free = self.free();
        if free < count {
            self.0.theirs = self.0.consumer().load(Ordering::Acquire);
            free = self.free();
        }
        Reservation { granted: free.min(count), written: 0, ring: self }
    }

    /// Moves the shared index as only a broken other side would.
    #[cfg(test)]
    pub(crate) fn jump(&mut self, by: u32) {
        self.0.producer().store(self.0.ours.wrapping_add(by), Ordering::Release);
    }

    /// By the cached index: never more than there is. Zero when the other side's index is wild.
    fn free(&self) -> u32 {
        self.size().saturating_sub(self.0.ours.wrapping_sub(self.0.theirs))
    }

    /// Whether the kernel sleeps and must be woken by a system call to see what was submitted.
    /// To be asked after submitting.
    #[inline]
    pub fn needs_wakeup(&self) -> bool {
        // The flag must be read after our index is out, or we could miss that the kernel fell
        // asleep between the two.
        fence(Ordering::SeqCst);
        self.0.flags().load(Ordering::Relaxed) & libc::XDP_RING_NEED_WAKEUP != 0
    }
}

/// Room in a ring. What was pushed becomes visible to the other side, all at once, when the
/// reservation is dropped; room not used is simply not taken.
pub struct Reservation<'r, T: Entry> {
    ring: &'r mut Producer<T>,
    granted: u32,
    written: u32,
}

impl<T: Entry> Reservation<'_, T> {
    /// Entries that can still be pushed.
    pub fn room(&self) -> u32 {
        self.granted - self.written
    }

    /// Appends an entry; false, and nothing done, when the room is used up.
    #[inline]
    pub fn push(&mut self, entry: T) -> bool {
        if self.written == self.granted {
            return false;
        }
        let slot = self.ring.0.entry(self.ring.0.ours.wrapping_add(self.written));
        // SAFETY: `slot` is in the ring's memory (see `entry`), and between the consumer's index
        // and ours plus the ring's size, so the other side does not read it before the release
        // store in `drop`.
        unsafe { slot.write(entry) };
        self.written += 1;
        true
    }
}

impl<T: Entry> Drop for Reservation<'_, T> {
    #[inline]
    fn drop(&mut self) {
        if self.written != 0 {
            let cursor = &mut self.ring.0;
            cursor.ours = cursor.ours.wrapping_add(self.written);
            cursor.producer().store(cursor.ours, Ordering::Release);
        }
    }
}

impl<T: Entry> Consumer<T> {
    /// Takes the reading side of the ring at `layout`, at whatever index it stands.
    ///
    /// # Safety
    ///
    /// While `memory` lives, the index and flag pointers of `layout` must be valid for atomic
    /// access and its `entries` for reads of `size` (a power of two) initialised entries, and no
    /// other `Consumer` may exist for the ring.
    pub(crate) unsafe fn new(layout: Layout<T>, memory: Memory) -> Consumer<T> {
        let mut cursor = Cursor { layout, ours: 0, theirs: 0, _memory: memory };
        cursor.ours = cursor.consumer().load(Ordering::Relaxed);
        cursor.theirs = cursor.producer().load(Ordering::Acquire);
        Consumer(cursor)
    }

    /// Number of entries the ring holds.
    pub fn size(&self) -> u32 {
        self.0.layout.size
    }

    /// Entries waiting to be taken, by the other side's index as of now.
    pub fn waiting(&self) -> u32 {
        self.0.producer().load(Ordering::Acquire).wrapping_sub(self.0.ours).min(self.size())
    }

    /// Looks at up to `count` waiting entries, which the iterator returned then takes.
    #[inline]
    pub fn take(&mut self, count: u32) -> Taken<'_, T> {
        let mut waiting = self.known();
        if waiting < count {
            self.0.theirs = self.0.producer().load(Ordering::Acquire);
            waiting = self.known();
        }
        Taken { left: waiting.min(count), taken: 0, ring: self }
    }

    /// Moves the shared index as only a broken other side would.
    #[cfg(test)]
    pub(crate) fn jump(&mut self, by: u32) {
        self.0.consumer().store(self.0.ours.wrapping_add(by), Ordering::Release);
    }

    fn known(&self) -> u32 {
        self.0.theirs.wrapping_sub(self.0.ours).min(self.size())
    }
}

/// Iterates over waiting entries. The slots of those taken are released to the other side, all at
/// once, when the iterator is dropped; the others stay in the ring.
pub struct Taken<'r, T: Entry> {
    ring: &'r mut Consumer<T>,
    left: u32,
    taken: u32,
}

impl<T: Entry> Iterator for Taken<'_, T> {
    type Item = T;

    #[inline]
    fn next(&mut self) -> Option<T> {
        if self.left == 0 {
            return None;
        }
        let slot = self.ring.0.entry(self.ring.0.ours.wrapping_add(self.taken));
        // SAFETY: `slot` is in the ring's memory (see `entry`) and holds some bits, all of which
        // make an entry; the acquire load of the producer's index in `take` orders it after the
        // other side's write.
        let entry = unsafe { slot.read() };
        self.left -= 1;
        self.taken += 1;
        Some(entry)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left as usize, Some(self.left as usize))
    }
}

impl<T: Entry> ExactSizeIterator for Taken<'_, T> {}

impl<T: Entry> Drop for Taken<'_, T> {
    #[inline]
    fn drop(&mut self) {
        if self.taken != 0 {
            let cursor = &mut self.ring.0;
            cursor.ours = cursor.ours.wrapping_add(self.taken);
            cursor.consumer().store(cursor.ours, Ordering::Release);
        }
    }
}
