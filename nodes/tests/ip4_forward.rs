//! The IPv4 path from `ip4-input` to `interface-output`: exact bytes, and every field at its limits.

mod common;

use common::{HOST, MAC, NEIGHBOUR, Router, check, udp, with_header, with_options};
use std::sync::Arc;
use wharf_engine::SwIfIndex;
use wharf_engine::counter::Combined;
use wharf_engine::mtrie::MtrieWriter;
use wharf_nodes::interface::{InputMode, InterfaceEntry, InterfaceTables};
use wharf_nodes::ip4::{AdjIndex, AdjacencyKind, CountedRoutes};
use wharf_nodes::l2::{L2Port, L2Tables, PortMode};

/// What must come out of interface 2 for a frame that was routed there.
fn routed(frame: &[u8]) -> Vec<u8> {
    let mut out = [&NEIGHBOUR.0[..], &MAC[2].0, &frame[12..]].concat();
    out[22] -= 1;
    with_header(out, |_| ())
}

#[test]
fn the_bytes_of_a_routed_packet() {
    #[rustfmt::skip]
    let received = [
        2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 1, 9, 8, 0,
        0x45, 0xb9, 0, 30, 0x12, 0x34, 0x40, 0, 64, 17, 0x08, 0xd9, 10, 0, 1, 9, 20, 0, 0, 1,
        0x03, 0xe8, 0x07, 0xd0, 0, 10, 0xbe, 0xef, 0x61, 0x62, 0xee, 0xee, 0xee,
    ];
    #[rustfmt::skip]
    let expected = [
        2, 0, 0, 0, 9, 9, 2, 0, 0, 0, 0, 2, 8, 0,
        0x45, 0xb9, 0, 30, 0x12, 0x34, 0x40, 0, 63, 17, 0x09, 0xd9, 10, 0, 1, 9, 20, 0, 0, 1,
        0x03, 0xe8, 0x07, 0xd0, 0, 10, 0xbe, 0xef, 0x61, 0x62,
    ];
    let mut r = Router::new(256);
    assert_eq!(r.pass(1, &received, 2), [expected]);
    // The adjacency counts whole frames, the interface what it took in.
    let counted = r.adjacency_count(1);
    assert_eq!((counted.packets, counted.bytes), (1, 44));
    assert_eq!(r.h.engine.counters().ip4.get(1).packets, 1);
}

#[test]
fn the_checksum_at_the_ends_of_its_range() {
    // The identifications with which this header's checksum is 0x0000, 0xff00, 0xfeff. All ones is as good as zero.
    for (id, checksum, written) in [
        (0x1bc6u16, 0x0000u16, 0x0000u16),
        (0x1bc6, 0, 0xffff),
        (0x1cc5, 0xff00, 0xff00),
        (0x1cc6, 0xfeff, 0xfeff),
    ] {
        let mut frame = with_header(udp([20, 0, 0, 1], 64, 2), |ip| {
            ip[4..6].copy_from_slice(&id.to_be_bytes());
            ip[6] = 0x40;
        });
        assert_eq!(frame[24..26], checksum.to_be_bytes(), "{id:#x}");
        frame[24..26].copy_from_slice(&written.to_be_bytes());
        let mut r = Router::new(256);
        let sent = r.pass(1, &frame, 2);
        assert_eq!(sent, [routed(&frame)], "{id:#x} {written:#x}");
        check(&sent[0]);
    }
}

#[test]
fn ttls() {
    let mut r = Router::new(256);
    r.drops(&udp([20, 0, 0, 1], 0, 4), "ip4-input", "ip4 ttl = 0");
    for ttl in [2, 3, 64, 128, 255] {
        let frame = udp([20, 0, 0, 1], ttl, 4);
        assert_eq!(r.pass(1, &frame, 2), [routed(&frame)], "ttl {ttl}");
    }
    let told = r.pass(1, &udp([20, 0, 0, 1], 1, 4), 1);
    assert_eq!((told.len(), told[0][34], told[0][42 + 8]), (1, 11, 1), "quoted as it was received");
    assert_eq!(r.h.error("ip4-rewrite", "ip4 ttl <= 1"), 1);
    // For us, a TTL of 1 is enough.
    assert!(r.pass(1, &udp([10, 0, 1, 1], 1, 4), 1).is_empty());
    assert_eq!(r.h.error("ip4-punt", "UDP packets punted"), 1);
}

