//! A server's listening socket, which serves many interfaces by id.

use std::collections::{BTreeMap, VecDeque};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use rustix::event::epoll;
use rustix::io::Errno;

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

/// A pending connection that has not progressed for so long makes room for a new one.
const STALE: Duration = Duration::from_millis(100);
/// Connections accepted at once, and the time to earn one more: at most 100 a second in the long run.
const BURST: u32 = 32;
const EARN: Duration = Duration::from_millis(10);

/// How long nobody of a place that a wrong secret came from may try again.
const PENALTY: Duration = Duration::from_secs(1);
/// Places under penalty at a time; the oldest is let off early.
const MAX_PENALTIES: usize = 64;

/// Where a peer is, as far as it can't choose: its user and its network namespace, which is the container's. Finer
/// would be no penalty, since processes are cheap; coarser would let one container lock out another.
type Origin = (u32, Option<String>);

/// Who gave a wrong secret lately.
#[derive(Debug, Default)]
struct Penalties(VecDeque<(Origin, Instant)>);

impl Penalties {
    fn origin(peer: Option<PeerCredentials>) -> Origin {
        (peer.map_or(u32::MAX, |p| p.uid), peer.and_then(|p| p.network_namespace()))
    }

    fn check(&mut self, peer: Option<PeerCredentials>, now: Instant) -> Result<(), HandshakeError> {
        while self.0.front().is_some_and(|(_, end)| now >= *end) {
            self.0.pop_front();
        }
        if self.0.is_empty() {
            return Ok(());
        }
        let origin = Self::origin(peer);
        if self.0.iter().any(|(o, _)| *o == origin) { Err(HandshakeError::SecretPenalty) } else { Ok(()) }
    }

    fn add(&mut self, peer: Option<PeerCredentials>, now: Instant) {
        if self.0.len() >= MAX_PENALTIES {
            self.0.pop_front();
        }
        self.0.push_back((Self::origin(peer), now + PENALTY));
    }
}

/// Bounds the rate of accepts.
#[derive(Debug)]
struct TokenBucket {
    tokens: u32,
    since: Instant,
}

impl TokenBucket {
    fn refill(&mut self, now: Instant) {
        while self.tokens < BURST && now.saturating_duration_since(self.since) >= EARN {
            self.tokens += 1;
            self.since += EARN;
        }
        if self.tokens == BURST {
            self.since = now;
        }
    }
}

#[derive(Debug)]
struct Pending {
    handshake: ServerHandshake,
    peer: Option<PeerCredentials>,
    deadline: Instant,
    accepted: Instant,
}

