//! The comparison: rounds through all paths.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use clap::ValueEnum;

use crate::case::Case;
use crate::load::{Load, Mode, Sample};
use crate::machine::{Machine, round_trip};
use crate::process::{Program, Stop, WorkDir, cpu_seconds, pin, target_dir};
use crate::report::{Report, Run};
use crate::wharf::{Binaries, Wharf};
use crate::{CompareOptions, Place, Result, duration, testpmd, wharf};

/// Time for packets to all destinations to have come by.
const SESSIONS: Duration = Duration::from_secs(2);

/// What all runs share.
pub(crate) struct Rig<'a> {
    /// Core of the program under test.
    pub(crate) dut_core: usize,
    /// Core of the load.
    pub(crate) load_core: usize,
    testpmd: Result<PathBuf>,
    wharf: Result<Binaries>,
    /// When to end early.
    pub(crate) stop: &'a Stop,
}

/// A program under test: only wharf can be asked something.
pub(crate) enum Dut {
    Other(Program),
    Wharf(Wharf),
}

impl Dut {
    /// Its process.
    pub(crate) fn program(&mut self) -> &mut Program {
        match self {
            Dut::Other(program) => program,
            Dut::Wharf(wharf) => &mut wharf.program,
        }
    }
}

/// What was counted, and wharf's account of its nodes.
struct Measured {
    mode: Mode,
    sample: Sample,
    share: f64,
    runtime: Option<String>,
}

impl<'a> Rig<'a> {
    /// Where programs are, and where they run. What is not there is missed when it is needed.
    pub(crate) fn new(place: &Place, testpmd: Option<&Path>, stop: &'a Stop) -> Result<Self> {
        if place.dut_core == place.load_core {
            return Err("there must be a core for each of program and load".into());
        }
        Ok(Rig {
            dut_core: place.dut_core,
            load_core: place.load_core,
            testpmd: testpmd::locate(testpmd),
            wharf: Binaries::locate(place.wharf.as_deref()),
            stop,
        })
    }

    /// A new wharf, without any interface.
    pub(crate) fn wharf(&self, dir: &WorkDir) -> Result<Wharf> {
        let binaries = self.wharf.as_ref().map_err(Clone::clone)?;
        Wharf::start(binaries, self.dut_core, self.load_core, dir, self.stop)
    }

    /// The program of `case`, ready for connections to the sockets of `dir`.
    pub(crate) fn start(&self, case: Case, dir: &WorkDir) -> Result<Dut> {
        match case {
            Case::Floor | Case::FloorMillion => {
                let own = std::env::current_exe().map_err(|e| format!("this program: {e}"))?;
                let mut command = Command::new(own);
                command.arg("floor").arg(dir.path()).arg(self.dut_core.to_string());
                Program::start("floor", &mut command, dir).map(Dut::Other)
            }
            Case::TestpmdIo | Case::TestpmdIoMillion | Case::TestpmdMac => {
                let mode = if case == Case::TestpmdMac { "mac" } else { "io" };
                let program = self.testpmd.as_ref().map_err(Clone::clone)?;
                testpmd::start(program, mode, self.dut_core, self.load_core, dir).map(Dut::Other)
            }
            _ => {
                let wharf = self.wharf(dir)?;
                wharf.run_all(&wharf::interfaces(&dir.sockets()))?;
                wharf.run_all(&wharf::forwarding(case))?;
                Ok(Dut::Wharf(wharf))
            }
        }
    }

    /// Starts the program of `case`, and runs `work` with a connected load on the load's core.
    pub(crate) fn with<T: Send>(
        &self,
        case: Case,
        work: impl FnOnce(&mut Load, &mut Dut) -> Result<T> + Send,
    ) -> Result<T> {
        let dir = WorkDir::new()?;
        let mut dut = self.start(case, &dir)?;
        // On a thread of its own: programs inherit the core of who starts them.
        let done = std::thread::scope(|scope| {
            let load = || {
                pin(self.load_core)?;
                let [first, second] = dir.sockets();
                let mut load = Load::connect([&first, &second], case.traffic(), case.arrives(), || {
                    self.stop.check()?;
                    dut.program().check()
                })?;
                load.verify(self.stop)?;
                work(&mut load, &mut dut)
            };
            scope.spawn(load).join().unwrap_or_else(|_| Err("the load died".into()))
        });
        done.map_err(|e| dut.program().explain(&e))
    }