/// RFC 1812 section 5.3.1 comes before 4.2.2.7: what has lived too long is not measured.
#[test]
fn an_expired_packet_that_is_also_too_long_has_expired() {
    for dont_fragment in [0, 0x40] {
        let mut r = Router::new(256);
        let frame = with_header(udp([20, 7, 0, 1], 1, 1200), |ip| ip[6] = dont_fragment);
        let told = r.pass(1, &frame, 1);
        assert_eq!(told.iter().map(|f| (f[34], f[35])).collect::<Vec<_>>(), [(11, 0)], "{:?}", r.h.errors());
    }
}

#[test]
fn headers_of_every_length() {
    for words in 0..=10 {
        let mut r = Router::new(256);
        let frame = with_options(udp([20, 0, 0, 1], 64, 33), words);
        let sent = r.pass(1, &frame, 2);
        assert_eq!(sent, [routed(&frame)], "{words} words of options: {:?}", r.h.errors());
        check(&sent[0]);
        // Options count in the checksum.
        if words > 0 {
            let mut broken = frame.clone();
            broken[35] ^= 0x40;
            r.drops(&broken, "ip4-input", "bad ip4 checksum");
        }
        // A header as long as its packet is the shortest possible.
        let header = 20 + usize::from(words) * 4;
        let bare = with_header(frame[..14 + header].to_vec(), |ip| {
            (ip[2], ip[3], ip[9]) = (0, header as u8, 59);
        });
        assert_eq!(r.pass(1, &bare, 2), [routed(&bare)]);
        // One byte less than the header is none.
        let cut = with_header(bare, |ip| ip[3] -= 1);
        let reason =
            if words == 0 { "ip4 length < 20 bytes" } else { "ip4 header length < 20 bytes or > ip4 length" };
        r.drops(&cut, "ip4-input", reason);
    }
    for ihl in 0..5 {
        let frame = with_header(udp([20, 0, 0, 1], 64, 33), |ip| ip[0] = 0x40 | ihl);
        Router::new(256).drops(&frame, "ip4-input", "ip4 header length < 20 bytes or > ip4 length");
    }
    for version in (0..16u8).filter(|v| *v != 4) {
        let frame = with_header(udp([20, 0, 0, 1], 64, 33), |ip| ip[0] = version << 4 | 5);
        Router::new(256).drops(&frame, "ip4-input", "ip4 version != 4");
    }
}

#[test]
fn what_a_router_does_not_care_about_stays() {
    let mut r = Router::new(256);
    for tos in [0, 0xb9, 0xff] {
        for protocol in [0, 2, 6, 17, 47, 50, 132, 255] {
            // Don't fragment, the reserved bit, and all kinds of fragments.
            for bits in [0u16, 0x4000, 0x8000, 0x2000, 0x2001, 0x0002, 0x1f00] {
                if bits & 0x1fff == 1 && protocol == 6 {
                    continue;
                }
                let frame = with_header(udp([20, 1, 2, 3], 9, 21), |ip| {
                    (ip[1], ip[9]) = (tos, protocol);
                    ip[6..8].copy_from_slice(&bits.to_be_bytes());
                });
                assert_eq!(r.pass(1, &frame, 2), [routed(&frame)], "{tos} {protocol} {bits:#x}");
            }
        }
    }
}

