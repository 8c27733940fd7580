//! Interfaces: what the operator set, and the operations on them.

use crate::dataplane::{Dataplane, OpError};
use crate::l2::{L2Mode, L2Settings};
use crate::sub_interface::SubInterface;
use memif::Address;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Instant;
use wharf_drivers::af_xdp::{XdpConfig, XdpError, XdpEvent};
use wharf_drivers::memif::{Access, MemifConfig, MemifError, MemifEvent};
use wharf_drivers::pg::{PgInterface, PgMode};
use wharf_engine::device::{DeviceInput, DeviceOutput, RxMode};
use wharf_engine::engine::{InputId, InterfaceSetup};
use wharf_engine::{SwIfIndex, WorkerIndex};
use wharf_nodes::arp::ArpInterface;
use wharf_nodes::interface::InterfaceEntry;
use wharf_nodes::ip4::Ip4Interface;
use wharf_nodes::wire::ethernet::{EthernetHeader, MacAddress};
use wharf_nodes::wire::ip4::Ip4Prefix;

/// Shortest MTU that IPv4 allows, RFC 791.
pub const MIN_MTU: u16 = 68;
/// Interfaces at most.
pub(crate) const MAX_INTERFACES: u32 = 4096;

/// What an interface is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InterfaceKind {
    /// `local0`.
    Local,
    /// A loopback.
    Loopback,
    /// A memif.
    Memif,
    /// A packet generator.
    Pg,
    /// A Linux interface by AF_XDP.
    AfXdp,
    /// A part of another one.
    Sub,
    /// A VXLAN tunnel.
    Vxlan,
}

impl InterfaceKind {
    /// VPP's name of the device class.
    pub fn hardware(self) -> &'static str {
        match self {
            InterfaceKind::Local => "local",
            InterfaceKind::Loopback => "Loopback",
            InterfaceKind::Memif => "memif",
            InterfaceKind::Pg => "pg",
            InterfaceKind::AfXdp => "af_xdp",
            InterfaceKind::Sub => "sub-interface",
            InterfaceKind::Vxlan => "VXLAN",
        }
    }
}

/// An interface as the operator set it.
#[derive(Clone, Debug)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// What it is.
    pub kind: InterfaceKind,
    /// Set up by the operator.
    pub admin_up: bool,
    /// Whether the other end is there.
    pub link_up: bool,
    /// Its MAC address.
    pub mac: MacAddress,
    /// Longest IP packet.
    pub mtu: u16,
    /// What happens to received frames.
    pub mode: L2Mode,
    /// What it does in L2 mode.
    pub l2: L2Settings,
    /// Of which other one it is a part, if it is.
    pub sub: Option<SubInterface>,
    /// Its IPv4 table.
    pub table: u32,
    /// Its IPv4 addresses.
    pub addresses: Vec<(Ipv4Addr, u8)>,
    /// When its receive queues are looked at.
    pub rx_mode: RxMode,
    /// A text of the controller's.
    pub tag: String,
    /// Packets are bare IP packets to and from one peer: no Ethernet header, no ARP, no L2 mode.
    pub point_to_point: bool,
}

impl Interface {
    /// A new interface, down.
    pub fn new(name: String, kind: InterfaceKind) -> Interface {
        Interface {
            name,
            kind,
            admin_up: false,
            link_up: matches!(
                kind,
                InterfaceKind::Loopback | InterfaceKind::Pg | InterfaceKind::Sub | InterfaceKind::Vxlan
            ),
            mac: MacAddress::ZERO,
            mtu: if kind == InterfaceKind::Local { 0 } else { 1500 },
            mode: L2Mode::L3,
            l2: L2Settings::default(),
            sub: None,
            table: 0,
            addresses: Vec::new(),
            rx_mode: RxMode::Adaptive,
            tag: String::new(),
            point_to_point: false,
        }
    }

    /// As the nodes see it.
    pub(crate) fn entry(&self) -> InterfaceEntry {
        InterfaceEntry {
            up: self.admin_up,
            mode: self.input_mode(),
            mac: self.mac,
            ip4: !self.addresses.is_empty(),
        }
    }

