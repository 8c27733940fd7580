//! The memory behind the buffer pool: one reserved range of addresses, made of chunks that are mapped as the
//! pool grows. The base never moves, so an index is enough to find a buffer.

use rustix::fs::{MemfdFlags, SealFlags};
use rustix::mm::{Advice, MapFlags, ProtFlags};
use std::alloc::{self, Layout};
use std::ffi::c_void;
use std::os::fd::OwnedFd;
use std::{io, ptr};
use zerocopy::FromZeros;

/// The base is aligned to this, and so are chunks of huge pages: their size on x86-64 and arm64.
pub const HUGE_PAGE: usize = 2 << 20;
/// Chunks of small pages are a multiple of this: no processor's are larger.
const SMALL_UNIT: usize = 64 << 10;

/// Which pages to use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum PageSize {
    /// 2 MiB pages where there are enough of them, 4 KiB pages otherwise.
    #[default]
    Auto,
    /// 4 KiB pages.
    Small,
    /// 2 MiB pages or an error.
    Huge,
}

/// A reserved range with committed chunks at its start.
#[derive(Debug)]
pub struct Region {
    base: *mut u8,
    reserved_base: *mut c_void,
    reserved_len: usize,
    limit: usize,
    committed: usize,
    huge_chunks: usize,
    chunks: Vec<OwnedFd>,
}

// SAFETY: the range belongs to this value alone; `base` is only an address.
unsafe impl Send for Region {}

impl Region {
    /// Reserves `limit` bytes (rounded up to [`HUGE_PAGE`]) of addresses; nothing is readable yet.
    pub fn reserve(limit: usize) -> io::Result<Region> {
        let limit = limit.next_multiple_of(HUGE_PAGE);
        let reserved_len = limit + HUGE_PAGE;
        // SAFETY: a fresh anonymous mapping, placed by the kernel, aliases nothing.
        let reserved_base = unsafe {
            rustix::mm::mmap_anonymous(
                ptr::null_mut(),
                reserved_len,
                ProtFlags::empty(),
                MapFlags::PRIVATE | MapFlags::NORESERVE,
            )?
        };
        let misaligned = reserved_base.addr() % HUGE_PAGE;
        let skip = if misaligned == 0 { 0 } else { HUGE_PAGE - misaligned };
        let base = reserved_base.cast::<u8>().wrapping_add(skip);
        Ok(Region {
            base,
            reserved_base,
            reserved_len,
            limit,
            committed: 0,
            huge_chunks: 0,
            chunks: Vec::new(),
        })
    }

    /// Address of the first byte; never changes.
    pub fn base(&self) -> *mut u8 {
        self.base
    }

    /// Bytes that are mapped and may be touched.
    pub fn committed(&self) -> usize {
        self.committed
    }

    /// Bytes that can be committed at most.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// Chunks on huge pages and chunks in all.
    pub fn chunks(&self) -> (usize, usize) {
        (self.huge_chunks, self.chunks.len())
    }

    /// Maps a further `len` bytes, zeroed and resident, sealed against resizing: rounded up to [`HUGE_PAGE`], or to 64 KiB
    /// where small pages are asked for. All further chunks must then be such too.
    ///
    /// Errors: `OutOfMemory` when the limit is reached, `InvalidInput` after a small chunk, or what the kernel says.
    pub fn commit(&mut self, len: usize, pages: PageSize) -> io::Result<()> {
        let len = len.next_multiple_of(if pages == PageSize::Small { SMALL_UNIT } else { HUGE_PAGE });
        if self.committed + len > self.limit {
            return Err(io::ErrorKind::OutOfMemory.into());
        }
        if pages != PageSize::Small {
            if !self.committed.is_multiple_of(HUGE_PAGE) {
                return Err(io::ErrorKind::InvalidInput.into());
            }
            match self.commit_chunk(len, true) {
                Ok(()) => return Ok(()),
                Err(e) if pages == PageSize::Huge => return Err(e),
                Err(_) => {}
            }
        }
        self.commit_chunk(len, false)
    }

