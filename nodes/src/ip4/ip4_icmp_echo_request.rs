//! `ip4-icmp-echo-request`: answers a ping, in place.
//!
//! Expects: a checked ICMP echo request for one of our addresses.
//! Hands on: the reply to `ip4-lookup`.
//! See: RFC 792; RFC 1122 section 3.2.2.6 (all data comes back); RFC 1812 section 4.3.3.6.

use super::Ip4Lookup;
use crate::wire::U16;
use crate::wire::checksum::{header_checksum, update_u16};
use crate::wire::icmp4::{Icmp4Header, Icmp4Type};
use crate::wire::ip4::Ip4Header;
use std::fmt;
use wharf_engine::{Cx, Disposition, Node, PacketRef, TraceView, error_counters, flags, next_nodes};
use zerocopy::FromBytes;

/// TTL of the packets that we originate, RFC 1700.
pub(super) const TTL: u8 = 64;

/// See the module.
#[derive(Debug)]
pub struct Ip4IcmpEchoRequest;

next_nodes! {
    /// Where replies go.
    pub enum Next { Lookup => Ip4Lookup }
}

error_counters! {
    /// What is counted, and why packets are dropped.
    pub enum Error {
        Sent => "icmp4 echo replies sent",
        Truncated => "icmp4 message shorter than its header",
    }
}

impl Node for Ip4IcmpEchoRequest {
    const NAME: &'static str = "ip4-icmp-echo-request";
    type Meta = ();
    type Next = Next;
    type Error = Error;
    type Tables = ();

    fn process(&mut self, cx: &Cx<'_, Self>, p: &mut PacketRef<'_>, _: ()) -> Disposition<Self> {
        let header_len = p.header::<Ip4Header>().header_len();
        let message = p.data_mut().get_mut(header_len..).unwrap_or_default();
        let Ok((icmp, _)) = Icmp4Header::mut_from_prefix(message) else {
            return Disposition::Drop(Error::Truncated);
        };
        let word = |kind: Icmp4Type| u16::from(kind.0) << 8;
        icmp.checksum = U16::new(update_u16(
            icmp.checksum.get(),
            word(icmp.kind) | u16::from(icmp.code),
            word(Icmp4Type::ECHO_REPLY) | u16::from(icmp.code),
        ));
        icmp.kind = Icmp4Type::ECHO_REPLY;
        if icmp.checksum.get() == 0 {
            all_zero(message);
        }
        let ip = p.header_mut::<Ip4Header>();
        (ip.src, ip.dst) = (ip.dst, ip.src);
        // The sum of the addresses is the same; only the TTL's word changes.
        let old = u16::from_be_bytes([ip.ttl, ip.protocol.0]);
        ip.ttl = TTL;
        let new = u16::from_be_bytes([ip.ttl, ip.protocol.0]);
        ip.checksum = U16::new(update_u16(ip.checksum.get(), old, new));
        debug_assert!(header_len != Ip4Header::LEN || ip.checksum.get() == header_checksum(ip));
        p.add_flags(flags::LOCALLY_ORIGINATED);
        cx.count(Error::Sent);
        Disposition::Next(Next::Lookup(()))
    }

    fn trace(view: &TraceView<'_>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        super::trace::packet(view.data(), f)
    }
}

/// A reply may be all zeros, and its checksum 0xffff. Equation 3 of RFC 1624 gives 0 then: a sum of 0 and one of 0xffff are
/// the same to it.
#[cold]
fn all_zero(reply: &mut [u8]) {
    if reply.iter().all(|byte| *byte == 0)
        && let Ok((icmp, _)) = Icmp4Header::mut_from_prefix(reply)
    {
        icmp.checksum = U16::new(0xffff);
    }
}
