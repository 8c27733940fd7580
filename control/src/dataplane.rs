//! The one value that holds the state of the control plane. Operations are its methods: they validate, then change, then
//! publish; nothing else changes state.

use crate::access::Clients;
use crate::acl::{Acls, Denied};
use crate::capture::CaptureConfig;
use crate::interface::{Interface, InterfaceKind};
use crate::ip4::{AdjacencyTable, Fib, Neighbours, RouteNumbers};
use crate::l2::{BridgeDomainConfig, Macs};
use crate::refusal::Refusal;
use crate::span::Spans;
use crate::startup::{self, StartupConfig};
use crate::vxlan::Tunnels;
use rustix::event::epoll;
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use wharf_drivers::af_xdp::XdpManager;
use wharf_drivers::memif::MemifManager;
use wharf_drivers::pg::PgInterface;
use wharf_engine::buffer::{DATA_SIZE, PoolConfig};
use wharf_engine::counter::{Combined, MAX_COUNTERS};
use wharf_engine::device::RxMode;
use wharf_engine::mapping::PageSize;
use wharf_engine::rcu::Publisher;
use wharf_engine::wake::Waker;
use wharf_engine::{Engine, EngineConfig, EngineError, GraphBuilder, SwIfIndex, WorkerIndex};
use wharf_nodes::acl::AclTables;
use wharf_nodes::arp::ArpTables;
use wharf_nodes::event::{Event, Events};
use wharf_nodes::interface::InterfaceTables;
use wharf_nodes::ip4::{Ip4Tables, UdpTables};
use wharf_nodes::l2::L2Tables;
use wharf_nodes::vxlan::VxlanTables;
use wharf_nodes::wire::arp::ArpPacket;
use wharf_nodes::wire::ethernet::{EtherType, EthernetHeader, MacAddress};
use wharf_nodes::wire::ip4::Ip4Prefix;
use zerocopy::IntoBytes;

/// How long all changes of a turn wait for the workers to have seen the ones before them.
const PATIENCE: Duration = Duration::from_millis(5);
/// An announcement goes out at the latest after so long.
const ANNOUNCED: Duration = Duration::from_millis(100);
/// Between two looks whether the workers have seen something.
const SEEN: Duration = Duration::from_millis(1);
/// Events handled in one go.
const EVENTS: usize = 4096;

