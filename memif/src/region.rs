//! Shared memory: a client's own region and its layout, a server's mappings of what a client sent.
//!
//! Nothing outside this module and [`crate::ring`] turns an offset of the peer into a pointer, and nobody ever
//! makes a Rust reference into a mapping: the peer may write any byte of it at any time.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::{self, NonNull};

use rustix::fs::{MemfdFlags, SealFlags};
use rustix::mm::{MapFlags, ProtFlags};

use crate::config::{CHECKED, Limits};
use crate::error::{ConfigError, Direction, RegionError};
use crate::sigbus::Registered;
use crate::wire::ring_bytes;

/// `f_type` of tmpfs, statfs(2).
const TMPFS_MAGIC: u64 = 0x0102_1994;

/// Where a client puts its rings and buffers in region 0: S2M rings, M2S rings, then the buffers of each ring
/// in the same order. As VPP and libmemif lay it out, but for the distance between buffers: an odd number of
/// cache lines, because at a power of two the first lines of all packets compete for a few sets of the cache.
/// Peers don't mind, they go by the offsets in the descriptors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Layout {
    pub(crate) s2m: u16,
    pub(crate) m2s: u16,
    pub(crate) log2_size: u8,
    buffer_size: u32,
    stride: u32,
    buffers: u32,
    /// Bytes of the region.
    pub(crate) total: u32,
}

impl Layout {
    /// `log2_size` must be at most 14.
    pub(crate) fn new(s2m: u16, m2s: u16, log2_size: u8, buffer_size: u32) -> Result<Self, ConfigError> {
        let rings = u64::from(s2m) + u64::from(m2s);
        let stride = (u64::from(buffer_size).div_ceil(64) | 1) * 64;
        let buffers = (rings * ring_bytes(log2_size)).next_multiple_of(64);
        let needed = buffers + rings * (stride << log2_size);
        match (u32::try_from(needed), u32::try_from(buffers), u32::try_from(stride)) {
            (Ok(total), Ok(buffers), Ok(stride)) => {
                Ok(Self { s2m, m2s, log2_size, buffer_size, stride, buffers, total })
            }
            _ => Err(ConfigError::RegionSize { needed, limit: u32::MAX.into() }),
        }
    }

    fn position(&self, direction: Direction, ring: u16) -> u32 {
        match direction {
            Direction::S2M => ring.into(),
            Direction::M2S => u32::from(self.s2m) + u32::from(ring),
        }
    }

    /// Offset of a ring.
    pub(crate) fn ring_offset(&self, direction: Direction, ring: u16) -> u32 {
        self.position(direction, ring) * ring_bytes(self.log2_size) as u32
    }

    /// The buffers of a ring.
    pub(crate) fn buffers(&self, direction: Direction, ring: u16) -> Buffers {
        let first = self.buffers + (self.position(direction, ring) << self.log2_size) * self.stride;
        Buffers { first, stride: self.stride, size: self.buffer_size }
    }
}

/// The buffers of one of our own rings: slot `i` of the ring uses buffer `i`, for ever.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Buffers {
    first: u32,
    stride: u32,
    /// Bytes of each.
    pub(crate) size: u32,
}

impl Buffers {
    /// Offset in region 0 of the buffer of `slot`, which is below the ring size.
    #[inline(always)]
    pub(crate) fn offset(&self, slot: u16) -> u32 {
        self.first.wrapping_add(u32::from(slot).wrapping_mul(self.stride))
    }
}

/// A shared mapping, gone when dropped.
#[derive(Debug)]
pub(crate) struct Mapping {
    base: NonNull<u8>,
    /// Bytes that may be touched: at most the size of the file, which can't shrink.
    len: u64,
    /// At the handler of SIGBUS; `None` only while it is dropped.
    registered: Option<Registered>,
}