#[test]
fn fragments_that_attack() {
    let fragment = |bits: u16, protocol: u8, len: usize| {
        with_header(udp([20, 0, 0, 1], 64, len - 28), |ip| {
            ip[6..8].copy_from_slice(&bits.to_be_bytes());
            ip[9] = protocol;
        })
    };
    let mut r = Router::new(256);
    for bits in [1, 0x2001, 0x4001] {
        r.drops(&fragment(bits, 6, 60), "ip4-input", "ip4 fragment offset == 1");
    }
    // 8189 * 8 = 65512: 3 more bytes with the header of 20 are the most.
    let last = fragment(0x1ffd, 17, 28);
    assert_eq!(last.len(), 42);
    let fits = with_header(last[..14 + 23].to_vec(), |ip| ip[3] = 23);
    assert_eq!(r.pass(1, &fits, 2), [routed(&fits)]);
    let over = with_header(last[..14 + 24].to_vec(), |ip| ip[3] = 24);
    r.drops(&over, "ip4-input", "ip4 fragment ends beyond 65535 bytes");
    r.drops(&fragment(0x1fff, 17, 1500), "ip4-input", "ip4 fragment ends beyond 65535 bytes");
    // Fragments for us are refused, first, middle and last.
    for bits in [0x2000, 0x2002, 2] {
        let frame = with_header(fragment(bits, 1, 60), |ip| ip[16..20].copy_from_slice(&[10, 0, 1, 1]));
        r.drops(&frame, "ip4-local", "ip4 fragment for us is not reassembled");
    }
}

#[test]
fn addresses_that_nobody_has() {
    let at = |at: usize, a: [u8; 4]| {
        with_header(udp([20, 0, 0, 1], 64, 9), |ip| ip[at..at + 4].copy_from_slice(&a))
    };
    let mut r = Router::new(256);
    for first in [0, 127, 224, 239, 240, 255] {
        for rest in [[0, 0, 0], [0, 0, 1], [255, 255, 255]] {
            let address = [first, rest[0], rest[1], rest[2]];
            r.drops(&at(12, address), "ip4-input", "ip4 source is not a unicast address");
            let reason = match first {
                224 | 239 => "ip4 multicast is not forwarded",
                _ => "ip4 destination is not a valid address",
            };
            r.drops(&at(16, address), "ip4-input", reason);
        }
    }
    for first in [1, 20, 126, 128, 223] {
        let frame = at(12, [first, 255, 255, 255]);
        assert_eq!(r.pass(1, &frame, 2), [routed(&frame)]);
    }
    // A packet to its own sender is odd, and no harm.
    let frame = at(12, [20, 0, 0, 1]);
    assert_eq!(r.pass(1, &frame, 2), [routed(&frame)]);
}

#[test]
fn lengths_and_padding() {
    let mut r = Router::new(256);
    let frame = udp([20, 0, 0, 1], 64, 10);
    for padding in [0, 1, 2, 18, 100, 1900] {
        let mut padded = frame.clone();
        padded.resize(frame.len() + padding, 0x5a);
        assert_eq!(r.pass(1, &padded, 2), [routed(&frame)], "{padding}");
    }
    for cut in 34..frame.len() {
        let before = r.h.error("ip4-input", "ip4 length > l2 length");
        r.h.receive(1, &frame[..cut]);
        assert_eq!(r.all_sent(), []);
        assert_eq!(r.h.error("ip4-input", "ip4 length > l2 length"), before + 1, "{cut}");
    }
    for cut in 14..34 {
        let before = r.h.error("ip4-input", "ip4 length < 20 bytes");
        r.h.receive(1, &frame[..cut]);
        assert_eq!(r.all_sent(), []);
        assert_eq!(r.h.error("ip4-input", "ip4 length < 20 bytes"), before + 1, "{cut}");
    }
    for total in 0..20 {
        let frame = with_header(frame.clone(), |ip| ip[3] = total);
        r.drops(&frame, "ip4-input", "ip4 length < 20 bytes");
    }
    // The MTU is that of the IP packet: 1500 pass, 1501 do not.
    let full = udp([20, 0, 0, 1], 64, 1500 - 28);
    assert_eq!(r.pass(1, &full, 2), [routed(&full)]);
    let over = with_header(udp([20, 0, 0, 1], 64, 1501 - 28), |ip| ip[6] = 0x40);
    let told = r.pass(1, &over, 1);
    check(&told[0]);
    assert_eq!((&told[0][34..36], &told[0][38..42]), (&[3, 4][..], &[0, 0, 5, 0xdc][..]));
}

