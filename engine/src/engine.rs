//! The engine as main holds it: it builds the graph, starts the workers, and talks to them without ever stopping them.

mod features;
mod interfaces;
mod trace;

pub use interfaces::{InterfaceSetup, Loopback};

use crate::arc::ArcTables;
use crate::buffer::{BufferCache, Pool, PoolConfig, PoolError};
use crate::capture::Capture;
use crate::counter::InterfaceCounters;
use crate::device::{Interfaces, RxMode};
use crate::dispatch::CpuLevel;
use crate::frame::{Frame, Meta, Packet, flags};
use crate::graph::{Built, Graph, GraphBuilder, GraphError, TableSet};
use crate::node::{NextIndex, WorkerState};
use crate::rcu::{Domain, Publisher, Reader};
use crate::ring::{Consumer, Producer, ring};
use crate::stats::{NodeStats, Stats};
use crate::trace::TraceBuffer;
use crate::worker::{Command, DeviceNode, Handoff, Worker, WorkerParts, WorkerShared};
use crate::{NodeIndex, SwIfIndex, WorkerIndex, clock};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Sender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// Frames in a handoff ring.
const HANDOFF_RING: usize = 256;
/// How long main waits for a worker to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
/// Bytes of the stats segment that a thread's rows can take: most of it for counters of adjacencies and routes.
const STATS_PER_THREAD: usize = 40 << 20;
/// Bytes of the stats segment for names and the like.
const STATS_SHARED: usize = 8 << 20;
/// A worker that makes no turn for this long is reported.
const STALL_NANOS: u64 = 100_000_000;

/// What to start an engine with.
#[derive(Clone, Debug)]
pub struct EngineConfig {
    /// The buffer pool.
    pub pool: PoolConfig,
    /// One worker per entry, pinned to the core if there is one.
    pub workers: Vec<Option<usize>>,
    /// Start of the workers' thread names.
    pub thread_prefix: String,
    /// Instruction set to use instead of the best.
    pub level: Option<CpuLevel>,
}

impl Default for EngineConfig {
    fn default() -> Self {
        EngineConfig {
            pool: PoolConfig::default(),
            workers: vec![None],
            thread_prefix: "wharf".into(),
            level: None,
        }
    }
}

/// Why the engine refuses.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The graph is wrong.
    #[error(transparent)]
    Graph(#[from] GraphError),
    /// No memory for buffers.
    #[error(transparent)]
    Pool(#[from] PoolError),
    /// No memory for counters.
    #[error("the stats segment: {0}")]
    Stats(#[source] std::io::Error),
    /// A thread or descriptor could not be made.
    #[error("cannot start worker {worker}: {source}")]
    Start {
        /// The worker.
        worker: usize,
        /// What the system said.
        source: std::io::Error,
    },
    /// A worker number out of range.
    #[error("there is no worker {wanted}: workers are 0 to {}", count - 1)]
    NoWorker {
        /// The number.
        wanted: u16,
        /// How many there are.
        count: usize,
    },
    /// The driver's input node is not in the graph's list.
    #[error("input node `{0}' is not in the graph")]
    UnknownInput(String),
    /// No such node.
    #[error("there is no node `{0}'")]
    UnknownNode(String),
    /// No such arc.
    #[error("there is no feature arc `{0}'")]
    UnknownArc(String),
    /// No such feature on the arc.
    #[error("`{feature}' is not a feature of arc `{arc}'")]
    UnknownFeature {
        /// The feature.
        feature: String,
        /// The arc.
        arc: String,
    },
    /// Too many different combinations of features.
    #[error("too many different combinations of features")]
    TooManyChains,
    /// A worker does not answer.
    #[error("worker {0} does not answer")]
    NoAnswer(u16),
    /// A worker's ring is full, or buffers are out.
    #[error("worker {0} is too busy to take a packet from main")]
    Busy(u16),
}

/// Handle of an attached receive queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct InputId(pub u64);

/// A receive queue as main remembers it.
#[derive(Clone, Debug)]
pub struct InputRecord {
    /// Its handle.
    pub id: InputId,
    /// Its interface.
    pub interface: SwIfIndex,
    /// Its number on the interface.
    pub queue: u16,
    /// Name of its node.
    pub node: &'static str,
    /// Where it is placed.
    pub worker: WorkerIndex,
    /// When it is looked at.
    pub mode: RxMode,
}

/// Packets in and out, for the invariant `in = out + dropped + punted + held`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Balance {
    /// Received by devices, injected by main, or made by nodes as copies.
    pub received: u64,
    /// Handed to devices.
    pub sent: u64,
    /// Dropped by nodes or for want of a transmit slot.
    pub dropped: u64,
    /// Punted.
    pub punted: u64,
    /// In nodes' hold queues.
    pub held: u64,
}

impl Balance {
    /// Packets that are on their way right now; 0 at rest.
    pub fn in_flight(&self) -> i64 {
        self.received.wrapping_sub(self.sent + self.dropped + self.punted + self.held) as i64
    }
}

struct WorkerHandle {
    shared: Arc<WorkerShared>,
    commands: Sender<Command>,
    inject: Mutex<Producer<Handoff>>,
    trace: Arc<TraceBuffer>,
    thread: Option<JoinHandle<()>>,
    core: Option<usize>,
    watched: (u64, u64),
}

struct Output {
    interface: SwIfIndex,
    worker: WorkerIndex,
    node: Arc<DeviceNode>,
}

/// The engine.
pub struct Engine {
    graph: Arc<Graph>,
    pool: Arc<Pool>,
    domain: Arc<Domain>,
    tables: TableSet,
    interfaces: Publisher<Interfaces>,
    arcs: Publisher<ArcTables>,
    features: BTreeMap<(usize, SwIfIndex), Vec<u32>>,
    counters: Arc<InterfaceCounters>,
    capture: Arc<Capture>,
    stats: Arc<Stats>,
    counts: NodeStats,
    workers: Vec<WorkerHandle>,
    inputs: Vec<InputRecord>,
    outputs: Vec<Output>,
    loops: BTreeMap<SwIfIndex, Loopback>,
    /// Interfaces with a node for a device.
    virtuals: BTreeMap<SwIfIndex, NodeIndex>,
    next_input: u64,
    injected: AtomicU64,
    stalls: u64,
    level: CpuLevel,
    started: u64,
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine").field("workers", &self.workers.len()).finish_non_exhaustive()
    }
}

