//! VXLAN tunnels, as the operator set them.

use crate::dataplane::{Dataplane, OpError};
use crate::interface::{Interface, InterfaceKind};
use crate::ip4::{RouteSource, Via};
use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::net::Ipv4Addr;
use std::sync::Arc;
use wharf_engine::SwIfIndex;
use wharf_engine::bihash::{Bihash, Put};
use wharf_engine::mtrie::Mtrie;
use wharf_nodes::ip4::UdpTables;
use wharf_nodes::vxlan::{Decap, OuterHeader, VxlanTables, VxlanTunnel, decap_key};
use wharf_nodes::wire::VxlanHeader;
use wharf_nodes::wire::ethernet::{EthernetHeader, VlanTag};
use wharf_nodes::wire::ip4::Ip4Prefix;
use wharf_nodes::wire::udp::port;

/// Bytes that a tunnel adds to the packet in a frame: the outer headers, and the inner Ethernet header.
const OVERHEAD: u16 = (OuterHeader::LEN + EthernetHeader::LEN) as u16;
/// Buckets of the table of tunnels: twice as many entries as there can be.
const BUCKETS: usize = 2048;

/// What a tunnel takes out of packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum DecapNext {
    /// Ethernet frames: for the bridge domain of the interface, or for the interface itself.
    #[default]
    L2,
    /// IPv4 packets without an Ethernet header.
    Ip4,
}

/// A tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VxlanConfig {
    /// Our address.
    pub src: Ipv4Addr,
    /// The peer's, or that of a multicast group.
    pub dst: Ipv4Addr,
    /// The interface on which the group is sent to and listened to; only a group has one.
    pub group: Option<SwIfIndex>,
    /// The identifier of what we send, and of what we take unless [`VxlanConfig::decap_vni`] says otherwise.
    pub vni: u32,
    /// The identifier of what we take; `Some(None)` is any.
    pub decap_vni: Option<Option<u32>>,
    /// The port to send from; one for each flow if there is none.
    pub src_port: Option<u16>,
    /// The port to send to and to take from.
    pub dst_port: u16,
    /// The IPv4 table in which the peer is looked up.
    pub table: u32,
    /// What it takes out of packets.
    pub decap: DecapNext,
    /// Whether the UDP checksum is computed.
    pub checksum: bool,
    /// The number in its name.
    pub instance: u32,
}

impl VxlanConfig {
    /// A tunnel with defaults: table 0, port 4789, Ethernet frames, no checksum.
    pub fn new(src: Ipv4Addr, dst: Ipv4Addr, vni: u32) -> VxlanConfig {
        VxlanConfig {
            src,
            dst,
            group: None,
            vni,
            decap_vni: None,
            src_port: None,
            dst_port: port::VXLAN,
            table: 0,
            decap: DecapNext::L2,
            checksum: false,
            instance: 0,
        }
    }

    /// By which received packets find the tunnel.
    fn keys(&self) -> Vec<u64> {
        let own = self.group.map(|_| self.src);
        let vni = self.decap_vni.unwrap_or(Some(self.vni));
        own.into_iter().chain([self.dst]).map(|address| decap_key(address.to_bits(), vni)).collect()
    }
}

/// All tunnels, and the table by which received packets find theirs.
#[derive(Debug, Default)]
pub(crate) struct Tunnels {
    pub(crate) list: BTreeMap<SwIfIndex, VxlanConfig>,
    decap: Option<Arc<Bihash>>,
}

impl Tunnels {
    fn decap(&mut self) -> Result<Arc<Bihash>, OpError> {
        if let Some(decap) = &self.decap {
            return Ok(Arc::clone(decap));
        }
        let random = RandomState::new();
        let made = Bihash::new(BUCKETS, [random.hash_one(1), random.hash_one(2)]);
        let decap = Arc::new(made.map_err(|e| OpError::Refused(e.to_string()))?);
        self.decap = Some(Arc::clone(&decap));
        Ok(decap)
    }
}

