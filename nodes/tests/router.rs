//! What each node does with good packets and bad ones, in the whole graph.

mod common;

use common::{HOST, MAC, NEIGHBOUR, Router, arp, check, echo, udp, with_header};
use std::net::Ipv4Addr;
use wharf_engine::SwIfIndex;
use wharf_nodes::event::Event;
use wharf_nodes::wire::MacAddress;

#[test]
fn a_packet_is_routed() {
    let mut r = Router::new(256);
    let sent = r.pass(1, &udp([10, 0, 2, 9], 64, 100), 2);
    assert_eq!(sent.len(), 1);
    check(&sent[0]);
    let mut expected = udp([10, 0, 2, 9], 63, 100);
    expected[..6].copy_from_slice(&NEIGHBOUR.0);
    expected[6..12].copy_from_slice(&MAC[2].0);
    assert_eq!(sent[0], expected);
    // The padding of a short frame is not forwarded.
    let mut padded = udp([10, 0, 2, 9], 64, 1);
    padded.resize(60, 0xee);
    let sent = r.pass(1, &padded, 2);
    assert_eq!(sent[0].len(), 14 + 28 + 1);
    check(&sent[0]);
}

#[test]
fn a_cross_connected_frame_is_untouched_whatever_it_is() {
    let mut r = Router::new(256);
    for frame in [udp([1, 2, 3, 4], 0, 10), arp(9, (HOST, [1; 4]), [2; 4]), vec![0x81; 14], vec![7; 1500]] {
        assert_eq!(r.pass(3, &frame, 4), std::slice::from_ref(&frame));
        assert_eq!(r.pass(4, &frame, 3), [frame]);
    }
    assert!(r.pass(3, &[1; 13], 4).is_empty());
    assert_eq!(r.h.error("l2-input", "truncated frame"), 1);
}

#[test]
fn arp_is_answered_and_learned() {
    let mut r = Router::new(256);
    let request = arp(1, (HOST, [10, 0, 1, 9]), [10, 0, 1, 1]);
    let sent = r.pass(1, &request, 1);
    let mut expected = HOST.0.to_vec();
    expected.extend(MAC[1].0);
    expected.extend([8, 6, 0, 1, 8, 0, 6, 4, 0, 2]);
    expected.extend(MAC[1].0);
    expected.extend([10, 0, 1, 1]);
    expected.extend(HOST.0);
    expected.extend([10, 0, 1, 9]);
    assert_eq!(sent, [expected]);
    let seen = Event::ArpSeen {
        interface: SwIfIndex(1),
        address: Ipv4Addr::new(10, 0, 1, 9),
        mac: HOST,
        for_us: true,
    };
    assert_eq!(r.events.take(10), [seen]);
    // A probe is answered, and teaches nothing.
    assert_eq!(r.pass(1, &arp(1, (HOST, [0; 4]), [10, 0, 1, 1]), 1).len(), 1);
    // Not for us; from elsewhere; with our address; a reply.
    let cases = [
        (arp(1, (HOST, [10, 0, 1, 9]), [10, 0, 1, 77]), "IP4 destination address not local"),
        (arp(1, (HOST, [10, 0, 7, 9]), [10, 0, 1, 1]), "IP4 source address not local to subnet"),
        (arp(1, (HOST, [10, 0, 1, 1]), [10, 0, 1, 9]), "IP4 source address matches local interface"),
        (arp(2, (HOST, [10, 0, 1, 9]), [10, 0, 1, 1]), "ARP replies received"),
        (arp(1, (HOST, [10, 0, 1, 9]), [10, 0, 1, 9]), "ARP probe or announcement learned"),
    ];
    for (frame, reason) in cases {
        assert!(r.pass(1, &frame, 1).is_empty());
        assert_eq!(r.h.error("arp-reply", reason), 1, "{reason}");
    }
    let mut wrong_outer = arp(1, (HOST, [10, 0, 1, 9]), [10, 0, 1, 1]);
    wrong_outer[6] = 6;
    let mut hlen = arp(1, (HOST, [10, 0, 1, 9]), [10, 0, 1, 1]);
    hlen[18] = 5;
    let group = MacAddress([1, 0, 0, 0, 0, 1]);
    let cases = [
        (wrong_outer, 1, "Hw addr mismatch"),
        (hlen, 1, "ARP hw or protocol type is not Ethernet and IP4"),
        (arp(3, (HOST, [10, 0, 1, 9]), [10, 0, 1, 1]), 1, "Unknown ARP opcode"),
        (arp(1, (group, [10, 0, 1, 9]), [10, 0, 1, 1]), 1, "ARP sender MAC is a group address or zero"),
        (arp(1, (HOST, [10, 0, 1, 9]), [10, 0, 1, 1]), 5, "ARP Disabled on this interface"),
        (arp(1, (HOST, [10, 0, 1, 9]), [10, 0, 1, 1])[..30].to_vec(), 1, "truncated ARP packet"),
    ];
    for (frame, interface, reason) in cases {
        assert!(r.pass(interface, &frame, interface).is_empty());
        assert_eq!(r.h.error("arp-input", reason), 1, "{reason}");
    }
}