    pub(crate) fn arp(&self) -> ArpInterface {
        let addresses = self.addresses.iter().map(|(a, len)| (*a, Ip4Prefix::clamped(*a, *len))).collect();
        ArpInterface { mac: self.mac, addresses }
    }

    pub(crate) fn ip4(&self, fib_index: u32) -> Ip4Interface {
        let address = self.addresses.first().map_or(0, |(a, _)| a.to_bits());
        Ip4Interface { fib_index, address, enabled: !self.addresses.is_empty() }
    }

    /// Whether `address` can be a neighbour here.
    pub fn can_arp(&self, address: Ipv4Addr) -> bool {
        !self.point_to_point && self.arp().is_neighbour(address)
    }
}

impl Dataplane {
    /// An interface by name.
    pub fn find_interface(&self, name: &str) -> Option<SwIfIndex> {
        self.interfaces.iter().find(|(_, i)| i.name == name).map(|(index, _)| *index)
    }

    /// An interface's name, or its index if it has gone.
    pub fn interface_name(&self, index: SwIfIndex) -> String {
        self.interfaces.get(&index).map_or_else(|| format!("sw_if_index {index}"), |i| i.name.clone())
    }

    pub(crate) fn record(&self, index: SwIfIndex) -> Result<&Interface, OpError> {
        match self.interfaces.get(&index) {
            Some(record) => Ok(record),
            None => {
                OpError::parameter("interface", format!("there is no interface with sw_if_index {index}"))
            }
        }
    }

    /// As [`Dataplane::record`], to change; `local0` is not for changing.
    pub(crate) fn record_mut(&mut self, index: SwIfIndex) -> Result<&mut Interface, OpError> {
        match self.interfaces.get_mut(&index) {
            Some(record) if record.kind == InterfaceKind::Local => {
                OpError::parameter("interface", "local0 cannot be changed")
            }
            Some(record) => Ok(record),
            None => {
                OpError::parameter("interface", format!("there is no interface with sw_if_index {index}"))
            }
        }
    }

    pub(crate) fn free_index(&self) -> Result<SwIfIndex, OpError> {
        match (1..MAX_INTERFACES).map(SwIfIndex).find(|i| !self.interfaces.contains_key(i)) {
            Some(index) => Ok(index),
            None => OpError::refused(format!("there are {MAX_INTERFACES} interfaces already")),
        }
    }

    pub(crate) fn check_no_addresses(&self, index: SwIfIndex) -> Result<(), OpError> {
        let record = self.record(index)?;
        match record.addresses.is_empty() {
            true => Ok(()),
            false => OpError::parameter(
                "interface",
                format!("{} has IP addresses; remove them first", record.name),
            ),
        }
    }

    pub(crate) fn check_name(&self, name: &str) -> Result<(), OpError> {
        match self.find_interface(name) {
            Some(_) => OpError::parameter("name", format!("there is an interface `{name}' already")),
            None => Ok(()),
        }
    }

    pub(crate) fn add(&mut self, index: SwIfIndex, mut record: Interface, mac: Option<MacAddress>) {
        record.mac = mac.unwrap_or_else(|| random_mac(index));
        record.rx_mode = self.default_rx_mode;
        self.engine.counters().ensure(index.0);
        self.engine.counters().reset(index.0);
        self.stats.add_interface(&self.engine, index, &record.name);
        self.interfaces.insert(index, record);
        self.apply(index);
    }

    /// Tells the engine and the nodes about an interface.
    pub(crate) fn apply(&mut self, index: SwIfIndex) {
        let setup = self.interfaces.get(&index).map(|record| {
            let node = match record.mode {
                L2Mode::L3 if record.kind == InterfaceKind::Pg => {
                    self.pg.get(&index).map_or("ethernet-input", |pg| pg.mode().input_node())
                }
                L2Mode::L3 if record.point_to_point => "ip4-input",
                _ if record.mode.is_l2() && self.children(index).next().is_none() => "l2-input",
                _ => "ethernet-input",
            };
            InterfaceSetup {
                name: Arc::from(record.name.as_str()),
                up: record.admin_up,
                input: self.engine.graph().find(node),
                loopback: record.kind == InterfaceKind::Loopback,
            }
        });
        let output = match self.interfaces.get(&index).map(|record| record.kind) {
            Some(InterfaceKind::Sub) => self.engine.graph().find("sub-interface-output"),
            Some(InterfaceKind::Vxlan) => self.engine.graph().find("vxlan4-encap"),
            _ => None,
        };
        if let Some(node) = output {
            self.engine.set_output_node(index, node);
        }
        self.engine.set_interface(index, setup);
        self.publish();
    }

