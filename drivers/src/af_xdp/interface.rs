//! Linux interfaces that packets come and go by, as main holds them.

use super::health::{PATIENCE, TxHealth, Watchdog};
use super::input::XdpInput;
use super::lent::Lent;
use super::link::{Link, Links, Promiscuous};
use super::netlink::{LinkChange, Monitor};
use super::netns::NetNs;
use super::output::XdpOutput;
use super::program::{AttachMode, KeptPort, LoadedProgram, Steal, XdpProgram};
use super::{
    Area, Capabilities, CopyMode, RingSizes, SocketConfig, SocketMonitor, Statistics, XdpError, XskSocket,
};
use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::Instant;
use wharf_engine::SwIfIndex;
use wharf_engine::buffer::{Owner, Pool, Quota};
use wharf_engine::device::{DeviceInput, DeviceOutput};

/// Bytes of an Ethernet header and a VLAN tag.
const L2_OVERHEAD: u32 = 18;

/// What the operator asks for.
#[derive(Clone, Debug)]
pub struct XdpConfig {
    /// Name of the Linux interface.
    pub host_if: String,
    /// Network namespace: a name, `pid:N` or a path; ours if none.
    pub netns: Option<String>,
    /// Places in the receive rings.
    pub rx_ring: u32,
    /// Places in the transmit rings.
    pub tx_ring: u32,
    /// How frames get to the rings.
    pub copy: CopyMode,
    /// Whether frames may have partial checksums; by default those of a veth.
    pub partial_checksums: Option<bool>,
    /// For an interface that the host is reached by: TCP and UDP ports that stay with the kernel, with ARP and fragments.
    pub keep: Option<Vec<KeptPort>>,
}

impl XdpConfig {
    /// The defaults for an interface.
    pub fn new(host_if: impl Into<String>) -> XdpConfig {
        XdpConfig {
            host_if: host_if.into(),
            netns: None,
            rx_ring: 1024,
            tx_ring: 1024,
            copy: CopyMode::Auto,
            partial_checksums: None,
            keep: None,
        }
    }
}

/// What was created.
pub struct XdpCreated {
    /// Receive queues.
    pub inputs: Vec<Box<dyn DeviceInput>>,
    /// Transmit queues.
    pub outputs: Vec<Box<dyn DeviceOutput>>,
    /// The Linux interface.
    pub link: Link,
}

impl std::fmt::Debug for XdpCreated {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("XdpCreated").field("link", &self.link).finish_non_exhaustive()
    }
}

/// What happened to a Linux interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum XdpEvent {
    /// It can carry packets, or no longer.
    Link(SwIfIndex, bool),
    /// It is gone, or no longer what it was; its queues are of no use any more.
    Lost(SwIfIndex, String),
    /// The kernel has dropped this many more frames that were received for it.
    Missed(SwIfIndex, u64),
    /// A transmit queue has stopped.
    Stalled(SwIfIndex, String),
}

/// How a transmit queue is doing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TxInfo {
    /// Frames that wait for their completion.
    pub held: u32,
    /// How often completions ceased to come for seconds while frames waited.
    pub stalls: u64,
    /// Wake-ups that the kernel had no memory for.
    pub no_memory: u64,
    /// Wake-ups that failed for an unexpected reason.
    pub failed: u64,
    /// The last such reason.
    pub last_failure: Option<String>,
}

/// For `show af_xdp`.
#[derive(Clone, Debug)]
pub struct XdpInfo {
    /// Name of the Linux interface.
    pub host_if: String,
    /// Its network namespace.
    pub netns: Option<String>,
    /// Queues.
    pub queues: usize,
    /// What the kernel granted.
    pub capabilities: Capabilities,
    /// Whether frames may have partial checksums.
    pub partial_checksums: bool,
    /// The kernel's statistics, summed over the queues.
    pub statistics: Statistics,
    /// Its transmit queues.
    pub tx: Vec<TxInfo>,
    /// Buffers set aside.
    pub reserved: u32,
    /// Why it is of no use any more.
    pub lost: Option<String>,
}

struct XdpInterface {
    config: XdpConfig,
    link: Link,
    monitor: Monitor,
    lent: Vec<Arc<Lent>>,
    monitors: Vec<SocketMonitor>,
    missed: u64,
    tx: Vec<(Arc<TxHealth>, Watchdog)>,
    capabilities: Capabilities,
    partial: bool,
    lost: Option<String>,
    pool: Arc<Pool>,
    quota: Quota,
    /// Dropped with the interface: the kernel has its frames back.
    _program: XdpProgram,
    _promiscuous: Option<Promiscuous>,
}

impl TxInfo {
    fn new(health: &TxHealth, watchdog: &Watchdog) -> TxInfo {
        let (no_memory, failed, last) = health.failures();
        let last_failure = last.map(|error| error.to_string());
        TxInfo { held: health.held(), stalls: watchdog.stalls, no_memory, failed, last_failure }
    }
}

