//! What is sent, and what the path makes of it.

use std::net::Ipv4Addr;

use memif::TxSource;
use wharf_nodes::wire::checksum::checksum;

/// Bytes of a frame, without its FCS: the shortest.
pub(crate) const FRAME: usize = 60;
/// MAC address of the interface that is sent to, if it has one of its own.
pub(crate) const DUT_MAC: &str = "02:fe:00:00:00:01";
const DUT_MAC_BYTES: [u8; 6] = [2, 0xfe, 0, 0, 0, 1];
/// MAC address that packets come from.
pub(crate) const SOURCE_MAC: &str = "02:00:00:00:00:01";
const SOURCE_MAC_BYTES: [u8; 6] = [2, 0, 0, 0, 0, 1];
/// MAC address of the next hop of routed packets.
pub(crate) const NEXT_HOP_MAC: &str = "02:00:00:00:00:02";
const NEXT_HOP_MAC_BYTES: [u8; 6] = [2, 0, 0, 0, 0, 2];
const SOURCE: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 2);
const OWN: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 1);
/// Destinations are [`DESTINATIONS`] addresses from here on.
pub(crate) const FIRST_DESTINATION: Ipv4Addr = Ipv4Addr::new(16, 0, 0, 0);
/// Addresses that destinations are drawn from.
pub(crate) const DESTINATIONS: u32 = 1_000_000;

const TTL: u8 = 64;
/// Bytes that a VXLAN tunnel puts in front: Ethernet, IPv4, UDP and its own header.
const TUNNEL_HEADERS: usize = 14 + 20 + 8 + 8;

/// The sending interface's ring, and its packets.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Traffic {
    /// Slots, as a power of two: as many packets, and destinations.
    pub(crate) log2_ring_size: u8,
    /// Bytes of each buffer.
    pub(crate) buffer_size: u32,
    /// Destinations are drawn from so many addresses.
    pub(crate) destinations: u32,
    /// Lengths of frames without FCS, in turn: there is at least one.
    pub(crate) lengths: &'static [u16],
    /// MAC addresses are drawn from so many, in a row from the one on, of each side.
    pub(crate) stations: u32,
    /// Frames are inside VXLAN packets from [`SOURCE`].
    pub(crate) tunnelled: bool,
}

impl Default for Traffic {
    fn default() -> Self {
        Traffic {
            log2_ring_size: 10,
            buffer_size: 2048,
            destinations: DESTINATIONS,
            lengths: &[FRAME as u16],
            stations: 1,
            tunnelled: false,
        }
    }
}

/// A random number below `limit` for each `n`: the finalizer of MurmurHash3 gives neighbours unrelated ones.
#[inline(always)]
fn random(n: u32, limit: u32) -> u32 {
    let mut random = n.wrapping_add(1);
    for factor in [0x85eb_ca6b, 0xc2b2_ae35] {
        random = (random ^ random >> 15).wrapping_mul(factor);
    }
    ((u64::from(random) * u64::from(limit)) >> 32) as u32
}

impl Traffic {
    /// Packet `n`: UDP from [`SOURCE`] to a random destination, the same in each run. Its identification is `n`.
    pub(crate) fn packet(&self, n: u16) -> Vec<u8> {
        let len = self.lengths[usize::from(n) % self.lengths.len()];
        let destination = FIRST_DESTINATION.to_bits() + random(n.into(), self.destinations);
        let mut p = vec![0; len.into()];
        p[0..6].copy_from_slice(&DUT_MAC_BYTES);
        p[6..12].copy_from_slice(&SOURCE_MAC_BYTES);
        p[12..14].copy_from_slice(&[8, 0]);
        p[14] = 0x45;
        p[16..18].copy_from_slice(&(len - 14).to_be_bytes());
        p[18..20].copy_from_slice(&n.to_be_bytes());
        p[22] = TTL;
        p[23] = 17;
        p[26..30].copy_from_slice(&SOURCE.octets());
        p[30..34].copy_from_slice(&destination.to_be_bytes());
        let sum = checksum(&p[14..34]);
        p[24..26].copy_from_slice(&sum.to_be_bytes());
        // UDP to the discard port, without a checksum.
        p[34..38].copy_from_slice(&[0x80, 0, 0, 9]);
        p[38..40].copy_from_slice(&(len - 34).to_be_bytes());
        for (at, seed) in [(0, 1 << 16), (6, 2 << 16)] {
            let [_, mac @ ..] = (1 + random(seed | u32::from(n), self.stations)).to_be_bytes();
            p[at + 3..at + 6].copy_from_slice(&mac);
        }
        if self.tunnelled { tunnel(&p, n) } else { p }
    }