    /// Creates `loopN`.
    pub fn create_loopback(
        &mut self,
        mac: Option<MacAddress>,
        instance: Option<u32>,
    ) -> Result<SwIfIndex, OpError> {
        let free = || (0..).find(|n| self.find_interface(&format!("loop{n}")).is_none()).unwrap_or(0);
        let name = format!("loop{}", instance.unwrap_or_else(free));
        self.check_name(&name)?;
        let index = self.free_index()?;
        self.add(index, Interface::new(name, InterfaceKind::Loopback), mac);
        Ok(index)
    }

    /// Gives a memif socket a number. As VPP has it, a bare name is in the runtime directory.
    pub fn add_memif_socket(&mut self, id: u32, filename: &str, access: Access) -> Result<(), OpError> {
        let whole = filename.starts_with(['/', '@']) || filename.starts_with("abstract:");
        let address = match whole {
            true => Address::parse(filename),
            false => Address::parse(&self.runtime_dir.join(filename).to_string_lossy()),
        };
        let address = address.or_else(|error| OpError::parameter("filename", error.to_string()))?;
        self.memif
            .add_socket(id, address, access)
            .or_else(|error| OpError::parameter("id", error.to_string()))
    }

    /// Creates a memif; its queues come when the peer connects.
    pub fn create_memif(&mut self, config: MemifConfig) -> Result<SwIfIndex, OpError> {
        self.check_name(&config.name)?;
        let index = self.free_index()?;
        let mut record = Interface::new(config.name.clone(), InterfaceKind::Memif);
        record.point_to_point = config.mode == memif::Mode::Ip;
        let mac = config.mac.map(MacAddress);
        if let Err(error) = self.memif.create(index, config, Instant::now()) {
            return OpError::parameter(memif_parameter(&error), error.to_string());
        }
        self.add(index, record, mac);
        Ok(index)
    }

    /// Takes a Linux interface over; with its own MAC address if `host_mac`, else with one derived from that.
    pub fn create_af_xdp(
        &mut self,
        name: String,
        config: XdpConfig,
        host_mac: bool,
    ) -> Result<SwIfIndex, OpError> {
        self.check_name(&name)?;
        let index = self.free_index()?;
        let pool = Arc::clone(self.engine.pool());
        let created = match self.xdp.create(index, config, &pool) {
            Ok(created) => created,
            Err(error) => match xdp_parameter(&error) {
                Some(parameter) => return OpError::parameter(parameter, error.to_string()),
                None => return Err(error.into()),
            },
        };
        // The same at each start, so that neighbours that remember it still reach us.
        let [_, _, a, b, c, d] = created.link.mac;
        let own = MacAddress::local(u32::from_be_bytes([a, b, c, d]));
        let mac = Some(if host_mac { MacAddress(created.link.mac) } else { own });
        let mut record = Interface::new(name, InterfaceKind::AfXdp);
        record.link_up = created.link.admin_up && created.link.carrier;
        record.mtu = (created.link.mtu.min(self.max_mtu().into()) as u16).max(MIN_MTU);
        self.add(index, record, mac);
        let started = match self.xdp.fd(index) {
            Some(fd) => self.watch(fd),
            None => Ok(()),
        };
        let started = started.and_then(|()| self.attach(index, created.inputs, created.outputs));
        self.created(index, started)
    }

    /// The end of a creation: what could not be started leaves nothing behind.
    fn created(&mut self, index: SwIfIndex, started: Result<(), OpError>) -> Result<SwIfIndex, OpError> {
        if let Err(error) = started {
            if let Err(left) = self.delete_interface(index) {
                tracing::error!("{}: {left}", self.interface_name(index));
            }
            return Err(error);
        }
        Ok(index)
    }

