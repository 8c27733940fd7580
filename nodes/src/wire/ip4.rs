//! The Internet Protocol, version 4 (RFC 791), and prefixes of its addresses.

use super::{U16, U32};
use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// What an IP packet carries (IANA registry "Assigned Internet Protocol Numbers").
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
pub struct IpProtocol(pub u8);

impl IpProtocol {
    /// ICMP for IPv4 (RFC 792).
    pub const ICMP: IpProtocol = IpProtocol(1);
    /// IGMP (RFC 3376).
    pub const IGMP: IpProtocol = IpProtocol(2);
    /// IPv4 in IP (RFC 2003).
    pub const IP4: IpProtocol = IpProtocol(4);
    /// TCP (RFC 9293).
    pub const TCP: IpProtocol = IpProtocol(6);
    /// UDP (RFC 768).
    pub const UDP: IpProtocol = IpProtocol(17);
    /// IPv6 in IP (RFC 2473).
    pub const IP6: IpProtocol = IpProtocol(41);
    /// GRE (RFC 2784).
    pub const GRE: IpProtocol = IpProtocol(47);
    /// ESP (RFC 4303).
    pub const ESP: IpProtocol = IpProtocol(50);
    /// ICMPv6 (RFC 4443).
    pub const ICMP6: IpProtocol = IpProtocol(58);
    /// SCTP (RFC 9260).
    pub const SCTP: IpProtocol = IpProtocol(132);
}

/// The name, `unknown 200` for one without.
impl fmt::Display for IpProtocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match *self {
            IpProtocol::ICMP => "ICMP",
            IpProtocol::IGMP => "IGMP",
            IpProtocol::IP4 => "IP_IN_IP",
            IpProtocol::TCP => "TCP",
            IpProtocol::UDP => "UDP",
            IpProtocol::IP6 => "IPV6",
            IpProtocol::GRE => "GRE",
            IpProtocol::ESP => "IPSEC_ESP",
            IpProtocol::ICMP6 => "ICMP6",
            IpProtocol::SCTP => "SCTP",
            IpProtocol(other) => return write!(f, "unknown {other}"),
        })
    }
}

/// The fixed part of an IPv4 header, 20 bytes (RFC 791, section 3.1). Options may follow, see
/// [`header_len`](Ip4Header::header_len).
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Ip4Header {
    /// Version in the high 4 bits, header length in units of 4 bytes in the low.
    pub version_ihl: u8,
    /// Type of service: DSCP in the high 6 bits (RFC 2474), ECN in the low 2 (RFC 3168).
    pub tos: u8,
    /// Bytes of the packet, this header included.
    pub total_len: U16,
    /// Identifies the fragments of one packet.
    pub id: U16,
    /// Flags in the high 3 bits, fragment offset in units of 8 bytes in the low 13.
    pub flags_fragment: U16,
    /// Time to live, in hops.
    pub ttl: u8,
    /// What follows.
    pub protocol: IpProtocol,
    /// Over this header and its options; see [`checksum`](super::checksum).
    pub checksum: U16,
    /// From whom; see [`Ip4Header::src`].
    pub src: U32,
    /// To whom; see [`Ip4Header::dst`].
    pub dst: U32,
}

impl Ip4Header {
    /// Length in bytes, without options.
    pub const LEN: usize = size_of::<Ip4Header>();
    /// The first byte of a version 4 header without options.
    pub const VERSION_IHL: u8 = 0x45;
    /// Don't fragment.
    pub const DONT_FRAGMENT: u16 = 0x4000;
    /// More fragments follow.
    pub const MORE_FRAGMENTS: u16 = 0x2000;
    /// The fragment offset's bits.
    pub const OFFSET_MASK: u16 = 0x1fff;

    /// The version, 4 for this header.
    #[inline(always)]
    pub fn version(&self) -> u8 {
        self.version_ihl >> 4
    }

    /// Bytes of the header with its options: 20 to 60, below 20 if the packet is malformed.
    #[inline(always)]
    pub fn header_len(&self) -> usize {
        usize::from(self.version_ihl & 0x0f) * 4
    }

    /// The differentiated services code point.
    #[inline(always)]
    pub fn dscp(&self) -> u8 {
        self.tos >> 2
    }