#[test]
fn a_ping_is_answered_with_its_data() {
    let mut r = Router::new(256);
    let data: Vec<u8> = (0..200).collect();
    let sent = r.pass(1, &echo([10, 0, 2, 1], &data), 1);
    assert_eq!(sent.len(), 1);
    check(&sent[0]);
    assert_eq!(&sent[0][..12], [HOST.0, MAC[1].0].concat());
    assert_eq!((sent[0][34], &sent[0][26..34]), (0, &[10, 0, 2, 1, 10, 0, 1, 9][..]));
    assert_eq!(&sent[0][42..], data);
    let mut broken = echo([10, 0, 2, 1], &data);
    broken[60] ^= 1;
    assert!(r.pass(1, &broken, 1).is_empty());
    assert_eq!(r.h.error("ip4-icmp-input", "bad icmp4 checksum"), 1);
    // What else is for us goes to the host.
    r.pass(1, &udp([10, 0, 1, 1], 1, 5), 1);
    assert_eq!(r.h.error("ip4-punt", "UDP packets punted"), 1);
    assert_eq!(r.h.engine.balance().punted, 1);
}

#[test]
fn each_bad_header_has_its_counter() {
    let good = || udp([20, 0, 0, 1], 64, 40);
    let options = |words: u8| {
        let mut frame = good();
        frame.splice(34..34, vec![1; usize::from(words - 5) * 4]);
        let len = frame.len() - 14;
        with_header(frame, |ip| {
            ip[0] = 0x40 | words;
            ip[2..4].copy_from_slice(&(len as u16).to_be_bytes());
        })
    };
    let mut checksum = good();
    checksum[25] ^= 1;
    let fragment = |bits: u16, protocol: u8| {
        with_header(good(), |ip| {
            ip[6..8].copy_from_slice(&bits.to_be_bytes());
            ip[9] = protocol;
        })
    };
    let src = |a: [u8; 4]| with_header(good(), |ip| ip[12..16].copy_from_slice(&a));
    let dst = |a: [u8; 4]| with_header(good(), |ip| ip[16..20].copy_from_slice(&a));
    let cases: Vec<(Vec<u8>, &str)> = vec![
        (good()[..14 + 19].to_vec(), "ip4 length < 20 bytes"),
        (with_header(good(), |ip| ip[2..4].copy_from_slice(&[0, 19])), "ip4 length < 20 bytes"),
        (with_header(good(), |ip| ip[2..4].copy_from_slice(&[5, 220])), "ip4 length > l2 length"),
        (with_header(good(), |ip| ip[0] = 0x44), "ip4 header length < 20 bytes or > ip4 length"),
        (
            with_header(good()[..14 + 30].to_vec(), |ip| (ip[0], ip[2], ip[3]) = (0x4f, 0, 30)),
            "ip4 header length < 20 bytes or > ip4 length",
        ),
        (checksum, "bad ip4 checksum"),
        (with_header(good(), |ip| ip[0] = 0x65), "ip4 version != 4"),
        (with_header(good(), |ip| ip[0] = 0x05), "ip4 version != 4"),
        (with_header(good(), |ip| ip[8] = 0), "ip4 ttl = 0"),
        (fragment(1, 6), "ip4 fragment offset == 1"),
        (fragment(0x1fff, 17), "ip4 fragment ends beyond 65535 bytes"),
        (src([224, 0, 0, 1]), "ip4 source is not a unicast address"),
        (src([255; 4]), "ip4 source is not a unicast address"),
        (src([127, 0, 0, 1]), "ip4 source is not a unicast address"),
        (src([0, 0, 0, 0]), "ip4 source is not a unicast address"),
        (dst([127, 0, 0, 1]), "ip4 destination is not a valid address"),
        (dst([0, 1, 2, 3]), "ip4 destination is not a valid address"),
        (dst([255; 4]), "ip4 destination is not a valid address"),
        (dst([224, 0, 0, 5]), "ip4 multicast is not forwarded"),
    ];
    for (frame, reason) in cases {
        let mut r = Router::new(256);
        assert!(r.pass(1, &frame, 2).is_empty(), "{reason}");
        assert_eq!(r.h.error("ip4-input", reason), 1, "{reason}: {:?}", r.h.errors());
    }
    // And what is unusual but right goes through.
    for frame in [options(6), options(15), fragment(0x2000, 17), fragment(5, 17), fragment(0x4000, 6)] {
        let mut r = Router::new(256);
        assert_eq!(r.pass(1, &frame, 2).len(), 1, "{:?}", r.h.errors());
    }
    let mut r = Router::new(256);
    let mut other = good();
    other[..6].copy_from_slice(&MAC[5].0);
    r.pass(5, &other, 2);
    assert_eq!(r.h.error("ip4-input", "ip4 not enabled on this interface"), 1);
}

