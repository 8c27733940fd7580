//! The User Datagram Protocol (RFC 768).

use super::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Destination ports of protocols that nodes know (IANA registry "Service Name and Transport Protocol Port Number").
pub mod port {
    /// DHCP server.
    pub const DHCP_SERVER: u16 = 67;
    /// DHCP client.
    pub const DHCP_CLIENT: u16 = 68;
    /// VXLAN (RFC 7348, section 5).
    pub const VXLAN: u16 = 4789;
    /// Geneve (RFC 8926).
    pub const GENEVE: u16 = 6081;
}

/// A UDP header, 8 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct UdpHeader {
    /// From which port.
    pub src_port: U16,
    /// To which port.
    pub dst_port: U16,
    /// Bytes of the datagram, this header included.
    pub len: U16,
    /// Over pseudo header, header and payload. 0 means that there is none; a checksum that computes to 0 is sent as
    /// 0xffff.
    pub checksum: U16,
}

impl UdpHeader {
    /// Length in bytes.
    pub const LEN: usize = size_of::<UdpHeader>();

    /// A header without a checksum. `payload_len` in bytes, the sum has to fit into 16 bits.
    pub const fn new(src_port: u16, dst_port: u16, payload_len: u16) -> UdpHeader {
        UdpHeader {
            src_port: U16::new(src_port),
            dst_port: U16::new(dst_port),
            len: U16::new(payload_len.wrapping_add(UdpHeader::LEN as u16)),
            checksum: U16::ZERO,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::checksum::{add, ones_complement_sum, pseudo_header_sum};
    use crate::wire::ip4::IpProtocol;

    #[test]
    fn a_dns_query() {
        let bytes = [0xc0, 0x00, 0x00, 0x35, 0x00, 0x0d, 0x00, 0x00, 1, 2, 3, 4, 5];
        let (header, payload) = UdpHeader::ref_from_prefix(&bytes).unwrap();
        assert_eq!((header.src_port.get(), header.dst_port.get(), header.len.get()), (0xc000, 53, 13));
        assert_eq!(*header, UdpHeader::new(0xc000, 53, 5));

        let (src, dst) = ([10, 0, 0, 1].into(), [10, 0, 0, 2].into());
        let computed = !add(pseudo_header_sum(src, dst, IpProtocol::UDP, 13), ones_complement_sum(&bytes));
        let (other, _) = etherparse::UdpHeader::from_slice(&bytes).unwrap();
        assert_eq!((other.source_port, other.destination_port, other.length), (0xc000, 53, 13));
        assert_eq!(computed, other.calc_checksum_ipv4_raw(src.octets(), dst.octets(), payload).unwrap());
    }
}
