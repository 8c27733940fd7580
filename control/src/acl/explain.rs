//! What would happen to a packet, and why.

use super::passes;
use crate::dataplane::{Dataplane, OpError};
use wharf_engine::SwIfIndex;
use wharf_nodes::acl::sessions::{Session, SessionKey};
use wharf_nodes::acl::{Direction, Fields, ListedRule, Tuple};

/// What decides.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// No list is applied in this direction.
    NoLists,
    /// The packet is of a session.
    Session(super::SessionRow),
    /// A rule matches.
    Rule(ListedRule),
    /// None does.
    NoRule,
}

/// See [`Dataplane::explain`].
#[derive(Clone, Debug)]
pub struct Explanation {
    /// The packet.
    pub tuple: Tuple,
    /// The lists that are asked, in order.
    pub lists: Vec<u32>,
    /// What decides.
    pub outcome: Outcome,
    /// Whether the packet passes.
    pub permit: bool,
}

impl Dataplane {
    /// What would happen to a packet that `interface` receives or sends; it counts nowhere and opens no session.
    pub fn explain(
        &self,
        interface: SwIfIndex,
        direction: Direction,
        fields: Fields,
    ) -> Result<Explanation, OpError> {
        self.record(interface)?;
        let binding = self.acls.bindings.get(&interface);
        let outcome = match self.session_of(interface, direction, &fields) {
            Some(session) => Outcome::Session(self.session_row(&session)),
            None => match binding.and_then(|b| b.compiled(direction)) {
                None => Outcome::NoLists,
                Some(lists) => lists.lookup(&fields).map_or(Outcome::NoRule, |rule| Outcome::Rule(*rule)),
            },
        };
        let permit = match &outcome {
            Outcome::NoLists | Outcome::Session(_) => true,
            Outcome::Rule(rule) => passes(rule.rule.action),
            Outcome::NoRule => false,
        };
        let lists = binding.map_or_else(Vec::new, |b| b.lists(direction).to_vec());
        Ok(Explanation { tuple: (&fields).into(), lists, outcome, permit })
    }

    /// The session of a packet, if it would still stand.
    fn session_of(&self, interface: SwIfIndex, direction: Direction, fields: &Fields) -> Option<Session> {
        let table = self.acls.sessions.as_ref()?;
        let binding = self.acls.bindings.get(&interface).filter(|b| b.reflects())?;
        let key = SessionKey::new(fields, interface, direction == Direction::Output)?;
        let found = table.find(&key)?;
        let now = wharf_nodes::acl::sessions::Ticks::of(wharf_engine::clock::nanos());
        if table.is_expired(&key, &found, now, &self.acls.timeouts) {
            return None;
        }
        let opened = if found.opener.output { Direction::Output } else { Direction::Input };
        let first = key.opening(found.opener.output);
        let rule = binding.compiled(opened)?.lookup(&first)?;
        let stands = rule.rule.action == wharf_nodes::acl::Action::Reflect;
        stands.then_some(Session { key, state: found.state, opener: found.opener })
    }
}
