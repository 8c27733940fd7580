//! A worker: the thread that takes packets from its receive queues through the graph to the transmit queues.
//!
//! One turn of its loop: look at what was published, take commands and handed-off frames, poll the receive queues, run the graph
//! until nothing is pending, flush the transmit queues. A worker with nothing to do arms its queues and sleeps.

use crate::arc::ArcTables;
use crate::buffer::BufferCache;
use crate::counter::{Tally, add};
use crate::device::{DeviceInput, DeviceOutput, Interfaces, RxBurst, RxMode, TxBurst, TxPath};
use crate::dispatch::{Codes, CpuLevel, Env, Erased, code};
use crate::frame::{FRAME_SIZE, Frame, Packet, flags};
use crate::graph::Graph;
use crate::node::{NodeCounters, TICK, WorkerState};
use crate::rcu::{Cell, Reader};
use crate::ring::{Consumer, Producer};
use crate::trace::{Outcome, Record, Snapshot, TraceBuffer, number};
use crate::{NodeIndex, SwIfIndex, clock};
use rustix::event::epoll;
use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};
use std::sync::mpsc::{Receiver, SyncSender};

pub(crate) const DROP_NODE: &str = "error-drop";
pub(crate) const OUTPUT_ERRORS: &[&str] =
    &["no free tx slots", "interface has no transmit queue", "handoff congestion", "interface is down"];
const ERROR_NO_SLOTS: usize = 0;
const ERROR_NO_QUEUE: usize = 1;
const ERROR_CONGESTION: usize = 2;
const ERROR_DOWN: u16 = 3;
/// Terminals at the start of the list of nodes.
const TERMINALS: usize = 3;

/// Node dispatches in one turn at most: packets that circle stay pending, they don't stop the loop.
const DISPATCHES_PER_TURN: usize = 4096;
/// Frames taken from one handoff ring in a turn.
const HANDOFFS_PER_TURN: usize = 16;
/// How long a worker polls in vain before it sleeps, if a queue is adaptive.
const SPIN_NANOS: u64 = 50_000;
/// The longest sleep: a lost wake-up costs no more than this.
const MAX_SLEEP_NANOS: u64 = 1_000_000_000;
/// Sleep while a transmit queue waits for its buffers.
const PENDING_SLEEP_NANOS: u64 = 1_000_000;
const WAKE: u64 = u64::MAX;

/// A frame on its way to another worker.
pub(crate) struct Handoff {
    pub(crate) node: NodeIndex,
    pub(crate) frame: Box<Frame>,
}

/// Names and numbers of an interface's transmit node on one worker.
#[derive(Debug)]
pub struct DeviceNode {
    /// `<interface>-tx`.
    pub name: Arc<str>,
    /// Its numbers.
    pub counters: NodeCounters,
    /// Packets dropped for want of a slot.
    pub no_slots: AtomicU64,
}

pub(crate) struct InputSlot {
    pub(crate) id: u64,
    pub(crate) interface: SwIfIndex,
    pub(crate) kind: usize,
    pub(crate) name: Arc<str>,
    pub(crate) mode: RxMode,
    pub(crate) device: Box<dyn DeviceInput>,
}

pub(crate) struct OutputSlot {
    pub(crate) device: Box<dyn DeviceOutput>,
    pub(crate) node: Arc<DeviceNode>,
    dirty: bool,
    pending: bool,
}

impl OutputSlot {
    pub(crate) fn new(device: Box<dyn DeviceOutput>, node: Arc<DeviceNode>) -> OutputSlot {
        OutputSlot { device, node, dirty: false, pending: false }
    }
}

/// What main asks of a worker.
pub(crate) enum Command {
    AddInput(InputSlot),
    RemoveInput(u64, SyncSender<Option<Box<dyn DeviceInput>>>),
    SetMode(u64, RxMode),
    AddOutput(SwIfIndex, OutputSlot),
    RemoveOutput(SwIfIndex, SyncSender<Option<Box<dyn DeviceOutput>>>),
    Stop,
}

