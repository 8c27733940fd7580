//! Where packets leave the graph: the drop, the punt, the devices, and loopbacks, which bring them back.

use super::{ERROR_NO_QUEUE, ERROR_NO_SLOTS, Worker, lap};
use crate::capture::points;
use crate::counter::add;
use crate::device::{TxBurst, TxPath};
use crate::frame::{Frame, Packet, flags};
use crate::trace::{Outcome, Record, Snapshot, number};
use crate::{NodeIndex, SwIfIndex};
use std::sync::Arc;

/// Packets of a frame, one behind the other, that leave by one interface.
struct OutputRun {
    tx: SwIfIndex,
    from: usize,
    to: usize,
    bytes: u64,
    /// All flags of all packets.
    flags: u16,
}

impl OutputRun {
    /// The run that starts at packet `from`.
    #[inline(always)]
    fn at(packets: &[Packet], from: usize) -> Option<OutputRun> {
        let tx = packets.get(from)?.take_meta::<SwIfIndex>();
        let mut run = OutputRun { tx, from, to: from, bytes: 0, flags: 0 };
        for packet in &packets[from..] {
            if packet.take_meta::<SwIfIndex>() != tx {
                break;
            }
            run.bytes += u64::from(packet.len);
            run.flags |= packet.flags;
            run.to += 1;
        }
        Some(run)
    }
}

fn bytes(packets: &[Packet]) -> u64 {
    packets.iter().map(|p| u64::from(p.len)).sum()
}

impl Worker {
    #[cold]
    pub(super) fn drop_frame(&mut self, mut frame: Box<Frame>) {
        if self.capture.wants(points::DROP) {
            self.capture.take(points::DROP, frame.packets(), self.cache.pool().memory(), None);
        }
        for packet in frame.packets() {
            let [node, error] = packet.take_meta::<[u16; 2]>();
            if let Some(info) = self.graph.nodes.get(usize::from(node))
                && let Some(counter) = info.error_counters[self.state.worker.index()].get(usize::from(error))
            {
                add(counter, 1);
            }
            self.drops.count(&self.state.counters.drops, self.state.worker, packet.rx.0, packet.len);
            self.trace_end(NodeIndex::DROP, packet);
        }
        self.drops.flush(&self.state.counters.drops, self.state.worker);
        self.cache.free_iter(frame.drain().map(Packet::into_buffer));
        self.recycle(frame);
    }

    pub(super) fn punt_frame(&mut self, mut frame: Box<Frame>) {
        for packet in frame.packets() {
            self.punts.count(&self.state.counters.punt, self.state.worker, packet.rx.0, packet.len);
            self.trace_end(NodeIndex::PUNT, packet);
        }
        self.punts.flush(&self.state.counters.punt, self.state.worker);
        self.cache.free_iter(frame.drain().map(Packet::into_buffer));
        self.recycle(frame);
    }

    #[inline(always)]
    pub(super) fn trace_end(&self, node: NodeIndex, packet: &Packet) {
        if packet.flags & flags::TRACED != 0 {
            self.record(node, None, packet, Outcome::Done);
        }
    }

    #[cold]
    pub(super) fn record(
        &self,
        node: NodeIndex,
        device: Option<Arc<str>>,
        packet: &Packet,
        outcome: Outcome,
    ) {
        let memory = self.cache.pool().memory();
        let snapshot = Snapshot::of(packet, memory);
        self.trace.push(Record {
            number: number(packet, memory),
            time: self.state.now,
            node,
            device,
            rx: packet.rx,
            before: snapshot.clone(),
            after: snapshot,
            outcome,
            note: 0,
        });
    }

    #[inline(always)]
    pub(super) fn output_frame(&mut self, mut frame: Box<Frame>) {
        let mut from = 0;
        while let Some(run) = OutputRun::at(frame.packets(), from) {
            from = run.to;
            self.output_run(&run, &mut frame);
        }
        frame.clear();
        self.recycle(frame);
    }

    /// Sends the packets of a run; the frame must forget them.
    #[inline(always)]
    fn output_run(&mut self, run: &OutputRun, frame: &mut Frame) {
        let worker = self.state.worker;
        let &OutputRun { tx, from, to, .. } = run;
        let path =
            (self.interfaces().get(tx)).and_then(|i| i.tx.get(worker.index())).copied().unwrap_or_default();
        match path {
            TxPath::Here if self.outputs.get(tx.index()).is_some_and(Option::is_some) => {
                self.transmit(run, frame);
            }
            TxPath::Worker(other) => self.hand_off(usize::from(other), frame, from, to),
            TxPath::Loop { received } => self.loop_back(tx, received, frame, from, to),
            TxPath::Node(node) => self.send_virtual(tx, node, frame, from, to),
            TxPath::Here | TxPath::None => self.discard(tx, frame, from, to, ERROR_NO_QUEUE),
        }
    }