    pub(crate) fn xdp_event(&mut self, event: XdpEvent) {
        match event {
            XdpEvent::Link(index, up) => self.set_link(index, up),
            XdpEvent::Lost(index, why) => {
                tracing::warn!("{}: {why}", self.interface_name(index));
                self.set_link(index, false);
                if let Err(error) = self.detach(index) {
                    tracing::error!("{}: {error}", self.interface_name(index));
                }
            }
            XdpEvent::Missed(index, packets) => self.engine.counters().missed(index.0, packets),
            XdpEvent::Stalled(index, why) => tracing::warn!("{}: {why}", self.interface_name(index)),
        }
    }

    /// Creates a packet generator interface.
    pub fn create_pg(&mut self, name: &str, mode: PgMode) -> Result<SwIfIndex, OpError> {
        self.check_name(name)?;
        let index = self.free_index()?;
        let (pg, input, output) = PgInterface::new(name, mode)?;
        self.pg.insert(index, pg);
        self.add(index, Interface::new(name.to_owned(), InterfaceKind::Pg), None);
        let started = self.attach(index, vec![Box::new(input)], vec![Box::new(output)]);
        self.created(index, started)
    }

    /// Gives an interface's queues to workers. Transmit queues first: what arrives can then be answered.
    pub(crate) fn attach(
        &mut self,
        index: SwIfIndex,
        inputs: Vec<Box<dyn DeviceInput>>,
        outputs: Vec<Box<dyn DeviceOutput>>,
    ) -> Result<(), OpError> {
        let mode = self.record(index)?.rx_mode;
        let workers = self.engine.workers() as u16;
        let first = self.engine.least_loaded().0;
        for (i, output) in outputs.into_iter().take(usize::from(workers)).enumerate() {
            self.engine.attach_output(index, WorkerIndex((first + i as u16) % workers), output)?;
        }
        for (queue, input) in inputs.into_iter().enumerate() {
            let worker = WorkerIndex((first + queue as u16) % workers);
            self.engine.attach_input(index, queue as u16, worker, mode, input)?;
        }
        Ok(())
    }

    /// Takes an interface's queues back.
    pub(crate) fn detach(&mut self, index: SwIfIndex) -> Result<(), OpError> {
        for id in self.inputs_of(index) {
            drop(self.engine.detach_input(id)?);
        }
        drop(self.engine.detach_outputs(index)?);
        Ok(())
    }

    pub(crate) fn inputs_of(&self, index: SwIfIndex) -> Vec<InputId> {
        self.engine.inputs().iter().filter(|i| i.interface == index).map(|i| i.id).collect()
    }

    pub(crate) fn memif_event(&mut self, event: MemifEvent) {
        match event {
            MemifEvent::Connected { sw_if_index, inputs, outputs, .. } => {
                if let Err(error) = self.attach(sw_if_index, inputs, outputs) {
                    tracing::error!("{}: {error}", self.interface_name(sw_if_index));
                }
                self.set_link(sw_if_index, true);
            }
            MemifEvent::Disconnected { sw_if_index, reason } => {
                tracing::info!("{}: disconnected: {reason}", self.interface_name(sw_if_index));
                self.set_link(sw_if_index, false);
                if let Err(error) = self.detach(sw_if_index) {
                    tracing::error!("{}: {error}", self.interface_name(sw_if_index));
                }
            }
            MemifEvent::Failed { socket_id, reason, .. } => {
                tracing::info!("memif socket {socket_id}: {reason}");
            }
        }
    }

    pub(crate) fn set_link(&mut self, index: SwIfIndex, up: bool) {
        let Some(record) = self.interfaces.get_mut(&index) else { return };
        if std::mem::replace(&mut record.link_up, up) != up {
            self.announce(index);
        }
    }

    /// Brings an interface up or down.
    pub fn set_state(&mut self, index: SwIfIndex, up: bool) -> Result<(), OpError> {
        let record = self.record_mut(index)?;
        record.admin_up = up;
        if record.kind == InterfaceKind::Memif {
            self.memif.set_admin(index, up, Instant::now())?;
        }
        self.apply(index);
        self.announce(index);
        Ok(())
    }

    /// Longest IP packet that fits a buffer with its Ethernet header.
    pub fn max_mtu(&self) -> u16 {
        (self.engine.pool().memory().data_size() - EthernetHeader::LEN) as u16
    }

