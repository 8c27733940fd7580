//! The journal's thread: has the disk take what was written, and makes a long journal short, by reading it as the next start would.
//!
//! The writer waits neither for it nor for what it waits for. This thread makes the short file; the writer puts behind what came meanwhile,
//! and writes to both files until the short one has the name.

use super::file;
use super::journal::{document_line, replay};
use super::writer::Order;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender};

/// A journal is not shortened below this.
const LONG: u64 = 4 << 20;
/// The thread's: main, to whose core it may be pinned, goes first.
const NICE: i32 = 15;

/// A file that says what the journal said up to a place.
#[derive(Debug)]
pub(super) struct Short {
    pub(super) file: File,
    pub(super) len: u64,
    /// The journal, to be read on from that place.
    pub(super) old: File,
    pub(super) upto: u64,
}

/// What the thread has.
#[derive(Debug)]
pub(super) struct Tender {
    pub(super) path: PathBuf,
    pub(super) file: File,
    /// How long the journal was when all of it was one record.
    pub(super) short: u64,
    /// How long it is.
    pub(super) written: Arc<AtomicU64>,
    pub(super) woken: Receiver<()>,
    pub(super) writer: Sender<Order>,
    pub(super) answers: Receiver<bool>,
}

impl Tender {
    /// Until the writer is done.
    pub(super) fn run(mut self) {
        // In Linux, of the thread alone.
        if let Err(error) = rustix::process::setpriority_process(None, NICE) {
            tracing::debug!("the journal's thread keeps its priority: {error}");
        }
        while self.woken.recv().is_ok() {
            if let Err(error) = self.file.sync_data() {
                tracing::error!("{}: {error}", self.path.display());
            }
            let len = self.written.load(Ordering::Acquire);
            if len > LONG.max(2 * self.short)
                && let Err(error) = self.shorten(len)
            {
                tracing::error!("{} cannot be made shorter: {error}", self.path.display());
                // Not at once again.
                self.short = len;
            }
        }
    }

    /// Replaces the first `len` bytes, which are whole records, by one.
    fn shorten(&mut self, len: u64) -> io::Result<()> {
        let mut bytes = Vec::new();
        File::open(&self.path)?.take(len).read_to_end(&mut bytes)?;
        let replayed = replay(&bytes);
        drop(bytes);
        let document = replayed.document.filter(|_| replayed.len as u64 == len);
        let document = document.ok_or_else(|| io::Error::other("it is not as it was written"))?;
        let line = document_line(&document)?;
        drop(document);
        let mut new = file::New::create(&self.path, &line)?;
        let mut old = File::open(&self.path)?;
        old.seek(SeekFrom::Start(len))?;
        let mut upto = len;
        // Twice, so that what came while the disk took the first part is not left to the writer.
        for _ in 0..2 {
            let more = self.written.load(Ordering::Acquire).saturating_sub(upto);
            upto += io::copy(&mut (&mut old).take(more), &mut new.file)?;
            new.file.sync_data()?;
        }
        let short = line.len() as u64;
        let file = new.file.try_clone()?;
        if !self.say(Order::Short(Short { file, len: short + upto - len, old, upto })) {
            return Ok(());
        }
        let renamed = new.rename(&self.path);
        self.say(Order::Named(renamed.is_ok()));
        self.file = renamed?;
        self.short = short;
        file::sync_directory(&self.path);
        self.file.sync_data()
    }

    /// Whether the writer could do its part: not when it has ended.
    fn say(&self, news: Order) -> bool {
        self.writer.send(news).is_ok() && self.answers.recv().unwrap_or(false)
    }
}
