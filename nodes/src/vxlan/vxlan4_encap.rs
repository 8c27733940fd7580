//! `vxlan4-encap`: what is sent on a tunnel gets the headers to its peer.
//!
//! Expects: a whole frame, or a packet if the tunnel carries no Ethernet headers, and the tunnel's interface.
//! Hands on: an IPv4 packet to `ip4-load-balance`, with the adjacency of the peer.
//! Drops: frames that are longer than the tunnel takes, that have no room for the headers (they went through too many tunnels), or whose
//! tunnel is gone.
//! Reads: [`VxlanTables`].
//! CLI: `create vxlan tunnel`, `set interface mtu`.
//! See: RFC 7348 sections 4 and 5; RFC 6335 section 6 for the range of source ports.

use super::{Decap, OuterHeader, VxlanTables};
use crate::ip4::{AdjIndex, Ip4LoadBalance};
use crate::wire::checksum::{add, ones_complement_sum, pseudo_header_sum, update_u16};
use crate::wire::inner::{Start, complete_checksum, flow_hash};
use crate::wire::ip4::{Ip4Header, IpProtocol};
use crate::wire::udp::UdpHeader;
use crate::wire::{U16, VxlanHeader};
use std::fmt;
use std::net::Ipv4Addr;
use wharf_engine::{
    Cx, Disposition, Node, PacketRef, SwIfIndex, TraceView, Way, error_counters, flags, next_nodes,
};
use zerocopy::FromBytes;

/// See the module.
#[derive(Debug, Default)]
pub struct Vxlan4Encap {
    /// The tunnel of the last frame, if it is as most are: forgotten at the end of the vector.
    last: Last,
}

/// A tunnel for Ethernet frames, with a source port by the flow and without a checksum.
#[derive(Debug)]
struct Last {
    tx: SwIfIndex,
    outer: OuterHeader,
    max_frame: u16,
    leaf: u32,
}

impl Default for Last {
    fn default() -> Last {
        let outer = OuterHeader::new(Ipv4Addr::UNSPECIFIED, Ipv4Addr::UNSPECIFIED, [0; 2], 0);
        Last { tx: SwIfIndex::NONE, outer, max_frame: 0, leaf: 0 }
    }
}

next_nodes! {
    /// Where packets go.
    pub enum Next { LoadBalance => Ip4LoadBalance }
}

error_counters! {
    /// What is counted, and why frames are dropped.
    pub enum Error {
        TooLong => "frame is longer than the tunnel's MTU",
        Headroom => "no room for the tunnel's headers",
        Gone => "tunnel is deleted",
        Checksum => "inner checksum cannot be completed",
    }
}

impl Node for Vxlan4Encap {
    const NAME: &'static str = "vxlan4-encap";
    type Meta = SwIfIndex;
    type Next = Next;
    type Error = Error;
    type Tables = VxlanTables;

    const STRAIGHT: bool = true;

    #[inline(always)]
    fn straight(&mut self, _: &Cx<'_, Self>, p: &mut PacketRef<'_>, tx: SwIfIndex) -> Option<Way<Self>> {
        let last = &self.last;
        let fits = (p.len() <= last.max_frame) & (p.headroom() >= OuterHeader::LEN as u16);
        if tx != last.tx || !fits || p.flags() & flags::L4_CSUM_PARTIAL != 0 {
            return None;
        }
        let port = flow_port(p, Start::Ethernet);
        put(p, last.outer, port);
        Some(Way::next(p, Next::LoadBalance(AdjIndex(last.leaf))))
    }

    fn process(&mut self, cx: &Cx<'_, Self>, p: &mut PacketRef<'_>, tx: SwIfIndex) -> Disposition<Self> {
        let tables = cx.tables();
        let Some(tunnel) = tables.get(tx) else {
            return Disposition::Drop(Error::Gone);
        };
        let start = if tunnel.decap == Decap::Ip4 { Start::Ip4 } else { Start::Ethernet };
        if p.len() > tunnel.max_frame {
            return Disposition::Drop(Error::TooLong);
        }
        // Inside, no device completes it.
        if p.flags() & flags::L4_CSUM_PARTIAL != 0 {
            p.clear_flags(flags::L4_CSUM_PARTIAL);
            if !complete_checksum(p.data_mut(), start) {
                return Disposition::Drop(Error::Checksum);
            }
        }
        let port = match tunnel.src_port {
            0 => flow_port(p, start),
            fixed => fixed,
        };
        if p.headroom() < OuterHeader::LEN as u16 {
            return Disposition::Drop(Error::Headroom);
        }
        let outer = tunnel.outer;
        put(p, outer, port);
        if tunnel.checksum {
            sum(p);
        }
        let dst = outer.ip.dst.get();
        let leaf = tables.fibs.get(tunnel.fib_index as usize).map_or(0, |fib| fib.lookup(dst));
        if tunnel.src_port == 0 && !tunnel.checksum && start == Start::Ethernet {
            self.last = Last { tx, outer, max_frame: tunnel.max_frame, leaf };
        }
        Disposition::Next(Next::LoadBalance(AdjIndex(leaf)))
    }

    #[inline(always)]
    fn frame_done(&mut self, _: &Cx<'_, Self>) {
        self.last.tx = SwIfIndex::NONE;
    }

    fn trace(view: &TraceView<'_>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = Ip4Header::LEN + UdpHeader::LEN;
        let vxlan = view.data_after().get(at..).and_then(|b| VxlanHeader::ref_from_prefix(b).ok());
        let vni = vxlan.map_or(0, |(header, _)| header.vni());
        write!(f, "VXLAN encap to {} vni {vni}", view.interface(view.meta()))?;
        match view.outcome() {
            wharf_engine::trace::Outcome::Dropped(_) => write!(f, ", dropped: {}", view.next()),
            _ => {
                write!(f, "\n  ")?;
                crate::ip4::trace::packet(view.data_after(), f)
            }
        }
    }
}

/// RFC 6335: 49152 to 65535 are the dynamic ports.
#[inline(always)]
fn flow_port(p: &PacketRef<'_>, start: Start) -> u16 {
    0xc000 | flow_hash(p.data(), start) as u16
}

/// Puts the headers in front, for which there is room.
#[inline(always)]
fn put(p: &mut PacketRef<'_>, mut outer: OuterHeader, port: u16) {
    p.retreat(OuterHeader::LEN as u16);
    let len = p.len();
    outer.ip.total_len = U16::new(len);
    outer.ip.checksum = U16::new(update_u16(outer.ip.checksum.get(), 0, len));
    outer.udp.src_port = U16::new(port);
    outer.udp.len = U16::new(len - Ip4Header::LEN as u16);
    *p.header_mut() = outer;
    // It is ours: the TTL is not that of a forwarded packet.
    p.add_flags(flags::LOCALLY_ORIGINATED);
}

/// Fills the UDP checksum in.
#[cold]
fn sum(p: &mut PacketRef<'_>) {
    let header = *p.header::<OuterHeader>();
    let datagram = p.data().get(Ip4Header::LEN..).unwrap_or_default();
    let pseudo = pseudo_header_sum(
        header.ip.src.get().into(),
        header.ip.dst.get().into(),
        IpProtocol::UDP,
        datagram.len() as u16,
    );
    let sum = match !add(pseudo, ones_complement_sum(datagram)) {
        0 => 0xffff,
        sum => sum,
    };
    p.header_mut::<OuterHeader>().udp.checksum = U16::new(sum);
}
