//! The stats segment as clients see it: what main adds to the counters that the engine keeps there, and the socket that hands it out.
//!
//! The names are VPP's: `/if/...` by `sw_if_index` with `/if/names`, `/interfaces/NAME/...` as links to them, `/err/NODE/REASON`,
//! `/nodes/NODE/...`, `/sys/...`, `/buffer-pools/...`, `/mem/...`, `/net/adjacency`, `/net/route/to`. What VPP counts only when told to, and
//! what there is none of here, is there and zero. `/net/route/to` is there with `statseg { per-route-counters on }`; otherwise the `stats_index` of a route is that of
//! the adjacency that it leads to, and the numbers of `show ip fib` are those of all routes that lead there.

pub mod prometheus;
mod server;

pub use prometheus::Prometheus;
pub use server::StatsServer;

use std::io;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use wharf_engine::stats::{Entry, Names, Table, link_name};
use wharf_engine::{Engine, SwIfIndex, WorkerIndex, counter};

/// How often what is not counted in place is set.
const INTERVAL: Duration = Duration::from_secs(1);
/// Counters of packets that nothing counts: IPv6 and MPLS are not there.
pub(crate) const ABSENT: [&str; 2] = ["ip6", "mpls"];
/// Counters of packets and bytes that VPP counts only where `collect_detailed_interface_stats` asks for it.
pub(crate) const UNCOUNTED: [&str; 6] =
    ["rx-unicast", "rx-multicast", "rx-broadcast", "tx-unicast", "tx-multicast", "tx-broadcast"];

/// The entries that main looks after.
#[derive(Debug)]
pub struct DataplaneStats {
    names: Names,
    tables: Vec<(&'static str, Entry)>,
    /// Rows of zeros.
    zero: [Table; 2],
    heartbeat: Entry,
    last_update: Entry,
    vector_rate: Entry,
    input_rate: Entry,
    /// One row, with main's element in front: vectors a node and call, and turns a second.
    rates: [Table; 2],
    /// Used and free bytes of this segment.
    memory: [Entry; 2],
    /// Buffers in workers' caches, in use, and free.
    buffers: [Entry; 3],
    next: Instant,
    beats: u64,
    received: u64,
    /// Calls, vectors and turns of each worker, when that was last looked at.
    seen: Vec<[u64; 3]>,
}

impl DataplaneStats {
    /// The entries of an engine that has just started.
    pub fn new(engine: &Engine) -> io::Result<DataplaneStats> {
        let stats = engine.stats();
        let full = || io::Error::from(io::ErrorKind::OutOfMemory);
        let gauge = |name: &str| stats.gauge(name).ok_or_else(full);
        let counted = engine.counters().all().map(|(name, counter)| (name, counter.table().cloned()));
        let rows = |elements, width| Table::new(stats.segment(), engine.workers(), elements, width);
        let zero = [rows(counter::MAX_INTERFACES, 1)?, rows(counter::MAX_INTERFACES, 2)?];
        let absent = ABSENT.iter().map(|name| (*name, Some(zero[0].clone())));
        let uncounted = UNCOUNTED.iter().map(|name| (*name, Some(zero[1].clone())));
        let tables = counted.into_iter().chain(absent).chain(uncounted).map(|(name, table)| {
            let entry = table.and_then(|table| stats.table(&format!("/if/{name}"), &table));
            entry.map(|entry| (name, entry))
        });
        let tables = tables.flatten().collect();
        let threads = engine.workers() + 1;
        let rates = ["vector_rate_per_worker", "loops_per_worker"].map(|name| {
            let table = Table::new(stats.segment(), 0, threads, 1)?;
            table.grow(threads);
            stats.table(&format!("/sys/{name}"), &table).ok_or_else(full)?;
            Ok::<_, io::Error>(table)
        });
        let [vectors, loops] = rates;
        let workers = gauge("/sys/num_worker_threads")?;
        stats.set(workers, engine.workers() as u64);
        gauge("/sys/last_stats_clear")?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        stats.set(gauge("/sys/boottime")?, now.as_secs());
        stats.set(gauge("/mem/stat segment/total")?, stats.segment().len() as u64);
        let buffers = |name: &str| gauge(&format!("/buffer-pools/default-numa-0/{name}"));
        let made = DataplaneStats {
            names: stats.names("/if/names", counter::MAX_INTERFACES)?,
            tables,
            zero,
            heartbeat: gauge("/sys/heartbeat")?,
            last_update: gauge("/sys/last_update")?,
            vector_rate: gauge("/sys/vector_rate")?,
            input_rate: gauge("/sys/input_rate")?,
            rates: [vectors?, loops?],
            memory: [gauge("/mem/stat segment/used")?, gauge("/mem/stat segment/free")?],
            buffers: [buffers("cached")?, buffers("used")?, buffers("available")?],
            next: Instant::now(),
            beats: 0,
            received: 0,
            seen: vec![[0; 3]; engine.workers()],
        };
        made.add_interface(engine, SwIfIndex::LOCAL, "local0");
        Ok(made)
    }

    /// Shows an interface by its name.
    pub fn add_interface(&self, engine: &Engine, index: SwIfIndex, name: &str) {
        let stats = engine.stats();
        stats.set_name(&self.names, index.index(), Some(name));
        for table in &self.zero {
            table.grow(index.index() + 1);
        }
        let name = link_name(name);
        for (counter, entry) in &self.tables {
            stats.symlink(&format!("/interfaces/{name}/{counter}"), *entry, index.0);
        }
    }

    /// Shows an interface no longer.
    pub fn remove_interface(&self, engine: &Engine, index: SwIfIndex, name: &str) {
        engine.stats().set_name(&self.names, index.index(), None);
        engine.stats().remove(&format!("/interfaces/{}/", link_name(name)));
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
        let mut rates = 0;
        for (number, seen) in self.seen.iter_mut().enumerate() {
            let worker = WorkerIndex(number as u16);
            let loops = engine.worker(worker).map_or(0, |shared| shared.loops.load(Ordering::Relaxed));
            let mut now = [0, 0, loops];
            for node in &engine.graph().nodes {
                let [calls, vectors, ..] = node.counters(worker);
                (now[0], now[1]) = (now[0] + calls, now[1] + vectors);
            }
            let [calls, vectors, turns] = std::array::from_fn(|i| now[i].wrapping_sub(seen[i]));
            *seen = now;
            let rate = vectors / calls.max(1);
            rates += rate;
            for (table, value) in self.rates.iter().zip([rate, turns / INTERVAL.as_secs()]) {
                table.row(0).get(number + 1).iter().for_each(|cell| cell.store(value, Ordering::Relaxed));
            }
        }
        stats.set(self.vector_rate, rates / self.seen.len().max(1) as u64);
        let segment = [stats.segment().used(), stats.segment().len() - stats.segment().used()];
        self.memory.iter().zip(segment).for_each(|(entry, bytes)| stats.set(*entry, bytes as u64));
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