    /// Explicit congestion notification: 0 not capable, 1 and 2 capable, 3 congestion experienced.
    #[inline(always)]
    pub fn ecn(&self) -> u8 {
        self.tos & 3
    }

    /// True when routers must not fragment the packet.
    #[inline(always)]
    pub fn dont_fragment(&self) -> bool {
        self.flags_fragment.get() & Self::DONT_FRAGMENT != 0
    }

    /// True in all fragments but the last.
    #[inline(always)]
    pub fn more_fragments(&self) -> bool {
        self.flags_fragment.get() & Self::MORE_FRAGMENTS != 0
    }

    /// Where the payload belongs in the payload of the whole packet, in bytes: 0 to 65,528.
    #[inline(always)]
    pub fn fragment_offset(&self) -> u16 {
        (self.flags_fragment.get() & Self::OFFSET_MASK) * 8
    }

    /// True for a part of a packet, the first included.
    #[inline(always)]
    pub fn is_fragment(&self) -> bool {
        self.flags_fragment.get() & (Self::MORE_FRAGMENTS | Self::OFFSET_MASK) != 0
    }

    /// True for a fragment without the header of the layer above: its ports are not there to be read.
    #[inline(always)]
    pub fn is_later_fragment(&self) -> bool {
        self.flags_fragment.get() & Self::OFFSET_MASK != 0
    }

    /// From whom.
    #[inline(always)]
    pub fn src(&self) -> Ipv4Addr {
        self.src.get().into()
    }

    /// To whom.
    #[inline(always)]
    pub fn dst(&self) -> Ipv4Addr {
        self.dst.get().into()
    }
}

/// An IPv4 prefix in canonical form: the bits beyond its length are 0. Displayed and parsed as `10.0.0.0/8`.
///
/// Ordered by address, then by length, so that a prefix comes before those it contains.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ip4Prefix {
    address: u32,
    len: u8,
}

/// Why a text or a pair of numbers is not a prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ip4PrefixError {
    /// The text is not `address/length`.
    Syntax,
    /// The length is above 32.
    Length(u8),
}

impl fmt::Display for Ip4PrefixError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Ip4PrefixError::Syntax => f.write_str("not an IPv4 prefix (10.0.0.0/8)"),
            Ip4PrefixError::Length(len) => write!(f, "prefix length {len} is above 32"),
        }
    }
}

impl std::error::Error for Ip4PrefixError {}

impl Ip4Prefix {
    /// `0.0.0.0/0`.
    pub const DEFAULT_ROUTE: Ip4Prefix = Ip4Prefix { address: 0, len: 0 };

    /// The prefix of the first `len` bits of `address`; the others are cleared.
    ///
    /// # Errors
    /// [`Ip4PrefixError::Length`] if `len` is above 32.
    pub const fn new(address: Ipv4Addr, len: u8) -> Result<Ip4Prefix, Ip4PrefixError> {
        if len > 32 {
            return Err(Ip4PrefixError::Length(len));
        }
        Ok(Ip4Prefix { address: address.to_bits() & mask(len), len })
    }

    /// Like [`new`](Self::new), but a length above 32 counts as 32.
    pub const fn clamped(address: Ipv4Addr, len: u8) -> Ip4Prefix {
        let len = if len > 32 { 32 } else { len };
        Ip4Prefix { address: address.to_bits() & mask(len), len }
    }

    /// The prefix one bit shorter that contains this one; none for the default route.
    pub const fn parent(self) -> Option<Ip4Prefix> {
        match self.len.checked_sub(1) {
            Some(len) => Some(Ip4Prefix::clamped(self.address(), len)),
            None => None,
        }
    }

    /// The `/32` of one address.
    pub const fn host(address: Ipv4Addr) -> Ip4Prefix {
        Ip4Prefix { address: address.to_bits(), len: 32 }
    }