/// What others may see of a worker while it runs.
#[derive(Debug)]
pub struct WorkerShared {
    pub(crate) wake_fd: OwnedFd,
    pub(crate) sleeping: AtomicBool,
    pub(crate) stopped: AtomicBool,
    pub(crate) thread_id: AtomicU64,
    /// Turns of the loop.
    pub loops: AtomicU64,
    /// Times it went to sleep.
    pub sleeps: AtomicU64,
    /// Times it was woken by a receive queue's descriptor.
    pub fd_wakeups: AtomicU64,
    /// Nanoseconds spent asleep.
    pub slept_nanos: AtomicU64,
    /// Longest time between two turns without a sleep, in nanoseconds.
    pub max_gap_nanos: AtomicU64,
    /// Packets handed to another worker.
    pub handoffs: AtomicU64,
    /// Packets lost since the other worker's ring was full.
    pub handoff_drops: AtomicU64,
    /// Packets dropped by transmit queues.
    pub tx_drops: AtomicU64,
    /// Packets that nodes hold now.
    pub held: AtomicU64,
    /// Frames pending at the end of the last turn.
    pub pending: AtomicU64,
    /// Free buffers in the worker's cache.
    pub cached: AtomicU64,
}

impl WorkerShared {
    pub(crate) fn new() -> rustix::io::Result<WorkerShared> {
        use rustix::event::{EventfdFlags, eventfd};
        let zero = || AtomicU64::new(0);
        Ok(WorkerShared {
            wake_fd: eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?,
            sleeping: AtomicBool::new(false),
            stopped: AtomicBool::new(false),
            thread_id: zero(),
            loops: zero(),
            sleeps: zero(),
            fd_wakeups: zero(),
            slept_nanos: zero(),
            max_gap_nanos: zero(),
            handoffs: zero(),
            handoff_drops: zero(),
            tx_drops: zero(),
            held: zero(),
            pending: zero(),
            cached: zero(),
        })
    }

    /// Wakes the worker if it sleeps. Call it after the work is where the worker will look.
    #[inline]
    pub(crate) fn wake(&self) {
        fence(Ordering::SeqCst);
        if self.sleeping.load(Ordering::Relaxed) {
            self.wake_now();
        }
    }

    pub(crate) fn wake_now(&self) {
        // A full counter is a wake-up too, so an error means nothing.
        let _ = rustix::io::write(&self.wake_fd, &1u64.to_ne_bytes());
    }

    /// Whether it is asleep now.
    pub fn is_sleeping(&self) -> bool {
        self.sleeping.load(Ordering::Relaxed)
    }
}

#[derive(Default)]
struct Inbox {
    frames: Vec<Box<Frame>>,
    scheduled: bool,
}

/// A worker's state; run by a thread, or turn by turn in a test.
pub struct Worker {
    pub(crate) state: WorkerState,
    graph: Arc<Graph>,
    runners: Vec<Box<dyn Erased>>,
    counters: Vec<Arc<NodeCounters>>,
    inboxes: Vec<Inbox>,
    ready: VecDeque<NodeIndex>,
    frames: Vec<Box<Frame>>,
    spare: Vec<Box<Frame>>,
    cache: BufferCache,
    inputs: Vec<InputSlot>,
    outputs: Vec<Option<OutputSlot>>,
    dirty: Vec<SwIfIndex>,
    pending_outputs: usize,
    interfaces: (Arc<Cell<Interfaces>>, *const Interfaces),
    arcs: Arc<Cell<ArcTables>>,
    device_input_arc: u16,
    reader: Reader,
    commands: Receiver<Command>,
    handoff_in: Vec<Consumer<Handoff>>,
    handoff_out: Vec<Option<Producer<Handoff>>>,
    /// Per worker: packets waiting for the end of the turn to be handed off.
    handoff_frames: Vec<Option<Box<Frame>>>,
    peers: Vec<Arc<WorkerShared>>,
    level: CpuLevel,
    trace: Arc<TraceBuffer>,
    codes: Box<Codes>,
    hold_keys: Vec<u32>,
    released: Vec<(u16, Packet)>,
    drops: Tally,
    punts: Tally,
    epoll: OwnedFd,
    next_tick: u64,
    holding: usize,
    last_turn: u64,
    stop: bool,
}

// SAFETY: the raw pointers are to published tables, which rcu keeps for the worker's reader wherever it runs.
unsafe impl Send for Worker {}

impl std::fmt::Debug for Worker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Worker").field("worker", &self.state.worker).finish_non_exhaustive()
    }
}

