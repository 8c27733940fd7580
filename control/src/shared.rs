//! A value that the main loop shares with other threads.

use std::ops::{Deref, DerefMut};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// A value that the main loop and others use in turns. However many others wait, and whatever one of them does again and again,
/// the main loop's turn comes after the turn that is under way.
#[derive(Debug, Default)]
pub struct Shared<T> {
    /// Held by the one of the others that has its turn, or is next.
    others: Mutex<()>,
    /// Held by who is next.
    next: Mutex<()>,
    value: Mutex<T>,
    /// What somebody waits for in [`Shared::turn_when`] may be so now.
    news: Condvar,
}

/// How long who waits for news goes without looking.
const LOOK: Duration = Duration::from_millis(100);

/// Operations validate before they change anything: the value is fit for use after a panic in one.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<T> Shared<T> {
    /// Shares a value.
    pub fn new(value: T) -> Shared<T> {
        Shared {
            others: Mutex::new(()),
            next: Mutex::new(()),
            value: Mutex::new(value),
            news: Condvar::new(),
        }
    }

    /// The main loop's turn.
    pub fn main(&self) -> MutexGuard<'_, T> {
        let _next = lock(&self.next);
        lock(&self.value)
    }

    /// The turn of another thread.
    pub fn turn(&self) -> Turn<'_, T> {
        let other = lock(&self.others);
        let _next = lock(&self.next);
        Turn { value: lock(&self.value), _other: other }
    }

    /// As [`Shared::turn`], once something is so. Others have their turns meanwhile.
    pub fn turn_when(&self, mut is_so: impl FnMut(&T) -> bool) -> Turn<'_, T> {
        loop {
            let turn = self.turn();
            if is_so(&turn) {
                return turn;
            }
            let Turn { value, _other } = turn;
            drop(_other);
            drop(self.news.wait_timeout(value, LOOK));
        }
    }

    /// Has those who wait in [`Shared::turn_when`] look again.
    pub fn tell(&self) {
        self.news.notify_all();
    }
}

/// A turn, until it is dropped.
#[derive(Debug)]
pub struct Turn<'a, T> {
    value: MutexGuard<'a, T>,
    _other: MutexGuard<'a, ()>,
}

impl<T> Deref for Turn<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T> DerefMut for Turn<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.value
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

    #[test]
    fn the_main_loop_waits_for_one_turn_at_most() {
        let shared = Shared::new(());
        let (turns, stop) = (AtomicU64::new(0), AtomicBool::new(false));
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    while !stop.load(Ordering::Relaxed) {
                        let turn = shared.turn();
                        turns.fetch_add(1, Ordering::Relaxed);
                        std::thread::sleep(std::time::Duration::from_micros(200));
                        drop(turn);
                    }
                });
            }
            let mut waited = Vec::new();
            for _ in 0..100 {
                // Asked for at the latest when the next turn begins, it comes behind that one.
                let before = turns.load(Ordering::Relaxed);
                let turn = shared.main();
                waited.push(turns.load(Ordering::Relaxed) - before);
                drop(turn);
                std::thread::yield_now();
            }
            stop.store(true, Ordering::Relaxed);
            waited.sort_unstable();
            // A thread that the kernel stops between the look at the count and the lock sees more.
            assert!(waited[90] <= 2, "{waited:?}");
        });
    }
}
