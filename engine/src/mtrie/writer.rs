//! The writer of an mtrie: updates, ply allocation, reclamation.

use super::{CHUNK_PLIES, Chunk, Leaf, MAX_PLIES, MAX_VALUE, Mtrie, PLY_SLOTS, Ply, ROOT_SLOTS, Root, split};
use std::fmt;
use std::mem::{self, MaybeUninit};
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicPtr, Ordering};

#[cfg(test)]
mod tests;

/// Occupancy of a ply that is retired: out of reach of new lookups, not yet reclaimed.
const RETIRED: u16 = u16::MAX;
/// Occupancy of a ply on the free list.
const FREE: u16 = u16::MAX - 1;

/// Why the writer refused an update. The table is unchanged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MtrieError {
    /// The prefix needs more plies than are left.
    Full {
        /// The cap the table was made with.
        max_plies: u32,
        /// Plies that are retired and wait for [`MtrieWriter::reclaim`]; if there are some, a retry may succeed then.
        retired: u32,
    },
    /// The prefix length is above 32.
    PrefixLength(u8),
    /// The value is above [`MAX_VALUE`].
    Value(u32),
}

impl fmt::Display for MtrieError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MtrieError::Full { max_plies, retired } => {
                write!(
                    f,
                    "ip4 mtrie is full: all {max_plies} plies are in use ({retired} of them wait to be reclaimed)"
                )
            }
            MtrieError::PrefixLength(len) => write!(f, "prefix length {len} is above 32"),
            MtrieError::Value(value) => write!(f, "value {value:#x} does not fit into 31 bits"),
        }
    }
}

impl std::error::Error for MtrieError {}

/// Plies that were unlinked while readers may still be in them. Hand it to [`MtrieWriter::reclaim`] of the same table
/// once every reader has been quiescent. Dropping it instead loses its plies until the table is dropped.
#[must_use = "retired plies are lost unless they are reclaimed"]
#[derive(Debug, Default)]
pub struct Retired(Vec<u32>);

impl Retired {
    /// True when there is nothing to reclaim.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many plies are to be reclaimed.
    pub fn len(&self) -> usize {
        self.0.len()
    }
}

/// The plies of a table, by state; all but the root.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlyCounts {
    /// Reachable by lookups.
    pub live: u32,
    /// Unlinked, not yet reclaimed.
    pub retired: u32,
    /// The cap.
    pub max: u32,
}

/// The one writer of a [`Mtrie`].
pub struct MtrieWriter {
    table: Arc<Mtrie>,
    /// For each slot of a ply, the length of the prefix that its value comes from, 0 also where there is no route;
    /// meaningless for a slot that leads to a ply. A box per chunk. Those of the root are in [`Root`].
    ply_lens: Vec<Box<[[u8; PLY_SLOTS]]>>,
    /// For each initialised ply: how many of its slots lead to a ply or come from a prefix longer than the ply's base;
    /// or [`RETIRED`], or [`FREE`]. At 0 all slots repeat what the slot above would say.
    occupancy: Vec<u16>,
    free: Vec<u32>,
    retired: Vec<u32>,
    /// Plies in state [`RETIRED`], whether still in `retired` or handed out by `take_retired`.
    retired_count: u32,
    max_plies: u32,
}

/// A ply by its place in the tree: which one, and how many bits of the address lead to it.
#[derive(Clone, Copy)]
struct Node {
    /// `None` is the root.
    ply: Option<u32>,
    base: u8,
}

/// One slot of a ply.
#[derive(Clone, Copy)]
struct Slot {
    node: Node,
    index: usize,
}

impl Node {
    const ROOT: Node = Node { ply: None, base: 0 };

    /// Bits of the address that are decided by this ply and those above it.
    fn end(self) -> u8 {
        if self.ply.is_none() { 16 } else { self.base + 8 }
    }