// SAFETY: a `Mapping` only hands out raw pointers; the memory is not tied to a thread.
unsafe impl Send for Mapping {}
// SAFETY: as above; `&Mapping` gives no access but through raw pointers.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// New memory, sealed so that nobody can resize it, with all its pages present.
    pub(crate) fn create(len: u32) -> Result<(Self, OwnedFd), RegionError> {
        let fail = |call| move |e: rustix::io::Errno| RegionError::Io { call, source: e.into() };
        let fd = rustix::fs::memfd_create("memif region 0", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)
            .map_err(fail("memfd_create"))?;
        rustix::fs::ftruncate(&fd, len.into()).map_err(fail("ftruncate"))?;
        rustix::fs::fcntl_add_seals(&fd, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)
            .map_err(fail("F_ADD_SEALS"))?;
        Ok((Self::map(fd.as_fd(), len.into(), MapFlags::POPULATE)?, fd))
    }

    /// A peer's memory. The order of the checks matters: until the seals are known to exist the file may live
    /// on a file system of the peer's making, where any other call could hang.
    pub(crate) fn from_peer(
        fd: OwnedFd,
        announced: u64,
        mapped: u64,
        limits: &Limits,
    ) -> Result<Self, RegionError> {
        let fail = |call| move |e: rustix::io::Errno| RegionError::Io { call, source: e.into() };
        let seals = rustix::fs::fcntl_get_seals(&fd).map_err(|e| RegionError::NotMemfd(e.into()))?;
        if !seals.contains(SealFlags::SHRINK) {
            return Err(RegionError::NotSealed);
        }
        if seals.intersects(SealFlags::WRITE | SealFlags::FUTURE_WRITE) {
            return Err(RegionError::WriteSealed);
        }
        let magic = rustix::fs::fstatfs(&fd).map_err(fail("fstatfs"))?.f_type as u64;
        if magic != TMPFS_MAGIC {
            return Err(RegionError::NotTmpfs(magic));
        }
        let actual = rustix::fs::fstat(&fd).map_err(fail("fstat"))?.st_size as u64;
        if announced == 0 {
            return Err(RegionError::Empty);
        }
        if announced > actual {
            return Err(RegionError::ShorterThanAnnounced { announced, actual });
        }
        let total = mapped.saturating_add(announced);
        if total > limits.max_mapped {
            return Err(RegionError::OverCap { total, limit: limits.max_mapped });
        }
        Self::map(fd.as_fd(), announced, MapFlags::empty())
    }

    fn map(fd: BorrowedFd<'_>, len: u64, flags: MapFlags) -> Result<Self, RegionError> {
        let fail = |source| RegionError::Io { call: "mmap", source };
        let size = usize::try_from(len).map_err(|_| fail(rustix::io::Errno::NOMEM.into()))?;
        // SAFETY: a new mapping at an address of the kernel's choice replaces none of ours.
        let base = unsafe {
            rustix::mm::mmap(
                ptr::null_mut(),
                size,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED | flags,
                fd,
                0,
            )
        };
        let base = base.map_err(|e| fail(e.into()))?;
        let base = NonNull::new(base.cast::<u8>()).ok_or_else(|| fail(rustix::io::Errno::NOMEM.into()))?;
        match Registered::new(base.as_ptr() as usize, size.next_multiple_of(rustix::param::page_size())) {
            Some(registered) => Ok(Self { base, len, registered: Some(registered) }),
            None => {
                // SAFETY: the mapping that was just made, which nobody knows yet.
                let _ = unsafe { rustix::mm::munmap(base.as_ptr().cast(), size) };
                Err(RegionError::TooManyMappings)
            }
        }
    }

    /// Whether its memory turned out to be gone, and was replaced by zeros.
    pub(crate) fn lost(&self) -> bool {
        self.registered.as_ref().is_some_and(Registered::lost)
    }

    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// Pointer to `len` bytes at `offset`, if they lie within the mapping. It is valid as long as `self`.
    #[inline(always)]
    pub(crate) fn range(&self, offset: u32, len: u32) -> Option<NonNull<u8>> {
        let within = !CHECKED || u64::from(offset) + u64::from(len) <= self.len;
        // SAFETY: offset <= offset + len <= self.len, the bytes that `map` mapped at `base`.
        within.then(|| unsafe { self.base.add(offset as usize) })
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // First: the addresses may be somebody else's right after they are unmapped.
        self.registered = None;
        // SAFETY: `base` and `len` are those of `map`; whoever made a pointer from `range` keeps `self` alive.
        let _ = unsafe { rustix::mm::munmap(self.base.as_ptr().cast(), self.len as usize) };
    }
}

