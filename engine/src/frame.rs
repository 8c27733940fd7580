//! Frames and the packets in them.

use crate::SwIfIndex;
use crate::buffer::{BufferIndex, COLD, DATA_START, MAX_HEADER, Memory};
use std::mem::{MaybeUninit, size_of};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Packets in a frame at most.
pub const FRAME_SIZE: usize = 256;

/// Metadata that one node hands to the next, at most 16 bytes, any bit pattern valid.
pub trait Meta: FromBytes + IntoBytes + Immutable + Copy + 'static {}
impl<T: FromBytes + IntoBytes + Immutable + Copy + 'static> Meta for T {}

/// Bytes of metadata in a packet's descriptor.
pub const META_SIZE: usize = 16;

/// Bits of [`Packet::flags`].
pub mod flags {
    /// The packet is being traced; its trace number is in the buffer's cold header.
    pub const TRACED: u16 = 1;
    /// The L4 checksum field holds only the pseudo-header's sum, as a kernel leaves it for an offloading device.
    pub const L4_CSUM_PARTIAL: u16 = 2;
    /// The packet was made here rather than received.
    pub const LOCALLY_ORIGINATED: u16 = 4;
    /// The packet is a copy for somebody who watches: it is not copied again.
    pub const MIRRORED: u16 = 8;
}

/// A packet as it lies in a frame: 32 bytes that travel with it from node to node.
///
/// Invariant: `COLD <= start <= stride - MAX_HEADER` and `start + len <= stride`, of the pool that the buffer is of.
#[derive(Debug)]
#[repr(C, align(32))]
pub struct Packet {
    pub(crate) buffer: BufferIndex,
    pub(crate) start: u16,
    pub(crate) len: u16,
    pub(crate) rx: SwIfIndex,
    pub(crate) flags: u16,
    pub(crate) feature: u16,
    pub(crate) meta: [u8; META_SIZE],
}

const _: () = assert!(size_of::<Packet>() == 32);

impl Packet {
    /// A packet of `len` bytes at offset `start` of `buffer`, which is of the pool in `memory`; both are cut to what it holds.
    #[inline(always)]
    pub fn new(memory: Memory, buffer: BufferIndex, start: u16, len: u16, rx: SwIfIndex) -> Packet {
        let stride = memory.stride() as u16;
        let start = start.clamp(COLD as u16, stride - MAX_HEADER as u16);
        let len = len.min(stride - start);
        Packet { buffer, start, len, rx, flags: 0, feature: 0, meta: [0; META_SIZE] }
    }

    /// As [`Packet::new`] at [`DATA_START`], of at most `data_size` bytes, which is that of the pool.
    #[inline(always)]
    pub(crate) fn fresh(buffer: BufferIndex, data_size: u16, len: u16, rx: SwIfIndex) -> Packet {
        let len = len.min(data_size);
        Packet { buffer, start: DATA_START, len, rx, flags: 0, feature: 0, meta: [0; META_SIZE] }
    }

    /// Bytes of the packet.
    #[inline(always)]
    pub fn len(&self) -> u16 {
        self.len
    }

    /// Whether it has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Offset in the buffer of the packet's first byte.
    #[inline(always)]
    pub fn start(&self) -> u16 {
        self.start
    }

    /// The buffer.
    #[inline(always)]
    pub fn buffer(&self) -> &BufferIndex {
        &self.buffer
    }

    /// Number of the buffer, for a descriptor.
    #[inline(always)]
    pub fn raw_buffer(&self) -> u32 {
        self.buffer.0
    }

    /// Address of the packet's first byte in the memory of its pool: only for its owner to use.
    #[inline(always)]
    pub fn address(&self, memory: Memory) -> *mut u8 {
        memory.at(self.buffer.0, self.start)
    }

    /// Takes the packet apart.
    #[inline(always)]
    pub fn into_buffer(self) -> BufferIndex {
        self.buffer
    }

    /// See [`flags`].
    #[inline(always)]
    pub fn flags(&self) -> u16 {
        self.flags
    }

