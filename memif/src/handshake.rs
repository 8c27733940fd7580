//! The two ends of the handshake, as state machines that never block: each call handles the messages that are
//! there. Lock-step: the client sends the next message only after an ACK.
//!
//! ```text
//! server             client
//! HELLO      -->
//!            <--     INIT
//! ACK        -->
//!            <--     ADD_REGION + memfd      (per region)
//! ACK        -->
//!            <--     ADD_RING + eventfd      (per ring: all S2M, all M2S)
//! ACK        -->
//!            <--     CONNECT
//! CONNECTED  -->
//! ```

use std::collections::VecDeque;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Weak};

use rustix::event::EventfdFlags;

use crate::config::{ClientConfig, InterfaceConfig, Limits, Role};
use crate::connection::{Connection, ConnectionInfo, Parts, Queues, RingSpec};
use crate::error::{Direction, HandshakeError, RegionError, RingError};
use crate::queue::Link;
use crate::region::{Layout, Mapping, Regions};
use crate::ring::Ring;
use crate::socket::{Channel, Received};
use crate::wire::{ADD_RING_FLAG_S2M, AddRing, Hello, Init, Message, MessageType, VERSION};

/// Looks up an interface for INIT: its configuration, and what its one connection holds. Fails with the reason to
/// refuse.
pub(crate) type Lookup<'a> = dyn FnMut(&Init) -> Result<(InterfaceConfig, Weak<()>), HandshakeError> + 'a;

/// A message of the right type, with the one descriptor that it takes, if it takes one.
fn open(received: Received) -> Result<(Message, Option<OwnedFd>), HandshakeError> {
    let message = Message::decode(&received.bytes)?;
    let count = received.fds.len();
    let room = usize::from(matches!(message.kind(), MessageType::AddRegion | MessageType::AddRing));
    if count > room {
        return Err(HandshakeError::Descriptors(message.kind(), count));
    }
    Ok((message, received.fds.into_iter().next()))
}

fn unexpected<T>(message: &Message, expected: &'static str) -> Result<T, HandshakeError> {
    if let Message::Disconnect { code, reason } = message {
        return Err(HandshakeError::Disconnected { code: *code, reason: reason.clone() });
    }
    Err(HandshakeError::Unexpected { got: message.kind(), expected })
}

/// Tells the peer why we end the handshake, unless it ended it.
pub(crate) fn refuse(channel: &Channel, error: &HandshakeError) {
    if !matches!(
        error,
        HandshakeError::Closed | HandshakeError::Disconnected { .. } | HandshakeError::SendBlocked
    ) {
        let _ = channel.send(&Message::Disconnect { code: 0, reason: error.to_string() }.encode(), None);
    }
    channel.discard_unread();
}

/// Only an eventfd runs no foreign code when it is read, written or polled: a pipe can fill up, a FUSE file can
/// hang. Its link in /proc is the one thing that tells.
fn check_eventfd(fd: BorrowedFd<'_>) -> Result<(), RingError> {
    let link = std::fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd()));
    let name = link.map_or_else(|e| e.to_string(), |l| l.to_string_lossy().into_owned());
    if name == "anon_inode:[eventfd]" { Ok(()) } else { Err(RingError::NotEventfd(name)) }
}

/// The interface that a client asked for.
#[derive(Debug)]
struct Wanted {
    config: InterfaceConfig,
    seat: Weak<()>,
    client_app: String,
}

/// A server's end, from accept to CONNECTED.
#[derive(Debug)]
pub(crate) struct ServerHandshake {
    /// Taken by the connection.
    channel: Option<Channel>,
    limits: Limits,
    interface: Option<Wanted>,
    mapped: u64,
    regions: Vec<Mapping>,
    s2m: Vec<RingSpec>,
    m2s: Vec<RingSpec>,
}

impl ServerHandshake {
    /// Starts with HELLO.
    pub(crate) fn start(channel: Channel, app_name: &str, limits: Limits) -> Result<Self, HandshakeError> {
        let hello = Hello {
            name: app_name.into(),
            min_version: VERSION,
            max_version: VERSION,
            max_region: limits.max_regions - 1,
            max_m2s_ring: limits.max_rings - 1,
            max_s2m_ring: limits.max_rings - 1,
            max_log2_ring_size: limits.max_log2_ring_size,
        };
        channel.send(&Message::Hello(hello).encode(), None)?;
        Ok(Self {
            channel: Some(channel),
            limits,
            interface: None,
            mapped: 0,
            regions: Vec::new(),
            s2m: Vec::new(),
            m2s: Vec::new(),
        })
    }