    /// Sets the longest IP packet that an interface sends.
    pub fn set_mtu(&mut self, index: SwIfIndex, mtu: u32) -> Result<(), OpError> {
        let max = self.max_mtu();
        let mtu = match u16::try_from(mtu) {
            Ok(mtu) if (MIN_MTU..=max).contains(&mtu) => mtu,
            _ => {
                let why = format!("the MTU must be from {MIN_MTU} to {max}, got {mtu}");
                return OpError::parameter("mtu", why);
            }
        };
        self.record_mut(index)?.mtu = mtu;
        self.refresh_interface(index);
        // Tunnels and sub-interfaces look at it too.
        self.publish();
        Ok(())
    }

    /// Sets an interface's MAC address.
    pub fn set_mac(&mut self, index: SwIfIndex, mac: MacAddress) -> Result<(), OpError> {
        if mac.is_multicast() || mac.is_zero() {
            return OpError::parameter("mac", format!("{mac} is not a unicast address"));
        }
        let record = self.record_mut(index)?;
        if record.sub.is_some() {
            return OpError::refused("a sub-interface has the address of the interface that it is part of");
        }
        let (mode, old) = (record.mode, std::mem::replace(&mut record.mac, mac));
        if mode.is_bvi() {
            self.move_bvi(index, mode, old, mac)?;
        }
        for child in self.children(index).collect::<Vec<_>>() {
            self.record_mut(child)?.mac = mac;
            self.refresh_interface(child);
        }
        self.refresh_interface(index);
        self.publish();
        self.announce(index);
        Ok(())
    }

    /// Attaches a text to an interface, or takes it away by an empty one.
    pub fn set_tag(&mut self, index: SwIfIndex, tag: String) -> Result<(), OpError> {
        self.record_mut(index)?.tag = tag;
        Ok(())
    }

    /// Puts an interface without addresses into a table.
    pub fn set_table(&mut self, index: SwIfIndex, table: u32) -> Result<(), OpError> {
        if !self.fibs.contains_key(&table) {
            return OpError::parameter("table", format!("there is no IPv4 table {table}"));
        }
        self.check_no_addresses(index)?;
        self.record_mut(index)?.table = table;
        self.apply(index);
        Ok(())
    }

    /// Sets when receive queues are looked at: one, or all of the interface.
    pub fn set_rx_mode(&mut self, index: SwIfIndex, queue: Option<u32>, mode: RxMode) -> Result<(), OpError> {
        self.record_mut(index)?;
        let chosen = self.chosen_inputs(index, queue)?;
        for id in chosen {
            self.engine.set_rx_mode(id, mode)?;
        }
        if queue.is_none() {
            self.record_mut(index)?.rx_mode = mode;
        }
        Ok(())
    }

    /// Moves receive queues to a worker: one, or all of the interface.
    pub fn set_placement(
        &mut self,
        index: SwIfIndex,
        queue: Option<u32>,
        worker: u32,
    ) -> Result<(), OpError> {
        self.record_mut(index)?;
        let chosen = self.chosen_inputs(index, queue)?;
        let workers = self.engine.workers();
        let worker = match u16::try_from(worker) {
            Ok(number) if usize::from(number) < workers => WorkerIndex(number),
            _ => {
                let why =
                    format!("there is no worker {worker}: workers are 0 to {}", workers.saturating_sub(1));
                return OpError::parameter("worker", why);
            }
        };
        for id in chosen {
            self.engine.place_input(id, worker)?;
        }
        Ok(())
    }

    fn chosen_inputs(&self, index: SwIfIndex, queue: Option<u32>) -> Result<Vec<InputId>, OpError> {
        let list: Vec<InputId> = (self.engine.inputs().iter())
            .filter(|i| i.interface == index && queue.is_none_or(|q| q == u32::from(i.queue)))
            .map(|i| i.id)
            .collect();
        match (queue, list.is_empty()) {
            (Some(queue), true) => {
                let name = self.interface_name(index);
                OpError::parameter("queue", format!("{name} has no receive queue {queue}"))
            }
            _ => Ok(list),
        }
    }

