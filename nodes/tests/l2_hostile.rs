//! Frames that are cut, changed and made up, through a bridge with a trunk, a tunnel and a router interface, with tracing on: nothing is lost,
//! each drop has one named reason, and any trace can be printed.

#[path = "common/bridge.rs"]
mod lab;

use lab::{BVI, PEER, PLAIN, SUB_L2, SUB_L3, TRUNK, UNDERLAY, US, bridge, own, station};
use proptest::prelude::*;
use wharf_engine::testing::Harness;
use wharf_nodes::wire::MacAddress;

/// Counters of the nodes that are reached here which count no drop.
const NOT_DROPS: &[(&str, &str)] = &[
    ("arp-reply", "ARP replies sent"),
    ("arp-reply", "control plane is behind, neighbour not learned"),
    ("arp-term-l2bd", "ARP replies sent"),
    ("ip4-arp", "ARP resolution requested"),
    ("ip4-arp", "neighbour does not answer"),
    ("ip4-icmp-echo-request", "icmp4 echo replies sent"),
    ("ip4-icmp-error", "icmp4 fragmentation needed sent"),
    ("ip4-icmp-error", "icmp4 time exceeded sent"),
    ("ip4-icmp-error", "icmp4 unreachable sent"),
    ("ip4-lookup", "no route to destination"),
    ("ip4-punt", "TCP packets punted"),
    ("ip4-punt", "UDP packets punted"),
    ("ip4-punt", "packets of other protocols punted"),
    ("ip4-rewrite", "ip4 MTU exceeded and DF set"),
    ("ip4-rewrite", "ip4 ttl <= 1"),
    ("l2-flood", "L2 flood copies"),
    ("l2-fwd", "L2 learn misses"),
    ("l2-fwd", "L2 mac moves"),
    ("l2-fwd", "L2 not learned due to limit"),
    ("l2-fwd", "L2 mac moves damped"),
    ("l2-fwd", "L2 forward misses"),
];

