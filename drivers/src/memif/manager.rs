//! The main thread's side of memif: control sockets, attempts to connect, connections.

use super::config::{DEFAULT_SOCKET, MemifConfig, MemifError};
use super::info::{MemifInfo, RegionInfo, RingInfo, SocketInfo};
use super::socket::{Access, Socket, describe_refusal};
use super::{MemifInput, MemifOutput};
use memif::{
    Address, Backoff, Client, ClientConfig, CloseReason, Connection, ConnectionInfo, Control, Counters,
    Direction, InterfaceConfig, Limits, Listener, ListenerConfig, Mode, RingState, Role, ServerEvent,
};
use rustix::event::epoll;
use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};
use wharf_engine::SwIfIndex;
use wharf_engine::device::{DeviceInput, DeviceOutput};

/// How often connections are looked at for what wakes nobody: a peer that broke the rules of a ring.
const CHECK: Duration = Duration::from_millis(250);
/// Set in the epoll data of a listener, whose low half is the socket's id; else it is an interface's index.
const LISTENER: u64 = 1 << 32;
const EVENTS: usize = 64;

/// What happened to an interface.
pub enum MemifEvent {
    /// A peer is there: give the devices to workers, and set the link up. Outputs first: what is received before
    /// there is a way out is dropped.
    Connected {
        /// The interface.
        sw_if_index: SwIfIndex,
        /// A device per receive ring.
        inputs: Vec<Box<dyn DeviceInput>>,
        /// A device per transmit ring.
        outputs: Vec<Box<dyn DeviceOutput>>,
        /// What both peers agreed on.
        info: ConnectionInfo,
    },
    /// The peer is gone: take the devices back from the workers and drop them. They move nothing any more.
    Disconnected {
        /// The interface.
        sw_if_index: SwIfIndex,
        /// Why.
        reason: String,
    },
    /// A peer, or an attempt to reach one, was refused. A client's repeated failure is told once.
    Failed {
        /// The socket.
        socket_id: u32,
        /// The interface, if it is known.
        sw_if_index: Option<SwIfIndex>,
        /// Why.
        reason: String,
    },
}

impl std::fmt::Debug for MemifEvent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            MemifEvent::Connected { sw_if_index, inputs, outputs, info } => f
                .debug_struct("Connected")
                .field("sw_if_index", sw_if_index)
                .field("inputs", &inputs.len())
                .field("outputs", &outputs.len())
                .field("info", info)
                .finish(),
            MemifEvent::Disconnected { sw_if_index, reason } => f
                .debug_struct("Disconnected")
                .field("sw_if_index", sw_if_index)
                .field("reason", reason)
                .finish(),
            MemifEvent::Failed { socket_id, sw_if_index, reason } => f
                .debug_struct("Failed")
                .field("socket_id", socket_id)
                .field("sw_if_index", sw_if_index)
                .field("reason", reason)
                .finish(),
        }
    }
}

/// A connection that is up.
#[derive(Debug)]
struct Up {
    control: Control,
    info: ConnectionInfo,
    /// Numbers of the queues' eventfds, for display.
    rx_fds: Vec<i32>,
    tx_fds: Vec<i32>,
}

#[derive(Debug)]
enum State {
    /// A server that waits for its client, or a client that is not to connect.
    Idle,
    /// A client's next attempt is due.
    Retry(Instant),
    /// A client shakes hands.
    Connecting(Box<Client>),
    /// There is a peer.
    Up(Box<Up>),
}

#[derive(Debug)]
struct Interface {
    config: MemifConfig,
    admin_up: bool,
    state: State,
    backoff: Backoff,
    last_error: Option<String>,
    local_disc_reason: Option<String>,
    remote_disc_reason: Option<String>,
    /// What peers did against the protocol, by kind, in connections that ended.
    violations: BTreeMap<&'static str, u64>,
}

