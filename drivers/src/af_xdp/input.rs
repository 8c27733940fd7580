//! `af_xdp-input`: a receive queue of a Linux interface. Frames arrive in buffers of the pool: nothing is copied.

use super::lent::Lent;
use super::{RxKick, RxQueue};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use wharf_engine::device::{DeviceInput, RxBurst};
use wharf_engine::{flags, offload};

/// Free places in the fill ring before it is filled again.
const REFILL: u32 = 64;
/// Buffers given to the kernel in one go.
const FILL: u32 = 512;

/// A receive queue.
pub struct XdpInput {
    pub(super) queue: RxQueue,
    pub(super) lent: Arc<Lent>,
    /// Whether frames may come with their checksum left to the device, as from a veth.
    pub(super) partial: bool,
    invalid: u64,
    /// The last entry was not the end of its frame, so the next one is no beginning.
    continued: bool,
    /// The device was deleted: there is nobody to wake.
    gone: bool,
}

impl std::fmt::Debug for XdpInput {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("XdpInput").field("partial", &self.partial).finish_non_exhaustive()
    }
}

impl XdpInput {
    pub(super) fn new(queue: RxQueue, lent: Arc<Lent>, partial: bool) -> XdpInput {
        XdpInput { queue, lent, partial, invalid: 0, continued: false, gone: false }
    }

    fn receive(&mut self, rx: &mut RxBurst<'_>) {
        let memory = rx.cache().pool().memory();
        let mut refused = 0;
        for frame in self.queue.receive(rx.room() as u32) {
            let part = frame.continues || self.continued;
            self.continued = frame.continues;
            // What we did not lend is not ours to use: a second descriptor for one buffer, say.
            let Some(buffer) = self.lent.take(frame.buffer) else {
                refused += 1;
                continue;
            };
            rx.change_owner(&buffer, false);
            if part {
                // A frame over several buffers is refused with all its parts.
                refused += 1;
                rx.cache().free(buffer);
                continue;
            }
            let mut bits = 0;
            if self.partial {
                let at = memory.at(frame.buffer, frame.offset);
                // SAFETY: the area checked that the frame lies in its buffer, which is ours since the kernel gave it back.
                let bytes = unsafe { std::slice::from_raw_parts(at, frame.len.into()) };
                if offload::find_partial(bytes).is_some() {
                    bits = flags::L4_CSUM_PARTIAL;
                }
            }
            // The kernel wrote it, often on another core; the next node reads it a frame of packets later.
            wharf_engine::prefetch(memory.at(frame.buffer, frame.offset));
            rx.push(buffer, frame.offset, frame.len, bits);
        }
        let invalid = self.queue.invalid();
        refused += invalid - self.invalid;
        self.invalid = invalid;
        if refused != 0 {
            rx.count_error(refused);
        }
    }

    fn refill(&mut self, rx: &mut RxBurst<'_>) {
        let reachable = self.queue.area().buffers();
        let mut short = false;
        let mut slots = self.queue.fill(FILL);
        if slots.room() < REFILL {
            return;
        }
        while slots.room() != 0 {
            let Some(buffer) = rx.cache().alloc_where(|index| index < reachable) else {
                short = true;
                break;
            };
            rx.change_owner(&buffer, true);
            let raw = buffer.into_raw();
            if !slots.push(raw) {
                debug_assert!(false, "a reachable buffer has a fill address");
                break;
            }
            // SAFETY: the number was given out two lines above, and only `lent` has it now.
            self.lent.give(unsafe { wharf_engine::buffer::BufferIndex::from_raw(raw) });
        }
        drop(slots);
        if short && self.queue.held() == 0 {
            rx.count_no_buffer(1);
        }
    }
}

impl DeviceInput for XdpInput {
    fn node(&self) -> &'static str {
        "af_xdp-input"
    }

    fn poll(&mut self, rx: &mut RxBurst<'_>) -> bool {
        self.receive(rx);
        self.refill(rx);
        if self.queue.needs_wakeup() && self.queue.held() != 0 && !self.gone {
            self.gone = self.queue.kick() == RxKick::Gone;
        }
        self.queue.waiting() != 0
    }

    fn fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.queue.as_fd())
    }

    fn arm(&mut self) -> bool {
        self.queue.waiting() == 0
    }
}