impl Dataplane {
    /// Creates `vxlan_tunnel<instance>`, up, or with the lowest free number if there is none.
    pub fn create_vxlan(
        &mut self,
        mut config: VxlanConfig,
        instance: Option<u32>,
    ) -> Result<SwIfIndex, OpError> {
        let host = |a: Ipv4Addr| !(a.is_unspecified() || a.is_multicast() || a.is_broadcast());
        if !host(config.src) {
            return OpError::parameter("src", format!("{} is not the address of a host", config.src));
        }
        match config.group {
            Some(interface) => self.check_group(config.dst, interface, config.table)?,
            None if !host(config.dst) => {
                return OpError::parameter("dst", format!("{} is not the address of a host", config.dst));
            }
            None => {}
        }
        if config.src == config.dst {
            return OpError::parameter("dst", "src and dst are the same");
        }
        if config.vni > VxlanHeader::MAX_VNI || config.decap_vni.flatten() > Some(VxlanHeader::MAX_VNI) {
            return OpError::parameter("vni", format!("a VNI is from 0 to {}", VxlanHeader::MAX_VNI));
        }
        if config.dst_port == 0 {
            return OpError::parameter("dst_port", "port 0 cannot be used");
        }
        if !self.fibs.contains_key(&config.table) {
            return OpError::parameter("encap-vrf-id", format!("there is no IPv4 table {}", config.table));
        }
        let keys = config.keys();
        let takes = |other: &VxlanConfig| other.keys().iter().any(|key| keys.contains(key));
        if let Some((index, _)) = self.vxlan.list.iter().find(|(_, other)| takes(other)) {
            let name = self.interface_name(*index);
            return OpError::parameter("vni", format!("{name} takes this VNI from {} already", config.dst));
        }
        let free = || (0..).find(|n| self.vxlan.list.values().all(|other| other.instance != *n)).unwrap_or(0);
        config.instance = instance.unwrap_or_else(free);
        let name = format!("vxlan_tunnel{}", config.instance);
        self.check_name(&name)?;
        let index = self.free_index()?;
        let decap = self.vxlan.decap()?;
        self.vxlan.list.insert(index, config);
        let mut record = Interface::new(name, InterfaceKind::Vxlan);
        record.admin_up = true;
        record.point_to_point = config.decap == DecapNext::Ip4;
        // What the way to the peer takes, less the headers.
        let overhead = if record.point_to_point { OuterHeader::LEN as u16 } else { OVERHEAD };
        let way = config.group.or_else(|| self.resolve(config.table, config.dst));
        let underlay = way.and_then(|i| self.interfaces.get(&i));
        record.mtu = underlay.map_or(1500, |i| i.mtu).saturating_sub(overhead).max(crate::interface::MIN_MTU);
        self.add(index, record, None);
        if let Some(interface) = config.group
            && let Err(error) = self.add_route(
                config.table,
                Ip4Prefix::host(config.dst),
                RouteSource::Interface,
                Via::NextHop(config.dst, interface),
            )
        {
            self.delete_interface(index)?;
            return Err(error);
        }
        for key in keys {
            let put = decap.put(key, |_| Some(u64::from(index.0)), |_| None);
            if !matches!(put, Put::Added | Put::Changed(_)) {
                self.delete_interface(index)?;
                return OpError::refused(format!("the table of tunnels has no room ({put:?})"));
            }
        }
        Ok(index)
    }

    /// Whether a tunnel may lead to a group through an interface. All tunnels of a group share one, and so one route.
    fn check_group(&self, group: Ipv4Addr, interface: SwIfIndex, table: u32) -> Result<(), OpError> {
        if !group.is_multicast() {
            return OpError::parameter("group", format!("{group} is not the address of a multicast group"));
        }
        let record = self.record(interface)?;
        if record.point_to_point || record.kind == InterfaceKind::Local {
            let why = format!("{} has no Ethernet frames, and so no groups", record.name);
            return OpError::parameter("interface", why);
        }
        let apart = |c: &VxlanConfig| c.dst == group && c.table == table && c.group != Some(interface);
        match self.vxlan.list.values().find(|c| apart(c)).and_then(|c| c.group) {
            Some(other) => OpError::parameter(
                "interface",
                format!("another tunnel to {group} is on {}", self.interface_name(other)),
            ),
            None => Ok(()),
        }
    }

