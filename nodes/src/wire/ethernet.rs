//! Ethernet II (IEEE 802.3) and VLAN tags (IEEE 802.1Q).

use super::U16;
use std::fmt;
use std::str::FromStr;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// A MAC address, in the order of transmission. Displayed and parsed as `aa:bb:cc:dd:ee:ff`.
#[derive(
    Clone,
    Copy,
    Default,
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
pub struct MacAddress(pub [u8; 6]);

impl MacAddress {
    /// `00:00:00:00:00:00`: no address.
    pub const ZERO: MacAddress = MacAddress([0; 6]);
    /// `ff:ff:ff:ff:ff:ff`: every station.
    pub const BROADCAST: MacAddress = MacAddress([0xff; 6]);

    /// A unicast address of our own making, `02:fe` and then `seed`: in the locally administered range (RFC 9542,
    /// section 2.1), with the prefix that VPP gives its interfaces.
    pub const fn local(seed: u32) -> MacAddress {
        let [a, b, c, d] = seed.to_be_bytes();
        MacAddress([0x02, 0xfe, a, b, c, d])
    }

    /// The address of an IPv4 multicast group: `01:00:5e` and the low 23 bits of the group (RFC 1112, section 6.4).
    pub const fn ip4_multicast(group: std::net::Ipv4Addr) -> MacAddress {
        let [_, b, c, d] = group.octets();
        MacAddress([0x01, 0x00, 0x5e, b & 0x7f, c, d])
    }

    /// True for a group address, the broadcast address among them.
    #[inline(always)]
    pub const fn is_multicast(self) -> bool {
        self.0[0] & 1 != 0
    }

    /// True for `ff:ff:ff:ff:ff:ff`.
    #[inline(always)]
    pub const fn is_broadcast(self) -> bool {
        self.to_u64() == Self::BROADCAST.to_u64()
    }

    /// True for `00:00:00:00:00:00`.
    #[inline(always)]
    pub const fn is_zero(self) -> bool {
        self.to_u64() == 0
    }

    /// True when the address was not assigned by the IEEE.
    #[inline(always)]
    pub const fn is_local(self) -> bool {
        self.0[0] & 2 != 0
    }

    /// The address in the low 48 bits, its first byte the highest of them; a key for tables.
    #[inline(always)]
    pub const fn to_u64(self) -> u64 {
        let [a, b, c, d, e, f] = self.0;
        u64::from_be_bytes([0, 0, a, b, c, d, e, f])
    }

    /// The inverse of [`to_u64`](Self::to_u64); the high 16 bits are ignored.
    #[inline(always)]
    pub const fn from_u64(value: u64) -> MacAddress {
        let [_, _, a, b, c, d, e, f] = value.to_be_bytes();
        MacAddress([a, b, c, d, e, f])
    }
}

impl fmt::Display for MacAddress {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, f] = self.0;
        write!(out, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}")
    }
}

impl fmt::Debug for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl From<[u8; 6]> for MacAddress {
    fn from(bytes: [u8; 6]) -> MacAddress {
        MacAddress(bytes)
    }
}

/// The text is not six pairs of hexadecimal digits with colons between them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MacAddressError;

impl fmt::Display for MacAddressError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a MAC address (aa:bb:cc:dd:ee:ff)")
    }
}

impl std::error::Error for MacAddressError {}

impl FromStr for MacAddress {
    type Err = MacAddressError;

    fn from_str(text: &str) -> Result<MacAddress, MacAddressError> {
        let mut parts = text.split(':');
        let mut bytes = [0; 6];
        for byte in &mut bytes {
            let part = parts.next().ok_or(MacAddressError)?;
            // from_str_radix alone would take a sign.
            if part.len() != 2 || !part.bytes().all(|digit| digit.is_ascii_hexdigit()) {
                return Err(MacAddressError);
            }
            *byte = u8::from_str_radix(part, 16).map_err(|_| MacAddressError)?;
        }
        if parts.next().is_some() { Err(MacAddressError) } else { Ok(MacAddress(bytes)) }
    }
}

/// What follows a header, by its IEEE 802 number (IANA registry "ETHER TYPES").
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EtherType(pub u16);

