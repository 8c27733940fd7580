//! What rules look at, out of a packet.
//!
//! IPv6 extension headers are walked, at most [`MAX_EXTENSIONS`]; the protocol is what stands behind them. A packet whose headers do not fit in it, a
//! first fragment too short for its ports and TCP flags (RFC 1858), and a longer chain of headers are malformed.

use super::lists::Fields;
use crate::wire::ethernet::{EtherType, EthernetHeader, VlanTag};
use crate::wire::ip4::{Ip4Header, IpProtocol};
use wharf_engine::PacketRef;
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

/// IPv6 extension headers that are walked.
pub const MAX_EXTENSIONS: usize = 8;

/// A packet that can't be judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

/// An IPv4 header without options and the front of what follows, which reaches to TCP's flags.
#[derive(FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Plain {
    ip: Ip4Header,
    next: [u8; L4],
}

#[derive(FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Framed {
    ethernet: EthernetHeader,
    plain: Plain,
}

const L4: usize = 14;
/// Bytes that must be there of the header behind IP.
const TCP_LEN: usize = 20;
const OTHER_LEN: usize = 8;

/// Reads ports and flags of a packet that has them.
#[inline(always)]
fn ports(f: &mut Fields, next: &[u8; L4], len: usize) -> Result<(), Malformed> {
    f.has_ports = Fields::protocol_has_ports(f.protocol, f.is_v6);
    if !f.has_ports {
        return Ok(());
    }
    let is_tcp = f.protocol == IpProtocol::TCP.0;
    if len < if is_tcp { TCP_LEN } else { OTHER_LEN } {
        return Err(Malformed);
    }
    let [a, b, c, d, e, g, ..] = *next;
    if f.is_icmp() {
        (f.sport, f.dport) = (a.into(), b.into());
        f.icmp_id = u16::from_be_bytes([e, g]);
    } else {
        (f.sport, f.dport) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
    }
    if is_tcp {
        f.flags = next[13];
    }
    Ok(())
}

#[inline(always)]
fn plain(plain: &Plain, f: &mut Fields) -> Result<(), Malformed> {
    let ip = &plain.ip;
    (f.src, f.dst) = (ip.src.get().into(), ip.dst.get().into());
    f.protocol = ip.protocol.0;
    let len = usize::from(ip.total_len.get()).saturating_sub(Ip4Header::LEN);
    ports(f, &plain.next, len)
}

#[inline(always)]
fn is_plain(ip: &Ip4Header) -> bool {
    ip.version_ihl == Ip4Header::VERSION_IHL && !ip.is_fragment()
}

/// The fields of an IPv4 packet that `ip4-input` has checked, behind an Ethernet header when `framed`. `f` is still as its default: to
/// write the fields where they are read spares copies.
#[inline(always)]
pub fn ip4(p: &PacketRef<'_>, framed: bool, f: &mut Fields) -> Result<(), Malformed> {
    let headers = if framed { &p.header::<Framed>().plain } else { p.header::<Plain>() };
    if is_plain(&headers.ip) {
        return plain(headers, f);
    }
    *f = ip4_any(p.data().get(if framed { EthernetHeader::LEN } else { 0 }..).unwrap_or_default())?;
    Ok(())
}

/// A packet's IP header on, of one that has an Ethernet header when `framed`.
pub(super) fn behind_ethernet<'a>(p: &'a PacketRef<'_>, framed: bool) -> &'a [u8] {
    p.data().get(if framed { EthernetHeader::LEN } else { 0 }..).unwrap_or_default()
}

/// How much of a packet must be there.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Extent {
    /// All that its header says.
    Whole,
    /// Its IP headers.
    Quote,
}

/// The fields of any IPv4 packet, possibly followed by padding.
#[inline(never)]
pub fn ip4_any(data: &[u8]) -> Result<Fields, Malformed> {
    let (mut f, next) = ip4_headers(data, Extent::Whole)?;
    if !f.is_later_fragment {
        behind(&mut f, next)?;
    }
    Ok(f)
}

