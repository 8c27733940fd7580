//! The stats segment: shared memory in which the counters live, laid out as VPP's clients read it (version 2).
//!
//! A reader gets the descriptor, maps it read-only and looks, whenever it likes: the file is sealed against writing by others, and no
//! worker waits or is told. Counters are counted in place. Only what changes the directory is marked, by [`Stats`], with a mark in
//! progress and an epoch: a reader that saw either change looks again. A table that grows needs no mark, as its rows never move.
//!
//! All addresses in the segment are addresses in this process; readers subtract the base. A vector is an address with the number of
//! its elements in the four bytes that begin eight bytes before it. The file is as large as it can ever get, and takes memory as
//! it is used.

use rustix::fs::{MemfdFlags, SealFlags};
use rustix::mm::{MapFlags, ProtFlags};
use std::collections::BTreeMap;
use std::ffi::c_void;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering, fence};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

mod nodes;
mod read;

pub(crate) use nodes::NodeStats;
pub use read::Value;

/// A cache line: no two vectors share one.
const LINE: usize = 64;
/// Places in the header.
const VERSION: usize = 0;
const BASE: usize = 8;
const EPOCH: usize = 16;
const IN_PROGRESS: usize = 24;
const DIRECTORY: usize = 32;
/// An entry of the directory: type, value, name.
const ENTRY: usize = 144;
const VALUE_AT: usize = 8;
const NAME_AT: usize = 16;
/// Longest name of an entry, without the NUL.
pub const MAX_NAME: usize = 127;
/// Entries that the directory can hold.
const MAX_ENTRIES: usize = 128 << 10;
/// Longest name in a list of names, without the NUL.
const MAX_LISTED_NAME: usize = LINE - 1;

/// A file of shared memory. It can be mapped by whoever gets the descriptor, and be written by this process only.
pub struct Segment {
    base: *mut u8,
    len: usize,
    fd: OwnedFd,
    used: Mutex<usize>,
}

// SAFETY: the mapping belongs to this value until it is dropped; all accesses to it are atomic.
unsafe impl Send for Segment {}
// SAFETY: as above.
unsafe impl Sync for Segment {}

impl fmt::Debug for Segment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Segment").field("len", &self.len).finish_non_exhaustive()
    }
}

impl Segment {
    /// A segment of up to `len` bytes, all zero.
    pub fn new(len: usize) -> io::Result<Arc<Segment>> {
        let len = len.next_multiple_of(4096);
        let fd = rustix::fs::memfd_create("wharf-stats", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
        rustix::fs::ftruncate(&fd, len as u64)?;
        // SAFETY: a new mapping, placed by the kernel, aliases nothing.
        let base = unsafe {
            let flags = MapFlags::SHARED | MapFlags::NORESERVE;
            rustix::mm::mmap(ptr::null_mut(), len, ProtFlags::READ | ProtFlags::WRITE, flags, &fd, 0)?
        };
        let segment = Segment { base: base.cast(), len, fd, used: Mutex::new(LINE) };
        // Behind this our mapping is the only one that can be written.
        let seals = SealFlags::SHRINK | SealFlags::GROW | SealFlags::FUTURE_WRITE | SealFlags::SEAL;
        rustix::fs::fcntl_add_seals(&segment.fd, seals)?;
        Ok(Arc::new(segment))
    }

    /// What readers are given.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Bytes that it can hold.
    #[expect(clippy::len_without_is_empty, reason = "memory, not a collection")]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Bytes that were given out.
    pub fn used(&self) -> usize {
        *self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes `len` bytes, zero and aligned to a line, for a vector. `None` when the segment is full.
    fn take(&self, len: usize) -> Option<usize> {
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        // The line before it holds the length.
        let at = *used + LINE;
        let end = at.checked_add(len)?.checked_next_multiple_of(LINE)?;
        if end > self.len {
            return None;
        }
        *used = end;
        Some(at)
    }

    fn at<T>(&self, offset: usize) -> *const T {
        assert!(
            offset.is_multiple_of(size_of::<T>()) && offset + size_of::<T>() <= self.len,
            "outside of the segment"
        );
        self.base.wrapping_add(offset).cast()
    }

    fn word(&self, offset: usize) -> &AtomicU64 {
        // SAFETY: in bounds and aligned, checked by `at`; the mapping lives as long as `self`.
        unsafe { &*self.at(offset) }
    }

    fn half(&self, offset: usize) -> &AtomicU32 {
        // SAFETY: as in `word`.
        unsafe { &*self.at(offset) }
    }

    fn byte(&self, offset: usize) -> &AtomicU8 {
        // SAFETY: as in `word`.
        unsafe { &*self.at(offset) }
    }

    fn address(&self, offset: usize) -> u64 {
        self.base.addr() as u64 + offset as u64
    }

    fn put_text(&self, offset: usize, text: &str, room: usize) {
        let bytes = text.bytes().filter(|byte| byte.is_ascii()).chain(std::iter::repeat(0)).take(room);
        bytes.enumerate().for_each(|(i, byte)| self.byte(offset + i).store(byte, Ordering::Relaxed));
        self.byte(offset + room).store(0, Ordering::Relaxed);
    }
}

impl Drop for Segment {
    fn drop(&mut self) {
        // SAFETY: mapped by `new`; whoever points into it holds an `Arc` of it.
        let unmapped = unsafe { rustix::mm::munmap(self.base.cast::<c_void>(), self.len) };
        debug_assert!(unmapped.is_ok());
    }
}

/// A row per thread of so many 64-bit numbers: row 0 is main's, row 1 that of worker 0. Each row is written by its thread alone.
#[derive(Clone)]
pub struct Table {
    segment: Arc<Segment>,
    /// The vector of rows.
    outer: usize,
    rows: Arc<[usize]>,
    /// Numbers that a row has room for.
    capacity: usize,
    /// Numbers in an element: 1, or 2 for packets and bytes.
    width: usize,
}

impl fmt::Debug for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Table").field("rows", &self.rows.len()).field("capacity", &self.capacity).finish()
    }
}

