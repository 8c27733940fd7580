//! A packet that is about to be put into another: its flow, for entropy, and its checksum, which nobody computes any more once it is inside.

use super::checksum::ones_complement_sum;
use super::ethernet::{EtherType, EthernetHeader, VlanTag};
use super::ip4::{Ip4Header, IpProtocol};
use zerocopy::FromBytes;

const IP6_HEADER: usize = 40;

/// What a packet begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// An Ethernet header.
    Ethernet,
    /// An IPv4 header.
    Ip4,
}

/// What follows an Ethernet header and up to two tags, if there is one, and where: `None` when that is not in the packet.
#[inline(always)]
fn payload(frame: &[u8], start: Start) -> Option<(EtherType, usize)> {
    if start == Start::Ip4 {
        return Some((EtherType::IP4, 0));
    }
    let mut at = EthernetHeader::LEN;
    for _ in 0..3 {
        let field = frame.get(at - 2..at)?;
        let ethertype = EtherType(u16::from_be_bytes([field[0], field[1]]));
        if !ethertype.is_vlan() {
            return Some((ethertype, at));
        }
        at += VlanTag::LEN;
    }
    None
}

/// A number that is the same for all packets of a flow: of the IP addresses, protocol and ports of a frame, else of its MAC addresses.
/// Fragments have no ports, and go by addresses alone so that all of a datagram's go together.
#[inline]
pub fn flow_hash(frame: &[u8], start: Start) -> u32 {
    let words = |from: usize, to: usize| -> u64 {
        let bytes = frame.get(from..to).unwrap_or_default();
        bytes.as_chunks::<4>().0.iter().fold(0, |h: u64, w| mix(h ^ u64::from(u32::from_be_bytes(*w))))
    };
    let hash = match payload(frame, start) {
        Some((EtherType::IP4, at)) => {
            match frame.get(at..).and_then(|p| Ip4Header::ref_from_prefix(p).ok()) {
                Some((ip, _)) => {
                    let ports = at + ip.header_len();
                    let has = !ip.is_fragment() && matches!(ip.protocol, IpProtocol::TCP | IpProtocol::UDP);
                    let hash = words(at + 12, at + 20) ^ u64::from(ip.protocol.0);
                    if has { mix(hash ^ words(ports, ports + 4)) } else { mix(hash) }
                }
                None => 0,
            }
        }
        Some((EtherType::IP6, at)) => {
            let protocol = frame.get(at + 6).copied().unwrap_or(0);
            let has = matches!(IpProtocol(protocol), IpProtocol::TCP | IpProtocol::UDP);
            let hash = words(at + 8, at + IP6_HEADER) ^ u64::from(protocol);
            if has { mix(hash ^ words(at + IP6_HEADER, at + IP6_HEADER + 4)) } else { mix(hash) }
        }
        _ => words(0, 12),
    };
    (hash >> 32) as u32
}

#[inline(always)]
fn mix(value: u64) -> u64 {
    let wide = u128::from(value ^ 0x9e37_79b9_7f4a_7c15) * 0xbf58_476d_1ce4_e5b9;
    (wide >> 64) as u64 ^ wide as u64
}

/// Computes the TCP or UDP checksum of a frame in whose field there is the sum of the pseudo-header, as a kernel leaves it to a device. False,
/// and nothing done, when there is no such field.
#[must_use]
pub fn complete_checksum(frame: &mut [u8], start: Start) -> bool {
    let Some((protocol, start, end)) = segment(frame, start) else { return false };
    let offset = match protocol {
        IpProtocol::TCP => 16,
        IpProtocol::UDP => 6,
        _ => return false,
    };
    let Some(segment) = frame.get_mut(start..end).filter(|s| s.len() >= offset + 2) else { return false };
    // RFC 768: a checksum that computes to zero is sent as all ones.
    let sum = match !ones_complement_sum(segment) {
        0 => 0xffff,
        sum => sum,
    };
    segment[offset..offset + 2].copy_from_slice(&sum.to_be_bytes());
    true
}

/// Protocol, start and end of the L4 part.
fn segment(frame: &[u8], start: Start) -> Option<(IpProtocol, usize, usize)> {
    let (ethertype, at) = payload(frame, start)?;
    match ethertype {
        EtherType::IP4 => {
            let (ip, _) = Ip4Header::ref_from_prefix(frame.get(at..)?).ok()?;
            let fits = !ip.is_fragment() && ip.header_len() >= Ip4Header::LEN;
            fits.then(|| (ip.protocol, at + ip.header_len(), at + usize::from(ip.total_len.get())))
        }
        EtherType::IP6 => {
            let header = frame.get(at..at + IP6_HEADER)?;
            let len = usize::from(u16::from_be_bytes([header[4], header[5]]));
            Some((IpProtocol(header[6]), at + IP6_HEADER, at + IP6_HEADER + len))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use etherparse::PacketBuilder;

    fn tcp(sport: u16, payload: &[u8]) -> Vec<u8> {
        let mut frame = Vec::new();
        PacketBuilder::ethernet2([2; 6], [4; 6])
            .ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64)
            .tcp(sport, 80, 1, 2)
            .write(&mut frame, payload)
            .unwrap();
        frame
    }

    #[test]
    fn one_flow_one_hash() {
        assert_eq!(
            flow_hash(&tcp(1, b"abc"), Start::Ethernet),
            flow_hash(&tcp(1, b"other")[14..], Start::Ip4)
        );
        let mut ports: Vec<u32> =
            (0..1000).map(|sport| flow_hash(&tcp(sport, b""), Start::Ethernet) & 0x3fff).collect();
        ports.sort_unstable();
        ports.dedup();
        // Of 1,000 flows in 16,384 ports about 970 have one for themselves.
        assert!(ports.len() > 940, "{}", ports.len());
        let frame = tcp(1, b"");
        let cut: Vec<u32> = (0..frame.len()).map(|len| flow_hash(&frame[..len], Start::Ethernet)).collect();
        assert_eq!(cut.len(), frame.len());
    }

    #[test]
    fn a_partial_checksum_is_completed() {
        for payload in [&b""[..], b"odd", b"even"] {
            let whole = tcp(7, payload);
            let mut partial = whole.clone();
            let len = (whole.len() - 34) as u16;
            let pseudo = super::super::checksum::pseudo_header_sum(
                [10, 0, 0, 1].into(),
                [10, 0, 0, 2].into(),
                IpProtocol::TCP,
                len,
            );
            partial[50..52].copy_from_slice(&pseudo.to_be_bytes());
            // Padding is not summed.
            partial.extend([0xff; 3]);
            let mut bare = partial[14..].to_vec();
            assert!(complete_checksum(&mut partial, Start::Ethernet));
            assert!(complete_checksum(&mut bare, Start::Ip4));
            assert_eq!(bare, partial[14..]);
            assert_eq!(partial[..whole.len()], whole);
        }
        let whole = tcp(7, b"abc");
        for len in 0..whole.len() {
            let _ = complete_checksum(&mut whole[..len].to_vec(), Start::Ethernet);
        }
        assert!(!complete_checksum(&mut whole[..40].to_vec(), Start::Ethernet));
    }
}
