//! The part of the document that is about interfaces.

use super::super::words::{InterfaceAddress, Text};
use super::{Numbered, is_default, is_true};
use crate::l2::TagOperation;
use crate::span::{Directions, SpanLayer};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use wharf_engine::device;
use wharf_nodes::ethernet::SubMatch;
use wharf_nodes::l2::DEFAULT_PORT_LIMIT;
use wharf_nodes::wire::MacAddress;
use wharf_nodes::wire::udp::port;

/// What an interface is, and with what it was created. Another type is another interface: it is deleted and created.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum InterfaceType {
    /// `loopN`.
    Loopback,
    /// `memif<socket>/<id>`.
    Memif(Memif),
    /// A packet generator.
    Pg(Pg),
    /// A Linux interface.
    AfXdp(AfXdp),
    /// `<parent>.<id>`, for these frames of the parent.
    Sub(Text<SubMatch>),
    /// `vxlan_tunnelN`.
    Vxlan(Vxlan),
}

/// A memif.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Memif {
    /// Who listens.
    pub role: MemifRole,
    /// What packets start with.
    #[serde(default, skip_serializing_if = "is_default")]
    pub mode: MemifMode,
    /// Slots of a ring.
    #[serde(default = "ring_size")]
    pub ring_size: u32,
    /// Bytes of a buffer in the rings.
    #[serde(default = "buffer_size")]
    pub buffer_size: u32,
    /// Receive rings.
    #[serde(default = "one")]
    pub rx_queues: u16,
    /// Transmit rings.
    #[serde(default = "one")]
    pub tx_queues: u16,
    /// What both peers must know: a text, or `hex:` and digits; `***` for the one that there is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<String>,
}

fn ring_size() -> u32 {
    1024
}

fn buffer_size() -> u32 {
    2048
}

fn one() -> u16 {
    1
}

/// Who listens on the socket of a memif.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MemifRole {
    /// We (VPP: master).
    #[serde(alias = "master")]
    Server,
    /// The peer.
    #[serde(alias = "slave")]
    Client,
}

/// What packets of a memif start with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MemifMode {
    /// An Ethernet header.
    #[default]
    Ethernet,
    /// An IP header.
    Ip,
}

/// A packet generator.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct Pg {
    /// What packets start with.
    #[serde(skip_serializing_if = "is_default")]
    pub mode: PgMode,
}

/// What packets of a packet generator start with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PgMode {
    /// An Ethernet header.
    #[default]
    Ethernet,
    /// An IPv4 header.
    Ip4,
    /// An IPv6 header.
    Ip6,
}

/// A Linux interface that was taken over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct AfXdp {
    /// Its name.
    pub host_if: String,
    /// Its network namespace: a name, `pid:N` or a path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub netns: Option<String>,
    /// Places in the receive rings.
    #[serde(default = "ring_size")]
    pub rx_queue_size: u32,
    /// Places in the transmit rings.
    #[serde(default = "ring_size")]
    pub tx_queue_size: u32,
    /// Whether the device must, or must not, read and write the buffers itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zero_copy: Option<bool>,
    /// Whether frames may have partial checksums; those of a veth if it is not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partial_checksums: Option<bool>,
    /// TCP ports that stay with the kernel.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keep_tcp: Vec<u16>,
    /// UDP ports that stay with the kernel.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keep_udp: Vec<u16>,
}

/// A VXLAN tunnel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Vxlan {
    /// Our address.
    pub src: Ipv4Addr,
    /// The peer's, or that of a multicast group.
    pub dst: Ipv4Addr,
    /// The interface that the group is on; only a group has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group_interface: Option<String>,
    /// The identifier of what we send.
    pub vni: u32,
    /// The identifier of what we take, if it is another, or `any`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decap_vni: Option<DecapVni>,
    /// The port to send from; one for each flow if it is not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub src_port: Option<u16>,
    /// The port to send to and to take from.
    #[serde(default = "vxlan_port")]
    pub dst_port: u16,
    /// The IPv4 table in which the peer is looked up.
    #[serde(default, skip_serializing_if = "is_default")]
    pub encap_table: u32,
    /// IPv4 packets without an Ethernet header are carried.
    #[serde(default, skip_serializing_if = "is_default")]
    pub l3: bool,
    /// The UDP checksum is computed.
    #[serde(default, skip_serializing_if = "is_default")]
    pub udp_checksum: bool,
}

fn vxlan_port() -> u16 {
    port::VXLAN
}

/// Which identifiers a tunnel takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged, expecting = "expected a VNI or `any'")]
pub enum DecapVni {
    /// This one.
    Vni(u32),
    /// A word: every one.
    Word(Any),
}

/// The word `any`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Any {
    /// `any`.
    Any,
}

/// When receive queues are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RxMode {
    /// All the time.
    Polling,
    /// When the kernel or the peer says so.
    Interrupt,
    /// All the time while there is something.
    Adaptive,
}

impl From<RxMode> for device::RxMode {
    fn from(mode: RxMode) -> device::RxMode {
        match mode {
            RxMode::Polling => device::RxMode::Polling,
            RxMode::Interrupt => device::RxMode::Interrupt,
            RxMode::Adaptive => device::RxMode::Adaptive,
        }
    }
}

impl From<device::RxMode> for RxMode {
    fn from(mode: device::RxMode) -> RxMode {
        match mode {
            device::RxMode::Polling => RxMode::Polling,
            device::RxMode::Interrupt => RxMode::Interrupt,
            device::RxMode::Adaptive => RxMode::Adaptive,
        }
    }
}

