//! `ip4-rewrite`: a packet gets the Ethernet header of its next hop, or none on an interface that takes IP packets.
//!
//! Expects: a valid IPv4 packet, and an adjacency of kind `Rewrite` or `PointToPoint`.
//! Hands on: the frame to the features of arc `ip4-output` and `interface-output`. What has lived too long, or does not fit and must
//! not be fragmented, to `ip4-icmp-error`.
//! Drops: packets whose adjacency went away since the lookup; packets that would have to be fragmented.
//! Reads: [`Ip4Tables`].
//! See: RFC 1812 sections 5.3.1 (TTL) and 4.2.2.7 (fragmentation), RFC 1191.

use super::{AdjIndex, Adjacency, AdjacencyKind, IcmpError, Ip4IcmpError, Ip4Tables};
use crate::interface::InterfaceOutput;
use crate::wire::checksum::decrement_ttl;
use crate::wire::ethernet::EthernetHeader;
use crate::wire::ip4::Ip4Header;
use std::fmt;
use wharf_engine::counter::Tally;
use wharf_engine::{
    ArcStart, ArcWay, Cx, Disposition, FeatureArc, Node, PacketRef, SwIfIndex, TraceView, Way,
    error_counters, flags, next_nodes,
};

/// Arc `ip4-output`: between `ip4-rewrite` and `interface-output`.
#[derive(Debug)]
pub struct Ip4OutputArc;

impl FeatureArc for Ip4OutputArc {
    const NAME: &'static str = "ip4-output";
    type Meta = SwIfIndex;
    const END: &'static str = "interface-output";
}

/// See the module.
#[derive(Debug)]
pub struct Ip4Rewrite {
    /// Where the arc starts.
    arc: ArcStart<Ip4OutputArc>,
    /// Sent packets, per adjacency.
    sent: Tally,
    /// What is done with packets of the adjacency that is counted on.
    straight: Straight,
}

/// Of an adjacency of kind `Rewrite`.
#[derive(Debug)]
struct Straight {
    rewrite: [u8; EthernetHeader::LEN],
    /// Packets shorter than this fit; 0 for any other adjacency.
    limit: u32,
    tx: SwIfIndex,
    way: ArcWay<Ip4Rewrite, Ip4OutputArc>,
}

impl Straight {
    const NONE: Straight =
        Straight { rewrite: [0; EthernetHeader::LEN], limit: 0, tx: SwIfIndex::NONE, way: ArcWay::NOWHERE };
}

impl Ip4Rewrite {
    /// With the start of its arc.
    pub fn new(arc: ArcStart<Ip4OutputArc>) -> Ip4Rewrite {
        Ip4Rewrite { arc, sent: Tally::default(), straight: Straight::NONE }
    }

    #[inline(never)]
    fn turn_to(&mut self, cx: &Cx<'_, Self>, index: AdjIndex) {
        self.sent.turn_to(&cx.tables().counters, cx.worker(), index.0);
        let adjacency = cx.tables().adjacency(index).filter(|a| a.kind == AdjacencyKind::Rewrite);
        self.straight = match adjacency {
            Some(&Adjacency { rewrite, mtu, tx, .. }) => {
                let way = self.arc.way(cx, tx, Next::Output);
                Straight { rewrite, limit: u32::from(mtu) + 1, tx, way }
            }
            None => Straight::NONE,
        };
    }
}

next_nodes! {
    /// Where packets go.
    pub enum Next { Output => InterfaceOutput, Error => Ip4IcmpError }
}

error_counters! {
    /// What is counted, and why packets are dropped.
    pub enum Error {
        TimeExpired => "ip4 ttl <= 1",
        MtuExceeded => "ip4 MTU exceeded and DF set",
        NeedsFragmentation => "ip4 MTU exceeded, fragmentation is not supported",
        NoAdjacency => "adjacency is gone",
    }
}

impl Node for Ip4Rewrite {
    const NAME: &'static str = "ip4-rewrite";
    type Meta = AdjIndex;
    type Next = Next;
    type Error = Error;
    type Tables = Ip4Tables;

    const STRAIGHT: bool = true;

    #[inline(always)]
    fn straight(&mut self, cx: &Cx<'_, Self>, p: &mut PacketRef<'_>, index: AdjIndex) -> Option<Way<Self>> {
        if !self.sent.is_on(index.0) {
            self.turn_to(cx, index);
        }
        let header = p.header::<Ip4Header>();
        let forwarded = p.flags() & flags::LOCALLY_ORIGINATED == 0;
        if !((!forwarded | (header.ttl > 1)) & (u32::from(p.len()) < self.straight.limit)) {
            return None;
        }
        if forwarded {
            decrement_ttl(p.header_mut());
        }
        p.retreat(EthernetHeader::LEN as u16);
        *p.header_mut() = self.straight.rewrite;
        self.sent.add(p.len());
        Some(self.straight.way.take(p, self.straight.tx))
    }

    fn process(&mut self, cx: &Cx<'_, Self>, p: &mut PacketRef<'_>, index: AdjIndex) -> Disposition<Self> {
        use AdjacencyKind::{PointToPoint, Rewrite};
        let adjacency = cx.tables().adjacency(index);
        let Some(adjacency) = adjacency.filter(|a| matches!(a.kind, Rewrite | PointToPoint)) else {
            return Disposition::Drop(Error::NoAdjacency);
        };
        let forwarded = p.flags() & flags::LOCALLY_ORIGINATED == 0;
        if forwarded && p.header::<Ip4Header>().ttl <= 1 {
            cx.count(Error::TimeExpired);
            return Disposition::Next(Next::Error(IcmpError::TIME_EXCEEDED));
        }
        if p.len() > adjacency.mtu {
            return too_long(cx, p, adjacency.mtu);
        }
        if forwarded {
            decrement_ttl(p.header_mut());
        }
        if adjacency.kind == Rewrite {
            p.retreat(EthernetHeader::LEN as u16);
            *p.header_mut() = adjacency.rewrite;
        }
        self.sent.add(p.len());
        match self.arc.enter(cx, p, adjacency.tx, adjacency.tx) {
            Some(edge) => Disposition::Edge(edge),
            None => Disposition::Next(Next::Output(adjacency.tx)),
        }
    }

    #[inline(always)]
    fn frame_done(&mut self, cx: &Cx<'_, Self>) {
        self.sent.flush(&cx.tables().counters, cx.worker());
    }

    fn trace(view: &TraceView<'_>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let index = view.meta::<AdjIndex>().0;
        match view.next() {
            "ip4-icmp-error" => write!(f, "adj-idx {index} : next ip4-icmp-error")?,
            "interface-output" => {
                write!(f, "tx {} adj-idx {index}\n  ", view.interface(view.meta_after()))?;
                if view.len_after() == view.len() {
                    super::trace::packet(view.data_after(), f)?;
                } else {
                    crate::ethernet::trace::frame(view.data_after(), f)?;
                }
            }
            other => write!(f, "adj-idx {index} : {other}")?,
        }
        Ok(())
    }
}

#[cold]
fn too_long(cx: &Cx<'_, Ip4Rewrite>, p: &PacketRef<'_>, mtu: u16) -> Disposition<Ip4Rewrite> {
    // RFC 1191 section 4: the next-hop MTU goes into the message.
    if p.header::<Ip4Header>().dont_fragment() {
        cx.count(Error::MtuExceeded);
        return Disposition::Next(Next::Error(IcmpError::fragmentation_needed(mtu)));
    }
    Disposition::Drop(Error::NeedsFragmentation)
}
