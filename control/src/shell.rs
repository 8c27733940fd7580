//! What runs the lines that operators type: the list of commands on the one dataplane.

use crate::cli::{CliError, Completion, Executor, Outcome, Output, Registry, RegistryError, Session};
use crate::commands::registry;
use crate::dataplane::Dataplane;
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

    /// Operations validate before they change anything: a dataplane is fit for use after a panic in one.
    fn lock(&self) -> MutexGuard<'_, Dataplane> {
        self.dataplane.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs a script up to the first failure; the error starts with `name:line: `.
    pub fn run_script(&self, name: &str, script: &str) -> Outcome {
        self.run(&Session::detached(), |dataplane, out| {
            self.registry.run_script(dataplane, name, script, out)
        })
    }

    /// Does `work` on the dataplane, and then, without holding it, the jobs that its commands left.
    fn run(
        &self,
        session: &Session<'_>,
        work: impl FnOnce(&mut Dataplane, &mut Output<'_>) -> Result<(), CliError>,
    ) -> Outcome {
        let progress = |line: &str| session.progress(line);
        let mut out = Output::with_progress(&progress);
        let (result, jobs) = {
            let mut dataplane = self.lock();
            let result = work(&mut dataplane, &mut out);
            (result, std::mem::take(&mut dataplane.jobs))
        };
        let mut text = out.into_text();
        jobs.into_iter().for_each(|job| text += &job.run(&self.dataplane, session));
        Outcome { text, error: result.err().map(|error| error.to_string()) }
    }
}

impl Executor for DaemonShell {
    fn execute(&self, line: &str, session: &Session<'_>) -> Outcome {
        self.run(session, |dataplane, out| self.registry.execute(dataplane, line, out))
    }

    fn complete(&self, line: &str, cursor: usize) -> Completion {
        self.registry.complete(line, cursor, &*self.lock())
    }
}
