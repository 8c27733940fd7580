use proptest::prelude::*;

use super::*;

/// A packet to build.
#[derive(Clone, Debug)]
struct Packet {
    tags: Vec<u16>,
    six: bool,
    options: usize,
    extensions: Vec<u8>,
    udp: bool,
    addresses: [u8; 32],
    payload: Vec<u8>,
    padding: Vec<u8>,
}

/// The same sum, word by word.
fn naive(words: &[u8]) -> u16 {
    let mut total = 0u32;
    for pair in words.chunks(2) {
        total += u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
        total = (total & 0xffff) + (total >> 16);
    }
    total as u16
}

impl Packet {
    fn protocol(&self) -> u8 {
        if self.udp { UDP } else { TCP }
    }

    fn segment(&self) -> Vec<u8> {
        let mut segment = vec![0x12, 0x34, 0x00, 0x50];
        segment.resize(if self.udp { 8 } else { 20 }, 0x5a);
        segment.extend(&self.payload);
        let at = self.offset();
        segment[at..at + 2].fill(0);
        segment
    }

    fn offset(&self) -> usize {
        if self.udp { 6 } else { 16 }
    }

    fn pseudo_header(&self) -> Vec<u8> {
        let len = self.segment().len() as u32;
        let mut bytes = self.addresses[..if self.six { 32 } else { 8 }].to_vec();
        bytes.extend(len.to_be_bytes());
        bytes.extend([0, 0, 0, self.protocol()]);
        bytes
    }

    /// The frame with the given checksum, and where the segment begins.
    fn frame(&self, checksum: u16) -> (Vec<u8>, usize) {
        let mut frame = vec![2; 12];
        for tag in &self.tags {
            frame.extend(tag.to_be_bytes());
            frame.extend([0, 7]);
        }
        let mut segment = self.segment();
        segment[self.offset()..self.offset() + 2].copy_from_slice(&checksum.to_be_bytes());
        if self.six {
            let kinds: Vec<u8> = (0..self.extensions.len()).map(|i| if i == 0 { 0 } else { 60 }).collect();
            let chain: usize = self.extensions.iter().map(|&len| (usize::from(len) + 1) * 8).sum();
            frame.extend(ETHERTYPE_IP6.to_be_bytes());
            frame.extend([0x60, 0, 0, 0]);
            frame.extend(((chain + segment.len()) as u16).to_be_bytes());
            frame.extend([kinds.first().copied().unwrap_or(self.protocol()), 64]);
            frame.extend(self.addresses);
            for (i, &len) in self.extensions.iter().enumerate() {
                frame.extend([kinds.get(i + 1).copied().unwrap_or(self.protocol()), len]);
                frame.resize(frame.len() + (usize::from(len) + 1) * 8 - 2, 0);
            }
        } else {
            let header = 20 + self.options * 4;
            frame.extend(ETHERTYPE_IP4.to_be_bytes());
            frame.extend([0x40 | (header / 4) as u8, 0]);
            frame.extend(((header + segment.len()) as u16).to_be_bytes());
            frame.extend([0, 1, 0x40, 0, 64, self.protocol(), 0, 0]);
            frame.extend(&self.addresses[..8]);
            frame.resize(frame.len() + self.options * 4, 1);
        }
        let start = frame.len();
        frame.extend(segment);
        frame.extend(&self.padding);
        (frame, start)
    }

    /// What the kernel leaves in the field.
    fn partial(&self) -> u16 {
        naive(&self.pseudo_header())
    }

    fn complete(&self) -> u16 {
        let mut bytes = self.pseudo_header();
        bytes.extend(self.segment());
        match !naive(&bytes) {
            0 => 0xffff,
            other => other,
        }
    }
}

fn packet() -> impl Strategy<Value = Packet> {
    let tags = prop::collection::vec(prop_oneof![Just(ETHERTYPE_VLAN), Just(ETHERTYPE_QINQ)], 0..=2);
    (
        tags,
        any::<bool>(),
        0..=10usize,
        prop::collection::vec(0..4u8, 0..=4),
        any::<bool>(),
        any::<[u8; 32]>(),
        prop::collection::vec(any::<u8>(), 0..200),
        prop::collection::vec(any::<u8>(), 0..8),
    )
        .prop_map(|(tags, six, options, extensions, udp, addresses, payload, padding)| Packet {
            tags,
            six,
            options,
            extensions,
            udp,
            addresses,
            payload,
            padding,
        })
}

