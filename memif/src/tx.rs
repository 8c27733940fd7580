//! Transmit: free buffers are located and checked once, packets are copied into them, and one write of our index
//! hands them all over.
//!
//! As in receive, a burst is worked on in pieces: while packets are copied into one piece of buffers, the next
//! one is located and the ring lines of the piece after that are on their way, since the peer wrote them last.

use std::os::fd::BorrowedFd;
use std::ptr;

use crate::config::{CHECKED, MAX_BURST, MAX_DESCRIPTORS, MAX_FRAME, MAX_SEGMENTS};
use crate::copy::{copy, prefetch_write};
use crate::index::Cursor;
use crate::queue::{Counters, RingState, Shared};
use crate::region::Buffers;
use crate::ring::Ring;
use crate::wire::{DESC_FLAG_NEXT, Descriptor};

/// Buffers of a piece.
const PIECE: usize = 16;

/// Packets to transmit, in order. All methods inline into the transmit loop.
pub trait TxSource {
    /// Number of packets.
    fn packets(&self) -> usize;

    /// Number of segments of packet `packet`, which is below [`TxSource::packets`].
    fn segments(&self, packet: usize) -> usize {
        let _ = packet;
        1
    }

    /// Bytes of segment `segment`, which is below [`TxSource::segments`], of packet `packet`.
    fn segment(&self, packet: usize, segment: usize) -> &[u8];
}

impl<B: AsRef<[u8]>> TxSource for [B] {
    #[inline]
    fn packets(&self) -> usize {
        self.len()
    }

    #[inline]
    fn segment(&self, packet: usize, _: usize) -> &[u8] {
        self.get(packet).map_or(&[], AsRef::as_ref)
    }
}

/// A free buffer of the ring.
#[derive(Debug, Clone, Copy)]
struct Slot {
    /// Invariant, made by [`TxQueue::locate`]: valid for writes of `capacity` bytes as long as the ring's regions.
    data: *mut u8,
    /// At most [`MAX_FRAME`]; 0 if the peer's descriptor is malformed.
    capacity: u32,
    region: u16,
    offset: u32,
}

impl Slot {
    const BAD: Self = Self { data: ptr::null_mut(), capacity: 0, region: 0, offset: 0 };

    #[inline(always)]
    fn filled(&self, flags: u16, length: u32) -> Descriptor {
        Descriptor { flags, region: self.region, length, offset: self.offset }
    }
}

/// What became of a packet that does not simply fit one buffer.
enum Outcome {
    /// In so many slots.
    Sent { slots: usize, bytes: usize },
    /// Lost by a malformed descriptor; so many slots go back empty.
    BadDescriptor { slots: usize },
    /// Lost: empty, too long, or too many buffers.
    BadLength,
    /// Not enough slots now.
    Full,
}

/// A queue of packets to the peer. One owner at a time; moves to whatever thread feeds it.
#[derive(Debug)]
pub struct TxQueue {
    shared: Shared,
    cursor: Cursor,
    /// A client knows where its buffers are; a server reads it from the peer's descriptors.
    buffers: Option<Buffers>,
    slots: Box<[Slot; MAX_DESCRIPTORS]>,
    /// Slots of `slots` that are valid in this burst.
    located: usize,
    /// Packets were published since the last kick.
    unkicked: bool,
}

// SAFETY: the only member that is not Send by itself is the pointers into the regions in `slots`. They are used
// only within `transmit`, whose `&mut self` is exclusive, and the regions belong to no thread.
unsafe impl Send for TxQueue {}

impl TxQueue {
    pub(crate) fn new(shared: Shared, cursor: Cursor, buffers: Option<Buffers>) -> Self {
        let slots = Box::new([Slot::BAD; MAX_DESCRIPTORS]);
        let mut queue = Self { shared, cursor, buffers, slots, located: 0, unkicked: false };
        queue.cursor.advance(&queue.shared.ring, 0);
        queue
    }

