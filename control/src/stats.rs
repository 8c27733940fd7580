//! The stats segment as clients see it: what main adds to the counters that the engine keeps there, and the socket that hands it out.
//!
//! The names are VPP's: `/if/...` by `sw_if_index` with `/if/names`, `/interfaces/NAME/...` as links to them, `/err/NODE/REASON`,
//! `/sys/...`, `/buffer-pools/...`, `/net/adjacency`.

mod server;

pub use server::StatsServer;

use std::io;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use wharf_engine::stats::{Entry, Names};
use wharf_engine::{Engine, SwIfIndex, WorkerIndex, counter};

/// How often what is not counted in place is set.
const INTERVAL: Duration = Duration::from_secs(1);

/// The entries that main looks after.
#[derive(Debug)]
pub struct DataplaneStats {
    names: Names,
    tables: Vec<(&'static str, Entry)>,
    heartbeat: Entry,
    last_update: Entry,
    vector_rate: Entry,
    input_rate: Entry,
    /// Buffers in workers' caches, in use, and free.
    buffers: [Entry; 3],
    next: Instant,
    beats: u64,
    received: u64,
}

impl DataplaneStats {
    /// The entries of an engine that has just started.
    pub fn new(engine: &Engine) -> io::Result<DataplaneStats> {
        let stats = engine.stats();
        let full = || io::Error::from(io::ErrorKind::OutOfMemory);
        let gauge = |name: &str| stats.gauge(name).ok_or_else(full);
        let tables = engine.counters().all().map(|(name, counter)| {
            let entry = counter.table().and_then(|table| stats.table(&format!("/if/{name}"), table));
            entry.map(|entry| (name, entry))
        });
        let workers = gauge("/sys/num_worker_threads")?;
        stats.set(workers, engine.workers() as u64);
        gauge("/sys/last_stats_clear")?;
        let buffers = |name: &str| gauge(&format!("/buffer-pools/default-numa-0/{name}"));
        let made = DataplaneStats {
            names: stats.names("/if/names", counter::MAX_INTERFACES)?,
            tables: tables.into_iter().flatten().collect(),
            heartbeat: gauge("/sys/heartbeat")?,
            last_update: gauge("/sys/last_update")?,
            vector_rate: gauge("/sys/vector_rate")?,
            input_rate: gauge("/sys/input_rate")?,
            buffers: [buffers("cached")?, buffers("used")?, buffers("available")?],
            next: Instant::now(),
            beats: 0,
            received: 0,
        };
        made.add_interface(engine, SwIfIndex::LOCAL, "local0");
        Ok(made)
    }

    /// Shows an interface by its name.
    pub fn add_interface(&self, engine: &Engine, index: SwIfIndex, name: &str) {
        let stats = engine.stats();
        stats.set_name(&self.names, index.index(), Some(name));
        for (counter, entry) in &self.tables {
            stats.symlink(&format!("/interfaces/{name}/{counter}"), *entry, index.0);
        }
    }

    /// Shows an interface no longer.
    pub fn remove_interface(&self, engine: &Engine, index: SwIfIndex, name: &str) {
        engine.stats().set_name(&self.names, index.index(), None);
        engine.stats().remove(&format!("/interfaces/{name}/"));
    }

    /// Sets what is not counted in place, when it is time.
    pub fn update(&mut self, engine: &Engine) {
        let now = Instant::now();
        if now < self.next {
            return;
        }
        self.next = now + INTERVAL;
        self.beats += 1;
        let stats = engine.stats();
        stats.set(self.heartbeat, self.beats);
        stats.set(self.last_update, engine.uptime() / 1_000_000_000);
        let workers = 0..engine.workers() as u16;
        let (mut calls, mut vectors) = (0, 0);
        for worker in workers.clone() {
            for node in &engine.graph().nodes {
                let [node_calls, node_vectors, ..] = node.counters(WorkerIndex(worker));
                calls += node_calls;
                vectors += node_vectors;
            }
        }
        stats.set(self.vector_rate, vectors / calls.max(1));
        let received = engine.counters().rx.total();
        stats.set(self.input_rate, received.wrapping_sub(self.received) / INTERVAL.as_secs());
        self.received = received;
        let pool = engine.pool().stats();
        let caches = workers.filter_map(|worker| engine.worker(WorkerIndex(worker)));
        let cached: u64 = caches.map(|worker| worker.cached.load(Ordering::Relaxed)).sum();
        let free = u64::from(pool.available);
        let used = u64::from(pool.total).saturating_sub(free + cached);
        for (entry, value) in self.buffers.iter().zip([cached, used, free]) {
            stats.set(*entry, value);
        }
    }
}