/// All regions of a connection.
#[derive(Debug)]
pub(crate) struct Regions(Box<[Mapping]>);

impl Regions {
    pub(crate) fn new(mappings: Vec<Mapping>) -> Self {
        Self(mappings.into())
    }

    /// As [`Mapping::range`], with the index of the region checked too.
    #[inline(always)]
    pub(crate) fn range(&self, region: u16, offset: u32, len: u32) -> Option<NonNull<u8>> {
        self.0.get(usize::from(region))?.range(offset, len)
    }

    /// A look at them that remembers where the last region was.
    #[inline(always)]
    pub(crate) fn window(&self) -> Window<'_> {
        // Without a region, nothing lies within it.
        let (base, len) = self.0.first().map_or((NonNull::dangling(), 0), |m| (m.base, m.len));
        Window { regions: self, region: 0, base, len }
    }

    /// The first region whose memory is gone.
    pub(crate) fn lost(&self) -> Option<u16> {
        self.0.iter().position(Mapping::lost).map(|i| i as u16)
    }

    pub(crate) fn sizes(&self) -> Vec<u64> {
        self.0.iter().map(Mapping::len).collect()
    }
}

/// [`Regions::range`] for many descriptors in a row, which mostly have one region: its place is in registers then.
#[derive(Debug)]
pub(crate) struct Window<'a> {
    regions: &'a Regions,
    /// That `base` and `len` are of.
    region: u16,
    base: NonNull<u8>,
    len: u64,
}

