//! The machine, so that numbers are not taken out of their place.

use std::fs;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use serde::Serialize;
use wharf_engine::clock::ticks_per_second;

use crate::Result;
use crate::process::pin;

/// What is known of the machine.
#[derive(Debug, Serialize)]
pub(crate) struct Machine {
    /// Processor.
    pub(crate) cpu: String,
    /// Cores that we may use.
    pub(crate) cores: usize,
    /// Ticks per second of the counter in which cycles are given.
    pub(crate) tsc_hz: f64,
    /// Kernel release.
    pub(crate) kernel: String,
    /// Frequency governor of the first core.
    pub(crate) governor: String,
    /// Whether it is a virtual machine.
    pub(crate) virtual_machine: bool,
    /// Load average over the last minute, before we began.
    pub(crate) load_average: String,
}

impl Machine {
    /// This one.
    pub(crate) fn here() -> Self {
        let read = |path: &str| fs::read_to_string(path).ok().map(|text| text.trim().to_string());
        let unknown = || "unknown".to_string();
        let cpuinfo = read("/proc/cpuinfo").unwrap_or_default();
        let field = |name: &str| {
            cpuinfo
                .lines()
                .find(|l| l.starts_with(name))
                .and_then(|l| l.split_once(':'))
                .map(|(_, v)| v.trim())
        };
        Machine {
            cpu: field("model name").map_or_else(unknown, String::from),
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            tsc_hz: ticks_per_second(),
            kernel: read("/proc/sys/kernel/osrelease").unwrap_or_else(unknown),
            governor: read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor").unwrap_or_else(unknown),
            virtual_machine: field("flags").is_some_and(|flags| flags.split(' ').any(|f| f == "hypervisor")),
            load_average: read("/proc/loadavg")
                .and_then(|l| l.split(' ').next().map(String::from))
                .unwrap_or_else(unknown),
        }
    }

    /// For a plot: what it is, and the day.
    pub(crate) fn lines(&self, unix_time: u64) -> Vec<String> {
        let kind = if self.virtual_machine { ", virtual machine" } else { "" };
        let machine =
            format!("{}, {} cores, counter at {:.3} GHz{kind}", self.cpu, self.cores, self.tsc_hz / 1e9);
        vec![machine, format!("kernel {}; measured on {}", self.kernel, date(unix_time))]
    }

    /// On two lines.
    pub(crate) fn describe(&self) -> String {
        format!(
            "{}, {} cores, counter at {:.3} GHz{}\nkernel {}, governor {}, load average {} before the start\n",
            self.cpu,
            self.cores,
            self.tsc_hz / 1e9,
            if self.virtual_machine { ", virtual machine" } else { "" },
            self.kernel,
            self.governor,
            self.load_average
        )
    }
}

/// The day, in UTC, as year-month-day.
fn date(unix_time: u64) -> String {
    // By eras of 400 years that begin in March, so that the leap day is the last of its year.
    let days = unix_time / 86_400 + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let (day, next) = (day - (153 * month + 2) / 5 + 1, month >= 10);
    let month = if next { month - 9 } else { month + 3 };
    format!("{}-{month:02}-{day:02}", era * 400 + year + u64::from(next))
}

/// Milliseconds that the host took from a core so far, to the 10 ms.
pub(crate) fn stolen(core: usize) -> Result<f64> {
    let path = "/proc/stat";
    let stat = fs::read_to_string(path).map_err(|e| format!("{path}: {e}"))?;
    let name = format!("cpu{core} ");
    let fields = stat.lines().find_map(|l| l.strip_prefix(&name)).unwrap_or_default();
    // user nice system idle iowait irq softirq steal, in hundredths of a second.
    Ok(fields.split(' ').nth(7).and_then(|n| n.parse::<f64>().ok()).unwrap_or_default() * 10.0)
}

/// Nanoseconds that a cache line takes from one core to the other and back: what rings between two cores live on. On a
/// shared machine it changes when the host moves a core.
pub(crate) fn round_trip(cores: [usize; 2]) -> Result<f64> {
    const TURNS: u32 = 20_000;
    let word = AtomicU32::new(0);
    // Each waits for its own parity and makes it the other's. Yields, in case that another program wants the core.
    let play = |core: usize, parity: u32| -> Result<f64> {
        pin(core)?;
        let start = Instant::now();
        for turn in 0..TURNS {
            let mut spins = 0u32;
            while word.load(Ordering::Acquire) != turn * 2 + parity {
                spins += 1;
                if spins.is_multiple_of(10_000) {
                    std::thread::yield_now();
                }
                std::hint::spin_loop();
            }
            word.store(turn * 2 + parity + 1, Ordering::Release);
        }
        Ok(start.elapsed().as_nanos() as f64 / f64::from(TURNS))
    };
    std::thread::scope(|scope| {
        let other = scope.spawn(|| play(cores[0], 1));
        let own = scope.spawn(|| play(cores[1], 0));
        let failed = || String::from("a thread died");
        other.join().map_err(|_| failed())??;
        own.join().map_err(|_| failed())?
    })
}

#[cfg(test)]
mod tests {
    use super::date;

    #[test]
    fn dates() {
        let known = [(0, "1970-01-01"), (951_782_400, "2000-02-29"), (1_735_689_599, "2024-12-31")];
        for (time, day) in known {
            assert_eq!(date(time), day);
        }
    }
}
