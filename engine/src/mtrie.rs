//! The IPv4 forwarding table: a multi-bit trie with strides 16-8-8.
//!
//! A lookup is one load in the root ply (the high 16 bits of the address) and at most two more, one for each further 8
//! bits. Readers take no lock and write nothing. One writer updates the trie in place: every change of a slot is one
//! atomic store, so a reader sees, for any address, the result from before an update or the one from after it.
//!
//! * A **slot** is a `u32`: `value << 1` ends the lookup with `value`, `ply << 1 | 1` leads to a ply. Value 0 means "no
//!   route", so zeroed memory is an empty table.
//! * A **ply** is 256 slots. Plies live in chunks that never move, and are complete before a slot leads to them.
//! * A ply that no longer holds anything more specific than the slot above it is folded back into that slot and
//!   *retired*. Readers may still be in it: it is used again only after [`MtrieWriter::reclaim`], which the caller
//!   invokes when every reader has passed a quiescent state.
//!
//! The prefix length behind each slot belongs to the writer: readers never touch it. The writer keeps no routes. On a
//! removal its caller, which holds the RIB, names the route that takes over.

use std::fmt;
use std::mem::MaybeUninit;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicPtr, AtomicU8, AtomicU32, Ordering};

mod writer;

pub use writer::{MtrieError, MtrieWriter, PlyCounts, Retired};

/// The largest value a route may have: 31 bits, the last bit of a slot tells values from plies.
pub const MAX_VALUE: u32 = u32::MAX >> 1;

/// The largest cap on plies that a table may be given (16 GiB of plies).
pub const MAX_PLIES: u32 = 1 << 24;

/// Slots of the root ply, one per value of the high 16 bits of an address.
const ROOT_SLOTS: usize = 1 << 16;
/// Slots of any other ply.
const PLY_SLOTS: usize = 1 << 8;
/// Plies in a chunk, which is one huge page of x86-64 and aarch64.
const CHUNK_PLIES: usize = 2048;

/// The content of a slot.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Leaf(u32);

impl Leaf {
    fn terminal(value: u32) -> Leaf {
        debug_assert!(value <= MAX_VALUE);
        Leaf(value << 1)
    }

    fn ply(ply: u32) -> Leaf {
        Leaf(ply << 1 | 1)
    }

    #[inline(always)]
    fn is_ply(self) -> bool {
        self.0 & 1 != 0
    }

    /// The value of a terminal slot, the index of the ply otherwise.
    #[inline(always)]
    fn index(self) -> u32 {
        self.0 >> 1
    }
}

/// 256 slots, cache-line aligned so that it covers 16 lines and no more.
#[repr(C, align(64))]
struct Ply([AtomicU32; PLY_SLOTS]);

/// 2 MiB of plies, aligned so that a huge page can back it.
#[repr(C, align(0x20_0000))]
struct Chunk([MaybeUninit<Ply>; CHUNK_PLIES]);

/// The root ply. Its prefix lengths are the writer's alone; they are here so that both are one mapping of zero pages, of
/// which an empty table touches none.
#[repr(C)]
struct Root {
    slots: [AtomicU32; ROOT_SLOTS],
    lens: [AtomicU8; ROOT_SLOTS],
}

/// The table as its readers see it. Made and changed by its [`MtrieWriter`].
pub struct Mtrie {
    root: Box<Root>,
    /// Chunks of plies, filled from the front, null beyond.
    ///
    /// Invariant (I): when a slot that a reader can reach leads to ply `p`, then `p < chunks.len() * CHUNK_PLIES`, the
    /// chunk of `p` is allocated, and all slots of `p` are initialised; all of that happened before the store of the
    /// slot. It then holds until the table is dropped: chunks are never freed before, and plies never uninitialised.
    chunks: Box<[AtomicPtr<Chunk>]>,
}

impl Mtrie {
    /// The value of the longest prefix that contains `addr` (host byte order), 0 when there is none.
    #[inline(always)]
    pub fn lookup(&self, addr: u32) -> u32 {
        let mut leaf = self.root_leaf(addr);
        if leaf.is_ply() {
            // SAFETY: read from a reachable slot (I).
            leaf = unsafe { self.ply_leaf(leaf, addr >> 8) };
            if leaf.is_ply() {
                // SAFETY: read from a reachable slot (I).
                leaf = unsafe { self.ply_leaf(leaf, addr) };
            }
        }
        leaf.index()
    }

    #[inline(always)]
    fn root_leaf(&self, addr: u32) -> Leaf {
        let index = (addr >> 16) as usize; // < ROOT_SLOTS: the compiler drops the bounds check
        Leaf(self.root.slots[index].load(Ordering::Acquire))
    }

    /// # Safety
    /// `leaf` leads to a ply and was read from a slot of this table.
    #[inline(always)]
    unsafe fn ply_leaf(&self, leaf: Leaf, bits: u32) -> Leaf {
        // SAFETY: passed on to the caller; the slot is initialised by (I).
        let slot = unsafe { &*self.slot(leaf, bits) };
        Leaf(slot.load(Ordering::Acquire))
    }

    /// # Safety
    /// `leaf` leads to a ply and was read from a slot of this table.
    #[inline(always)]
    unsafe fn slot(&self, leaf: Leaf, bits: u32) -> *const AtomicU32 {
        let ply = leaf.index() as usize;
        // Relaxed: the chunk's store happened before that of the slot, which was loaded with Acquire.
        // SAFETY: in bounds by (I).
        let chunk = unsafe { self.chunks.get_unchecked(ply / CHUNK_PLIES) }.load(Ordering::Relaxed);
        // SAFETY: the chunk is allocated by (I), both indices are below the lengths of their arrays.
        unsafe {
            chunk.cast::<Ply>().add(ply % CHUNK_PLIES).cast::<AtomicU32>().add(bits as usize % PLY_SLOTS)
        }
    }

    /// The slots of ply `index`, for the writer.
    ///
    /// # Safety
    /// Ply `index` is initialised (it came out of [`MtrieWriter::take_ply`]).
    unsafe fn ply(&self, index: u32) -> &[AtomicU32; PLY_SLOTS] {
        // SAFETY: an initialised ply has its chunk, and `slot` with bits 0 is the first of its slots.
        unsafe { &*self.slot(Leaf::ply(index), 0).cast() }
    }
}

impl Drop for Mtrie {
    fn drop(&mut self) {
        for chunk in &mut self.chunks {
            if let Some(chunk) = NonNull::new(*chunk.get_mut()) {
                // SAFETY: allocated by a Box in `fresh_ply`, freed only here; slots need no drop.
                drop(unsafe { Box::from_raw(chunk.as_ptr()) });
            }
        }
    }
}

impl fmt::Debug for Mtrie {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mtrie").finish_non_exhaustive()
    }
}

/// The chunk of a ply, and its place there.
fn split(ply: u32) -> (usize, usize) {
    (ply as usize / CHUNK_PLIES, ply as usize % CHUNK_PLIES)
}
