//! `ip4-input`: received IPv4 packets, checked as RFC 1812 section 5.2.2 wants it.
//!
//! Expects: an IPv4 packet, possibly followed by the padding of its frame.
//! Hands on: valid unicast packets, without padding, to the features of arc `ip4-unicast` and `ip4-lookup`; those to our groups to
//! `ip4-local`.
//! Drops: invalid packets, each kind with its own counter; multicast, except to groups that tunnels listen to: it is not forwarded.
//! Reads: [`Ip4Tables`] for whether the interface takes IPv4.
//! See: RFC 791, RFC 1812 sections 4.2, 5.2 and 5.3.

use super::{Ip4Local, Ip4Lookup, Ip4Tables};
use crate::wire::U32;
use crate::wire::checksum::{header_checksum_ok, ones_complement_sum};
use crate::wire::ip4::Ip4Header;
use std::fmt;
use wharf_engine::counter::Tally;
use wharf_engine::{
    ArcStart, ArcWay, Cx, Disposition, FeatureArc, Node, PacketRef, SwIfIndex, TraceView, Way,
    error_counters, flags, next_nodes,
};

/// Arc `ip4-unicast`: between `ip4-input` and `ip4-lookup`.
#[derive(Debug)]
pub struct Ip4UnicastArc;

impl FeatureArc for Ip4UnicastArc {
    const NAME: &'static str = "ip4-unicast";
    type Meta = ();
    const END: &'static str = "ip4-lookup";
}

/// See the module.
#[derive(Debug)]
pub struct Ip4Input {
    /// Where the arc starts.
    arc: ArcStart<Ip4UnicastArc>,
    /// Received packets, per interface.
    received: Tally,
    /// Whether the interface that is counted on takes IPv4.
    enabled: bool,
    /// The way of its packets.
    way: ArcWay<Ip4Input, Ip4UnicastArc>,
}

impl Ip4Input {
    /// With the start of its arc.
    pub fn new(arc: ArcStart<Ip4UnicastArc>) -> Ip4Input {
        Ip4Input { arc, received: Tally::default(), enabled: false, way: ArcWay::NOWHERE }
    }

    #[inline(never)]
    fn turn_to(&mut self, cx: &Cx<'_, Self>, rx: SwIfIndex) {
        self.received.turn_to(&cx.interfaces().ip4, cx.worker(), rx.0);
        self.enabled = cx.tables().interfaces.get(rx.index()).is_some_and(|i| i.enabled);
        self.way = self.arc.way(cx, rx, Next::Lookup);
    }
}

next_nodes! {
    /// Where packets go.
    pub enum Next { Lookup => Ip4Lookup, Local => Ip4Local }
}

error_counters! {
    /// Why packets are dropped.
    pub enum Error {
        TooShort => "ip4 length < 20 bytes",
        BadLength => "ip4 length > l2 length",
        HeaderLength => "ip4 header length < 20 bytes or > ip4 length",
        BadChecksum => "bad ip4 checksum",
        Version => "ip4 version != 4",
        TimeExpired => "ip4 ttl = 0",
        FragmentOffsetOne => "ip4 fragment offset == 1",
        FragmentTooLong => "ip4 fragment ends beyond 65535 bytes",
        SourceMartian => "ip4 source is not a unicast address",
        DestinationMartian => "ip4 destination is not a valid address",
        Multicast => "ip4 multicast is not forwarded",
        NotEnabled => "ip4 not enabled on this interface",
    }
}

/// Whether a packet is valid, field by field.
fn check(header: &Ip4Header, bytes: &[u8]) -> Result<(), Error> {
    let len = bytes.len();
    if len < Ip4Header::LEN {
        return Err(Error::TooShort);
    }
    if header.version() != 4 {
        return Err(Error::Version);
    }
    let total = usize::from(header.total_len.get());
    if total > len {
        return Err(Error::BadLength);
    }
    if total < Ip4Header::LEN {
        return Err(Error::TooShort);
    }
    let header_len = header.header_len();
    if header_len < Ip4Header::LEN || header_len > total {
        return Err(Error::HeaderLength);
    }
    if ones_complement_sum(&bytes[..header_len]) != 0xffff {
        return Err(Error::BadChecksum);
    }
    if header.ttl == 0 {
        return Err(Error::TimeExpired);
    }
    // RFC 3128 section 2: such a fragment only serves to rewrite the TCP flags of the first one.
    if header.fragment_offset() == 8 && header.protocol == crate::wire::ip4::IpProtocol::TCP {
        return Err(Error::FragmentOffsetOne);
    }
    if usize::from(header.fragment_offset()) + total - header_len > usize::from(u16::MAX) - header_len {
        return Err(Error::FragmentTooLong);
    }
    addresses(header)
}

