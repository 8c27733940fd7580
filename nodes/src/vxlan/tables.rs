//! VXLAN tunnels, as the control plane publishes them.

use crate::wire::ip4::{Ip4Header, IpProtocol};
use crate::wire::udp::UdpHeader;
use crate::wire::vxlan::VxlanHeader;
use crate::wire::{U16, U32, checksum};
use std::net::Ipv4Addr;
use std::sync::Arc;
use wharf_engine::SwIfIndex;
use wharf_engine::bihash::Bihash;
use wharf_engine::mtrie::Mtrie;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// What is put in front of a frame: IPv4, UDP and VXLAN headers, 36 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct OuterHeader {
    /// Without options.
    pub ip: Ip4Header,
    /// From the tunnel's source port, which tells flows apart, to the peer's port.
    pub udp: UdpHeader,
    /// With the tunnel's identifier.
    pub vxlan: VxlanHeader,
}

impl OuterHeader {
    /// Length in bytes.
    pub const LEN: usize = size_of::<OuterHeader>();

    /// Headers whose lengths are zero, and whose IP checksum is right for that.
    pub fn new(src: Ipv4Addr, dst: Ipv4Addr, ports: [u16; 2], vni: u32) -> OuterHeader {
        let mut ip = Ip4Header {
            version_ihl: Ip4Header::VERSION_IHL,
            tos: 0,
            total_len: U16::ZERO,
            // RFC 6864 section 4.1: a packet that is not to be fragmented needs no identification. RFC 7348 section 4.3: "VTEPs MUST NOT
            // fragment VXLAN packets".
            id: U16::ZERO,
            flags_fragment: U16::new(Ip4Header::DONT_FRAGMENT),
            ttl: 254,
            protocol: IpProtocol::UDP,
            checksum: U16::ZERO,
            src: U32::new(src.to_bits()),
            dst: U32::new(dst.to_bits()),
        };
        ip.checksum = U16::new(checksum::header_checksum(&ip));
        OuterHeader { ip, udp: UdpHeader::new(ports[0], ports[1], 0), vxlan: VxlanHeader::new(vni) }
    }
}

/// What the payload of a tunnel is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Decap {
    /// Ethernet frames that are bridged or cross-connected.
    #[default]
    L2,
    /// Ethernet frames for the tunnel interface's own address.
    Ethernet,
    /// IPv4 packets without an Ethernet header.
    Ip4,
}

/// A tunnel to one peer, or to all that listen to a multicast group.
#[derive(Clone, Debug)]
pub struct VxlanTunnel {
    /// What is put in front.
    pub outer: OuterHeader,
    /// Its interface.
    pub sw_if_index: SwIfIndex,
    /// The forwarding table in which the peer is looked up, by number in [`VxlanTables::fibs`].
    pub fib_index: u32,
    /// The longest frame that it takes, or packet if it carries no Ethernet headers.
    pub max_frame: u16,
    /// The source port, or 0 for one by the flow.
    pub src_port: u16,
    /// Whether the UDP checksum is computed.
    pub checksum: bool,
    /// What it carries.
    pub decap: Decap,
    /// The port that packets come to.
    pub local_port: u16,
    /// Whether it is administratively up.
    pub up: bool,
}

impl VxlanTunnel {
    /// Whether it leads to a multicast group.
    pub fn is_group(&self) -> bool {
        Ipv4Addr::from_bits(self.outer.ip.dst.get()).is_multicast()
    }
}

/// All tunnels.
#[derive(Clone, Debug, Default)]
pub struct VxlanTables {
    /// By `sw_if_index`.
    pub tunnels: Vec<Option<Arc<VxlanTunnel>>>,
    /// From [`decap_key`] to `sw_if_index`; a group's tunnel has two, by the group and by our own address.
    pub decap: Option<Arc<Bihash>>,
    /// Whether a tunnel takes any identifier from its peer: only then is a second key looked for.
    pub any_vni: bool,
    /// Whether a tunnel leads to a group.
    pub groups: bool,
    /// The forwarding tables.
    pub fibs: Vec<Arc<Mtrie>>,
}

impl VxlanTables {
    /// The tunnel of an interface.
    #[inline(always)]
    pub fn get(&self, index: SwIfIndex) -> Option<&VxlanTunnel> {
        self.tunnels.get(index.index()).and_then(Option::as_deref)
    }
}

/// Peer (of a group's tunnel: the group, or our own address) and identifier, or any identifier, as one key.
#[inline(always)]
pub fn decap_key(peer: u32, vni: Option<u32>) -> u64 {
    let kind = if vni.is_some() { 1 } else { 2 };
    kind << 56 | u64::from(peer) << 24 | u64::from(vni.unwrap_or(0) & VxlanHeader::MAX_VNI)
}
