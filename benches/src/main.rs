//! wharf beside its peers, over memif: packets a second, and cycles a packet, of one worker on one core.
//!
//! A path is a program under test and what it does with packets. Each run starts the program anew, connects to its two
//! memif interfaces as a client, sends into one and counts what comes out of the other. The [load] costs next to nothing
//! and is never the bottleneck, so the time of a packet is the program's. Rounds go through all paths in turn: on a
//! shared machine only ratios within a round mean something.
#![forbid(unsafe_code)]

mod api;
mod attach;
mod case;
mod checks;
mod floor;
mod gate;
mod growth;
mod histogram;
mod idle;
mod latency;
mod load;
mod machine;
mod pace;
mod process;
mod report;
mod run;
mod scaling;
mod svg;
mod tcp;
mod testpmd;
mod traffic;
mod wharf;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use case::Case;
use load::Mode;
use process::Stop;
use run::Rig;

/// What went wrong, for the person who runs it.
type Result<T> = std::result::Result<T, String>;

/// Measure wharf and its peers over memif
#[derive(Parser)]
#[command(version, args_conflicts_with_subcommands = true)]
struct Options {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    compare: CompareOptions,
}

#[derive(Subcommand)]
enum Command {
    /// The floor itself: forward between D/m1.sock and D/m2.sock until the peer leaves
    #[command(hide = true)]
    Floor {
        /// Directory of the sockets
        dir: PathBuf,
        /// Core to run on
        core: usize,
    },
    /// Time that packets take at a part of the throughput, and while the control plane works
    Latency(LatencyOptions),
    /// Cost of a packet against growth of tables, ports, vectors and packets
    Growth(GrowthOptions),
    /// Cost of the checks of a memif peer: wharf beside a build without them
    Checks(ChecksOptions),
    /// TCP by iperf3 over AF_XDP, beside a kernel bridge (needs root)
    Tcp(TcpOptions),
    /// Count instructions of the hot paths under valgrind, and compare them with the baseline
    Gate {
        /// Write the baseline anew
        #[arg(long)]
        update: bool,
    },
    /// The paths of the gate, for valgrind to count
    #[command(hide = true)]
    GatePaths,
    /// Route messages a second over the binary API, and how long pings take while the control plane works
    Api(Place),
    /// Time from a memif client's connect to its first packet, and what many silent ones cost
    Attach {
        /// Clients, an even number
        #[arg(long, default_value_t = 256)]
        interfaces: u32,
        /// Seconds to watch them idle
        #[arg(long, default_value_t = 5.0)]
        seconds: f64,
        #[command(flatten)]
        place: Place,
    },
    /// Processor time and memory of an idle wharf
    Idle {
        /// Seconds to watch it
        #[arg(long, default_value_t = 5.0)]
        seconds: f64,
        /// Leave the two AF_XDP interfaces out, which need root
        #[arg(long)]
        no_af_xdp: bool,
        #[command(flatten)]
        place: Place,
    },
}

/// Where programs are, and where they run.
#[derive(Args)]
struct Place {
    /// Core of the program under test
    #[arg(long, default_value_t = 0)]
    dut_core: usize,
    /// Core of the load
    #[arg(long, default_value_t = 1)]
    load_core: usize,
    /// The wharf to measure [default: beside this program; wharfctl is beside it]
    #[arg(long)]
    wharf: Option<PathBuf>,
}

#[derive(Args)]
struct CompareOptions {
    /// Rounds through all paths
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Seconds to count in each run
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// Paths, separated by commas [default: all]
    #[arg(long, value_delimiter = ',')]
    paths: Vec<Case>,
    /// What the load writes, separated by commas [default: both, one after the other]
    #[arg(long, value_delimiter = ',')]
    load: Vec<Mode>,
    /// The dpdk-testpmd to compare with [default: target/peers/bin, then PATH]
    #[arg(long)]
    testpmd: Option<PathBuf>,
    /// Where the results go [default: target/bench/memif-TIME.json]
    #[arg(long)]
    json: Option<PathBuf>,
    #[command(flatten)]
    place: Place,
}

