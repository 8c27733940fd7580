//! Commands about what the graph does: runtime, errors, buffers, threads.

use crate::cli::{Args, CliError, Command, Output, Row, Shown};
use crate::dataplane::Dataplane;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::atomic::Ordering;
use wharf_engine::{WorkerIndex, clock};

pub(super) const COMMANDS: &[Command<Dataplane>] = &[
    Command::new("clear runtime", "", "Count nodes' calls and clocks from zero", clear_runtime),
    Command::new("clear errors", "", "Count errors from zero", clear_errors),
    Command::new("clear node counters", "", "Count errors from zero", clear_errors),
    Command::show("show runtime", "[verbose]", "Show what the nodes did, thread by thread", show_runtime),
    Command::show(
        "show errors",
        "[verbose]",
        "Show why packets were dropped, and other counters of nodes",
        show_errors,
    ),
    Command::show(
        "show node counters",
        "[verbose]",
        "Show why packets were dropped, and other counters of nodes",
        show_errors,
    ),
    Command::show("show buffers", "", "Show the buffer pool", show_buffers),
    Command::show("show threads", "", "Show threads", show_threads),
    Command::show("show packets", "", "Show packets in, out, dropped and held since the start", show_packets),
];

/// What the counters were when they were last cleared: workers' own numbers run on.
#[derive(Debug, Default)]
pub struct Cleared {
    at: u64,
    nodes: BTreeMap<(u16, String), [u64; 4]>,
    errors: BTreeMap<(String, &'static str), u64>,
}

#[derive(Clone, Serialize)]
struct NodeRow {
    name: String,
    state: &'static str,
    calls: u64,
    vectors: u64,
    suspends: u64,
    clocks: f64,
    vectors_per_call: f64,
}

#[derive(Serialize)]
struct ThreadRows {
    thread: u16,
    name: String,
    core: Option<usize>,
    seconds: f64,
    loops_per_second: f64,
    vector_rate: f64,
    nodes: Vec<NodeRow>,
}

/// All nodes of a worker with their raw numbers: graph nodes, inputs, transmit nodes.
fn raw(dp: &Dataplane, worker: WorkerIndex) -> Vec<(String, &'static str, [u64; 4])> {
    let graph = dp.engine.graph();
    let mut list: Vec<_> =
        graph.nodes.iter().map(|n| (n.name.to_owned(), "active", n.counters(worker))).collect();
    list.extend(graph.inputs.iter().map(|i| {
        let polling = (dp.engine.inputs().iter()).any(|r| {
            r.worker == worker && r.node == i.name && r.mode == wharf_engine::device::RxMode::Polling
        });
        (i.name.to_owned(), if polling { "polling" } else { "interrupt wait" }, i.counters(worker))
    }));
    let devices = dp.engine.device_nodes().filter(|d| d.1 == worker);
    list.extend(devices.map(|(_, _, node)| (node.name.to_string(), "active", node.counters.get())));
    list.sort();
    list
}

fn clear_runtime(dp: &mut Dataplane, _: &Args, _: &mut Output<'_>) -> Result<(), CliError> {
    let mut nodes = BTreeMap::new();
    for worker in 0..dp.engine.workers() as u16 {
        for (name, _, numbers) in raw(dp, WorkerIndex(worker)) {
            nodes.insert((worker, name), numbers);
        }
    }
    dp.cleared.nodes = nodes;
    dp.cleared.at = dp.engine.uptime();
    Ok(())
}

fn show_runtime(dp: &Dataplane, args: &Args, out: &mut Output<'_>) -> Result<Shown, CliError> {
    let verbose = args.flag("verbose");
    let seconds = (dp.engine.uptime() - dp.cleared.at) as f64 / 1e9;
    let mut threads = Vec::new();
    for worker in 0..dp.engine.workers() as u16 {
        let index = WorkerIndex(worker);
        let mut nodes = Vec::new();
        for (name, state, now) in raw(dp, index) {
            let zero = dp.cleared.nodes.get(&(worker, name.clone())).copied().unwrap_or_default();
            let [calls, vectors, clocks, suspends] = std::array::from_fn(|i| now[i].saturating_sub(zero[i]));
            if calls == 0 && suspends == 0 && !verbose {
                continue;
            }
            let per = |n: u64| if n == 0 { 0.0 } else { clocks as f64 / n as f64 };
            nodes.push(NodeRow {
                name,
                state,
                calls,
                vectors,
                suspends,
                clocks: if vectors == 0 { per(calls) } else { per(vectors) },
                vectors_per_call: if calls == 0 { 0.0 } else { vectors as f64 / calls as f64 },
            });
        }
        let loops = dp.engine.worker(index).map_or(0, |w| w.loops.load(Ordering::Relaxed));
        let sum = |what: fn(&NodeRow) -> u64| nodes.iter().map(what).sum::<u64>() as f64;
        let (vectors, calls) = (sum(|n| n.vectors), sum(|n| if n.vectors == 0 { 0 } else { n.calls }));
        threads.push(ThreadRows {
            thread: worker + 1,
            name: format!("wharf_wk_{worker}"),
            core: dp.engine.worker_place(index).and_then(|p| p.0),
            seconds,
            loops_per_second: loops as f64 / (dp.engine.uptime() as f64 / 1e9),
            vector_rate: if calls == 0.0 { 0.0 } else { vectors / calls },
            nodes,
        });
    }
    out.show(&threads, |threads, text| {
        for thread in threads {
            let core = thread.core.map_or(String::new(), |c| format!(" (lcore {c})"));
            let _ = writeln!(text, "---------------\nThread {} {}{core}", thread.thread, thread.name);
            let _ = writeln!(
                text,
                "Time {:.1}, average vectors/node {:.2}, loops/sec {:.2}",
                thread.seconds, thread.vector_rate, thread.loops_per_second
            );
            let header = Row::new(text)
                .centre(30, "Name")
                .centre(16, "State")
                .centre(16, "Calls")
                .centre(16, "Vectors");
            header.centre(16, "Suspends").centre(16, "Packet-Clocks").centre(16, "Vectors/Call").end();
            for row in &thread.nodes {
                let line = Row::new(text).left(30, &row.name).centre(16, row.state).right(16, row.calls);
                let line = line.right(16, row.vectors).right(16, row.suspends);
                line.right(16, format!("{:.2e}", row.clocks))
                    .right(16, format!("{:.2}", row.vectors_per_call))
                    .end();
            }
        }
    })
}

#[derive(Serialize)]
struct ErrorRow {
    count: u64,
    node: String,
    reason: &'static str,
}

fn errors(dp: &Dataplane) -> Vec<ErrorRow> {
    let graph = dp.engine.graph();
    let mut rows = Vec::new();
    for node in &graph.nodes {
        for (i, reason) in node.errors.iter().enumerate() {
            let count = (0..dp.engine.workers() as u16).map(|w| node.error(WorkerIndex(w), i)).sum();
            rows.push(ErrorRow { count, node: node.name.to_owned(), reason });
        }
    }
    for (_, _, node) in dp.engine.device_nodes() {
        let count = node.no_slots.load(Ordering::Relaxed);
        rows.push(ErrorRow { count, node: node.name.to_string(), reason: "no free tx slots" });
    }
    rows
}

fn clear_errors(dp: &mut Dataplane, _: &Args, _: &mut Output<'_>) -> Result<(), CliError> {
    dp.cleared.errors = errors(dp).into_iter().map(|r| ((r.node, r.reason), r.count)).collect();
    Ok(())
}

fn show_errors(dp: &Dataplane, args: &Args, out: &mut Output<'_>) -> Result<Shown, CliError> {
    let verbose = args.flag("verbose");
    let mut rows = errors(dp);
    for row in &mut rows {
        let zero = dp.cleared.errors.get(&(row.node.clone(), row.reason)).copied().unwrap_or(0);
        row.count = row.count.saturating_sub(zero);
    }
    rows.retain(|r| verbose || r.count != 0);
    out.show(&rows, |rows, text| {
        Row::new(text).centre(10, "Count").centre(35, "Node").centre(50, "Reason").end();
        for row in rows {
            Row::new(text).right(10, row.count).centre(35, &row.node).centre(50, row.reason).end();
        }
    })
}

#[derive(Serialize)]
struct PoolRow {
    pool: &'static str,
    size: usize,
    data_size: usize,
    total: u32,
    limit: u32,
    available: u32,
    cached: u64,
    used: u64,
    reserved: u32,
    alloc_failures: u64,
    huge_chunks: usize,
    chunks: usize,
    owners: Option<(u32, u32, u32)>,
}

fn show_buffers(dp: &Dataplane, _: &Args, out: &mut Output<'_>) -> Result<Shown, CliError> {
    let stats = dp.engine.pool().stats();
    let workers = (0..dp.engine.workers() as u16).filter_map(|w| dp.engine.worker(WorkerIndex(w)));
    let cached: u64 = workers.map(|w| w.cached.load(Ordering::Relaxed)).sum();
    let row = PoolRow {
        pool: "default-numa-0",
        size: dp.engine.pool().memory().stride(),
        data_size: dp.engine.pool().memory().data_size(),
        total: stats.total,
        limit: stats.limit,
        available: stats.available,
        cached,
        used: u64::from(stats.total).saturating_sub(u64::from(stats.available) + cached),
        reserved: stats.reserved,
        alloc_failures: stats.alloc_failures,
        huge_chunks: stats.huge_chunks,
        chunks: stats.chunks,
        owners: dp.engine.pool().owners(),
    };
    out.show(&row, |row, text| {
        let header =
            Row::new(text).left(20, "Pool Name").centre(6, "Index").centre(6, "NUMA").centre(6, "Size");
        let header = header.centre(11, "Data Size").centre(8, "Total").centre(8, "Avail").centre(8, "Cached");
        header.centre(8, "Used").centre(8, "Limit").centre(9, "Reserved").end();
        let line = Row::new(text).left(20, row.pool).centre(6, 0).centre(6, 0);
        let line = line.centre(6, row.size).centre(11, row.data_size);
        let line =
            line.centre(8, row.total).centre(8, row.available).centre(8, row.cached).centre(8, row.used);
        line.centre(8, row.limit).centre(9, row.reserved).end();
        let _ = writeln!(
            text,
            "{} of {} chunks on huge pages, {} allocations fell short",
            row.huge_chunks, row.chunks, row.alloc_failures
        );
        if let Some((free, graph, devices)) = row.owners {
            let _ = writeln!(text, "owners: {free} free, {graph} in the graph, {devices} with devices");
        }
    })
}

#[derive(Serialize)]
struct ThreadRow {
    id: u16,
    name: String,
    lwp: u64,
    core: Option<usize>,
    loops: u64,
    sleeps: u64,
    fd_wakeups: u64,
    slept_seconds: f64,
    max_gap_us: u64,
    handoffs: u64,
    handoff_drops: u64,
}

fn show_threads(dp: &Dataplane, _: &Args, out: &mut Output<'_>) -> Result<Shown, CliError> {
    let mut rows = vec![ThreadRow {
        id: 0,
        name: "wharf_main".into(),
        lwp: u64::from(std::process::id()),
        core: None,
        loops: 0,
        sleeps: 0,
        fd_wakeups: 0,
        slept_seconds: 0.0,
        max_gap_us: 0,
        handoffs: 0,
        handoff_drops: 0,
    }];
    for worker in 0..dp.engine.workers() as u16 {
        let index = WorkerIndex(worker);
        if let (Some(shared), Some((core, lwp))) = (dp.engine.worker(index), dp.engine.worker_place(index)) {
            let get = |n: &std::sync::atomic::AtomicU64| n.load(Ordering::Relaxed);
            rows.push(ThreadRow {
                id: worker + 1,
                name: format!("wharf_wk_{worker}"),
                lwp,
                core,
                loops: get(&shared.loops),
                sleeps: get(&shared.sleeps),
                fd_wakeups: get(&shared.fd_wakeups),
                slept_seconds: get(&shared.slept_nanos) as f64 / 1e9,
                max_gap_us: get(&shared.max_gap_nanos) / 1000,
                handoffs: get(&shared.handoffs),
                handoff_drops: get(&shared.handoff_drops),
            });
        }
    }
    let view = (rows, dp.engine.stalls(), format!("{:?}", dp.engine.level()), clock::ticks_per_second());
    out.show(&view, |(rows, stalls, level, ticks), text| {
        // In front: VPP's test tools read the number of workers off the last line.
        let _ = writeln!(
            text,
            "nodes compiled for {level}, clock {:.2} GHz, stalls seen by the watchdog: {stalls}",
            ticks / 1e9
        );
        let header =
            Row::new(text).left(4, "ID").left(14, "Name").left(10, "LWP").left(6, "CPU").right(14, "Loops");
        header
            .right(12, "Sleeps")
            .right(12, "FdWakeups")
            .right(14, "MaxGap(us)")
            .right(12, "Handoffs")
            .right(14, "HandoffDrops")
            .end();
        for row in rows {
            let core = row.core.map_or("-".to_owned(), |c| c.to_string());
            let line = Row::new(text).left(4, row.id).left(14, &row.name).left(10, row.lwp).left(6, core);
            let line = line
                .right(14, row.loops)
                .right(12, row.sleeps)
                .right(12, row.fd_wakeups)
                .right(14, row.max_gap_us);
            line.right(12, row.handoffs).right(14, row.handoff_drops).end();
        }
    })
}

#[derive(Serialize)]
struct Packets {
    received: u64,
    sent: u64,
    dropped: u64,
    punted: u64,
    held: u64,
    in_flight: i64,
}

fn show_packets(dp: &Dataplane, _: &Args, out: &mut Output<'_>) -> Result<Shown, CliError> {
    let balance = dp.engine.balance();
    let packets = Packets {
        received: balance.received,
        sent: balance.sent,
        dropped: balance.dropped,
        punted: balance.punted,
        held: balance.held,
        in_flight: balance.in_flight(),
    };
    out.show(&packets, |p, text| {
        let _ = writeln!(
            text,
            "received {} = sent {} + dropped {} + punted {} + held {} + in flight {}",
            p.received, p.sent, p.dropped, p.punted, p.held, p.in_flight
        );
    })
}
