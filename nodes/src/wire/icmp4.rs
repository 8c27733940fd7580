//! The Internet Control Message Protocol for IPv4 (RFC 792).

use super::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// The kind of an ICMP message (IANA registry "ICMP Type Numbers").
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    FromBytes,
    IntoBytes,
    KnownLayout,
    Immutable,
    Unaligned,
)]
#[repr(transparent)]
pub struct Icmp4Type(pub u8);

impl Icmp4Type {
    /// The answer to [`ECHO_REQUEST`](Self::ECHO_REQUEST).
    pub const ECHO_REPLY: Icmp4Type = Icmp4Type(0);
    /// A packet could not be delivered; the code tells why.
    pub const DESTINATION_UNREACHABLE: Icmp4Type = Icmp4Type(3);
    /// Slow down; deprecated by RFC 6633.
    pub const SOURCE_QUENCH: Icmp4Type = Icmp4Type(4);
    /// There is a better first hop.
    pub const REDIRECT: Icmp4Type = Icmp4Type(5);
    /// Ping.
    pub const ECHO_REQUEST: Icmp4Type = Icmp4Type(8);
    /// The TTL, or the time to reassemble fragments, ran out.
    pub const TIME_EXCEEDED: Icmp4Type = Icmp4Type(11);
    /// The header of a packet made no sense.
    pub const PARAMETER_PROBLEM: Icmp4Type = Icmp4Type(12);

    /// True for a message that reports a packet it quotes. None is sent about such a message (RFC 1122, 3.2.2).
    #[inline(always)]
    pub const fn is_error(self) -> bool {
        matches!(
            self,
            Self::DESTINATION_UNREACHABLE
                | Self::SOURCE_QUENCH
                | Self::REDIRECT
                | Self::TIME_EXCEEDED
                | Self::PARAMETER_PROBLEM
        )
    }
}

impl std::fmt::Display for Icmp4Type {
    /// VPP's names.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match *self {
            Icmp4Type::ECHO_REPLY => "echo_reply",
            Icmp4Type::DESTINATION_UNREACHABLE => "destination_unreachable",
            Icmp4Type::SOURCE_QUENCH => "source_quench",
            Icmp4Type::REDIRECT => "redirect",
            Icmp4Type::ECHO_REQUEST => "echo_request",
            Icmp4Type::TIME_EXCEEDED => "time_exceeded",
            Icmp4Type::PARAMETER_PROBLEM => "parameter_problem",
            Icmp4Type(other) => return write!(f, "type {other}"),
        })
    }
}

/// Codes of [`Icmp4Type::DESTINATION_UNREACHABLE`] (RFC 792; from 6 on RFC 1122, 3.2.2.1, and RFC 1812, 5.2.7.1).
pub mod unreachable {
    /// No route to the network.
    pub const NET: u8 = 0;
    /// The host does not answer.
    pub const HOST: u8 = 1;
    /// The host does not know the protocol.
    pub const PROTOCOL: u8 = 2;
    /// Nobody listens on the port.
    pub const PORT: u8 = 3;
    /// The packet is too big and must not be fragmented.
    pub const FRAGMENTATION_NEEDED: u8 = 4;
    /// Forbidden by a filter.
    pub const ADMINISTRATIVELY_PROHIBITED: u8 = 13;
}

/// Codes of [`Icmp4Type::TIME_EXCEEDED`].
pub mod time_exceeded {
    /// The TTL reached 0 in transit.
    pub const TTL: u8 = 0;
    /// Fragments did not arrive in time.
    pub const REASSEMBLY: u8 = 1;
}

/// The header of an ICMP message, 8 bytes: 4 that all have in common, and 4 whose meaning depends on the type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Icmp4Header {
    /// The kind of the message.
    pub kind: Icmp4Type,
    /// The reason within the kind.
    pub code: u8,
    /// Over the whole message, without a pseudo header.
    pub checksum: U16,
    /// By type: the identifier of an echo; unused in errors.
    pub id: U16,
    /// By type: the sequence number of an echo; the next hop's MTU in "fragmentation needed" (RFC 1191, section 4).
    pub sequence: U16,
}

impl Icmp4Header {
    /// Length in bytes.
    pub const LEN: usize = size_of::<Icmp4Header>();

    /// An error message's header, its checksum still 0. `mtu` is that of the next hop for
    /// [`unreachable::FRAGMENTATION_NEEDED`], and 0 otherwise.
    pub const fn error(kind: Icmp4Type, code: u8, mtu: u16) -> Icmp4Header {
        Icmp4Header { kind, code, checksum: U16::ZERO, id: U16::ZERO, sequence: U16::new(mtu) }
    }

    /// The next hop's MTU, in a "fragmentation needed" message.
    #[inline(always)]
    pub fn next_hop_mtu(&self) -> Option<u16> {
        (self.kind == Icmp4Type::DESTINATION_UNREACHABLE && self.code == unreachable::FRAGMENTATION_NEEDED)
            .then(|| self.sequence.get())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::checksum::{ones_complement_sum, update_u16};

    const PING: [u8; 12] = [8, 0, 0x20, 0xfe, 0x12, 0x34, 0x00, 0x07, b'a', b'b', b'c', b'd'];

    #[test]
    fn an_echo_request_becomes_its_reply() {
        let mut bytes = PING;
        assert_eq!(ones_complement_sum(&bytes), 0xffff);
        let (header, _) = Icmp4Header::mut_from_prefix(&mut bytes).unwrap();
        assert_eq!((header.kind, header.code), (Icmp4Type::ECHO_REQUEST, 0));
        assert_eq!((header.id.get(), header.sequence.get()), (0x1234, 7));
        assert_eq!(header.next_hop_mtu(), None);
        header.kind = Icmp4Type::ECHO_REPLY;
        header.checksum.set(update_u16(header.checksum.get(), 0x0800, 0x0000));

        let other = etherparse::Icmpv4Slice::from_slice(&bytes).unwrap();
        let echo = etherparse::IcmpEchoHeader { id: 0x1234, seq: 7 };
        assert_eq!(other.icmp_type(), etherparse::Icmpv4Type::EchoReply(echo));
        assert_eq!(other.checksum(), other.icmp_type().calc_checksum(other.payload()));
    }

    #[test]
    fn fragmentation_needed_tells_the_mtu() {
        let header =
            Icmp4Header::error(Icmp4Type::DESTINATION_UNREACHABLE, unreachable::FRAGMENTATION_NEEDED, 1400);
        assert_eq!(header.next_hop_mtu(), Some(1400));
        let other = etherparse::Icmpv4Slice::from_slice(header.as_bytes()).unwrap();
        let needed = etherparse::icmpv4::DestUnreachableHeader::FragmentationNeeded { next_hop_mtu: 1400 };
        assert_eq!(other.icmp_type(), etherparse::Icmpv4Type::DestinationUnreachable(needed));
        assert_eq!(Icmp4Header::error(Icmp4Type::TIME_EXCEEDED, time_exceeded::TTL, 0).next_hop_mtu(), None);
    }

    #[test]
    fn errors_are_told_from_queries() {
        assert!(Icmp4Type::TIME_EXCEEDED.is_error() && Icmp4Type::DESTINATION_UNREACHABLE.is_error());
        assert!(!Icmp4Type::ECHO_REQUEST.is_error() && !Icmp4Type::ECHO_REPLY.is_error());
        assert_eq!(Icmp4Header::LEN, 8);
    }
}