    /// Groups whose packets are ours, and on which interface.
    pub(crate) fn vxlan_groups(&self) -> Vec<(u32, SwIfIndex)> {
        let group = |c: &VxlanConfig| Some((c.dst.to_bits(), c.group?));
        let mut groups: Vec<_> = self.vxlan.list.values().filter_map(group).collect();
        groups.sort_unstable();
        groups.dedup();
        groups
    }

    /// The tunnel from `src` to `dst` that sends `vni`.
    pub fn find_vxlan(&self, src: Ipv4Addr, dst: Ipv4Addr, vni: u32) -> Option<SwIfIndex> {
        let is = |c: &VxlanConfig| (c.src, c.dst, c.vni) == (src, dst, vni);
        self.vxlan.list.iter().find(|(_, config)| is(config)).map(|(index, _)| *index)
    }

    /// Forgets a tunnel whose interface is being deleted.
    pub(crate) fn forget_vxlan(&mut self, index: SwIfIndex) {
        if let Some(config) = self.vxlan.list.remove(&index)
            && let Some(decap) = &self.vxlan.decap
        {
            for key in config.keys() {
                let _ = decap.remove(key, |value| value == u64::from(index.0));
            }
            let shared = |c: &VxlanConfig| (c.dst, c.table) == (config.dst, config.table);
            if config.group.is_some() && !self.vxlan.list.values().any(shared) {
                // Gone already if its interface is.
                let prefix = Ip4Prefix::host(config.dst);
                let _ = self.delete_route(config.table, prefix, RouteSource::Interface);
            }
        }
    }

    /// What the nodes see of the tunnels.
    pub(crate) fn vxlan_tables(&self, fibs: Vec<Arc<Mtrie>>) -> VxlanTables {
        let count = self.vxlan.list.keys().last().map_or(0, |i| i.index() + 1);
        let mut tables = VxlanTables {
            tunnels: vec![None; count],
            decap: self.vxlan.decap.clone(),
            any_vni: false,
            groups: false,
            fibs,
        };
        for (index, config) in &self.vxlan.list {
            let Some(record) = self.interfaces.get(index) else { continue };
            tables.groups |= config.group.is_some();
            tables.any_vni |= config.decap_vni == Some(None);
            let ports = [config.src_port.unwrap_or(0), config.dst_port];
            tables.tunnels[index.index()] = Some(Arc::new(VxlanTunnel {
                outer: OuterHeader::new(config.src, config.dst, ports, config.vni),
                sw_if_index: *index,
                fib_index: self.fibs.get(&config.table).map_or(0, |fib| fib.index),
                max_frame: match config.decap {
                    DecapNext::Ip4 => record.mtu,
                    DecapNext::L2 => record.mtu + (EthernetHeader::LEN + VlanTag::LEN) as u16,
                },
                src_port: ports[0],
                checksum: config.checksum,
                decap: match config.decap {
                    DecapNext::Ip4 => Decap::Ip4,
                    DecapNext::L2 if record.mode.is_l2() => Decap::L2,
                    DecapNext::L2 => Decap::Ethernet,
                },
                local_port: config.dst_port,
                up: record.admin_up,
            }));
        }
        tables
    }

    /// What the nodes see of the UDP ports in use.
    pub(crate) fn udp_tables(&self) -> UdpTables {
        let node = self.engine.graph().find("vxlan4-input");
        let mut nodes: Vec<_> =
            self.vxlan.list.values().filter_map(|config| Some((config.dst_port, node?))).collect();
        nodes.sort_unstable_by_key(|(port, _)| *port);
        nodes.dedup_by_key(|(port, _)| *port);
        UdpTables { nodes }
    }
}
