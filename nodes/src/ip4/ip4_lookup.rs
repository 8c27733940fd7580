//! `ip4-lookup`: where a packet goes, by the longest prefix that contains its destination.
//!
//! Expects: a valid IPv4 packet.
//! Hands on: by the kind of the adjacency found: `ip4-rewrite`, `ip4-arp`, `ip4-local`, `ip4-punt`; without a route
//! `ip4-icmp-error`, so that the sender is told.
//! Drops: packets to a route that says so.
//! Reads: [`Ip4Tables`]: the forwarding table of the receiving interface, the adjacency, and which routes are counted one by one.
//! CLI: `ip route add`, `show ip fib`.
//! See: RFC 1812 section 5.2.4.

use super::{
    AdjIndex, AdjacencyKind, CountedRoutes, IcmpError, Ip4Arp, Ip4IcmpError, Ip4Local, Ip4Punt, Ip4Rewrite,
    Ip4Tables,
};
use crate::wire::ip4::Ip4Header;
use std::fmt;
use wharf_engine::{Cx, Disposition, Node, PacketRef, SwIfIndex, TraceView, Way, error_counters, next_nodes};

/// See the module.
#[derive(Debug)]
pub struct Ip4Lookup {
    /// The last packet's interface: forgotten at the end of the frame.
    rx: SwIfIndex,
    /// Its forwarding table.
    fib_index: u32,
}

impl Default for Ip4Lookup {
    fn default() -> Ip4Lookup {
        Ip4Lookup { rx: SwIfIndex::NONE, fib_index: 0 }
    }
}

next_nodes! {
    /// Where packets go.
    pub enum Next {
        Rewrite => Ip4Rewrite,
        Arp => Ip4Arp,
        Local => Ip4Local,
        Punt => Ip4Punt,
        Error => Ip4IcmpError,
    }
}

error_counters! {
    /// Why packets are dropped.
    pub enum Error {
        NoRoute => "no route to destination",
        Blackhole => "route says drop",
    }
}

pub(super) fn disposition<N>(cx: &Cx<'_, N>, p: &PacketRef<'_>, leaf: AdjIndex) -> Disposition<N>
where
    N: Node<Next = Next, Error = Error, Tables = Ip4Tables>,
{
    match cx.tables().adjacency(leaf).map(|a| a.kind) {
        Some(AdjacencyKind::Rewrite) => Disposition::Next(Next::Rewrite(leaf)),
        _ => unusual(cx, p.len(), leaf),
    }
}

#[cold]
fn unusual<N>(cx: &Cx<'_, N>, len: u16, leaf: AdjIndex) -> Disposition<N>
where
    N: Node<Next = Next, Error = Error, Tables = Ip4Tables>,
{
    if let (Some(counted), Some(number)) = (&cx.tables().counted, CountedRoutes::number(leaf)) {
        counted.counters().add(cx.worker(), number, 1, len.into());
    }
    let index = cx.tables().resolve(leaf);
    match cx.tables().adjacency(index).map(|a| a.kind) {
        Some(AdjacencyKind::Rewrite | AdjacencyKind::PointToPoint) => Disposition::Next(Next::Rewrite(index)),
        Some(AdjacencyKind::Arp) => Disposition::Next(Next::Arp(index)),
        Some(AdjacencyKind::Local) => Disposition::Next(Next::Local(())),
        Some(AdjacencyKind::Punt) => Disposition::Next(Next::Punt(())),
        Some(AdjacencyKind::Drop) => Disposition::Drop(Error::Blackhole),
        Some(AdjacencyKind::NoRoute) | None => {
            cx.count(Error::NoRoute);
            Disposition::Next(Next::Error(IcmpError::NET_UNREACHABLE))
        }
    }
}

impl Node for Ip4Lookup {
    const NAME: &'static str = "ip4-lookup";
    type Meta = ();
    type Next = Next;
    type Error = Error;
    type Tables = Ip4Tables;

    const STRAIGHT: bool = true;

    // No prefetch: the lookups of packets near each other overlap without it, as measured from one route to a million.
    #[inline(always)]
    fn straight(&mut self, cx: &Cx<'_, Self>, p: &mut PacketRef<'_>, _: ()) -> Option<Way<Self>> {
        if p.rx() != self.rx {
            (self.rx, self.fib_index) = (p.rx(), cx.tables().fib_index(p.rx()));
        }
        let index = cx.tables().lookup(self.fib_index, p.header::<Ip4Header>().dst.get());
        match cx.tables().adjacency(index)?.kind {
            AdjacencyKind::Rewrite => Some(Way::next(p, Next::Rewrite(index))),
            AdjacencyKind::Local => Some(Way::next(p, Next::Local(()))),
            _ => None,
        }
    }

    fn process(&mut self, cx: &Cx<'_, Self>, p: &mut PacketRef<'_>, _: ()) -> Disposition<Self> {
        let fib_index = cx.tables().fib_index(p.rx());
        let leaf = cx.tables().lookup(fib_index, p.header::<Ip4Header>().dst.get());
        disposition(cx, p, leaf)
    }

    #[inline(always)]
    fn frame_done(&mut self, _: &Cx<'_, Self>) {
        self.rx = SwIfIndex::NONE;
    }

    fn trace(view: &TraceView<'_>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match view.next() {
            "ip4-rewrite" | "ip4-arp" => write!(f, "adj-idx {}", view.meta_after::<AdjIndex>().0)?,
            _ => view.fmt_default(f)?,
        }
        write!(f, "\n  ")?;
        super::trace::packet(view.data(), f)
    }
}
