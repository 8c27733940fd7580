//! Memory that is shared with the server, written by everything but the rules.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering};

use memif::wire::{self, COOKIE, Descriptor, ring_bytes};
use rustix::fs::{MemfdFlags, SealFlags};
use rustix::mm::{MapFlags, ProtFlags};

/// How a message about somebody else's bytes starts.
pub(crate) const LEAK: &str = "leak";

/// A sequence of numbers out of a seed (xorshift64).
#[derive(Debug, Clone)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub(crate) fn below(&mut self, n: u64) -> u64 {
        self.next() % n.max(1)
    }
}

/// A memfd.
pub(crate) fn memfd(size: u64, seals: SealFlags) -> OwnedFd {
    let fd = rustix::fs::memfd_create("adversary", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)
        .expect("memfd_create");
    rustix::fs::ftruncate(&fd, size).expect("ftruncate");
    rustix::fs::fcntl_add_seals(&fd, seals).expect("F_ADD_SEALS");
    fd
}

/// A mapped region with rings of one size (S2M before M2S) and a buffer of [`BUFFER`] bytes for each slot.
#[derive(Debug)]
pub(crate) struct Memory {
    pub(crate) fd: OwnedFd,
    base: *mut u8,
    pub(crate) size: u32,
    pub(crate) queues: u16,
    pub(crate) log2: u8,
}

/// Bytes of a buffer.
pub(crate) const BUFFER: u32 = 2048;

// SAFETY: every access is an atomic one within the mapping, which belongs to no thread.
unsafe impl Send for Memory {}
// SAFETY: as above.
unsafe impl Sync for Memory {}

impl Memory {
    /// Rings whose indices start at `start`.
    pub(crate) fn new(queues: u16, log2: u8, start: u16) -> Self {
        let rings = 2 * u32::from(queues);
        let size = rings * ring_bytes(log2) as u32 + rings * (BUFFER << log2);
        let fd = memfd(size.into(), SealFlags::SHRINK);
        let memory = Self::map(fd, size, queues, log2);
        for ring in 0..rings as u16 {
            memory.set_u32(memory.ring(ring) + wire::ring::COOKIE as u32, COOKIE);
            memory.set_head(ring, start);
            memory.set_tail(ring, start);
            for slot in 0..memory.slots() {
                memory.describe(ring, slot, memory.empty(ring, slot));
            }
        }
        memory
    }

    /// A client's region, with a ring of each direction at its start.
    pub(crate) fn of(fd: OwnedFd, size: u32, log2: u8) -> Self {
        Self::map(fd, size, 1, log2)
    }

    fn map(fd: OwnedFd, size: u32, queues: u16, log2: u8) -> Self {
        // SAFETY: a new mapping at an address of the kernel's choice; it stays to the end of the process.
        let base = unsafe {
            rustix::mm::mmap(
                std::ptr::null_mut(),
                size as usize,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED,
                fd.as_fd(),
                0,
            )
        };
        Self { fd, base: base.expect("mmap").cast(), size, queues, log2 }
    }

    pub(crate) fn slots(&self) -> u16 {
        1 << self.log2
    }

    /// Offset of a ring.
    pub(crate) fn ring(&self, ring: u16) -> u32 {
        u32::from(ring) * ring_bytes(self.log2) as u32
    }

    /// The descriptor of a slot's own buffer.
    pub(crate) fn empty(&self, ring: u16, slot: u16) -> Descriptor {
        let first = 2 * u32::from(self.queues) * ring_bytes(self.log2) as u32;
        let buffer = u32::from(ring) * u32::from(self.slots()) + u32::from(slot & (self.slots() - 1));
        Descriptor { flags: 0, region: 0, length: BUFFER, offset: first + buffer * BUFFER }
    }

    fn check(&self, offset: u32, bytes: u32) {
        assert!(offset.is_multiple_of(bytes) && offset <= self.size - bytes, "{offset}");
    }

    pub(crate) fn set_u8(&self, offset: u32, value: u8) {
        self.check(offset, 1);
        // SAFETY: within the mapping, as just checked.
        unsafe { (*self.base.add(offset as usize).cast::<AtomicU8>()).store(value, Ordering::Relaxed) }
    }

    pub(crate) fn u8(&self, offset: u32) -> u8 {
        self.check(offset, 1);
        // SAFETY: as above.
        unsafe { (*self.base.add(offset as usize).cast::<AtomicU8>()).load(Ordering::Relaxed) }
    }