/// Frames of every kind that means something here.
fn seeds() -> Vec<(u32, Vec<u8>)> {
    let ip = |dst_mac: MacAddress, src: [u8; 4], dst: [u8; 4], ports: (u16, u16), payload: &[u8]| {
        let mut frame = Vec::new();
        etherparse::PacketBuilder::ethernet2(station(1).0, dst_mac.0)
            .ipv4(src, dst, 64)
            .udp(ports.0, ports.1)
            .write(&mut frame, payload)
            .unwrap();
        frame
    };
    let tagged = |tags: &[(u16, u16)], frame: &[u8]| {
        let mut out = frame[..12].to_vec();
        for (kind, tci) in tags {
            out.extend(kind.to_be_bytes());
            out.extend(tci.to_be_bytes());
        }
        out.extend(&frame[12..]);
        out
    };
    let arp = |target: [u8; 4]| {
        let mut frame = [0xff; 6].to_vec();
        frame.extend(station(1).0);
        frame.extend([8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
        frame.extend(station(1).0);
        frame.extend([10, 0, 0, 9, 0, 0, 0, 0, 0, 0]);
        frame.extend(target);
        frame
    };
    let plain = ip(station(2), [10, 0, 0, 9], [10, 0, 0, 8], (1, 2), b"hello");
    let routed = ip(own(BVI), [10, 0, 0, 9], [10, 9, 0, 8], (1, 2), b"hello");
    let to_bvi = ip(own(BVI), [10, 0, 0, 9], [10, 0, 0, 1], (1, 2), b"hello");
    let from_sub = ip(own(SUB_L3), [10, 9, 0, 8], [10, 0, 0, 9], (1, 2), b"hello");
    let tunnelled = |frame: &[u8], vni: u8| {
        let inner = [&[8, 0, 0, 0, 0, 0, vni, 0], frame].concat();
        let mut packet = ip(own(UNDERLAY), PEER, US, (50_000, 4789), &inner);
        packet[40..42].fill(0);
        packet
    };
    vec![
        (PLAIN, plain.clone()),
        (PLAIN, routed),
        (PLAIN, to_bvi),
        (PLAIN, arp([10, 0, 0, 7])),
        (PLAIN, arp([10, 0, 0, 1])),
        (PLAIN, arp([10, 0, 0, 99])),
        (PLAIN, tagged(&[(0x8100, 100)], &plain)),
        (TRUNK, tagged(&[(0x8100, 100)], &plain)),
        (TRUNK, tagged(&[(0x88a8, 5), (0x8100, 9)], &from_sub)),
        (TRUNK, tagged(&[(0x8100, 100), (0x8100, 7)], &plain)),
        (TRUNK, plain.clone()),
        (UNDERLAY, tunnelled(&plain, 42)),
        (UNDERLAY, tunnelled(&arp([10, 0, 0, 1]), 42)),
        (UNDERLAY, tunnelled(&plain, 41)),
        (UNDERLAY, tunnelled(&tunnelled(&plain, 42), 42)),
    ]
}

struct Attack {
    h: Harness,
    waiting: usize,
}

impl Attack {
    fn new(workers: usize) -> Attack {
        let h = bridge(workers);
        h.engine.trace_add("test-input", u32::MAX).unwrap();
        Attack { h, waiting: 0 }
    }

    fn frame(&mut self, interface: u32, frame: &[u8]) {
        self.h.receive(interface, frame);
        self.waiting += 1;
        if self.waiting == 500 {
            self.settle();
        }
    }

    fn settle(&mut self) {
        self.h.run();
        (1..=3).for_each(|i| drop(self.h.sent(i)));
        assert!(!self.h.trace().is_empty() || self.waiting == 0);
        self.h.engine.trace_clear();
        self.h.engine.trace_add("test-input", u32::MAX).unwrap();
        self.waiting = 0;
    }
}

impl Drop for Attack {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        self.settle();
        self.h.tick();
        let errors = self.h.errors();
        let reasons: u64 = errors.iter().filter(|(k, _)| !NOT_DROPS.contains(k)).map(|(_, n)| n).sum();
        assert_eq!(reasons, self.h.engine.balance().dropped, "{errors:?}");
    }
}

#[test]
fn what_is_right_arrives() {
    let mut h = bridge(1);
    for (interface, frame) in seeds() {
        h.receive(interface, &frame);
        h.run();
    }
    for (node, least) in [
        ("l2-fwd", 6),
        ("l2-flood", 3),
        ("arp-term-l2bd", 3),
        ("sub-interface-output", 4),
        ("vxlan4-encap", 3),
        ("vxlan4-input", 4),
        ("ip4-rewrite", 4),
    ] {
        let index = h.engine.graph().find(node).unwrap();
        let seen = h.engine.graph().nodes[index.index()].counters(wharf_engine::WorkerIndex(0))[1];
        assert!(seen >= least, "{node} saw {seen} packets: {:?}", h.errors());
    }
}

#[test]
fn tagged_frames_of_one_vector_are_as_they_are_alone() {
    let (mut together, mut alone) = (bridge(1), bridge(1));
    let mut random = 7u32;
    let mut below = |limit: usize| {
        random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        ((u64::from(random) * limit as u64) >> 32) as usize
    };
    // For the bridged sub-interface, with another priority too, for the routed one, for none, and without a tag.
    let tags: [&[u8]; 7] = [
        &[0x81, 0, 0, 100],
        &[0x81, 0, 0xe0, 100],
        &[0x81, 0, 0, 100, 0x81, 0, 0, 7],
        &[0x88, 0xa8, 0, 5, 0x81, 0, 0, 9],
        &[0x88, 0xa8, 0, 5],
        &[0x81, 0, 0, 101],
        &[],
    ];
    for _ in 0..2000 {
        let mut frame = Vec::new();
        for _ in 0..1 + below(8) {
            // Mostly the one of before.
            if frame.is_empty() || below(3) == 0 {
                frame = [station(2).0, station(below(4) as u8 + 10).0].concat();
                frame.extend(tags[below(tags.len())]);
                frame.extend([0x88, 0xb5]);
                frame.extend([0; 46]);
                // And some that end among their tags.
                if below(3) == 0 {
                    frame.truncate(10 + below(16));
                }
            }
            together.receive(TRUNK, &frame);
            alone.receive(TRUNK, &frame);
            alone.run();
        }
        together.run();
        for port in 1..=3 {
            let [mut a, mut b] = [&mut together, &mut alone].map(|h| h.sent(port));
            a.sort();
            b.sort();
            // The source port of the tunnel goes by the flow, and so does all that is compared.
            assert_eq!(a, b, "port {port}");
        }
    }
    let counts = |h: &Harness| {
        let rx = &h.engine.counters().rx;
        let of = |index: u32| (rx.get(index).packets, rx.get(index).bytes);
        (of(SUB_L2), of(SUB_L3), h.engine.balance().dropped, h.errors())
    };
    assert_eq!(counts(&together), counts(&alone));
    assert!(counts(&together).0.0 > 1000 && counts(&together).1.0 > 100, "{:?}", counts(&together));
}

#[test]
fn cut_at_every_byte() {
    let mut attack = Attack::new(2);
    for (interface, frame) in seeds() {
        for len in 0..=frame.len() {
            attack.frame(interface, &frame[..len]);
        }
    }
}

#[test]
fn every_byte_changed() {
    let mut attack = Attack::new(1);
    for (interface, frame) in seeds() {
        for at in 0..frame.len() {
            for value in [0, 1, 0x7f, 0x81, 0xff] {
                let mut changed = frame.clone();
                changed[at] = value;
                attack.frame(interface, &changed);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn made_up(
        frames in prop::collection::vec(
            (0usize..15, prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4), any::<bool>()),
            0..100,
        ),
    ) {
        let seeds = seeds();
        let mut attack = Attack::new(2);
        for (seed, changes, from_station) in frames {
            let (interface, mut frame) = seeds[seed].clone();
            for (at, value) in changes {
                let at = at.index(frame.len());
                frame[at] = value;
            }
            if from_station {
                let source = station(frame[11] & 15);
                frame[6..12].copy_from_slice(&source.0);
            }
            attack.frame(interface, &frame);
        }
    }
}
