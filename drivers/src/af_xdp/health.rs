//! Whether a transmit queue moves: what its worker writes down, and what main makes of it.

use super::TxKick;
use std::sync::atomic::{AtomicI32, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How long frames may wait for their completion before that is called a stall. A kernel that sends completes within
/// milliseconds.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);

/// Written by the worker that runs the queue, read by main.
#[derive(Debug, Default)]
pub(super) struct TxHealth {
    held: AtomicU32,
    completed: AtomicU64,
    no_memory: AtomicU64,
    failed: AtomicU64,
    errno: AtomicI32,
}

impl TxHealth {
    /// At the end of a turn: frames that the kernel has, and how many came back in this one.
    #[inline]
    pub(super) fn turn(&self, held: u32, completed: u32) {
        self.held.store(held, Ordering::Relaxed);
        if completed != 0 {
            add(&self.completed, completed.into());
        }
    }

    /// What waking the kernel ended with, where that is neither usual nor the device's own business.
    pub(super) fn kicked(&self, kick: TxKick) {
        match kick {
            TxKick::NoBuffers => add(&self.no_memory, 1),
            TxKick::Failed(errno) => {
                self.errno.store(errno.raw_os_error(), Ordering::Relaxed);
                add(&self.failed, 1);
            }
            _ => {}
        }
    }

    /// Frames that the kernel has.
    pub(super) fn held(&self) -> u32 {
        self.held.load(Ordering::Relaxed)
    }

    /// Wake-ups that failed: for want of memory; for a reason that there should not be, and the last such.
    pub(super) fn failures(&self) -> (u64, u64, Option<std::io::Error>) {
        let errno = self.errno.load(Ordering::Relaxed);
        let last = (errno != 0).then(|| std::io::Error::from_raw_os_error(errno));
        (self.no_memory.load(Ordering::Relaxed), self.failed.load(Ordering::Relaxed), last)
    }
}

/// Only the worker writes.
fn add(counter: &AtomicU64, n: u64) {
    counter.store(counter.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
}

/// Finds a queue whose completions have ceased.
#[derive(Debug, Default)]
pub(super) struct Watchdog {
    seen: u64,
    since: Option<Instant>,
    stalled: bool,
    /// How often they have ceased.
    pub(super) stalls: u64,
}

impl Watchdog {
    /// Looks; `up` says whether the interface can send at all. True when a stall begins.
    pub(super) fn look(&mut self, health: &TxHealth, up: bool, now: Instant) -> bool {
        let completed = health.completed.load(Ordering::Relaxed);
        if health.held() == 0 || completed != self.seen || !up {
            (self.seen, self.since, self.stalled) = (completed, None, false);
            return false;
        }
        let since = *self.since.get_or_insert(now);
        if self.stalled || now.saturating_duration_since(since) < PATIENCE {
            return false;
        }
        self.stalled = true;
        self.stalls += 1;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::io::Errno;

    #[test]
    fn a_stall_is_told_once_and_ends_with_a_completion() {
        let (health, mut watchdog, start) = (TxHealth::default(), Watchdog::default(), Instant::now());
        let mut look = |seconds: u64, up| watchdog.look(&health, up, start + Duration::from_secs(seconds));
        health.turn(10, 0);
        assert!(!look(0, true));
        assert!(!look(4, true));
        assert!(look(5, true), "nothing for five seconds");
        assert!(!look(60, true), "told already");
        health.turn(9, 1);
        assert!(!look(61, true), "it moves");
        assert!(!look(62, true));
        assert!(!look(66, true));
        assert!(!look(67, false), "a link that is down completes nothing");
        assert!(!look(68, true));
        assert!(look(73, true), "and again");
        health.turn(0, 9);
        assert!(!look(100, true), "nothing is waited for");
        assert_eq!(watchdog.stalls, 2);
    }

    #[test]
    fn failures_are_counted_by_kind() {
        let health = TxHealth::default();
        let ends = [TxKick::Done, TxKick::Busy, TxKick::LinkDown, TxKick::Gone, TxKick::Unfinished];
        ends.into_iter().for_each(|kick| health.kicked(kick));
        assert!(matches!(health.failures(), (0, 0, None)));
        health.kicked(TxKick::NoBuffers);
        health.kicked(TxKick::Failed(Errno::PERM));
        health.kicked(TxKick::Failed(Errno::INVAL));
        let (no_memory, failed, last) = health.failures();
        assert_eq!((no_memory, failed), (1, 2));
        assert_eq!(last.and_then(|e| e.raw_os_error()), Some(Errno::INVAL.raw_os_error()));
    }
}
