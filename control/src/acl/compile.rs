//! Compiling lists beside the main loop. It can take seconds, and needs the rules only: an operation says what it will compile, that is done
//! without holding the dataplane, and the operation finds it ready. If the rules are others by then, it is done again.

use crate::cli::{CliError, Hold, in_turn};
use crate::dataplane::{Dataplane, OpError};
use std::collections::BTreeSet;
use std::sync::Arc;
use wharf_nodes::acl::{Direction, ListedRule, Lists, Rule};

/// Rules that are compiled together.
pub(crate) type Rules = Vec<ListedRule>;

/// Fewer are compiled where they are needed.
const FEW: usize = 64;
/// Who changes lists under our hands so often, waits.
pub(crate) const ROUNDS: usize = 4;

/// Compiled lists, by their rules.
#[derive(Debug, Default)]
pub(crate) struct Ready(Vec<(Rules, Result<Arc<Lists>, String>)>);

impl Ready {
    /// What is not ready of this.
    pub(crate) fn missing(&self, mut work: Vec<Rules>) -> Vec<Rules> {
        work.retain(|rules| rules.len() > FEW && !self.0.iter().any(|(ready, _)| ready == rules));
        work
    }

    /// Makes it ready.
    pub(crate) fn compile(&mut self, work: Vec<Rules>) {
        for rules in work {
            let lists = Lists::new(rules.clone()).map(Arc::new).map_err(|error| error.to_string());
            self.0.push((rules, lists));
        }
    }

    /// The lists of these rules, compiled now if they are not ready.
    pub(super) fn lists(&self, acls: &[u32], rules: Rules) -> Result<Arc<Lists>, OpError> {
        let lists = match self.0.iter().find(|(ready, _)| *ready == rules) {
            Some((_, lists)) => lists.clone(),
            None => Lists::new(rules).map(Arc::new).map_err(|error| error.to_string()),
        };
        lists.map_err(|error| OpError::Refused(format!("acl {acls:?}: {error}")))
    }
}

impl Dataplane {
    /// What is compiled if list `index` gets these rules.
    pub(crate) fn compiles_acl(&self, index: u32, rules: &[Rule]) -> Vec<Rules> {
        let mut lists = BTreeSet::new();
        for binding in self.acls.bindings.values() {
            let both = [Direction::Input, Direction::Output].map(|direction| binding.lists(direction));
            lists.extend(both.into_iter().filter(|acls| acls.contains(&index)));
        }
        let counter = self.acls.counters.as_ref().map_or(0, |counters| counters.free(rules.len() as u32));
        lists.into_iter().map(|acls| self.acls.listed(acls, Some((index, rules, counter)))).collect()
    }

    /// What is compiled if these lists are applied somewhere.
    pub(crate) fn compiles_binding(&self, acls: &[u32]) -> Vec<Rules> {
        let same = |direction| self.acls.bindings.values().any(|b| b.lists(direction) == acls);
        match acls.is_empty() || same(Direction::Input) || same(Direction::Output) {
            true => Vec::new(),
            false => vec![self.acls.listed(acls, None)],
        }
    }
}

/// Does an operation that compiles `work`.
///
/// # Errors
/// Those of the operation.
pub(crate) fn compiled<T>(
    on: &mut dyn Hold<Dataplane>,
    work: impl Fn(&Dataplane) -> Vec<Rules>,
    operation: impl FnOnce(&mut Dataplane) -> Result<T, CliError>,
) -> Result<T, CliError> {
    let (mut ready, mut operation) = (Ready::default(), Some(operation));
    for round in 0..=ROUNDS {
        let (mut missing, mut done) = (Vec::new(), None);
        in_turn(on, |dp| {
            missing = ready.missing(work(dp));
            if missing.is_empty() || round == ROUNDS {
                dp.acls.ready = std::mem::take(&mut ready);
                done = operation.take().map(|operation| operation(dp));
                dp.acls.ready = Ready::default();
            }
            Ok(())
        })?;
        if let Some(done) = done {
            return done;
        }
        ready.compile(missing);
    }
    Err(CliError::new("the lists could not be compiled"))
}
