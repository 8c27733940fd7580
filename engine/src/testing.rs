//! A graph without threads, for tests and fuzzing of nodes: packets go in at an interface or a node, turns are made,
//! packets come out at interfaces. When it is dropped, it checks that no packet and no buffer was lost.

use crate::buffer::{DATA_SIZE, Pool, PoolConfig};
use crate::device::{DeviceInput, DeviceOutput, RxBurst, RxMode, TxBurst};
use crate::dispatch::CpuLevel;
use crate::engine::{Engine, EngineConfig, InterfaceSetup};
use crate::frame::{Meta, Packet};
use crate::trace::TraceNames;
use crate::worker::Worker;
use crate::{EngineError, GraphBuilder, SwIfIndex, WorkerIndex};
use std::collections::{BTreeMap, VecDeque};
use std::os::fd::BorrowedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Name of the input node that the harness adds.
pub const TEST_INPUT: &str = "test-input";

type Queue = Arc<Mutex<VecDeque<Vec<u8>>>>;

fn lock(queue: &Queue) -> MutexGuard<'_, VecDeque<Vec<u8>>> {
    queue.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An engine with workers that the test turns by hand.
#[derive(Debug)]
pub struct Harness {
    /// The engine.
    pub engine: Engine,
    workers: Vec<Worker>,
    fed: BTreeMap<u32, Queue>,
    sent: BTreeMap<u32, Queue>,
    names: BTreeMap<u32, String>,
}

struct Feed(Queue, usize);

impl DeviceInput for Feed {
    fn node(&self) -> &'static str {
        TEST_INPUT
    }

    fn poll(&mut self, rx: &mut RxBurst<'_>) -> bool {
        let mut queue = lock(&self.0);
        let want = queue.len().min(self.1);
        let mut fresh = rx.fresh(want);
        while fresh.left() != 0
            && let (Some(to), Some(bytes)) = (fresh.slot(0), queue.pop_front())
        {
            let len = bytes.len().min(DATA_SIZE);
            // SAFETY: a slot has DATA_SIZE writable bytes.
            unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), to, len) };
            fresh.commit(len as u16);
        }
        !queue.is_empty()
    }

    fn fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    fn arm(&mut self) -> bool {
        lock(&self.0).is_empty()
    }
}

struct Capture(Queue, usize);

impl DeviceOutput for Capture {
    fn keeps_buffers(&self) -> bool {
        false
    }

    fn transmit(&mut self, tx: &mut TxBurst<'_>, packets: &[Packet]) -> usize {
        let mut queue = lock(&self.0);
        let room = self.1.saturating_sub(queue.len()).min(packets.len());
        for packet in &packets[..room] {
            // SAFETY: a packet's bytes may be read while it is sent.
            let bytes = unsafe { std::slice::from_raw_parts(tx.address(packet), packet.len().into()) };
            queue.push_back(bytes.to_vec());
        }
        room
    }

    fn flush(&mut self, _: &mut TxBurst<'_>) -> bool {
        false
    }
}

impl Harness {
    /// One worker.
    pub fn new(builder: GraphBuilder) -> Result<Harness, EngineError> {
        Harness::with_workers(builder, 1)
    }

    /// Several workers, turned one after the other.
    pub fn with_workers(builder: GraphBuilder, workers: usize) -> Result<Harness, EngineError> {
        Harness::with_buffers(builder, workers, 1700)
    }

    /// Several workers and a pool of this many buffers, most of what a harness costs to make.
    pub fn with_buffers(builder: GraphBuilder, workers: usize, buffers: u32) -> Result<Harness, EngineError> {
        Harness::make(builder, workers, buffers, None)
    }

    /// One worker, whose nodes are compiled for `level`, or what the processor has if that is less.
    pub fn with_level(builder: GraphBuilder, level: CpuLevel) -> Result<Harness, EngineError> {
        Harness::make(builder, 1, 1700, Some(level))
    }

    fn make(
        mut builder: GraphBuilder,
        workers: usize,
        buffers: u32,
        level: Option<CpuLevel>,
    ) -> Result<Harness, EngineError> {
        builder.input(TEST_INPUT);
        let pool = PoolConfig::fixed(buffers);
        let config = EngineConfig { workers: vec![None; workers], pool, level, ..Default::default() };
        let (engine, workers) = Engine::manual(&config, builder)?;
        Ok(Harness { engine, workers, fed: BTreeMap::new(), sent: BTreeMap::new(), names: BTreeMap::new() })
    }

    /// Adds an interface that receives what [`Harness::receive`] gives it, before the node named `input`, and whose sent
    /// packets [`Harness::sent`] shows. It is on worker `index % workers`.
    pub fn interface(&mut self, index: u32, name: &str, input: &str) {
        self.interface_with(index, name, input, 256, usize::MAX);
    }