/// What is said of one receive queue. What is not said, is as for the others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct RxQueue {
    /// When it is looked at.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<RxMode>,
    /// The worker that looks at it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub worker: Option<u16>,
}

/// What a port is to its bridge domain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Port {
    /// One of many.
    #[default]
    Normal,
    /// The way to the router: a loopback.
    Bvi,
    /// Where frames to unknown addresses go.
    UuFwd,
}

/// A place in a bridge domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Bridge {
    /// The domain, which must be in the document.
    pub domain: u32,
    /// What the interface is there.
    #[serde(default, skip_serializing_if = "is_default")]
    pub port: Port,
    /// Its split-horizon group; 0 is none.
    #[serde(default, skip_serializing_if = "is_default")]
    pub shg: u8,
}

/// Interfaces that get copies, and of what.
pub type Spans = BTreeMap<String, Text<Directions>>;

/// An interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct InterfaceConfig {
    /// What it is.
    #[serde(rename = "type")]
    pub kind: InterfaceType,
    /// Set up by the operator.
    #[serde(default)]
    pub up: bool,
    /// Its MAC address; a sub-interface has its parent's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<Text<MacAddress>>,
    /// Longest IP packet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    /// A text of the controller's.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub tag: String,
    /// When its receive queues are looked at, if it is a device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rx_mode: Option<RxMode>,
    /// What is said of single receive queues, by their numbers; they need not be there yet.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub rx_queue: Numbered<RxQueue>,
    /// Its IPv4 table.
    #[serde(default, skip_serializing_if = "is_default")]
    pub table: u32,
    /// Its IPv4 addresses.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<Text<InterfaceAddress>>,
    /// It is a port of a bridge domain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bridge: Option<Bridge>,
    /// What it receives goes out of this interface.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub xconnect: Option<String>,
    /// In L2 mode: addresses are learned from it.
    #[serde(default = "yes", skip_serializing_if = "is_true")]
    pub learn: bool,
    /// In L2 mode: its frames go to known addresses.
    #[serde(default = "yes", skip_serializing_if = "is_true")]
    pub forward: bool,
    /// In L2 mode: its frames are flooded.
    #[serde(default = "yes", skip_serializing_if = "is_true")]
    pub flood: bool,
    /// In L2 mode: addresses that it may teach.
    #[serde(default = "port_limit", skip_serializing_if = "is_port_limit")]
    pub learn_limit: u32,
    /// In L2 mode: what happens to the VLAN tags of received frames.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tag_rewrite: Option<Text<TagOperation>>,
    /// Access lists for what it receives, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub acl_input: Vec<u32>,
    /// Access lists for what it sends, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub acl_output: Vec<u32>,
    /// EtherTypes that it receives in L2 mode besides those of IP; all if it is not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub etype_input: Option<Vec<u16>>,
    /// EtherTypes that it sends in L2 mode besides those of IP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub etype_output: Option<Vec<u16>>,
    /// Its MAC-IP list.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub macip_acl: Option<u32>,
    /// Interfaces that get copies of its packets.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub span: Spans,
    /// Those that get copies of the frames that are bridged or cross-connected.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub l2_span: Spans,
    /// Features that the operator switched on, by arc.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub feature: BTreeMap<String, BTreeSet<String>>,
}

fn yes() -> bool {
    true
}

fn port_limit() -> u32 {
    DEFAULT_PORT_LIMIT
}

impl InterfaceConfig {
    /// An interface as it is right after its creation, where that is certain.
    pub fn new(kind: InterfaceType) -> InterfaceConfig {
        InterfaceConfig {
            up: matches!(kind, InterfaceType::Vxlan(_)),
            kind,
            mac: None,
            mtu: None,
            tag: String::new(),
            rx_mode: None,
            rx_queue: BTreeMap::new(),
            table: 0,
            addresses: Vec::new(),
            bridge: None,
            xconnect: None,
            learn: true,
            forward: true,
            flood: true,
            learn_limit: DEFAULT_PORT_LIMIT,
            tag_rewrite: None,
            acl_input: Vec::new(),
            acl_output: Vec::new(),
            etype_input: None,
            etype_output: None,
            macip_acl: None,
            span: Spans::new(),
            l2_span: Spans::new(),
            feature: BTreeMap::new(),
        }
    }

    /// Where its packets are copied to, at a layer.
    pub(in super::super) fn spans(&self, layer: SpanLayer) -> &Spans {
        match layer {
            SpanLayer::Device => &self.span,
            SpanLayer::L2 => &self.l2_span,
        }
    }

    /// As [`Self::spans`].
    pub(in super::super) fn spans_mut(&mut self, layer: SpanLayer) -> &mut Spans {
        match layer {
            SpanLayer::Device => &mut self.span,
            SpanLayer::L2 => &mut self.l2_span,
        }
    }

    /// Whether what it receives is bridged or cross-connected.
    pub fn is_l2(&self) -> bool {
        self.bridge.is_some() || self.xconnect.is_some()
    }

    /// With the switches of L2 mode as they are where the mode is new.
    pub(in super::super) fn reset_l2(&mut self) {
        (self.learn, self.forward, self.flood) = (true, true, true);
        (self.learn_limit, self.tag_rewrite) = (DEFAULT_PORT_LIMIT, None);
    }

    /// The domain whose router interface it is.
    pub(in super::super) fn bvi(&self) -> Option<u32> {
        self.bridge.filter(|bridge| bridge.port == Port::Bvi).map(|bridge| bridge.domain)
    }
}

fn is_port_limit(limit: &u32) -> bool {
    *limit == DEFAULT_PORT_LIMIT
}
