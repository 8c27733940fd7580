//! The journal: a file from which the configuration is made again after the daemon has died.
//!
//! A record is a line: the CRC-32 (IEEE 802.3) of the rest in eight digits, a blank, and JSON, either `{"document": ...}`, all there is, or
//! `{"changes": [...]}`, what has become of objects that one command, one `config apply` or one turn of the API touched. Reading takes the
//! lines up to the first that is torn or not what its sum says.
//!
//! A record is written, in one call of the system, before the command or message is answered: it survives the death of the process. A thread
//! has the disk take it soon after, so that nothing waits for the disk; it also makes a long journal short (`shorten.rs`).

use super::changes::Change;
use super::document::Document;
use super::file;
use super::shorten::{News, Short, Tender};
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// After a record that could not be written, the next attempt is so much later.
const AGAIN: Duration = Duration::from_secs(1);

/// What a line says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
enum Record {
    /// All there is.
    Document(Box<Document>),
    /// What has become of objects.
    Changes(Vec<Change>),
}

/// The line of a record, out of its JSON.
pub fn line_of(json: &[u8]) -> Vec<u8> {
    [format!("{:08x} ", crc32fast::hash(json)).as_bytes(), json, b"\n"].concat()
}

fn line(record: &impl Serialize) -> io::Result<Vec<u8>> {
    Ok(line_of(&serde_json::to_vec(record)?))
}

/// A record of changes, ready to be written.
#[derive(Debug)]
pub(crate) struct Line(io::Result<Vec<u8>>);

impl Line {
    /// Of these changes; none of no change.
    pub(crate) fn of(changes: Vec<Change>) -> Option<Line> {
        (!changes.is_empty()).then(|| Line(line(&Record::Changes(changes))))
    }
}

pub(super) fn document_line(document: &Document) -> io::Result<Vec<u8>> {
    #[derive(Serialize)]
    #[serde(rename_all = "kebab-case")]
    enum Borrowed<'a> {
        Document(&'a Document),
    }
    line(&Borrowed::Document(document))
}

fn record(line: &[u8]) -> Option<Record> {
    let (sum, json) = line.split_at_checked(9)?;
    let digits = std::str::from_utf8(sum).ok()?.strip_suffix(' ')?;
    let same = digits == format!("{:08x}", crc32fast::hash(json));
    same.then(|| serde_json::from_slice(json).ok()).flatten()
}

/// What a journal says.
#[derive(Debug, Default)]
pub struct Replayed {
    /// The configuration after the last whole record; `None` when there is no record.
    pub document: Option<Document>,
    /// Bytes of whole records.
    pub len: usize,
    /// Whether more than the beginning of one record is behind them.
    pub damaged: bool,
}

/// Reads a journal as far as it is whole.
pub fn replay(bytes: &[u8]) -> Replayed {
    let mut replayed = Replayed::default();
    let mut rest = bytes;
    while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
        let (this, behind) = rest.split_at(end);
        let Some(record) = record(this) else {
            replayed.damaged = true;
            break;
        };
        match record {
            Record::Document(document) => replayed.document = Some(*document),
            Record::Changes(changes) => {
                let document = replayed.document.get_or_insert_default();
                changes.into_iter().for_each(|change| document.put(change));
            }
        }
        rest = behind.get(1..).unwrap_or_default();
        replayed.len = bytes.len() - rest.len();
    }
    replayed
}

/// A journal that is written to.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    /// What is written to.
    now: Target,
    /// A shorter journal that says the same, and is about to take its name: written to as well.
    next: Option<Target>,
    /// Since when a record could not be written: what follows would be read without it. And when to try again.
    broken: Option<Instant>,
    /// The length, for the thread.
    written: Arc<AtomicU64>,
    news: Receiver<News>,
    /// To the thread: `None` when it is to end.
    thread: Option<Thread>,
}

/// A file, and its length as far as it is whole.
#[derive(Debug)]
struct Target {
    file: File,
    len: u64,
}

#[derive(Debug)]
struct Thread {
    wake: SyncSender<()>,
    answers: Sender<bool>,
    handle: JoinHandle<()>,
}

impl Target {
    fn write(&mut self, line: &[u8]) -> io::Result<()> {
        self.file.write_all(line)?;
        self.len += line.len() as u64;
        Ok(())
    }
}