    /// The slot of address `addr`.
    fn slot(self, addr: u32) -> Slot {
        let slots = if self.ply.is_none() { ROOT_SLOTS } else { PLY_SLOTS };
        Slot { node: self, index: (addr >> (32 - self.end())) as usize % slots }
    }

    /// The slots of a prefix that ends within this ply: `len` in `base..=end`.
    fn span(self, prefix: u32, len: u8) -> impl Iterator<Item = Slot> {
        let first = self.slot(prefix).index;
        (first..first + (1 << (self.end() - len))).map(move |index| Slot { node: self, index })
    }

    fn child(self, ply: u32) -> Node {
        Node { ply: Some(ply), base: self.end() }
    }
}

/// A terminal slot's content: a value, and the length of the prefix it comes from.
#[derive(Clone, Copy)]
struct Entry {
    leaf: Leaf,
    len: u8,
}

fn mask(prefix: u32, len: u8) -> u32 {
    prefix & u32::MAX.checked_shl(32 - u32::from(len)).unwrap_or(0)
}

impl MtrieWriter {
    /// An empty table with a cap of `max_plies` plies of 1 KiB (beside the root of 256 KiB); [`MAX_PLIES`] bounds the
    /// cap. Memory is touched only as routes come.
    pub fn new(max_plies: u32) -> MtrieWriter {
        let max_plies = max_plies.min(MAX_PLIES);
        // SAFETY: zero is a valid value of an atomic integer.
        let root = unsafe { Box::<Root>::new_zeroed().assume_init() };
        let chunks = (0..(max_plies as usize).div_ceil(CHUNK_PLIES))
            .map(|_| AtomicPtr::new(ptr::null_mut()))
            .collect();
        MtrieWriter {
            table: Arc::new(Mtrie { root, chunks }),
            ply_lens: Vec::new(),
            occupancy: Vec::new(),
            free: Vec::new(),
            retired: Vec::new(),
            retired_count: 0,
            max_plies,
        }
    }

    /// The table, to be shared with its readers.
    pub fn table(&self) -> &Arc<Mtrie> {
        &self.table
    }

    /// Adds the route `prefix/len`, or replaces its value. Bits of `prefix` (host byte order) beyond `len` are ignored.
    /// A route with value 0 is one that answers "no route" and hides those it is more specific than.
    ///
    /// # Errors
    /// [`MtrieError`]; nothing has changed then.
    pub fn insert(&mut self, prefix: u32, len: u8, value: u32) -> Result<(), MtrieError> {
        if len > 32 {
            return Err(MtrieError::PrefixLength(len));
        }
        if value > MAX_VALUE {
            return Err(MtrieError::Value(value));
        }
        let prefix = mask(prefix, len);
        let available = self.free.len() + self.max_plies as usize - self.occupancy.len();
        if self.plies_missing(prefix, len) > available {
            return Err(MtrieError::Full { max_plies: self.max_plies, retired: self.retired_count });
        }
        self.insert_in(Node::ROOT, prefix, Entry { leaf: Leaf::terminal(value), len });
        Ok(())
    }

    /// Removes the route `prefix/len`. `covering` is the longest remaining route that contains it, by length (shorter
    /// than `len`) and value as inserted; it takes over. `None`: no other route contains it. Does nothing if there is no
    /// such route. Plies that become superfluous are queued for [`take_retired`](MtrieWriter::take_retired).
    pub fn remove(&mut self, prefix: u32, len: u8, covering: Option<(u8, u32)>) {
        debug_assert!(covering.is_none_or(|(covering, _)| covering < len));
        if len > 32 {
            return;
        }
        let (covering_len, value) = covering.unwrap_or((0, 0));
        self.remove_in(
            Node::ROOT,
            mask(prefix, len),
            len,
            Entry { leaf: Leaf::terminal(value), len: covering_len },
        );
    }

    /// The plies unlinked since the last call.
    pub fn take_retired(&mut self) -> Retired {
        Retired(mem::take(&mut self.retired))
    }