    /// The first address of the prefix.
    pub const fn address(self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.address)
    }

    /// The first address, as a number.
    pub const fn to_bits(self) -> u32 {
        self.address
    }

    /// The last address of the prefix: the directed broadcast address of a subnet.
    pub const fn last_address(self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.address | !mask(self.len))
    }

    /// The addresses of a subnet that are no host's: its first, and its last, the directed broadcast address. A point-to-point
    /// link (RFC 3021) and a single address have none.
    pub const fn non_hosts(self) -> Option<[Ipv4Addr; 2]> {
        if self.len <= 30 { Some([self.address(), self.last_address()]) } else { None }
    }

    /// How many leading bits are fixed, 0 to 32.
    #[expect(clippy::len_without_is_empty, reason = "a length in bits, not of a collection")]
    pub const fn len(self) -> u8 {
        self.len
    }

    /// The netmask: `len` ones, then zeroes.
    pub const fn netmask(self) -> Ipv4Addr {
        Ipv4Addr::from_bits(mask(self.len))
    }

    /// True if the address is in the prefix.
    #[inline]
    pub const fn contains(self, address: Ipv4Addr) -> bool {
        address.to_bits() & mask(self.len) == self.address
    }

    /// True if every address of `other` is in this prefix; a prefix covers itself.
    #[inline]
    pub const fn covers(self, other: Ip4Prefix) -> bool {
        self.len <= other.len && other.address & mask(self.len) == self.address
    }
}

/// `len` ones, then zeroes; `len` at most 32.
const fn mask(len: u8) -> u32 {
    // The shift is by 32 for len 0, hence in 64 bits.
    (u32::MAX as u64).wrapping_shl(32 - len as u32) as u32
}

impl fmt::Display for Ip4Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address(), self.len)
    }
}

impl fmt::Debug for Ip4Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Ip4Prefix {
    type Err = Ip4PrefixError;

