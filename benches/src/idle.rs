//! What a daemon without work costs: processor time and memory.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::case::Case;
use crate::load::Load;
use crate::machine::Machine;
use crate::process::{Stop, WorkDir, cpu_seconds, memory, output};
use crate::wharf::{Binaries, Wharf};
use crate::{Place, Result, wharf};

/// After the set-up, before watching.
const SETTLE: Duration = Duration::from_secs(1);

/// Two veth pairs in a network namespace of their own, gone when dropped.
struct Veths {
    netns: String,
}

impl Veths {
    fn new() -> Result<Self> {
        let veths = Veths { netns: format!("wh-bench-{}", std::process::id()) };
        let netns = veths.netns.as_str();
        output("ip", &["netns", "add", netns])?;
        for n in ["0", "1"] {
            let (ours, other) = (format!("veth{n}"), format!("peer{n}"));
            output("ip", &["-n", netns, "link", "add", &ours, "type", "veth", "peer", "name", &other])?;
            for device in [&ours, &other] {
                output("ip", &["-n", netns, "link", "set", device, "up"])?;
            }
        }
        Ok(veths)
    }
}

impl Drop for Veths {
    fn drop(&mut self) {
        let _ = output("ip", &["netns", "del", &self.netns]);
    }
}

/// Watches a wharf that is left alone for `time`, once it is quiet; the part of a core that it uses, in per cent.
pub(crate) fn used_idle(wharf: &mut Wharf, time: Duration, stop: &Stop) -> Result<f64> {
    std::thread::sleep(SETTLE);
    let pid = wharf.program.id();
    let (begin, before) = (Instant::now(), cpu_seconds(pid)?);
    while begin.elapsed() < time {
        std::thread::sleep(Duration::from_millis(50));
        stop.check()?;
        wharf.program.check()?;
    }
    Ok((cpu_seconds(pid)? - before) / begin.elapsed().as_secs_f64() * 100.0)
}

/// Starts wharf with two memif interfaces that are connected, cross-connected, and silent, and two AF_XDP interfaces if
/// told so; watches it for `time`.
pub(crate) fn run(place: &Place, time: Duration, af_xdp: bool, stop: &Stop) -> Result<()> {
    let binaries = Binaries::locate(place.wharf.as_deref())?;
    let veths = if af_xdp { Some(Veths::new()?) } else { None };
    let dir = WorkDir::new()?;
    let mut wharf = Wharf::start(&binaries, place.dut_core, place.load_core, &dir, stop)?;
    let pid = wharf.program.id();
    print!("{}", Machine::here().describe());
    let (start, _) = memory(pid)?;
    println!("resident at start: {start:.1} MiB");

    let sockets = dir.sockets();
    wharf.run_all(&wharf::interfaces(&sockets))?;
    wharf.run_all(&wharf::forwarding(Case::Xconnect))?;
    if let Some(Veths { netns }) = &veths {
        for host_if in ["veth0", "veth1"] {
            wharf.run_all(&wharf::af_xdp(host_if, netns))?;
        }
    }
    let [first, second] = sockets.each_ref().map(|s| s as &Path);
    let case = Case::Xconnect;
    // Connected, and held until the end.
    let load = Load::connect([first, second], case.traffic(), case.arrives(), || {
        stop.check()?;
        wharf.program.check()
    })?;
    let used = used_idle(&mut wharf, time, stop)?;
    let (now, most) = memory(pid)?;
    drop(load);
    println!(
        "with two memif{} interfaces up and no traffic: {used:.1} % of a core over {:.0} s, {now:.1} MiB \
         resident ({most:.1} at most)",
        if af_xdp { " and two AF_XDP" } else { "" },
        time.as_secs_f64()
    );
    Ok(())
}