    /// One run of one path: what was counted in each mode, and wharf's account of its nodes.
    fn measure(&self, case: Case, modes: &[Mode], time: Duration) -> Result<Vec<Measured>> {
        self.with(case, |load, dut| {
            let mut measured = Vec::new();
            let mut modes = modes;
            if case == Case::AclReflect1m {
                // Its packets open a million sessions first.
                modes = &[Mode::Packets];
                load.measure(Mode::Packets, SESSIONS, self.stop)?;
            }
            for mode in modes {
                if let Dut::Wharf(wharf) = dut {
                    wharf.run("clear runtime")?;
                }
                let (sample, share) = counted(load, *mode, time, dut.program().id(), self.stop)?;
                let runtime = match dut {
                    Dut::Wharf(wharf) => Some(wharf.run("show runtime")?),
                    Dut::Other(_) => None,
                };
                // It still does what it should, and did not save time by doing something else.
                load.verify(self.stop)?;
                measured.push(Measured { mode: *mode, sample, share, runtime });
            }
            Ok(measured)
        })
    }
}

/// What was counted, and the part of the time that program `pid` and load, the lesser of the two, had their cores.
pub(crate) fn counted(
    load: &mut Load,
    mode: Mode,
    time: Duration,
    pid: u32,
    stop: &Stop,
) -> Result<(Sample, f64)> {
    let own = std::process::id();
    let (begin, before) = (Instant::now(), [cpu_seconds(pid)?, cpu_seconds(own)?]);
    let sample = load.measure(mode, time, stop)?;
    let time = begin.elapsed().as_secs_f64();
    let after = [cpu_seconds(pid)?, cpu_seconds(own)?];
    // Both work all the time, so whoever has less than all of a core was held up.
    Ok((sample, (after[0] - before[0]).min(after[1] - before[1]) / time))
}

/// Runs the comparison, prints it, and writes it down. An error if a path could not be measured.
pub(crate) fn compare(options: &CompareOptions, stop: &Stop) -> Result<()> {
    let cases =
        if options.paths.is_empty() { Case::value_variants().to_vec() } else { options.paths.clone() };
    if options.rounds == 0 {
        return Err("there must be a round".into());
    }
    let rig = Rig::new(&options.place, options.testpmd.as_deref(), stop)?;
    let modes =
        if options.load.is_empty() { vec![Mode::Descriptors, Mode::Indices] } else { options.load.clone() };
    let time = duration(options.seconds)?;
    let mut report = Report::new(Machine::here(), options.rounds, options.seconds);
    print!("{}", report.head());
    'rounds: for round in 1..=options.rounds {
        let round_trip = round_trip([rig.dut_core, rig.load_core])?;
        println!("round {round}: core to core and back {round_trip:.0} ns");
        report.round_trips.push(round_trip);
        for case in &cases {
            if report.failed(*case) {
                continue;
            }
            match rig.measure(*case, &modes, time) {
                Ok(measured) => {
                    for m in measured {
                        let run = Run::new(*case, m.mode, round, &m.sample, m.share, &report.machine);
                        println!("round {round}: {:<18} {:6.2} Mpps ({})", case.name(), run.mpps, run.load());
                        report.add(run, m.runtime);
                    }
                }
                Err(_) if stop.check().is_err() => break 'rounds,
                Err(e) => report.fail(*case, e),
            }
        }
    }
    print!("{}", report.table());
    let path = match &options.json {
        Some(path) => path.clone(),
        None => target_dir()?.join("bench").join(format!("memif-{}.json", report.unix_time)),
    };
    report.write(&path)?;
    let svg = path.with_extension("svg");
    std::fs::write(&svg, report.plot()).map_err(|e| format!("{}: {e}", svg.display()))?;
    println!("results: {} and {}", path.display(), svg.display());
    stop.check()?;
    report.verdict()
}