pub(crate) struct WorkerParts {
    pub(crate) state: WorkerState,
    pub(crate) graph: Arc<Graph>,
    pub(crate) runners: Vec<Box<dyn Erased>>,
    pub(crate) cache: BufferCache,
    pub(crate) interfaces: Arc<Cell<Interfaces>>,
    pub(crate) arcs: Arc<Cell<ArcTables>>,
    pub(crate) reader: Reader,
    pub(crate) commands: Receiver<Command>,
    pub(crate) handoff_in: Vec<Consumer<Handoff>>,
    pub(crate) handoff_out: Vec<Option<Producer<Handoff>>>,
    pub(crate) peers: Vec<Arc<WorkerShared>>,
    pub(crate) level: CpuLevel,
    pub(crate) trace: Arc<TraceBuffer>,
}

impl Worker {
    pub(crate) fn new(parts: WorkerParts) -> rustix::io::Result<Worker> {
        let graph = parts.graph;
        let me = parts.state.worker.index();
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        epoll::add(&epoll, &parts.peers[me].wake_fd, epoll::EventData::new_u64(WAKE), epoll::EventFlags::IN)?;
        let arc = graph.arcs.iter().position(|a| a.name == "device-input");
        let mut worker = Worker {
            counters: graph.nodes.iter().map(|n| Arc::clone(&n.counters[me])).collect(),
            inboxes: graph.nodes.iter().map(|_| Inbox::default()).collect(),
            device_input_arc: arc.map_or(u16::MAX, |i| i as u16),
            state: parts.state,
            graph,
            runners: parts.runners,
            ready: VecDeque::new(),
            frames: Vec::new(),
            spare: Vec::new(),
            cache: parts.cache,
            inputs: Vec::new(),
            outputs: Vec::new(),
            dirty: Vec::new(),
            pending_outputs: 0,
            interfaces: (parts.interfaces, std::ptr::null()),
            arcs: parts.arcs,
            reader: parts.reader,
            commands: parts.commands,
            handoff_in: parts.handoff_in,
            handoff_frames: parts.peers.iter().map(|_| None).collect(),
            handoff_out: parts.handoff_out,
            peers: parts.peers,
            level: parts.level,
            trace: parts.trace,
            codes: Box::new([0; FRAME_SIZE]),
            hold_keys: Vec::new(),
            released: Vec::new(),
            drops: Tally::default(),
            punts: Tally::default(),
            epoll,
            next_tick: 0,
            holding: 0,
            last_turn: 0,
            stop: false,
        };
        worker.come_online();
        Ok(worker)
    }

    fn shared(&self) -> &WorkerShared {
        &self.peers[self.state.worker.index()]
    }

    fn come_online(&mut self) {
        self.reader.online();
        let Worker { reader, runners, interfaces, arcs, state, .. } = self;
        let (mut staged_interfaces, mut staged_arcs) = (std::ptr::null(), std::ptr::null());
        reader.settle(|| {
            runners.iter_mut().for_each(|r| r.stage());
            staged_interfaces = interfaces.0.load();
            staged_arcs = arcs.load();
        });
        runners.iter_mut().for_each(|r| r.settle());
        interfaces.1 = staged_interfaces;
        state.arcs = staged_arcs;
        self.next_tick = 0;
    }

    fn look_at_tables(&mut self) {
        if let Some(seq) = self.reader.changed() {
            self.runners.iter_mut().for_each(|r| r.stage());
            let (interfaces, arcs) = (self.interfaces.0.load(), self.arcs.load());
            if self.reader.try_settle(seq) {
                self.runners.iter_mut().for_each(|r| r.settle());
                self.interfaces.1 = interfaces;
                self.state.arcs = arcs;
                self.next_tick = 0;
            }
        }
    }

    #[inline(always)]
    fn interfaces(&self) -> &Interfaces {
        // SAFETY: of the generation that the reader settled on in `new`, `come_online` or this turn.
        unsafe { &*self.interfaces.1 }
    }

    /// Runs until it is told to stop.
    pub(crate) fn run(mut self) {
        let tid = rustix::thread::gettid().as_raw_nonzero().get();
        self.shared().thread_id.store(tid as u64, Ordering::Relaxed);
        let mut idle_since = clock::nanos();
        while !self.stop {
            if self.turn() {
                idle_since = self.state.now;
                continue;
            }
            match self.patience() {
                None => std::hint::spin_loop(),
                Some(spin) if self.state.now - idle_since < spin => std::hint::spin_loop(),
                Some(_) => {
                    self.sleep();
                    idle_since = clock::nanos();
                }
            }
        }
    }