    /// Sends packets from the front of `source` (at most [`MAX_BURST`]), and returns how many are dealt with:
    /// sent, or lost for a reason that is counted. What is left found the ring full ([`Counters::ring_full`])
    /// and may be offered again. Returns 0 if the connection is dead, or dies by a violation of the peer.
    ///
    /// The peer sees the packets at once, but sleeps on unless you [`TxQueue::kick`] it. A server finds the ring
    /// full until the client has posted its first buffers, shortly after the connection is up.
    #[inline]
    pub fn transmit<S: TxSource + ?Sized>(&mut self, source: &S) -> usize {
        #[cfg(target_arch = "x86_64")]
        if crate::copy::has_avx2() {
            // SAFETY: the processor has what the function was compiled for.
            return unsafe { self.transmit_avx2(source) };
        }
        self.transmit_inline(source)
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,bmi1,bmi2")]
    fn transmit_avx2<S: TxSource + ?Sized>(&mut self, source: &S) -> usize {
        self.transmit_inline(source)
    }

    #[inline(always)]
    fn transmit_inline<S: TxSource + ?Sized>(&mut self, source: &S) -> usize {
        let mut burst = Counters::default();
        let count = source.packets().min(MAX_BURST);
        if count == 0 || !self.shared.link.alive() {
            return 0;
        }
        self.located = 0;
        let Ok(free) = self.cursor.available(&self.shared.ring, count as u16) else {
            self.shared.impossible_index();
            return 0;
        };
        let free = usize::from(free).min(count);
        self.prefetch_ring(0, PIECE.min(free));
        self.prefetch_ring(PIECE.min(free), (2 * PIECE).min(free));
        self.locate(PIECE.min(free));
        let (mut used, mut taken) = (0, 0);
        'burst: while taken < count {
            // Slots below `until` are worked on now; behind it the next piece is prepared.
            let until = self.located;
            if until < free {
                self.prefetch_ring((until + PIECE).min(free), (until + 2 * PIECE).min(free));
                self.locate(PIECE.min(free - until));
            }
            // With all of it located, what is left finds the ring full.
            while taken < count && (used < until || until >= free) {
                let end = if until < free { until } else { self.located };
                let piece = self.slots.get(used..end.min(used + count - taken)).unwrap_or_default();
                let mut n = 0;
                for slot in piece {
                    let data = source.segment(taken + n, 0);
                    let len = data.len();
                    if source.segments(taken + n) != 1 || len.wrapping_sub(1) >= slot.capacity as usize {
                        break;
                    }
                    // SAFETY: `data` is a live slice of `len` bytes; `slot` is writable for `capacity` >= `len`
                    // bytes (invariant of `Slot`, `self.shared` is alive).
                    unsafe { copy(data.as_ptr(), slot.data, len) };
                    self.fill(used + n, slot.filled(0, len as u32));
                    n += 1;
                    burst.bytes += len as u64;
                }
                used += n;
                taken += n;
                burst.packets += n as u64;
                if n == piece.len() && n != 0 {
                    continue;
                }
                match self.transmit_chain(source, taken, used) {
                    Outcome::Sent { slots, bytes } => {
                        used += slots;
                        burst.packets += 1;
                        burst.bytes += bytes as u64;
                    }
                    Outcome::BadDescriptor { slots } => {
                        used += slots;
                        burst.bad_descriptor += 1;
                    }
                    Outcome::BadLength => burst.bad_length += 1,
                    Outcome::Full => {
                        burst.ring_full += (count - taken) as u64;
                        break 'burst;
                    }
                }
                taken += 1;
            }
        }
        if used != 0 {
            // At most MAX_DESCRIPTORS.
            self.cursor.advance(&self.shared.ring, used as u16);
            self.unkicked = true;
        }
        self.shared.counters.add(&burst);
        if self.is_alive() { taken } else { 0 }
    }

    /// Asks for the ring lines of slots `from..to`, which are free.
    #[inline(always)]
    fn prefetch_ring(&self, from: usize, to: usize) {
        let position = self.cursor.position();
        let mut slot = from;
        while slot < to {
            self.shared.ring.prefetch(position.wrapping_add(slot as u16), true);
            slot += Ring::DESCRIPTORS_PER_LINE;
        }
    }