impl EtherType {
    /// IPv4 (RFC 894).
    pub const IP4: EtherType = EtherType(0x0800);
    /// ARP (RFC 826).
    pub const ARP: EtherType = EtherType(0x0806);
    /// An 802.1Q tag: the customer's, or the only one.
    pub const VLAN: EtherType = EtherType(0x8100);
    /// An 802.1ad tag: the service provider's, outside of another.
    pub const QINQ: EtherType = EtherType(0x88a8);
    /// IPv6 (RFC 2464).
    pub const IP6: EtherType = EtherType(0x86dd);
    /// MPLS (RFC 5332).
    pub const MPLS: EtherType = EtherType(0x8847);
    /// LLDP (IEEE 802.1AB).
    pub const LLDP: EtherType = EtherType(0x88cc);

    /// True if the number is no type but the length of an 802.3 frame (IEEE 802.3, 3.2.6).
    #[inline(always)]
    pub const fn is_length(self) -> bool {
        self.0 < 0x0600
    }

    /// True for the two kinds of VLAN tag.
    #[inline(always)]
    pub const fn is_vlan(self) -> bool {
        self.0 == Self::VLAN.0 || self.0 == Self::QINQ.0
    }
}

/// The name, `0x1234` for one without.
impl fmt::Display for EtherType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match *self {
            EtherType::IP4 => "IP4",
            EtherType::ARP => "ARP",
            EtherType::VLAN => "VLAN",
            EtherType::QINQ => "DOT1AD",
            EtherType::IP6 => "IP6",
            EtherType::MPLS => "MPLS",
            EtherType::LLDP => "LLDP",
            EtherType(other) => return write!(f, "{other:#06x}"),
        })
    }
}

/// The header of an Ethernet II frame, 14 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct EthernetHeader {
    /// To whom.
    pub dst: MacAddress,
    /// From whom.
    pub src: MacAddress,
    /// What follows; see [`EthernetHeader::ethertype`].
    pub ethertype: U16,
}

impl EthernetHeader {
    /// Length in bytes.
    pub const LEN: usize = size_of::<EthernetHeader>();

    /// A header with these fields.
    pub const fn new(dst: MacAddress, src: MacAddress, ethertype: EtherType) -> EthernetHeader {
        EthernetHeader { dst, src, ethertype: U16::new(ethertype.0) }
    }

    /// What follows.
    #[inline(always)]
    pub fn ethertype(&self) -> EtherType {
        EtherType(self.ethertype.get())
    }
}

/// A VLAN tag, 4 bytes, as it stands behind an Ethernet header whose type is [`EtherType::VLAN`] or
/// [`EtherType::QINQ`]: the type belongs to what is in front.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct VlanTag {
    /// Tag control information: priority (3 bits), drop eligible (1), VLAN id (12).
    pub tci: U16,
    /// What follows; see [`VlanTag::ethertype`].
    pub ethertype: U16,
}

impl VlanTag {
    /// Length in bytes.
    pub const LEN: usize = size_of::<VlanTag>();
    /// The largest value of the 12-bit field. 0 means "priority only, no VLAN", 4095 is reserved.
    pub const MAX_ID: u16 = 0x0fff;

    /// A tag with priority 0. Bits of `id` beyond 12 are dropped.
    pub const fn new(id: u16, ethertype: EtherType) -> VlanTag {
        VlanTag { tci: U16::new(id & Self::MAX_ID), ethertype: U16::new(ethertype.0) }
    }

    /// The VLAN id, 0 to 4095.
    #[inline(always)]
    pub fn id(&self) -> u16 {
        self.tci.get() & Self::MAX_ID
    }

    /// The priority code point, 0 to 7.
    #[inline(always)]
    pub fn priority(&self) -> u8 {
        (self.tci.get() >> 13) as u8
    }

    /// The drop eligible indicator.
    #[inline(always)]
    pub fn drop_eligible(&self) -> bool {
        self.tci.get() & 0x1000 != 0
    }

