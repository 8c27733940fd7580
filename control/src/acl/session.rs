//! Sessions from the control plane's side: their table, its size and times, and sweeping out what has expired.

use super::AclBinding;
use crate::config::Object;
use crate::dataplane::{Dataplane, OpError};
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use wharf_engine::SwIfIndex;
use wharf_nodes::acl::sessions::{Session, SessionTable, Ticks};
use wharf_nodes::acl::{Direction, Tuple};

/// Sessions per worker unless the operator says otherwise.
const PER_WORKER: usize = 65_536;
/// Sessions at most.
pub(super) const MAX_SESSIONS: usize = 1 << 23;
/// Interfaces among which the table is shared at least: one alone gets a quarter.
const SHARES: usize = 4;
/// Parts of the table that are swept at a time.
const SWEPT: usize = 8;

/// A timeout that can be set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionTimeout {
    /// UDP and everything that is not TCP.
    UdpIdle,
    /// Established TCP.
    TcpIdle,
    /// TCP that is being opened or closed.
    TcpTransient,
}

/// A session, to be shown.
#[derive(Clone, Debug)]
pub struct SessionRow {
    /// The interface whose lists opened it.
    pub interface: SwIfIndex,
    /// In which direction its first packet went.
    pub direction: Direction,
    /// Its first packet.
    pub tuple: Tuple,
    /// Seconds since the last packet.
    pub idle: f64,
    /// TCP flags of packets received on the interface, and sent on it.
    pub tcp_flags: [u8; 2],
    /// Whether it is an established TCP connection.
    pub established: bool,
    /// The list and rule that opened it; `None` when they have gone since.
    pub rule: Option<(u32, u32)>,
}

fn now() -> Ticks {
    Ticks::of(wharf_engine::clock::nanos())
}

impl Dataplane {
    pub(super) fn new_session_table(&self) -> Result<Arc<SessionTable>, OpError> {
        let random = RandomState::new();
        let seed = [1, 2, 3, 4].map(|n| random.hash_one(n));
        let table = SessionTable::new(self.max_sessions(), seed);
        table.map(Arc::new).map_err(|e| OpError::Refused(e.to_string()))
    }

    /// Sessions that there may be, of all interfaces.
    pub fn max_sessions(&self) -> usize {
        self.acls.max_sessions.unwrap_or(PER_WORKER * self.engine.workers().max(1))
    }

    /// Sets how many sessions there may be. Those that there are end.
    pub fn set_max_sessions(&mut self, max: usize) -> Result<(), OpError> {
        self.put_max_sessions(Some(max))
    }

    /// As [`Dataplane::set_max_sessions`]; `None` is so many per worker.
    pub(crate) fn put_max_sessions(&mut self, max: Option<usize>) -> Result<(), OpError> {
        if max.is_some_and(|max| !(1024..=MAX_SESSIONS).contains(&max)) {
            return OpError::parameter(
                "max-entries",
                format!("max-entries must be from 1024 to {MAX_SESSIONS}"),
            );
        }
        self.changes.touch(Object::Settings);
        let old = std::mem::replace(&mut self.acls.max_sessions, max);
        if self.acls.sessions.is_some() {
            match self.new_session_table() {
                Ok(table) => self.acls.sessions = Some(table),
                Err(error) => {
                    self.acls.max_sessions = old;
                    return Err(error);
                }
            }
        }
        self.publish_acls();
        Ok(())
    }

    /// Sessions that one interface may have.
    pub fn session_share(&self) -> u32 {
        let reflecting = self.acls.bindings.values().filter(|b| b.reflects()).count();
        (self.max_sessions() / reflecting.max(SHARES)) as u32
    }

    /// Sets a timeout, also of sessions that there are.
    pub fn set_session_timeout(&mut self, which: SessionTimeout, seconds: u32) -> Result<(), OpError> {
        if seconds == 0 {
            return OpError::parameter("seconds", "a timeout is at least 1 second");
        }
        self.changes.touch(Object::Settings);
        let timeouts = &mut self.acls.timeouts;
        let place = match which {
            SessionTimeout::UdpIdle => &mut timeouts.udp_idle,
            SessionTimeout::TcpIdle => &mut timeouts.tcp_idle,
            SessionTimeout::TcpTransient => &mut timeouts.tcp_transient,
        };
        *place = Ticks::seconds(seconds);
        self.publish_acls();
        Ok(())
    }

    /// Ends the sessions of an interface, or all.
    pub fn clear_sessions(&mut self, interface: Option<SwIfIndex>) {
        self.close_sessions(|session| interface.is_none_or(|index| session.key.interface() == index));
    }

    pub(super) fn close_sessions(&self, unwanted: impl Fn(&Session) -> bool) {
        let Some(table) = &self.acls.sessions else { return };
        for part in 0..table.parts() {
            // A session whose bucket a worker had locked is there the next time.
            let _ = (0..3).find(|_| table.sweep(part, &unwanted) == 0);
        }
    }

    /// Sweeps a part of the table; called some times a second.
    pub(crate) fn age_sessions(&mut self) {
        let Some(table) = &self.acls.sessions else { return };
        let (now, timeouts) = (now(), self.acls.timeouts);
        let bindings = &self.acls.bindings;
        for _ in 0..SWEPT.min(table.parts()) {
            self.acls.swept = (self.acls.swept + 1) % table.parts();
            table.sweep(self.acls.swept, |session| {
                let stays = bindings.get(&session.key.interface()).is_some_and(AclBinding::reflects);
                !stays || SessionTable::has_expired(session, now, &timeouts)
            });
        }
    }

    /// Up to `limit` sessions of an interface, or of all.
    pub fn sessions(&self, interface: Option<SwIfIndex>, limit: usize) -> Vec<SessionRow> {
        let Some(table) = &self.acls.sessions else { return Vec::new() };
        let all = (0..table.parts()).flat_map(|part| table.list(part));
        let wanted = all.filter(|s| interface.is_none_or(|index| s.key.interface() == index));
        wanted.take(limit).map(|session| self.session_row(&session)).collect()
    }

    /// Sessions of an interface.
    pub fn session_count(&self, interface: SwIfIndex) -> u32 {
        self.acls.sessions.as_ref().map_or(0, |table| table.count(interface))
    }

    pub(super) fn session_row(&self, session: &Session) -> SessionRow {
        let interface = session.key.interface();
        let output = session.opener.output;
        let direction = if output { Direction::Output } else { Direction::Input };
        let binding = self.acls.bindings.get(&interface);
        let lists = binding.and_then(|b| b.compiled(direction));
        let rule = lists.and_then(|l| l.rules().iter().find(|r| r.counter == session.opener.counter));
        SessionRow {
            interface,
            direction,
            tuple: (&session.key.opening(output)).into(),
            idle: Ticks(now().0.saturating_sub(session.state.last().0)).as_seconds(),
            tcp_flags: session.state.tcp_flags(),
            established: session.state.is_established(),
            rule: rule.map(|r| (r.acl, r.number)),
        }
    }
}
