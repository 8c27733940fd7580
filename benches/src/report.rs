//! Medians, spreads and ratios; the table and the file.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;

use crate::Result;
use crate::case::Case;
use crate::load::{Mode, Sample};
use crate::machine::Machine;
use crate::svg::{Bar, Chart, draw};
use crate::traffic::{DESTINATIONS, FRAME};

/// From here on the program under test may have waited for the load.
const STARVED: f64 = 0.01;
/// Below this, other programs ran on the cores of program and load. The clock behind it ticks every 10 ms.
pub(crate) const SHARE: f64 = 0.94;

/// One run of one path.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Run {
    #[serde(skip)]
    case: Case,
    /// Name of the path.
    pub(crate) path: &'static str,
    /// What the load wrote.
    load: Mode,
    /// From 1 on.
    pub(crate) round: usize,
    /// Millions of packets a second that came through.
    pub(crate) mpps: f64,
    /// Ticks of the time stamp counter per packet that came through.
    pub(crate) cycles_per_packet: f64,
    /// Packets taken.
    pub(crate) sent: u64,
    /// Packets that came through.
    pub(crate) received: u64,
    /// Over so many seconds.
    pub(crate) seconds: f64,
    /// Part of the load's looks at its ring that found it empty.
    pub(crate) starved: f64,
    /// Part of the time that program and load, the lesser of the two, had their cores for themselves.
    pub(crate) core_share: f64,
}

impl Run {
    /// From what was counted.
    pub(crate) fn new(
        case: Case,
        load: Mode,
        round: usize,
        sample: &Sample,
        core_share: f64,
        machine: &Machine,
    ) -> Self {
        Run {
            case,
            path: case.name(),
            load,
            round,
            mpps: sample.rate() / 1e6,
            cycles_per_packet: machine.tsc_hz / sample.rate(),
            sent: sample.sent,
            received: sample.received,
            seconds: sample.elapsed.as_secs_f64(),
            starved: sample.starved,
            core_share,
        }
    }

    /// What the load wrote, in a word.
    pub(crate) fn load(&self) -> &'static str {
        word(self.load)
    }
}

fn word(load: Mode) -> &'static str {
    match load {
        Mode::Descriptors => "descriptors",
        Mode::Indices => "indices",
        Mode::Packets => "packets",
    }
}

/// Median and extremes.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Spread {
    /// The middle one, or the mean of the two in the middle.
    pub(crate) median: f64,
    /// Least.
    pub(crate) min: f64,
    /// Most.
    pub(crate) max: f64,
}

impl Spread {
    /// Of at least one value.
    pub(crate) fn of(values: impl Iterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.collect();
        values.sort_by(f64::total_cmp);
        let (min, max) = (*values.first()?, *values.last()?);
        let (low, high) = (values.get((values.len() - 1) / 2)?, values.get(values.len() / 2)?);
        Some(Spread { median: (low + high) / 2.0, min, max })
    }
}

/// A path over all rounds.
#[derive(Debug, Serialize)]
struct Summary {
    path: &'static str,
    load: Mode,
    mpps: Spread,
    cycles_per_packet: Spread,
    /// Rate over that of testpmd io in the same round.
    of_testpmd_io: Option<Spread>,
    /// Cycles a packet beyond those of the floor in the same round.
    over_floor: Option<Spread>,
    /// The same two of what was measured with this path's own traffic, where it has its own.
    same_traffic: Option<(Spread, Spread)>,
    /// Packets that the program took and did not send on, of those it took.
    loss: f64,
    starved: f64,
    core_share: f64,
}

/// What makes numbers doubtful, behind two blanks each.
pub(crate) fn remark(starved: f64, core_share: f64) -> String {
    let mut text = String::new();
    if starved > STARVED {
        text += "  the load was too slow";
    }
    if core_share < SHARE {
        text += &format!("  only {:.0} % of a core", core_share * 100.0);
    }
    text
}

/// All that was measured.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    /// Where.
    pub(crate) machine: Machine,
    /// When.
    pub(crate) unix_time: u64,
    rounds: usize,
    seconds: f64,
    frame_bytes: usize,
    /// Of a cache line between the two cores, nanoseconds, before each round.
    pub(crate) round_trips: Vec<f64>,
    runs: Vec<Run>,
    /// wharf's account of its last run, by path.
    runtime: BTreeMap<String, String>,
    failures: BTreeMap<&'static str, String>,
}