    fn commit_chunk(&mut self, len: usize, huge: bool) -> io::Result<()> {
        let mut flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        if huge {
            flags |= MemfdFlags::HUGETLB | MemfdFlags::HUGE_2MB;
        }
        let fd = rustix::fs::memfd_create("wharf-buffers", flags)?;
        rustix::fs::ftruncate(&fd, len as u64)?;
        rustix::fs::fcntl_add_seals(&fd, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
        let map = |at: *mut c_void, flags| {
            // SAFETY: without MAP_FIXED the kernel finds a place of its own; with it, the caller below names one in our
            // reservation.
            unsafe { rustix::mm::mmap(at, len, ProtFlags::READ | ProtFlags::WRITE, flags, &fd, 0) }
        };
        // A failed MAP_FIXED leaves a hole where the reservation was. So the pages are first claimed at another
        // place: they then belong to the file, and the second mapping has nothing left to fail for.
        let probe = map(ptr::null_mut(), MapFlags::SHARED | MapFlags::POPULATE)?;
        let at = self.base.wrapping_add(self.committed).cast::<c_void>();
        // [at, at + len) lies in our reservation (checked against `limit` by the caller) and past everything
        // committed, so no live data is replaced.
        let mapped = map(at, MapFlags::SHARED | MapFlags::FIXED | MapFlags::POPULATE);
        // SAFETY: the probe was mapped above and nothing points into it.
        let unmapped = unsafe { rustix::mm::munmap(probe, len) };
        debug_assert!(unmapped.is_ok());
        mapped?;
        self.committed += len;
        self.huge_chunks += usize::from(huge);
        self.chunks.push(fd);
        Ok(())
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: the range was mapped by `reserve` and `commit`; the pool that hands out addresses in it is
        // dropped with it.
        let unmapped = unsafe { rustix::mm::munmap(self.reserved_base, self.reserved_len) };
        debug_assert!(unmapped.is_ok());
    }
}

/// So many values of zeros, all resident, on (transparent) huge pages as far as the kernel has some: for tables that are read at random, where a lookup in the
/// page table would be one more miss. `None` when there is no memory.
pub fn zeroed<T: FromZeros>(count: usize) -> Option<Box<[T]>> {
    let layout = Layout::array::<T>(count).ok()?;
    if layout.size() == 0 {
        return T::new_vec_zeroed(count).ok().map(Vec::into_boxed_slice);
    }
    // SAFETY: the size is not 0.
    let start = unsafe { alloc::alloc(layout) };
    if start.is_null() {
        return None;
    }
    let before = start.addr().next_multiple_of(HUGE_PAGE) - start.addr();
    let huge = layout.size().saturating_sub(before) / HUGE_PAGE * HUGE_PAGE;
    if huge != 0 {
        // SAFETY: [before, before + huge) lies in what was allocated; the advice changes no contents, and may be ignored.
        let _ = unsafe { rustix::mm::madvise(start.add(before).cast(), huge, Advice::LinuxHugepage) };
    }
    // SAFETY: `start` is `layout.size()` bytes that nobody else has; then they are `count` values of zeros, which `FromZeros` says are valid,
    // and the layout is the one that a box of them is freed with.
    unsafe {
        start.write_bytes(0, layout.size());
        Some(Box::from_raw(ptr::slice_from_raw_parts_mut(start.cast::<T>(), count)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zeros_of_any_size() {
        for count in [0, 1, 3, 1 << 20] {
            let mut table = zeroed::<[u64; 3]>(count).unwrap();
            assert!(table.len() == count && table.iter().all(|entry| *entry == [0; 3]));
            table.fill([7; 3]);
        }
        assert!(zeroed::<u64>(usize::MAX).is_none() && zeroed::<u64>(1 << 58).is_none());
    }

    #[test]
    fn small_chunks_are_as_large_as_need_be() {
        let mut region = Region::reserve(HUGE_PAGE).unwrap();
        region.commit(1, PageSize::Small).unwrap();
        region.commit(SMALL_UNIT, PageSize::Small).unwrap();
        assert_eq!((region.committed(), region.chunks()), (2 * SMALL_UNIT, (0, 2)));
        // SAFETY: both chunks are committed.
        unsafe { region.base().add(2 * SMALL_UNIT - 1).write(7) };
        assert!(region.commit(1, PageSize::Huge).is_err());
        assert_eq!(region.committed(), 2 * SMALL_UNIT);
    }

    #[test]
    fn grows_in_place_and_stops_at_the_limit() {
        let mut region = Region::reserve(2 * HUGE_PAGE).unwrap();
        let base = region.base();
        assert_eq!(base.addr() % HUGE_PAGE, 0);
        region.commit(HUGE_PAGE - 1, PageSize::Auto).unwrap();
        // SAFETY: the first chunk is committed.
        unsafe { base.write(7) };
        region.commit(HUGE_PAGE, PageSize::Auto).unwrap();
        assert_eq!(region.committed(), 2 * HUGE_PAGE);
        // SAFETY: both chunks are committed.
        unsafe {
            assert_eq!(base.read(), 7);
            assert_eq!(base.add(2 * HUGE_PAGE - 1).read(), 0);
        }
        assert_eq!(region.commit(1, PageSize::Auto).unwrap_err().kind(), io::ErrorKind::OutOfMemory);
    }
}
