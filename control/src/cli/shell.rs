//! A registry and the context that its commands work on, as an [`Executor`].

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::complete::Completion;
use super::output::Output;
use super::session::{Executor, Outcome, Session};
use super::tree::Registry;
use super::value::Names;

/// Runs lines one at a time on a shared context.
pub struct Shell<C> {
    registry: Registry<C>,
    context: Arc<Mutex<C>>,
}

impl<C: Names> Shell<C> {
    /// A shell over a context that others may use too.
    pub fn new(registry: Registry<C>, context: Arc<Mutex<C>>) -> Shell<C> {
        Shell { registry, context }
    }

    /// Runs a script up to the first failure; the error starts with `name:line: `.
    pub fn run_script(&self, name: &str, script: &str) -> Outcome {
        let mut out = Output::new();
        let result = self.registry.run_script(&mut *self.lock(), name, script, &mut out);
        Outcome { text: out.into_text(), error: result.err().map(|error| error.to_string()) }
    }

    /// Operations validate before they change anything, so a context is fit for use after a panic in one.
    fn lock(&self) -> MutexGuard<'_, C> {
        self.context.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<C: Names + Send> Executor for Shell<C> {
    fn execute(&self, line: &str, session: &Session<'_>) -> Outcome {
        let progress = |line: &str| session.progress(line);
        let mut out = Output::with_progress(&progress);
        let result = self.registry.execute(&mut *self.lock(), line, &mut out);
        Outcome { text: out.into_text(), error: result.err().map(|error| error.to_string()) }
    }

    fn complete(&self, line: &str, cursor: usize) -> Completion {
        self.registry.complete(line, cursor, &*self.lock())
    }
}
