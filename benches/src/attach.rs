//! Containers come: how long a memif client takes from `connect` to its first packet, while ever more are attached, and what
//! all of them cost when they are silent.

use std::time::{Duration, Instant};

use crate::histogram::Histogram;
use crate::idle::used_idle;
use crate::load::connect;
use crate::machine::Machine;
use crate::process::{Stop, WorkDir, memory, pin};
use crate::traffic::Traffic;
use crate::wharf::{Binaries, Wharf};
use crate::{Place, Result, wharf};

/// Time for a packet to come through.
const PATIENCE: Duration = Duration::from_secs(10);

/// Attaches `count` clients (an even number), in pairs that wharf cross-connects in interrupt mode, and prints how long it took
/// each second one until the first of its pair had a packet from it; then watches them all idle for `time`.
pub(crate) fn run(place: &Place, count: u32, time: Duration, stop: &Stop) -> Result<()> {
    let binaries = Binaries::locate(place.wharf.as_deref())?;
    let dir = WorkDir::new()?;
    let mut wharf = Wharf::start(&binaries, place.dut_core, place.load_core, &dir, stop)?;
    let pid = wharf.program.id();
    let machine = Machine::here();
    print!("{}", machine.describe());
    let [socket, _] = dir.sockets();
    wharf.script(&wharf::pairs(&socket, count))?;
    pin(place.load_core)?;

    let traffic = Traffic { log2_ring_size: 8, ..Traffic::default() };
    let packet = traffic.packet(0);
    let mut times = Histogram::new();
    let mut links = Vec::new();
    for id in (0..count).step_by(2) {
        let mut check = || {
            stop.check()?;
            wharf.program.check()
        };
        let mut first = connect(&socket, id, traffic, &mut check)?;
        let start = Instant::now();
        let mut second = connect(&socket, id + 1, traffic, &mut check)?;
        let (Some(tx), Some(rx)) = (second.tx.first_mut(), first.rx.first_mut()) else {
            return Err("the peer grants no ring".into());
        };
        // The first one may be lost: wharf may not have set up its side of the interface yet.
        let mut came = 0;
        while came == 0 {
            tx.transmit(&[&packet][..]);
            tx.kick();
            let sent = Instant::now();
            while came == 0 && sent.elapsed() < Duration::from_millis(1) {
                came = rx.receive_with(1, |_| ());
            }
            if start.elapsed() > PATIENCE {
                return Err(format!("no packet came from interface {} in {PATIENCE:?}", id + 1));
            }
        }
        times.add(start.elapsed().as_micros() as u64, 1);
        links.push((first, second));
    }
    let [median, most] = [0.5, 1.0].map(|part| times.quantile(part) as f64 / 1e3);
    println!(
        "{count} memif interfaces up; from connect to the first packet of {} of them: median {median:.1} ms, at most \
         {most:.1} ms",
        times.total()
    );

    let used = used_idle(&mut wharf, time, stop)?;
    let (now, _) = memory(pid)?;
    println!(
        "with no traffic on any, in interrupt mode: {used:.1} % of a core over {:.0} s, {now:.1} MiB resident",
        time.as_secs_f64()
    );
    for (mut first, mut second) in links {
        for link in [&mut first, &mut second] {
            if let Some(reason) = link.control.process() {
                return Err(format!("a memif connection ended: {reason}"));
            }
        }
    }
    Ok(())
}