    /// Bits beyond the length are cleared: `10.1.2.3/8` is `10.0.0.0/8`.
    fn from_str(text: &str) -> Result<Ip4Prefix, Ip4PrefixError> {
        let (address, len) = text.split_once('/').ok_or(Ip4PrefixError::Syntax)?;
        let address: Ipv4Addr = address.parse().map_err(|_| Ip4PrefixError::Syntax)?;
        // parse() alone would take a sign.
        if !len.bytes().all(|digit| digit.is_ascii_digit()) {
            return Err(Ip4PrefixError::Syntax);
        }
        Ip4Prefix::new(address, len.parse().map_err(|_| Ip4PrefixError::Syntax)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::checksum::header_checksum_ok;

    const BYTES: [u8; 20] = [
        0x45, 0xb9, 0x05, 0xdc, 0x1c, 0x46, 0x20, 0xb9, 0x40, 0x11, 0x6a, 0xb1, 10, 0, 0, 1, 192, 168, 1, 255,
    ];

    #[test]
    fn the_fields_of_a_fragment() {
        let header = Ip4Header::ref_from_bytes(&BYTES).unwrap();
        assert_eq!(
            (header.version(), header.header_len(), header.version_ihl),
            (4, 20, Ip4Header::VERSION_IHL)
        );
        assert_eq!((header.dscp(), header.ecn()), (46, 1));
        assert_eq!((header.total_len.get(), header.id.get()), (1500, 0x1c46));
        assert_eq!((header.dont_fragment(), header.more_fragments()), (false, true));
        assert_eq!(header.fragment_offset(), 1480);
        assert!(header.is_fragment() && header.is_later_fragment());
        assert_eq!((header.ttl, header.protocol), (64, IpProtocol::UDP));
        assert_eq!((header.src(), header.dst()), ([10, 0, 0, 1].into(), [192, 168, 1, 255].into()));
        assert!(header_checksum_ok(&BYTES));

        let (other, _) = etherparse::Ipv4Header::from_slice(&BYTES).unwrap();
        assert_eq!((other.dscp.value(), other.ecn.value()), (header.dscp(), header.ecn()));
        assert_eq!((other.total_len, other.identification), (header.total_len.get(), header.id.get()));
        assert_eq!(
            (other.dont_fragment, other.more_fragments),
            (header.dont_fragment(), header.more_fragments())
        );
        assert_eq!(other.fragment_offset.byte_offset(), header.fragment_offset());
        assert_eq!((other.time_to_live, other.protocol.0), (header.ttl, header.protocol.0));
        assert_eq!((other.source, other.destination), (header.src().octets(), header.dst().octets()));
        assert_eq!(other.header_checksum, header.checksum.get());
        assert_eq!(other.calc_header_checksum(), header.checksum.get());
    }

    #[test]
    fn fragments_by_kind() {
        let kinds = |bits: u16| {
            let mut header = Ip4Header::read_from_bytes(&BYTES).unwrap();
            header.flags_fragment = U16::new(bits);
            (header.dont_fragment(), header.is_fragment(), header.is_later_fragment())
        };
        assert_eq!(kinds(0), (false, false, false));
        assert_eq!(kinds(Ip4Header::DONT_FRAGMENT), (true, false, false));
        assert_eq!(kinds(Ip4Header::MORE_FRAGMENTS), (false, true, false));
        assert_eq!(kinds(1), (false, true, true));
        assert_eq!(kinds(0x8000), (false, false, false), "the reserved bit means nothing");
    }

    #[test]
    fn protocols_by_name() {
        assert_eq!(IpProtocol::TCP.to_string(), "TCP");
        assert_eq!(IpProtocol(200).to_string(), "unknown 200");
    }

    #[test]
    fn prefixes_are_canonical() {
        let prefix: Ip4Prefix = "10.1.2.3/8".parse().unwrap();
        assert_eq!(prefix.to_string(), "10.0.0.0/8");
        assert_eq!(prefix, Ip4Prefix::new([10, 255, 0, 0].into(), 8).unwrap());
        assert_eq!((prefix.address(), prefix.len()), ([10, 0, 0, 0].into(), 8));
        assert_eq!(
            (prefix.netmask(), prefix.last_address()),
            ([255, 0, 0, 0].into(), [10, 255, 255, 255].into())
        );
        assert_eq!("0.0.0.0/0".parse(), Ok(Ip4Prefix::DEFAULT_ROUTE));
        assert_eq!("1.2.3.4/32".parse(), Ok(Ip4Prefix::host([1, 2, 3, 4].into())));
        assert_eq!(Ip4Prefix::clamped([1, 2, 3, 4].into(), 33), Ip4Prefix::host([1, 2, 3, 4].into()));
        assert_eq!(Ip4Prefix::host([1, 2, 3, 5].into()).parent().unwrap().to_string(), "1.2.3.4/31");
        assert_eq!(Ip4Prefix::DEFAULT_ROUTE.parent(), None);
    }

    #[test]
    fn what_is_no_prefix() {
        assert_eq!("10.0.0.0/33".parse::<Ip4Prefix>(), Err(Ip4PrefixError::Length(33)));
        for bad in
            ["", "10.0.0.0", "10.0.0/8", "10.0.0.0/", "10.0.0.0/+8", "10.0.0.0/256", "10.0.0.0/8/8", "::/0"]
        {
            assert_eq!(bad.parse::<Ip4Prefix>(), Err(Ip4PrefixError::Syntax), "{bad}");
        }
    }

    #[test]
    fn addresses_that_no_host_has() {
        let non_hosts = |text: &str| text.parse::<Ip4Prefix>().unwrap().non_hosts();
        assert_eq!(non_hosts("10.0.0.0/8"), Some([[10, 0, 0, 0].into(), [10, 255, 255, 255].into()]));
        assert_eq!(non_hosts("10.0.0.4/30"), Some([[10, 0, 0, 4].into(), [10, 0, 0, 7].into()]));
        assert_eq!(non_hosts("10.0.0.4/31"), None);
        assert_eq!(non_hosts("10.0.0.4/32"), None);
    }

    #[test]
    fn what_a_prefix_contains() {
        let p = |text: &str| text.parse::<Ip4Prefix>().unwrap();
        assert!(p("10.0.0.0/8").contains([10, 255, 255, 255].into()));
        assert!(!p("10.0.0.0/8").contains([11, 0, 0, 0].into()));
        assert!(p("0.0.0.0/0").contains([255, 255, 255, 255].into()));
        assert!(!p("1.2.3.4/32").contains([1, 2, 3, 5].into()));
        assert!(p("10.0.0.0/8").covers(p("10.0.0.0/8")) && p("10.0.0.0/8").covers(p("10.1.0.0/16")));
        assert!(!p("10.1.0.0/16").covers(p("10.0.0.0/8")) && !p("10.1.0.0/16").covers(p("10.2.0.0/16")));
        assert!(p("0.0.0.0/0").covers(p("255.255.255.255/32")));
        assert!(p("10.0.0.0/8") < p("10.0.0.0/16") && p("10.0.0.0/16") < p("10.1.0.0/16"));
    }
}