impl Engine {
    /// Builds the graph and starts the workers.
    pub fn start(config: &EngineConfig, builder: GraphBuilder) -> Result<Engine, EngineError> {
        let (mut engine, workers) = Engine::manual(config, builder)?;
        for (i, worker) in workers.into_iter().enumerate() {
            let core = config.workers[i];
            let name = format!("{}_wk_{i}", config.thread_prefix);
            let thread = std::thread::Builder::new().name(name).spawn(move || {
                if let Some(id) = core
                    && !core_affinity::set_for_current(core_affinity::CoreId { id })
                {
                    tracing::warn!("worker {i} cannot be pinned to core {id}");
                }
                worker.run();
            });
            engine.workers[i].thread =
                Some(thread.map_err(|source| EngineError::Start { worker: i, source })?);
        }
        Ok(engine)
    }

    /// Builds the graph and its workers, but leaves it to the caller to turn them: for tests and benchmarks.
    pub fn manual(
        config: &EngineConfig,
        builder: GraphBuilder,
    ) -> Result<(Engine, Vec<Worker>), EngineError> {
        let count = config.workers.len();
        let domain = Domain::new(count);
        let pool = Pool::new(&config.pool)?;
        let stats = Stats::new((count + 1) * STATS_PER_THREAD + STATS_SHARED).map_err(EngineError::Stats)?;
        let mut counts = NodeStats::new(&stats, count).map_err(EngineError::Stats)?;
        let Built { graph, tables, runners } = builder.build(&domain, count, (&stats, &mut counts))?;
        let graph = Arc::new(graph);
        let counters = Arc::new(InterfaceCounters::new(&stats, count).map_err(EngineError::Stats)?);
        counters.ensure(0);
        let capture = Arc::<Capture>::default();
        let interfaces = Publisher::new(&domain, Interfaces::default());
        let starts = graph.arcs.iter().map(|_| Vec::new()).collect();
        let arcs = Publisher::new(&domain, ArcTables { starts, chains: vec![0] });
        let level = config.level.unwrap_or_else(CpuLevel::detect).min(CpuLevel::detect());

        let shared = (0..count)
            .map(|worker| {
                let made = WorkerShared::new().map(Arc::new);
                made.map_err(|e| EngineError::Start { worker, source: e.into() })
            })
            .collect::<Result<Vec<_>, _>>()?;
        // One ring from each worker, and from main, to each worker.
        let mut consumers: Vec<Vec<Consumer<Handoff>>> = (0..count).map(|_| Vec::new()).collect();
        let mut producers: Vec<Vec<Option<Producer<Handoff>>>> = (0..count).map(|_| Vec::new()).collect();
        for (from, outgoing) in producers.iter_mut().enumerate() {
            for (to, incoming) in consumers.iter_mut().enumerate() {
                if from == to {
                    outgoing.push(None);
                    continue;
                }
                let (producer, consumer) = ring(HANDOFF_RING);
                outgoing.push(Some(producer));
                incoming.push(consumer);
            }
        }
        let mut handles = Vec::new();
        let mut workers = Vec::new();
        for ((i, (runners, handoff_out)), mut handoff_in) in
            runners.into_iter().zip(producers).enumerate().zip(consumers)
        {
            let (commands, receiver) = mpsc::channel();
            let (inject, consumer) = ring(HANDOFF_RING);
            handoff_in.push(consumer);
            let trace = Arc::new(TraceBuffer::new(graph.inputs.len()));
            let worker = Worker::new(WorkerParts {
                state: WorkerState {
                    worker: WorkerIndex(i as u16),
                    now: clock::nanos(),
                    counters: Arc::clone(&counters),
                    arcs: std::ptr::null(),
                },
                graph: Arc::clone(&graph),
                runners,
                cache: BufferCache::new(Arc::clone(&pool)),
                interfaces: Arc::clone(&interfaces.cell),
                arcs: Arc::clone(&arcs.cell),
                reader: Reader::new(Arc::clone(&domain), i),
                commands: receiver,
                handoff_in,
                handoff_out,
                peers: shared.clone(),
                level,
                trace: Arc::clone(&trace),
                capture: Arc::clone(&capture),
            });
            workers.push(worker.map_err(|e| EngineError::Start { worker: i, source: e.into() })?);
            handles.push(WorkerHandle {
                shared: Arc::clone(&shared[i]),
                commands,
                inject: Mutex::new(inject),
                trace,
                thread: None,
                core: config.workers[i],
                watched: (0, clock::nanos()),
            });
        }
        let engine = Engine {
            graph,
            pool,
            domain,
            tables,
            interfaces,
            arcs,
            features: BTreeMap::new(),
            counters,
            capture,
            stats: Arc::new(stats),
            counts,
            workers: handles,
            inputs: Vec::new(),
            outputs: Vec::new(),
            loops: BTreeMap::new(),
            virtuals: BTreeMap::new(),
            next_input: 0,
            injected: AtomicU64::new(0),
            stalls: 0,
            level,
            started: clock::nanos(),
        };
        Ok((engine, workers))
    }

