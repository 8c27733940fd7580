//! A ring in shared memory: the only place that reads and writes its words.

use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicU32, AtomicU64, Ordering};

use crate::copy::{prefetch_read, prefetch_write};
use crate::error::RingError;
use crate::index::{Indices, LOAD, STORE};
use crate::region::Regions;
use crate::wire::{self, COOKIE, Descriptor, ring_bytes};

/// A ring within one of the regions that it keeps mapped.
#[derive(Debug, Clone)]
pub(crate) struct Ring {
    /// Start of the ring header. Invariant, made by `new`: `ring_bytes(log2_size)` bytes from here on lie in
    /// `regions`, and the address is a multiple of 8.
    base: NonNull<u8>,
    mask: u16,
    log2_size: u8,
    region: u16,
    offset: u32,
    regions: Arc<Regions>,
}

// SAFETY: `base` points into `regions`, which is kept alive and is not tied to a thread; every access through it
// is atomic.
unsafe impl Send for Ring {}
// SAFETY: as above.
unsafe impl Sync for Ring {}

impl Ring {
    /// Checks that a ring of this geometry lies within its region.
    pub(crate) fn check(
        region_size: u64,
        offset: u32,
        log2_size: u8,
        max_log2_size: u8,
    ) -> Result<(), RingError> {
        if log2_size > max_log2_size.min(wire::MAX_LOG2_RING_SIZE) {
            return Err(RingError::Size(log2_size, max_log2_size));
        }
        if !offset.is_multiple_of(8) {
            return Err(RingError::Misaligned(offset));
        }
        let end = u64::from(offset) + ring_bytes(log2_size);
        if end > region_size {
            return Err(RingError::OutOfRegion { end, region: region_size });
        }
        Ok(())
    }

    /// The ring at `offset` of `region`, once its geometry is found possible.
    pub(crate) fn new(
        regions: Arc<Regions>,
        region: u16,
        offset: u32,
        log2_size: u8,
    ) -> Result<Self, RingError> {
        let sizes = regions.sizes();
        let size = *sizes.get(usize::from(region)).ok_or(RingError::NoRegion(region))?;
        Self::check(size, offset, log2_size, wire::MAX_LOG2_RING_SIZE)?;
        let base = regions
            .range(region, offset, ring_bytes(log2_size) as u32)
            .ok_or(RingError::OutOfRegion { end: u64::from(offset), region: size })?;
        Ok(Self { base, mask: (1 << log2_size) - 1, log2_size, region, offset, regions })
    }

    /// A client's first write to its ring: cookie, indices, no flags.
    pub(crate) fn initialise(&self, start: u16) {
        self.store_u32(wire::ring::COOKIE, COOKIE);
        self.set_flags(0);
        self.set_head(start);
        self.set_tail(start);
    }

    pub(crate) fn check_cookie(&self) -> Result<(), RingError> {
        match self.load_u32(wire::ring::COOKIE) {
            COOKIE => Ok(()),
            other => Err(RingError::Cookie(other)),
        }
    }

    #[inline(always)]
    fn u16_at(&self, offset: usize) -> *const AtomicU16 {
        // SAFETY: the callers pass the header's constant offsets, below the 128 bytes that every ring has.
        unsafe { self.base.as_ptr().add(offset).cast() }
    }

    fn load_u32(&self, offset: usize) -> u32 {
        // SAFETY: `offset` is a header field, so within the ring and aligned to 4 (see `base`).
        unsafe { (*self.base.as_ptr().add(offset).cast::<AtomicU32>()).load(Ordering::Relaxed) }
    }

    fn store_u32(&self, offset: usize, value: u32) {
        // SAFETY: as in `load_u32`.
        unsafe { (*self.base.as_ptr().add(offset).cast::<AtomicU32>()).store(value, Ordering::Relaxed) }
    }

    /// The flags, [`wire::RING_FLAG_MASK_INT`] and bits unknown.
    #[inline(always)]
    pub(crate) fn flags(&self) -> u16 {
        // SAFETY: a header field, aligned to 2.
        unsafe { (*self.u16_at(wire::ring::FLAGS)).load(Ordering::Relaxed) }
    }

    pub(crate) fn set_flags(&self, value: u16) {
        // SAFETY: a header field, aligned to 2.
        unsafe { (*self.u16_at(wire::ring::FLAGS)).store(value, Ordering::Relaxed) }
    }

    #[inline(always)]
    fn word(&self, index: u16) -> *const AtomicU64 {
        let slot = usize::from(index & self.mask);
        // SAFETY: slot < ring size, so its 16 bytes lie within the `ring_bytes` that `new` checked.
        unsafe { self.base.as_ptr().add(wire::ring::DESCRIPTORS + slot * wire::DESCRIPTOR_SIZE).cast() }
    }

    /// Descriptors in a cache line.
    pub(crate) const DESCRIPTORS_PER_LINE: usize = 64 / wire::DESCRIPTOR_SIZE;

