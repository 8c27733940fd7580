//! `ip4-load-balance`: packets whose adjacency is known already, as those that a tunnel has made are.
//!
//! Expects: a valid IPv4 packet, and an adjacency.
//! Hands on: by the kind of the adjacency, as `ip4-lookup` does.
//! Drops: packets to a route that says so.
//! Reads: [`Ip4Tables`].

use super::ip4_lookup::{Error, Next, disposition};
use super::{AdjIndex, AdjacencyKind, Ip4Tables};
use std::fmt;
use wharf_engine::{Cx, Disposition, Node, PacketRef, TraceView, Way};

/// See the module.
#[derive(Debug)]
pub struct Ip4LoadBalance;

impl Node for Ip4LoadBalance {
    const NAME: &'static str = "ip4-load-balance";
    type Meta = AdjIndex;
    type Next = Next;
    type Error = Error;
    type Tables = Ip4Tables;

    const STRAIGHT: bool = true;

    #[inline(always)]
    fn straight(&mut self, cx: &Cx<'_, Self>, p: &mut PacketRef<'_>, index: AdjIndex) -> Option<Way<Self>> {
        match cx.tables().adjacency(index)?.kind {
            AdjacencyKind::Rewrite => Some(Way::next(p, Next::Rewrite(index))),
            _ => None,
        }
    }

    fn process(&mut self, cx: &Cx<'_, Self>, p: &mut PacketRef<'_>, index: AdjIndex) -> Disposition<Self> {
        disposition(cx, p, index)
    }

    fn trace(view: &TraceView<'_>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "adj-idx {}, next {}", view.meta::<AdjIndex>().0, view.next())
    }
}
