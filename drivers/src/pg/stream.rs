//! A stream, as its owner on the main thread and its player on a worker share it.

use super::pcap::Replay;
use super::template::Template;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Where a stream's packets come from.
#[derive(Clone, Debug)]
pub enum Source {
    /// Packets of a file, or of a test.
    Replay(Replay),
    /// Packets made as they are played.
    Template(Template),
}

/// A stream to be made.
#[derive(Clone, Debug)]
pub struct StreamConfig {
    /// Its name, unique on the interface.
    pub name: String,
    /// Packets to play; 0 is endless.
    pub limit: u64,
    /// Packets per second; 0 is as fast as possible.
    pub rate: f64,
    /// Packets that go into the graph together; 0 is as many as fit.
    pub max_frame: u32,
    /// What is played.
    pub source: Source,
}

/// A stream as it is now.
#[derive(Clone, Debug, PartialEq)]
pub struct StreamInfo {
    /// Its name.
    pub name: String,
    /// Whether it plays.
    pub enabled: bool,
    /// Whether it has played to its limit since it was last enabled.
    pub done: bool,
    /// Packets to play; 0 is endless.
    pub limit: u64,
    /// Packets per second; 0 is as fast as possible.
    pub rate: f64,
    /// Packets played since it was last enabled.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// The shared state. Main writes `run` and `deleted`, the worker the rest.
#[derive(Debug)]
pub(super) struct Stream {
    pub(super) config: StreamConfig,
    /// Counts enable and disable: plays while odd. Each odd value is a run from the start.
    run: AtomicU64,
    /// The last run that reached the limit.
    done: AtomicU64,
    deleted: AtomicBool,
    packets: AtomicU64,
    bytes: AtomicU64,
}

impl Stream {
    pub(super) fn new(config: StreamConfig) -> Stream {
        Stream {
            config,
            run: AtomicU64::new(0),
            done: AtomicU64::new(0),
            deleted: AtomicBool::new(false),
            packets: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
        }
    }

    /// The run that is to be played, if any.
    #[inline]
    pub(super) fn playing(&self) -> Option<u64> {
        let run = self.run.load(Ordering::Acquire);
        (run % 2 == 1 && self.done.load(Ordering::Relaxed) != run).then_some(run)
    }

    /// Plays from the start. One that plays goes on.
    pub(super) fn enable(&self) {
        if self.playing().is_none() {
            let run = self.run.load(Ordering::Relaxed);
            self.run.store(run + 1 + run % 2, Ordering::Release);
        }
    }

    pub(super) fn disable(&self) {
        let run = self.run.load(Ordering::Relaxed);
        self.run.store(run + run % 2, Ordering::Release);
    }

    pub(super) fn delete(&self) {
        self.deleted.store(true, Ordering::Release);
    }

    #[inline]
    pub(super) fn is_deleted(&self) -> bool {
        self.deleted.load(Ordering::Acquire)
    }

    /// The worker has played so much of `run`.
    #[inline]
    pub(super) fn played(&self, run: u64, packets: u64, bytes: u64) {
        self.packets.store(packets, Ordering::Relaxed);
        self.bytes.store(bytes, Ordering::Relaxed);
        if packets == self.config.limit && packets != 0 {
            self.done.store(run, Ordering::Release);
        }
    }

    pub(super) fn info(&self) -> StreamInfo {
        let run = self.run.load(Ordering::Relaxed);
        let done = run % 2 == 1 && self.done.load(Ordering::Acquire) == run;
        StreamInfo {
            name: self.config.name.clone(),
            enabled: run % 2 == 1 && !done,
            done,
            limit: self.config.limit,
            rate: self.config.rate,
            packets: self.packets.load(Ordering::Relaxed),
            bytes: self.bytes.load(Ordering::Relaxed),
        }
    }
}