/// All memif sockets and interfaces. Lives on the main thread; nothing in it blocks.
#[derive(Debug)]
pub struct MemifManager {
    app_name: String,
    limits: Limits,
    /// Listeners, clients and connections.
    epoll: OwnedFd,
    sockets: BTreeMap<u32, Socket>,
    interfaces: BTreeMap<SwIfIndex, Interface>,
    polled: Option<Instant>,
}

impl MemifManager {
    /// No interfaces, and socket 0 at `<runtime_dir>/memif.sock`, which is made when it is first used. Peers see
    /// `app_name`.
    pub fn new(runtime_dir: &Path, app_name: &str) -> Result<MemifManager, MemifError> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(|e| MemifError::Epoll(e.into()))?;
        memif::survive_sigbus().map_err(MemifError::Sigbus)?;
        let mut manager = MemifManager {
            app_name: app_name.into(),
            limits: Limits::default(),
            epoll,
            sockets: BTreeMap::new(),
            interfaces: BTreeMap::new(),
            polled: None,
        };
        let path = runtime_dir.join("memif.sock");
        manager.add_socket(DEFAULT_SOCKET, Address::parse(&path.to_string_lossy())?, Access::default())?;
        Ok(manager)
    }

    /// What servers grant to a client, but for what interfaces say of queues and memory; for sockets that are listened
    /// on from now on.
    pub fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
    }

    // ---------------------------------------------------------------------------------------- sockets

    /// Gives an address an id, and says who may connect to it where we listen. Doing it twice alike is no error.
    pub fn add_socket(&mut self, id: u32, address: Address, access: Access) -> Result<(), MemifError> {
        if let Some(socket) = self.sockets.get(&id) {
            if socket.address == address && socket.access == access {
                return Ok(());
            }
            return Err(MemifError::SocketExists { id, address: socket.address.clone() });
        }
        self.sockets.insert(id, Socket::new(address, access));
        Ok(())
    }

    /// Forgets a socket that no interface uses.
    pub fn delete_socket(&mut self, id: u32) -> Result<(), MemifError> {
        let socket = self.sockets.get(&id).ok_or(MemifError::NoSocket(id))?;
        if id == DEFAULT_SOCKET {
            return Err(MemifError::DefaultSocket);
        }
        let interfaces = socket.interfaces.len();
        if interfaces != 0 {
            return Err(MemifError::SocketInUse { id, interfaces });
        }
        self.sockets.remove(&id);
        Ok(())
    }

    /// Where a socket is, and who may connect to it.
    pub fn socket(&self, id: u32) -> Option<(&Address, &Access)> {
        self.sockets.get(&id).map(|socket| (&socket.address, &socket.access))
    }

    /// With what an interface was made.
    pub fn config(&self, sw_if_index: SwIfIndex) -> Option<&MemifConfig> {
        self.interfaces.get(&sw_if_index).map(|interface| &interface.config)
    }

    /// The sockets, by id.
    pub fn sockets(&self) -> Vec<SocketInfo> {
        self.sockets.iter().map(|(id, socket)| socket.info(*id)).collect()
    }

    // ---------------------------------------------------------------------------------------- interfaces

    /// Makes an interface. A server listens at once; a client connects once it is [`MemifManager::set_admin`] up.
    pub fn create(
        &mut self,
        sw_if_index: SwIfIndex,
        config: MemifConfig,
        now: Instant,
    ) -> Result<(), MemifError> {
        config.check()?;
        if self.interfaces.contains_key(&sw_if_index) {
            return Err(MemifError::DuplicateIndex(sw_if_index));
        }
        let MemifConfig { socket_id, id, role, .. } = config;
        let socket = self.sockets.get_mut(&socket_id).ok_or(MemifError::NoSocket(socket_id))?;
        if !socket.interfaces.is_empty() && socket.role != role {
            return Err(MemifError::RoleConflict { id: socket_id, used_by: socket.role, wanted: role });
        }
        if socket.interfaces.contains_key(&id) {
            return Err(MemifError::DuplicateId { socket_id, id });
        }
        if role == Role::Server {
            let interface = InterfaceConfig {
                mode: config.mode,
                secret: config.secret,
                max_queues: config.server_queues(),
                max_mapped: Some(config.server_memory()),
                ..InterfaceConfig::new(id, config.name.as_str())
            };
            match &mut socket.listener {
                Some(listener) => listener.add(interface)?,
                None => {
                    let mut listener = Listener::bind(
                        ListenerConfig {
                            app_name: self.app_name.clone(),
                            limits: self.limits,
                            allowed_uids: socket.access.uids.clone(),
                            allowed_gids: socket.access.gids.clone(),
                            ..ListenerConfig::new(socket.address.clone())
                        },
                        now,
                    )?;
                    listener.add(interface)?;
                    watch(&self.epoll, listener.fd(), LISTENER | u64::from(socket_id))?;
                    socket.listener = Some(listener);
                }
            }
        }
        socket.role = role;
        socket.interfaces.insert(id, sw_if_index);
        let interface = Interface {
            config,
            admin_up: false,
            state: State::Idle,
            backoff: Backoff::new(),
            last_error: None,
            local_disc_reason: None,
            remote_disc_reason: None,
            violations: BTreeMap::new(),
        };
        self.interfaces.insert(sw_if_index, interface);
        Ok(())
    }

    /// Removes an interface and tells the peer. Its devices, wherever they are, move nothing any more: take them
    /// back from the workers before or after this.
    pub fn delete(&mut self, sw_if_index: SwIfIndex) -> Result<(), MemifError> {
        let interface = self.interfaces.remove(&sw_if_index).ok_or(MemifError::NoInterface(sw_if_index))?;
        let MemifConfig { socket_id, id, .. } = interface.config;
        // The connection ends before its id is free again.
        drop(interface.state);
        if let Some(socket) = self.sockets.get_mut(&socket_id) {
            socket.interfaces.remove(&id);
            if let Some(listener) = &mut socket.listener {
                listener.remove(id);
            }
            if socket.interfaces.is_empty() {
                socket.listener = None;
            }
        }
        Ok(())
    }

    /// Sets an interface administratively up or down. A client connects only while it is up; a connection that is
    /// there outlives going down, as in VPP.
    pub fn set_admin(&mut self, sw_if_index: SwIfIndex, up: bool, now: Instant) -> Result<(), MemifError> {
        let interface = self.interfaces.get_mut(&sw_if_index).ok_or(MemifError::NoInterface(sw_if_index))?;
        interface.admin_up = up;
        match (&interface.state, up) {
            (State::Idle, true) if interface.config.role == Role::Client => {
                interface.backoff.reset();
                interface.state = State::Retry(now);
            }
            (State::Retry(_) | State::Connecting(_), false) => interface.state = State::Idle,
            _ => {}
        }
        Ok(())
    }

    /// The interfaces.
    pub fn interfaces(&self) -> impl Iterator<Item = SwIfIndex> + '_ {
        self.interfaces.keys().copied()
    }

    /// The interface with an id on a socket.
    pub fn find(&self, socket_id: u32, id: u32) -> Option<SwIfIndex> {
        self.sockets.get(&socket_id)?.interfaces.get(&id).copied()
    }

    // ---------------------------------------------------------------------------------------- events

    /// The one descriptor to poll for input (an epoll instance): call [`MemifManager::poll`] then.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }

    /// When to call [`MemifManager::poll`] at the latest, even if nothing is readable. `None`: no need.
    pub fn next_deadline(&self) -> Option<Instant> {
        let listeners = self.sockets.values().filter_map(|s| s.listener.as_ref()?.next_deadline());
        let interfaces = self.interfaces.values().filter_map(|i| match &i.state {
            State::Idle => None,
            State::Retry(at) => Some(*at),
            State::Connecting(client) => Some(client.deadline()),
            State::Up(_) => self.polled.map(|polled| polled + CHECK),
        });
        listeners.chain(interfaces).min()
    }

    /// Goes on with whatever is ready. Never blocks; the work of one call is bounded.
    pub fn poll(&mut self, now: Instant) -> Vec<MemifEvent> {
        self.polled = Some(now);
        let ready = self.ready();
        let mut turn = Turn { app_name: &self.app_name, epoll: &self.epoll, now, events: Vec::new() };
        // Connections first: a client that comes back finds its id free again.
        for (sw_if_index, interface) in &mut self.interfaces {
            let ready = ready.contains(&u64::from(sw_if_index.0));
            if interface.ended(*sw_if_index, ready, &mut turn) {
                continue;
            }
            if let Some(socket) = self.sockets.get(&interface.config.socket_id) {
                interface.connect(*sw_if_index, &socket.address, ready, &mut turn);
            }
        }
        for (id, socket) in &mut self.sockets {
            let Some(listener) = &mut socket.listener else { continue };
            let due = listener.next_deadline().is_some_and(|at| at <= now);
            if !due && !ready.contains(&(LISTENER | u64::from(*id))) {
                continue;
            }
            for event in listener.process(now) {
                let (kind, known, reason, peer) = match event {
                    ServerEvent::Connected(connection) => {
                        let sw_if_index = socket.interfaces.get(&connection.info.id).copied();
                        if let Some(sw_if_index) = sw_if_index
                            && let Some(interface) = self.interfaces.get_mut(&sw_if_index)
                        {
                            interface.come_up(sw_if_index, *connection, &mut turn);
                        }
                        continue;
                    }
                    ServerEvent::Failed { id, error, peer } => {
                        let known = id.and_then(|id| socket.interfaces.get(&id).copied());
                        (error.kind(), known, error.to_string(), peer)
                    }
                    ServerEvent::AcceptFailed(error) => ("accept", None, error.to_string(), None),
                };
                *socket.refused.entry(kind).or_default() += 1;
                if let Some(interface) = known.and_then(|i| self.interfaces.get_mut(&i))
                    && !matches!(interface.state, State::Up(_))
                {
                    interface.last_error = Some(reason.clone());
                }
                if let Some(silent) = socket.telling.tell(now) {
                    let reason = describe_refusal(&reason, peer, silent);
                    turn.events.push(MemifEvent::Failed { socket_id: *id, sw_if_index: known, reason });
                }
            }
        }
        turn.events
    }

    fn ready(&self) -> BTreeSet<u64> {
        let none = epoll::Event { flags: epoll::EventFlags::empty(), data: epoll::EventData::new_u64(0) };
        let mut events = [none; EVENTS];
        let at_once = rustix::time::Timespec { tv_sec: 0, tv_nsec: 0 };
        // Interrupted, or more than fit: the descriptor stays readable, so the next call finds them.
        let n = epoll::wait(&self.epoll, &mut events[..], Some(&at_once)).unwrap_or(0);
        events.iter().take(n).map(|e| e.data.u64()).collect()
    }

    // ---------------------------------------------------------------------------------------- show

    /// What there is to see of an interface.
    pub fn info(&self, sw_if_index: SwIfIndex) -> Option<MemifInfo> {
        let interface = self.interfaces.get(&sw_if_index)?;
        let config = &interface.config;
        let listener = self.sockets.get(&config.socket_id).and_then(|s| s.listener.as_ref());
        let mut info = MemifInfo {
            name: config.name.clone(),
            remote_name: String::new(),
            remote_interface: String::new(),
            socket_id: config.socket_id,
            id: config.id,
            role: config.role,
            mode: config.mode,
            mac: config.mac,
            admin_up: interface.admin_up,
            connecting: matches!(interface.state, State::Connecting(_)),
            connected: false,
            listener_fd: listener.map(|l| l.fd().as_raw_fd()),
            conn_fd: None,
            peer: None,
            num_s2m_rings: 0,
            num_m2s_rings: 0,
            ring_size: config.ring_size,
            buffer_size: if config.role == Role::Client { config.buffer_size } else { 0 },
            regions: Vec::new(),
            rings: Vec::new(),
            local_disc_reason: interface.local_disc_reason.clone(),
            remote_disc_reason: interface.remote_disc_reason.clone(),
            last_error: interface.last_error.clone(),
            violations: Vec::new(),
        };
        let mut violations = interface.violations.clone();
        if let State::Up(up) = &interface.state {
            count_descriptors(&mut violations, &up.control);
        }
        info.violations = violations.into_iter().map(|(kind, n)| (kind.to_owned(), n)).collect();
        if let State::Up(up) = &interface.state {
            up.describe(&mut info);
        }
        Some(info)
    }
}