    /// Sets bits of [`flags`].
    #[inline(always)]
    pub fn add_flags(&mut self, bits: u16) {
        self.flags |= bits;
    }

    /// Interface that received it.
    #[inline(always)]
    pub fn rx(&self) -> SwIfIndex {
        self.rx
    }

    #[inline(always)]
    pub(crate) fn put_meta<M: Meta>(&mut self, meta: M) {
        const { assert!(size_of::<M>() <= META_SIZE) };
        self.meta[..size_of::<M>()].copy_from_slice(meta.as_bytes());
    }

    #[inline(always)]
    pub(crate) fn take_meta<M: Meta>(&self) -> M {
        read_meta(&self.meta)
    }
}

#[inline(always)]
pub(crate) fn read_meta<M: Meta>(bytes: &[u8; META_SIZE]) -> M {
    const { assert!(size_of::<M>() <= META_SIZE) };
    // SAFETY: `M: FromBytes` accepts any bytes, and 16 are there (asserted above).
    unsafe { bytes.as_ptr().cast::<M>().read_unaligned() }
}

/// Up to [`FRAME_SIZE`] packets that go through a node together.
pub struct Frame {
    len: usize,
    pub(crate) traced: bool,
    packets: [MaybeUninit<Packet>; FRAME_SIZE],
}

impl std::fmt::Debug for Frame {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Frame").field("len", &self.len).field("traced", &self.traced).finish_non_exhaustive()
    }
}

impl Frame {
    pub(crate) fn boxed() -> Box<Frame> {
        let mut frame = Box::<Frame>::new_uninit();
        let at = frame.as_mut_ptr();
        // SAFETY: `len` and `traced` are written; the packets may stay uninitialised by their type.
        unsafe {
            (&raw mut (*at).len).write(0);
            (&raw mut (*at).traced).write(false);
            frame.assume_init()
        }
    }

    /// Packets in it.
    #[inline(always)]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Packets that still fit.
    #[inline(always)]
    pub fn room(&self) -> usize {
        FRAME_SIZE - self.len
    }

    #[inline(always)]
    pub(crate) fn as_ptr(&self) -> *const Packet {
        self.packets.as_ptr().cast()
    }

    #[inline(always)]
    pub(crate) fn as_mut_ptr(&mut self) -> *mut Packet {
        self.packets.as_mut_ptr().cast()
    }

    /// The packets.
    #[inline(always)]
    pub fn packets(&self) -> &[Packet] {
        // SAFETY: the first `len` packets are initialised.
        unsafe { std::slice::from_raw_parts(self.as_ptr(), self.len) }
    }

    /// The packets, to change.
    #[inline(always)]
    pub fn packets_mut(&mut self) -> &mut [Packet] {
        // SAFETY: the first `len` packets are initialised.
        unsafe { std::slice::from_raw_parts_mut(self.as_mut_ptr(), self.len) }
    }

    /// Appends a packet, or gives it back when the frame is full.
    #[inline(always)]
    pub fn push(&mut self, packet: Packet) -> Result<(), Packet> {
        if self.len == FRAME_SIZE {
            return Err(packet);
        }
        self.packets[self.len].write(packet);
        self.len += 1;
        Ok(())
    }

    /// Forgets the packets: they were moved elsewhere.
    #[inline(always)]
    pub(crate) fn clear(&mut self) {
        self.len = 0;
        self.traced = false;
    }

    /// # Safety
    /// The first `len` packets are initialised and owned by this frame.
    #[inline(always)]
    pub(crate) unsafe fn set_len(&mut self, len: usize) {
        debug_assert!(len <= FRAME_SIZE);
        self.len = len;
    }

    /// Moves all packets out.
    pub fn drain(&mut self) -> impl Iterator<Item = Packet> + '_ {
        let len = self.len;
        self.clear();
        // SAFETY: each of the first `len` packets is read once, and the frame no longer counts them. What the caller
        // does not take is lost, never duplicated.
        (0..len).map(move |i| unsafe { self.packets[i].assume_init_read() })
    }
}