    /// Makes retired plies available again. To be called when every reader has been quiescent since the
    /// [`take_retired`](MtrieWriter::take_retired) that returned them; a lookup that is still in one of them could
    /// return the value of another prefix. Plies that are not retired (those of another table) are ignored.
    pub fn reclaim(&mut self, retired: Retired) {
        for ply in retired.0 {
            if let Some(occupancy @ &mut RETIRED) = self.occupancy.get_mut(ply as usize) {
                *occupancy = FREE;
                self.retired_count -= 1;
                self.free.push(ply);
            }
        }
    }

    /// How many plies there are, by state.
    pub fn ply_counts(&self) -> PlyCounts {
        let used = (self.occupancy.len() - self.free.len()) as u32;
        PlyCounts { live: used - self.retired_count, retired: self.retired_count, max: self.max_plies }
    }

    /// Bytes of memory that the table and its writer hold: the root in full, though pages of it that no route touched are
    /// not resident, and the plies that have been used. Huge pages round that up to 2 MiB.
    pub fn memory_bytes(&self) -> usize {
        let plies = self.occupancy.len() * (size_of::<Ply>() + PLY_SLOTS);
        let lists = self.occupancy.capacity() * 2 + (self.free.capacity() + self.retired.capacity()) * 4;
        size_of::<Root>() + self.table.chunks.len() * 8 + plies + lists
    }

    /// How many plies an insert of this prefix has to build.
    fn plies_missing(&self, prefix: u32, len: u8) -> usize {
        let mut node = Node::ROOT;
        while len > node.end() {
            let Some(child) = self.child(node.slot(prefix)) else {
                return usize::from(len - node.end()).div_ceil(8);
            };
            node = child;
        }
        0
    }

    /// Room for the plies it needs was checked by the caller.
    fn insert_in(&mut self, node: Node, prefix: u32, new: Entry) {
        if new.len <= node.end() {
            for slot in node.span(prefix, new.len) {
                self.rewrite(slot, new, |old| old <= new.len);
            }
            return;
        }
        let slot = node.slot(prefix);
        if let Some(child) = self.child(slot) {
            self.insert_in(child, prefix, new);
        } else {
            // Complete the new ply before readers can see it.
            let ply = self.take_ply(self.entry(slot));
            self.insert_in(node.child(ply), prefix, new);
            self.set(slot, Entry { leaf: Leaf::ply(ply), len: 0 });
        }
    }

    fn remove_in(&mut self, node: Node, prefix: u32, len: u8, covering: Entry) {
        if len <= node.end() {
            for slot in node.span(prefix, len) {
                self.rewrite(slot, covering, |old| old == len);
            }
            return;
        }
        let slot = node.slot(prefix);
        let Some(child @ Node { ply: Some(ply), .. }) = self.child(slot) else { return };
        self.remove_in(child, prefix, len, covering);
        if self.occupancy[ply as usize] == 0 {
            // All slots of the ply now hold the same entry. Readers inside still get it; new ones get it a level higher.
            self.set(slot, self.entry(child.slot(0)));
            self.occupancy[ply as usize] = RETIRED;
            self.retired_count += 1;
            self.retired.push(ply);
        }
    }

    /// Gives `new` to the slot, or to all slots below it, where the length of the present entry matches.
    fn rewrite(&mut self, slot: Slot, new: Entry, matches: impl Fn(u8) -> bool + Copy) {
        if let Some(child) = self.child(slot) {
            for slot in child.span(0, child.base) {
                self.rewrite(slot, new, matches);
            }
        } else if matches(self.entry(slot).len) {
            self.set(slot, new);
        }
    }

    fn child(&self, slot: Slot) -> Option<Node> {
        let leaf = self.entry(slot).leaf;
        leaf.is_ply().then(|| slot.node.child(leaf.index()))
    }

