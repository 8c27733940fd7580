//! Changing what there is into what a document says, wholly or not at all.

use super::capture::Capture;
use super::check::part_of;
use super::document::{Document, HIDDEN, InterfaceConfig, InterfaceType};
use super::file::read_document;
use super::journal::{self, Journal, Line, Ticket};
use super::plan::plan;
use super::run::Run;
use super::step::Step;
use super::text::DocumentError;
use crate::access::Rights;
use crate::cli::{Held, Hold, Output};
use crate::dataplane::{Dataplane, OpError};
use crate::span::SpanLayer;
use std::path::Path;
use std::time::{Duration, Instant};

/// What was done.
pub type Applied = Vec<Step>;

/// Why a document was not applied. Nothing has changed then, unless `left` says so.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// The document cannot be.
    #[error(transparent)]
    Document(#[from] DocumentError),
    /// A step failed, and those before it were undone.
    #[error("{step}: {error}; {}", Undone(left))]
    Step {
        /// What was to be done.
        step: Box<Step>,
        /// Why it could not be.
        error: Box<OpError>,
        /// What could not be undone, and why.
        left: Option<String>,
    },
}

struct Undone<'a>(&'a Option<String>);

impl std::fmt::Display for Undone<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            None => f.write_str("nothing was changed"),
            Some(left) => write!(f, "what was done before could not be undone: {left}"),
        }
    }
}

impl Document {
    /// With secrets hidden, to be shown.
    pub fn without_secrets(mut self) -> Document {
        for interface in self.interface.values_mut() {
            if let InterfaceType::Memif(memif) = &mut interface.kind
                && let Some(secret) = &mut memif.secret
            {
                *secret = HIDDEN.to_owned();
            }
        }
        self
    }
}

impl Document {
    /// Leaves an interface out, with what refers to it.
    fn forget_interface(&mut self, name: &str) {
        self.interface.remove(name);
        self.neighbor.remove(name);
        self.l2fib.values_mut().for_each(|macs| macs.retain(|_, behind| behind != name));
        self.route.values_mut().for_each(|routes| routes.retain(|_, r| r.0.interface() != Some(name)));
        for config in self.interface.values_mut() {
            SpanLayer::ALL.iter().for_each(|layer| config.spans_mut(*layer).retain(|to, _| to != name));
            if config.xconnect.as_deref() == Some(name) {
                config.xconnect = None;
                config.reset_l2();
            }
        }
        let is_part = |(other, config): (&String, &InterfaceConfig)| {
            part_of(other, &config.kind).is_some_and(|parent| parent == name).then(|| other.clone())
        };
        let parts: Vec<String> = self.interface.iter().filter_map(is_part).collect();
        parts.iter().for_each(|part| self.forget_interface(part));
    }
}

impl Dataplane {
    /// Starts with the configuration of a file, which `config save` writes to.
    ///
    /// # Errors
    /// Why it cannot be read or applied; the text begins with the file's name.
    pub fn start_config(&mut self, file: &Path) -> Result<(), OpError> {
        let within = |error: &dyn std::fmt::Display| OpError::Refused(format!("{}: {error}", file.display()));
        let text = read_document(file).map_err(|error| within(&error))?;
        let document = Document::parse(&text).map_err(|error| within(&error))?;
        let done = self.apply_config(document).map_err(|error| within(&error))?;
        tracing::info!("configured from {}: {} changes", file.display(), done.len());
        self.set_config_file(file);
        Ok(())
    }

    /// Where `config save' writes to unless told otherwise.
    pub fn set_config_file(&mut self, file: &Path) {
        self.config_file = Some(file.to_owned());
    }

    /// Takes over what a journal says, without the interfaces that can no longer be. Whether it said anything.
    ///
    /// # Errors
    /// It can't be read.
    pub fn restore_config(&mut self, journal: &Path) -> Result<bool, OpError> {
        let failed = |error| OpError::System(journal.display().to_string(), error);
        let Some(mut document) = Journal::read(journal).map_err(failed)? else { return Ok(false) };
        let mut kept = false;
        loop {
            let error = match self.apply_config(document.clone()) {
                Ok(done) => {
                    tracing::info!("configured from {}: {} changes", journal.display(), done.len());
                    return Ok(true);
                }
                Err(error) => error,
            };
            tracing::error!("{}: {error}", journal.display());
            if !std::mem::replace(&mut kept, true) {
                journal::keep(journal, "refused").map_err(failed)?;
            }
            match &error {
                ApplyError::Step { step, left: None, .. } if step.interface().is_some() => {
                    let name = step.interface().unwrap_or_default();
                    tracing::error!("{}: goes on without {name}", journal.display());
                    document.forget_interface(name);
                }
                _ => return Ok(false),
            }
        }
    }

    /// Records changes in a journal from now on, which begins anew with what there is.
    ///
    /// # Errors
    /// It can't be written.
    pub fn record_config(&mut self, journal: &Path) -> Result<(), OpError> {
        let started = Journal::start(journal, &self.config());
        self.journal = Some(started.map_err(|e| OpError::System(journal.display().to_string(), e))?);
        self.changes.set(true);
        Ok(())
    }

    /// Has what has changed recorded, if there is a journal. Called before who made a change is told that it was made, which waits for
    /// [`Dataplane::unrecorded`]; others may see it before.
    pub(crate) fn record_changes(&mut self) {
        // Of changes that are one, the half is never recorded.
        if self.journal.is_none() || self.is_reserved() {
            return;
        }
        let line = Line::of(self.take_changes());
        self.write_journal(line);
    }

