//! A server's listening socket, which serves many interfaces by id.

use std::collections::{BTreeMap, VecDeque};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use rustix::event::epoll;
use rustix::io::Errno;

use crate::admission::{Claimant, Origin, Rates, evens_out, heaviest, lightest};
use crate::config::{InterfaceConfig, ListenerConfig};
use crate::connection::Connection;
use crate::error::{ConfigError, Error, HandshakeError, SocketError};
use crate::handshake::{ServerHandshake, check_init, refuse};
use crate::socket::{Address, Channel, ListenSocket, PeerCredentials};
use crate::wire::Init;

/// What happened on a listener.
#[derive(Debug)]
pub enum ServerEvent {
    /// A client is connected to the interface [`crate::ConnectionInfo::id`].
    Connected(Box<Connection>),
    /// A handshake failed; the client has been told and its socket is closed.
    Failed {
        /// The interface, if the client got as far as a valid INIT.
        id: Option<u32>,
        /// Who it was.
        peer: Option<PeerCredentials>,
        /// Why.
        error: HandshakeError,
    },
    /// The kernel refused to accept a connection, say for lack of descriptors; tried again shortly.
    AcceptFailed(SocketError),
}

/// A handshake that takes longer makes room for another one where there is none.
const STALE: Duration = Duration::from_millis(100);
/// Clients that wait for their handshake to begin.
const MAX_WAITING: usize = 16;

/// How long nobody of a place that a wrong secret came from may try again.
const PENALTY: Duration = Duration::from_secs(1);
/// Places under penalty at a time; the oldest is let off early.
const MAX_PENALTIES: usize = 64;

/// Who gave a wrong secret lately: an [`Origin`], since finer would be no penalty, as processes are cheap, and coarser would
/// let one container lock out another.
#[derive(Debug, Default)]
struct Penalties(VecDeque<(Origin, Instant)>);

impl Penalties {
    fn check(&mut self, origin: Origin, now: Instant) -> Result<(), HandshakeError> {
        while self.0.front().is_some_and(|(_, end)| now >= *end) {
            self.0.pop_front();
        }
        if self.0.iter().any(|(o, _)| *o == origin) { Err(HandshakeError::SecretPenalty) } else { Ok(()) }
    }

    fn add(&mut self, origin: Origin, now: Instant) {
        if self.0.len() >= MAX_PENALTIES {
            self.0.pop_front();
        }
        self.0.push_back((origin, now + PENALTY));
    }
}

/// A client whose handshake has not begun.
#[derive(Debug)]
struct Waiting {
    channel: Channel,
    peer: Option<PeerCredentials>,
    claimant: Claimant,
}

#[derive(Debug)]
struct Pending {
    handshake: ServerHandshake,
    peer: Option<PeerCredentials>,
    claimant: Claimant,
    deadline: Instant,
    started: Instant,
}

#[derive(Debug)]
struct Interface {
    config: InterfaceConfig,
    /// Each connection holds a reference. A handshake does not: else who never ends it could keep others out.
    seat: Arc<()>,
}

/// A listening control socket with the interfaces behind it.
///
/// One descriptor, [`Listener::fd`], becomes readable when [`Listener::process`] has something to do, whatever
/// the number of handshakes in progress.
#[derive(Debug)]
pub struct Listener {
    config: ListenerConfig,
    socket: ListenSocket,
    /// Holds `socket` (unless it must wait) and the sockets of `pending`.
    epoll: OwnedFd,
    accepting: bool,
    /// Don't try before.
    accept_after: Option<Instant>,
    rates: Rates,
    /// In the order of their coming.
    waiting: Vec<Waiting>,
    /// In the order of their beginning.
    pending: Vec<Pending>,
    penalties: Penalties,
    interfaces: BTreeMap<u32, Interface>,
}

impl Listener {
    /// Binds and listens. A socket file that nobody listens on any more is replaced.
    pub fn bind(config: ListenerConfig, now: Instant) -> Result<Self, Error> {
        let config = ListenerConfig { limits: config.limits.clamped(), ..config };
        let socket = ListenSocket::bind(&config.address, config.file_mode)?;
        let epoll =
            epoll::create(epoll::CreateFlags::CLOEXEC).map_err(|e| SocketError::io("epoll_create1", e))?;
        let mut listener = Self {
            config,
            socket,
            epoll,
            accepting: false,
            accept_after: None,
            rates: Rates::new(now),
            waiting: Vec::new(),
            pending: Vec::new(),
            penalties: Penalties::default(),
            interfaces: BTreeMap::new(),
        };
        listener.set_accepting(true).map_err(|e| SocketError::io("epoll_ctl", e))?;
        Ok(listener)
    }

