//! What the checks of a memif peer cost: the cross-connect by two builds of wharf, in turn.
//!
//! The other build leaves out what is checked of each burst and each descriptor (`--cfg memif_unchecked`; see
//! `memif/src/config.rs`). Packets are copied before they are parsed in both: that is how buffers work here.
//!
//! The load leaves the descriptors in wharf's cache: waiting for their lines would hide work, or drown it.
//! How far the cores are from each other makes more of a difference than the checks, and on a shared machine it changes
//! when the host moves a core. So it is measured around each run, and only rounds where it stayed the same are compared.

use crate::case::Case;
use crate::load::Mode;
use crate::machine::{Machine, round_trip};
use crate::report::{Spread, remark};
use crate::run::{Dut, Rig, counted};
use crate::{ChecksOptions, Result, duration};

/// One run of one build.
#[derive(Debug, Clone, Copy)]
struct Row {
    mpps: f64,
    /// By the clock on the wall.
    cycles: f64,
    /// By the worker's own account, waiting for packets left out.
    nodes: f64,
    starved: f64,
    core_share: f64,
    /// The least and the most that a cache line took from core to core and back, before and after, in nanoseconds.
    round_trip: [f64; 2],
}

/// Whether the cores were as far from each other in all of `rows`.
fn alike(rows: [&Row; 2]) -> bool {
    let least = rows.iter().map(|r| r.round_trip[0]).fold(f64::INFINITY, f64::min);
    let most = rows.iter().map(|r| r.round_trip[1]).fold(0.0, f64::max);
    most < 1.5 * least
}

fn measure(rig: &Rig<'_>, options: &ChecksOptions, tsc_hz: f64) -> Result<Row> {
    let time = duration(options.seconds)?;
    let trip = || round_trip([rig.dut_core, rig.load_core]);
    let before = trip()?;
    let mut row = rig.with(Case::Xconnect, |load, dut| {
        let Dut::Wharf(wharf) = dut else { return Err("the cross-connect is not wharf's".into()) };
        wharf.run("clear runtime")?;
        let (sample, core_share) = counted(load, Mode::Indices, time, wharf.program.id(), rig.stop)?;
        let nodes = wharf.runtime()?.clocks_per_packet;
        load.verify(rig.stop)?;
        let (mpps, cycles) = (sample.rate() / 1e6, tsc_hz / sample.rate());
        Ok(Row { mpps, cycles, nodes, starved: sample.starved, core_share, round_trip: [before; 2] })
    })?;
    let after = trip()?;
    row.round_trip = [before.min(after), before.max(after)];
    Ok(row)
}

/// Measures and prints.
pub(crate) fn run(options: &ChecksOptions, checked: &Rig<'_>, unchecked: &Rig<'_>) -> Result<()> {
    let machine = Machine::here();
    print!("{}", machine.describe());
    println!(
        "wharf, one worker, cross-connect of 60-byte packets from memif to memif; {} rounds, {} s a run\n",
        options.rounds, options.seconds
    );
    let mut rows = [Vec::new(), Vec::new()];
    for round in 0..options.rounds {
        // Neither is always the first.
        for build in [round % 2, 1 - round % 2] {
            let row = measure([checked, unchecked][build], options, machine.tsc_hz)?;
            let name = NAMES[build];
            println!(
                "round {}: {name:<9} {:6.2} Mpps, {:.1} cycles in nodes; core to core and back {:.0} to {:.0} ns",
                round + 1,
                row.mpps,
                row.nodes,
                row.round_trip[0],
                row.round_trip[1]
            );
            rows[build].push(row);
        }
    }
    let [with, without] = &rows;
    let mut rounds: Vec<_> = with.iter().zip(without).collect();
    rounds.retain(|(with, without)| alike([with, without]));
    println!("\n{:>10}{:>9}{:>9}{:>9}", "", "Mpps", "cycles", "nodes");
    for (i, name) in NAMES.iter().enumerate() {
        let of = |value: fn(&Row) -> f64| median(rounds.iter().map(|r| value([r.0, r.1][i])));
        println!(
            "{name:>10}{:>9.2}{:>9.1}{:>9.1}{}",
            of(|r| r.mpps),
            of(|r| r.cycles),
            of(|r| r.nodes),
            remark(of(|r| r.starved), of(|r| r.core_share))
        );
    }
    let price = Spread::of(rounds.iter().map(|(with, without)| with.nodes - without.nodes));
    let Some(Spread { median, min, max, .. }) = price else {
        return Err("there must be a round through which the cores stay where they are".into());
    };
    println!("\nthe checks: {median:.1} cycles a packet in wharf's nodes");
    println!(
        "(median of {} rounds, {min:.1} to {max:.1}; {} left out: a core moved)",
        rounds.len(),
        with.len() - rounds.len()
    );
    Ok(())
}

const NAMES: [&str; 2] = ["checked", "unchecked"];

fn median(values: impl Iterator<Item = f64>) -> f64 {
    Spread::of(values).map_or(f64::NAN, |s| s.median)
}
