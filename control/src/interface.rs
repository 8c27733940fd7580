//! Interfaces: what the operator set, and the operations on them.

mod create;
mod delete;
mod queues;

pub(crate) use delete::delete_interface;
pub use queues::QueueSettings;

use crate::config::Object;
use crate::dataplane::{Dataplane, OpError};
use crate::l2::{L2Mode, L2Settings};
use crate::sub_interface::SubInterface;
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Instant;
use wharf_engine::SwIfIndex;
use wharf_engine::device::RxMode;
use wharf_engine::engine::{InterfaceSetup, Loopback};
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
    /// What was said of single receive queues, which need not be there.
    pub queues: BTreeMap<u16, QueueSettings>,
    /// Features that the operator switched on, by arc.
    pub features: BTreeMap<String, BTreeSet<String>>,
    /// A text of the controller's.
    pub tag: String,
    /// Packets are bare IP packets to and from one peer: no Ethernet header, no ARP, no L2 mode.
    pub point_to_point: bool,
    /// While it is being deleted.
    pub(crate) routes_gone: delete::RoutesGone,
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
            queues: BTreeMap::new(),
            features: BTreeMap::new(),
            tag: String::new(),
            point_to_point: false,
            routes_gone: delete::RoutesGone::default(),
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
            Some(record) => {
                self.changes.touch(Object::Interface(index));
                Ok(record)
            }
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
        self.changes.touch(Object::Interface(index));
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
                loopback: match record.kind {
                    InterfaceKind::Loopback if record.mode.is_bvi() => Some(Loopback::Bridged),
                    InterfaceKind::Loopback => Some(Loopback::Own),
                    _ => None,
                },
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

    /// Switches a feature on or off.
    pub fn set_feature(
        &mut self,
        index: SwIfIndex,
        arc: &str,
        feature: &str,
        on: bool,
    ) -> Result<(), OpError> {
        self.record(index)?;
        self.engine.set_feature(arc, feature, index, on)?;
        self.changes.touch(Object::Interface(index));
        let Some(record) = self.interfaces.get_mut(&index) else { return Ok(()) };
        let features = record.features.entry(arc.to_owned()).or_default();
        match on {
            true => features.insert(feature.to_owned()),
            false => features.remove(feature),
        };
        record.features.retain(|_, features| !features.is_empty());
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
}

/// A locally administered address that another node, or the next start, is unlikely to choose too.
pub(crate) fn random_mac(index: SwIfIndex) -> MacAddress {
    use std::hash::{BuildHasher, RandomState};
    MacAddress::local((RandomState::new().hash_one(index.0) as u32) & 0xff_ffff | index.0 << 24)
}