    /// What follows.
    #[inline(always)]
    pub fn ethertype(&self) -> EtherType {
        EtherType(self.ethertype.get())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_of_a_tagged_frame() {
        let bytes = [
            0x01, 0x00, 0x5e, 0x00, 0x00, 0x05, 0x02, 0xfe, 0x12, 0x34, 0x56, 0x78, 0x81,
            0x00, // 802.1Q
            0xb0, 0x64, 0x08, 0x00,
        ];
        let (header, rest) = EthernetHeader::ref_from_prefix(&bytes).unwrap();
        assert_eq!(header.dst.to_string(), "01:00:5e:00:00:05");
        assert!(header.dst.is_multicast() && !header.dst.is_broadcast());
        assert_eq!(header.src, MacAddress::local(0x1234_5678));
        assert!(header.src.is_local() && !header.src.is_multicast());
        assert_eq!(header.ethertype(), EtherType::VLAN);
        let tag = VlanTag::ref_from_bytes(rest).unwrap();
        assert_eq!((tag.id(), tag.priority(), tag.drop_eligible()), (100, 5, true));
        assert_eq!(tag.ethertype(), EtherType::IP4);

        let (other, rest) = etherparse::Ethernet2Header::from_slice(&bytes).unwrap();
        assert_eq!((other.destination, other.source), (header.dst.0, header.src.0));
        assert_eq!(other.ether_type, etherparse::EtherType::VLAN_TAGGED_FRAME);
        let (other, _) = etherparse::SingleVlanHeader::from_slice(rest).unwrap();
        assert_eq!((other.vlan_id.value(), other.pcp.value(), other.drop_eligible_indicator), (100, 5, true));
    }

    #[test]
    fn headers_are_written_as_they_are_read() {
        let header = EthernetHeader::new(MacAddress::BROADCAST, MacAddress::local(1), EtherType::ARP);
        let other = etherparse::Ethernet2Header {
            destination: [0xff; 6],
            source: [2, 0xfe, 0, 0, 0, 1],
            ether_type: etherparse::EtherType::ARP,
        };
        assert_eq!(header.as_bytes(), other.to_bytes());
        assert_eq!(VlanTag::new(0x1fff, EtherType::IP6).as_bytes(), [0x0f, 0xff, 0x86, 0xdd]);
        assert_eq!((EthernetHeader::LEN, VlanTag::LEN), (14, 4));
    }

    #[test]
    fn mac_addresses_as_text() {
        let mac: MacAddress = "aA:bb:0c:DD:ee:0f".parse().unwrap();
        assert_eq!(mac, MacAddress([0xaa, 0xbb, 0x0c, 0xdd, 0xee, 0x0f]));
        assert_eq!(mac.to_string(), "aa:bb:0c:dd:ee:0f");
        for bad in ["", "aa:bb:cc:dd:ee", "aa:bb:cc:dd:ee:ff:00", "aa:bb:cc:dd:ee:f", "+a:bb:cc:dd:ee:ff"] {
            assert_eq!(bad.parse::<MacAddress>(), Err(MacAddressError), "{bad}");
        }
        for bad in [
            "aa:bb:cc:dd:ee:fg",
            "aabb.ccdd.eeff",
            "aa:bb:cc:dd:ee:ff ",
            "aä:bb:cc:dd:ee:ff",
            "aa::cc:dd:ee:ff",
        ] {
            assert_eq!(bad.parse::<MacAddress>(), Err(MacAddressError), "{bad}");
        }
    }

    #[test]
    fn mac_addresses_by_kind() {
        assert!(MacAddress::ZERO.is_zero() && !MacAddress::ZERO.is_multicast());
        assert!(MacAddress::BROADCAST.is_broadcast() && MacAddress::BROADCAST.is_multicast());
        assert!(!MacAddress([0xff, 0xff, 0xff, 0xff, 0xff, 0xfe]).is_broadcast());
        let group = MacAddress::ip4_multicast("239.129.2.3".parse().unwrap());
        assert_eq!(group.to_string(), "01:00:5e:01:02:03");
        let mac = MacAddress([1, 2, 3, 4, 5, 6]);
        assert_eq!(mac.to_u64(), 0x0102_0304_0506);
        assert_eq!(MacAddress::from_u64(0xffff_0102_0304_0506), mac);
    }

    #[test]
    fn ethertypes_by_name_and_kind() {
        assert_eq!(EtherType::IP4.to_string(), "IP4");
        assert_eq!(EtherType(0x88b5).to_string(), "0x88b5");
        assert!(EtherType(0x05ff).is_length() && !EtherType(0x0600).is_length());
        assert!(EtherType::VLAN.is_vlan() && EtherType::QINQ.is_vlan() && !EtherType::IP4.is_vlan());
    }
}