impl Report {
    /// Nothing measured yet.
    pub(crate) fn new(machine: Machine, rounds: usize, seconds: f64) -> Self {
        Report {
            machine,
            unix_time: unix_time(),
            rounds,
            seconds,
            frame_bytes: FRAME,
            round_trips: Vec::new(),
            runs: Vec::new(),
            runtime: BTreeMap::new(),
            failures: BTreeMap::new(),
        }
    }

    /// What, where and how.
    pub(crate) fn head(&self) -> String {
        format!(
            "{}{} rounds, {} s a path; memif to memif, one worker; {FRAME}-byte frames without FCS, UDP to random \
             destinations out of {DESTINATIONS}:\na packet of its own in each of the 1,024 slots of the ring, 16,384 \
             for the million routes\n\n",
            self.machine.describe(),
            self.rounds,
            self.seconds
        )
    }

    /// Takes a run, and wharf's account of it.
    pub(crate) fn add(&mut self, run: Run, runtime: Option<String>) {
        if let Some(runtime) = runtime {
            self.runtime.insert(format!("{} ({})", run.path, run.load()), runtime);
        }
        self.runs.push(run);
    }

    /// Takes a failure.
    pub(crate) fn fail(&mut self, case: Case, error: String) {
        println!("{} cannot be measured: {error}", case.name());
        self.failures.insert(case.name(), error);
    }

    /// Whether a path has failed.
    pub(crate) fn failed(&self, case: Case) -> bool {
        self.failures.contains_key(case.name())
    }

    fn of(&self, case: Case, load: Mode) -> impl Iterator<Item = &Run> {
        self.runs.iter().filter(move |run| run.case == case && run.load == load)
    }

    fn same_round(&self, case: Case, run: &Run) -> Option<&Run> {
        self.of(case, run.load).find(|other| other.round == run.round)
    }

    fn summary(&self, case: Case, load: Mode) -> Option<Summary> {
        let ratio = |io| {
            let ratio = move |run: &Run| Some(run.mpps / self.same_round(io, run)?.mpps);
            Spread::of(self.of(case, load).filter_map(ratio))
        };
        let over = |floor| {
            let over =
                move |run: &Run| Some(run.cycles_per_packet - self.same_round(floor, run)?.cycles_per_packet);
            Spread::of(self.of(case, load).filter_map(over))
        };
        let (floor, io) = case.references();
        let (sent, received) =
            self.of(case, load).fold((0, 0), |(s, r), run| (s + run.sent, r + run.received));
        Some(Summary {
            path: case.name(),
            load,
            mpps: Spread::of(self.of(case, load).map(|run| run.mpps))?,
            cycles_per_packet: Spread::of(self.of(case, load).map(|run| run.cycles_per_packet))?,
            of_testpmd_io: ratio(Case::TestpmdIo),
            over_floor: over(Case::Floor),
            same_traffic: ratio(io)
                .zip(over(floor))
                .filter(|_| floor != Case::Floor && case != floor && case != io),
            loss: 1.0 - (received as f64 / sent as f64).min(1.0),
            starved: self.of(case, load).map(|run| run.starved).fold(0.0, f64::max),
            core_share: self.of(case, load).map(|run| run.core_share).fold(1.0, f64::min),
        })
    }

    fn summaries(&self) -> Vec<Summary> {
        let kinds: BTreeSet<(Mode, Case)> = self.runs.iter().map(|run| (run.load, run.case)).collect();
        kinds.into_iter().filter_map(|(load, case)| self.summary(case, load)).collect()
    }

    /// The table, and wharf's nodes.
    pub(crate) fn table(&self) -> String {
        let mut text = String::new();
        // Writing to a String can't fail.
        let mut load = None;
        for s in self.summaries() {
            if load != Some(s.load) {
                load = Some(s.load);
                let _ = writeln!(
                    text,
                    "\nmedians over the rounds, and their range; the load writes {}\n{:<18}{:>24}{:>15}{:>22}{:>12}{:>8}",
                    match s.load {
                        Mode::Descriptors => "descriptors, as applications do",
                        Mode::Indices => "indices only, so that caches stay warm",
                        Mode::Packets => "whole packets, as applications do",
                    },
                    "path",
                    "Mpps",
                    "cycles/packet",
                    "of testpmd io",
                    "over floor",
                    "loss"
                );
            }
            let spread = |s: Spread| format!("{:.2} ({:.2} to {:.2})", s.median, s.min, s.max);
            let none = || "-".to_string();
            let _ = writeln!(
                text,
                "{:<18}{:>24}{:>15.1}{:>22}{:>12}{:>7.1}%{}{}",
                s.path,
                spread(s.mpps),
                s.cycles_per_packet.median,
                s.of_testpmd_io.map_or_else(none, spread),
                s.over_floor.map_or_else(none, |s| format!("{:+.1}", s.median)),
                s.loss * 100.0,
                remark(s.starved, s.core_share),
                s.same_traffic.map_or_else(String::new, |(ratio, over)| format!(
                    "  {:.2} of testpmd io and {:+.1} over the floor with the same traffic",
                    ratio.median, over.median
                ))
            );
        }
        for (path, error) in &self.failures {
            let _ = writeln!(text, "{path:<18}not measured: {}", error.lines().next().unwrap_or_default());
        }
        for (path, runtime) in &self.runtime {
            let _ = writeln!(
                text,
                "\n{path}: wharf's nodes in the last round (show runtime)\n{}",
                runtime.trim_end()
            );
        }
        text.push('\n');
        text
    }