    /// Sends a packet that may take several buffers, from slot `first` of the burst on. Writes no descriptor
    /// unless the packet is dealt with: a server would lose the size of the peer's buffer.
    #[inline(never)]
    fn transmit_chain<S: TxSource + ?Sized>(&mut self, source: &S, packet: usize, first: usize) -> Outcome {
        let segments = source.segments(packet);
        let total: usize = (0..segments).map(|i| source.segment(packet, i).len()).sum();
        if total == 0 || total > MAX_FRAME {
            return Outcome::BadLength;
        }
        let mut filled = [(Slot::BAD, 0u32); MAX_SEGMENTS];
        let mut n = 0;
        // Room left in the slot before `n`.
        let mut room = 0;
        for i in 0..segments {
            let mut data = source.segment(packet, i);
            while !data.is_empty() {
                if room == 0 {
                    if n == MAX_SEGMENTS {
                        return Outcome::BadLength;
                    }
                    if first + n >= self.located && !self.locate(1) {
                        return Outcome::Full;
                    }
                    let Some(slot) = self.slots.get(first + n).copied() else { return Outcome::Full };
                    if slot.capacity == 0 {
                        return self.return_empty(first, n + 1);
                    }
                    if let Some(entry) = filled.get_mut(n) {
                        *entry = (slot, 0);
                    }
                    room = slot.capacity as usize;
                    n += 1;
                }
                let Some((slot, len)) = filled.get_mut(n - 1) else { return Outcome::BadLength };
                let (now, rest) = data.split_at(data.len().min(room));
                // SAFETY: `room` is what is left of the slot's capacity behind the `len` bytes filled, and
                // `now` is no longer than that (invariant of `Slot`, `self.shared` is alive).
                unsafe { copy(now.as_ptr(), slot.data.add(*len as usize), now.len()) };
                *len += now.len() as u32;
                room -= now.len();
                data = rest;
            }
        }
        for (i, (slot, len)) in filled.iter().take(n).enumerate() {
            let flags = if i + 1 < n { DESC_FLAG_NEXT } else { 0 };
            self.fill(first + i, slot.filled(flags, *len));
        }
        Outcome::Sent { slots: n, bytes: total }
    }

    /// Gives slots back to the peer without a packet, the last of which is malformed.
    #[cold]
    fn return_empty(&mut self, first: usize, slots: usize) -> Outcome {
        for i in first..first + slots {
            let slot = self.slots.get(i).copied().unwrap_or(Slot::BAD);
            self.fill(i, slot.filled(0, 0));
        }
        Outcome::BadDescriptor { slots }
    }

    #[inline(always)]
    fn fill(&self, slot: usize, descriptor: Descriptor) {
        self.shared.ring.set_descriptor(self.cursor.position().wrapping_add(slot as u16), descriptor);
    }

    /// Locates up to `more` further free buffers, each checked once. False if there is none.
    #[inline(always)]
    fn locate(&mut self, more: usize) -> bool {
        let ring = &self.shared.ring;
        let want = (self.located + more).min(MAX_DESCRIPTORS);
        let Ok(available) = self.cursor.available(ring, want as u16) else {
            self.shared.impossible_index();
            return false;
        };
        let before = self.located;
        let end = usize::from(available).min(want).max(before);
        let (buffers, mut window) = (self.buffers, ring.regions().window());
        let mut index = self.cursor.position().wrapping_add(before as u16);
        for slot in self.slots.get_mut(before..end).unwrap_or_default() {
            let d = match &buffers {
                Some(buffers) => Descriptor {
                    flags: 0,
                    region: 0,
                    length: buffers.size,
                    offset: buffers.offset(ring.slot(index)),
                },
                None => ring.descriptor(index),
            };
            *slot = match window.range(d.region, d.offset, d.length) {
                Some(data) => Slot {
                    data: data.as_ptr(),
                    capacity: if CHECKED { d.length.min(MAX_FRAME as u32) } else { d.length },
                    region: d.region,
                    offset: d.offset,
                },
                None => Slot { region: d.region, offset: d.offset, ..Slot::BAD },
            };
            prefetch_write(slot.data);
            index = index.wrapping_add(1);
        }
        self.located = end;
        self.located > before
    }

