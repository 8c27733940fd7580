//! `ip4-udp-lookup`: UDP datagrams for us, by the port that they are for.
//!
//! Expects: a valid IPv4 packet that carries UDP and is no fragment.
//! Hands on: the whole packet, cut to its datagram, to the node that has the port; else to `ip4-punt`.
//! Drops: datagrams for a node whose length or checksum is wrong.
//! Reads: [`UdpTables`].
//! CLI: `create vxlan tunnel`.
//! See: RFC 768, RFC 1122 section 4.1.3.

use super::Ip4Punt;
use crate::wire::checksum::{add, ones_complement_sum, pseudo_header_sum};
use crate::wire::ip4::{Ip4Header, IpProtocol};
use crate::wire::udp::UdpHeader;
use std::fmt;
use wharf_engine::{
    Cx, Disposition, NextIndex, Node, NodeIndex, PacketRef, TraceView, error_counters, flags, next_nodes,
};
use zerocopy::FromBytes;

/// Which node has which port. The nodes take no metadata.
#[derive(Clone, Debug, Default)]
pub struct UdpTables {
    /// By port, sorted.
    pub nodes: Vec<(u16, NodeIndex)>,
}

impl UdpTables {
    /// The node of a port.
    #[inline(always)]
    pub fn get(&self, port: u16) -> Option<NodeIndex> {
        let at = self.nodes.binary_search_by_key(&port, |(port, _)| *port);
        at.ok().map(|at| self.nodes[at].1)
    }
}

/// See the module.
#[derive(Debug)]
pub struct Ip4UdpLookup;

next_nodes! {
    /// Where other packets go.
    pub enum Next { Punt => Ip4Punt }
}

error_counters! {
    /// Why packets are dropped.
    pub enum Error { Length => "UDP length error", Checksum => "UDP checksum error" }
}

impl Node for Ip4UdpLookup {
    const NAME: &'static str = "ip4-udp-lookup";
    type Meta = ();
    type Next = Next;
    type Error = Error;
    type Tables = UdpTables;

    #[inline(always)]
    fn process(&mut self, cx: &Cx<'_, Self>, p: &mut PacketRef<'_>, _: ()) -> Disposition<Self> {
        let ip = *p.header::<Ip4Header>();
        let at = ip.header_len();
        let datagram = p.data().get(at..).unwrap_or_default();
        let Ok((udp, _)) = UdpHeader::ref_from_prefix(datagram) else {
            return Disposition::Next(Next::Punt(()));
        };
        let Some(node) = cx.tables().get(udp.dst_port.get()) else {
            return Disposition::Next(Next::Punt(()));
        };
        let len = usize::from(udp.len.get());
        let Some(datagram) = datagram.get(..len).filter(|_| len >= UdpHeader::LEN) else {
            return Disposition::Drop(Error::Length);
        };
        // A kernel that leaves the checksum to a device has none in it.
        let check = udp.checksum.get() != 0 && p.flags() & flags::L4_CSUM_PARTIAL == 0;
        if check && !is_right(&ip, datagram) {
            return Disposition::Drop(Error::Checksum);
        }
        p.set_len((at + len) as u16);
        Disposition::Edge(NextIndex::new(node, ()))
    }

    fn trace(view: &TraceView<'_>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        super::trace::packet(view.data(), f)
    }
}

#[cold]
fn is_right(ip: &Ip4Header, datagram: &[u8]) -> bool {
    let pseudo =
        pseudo_header_sum(ip.src.get().into(), ip.dst.get().into(), IpProtocol::UDP, datagram.len() as u16);
    add(pseudo, ones_complement_sum(datagram)) == 0xffff
}
