//! Receive queues: which ones are polled in a turn, and where their packets go.

use super::{ERROR_DOWN, InputSlot, Worker, lap};
use crate::NodeIndex;
use crate::capture::points;
use crate::device::{Interface, RxBurst};
use crate::frame::Frame;
use crate::node::NodeCounters;

/// Polls in vain after which an input is quiet.
const QUIET_AFTER: u8 = 64;
/// Of the quiet inputs one in so many is polled in a turn,
const QUIET_SHARE: usize = 8;
/// but never fewer than this.
const QUIET_LEAST: usize = 8;

/// Whose turn it is: inputs that had packets lately are polled in each turn, and of the others a few, one after the other. A node with
/// hundreds of silent containers then does not pay for each of them with each vector; their first packet waits for
/// [`QUIET_SHARE`] turns at most, and a worker without work turns fast, and looks at all of them before it sleeps.
#[derive(Debug, Default)]
pub(super) struct Rota {
    /// In their order.
    busy: Vec<usize>,
    quiet: Vec<usize>,
    /// Place in `quiet` of the next one to be polled.
    next: usize,
}

impl Rota {
    /// All of `inputs` are busy: places have changed.
    pub(super) fn renew(&mut self, inputs: usize) {
        self.busy = (0..inputs).collect();
        self.quiet = Vec::with_capacity(inputs);
        self.next = 0;
    }

    /// The input at place `k` of the busy ones has nothing to do; the next one has its place then.
    #[cold]
    fn rest(&mut self, k: usize) {
        if k < self.busy.len() {
            let input = self.busy.remove(k);
            self.quiet.push(input);
        }
    }

    /// The input at place `k` of the quiet ones has something to do.
    #[cold]
    fn rise(&mut self, k: usize) {
        if k < self.quiet.len() {
            let input = self.quiet.swap_remove(k);
            let at = self.busy.partition_point(|other| *other < input);
            self.busy.insert(at, input);
        }
    }

    /// Input `input` has something to do, if there is such a quiet one.
    pub(super) fn wake(&mut self, input: usize) {
        if let Some(k) = self.quiet.iter().position(|i| *i == input) {
            self.rise(k);
        }
    }

    /// Quiet inputs to be polled in a turn.
    fn share(&self) -> usize {
        self.quiet.len().div_ceil(QUIET_SHARE).max(QUIET_LEAST).min(self.quiet.len())
    }
}

/// Polls in vain of one kind of input, until they are counted.
#[derive(Default)]
struct Vain {
    kind: usize,
    polls: u64,
}

impl Worker {
    /// Polls what is due. Returns whether there was or may be something.
    pub(super) fn poll_inputs(&mut self) -> bool {
        let mut any = false;
        let mut vain = Vain::default();
        let mut frame = self.new_frame();
        let mut k = 0;
        while let Some(input) = self.rota.busy.get(k).copied() {
            if self.poll_input(input, &mut frame, &mut vain) {
                any = true;
            } else if self.inputs.get(input).is_none_or(|i| i.silent >= QUIET_AFTER) {
                self.rota.rest(k);
                continue;
            }
            k += 1;
        }
        let share = if self.rota.quiet.is_empty() { 0 } else { self.rota.share() };
        for _ in 0..share {
            let k = if self.rota.next < self.rota.quiet.len() { self.rota.next } else { 0 };
            let Some(input) = self.rota.quiet.get(k).copied() else { break };
            self.rota.next = k + 1;
            if self.poll_input(input, &mut frame, &mut vain) {
                any = true;
                self.rota.rise(k);
                // Another has its place.
                self.rota.next = k;
            }
        }
        self.count_vain(&mut vain);
        self.frames.push(frame);
        any
    }

    /// Polls one input into `frame`, which is empty before and after.
    #[inline(always)]
    fn poll_input(&mut self, input: usize, frame: &mut Box<Frame>, vain: &mut Vain) -> bool {
        let Some(InputSlot { interface, kind, .. }) = self.inputs.get(input) else { return false };
        let (interface, kind) = (*interface, *kind);
        if vain.kind != kind {
            self.count_vain(vain);
            vain.kind = kind;
        }
        let Some(slot) = self.inputs.get_mut(input) else { return false };
        let mut burst = RxBurst { frame, cache: &mut self.cache, state: &self.state, interface, bytes: 0 };
        let more = slot.device.poll(&mut burst);
        let (bytes, n) = (burst.bytes, frame.len());
        if n == 0 {
            vain.polls += 1;
            slot.silent = if more { 0 } else { slot.silent.saturating_add(1) };
            return more;
        }
        slot.silent = 0;
        self.state.counters.rx.add(self.state.worker, interface.0, n as u64, bytes);
        let fresh = self.new_frame();
        self.receive(input, std::mem::replace(frame, fresh));
        let clocks = lap(&mut self.ticks);
        self.counters_of(kind).record(std::mem::take(&mut vain.polls) + 1, n, clocks);
        true
    }

    #[inline(always)]
    fn count_vain(&mut self, vain: &mut Vain) {
        if vain.polls != 0 {
            let clocks = lap(&mut self.ticks);
            self.counters_of(vain.kind).record(std::mem::take(&mut vain.polls), 0, clocks);
        }
    }

    #[inline(always)]
    fn counters_of(&self, kind: usize) -> &NodeCounters {
        &self.graph.inputs[kind].counters[self.state.worker.index()]
    }

    /// Where a received frame goes: the `device-input` arc, the interface's own input node, or the drop.
    #[inline(always)]
    fn receive(&mut self, input: usize, mut frame: Box<Frame>) {
        if self.capture.wants(points::RX) {
            self.capture.take(points::RX, frame.packets(), self.cache.pool().memory(), None);
        }
        let slot = &self.inputs[input];
        let target = match self.interfaces().get(slot.interface) {
            Some(Interface { up: true, input: Some(node), .. }) => *node,
            _ => {
                for packet in frame.packets_mut() {
                    packet.put_meta([NodeIndex::DEVICE_OUTPUT.0, ERROR_DOWN]);
                }
                NodeIndex::DROP
            }
        };
        // SAFETY: of the generation that the reader settled on.
        let arcs = unsafe { &*self.state.arcs };
        let start = arcs.start(self.device_input_arc, slot.interface);
        let target = if start != 0 && target != NodeIndex::DROP {
            for packet in frame.packets_mut() {
                packet.feature = start + 1;
            }
            arcs.next(start)
        } else {
            target
        };
        if self.trace.wanted(slot.kind) != 0 {
            let memory = self.cache.pool().memory();
            frame.traced =
                self.trace.mark(slot.kind, &slot.name, frame.packets_mut(), memory, &self.state, target);
        }
        self.enqueue_frame(target, frame);
    }
}
