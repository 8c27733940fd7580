//! How long packets take at a part of the throughput, and what the control plane does to a flow that it has nothing to
//! do with.

use std::fmt::Write;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::case::Case;
use crate::load::{Load, Mode};
use crate::machine::{Machine, stolen};
use crate::pace::Paced;
use crate::process::{pin, target_dir};
use crate::report::{Spread, unix_time, write_json};
use crate::run::{Dut, Rig};
use crate::wharf::Wharf;
use crate::{LatencyOptions, Result, duration};

/// Programs that are compared.
const CASES: [Case; 4] = [Case::Floor, Case::TestpmdIo, Case::Xconnect, Case::Ip4];
/// Parts of the throughput.
const LOADS: [f64; 3] = [0.1, 0.5, 0.9];
/// Measuring the throughput itself.
const THROUGHPUT: Duration = Duration::from_millis(500);
/// Load while the control plane works.
const DISTURBED: f64 = 0.5;
/// Watching a flow at least for so long.
const SHORTEST: Duration = Duration::from_millis(500);
/// Routes added and removed.
const ROUTES: u32 = 100_000;
/// Their first destination: none of our packets goes there.
const FIRST_ROUTE: &str = "20.0.0.0/32";

/// What was seen at one rate.
#[derive(Debug, Clone, Serialize)]
struct Row {
    path: &'static str,
    /// Part of the throughput; for the control plane's work, what it was.
    what: String,
    round: usize,
    mpps: f64,
    sent: u64,
    lost: u64,
    /// Those of them that were on their way when the load had no core.
    lost_in_stalls: u64,
    p50_us: f64,
    p99_us: f64,
    p999_us: f64,
    /// The longest time between two packets, without those in which the load had no core.
    longest_gap_us: f64,
    /// The longest time for which the load had no core.
    longest_stall_us: f64,
    /// Part of the packets that were on their way then; they are in no other figure.
    doubtful: f64,
    /// Time that the host took from the core of the program.
    stolen_ms: f64,
    /// Time that the control plane's work took.
    took_ms: Option<f64>,
}

impl Row {
    fn new(
        path: &'static str,
        what: String,
        round: usize,
        paced: &Paced,
        tsc_hz: f64,
        stolen_ms: f64,
    ) -> Self {
        let us = |ticks: u64| ticks as f64 / tsc_hz * 1e6;
        Row {
            path,
            what,
            round,
            mpps: paced.sent as f64 / paced.elapsed.as_secs_f64() / 1e6,
            sent: paced.sent,
            lost: paced.lost,
            lost_in_stalls: paced.lost_in_stalls,
            p50_us: us(paced.times.quantile(0.5)),
            p99_us: us(paced.times.quantile(0.99)),
            p999_us: us(paced.times.quantile(0.999)),
            longest_gap_us: us(paced.longest_gap),
            longest_stall_us: us(paced.longest_stall),
            doubtful: paced.doubtful as f64 / (paced.times.total() + paced.doubtful).max(1) as f64,
            stolen_ms,
            took_ms: None,
        }
    }
}

#[derive(Debug, Serialize)]
struct Results {
    machine: Machine,
    unix_time: u64,
    rounds: usize,
    rows: Vec<Row>,
    /// While the control plane works, at half of the throughput.
    disturbed: Vec<Row>,
    /// The worker's longest turn in all of that, by its own account, microseconds.
    worker_longest_turn_us: Option<f64>,
}

/// Measures, prints, and writes down.
pub(crate) fn run(options: &LatencyOptions, rig: &Rig<'_>) -> Result<()> {
    let machine = Machine::here();
    print!("{}", machine.describe());
    println!(
        "memif to memif and back to the sender, 60-byte frames one by one at a steady rate, {} rounds\n",
        options.rounds
    );
    let time = duration(options.seconds)?;
    let mut rows = Vec::new();
    for round in 1..=options.rounds {
        for case in CASES {
            rows.extend(rig.with(case, |load, _| at_rates(case, load, rig, round, time, machine.tsc_hz))?);
            println!("round {round}: {}", case.name());
        }
    }
    print!("{}", latencies(&rows));
    let (disturbed, turn) = rig.with(Case::Ip4, |load, dut| disturb(load, dut, rig, machine.tsc_hz))?;
    print!("{}", disturbances(&disturbed, turn));
    let unix_time = unix_time();
    let results =
        Results { machine, unix_time, rounds: options.rounds, rows, disturbed, worker_longest_turn_us: turn };
    let path = match &options.json {
        Some(path) => path.clone(),
        None => target_dir()?.join(PathBuf::from(format!("bench/latency-{unix_time}.json"))),
    };
    write_json(&path, &results)?;
    println!("results: {}", path.display());
    Ok(())
}