proptest! {
    #[test]
    fn partial_is_found_and_finished(packet in packet()) {
        let (mut frame, start) = packet.frame(packet.partial());
        let found = find_partial(&frame).expect("partial");
        prop_assert_eq!(usize::from(found.start), start);
        prop_assert_eq!(usize::from(found.offset), packet.offset());
        prop_assert_eq!(usize::from(found.end), frame.len() - packet.padding.len());
        let mut bare = frame[ETHERNET_HEADER + VLAN_TAG * packet.tags.len()..].to_vec();
        prop_assert!(finish(&mut frame, found));
        prop_assert_eq!(&frame, &packet.frame(packet.complete()).0);
        prop_assert!(complete_ip(&mut bare));
        prop_assert!(frame.ends_with(&bare));
        // It is complete now.
        prop_assert!(!complete(&mut frame) || packet.partial() == packet.complete());
    }

    #[test]
    fn any_other_checksum_is_left_alone(packet in packet(), checksum: u16) {
        prop_assume!(checksum != packet.partial());
        prop_assert_eq!(find_partial(&packet.frame(checksum).0), None);
    }

    #[test]
    fn cut_frames_are_nothing(packet in packet(), cut: prop::sample::Index) {
        let (frame, _) = packet.frame(packet.partial());
        let whole = frame.len() - packet.padding.len();
        prop_assert_eq!(find_partial(&frame[..cut.index(whole)]), None);
    }

    #[test]
    fn any_bytes_are_harmless(mut frame in prop::collection::vec(any::<u8>(), 0..300), start: u16, offset: u16, end: u16) {
        let (_, _) = (find_partial(&frame), find_partial_ip(&frame));
        let before = frame.clone();
        if !finish(&mut frame, PartialChecksum { start, offset, end }) {
            prop_assert_eq!(before, frame);
        }
    }

    #[test]
    fn mutated_frames_are_harmless(packet in packet(), at: prop::sample::Index, byte: u8) {
        let (mut frame, _) = packet.frame(packet.partial());
        let at = at.index(frame.len());
        frame[at] = byte;
        if let Some(found) = find_partial(&frame) {
            prop_assert!(finish(&mut frame, found));
        }
    }
}

#[test]
fn a_sum_of_zero_is_stored_as_ones() {
    // The pseudo-header's sum of 1 and the payload cancel each other out.
    let mut segment = [0, 7, 0, 9, 0, 8, 0, 1, 0xff, 0xe6];
    assert_eq!(naive(&segment), 0xffff);
    assert!(finish(&mut segment, PartialChecksum { start: 0, offset: 6, end: 10 }));
    assert_eq!(segment[6..8], [0xff, 0xff]);
}

#[test]
fn fragments_have_no_checksum_of_their_own() {
    let packet = Packet {
        tags: vec![],
        six: false,
        options: 0,
        extensions: vec![],
        udp: true,
        addresses: [10; 32],
        payload: vec![1; 32],
        padding: vec![],
    };
    let (mut frame, _) = packet.frame(packet.partial());
    assert!(find_partial(&frame).is_some());
    frame[ETHERNET_HEADER + 6] = 0x20;
    assert_eq!(find_partial(&frame), None, "more fragments");
    frame[ETHERNET_HEADER + 6] = 0x00;
    frame[ETHERNET_HEADER + 7] = 0x01;
    assert_eq!(find_partial(&frame), None, "a later fragment");
}

#[test]
fn other_protocols_have_no_checksum_here() {
    let mut arp = vec![0; 60];
    arp[12..14].copy_from_slice(&[0x08, 0x06]);
    assert_eq!(find_partial(&arp), None);
    assert_eq!(find_partial(&[]), None);
}

#[test]
fn a_packet_without_an_ethernet_header() {
    // UDP over IPv4 with the checksum field left as the pseudo-header's sum.
    let mut packet = vec![0x45, 0, 0, 32, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
    packet.extend([0x04, 0xd2, 0x09, 0x29, 0, 12, 0, 0, 1, 2, 3, 4]);
    let pseudo: u32 = 0x0a00 + 1 + 0x0a00 + 2 + 17 + 12;
    packet[26..28].copy_from_slice(&(pseudo as u16).to_be_bytes());
    assert!(complete_ip(&mut packet));
    let sum = pseudo + 0x04d2 + 0x0929 + 12 + 0x0102 + 0x0304;
    let expected = !((sum & 0xffff) + (sum >> 16)) as u16;
    assert_eq!(packet[26..28], expected.to_be_bytes());
    assert!(!complete_ip(&mut packet), "a complete checksum is left alone");
    assert!(!complete_ip(&mut []) && !complete_ip(&mut [0x60]));
}
