//! Packets that are cut, changed and made up, with tracing on: nothing is lost, each drop has one named reason, everything
//! that is sent is well formed, and any trace can be printed.

mod common;

use common::{HOST, MAC, Router, arp, check, echo, udp, with_header, with_options};
use proptest::prelude::*;
use wharf_engine::dispatch::CpuLevel;

/// What nodes count besides their drops.
const NOT_DROPS: &[(&str, &str)] = &[
    ("arp-reply", "ARP replies sent"),
    ("arp-reply", "control plane is behind, neighbour not learned"),
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
];

/// Feeds frames to a router that traces them all, and checks what comes out.
struct Attack {
    r: Router,
    waiting: usize,
}

impl Attack {
    fn new(burst: usize) -> Attack {
        let r = Router::new(burst);
        r.h.engine.trace_add("test-input", u32::MAX).unwrap();
        Attack { r, waiting: 0 }
    }

    fn frame(&mut self, interface: u32, frame: &[u8]) {
        self.r.h.receive(interface, frame);
        self.waiting += 1;
        // Before the trace buffer is full.
        if self.waiting == 2000 {
            self.settle();
        }
    }

    /// Runs, checks what is sent and prints the traces; returns how many frames were sent.
    fn settle(&mut self) -> usize {
        let all = self.r.all_sent();
        // A cross-connected frame is whatever it was.
        for (_, frame) in all.iter().filter(|(interface, _)| *interface < 3) {
            well_formed(frame);
        }
        let trace = self.r.h.trace();
        assert_eq!(trace.lines().filter(|line| *line == "test-input").count(), self.waiting);
        self.r.h.engine.trace_clear();
        self.r.h.engine.trace_add("test-input", u32::MAX).unwrap();
        self.r.events.take(usize::MAX);
        self.waiting = 0;
        all.len()
    }
}

impl Drop for Attack {
    /// Each drop has one reason. What became of everything else, the harness checks.
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        self.settle();
        self.r.h.tick();
        let errors = self.r.h.errors();
        let reasons: u64 = errors.iter().filter(|(k, _)| !NOT_DROPS.contains(k)).map(|(_, n)| n).sum();
        assert_eq!(reasons, self.r.h.engine.balance().dropped, "{errors:?}");
    }
}

/// Of an ARP or IPv4 frame that a node sent: lengths and header checksums; and all of it if the message is our own.
fn well_formed(frame: &[u8]) {
    let ours = matches!(frame[26..30], [10, 0, 1 | 2, 1]);
    if frame[12..14] == [8, 6] {
        assert_eq!((frame.len(), &frame[20..22]), (42, &[0, 2][..]));
    } else if ours {
        check(frame);
    } else {
        let ip = etherparse::Ipv4HeaderSlice::from_slice(&frame[14..]).unwrap();
        assert_eq!(usize::from(ip.total_len()), frame.len() - 14);
        assert!(ip.ttl() > 0);
        let header = ip.slice();
        assert_eq!(wharf_nodes::wire::checksum::ones_complement_sum(header), 0xffff);
    }
}

fn tcp(dst: [u8; 4], options: &[etherparse::TcpOptionElement]) -> Vec<u8> {
    let mut frame = Vec::new();
    etherparse::PacketBuilder::ethernet2(HOST.0, MAC[1].0)
        .ipv4([10, 0, 1, 9], dst, 64)
        .tcp(40000, 179, 1, 65535)
        .syn()
        .options(options)
        .unwrap()
        .write(&mut frame, &[1, 2, 3])
        .unwrap();
    frame
}

fn tagged(tags: usize, frame: &[u8]) -> Vec<u8> {
    let mut out = frame[..12].to_vec();
    (0..tags).for_each(|n| out.extend([0x81, 0, 0, n as u8]));
    out.extend_from_slice(&frame[12..]);
    out
}