impl Window<'_> {
    /// As [`Regions::range`].
    #[inline(always)]
    pub(crate) fn range(&mut self, region: u16, offset: u32, len: u32) -> Option<NonNull<u8>> {
        if region != self.region {
            self.turn_to(region)?;
        }
        let within = !CHECKED || u64::from(offset) + u64::from(len) <= self.len;
        // SAFETY: offset <= offset + len <= self.len, the bytes that `Mapping::map` mapped at `base`.
        within.then(|| unsafe { self.base.add(offset as usize) })
    }

    #[inline(never)]
    fn turn_to(&mut self, region: u16) -> Option<()> {
        let mapping = self.regions.0.get(usize::from(region))?;
        (self.region, self.base, self.len) = (region, mapping.base, mapping.len);
        Some(())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::os::fd::FromRawFd;

    /// A region as no check lets it in: its file can be cut.
    pub(crate) fn unsealed(len: u64) -> (Mapping, OwnedFd) {
        let fd = memfd(len, SealFlags::empty());
        (Mapping::map(fd.as_fd(), len, MapFlags::empty()).unwrap(), fd)
    }

    #[test]
    fn lost_memory_is_replaced_by_zeros() {
        crate::sigbus::survive_sigbus().unwrap();
        let (other, _fd) = unsealed(8192);
        let (mapping, fd) = unsealed(3 * 4096 + 1);
        let at = mapping.range(2 * 4096 + 5, 1).unwrap();
        // SAFETY: within the mapping, which lives to the end of the test.
        unsafe { at.write_volatile(7) };
        assert!(!mapping.lost());
        rustix::fs::ftruncate(&fd, 0).unwrap();
        // SAFETY: as above.
        unsafe {
            assert_eq!(at.read_volatile(), 0);
            at.write_volatile(9);
            assert_eq!(at.read_volatile(), 9, "writes go nowhere, but they go");
        }
        assert!(mapping.lost() && !other.lost());
        drop(mapping);
        let (again, _fd) = unsealed(4096);
        assert!(!again.lost(), "the next one begins anew");
    }

    fn memfd(size: u64, seals: SealFlags) -> OwnedFd {
        let fd = rustix::fs::memfd_create("t", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
        rustix::fs::ftruncate(&fd, size).unwrap();
        rustix::fs::fcntl_add_seals(&fd, seals).unwrap();
        fd
    }

    fn refuse(fd: OwnedFd, announced: u64) -> RegionError {
        Mapping::from_peer(fd, announced, 0, &Limits::default()).unwrap_err()
    }

    #[test]
    fn peers_files() {
        let sealed = |size| memfd(size, SealFlags::SHRINK);
        let ok = Mapping::from_peer(sealed(8192), 5000, 0, &Limits::default()).unwrap();
        assert!(ok.range(4999, 1).is_some());
        assert!(ok.range(5000, 1).is_none(), "the rest of the page is not part of the region");
        assert!(ok.range(u32::MAX, u32::MAX).is_none());

        assert!(matches!(refuse(sealed(4096), 0), RegionError::Empty));
        assert!(matches!(refuse(sealed(4096), 4097), RegionError::ShorterThanAnnounced { actual: 4096, .. }));
        assert!(matches!(refuse(sealed(4096), 1 << 63), RegionError::ShorterThanAnnounced { .. }));
        assert!(matches!(refuse(memfd(4096, SealFlags::GROW), 4096), RegionError::NotSealed));
        assert!(matches!(
            refuse(memfd(4096, SealFlags::SHRINK | SealFlags::WRITE), 4096),
            RegionError::WriteSealed
        ));
        assert!(matches!(refuse(sealed(128 << 20), 128 << 20), RegionError::OverCap { .. }));
        let over = Mapping::from_peer(sealed(4096), 4096, (64 << 20) - 4095, &Limits::default());
        assert!(matches!(over, Err(RegionError::OverCap { .. })));

        let file = std::fs::File::open("/proc/self/exe").unwrap();
        assert!(matches!(refuse(file.into(), 1), RegionError::NotMemfd(_)));
        let zero = std::fs::File::open("/dev/zero").unwrap();
        assert!(matches!(refuse(zero.into(), 1), RegionError::NotMemfd(_)));

        // Read-only descriptor of a good memfd: a shared writable mapping is refused by the kernel.
        let fd = sealed(4096);
        let read_only = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&fd));
        let read_only = std::fs::File::open(read_only).unwrap();
        assert!(matches!(refuse(read_only.into(), 4096), RegionError::Io { call: "mmap", .. }));
    }

    #[test]
    fn huge_pages_are_refused() {
        // SAFETY: plain call; the result is checked before it is owned.
        let fd = unsafe { libc::memfd_create(c"h".as_ptr(), libc::MFD_HUGETLB | libc::MFD_ALLOW_SEALING) };
        if fd < 0 {
            return; // A kernel without hugetlb has nothing to refuse.
        }
        // SAFETY: `fd` was just returned to us and is owned by nobody else.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        rustix::fs::fcntl_add_seals(&fd, SealFlags::SHRINK).unwrap();
        assert!(matches!(refuse(fd, 1), RegionError::NotTmpfs(0x9584_58f6)));
    }

    #[test]
    fn layout_does_not_overlap() {
        let l = Layout::new(2, 3, 4, 100).unwrap();
        let mut end = 0;
        let rings: Vec<_> = [(Direction::S2M, 2), (Direction::M2S, 3)]
            .into_iter()
            .flat_map(|(d, n)| (0..n).map(move |i| (d, i)))
            .collect();
        for (d, i) in &rings {
            assert_eq!(l.ring_offset(*d, *i), end);
            end += ring_bytes(4) as u32;
        }
        for (d, i) in &rings {
            for slot in 0..16 {
                let at = l.buffers(*d, *i).offset(slot);
                assert!(at >= end && at.is_multiple_of(64));
                end = at + 100;
            }
        }
        assert!(end <= l.total);
    }

    #[test]
    fn own_memory_is_sealed_for_a_server() {
        let (mine, fd) = Mapping::create(10_000).unwrap();
        let theirs = Mapping::from_peer(fd, 10_000, 0, &Limits::default()).unwrap();
        let (a, b) = (mine.range(9_999, 1).unwrap(), theirs.range(9_999, 1).unwrap());
        // SAFETY: both pointers are within their mappings, which live to the end of the test.
        unsafe {
            a.write_volatile(0x5a);
            assert_eq!(b.read_volatile(), 0x5a);
        }
    }
}