    /// What a load writes into each descriptor: the length of its packet, if all have one.
    pub(crate) fn length(&self) -> Option<u32> {
        match self.lengths {
            [one] if self.tunnelled => Some(u32::from(*one) + TUNNEL_HEADERS as u32),
            [one] => Some((*one).into()),
            _ => None,
        }
    }

    /// Whether `arrives` is what the path made of one of our packets.
    pub(crate) fn is_mine(&self, arrives: Arrives, packet: &[u8]) -> bool {
        let more = if arrives == Arrives::Tunnelled { TUNNEL_HEADERS } else { 0 };
        self.lengths.iter().any(|len| packet.len() == usize::from(*len) + more) && arrives.matches(packet)
    }
}

/// A frame inside a packet to the tunnel of [`crate::wharf::forwarding`], of flow `n`.
fn tunnel(frame: &[u8], n: u16) -> Vec<u8> {
    let len = (TUNNEL_HEADERS - 14 + frame.len()) as u16;
    let mut ip = vec![0x45, 0, 0, 0, 0, 0, 0x40, 0, TTL, 17, 0, 0];
    ip[2..4].copy_from_slice(&len.to_be_bytes());
    ip.extend([SOURCE.octets(), OWN.octets()].concat());
    let sum = checksum(&ip);
    ip[10..12].copy_from_slice(&sum.to_be_bytes());
    let udp = [0xc000 | n, 4789, len - 20, 0].map(u16::to_be_bytes).concat();
    let vxlan = [8 << 24, 7 << 8].map(u32::to_be_bytes).concat();
    [&DUT_MAC_BYTES[..], &SOURCE_MAC_BYTES, &[8, 0], &ip, &udp, &vxlan, frame].concat()
}

/// Which of our packets it is, by its identification.
pub(crate) fn identification(packet: &[u8; 20]) -> u16 {
    u16::from_be_bytes([packet[18], packet[19]])
}

/// Packets that are written anew for each burst, so that there are more destinations than a ring has slots.
#[derive(Debug)]
pub(crate) struct Writer {
    packets: Vec<[u8; FRAME]>,
    destinations: u32,
    next: u32,
    /// The header's sum without its destination.
    sum: u32,
}

impl Writer {
    /// Bursts of so many packets.
    const BURST: usize = 64;

    /// Packets to random ones of `destinations`.
    pub(crate) fn new(destinations: u32) -> Self {
        let traffic = Traffic { destinations: 1, ..Traffic::default() };
        let mut packet: [u8; FRAME] = std::array::from_fn(|i| traffic.packet(0)[i]);
        packet[24..26].fill(0);
        packet[30..34].fill(0);
        let sum = u32::from(!checksum(&packet[14..34]));
        Self { packets: vec![packet; Self::BURST], destinations, next: 0, sum }
    }

    /// Writes the next burst.
    #[inline(always)]
    pub(crate) fn write(&mut self) {
        for packet in &mut self.packets {
            let destination = FIRST_DESTINATION.to_bits() + random(self.next, self.destinations);
            self.next = self.next.wrapping_add(1);
            let sum = self.sum + (destination >> 16) + (destination & 0xffff);
            let sum = (sum & 0xffff) + (sum >> 16);
            let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
            packet[24..26].copy_from_slice(&sum.to_be_bytes());
            packet[30..34].copy_from_slice(&destination.to_be_bytes());
        }
    }
}

