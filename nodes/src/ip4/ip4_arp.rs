//! `ip4-arp`: packets whose next hop's MAC address is not known yet.
//!
//! Expects: a valid IPv4 packet, and an adjacency of kind `Arp`.
//! Hands on: asks the control plane to resolve, holds a few packets per neighbour, and gives them to `ip4-rewrite` when the
//! address is known. After a second without an answer the sender is told by `ip4-icmp-error`.
//! Drops: packets beyond the few.
//! Reads: [`Ip4Tables`], again at each tick.
//! CLI: `show ip neighbors`.
//! See: RFC 1122 section 2.3.2.2 (hold at least one packet), RFC 1812 section 3.3.2.

use super::{AdjIndex, Adjacency, AdjacencyKind, IcmpError, Ip4IcmpError, Ip4Rewrite, Ip4Tables};
use crate::event::{Event, EventSender};
use crate::wire::ip4::Ip4Header;
use std::collections::HashMap;
use std::fmt;
use std::net::Ipv4Addr;
use wharf_engine::{
    Cx, Disposition, Held, Node, PacketRef, SwIfIndex, TraceView, error_counters, next_nodes,
};

/// Packets held for one neighbour.
pub const PENDING_PER_NEIGHBOUR: usize = 3;
/// Neighbours that are remembered as being asked for.
const MAX_NEIGHBOURS: usize = 1024;
/// How long a packet waits.
const PATIENCE: u64 = 1_000_000_000;
/// Time between two requests to the control plane about one neighbour.
const ASK_AGAIN: u64 = 1_000_000_000;

#[derive(Debug, Default)]
struct Waiting {
    packets: usize,
    asked: u64,
}

/// A neighbour: an address on an interface.
type Key = (SwIfIndex, u32);

/// The neighbour that a packet to `adjacency` is for.
fn neighbour(adjacency: &Adjacency, p: &PacketRef<'_>) -> Key {
    let address = match adjacency.next_hop {
        0 => p.header::<Ip4Header>().dst.get(),
        next_hop => next_hop,
    };
    (adjacency.tx, address)
}

/// See the module.
#[derive(Debug)]
pub struct Ip4Arp {
    events: EventSender,
    neighbours: HashMap<Key, Waiting>,
}

impl Ip4Arp {
    /// An instance that asks over `events`.
    pub fn new(events: EventSender) -> Ip4Arp {
        Ip4Arp { events, neighbours: HashMap::new() }
    }
}

next_nodes! {
    /// Where packets go.
    pub enum Next { Rewrite => Ip4Rewrite, Error => Ip4IcmpError }
}

error_counters! {
    /// What is counted, and why packets are dropped.
    pub enum Error {
        Requested => "ARP resolution requested",
        QueueFull => "ARP pending queue full",
        TooMany => "too many unresolved neighbours",
        Unresolved => "neighbour does not answer",
        NoAdjacency => "adjacency is gone",
    }
}

impl Node for Ip4Arp {
    const NAME: &'static str = "ip4-arp";
    type Meta = AdjIndex;
    type Next = Next;
    type Error = Error;
    type Tables = Ip4Tables;

    fn process(&mut self, cx: &Cx<'_, Self>, p: &mut PacketRef<'_>, index: AdjIndex) -> Disposition<Self> {
        let Some(adjacency) = cx.tables().adjacency(index) else {
            return Disposition::Drop(Error::NoAdjacency);
        };
        match adjacency.kind {
            AdjacencyKind::Arp => {}
            AdjacencyKind::Rewrite => return Disposition::Next(Next::Rewrite(index)),
            _ => return Disposition::Drop(Error::NoAdjacency),
        }
        let key = neighbour(adjacency, p);
        if !self.neighbours.contains_key(&key) && self.neighbours.len() >= MAX_NEIGHBOURS {
            return Disposition::Drop(Error::TooMany);
        }
        let waiting = self.neighbours.entry(key).or_default();
        if waiting.asked == 0 || cx.now() - waiting.asked > ASK_AGAIN {
            let (interface, address) = (key.0, Ipv4Addr::from_bits(key.1));
            if self.events.send(Event::Resolve { interface, address }) {
                waiting.asked = cx.now();
                cx.count(Error::Requested);
            }
        }
        if waiting.packets >= PENDING_PER_NEIGHBOUR || !cx.may_hold() {
            return Disposition::Drop(Error::QueueFull);
        }
        waiting.packets += 1;
        Disposition::Hold(key.1)
    }

    fn tick(&mut self, cx: &Cx<'_, Self>, held: &mut Held<'_, Self>) {
        let neighbours = &mut self.neighbours;
        // Counted anew: since the last tick a route may have moved packets from one neighbour to another.
        neighbours.values_mut().for_each(|waiting| waiting.packets = 0);
        held.retain(|_, since, p, _| {
            let fib = cx.tables().fib_index(p.rx());
            let leaf = cx.tables().lookup(fib, p.header::<Ip4Header>().dst.get());
            let index = cx.tables().resolve(leaf);
            match cx.tables().adjacency(index).map(|a| (a, a.kind)) {
                Some((_, AdjacencyKind::Rewrite)) => Some(Disposition::Next(Next::Rewrite(index))),
                Some((adjacency, AdjacencyKind::Arp)) if cx.now() - since < PATIENCE => {
                    neighbours.entry(neighbour(adjacency, p)).or_default().packets += 1;
                    None
                }
                Some((_, AdjacencyKind::Arp)) => {
                    cx.count(Error::Unresolved);
                    Some(Disposition::Next(Next::Error(IcmpError::HOST_UNREACHABLE)))
                }
                _ => Some(Disposition::Drop(Error::NoAdjacency)),
            }
        });
        neighbours.retain(|_, w| w.packets != 0 || cx.now() - w.asked < ASK_AGAIN);
    }

    fn trace(view: &TraceView<'_>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        view.fmt_default(f)?;
        write!(f, "\n  ")?;
        super::trace::packet(view.data(), f)
    }
}