#[derive(Args)]
struct LatencyOptions {
    /// Rounds through all paths
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Seconds at each rate
    #[arg(long, default_value_t = 1.0)]
    seconds: f64,
    /// The dpdk-testpmd to compare with [default: target/peers/bin, then PATH]
    #[arg(long)]
    testpmd: Option<PathBuf>,
    /// Where the results go [default: target/bench/latency-TIME.json]
    #[arg(long)]
    json: Option<PathBuf>,
    #[command(flatten)]
    place: Place,
}

#[derive(Args)]
struct GrowthOptions {
    /// Only what grows by this word of its name: routes, destinations, interfaces, slots, bytes
    #[arg(long)]
    axis: Option<String>,
    /// Rounds through all points
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Seconds at each point
    #[arg(long, default_value_t = 0.5)]
    seconds: f64,
    /// Where the results go [default: target/bench/growth-TIME.json]
    #[arg(long)]
    json: Option<PathBuf>,
    #[command(flatten)]
    place: Place,
}

#[derive(Args)]
struct ChecksOptions {
    /// Rounds through both builds
    #[arg(long, default_value_t = 10)]
    rounds: usize,
    /// Seconds of each run
    #[arg(long, default_value_t = 1.0)]
    seconds: f64,
    /// The wharf without checks (`make bench-checks` builds it)
    #[arg(long)]
    unchecked: PathBuf,
    #[command(flatten)]
    place: Place,
}

#[derive(Args)]
struct TcpOptions {
    /// Rounds
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Seconds of each run
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// Where the results go [default: target/bench/tcp-TIME.json]
    #[arg(long)]
    json: Option<PathBuf>,
    #[command(flatten)]
    place: Place,
}

/// Seconds as people write them.
fn duration(seconds: f64) -> Result<Duration> {
    Duration::try_from_secs_f64(seconds).map_err(|e| format!("{seconds} seconds: {e}"))
}

fn main() -> ExitCode {
    let options = Options::parse();
    let done = match options.command {
        Some(Command::Floor { dir, core }) => floor::run(&dir, core),
        Some(Command::Latency(options)) => Stop::new().and_then(|stop| {
            latency::run(&options, &Rig::new(&options.place, options.testpmd.as_deref(), &stop)?)
        }),
        Some(Command::Growth(options)) => {
            Stop::new().and_then(|stop| growth::run(&options, &Rig::new(&options.place, None, &stop)?))
        }
        Some(Command::Checks(options)) => Stop::new().and_then(|stop| {
            let Place { dut_core, load_core, .. } = options.place;
            let without = Place { dut_core, load_core, wharf: Some(options.unchecked.clone()) };
            let checked = Rig::new(&options.place, None, &stop)?;
            checks::run(&options, &checked, &Rig::new(&without, None, &stop)?)
        }),
        Some(Command::Tcp(options)) => {
            Stop::new().and_then(|stop| tcp::run(&options, &Rig::new(&options.place, None, &stop)?))
        }
        Some(Command::Gate { update }) => gate::run(update),
        Some(Command::GatePaths) => gate::run_paths(),
        Some(Command::Api(place)) => Stop::new().and_then(|stop| api::run(&place, &stop)),
        Some(Command::Attach { interfaces, seconds, place }) => Stop::new()
            .and_then(|stop| attach::run(&place, interfaces.next_multiple_of(2), duration(seconds)?, &stop)),
        Some(Command::Idle { seconds, no_af_xdp, place }) => {
            Stop::new().and_then(|stop| idle::run(&place, duration(seconds)?, !no_af_xdp, &stop))
        }
        None => Stop::new().and_then(|stop| run::compare(&options.compare, &stop)),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("wharf-benches: {message}");
            ExitCode::FAILURE
        }
    }
}