impl TxSource for Writer {
    #[inline(always)]
    fn packets(&self) -> usize {
        self.packets.len()
    }

    #[inline(always)]
    fn segment(&self, packet: usize, _: usize) -> &[u8] {
        self.packets.get(packet).map_or(&[], |p| &p[..])
    }
}

/// What the path makes of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Arrives {
    /// Nothing.
    Unchanged,
    /// Other MAC addresses, the rest unchanged.
    NewMacs,
    /// It goes to the next hop, with one hop less to live.
    Routed,
    /// It is unchanged inside of a VXLAN packet.
    Tunnelled,
}

impl Arrives {
    /// Whether the path makes this of our packets.
    fn matches(self, packet: &[u8]) -> bool {
        if self == Arrives::Tunnelled {
            let outer = packet.get(..TUNNEL_HEADERS).is_some_and(|o| o[..6] == NEXT_HOP_MAC_BYTES);
            return outer && Arrives::Unchanged.matches(&packet[TUNNEL_HEADERS..]);
        }
        if packet.len() < FRAME || packet[12..14] != [8, 0] || packet[26..30] != SOURCE.octets() {
            return false;
        }
        let sum_ok = checksum(&packet[14..34]) == 0;
        let (macs, ttl) = (&packet[..12], packet[22]);
        let own = [DUT_MAC_BYTES, SOURCE_MAC_BYTES].concat();
        sum_ok
            && match self {
                Arrives::Unchanged => macs[..3] == own[..3] && macs[6..9] == own[6..9] && ttl == TTL,
                Arrives::NewMacs => macs[..6] != own[..6] && ttl == TTL,
                Arrives::Tunnelled => false,
                Arrives::Routed => macs[..6] == NEXT_HOP_MAC_BYTES && ttl == TTL - 1,
            }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn packets_have_random_destinations_within_the_routes() {
        let destinations: HashSet<u32> = (0..1 << 14)
            .map(|n| {
                let p = Traffic::default().packet(n);
                assert!(Arrives::Unchanged.matches(&p) && !Arrives::Routed.matches(&p));
                u32::from_be_bytes([p[30], p[31], p[32], p[33]]) - FIRST_DESTINATION.to_bits()
            })
            .collect();
        assert!(destinations.iter().all(|d| *d < DESTINATIONS));
        assert!(destinations.len() > 16_000, "{} different ones", destinations.len());
        let low = destinations.iter().filter(|d| **d < DESTINATIONS / 2).count();
        assert!((7_500..8_800).contains(&low), "{low} in the lower half");
    }

    #[test]
    fn what_a_path_makes_of_a_packet_is_checked() {
        let traffic = Traffic::default();
        let mut p = traffic.packet(7);
        p[..6].copy_from_slice(&NEXT_HOP_MAC_BYTES);
        assert!(Arrives::NewMacs.matches(&p) && !Arrives::Unchanged.matches(&p));
        p[22] -= 1;
        assert!(!Arrives::Routed.matches(&p), "the checksum is the old one");
        p[24..26].fill(0);
        let sum = checksum(&p[14..34]);
        p[24..26].copy_from_slice(&sum.to_be_bytes());
        assert!(Arrives::Routed.matches(&p));
        assert!(!Arrives::Routed.matches(&p[..59]));
        assert!(traffic.is_mine(Arrives::Routed, &p));
        p.push(0);
        assert!(!traffic.is_mine(Arrives::Routed, &p));
    }

    #[test]
    fn a_writer_writes_what_others_send_many_times() {
        let mut writer = Writer::new(1000);
        for burst in 0..3 {
            writer.write();
            for k in 0..writer.packets() {
                let p = writer.segment(k, 0);
                assert!(Arrives::Unchanged.matches(p));
                let n = (burst * writer.packets() + k) as u32;
                assert_eq!(p[30..34], (FIRST_DESTINATION.to_bits() + random(n, 1000)).to_be_bytes());
            }
        }
    }
}