impl Table {
    /// A table for main and `workers` workers, of up to `elements` elements of `width` numbers; without elements yet.
    pub fn new(segment: &Arc<Segment>, workers: usize, elements: usize, width: usize) -> io::Result<Table> {
        let full = || io::Error::from(io::ErrorKind::OutOfMemory);
        let capacity = elements * width;
        let rows = (0..=workers)
            .map(|_| segment.take(capacity * 8).ok_or_else(full))
            .collect::<io::Result<Arc<[_]>>>()?;
        let outer = segment.take(rows.len() * 8).ok_or_else(full)?;
        for (i, row) in rows.iter().enumerate() {
            segment.word(outer + i * 8).store(segment.address(*row), Ordering::Relaxed);
        }
        segment.half(outer - 8).store(rows.len() as u32, Ordering::Release);
        Ok(Table { segment: Arc::clone(segment), outer, rows, capacity, width })
    }

    /// How many elements readers see.
    pub fn len(&self) -> usize {
        self.rows.first().map_or(0, |row| self.segment.half(row - 8).load(Ordering::Relaxed) as usize)
    }

    /// Whether readers see none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Lets readers see `len` elements at least. False when there is no room for so many.
    pub fn grow(&self, len: usize) -> bool {
        if len * self.width > self.capacity {
            return false;
        }
        if len > self.len() {
            self.rows.iter().for_each(|row| {
                self.segment.half(row - 8).store(len as u32, Ordering::Release);
            });
        }
        true
    }

    /// The row of a thread, 0 for main; empty if there is no such thread.
    pub fn row(&self, thread: usize) -> Row {
        let at = self.rows.get(thread).copied();
        let first = self.segment.base.wrapping_add(at.unwrap_or(0)).cast();
        Row { _segment: Arc::clone(&self.segment), first, len: at.map_or(0, |_| self.capacity) }
    }

    /// A number on each thread.
    pub fn column(&self, number: usize) -> impl Iterator<Item = &AtomicU64> {
        let rows = self.rows.iter().filter(move |_| number < self.capacity);
        rows.map(move |row| self.segment.word(row + number * 8))
    }
}

/// A thread's row of a [`Table`], or a part of it.
#[derive(Clone, Debug)]
pub struct Row {
    _segment: Arc<Segment>,
    first: *const AtomicU64,
    len: usize,
}

