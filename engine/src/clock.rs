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
