//! Receive: descriptors are read once into private memory and checked there, then the packets are copied out,
//! then the slots go back to the peer, all by one write of our index.
//!
//! Both the ring and the packets come from another core's cache. So a burst is worked on in pieces: while one
//! piece of packets is copied, the next one's descriptors are checked and its packets on their way, and the ring
//! lines of the piece after that.

use std::os::fd::BorrowedFd;

use crate::config::{MAX_BURST, MAX_DESCRIPTORS, MAX_FRAME, MAX_SEGMENTS};
use crate::index::Cursor;
use crate::queue::{Counters, RingState, Shared};
use crate::region::Buffers;
use crate::ring::Ring;
use crate::segment::{Accepted, Packet, Plain, Snapshot, take};
use crate::wire::{DESC_FLAG_NEXT, Descriptor};

/// Descriptors of a piece.
const PIECE: usize = 32;

/// Where received packets go. All methods inline into the receive loop.
///
/// Per packet: one `room`, then `more` until the packet fits, then `accept`; or `reject` if `more` gave up.
pub trait RxSink {
    /// Room for the first bytes of a packet of `len` bytes, ideally for all of it. `None` drops
    /// the packet and counts it in [`Counters::no_buffer`].
    fn room(&mut self, len: usize) -> Option<&mut [u8]>;

    /// More room for the packet in progress, of which `left` bytes remain. `None` drops it.
    fn more(&mut self, left: usize) -> Option<&mut [u8]> {
        let _ = left;
        None
    }

    /// The packet in progress is complete: `len` bytes, which fill each room given but perhaps the last.
    fn accept(&mut self, len: usize);

    /// The packet in progress is dropped: take its rooms back.
    fn reject(&mut self) {}

    /// Takes packets that lie in one segment each, in order; those that are not accepted are counted in
    /// [`Counters::no_buffer`]. As it stands, it goes through `room` and `accept`; a sink that has many rooms at hand can
    /// be faster.
    #[inline(always)]
    fn plain(&mut self, packets: Plain<'_>) -> Accepted {
        packets.one_by_one(self)
    }
}

/// How far a burst has been read.
struct Scan {
    /// Slots read.
    slot: usize,
    /// Slots that may be read: those published, at most [`MAX_DESCRIPTORS`].
    limit: usize,
    /// Slots published.
    available: usize,
    /// Packets wanted.
    max: usize,
    done: bool,
    bad_descriptor: u64,
}

/// What became of a chain of descriptors.
enum Chain {
    /// Kept, in so many slots.
    Good(usize),
    /// Malformed; so many slots to give back. If the end is not in sight, the rest must be skipped too.
    Bad { slots: usize, ended: bool },
    /// Its end is not published yet.
    Partial,
    /// It fills the ring.
    Endless,
}

/// A queue of packets from the peer. One owner at a time; moves to whatever thread polls it.
#[derive(Debug)]
pub struct RxQueue {
    shared: Shared,
    cursor: Cursor,
    /// The client's buffers, to post again; a server has none.
    buffers: Option<Buffers>,
    snapshot: Snapshot,
    /// Slots given back of a malformed chain whose end has not come yet; 0 if there is none.
    skipping: usize,
    /// The peer's index at which a chain was incomplete: no reason to look again until it moves.
    partial: Option<u16>,
}

// SAFETY: the only member that is not Send by itself is the snapshot's pointers into the regions. They are used
// only within `receive*`, whose `&mut self` is exclusive, and the regions belong to no thread.
unsafe impl Send for RxQueue {}

impl RxQueue {
    pub(crate) fn new(shared: Shared, cursor: Cursor, buffers: Option<Buffers>) -> Self {
        let snapshot = Snapshot::new();
        let mut queue = Self { shared, cursor, buffers, snapshot, skipping: 0, partial: None };
        queue.shared.want_interrupts(false);
        queue.post(0, queue.cursor.size());
        queue.cursor.advance(&queue.shared.ring, 0);
        queue
    }