// SAFETY: a row is a reference to atomics in a mapping that lives as long as the segment, which it holds.
unsafe impl Send for Row {}
// SAFETY: as above.
unsafe impl Sync for Row {}

impl Row {
    /// The part from `first` on, `len` numbers long; less where the row ends.
    pub fn part(&self, first: usize, len: usize) -> Row {
        let first = first.min(self.len);
        let len = len.min(self.len - first);
        Row { _segment: Arc::clone(&self._segment), first: self.first.wrapping_add(first), len }
    }
}

impl std::ops::Deref for Row {
    type Target = [AtomicU64];

    #[inline(always)]
    fn deref(&self) -> &[AtomicU64] {
        // SAFETY: `first` and `len` are within a vector that `Segment::take` gave out, aligned to a line; the mapping lives as long
        // as the segment, which `self` holds.
        unsafe { std::slice::from_raw_parts(self.first, self.len) }
    }
}

/// One number of a [`Table`], for the thread that adds to it.
#[derive(Clone, Debug)]
pub struct Counter(Row);

impl std::ops::Deref for Counter {
    type Target = AtomicU64;

    #[inline(always)]
    fn deref(&self) -> &AtomicU64 {
        // SAFETY: as in `Row::deref`; `Counter::new` saw to it that there is a number.
        unsafe { &*self.0.first }
    }
}

impl Counter {
    /// Number `number` of a row, if it has so many.
    pub fn new(row: &Row, number: usize) -> Option<Counter> {
        let part = row.part(number, 1);
        (part.len == 1).then_some(Counter(part))
    }
}

/// What an entry of the directory is, with VPP's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A table of single numbers.
    Simple = 2,
    /// A table of packets and bytes.
    Combined = 3,
    /// A list of names.
    Names = 4,
    /// Nothing: the entry is free.
    Empty = 5,
    /// One element of another entry's table.
    Symlink = 6,
    /// One number that goes up and down.
    Gauge = 9,
}

/// A name as a part of an entry's name, where a slash would divide it: VPP has `_` in its place.
pub fn link_name(name: &str) -> String {
    name.replace('/', "_")
}

/// Number of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry(u32);

#[derive(Debug)]
struct Directory {
    at: usize,
    len: u32,
    by_name: BTreeMap<String, Entry>,
    free: Vec<Entry>,
}

/// The directory of the segment. Its entries are added and removed by main.
#[derive(Debug)]
pub struct Stats {
    segment: Arc<Segment>,
    directory: Mutex<Directory>,
}

impl Stats {
    /// An empty directory over a segment of up to `len` bytes.
    pub fn new(len: usize) -> io::Result<Stats> {
        let segment = Segment::new(len + MAX_ENTRIES * ENTRY)?;
        let at = segment.take(MAX_ENTRIES * ENTRY).ok_or(io::ErrorKind::OutOfMemory)?;
        segment.word(BASE).store(segment.address(0), Ordering::Relaxed);
        segment.word(DIRECTORY).store(segment.address(at), Ordering::Relaxed);
        segment.word(VERSION).store(2, Ordering::Release);
        let directory = Directory { at, len: 0, by_name: BTreeMap::new(), free: Vec::new() };
        Ok(Stats { segment, directory: Mutex::new(directory) })
    }

    /// The memory.
    pub fn segment(&self) -> &Arc<Segment> {
        &self.segment
    }

