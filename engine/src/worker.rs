//! A worker: the thread that takes packets from its receive queues through the graph to the transmit queues.
//!
//! One turn of its loop: look at what was published, take commands and handed-off frames, poll the receive queues, run the graph
//! until nothing is pending, flush the transmit queues. A worker with nothing to do arms its queues and sleeps.

mod commands;
mod copies;
mod handoff;
mod inputs;
mod shared;
mod sleep;
mod terminals;

use copies::Copier;
pub(crate) use copies::Copying;
pub use copies::MAX_COPIES;
use inputs::Rota;
pub(crate) use shared::{Command, Handoff, InputSlot, OutputSlot};
pub use shared::{DeviceNode, WorkerShared};

use crate::arc::ArcTables;
use crate::buffer::BufferCache;
use crate::capture::Capture;
use crate::clock::{self, TickClock};
use crate::counter::{Tally, add};
use crate::device::{Interfaces, RxMode, TxBurst};
use crate::dispatch::{Codes, CpuLevel, Env, Erased, code};
use crate::frame::{FRAME_SIZE, Frame, Packet, flags};
use crate::graph::Graph;
use crate::node::{NodeCounters, TICK, WorkerState};
use crate::rcu::{Cell, Reader};
use crate::ring::{Consumer, Producer};
use crate::trace::TraceBuffer;
use crate::{NodeIndex, SwIfIndex};
use rustix::event::epoll;
use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::Receiver;

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
    rota: Rota,
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
    capture: Arc<Capture>,
    codes: Box<Codes>,
    hold_keys: Vec<u32>,
    released: Vec<(u16, Packet)>,
    /// Copies that a node made, until they are enqueued.
    copies: Vec<(u16, Packet)>,
    drops: Tally,
    punts: Tally,
    epoll: OwnedFd,
    clock: TickClock,
    /// The last look at the tick counter: where one piece of work ends, the next one begins.
    ticks: u64,
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
    pub(crate) capture: Arc<Capture>,
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
            rota: Rota::default(),
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
            capture: parts.capture,
            codes: Box::new([0; FRAME_SIZE]),
            hold_keys: Vec::new(),
            released: Vec::new(),
            copies: Vec::new(),
            drops: Tally::default(),
            punts: Tally::default(),
            epoll,
            clock: TickClock::new(),
            ticks: 0,
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
                Some(spin) if self.state.now.saturating_sub(idle_since) < spin => std::hint::spin_loop(),
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
        self.ticks = clock::ticks();
        self.state.now = self.clock.nanos_at(self.ticks);
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
            lap(&mut self.ticks);
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
        match node {
            NodeIndex::DROP => self.drop_frame(frame),
            NodeIndex::PUNT => self.punt_frame(frame),
            NodeIndex::DEVICE_OUTPUT => self.output_frame(frame),
            _ => self.run_node(node, frame),
        }
        let clocks = lap(&mut self.ticks);
        self.counters[node.index()].record(1, vectors, clocks);
    }

    #[inline(always)]
    fn run_node(&mut self, node: NodeIndex, mut frame: Box<Frame>) {
        let memory = self.cache.pool().memory();
        let copier = Copier::new(&mut self.cache, &mut self.copies);
        let mut env = Env {
            memory,
            state: &self.state,
            level: self.level,
            trace: &self.trace,
            codes: &mut self.codes,
            hold_keys: &mut self.hold_keys,
            copier: &copier,
        };
        let same = self.runners[node.index() - TERMINALS].run(&mut env, &mut frame);
        if !self.copies.is_empty() {
            self.enqueue_copies(node);
        }
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
            let memory = self.cache.pool().memory();
            let copier = Copier::new(&mut self.cache, &mut self.copies);
            let mut env = Env {
                memory,
                state: &self.state,
                level: self.level,
                trace: &self.trace,
                codes: &mut self.codes,
                hold_keys: &mut self.hold_keys,
                copier: &copier,
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
            if !self.copies.is_empty() {
                self.enqueue_copies(node);
            }
        }
        self.holding = holding;
        self.shared().held.store(holding as u64, Ordering::Relaxed);
    }

    // ---------------------------------------------------------------------------------------- devices

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
        let Worker { outputs, cache, state, pending_outputs, ticks, .. } = self;
        if let Some(Some(slot)) = outputs.get_mut(tx.index()) {
            slot.dirty = false;
            let pending = slot.device.flush(&mut TxBurst { cache, state, interface: tx, flags: 0 });
            add(&slot.node.counters.clocks, lap(ticks));
            *pending_outputs = *pending_outputs + usize::from(pending) - usize::from(slot.pending);
            slot.pending = pending;
        }
    }
}

/// Ticks since the last lap.
#[inline(always)]
fn lap(last: &mut u64) -> u64 {
    let now = clock::ticks();
    now.wrapping_sub(std::mem::replace(last, now))
}

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