    #[inline(always)]
    fn transmit(&mut self, run: &OutputRun, frame: &Frame) {
        let &OutputRun { tx, from, to, .. } = run;
        let packets = &frame.packets()[from..to];
        if self.capture.wants(points::TX) {
            self.capture.take(points::TX, packets, self.cache.pool().memory(), Some(tx));
        }
        let Worker { outputs, cache, state, dirty, ticks, .. } = self;
        let Some(Some(slot)) = outputs.get_mut(tx.index()) else { return };
        let mut burst = TxBurst { cache, state, interface: tx, flags: run.flags };
        let sent = slot.device.transmit(&mut burst, packets).min(packets.len());
        if !slot.dirty {
            slot.dirty = true;
            dirty.push(tx);
        }
        let bytes = if sent == packets.len() { run.bytes } else { bytes(&packets[..sent]) };
        state.counters.tx.add(state.worker, tx.0, sent as u64, bytes);
        let free_from = if slot.device.keeps_buffers() { sent } else { 0 };
        slot.node.counters.record(1, packets.len(), lap(ticks));
        if sent < packets.len() {
            let lost = (packets.len() - sent) as u64;
            add(&slot.node.no_slots, lost);
            state.counters.tx_error.add(state.worker, tx.0, lost, 0);
        }
        if frame.traced {
            let name = Arc::clone(&slot.node.name);
            for packet in packets.iter().filter(|p| p.flags & flags::TRACED != 0) {
                self.record(NodeIndex::DEVICE_OUTPUT, Some(Arc::clone(&name)), packet, Outcome::Done);
            }
        }
        if sent < to - from {
            let lost = (to - from - sent) as u64;
            self.count_output_error(ERROR_NO_SLOTS, lost);
        }
        self.free_run(frame, from + free_from, to);
    }

    /// Frees the buffers of packets `from..to`; the frame must forget them.
    #[inline(always)]
    pub(super) fn free_run(&mut self, frame: &Frame, from: usize, to: usize) {
        let packets = frame.as_ptr();
        // SAFETY: the range is inside the frame, each packet is read once, and the caller clears the frame.
        self.cache.free_iter((from..to).map(|k| unsafe { packets.add(k).read() }.into_buffer()));
    }

    #[cold]
    pub(super) fn count_output_error(&self, error: usize, packets: u64) {
        let info = &self.graph.nodes[NodeIndex::DEVICE_OUTPUT.index()];
        add(&info.error_counters[self.state.worker.index()][error], packets);
        add(&self.shared().tx_drops, packets);
    }

    #[cold]
    pub(super) fn discard(&mut self, tx: SwIfIndex, frame: &Frame, from: usize, to: usize, error: usize) {
        self.count_output_error(error, (to - from) as u64);
        self.state.counters.tx_error.add(self.state.worker, tx.0, (to - from) as u64, 0);
        self.free_run(frame, from, to);
    }

    /// Hands what an interface without a device sends to the node that is there instead.
    pub(super) fn send_virtual(
        &mut self,
        tx: SwIfIndex,
        node: NodeIndex,
        frame: &Frame,
        from: usize,
        to: usize,
    ) {
        let bytes = frame.packets()[from..to].iter().map(|p| u64::from(p.len)).sum();
        self.state.counters.virtual_tx.add(self.state.worker, tx.0, (to - from) as u64, bytes);
        // SAFETY: the range is inside the frame, which the caller clears.
        unsafe { self.enqueue_run(node, frame, from, to) };
    }

    /// What a loopback sends comes back.
    pub(super) fn loop_back(
        &mut self,
        tx: SwIfIndex,
        received: bool,
        frame: &mut Frame,
        from: usize,
        to: usize,
    ) {
        let Some(input) = self.interfaces().get(tx).and_then(|i| i.input) else {
            return self.discard(tx, frame, from, to, ERROR_NO_QUEUE);
        };
        let worker = self.state.worker;
        let mut bytes = 0;
        for packet in &mut frame.packets_mut()[from..to] {
            packet.rx = tx;
            packet.flags &= flags::TRACED | flags::L4_CSUM_PARTIAL;
            packet.meta = Default::default();
            bytes += u64::from(packet.len);
        }
        // The packets stay in the graph: for the balance they are neither sent nor received.
        let counters = &self.state.counters;
        counters.virtual_tx.add(worker, tx.0, (to - from) as u64, bytes);
        if received {
            counters.virtual_rx.add(worker, tx.0, (to - from) as u64, bytes);
        }
        // SAFETY: the range is inside the frame, which the caller clears.
        unsafe { self.enqueue_run(input, frame, from, to) };
    }
}