/// Why an operation was refused. The text is for the operator.
#[derive(Debug, thiserror::Error)]
pub enum OpError {
    /// For a reason that the text says.
    #[error("{0}")]
    Refused(String),
    /// Because of one parameter.
    #[error("{0}")]
    Parameter(#[source] Refusal),
    /// By the engine.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// By the memif driver.
    #[error(transparent)]
    Memif(#[from] wharf_drivers::memif::MemifError),
    /// By the AF_XDP driver.
    #[error(transparent)]
    Xdp(#[from] wharf_drivers::af_xdp::XdpError),
    /// By the packet generator.
    #[error(transparent)]
    Pg(#[from] wharf_drivers::pg::PgError),
    /// By the system.
    #[error("{0}: {1}")]
    System(String, std::io::Error),
}

impl OpError {
    /// A refusal.
    pub fn refused<T>(why: impl Into<String>) -> Result<T, OpError> {
        Err(OpError::Refused(why.into()))
    }

    /// A refusal of one parameter, called as in the syntax of commands.
    pub fn parameter<T>(parameter: &'static str, why: impl Into<String>) -> Result<T, OpError> {
        Err(OpError::Parameter(Refusal { parameter, why: why.into() }))
    }
}

/// An answer to a ping, as it is given to who waits for it.
#[derive(Clone, Debug)]
pub struct EchoReply {
    /// Who answered.
    pub from: Ipv4Addr,
    /// Sequence number.
    pub sequence: u16,
    /// Time to live that was left.
    pub ttl: u8,
    /// Bytes of the IP packet.
    pub len: u16,
    /// When it came, nanoseconds of the engine's clock.
    pub received: u64,
}

/// What many changes at once leave for their end.
#[derive(Debug, Default)]
pub(crate) struct Waiting {
    publish: bool,
    announce: BTreeSet<SwIfIndex>,
}

/// What the workers read.
pub(crate) struct Tables {
    pub(crate) acl: Publisher<AclTables>,
    interfaces: Publisher<InterfaceTables>,
    ip4: Publisher<Ip4Tables>,
    arp: Publisher<ArpTables>,
    l2: Publisher<L2Tables>,
    vxlan: Publisher<VxlanTables>,
    udp: Publisher<UdpTables>,
}

/// The control plane.
pub struct Dataplane {
    pub(crate) engine: Engine,
    events: Events,
    pub(crate) interfaces: BTreeMap<SwIfIndex, Interface>,
    pub(crate) bridges: BTreeMap<u32, BridgeDomainConfig>,
    pub(crate) macs: Macs,
    pub(crate) vxlan: Tunnels,
    pub(crate) spans: Spans,
    pub(crate) capture: Option<CaptureConfig>,
    pub(crate) acls: Acls,
    pub(crate) fibs: BTreeMap<u32, Fib>,
    /// For routes that are counted one by one.
    pub(crate) route_numbers: Option<RouteNumbers>,
    pub(crate) adjacencies: AdjacencyTable,
    pub(crate) neighbours: Neighbours,
    pub(crate) memif: MemifManager,
    pub(crate) xdp: XdpManager,
    pub(crate) pg: BTreeMap<SwIfIndex, PgInterface>,
    pub(crate) default_rx_mode: RxMode,
    usual_rx_mode: RxMode,
    pub(crate) jobs: Vec<crate::ping::Ping>,
    pub(crate) pings: BTreeMap<u16, std::sync::mpsc::Sender<EchoReply>>,
    pub(crate) next_ping: u16,
    pub(crate) cleared: crate::commands::Cleared,
    pub(crate) stats: crate::stats::DataplaneStats,
    pub(crate) log: crate::log::Log,
    /// What API clients asked for.
    pub(crate) api_trace: crate::api::ApiTrace,
    /// Who is connected to the API, and to the command line.
    pub(crate) clients: [Clients; 2],
    pub(crate) runtime_dir: PathBuf,
    /// The file that wharf was started with.
    pub(crate) config_file: Option<PathBuf>,
    pub(crate) changes: crate::config::Changes,
    pub(crate) journal: Option<crate::config::journal::Journal>,
    pub(crate) reservation: crate::reservation::Reservation,
    /// While many changes are made at once: what is to be done for the workers when they are.
    pub(crate) waiting: Option<Waiting>,
    /// What a turn may still wait for the workers.
    patience: Duration,
    /// Interfaces whose addresses are to be announced, and when at the latest.
    announcing: BTreeMap<SwIfIndex, Instant>,
    pub(crate) tables: Tables,
    epoll: Arc<OwnedFd>,
    pub(crate) waker: Waker,
    next_housekeeping: Instant,
    next_recheck: Instant,
}

impl std::fmt::Debug for Dataplane {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Dataplane").field("interfaces", &self.interfaces.len()).finish_non_exhaustive()
    }
}

/// The engine's configuration, out of startup.conf as read for these cores.
pub fn engine_config(config: &StartupConfig, cores: &startup::Cores) -> EngineConfig {
    let buffers = config.buffers.buffers_per_numa.unwrap_or(8192);
    let pages = match config.buffers.page_size {
        None => PageSize::Auto,
        Some(startup::PageSize::Default) => PageSize::Small,
        Some(startup::PageSize::Bytes(bytes)) if bytes < 2 << 20 => PageSize::Small,
        Some(_) => PageSize::Huge,
    };
    let cpu = &config.cpu;
    let pinned = if !cpu.corelist_workers.is_empty() {
        cpu.corelist_workers.iter().map(|core| Some(usize::from(*core))).collect()
    } else {
        let cores = cpu.free_cores(cores).map(|core| Some(usize::from(core)));
        match cpu.workers {
            Some(workers) if workers > 0 => cores.take(usize::from(workers)).collect(),
            // Without a word about cores there is one worker, and the kernel places it.
            _ => vec![None],
        }
    };
    EngineConfig {
        pool: PoolConfig {
            buffers,
            limit: config.buffers.limit.unwrap_or(buffers.saturating_mul(8)),
            pages,
            data_size: config.buffers.data_size.map_or(DATA_SIZE, |size| size as usize),
        },
        workers: pinned,
        thread_prefix: config.cpu.thread_prefix.clone().unwrap_or_else(|| "wharf".into()),
        level: None,
    }
}

impl Dataplane {
    /// Starts the engine with the nodes of this project and with what `more` adds to the list.
    pub fn start(
        config: &EngineConfig,
        runtime_dir: &Path,
        more: impl FnOnce(&mut GraphBuilder),
    ) -> Result<Dataplane, OpError> {
        let system = |what: &str| {
            let what = what.to_owned();
            move |error: std::io::Error| OpError::System(what, error)
        };
        let waker = Waker::new().map_err(system("cannot make an event descriptor"))?;
        let mut list = GraphBuilder::new();
        let events = wharf_nodes::nodes(&mut list, waker.clone());
        for input in ["memif-input", "pg-input", "af_xdp-input"] {
            list.input(input);
        }
        more(&mut list);
        let mut engine = Engine::start(config, list)?;
        let tables = Tables {
            acl: engine.tables(),
            interfaces: engine.tables(),
            ip4: engine.tables(),
            arp: engine.tables(),
            l2: engine.tables(),
            vxlan: engine.tables(),
            udp: engine.tables(),
        };
        let memif = MemifManager::new(runtime_dir, "wharf")?;
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)
            .map_err(|e| OpError::System("cannot make an epoll descriptor".into(), e.into()))?;
        for (number, fd) in [(0, waker.as_fd()), (1, memif.fd())] {
            epoll::add(&epoll, fd, epoll::EventData::new_u64(number), epoll::EventFlags::IN)
                .map_err(|e| OpError::System("cannot wait for a descriptor".into(), e.into()))?;
        }
        let no_memory = |error| OpError::System("no memory for counters".into(), error);
        let counters = Combined::within(engine.stats().segment(), engine.workers(), MAX_COUNTERS, 2);
        let counters = counters.map_err(no_memory)?;
        let shown = counters.table().and_then(|table| engine.stats().table("/net/adjacency", table));
        shown.ok_or(std::io::ErrorKind::OutOfMemory.into()).map_err(no_memory)?;
        let stats = crate::stats::DataplaneStats::new(&engine).map_err(no_memory)?;
        let mut fibs = BTreeMap::new();
        fibs.insert(0, Fib::new(0, engine.domain(), None));
        let mut dataplane = Dataplane {
            engine,
            events,
            interfaces: BTreeMap::new(),
            bridges: BTreeMap::new(),
            macs: Macs::default(),
            vxlan: Tunnels::default(),
            spans: Spans::new(),
            capture: None,
            acls: Acls::default(),
            fibs,
            route_numbers: None,
            adjacencies: AdjacencyTable::new(counters),
            stats,
            neighbours: Neighbours::default(),
            memif,
            xdp: XdpManager::default(),
            pg: BTreeMap::new(),
            default_rx_mode: RxMode::Adaptive,
            usual_rx_mode: RxMode::Adaptive,
            jobs: Vec::new(),
            pings: BTreeMap::new(),
            next_ping: 1,
            cleared: Default::default(),
            log: Default::default(),
            api_trace: Default::default(),
            clients: Default::default(),
            runtime_dir: runtime_dir.to_owned(),
            config_file: None,
            changes: Default::default(),
            journal: None,
            reservation: Default::default(),
            waiting: None,
            patience: PATIENCE,
            announcing: BTreeMap::new(),
            tables,
            epoll: Arc::new(epoll),
            waker,
            next_housekeeping: Instant::now(),
            next_recheck: Instant::now(),
        };
        dataplane.interfaces.insert(SwIfIndex::LOCAL, Interface::new("local0".into(), InterfaceKind::Local));
        dataplane.publish();
        Ok(dataplane)
    }

    /// What the main loop polls for input; then it calls [`Dataplane::process`].
    pub fn poll_fd(&self) -> Arc<OwnedFd> {
        Arc::clone(&self.epoll)
    }

    /// Adds a descriptor to what the main loop polls.
    pub fn watch(&self, fd: BorrowedFd<'_>) -> Result<(), OpError> {
        epoll::add(&*self.epoll, fd, epoll::EventData::new_u64(2), epoll::EventFlags::IN)
            .map_err(|e| OpError::System("cannot wait for a descriptor".into(), e.into()))
    }

    /// The engine.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// How many routes an IPv4 table has; none if it is not there.
    pub fn routes(&self, table: u32) -> usize {
        self.fibs.get(&table).map_or(0, |fib| fib.routes().len())
    }

    /// Shows the lines of this log to operators and API clients.
    pub fn set_log(&mut self, log: crate::log::Log) {
        self.log = log;
    }

    /// The lists that API clients and CLI clients are in, for the servers that fill them.
    pub fn clients(&self) -> [Clients; 2] {
        self.clients.clone()
    }

    /// Keeps what API clients ask for.
    pub fn trace_api(&mut self, on: bool) {
        self.api_trace.set(on);
    }

    /// The mode of receive queues if nothing else is said.
    pub fn set_usual_rx_mode(&mut self, mode: RxMode) {
        (self.default_rx_mode, self.usual_rx_mode) = (mode, mode);
    }

    /// Sets the mode of receive queues of interfaces that come from now on; `None` is the usual one.
    pub fn set_default_rx_mode(&mut self, mode: Option<RxMode>) {
        self.changes.touch(crate::config::Object::Settings);
        self.default_rx_mode = mode.unwrap_or(self.usual_rx_mode);
    }

    /// What [`Dataplane::set_default_rx_mode`] set, unless it is the usual one.
    pub(crate) fn chosen_rx_mode(&self) -> Option<RxMode> {
        Some(self.default_rx_mode).filter(|mode| *mode != self.usual_rx_mode)
    }

    /// Does what is due: events of nodes and peers, timers. Returns when to call again at the latest.
    pub fn process(&mut self, now: Instant) -> Instant {
        self.waker.clear();
        self.begin_turn();
        for event in self.events.take(EVENTS) {
            self.node_event(event, now);
        }
        for pg in self.pg.values_mut() {
            pg.poll();
        }
        for event in self.memif.poll(now) {
            self.memif_event(event);
        }
        let recheck = now >= self.next_recheck;
        if recheck {
            self.next_recheck = now + Duration::from_secs(1);
        }
        for event in self.xdp.poll(now, recheck) {
            self.xdp_event(event);
        }
        if now >= self.next_housekeeping {
            self.housekeeping(now);
        }
        self.record_changes();
        let mut next = self.next_housekeeping;
        if let Some(soon) = self.send_announcements(now) {
            next = next.min(soon);
        }
        if let Some(deadline) = self.memif.next_deadline() {
            next = next.min(deadline);
        }
        next
    }

    fn housekeeping(&mut self, now: Instant) {
        self.next_housekeeping = now + Duration::from_millis(100);
        for worker in self.engine.housekeeping() {
            tracing::warn!("worker {} has made no turn for 100 ms", worker.0);
        }
        self.age_macs();
        self.age_sessions();
        self.stats.update(&self.engine);
        for due in self.neighbours.due(now) {
            match due {
                crate::ip4::Due::Ask(interface, address) => self.send_arp_request(interface, address),
                crate::ip4::Due::GiveUp(interface, address) => self.forget_neighbour(interface, address),
            }
        }
    }

    fn node_event(&mut self, event: Event, now: Instant) {
        match event {
            Event::ArpSeen { interface, address, mac, for_us } => {
                let known = self.neighbours.get(interface, address).is_some();
                if (known || for_us)
                    && let Err(error) = self.set_neighbour(interface, address, mac, false, true, now)
                {
                    tracing::debug!("neighbour {address} is not learned: {error}");
                }
            }
            Event::Resolve { interface, address } => {
                if !self.interfaces.get(&interface).is_some_and(|i| i.can_arp(address)) {
                    return;
                }
                match self.neighbours.ask(interface, address, now) {
                    Ok(true) => self.send_arp_request(interface, address),
                    Ok(false) => {}
                    Err(error) => tracing::debug!("neighbour {address} is not asked for: {error}"),
                }
            }
            Event::AclDenied { interface, direction, tuple, rule } => {
                let time = wharf_engine::clock::nanos();
                self.acl_denied(Denied { time, interface, direction, tuple, rule });
            }
            Event::EchoReply { from, id, sequence, ttl, len, received } => {
                if let Some(waiting) = self.pings.get(&id) {
                    let _ = waiting.send(EchoReply { from, sequence, ttl, len, received });
                }
            }
        }
    }

    /// Broadcasts an ARP request from an interface's own address.
    fn send_arp_request(&mut self, interface: SwIfIndex, address: Ipv4Addr) {
        let Some(record) = self.interfaces.get(&interface) else { return };
        let own = record.addresses.iter().find(|(a, len)| Ip4Prefix::clamped(*a, *len).contains(address));
        let Some((own, _)) = own.or(record.addresses.first()) else { return };
        let request = ArpPacket::request((record.mac, *own), address);
        self.broadcast_arp(interface, record.mac, request);
    }

    /// Tells the neighbours of an interface which addresses are at its MAC address, so that they forget an older one.
    /// Loopbacks and packet generators have no neighbours that remember, and what is in IP mode has none at all.
    pub(crate) fn announce(&mut self, interface: SwIfIndex) {
        if let Some(waiting) = &mut self.waiting {
            waiting.announce.insert(interface);
            return;
        }
        let Some(record) = self.interfaces.get(&interface) else { return };
        let up = record.admin_up && record.link_up;
        let has_neighbours =
            matches!(record.kind, InterfaceKind::Memif | InterfaceKind::AfXdp) && !record.point_to_point;
        if !up || !has_neighbours || record.addresses.is_empty() {
            return;
        }
        // A worker that does not know yet that the interface is up would drop it.
        self.announcing.entry(interface).or_insert_with(|| Instant::now() + ANNOUNCED);
    }

    /// Sends the announcements that the workers are ready for. When to call again, if some are left.
    fn send_announcements(&mut self, now: Instant) -> Option<Instant> {
        let settled = !self.announcing.is_empty() && self.is_settled();
        let due = |until: &Instant| settled || *until <= now;
        let all: Vec<SwIfIndex> =
            self.announcing.iter().filter(|(_, until)| due(until)).map(|(index, _)| *index).collect();
        for interface in all {
            self.announcing.remove(&interface);
            let Some(record) = self.interfaces.get(&interface) else { continue };
            for (address, _) in &record.addresses {
                self.broadcast_arp(interface, record.mac, ArpPacket::announcement(record.mac, *address));
            }
        }
        (!self.announcing.is_empty()).then(|| now + SEEN)
    }

    fn broadcast_arp(&self, interface: SwIfIndex, own: MacAddress, packet: ArpPacket) {
        let header = EthernetHeader::new(MacAddress::BROADCAST, own, EtherType::ARP);
        let frame = [header.as_bytes(), packet.as_bytes()].concat();
        let Some(output) = self.engine.graph().find("interface-output") else { return };
        if let Err(error) = self.engine.inject(WorkerIndex(0), output, SwIfIndex::LOCAL, &frame, interface) {
            tracing::debug!("ARP request for {} not sent: {error}", packet.target_ip());
        }
    }

    // ---------------------------------------------------------------------------------------- publishing

    /// Makes interfaces, addresses and adjacencies visible to the workers, as one generation.
    pub(crate) fn publish(&mut self) {
        if let Some(waiting) = &mut self.waiting {
            waiting.publish = true;
            return;
        }
        let count = self.interfaces.keys().last().map_or(0, |i| i.index() + 1);
        let mut arp = ArpTables { interfaces: vec![Default::default(); count] };
        let mut ip4 = vec![Default::default(); count];
        for (index, record) in &self.interfaces {
            arp.interfaces[index.index()] = record.arp();
            let fib = self.fibs.get(&record.table).map_or(0, |f| f.index);
            ip4[index.index()] = record.ip4(fib);
        }
        self.adjacencies.take_dirty();
        let tables = Ip4Tables {
            fibs: self.compiled_fibs(),
            adjacencies: self.adjacencies.entries().to_vec(),
            counters: Arc::clone(self.adjacencies.counters()),
            interfaces: ip4,
            groups: self.vxlan_groups(),
            counted: self.route_numbers.as_ref().map(|numbers| Arc::clone(numbers.routes())),
        };
        let (interfaces, l2) = (self.interface_tables(), self.l2_tables());
        let (vxlan, udp) = (self.vxlan_tables(tables.fibs.clone()), self.udp_tables());
        let mut transaction = self.engine.domain().begin();
        self.tables.interfaces.publish_in(&mut transaction, interfaces);
        self.tables.l2.publish_in(&mut transaction, l2);
        self.tables.vxlan.publish_in(&mut transaction, vxlan);
        self.tables.udp.publish_in(&mut transaction, udp);
        self.tables.ip4.publish_in(&mut transaction, tables);
        self.tables.arp.publish_in(&mut transaction, arp);
    }

    fn compiled_fibs(&self) -> Vec<Arc<wharf_engine::mtrie::Mtrie>> {
        let mut fibs: Vec<_> = self.fibs.values().map(|f| (f.index, f.compiled())).collect();
        fibs.sort_by_key(|f| f.0);
        fibs.into_iter().map(|f| f.1).collect()
    }

    /// Does what many changes at once have left.
    pub(crate) fn publish_waiting(&mut self) {
        let Some(waiting) = self.waiting.take() else { return };
        if waiting.publish {
            self.publish();
            // For packets that wait for a neighbour.
            self.engine.wake_workers();
        }
        waiting.announce.into_iter().for_each(|interface| self.announce(interface));
    }

    /// Publishes the adjacencies if they changed.
    pub(crate) fn publish_adjacencies(&mut self) {
        match &mut self.waiting {
            Some(waiting) => waiting.publish = true,
            None => self.publish_adjacencies_now(),
        }
    }

    /// Publishes the adjacencies if they changed, and waits until the workers have them: only then may a route that leads to a
    /// new one be compiled.
    pub(crate) fn publish_adjacencies_now(&mut self) {
        if !self.adjacencies.is_dirty() {
            return;
        }
        self.adjacencies.take_dirty();
        let entries = self.adjacencies.entries().to_vec();
        self.tables.ip4.update(|old| Ip4Tables { adjacencies: entries, ..old.clone() });
        if !self.wait_for_workers() {
            tracing::warn!("a worker is slow to take over new adjacencies");
        }
    }

    /// From now on [`Dataplane::is_settled`] tells whether each worker has ended what it had in hand.
    pub(crate) fn begin_to_settle(&self) {
        drop(self.engine.domain().begin());
    }

    /// Whether each worker has seen what was published, or sleeps.
    pub(crate) fn is_settled(&self) -> bool {
        self.engine.domain().synchronize(Duration::ZERO)
    }

    /// Waits until the workers have seen what was published, within what a turn may wait in all; false if one has not.
    ///
    /// A worker that takes longer is held up by the kernel. All that it can do with what it saw before is to end the turn that it is in.
    pub(crate) fn wait_for_workers(&mut self) -> bool {
        let start = Instant::now();
        let seen = self.engine.domain().synchronize(self.patience);
        self.patience = self.patience.saturating_sub(start.elapsed());
        seen
    }

    /// Begins a turn: from here on the workers may be waited for anew.
    pub(crate) fn begin_turn(&mut self) {
        self.patience = PATIENCE;
    }

    /// Stops everything and gives everything back.
    pub fn shut_down(&mut self) {
        self.end_journal();
        let mut all: Vec<SwIfIndex> =
            self.interfaces.keys().copied().filter(|i| *i != SwIfIndex::LOCAL).collect();
        all.reverse();
        for interface in all {
            if let Err(error) = self.delete_interface(interface) {
                tracing::warn!("interface {interface} cannot be given back: {error}");
            }
        }
        self.engine.shut_down();
    }
}
