//! Packets that change worker: frames over bounded rings, dropped and counted when the other one is too slow.

use super::{ERROR_CONGESTION, HANDOFFS_PER_TURN, Handoff, Worker, move_packets};
use crate::NodeIndex;
use crate::counter::add;
use crate::frame::{Frame, Packet};

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

    pub(super) fn send_handoffs(&mut self) {
        for other in 0..self.handoff_frames.len() {
            if self.handoff_frames[other].is_some() {
                self.send_handoff(other);
            }
        }
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