#[test]
fn frames_for_others_and_for_all() {
    let mut r = Router::new(256);
    let to = |mac: [u8; 6]| [&mac[..], &udp([20, 0, 0, 1], 64, 9)[6..]].concat();
    r.drops(&to(HOST.0), "ethernet-input", "l3 mac mismatch");
    r.drops(&to([0; 6]), "ethernet-input", "l3 mac mismatch");
    // RFC 1812 section 5.3.4: a unicast packet in a group's frame is not forwarded.
    r.drops(&to([0xff; 6]), "ethernet-input", "unicast IP4 packet in a group frame");
    r.drops(&to([1, 0, 0x5e, 0, 0, 1]), "ethernet-input", "unicast IP4 packet in a group frame");
    let last = with_header(to([0xff; 6]), |ip| ip[16..20].copy_from_slice(&[223, 255, 255, 255]));
    r.drops(&last, "ethernet-input", "unicast IP4 packet in a group frame");
    // Nor answered, RFC 1122 section 3.3.6, and nobody is told, RFC 1812 section 4.3.2.7.
    let ping = [&[0xff; 6][..], &common::echo([10, 0, 1, 1], &[1; 9])[6..]].concat();
    r.drops(&ping, "ethernet-input", "unicast IP4 packet in a group frame");
    let lost = [&[0xff; 6][..], &udp([99, 0, 0, 1], 64, 9)[6..]].concat();
    r.drops(&lost, "ethernet-input", "unicast IP4 packet in a group frame");
    // Groups are judged by ip4-input.
    let group = with_header(to([1, 0, 0x5e, 0, 0, 5]), |ip| ip[16..20].copy_from_slice(&[224, 0, 0, 5]));
    r.drops(&group, "ip4-input", "ip4 multicast is not forwarded");
    let all = with_header(to([0xff; 6]), |ip| ip[16..20].copy_from_slice(&[255; 4]));
    r.drops(&all, "ip4-input", "ip4 destination is not a valid address");
    r.drops(&to([0xff; 6])[..20], "ip4-input", "ip4 length < 20 bytes");
}

#[test]
fn ways_out_that_are_shut() {
    let mut r = Router::new(256);
    r.drops(&udp([20, 6, 0, 1], 64, 9), "interface-output", "interface is down");
    r.drops(&udp([20, 9, 0, 1], 64, 9), "ip4-lookup", "route says drop");
    r.change(|tables| tables.interfaces[1].enabled = false);
    r.drops(&udp([20, 0, 0, 1], 64, 9), "ip4-input", "ip4 not enabled on this interface");
    // A cross-connect to an interface that does not exist, or exists no more.
    let entry = |mode| InterfaceEntry { up: true, mode, ..InterfaceEntry::default() };
    let list = vec![InterfaceEntry::default(), entry(InputMode::L2)];
    r.h.engine.tables::<InterfaceTables>().publish(InterfaceTables { list, ..InterfaceTables::default() });
    for peer in [0, 4, 1000, u32::MAX] {
        let port = L2Port { mode: PortMode::Xconnect, peer: SwIfIndex(peer), ..L2Port::default() };
        let ports = vec![L2Port::default(), port];
        r.h.engine.tables::<L2Tables>().publish(L2Tables { ports, ..L2Tables::default() });
        r.drops(&udp([20, 0, 0, 1], 64, 9), "interface-output", "interface is down");
    }
    r.h.engine.tables::<InterfaceTables>().publish(InterfaceTables::default());
    r.drops(&udp([20, 0, 0, 1], 64, 9), "ethernet-input", "interface is deleted");
}

#[test]
fn each_interface_looks_into_its_own_table() {
    let mut r = Router::new(256);
    let mut other = MtrieWriter::new(16);
    other.insert(u32::from_be_bytes([20, 0, 0, 0]), 8, 5).unwrap();
    r.change(|tables| {
        tables.fibs.push(Arc::clone(other.table()));
        tables.interfaces[2].fib_index = 1;
    });
    // Alternating in one vector, so that neither the four at a time nor the runs are all of one table.
    for n in 0..101 {
        let (interface, mac) = if n % 3 == 0 { (2, MAC[2]) } else { (1, MAC[1]) };
        r.h.receive(interface, &[&mac.0[..], &udp([20, 0, 0, 1], 64, n)[6..]].concat());
    }
    assert_eq!(r.all_sent().len(), 67);
    assert_eq!(r.h.error("ip4-lookup", "route says drop"), 34);
    // A table, and an adjacency, that are not there.
    r.change(|tables| tables.interfaces[1].fib_index = 9);
    // Not even the message about it finds a way, and there is none about that.
    r.drops(&udp([20, 0, 0, 1], 64, 9), "ip4-icmp-error", "no icmp4 error about a packet of our own");
    assert_eq!(r.h.error("ip4-lookup", "no route to destination"), 2);
    r.change(|tables| {
        tables.interfaces[1].fib_index = 0;
        tables.adjacencies.truncate(1);
    });
    r.drops(&udp([20, 0, 0, 1], 64, 9), "ip4-icmp-error", "no icmp4 error about a packet of our own");
    assert_eq!(r.h.error("ip4-lookup", "no route to destination"), 4);
}