/// The fields of an IPv4 header, and what stands behind it.
fn ip4_headers(data: &[u8], extent: Extent) -> Result<(Fields, &[u8]), Malformed> {
    let (ip, _) = Ip4Header::ref_from_prefix(data).map_err(|_| Malformed)?;
    let (header, total) = (ip.header_len(), usize::from(ip.total_len.get()));
    let is_short = data.len() < total;
    if ip.version() != 4 || header < Ip4Header::LEN || total < header || is_short && extent == Extent::Whole {
        return Err(Malformed);
    }
    let f = Fields {
        src: ip.src.get().into(),
        dst: ip.dst.get().into(),
        protocol: ip.protocol.0,
        is_later_fragment: ip.is_later_fragment(),
        ..Fields::default()
    };
    Ok((f, data.get(header..total.min(data.len())).ok_or(Malformed)?))
}

fn behind(f: &mut Fields, data: &[u8]) -> Result<(), Malformed> {
    let mut next = [0; L4];
    next.iter_mut().zip(data).for_each(|(to, byte)| *to = *byte);
    ports(f, &next, data.len())
}

/// The fields of any IPv6 packet (RFC 8200), possibly followed by padding.
#[inline(never)]
pub fn ip6(data: &[u8]) -> Result<Fields, Malformed> {
    let (mut f, next) = ip6_headers(data, Extent::Whole)?;
    if !f.is_later_fragment {
        behind(&mut f, next)?;
    }
    Ok(f)
}

/// The fields of an IPv6 header and its extensions, and what stands behind them.
fn ip6_headers(data: &[u8], extent: Extent) -> Result<(Fields, &[u8]), Malformed> {
    const LEN: usize = 40;
    let Some((header, rest)) = data.split_first_chunk::<LEN>() else { return Err(Malformed) };
    let payload = usize::from(u16::from_be_bytes([header[4], header[5]]));
    if header[0] >> 4 != 6 || payload > rest.len() && extent == Extent::Whole {
        return Err(Malformed);
    }
    let address = |at: usize| {
        let bytes = header.get(at..at + 16).and_then(|bytes| bytes.try_into().ok());
        bytes.map_or(0, u128::from_be_bytes)
    };
    let mut f = Fields { src: address(8), dst: address(24), is_v6: true, ..Fields::default() };
    let mut rest = rest.get(..payload).unwrap_or(rest);
    let mut protocol = header[6];
    for _ in 0..=MAX_EXTENSIONS {
        let len = match protocol {
            // Hop-by-hop options, routing, destination options, mobility: RFC 8200 section 4, RFC 6275.
            0 | 43 | 60 | 135 => 8 + 8 * usize::from(*rest.get(1).ok_or(Malformed)?),
            // Authentication, RFC 4302 section 2.2: in words of 4 bytes, less 2.
            51 => 8 + 4 * usize::from(*rest.get(1).ok_or(Malformed)?),
            44 => 8,
            _ => {
                f.protocol = protocol;
                return Ok((f, rest));
            }
        };
        let extension = rest.get(..len).ok_or(Malformed)?;
        let next = *extension.first().ok_or(Malformed)?;
        if protocol == 44 && u16::from_be_bytes([extension[2], extension[3]]) & 0xfff8 != 0 {
            // What it names first may be one more extension header, which is in another fragment.
            (f.protocol, f.is_later_fragment) = (next, true);
            return Ok((f, &[]));
        }
        protocol = next;
        rest = rest.get(len..).unwrap_or_default();
    }
    Err(Malformed)
}

/// Bytes behind the headers of a quoted packet that must be there: RFC 792 has routers send so many, and ports and identifiers are in them.
const QUOTED: usize = 8;