/// One call of [`MemifManager::poll`].
struct Turn<'a> {
    app_name: &'a str,
    epoll: &'a OwnedFd,
    now: Instant,
    events: Vec<MemifEvent>,
}

/// Adds the malformed descriptors of a connection.
fn count_descriptors(violations: &mut BTreeMap<&'static str, u64>, control: &Control) {
    let bad = |counters: Vec<Counters>| -> u64 { counters.iter().map(|c| c.bad_descriptor).sum() };
    let n = bad(control.rx_counters()) + bad(control.tx_counters());
    if n != 0 {
        *violations.entry("bad-descriptor").or_default() += n;
    }
}

fn watch(epoll: &OwnedFd, fd: BorrowedFd<'_>, data: u64) -> Result<(), MemifError> {
    let data = epoll::EventData::new_u64(data);
    match epoll::add(epoll, fd, data, epoll::EventFlags::IN) {
        // A client's socket is watched already when it becomes a connection.
        Ok(()) | Err(rustix::io::Errno::EXIST) => Ok(()),
        Err(error) => Err(MemifError::Epoll(error.into())),
    }
}

impl Interface {
    fn client_config(&self, address: &Address, app_name: &str) -> ClientConfig {
        ClientConfig {
            name: self.config.name.clone(),
            app_name: app_name.into(),
            mode: self.config.mode,
            secret: self.config.secret,
            rx_queues: self.config.rx_queues,
            tx_queues: self.config.tx_queues,
            // A power of two, by `MemifConfig::check`.
            log2_ring_size: self.config.ring_size.ilog2() as u8,
            buffer_size: self.config.buffer_size,
            ..ClientConfig::new(address.clone(), self.config.id)
        }
    }

