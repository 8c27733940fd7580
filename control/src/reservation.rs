//! Many changes that are made as one: until all are, nobody else makes any, and the journal hears of none.

use crate::config::{Change, journal};
use crate::dataplane::Dataplane;
use wharf_engine::wake::Waker;

/// Whether somebody has the dataplane's state to itself.
#[derive(Debug, Default)]
pub(crate) struct Reservation {
    held: bool,
    /// What the journal will hear.
    changes: Vec<Change>,
    /// The API's clients wait for the end.
    api: Option<Waker>,
}

impl Dataplane {
    /// Whether others than who reserved it must wait with changes.
    pub(crate) fn is_reserved(&self) -> bool {
        self.reservation.held
    }

    /// Begins many changes. What was changed before is recorded first.
    pub(crate) fn reserve(&mut self) {
        self.record_changes();
        self.reservation.held = true;
    }

    /// Has the API's clients look again at the end.
    pub(crate) fn wake_when_released(&mut self, api: &Waker) {
        self.reservation.api.get_or_insert_with(|| api.clone());
    }

    /// Puts down what a piece of the work has changed.
    pub(crate) fn note_changes(&mut self) {
        let changes = self.take_changes();
        self.reservation.changes.extend(changes);
    }

    /// All that was put down.
    pub(crate) fn noted_changes(&mut self) -> Vec<Change> {
        std::mem::take(&mut self.reservation.changes)
    }

    /// Ends it, with what the journal hears.
    pub(crate) fn release(&mut self, line: Option<journal::Line>) {
        self.reservation.held = false;
        self.reservation.changes.clear();
        self.write_journal(line);
        if let Some(api) = self.reservation.api.take() {
            api.wake();
            self.waker.wake();
        }
    }
}