/// The packet that an ICMP error quotes, which has the fields `error` and starts at `data`. `None` when too little of it is there, and when
/// the error does not go to its sender (RFC 1122 section 3.2.2, RFC 4443 section 2.2): who was not asked can't know the flow.
#[inline(never)]
pub(super) fn quoted(data: &[u8], error: &Fields) -> Option<Fields> {
    let headers = if error.is_v6 { ip6_headers } else { ip4_headers };
    let (_, icmp) = headers(data, Extent::Whole).ok()?;
    // The quote starts behind type, code, checksum and a word that depends on these.
    let (mut f, next) = headers(icmp.get(8..)?, Extent::Quote).ok()?;
    let next: &[u8; QUOTED] = next.first_chunk()?;
    f.has_ports = Fields::protocol_has_ports(f.protocol, f.is_v6) && !f.is_later_fragment;
    let [a, b, c, d, e, g, ..] = *next;
    if f.is_icmp() {
        (f.sport, f.dport, f.icmp_id) = (a.into(), b.into(), u16::from_be_bytes([e, g]));
    } else if f.has_ports {
        (f.sport, f.dport) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
    }
    (f.src == error.dst).then_some(f)
}

/// What a frame carries behind its MAC addresses and up to two tags, and where that starts.
#[inline(always)]
pub fn payload(p: &PacketRef<'_>) -> (EtherType, usize) {
    let tags = crate::l2::tags(p);
    match tags {
        0 => (p.header::<EthernetHeader>().ethertype(), EthernetHeader::LEN),
        tags => {
            let at = EthernetHeader::LEN + usize::from(tags) * VlanTag::LEN;
            let bytes = p.data().get(at - 2..at).and_then(|b| b.try_into().ok());
            (EtherType(bytes.map_or(0, u16::from_be_bytes)), at)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn six(next: u8, behind: &[u8]) -> Vec<u8> {
        let mut data = vec![0x60, 0, 0, 0, 0, behind.len() as u8, next, 64];
        data.extend([0xfd; 16]);
        data.extend([0xfe; 16]);
        data.extend(behind);
        data
    }

    const TCP: [u8; 20] = [0, 80, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x50, 0x12, 0, 0, 0, 0, 0, 0];

    #[test]
    fn ports_behind_extension_headers() {
        let options = [60, 0, 1, 4, 0, 0, 0, 0, 6, 1, 1, 4, 0, 0, 0, 0, 1, 6, 0, 0, 0, 0, 0, 0];
        let f = ip6(&six(0, &[&options[..], &TCP].concat())).unwrap();
        assert_eq!((f.protocol, f.sport, f.dport, f.flags), (6, 80, 256, 0x12));
        assert_eq!((f.src >> 120, f.dst >> 120, f.has_ports), (0xfd, 0xfe, true));
    }

    #[test]
    fn fragments() {
        let first = ip6(&six(44, &[&[6, 0, 0, 1, 0, 0, 0, 9][..], &TCP].concat())).unwrap();
        assert_eq!((first.sport, first.is_later_fragment), (80, false));
        let later = ip6(&six(44, &[&[6, 0, 0, 8, 0, 0, 0, 9][..], &TCP].concat())).unwrap();
        assert_eq!(
            (later.sport, later.protocol, later.has_ports, later.is_later_fragment),
            (0, 6, false, true)
        );
        // RFC 1858: the flags are not in the first fragment.
        assert!(ip6(&six(44, &[&[6, 0, 0, 1, 0, 0, 0, 9][..], &TCP[..12]].concat())).is_err());
    }

    #[test]
    fn what_does_not_fit_is_malformed() {
        let whole = six(0, &[&[6, 0, 1, 4, 0, 0, 0, 0][..], &TCP].concat());
        assert!((0..whole.len()).all(|len| ip6(&whole[..len]).is_err()));
        assert!(ip6(&six(0, &[6, 200, 0, 0, 0, 0, 0, 0])).is_err());
        let chain: Vec<u8> = [0, 0, 1, 4, 0, 0, 0, 0].repeat(MAX_EXTENSIONS + 1);
        assert!(ip6(&six(0, &chain)).is_err());
        let mut four = vec![0x46, 0, 0, 44, 0, 0, 0, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2, 1, 1, 1, 1];
        four.extend(TCP);
        assert_eq!(ip4_any(&four).unwrap().sport, 80);
        assert!((0..four.len()).all(|len| ip4_any(&four[..len]).is_err()));
        four[7] = 2;
        let later = ip4_any(&four).unwrap();
        assert_eq!((later.sport, later.is_later_fragment), (0, true));
    }
}