    /// Writes a line of the journal, if there is one.
    pub(crate) fn write_journal(&mut self, line: Option<Line>) {
        if let Some(mut journal) = self.journal.take() {
            journal.append(line, || self.config());
            self.journal = Some(journal);
        }
    }

    /// As [`Dataplane::record_changes`]; waits until it is done.
    #[cfg(test)]
    pub(crate) fn record_changes_now(&mut self) {
        self.record_changes();
        if let Some(ticket) = self.journal.as_ref().and_then(Journal::last) {
            ticket.wait();
        }
    }

    /// Records that there were so far.
    pub(crate) fn recorded(&self) -> u64 {
        self.journal.as_ref().map_or(0, Journal::asked)
    }

    /// The last record, if some came since there were `before` and they are not written yet.
    pub(crate) fn unrecorded(&self, before: u64) -> Option<Ticket> {
        self.journal.as_ref().filter(|journal| journal.asked() != before).and_then(Journal::last)
    }

    /// Ends the journal: what goes from now on is there at the next start.
    pub(crate) fn end_journal(&mut self) {
        self.journal.iter_mut().for_each(Journal::hurry);
        self.record_changes();
        self.changes.set(false);
        self.journal = None;
    }

    /// The steps to what a document says.
    ///
    /// # Errors
    /// What is wrong with the document. What only an operation can refuse is not found here.
    pub fn plan_config(&self, document: &mut Document) -> Result<Vec<Step>, DocumentError> {
        let now = self.config();
        self.complete_config(document, &now)?;
        document.check()?;
        Ok(plan(&now, document))
    }

    /// Makes the state what a document says. On failure everything is as it was.
    ///
    /// # Errors
    /// See [`ApplyError`].
    pub fn apply_config(&mut self, document: Document) -> Result<Applied, ApplyError> {
        apply(&mut Held(self), document)
    }

    /// Hides the secrets of memif interfaces that have one now; the names of those.
    pub(crate) fn without_known_secrets(&self, document: &mut Document) -> Vec<String> {
        let mut names = Vec::new();
        for (name, interface) in &mut document.interface {
            let config = self.find_interface(name).and_then(|index| self.memif.config(index));
            if let InterfaceType::Memif(memif) = &mut interface.kind
                && let Some(secret) = memif.secret.as_mut().filter(|secret| *secret != HIDDEN)
                && config.is_some_and(|config| config.secret.is_some())
            {
                *secret = HIDDEN.to_owned();
                names.push(name.clone());
            }
        }
        names
    }

    /// Fills in what a document leaves to what there is, and writes alike what means the same.
    pub(crate) fn complete_config(
        &self,
        document: &mut Document,
        now: &Document,
    ) -> Result<(), DocumentError> {
        for (id, socket) in &mut document.memif_socket {
            let address = self.memif_address(&socket.filename).map_err(|why| {
                DocumentError::new(
                    format!("memif-socket.{id}.filename"),
                    format!("`{}': {why}", socket.filename),
                )
            })?;
            socket.filename = address.to_string();
        }
        for (name, interface) in &mut document.interface {
            let InterfaceType::Memif(memif) = &mut interface.kind else { continue };
            if memif.secret.as_deref() != Some(HIDDEN) {
                continue;
            }
            let known = now.interface.get(name).and_then(|now| match &now.kind {
                InterfaceType::Memif(memif) => memif.secret.clone(),
                _ => None,
            });
            if known.is_none() {
                let why = format!("`{HIDDEN}' stands for the secret that there is, and {name} has none");
                return Err(DocumentError::new(format!("interface.{name}.type.memif.secret"), why));
            }
            memif.secret = known;
        }
        Ok(())
    }
}

/// What a turn takes of the others' time.
const SLICE: Duration = Duration::from_millis(1);

/// As [`Dataplane::apply_config`], in pieces. Nobody else may change anything meanwhile: see [`crate::cli::alone`].
///
/// # Errors
/// See [`ApplyError`].
pub(crate) fn apply(on: &mut dyn Hold<Dataplane>, mut document: Document) -> Result<Applied, ApplyError> {
    let before = capture(on);
    pieces(on, |dp| Some(dp.complete_config(&mut document, &before)))?;
    document.check()?;
    let (steps, failed) = Run::new(plan(&before, &document)).on(on);
    drop(document);
    let Some((at, error)) = failed else { return Ok(steps) };
    let now = capture(on);
    let (undo, failed) = Run::new(plan(&now, &before)).on(on);
    let left = failed.map(|(at, error)| format!("{}: {error}", undo[at]));
    Err(ApplyError::Step { step: Box::new(steps[at].clone()), error: Box::new(error), left })
}

fn capture(on: &mut dyn Hold<Dataplane>) -> Document {
    let mut capture = Capture::default();
    pieces(on, |dp| capture.piece(dp).then_some(()));
    capture.finish()
}

/// Does pieces until one of them gives something, as many in a turn as there is time for.
pub(super) fn pieces<T>(
    on: &mut dyn Hold<Dataplane>,
    mut piece: impl FnMut(&mut Dataplane) -> Option<T>,
) -> T {
    loop {
        let mut done = None;
        let mut turn = |dp: &mut Dataplane, _: &mut Output<'_>| {
            let until = Instant::now() + SLICE;
            while done.is_none() {
                done = piece(dp);
                if Instant::now() >= until {
                    break;
                }
            }
            Ok(())
        };
        // The work has no error.
        let _ = on.with(Rights::ReadWrite, &mut turn, &mut Output::new());
        if let Some(done) = done {
            return done;
        }
    }
}
