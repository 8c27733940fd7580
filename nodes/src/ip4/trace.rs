//! Printing of IPv4 packets in traces, in VPP's words. Whatever the bytes are, it prints something.

use crate::wire::icmp4::Icmp4Header;
use crate::wire::ip4::{Ip4Header, IpProtocol};
use crate::wire::tcp::TcpHeader;
use crate::wire::udp::UdpHeader;
use std::fmt;
use zerocopy::FromBytes;

/// An IPv4 packet on three lines, the second and third indented.
pub fn packet(data: &[u8], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let Ok((ip, _)) = Ip4Header::ref_from_prefix(data) else {
        return write!(f, "truncated IP4 header, {} bytes", data.len());
    };
    write!(
        f,
        "{}: {} -> {}\n    tos 0x{:02x}, ttl {}, length {}, checksum 0x{:04x} dscp {} ecn {}\n    fragment id 0x{:04x}",
        ip.protocol,
        ip.src(),
        ip.dst(),
        ip.tos,
        ip.ttl,
        ip.total_len.get(),
        ip.checksum.get(),
        ip.dscp(),
        ip.ecn(),
        ip.id.get(),
    )?;
    if ip.is_fragment() {
        write!(f, " offset {}", ip.fragment_offset())?;
    }
    if ip.more_fragments() {
        write!(f, ", flags MORE_FRAGMENTS")?;
    }
    if ip.dont_fragment() {
        write!(f, ", flags DONT_FRAGMENT")?;
    }
    let rest = data.get(ip.header_len()..).unwrap_or_default();
    if ip.is_later_fragment() {
        return Ok(());
    }
    match ip.protocol {
        IpProtocol::ICMP => match Icmp4Header::ref_from_prefix(rest) {
            Ok((icmp, _)) => write!(
                f,
                "\n  ICMP {} code {} checksum 0x{:04x} id {}",
                icmp.kind,
                icmp.code,
                icmp.checksum.get(),
                icmp.id.get()
            ),
            Err(_) => write!(f, "\n  ICMP truncated"),
        },
        IpProtocol::UDP => match UdpHeader::ref_from_prefix(rest) {
            Ok((udp, _)) => write!(
                f,
                "\n  UDP: {} -> {}\n    length {}, checksum 0x{:04x}",
                udp.src_port.get(),
                udp.dst_port.get(),
                udp.len.get(),
                udp.checksum.get()
            ),
            Err(_) => write!(f, "\n  UDP truncated"),
        },
        IpProtocol::TCP => match TcpHeader::ref_from_prefix(rest) {
            Ok((tcp, _)) => write!(
                f,
                "\n  TCP: {} -> {}\n    seq. tx 0x{:08x} rx 0x{:08x}\n    flags {}, tcp header: {} bytes\n    window {}, checksum 0x{:04x}",
                tcp.src_port.get(),
                tcp.dst_port.get(),
                tcp.sequence.get(),
                tcp.acknowledgment.get(),
                tcp.flags,
                tcp.header_len(),
                tcp.window.get(),
                tcp.checksum.get()
            ),
            Err(_) => write!(f, "\n  TCP truncated"),
        },
        _ => Ok(()),
    }
}