    /// The graph.
    pub fn graph(&self) -> &Arc<Graph> {
        &self.graph
    }

    /// The buffer pool.
    pub fn pool(&self) -> &Arc<Pool> {
        &self.pool
    }

    /// The domain in which tables are published.
    pub fn domain(&self) -> &Arc<Domain> {
        &self.domain
    }

    /// The publisher of tables of type `T`. A graph whose nodes do not read them ignores what is published.
    pub fn tables<T: Default + Send + Sync + 'static>(&mut self) -> Publisher<T> {
        self.tables.ensure(&self.domain)
    }

    /// The segment in which counters live.
    pub fn stats(&self) -> &Arc<Stats> {
        &self.stats
    }

    /// Counters of the interfaces.
    pub fn counters(&self) -> &Arc<InterfaceCounters> {
        &self.counters
    }

    /// Captures packets.
    pub fn capture(&self) -> &Capture {
        &self.capture
    }

    /// How many workers there are.
    pub fn workers(&self) -> usize {
        self.workers.len()
    }

    /// A worker's numbers.
    pub fn worker(&self, worker: WorkerIndex) -> Option<&WorkerShared> {
        self.workers.get(worker.index()).map(|w| &*w.shared)
    }

    /// The core that a worker is pinned to, and the kernel's number of its thread.
    pub fn worker_place(&self, worker: WorkerIndex) -> Option<(Option<usize>, u64)> {
        self.workers.get(worker.index()).map(|w| (w.core, w.shared.thread_id.load(Ordering::Relaxed)))
    }

    /// Wakes the workers that sleep, so that they look at what was published.
    pub fn wake_workers(&self) {
        self.workers.iter().for_each(|w| w.shared.wake());
    }

    /// Instruction set in use.
    pub fn level(&self) -> CpuLevel {
        self.level
    }

    /// Nanoseconds since the start.
    pub fn uptime(&self) -> u64 {
        clock::nanos() - self.started
    }

    fn handle(&self, worker: WorkerIndex) -> Result<&WorkerHandle, EngineError> {
        let no = EngineError::NoWorker { wanted: worker.0, count: self.workers.len() };
        self.workers.get(worker.index()).ok_or(no)
    }

    fn command(&self, worker: WorkerIndex, command: Command) -> Result<(), EngineError> {
        let handle = self.handle(worker)?;
        handle.commands.send(command).map_err(|_| EngineError::NoAnswer(worker.0))?;
        handle.shared.wake();
        Ok(())
    }

    fn ask<T>(
        &self,
        worker: WorkerIndex,
        command: impl FnOnce(mpsc::SyncSender<T>) -> Command,
    ) -> Result<T, EngineError> {
        let (reply, answer) = sync_channel(1);
        self.command(worker, command(reply))?;
        answer.recv_timeout(ANSWER_TIMEOUT).map_err(|_| EngineError::NoAnswer(worker.0))
    }

    // ---------------------------------------------------------------------------------------- packets of main

    /// Puts a packet of main's own making into the graph of a worker, before `node`.
    pub fn inject<M: Meta>(
        &self,
        worker: WorkerIndex,
        node: NodeIndex,
        rx: SwIfIndex,
        bytes: &[u8],
        meta: M,
    ) -> Result<(), EngineError> {
        let handle = self.handle(worker)?;
        if node.index() >= self.graph.nodes.len() {
            return Err(EngineError::UnknownNode(node.0.to_string()));
        }
        let busy = || EngineError::Busy(worker.0);
        let mut buffer = self.pool.alloc_one().ok_or_else(busy)?;
        let start = crate::buffer::DATA_START;
        let room = self.pool.bytes_mut(&mut buffer, start);
        let len = bytes.len().min(room.len());
        room[..len].copy_from_slice(&bytes[..len]);
        let mut packet = Packet::new(self.pool.memory(), buffer, start, len as u16, rx);
        packet.flags = flags::LOCALLY_ORIGINATED;
        packet.meta = NextIndex::new(node, meta).meta;
        let mut frame = Frame::boxed();
        let _ = frame.push(packet);
        let mut ring = handle.inject.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(mut refused) = ring.push(Handoff { node, frame }) {
            refused.frame.drain().for_each(|p| self.pool.free_one(p.into_buffer()));
            return Err(busy());
        }
        drop(ring);
        self.injected.fetch_add(1, Ordering::Relaxed);
        handle.shared.wake();
        Ok(())
    }

    /// Packets in and out since the start.
    pub fn balance(&self) -> Balance {
        let vectors = |node: NodeIndex| -> u64 {
            self.graph.nodes[node.index()].counters.iter().map(|c| c.get()[1]).sum()
        };
        let sum = |f: fn(&WorkerShared) -> &AtomicU64| -> u64 {
            self.workers.iter().map(|w| f(&w.shared).load(Ordering::Relaxed)).sum()
        };
        Balance {
            received: self.counters.rx.total() + self.injected.load(Ordering::Relaxed) + sum(|s| &s.copies),
            sent: self.counters.tx.total(),
            dropped: vectors(NodeIndex::DROP) + sum(|s| &s.tx_drops),
            punted: vectors(NodeIndex::PUNT),
            held: sum(|s| &s.held),
        }
    }

    // ---------------------------------------------------------------------------------------- housekeeping

    /// What main does every few milliseconds: drop old tables, grow the pool, watch the workers. Returns the workers
    /// that have newly made no turn for a while though awake.
    pub fn housekeeping(&mut self) -> Vec<WorkerIndex> {
        self.domain.reclaim();
        self.pool.maintain();
        let now = clock::nanos();
        let mut stalled = Vec::new();
        for (i, worker) in self.workers.iter_mut().enumerate() {
            let loops = worker.shared.loops.load(Ordering::Relaxed);
            if loops != worker.watched.0 || worker.shared.is_sleeping() {
                worker.watched = (loops, now);
            } else if now.saturating_sub(worker.watched.1) > STALL_NANOS {
                // Once per stall: the next report is due when it has moved and stopped again, or a minute later.
                worker.watched.1 = now + 60_000_000_000;
                self.stalls += 1;
                stalled.push(WorkerIndex(i as u16));
            }
        }
        stalled
    }

    /// How often a worker was found standing still.
    pub fn stalls(&self) -> u64 {
        self.stalls
    }

    /// Stops the workers and waits for them.
    pub fn shut_down(&mut self) {
        for worker in &self.workers {
            let _ = worker.commands.send(Command::Stop);
            worker.shared.wake_now();
        }
        for worker in &mut self.workers {
            if let Some(thread) = worker.thread.take() {
                let _ = thread.join();
            }
        }
        self.inputs.clear();
        self.outputs.clear();
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.shut_down();
    }
}
