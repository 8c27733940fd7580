//! `ip4-icmp-input`: ICMP messages for us, checked and sorted by type.
//!
//! Expects: a valid IPv4 packet of protocol ICMP, not a fragment.
//! Hands on: echo requests to `ip4-icmp-echo-request`; echo replies are told to the control plane, which is where `ping` waits.
//! Drops: everything, once it was looked at.
//! CLI: `ping`.
//! See: RFC 792, RFC 1122 section 3.2.2.

use super::Ip4IcmpEchoRequest;
use crate::event::{Event, EventSender};
use crate::wire::checksum::ones_complement_sum;
use crate::wire::icmp4::{Icmp4Header, Icmp4Type};
use crate::wire::ip4::Ip4Header;
use std::fmt;
use wharf_engine::{Cx, Disposition, Node, PacketRef, TraceView, error_counters, next_nodes};
use zerocopy::FromBytes;

/// See the module.
#[derive(Debug)]
pub struct Ip4IcmpInput {
    /// To the control plane.
    pub events: EventSender,
}

next_nodes! {
    /// Where packets go.
    pub enum Next { Echo => Ip4IcmpEchoRequest }
}

error_counters! {
    /// Why packets end here.
    pub enum Error {
        Truncated => "icmp4 message shorter than its header",
        Checksum => "bad icmp4 checksum",
        UnknownType => "unknown icmp4 type",
        EchoReply => "icmp4 echo replies received",
        Message => "icmp4 error messages received",
    }
}

impl Node for Ip4IcmpInput {
    const NAME: &'static str = "ip4-icmp-input";
    type Meta = ();
    type Next = Next;
    type Error = Error;
    type Tables = ();

    fn process(&mut self, cx: &Cx<'_, Self>, p: &mut PacketRef<'_>, _: ()) -> Disposition<Self> {
        let ip = *p.header::<Ip4Header>();
        let Some(message) = p.data().get(ip.header_len()..) else {
            return Disposition::Drop(Error::Truncated);
        };
        let Ok((icmp, _)) = Icmp4Header::read_from_prefix(message) else {
            return Disposition::Drop(Error::Truncated);
        };
        if ones_complement_sum(message) != 0xffff {
            return Disposition::Drop(Error::Checksum);
        }
        match icmp.kind {
            Icmp4Type::ECHO_REQUEST => Disposition::Next(Next::Echo(())),
            Icmp4Type::ECHO_REPLY => {
                self.events.send(Event::EchoReply {
                    from: ip.src(),
                    id: icmp.id.get(),
                    sequence: icmp.sequence.get(),
                    ttl: ip.ttl,
                    len: p.len(),
                    received: cx.now(),
                });
                Disposition::Drop(Error::EchoReply)
            }
            kind if kind.is_error() => Disposition::Drop(Error::Message),
            _ => Disposition::Drop(Error::UnknownType),
        }
    }

    fn trace(view: &TraceView<'_>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        super::trace::packet(view.data(), f)
    }
}