    /// Deletes an interface and everything that depends on it.
    pub fn delete_interface(&mut self, index: SwIfIndex) -> Result<(), OpError> {
        self.record_mut(index)?;
        for child in self.children(index).collect::<Vec<_>>() {
            self.delete_interface(child)?;
        }
        self.forget_spans(index)?;
        self.set_l3(index)?;
        let record = self.record_mut(index)?;
        record.admin_up = false;
        let (kind, addresses) = (record.kind, record.addresses.clone());
        self.apply(index);
        for (address, len) in addresses {
            self.delete_address(index, address, len)?;
        }
        let neighbours: Vec<Ipv4Addr> = self.neighbours.on(index).map(|(a, _)| a).collect();
        neighbours.into_iter().for_each(|a| self.forget_neighbour(index, a));
        for (table, prefix, source) in self.routes_through(index) {
            self.delete_route(table, prefix, source)?;
        }
        let peers: Vec<SwIfIndex> = self
            .interfaces
            .iter()
            .filter(|(_, i)| i.mode == L2Mode::Xconnect(index))
            .map(|(i, _)| *i)
            .collect();
        for peer in peers {
            self.set_l3(peer)?;
        }
        self.forget_acls(index);
        self.engine.clear_features(index);
        self.detach(index)?;
        match kind {
            InterfaceKind::Memif => self.memif.delete(index)?,
            InterfaceKind::Pg => drop(self.pg.remove(&index)),
            InterfaceKind::AfXdp => self.xdp.delete(index)?,
            InterfaceKind::Vxlan => self.forget_vxlan(index),
            InterfaceKind::Local | InterfaceKind::Loopback | InterfaceKind::Sub => {}
        }
        let gone = self.interfaces.remove(&index);
        if let Some(record) = &gone {
            self.stats.remove_interface(&self.engine, index, &record.name);
        }
        let parent = gone.and_then(|record| record.sub).map(|sub| sub.parent);
        self.apply(index);
        if let Some(parent) = parent {
            self.apply(parent);
        }
        Ok(())
    }
}

/// Which parameter of a new memif the driver does not accept.
fn memif_parameter(error: &MemifError) -> &'static str {
    match error {
        MemifError::RingSize(_) => "ring-size",
        MemifError::BufferSize(_) => "buffer-size",
        MemifError::Queues { what: "receive", .. } => "rx-queues",
        MemifError::Queues { .. } => "tx-queues",
        MemifError::Mac(_) => "hw-addr",
        MemifError::Mode => "mode",
        MemifError::NoSocket(_) | MemifError::RoleConflict { .. } => "socket-id",
        _ => "id",
    }
}

/// Which parameter of a new AF_XDP interface is at fault; none where the system is.
fn xdp_parameter(error: &XdpError) -> Option<&'static str> {
    match error {
        XdpError::NoNamespace { .. } => Some("netns"),
        XdpError::Privilege { .. }
        | XdpError::KernelLacks { .. }
        | XdpError::LockedMemory { .. }
        | XdpError::Program(_)
        | XdpError::System { .. } => None,
        _ => Some("host-if"),
    }
}

/// A locally administered address that another node, or the next start, is unlikely to choose too.
fn random_mac(index: SwIfIndex) -> MacAddress {
    use std::hash::{BuildHasher, RandomState};
    MacAddress::local((RandomState::new().hash_one(index.0) as u32) & 0xff_ffff | index.0 << 24)
}

#[cfg(test)]
mod tests {
    use super::*;
    use wharf_engine::EngineConfig;
    use wharf_engine::buffer::PoolConfig;

    #[test]
    fn what_cannot_be_started_leaves_nothing_behind() {
        let pool = PoolConfig::fixed(256);
        let config = EngineConfig { pool, ..Default::default() };
        let mut dataplane = Dataplane::start(&config, &std::env::temp_dir(), |_| {}).unwrap();
        dataplane.create_pg("pg0", PgMode::Ethernet).unwrap();
        dataplane.shut_down();
        assert!(dataplane.interfaces.len() == 1 && dataplane.pg.is_empty());
        // No worker is left to take the queues.
        assert!(dataplane.create_pg("pg1", PgMode::Ethernet).is_err());
        assert!(dataplane.find_interface("pg1").is_none() && dataplane.pg.is_empty());
    }
}
