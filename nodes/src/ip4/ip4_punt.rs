//! `ip4-punt`: packets that belong to the host.
//!
//! Expects: a valid IPv4 packet.
//! Hands on: to `error-punt`, which counts and frees them while there is no interface to the host.
//! CLI: `show errors`, and `punt` in `show interface`.

use crate::wire::ip4::{Ip4Header, IpProtocol};
use std::fmt;
use wharf_engine::{Cx, Disposition, Node, PacketRef, Punt, TraceView, error_counters, next_nodes};

/// See the module.
#[derive(Debug)]
pub struct Ip4Punt;

next_nodes! {
    /// Where packets go.
    pub enum Next { Punt => Punt }
}

error_counters! {
    /// What is counted.
    pub enum Error {
        Udp => "UDP packets punted",
        Tcp => "TCP packets punted",
        Other => "packets of other protocols punted",
    }
}

impl Node for Ip4Punt {
    const NAME: &'static str = "ip4-punt";
    type Meta = ();
    type Next = Next;
    type Error = Error;
    type Tables = ();

    fn process(&mut self, cx: &Cx<'_, Self>, p: &mut PacketRef<'_>, _: ()) -> Disposition<Self> {
        cx.count(match p.header::<Ip4Header>().protocol {
            IpProtocol::UDP => Error::Udp,
            IpProtocol::TCP => Error::Tcp,
            _ => Error::Other,
        });
        Disposition::Next(Next::Punt(()))
    }

    fn trace(view: &TraceView<'_>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        super::trace::packet(view.data(), f)
    }
}
