//! The Address Resolution Protocol (RFC 826), for IPv4 over Ethernet.

use super::{EtherType, MacAddress, U16};
use std::net::Ipv4Addr;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// What an ARP packet is (IANA registry "ARP Operation Codes").
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ArpOperation(pub u16);

impl ArpOperation {
    /// Who has the target address?
    pub const REQUEST: ArpOperation = ArpOperation(1);
    /// The sender has the sender's address.
    pub const REPLY: ArpOperation = ArpOperation(2);
}

impl std::fmt::Display for ArpOperation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match *self {
            ArpOperation::REQUEST => f.write_str("request"),
            ArpOperation::REPLY => f.write_str("reply"),
            ArpOperation(other) => write!(f, "operation {other}"),
        }
    }
}

/// An ARP packet for IPv4 over Ethernet, 28 bytes. Another protocol or medium has other lengths:
/// [`is_ip4_over_ethernet`](ArpPacket::is_ip4_over_ethernet) comes before the addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct ArpPacket {
    /// `ar$hrd`, 1 for Ethernet.
    pub hardware_type: U16,
    /// `ar$pro`, 0x0800 for IPv4.
    pub protocol_type: U16,
    /// `ar$hln`, 6 for Ethernet.
    pub hardware_len: u8,
    /// `ar$pln`, 4 for IPv4.
    pub protocol_len: u8,
    /// `ar$op`; see [`ArpPacket::operation`].
    pub operation: U16,
    /// `ar$sha`, the sender's MAC address.
    pub sender_mac: MacAddress,
    /// `ar$spa`, the sender's IPv4 address; see [`ArpPacket::sender_ip`].
    pub sender_ip: [u8; 4],
    /// `ar$tha`, the target's MAC address; no meaning in a request.
    pub target_mac: MacAddress,
    /// `ar$tpa`, the target's IPv4 address; see [`ArpPacket::target_ip`].
    pub target_ip: [u8; 4],
}

impl ArpPacket {
    /// Length in bytes.
    pub const LEN: usize = size_of::<ArpPacket>();
    /// Hardware type Ethernet (IANA registry "ARP Hardware Types").
    pub const ETHERNET: u16 = 1;

    /// A packet of IPv4 over Ethernet from `sender` to `target`.
    pub const fn new(
        operation: ArpOperation,
        sender: (MacAddress, Ipv4Addr),
        target: (MacAddress, Ipv4Addr),
    ) -> ArpPacket {
        ArpPacket {
            hardware_type: U16::new(Self::ETHERNET),
            protocol_type: U16::new(EtherType::IP4.0),
            hardware_len: 6,
            protocol_len: 4,
            operation: U16::new(operation.0),
            sender_mac: sender.0,
            sender_ip: sender.1.octets(),
            target_mac: target.0,
            target_ip: target.1.octets(),
        }
    }

    /// A request for the MAC address of `target`.
    pub const fn request(sender: (MacAddress, Ipv4Addr), target: Ipv4Addr) -> ArpPacket {
        ArpPacket::new(ArpOperation::REQUEST, sender, (MacAddress::ZERO, target))
    }

    /// Tells everybody that `mac` has `address` (RFC 5227 section 2.3).
    pub const fn announcement(mac: MacAddress, address: Ipv4Addr) -> ArpPacket {
        ArpPacket::request((mac, address), address)
    }

    /// The reply to this request from the station that has the target address, which is at `mac`.
    pub const fn reply(&self, mac: MacAddress) -> ArpPacket {
        ArpPacket {
            operation: U16::new(ArpOperation::REPLY.0),
            sender_mac: mac,
            sender_ip: self.target_ip,
            target_mac: self.sender_mac,
            target_ip: self.sender_ip,
            ..*self
        }
    }

    /// True when types and lengths say that the addresses are what this struct says they are.
    #[inline(always)]
    pub fn is_ip4_over_ethernet(&self) -> bool {
        self.hardware_type.get() == Self::ETHERNET
            && self.protocol_type.get() == EtherType::IP4.0
            && self.hardware_len == 6
            && self.protocol_len == 4
    }

    /// Request, reply, or something else.
    #[inline(always)]
    pub fn operation(&self) -> ArpOperation {
        ArpOperation(self.operation.get())
    }

    /// The sender's IPv4 address.
    #[inline(always)]
    pub fn sender_ip(&self) -> Ipv4Addr {
        self.sender_ip.into()
    }

    /// The target's IPv4 address.
    #[inline(always)]
    pub fn target_ip(&self) -> Ipv4Addr {
        self.target_ip.into()
    }

    /// True for an announcement (RFC 5227, section 1.1): sender and target are the same address.
    #[inline(always)]
    pub fn is_gratuitous(&self) -> bool {
        self.sender_ip == self.target_ip
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REQUEST: [u8; 28] = [
        0, 1, 8, 0, 6, 4, 0, 1, 2, 0xfe, 0, 0, 0, 1, 10, 0, 0, 1, 0, 0, 0, 0, 0, 0, 10, 0, 0, 2, //
    ];

    #[test]
    fn a_request_and_its_reply() {
        let request = ArpPacket::ref_from_bytes(&REQUEST).unwrap();
        assert!(request.is_ip4_over_ethernet() && !request.is_gratuitous());
        assert_eq!(request.operation(), ArpOperation::REQUEST);
        assert_eq!(request.sender_mac, MacAddress::local(1));
        assert_eq!((request.sender_ip(), request.target_ip()), ([10, 0, 0, 1].into(), [10, 0, 0, 2].into()));
        assert_eq!(
            ArpPacket::request((MacAddress::local(1), [10, 0, 0, 1].into()), [10, 0, 0, 2].into()),
            *request
        );

        let reply = request.reply(MacAddress::local(2));
        let other = etherparse::ArpPacketSlice::from_slice(reply.as_bytes()).unwrap();
        assert_eq!(other.operation(), etherparse::ArpOperation::REPLY);
        assert_eq!(other.hw_addr_type(), etherparse::ArpHardwareId::ETHERNET);
        assert_eq!(other.proto_addr_type(), etherparse::EtherType::IPV4);
        assert_eq!(
            (other.sender_hw_addr(), other.sender_protocol_addr()),
            (&[2, 0xfe, 0, 0, 0, 2][..], &[10, 0, 0, 2][..])
        );
        assert_eq!(
            (other.target_hw_addr(), other.target_protocol_addr()),
            (&[2, 0xfe, 0, 0, 0, 1][..], &[10, 0, 0, 1][..])
        );
    }

    #[test]
    fn other_protocols_and_media_are_told_apart() {
        for (at, value) in [(1, 6), (2, 0x86), (4, 8), (5, 16)] {
            let mut bytes = REQUEST;
            bytes[at] = value;
            assert!(!ArpPacket::ref_from_bytes(&bytes).unwrap().is_ip4_over_ethernet());
        }
        let mut bytes = REQUEST;
        bytes[27] = 1;
        assert!(ArpPacket::ref_from_bytes(&bytes).unwrap().is_gratuitous());
    }
}