/// RFC 1812 section 5.3.7: whether an address is not martian, by its first byte: 0/8, 127/8, 224/4 and 240/4 (multicast,
/// class E and broadcast) are.
const UNICAST: [bool; 256] = {
    let mut list = [false; 256];
    let mut first = 1;
    while first < 224 {
        list[first] = first != 127;
        first += 1;
    }
    list
};

#[inline(always)]
fn is_unicast(address: U32) -> bool {
    static LIST: [bool; 256] = UNICAST;
    let [first, ..] = address.to_bytes();
    LIST[usize::from(first)]
}

fn addresses(header: &Ip4Header) -> Result<(), Error> {
    if !is_unicast(header.src) {
        return Err(Error::SourceMartian);
    }
    if !is_unicast(header.dst) {
        // RFC 1112 section 4: class D. The limited broadcast is for hosts, and never forwarded.
        return Err(match header.dst.get() >> 28 {
            0xe => Error::Multicast,
            _ => Error::DestinationMartian,
        });
    }
    Ok(())
}

/// Whether nothing about a packet needs a closer look: version 4, no options, not a fragment, and valid. One branch for
/// all of it, which the processor foresees.
#[inline(always)]
fn is_plain(header: &Ip4Header, len: u16) -> bool {
    const MASK: u64 = u64::from_ne_bytes([0xff, 0, 0, 0, 0, 0, 0x3f, 0xff]);
    const PLAIN: u64 = u64::from_ne_bytes([Ip4Header::VERSION_IHL, 0, 0, 0, 0, 0, 0, 0]);
    let bytes: &[u8; Ip4Header::LEN] = zerocopy::transmute_ref!(header);
    let (first, _) = bytes.split_first_chunk().unwrap_or((&[0; 8], &[]));
    let total = header.total_len.get();
    (u64::from_ne_bytes(*first) & MASK == PLAIN)
        & header_checksum_ok(bytes)
        & (header.ttl != 0)
        & (total <= len)
        & (total >= Ip4Header::LEN as u16)
        & is_unicast(header.src)
        & is_unicast(header.dst)
}

impl Node for Ip4Input {
    const NAME: &'static str = "ip4-input";
    type Meta = ();
    type Next = Next;
    type Error = Error;
    type Tables = Ip4Tables;

    const STRAIGHT: bool = true;

    #[inline(always)]
    fn straight(&mut self, cx: &Cx<'_, Self>, p: &mut PacketRef<'_>, _: ()) -> Option<Way<Self>> {
        if !self.received.is_on(p.rx().0) {
            self.turn_to(cx, p.rx());
        }
        let len = p.len();
        let header = p.header::<Ip4Header>();
        if !(is_plain(header, len) & self.enabled) {
            return None;
        }
        p.truncate(header.total_len.get());
        self.received.add(len);
        Some(self.way.take(p, ()))
    }

    fn process(&mut self, cx: &Cx<'_, Self>, p: &mut PacketRef<'_>, _: ()) -> Disposition<Self> {
        let rx = p.rx();
        self.received.add(p.len());
        let header = p.header::<Ip4Header>();
        let total = header.total_len.get();
        let group = match check(header, p.data()) {
            Ok(()) => false,
            Err(Error::Multicast) if cx.tables().groups.binary_search(&(header.dst.get(), rx)).is_ok() => {
                true
            }
            Err(error) => return Disposition::Drop(error),
        };
        if !cx.tables().interfaces.get(rx.index()).is_some_and(|i| i.enabled) {
            return Disposition::Drop(Error::NotEnabled);
        }
        p.truncate(total);
        if group {
            return Disposition::Next(Next::Local(()));
        }
        match self.arc.enter(cx, p, rx, ()) {
            Some(edge) => Disposition::Edge(edge),
            None => Disposition::Next(Next::Lookup(())),
        }
    }

    #[inline(always)]
    fn frame_done(&mut self, cx: &Cx<'_, Self>) {
        self.received.flush(&cx.interfaces().ip4, cx.worker());
    }

    fn trace(view: &TraceView<'_>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        super::trace::packet(view.data(), f)?;
        if view.flags() & flags::L4_CSUM_PARTIAL != 0 {
            write!(f, "\n  l4 checksum left to the device")?;
        }
        Ok(())
    }
}