    /// Copies up to `max` packets (at most [`MAX_BURST`]) into `sink`, and returns how many it accepted.
    ///
    /// Malformed packets and those without room are dropped and counted. Returns 0 if the connection is dead. When
    /// it dies by a violation of the peer, what came before that is received.
    #[inline]
    pub fn receive<S: RxSink + ?Sized>(&mut self, max: usize, sink: &mut S) -> usize {
        #[cfg(target_arch = "x86_64")]
        if crate::copy::has_avx2() {
            // SAFETY: the processor has what the function was compiled for.
            return unsafe { self.receive_avx2(max, sink) };
        }
        self.receive_inline(max, sink)
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,bmi1,bmi2")]
    fn receive_avx2<S: RxSink + ?Sized>(&mut self, max: usize, sink: &mut S) -> usize {
        self.receive_inline(max, sink)
    }

    #[inline(always)]
    fn receive_inline<S: RxSink + ?Sized>(&mut self, max: usize, sink: &mut S) -> usize {
        let mut scan = self.begin(max);
        let mut burst = Counters::default();
        let mut at = 0;
        loop {
            let before = self.snapshot.len;
            self.scan(&mut scan);
            let until = if scan.done { self.snapshot.len } else { before };
            let Snapshot { longest, chained, .. } = self.snapshot;
            let mut segments = self.snapshot.segments.get(at..until).unwrap_or_default();
            at = until;
            while let [first, ..] = segments {
                let run = match (chained, first.segments) {
                    (false, _) => segments.len(),
                    (true, 1) => segments.iter().take_while(|s| s.segments == 1).count(),
                    (true, n) => {
                        let (packet, rest) = segments.split_at(usize::from(n).min(segments.len()));
                        segments = rest;
                        if take(sink, packet) {
                            burst.packets += 1;
                            burst.bytes += u64::from(first.total);
                        } else {
                            burst.no_buffer += 1;
                        }
                        continue;
                    }
                };
                let (packets, rest) = segments.split_at(run);
                segments = rest;
                let accepted = sink.plain(Plain { segments: packets, longest });
                burst.packets += accepted.packets as u64;
                burst.bytes += accepted.bytes;
                burst.no_buffer += run.saturating_sub(accepted.packets) as u64;
            }
            if scan.done {
                break;
            }
        }
        self.give_back(&scan, burst)
    }

    /// Shows up to `max` packets (at most [`MAX_BURST`]) to `f`, and returns how many there were.
    pub fn receive_with(&mut self, max: usize, mut f: impl FnMut(Packet<'_>)) -> usize {
        let mut scan = self.begin(max);
        while !scan.done {
            self.scan(&mut scan);
        }
        let mut burst = Counters::default();
        let mut segments = self.snapshot.segments.get(..self.snapshot.len).unwrap_or_default();
        while let Some(first) = segments.first() {
            let (packet, rest) = segments.split_at(usize::from(first.segments).clamp(1, segments.len()));
            burst.packets += 1;
            burst.bytes += u64::from(first.total);
            f(Packet { segments: packet });
            segments = rest;
        }
        self.give_back(&scan, burst)
    }

    /// Receives one packet into each of `buffers`, and its length into the same place of `lengths`. Returns how
    /// many came, which is at most the shorter of the two. A packet longer than its buffer is dropped and
    /// counted in [`Counters::no_buffer`].
    pub fn receive_into(&mut self, buffers: &mut [impl AsMut<[u8]>], lengths: &mut [usize]) -> usize {
        struct Into<'a, B> {
            buffers: &'a mut [B],
            lengths: &'a mut [usize],
            done: usize,
        }
        impl<B: AsMut<[u8]>> RxSink for Into<'_, B> {
            fn room(&mut self, len: usize) -> Option<&mut [u8]> {
                self.buffers.get_mut(self.done).map(AsMut::as_mut).filter(|b| b.len() >= len)
            }
            fn accept(&mut self, len: usize) {
                if let Some(l) = self.lengths.get_mut(self.done) {
                    *l = len;
                }
                self.done += 1;
            }
        }
        let max = buffers.len().min(lengths.len());
        self.receive(max, &mut Into { buffers, lengths, done: 0 })
    }