    /// Where it listens.
    pub fn address(&self) -> &Address {
        &self.config.address
    }

    /// Offers an interface.
    pub fn add(&mut self, interface: InterfaceConfig) -> Result<(), ConfigError> {
        interface.mode.check()?;
        if !(1..=255).contains(&interface.max_queues) {
            return Err(ConfigError::Queues(interface.max_queues));
        }
        let id = interface.id;
        if interface.secret.is_none() && !self.config.is_protected() {
            return Err(ConfigError::Unprotected(id));
        }
        if self.interfaces.contains_key(&id) {
            return Err(ConfigError::DuplicateId(id));
        }
        self.interfaces.insert(id, Interface { config: interface, seat: Arc::new(()) });
        Ok(())
    }

    /// Withdraws an interface, and ends the handshake of its client if there is one. A connection that is up is
    /// the caller's and stays. False if there was no such interface.
    pub fn remove(&mut self, id: u32) -> bool {
        self.pending.retain(|p| {
            let keep = p.handshake.id() != Some(id);
            if !keep {
                p.handshake.refuse(&HandshakeError::UnknownId(id));
            }
            keep
        });
        self.interfaces.remove(&id).is_some()
    }

    /// Ids of the interfaces, ascending, and whether each has a client.
    pub fn interfaces(&self) -> impl Iterator<Item = (u32, bool)> + '_ {
        self.interfaces.iter().map(|(id, i)| (*id, Arc::strong_count(&i.seat) > 1))
    }

    /// The descriptor to poll for input (an epoll instance).
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }

    /// Call [`Listener::process`] then at the latest, even if nothing becomes readable.
    pub fn next_deadline(&self) -> Option<Instant> {
        let accept = if self.accepting { None } else { self.accept_after };
        // The oldest is the first.
        let place = self.pending.first().filter(|_| !self.waiting.is_empty()).map(|p| p.started + STALE);
        self.pending.iter().map(|p| p.deadline).chain(accept).chain(place).min()
    }

    fn max_pending(&self) -> usize {
        self.config.max_pending.max(1)
    }

    /// Accepts clients and goes on with their handshakes. Never blocks, and bounds the work of one call.
    pub fn process(&mut self, now: Instant) -> Vec<ServerEvent> {
        let mut events = Vec::new();
        self.advance(now, &mut events);
        self.accept(now, &mut events);
        if self.promote(now, &mut events) {
            // Who has just been let in may have sent INIT already.
            self.advance(now, &mut events);
        }
        events
    }

    fn advance(&mut self, now: Instant, events: &mut Vec<ServerEvent>) {
        let (interfaces, penalties) = (&self.interfaces, &mut self.penalties);
        // A socket leaves the epoll set when it is closed; one that goes on as a connection is taken out.
        self.pending.retain_mut(|pending| {
            let fail = |id, error| ServerEvent::Failed { id, peer: pending.peer, error };
            let mut lookup = |init: &Init| {
                let found = look_up(interfaces, init, || penalties.check(pending.claimant.origin(), now));
                if matches!(found, Err(HandshakeError::SecretWrong)) {
                    penalties.add(pending.claimant.origin(), now);
                }
                found
            };
            match pending.handshake.process(&mut lookup) {
                Ok(None) if now >= pending.deadline => {
                    pending.handshake.refuse(&HandshakeError::Timeout);
                    events.push(fail(pending.handshake.id(), HandshakeError::Timeout));
                    false
                }
                Ok(None) => true,
                Ok(Some(connection)) => {
                    let _ = epoll::delete(&self.epoll, connection.control.fd());
                    events.push(ServerEvent::Connected(Box::new(connection)));
                    false
                }
                Err(error) => {
                    events.push(fail(pending.handshake.id(), error));
                    false
                }
            }
        });
    }

    /// Takes clients out of the kernel's queue, where none can be told from another, and turns away those that are too many.
    fn accept(&mut self, now: Instant, events: &mut Vec<ServerEvent>) {
        if self.accept_after.is_some_and(|after| now < after) {
            return;
        }
        self.accept_after = None;
        while self.accept_after.is_none() {
            if let Err(later) = self.rates.may_accept(now) {
                self.accept_after = Some(later);
                break;
            }
            match self.socket.accept() {
                Ok(Some(channel)) => self.receive(channel, now, events),
                Ok(None) => break,
                Err(error) => {
                    events.push(ServerEvent::AcceptFailed(error));
                    self.accept_after = Some(now + STALE);
                }
            }
        }
        // While clients wait that we don't take yet, the socket would only keep us awake.
        let _ = self.set_accepting(self.accept_after.is_none());
    }

    /// Lets a client wait for its turn, if it may.
    fn receive(&mut self, channel: Channel, now: Instant, events: &mut Vec<ServerEvent>) {
        self.rates.accepted();
        let peer = channel.peer();
        let error = if !self.config.admits(peer) {
            HandshakeError::UserNotAllowed(peer.map_or(u32::MAX, |p| p.uid))
        } else if !self.rates.may_start(peer, now) {
            HandshakeError::TooMany
        } else {
            self.waiting.push(Waiting { channel, peer, claimant: Claimant::new(peer) });
            if self.waiting.len() > MAX_WAITING {
                let all: Vec<Claimant> = self.waiting.iter().map(|w| w.claimant).collect();
                let out = self.waiting.remove(heaviest(&all).unwrap_or(0));
                refuse(&out.channel, &HandshakeError::TooMany);
                events.push(ServerEvent::Failed { id: None, peer: out.peer, error: HandshakeError::TooMany });
            }
            return;
        };
        refuse(&channel, &error);
        events.push(ServerEvent::Failed { id: None, peer, error });
    }

    /// Begins handshakes while there is a place, or one to be had. True if it did.
    fn promote(&mut self, now: Instant, events: &mut Vec<ServerEvent>) -> bool {
        let mut begun = false;
        loop {
            let held: Vec<Claimant> = self.pending.iter().map(|p| p.claimant).collect();
            let waiting: Vec<Claimant> = self.waiting.iter().map(|w| w.claimant).collect();
            let Some(next) = lightest(&waiting, &held) else { return begun };
            if held.len() >= self.max_pending() {
                let even = heaviest(&held).filter(|i| {
                    let from_to = held.get(*i).zip(waiting.get(next));
                    from_to.is_some_and(|(from, to)| evens_out(from, to, &held))
                });
                let stale = || self.pending.iter().position(|p| now >= p.started + STALE);
                let Some(out) = even.or_else(stale) else { return begun };
                let out = self.pending.remove(out);
                out.handshake.refuse(&HandshakeError::Evicted);
                let (id, peer, error) = (out.handshake.id(), out.peer, HandshakeError::Evicted);
                events.push(ServerEvent::Failed { id, peer, error });
            }
            let next = self.waiting.remove(next);
            self.begin(next, now, events);
            begun = true;
        }
    }

    fn begin(&mut self, client: Waiting, now: Instant, events: &mut Vec<ServerEvent>) {
        let Waiting { channel, peer, claimant } = client;
        let started = ServerHandshake::start(channel, &self.config.app_name, self.config.limits);
        let added = started.and_then(|handshake| {
            if let Some(channel) = handshake.channel() {
                let data = epoll::EventData::new_u64(0);
                epoll::add(&self.epoll, channel.as_fd(), data, epoll::EventFlags::IN)
                    .map_err(|e| HandshakeError::io("epoll_ctl", e))?;
            }
            Ok(handshake)
        });
        match added {
            Ok(handshake) => {
                let deadline = now + self.config.limits.handshake;
                self.pending.push(Pending { handshake, peer, claimant, deadline, started: now });
            }
            Err(error) => events.push(ServerEvent::Failed { id: None, peer, error }),
        }
    }

    fn set_accepting(&mut self, on: bool) -> Result<(), Errno> {
        if on != self.accepting {
            if on {
                let data = epoll::EventData::new_u64(0);
                epoll::add(&self.epoll, self.socket.as_fd(), data, epoll::EventFlags::IN)?;
            } else {
                epoll::delete(&self.epoll, self.socket.as_fd())?;
            }
            self.accepting = on;
        }
        Ok(())
    }
}

/// Answers INIT: the interface, and what a connection to it must hold.
fn look_up(
    interfaces: &BTreeMap<u32, Interface>,
    init: &Init,
    may_guess: impl FnOnce() -> Result<(), HandshakeError>,
) -> Result<(InterfaceConfig, Weak<()>), HandshakeError> {
    let interface = interfaces.get(&init.id).ok_or(HandshakeError::UnknownId(init.id))?;
    if interface.config.secret.is_some() {
        may_guess()?;
    }
    // The secret first: who does not know it learns nothing about the interface.
    check_init(init, &interface.config)?;
    if Arc::strong_count(&interface.seat) > 1 {
        return Err(HandshakeError::IdInUse(init.id));
    }
    Ok((interface.config.clone(), Arc::downgrade(&interface.seat)))
}
