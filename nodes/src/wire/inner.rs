//! A packet that is about to be put into another: its flow, for entropy, and its checksum, which nobody computes any more once it is inside.

use super::ethernet::{EtherType, EthernetHeader, VlanTag};
use super::ip4::{Ip4Header, IpProtocol};
use wharf_engine::offload;
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
#[inline(always)]
pub fn flow_hash(frame: &[u8], start: Start) -> u32 {
    // Almost all frames: no tag, no options, not a fragment.
    if start == Start::Ethernet
        && let Some((plain, _)) = frame.split_first_chunk::<PLAIN>()
        && plain[12..15] == [8, 0, Ip4Header::VERSION_IHL]
        && has_ports(IpProtocol(plain[23]))
        && u16::from_be_bytes([plain[20], plain[21]]) & !Ip4Header::DONT_FRAGMENT == 0
    {
        let [.., a, b, c, d, e, f, g, h, i, j, k, l] = *plain;
        let addresses = u64::from_ne_bytes([a, b, c, d, e, f, g, h]);
        return ip4_hash(addresses, plain[23], u32::from_ne_bytes([i, j, k, l]));
    }
    any_flow_hash(frame, start)
}

/// Ethernet and IPv4 headers, and ports.
const PLAIN: usize = EthernetHeader::LEN + Ip4Header::LEN + 4;

#[inline(always)]
fn has_ports(protocol: IpProtocol) -> bool {
    matches!(protocol, IpProtocol::TCP | IpProtocol::UDP)
}

#[inline(always)]
fn ip4_hash(addresses: u64, protocol: u8, ports: u32) -> u32 {
    (mix(mix(addresses) ^ u64::from(protocol) << 32 ^ u64::from(ports)) >> 32) as u32
}

#[inline(never)]
fn any_flow_hash(frame: &[u8], start: Start) -> u32 {
    let words = |from: usize, to: usize| -> u64 {
        let bytes = frame.get(from..to).unwrap_or_default();
        bytes.as_chunks::<4>().0.iter().fold(0, |h: u64, w| mix(h ^ u64::from(u32::from_be_bytes(*w))))
    };
    let hash = match payload(frame, start) {
        Some((EtherType::IP4, at)) => {
            let chunk = |at: usize| frame.get(at..).and_then(|b| b.first_chunk::<4>()).copied();
            return match frame.get(at..).and_then(|p| Ip4Header::ref_from_prefix(p).ok()) {
                Some((ip, _)) => {
                    let has = !ip.is_fragment() && has_ports(ip.protocol);
                    let ports = chunk(at + ip.header_len()).filter(|_| has).unwrap_or_default();
                    let [a, b, c, d] = chunk(at + 12).unwrap_or_default();
                    let [e, f, g, h] = chunk(at + 16).unwrap_or_default();
                    let addresses = u64::from_ne_bytes([a, b, c, d, e, f, g, h]);
                    ip4_hash(addresses, ip.protocol.0, u32::from_ne_bytes(ports))
                }
                None => 0,
            };
        }
        Some((EtherType::IP6, at)) => {
            let protocol = frame.get(at + 6).copied().unwrap_or(0);
            let hash = words(at + 8, at + IP6_HEADER) ^ u64::from(protocol);
            match has_ports(IpProtocol(protocol)) {
                true => mix(hash ^ words(at + IP6_HEADER, at + IP6_HEADER + 4)),
                false => mix(hash),
            }
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
    match start {
        Start::Ethernet => offload::complete(frame),
        Start::Ip4 => offload::complete_ip(frame),
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
        // Options and tags are no part of it.
        let mut tagged = tcp(9, b"abc");
        let plain = flow_hash(&tagged, Start::Ethernet);
        tagged.splice(12..12, [0x81, 0, 0, 7]);
        assert_eq!(flow_hash(&tagged, Start::Ethernet), plain);
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