    /// Starts a burst of up to `max` packets.
    #[inline(always)]
    fn begin(&mut self, max: usize) -> Scan {
        self.snapshot.len = 0;
        self.snapshot.packets = 0;
        self.snapshot.longest = 0;
        self.snapshot.chained = false;
        let mut scan =
            Scan { slot: 0, limit: 0, available: 0, max: max.min(MAX_BURST), done: true, bad_descriptor: 0 };
        if scan.max == 0 || !self.shared.link.alive() {
            return scan;
        }
        let Ok(available) = self.cursor.available(&self.shared.ring, scan.max as u16) else {
            self.shared.impossible_index();
            return scan;
        };
        self.partial = None;
        scan.available = available.into();
        scan.limit = scan.available.min(MAX_DESCRIPTORS);
        scan.done = scan.limit == 0;
        self.prefetch_ring(0, PIECE.min(scan.limit));
        scan
    }

    /// Asks for the ring lines of slots `from..to`, which are published. A client will write them too.
    #[inline(always)]
    fn prefetch_ring(&self, from: usize, to: usize) {
        let position = self.cursor.position();
        let mut slot = from;
        while slot < to {
            self.shared.ring.prefetch(position.wrapping_add(slot as u16), self.buffers.is_some());
            slot += Ring::DESCRIPTORS_PER_LINE;
        }
    }

    /// Reads and checks the descriptors of the next piece.
    #[inline(always)]
    fn scan(&mut self, scan: &mut Scan) {
        let end = (scan.slot + PIECE).min(scan.limit);
        self.prefetch_ring(end, (end + PIECE).min(scan.limit));
        if self.skipping == 0 && !scan.done {
            let wanted = scan.max - self.snapshot.packets;
            let position = self.cursor.position().wrapping_add(scan.slot as u16);
            let plain = self.snapshot.push_plain(&self.shared.ring, position, wanted.min(end - scan.slot));
            scan.slot += plain;
            self.snapshot.packets += plain;
        }
        while scan.slot < end && self.snapshot.packets < scan.max && !scan.done {
            let d = self.descriptor(scan.slot);
            if d.flags & DESC_FLAG_NEXT == 0 && self.skipping == 0 {
                scan.slot += 1;
                if self.snapshot.push(&self.shared, d) {
                    self.snapshot.packets += 1;
                } else {
                    scan.bad_descriptor += 1;
                }
            } else {
                self.scan_chain(d, scan);
            }
        }
        scan.done |= scan.slot >= scan.limit || self.snapshot.packets >= scan.max;
    }

    /// Goes on behind a descriptor that is not a packet by itself.
    #[inline(never)]
    fn scan_chain(&mut self, d: Descriptor, scan: &mut Scan) {
        if self.skipping != 0 {
            self.unchain(scan.slot, 1);
            scan.slot += 1;
            self.skipping += 1;
            if d.flags & DESC_FLAG_NEXT == 0 {
                self.skipping = 0;
            } else if self.skipping >= usize::from(self.cursor.size()) {
                self.shared.endless_chain();
                scan.done = true;
            }
            return;
        }
        match self.chain(d, scan.slot, scan.limit) {
            Chain::Good(slots) => {
                self.unchain(scan.slot, slots);
                scan.slot += slots;
                self.snapshot.packets += 1;
            }
            Chain::Bad { slots, ended } => {
                self.unchain(scan.slot, slots);
                scan.slot += slots;
                scan.bad_descriptor += 1;
                self.skipping = if ended { 0 } else { slots };
            }
            Chain::Partial => {
                // Complete but for the bound on descriptors: the next call goes on from here.
                if scan.limit == scan.available {
                    self.partial = Some(self.cursor.limit());
                }
                scan.done = true;
            }
            Chain::Endless => {
                self.shared.endless_chain();
                scan.done = true;
            }
        }
    }

    #[inline(always)]
    fn descriptor(&self, slot: usize) -> Descriptor {
        self.shared.ring.descriptor(self.cursor.position().wrapping_add(slot as u16))
    }