impl XdpInterface {
    /// The kernel's statistics, summed over the queues.
    fn statistics(&self) -> Statistics {
        let mut sum = Statistics::default();
        for queue in self.monitors.iter().filter_map(SocketMonitor::statistics) {
            sum.rx_dropped += queue.rx_dropped;
            sum.rx_invalid += queue.rx_invalid;
            sum.tx_invalid += queue.tx_invalid;
            sum.rx_ring_full += queue.rx_ring_full;
            sum.rx_fill_empty += queue.rx_fill_empty;
            sum.tx_ring_empty += queue.tx_ring_empty;
        }
        sum
    }

    /// What the kernel does not tell by itself.
    fn look(&mut self, index: SwIfIndex, now: Instant, events: &mut Vec<XdpEvent>) {
        let statistics = self.statistics();
        // A fill ring without buffers is in `rx_dropped` too.
        let missed = statistics.rx_dropped + statistics.rx_ring_full;
        if let Some(more) = missed.checked_sub(self.missed).filter(|more| *more != 0) {
            self.missed = missed;
            events.push(XdpEvent::Missed(index, more));
        }
        let up = self.link.admin_up && self.link.carrier;
        for (queue, (health, watchdog)) in self.tx.iter_mut().enumerate() {
            if watchdog.look(health, up, now) {
                let (waiting, seconds) = (health.held(), PATIENCE.as_secs());
                let why =
                    format!("transmit queue {queue}: {waiting} frames, none completed for {seconds} seconds");
                events.push(XdpEvent::Stalled(index, why));
            }
        }
    }
}

/// All AF_XDP interfaces.
#[derive(Default)]
pub struct XdpManager {
    interfaces: BTreeMap<SwIfIndex, XdpInterface>,
}

impl std::fmt::Debug for XdpManager {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("XdpManager").field("interfaces", &self.interfaces.len()).finish()
    }
}

struct Opened {
    link: Link,
    monitor: Monitor,
    program: XdpProgram,
    promiscuous: Option<Promiscuous>,
    sockets: Vec<XskSocket>,
}

/// Finds the interface and binds all its queues; runs in its network namespace.
fn open(config: &XdpConfig, area: Area) -> Result<Opened, XdpError> {
    let link = Links::open()?.by_name(&config.host_if)?;
    // What we may do comes before what the interface is like: these ask for all privileges that are needed.
    drop(super::socket::socket()?);
    let loaded = LoadedProgram::load(false)?;
    if link.mtu + L2_OVERHEAD > area.max_rx_frame() {
        return Err(XdpError::Refused(format!(
            "{} has MTU {}: frames must fit one buffer, so at most {}; `ip link set {} mtu 1500' first",
            link.name,
            link.mtu,
            area.max_rx_frame() - L2_OVERHEAD,
            link.name
        )));
    }
    let mut monitor = Monitor::open()?;
    let link = { monitor.watch(link.ifindex).map(|now| Link { name: link.name, ..now })? };
    let mut program = loaded.attach(&link, AttachMode::Native)?;
    let sizes = RingSizes {
        // Twice as many: while a full receive ring waits for the worker, the kernel has as many again.
        fill: config.rx_ring.saturating_mul(2),
        rx: config.rx_ring,
        tx: config.tx_ring,
        completion: config.tx_ring,
    };
    let mut sockets = Vec::new();
    for queue in 0..link.rx_queues {
        let socket = XskSocket::open(&SocketConfig {
            interface: link.name.clone(),
            ifindex: link.ifindex,
            queue,
            area,
            sizes,
            copy: config.copy,
            multi_buffer: false,
        })?;
        program.set_socket(queue, &socket)?;
        sockets.push(socket);
    }
    program.steal(&match &config.keep {
        Some(keep) => Steal::AllBut { keep: keep.clone() },
        None => Steal::Everything,
    })?;
    let promiscuous = if link.is_veth { None } else { Some(Promiscuous::enter(link.ifindex)?) };
    Ok(Opened { link, monitor, program, promiscuous, sockets })
}