    /// How long to poll in vain before sleeping; `None` for ever.
    fn patience(&self) -> Option<u64> {
        let mut spin = 0;
        for input in &self.inputs {
            match input.mode {
                RxMode::Polling => return None,
                RxMode::Adaptive => spin = SPIN_NANOS,
                RxMode::Interrupt => {}
            }
        }
        Some(spin)
    }

    /// One turn of the loop. Returns whether there was anything to do.
    pub fn turn(&mut self) -> bool {
        self.state.now = clock::nanos();
        if self.last_turn != 0 {
            let gap = self.state.now - self.last_turn;
            if gap > self.shared().max_gap_nanos.load(Ordering::Relaxed) {
                self.shared().max_gap_nanos.store(gap, Ordering::Relaxed);
            }
        }
        self.last_turn = self.state.now;
        self.look_at_tables();
        let mut work = self.take_commands();
        work |= self.take_handoffs();
        work |= self.poll_inputs();
        if self.state.now >= self.next_tick {
            self.tick();
        }
        work |= self.run_graph();
        self.send_handoffs();
        self.flush_outputs();
        let shared = self.shared();
        add(&shared.loops, 1);
        shared.pending.store(self.ready.len() as u64, Ordering::Relaxed);
        shared.cached.store(self.cache.cached() as u64, Ordering::Relaxed);
        work
    }

    // ---------------------------------------------------------------------------------------- frames

    #[inline(always)]
    fn new_frame(&mut self) -> Box<Frame> {
        self.frames.pop().unwrap_or_else(Frame::boxed)
    }

    #[inline(always)]
    fn recycle(&mut self, mut frame: Box<Frame>) {
        frame.clear();
        if self.frames.len() < 64 {
            self.frames.push(frame);
        }
    }

    #[inline(always)]
    fn schedule(&mut self, node: NodeIndex) {
        let inbox = &mut self.inboxes[node.index()];
        if !inbox.scheduled {
            inbox.scheduled = true;
            self.ready.push_back(node);
        }
    }

    /// Hands a whole frame on: a pointer, unless packets wait there already.
    #[inline(always)]
    fn enqueue_frame(&mut self, node: NodeIndex, frame: Box<Frame>) {
        let inbox = &mut self.inboxes[node.index()];
        match inbox.frames.last_mut() {
            Some(last) if last.room() >= frame.len() => {
                // SAFETY: the packets are moved from one frame to the end of another, which has room.
                unsafe { move_packets(&frame, 0, frame.len(), last) };
                last.traced |= frame.traced;
                self.recycle(frame);
            }
            _ => inbox.frames.push(frame),
        }
        self.schedule(node);
    }

    /// Moves packets `from..to` of a frame on. The frame must forget them.
    ///
    /// # Safety
    /// `from <= to <= frame.len()`, and the caller does not use these packets of `frame` again.
    #[inline(always)]
    unsafe fn enqueue_run(&mut self, node: NodeIndex, frame: &Frame, mut from: usize, to: usize) {
        while from < to {
            if self.inboxes[node.index()].frames.last().is_none_or(|last| last.room() == 0) {
                let fresh = self.new_frame();
                self.inboxes[node.index()].frames.push(fresh);
            }
            if let Some(last) = self.inboxes[node.index()].frames.last_mut() {
                let n = (to - from).min(last.room());
                // SAFETY: the caller's promise, and `n` fits.
                unsafe { move_packets(frame, from, from + n, last) };
                last.traced |= frame.traced;
                from += n;
            }
        }
        self.schedule(node);
    }

    fn enqueue_packet(&mut self, node: NodeIndex, packet: Packet) {
        let mut frame = self.new_frame();
        frame.traced = packet.flags & flags::TRACED != 0;
        if frame.push(packet).is_ok() {
            self.enqueue_frame(node, frame);
        }
    }

    // ---------------------------------------------------------------------------------------- graph

    fn run_graph(&mut self) -> bool {
        let mut dispatched = 0;
        while dispatched < DISPATCHES_PER_TURN
            && let Some(node) = self.ready.pop_front()
        {
            let inbox = &mut self.inboxes[node.index()];
            inbox.scheduled = false;
            let mut frames = std::mem::replace(&mut inbox.frames, std::mem::take(&mut self.spare));
            for frame in frames.drain(..) {
                self.dispatch(node, frame);
                dispatched += 1;
            }
            self.spare = frames;
        }
        dispatched != 0
    }

