//! What receive and transmit queues have in common: the link to the control side, counters, interrupts.

use std::io::IoSliceMut;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::{Errno, ReadWriteFlags};

use crate::error::{Direction, Violation};
use crate::index::Indices;
use crate::kick::kick;
use crate::ring::Ring;
use crate::wire::RING_FLAG_MASK_INT;

/// State of a connection, shared by its control side and all its queues.
#[derive(Debug, Default)]
pub(crate) struct Link {
    /// 0 alive, [`CLOSED`], or a violation.
    state: AtomicU32,
}

const CLOSED: u32 = 1;
const INDEX: u32 = 2;
const ENDLESS: u32 = 3;
const LOST: u32 = 4;
const S2M: u32 = 1 << 16;

impl Link {
    #[inline(always)]
    pub(crate) fn alive(&self) -> bool {
        self.state.load(Ordering::Relaxed) == 0
    }

    /// Marks the connection dead. What was first stays.
    pub(crate) fn close(&self) {
        let _ = self.state.compare_exchange(0, CLOSED, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// Records the first violation, and marks the connection dead.
    #[cold]
    pub(crate) fn violate(&self, violation: Violation) {
        let (kind, direction, ring) = match violation {
            Violation::Index { direction, ring } => (INDEX, direction, ring),
            Violation::EndlessChain { direction, ring } => (ENDLESS, direction, ring),
            // At most 256 regions.
            Violation::RegionLost { region } => (LOST, Direction::M2S, region as u8),
        };
        let direction = if direction == Direction::S2M { S2M } else { 0 };
        let state = kind | u32::from(ring) << 8 | direction;
        let _ = self.state.compare_exchange(0, state, Ordering::Relaxed, Ordering::Relaxed);
    }

    pub(crate) fn violation(&self) -> Option<Violation> {
        let state = self.state.load(Ordering::Relaxed);
        let direction = if state & S2M != 0 { Direction::S2M } else { Direction::M2S };
        let ring = (state >> 8) as u8;
        match state & 0xff {
            INDEX => Some(Violation::Index { direction, ring }),
            ENDLESS => Some(Violation::EndlessChain { direction, ring }),
            LOST => Some(Violation::RegionLost { region: ring.into() }),
            _ => None,
        }
    }
}

/// Counters of one queue. A snapshot; the queue counts on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Packets moved.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Receive: packets lost because the sink had no room.
    pub no_buffer: u64,
    /// Packets lost because a descriptor of the peer was malformed: bad region, range, length or chain.
    pub bad_descriptor: u64,
    /// Transmit: packets not taken because the ring was full.
    pub ring_full: u64,
    /// Transmit: packets lost because they were empty, longer than [`crate::MAX_FRAME`], or needed more than
    /// [`crate::MAX_SEGMENTS`] of the peer's buffers.
    pub bad_length: u64,
    /// Interrupts taken (receive) or sent (transmit).
    pub interrupts: u64,
}

/// The live counters: written by the one owner of the queue, read by anybody.
#[derive(Debug, Default)]
pub(crate) struct LiveCounters {
    packets: AtomicU64,
    bytes: AtomicU64,
    no_buffer: AtomicU64,
    bad_descriptor: AtomicU64,
    ring_full: AtomicU64,
    bad_length: AtomicU64,
    interrupts: AtomicU64,
}

/// Only the owner adds, so a load and a store do.
#[inline(always)]
fn bump(counter: &AtomicU64, n: u64) {
    if n != 0 {
        counter.store(counter.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
    }
}

impl LiveCounters {
    /// Adds what one burst counted.
    #[inline]
    pub(crate) fn add(&self, burst: &Counters) {
        bump(&self.packets, burst.packets);
        bump(&self.bytes, burst.bytes);
        bump(&self.no_buffer, burst.no_buffer);
        bump(&self.bad_descriptor, burst.bad_descriptor);
        bump(&self.ring_full, burst.ring_full);
        bump(&self.bad_length, burst.bad_length);
        bump(&self.interrupts, burst.interrupts);
    }

    pub(crate) fn read(&self) -> Counters {
        let get = |c: &AtomicU64| c.load(Ordering::Relaxed);
        Counters {
            packets: get(&self.packets),
            bytes: get(&self.bytes),
            no_buffer: get(&self.no_buffer),
            bad_descriptor: get(&self.bad_descriptor),
            ring_full: get(&self.ring_full),
            bad_length: get(&self.bad_length),
            interrupts: get(&self.interrupts),
        }
    }
}

/// A look at a ring, for display. The peer may write these values, so nothing follows from them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RingState {
    /// Direction of the ring.
    pub direction: Direction,
    /// Index among the rings of its direction.
    pub index: u8,
    /// Slots.
    pub size: u16,
    /// Index that the client writes.
    pub head: u16,
    /// Index that the server writes.
    pub tail: u16,
    /// Flags; bit 0 means that the consumer polls.
    pub flags: u16,
    /// Region of the ring.
    pub region: u16,
    /// Offset of the ring in its region.
    pub offset: u32,
    /// Interrupts taken or sent.
    pub interrupts: u64,
}

/// The parts of a queue that its owner and the control side share.
#[derive(Debug, Clone)]
pub(crate) struct Shared {
    pub(crate) ring: Ring,
    pub(crate) direction: Direction,
    pub(crate) index: u8,
    pub(crate) link: Arc<Link>,
    pub(crate) counters: Arc<LiveCounters>,
    event: Arc<OwnedFd>,
}

impl Shared {
    pub(crate) fn new(ring: Ring, direction: Direction, index: u8, link: Arc<Link>, event: OwnedFd) -> Self {
        Self { ring, direction, index, link, counters: Arc::default(), event: Arc::new(event) }
    }

