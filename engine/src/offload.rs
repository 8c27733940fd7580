//! Partial checksums: what a veth delivers when the kernel behind it relies on offload.
//!
//! A local sender leaves the L4 checksum to the device. On a veth there is no device: the frame
//! arrives with the checksum field holding only the folded sum of the pseudo-header
//! (`CHECKSUM_PARTIAL`, Documentation/networking/checksum-offloads.rst). Passed on as it is, the
//! receiver drops it as corrupt.
//!
//! The packet is then marked [`L4_CSUM_PARTIAL`](crate::flags::L4_CSUM_PARTIAL), and whoever sends it where no device does the rest, or
//! puts it into another packet, completes it: drivers and nodes both, so that this is here, though the engine knows no protocol otherwise.
//!
//! AF_XDP does not tell, so the field is compared with that sum. A frame corrupted so that the
//! two are equal (1 in 65,536) would be repaired instead of dropped: for ports of containers
//! only, never for an uplink.

const ETHERNET_HEADER: usize = 14;
const VLAN_TAG: usize = 4;
const MAX_VLAN_TAGS: usize = 2;
const ETHERTYPE_IP4: u16 = 0x0800;
const ETHERTYPE_IP6: u16 = 0x86dd;
const ETHERTYPE_VLAN: u16 = 0x8100;
const ETHERTYPE_QINQ: u16 = 0x88a8;

const TCP: u8 = 6;
const UDP: u8 = 17;
const HOP_BY_HOP: u8 = 0;
const DESTINATION_OPTIONS: u8 = 60;
const MAX_EXTENSIONS: usize = 4;

/// A checksum that is still to be computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartialChecksum {
    /// Where the sum begins: the L4 header, in bytes from the start of the frame.
    pub start: u16,
    /// The checksum field, in bytes from `start`.
    pub offset: u16,
    /// Where the sum ends. Less than the frame's length when the frame is padded.
    pub end: u16,
}

/// Finds the partial checksum of a frame that begins with an Ethernet header: TCP or UDP in IPv4
/// or IPv6 behind up to two VLAN tags. `None` when the checksum is complete (or absent, as UDP
/// over IPv4 permits), and for anything else: other protocols, fragments, routing headers, frames
/// cut short.
#[inline]
pub fn find_partial(frame: &[u8]) -> Option<PartialChecksum> {
    let mut type_at = ETHERNET_HEADER - 2;
    let mut ethertype = be16(frame, type_at)?;
    for _ in 0..MAX_VLAN_TAGS {
        if ethertype != ETHERTYPE_VLAN && ethertype != ETHERTYPE_QINQ {
            break;
        }
        type_at += VLAN_TAG;
        ethertype = be16(frame, type_at)?;
    }
    match ethertype {
        ETHERTYPE_IP4 => partial(frame, ip4_segment(frame, type_at + 2)?),
        ETHERTYPE_IP6 => partial(frame, ip6_segment(frame, type_at + 2)?),
        _ => None,
    }
}

/// As [`find_partial`], of a packet that begins with its IPv4 or IPv6 header.
#[inline]
pub fn find_partial_ip(packet: &[u8]) -> Option<PartialChecksum> {
    match packet.first()? >> 4 {
        6 => partial(packet, ip6_segment(packet, 0)?),
        _ => partial(packet, ip4_segment(packet, 0)?),
    }
}

#[inline]
fn partial(frame: &[u8], segment: Segment<'_>) -> Option<PartialChecksum> {
    let (offset, header) = match segment.protocol {
        TCP => (16, 20),
        UDP => (6, 8),
        _ => return None,
    };
    let len = segment.end.checked_sub(segment.start)?;
    if len < header || segment.end > frame.len() {
        return None;
    }
    let pseudo = sum(segment.addresses) + u64::from(segment.protocol) + len as u64;
    let partial = be16(frame, segment.start + offset)? == fold(pseudo);
    partial.then_some(PartialChecksum {
        start: u16::try_from(segment.start).ok()?,
        offset: offset as u16,
        end: u16::try_from(segment.end).ok()?,
    })
}

/// Completes the checksum of a frame that [`find_partial`] finds. False, and nothing done, when there is none.
#[must_use]
pub fn complete(frame: &mut [u8]) -> bool {
    find_partial(frame).is_some_and(|found| finish(frame, found))
}

/// As [`complete`], of a packet that begins with its IPv4 or IPv6 header.
#[must_use]
pub fn complete_ip(packet: &mut [u8]) -> bool {
    find_partial_ip(packet).is_some_and(|found| finish(packet, found))
}

/// Computes a checksum in software and stores it. False, and nothing done, when it does not lie
/// in the frame.
#[must_use]
pub fn finish(frame: &mut [u8], checksum: PartialChecksum) -> bool {
    let Some(segment) = frame.get_mut(usize::from(checksum.start)..usize::from(checksum.end)) else {
        return false;
    };
    // The field holds the pseudo-header's sum, so it takes part.
    let complete = match !fold(sum(segment)) {
        // Zero means "no checksum" in UDP, and is the same number in ones' complement.
        0 => 0xffff,
        other => other,
    };
    let offset = usize::from(checksum.offset);
    match segment.get_mut(offset..offset + 2) {
        Some(field) => {
            field.copy_from_slice(&complete.to_be_bytes());
            true
        }
        None => false,
    }
}

/// The L4 part of a packet.
struct Segment<'f> {
    protocol: u8,
    /// Source and destination address.
    addresses: &'f [u8],
    start: usize,
    end: usize,
}

fn ip4_segment(frame: &[u8], ip: usize) -> Option<Segment<'_>> {
    let header = frame.get(ip..ip + 20)?;
    let header_len = usize::from(header[0] & 0xf) * 4;
    let total = usize::from(be16(header, 2)?);
    // More fragments, or an offset (RFC 791).
    let fragment = be16(header, 6)? & 0x3fff != 0;
    if header[0] >> 4 != 4 || header_len < 20 || fragment {
        return None;
    }
    Some(Segment { protocol: header[9], addresses: &header[12..20], start: ip + header_len, end: ip + total })
}

fn ip6_segment(frame: &[u8], ip: usize) -> Option<Segment<'_>> {
    let header = frame.get(ip..ip + 40)?;
    if header[0] >> 4 != 6 {
        return None;
    }
    let mut protocol = header[6];
    let mut start = ip + 40;
    let end = start + usize::from(be16(header, 4)?);
    for _ in 0..MAX_EXTENSIONS {
        if protocol != HOP_BY_HOP && protocol != DESTINATION_OPTIONS {
            break;
        }
        let extension = frame.get(start..start + 2)?;
        protocol = extension[0];
        start += (usize::from(extension[1]) + 1) * 8;
    }
    Some(Segment { protocol, addresses: &header[8..40], start, end })
}

fn be16(bytes: &[u8], at: usize) -> Option<u16> {
    let field = bytes.get(at..at + 2)?;
    Some(u16::from_be_bytes([field[0], field[1]]))
}

/// Sum of 16-bit big-endian words modulo 65,535 (RFC 1071), an odd byte being the high one. Any
/// frame's sum of 32-bit words fits.
fn sum(bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<4>();
    let mut sum: u64 = words.iter().map(|word| u64::from(u32::from_be_bytes(*word))).sum();
    let mut last = [0; 4];
    last[..rest.len()].copy_from_slice(rest);
    sum += u64::from(u32::from_be_bytes(last));
    sum
}

fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

#[cfg(test)]
#[path = "offload_tests.rs"]
mod tests;