    fn entry(&self, slot: Slot) -> Entry {
        let index = slot.index;
        let (leaf, len) = match slot.node.ply {
            None => {
                let root = &self.table.root;
                (&root.slots[index], root.lens[index].load(Ordering::Relaxed))
            }
            Some(ply) => {
                let (chunk, in_chunk) = split(ply);
                // SAFETY: the plies of nodes come from `take_ply` or from slots, which hold no others.
                (unsafe { &self.table.ply(ply)[index] }, self.ply_lens[chunk][in_chunk][index])
            }
        };
        // Relaxed: only this writer stores.
        Entry { leaf: Leaf(leaf.load(Ordering::Relaxed)), len }
    }

    fn set(&mut self, slot: Slot, new: Entry) {
        let Slot { node, index } = slot;
        let Some(ply) = node.ply else {
            let root = &self.table.root;
            root.lens[index].store(new.len, Ordering::Relaxed);
            root.slots[index].store(new.leaf.0, Ordering::Release);
            return;
        };
        let specific = |entry: Entry| u16::from(entry.leaf.is_ply() || entry.len > node.base);
        let before = specific(self.entry(slot));
        let occupancy = &mut self.occupancy[ply as usize];
        *occupancy = *occupancy + specific(new) - before;
        let (chunk, in_chunk) = split(ply);
        self.ply_lens[chunk][in_chunk][index] = new.len;
        // SAFETY: as in `entry`.
        let slots = unsafe { self.table.ply(ply) };
        // Release: a ply is complete before a slot leads to it.
        slots[index].store(new.leaf.0, Ordering::Release);
    }

    /// A ply that nothing leads to yet, all its slots at `entry`. The caller has checked that there is one.
    fn take_ply(&mut self, entry: Entry) -> u32 {
        let ply = self.free.pop().unwrap_or_else(|| self.fresh_ply());
        let (chunk, in_chunk) = split(ply);
        self.occupancy[ply as usize] = 0;
        self.ply_lens[chunk][in_chunk].fill(entry.len);
        // SAFETY: initialised by `fresh_ply`, now or before it was freed.
        for slot in unsafe { self.table.ply(ply) } {
            slot.store(entry.leaf.0, Ordering::Relaxed);
        }
        ply
    }

    /// Initialises the next ply that was never used, and allocates its chunk if it is the first there.
    fn fresh_ply(&mut self) -> u32 {
        let ply = self.occupancy.len() as u32;
        debug_assert!(ply < self.max_plies);
        let (chunk_index, in_chunk) = split(ply);
        let chunk = &self.table.chunks[chunk_index];
        if in_chunk == 0 {
            let mut plies = Box::<Chunk>::new_uninit();
            if chunk_index > 0 {
                advise_huge_pages(&mut plies);
            }
            chunk.store(Box::into_raw(plies).cast(), Ordering::Relaxed);
            self.ply_lens.push(vec![[0; PLY_SLOTS]; CHUNK_PLIES].into_boxed_slice());
        }
        let plies: *mut Ply = chunk.load(Ordering::Relaxed).cast();
        // SAFETY: the chunk was allocated when its first ply was taken; no slot has ever led to this ply, so no reader is
        // in it.
        unsafe { plies.add(in_chunk).write_bytes(0, 1) };
        self.occupancy.push(FREE);
        ply
    }
}

impl fmt::Debug for MtrieWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MtrieWriter").field("plies", &self.ply_counts()).finish_non_exhaustive()
    }
}

/// Asks for huge pages, which halve the time of a lookup in a table of many plies: without them most of it is spent in
/// TLB misses. Not for the first chunk: a table of a few plies shall cost a few small pages.
fn advise_huge_pages(chunk: &mut MaybeUninit<Chunk>) {
    #[cfg(not(miri))]
    // SAFETY: the range is one whole allocation with the alignment of a huge page; the advice changes no content. A
    // kernel without huge pages refuses it, and nothing is lost.
    unsafe {
        libc::madvise(chunk.as_mut_ptr().cast(), size_of::<Chunk>(), libc::MADV_HUGEPAGE);
    }
    #[cfg(miri)]
    let _ = chunk;
}