/// A packet as a node sees it: header views and the descriptor's fields, never the buffer's index.
#[derive(Debug)]
pub struct PacketRef<'a> {
    pub(crate) packet: &'a mut Packet,
    pub(crate) memory: Memory,
}

impl PacketRef<'_> {
    #[inline(always)]
    fn at(&self) -> *mut u8 {
        self.packet.address(self.memory)
    }

    /// The header at the packet's start. In bounds whatever the packet says: a packet shorter than `T` yields stale
    /// bytes of its buffer. Judging the length is the job of the `*-input` nodes, see [`PacketRef::try_header`].
    #[inline(always)]
    pub fn header<T: FromBytes + KnownLayout + Immutable + Unaligned>(&self) -> &T {
        const { assert!(size_of::<T>() <= MAX_HEADER) };
        // SAFETY: MAX_HEADER bytes follow `start` in the buffer; T takes any bytes at any alignment.
        unsafe { &*self.at().cast::<T>() }
    }

    /// As [`PacketRef::header`], to change.
    #[inline(always)]
    pub fn header_mut<T: FromBytes + IntoBytes + KnownLayout + Unaligned>(&mut self) -> &mut T {
        const { assert!(size_of::<T>() <= MAX_HEADER) };
        // SAFETY: as for `header`; `&mut self` is the only way to the buffer.
        unsafe { &mut *self.at().cast::<T>() }
    }

    /// The header at the packet's start, if the packet is long enough.
    #[inline(always)]
    pub fn try_header<T: FromBytes + KnownLayout + Immutable + Unaligned>(&self) -> Option<&T> {
        (usize::from(self.packet.len) >= size_of::<T>()).then(|| self.header())
    }

    /// The packet's bytes.
    #[inline(always)]
    pub fn data(&self) -> &[u8] {
        // SAFETY: `start + len` is inside the buffer (invariant of `Packet`).
        unsafe { std::slice::from_raw_parts(self.at(), self.packet.len.into()) }
    }

    /// The packet's bytes, to change.
    #[inline(always)]
    pub fn data_mut(&mut self) -> &mut [u8] {
        // SAFETY: as for `data`; `&mut self` is the only way to the buffer.
        unsafe { std::slice::from_raw_parts_mut(self.at(), self.packet.len.into()) }
    }

    /// Bytes of the packet.
    #[inline(always)]
    pub fn len(&self) -> u16 {
        self.packet.len
    }

    /// Whether it has no bytes.
    pub fn is_empty(&self) -> bool {
        self.packet.len == 0
    }

    /// Moves the start `n` bytes on: what was there stays before it. Stops at the end of the packet.
    #[inline(always)]
    pub fn advance(&mut self, n: u16) {
        let n = n.min(self.packet.len);
        self.packet.start = (self.packet.start + n).min((self.memory.stride() - MAX_HEADER) as u16);
        self.packet.len -= n;
    }

    /// Moves the start `n` bytes back, over headroom or an earlier header, at most [`PacketRef::headroom`].
    #[inline(always)]
    pub fn retreat(&mut self, n: u16) {
        let n = n.min(self.headroom());
        self.packet.start -= n;
        self.packet.len += n;
    }

    /// Bytes before the packet that [`PacketRef::retreat`] can use.
    #[inline(always)]
    pub fn headroom(&self) -> u16 {
        self.packet.start - COLD as u16
    }

    /// Makes the packet `len` bytes long, at most what its buffer holds. New bytes are stale.
    #[inline(always)]
    pub fn set_len(&mut self, len: u16) {
        self.packet.len = len.min(self.memory.stride() as u16 - self.packet.start);
    }

    /// Cuts the packet to `len` bytes if it is longer.
    #[inline(always)]
    pub fn truncate(&mut self, len: u16) {
        self.packet.len = self.packet.len.min(len);
    }

    /// Puts the start back where received data starts and makes the packet `len` bytes long: for a node that writes
    /// a new packet over the old one.
    #[inline(always)]
    pub fn reset(&mut self, len: u16) {
        self.packet.start = DATA_START;
        self.packet.len = len.min(self.memory.data_size() as u16);
    }

    /// Interface that received it.
    #[inline(always)]
    pub fn rx(&self) -> SwIfIndex {
        self.packet.rx
    }

    /// Says that it was received by another interface, which lies in the one of before: a sub-interface, a tunnel, a BVI.
    #[inline(always)]
    pub fn set_rx(&mut self, interface: SwIfIndex) {
        self.packet.rx = interface;
    }

    /// The metadata that [`crate::Node::process`] will be given: for [`crate::Node::prefetch`], which runs before.
    #[inline(always)]
    pub fn meta<M: Meta>(&self) -> M {
        self.packet.take_meta()
    }

    /// See [`flags`].
    #[inline(always)]
    pub fn flags(&self) -> u16 {
        self.packet.flags
    }

    /// Sets bits of [`flags`].
    #[inline(always)]
    pub fn add_flags(&mut self, bits: u16) {
        self.packet.flags |= bits;
    }

    /// Clears bits of [`flags`].
    #[inline(always)]
    pub fn clear_flags(&mut self, bits: u16) {
        self.packet.flags &= !bits;
    }

    /// Leaves a number in the trace of a packet that is traced, for [`crate::Node::trace`].
    #[inline(always)]
    pub fn note(&mut self, note: u64) {
        if self.packet.flags & flags::TRACED != 0 {
            // SAFETY: the packet owns its buffer, so nobody else reads or writes its cold header.
            unsafe { note_slot(self.memory, self.packet).write(note) };
        }
    }

    /// Asks the processor to load the packet's first line.
    #[inline(always)]
    pub fn prefetch_header(&self) {
        crate::prefetch(self.at());
    }
}