#[test]
fn each_bad_frame_has_its_counter() {
    let typed = |ethertype: u16| {
        let mut frame = udp([20, 0, 0, 1], 64, 40);
        frame[12..14].copy_from_slice(&ethertype.to_be_bytes());
        frame
    };
    let mut foreign = udp([20, 0, 0, 1], 64, 40);
    foreign[5] = 77;
    let cases = [
        (vec![1; 13], "truncated frame"),
        (vec![], "truncated frame"),
        (typed(0x8100), "unknown vlan"),
        (typed(0x88a8), "unknown vlan"),
        (typed(0x86dd), "unknown ethernet type"),
        (typed(100), "bad llc length"),
        (foreign, "l3 mac mismatch"),
    ];
    for (frame, reason) in cases {
        let mut r = Router::new(256);
        r.pass(1, &frame, 2);
        assert_eq!(r.h.error("ethernet-input", reason), 1, "{reason}: {:?}", r.h.errors());
    }
}

#[test]
fn the_sender_is_told_why() {
    let told = |frame: &[u8], kind: u8, code: u8, mtu: u16| {
        let mut r = Router::new(256);
        let sent = r.pass(1, frame, 1);
        assert_eq!(sent.len(), 1, "{:?}", r.h.errors());
        check(&sent[0]);
        assert_eq!((sent[0][34], sent[0][35]), (kind, code));
        assert_eq!(sent[0][40..42], mtu.to_be_bytes());
        assert_eq!(sent[0][26..34], [10, 0, 1, 1, 10, 0, 1, 9]);
        let quoted = (frame.len() - 14).min(576 - 28);
        assert_eq!(sent[0][42..], frame[14..14 + quoted]);
    };
    told(&udp([20, 0, 0, 1], 1, 40), 11, 0, 0);
    told(&udp([99, 0, 0, 1], 64, 40), 3, 0, 0);
    let dont_fragment = with_header(udp([20, 7, 0, 1], 64, 1000), |ip| ip[6] = 0x40);
    told(&dont_fragment, 3, 4, 1000);

    let mut r = Router::new(256);
    let fragmentable = with_header(udp([20, 7, 0, 1], 64, 1000), |ip| ip[6] = 0);
    assert!(r.pass(1, &fragmentable, 2).is_empty());
    assert_eq!(r.h.error("ip4-rewrite", "ip4 MTU exceeded, fragmentation is not supported"), 1);
    // Nothing about errors, nothing about later fragments.
    let mut error = echo([99, 0, 0, 1], &[0; 28]);
    error[34] = 3;
    r.pass(1, &error, 1);
    assert_eq!(r.h.error("ip4-icmp-error", "no icmp4 error about an icmp4 error"), 1);
    let later = with_header(udp([99, 0, 0, 1], 64, 40), |ip| ip[7] = 9);
    r.pass(1, &later, 1);
    assert_eq!(r.h.error("ip4-icmp-error", "no icmp4 error about a later fragment"), 1);
    assert!(r.h.sent(1).is_empty());
    for _ in 0..2000 {
        r.h.receive(1, &udp([99, 0, 0, 1], 64, 40));
    }
    r.h.run();
    let (told, limited) = (r.h.sent(1).len() as u64, r.h.error("ip4-icmp-error", "icmp4 error rate limited"));
    assert_eq!(told + limited, 2000);
    assert!(limited > 1000, "{limited}");
    r.pass(1, &udp([20, 9, 0, 1], 64, 40), 1);
    assert_eq!(r.h.error("ip4-lookup", "route says drop"), 1);
    r.pass(1, &udp([20, 8, 0, 1], 64, 40), 1);
    assert_eq!(r.h.error("ip4-punt", "UDP packets punted"), 1);
}

#[test]
fn packets_wait_for_a_neighbour() {
    let mut r = Router::new(256);
    for n in 0..5 {
        r.h.receive(1, &udp([10, 0, 2, 33], 64, n));
    }
    r.h.run();
    assert_eq!(r.h.error("ip4-arp", "ARP pending queue full"), 2);
    let asked = Event::Resolve { interface: SwIfIndex(2), address: Ipv4Addr::new(10, 0, 2, 33) };
    assert_eq!(r.events.take(10), [asked]);
    r.h.tick();
    assert_eq!(r.h.engine.balance().held, 3);
    r.resolve();
    r.h.run();
    let sent = r.h.sent(2);
    assert_eq!(sent.iter().map(Vec::len).collect::<Vec<_>>(), [42, 43, 44]);
    sent.iter().for_each(|f| check(f));
}