    pub(crate) fn channel(&self) -> Option<&Channel> {
        self.channel.as_ref()
    }

    /// The interface that the client asked for, once it has.
    pub(crate) fn id(&self) -> Option<u32> {
        self.interface.as_ref().map(|i| i.config.id)
    }

    /// Handles what has arrived. The number of messages is bounded by the states. An error ends the handshake;
    /// the peer has been told.
    pub(crate) fn process(&mut self, lookup: &mut Lookup<'_>) -> Result<Option<Connection>, HandshakeError> {
        let result = self.advance(lookup);
        if let (Err(error), Some(channel)) = (&result, &self.channel) {
            refuse(channel, error);
        }
        result
    }

    /// Ends the handshake for a reason of ours.
    pub(crate) fn refuse(&self, error: &HandshakeError) {
        if let Some(channel) = &self.channel {
            refuse(channel, error);
        }
    }

    fn advance(&mut self, lookup: &mut Lookup<'_>) -> Result<Option<Connection>, HandshakeError> {
        loop {
            let Some(channel) = &self.channel else { return Err(HandshakeError::Closed) };
            let Some(received) = channel.receive()? else { return Ok(None) };
            let (message, fd) = open(received)?;
            match (&self.interface, message) {
                (None, Message::Init(init)) => self.init(&init, lookup)?,
                (None, other) => return unexpected(&other, "INIT"),
                (Some(_), Message::AddRegion { index, size }) => self.add_region(index, size, fd)?,
                (Some(_), Message::AddRing(ring)) => self.add_ring(&ring, fd)?,
                (Some(_), Message::Connect { if_name }) => return self.connect(if_name).map(Some),
                (Some(_), other) => return unexpected(&other, "ADD_REGION, ADD_RING or CONNECT"),
            }
            if let Some(channel) = &self.channel {
                channel.send(&Message::Ack.encode(), None)?;
            }
        }
    }

    fn init(&mut self, init: &Init, lookup: &mut Lookup<'_>) -> Result<(), HandshakeError> {
        if init.version != VERSION {
            return Err(HandshakeError::Version(init.version));
        }
        let (config, seat) = lookup(init)?;
        if let Some(bytes) = config.max_mapped {
            self.limits.max_mapped = bytes;
        }
        self.interface = Some(Wanted { config, seat, client_app: init.name.clone() });
        Ok(())
    }

    fn add_region(&mut self, index: u16, size: u64, fd: Option<OwnedFd>) -> Result<(), HandshakeError> {
        if !(self.s2m.is_empty() && self.m2s.is_empty()) {
            return Err(HandshakeError::Unexpected {
                got: MessageType::AddRegion,
                expected: "ADD_RING or CONNECT",
            });
        }
        if usize::from(index) != self.regions.len() {
            return Err(HandshakeError::RegionIndex(index));
        }
        if index >= self.limits.max_regions {
            return Err(HandshakeError::TooManyRegions(self.limits.max_regions));
        }
        let mapping = fd
            .ok_or(RegionError::NoFd)
            .and_then(|fd| Mapping::from_peer(fd, size, self.mapped, &self.limits))
            .map_err(|source| HandshakeError::Region { index, source })?;
        self.mapped += mapping.len();
        self.regions.push(mapping);
        Ok(())
    }

    fn add_ring(&mut self, add: &AddRing, fd: Option<OwnedFd>) -> Result<(), HandshakeError> {
        let per_interface = self.interface.as_ref().map_or(0, |i| i.config.max_queues);
        let limit = self.limits.max_rings.min(per_interface);
        let s2m = add.flags & ADD_RING_FLAG_S2M != 0;
        let (direction, rings) =
            if s2m { (Direction::S2M, &mut self.s2m) } else { (Direction::M2S, &mut self.m2s) };
        if usize::from(add.index) != rings.len() {
            return Err(HandshakeError::RingIndex(add.index));
        }
        if add.index >= limit {
            return Err(HandshakeError::TooManyRings(limit));
        }
        let check = || {
            if add.private_hdr_size != 0 {
                return Err(RingError::PrivateHeader(add.private_hdr_size));
            }
            let region = self.regions.get(usize::from(add.region)).ok_or(RingError::NoRegion(add.region))?;
            Ring::check(region.len(), add.offset, add.log2_ring_size, self.limits.max_log2_ring_size)?;
            let event = fd.ok_or(RingError::NoFd)?;
            check_eventfd(event.as_fd())?;
            Ok(event)
        };
        let event = check().map_err(|source| HandshakeError::Ring { direction, index: add.index, source })?;
        rings.push(RingSpec { region: add.region, offset: add.offset, log2_size: add.log2_ring_size, event });
        Ok(())
    }

