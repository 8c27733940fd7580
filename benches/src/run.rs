//! The comparison: rounds through all paths.

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use clap::ValueEnum;

use crate::case::Case;
use crate::load::{Load, Mode, Sample};
use crate::machine::{Machine, round_trip};
use crate::process::{Program, Stop, WorkDir, cpu_seconds, pin, target_dir};
use crate::report::{Report, Run};
use crate::wharf::{Binaries, Wharf};
use crate::{CompareOptions, Result, duration, testpmd, wharf};

/// What all runs share.
struct Rig<'a> {
    dut_core: usize,
    load_core: usize,
    time: Duration,
    modes: Vec<Mode>,
    testpmd: Result<PathBuf>,
    wharf: Result<Binaries>,
    stop: &'a Stop,
}

/// A program under test: only wharf can be asked something.
enum Dut {
    Other(Program),
    Wharf(Wharf),
}

impl Dut {
    fn program(&mut self) -> &mut Program {
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

impl Rig<'_> {
    fn start(&self, case: Case, dir: &WorkDir) -> Result<Dut> {
        match case {
            Case::Floor => {
                let own = std::env::current_exe().map_err(|e| format!("this program: {e}"))?;
                let mut command = Command::new(own);
                command.arg("floor").arg(dir.path()).arg(self.dut_core.to_string());
                Program::start("floor", &mut command, dir).map(Dut::Other)
            }
            Case::TestpmdIo | Case::TestpmdMac => {
                let mode = if case == Case::TestpmdIo { "io" } else { "mac" };
                let program = self.testpmd.as_ref().map_err(Clone::clone)?;
                testpmd::start(program, mode, self.dut_core, self.load_core, dir).map(Dut::Other)
            }
            Case::Xconnect | Case::Bridge | Case::Vxlan | Case::Ip4 | Case::Ip4Million => {
                let binaries = self.wharf.as_ref().map_err(Clone::clone)?;
                let wharf = Wharf::start(binaries, self.dut_core, self.load_core, dir, self.stop)?;
                wharf.run_all(&wharf::interfaces(&dir.sockets()))?;
                wharf.run_all(&wharf::forwarding(case))?;
                Ok(Dut::Wharf(wharf))
            }
        }
    }

    /// One run of one path: what was counted in each mode, and wharf's account of its nodes.
    fn run(&self, case: Case) -> Result<Vec<Measured>> {
        let dir = WorkDir::new()?;
        let mut dut = self.start(case, &dir)?;
        // On a thread of its own: programs inherit the core of who starts them.
        let measured = std::thread::scope(|scope| {
            let load = || {
                pin(self.load_core)?;
                self.measure(case, &mut dut, &dir)
            };
            scope.spawn(load).join().unwrap_or_else(|_| Err("the load died".into()))
        });
        measured.map_err(|e| dut.program().explain(&e))
    }

    fn measure(&self, case: Case, dut: &mut Dut, dir: &WorkDir) -> Result<Vec<Measured>> {
        let [first, second] = dir.sockets();
        let mut load = Load::connect([&first, &second], case.traffic(), case.arrives(), || {
            self.stop.check()?;
            dut.program().check()
        })?;
        load.verify(self.stop)?;
        let mut measured = Vec::new();
        for mode in &self.modes {
            if let Dut::Wharf(wharf) = dut {
                wharf.run("clear runtime")?;
            }
            let pid = dut.program().id();
            let (begin, before) = (Instant::now(), [cpu_seconds(pid)?, cpu_seconds(std::process::id())?]);
            let sample = load.measure(*mode, self.time, self.stop)?;
            let time = begin.elapsed().as_secs_f64();
            let after = [cpu_seconds(pid)?, cpu_seconds(std::process::id())?];
            // Both work all the time, so whoever has less than all of a core was held up.
            let share = (after[0] - before[0]).min(after[1] - before[1]) / time;
            let runtime = match dut {
                Dut::Wharf(wharf) => Some(wharf.run("show runtime")?),
                Dut::Other(_) => None,
            };
            // It still does what it should, and did not save time by doing something else.
            load.verify(self.stop)?;
            measured.push(Measured { mode: *mode, sample, share, runtime });
        }
        Ok(measured)
    }
}

/// Runs the comparison, prints it, and writes it down. An error if a path could not be measured.
pub(crate) fn compare(options: &CompareOptions, stop: &Stop) -> Result<()> {
    let cases =
        if options.paths.is_empty() { Case::value_variants().to_vec() } else { options.paths.clone() };
    let place = &options.place;
    if options.rounds == 0 || place.dut_core == place.load_core {
        return Err("there must be a round, and a core for each of program and load".into());
    }
    let mut report = Report::new(Machine::here(), options.rounds, options.seconds);
    let rig = Rig {
        dut_core: place.dut_core,
        load_core: place.load_core,
        time: duration(options.seconds)?,
        modes: if options.load.is_empty() { Mode::value_variants().to_vec() } else { options.load.clone() },
        testpmd: testpmd::locate(options.testpmd.as_deref()),
        wharf: Binaries::locate(place.wharf.as_deref()),
        stop,
    };
    print!("{}", report.head());
    'rounds: for round in 1..=options.rounds {
        let round_trip = round_trip([place.dut_core, place.load_core])?;
        println!("round {round}: core to core and back {round_trip:.0} ns");
        report.round_trips.push(round_trip);
        for case in &cases {
            if report.failed(*case) {
                continue;
            }
            match rig.run(*case) {
                Ok(measured) => {
                    for m in measured {
                        let run = Run::new(*case, m.mode, round, &m.sample, m.share, &report.machine);
                        println!("round {round}: {:<12} {:6.2} Mpps ({})", case.name(), run.mpps, run.load());
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
    println!("results: {}", path.display());
    stop.check()?;
    report.verdict()
}