/// Frames of every kind that the nodes know.
fn seeds() -> Vec<(u32, Vec<u8>)> {
    let mut list = vec![
        (1, udp([20, 0, 0, 1], 64, 20)),
        (1, udp([10, 0, 2, 33], 64, 20)),
        (1, udp([10, 0, 1, 1], 64, 20)),
        (1, udp([99, 0, 0, 1], 64, 20)),
        (1, udp([20, 0, 0, 1], 1, 20)),
        (1, echo([10, 0, 1, 1], &[5; 30])),
        (1, arp(1, (HOST, [10, 0, 1, 9]), [10, 0, 1, 1])),
        (1, arp(2, (HOST, [10, 0, 1, 9]), [10, 0, 1, 1])),
        (3, udp([20, 0, 0, 1], 64, 20)),
    ];
    let mut reply = echo([10, 0, 1, 1], &[5; 30]);
    reply[34] = 0;
    list.push((1, reply));
    let mut options = udp([20, 0, 0, 1], 64, 20);
    options.splice(34..34, [7, 7, 4, 0, 0, 0, 0, 0]);
    options[17] += 8;
    list.push((1, with_header(options, |ip| ip[0] = 0x47)));
    list
}

#[test]
fn cut_and_changed_frames_harm_nothing() {
    let mut r = Router::new(256);
    r.h.engine.trace_add("test-input", 100_000).unwrap();
    let mut count = 0u64;
    for (interface, seed) in seeds() {
        for cut in 0..=seed.len() {
            r.h.receive(interface, &seed[..cut]);
            count += 1;
        }
        for at in 0..seed.len() {
            for change in [0, 0xff, seed[at].wrapping_add(1), seed[at].wrapping_sub(1)] {
                let mut frame = seed.clone();
                frame[at] = change;
                r.h.receive(interface, &frame);
                count += 1;
            }
        }
        r.h.run();
        for out in 1..=5 {
            r.h.sent(out);
        }
        // Whatever the bytes are, a trace of them can be printed.
        assert!(r.h.trace().contains("ethernet-input"));
        r.h.engine.trace_clear();
        r.h.engine.trace_add("test-input", 100_000).unwrap();
    }
    assert_eq!(r.h.engine.balance().received, count);
    assert!(count > 2500, "{count}");
}

#[test]
fn vectors_of_any_size_give_the_same() {
    let run = |burst: usize| {
        let mut r = Router::new(burst);
        for n in 0..300usize {
            let (interface, frame) = &seeds()[n * 7 % seeds().len()];
            // Errors are rate limited by time, and neighbours' queues by how many wait: leave both out.
            if frame[14 + 16..14 + 20] != [99, 0, 0, 1] && frame[14 + 8] != 1 && frame[14 + 19] != 33 {
                r.h.receive(*interface, frame);
            }
        }
        r.h.run();
        (1..=5)
            .map(|i| {
                let mut sent = r.h.sent(i);
                sent.sort();
                sent
            })
            .collect::<Vec<_>>()
    };
    let expected = run(256);
    assert!(expected.iter().any(|sent| !sent.is_empty()));
    for burst in [1, 3, 4, 7, 64, 255] {
        assert_eq!(run(burst), expected, "{burst}");
    }
}

#[test]
fn a_trace_reads_like_vpps() {
    let mut r = Router::new(256);
    r.h.engine.trace_add("test-input", 10).unwrap();
    r.pass(1, &udp([10, 0, 2, 9], 64, 1), 2);
    r.pass(3, &udp([10, 0, 2, 9], 64, 1), 4);
    let trace = r.h.trace();
    let nodes: Vec<&str> = trace.lines().filter(|l| !l.starts_with(' ') && !l.is_empty()).collect();
    assert_eq!(
        nodes,
        [
            "test-input",
            "ethernet-input",
            "ip4-input",
            "ip4-lookup",
            "ip4-rewrite",
            "interface-output",
            "eth2-tx",
            "test-input",
            "ethernet-input",
            "l2-input",
            "interface-output",
            "x2-tx"
        ]
    );
    for text in [
        "IP4: 02:00:00:00:01:09 -> 02:00:00:00:00:01",
        "UDP: 10.0.1.9 -> 10.0.2.9",
        "tos 0x00, ttl 64, length 29",
        "tx eth2 adj-idx 1",
        "ttl 63",
        "l2-input: sw_if_index 3 dst 02:00:00:00:00:01 src 02:00:00:00:01:09 [l2-xconnect ]",
    ] {
        assert!(trace.contains(text), "{text} is not in\n{trace}");
    }
}