    fn connect(&mut self, remote_interface: String) -> Result<Connection, HandshakeError> {
        for (direction, rings) in [(Direction::S2M, &self.s2m), (Direction::M2S, &self.m2s)] {
            if rings.is_empty() {
                return Err(HandshakeError::NoRing(direction));
            }
        }
        let regions = Arc::new(Regions::new(std::mem::take(&mut self.regions)));
        let region_sizes = regions.sizes();
        let parts = Parts { regions, s2m: std::mem::take(&mut self.s2m), m2s: std::mem::take(&mut self.m2s) };
        let link = Arc::new(Link::default());
        let queues = Queues::server(parts, &link)?;
        let Some(Wanted { config, seat, client_app }) = self.interface.take() else {
            return Err(HandshakeError::Closed);
        };
        // The interface has one reference, and this is one; if there are more, another client was faster.
        let seat = seat.upgrade().ok_or(HandshakeError::UnknownId(config.id))?;
        if Arc::strong_count(&seat) > 2 {
            return Err(HandshakeError::IdInUse(config.id));
        }
        // Last, since from here on the client may post packets.
        let Some(channel) = self.channel.take() else { return Err(HandshakeError::Closed) };
        channel.send(&Message::Connected { if_name: config.name }.encode(), None)?;
        let info = ConnectionInfo {
            role: Role::Server,
            id: config.id,
            mode: config.mode,
            remote_interface,
            remote_app: client_app,
            peer: channel.peer(),
            region_sizes,
        };
        Ok(Connection::new(channel, link, queues, Some(seat), info))
    }
}

/// What a server checks in INIT against the interface of that id.
pub(crate) fn check_init(init: &Init, config: &InterfaceConfig) -> Result<(), HandshakeError> {
    if let Some(secret) = &config.secret {
        if init.secret == [0; crate::wire::SECRET_SIZE] {
            return Err(HandshakeError::SecretMissing);
        }
        if !secret.matches(&init.secret) {
            return Err(HandshakeError::SecretWrong);
        }
    }
    if init.mode != config.mode.wire() {
        return Err(HandshakeError::Mode(init.mode));
    }
    Ok(())
}

/// Where a client is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ClientState {
    Hello,
    Ack,
    Connected,
}

/// What a client announces, once the server said what it grants.
#[derive(Debug)]
struct Offer {
    layout: Layout,
    parts: Parts,
    server_app: String,
}

/// A client's end, from connect to CONNECTED.
#[derive(Debug)]
pub(crate) struct ClientHandshake {
    channel: Option<Channel>,
    config: ClientConfig,
    state: ClientState,
    /// Messages to send, one per ACK, with a duplicate of their descriptor.
    queue: VecDeque<(Message, Option<OwnedFd>)>,
    offer: Option<Offer>,
    hello: Option<Hello>,
    last_sent: Option<MessageType>,
    /// First value of all indices: 0, except to test their wrap.
    start: u16,
}

impl ClientHandshake {
    /// Waits for HELLO on a connected channel.
    pub(crate) fn start(channel: Channel, config: ClientConfig, start: u16) -> Self {
        let state = ClientState::Hello;
        Self {
            channel: Some(channel),
            config,
            state,
            queue: VecDeque::new(),
            offer: None,
            hello: None,
            last_sent: None,
            start,
        }
    }

    /// What the server said first.
    pub(crate) fn hello(&self) -> Option<&Hello> {
        self.hello.as_ref()
    }

    /// The message that was sent last: what the server refused, if it did.
    pub(crate) fn last_sent(&self) -> Option<MessageType> {
        self.last_sent
    }

    pub(crate) fn channel(&self) -> Option<&Channel> {
        self.channel.as_ref()
    }

    /// As [`ServerHandshake::process`].
    pub(crate) fn process(&mut self) -> Result<Option<Connection>, HandshakeError> {
        let result = self.advance();
        if let (Err(error), Some(channel)) = (&result, &self.channel) {
            refuse(channel, error);
        }
        result
    }