/// The cold header of a buffer.
#[repr(C, align(64))]
pub(crate) struct Cold {
    pub(crate) trace: u32,
    /// What the node that has the packet says of it.
    pub(crate) note: u64,
}

const _: () = assert!(size_of::<Cold>() == COLD);

/// Trace number of a packet that has [`flags::TRACED`].
pub(crate) fn trace_slot(memory: Memory, packet: &Packet) -> *mut u32 {
    // SAFETY: the cold header is at the start of the packet's buffer, which the packet owns; it is 64-byte aligned
    // since the base and the stride are.
    unsafe { &raw mut (*memory.at(packet.buffer.0, 0).cast::<Cold>()).trace }
}

/// What a node left for the trace of a packet that has [`flags::TRACED`].
pub(crate) fn note_slot(memory: Memory, packet: &Packet) -> *mut u64 {
    // SAFETY: as for `trace_slot`.
    unsafe { &raw mut (*memory.at(packet.buffer.0, 0).cast::<Cold>()).note }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::buffer::{Pool, PoolConfig};

    #[test]
    fn views_stay_in_the_buffer_whatever_is_asked() {
        for data_size in [0, 2048, 9216, usize::MAX] {
            let pool = Pool::new(&PoolConfig { data_size, ..PoolConfig::fixed(256) }).unwrap();
            let (memory, stride) = (pool.memory(), pool.memory().stride());
            assert!(memory.data_size() >= data_size.clamp(2048, 65_000) && (stride / 64) % 2 == 1);
            let buffer = pool.alloc_one().unwrap();
            let mut packet = Packet::new(memory, buffer, u16::MAX, u16::MAX, SwIfIndex(1));
            let mut p = PacketRef { packet: &mut packet, memory };
            for step in [0u16, 1, 13, 14, 200, 2000, 4000, u16::MAX] {
                p.advance(step);
                p.header_mut::<[u8; 64]>()[63] = 1;
                assert!(p.packet.start as usize + p.packet.len as usize <= stride);
                p.retreat(step);
                p.set_len(u16::MAX);
                assert!(
                    p.packet.start as usize >= COLD && p.data().len() + p.packet.start as usize <= stride
                );
                p.reset(step);
                assert_eq!(usize::from(p.len()), usize::from(step).min(memory.data_size()));
            }
            pool.free_one(packet.into_buffer());
        }
    }
}