impl Journal {
    /// What the file says. A tail that is no record is dropped, with a warning; when it was more than the beginning of one, or
    /// nothing is whole, the file is kept beside, with `.damaged` behind its name.
    ///
    /// # Errors
    /// The file can't be read.
    pub fn read(path: &Path) -> io::Result<Option<Document>> {
        let bytes = match fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let replayed = replay(&bytes);
        if replayed.len < bytes.len() {
            let lost = bytes.len() - replayed.len;
            tracing::warn!(
                "{}: the last {lost} bytes, from byte {}, are no record: dropped",
                path.display(),
                replayed.len
            );
        }
        if replayed.damaged || (replayed.document.is_none() && !bytes.is_empty()) {
            keep(path, "damaged")?;
        }
        Ok(replayed.document)
    }

    /// Writes a new journal that says this, and goes on with it.
    ///
    /// # Errors
    /// The file can't be written.
    pub fn start(path: &Path, document: &Document) -> io::Result<Journal> {
        let line = document_line(document)?;
        let file = file::replace(path, &line)?;
        let len = line.len() as u64;
        let (wake, woken) = sync_channel(1);
        let (theirs, news) = channel();
        let (answers, answered) = channel();
        let written = Arc::new(AtomicU64::new(len));
        let tender = Tender {
            path: path.to_owned(),
            file: file.try_clone()?,
            short: len,
            written: Arc::clone(&written),
            woken,
            news: theirs,
            answers: answered,
        };
        let handle = std::thread::Builder::new().name("journal".into()).spawn(move || tender.run())?;
        Ok(Journal {
            path: path.to_owned(),
            now: Target { file, len },
            next: None,
            broken: None,
            written,
            news,
            thread: Some(Thread { wake, answers, handle }),
        })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes a record of changes, if there is one. `all` makes the document of what there is: after a record that could not be
    /// written, one of everything follows as soon as that can be.
    pub(crate) fn append(&mut self, line: Option<Line>, all: impl FnOnce() -> Document) {
        self.listen();
        let now = Instant::now();
        let line = match (self.broken, line) {
            (Some(again), _) if now < again => return,
            (Some(_), _) => document_line(&all()),
            (None, None) => return,
            (None, Some(line)) => line.0,
        };
        let mut targets = std::iter::once(&mut self.now).chain(&mut self.next);
        match line.and_then(|line| targets.try_for_each(|target| target.write(&line))) {
            Ok(()) => {
                if self.broken.take().is_some() {
                    tracing::info!("{}: written again, all is in it", self.path.display());
                }
            }
            Err(error) => {
                if self.broken.replace(now + AGAIN).is_none() {
                    tracing::error!("{}: {error}: changes are not recorded", self.path.display());
                }
                // A part of a line would hide those behind it.
                for target in std::iter::once(&self.now).chain(&self.next) {
                    let cut = target.file.set_len(target.len);
                    cut.unwrap_or_else(|error| tracing::error!("{}: {error}", self.path.display()));
                }
                return;
            }
        }
        self.written.store(self.now.len, Ordering::Release);
        if let Some(thread) = &self.thread {
            // One that it has not seen yet is as good.
            let _ = thread.wake.try_send(());
        }
    }

    /// Does what the thread waits for.
    fn listen(&mut self) {
        while let Ok(news) = self.news.try_recv() {
            let done = match news {
                News::Short(short) => self.take_up(short),
                News::Named(named) => {
                    if let Some(next) = self.next.take().filter(|_| named) {
                        self.now = next;
                        self.written.store(self.now.len, Ordering::Release);
                    }
                    true
                }
            };
            if let Some(thread) = &self.thread {
                let _ = thread.answers.send(done);
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

impl Drop for Journal {
    fn drop(&mut self) {
        if let Some(Thread { wake, answers, handle }) = self.thread.take() {
            // Both: it may wait for either.
            drop((wake, answers));
            let _ = handle.join();
        }
        for target in std::iter::once(&self.now).chain(&self.next) {
            let _ = target.file.sync_data();
        }
    }
}

/// Keeps the file beside, under a name that says why.
pub(super) fn keep(path: &Path, why: &str) -> io::Result<()> {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{why}"));
    let mut source = File::open(path)?;
    let mut bytes = Vec::new();
    source.read_to_end(&mut bytes)?;
    file::replace(Path::new(&name), &bytes)?;
    tracing::warn!("{}: the old journal is kept as {}", path.display(), Path::new(&name).display());
    Ok(())
}