    /// The table as a plot.
    pub(crate) fn plot(&self) -> String {
        let mut charts: Vec<Chart> = Vec::new();
        for s in self.summaries() {
            let title = format!("Mpps, 64-byte packets; the load writes {}", word(s.load));
            if charts.last().is_none_or(|c| c.title != title) {
                charts.push(Chart { title, bars: Vec::new() });
            }
            let ours = !matches!(s.path, "floor" | "testpmd-io" | "testpmd-mac");
            let bar = Bar {
                label: if ours { format!("wharf {}", s.path) } else { s.path.into() },
                value: s.mpps,
                note: format!("({:.0} cycles)", s.cycles_per_packet.median),
                ours,
            };
            if let Some(chart) = charts.last_mut() {
                chart.bars.push(bar);
            }
        }
        let lines = self.machine.lines(self.unix_time);
        draw("memif to memif, one worker: medians and range", &lines, &charts)
    }

    /// Writes everything to a file.
    pub(crate) fn write(&self, path: &Path) -> Result<()> {
        #[derive(Serialize)]
        struct All<'a> {
            #[serde(flatten)]
            report: &'a Report,
            summary: Vec<Summary>,
        }
        write_json(path, &All { report: self, summary: self.summaries() })
    }

    /// An error if a path could not be measured.
    pub(crate) fn verdict(&self) -> Result<()> {
        let failed: Vec<&str> = self.failures.keys().copied().collect();
        if failed.is_empty() { Ok(()) } else { Err(format!("not measured: {}", failed.join(", "))) }
    }
}

/// Writes results to a file, in a directory that need not be there.
pub(crate) fn write_json(path: &Path, results: &impl Serialize) -> Result<()> {
    let fail = |e: std::io::Error| format!("{}: {e}", path.display());
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir).map_err(fail)?;
    }
    let json = serde_json::to_string_pretty(results).map_err(|e| fail(e.into()))?;
    fs::write(path, json + "\n").map_err(fail)
}

/// Seconds since 1970.
pub(crate) fn unix_time() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |t| t.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn medians() {
        let of = |values: &[f64]| Spread::of(values.iter().copied());
        assert_eq!(of(&[]), None);
        assert_eq!(of(&[3.0, 1.0, 9.0]), Some(Spread { median: 3.0, min: 1.0, max: 9.0 }));
        assert_eq!(of(&[4.0, 1.0, 9.0, 2.0]).map(|s| s.median), Some(3.0));
    }

    #[test]
    fn ratios_are_those_of_the_same_round() {
        let machine = Machine { tsc_hz: 2e9, ..Machine::here() };
        let mut report = Report::new(machine, 3, 1.0);
        for (round, io, ours) in [(1, 10, 20), (2, 40, 20), (3, 10, 15)] {
            for (case, received) in [(Case::TestpmdIo, io), (Case::Xconnect, ours)] {
                let received = received * 1_000_000;
                let sample =
                    Sample { sent: received * 2, received, elapsed: Duration::from_secs(1), starved: 0.0 };
                report.add(Run::new(case, Mode::Indices, round, &sample, 1.0, &report.machine), None);
            }
        }
        let summary = report.summary(Case::Xconnect, Mode::Indices).unwrap();
        assert_eq!(summary.of_testpmd_io, Some(Spread { median: 1.5, min: 0.5, max: 2.0 }));
        assert!(report.summary(Case::Xconnect, Mode::Descriptors).is_none());
        assert_eq!(summary.mpps.median, 20.0);
        assert_eq!(summary.cycles_per_packet.median, 100.0);
        assert_eq!(summary.loss, 0.5);
        assert_eq!(summary.over_floor, None);
        assert!(report.table().contains("1.50 (0.50 to 2.00)"), "{}", report.table());
    }
}