    /// Whether there was a connection that is no more.
    fn ended(&mut self, me: SwIfIndex, ready: bool, turn: &mut Turn<'_>) -> bool {
        let State::Up(up) = &mut self.state else { return false };
        if !ready && up.control.violation().is_none() {
            return false;
        }
        let Some(reason) = up.control.process().cloned() else { return false };
        self.go_down(me, &reason, turn);
        true
    }

    fn go_down(&mut self, me: SwIfIndex, reason: &CloseReason, turn: &mut Turn<'_>) {
        let text = reason.to_string();
        if let State::Up(up) = &self.state {
            count_descriptors(&mut self.violations, &up.control);
        }
        let kind = match reason {
            CloseReason::Violation(violation) => Some(violation.kind()),
            CloseReason::Protocol(_) => Some("protocol"),
            _ => None,
        };
        if let Some(kind) = kind {
            *self.violations.entry(kind).or_default() += 1;
        }
        match reason {
            CloseReason::Remote { reason, .. } => self.remote_disc_reason = Some(reason.clone()),
            CloseReason::RemoteClosed => self.remote_disc_reason = Some(text.clone()),
            _ => self.local_disc_reason = Some(text.clone()),
        }
        self.state = match self.config.role {
            Role::Client if self.admin_up => State::Retry(self.backoff.next_attempt(turn.now)),
            _ => State::Idle,
        };
        turn.events.push(MemifEvent::Disconnected { sw_if_index: me, reason: text });
    }

