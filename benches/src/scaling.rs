//! Workers side by side, each with packets of its own from memory: what they share would show.

use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use wharf_benches::paths::{Path, packets, rig_of};
use wharf_benches::rig::{Devices, Sink, Source};
use wharf_engine::frame::FRAME_SIZE;

use crate::Result;
use crate::process::pin;

/// Turns between two looks at the time.
const TURNS: usize = 64;

/// What workers did.
pub(crate) struct Scaled {
    /// Packets a second, of all workers.
    pub(crate) rate: f64,
    /// The least part of its core that a worker had.
    pub(crate) share: f64,
}

/// Forwards by IPv4 with a worker on each of `cores`, for so long.
pub(crate) fn measure(cores: &[usize], time: Duration) -> Result<Scaled> {
    let devices = |_: &usize| -> Devices {
        (Box::new(Source::new(packets(1, FRAME_SIZE as u32), FRAME_SIZE)), Box::new(Sink))
    };
    let mut rig = rig_of(Path::Ip4(1), None, cores.iter().map(devices).collect());
    rig.turn();
    let before = rig.counts().1;
    let workers = std::mem::take(&mut rig.workers);
    let (start, stop) = (Barrier::new(cores.len()), AtomicBool::new(false));
    let shares = std::thread::scope(|scope| {
        let running: Vec<_> = std::iter::zip(workers, cores)
            .map(|(mut worker, core)| {
                let (start, stop) = (&start, &stop);
                scope.spawn(move || -> Result<f64> {
                    let pinned = pin(*core);
                    start.wait();
                    pinned?;
                    let (begin, cpu) = (Instant::now(), own_cpu());
                    while !stop.load(Ordering::Relaxed) {
                        (0..TURNS).for_each(|_| {
                            worker.turn();
                        });
                        if begin.elapsed() >= time {
                            stop.store(true, Ordering::Relaxed);
                        }
                    }
                    Ok((own_cpu() - cpu) / begin.elapsed().as_secs_f64())
                })
            })
            .collect();
        let ended =
            running.into_iter().map(|worker| worker.join().unwrap_or_else(|_| Err("a worker died".into())));
        ended.collect::<Result<Vec<f64>>>()
    })?;
    Ok(Scaled {
        rate: (rig.counts().1 - before) as f64 / time.as_secs_f64(),
        share: shares.into_iter().fold(1.0, f64::min),
    })
}

/// Processor time of the calling thread, in seconds.
fn own_cpu() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}