impl XdpManager {
    /// Takes a Linux interface over. The queues then belong to whoever runs them.
    pub fn create(
        &mut self,
        index: SwIfIndex,
        config: XdpConfig,
        pool: &Arc<Pool>,
    ) -> Result<XdpCreated, XdpError> {
        let same = |i: &XdpInterface| i.config.host_if == config.host_if && i.config.netns == config.netns;
        if self.interfaces.values().any(same) {
            return Err(XdpError::Refused(format!("{} is taken already", config.host_if)));
        }
        if self.interfaces.contains_key(&index) {
            return Err(XdpError::Refused(format!("sw_if_index {index} is taken already")));
        }
        let buffers = pool.total();
        // SAFETY: the pool's mapped range never moves or shrinks; every socket is closed before the pool is dropped, since the
        // engine, which holds the pool, outlives the interfaces.
        let area = unsafe {
            let memory = pool.memory();
            Area::new(memory.base(), buffers as usize * memory.stride(), memory.stride() as u32)
        }?;
        let opened = match &config.netns {
            Some(netns) => NetNs::open(netns)?.run(|| open(&config, area))??,
            None => open(&config, area)?,
        };
        let per_queue = 2 * config.rx_ring + config.tx_ring;
        let quota = pool
            .reserve(per_queue * opened.sockets.len() as u32)
            .map_err(|e| XdpError::Refused(e.to_string()))?;
        let partial = config.partial_checksums.unwrap_or(opened.link.is_veth);
        let mut created = XdpCreated { inputs: Vec::new(), outputs: Vec::new(), link: opened.link.clone() };
        let mut capabilities = Capabilities { zero_copy: false, tx_checksum: false };
        let (mut lent, mut monitors, mut tx) = (Vec::new(), Vec::new(), Vec::new());
        for socket in opened.sockets {
            capabilities = socket.capabilities;
            monitors.push(socket.monitor);
            let (received, sent) = (Arc::new(Lent::new(buffers)), Arc::new(Lent::new(buffers)));
            lent.extend([Arc::clone(&received), Arc::clone(&sent)]);
            created.inputs.push(Box::new(XdpInput::new(socket.rx, received, partial)));
            let output = XdpOutput::new(socket.tx, sent, capabilities.tx_checksum);
            tx.push((Arc::clone(output.health()), Watchdog::default()));
            created.outputs.push(Box::new(output));
        }
        let interface = XdpInterface {
            config,
            link: opened.link,
            monitor: opened.monitor,
            lent,
            monitors,
            missed: 0,
            tx,
            capabilities,
            partial,
            lost: None,
            pool: Arc::clone(pool),
            quota,
            _program: opened.program,
            _promiscuous: opened.promiscuous,
        };
        self.interfaces.insert(index, interface);
        Ok(created)
    }

    /// Gives a Linux interface back. Its queues must be dropped before: then the kernel can reach no buffer any more, and what it held
    /// goes back to the pool.
    pub fn delete(&mut self, index: SwIfIndex) -> Result<(), XdpError> {
        let Some(interface) = self.interfaces.get(&index) else { return Ok(()) };
        if interface.lent.iter().any(|lent| Arc::strong_count(lent) != 1) {
            return Err(XdpError::Refused(format!("{} is still in use", interface.config.host_if)));
        }
        if let Some(interface) = self.interfaces.remove(&index) {
            for lent in &interface.lent {
                lent.reclaim(&interface.pool, Owner::device(index));
            }
        }
        Ok(())
    }

    /// The descriptor that becomes readable when something happens to an interface.
    pub fn fd(&self, index: SwIfIndex) -> Option<BorrowedFd<'_>> {
        self.interfaces.get(&index).map(|i| i.monitor.as_fd())
    }

    /// What happened since the last call. `recheck` also looks for what the kernel does not tell by itself; once a second
    /// will do.
    pub fn poll(&mut self, now: Instant, recheck: bool) -> Vec<XdpEvent> {
        let mut events = Vec::new();
        for (index, interface) in &mut self.interfaces {
            if recheck && interface.lost.is_none() {
                let _ = interface.monitor.recheck();
                interface.look(*index, now, &mut events);
            }
            while let Ok(Some(event)) = interface.monitor.poll() {
                if event.ifindex != interface.link.ifindex || interface.lost.is_some() {
                    continue;
                }
                let lost = match event.change {
                    LinkChange::Up => {
                        interface.link.admin_up = true;
                        None
                    }
                    LinkChange::Down => {
                        interface.link.admin_up = false;
                        None
                    }
                    LinkChange::Carrier(carrier) => {
                        interface.link.carrier = carrier;
                        None
                    }
                    LinkChange::Mtu(mtu) => {
                        interface.link.mtu = mtu;
                        None
                    }
                    LinkChange::Removed => Some("the Linux interface was deleted".to_owned()),
                    LinkChange::Queues(queues) if queues != interface.link.rx_queues => Some(format!(
                        "the Linux interface now has {queues} receive queues, and {} are bound",
                        interface.link.rx_queues
                    )),
                    LinkChange::Queues(_) => None,
                };
                match lost {
                    Some(why) => {
                        interface.lost = Some(why.clone());
                        events.push(XdpEvent::Lost(*index, why));
                    }
                    None => {
                        let up = interface.link.admin_up && interface.link.carrier;
                        events.push(XdpEvent::Link(*index, up));
                    }
                }
            }
        }
        events
    }

    /// With what an interface was made.
    pub fn config(&self, index: SwIfIndex) -> Option<&XdpConfig> {
        self.interfaces.get(&index).map(|interface| &interface.config)
    }

    /// For `show af_xdp`.
    pub fn info(&self, index: SwIfIndex) -> Option<XdpInfo> {
        let interface = self.interfaces.get(&index)?;
        Some(XdpInfo {
            host_if: interface.config.host_if.clone(),
            netns: interface.config.netns.clone(),
            queues: interface.monitors.len(),
            capabilities: interface.capabilities,
            partial_checksums: interface.partial,
            statistics: interface.statistics(),
            tx: interface.tx.iter().map(|(health, watchdog)| TxInfo::new(health, watchdog)).collect(),
            reserved: interface.quota.usage().1,
            lost: interface.lost.clone(),
        })
    }

    /// The interfaces.
    pub fn interfaces(&self) -> impl Iterator<Item = SwIfIndex> + '_ {
        self.interfaces.keys().copied()
    }
}