    /// A client's way to its server.
    fn connect(&mut self, me: SwIfIndex, address: &Address, ready: bool, turn: &mut Turn<'_>) {
        let now = turn.now;
        if let State::Retry(at) = self.state
            && at <= now
        {
            let started = Client::connect(self.client_config(address, turn.app_name), now);
            let watched = started.map_err(MemifError::from).and_then(|client| {
                client.fd().map_or(Ok(()), |fd| watch(turn.epoll, fd, me.0.into()))?;
                Ok(client)
            });
            match watched {
                Ok(client) => self.state = State::Connecting(Box::new(client)),
                Err(error) => self.fail(me, error.to_string(), turn),
            }
        }
        if let State::Connecting(client) = &mut self.state
            && (ready || client.deadline() <= now)
        {
            match client.process(now) {
                Ok(None) => {}
                Ok(Some(connection)) => self.come_up(me, connection, turn),
                Err(error) => self.fail(me, error.to_string(), turn),
            }
        }
    }

    /// An attempt failed. The operator hears of it when it is another reason than the time before.
    fn fail(&mut self, me: SwIfIndex, reason: String, turn: &mut Turn<'_>) {
        self.state = State::Retry(self.backoff.next_attempt(turn.now));
        if self.last_error.as_ref() != Some(&reason) {
            self.last_error = Some(reason.clone());
            turn.events.push(MemifEvent::Failed {
                socket_id: self.config.socket_id,
                sw_if_index: Some(me),
                reason,
            });
        }
    }

