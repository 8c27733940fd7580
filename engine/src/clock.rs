//! Two clocks: ticks to measure with, nanoseconds to wait by.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// Ticks of the processor's time stamp counter; of a nanosecond clock where there is none.
#[inline(always)]
pub fn ticks() -> u64 {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: every x86-64 processor has the instruction.
    unsafe {
        std::arch::x86_64::_rdtsc()
    }
    #[cfg(not(target_arch = "x86_64"))]
    nanos()
}

/// Nanoseconds of the monotonic clock since the first call in this process. Injectable where it matters: nodes
/// see only the value that their worker took at the start of its turn.
#[inline]
pub fn nanos() -> u64 {
    static START: OnceLock<Instant> = OnceLock::new();
    START.get_or_init(Instant::now).elapsed().as_nanos() as u64
}

/// Nanoseconds out of ticks, for a worker's loop: reading the ticks costs a third of a system clock, and a loop has
/// them anyway.
#[derive(Debug)]
pub(crate) struct TickClock {
    /// Where the rate is measured from.
    start: (u64, u64),
    /// The last look at the system clock: ticks, nanoseconds.
    sync: (u64, u64),
    /// Nanoseconds per 2^32 ticks; 0 while unknown.
    rate: u64,
    now: u64,
}

impl TickClock {
    /// Ticks from one look at the system clock to the next, about a millisecond.
    const SYNC: u64 = 1 << 21;
    /// The shortest time, in nanoseconds, that gives a rate.
    const SHORTEST: u64 = 1_000_000;

    pub(crate) fn new() -> TickClock {
        let start = (ticks(), nanos());
        TickClock { start, sync: start, rate: 0, now: start.1 }
    }

    /// The time at `ticks`, as [`nanos`]; never earlier than what it said before.
    #[inline(always)]
    pub(crate) fn nanos_at(&mut self, ticks: u64) -> u64 {
        let since = ticks.wrapping_sub(self.sync.0);
        if self.rate == 0 || since > Self::SYNC {
            return self.synchronise();
        }
        self.now = self.now.max(self.sync.1 + ((since * self.rate) >> 32));
        self.now
    }

    #[inline(never)]
    fn synchronise(&mut self) -> u64 {
        self.sync = (ticks(), nanos());
        let nanos = self.sync.1 - self.start.1;
        // As many ticks as the arithmetic takes without overflow are some hours; then a new start.
        match self.sync.0.checked_sub(self.start.0) {
            Some(ticks) if ticks != 0 && nanos < 1 << 42 => {
                if nanos >= Self::SHORTEST {
                    self.rate = ((u128::from(nanos) << 32) / u128::from(ticks)).min(1 << 42) as u64;
                }
            }
            _ => self.start = self.sync,
        }
        self.now = self.now.max(self.sync.1);
        self.now
    }
}

/// Ticks per second, measured once over about 20 ms.
pub fn ticks_per_second() -> f64 {
    static RATE: OnceLock<f64> = OnceLock::new();
    *RATE.get_or_init(|| {
        let (t0, n0) = (ticks(), Instant::now());
        std::thread::sleep(Duration::from_millis(20));
        let (t1, n1) = (ticks(), n0.elapsed());
        (t1.wrapping_sub(t0)) as f64 / n1.as_secs_f64()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_become_the_time_of_the_system_clock() {
        let mut clock = TickClock::new();
        let mut last = 0;
        let mut by_ticks = 0;
        while by_ticks < 1000 {
            let before = nanos();
            let now = clock.nanos_at(ticks());
            let after = nanos();
            assert!(now >= last, "it went back");
            last = now;
            by_ticks += u32::from(clock.rate != 0);
            // A thread that lost its core between two of the three looks says nothing.
            if after - before < 10_000 {
                assert!(now + 20_000 > before && now < after + 20_000, "{before} {now} {after}");
            }
        }
    }

    #[test]
    fn a_counter_that_jumps_does_no_harm() {
        let mut clock = TickClock::new();
        for ticks in [u64::MAX, 0, 1 << 63, ticks()] {
            let before = clock.now;
            assert!(clock.nanos_at(ticks) >= before);
            assert!(clock.now < before + 60_000_000_000);
        }
    }
}
