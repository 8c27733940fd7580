//! What runs the lines that operators type: the list of commands on the one dataplane.

use crate::cli::{Completion, Executor, Outcome, Output, Registry, RegistryError, Session};
use crate::commands::registry;
use crate::dataplane::Dataplane;
use std::fmt::Write;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Runs lines, one at a time; what takes long (`ping`) runs without holding the others up.
pub struct DaemonShell {
    registry: Registry<Dataplane>,
    dataplane: Arc<Mutex<Dataplane>>,
}

impl std::fmt::Debug for DaemonShell {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DaemonShell").finish_non_exhaustive()
    }
}

impl DaemonShell {
    /// A shell over a dataplane that others may use too.
    pub fn new(dataplane: Arc<Mutex<Dataplane>>) -> Result<DaemonShell, RegistryError> {
        Ok(DaemonShell { registry: registry()?, dataplane })
    }

    fn lock(&self) -> MutexGuard<'_, Dataplane> {
        self.dataplane.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs a script up to the first failure; the error starts with `name:line: `.
    pub fn run_script(&self, name: &str, script: &str) -> Outcome {
        let mut out = Output::new();
        let (result, jobs) = {
            let mut dataplane = self.lock();
            let result = self.registry.run_script(&mut *dataplane, name, script, &mut out);
            (result, std::mem::take(&mut dataplane.jobs))
        };
        let mut text = out.into_text();
        jobs.into_iter().for_each(|job| text += &job.run(&self.dataplane, &Session::detached()));
        Outcome { text, error: result.err().map(|error| error.to_string()) }
    }
}

impl Executor for DaemonShell {
    fn execute(&self, line: &str, session: &Session<'_>) -> Outcome {
        let progress = |line: &str| session.progress(line);
        let mut out = Output::with_progress(&progress);
        let (result, jobs) = {
            let mut dataplane = self.lock();
            let result = self.registry.execute(&mut *dataplane, line, &mut out);
            (result, std::mem::take(&mut dataplane.jobs))
        };
        let mut text = out.into_text();
        for job in jobs {
            let _ = write!(text, "{}", job.run(&self.dataplane, session));
        }
        Outcome { text, error: result.err().map(|error| error.to_string()) }
    }

    fn complete(&self, line: &str, cursor: usize) -> Completion {
        self.registry.complete(line, cursor, &*self.lock())
    }
}
