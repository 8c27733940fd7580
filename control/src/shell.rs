//! What runs the lines that operators type: the list of commands on the one dataplane.

use crate::access::Rights;
use crate::cli::{
    CliError, Completion, Executor, Hold, Outcome, Output, Registry, RegistryError, Session, Work,
};
use crate::commands::registry;
use crate::config::journal::Line;
use crate::dataplane::Dataplane;
use crate::shared::Shared;
use std::sync::Arc;

/// Runs lines, one at a time; what takes long (`ping`) runs without holding the others up.
pub struct DaemonShell {
    registry: Registry<Dataplane>,
    dataplane: Arc<Shared<Dataplane>>,
}

impl std::fmt::Debug for DaemonShell {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DaemonShell").finish_non_exhaustive()
    }
}

impl DaemonShell {
    /// A shell over a dataplane that others may use too.
    pub fn new(dataplane: Arc<Shared<Dataplane>>) -> Result<DaemonShell, RegistryError> {
        Ok(DaemonShell { registry: registry()?, dataplane })
    }

    /// Runs a script up to the first failure; the error starts with `name:line: `.
    pub fn run_script(&self, name: &str, script: &str) -> Outcome {
        self.run(&Session::detached(Rights::ReadWrite), |turns, out| {
            self.registry.run_script(turns, name, script, out)
        })
    }

    fn run(
        &self,
        session: &Session<'_>,
        work: impl FnOnce(&mut Turns<'_>, &mut Output<'_>) -> Result<(), CliError>,
    ) -> Outcome {
        let progress = |line: &str| session.progress(line);
        let mut out = Output::with_progress(&progress);
        let result = work(&mut Turns { shell: self, session, alone: false }, &mut out);
        Outcome { text: out.into_text(), error: result.err().map(|error| error.to_string()) }
    }
}

/// The dataplane for the commands of a session, a turn for each.
struct Turns<'a> {
    shell: &'a DaemonShell,
    session: &'a Session<'a>,
    /// This session has reserved the dataplane.
    alone: bool,
}

impl Hold<Dataplane> for Turns<'_> {
    fn rights(&self) -> Rights {
        self.session.rights()
    }

    /// Does the command's work on the dataplane, and then, without holding it, the jobs that it left.
    fn with(
        &mut self,
        needs: Rights,
        work: &mut Work<'_, Dataplane>,
        out: &mut Output<'_>,
    ) -> Result<(), CliError> {
        let (result, jobs, unrecorded) = {
            let dataplane = &self.shell.dataplane;
            let waits = needs == Rights::ReadWrite && !self.alone;
            let mut dataplane = dataplane.turn_when(|dataplane| !waits || !dataplane.is_reserved());
            dataplane.begin_turn();
            let before = dataplane.recorded();
            let result = work(&mut dataplane, out);
            if self.alone {
                dataplane.note_changes();
            } else {
                dataplane.record_changes();
            }
            (result, std::mem::take(&mut dataplane.jobs), dataplane.unrecorded(before))
        };
        if let Some(unrecorded) = unrecorded {
            unrecorded.wait();
        }
        jobs.into_iter().for_each(|job| out.text(job.run(&self.shell.dataplane, self.session)));
        result
    }

    fn reserve(&mut self) {
        if !self.alone {
            self.shell.dataplane.turn_when(|dataplane| !dataplane.is_reserved()).reserve();
            self.alone = true;
        }
    }

    fn release(&mut self) {
        if std::mem::take(&mut self.alone) {
            let changes = self.shell.dataplane.turn().noted_changes();
            let line = Line::of(changes);
            let unrecorded = {
                let mut dataplane = self.shell.dataplane.turn();
                let before = dataplane.recorded();
                dataplane.release(line);
                dataplane.unrecorded(before)
            };
            self.shell.dataplane.tell();
            if let Some(unrecorded) = unrecorded {
                unrecorded.wait();
            }
        }
    }
}

impl Drop for Turns<'_> {
    fn drop(&mut self) {
        self.release();
    }
}

impl Executor for DaemonShell {
    fn execute(&self, line: &str, session: &Session<'_>) -> Outcome {
        self.run(session, |turns, out| self.registry.execute_on(turns, line, out))
    }

    fn complete(&self, line: &str, cursor: usize) -> Completion {
        self.registry.complete(line, cursor, &*self.dataplane.turn())
    }
}