    fn advance(&mut self) -> Result<Option<Connection>, HandshakeError> {
        loop {
            let Some(channel) = &self.channel else { return Err(HandshakeError::Closed) };
            let Some(received) = channel.receive()? else { return Ok(None) };
            let (message, _) = open(received)?;
            match (self.state, message) {
                (ClientState::Hello, Message::Hello(hello)) => self.offer(hello)?,
                (ClientState::Hello, other) => return unexpected(&other, "HELLO"),
                (ClientState::Ack, Message::Ack) => self.send_next()?,
                (ClientState::Ack, other) => return unexpected(&other, "ACK"),
                (ClientState::Connected, Message::Connected { if_name }) => {
                    return self.connected(if_name).map(Some);
                }
                (ClientState::Connected, other) => return unexpected(&other, "CONNECTED"),
            }
        }
    }

    fn send_next(&mut self) -> Result<(), HandshakeError> {
        let (Some(channel), Some((message, fd))) = (&self.channel, self.queue.pop_front()) else {
            return Err(HandshakeError::Unexpected { got: MessageType::Ack, expected: "nothing" });
        };
        channel.send(&message.encode(), fd.as_ref().map(AsFd::as_fd))?;
        self.last_sent = Some(message.kind());
        self.state = if self.queue.is_empty() { ClientState::Connected } else { ClientState::Ack };
        Ok(())
    }

    fn offer(&mut self, hello: Hello) -> Result<(), HandshakeError> {
        let hello = self.hello.insert(hello);
        if !(hello.min_version..=hello.max_version).contains(&VERSION) {
            return Err(HandshakeError::Version(hello.max_version));
        }
        let config = &self.config;
        let s2m = config.tx_queues.min(hello.max_s2m_ring.saturating_add(1));
        let m2s = config.rx_queues.min(hello.max_m2s_ring.saturating_add(1));
        let log2_size = config.log2_ring_size.min(hello.max_log2_ring_size);
        let region = |source| HandshakeError::Region { index: 0, source };
        // The configuration was checked, and the server only made it smaller.
        let layout = Layout::new(s2m, m2s, log2_size, config.buffer_size)
            .map_err(|_| region(RegionError::OverCap { total: u64::MAX, limit: u32::MAX.into() }))?;
        let (memory, memfd) = Mapping::create(layout.total).map_err(region)?;
        let regions = Arc::new(Regions::new(vec![memory]));
        let init = Init {
            version: VERSION,
            id: config.id,
            mode: config.mode.wire(),
            secret: config.secret.map_or([0; crate::wire::SECRET_SIZE], |s| s.bytes()),
            name: config.app_name.clone(),
        };
        let mut queue = VecDeque::new();
        queue.push_back((Message::Init(init), None));
        queue.push_back((Message::AddRegion { index: 0, size: layout.total.into() }, Some(memfd)));
        let mut rings = [Vec::new(), Vec::new()];
        for (specs, (direction, count)) in
            rings.iter_mut().zip([(Direction::S2M, s2m), (Direction::M2S, m2s)])
        {
            for index in 0..count {
                let event = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
                    .map_err(|e| HandshakeError::io("eventfd", e))?;
                let copy = event.try_clone().map_err(|e| HandshakeError::io("dup", e))?;
                let offset = layout.ring_offset(direction, index);
                // The server looks at cookie and indices when it gets CONNECT.
                Ring::new(regions.clone(), 0, offset, log2_size)
                    .map_err(|source| HandshakeError::Ring { direction, index, source })?
                    .initialise(self.start);
                let flags = if direction == Direction::S2M { ADD_RING_FLAG_S2M } else { 0 };
                let add = AddRing {
                    flags,
                    index,
                    region: 0,
                    offset,
                    log2_ring_size: log2_size,
                    private_hdr_size: 0,
                };
                queue.push_back((Message::AddRing(add), Some(copy)));
                specs.push(RingSpec { region: 0, offset, log2_size, event });
            }
        }
        queue.push_back((Message::Connect { if_name: config.name.clone() }, None));
        let [s2m, m2s] = rings;
        self.offer =
            Some(Offer { layout, parts: Parts { regions, s2m, m2s }, server_app: hello.name.clone() });
        self.queue = queue;
        self.send_next()
    }

    fn connected(&mut self, remote_interface: String) -> Result<Connection, HandshakeError> {
        let (Some(channel), Some(offer)) = (self.channel.take(), self.offer.take()) else {
            return Err(HandshakeError::Closed);
        };
        let info = ConnectionInfo {
            role: Role::Client,
            id: self.config.id,
            mode: self.config.mode,
            remote_interface,
            remote_app: offer.server_app,
            peer: channel.peer(),
            region_sizes: offer.parts.regions.sizes(),
        };
        let link = Arc::new(Link::default());
        let queues = Queues::client(offer.parts, &link, &offer.layout, self.start)?;
        Ok(Connection::new(channel, link, queues, None, info))
    }
}
