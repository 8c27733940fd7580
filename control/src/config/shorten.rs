//! The journal's thread: has the disk take what was written, and makes a long journal short, by reading it as the next start would.
//!
//! Main waits neither for it nor for what it waits for. The thread makes the short file; main puts behind what came meanwhile, and writes its
//! records to both files until the short one has the name, which can take as long as the disk likes.

use super::file;
use super::journal::{document_line, replay};
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

/// What main hears; it answers each with whether it could do its part.
#[derive(Debug)]
pub(super) enum News {
    /// There is a short file.
    Short(Short),
    /// It has the name, or could not get it.
    Named(bool),
}

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
    pub(super) news: Sender<News>,
    pub(super) answers: Receiver<bool>,
}

impl Tender {
    /// Until main is done with the journal.
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
        // Twice, so that what came while the disk took the first part is not left to main.
        for _ in 0..2 {
            let more = self.written.load(Ordering::Acquire).saturating_sub(upto);
            upto += io::copy(&mut (&mut old).take(more), &mut new.file)?;
            new.file.sync_data()?;
        }
        let short = line.len() as u64;
        let file = new.file.try_clone()?;
        if !self.say(News::Short(Short { file, len: short + upto - len, old, upto })) {
            return Ok(());
        }
        let renamed = new.rename(&self.path);
        self.say(News::Named(renamed.is_ok()));
        self.file = renamed?;
        self.short = short;
        file::sync_directory(&self.path);
        self.file.sync_data()
    }

    /// Whether main could do its part: not when it has ended.
    fn say(&self, news: News) -> bool {
        self.news.send(news).is_ok() && self.answers.recv().unwrap_or(false)
    }
}