    /// Reads a packet of several descriptors, the first of which is `d` in `slot`.
    #[inline(never)]
    fn chain(&mut self, mut d: Descriptor, slot: usize, limit: usize) -> Chain {
        let first = self.snapshot.len;
        let (mut total, mut slots, mut good) = (0u32, 0, true);
        loop {
            slots += 1;
            total = d.length.saturating_add(total);
            good = good
                && slots <= MAX_SEGMENTS
                && total as usize <= MAX_FRAME
                && self.snapshot.push(&self.shared, d);
            let ended = d.flags & DESC_FLAG_NEXT == 0;
            if ended && good {
                self.snapshot.set_first(first, total as usize, slots);
                return Chain::Good(slots);
            }
            if ended || slot + slots >= limit {
                self.snapshot.len = first;
                return if !ended && slots >= usize::from(self.cursor.size()) {
                    Chain::Endless
                } else if !ended && good && slots < MAX_SEGMENTS {
                    Chain::Partial
                } else {
                    Chain::Bad { slots, ended }
                };
            }
            d = self.descriptor(slot + slots);
        }
    }

    /// A server gives the descriptors of a chain back without [`DESC_FLAG_NEXT`]: DPDK before 26.03 never clears it, and as a
    /// client would chain packets that do not belong together.
    fn unchain(&self, from: usize, slots: usize) {
        if self.buffers.is_some() {
            return;
        }
        for slot in from..from + slots {
            let index = self.cursor.position().wrapping_add(slot as u16);
            let d = self.shared.ring.descriptor(index);
            self.shared.ring.set_descriptor(index, Descriptor { flags: d.flags & !DESC_FLAG_NEXT, ..d });
        }
    }

    /// Returns the slots of a burst to the peer, and how many packets it was.
    #[inline(always)]
    fn give_back(&mut self, scan: &Scan, burst: Counters) -> usize {
        if scan.slot != 0 {
            // At most MAX_DESCRIPTORS and a chain.
            let slots = scan.slot as u16;
            self.post(self.cursor.position(), slots);
            self.cursor.advance(&self.shared.ring, slots);
            self.shared.counters.add(&Counters { bad_descriptor: scan.bad_descriptor, ..burst });
        }
        burst.packets as usize
    }

    /// A client's half of returning slots: describes the empty buffers again.
    #[inline]
    fn post(&self, from: u16, slots: u16) {
        let Some(buffers) = &self.buffers else { return };
        for i in 0..slots {
            let index = from.wrapping_add(i);
            let offset = buffers.offset(self.shared.ring.slot(index));
            self.shared
                .ring
                .set_descriptor(index, Descriptor { flags: 0, region: 0, length: buffers.size, offset });
        }
    }

    /// Whether the peer published packets that were not received yet.
    ///
    /// To sleep without missing any: `set_interrupt_mode(true)`, then `has_work()`; sleep on [`RxQueue::fd`] only
    /// if it says no. Also true when the peer's index makes no sense, so that the next receive finds out.
    pub fn has_work(&self) -> bool {
        self.shared.link.alive() && self.cursor.pending(&self.shared.ring, self.partial)
    }

    /// Asks the peer to interrupt (`true`) or not to (`false`, the state of a new queue). A hint only: the peer
    /// can ignore it, and can clear it, so look now and then all the same.
    pub fn set_interrupt_mode(&mut self, on: bool) {
        self.shared.want_interrupts(on);
    }

    /// The eventfd that becomes readable by an interrupt. Shared with the peer: never read it in a way that
    /// can block; [`RxQueue::drain_fd`] does it right.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.shared.event()
    }

    /// Clears the interrupt. Never blocks. True if there was one.
    pub fn drain_fd(&mut self) -> bool {
        let taken = self.shared.drain();
        self.shared.counters.add(&Counters { interrupts: taken.into(), ..Counters::default() });
        taken
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
impl RxQueue {
    /// Gives all filled slots back unread, and returns how many there were. With `anew` a client writes their
    /// descriptors again, as an application does that receives packets. Without it nothing is written but the index:
    /// the descriptors still say the length of the last packet, which the server takes for the size of the buffer, so
    /// that is for packets of one length only. Counts nothing.
    #[inline]
    pub fn raw_discard(&mut self, anew: bool) -> usize {
        if !self.shared.link.alive() {
            return 0;
        }
        let Ok(filled) = self.cursor.available(&self.shared.ring, u16::MAX) else {
            self.shared.impossible_index();
            return 0;
        };
        if anew {
            self.post(self.cursor.position(), filled);
        }
        if filled != 0 {
            self.cursor.advance(&self.shared.ring, filled);
        }
        filled.into()
    }
}