    pub(crate) fn set_u16(&self, offset: u32, value: u16) {
        self.check(offset, 2);
        // SAFETY: within the mapping and aligned, as just checked.
        unsafe { (*self.base.add(offset as usize).cast::<AtomicU16>()).store(value, Ordering::Release) }
    }

    pub(crate) fn u16(&self, offset: u32) -> u16 {
        self.check(offset, 2);
        // SAFETY: as above.
        unsafe { (*self.base.add(offset as usize).cast::<AtomicU16>()).load(Ordering::Acquire) }
    }

    pub(crate) fn set_u32(&self, offset: u32, value: u32) {
        self.check(offset, 4);
        // SAFETY: as above.
        unsafe { (*self.base.add(offset as usize).cast::<AtomicU32>()).store(value, Ordering::Relaxed) }
    }

    pub(crate) fn set_u64(&self, offset: u32, value: u64) {
        self.check(offset, 8);
        // SAFETY: as above.
        unsafe { (*self.base.add(offset as usize).cast::<AtomicU64>()).store(value, Ordering::Relaxed) }
    }

    fn u64(&self, offset: u32) -> u64 {
        self.check(offset, 8);
        // SAFETY: as above.
        unsafe { (*self.base.add(offset as usize).cast::<AtomicU64>()).load(Ordering::Relaxed) }
    }

    pub(crate) fn head(&self, ring: u16) -> u16 {
        self.u16(self.ring(ring) + wire::ring::HEAD as u32)
    }

    pub(crate) fn set_head(&self, ring: u16, value: u16) {
        self.set_u16(self.ring(ring) + wire::ring::HEAD as u32, value);
    }

    pub(crate) fn tail(&self, ring: u16) -> u16 {
        self.u16(self.ring(ring) + wire::ring::TAIL as u32)
    }

    pub(crate) fn set_tail(&self, ring: u16, value: u16) {
        self.set_u16(self.ring(ring) + wire::ring::TAIL as u32, value);
    }

    /// Offset of a slot's descriptor.
    pub(crate) fn slot(&self, ring: u16, slot: u16) -> u32 {
        let slot = u32::from(slot & (self.slots() - 1));
        self.ring(ring) + wire::ring::DESCRIPTORS as u32 + slot * wire::DESCRIPTOR_SIZE as u32
    }

    pub(crate) fn describe(&self, ring: u16, slot: u16, descriptor: Descriptor) {
        let (w0, w1) = descriptor.to_words();
        let at = self.slot(ring, slot);
        self.set_u64(at, w0);
        self.set_u64(at + 8, w1);
    }

    pub(crate) fn described(&self, ring: u16, slot: u16) -> Descriptor {
        let at = self.slot(ring, slot);
        Descriptor::from_words(self.u64(at), self.u64(at + 8))
    }

    /// Writes a packet into a slot's own buffer.
    pub(crate) fn fill(&self, ring: u16, slot: u16, packet: &[u8]) {
        let empty = self.empty(ring, slot);
        for (at, byte) in (empty.offset..).zip(packet) {
            self.set_u8(at, *byte);
        }
        self.describe(ring, slot, Descriptor { length: packet.len() as u32, ..empty });
    }

    /// The first bytes of what a slot's own buffer holds.
    pub(crate) fn contents(&self, ring: u16, slot: u16, len: u32) -> Vec<u8> {
        let at = self.empty(ring, slot).offset;
        (at..at + len).map(|i| self.u8(i)).collect()
    }

    /// Looks for bytes that are nobody's business here.
    pub(crate) fn scan(&self, canary: &[u8]) -> Result<(), String> {
        if canary.is_empty() {
            return Ok(());
        }
        let mut bytes = vec![0; self.size as usize];
        let mut done = 0;
        while done < bytes.len() {
            let n =
                rustix::io::pread(&self.fd, &mut bytes[done..], done as u64).map_err(|e| e.to_string())?;
            done += n;
        }
        match bytes.windows(canary.len()).position(|w| w == canary) {
            Some(at) => Err(format!("{LEAK}: somebody else's bytes at offset {at}")),
            None => Ok(()),
        }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: the mapping of `new`; `self` was the only way to it.
        let _ = unsafe { rustix::mm::munmap(self.base.cast(), self.size as usize) };
    }
}