    pub(crate) fn state(&self) -> RingState {
        let (region, offset) = self.ring.place();
        RingState {
            direction: self.direction,
            index: self.index,
            size: 1 << self.ring.log2_size(),
            head: self.ring.head(),
            tail: self.ring.tail(),
            flags: self.ring.flags(),
            region,
            offset,
            interrupts: self.counters.read().interrupts,
        }
    }

    pub(crate) fn impossible_index(&self) {
        self.link.violate(Violation::Index { direction: self.direction, ring: self.index });
    }

    pub(crate) fn endless_chain(&self) {
        self.link.violate(Violation::EndlessChain { direction: self.direction, ring: self.index });
    }

    pub(crate) fn event(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }

    /// The consumer's wish. What is stored here is ordered before any later look at the indices, so that either
    /// the consumer sees a packet or the producer sees the wish.
    pub(crate) fn want_interrupts(&self, wanted: bool) {
        self.ring.set_flags(if wanted { 0 } else { RING_FLAG_MASK_INT });
        fence(Ordering::SeqCst);
    }

    /// The producer's half of the same: after the index is published, interrupts the consumer if it wants it.
    /// True if an interrupt was sent.
    pub(crate) fn notify(&self) -> bool {
        fence(Ordering::SeqCst);
        if self.ring.flags() & RING_FLAG_MASK_INT != 0 {
            return false;
        }
        kick(self.event.as_fd())
    }

    /// Clears the interrupt. True if there was one.
    pub(crate) fn drain(&self) -> bool {
        let mut count = [0u8; 8];
        // NOWAIT holds even if the peer has made the open file blocking.
        let got = rustix::io::preadv2(
            &*self.event,
            &mut [IoSliceMut::new(&mut count)],
            u64::MAX,
            ReadWriteFlags::NOWAIT,
        );
        match got {
            Ok(n) => n == 8,
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => self.drain_by_poll(&mut count),
            Err(_) => false,
        }
    }

    /// For kernels without preadv2 on an eventfd.
    fn drain_by_poll(&self, count: &mut [u8; 8]) -> bool {
        let mut fds = [PollFd::new(&*self.event, PollFlags::IN)];
        matches!(rustix::event::poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })), Ok(1))
            && matches!(rustix::io::read(&*self.event, count), Ok(8))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_violation_stays() {
        let link = Link::default();
        assert!(link.alive());
        let first = Violation::EndlessChain { direction: Direction::S2M, ring: 254 };
        link.violate(first);
        link.violate(Violation::Index { direction: Direction::M2S, ring: 1 });
        link.close();
        assert!(!link.alive());
        assert_eq!(link.violation(), Some(first));
        let link = Link::default();
        link.close();
        assert_eq!((link.alive(), link.violation()), (false, None));
    }
}