    #[inline(always)]
    fn dispatch(&mut self, node: NodeIndex, frame: Box<Frame>) {
        let vectors = frame.len();
        let start = clock::ticks();
        match node {
            NodeIndex::DROP => self.drop_frame(frame),
            NodeIndex::PUNT => self.punt_frame(frame),
            NodeIndex::DEVICE_OUTPUT => self.output_frame(frame),
            _ => self.run_node(node, frame),
        }
        self.counters[node.index()].record(vectors, clock::ticks().wrapping_sub(start));
    }

    #[inline(always)]
    fn run_node(&mut self, node: NodeIndex, mut frame: Box<Frame>) {
        let mut env = Env {
            base: self.cache.pool().base(),
            state: &self.state,
            level: self.level,
            trace: &self.trace,
            codes: &mut self.codes,
            hold_keys: &mut self.hold_keys,
        };
        let same = self.runners[node.index() - TERMINALS].run(&mut env, &mut frame);
        let code = self.codes[0];
        if same && code != code::HOLD {
            let target = self.target(node, code);
            self.enqueue_frame(target, frame);
        } else {
            self.split(node, frame);
        }
    }

    #[inline(always)]
    fn target(&self, node: NodeIndex, code: u16) -> NodeIndex {
        if code == code::DROP {
            return NodeIndex::DROP;
        }
        let target = if code & code::NODE != 0 {
            NodeIndex(code & !code::NODE)
        } else {
            let edges = &self.graph.nodes[node.index()].edges;
            edges.get(usize::from(code - code::FIRST_EDGE)).copied().unwrap_or(NodeIndex::DROP)
        };
        if target.index() < self.inboxes.len() { target } else { NodeIndex::DROP }
    }

    fn split(&mut self, node: NodeIndex, mut frame: Box<Frame>) {
        let n = frame.len();
        let mut keys = std::mem::take(&mut self.hold_keys);
        let mut next_key = keys.iter();
        let mut i = 0;
        while i < n {
            let code = self.codes[i];
            let mut j = i + 1;
            while j < n && self.codes[j] == code {
                j += 1;
            }
            if code == code::HOLD {
                for k in i..j {
                    // SAFETY: packet `k` is moved out once, and the frame is cleared below.
                    let packet = unsafe { frame.as_ptr().add(k).read() };
                    let key = next_key.next().copied().unwrap_or_default();
                    self.runners[node.index() - TERMINALS].hold(key, self.state.now, packet);
                    self.holding += 1;
                }
            } else {
                let target = self.target(node, code);
                // SAFETY: each packet belongs to one run, and the frame is cleared below.
                unsafe { self.enqueue_run(target, &frame, i, j) };
            }
            i = j;
        }
        keys.clear();
        self.hold_keys = keys;
        frame.clear();
        self.recycle(frame);
    }

    fn tick(&mut self) {
        self.next_tick = self.state.now + TICK.as_nanos() as u64;
        let mut holding = 0;
        for i in 0..self.runners.len() {
            let mut env = Env {
                base: self.cache.pool().base(),
                state: &self.state,
                level: self.level,
                trace: &self.trace,
                codes: &mut self.codes,
                hold_keys: &mut self.hold_keys,
            };
            let mut released = std::mem::take(&mut self.released);
            self.runners[i].tick(&mut env, &mut released);
            holding += self.runners[i].held();
            let node = NodeIndex((i + TERMINALS) as u16);
            for (code, packet) in released.drain(..) {
                let target = self.target(node, code);
                self.enqueue_packet(target, packet);
            }
            self.released = released;
        }
        self.holding = holding;
        self.shared().held.store(holding as u64, Ordering::Relaxed);
    }

    // ---------------------------------------------------------------------------------------- terminals