    /// Asks for the line of a descriptor, for this core alone if it will be written.
    #[inline(always)]
    pub(crate) fn prefetch(&self, index: u16, write: bool) {
        let word = self.word(index).cast::<u8>();
        if write { prefetch_write(word) } else { prefetch_read(word) }
    }

    /// The slot that a free-running index stands for.
    #[inline(always)]
    pub(crate) fn slot(&self, index: u16) -> u16 {
        index & self.mask
    }

    /// Reads a descriptor, each byte of it once.
    #[inline(always)]
    pub(crate) fn descriptor(&self, index: u16) -> Descriptor {
        let word = self.word(index);
        // SAFETY: `word` points to the two aligned words of a slot.
        unsafe {
            Descriptor::from_words((*word).load(Ordering::Relaxed), (*word.add(1)).load(Ordering::Relaxed))
        }
    }

    /// Writes a descriptor; visible to the peer once the index is.
    #[inline(always)]
    pub(crate) fn set_descriptor(&self, index: u16, descriptor: Descriptor) {
        let word = self.word(index);
        let (w0, w1) = descriptor.to_words();
        // SAFETY: `word` points to the two aligned words of a slot.
        unsafe {
            (*word).store(w0, Ordering::Relaxed);
            (*word.add(1)).store(w1, Ordering::Relaxed);
        }
    }

    #[inline(always)]
    pub(crate) fn regions(&self) -> &Regions {
        &self.regions
    }

    pub(crate) fn log2_size(&self) -> u8 {
        self.log2_size
    }

    /// Region and offset, for display.
    pub(crate) fn place(&self) -> (u16, u32) {
        (self.region, self.offset)
    }
}

impl Indices for Ring {
    #[inline(always)]
    fn head(&self) -> u16 {
        // SAFETY: a header field, aligned to 2.
        unsafe { (*self.u16_at(wire::ring::HEAD)).load(LOAD) }
    }

    #[inline(always)]
    fn tail(&self) -> u16 {
        // SAFETY: a header field, aligned to 2.
        unsafe { (*self.u16_at(wire::ring::TAIL)).load(LOAD) }
    }

    #[inline(always)]
    fn set_head(&self, value: u16) {
        // SAFETY: a header field, aligned to 2.
        unsafe { (*self.u16_at(wire::ring::HEAD)).store(value, STORE) }
    }

    #[inline(always)]
    fn set_tail(&self, value: u16) {
        // SAFETY: a header field, aligned to 2.
        unsafe { (*self.u16_at(wire::ring::TAIL)).store(value, STORE) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::region::Mapping;

    #[test]
    fn geometry() {
        let check = |offset, log2| Ring::check(8192, offset, log2, 14);
        let ring = ring_bytes(8) as u32;
        assert_eq!(check(8192 - ring, 8), Ok(()));
        assert!(matches!(check(8192 - ring + 8, 8), Err(RingError::OutOfRegion { .. })));
        assert!(matches!(check(u32::MAX - 7, 0), Err(RingError::OutOfRegion { .. })));
        assert_eq!(check(4, 0), Err(RingError::Misaligned(4)));
        for log2 in [15, 31, 32, 63, 64, 255] {
            assert_eq!(check(0, log2), Err(RingError::Size(log2, 14)));
        }
        assert_eq!(Ring::check(1 << 20, 0, 9, 8), Err(RingError::Size(9, 8)));
    }

    #[test]
    fn words_are_where_the_wire_has_them() {
        let (mapping, _fd) = Mapping::create(4096).unwrap();
        let at = mapping.range(0, 4096).unwrap();
        let regions = Arc::new(Regions::new(vec![mapping]));
        let ring = Ring::new(regions.clone(), 0, 8, 1).unwrap();
        ring.initialise(0);
        ring.set_flags(0x0102);
        ring.set_head(0x0304);
        ring.set_tail(0x0506);
        ring.set_descriptor(3, Descriptor { flags: 1, region: 2, length: 3, offset: 4 });
        let byte = |offset: usize| -> u8 {
            // SAFETY: within the mapping of 4096 bytes, which `regions` keeps.
            unsafe { at.add(8 + offset).read_volatile() }
        };
        let u16_at = |o| u16::from_ne_bytes([byte(o), byte(o + 1)]);
        let u32_at = |o| u32::from_ne_bytes([byte(o), byte(o + 1), byte(o + 2), byte(o + 3)]);
        assert_eq!(u32_at(0), 0x3E3_1F20);
        assert_eq!([u16_at(4), u16_at(6), u16_at(64)], [0x0102, 0x0304, 0x0506]);
        assert_eq!([u16_at(144), u16_at(146)], [1, 2], "index 3 of a ring of 2 is slot 1");
        assert_eq!([u32_at(148), u32_at(152), u32_at(156)], [3, 4, 0]);
        assert_eq!(ring.descriptor(1), Descriptor { flags: 1, region: 2, length: 3, offset: 4 });
        assert!(matches!(Ring::new(regions.clone(), 1, 0, 0), Err(RingError::NoRegion(1))));
        assert_eq!(Ring::new(regions, 0, 16, 0).unwrap().check_cookie(), Err(RingError::Cookie(0)));
    }
}
