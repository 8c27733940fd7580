//! `ip4-icmp-error`: tells a sender why its packet went no further.
//!
//! Expects: a valid IPv4 packet as it was received, and which message to send.
//! Hands on: the message, written around the packet in its own buffer, to `ip4-lookup`.
//! Drops: packets about which no message may be sent, and all beyond the rate limit.
//! Reads: [`Ip4Tables`] for the source address.
//! See: RFC 792; RFC 1812 sections 4.3.2.3 (how much is quoted), 4.3.2.7 (when not to) and 4.3.2.8 (rate limit).

use super::ip4_icmp_echo_request::TTL;
use super::{Ip4Lookup, Ip4Tables};
use crate::wire::checksum::{checksum, header_checksum};
use crate::wire::icmp4::{Icmp4Header, Icmp4Type, time_exceeded, unreachable};
use crate::wire::ip4::{Ip4Header, IpProtocol};
use crate::wire::{U16, U32};
use std::fmt;
use wharf_engine::{Cx, Disposition, Node, PacketRef, TraceView, error_counters, flags, next_nodes};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// RFC 1812 section 4.3.2.3: the message is at most this long.
const MAX_MESSAGE: u16 = 576;
const HEADERS: u16 = (Ip4Header::LEN + Icmp4Header::LEN) as u16;
/// Messages a second on each worker, and how many at once.
const RATE: u64 = 1000;
const BURST: u64 = 100;
/// What a message costs; a nanosecond earns 1.
const ONE: u64 = 1_000_000_000 / RATE;

/// Which message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, align(4))]
pub struct IcmpError {
    kind: u8,
    code: u8,
    mtu: u16,
}

impl IcmpError {
    /// No route to the network.
    pub const NET_UNREACHABLE: IcmpError =
        IcmpError { kind: Icmp4Type::DESTINATION_UNREACHABLE.0, code: unreachable::NET, mtu: 0 };
    /// The last hop does not answer.
    pub const HOST_UNREACHABLE: IcmpError =
        IcmpError { kind: Icmp4Type::DESTINATION_UNREACHABLE.0, code: unreachable::HOST, mtu: 0 };
    /// The packet has lived too long.
    pub const TIME_EXCEEDED: IcmpError =
        IcmpError { kind: Icmp4Type::TIME_EXCEEDED.0, code: time_exceeded::TTL, mtu: 0 };

    /// The packet is longer than `mtu` and must not be fragmented.
    pub const fn fragmentation_needed(mtu: u16) -> IcmpError {
        IcmpError { kind: Icmp4Type::DESTINATION_UNREACHABLE.0, code: unreachable::FRAGMENTATION_NEEDED, mtu }
    }
}

/// See the module.
#[derive(Debug)]
pub struct Ip4IcmpError {
    /// How many messages may be sent now, times [`ONE`].
    credit: u64,
    refilled: u64,
    id: u16,
}

next_nodes! {
    /// Where messages go.
    pub enum Next { Lookup => Ip4Lookup }
}

error_counters! {
    /// What is counted, and why packets are dropped.
    pub enum Error {
        Unreachable => "icmp4 unreachable sent",
        TimeExceeded => "icmp4 time exceeded sent",
        FragmentationNeeded => "icmp4 fragmentation needed sent",
        AboutIcmp => "no icmp4 error about an icmp4 error",
        AboutFragment => "no icmp4 error about a later fragment",
        Own => "no icmp4 error about a packet of our own",
        RateLimited => "icmp4 error rate limited",
        NoAddress => "no address to send an icmp4 error from",
    }
}

impl Default for Ip4IcmpError {
    /// A limiter that nothing has been taken from yet.
    fn default() -> Ip4IcmpError {
        Ip4IcmpError { credit: BURST * ONE, refilled: 0, id: 0 }
    }
}

impl Ip4IcmpError {
    fn allowed(&mut self, now: u64) -> bool {
        let earned = now.saturating_sub(self.refilled);
        self.refilled = now;
        self.credit = self.credit.saturating_add(earned).min(BURST * ONE);
        let allowed = self.credit >= ONE;
        if allowed {
            self.credit -= ONE;
        }
        allowed
    }
}

impl Node for Ip4IcmpError {
    const NAME: &'static str = "ip4-icmp-error";
    type Meta = IcmpError;
    type Next = Next;
    type Error = Error;
    type Tables = Ip4Tables;

    fn process(&mut self, cx: &Cx<'_, Self>, p: &mut PacketRef<'_>, error: IcmpError) -> Disposition<Self> {
        if p.flags() & flags::LOCALLY_ORIGINATED != 0 {
            return Disposition::Drop(Error::Own);
        }
        let ip = *p.header::<Ip4Header>();
        if ip.is_later_fragment() {
            return Disposition::Drop(Error::AboutFragment);
        }
        if ip.protocol == IpProtocol::ICMP {
            // A cut message can't be told from an error, and is treated as one.
            let kind =
                p.data().get(ip.header_len()).map_or(Icmp4Type::DESTINATION_UNREACHABLE, |k| Icmp4Type(*k));
            if kind.is_error() {
                return Disposition::Drop(Error::AboutIcmp);
            }
        }
        let Some(source) = cx.tables().source(p.rx()) else {
            return Disposition::Drop(Error::NoAddress);
        };
        if !self.allowed(cx.now()) {
            return Disposition::Drop(Error::RateLimited);
        }
        let len = p.len().min(MAX_MESSAGE - HEADERS) + HEADERS;
        p.retreat(HEADERS);
        p.set_len(len);
        let mut icmp = Icmp4Header::error(Icmp4Type(error.kind), error.code, error.mtu);
        let message = p.data_mut().get_mut(Ip4Header::LEN..).unwrap_or_default();
        if let Ok((header, _)) = Icmp4Header::mut_from_prefix(message) {
            *header = icmp;
        }
        icmp.checksum = U16::new(checksum(message));
        if let Ok((header, _)) = Icmp4Header::mut_from_prefix(message) {
            *header = icmp;
        }
        self.id = self.id.wrapping_add(1);
        let header = p.header_mut::<Ip4Header>();
        *header = Ip4Header {
            version_ihl: Ip4Header::VERSION_IHL,
            // RFC 1812 section 4.3.2.5: internetwork control.
            tos: 0xc0,
            total_len: U16::new(len),
            id: U16::new(self.id),
            flags_fragment: U16::new(0),
            ttl: TTL,
            protocol: IpProtocol::ICMP,
            checksum: U16::new(0),
            src: U32::new(source.to_bits()),
            dst: ip.src,
        };
        header.checksum = U16::new(header_checksum(header));
        p.clear_flags(flags::L4_CSUM_PARTIAL);
        p.add_flags(flags::LOCALLY_ORIGINATED);
        cx.count(match (Icmp4Type(error.kind), error.mtu) {
            (Icmp4Type::TIME_EXCEEDED, _) => Error::TimeExceeded,
            (_, 0) => Error::Unreachable,
            _ => Error::FragmentationNeeded,
        });
        Disposition::Next(Next::Lookup(()))
    }

    fn trace(view: &TraceView<'_>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        view.fmt_default(f)?;
        write!(f, "\n  ")?;
        super::trace::packet(view.data_after(), f)
    }
}
