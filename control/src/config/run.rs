//! Doing steps, in pieces that each take little time.

use super::apply::pieces;
use super::step::{Entry, Step, via};
use crate::acl::{Ready, Rules};
use crate::cli::Hold;
use crate::dataplane::{Dataplane, OpError};
use std::collections::HashSet;

/// Adjacencies of a piece.
const PIECE: usize = 64;

/// What is to be done next.
enum Next {
    /// More.
    Piece,
    /// First these lists are to be compiled, which takes long and needs nothing of the dataplane.
    Compile(Vec<Rules>),
    /// Nothing.
    End,
}

/// Steps that are being done, up to the first that fails.
#[derive(Debug)]
pub(super) struct Run {
    steps: Vec<Step>,
    at: usize,
    /// The adjacencies of routes that come, so that the workers are waited for once and not for each; behind which step they are still to be
    /// made.
    pinned: Vec<u32>,
    pins: HashSet<crate::ip4::AdjacencyKey>,
    pin_from: Option<usize>,
    ready: Ready,
    /// Compiled for the step that comes next.
    compiled: bool,
    error: Option<OpError>,
}

impl Run {
    pub(super) fn new(steps: Vec<Step>) -> Run {
        Run {
            steps,
            at: 0,
            pinned: Vec::new(),
            pins: HashSet::new(),
            pin_from: None,
            ready: Ready::default(),
            compiled: false,
            error: None,
        }
    }

    /// Does all. Returns the steps, and which failed and why.
    pub(super) fn on(mut self, on: &mut dyn Hold<Dataplane>) -> (Vec<Step>, Option<(usize, OpError)>) {
        loop {
            let next = pieces(on, |dp| match self.piece(dp) {
                Next::Piece => None,
                next => Some(next),
            });
            match next {
                Next::Compile(rules) => self.ready.compile(rules),
                Next::Piece => {}
                Next::End => return (self.steps, self.error.map(|error| (self.at, error))),
            }
        }
    }

    fn piece(&mut self, dp: &mut Dataplane) -> Next {
        let step = self.steps.get(self.at).filter(|_| self.error.is_none());
        let Some(step) = step else { return self.end(dp) };
        if matches!(step, Step::Route(_, _, Entry::New(_) | Entry::Other(_)))
            && self.pin_from.is_none_or(|from| from < self.steps.len())
        {
            self.pin(dp);
            return Next::Piece;
        }
        if !self.compiled {
            let missing = self.ready.missing(step.compiles(dp));
            self.compiled = true;
            if !missing.is_empty() {
                return Next::Compile(missing);
            }
        }
        if step.can_wait() {
            dp.waiting.get_or_insert_default();
        } else {
            dp.publish_waiting();
        }
        dp.acls.ready = std::mem::take(&mut self.ready);
        let done = step.run(dp);
        dp.acls.ready = Ready::default();
        match done {
            Ok(false) => {}
            Ok(true) => (self.at, self.compiled) = (self.at + 1, false),
            Err(error) => self.error = Some(error),
        }
        Next::Piece
    }

    /// Makes some of the adjacencies of the routes from here on.
    fn pin(&mut self, dp: &mut Dataplane) {
        let from = self.pin_from.unwrap_or(self.at);
        let to = self.steps.len().min(from + PIECE);
        for step in &self.steps[from..to] {
            let Step::Route(_, _, Entry::New(route) | Entry::Other(route)) = step else { continue };
            // What fails here, fails again where the route is added.
            let Ok(via) = via(dp, route) else { continue };
            if self.pins.insert(Dataplane::adjacency_key(via))
                && let Ok(index) = dp.acquire(via)
            {
                self.pinned.push(index);
            }
        }
        self.pin_from = Some(to);
        if to == self.steps.len() {
            dp.publish_adjacencies_now();
        }
    }

    /// What is left to be done behind the last step.
    fn end(&mut self, dp: &mut Dataplane) -> Next {
        dp.publish_waiting();
        let left = self.pinned.len().saturating_sub(PIECE);
        for index in self.pinned.drain(left..) {
            dp.adjacencies.release(index, dp.engine.domain());
        }
        if self.pinned.is_empty() { Next::End } else { Next::Piece }
    }
}