    #[cold]
    fn drop_frame(&mut self, mut frame: Box<Frame>) {
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

    fn punt_frame(&mut self, mut frame: Box<Frame>) {
        for packet in frame.packets() {
            self.punts.count(&self.state.counters.punt, self.state.worker, packet.rx.0, packet.len);
            self.trace_end(NodeIndex::PUNT, packet);
        }
        self.punts.flush(&self.state.counters.punt, self.state.worker);
        self.cache.free_iter(frame.drain().map(Packet::into_buffer));
        self.recycle(frame);
    }

    #[inline(always)]
    fn trace_end(&self, node: NodeIndex, packet: &Packet) {
        if packet.flags & flags::TRACED != 0 {
            self.record(node, None, packet, Outcome::Done);
        }
    }

    #[cold]
    fn record(&self, node: NodeIndex, device: Option<Arc<str>>, packet: &Packet, outcome: Outcome) {
        let base = self.cache.pool().base();
        let snapshot = Snapshot::of(packet, base);
        self.trace.push(Record {
            number: number(packet, base),
            time: self.state.now,
            node,
            device,
            rx: packet.rx,
            before: snapshot.clone(),
            after: snapshot,
            outcome,
        });
    }

    #[inline(always)]
    fn output_frame(&mut self, mut frame: Box<Frame>) {
        let n = frame.len();
        let mut i = 0;
        while i < n {
            let tx = frame.packets()[i].take_meta::<SwIfIndex>();
            let mut j = i + 1;
            while j < n && frame.packets()[j].take_meta::<SwIfIndex>() == tx {
                j += 1;
            }
            self.output_run(tx, &mut frame, i, j);
            i = j;
        }
        frame.clear();
        self.recycle(frame);
    }

    /// Sends packets `from..to`, which all go to `tx`; the frame must forget them.
    #[inline(always)]
    fn output_run(&mut self, tx: SwIfIndex, frame: &mut Frame, from: usize, to: usize) {
        let worker = self.state.worker;
        let path =
            (self.interfaces().get(tx)).and_then(|i| i.tx.get(worker.index())).copied().unwrap_or_default();
        match path {
            TxPath::Here if self.outputs.get(tx.index()).is_some_and(Option::is_some) => {
                self.transmit(tx, frame, from, to);
            }
            TxPath::Worker(other) => self.hand_off(usize::from(other), frame, from, to),
            TxPath::Loop => self.loop_back(tx, frame, from, to),
            TxPath::Here | TxPath::None => self.discard(tx, frame, from, to, ERROR_NO_QUEUE),
        }
    }

    #[inline(always)]
    fn transmit(&mut self, tx: SwIfIndex, frame: &Frame, from: usize, to: usize) {
        let packets = &frame.packets()[from..to];
        let Worker { outputs, cache, state, dirty, .. } = self;
        let Some(Some(slot)) = outputs.get_mut(tx.index()) else { return };
        let start = clock::ticks();
        let mut burst = TxBurst { cache, state, interface: tx };
        let sent = slot.device.transmit(&mut burst, packets).min(packets.len());
        if !slot.dirty {
            slot.dirty = true;
            dirty.push(tx);
        }
        let bytes: u64 = packets[..sent].iter().map(|p| u64::from(p.len)).sum();
        state.counters.tx.add(state.worker, tx.0, sent as u64, bytes);
        let free_from = if slot.device.keeps_buffers() { sent } else { 0 };
        slot.node.counters.record(packets.len(), clock::ticks().wrapping_sub(start));
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
    fn free_run(&mut self, frame: &Frame, from: usize, to: usize) {
        let packets = frame.as_ptr();
        // SAFETY: the range is inside the frame, each packet is read once, and the caller clears the frame.
        self.cache.free_iter((from..to).map(|k| unsafe { packets.add(k).read() }.into_buffer()));
    }

    #[cold]
    fn count_output_error(&self, error: usize, packets: u64) {
        let info = &self.graph.nodes[NodeIndex::DEVICE_OUTPUT.index()];
        add(&info.error_counters[self.state.worker.index()][error], packets);
        add(&self.shared().tx_drops, packets);
    }

    #[cold]
    fn discard(&mut self, tx: SwIfIndex, frame: &Frame, from: usize, to: usize, error: usize) {
        self.count_output_error(error, (to - from) as u64);
        self.state.counters.tx_error.add(self.state.worker, tx.0, (to - from) as u64, 0);
        self.free_run(frame, from, to);
    }

    /// What a loopback sends, it receives.
    fn loop_back(&mut self, tx: SwIfIndex, frame: &mut Frame, from: usize, to: usize) {
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
        self.state.counters.tx.add(worker, tx.0, (to - from) as u64, bytes);
        self.state.counters.rx.add(worker, tx.0, (to - from) as u64, bytes);
        // SAFETY: the range is inside the frame, which the caller clears.
        unsafe { self.enqueue_run(input, frame, from, to) };
    }

    // ---------------------------------------------------------------------------------------- other workers

    fn hand_off(&mut self, other: usize, frame: &Frame, mut from: usize, to: usize) {
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

    fn send_handoffs(&mut self) {
        for other in 0..self.handoff_frames.len() {
            if self.handoff_frames[other].is_some() {
                self.send_handoff(other);
            }
        }
    }

    fn send_handoff(&mut self, other: usize) {
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

    fn take_handoffs(&mut self) -> bool {
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

    fn take_commands(&mut self) -> bool {
        let mut any = false;
        while let Ok(command) = self.commands.try_recv() {
            any = true;
            match command {
                Command::AddInput(slot) => self.add_input(slot),
                Command::RemoveInput(id, reply) => {
                    let _ = reply.send(self.remove_input(id));
                }
                Command::SetMode(id, mode) => {
                    self.inputs.iter_mut().filter(|i| i.id == id).for_each(|i| i.mode = mode);
                }
                Command::AddOutput(interface, slot) => {
                    if self.outputs.len() <= interface.index() {
                        self.outputs.resize_with(interface.index() + 1, || None);
                    }
                    self.outputs[interface.index()] = Some(slot);
                }
                Command::RemoveOutput(interface, reply) => {
                    let _ = reply.send(self.remove_output(interface));
                }
                Command::Stop => self.shut_down(),
            }
        }
        any
    }

    fn add_input(&mut self, slot: InputSlot) {
        if let Some(fd) = slot.device.fd() {
            let added =
                epoll::add(&self.epoll, fd, epoll::EventData::new_u64(slot.id), epoll::EventFlags::IN);
            if let Err(error) = added {
                tracing::error!("worker {}: cannot wait for a queue: {error}", self.state.worker.0);
            }
        }
        self.inputs.push(slot);
    }

    fn remove_input(&mut self, id: u64) -> Option<Box<dyn DeviceInput>> {
        let at = self.inputs.iter().position(|i| i.id == id)?;
        let mut slot = self.inputs.remove(at);
        if let Some(fd) = slot.device.fd() {
            let _ = epoll::delete(&self.epoll, fd);
        }
        slot.device.close(&mut self.cache);
        Some(slot.device)
    }

    fn remove_output(&mut self, interface: SwIfIndex) -> Option<Box<dyn DeviceOutput>> {
        let mut slot = self.outputs.get_mut(interface.index())?.take()?;
        self.dirty.retain(|i| *i != interface);
        self.pending_outputs -= usize::from(slot.pending);
        slot.device.close(&mut self.cache);
        Some(slot.device)
    }

    fn shut_down(&mut self) {
        for id in self.inputs.iter().map(|i| i.id).collect::<Vec<_>>() {
            self.remove_input(id);
        }
        for i in 0..self.outputs.len() {
            self.remove_output(SwIfIndex(i as u32));
        }
        let mut left: Vec<Packet> = self.runners.iter_mut().flat_map(|r| r.surrender()).collect();
        let waiting = (self.inboxes.iter_mut().flat_map(|i| i.frames.drain(..)))
            .chain(self.handoff_frames.iter_mut().filter_map(Option::take));
        for mut frame in waiting {
            left.extend(frame.drain());
        }
        for ring in &mut self.handoff_in {
            while let Some(Handoff { mut frame, .. }) = ring.pop() {
                left.extend(frame.drain());
            }
        }
        self.ready.clear();
        self.cache.free_iter(left.into_iter().map(Packet::into_buffer));
        self.shared().stopped.store(true, Ordering::Release);
        self.stop = true;
    }

    // ---------------------------------------------------------------------------------------- devices

    fn poll_inputs(&mut self) -> bool {
        let mut any = false;
        for i in 0..self.inputs.len() {
            let mut frame = self.new_frame();
            let start = clock::ticks();
            let slot = &mut self.inputs[i];
            let (interface, kind) = (slot.interface, slot.kind);
            let mut burst = RxBurst {
                frame: &mut frame,
                cache: &mut self.cache,
                state: &self.state,
                interface,
                bytes: 0,
            };
            any |= slot.device.poll(&mut burst);
            let (bytes, n) = (burst.bytes, frame.len());
            if n != 0 {
                any = true;
                self.state.counters.rx.add(self.state.worker, interface.0, n as u64, bytes);
                self.receive(i, frame);
            } else {
                self.frames.push(frame);
            }
            let counters = &self.graph.inputs[kind].counters[self.state.worker.index()];
            counters.record(n, clock::ticks().wrapping_sub(start));
        }
        any
    }

    /// Where a received frame goes: the `device-input` arc, the interface's own input node, or the drop.
    #[inline(always)]
    fn receive(&mut self, input: usize, mut frame: Box<Frame>) {
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
            let base = self.cache.pool().base();
            frame.traced =
                self.trace.mark(slot.kind, &slot.name, frame.packets_mut(), base, &self.state, target);
        }
        self.enqueue_frame(target, frame);
    }

    #[inline(always)]
    fn flush_outputs(&mut self) {
        if self.pending_outputs != 0 {
            self.flush_pending();
        }
        while let Some(tx) = self.dirty.pop() {
            self.flush_output(tx);
        }
    }

    #[cold]
    fn flush_pending(&mut self) {
        for i in 0..self.outputs.len() {
            if self.outputs[i].as_ref().is_some_and(|s| s.pending && !s.dirty) {
                self.flush_output(SwIfIndex(i as u32));
            }
        }
    }

    fn flush_output(&mut self, tx: SwIfIndex) {
        let Worker { outputs, cache, state, pending_outputs, .. } = self;
        if let Some(Some(slot)) = outputs.get_mut(tx.index()) {
            slot.dirty = false;
            let start = clock::ticks();
            let pending = slot.device.flush(&mut TxBurst { cache, state, interface: tx });
            add(&slot.node.counters.clocks, clock::ticks().wrapping_sub(start));
            *pending_outputs = *pending_outputs + usize::from(pending) - usize::from(slot.pending);
            slot.pending = pending;
        }
    }

    // ---------------------------------------------------------------------------------------- sleep

    fn sleep(&mut self) {
        let mut armed = 0;
        let mut work = !self.ready.is_empty();
        for input in &mut self.inputs {
            if work {
                break;
            }
            work = !input.device.arm();
            armed += 1;
        }
        if !work {
            self.sleep_armed();
        }
        for input in &mut self.inputs[..armed] {
            input.device.disarm();
        }
        self.last_turn = 0;
    }

    fn sleep_armed(&mut self) {
        self.shared().sleeping.store(true, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        let handed = self.handoff_in.iter_mut().any(|ring| !ring.is_empty());
        if !handed && !self.take_commands() {
            let nanos = self.sleep_nanos();
            self.reader.offline();
            let before = clock::nanos();
            let timeout = rustix::time::Timespec {
                tv_sec: (nanos / 1_000_000_000) as i64,
                tv_nsec: (nanos % 1_000_000_000) as i64,
            };
            let mut events =
                [epoll::Event { flags: epoll::EventFlags::empty(), data: epoll::EventData::new_u64(0) }; 16];
            let woken = epoll::wait(&self.epoll, &mut events[..], Some(&timeout)).unwrap_or(0);
            let slept = clock::nanos() - before;
            let by_queue = events[..woken].iter().any(|e| e.data.u64() != WAKE);
            self.come_online();
            let shared = self.shared();
            add(&shared.sleeps, 1);
            add(&shared.slept_nanos, slept);
            add(&shared.fd_wakeups, u64::from(by_queue));
            for event in &events[..woken] {
                if let Some(input) = self.inputs.iter().find(|i| i.id == event.data.u64()) {
                    add(&self.graph.inputs[input.kind].counters[self.state.worker.index()].suspends, 1);
                }
            }
        }
        let shared = self.shared();
        shared.sleeping.store(false, Ordering::SeqCst);
        let mut counter = [0; 8];
        let _ = rustix::io::read(&shared.wake_fd, &mut counter);
    }

    fn sleep_nanos(&self) -> u64 {
        let now = clock::nanos();
        let mut nanos = MAX_SLEEP_NANOS;
        if self.holding != 0 {
            nanos = nanos.min(TICK.as_nanos() as u64);
        }
        if self.pending_outputs != 0 {
            nanos = nanos.min(PENDING_SLEEP_NANOS);
        }
        self.inputs.iter().filter_map(|i| i.device.due(now)).fold(nanos, u64::min)
    }
}

use crate::device::Interface;

/// # Safety
/// `from <= to <= source.len()`, `to - from <= target.room()`, and the packets of `source` are not used again.
#[inline(always)]
unsafe fn move_packets(source: &Frame, from: usize, to: usize, target: &mut Frame) {
    let at = target.len();
    // SAFETY: the caller's promise; two frames never overlap.
    unsafe {
        std::ptr::copy_nonoverlapping(source.as_ptr().add(from), target.as_mut_ptr().add(at), to - from);
        target.set_len(at + to - from);
    }
}