/// Frames of every kind that the nodes know, and of some that they don't.
fn seeds() -> Vec<(u32, Vec<u8>)> {
    use etherparse::TcpOptionElement::{MaximumSegmentSize, Noop, WindowScale};
    let us = [10, 0, 1, 1];
    let out = [20, 0, 0, 1];
    let fragment = |dst, bits: [u8; 2]| with_header(udp(dst, 64, 16), |ip| ip[6..8].copy_from_slice(&bits));
    let kind = |dst, kind: u8| {
        let mut frame = echo(dst, &[0x45, 0, 0, 20, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
        let sum = u16::from_be_bytes([frame[36], frame[37]]);
        frame[34] = kind;
        let sum = wharf_nodes::wire::checksum::update_u16(sum, 0x0800, u16::from(kind) << 8);
        frame[36..38].copy_from_slice(&sum.to_be_bytes());
        frame
    };
    let protocol = |p: u8| with_header(udp(out, 64, 24), |ip| ip[9] = p);
    let mut padded = udp(out, 64, 1);
    padded.resize(60, 0);
    let mut llc = udp(out, 64, 16);
    llc[12..14].copy_from_slice(&[0, 46]);
    let ip6 = [&MAC[1].0[..], &HOST.0, &[0x86, 0xdd, 0x60], &[0; 39]].concat();
    let group = [&[1, 0, 0x5e, 0, 0, 5][..], &with_header(udp(out, 1, 4), |ip| ip[16] = 224)[6..]].concat();
    let mut list = vec![
        udp(out, 64, 20),
        udp(out, 1, 20),
        udp([20, 6, 0, 1], 64, 4),
        udp([20, 8, 0, 1], 64, 4),
        udp([20, 9, 0, 1], 64, 4),
        udp([10, 0, 2, 33], 64, 20),
        udp([31, 0, 0, 1], 64, 20),
        udp(us, 64, 20),
        udp([99, 0, 0, 1], 64, 20),
        with_header(udp([20, 7, 0, 1], 64, 973), |ip| ip[6] = 0x40),
        padded,
        tcp(out, &[]),
        tcp(us, &[MaximumSegmentSize(1460), Noop, WindowScale(7)]),
        with_options(tcp(out, &[]), 10),
        with_options(udp(us, 64, 4), 1),
        with_options(echo(us, &[1; 9]), 3),
        echo(us, &[]),
        echo(us, &[5; 31]),
        echo([99, 0, 0, 1], &[5; 8]),
        kind(us, 0),
        kind(us, 3),
        kind(us, 11),
        kind(us, 13),
        kind([99, 0, 0, 1], 5),
        fragment(out, [0x20, 0]),
        fragment(out, [0x20, 1]),
        fragment(out, [0, 9]),
        fragment(us, [0x20, 0]),
        fragment([99, 0, 0, 1], [0, 9]),
        protocol(4),
        protocol(41),
        protocol(47),
        protocol(50),
        arp(1, (HOST, [10, 0, 1, 9]), us),
        arp(2, (HOST, [10, 0, 1, 9]), us),
        arp(1, (HOST, [0; 4]), us),
        arp(1, (HOST, [10, 0, 1, 9]), [10, 0, 1, 9]),
        tagged(1, &udp(out, 64, 4)),
        tagged(2, &arp(1, (HOST, [10, 0, 1, 9]), us)),
        tagged(8, &udp(out, 64, 4)),
        llc,
        ip6,
        group,
    ]
    .into_iter()
    .map(|frame| (1, frame))
    .collect::<Vec<_>>();
    list.push((3, udp(out, 64, 4)));
    list.push((5, [&MAC[5].0[..], &udp(out, 64, 4)[6..]].concat()));
    list
}

#[test]
fn cut_at_every_byte() {
    let mut attack = Attack::new(256);
    for (interface, seed) in seeds() {
        for cut in 0..=seed.len() {
            attack.frame(interface, &seed[..cut]);
        }
    }
}

#[test]
fn changed_at_every_byte() {
    let mut attack = Attack::new(64);
    for (interface, seed) in seeds() {
        // Of a long payload the beginning is enough.
        for at in 0..seed.len().min(140) {
            for value in [0, 0xff, seed[at].wrapping_add(1), seed[at].wrapping_sub(1)] {
                let mut frame = seed.clone();
                frame[at] = value;
                attack.frame(interface, &frame);
                // With a right checksum what is wrong gets further.
                if (14..34).contains(&at) && frame[12..14] == [8, 0] {
                    attack.frame(interface, &with_header(frame, |_| ()));
                }
            }
        }
    }
}

#[test]
fn every_pair_of_header_fields_at_its_limits() {
    // First byte, lengths, fragment bits, TTL and protocol, two at a time, with a right checksum.
    let fields: [(usize, &[u8]); 7] = [
        (0, &[0x40, 0x44, 0x45, 0x46, 0x4f, 0x65]),
        (2, &[0, 1, 0xff]),
        (3, &[0, 19, 20, 21, 48, 0xff]),
        (6, &[0, 0x20, 0x40, 0x80, 0x1f, 0xff]),
        (7, &[0, 1, 2, 0xff]),
        (8, &[0, 1, 2, 255]),
        (9, &[0, 1, 6, 17, 255]),
    ];
    let mut attack = Attack::new(256);
    for dst in [[20, 0, 0, 1], [10, 0, 1, 1], [99, 0, 0, 1], [10, 0, 2, 33]] {
        for (i, (a, values)) in fields.iter().enumerate() {
            for (b, others) in &fields[i + 1..] {
                for value in *values {
                    for other in *others {
                        let frame = with_header(udp(dst, 64, 40), |ip| (ip[*a], ip[*b]) = (*value, *other));
                        attack.frame(1, &frame);
                    }
                }
            }
        }
    }
}

#[test]
fn frames_of_every_length() {
    let mut attack = Attack::new(256);
    for len in 0..=2048usize {
        for (interface, fill) in [(1, 0), (1, 0xff), (3, 0x45)] {
            attack.frame(interface, &vec![fill; len]);
        }
        let payload = len.saturating_sub(42);
        attack.frame(1, &udp([20, 0, 0, 1], 64, payload));
        attack.frame(1, &with_header(udp([20, 7, 0, 1], 64, payload), |ip| ip[6] = 0x40));
        attack.frame(1, &echo([10, 0, 1, 1], &vec![1; payload]));
    }
    // The longest frames are forwarded where the MTU allows it.
    attack.settle();
    attack.r.change(|tables| tables.adjacencies[1].mtu = u16::MAX);
    attack.frame(1, &udp([20, 0, 0, 1], 64, 2048 - 42));
    assert_eq!(attack.settle(), 1);
}

/// The same packets give the same bytes however they are cut into vectors, with tracing on, and with any instruction set.
#[test]
fn vectors_of_any_size_give_the_same_bytes() {
    let run = |burst: usize, trace: bool, level: CpuLevel| {
        let mut r = Router::with_level(burst, level);
        if trace {
            r.h.engine.trace_add("test-input", 97).unwrap();
        }
        let seeds: Vec<_> = seeds()
            .into_iter()
            .filter(|(_, frame)| {
                // The limit of errors depends on time, and that of waiting packets on ticks.
                let dst = &frame[frame.len().min(30)..frame.len().min(34)];
                !matches!(dst, [99, ..] | [10, 0, 2, 33] | [31, ..] | [20, 7, ..]) && frame[22] != 1
            })
            .collect();
        assert!(seeds.len() > 30, "{}", seeds.len());
        for n in 0..512usize {
            let (interface, frame) = &seeds[(n * 7 + n / 64) % seeds.len()];
            r.h.receive(*interface, frame);
        }
        let mut sent = r.all_sent();
        sent.sort();
        let counted = (r.h.engine.balance(), r.h.errors(), r.adjacency_count(1).bytes);
        (sent, counted.0.dropped, counted.0.punted, counted.1, counted.2)
    };
    let best = CpuLevel::detect();
    let expected = run(256, false, best);
    assert!(expected.0.len() > 100 && expected.1 > 50 && expected.2 > 10);
    for burst in [1, 2, 3, 4, 5, 7, 8, 9, 13, 64, 255] {
        assert_eq!(run(burst, burst % 2 == 1, best), expected, "{burst}");
    }
    for level in [CpuLevel::Base, CpuLevel::V3, CpuLevel::V4] {
        assert_eq!(run(256, false, level), expected, "{level:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn bytes_at_random(
        frames in prop::collection::vec(
            (1u32..=5, prop::sample::select(seeds()), prop::collection::vec((0usize..80, any::<u8>()), 0..6), any::<bool>()),
            1..400,
        ),
        burst in 1usize..=256,
    ) {
        let mut attack = Attack::new(burst);
        for (interface, (_, mut frame), changes, repaired) in frames {
            for (at, value) in changes {
                if let Some(byte) = frame.get_mut(at) {
                    *byte = value;
                }
            }
            if repaired && frame.len() >= 34 {
                frame = with_header(frame, |_| ());
            }
            attack.frame(interface, &frame);
        }
    }
}