    /// As [`Harness::interface`], receiving at most `burst` packets a turn and sending at most `slots` between two
    /// calls of [`Harness::sent`].
    pub fn interface_with(&mut self, index: u32, name: &str, input: &str, burst: usize, slots: usize) {
        let interface = SwIfIndex(index);
        let node = self.engine.graph().find(input);
        assert!(node.is_some(), "no node {input}");
        self.engine.set_interface(
            interface,
            Some(InterfaceSetup { name: name.into(), up: true, input: node, loopback: None }),
        );
        let (fed, sent) = (Queue::default(), Queue::default());
        let worker = WorkerIndex((index as usize % self.workers.len()) as u16);
        let feed = Box::new(Feed(Arc::clone(&fed), burst));
        let attached = self.engine.attach_input(interface, 0, worker, RxMode::Polling, feed).is_ok()
            && self
                .engine
                .attach_output(interface, worker, Box::new(Capture(Arc::clone(&sent), slots)))
                .is_ok();
        assert!(attached, "cannot attach {name}");
        self.fed.insert(index, fed);
        self.sent.insert(index, sent);
        self.names.insert(index, name.into());
    }

    /// Lets an interface receive a packet at the next turn.
    pub fn receive(&mut self, interface: u32, bytes: &[u8]) {
        if let Some(queue) = self.fed.get(&interface) {
            lock(queue).push_back(bytes.to_vec());
        }
    }

    /// Puts a packet before a node, on worker 0.
    pub fn inject<M: Meta>(&mut self, node: &str, rx: u32, bytes: &[u8], meta: M) {
        let node = self.engine.graph().find(node).unwrap_or(crate::NodeIndex::DROP);
        let injected = self.engine.inject(WorkerIndex(0), node, SwIfIndex(rx), bytes, meta);
        assert!(injected.is_ok(), "{injected:?}");
    }

    /// One turn of one worker; the others are held up meanwhile.
    pub fn turn_worker(&mut self, worker: usize) -> bool {
        self.workers.get_mut(worker).is_some_and(Worker::turn)
    }

    /// One turn of each worker; returns whether any had work.
    pub fn turn(&mut self) -> bool {
        self.workers.iter_mut().fold(false, |work, worker| worker.turn() | work)
    }

    /// Turns until nothing is left to do, at most 1,000 times.
    pub fn run(&mut self) {
        for _ in 0..1000 {
            if !self.turn() {
                return;
            }
        }
    }

    /// Makes the workers' next turn call the nodes' ticks, as after a change of tables.
    pub fn tick(&mut self) {
        drop(self.engine.domain().begin());
        self.run();
    }

    /// Takes what an interface has sent.
    pub fn sent(&mut self, interface: u32) -> Vec<Vec<u8>> {
        self.sent.get(&interface).map(|q| lock(q).drain(..).collect()).unwrap_or_default()
    }

    /// The counters that are not zero, as `(node, reason)`, over all workers.
    pub fn errors(&self) -> BTreeMap<(&'static str, &'static str), u64> {
        let mut all = BTreeMap::new();
        for node in &self.engine.graph().nodes {
            for (i, reason) in node.errors.iter().enumerate() {
                let sum: u64 = (0..self.workers.len() as u16).map(|w| node.error(WorkerIndex(w), i)).sum();
                if sum != 0 {
                    all.insert((node.name, *reason), sum);
                }
            }
        }
        all
    }

    /// One counter, over all workers.
    pub fn error(&self, node: &str, reason: &str) -> u64 {
        self.errors().iter().find(|(k, _)| k.0 == node && k.1 == reason).map_or(0, |(_, n)| *n)
    }

    /// The trace as text, without times: a packet per paragraph.
    pub fn trace(&self) -> String {
        let mut text = String::new();
        for packet in self.engine.trace(&Names(&self.names)) {
            for (_, node, step) in packet.steps {
                text += &format!("{node}\n  {step}\n");
            }
            text += "\n";
        }
        text
    }
}

struct Names<'a>(&'a BTreeMap<u32, String>);

impl TraceNames for Names<'_> {
    fn interface(&self, index: SwIfIndex) -> String {
        self.0.get(&index.0).cloned().unwrap_or_else(|| format!("sw_if_index-{index}"))
    }
}

impl Drop for Harness {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        self.run();
        let balance = self.engine.balance();
        assert_eq!(balance.in_flight(), 0, "packets lost or made: {balance:?}");
        self.engine.shut_down();
        self.turn();
        self.workers.clear();
        let stats = self.engine.pool().stats();
        assert_eq!(stats.available, stats.total, "buffers lost");
        #[cfg(any(debug_assertions, feature = "checked"))]
        assert_eq!(self.engine.pool().census(), (stats.total, 0, 0), "buffers lost");
        let _ = Pool::CHECKED;
    }
}
