//! The last lines of the log, for `show log` and `log_dump`.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};
use tracing::Level;

/// Lines kept.
const KEPT: usize = 512;

/// A line.
#[derive(Clone, Debug)]
pub struct LogLine {
    /// Seconds since 1970.
    pub time: f64,
    /// How grave it is.
    pub level: Level,
    /// Which part of wharf says it.
    pub class: String,
    /// What it says.
    pub text: String,
}

/// The lines. Clones are the same log.
#[derive(Clone, Debug, Default)]
pub struct Log(Arc<Mutex<VecDeque<LogLine>>>);

impl Log {
    fn lines_mut(&self) -> MutexGuard<'_, VecDeque<LogLine>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a line, now.
    pub fn push(&self, level: Level, class: &str, text: String) {
        let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        let mut lines = self.lines_mut();
        if lines.len() == KEPT {
            lines.pop_front();
        }
        lines.push_back(LogLine { time, level, class: class.into(), text });
    }

    /// The lines, the oldest first.
    pub fn lines(&self) -> Vec<LogLine> {
        self.lines_mut().iter().cloned().collect()
    }

    /// Forgets them.
    pub fn clear(&self) {
        self.lines_mut().clear();
    }
}