    /// Interrupts the peer if it asked for it and packets were sent since the last kick. Once per burst.
    pub fn kick(&mut self) {
        if !self.unkicked {
            return;
        }
        self.unkicked = false;
        let sent = self.shared.notify();
        self.shared.counters.add(&Counters { interrupts: sent.into(), ..Counters::default() });
    }

    /// Free slots of the ring right now; each holds one packet of up to the buffer size.
    pub fn free_slots(&mut self) -> usize {
        match self.cursor.available(&self.shared.ring, u16::MAX) {
            Ok(free) => free.into(),
            Err(_) => {
                self.shared.impossible_index();
                0
            }
        }
    }

    /// The eventfd that interrupts the peer.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.shared.event()
    }

    #[cfg(all(test, not(loom)))]
    pub(crate) fn shared(&self) -> &Shared {
        &self.shared
    }

    /// Counters of this queue.
    pub fn counters(&self) -> Counters {
        self.shared.counters.read()
    }

    /// The ring as it is now.
    pub fn ring_state(&self) -> RingState {
        self.shared.state()
    }

    /// Whether the connection is up: not closed by the control side, and without a violation.
    pub fn is_alive(&self) -> bool {
        self.shared.link.alive()
    }
}

/// For load generators, whose own work must not be what is measured.
#[cfg(feature = "raw")]
impl TxQueue {
    /// Writes a packet into the buffer of every slot, for [`TxQueue::raw_publish`] to send again and again; `packet`
    /// gets the slot, below the ring size, and gives at most a buffer of bytes. Only for a client that has sent
    /// nothing yet. False, and the ring may be half filled, where that is not so or a packet is empty or too long.
    pub fn raw_fill<P: AsRef<[u8]>>(&mut self, packet: impl Fn(u16) -> P) -> bool {
        let ring = &self.shared.ring;
        let size = self.cursor.size();
        let Some(buffers) = self.buffers else { return false };
        if self.cursor.available(ring, size) != Ok(size) {
            return false;
        }
        for slot in 0..size {
            let packet = packet(slot);
            let (data, offset) = (packet.as_ref(), buffers.offset(slot));
            let length = data.len() as u32;
            let Some(to) = ring.regions().range(0, offset, buffers.size) else { return false };
            if data.is_empty() || data.len() > buffers.size as usize {
                return false;
            }
            // SAFETY: `to` is valid for `buffers.size` bytes as long as the ring's regions, and `data` is private
            // memory of no more than that.
            unsafe { copy(data.as_ptr(), to.as_ptr(), data.len()) };
            ring.set_descriptor(slot, Descriptor { flags: 0, region: 0, length, offset });
        }
        true
    }

    /// Sends up to `max` of the packets that [`TxQueue::raw_fill`] left, those in the free slots, and returns how many.
    /// With `anew`, the length of all of them, it writes their descriptors again, as an application does that sends
    /// packets; without it, nothing but the index. Counts nothing.
    #[inline]
    pub fn raw_publish(&mut self, max: u16, anew: Option<u32>) -> usize {
        if !self.shared.link.alive() {
            return 0;
        }
        let ring = &self.shared.ring;
        let Ok(free) = self.cursor.available(ring, max) else {
            self.shared.impossible_index();
            return 0;
        };
        let count = free.min(max);
        if let (Some(buffers), Some(length)) = (self.buffers, anew) {
            for i in 0..count {
                let index = self.cursor.position().wrapping_add(i);
                let offset = buffers.offset(ring.slot(index));
                ring.set_descriptor(index, Descriptor { flags: 0, region: 0, length, offset });
            }
        }
        if count != 0 {
            self.cursor.advance(ring, count);
            self.unkicked = true;
        }
        count.into()
    }
}
