//! The journal's writer: a thread that writes the records that main makes, in their order.
//!
//! While the journal is made short, it writes to both files until the short one has the name, which can take as long as the disk likes.

use super::shorten::Short;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, SyncSender};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use wharf_engine::wake::Waker;

/// What the writer is told.
#[derive(Debug)]
pub(super) enum Order {
    /// A line, and whether it says all there is.
    Record(Vec<u8>, bool),
    /// There is a short file. Answered with whether it is written to as well now.
    Short(Short),
    /// It has the name, or could not get it. Answered.
    Named(bool),
    /// There is no more.
    End,
}

/// How far the writer is, for those who wait.
#[derive(Debug, Default)]
pub(super) struct Progress {
    done: Mutex<u64>,
    more: Condvar,
    /// A record could not be written: what follows would be read without it.
    broken: AtomicBool,
    api: OnceLock<Waker>,
}

impl Progress {
    fn done(&self) -> MutexGuard<'_, u64> {
        self.done.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether record `number` was written, or could not be.
    pub(super) fn is_done(&self, number: u64) -> bool {
        *self.done() >= number
    }

    /// Waits for that.
    pub(super) fn wait(&self, number: u64) {
        let mut done = self.done();
        while *done < number {
            done = self.more.wait(done).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Whether records are left out until one says all there is.
    pub(super) fn is_broken(&self) -> bool {
        self.broken.load(Ordering::Acquire)
    }

    pub(super) fn tell(&self, api: &Waker) {
        self.api.get_or_init(|| api.clone());
    }

    fn advance(&self, to: impl FnOnce(u64) -> u64) {
        let mut done = self.done();
        *done = to(*done);
        drop(done);
        self.more.notify_all();
        if let Some(api) = self.api.get() {
            api.wake();
        }
    }
}

/// A file, and its length as far as it is whole.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) file: File,
    pub(super) len: u64,
}

impl Target {
    fn write(&mut self, line: &[u8]) -> io::Result<()> {
        self.file.write_all(line)?;
        self.len += line.len() as u64;
        Ok(())
    }
}

/// What the thread has.
#[derive(Debug)]
pub(super) struct Writer {
    pub(super) path: PathBuf,
    pub(super) now: Target,
    /// A shorter journal that says the same, and is about to take the name of the other.
    pub(super) next: Option<Target>,
    pub(super) progress: Arc<Progress>,
    /// The length, for the tender.
    pub(super) written: Arc<AtomicU64>,
    pub(super) orders: Receiver<Order>,
    pub(super) wake: SyncSender<()>,
    pub(super) answers: Sender<bool>,
}

impl Writer {
    /// Until main is done with the journal.
    pub(super) fn run(mut self) {
        while let Ok(order) = self.orders.recv() {
            match order {
                Order::Record(line, all) => {
                    self.record(&line, all);
                    self.progress.advance(|done| done + 1);
                    // One that it has not seen yet is as good.
                    let _ = self.wake.try_send(());
                }
                Order::Short(short) => {
                    let done = self.take_up(short);
                    let _ = self.answers.send(done);
                }
                Order::Named(named) => {
                    if let Some(next) = self.next.take().filter(|_| named) {
                        self.now = next;
                        self.written.store(self.now.len, Ordering::Release);
                    }
                    let _ = self.answers.send(true);
                }
                Order::End => break,
            }
        }
        for target in std::iter::once(&self.now).chain(&self.next) {
            let _ = target.file.sync_data();
        }
    }

    fn record(&mut self, line: &[u8], all: bool) {
        let broken = self.progress.is_broken();
        if broken && !all {
            return;
        }
        let mut targets = std::iter::once(&mut self.now).chain(&mut self.next);
        match targets.try_for_each(|target| target.write(line)) {
            Ok(()) => {
                if broken {
                    tracing::info!("{}: written again, all is in it", self.path.display());
                }
                self.progress.broken.store(false, Ordering::Release);
                self.written.store(self.now.len, Ordering::Release);
            }
            Err(error) => {
                if !broken {
                    tracing::error!("{}: {error}: changes are not recorded", self.path.display());
                }
                self.progress.broken.store(true, Ordering::Release);
                // A part of a line would hide those behind it.
                for target in std::iter::once(&mut self.now).chain(&mut self.next) {
                    // Of two files, one may have taken all of it.
                    let cut = target.file.set_len(target.len);
                    cut.unwrap_or_else(|error| tracing::error!("{}: {error}", self.path.display()));
                }
            }
        }
    }

    /// Writes to a shorter journal as well from now on, once it has what came since it was made. Whether that was possible.
    fn take_up(&mut self, mut short: Short) -> bool {
        let rest = self.now.len.saturating_sub(short.upto);
        match io::copy(&mut (&mut short.old).take(rest), &mut short.file) {
            Ok(copied) if copied == rest => {
                self.next = Some(Target { file: short.file, len: short.len + rest });
                true
            }
            Ok(_) => false,
            Err(error) => {
                tracing::error!("{} cannot be made shorter: {error}", self.path.display());
                false
            }
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // Nobody waits for what will not be.
        self.progress.advance(|_| u64::MAX);
    }
}