    fn come_up(&mut self, me: SwIfIndex, connection: Connection, turn: &mut Turn<'_>) {
        let Connection { control, rx, tx, info } = connection;
        if matches!(self.state, State::Up(_)) {
            self.go_down(me, &CloseReason::Local { reason: "a new connection took its place".into() }, turn);
        }
        if let Err(error) = watch(turn.epoll, control.fd(), me.0.into()) {
            drop(control);
            self.fail(me, error.to_string(), turn);
            if self.config.role == Role::Server {
                self.state = State::Idle;
            }
            return;
        }
        self.backoff.reset();
        self.last_error = None;
        self.local_disc_reason = None;
        self.remote_disc_reason = None;
        let mode: Mode = info.mode;
        let up = Up {
            control,
            info: info.clone(),
            rx_fds: rx.iter().map(|q| q.fd().as_raw_fd()).collect(),
            tx_fds: tx.iter().map(|q| q.fd().as_raw_fd()).collect(),
        };
        self.state = State::Up(Box::new(up));
        turn.events.push(MemifEvent::Connected {
            sw_if_index: me,
            inputs: rx.into_iter().map(|q| Box::new(MemifInput::new(q)) as Box<dyn DeviceInput>).collect(),
            outputs: (tx.into_iter())
                .map(|q| Box::new(MemifOutput::new(q, mode)) as Box<dyn DeviceOutput>)
                .collect(),
            info,
        });
    }
}

impl Up {
    fn describe(&self, info: &mut MemifInfo) {
        info.connected = true;
        info.remote_name.clone_from(&self.info.remote_app);
        info.remote_interface.clone_from(&self.info.remote_interface);
        info.conn_fd = Some(self.control.fd().as_raw_fd());
        info.peer = self.info.peer.map(|p| (p.pid, p.uid, p.gid));
        info.regions = (self.info.region_sizes.iter().enumerate())
            .map(|(index, size)| RegionInfo { index, size: *size, fd: None })
            .collect();
        let mut add = |rings: Vec<RingState>, counters: Vec<Counters>, fds: &[i32]| {
            for ((ring, count), fd) in rings.into_iter().zip(counters).zip(fds) {
                info.rings.push(RingInfo::new(&ring, &count, *fd));
            }
        };
        add(self.control.rx_rings(), self.control.rx_counters(), &self.rx_fds);
        add(self.control.tx_rings(), self.control.tx_counters(), &self.tx_fds);
        info.rings.sort_by_key(|r| (r.direction != Direction::M2S, r.index));
        info.num_m2s_rings = info.rings.iter().filter(|r| r.direction == Direction::M2S).count();
        info.num_s2m_rings = info.rings.len() - info.num_m2s_rings;
    }
}
