//! What the IPv4 nodes read: forwarding tables, adjacencies, addresses.

use super::CountedRoutes;
use crate::wire::ethernet::EthernetHeader;
use std::net::Ipv4Addr;
use std::sync::Arc;
use wharf_engine::SwIfIndex;
use wharf_engine::counter::Combined;
use wharf_engine::mtrie::Mtrie;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Index of an [`Adjacency`]; what a forwarding table's leaf holds, but for [`CountedRoutes`]. 0 is "no route".
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(transparent)]
pub struct AdjIndex(pub u32);

impl AdjIndex {
    /// The adjacency of addresses without a route.
    pub const NO_ROUTE: AdjIndex = AdjIndex(0);
}

/// What becomes of packets that reach an adjacency.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum AdjacencyKind {
    /// There is no route: the sender is told.
    #[default]
    NoRoute,
    /// Dropped by the operator's wish.
    Drop,
    /// Sent with a known Ethernet header.
    Rewrite,
    /// Sent as it is: the interface takes IP packets, and has one peer.
    PointToPoint,
    /// To a neighbour or into a connected subnet, once the MAC address is known.
    Arp,
    /// For us.
    Local,
    /// For the host.
    Punt,
}

/// Where packets go next: one cache line.
#[derive(Clone, Debug, Default)]
#[repr(C, align(64))]
pub struct Adjacency {
    /// The header to put in front, for [`AdjacencyKind::Rewrite`].
    pub rewrite: [u8; EthernetHeader::LEN],
    /// Longest IP packet that the interface takes.
    pub mtu: u16,
    /// The interface to send on.
    pub tx: SwIfIndex,
    /// The neighbour; unspecified for a connected subnet, where it is the packet's destination.
    pub next_hop: u32,
    /// See there.
    pub kind: AdjacencyKind,
}

const _: () = assert!(size_of::<Adjacency>() == 64);

/// What IPv4 knows of an interface.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ip4Interface {
    /// The forwarding table of packets received here.
    pub fib_index: u32,
    /// Its first address: the source of ICMP errors; unspecified when it has none.
    pub address: u32,
    /// Whether it has an address, and so takes IPv4 packets.
    pub enabled: bool,
}

/// The published state of IPv4 forwarding.
#[derive(Clone, Debug)]
pub struct Ip4Tables {
    /// The forwarding tables, changed in place; leaves are [`AdjIndex`]es.
    pub fibs: Vec<Arc<Mtrie>>,
    /// The adjacencies.
    pub adjacencies: Vec<Adjacency>,
    /// Packets and bytes per adjacency.
    pub counters: Arc<Combined>,
    /// By `sw_if_index`.
    pub interfaces: Vec<Ip4Interface>,
    /// Multicast groups, and the interfaces on which packets to them are for us; sorted.
    pub groups: Vec<(u32, SwIfIndex)>,
    /// The routes that are counted one by one; `None` if none is.
    pub counted: Option<Arc<CountedRoutes>>,
}

impl Default for Ip4Tables {
    fn default() -> Self {
        Ip4Tables {
            fibs: Vec::new(),
            adjacencies: vec![Adjacency::default()],
            counters: Arc::new(Combined::new(0)),
            interfaces: Vec::new(),
            groups: Vec::new(),
            counted: None,
        }
    }
}

impl Ip4Tables {
    /// Index of the forwarding table of packets received on `rx`.
    #[inline(always)]
    pub fn fib_index(&self, rx: SwIfIndex) -> u32 {
        self.interfaces.get(rx.index()).map_or(0, |i| i.fib_index)
    }

    /// The leaf of `dst` in the forwarding table `fib_index`: an adjacency, or what [`Ip4Tables::resolve`] takes to one.
    #[inline(always)]
    pub fn lookup(&self, fib_index: u32, dst: u32) -> AdjIndex {
        self.fibs.get(fib_index as usize).map_or(AdjIndex::NO_ROUTE, |fib| AdjIndex(fib.lookup(dst)))
    }

    /// The adjacency that a leaf leads to.
    pub fn resolve(&self, leaf: AdjIndex) -> AdjIndex {
        self.counted.as_ref().map_or(leaf, |counted| counted.resolve(leaf))
    }

    /// One adjacency.
    #[inline(always)]
    pub fn adjacency(&self, index: AdjIndex) -> Option<&Adjacency> {
        self.adjacencies.get(index.0 as usize)
    }

    /// The address to send errors from, about a packet received on `rx`.
    pub fn source(&self, rx: SwIfIndex) -> Option<Ipv4Addr> {
        let own = self.interfaces.get(rx.index()).filter(|i| i.enabled);
        let any = || self.interfaces.iter().find(|i| i.enabled);
        own.or_else(any).map(|i| Ipv4Addr::from_bits(i.address))
    }
}
