//! `memif-input`: packets from a ring into buffers, one copy each.

use memif::{Accepted, Counters, Plain, RxQueue, RxSink};
use std::os::fd::BorrowedFd;
use wharf_engine::buffer::BufferCache;
use wharf_engine::device::{DeviceInput, FreshBuffers, RxBurst};
use wharf_engine::frame::FRAME_SIZE;

/// A receive ring of a memif connection.
#[derive(Debug)]
pub struct MemifInput {
    queue: RxQueue,
    /// The queue's counters as the interface has them.
    seen: Counters,
}

impl MemifInput {
    /// The device of `queue`.
    pub fn new(queue: RxQueue) -> MemifInput {
        let seen = queue.counters();
        MemifInput { queue, seen }
    }

    /// Passes on what the queue lost since the last call; `too_long` of it did not fit a buffer.
    #[inline]
    fn count(&mut self, rx: &RxBurst<'_>, too_long: u64) {
        let now = self.queue.counters();
        let refused = too_long + now.bad_descriptor.wrapping_sub(self.seen.bad_descriptor);
        let no_room = now.no_buffer.wrapping_sub(self.seen.no_buffer);
        self.seen = now;
        if refused != 0 {
            rx.count_error(refused);
        }
        if no_room > too_long {
            rx.count_no_buffer(no_room - too_long);
        }
    }
}

/// Fresh buffers, filled in order.
struct Sink<'a, 'b> {
    fresh: &'a mut FreshBuffers<'b>,
    too_long: u64,
}

impl RxSink for Sink<'_, '_> {
    #[inline(always)]
    fn room(&mut self, len: usize) -> Option<&mut [u8]> {
        if len > self.fresh.data_size() {
            self.too_long += 1;
            return None;
        }
        let to = self.fresh.slot(0)?;
        // SAFETY: a slot has `data_size` bytes of the pool's mapping, which the kernel initialised. Until `commit` they
        // belong to `fresh` alone, which is borrowed as long as the slice.
        Some(unsafe { std::slice::from_raw_parts_mut(to, self.fresh.data_size()) })
    }

    #[inline(always)]
    fn accept(&mut self, len: usize) {
        // At most `data_size`, by `room`.
        self.fresh.commit(len as u16);
    }

    #[inline(always)]
    fn plain(&mut self, packets: Plain<'_>) -> Accepted {
        if packets.longest() > self.fresh.data_size() {
            return packets.one_by_one(self);
        }
        // SAFETY: `fill` counts up from 0 to below the number of packets, and gives room for `data_size` bytes, which is
        // enough, of memory that belongs to this sink alone.
        let (packets, bytes) = self.fresh.fill(packets.len(), |k, to| unsafe { packets.copy(k, to) });
        Accepted { packets, bytes }
    }
}

impl DeviceInput for MemifInput {
    fn node(&self) -> &'static str {
        "memif-input"
    }

    fn poll(&mut self, rx: &mut RxBurst<'_>) -> bool {
        if !self.queue.has_work() {
            return false;
        }
        let mut fresh = rx.fresh(FRAME_SIZE);
        let want = fresh.left();
        // Without buffers the packets stay in the ring, where they slow the peer down.
        let mut sink = Sink { fresh: &mut fresh, too_long: 0 };
        let received = self.queue.receive(want, &mut sink);
        let too_long = sink.too_long;
        drop(fresh);
        self.count(rx, too_long);
        received == want
    }

    fn fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.queue.fd())
    }

    fn arm(&mut self) -> bool {
        self.queue.set_interrupt_mode(true);
        !self.queue.has_work()
    }

    fn disarm(&mut self) {
        self.queue.drain_fd();
        self.queue.set_interrupt_mode(false);
    }

    fn close(&mut self, _: &mut BufferCache) {
        // Holds no buffer. A peer that goes on sending need not interrupt anybody.
        self.queue.set_interrupt_mode(false);
    }
}