    fn lock(&self) -> MutexGuard<'_, Directory> {
        self.directory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the layout while readers know that it changes.
    fn change<T>(&self, change: impl FnOnce(&mut Directory) -> T) -> T {
        let mut directory = self.lock();
        self.segment.word(IN_PROGRESS).store(1, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        let result = change(&mut directory);
        fence(Ordering::SeqCst);
        let epoch = self.segment.word(EPOCH);
        epoch.store(epoch.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
        self.segment.word(IN_PROGRESS).store(0, Ordering::Release);
        result
    }

    /// Sets or adds an entry. `None` when the directory is full or the name too long.
    fn put(&self, name: &str, kind: Kind, value: u64) -> Option<Entry> {
        if name.len() > MAX_NAME {
            return None;
        }
        self.change(|directory| {
            let known = directory.by_name.get(name).copied();
            let entry = match known.or_else(|| directory.free.pop()) {
                Some(entry) => entry,
                None if (directory.len as usize) < MAX_ENTRIES => {
                    directory.len += 1;
                    self.segment.half(directory.at - 8).store(directory.len, Ordering::Relaxed);
                    Entry(directory.len - 1)
                }
                None => return None,
            };
            directory.by_name.insert(name.to_owned(), entry);
            let at = directory.at + entry.0 as usize * ENTRY;
            self.segment.put_text(at + NAME_AT, name, MAX_NAME);
            self.segment.word(at + VALUE_AT).store(value, Ordering::Relaxed);
            self.segment.half(at).store(kind as u32, Ordering::Relaxed);
            Some(entry)
        })
    }

    /// Shows a table under a name: packets and bytes if its elements have two numbers.
    pub fn table(&self, name: &str, table: &Table) -> Option<Entry> {
        let kind = if table.width == 2 { Kind::Combined } else { Kind::Simple };
        self.put(name, kind, self.segment.address(table.outer))
    }

    /// Shows a number, set by [`Stats::set`].
    pub fn gauge(&self, name: &str) -> Option<Entry> {
        self.put(name, Kind::Gauge, 0)
    }

    /// Sets a gauge.
    pub fn set(&self, gauge: Entry, value: u64) {
        let at = self.lock().at + gauge.0 as usize * ENTRY;
        self.segment.word(at + VALUE_AT).store(value, Ordering::Relaxed);
    }

    /// Shows element `element` of the table `of` under a name of its own.
    pub fn symlink(&self, name: &str, of: Entry, element: u32) -> Option<Entry> {
        self.put(name, Kind::Symlink, u64::from(element) << 32 | u64::from(of.0))
    }

    /// Shows a list of names, with room for `capacity`.
    pub fn names(&self, name: &str, capacity: usize) -> io::Result<Names> {
        let full = || io::Error::from(io::ErrorKind::OutOfMemory);
        let list = self.segment.take(capacity * 8).ok_or_else(full)?;
        // A line for the length, and one for the name.
        let texts = self.segment.take(capacity * 2 * LINE).ok_or_else(full)?;
        self.put(name, Kind::Names, self.segment.address(list)).ok_or_else(full)?;
        Ok(Names { list, texts, capacity })
    }

    /// Sets a name of a list, or takes it away.
    pub fn set_name(&self, names: &Names, number: usize, text: Option<&str>) {
        if number >= names.capacity {
            return;
        }
        let segment = &self.segment;
        self.change(|_| {
            let at = names.texts + (2 * number + 1) * LINE;
            let text = text.map(|text| text.get(..text.len().min(MAX_LISTED_NAME)).unwrap_or_default());
            segment.put_text(at, text.unwrap_or_default(), MAX_LISTED_NAME);
            segment.half(at - 8).store(text.map_or(0, |text| text.len() as u32 + 1), Ordering::Relaxed);
            let address = text.map_or(0, |_| segment.address(at));
            segment.word(names.list + number * 8).store(address, Ordering::Relaxed);
            let len = segment.half(names.list - 8);
            len.store(len.load(Ordering::Relaxed).max(number as u32 + 1), Ordering::Relaxed);
        });
    }

    /// Removes the entries whose name starts with `prefix`.
    pub fn remove(&self, prefix: &str) {
        self.change(|directory| {
            let of = |name: &String| name.starts_with(prefix);
            let gone: Vec<String> = directory
                .by_name
                .range(prefix.to_owned()..)
                .map(|(name, _)| name.clone())
                .take_while(of)
                .collect();
            for name in gone {
                let Some(entry) = directory.by_name.remove(&name) else { continue };
                let at = directory.at + entry.0 as usize * ENTRY;
                self.segment.half(at).store(Kind::Empty as u32, Ordering::Relaxed);
                self.segment.put_text(at + NAME_AT, "", MAX_NAME);
                directory.free.push(entry);
            }
        });
    }
}

/// A list of names in the segment.
#[derive(Debug)]
pub struct Names {
    list: usize,
    texts: usize,
    capacity: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A reader in another process, as far as it goes: its own mapping, and addresses relative to the base.
    struct Reader {
        map: *const u8,
        len: usize,
    }

    impl Reader {
        fn new(segment: &Segment) -> Reader {
            let len = segment.len;
            // SAFETY: a new mapping.
            let map = unsafe {
                rustix::mm::mmap(ptr::null_mut(), len, ProtFlags::READ, MapFlags::SHARED, segment.fd(), 0)
            };
            Reader { map: map.unwrap().cast(), len }
        }

        fn word(&self, at: usize) -> u64 {
            assert!(at + 8 <= self.len);
            // SAFETY: in bounds.
            unsafe { self.map.add(at).cast::<u64>().read_unaligned() }
        }

        fn vector(&self, address: u64) -> (usize, usize) {
            let at = (address - self.word(BASE)) as usize;
            (at, self.word(at - 8) as u32 as usize)
        }

        fn entry(&self, name: &str) -> Option<(u32, u64)> {
            let (at, len) = self.vector(self.word(DIRECTORY));
            (0..len).map(|i| at + i * ENTRY).find_map(|at| {
                let found = (0..name.len()).all(|i| self.word(at + NAME_AT + i) as u8 == name.as_bytes()[i])
                    && self.word(at + NAME_AT + name.len()) as u8 == 0;
                found.then(|| (self.word(at) as u32, self.word(at + VALUE_AT)))
            })
        }
    }

    #[test]
    fn a_reader_sees_what_is_counted_where_the_layout_says() {
        let stats = Stats::new(1 << 20).unwrap();
        let table = Table::new(stats.segment(), 2, 100, 2).unwrap();
        let rx = stats.table("/if/rx", &table).unwrap();
        assert!(table.grow(3) && !table.grow(101));
        table.row(2)[4].store(7, Ordering::Relaxed);
        table.row(2)[5].store(700, Ordering::Relaxed);
        let link = stats.symlink("/interfaces/x/rx", rx, 2).unwrap();
        let gauge = stats.gauge("/sys/heartbeat").unwrap();
        stats.set(gauge, 42);
        let names = stats.names("/if/names", 10).unwrap();
        stats.set_name(&names, 2, Some("x"));

        let reader = Reader::new(stats.segment());
        assert_eq!((reader.word(VERSION), reader.word(IN_PROGRESS), reader.word(40)), (2, 0, 0));
        let (kind, value) = reader.entry("/if/rx").unwrap();
        let (rows, threads) = reader.vector(value);
        assert_eq!((kind, threads), (Kind::Combined as u32, 3));
        let (row, len) = reader.vector(reader.word(rows + 2 * 8));
        assert_eq!((len, reader.word(row + 2 * 16), reader.word(row + 2 * 16 + 8)), (3, 7, 700));
        assert_eq!(reader.entry("/interfaces/x/rx"), Some((6, 2 << 32 | u64::from(rx.0))));
        assert_eq!(reader.entry("/sys/heartbeat"), Some((9, 42)));
        let (list, len) = reader.vector(reader.entry("/if/names").unwrap().1);
        let (text, text_len) = reader.vector(reader.word(list + 2 * 8));
        assert_eq!((len, text_len, reader.word(text) as u16, reader.word(list)), (3, 2, u16::from(b'x'), 0));

        let before = reader.word(EPOCH);
        stats.remove("/interfaces/x/");
        assert!(reader.word(EPOCH) > before && reader.entry("/interfaces/x/rx").is_none());
        assert_eq!(stats.symlink("/interfaces/y/rx", rx, 1), Some(link), "a free entry is used again");
    }

    #[test]
    fn others_cannot_write_and_a_full_segment_says_so() {
        let segment = Segment::new(8192).unwrap();
        // SAFETY: a new mapping, if the kernel gives one.
        let map = unsafe {
            let protection = ProtFlags::READ | ProtFlags::WRITE;
            rustix::mm::mmap(ptr::null_mut(), 4096, protection, MapFlags::SHARED, segment.fd(), 0)
        };
        assert!(map.is_err());
        assert!(Table::new(&segment, 1, 5000, 1).is_err());
        let table = Table::new(&segment, 0, 100, 1).unwrap();
        assert!(Counter::new(&table.row(0), 100).is_none() && table.row(5).is_empty());
    }
}
