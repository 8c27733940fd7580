//! Packets that change worker: frames over bounded rings, dropped and counted when the other one is too slow.

use super::{ERROR_CONGESTION, HANDOFFS_PER_TURN, Handoff, Worker, move_packets};
use crate::NodeIndex;
use crate::counter::add;
use crate::frame::{Frame, Packet};
use crate::ring::Producer;

impl Worker {
    pub(super) fn hand_off(&mut self, other: usize, frame: &Frame, mut from: usize, to: usize) {
        while from < to {
            if self.handoff_frames[other].as_ref().is_some_and(|f| f.room() == 0) {
                self.send_handoff(other);
            }
            let mut out = match self.handoff_frames[other].take() {
                Some(out) => out,
                None => self.new_frame(),
            };
            let n = (to - from).min(out.room());
            // SAFETY: the range is inside the frame, which the caller clears, and `n` fits.
            unsafe { move_packets(frame, from, from + n, &mut out) };
            out.traced |= frame.traced;
            self.handoff_frames[other] = Some(out);
            from += n;
        }
    }

    /// At the end of a turn. A place in a ring is a frame's, however few packets are in it: those for a worker that is far
    /// behind (held up by the machine, say) stay here and fill their frame, which goes when it is full or the worker
    /// has caught up.
    pub(super) fn send_handoffs(&mut self) {
        for other in 0..self.handoff_frames.len() {
            let behind =
                self.handoff_out.get_mut(other).and_then(Option::as_mut).is_some_and(Producer::is_half_full);
            if self.handoff_frames[other].is_some() && !behind {
                self.send_handoff(other);
            }
        }
    }

    /// Whether packets wait for a worker that is behind.
    pub(super) fn keeps_handoffs(&self) -> bool {
        self.handoff_frames.iter().any(Option::is_some)
    }

    pub(super) fn send_handoff(&mut self, other: usize) {
        let Some(frame) = self.handoff_frames[other].take() else { return };
        let n = frame.len();
        let handoff = Handoff { node: NodeIndex::DEVICE_OUTPUT, frame };
        let refused = match self.handoff_out.get_mut(other) {
            Some(Some(ring)) => ring.push(handoff).err(),
            _ => Some(handoff),
        };
        match refused {
            None => {
                add(&self.shared().handoffs, n as u64);
                self.peers[other].wake();
            }
            Some(Handoff { mut frame, .. }) => {
                self.count_output_error(ERROR_CONGESTION, n as u64);
                add(&self.shared().handoff_drops, n as u64);
                self.cache.free_iter(frame.drain().map(Packet::into_buffer));
                self.recycle(frame);
            }
        }
    }

    pub(super) fn take_handoffs(&mut self) -> bool {
        let mut any = false;
        for from in 0..self.handoff_in.len() {
            for _ in 0..HANDOFFS_PER_TURN {
                let Some(Handoff { node, frame }) = self.handoff_in[from].pop() else { break };
                any = true;
                self.enqueue_frame(node, frame);
            }
        }
        any
    }
}