#[derive(Debug)]
struct Interface {
    config: InterfaceConfig,
    /// Alive while a handshake or a connection holds the id.
    holder: Weak<()>,
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
    /// Set if accept failed: don't try before.
    accept_after: Option<Instant>,
    bucket: TokenBucket,
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
            bucket: TokenBucket { tokens: BURST, since: now },
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
        self.interfaces.insert(id, Interface { config: interface, holder: Weak::new() });
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
        self.interfaces.iter().map(|(id, i)| (*id, i.holder.strong_count() != 0))
    }

    /// The descriptor to poll for input (an epoll instance).
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }

    /// Call [`Listener::process`] then at the latest, even if nothing becomes readable.
    pub fn next_deadline(&self) -> Option<Instant> {
        let accept = (!self.accepting).then(|| {
            let token = (self.bucket.tokens == 0).then(|| self.bucket.since + EARN);
            let stale = self.pending.iter().map(|p| p.accepted + STALE).min();
            let room = if self.pending.len() >= self.max_pending() { stale } else { None };
            // None of them: a place became free meanwhile, so at once.
            [self.accept_after, token, room].into_iter().flatten().max().unwrap_or(self.bucket.since)
        });
        self.pending.iter().map(|p| p.deadline).chain(accept).min()
    }

    fn max_pending(&self) -> usize {
        self.config.max_pending.max(1)
    }

    /// Accepts clients and goes on with their handshakes. Never blocks, and bounds the work of one call.
    pub fn process(&mut self, now: Instant) -> Vec<ServerEvent> {
        let mut events = Vec::new();
        self.advance(now, &mut events);
        self.accept(now, &mut events);
        // What has just been accepted may have sent INIT already.
        self.advance(now, &mut events);
        events
    }

    fn advance(&mut self, now: Instant, events: &mut Vec<ServerEvent>) {
        let (interfaces, penalties) = (&mut self.interfaces, &mut self.penalties);
        // A socket leaves the epoll set when it is closed; one that goes on as a connection is taken out.
        self.pending.retain_mut(|pending| {
            let fail = |id, error| ServerEvent::Failed { id, peer: pending.peer, error };
            let mut lookup = |init: &Init| {
                let claimed = claim(interfaces, init, || penalties.check(pending.peer, now));
                if matches!(claimed, Err(HandshakeError::SecretWrong)) {
                    penalties.add(pending.peer, now);
                }
                claimed
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

    fn accept(&mut self, now: Instant, events: &mut Vec<ServerEvent>) {
        self.bucket.refill(now);
        if self.accept_after.is_some_and(|after| now < after) {
            return;
        }
        self.accept_after = None;
        let mut waiting = true;
        while self.bucket.tokens > 0 && self.has_room(now) {
            match self.socket.accept() {
                Ok(Some(channel)) => {
                    self.bucket.tokens -= 1;
                    self.evict(events);
                    self.admit(channel, now, events);
                }
                Ok(None) => {
                    waiting = false;
                    break;
                }
                Err(error) => {
                    events.push(ServerEvent::AcceptFailed(error));
                    self.accept_after = Some(now + STALE);
                    break;
                }
            }
        }
        // While clients wait that we don't take yet, the socket would only keep us awake.
        let _ = self.set_accepting(!waiting);
    }

    /// Whether a new connection can be taken: there is a place, or one to be had.
    fn has_room(&self, now: Instant) -> bool {
        self.pending.len() < self.max_pending() || self.pending.iter().any(|p| now >= p.accepted + STALE)
    }

    /// Makes a place if there is none: by ending the oldest handshake, which is stale by [`Listener::has_room`].
    fn evict(&mut self, events: &mut Vec<ServerEvent>) {
        if self.pending.len() < self.max_pending() {
            return;
        }
        // Accepted in order, so the first is the oldest.
        let oldest = self.pending.remove(0);
        oldest.handshake.refuse(&HandshakeError::Evicted);
        let id = oldest.handshake.id();
        events.push(ServerEvent::Failed { id, peer: oldest.peer, error: HandshakeError::Evicted });
    }

    fn admit(&mut self, channel: Channel, now: Instant, events: &mut Vec<ServerEvent>) {
        let peer = channel.peer();
        let started = if self.config.admits(peer) {
            ServerHandshake::start(channel, &self.config.app_name, self.config.limits)
        } else {
            let error = HandshakeError::UserNotAllowed(peer.map_or(u32::MAX, |p| p.uid));
            refuse(&channel, &error);
            Err(error)
        };
        let added = started.and_then(|handshake| {
            if let Some(channel) = handshake.channel() {
                let data = epoll::EventData::new_u64(0);
                epoll::add(&self.epoll, channel.as_fd(), data, epoll::EventFlags::IN)
                    .map_err(|e| HandshakeError::io("epoll_ctl", e))?;
            }
            Ok(handshake)
        });
        match added {
            Ok(handshake) => self.pending.push(Pending {
                handshake,
                peer,
                deadline: now + self.config.limits.handshake,
                accepted: now,
            }),
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

/// Answers INIT: the interface, held by the claim that is returned.
fn claim(
    interfaces: &mut BTreeMap<u32, Interface>,
    init: &Init,
    may_guess: impl FnOnce() -> Result<(), HandshakeError>,
) -> Result<(InterfaceConfig, Arc<()>), HandshakeError> {
    let interface = interfaces.get_mut(&init.id).ok_or(HandshakeError::UnknownId(init.id))?;
    if interface.config.secret.is_some() {
        may_guess()?;
    }
    // The secret first: who does not know it learns nothing about the interface.
    check_init(init, &interface.config)?;
    if interface.holder.strong_count() != 0 {
        return Err(HandshakeError::IdInUse(init.id));
    }
    let claim = Arc::new(());
    interface.holder = Arc::downgrade(&claim);
    Ok((interface.config.clone(), claim))
}