/// An interface in IP mode: the packet as it is, but for its TTL.
#[test]
fn a_point_to_point_interface_gets_bare_packets() {
    let mut r = Router::new(256);
    r.change(|tables| tables.adjacencies[1].kind = AdjacencyKind::PointToPoint);
    let frame = udp([20, 0, 0, 1], 64, 30);
    assert_eq!(r.pass(1, &frame, 2), [routed(&frame)[14..].to_vec()]);
    assert_eq!(r.adjacency_count(1).bytes, 20 + 8 + 30);
    let told = r.pass(1, &udp([20, 0, 0, 1], 1, 4), 1);
    assert_eq!((told.len(), told[0][34]), (1, 11), "its TTL counts too");
}

#[test]
fn routes_that_are_counted_one_by_one() {
    let mut r = Router::new(256);
    let counters = Combined::new(1);
    counters.ensure(3);
    let counted = Arc::new(CountedRoutes::new(counters));
    // Two to one neighbour, one to nowhere, one to a neighbour that has to be asked for; and one that is not counted.
    let mut fib = MtrieWriter::new(64);
    for (number, (prefix, adjacency)) in
        [([20, 0, 0, 0], 1), ([21, 0, 0, 0], 1), ([22, 0, 0, 0], 5), ([10, 0, 2, 0], 4)]
            .into_iter()
            .enumerate()
    {
        counted.set(number as u32, AdjIndex(adjacency));
        let len = if prefix[0] == 10 { 24 } else { 8 };
        fib.insert(u32::from_be_bytes(prefix), len, CountedRoutes::leaf(number as u32).0).unwrap();
    }
    fib.insert(u32::from_be_bytes([23, 0, 0, 0]), 8, 1).unwrap();
    r.change(|tables| {
        tables.fibs = vec![Arc::clone(fib.table())];
        tables.counted = Some(Arc::clone(&counted));
    });
    for (first, times) in [(20, 3), (21, 2), (22, 1), (23, 4)] {
        (0..times).for_each(|n| r.h.receive(1, &udp([first, 0, 0, n], 64, 12)));
    }
    assert_eq!(r.all_sent().len(), 9);
    r.h.receive(1, &udp([10, 0, 2, 77], 64, 12));
    assert_eq!(r.all_sent(), []);
    let count = |number| {
        let count = counted.counters().get(number);
        (count.packets, count.bytes)
    };
    assert_eq!([0, 1, 2, 3].map(count), [(3, 120), (2, 80), (1, 40), (1, 40)]);
    assert_eq!(r.adjacency_count(1).packets, 9);
    assert_eq!(r.h.error("ip4-lookup", "route says drop"), 1);
    // What waits goes when the neighbour is known, and is not counted again; a route that leads elsewhere does so at once.
    r.resolve();
    counted.set(0, AdjIndex(5));
    r.h.receive(1, &udp([20, 0, 0, 1], 64, 12));
    r.h.tick();
    assert_eq!(r.all_sent().len(), 1);
    assert_eq!([0, 3].map(count), [(4, 160), (1, 40)]);
    assert_eq!(r.h.error("ip4-lookup", "route says drop"), 2);
    // A number that nobody has set leads nowhere.
    fib.insert(u32::from_be_bytes([24, 0, 0, 0]), 8, CountedRoutes::leaf(0x3fff_ffff).0).unwrap();
    r.drops(&udp([24, 0, 0, 1], 64, 12), "ip4-icmp-error", "no icmp4 error about a packet of our own");
    assert_eq!(r.h.error("ip4-lookup", "no route to destination"), 2);
}