fn at_rates(
    case: Case,
    load: &mut Load,
    rig: &Rig<'_>,
    round: usize,
    time: Duration,
    tsc_hz: f64,
) -> Result<Vec<Row>> {
    let most = load.measure(Mode::Descriptors, THROUGHPUT, rig.stop)?.rate();
    let mut rows = Vec::new();
    for part in LOADS {
        let before = stolen(rig.dut_core)?;
        let paced = load.pace(most * part, rig.stop, |t| t >= time)?;
        let stolen = stolen(rig.dut_core)? - before;
        rows.push(Row::new(case.name(), format!("{:.0} %", part * 100.0), round, &paced, tsc_hz, stolen));
    }
    load.verify(rig.stop)?;
    Ok(rows)
}

/// What the control plane does meanwhile.
type Work = (&'static str, fn(&Wharf, &str) -> Result<()>);

const WORKS: [Work; 6] = [
    ("nothing", |_, _| Ok(())),
    ("100,000 routes are added", |wharf, via| {
        wharf.run(&format!("ip route add count {ROUTES} {FIRST_ROUTE} via {via}")).map(drop)
    }),
    ("show commands, 10 times each", |wharf, _| {
        let shows =
            ["interface", "runtime", "errors", "buffers", "threads", "memif", "ip neighbors", "ip fib"];
        for command in shows.iter().cycle().take(shows.len() * 10) {
            wharf.run(&format!("show {command}"))?;
        }
        Ok(())
    }),
    ("100,000 routes are removed", |wharf, _| {
        wharf.run(&format!("ip route del count {ROUTES} {FIRST_ROUTE}")).map(drop)
    }),
    ("10,000 routes, one by one", |wharf, via| {
        let routes = |n: u32| format!("20.{}.{}.0/24", n >> 8, n & 255);
        let add = (0..5000).map(|n| format!("ip route add {} via {via}\n", routes(n)));
        let del = (0..5000).map(|n| format!("ip route del {}\n", routes(n)));
        wharf.script(&add.chain(del).collect::<String>())
    }),
    ("10 interfaces come and go", |wharf, _| {
        for _ in 0..10 {
            for command in [
                "create interface memif id 7 socket-id 1 master",
                "set interface state memif1/7 up",
                "set interface ip address memif1/7 192.168.7.1/24",
                "set interface state memif1/7 down",
                "delete interface memif1/7",
            ] {
                wharf.run(command)?;
            }
        }
        Ok(())
    }),
];

/// Watches a flow while main works.
fn disturb(load: &mut Load, dut: &mut Dut, rig: &Rig<'_>, tsc_hz: f64) -> Result<(Vec<Row>, Option<f64>)> {
    let Dut::Wharf(wharf) = dut else { return Err("only wharf can be told to work".into()) };
    let most = load.measure(Mode::Descriptors, THROUGHPUT, rig.stop)?.rate();
    let mut rows = Vec::new();
    for (what, work) in WORKS {
        let done = AtomicBool::new(false);
        let (wharf, done) = (&*wharf, &done);
        let before = stolen(rig.dut_core)?;
        let (paced, took) = std::thread::scope(|scope| {
            // With main, on the load's core: the worker has its own.
            let main = scope.spawn(move || {
                pin(rig.load_core)?;
                let start = Instant::now();
                let result = work(wharf, "192.168.2.2 memif2/0");
                let took = start.elapsed();
                done.store(true, Ordering::Relaxed);
                result.map(|()| took)
            });
            let paced =
                load.pace(most * DISTURBED, rig.stop, |t| t >= SHORTEST && done.load(Ordering::Relaxed));
            let took = main.join().unwrap_or_else(|_| Err("the commands died".into()))?;
            Ok::<_, String>((paced?, took))
        })?;
        let stolen = stolen(rig.dut_core)? - before;
        let mut row = Row::new(Case::Ip4.name(), what.into(), 1, &paced, tsc_hz, stolen);
        row.took_ms = Some(took.as_secs_f64() * 1e3);
        rows.push(row);
    }
    load.verify(rig.stop)?;
    Ok((rows, wharf.longest_turn().ok()))
}

/// The table of times.
fn latencies(rows: &[Row]) -> String {
    let mut text = String::new();
    // Writing to a String can't fail.
    let _ = writeln!(
        text,
        "\nmicroseconds from sending to receiving, medians over the rounds\n{:<12}{:>6}{:>8}{:>9}{:>9}{:>9}{:>8}{:>10}{:>9}{:>15}{:>10}",
        "path",
        "load",
        "Mpps",
        "p50",
        "p99",
        "p99.9",
        "lost",
        "in stalls",
        "gap",
        "load off core",
        "doubtful"
    );
    for case in CASES {
        for part in LOADS {
            let what = format!("{:.0} %", part * 100.0);
            let of = |value: fn(&Row) -> f64| {
                let rows = rows.iter().filter(|r| r.path == case.name() && r.what == what);
                Spread::of(rows.map(value))
            };
            let median = |value| of(value).map_or(f64::NAN, |s| s.median);
            let most = |value| of(value).map_or(f64::NAN, |s| s.max);
            let _ = writeln!(
                text,
                "{:<12}{what:>6}{:>8.2}{:>9.2}{:>9.2}{:>9.2}{:>8.0}{:>10.0}{:>9.1}{:>15.0}{:>9.2}%",
                case.name(),
                median(|r| r.mpps),
                median(|r| r.p50_us),
                median(|r| r.p99_us),
                median(|r| r.p999_us),
                most(|r| r.lost as f64),
                most(|r| r.lost_in_stalls as f64),
                most(|r| r.longest_gap_us),
                most(|r| r.longest_stall_us),
                median(|r| r.doubtful) * 100.0,
            );
        }
    }
    text + NOTE
}

const NOTE: &str = "lost, gap (the longest time without a packet) and load off core (the longest time for which the load \
did not run): the\nworst round. Doubtful packets were on their way when the load did not run, in a stall: they are in no \
time and no gap, and those of\nthe lost that the load's full ring cost are under \"in stalls\".\n";

fn disturbances(rows: &[Row], turn: Option<f64>) -> String {
    let mut text = format!(
        "\na flow of {:.1} Mpps over IPv4 while main works; times in microseconds\n{:<32}{:>9}{:>11}{:>6}{:>10}{:>9}{:>9}{:>9}{:>15}{:>10}{:>8}\n",
        rows.first().map_or(0.0, |r| r.mpps),
        "main's work",
        "took ms",
        "sent",
        "lost",
        "in stalls",
        "p50",
        "p99.9",
        "gap",
        "load off core",
        "doubtful",
        "stolen"
    );
    for r in rows {
        let _ = writeln!(
            text,
            "{:<32}{:>9.1}{:>11}{:>6}{:>10}{:>9.2}{:>9.2}{:>9.1}{:>15.0}{:>9.1}%{:>8.0}",
            r.what,
            r.took_ms.unwrap_or_default(),
            r.sent,
            r.lost,
            r.lost_in_stalls,
            r.p50_us,
            r.p999_us,
            r.longest_gap_us,
            r.longest_stall_us,
            r.doubtful * 100.0,
            r.stolen_ms
        );
    }
    if let Some(turn) = turn {
        let _ = writeln!(text, "the worker's longest turn since its start, by its own account: {turn:.0} us");
    }
    text + "main and its clients share the core of the load, which is therefore often off its core; stolen: milliseconds that \
the host took\nfrom the worker's core.\n"
}
