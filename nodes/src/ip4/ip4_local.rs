//! `ip4-local`: packets for one of our own addresses.
//!
//! Expects: a valid IPv4 packet.
//! Hands on: ICMP to `ip4-icmp-input`, UDP to `ip4-udp-lookup`, everything else to `ip4-punt`.
//! Drops: fragments, which are not reassembled.
//! See: RFC 1812 section 5.2.3.

use super::{Ip4IcmpInput, Ip4Punt, Ip4UdpLookup};
use crate::wire::ip4::{Ip4Header, IpProtocol};
use std::fmt;
use wharf_engine::{Cx, Disposition, Node, PacketRef, TraceView, error_counters, next_nodes};

/// See the module.
#[derive(Debug)]
pub struct Ip4Local;

next_nodes! {
    /// Where packets go.
    pub enum Next { Icmp => Ip4IcmpInput, Udp => Ip4UdpLookup, Punt => Ip4Punt }
}

error_counters! {
    /// Why packets are dropped.
    pub enum Error { Fragment => "ip4 fragment for us is not reassembled" }
}

impl Node for Ip4Local {
    const NAME: &'static str = "ip4-local";
    type Meta = ();
    type Next = Next;
    type Error = Error;
    type Tables = ();

    fn process(&mut self, _: &Cx<'_, Self>, p: &mut PacketRef<'_>, _: ()) -> Disposition<Self> {
        let header = p.header::<Ip4Header>();
        match header.protocol {
            _ if header.is_fragment() => Disposition::Drop(Error::Fragment),
            IpProtocol::ICMP => Disposition::Next(Next::Icmp(())),
            IpProtocol::UDP => Disposition::Next(Next::Udp(())),
            _ => Disposition::Next(Next::Punt(())),
        }
    }

    fn trace(view: &TraceView<'_>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        super::trace::packet(view.data(), f)
    }
}
