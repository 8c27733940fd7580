//! The journal: a file from which the configuration is made again after the daemon has died.
//!
//! A record is a line: the CRC-32 (IEEE 802.3) of the rest in eight digits, a blank, and JSON, either `{"document": ...}`, all there is, or
//! `{"changes": [...]}`, what has become of objects that one command, one `config apply` or one turn of the API touched. Reading takes the
//! lines up to the first that is torn or not what its sum says.
//!
//! A record is written, in one call of the system, before the command or message is answered: it survives the death of the process. A thread
//! has the disk take it soon after, so that nothing waits for the disk; it also makes a long journal short: it reads the file, and
//! replaces it by one record of all that it says.

use super::changes::Change;
use super::document::Document;
use super::file;
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// A journal is not shortened below this.
const LONG: u64 = 4 << 20;
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

fn document_line(document: &Document) -> io::Result<Vec<u8>> {
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

#[derive(Debug)]
struct Shared {
    file: File,
    len: u64,
    /// How long it was when all of it was one record.
    short: u64,
    /// What is about to take its name, and is written to as well: a rename can wait for the disk, and who has a record for many milliseconds.
    next: Option<Next>,
    /// Since when a record could not be written: what follows would be read without it. And when to try again.
    broken: Option<Instant>,
}

/// A shorter journal that says the same.
#[derive(Debug)]
struct Next {
    file: File,
    len: u64,
}

impl Shared {
    fn write(&mut self, line: &[u8]) -> io::Result<()> {
        self.file.write_all(line)?;
        if let Some(next) = &mut self.next {
            next.file.write_all(line)?;
            next.len += line.len() as u64;
        }
        self.len += line.len() as u64;
        Ok(())
    }

    /// Takes away what a failed [`Shared::write`] has left: a part of a line would hide those behind it.
    fn cut(&self) -> io::Result<()> {
        self.next.as_ref().map_or(Ok(()), |next| next.file.set_len(next.len))?;
        self.file.set_len(self.len)
    }
}

/// A journal that is written to.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    shared: Arc<Mutex<Shared>>,
    wake: Option<SyncSender<()>>,
    thread: Option<JoinHandle<()>>,
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
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
        let shared = Arc::new(Mutex::new(Shared { file, len, short: len, next: None, broken: None }));
        let (wake, woken) = sync_channel(1);
        let (path, theirs) = (path.to_owned(), Arc::clone(&shared));
        let at = path.clone();
        let thread =
            std::thread::Builder::new().name("journal".into()).spawn(move || tend(&at, &theirs, &woken))?;
        Ok(Journal { path, shared, wake: Some(wake), thread: Some(thread) })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes a record of changes, if there is one. `all` makes the document of what there is: after a record that could not be
    /// written, one of everything follows as soon as that can be.
    pub(crate) fn append(&self, line: Option<Line>, all: impl FnOnce() -> Document) {
        let mut shared = lock(&self.shared);
        let now = Instant::now();
        let line = match (shared.broken, line) {
            (Some(again), _) if now < again => return,
            (Some(_), _) => document_line(&all()),
            (None, None) => return,
            (None, Some(line)) => line.0,
        };
        match line.and_then(|line| shared.write(&line)) {
            Ok(()) => {
                if shared.broken.take().is_some() {
                    tracing::info!("{}: written again, all is in it", self.path.display());
                }
            }
            Err(error) => {
                if shared.broken.replace(now + AGAIN).is_none() {
                    tracing::error!("{}: {error}: changes are not recorded", self.path.display());
                }
                shared.cut().unwrap_or_else(|error| tracing::error!("{}: {error}", self.path.display()));
                return;
            }
        }
        drop(shared);
        if let Some(wake) = &self.wake {
            // One that it has not seen yet is as good.
            let _ = wake.try_send(());
        }
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        self.wake = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        let _ = lock(&self.shared).file.sync_data();
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

/// The thread: has the disk take what was written, and makes a long journal short.
fn tend(path: &Path, shared: &Mutex<Shared>, woken: &Receiver<()>) {
    while woken.recv().is_ok() {
        let (file, len, short) = {
            let shared = lock(shared);
            (shared.file.try_clone(), shared.len, shared.short)
        };
        if let Err(error) = file.and_then(|file| file.sync_data()) {
            tracing::error!("{}: {error}", path.display());
        }
        if len > LONG.max(2 * short)
            && let Err(error) = shorten(path, shared, len)
        {
            tracing::error!("{} cannot be made shorter: {error}", path.display());
            // Not at once again.
            lock(shared).short = len;
        }
    }
}

/// Replaces the first `len` bytes, which are whole records, by one.
fn shorten(path: &Path, shared: &Mutex<Shared>, len: u64) -> io::Result<()> {
    let mut bytes = Vec::new();
    File::open(path)?.take(len).read_to_end(&mut bytes)?;
    let replayed = replay(&bytes);
    drop(bytes);
    let document = replayed.document.filter(|_| replayed.len as u64 == len);
    let document = document.ok_or_else(|| io::Error::other("it is not as it was written"))?;
    let line = document_line(&document)?;
    let mut new = file::New::create(path, &line)?;
    // What comes meanwhile goes behind: most of it now, and the rest while nothing more may come.
    let mut old = File::open(path)?;
    old.seek(SeekFrom::Start(len))?;
    let mut behind = 0;
    for last in [false, false, true] {
        let locked = lock(shared);
        let most = locked.len.saturating_sub(len + behind);
        let locked = last.then_some(locked);
        io::copy(&mut (&mut old).take(most), &mut new.file)?;
        behind += most;
        match locked {
            None => new.file.sync_data()?,
            Some(mut shared) => {
                let next = Next { file: new.file.try_clone()?, len: line.len() as u64 + behind };
                shared.next = Some(next);
            }
        }
    }
    let renamed = new.rename(path);
    let mut shared = lock(shared);
    let next = shared.next.take();
    let file = renamed?;
    if let Some(next) = next {
        (shared.file, shared.len, shared.short) = (next.file, next.len, line.len() as u64);
    }
    drop(shared);
    file::sync_directory(path);
    file.sync_data()
}
