//! The journal: a file from which the configuration is made again after the daemon has died.
//!
//! A record is a line: the CRC-32 (IEEE 802.3) of the rest in eight digits, a blank, and JSON, either `{"document": ...}`, all there is, or
//! `{"changes": [...]}`, what has become of objects that one command, one `config apply` or one turn of the API touched. Reading takes the
//! lines up to the first that is torn or not what its sum says.
//!
//! A record is written, in one call of the system, before the command or message is answered: it survives the death of the process. A thread
//! does that (`writer.rs`), and only who waits for the answer waits for it. Another has the disk take it soon after, and makes a long
//! journal short (`shorten.rs`).

use super::changes::Change;
use super::document::Document;
use super::file;
use super::shorten::Tender;
use super::writer::{Order, Progress, Target, Writer};
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::mpsc::{Sender, channel, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use wharf_engine::wake::Waker;

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

/// A journal that is written to, by a thread of its own: a file system may hold a writer up for as long as it likes.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    orders: Sender<Order>,
    progress: Arc<Progress>,
    /// Records that were handed to the thread.
    asked: u64,
    /// When the last attempt was made to write all there is, while records could not be written.
    tried: Option<Instant>,
    /// Changes were left out since then.
    missed: bool,
    /// The last record that says all there is.
    all: u64,
    threads: Vec<JoinHandle<()>>,
}

/// A record that the thread was given.
#[derive(Clone, Debug)]
pub(crate) struct Ticket {
    progress: Arc<Progress>,
    number: u64,
}

impl Ticket {
    /// Whether it was written, or could not be, which is logged.
    pub(crate) fn is_done(&self) -> bool {
        self.progress.is_done(self.number)
    }

    /// Waits for that.
    pub(crate) fn wait(&self) {
        self.progress.wait(self.number);
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
        let (orders, theirs) = channel();
        let (wake, woken) = sync_channel(1);
        let (answers, answered) = channel();
        let written = Arc::new(AtomicU64::new(len));
        let progress = Arc::new(Progress::default());
        let tender = Tender {
            path: path.to_owned(),
            file: file.try_clone()?,
            short: len,
            written: Arc::clone(&written),
            woken,
            writer: orders.clone(),
            answers: answered,
        };
        let writer = Writer {
            path: path.to_owned(),
            now: Target { file, len },
            next: None,
            progress: Arc::clone(&progress),
            written,
            orders: theirs,
            wake,
            answers,
        };
        let mut journal = Journal {
            path: path.to_owned(),
            orders,
            progress,
            asked: 0,
            tried: None,
            missed: false,
            all: 0,
            threads: Vec::new(),
        };
        let thread = |name: &str| std::thread::Builder::new().name(name.into());
        journal.threads.push(thread("journal").spawn(move || writer.run())?);
        journal.threads.push(thread("journal-tender").spawn(move || tender.run())?);
        Ok(journal)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Has a record of changes written, if there is one. `all` makes the document of what there is: after a record that could not
    /// be written, one of everything follows as soon as that can be.
    pub(crate) fn append(&mut self, line: Option<Line>, all: impl FnOnce() -> Document) {
        // What comes behind a record of everything is left out with it, if that can't be written.
        let retries = !self.progress.is_done(self.all);
        let line = if !retries && (self.missed || self.progress.is_broken()) {
            let now = Instant::now();
            if self.tried.is_some_and(|tried| now < tried + AGAIN) {
                self.missed |= line.is_some();
                return;
            }
            self.tried = Some(now);
            self.missed = false;
            document_line(&all()).map(|line| (line, true))
        } else {
            let Some(line) = line else { return };
            line.0.map(|line| (line, false))
        };
        match line {
            Ok((line, all)) => {
                self.asked += 1;
                if all {
                    self.all = self.asked;
                }
                // It is there as long as the journal is.
                let _ = self.orders.send(Order::Record(line, all));
            }
            Err(error) => {
                tracing::error!("{}: {error}: changes are not recorded", self.path.display());
                self.missed = true;
            }
        }
    }

    /// The next attempt to write all there is, if one is needed, is due.
    pub(crate) fn hurry(&mut self) {
        self.tried = None;
    }

    /// Records that were handed over so far.
    pub(crate) fn asked(&self) -> u64 {
        self.asked
    }

    /// The last of them, unless it is done.
    pub(crate) fn last(&self) -> Option<Ticket> {
        let ticket = Ticket { progress: Arc::clone(&self.progress), number: self.asked };
        (!ticket.is_done()).then_some(ticket)
    }

    /// Wakes the API's clients, who wait for their records, from now on.
    pub(crate) fn tell(&self, api: &Waker) {
        self.progress.tell(api);
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        let _ = self.orders.send(Order::End);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
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
