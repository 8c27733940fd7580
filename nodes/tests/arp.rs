//! ARP, and packets that wait for it.

mod common;

use common::{FAR, HOST, MAC, NEIGHBOUR, Router, arp, check, udp, with_header};
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};
use wharf_engine::SwIfIndex;
use wharf_nodes::event::Event;
use wharf_nodes::ip4::{AdjacencyKind, PENDING_PER_NEIGHBOUR};
use wharf_nodes::wire::MacAddress;

const US: [u8; 4] = [10, 0, 1, 1];
const THEM: [u8; 4] = [10, 0, 1, 9];

fn seen(address: [u8; 4], for_us: bool) -> Event {
    Event::ArpSeen { interface: SwIfIndex(1), address: address.into(), mac: HOST, for_us }
}

fn asked(interface: u32, address: impl Into<Ipv4Addr>) -> Event {
    Event::Resolve { interface: SwIfIndex(interface), address: address.into() }
}

#[test]
fn a_reply_is_exactly_as_long_as_a_reply() {
    let mut r = Router::new(256);
    let request = arp(1, (HOST, THEM), US);
    for padding in [0, 18, 1000] {
        let mut padded = request.clone();
        padded.resize(request.len() + padding, 0xee);
        let sent = r.pass(1, &padded, 1);
        assert_eq!(sent.len(), 1);
        assert_eq!(sent[0].len(), 42);
        let reply = etherparse::SlicedPacket::from_ethernet(&sent[0]).unwrap();
        let Some(etherparse::NetSlice::Arp(reply)) = reply.net else { panic!("{:?}", reply.net) };
        assert_eq!(reply.operation(), etherparse::ArpOperation::REPLY);
        assert_eq!((reply.sender_hw_addr(), reply.sender_protocol_addr()), (&MAC[1].0[..], &US[..]));
        assert_eq!((reply.target_hw_addr(), reply.target_protocol_addr()), (&HOST.0[..], &THEM[..]));
        assert_eq!(r.events.take(9), [seen(THEM, true)]);
    }
    // A request to our MAC address alone, as a host sends to confirm what it knows.
    let unicast = [&MAC[1].0[..], &request[6..]].concat();
    assert_eq!(r.pass(1, &unicast, 1).len(), 1);
    // The address of the other interface is not asked for here; nor is 10.0.1.1 there.
    r.drops(&arp(1, (HOST, THEM), [10, 0, 2, 1]), "arp-reply", "IP4 destination address not local");
    assert_eq!(r.h.error("arp-reply", "ARP replies sent"), 4);
}

#[test]
fn what_is_learned_and_what_is_not() {
    let mut r = Router::new(256);
    let nobody = [0; 4];
    for (operation, sender, target, reason, event) in [
        (2, THEM, US, "ARP replies received", Some(true)),
        (2, THEM, [10, 0, 1, 77], "ARP replies received", None),
        // Announcements, as a request and as a reply: known neighbours are refreshed.
        (1, THEM, THEM, "ARP probe or announcement learned", Some(false)),
        (2, THEM, THEM, "ARP replies received", Some(false)),
        (1, THEM, [10, 0, 1, 77], "IP4 destination address not local", None),
        // RFC 5227: a probe for somebody else's address; an answer to nobody.
        (1, nobody, THEM, "IP4 destination address not local", None),
        (2, nobody, US, "ARP replies received", None),
        // Someone has our address, and says so in each way there is.
        (1, US, US, "IP4 source address matches local interface", None),
        (2, US, US, "IP4 source address matches local interface", None),
        (1, US, THEM, "IP4 source address matches local interface", None),
        // From outside of the subnet.
        (1, [10, 0, 2, 9], US, "IP4 source address not local to subnet", None),
        (2, [10, 0, 2, 9], US, "IP4 source address not local to subnet", None),
        (1, [10, 0, 2, 9], [10, 0, 2, 9], "IP4 source address not local to subnet", None),
        (1, [255; 4], US, "IP4 source address not local to subnet", None),
        (1, [127, 0, 0, 1], US, "IP4 source address not local to subnet", None),
    ] {
        r.drops(&arp(operation, (HOST, sender), target), "arp-reply", reason);
        let expected: Vec<Event> = event.into_iter().map(|for_us| seen(sender, for_us)).collect();
        assert_eq!(r.events.take(9), expected, "{operation} {sender:?} {target:?}");
    }
}

#[test]
fn each_field_that_lies() {
    let mut r = Router::new(256);
    let not_ip4 = "ARP hw or protocol type is not Ethernet and IP4";
    let group = "ARP sender MAC is a group address or zero";
    let changed = |at: usize, value: u8| {
        let mut frame = arp(1, (HOST, THEM), US);
        frame[14 + at] = value;
        frame
    };
    for (at, value, reason) in [
        (0, 1, not_ip4),
        (1, 6, not_ip4),
        (2, 0x86, not_ip4),
        (3, 0xdd, not_ip4),
        (4, 0, not_ip4),
        (4, 255, not_ip4),
        (5, 0, not_ip4),
        (5, 16, not_ip4),
        (6, 1, "Unknown ARP opcode"),
        (7, 0, "Unknown ARP opcode"),
        (7, 3, "Unknown ARP opcode"),
        (7, 8, "Unknown ARP opcode"),
        (8, 3, group),
        (13, 8, "Hw addr mismatch"),
    ] {
        r.drops(&changed(at, value), "arp-input", reason);
    }
    for mac in [MacAddress::ZERO, MacAddress::BROADCAST] {
        r.drops(&arp(1, (mac, THEM), US), "arp-input", group);
    }
    for cut in 14..42 {
        r.drops(&arp(1, (HOST, THEM), US)[..cut], "arp-input", "truncated ARP packet");
    }
    assert_eq!(r.events.take(9), []);
}

#[test]
fn a_storm_of_announcements_is_bounded() {
    let mut r = Router::new(256);
    for n in 0..1500u16 {
        let [high, low] = n.to_be_bytes();
        let mac = MacAddress([2, 0, 0, 1, high, low]);
        r.h.receive(1, &arp(1, (mac, [10, 0, 1, 2 + low % 100]), US));
    }
    // All are answered. What the control plane has no time for is forgotten and counted.
    assert_eq!(r.all_sent().len(), 1500);
    assert_eq!(r.events.take(usize::MAX).len(), 1024);
    assert_eq!(r.h.error("arp-reply", "control plane is behind, neighbour not learned"), 1500 - 1024);
    r.pass(1, &arp(1, (HOST, THEM), US), 1);
    assert_eq!(r.events.take(9), [seen(THEM, true)]);
}

#[test]
fn the_oldest_packets_wait_and_leave_in_order() {
    for burst in [1, 2, 256] {
        let mut r = Router::new(burst);
        for n in 0..10 {
            for host in [20, 21, 22] {
                r.h.receive(1, &udp([10, 0, 2, host], 64, n));
            }
        }
        assert_eq!(r.all_sent(), []);
        r.h.tick();
        assert_eq!(r.h.engine.balance().held, 3 * PENDING_PER_NEIGHBOUR as u64);
        let full = r.h.error("ip4-arp", "ARP pending queue full");
        assert_eq!(full, 3 * (10 - PENDING_PER_NEIGHBOUR as u64));
        assert_eq!(r.events.take(9), [20, 21, 22].map(|host| asked(2, [10, 0, 2, host])));
        r.resolve();
        let sent = r.all_sent();
        let expected: Vec<(u32, [u8; 4], usize)> =
            (0..3).flat_map(|n| [20, 21, 22].map(|host| (2, [10, 0, 2, host], 42 + n))).collect();
        let found: Vec<_> = sent.iter().map(|(i, f)| (*i, [f[30], f[31], f[32], f[33]], f.len())).collect();
        assert_eq!(found, expected);
        for (_, frame) in &sent {
            check(frame);
            assert_eq!((&frame[..6], frame[22]), (&NEIGHBOUR.0[..], 63));
        }
        assert_eq!(r.h.engine.balance().held, 0);
    }
}

/// Two interfaces may lead to the same address: in two tables, or by two routes that name their interfaces.
#[test]
fn a_neighbour_is_an_address_on_an_interface() {
    let mut r = Router::new(256);
    for n in 0..4 {
        r.h.receive(1, &udp([30, 0, 0, 1], 64, n));
        r.h.receive(1, &udp([31, 0, 0, 1], 64, n));
    }
    assert_eq!(r.all_sent(), []);
    assert_eq!(r.events.take(9), [asked(1, FAR), asked(2, FAR)]);
    assert_eq!(r.h.error("ip4-arp", "ARP pending queue full"), 2);
    // The one that becomes known does not release the packets of the other.
    r.change(|tables| tables.adjacencies[9] = tables.adjacencies[1].clone());
    let sent = r.all_sent();
    assert_eq!(
        sent.iter().map(|(i, f)| (*i, f[30], f.len())).collect::<Vec<_>>(),
        [(2, 31, 42), (2, 31, 43), (2, 31, 44)]
    );
    assert_eq!(r.h.engine.balance().held, 3);
    // Those keep their places.
    r.pass(1, &udp([30, 0, 0, 1], 64, 4), 2);
    assert_eq!(r.h.error("ip4-arp", "ARP pending queue full"), 3);
}

#[test]
fn a_packet_that_waits_follows_its_route() {
    let mut r = Router::new(256);
    for n in 0..3 {
        r.h.receive(1, &udp([31, 0, 0, 1], 64, n));
    }
    assert_eq!(r.all_sent(), []);
    // To another neighbour that is not known either: there they count.
    r.change(|tables| tables.adjacencies[9].next_hop = FAR.to_bits() + 1);
    r.h.tick();
    assert_eq!(r.h.engine.balance().held, 3);
    r.drops(&udp([31, 0, 0, 1], 64, 9), "ip4-arp", "ARP pending queue full");
    // Nowhere.
    r.change(|tables| tables.adjacencies[9].kind = AdjacencyKind::Drop);
    assert_eq!(r.all_sent(), []);
    assert_eq!(r.h.error("ip4-arp", "adjacency is gone"), 3);
    assert_eq!(r.h.engine.balance().held, 0);
    assert_eq!(r.events.take(9), [asked(2, FAR), asked(2, Ipv4Addr::from_bits(FAR.to_bits() + 1))]);
    // Packets that were looked up in tables of before: resolved since, released since, gone since.
    for index in [1u32, 9, 77] {
        r.h.inject("ip4-arp", 1, &udp([31, 0, 0, 1], 64, 9)[14..], index);
    }
    let sent = r.all_sent();
    assert_eq!(sent.len(), 1);
    assert_eq!(sent[0].1[22], 64, "of our own making: its TTL is not ours to take from");
    assert_eq!(r.h.error("ip4-arp", "adjacency is gone"), 5);
    assert_eq!(r.events.take(9), []);
}

#[test]
fn there_is_an_end_to_waiting() {
    let mut r = Router::new(256);
    let start = Instant::now();
    let lost = udp([10, 0, 2, 33], 64, 5);
    let fragment = with_header(lost.clone(), |ip| ip[7] = 3);
    r.h.receive(1, &lost);
    r.h.receive(1, &fragment);
    assert_eq!(r.all_sent(), []);
    assert_eq!(r.events.take(9), [asked(2, [10, 0, 2, 33])]);
    r.h.tick();
    if start.elapsed() < Duration::from_millis(900) {
        assert_eq!(r.h.engine.balance().held, 2);
    }
    std::thread::sleep(Duration::from_millis(1020));
    r.h.tick();
    // The sender is told that the host does not answer; of a later fragment, nothing.
    let sent = r.all_sent();
    assert_eq!(sent.len(), 1);
    check(&sent[0].1);
    assert_eq!((sent[0].0, &sent[0].1[34..36]), (1, &[3, 1][..]));
    assert_eq!(sent[0].1[42..], lost[14..]);
    assert_eq!(r.h.error("ip4-arp", "neighbour does not answer"), 2);
    assert_eq!(r.h.engine.balance().held, 0);
    // The next packet asks again, and there is room for it.
    r.h.receive(1, &lost);
    assert_eq!(r.all_sent(), []);
    assert_eq!(r.events.take(9), [asked(2, [10, 0, 2, 33])]);
    assert_eq!(r.h.error("ip4-arp", "ARP resolution requested"), 2);
    r.resolve();
    assert_eq!(r.all_sent().len(), 1);
}

#[test]
fn a_scan_of_unknown_neighbours_is_bounded() {
    let mut r = Router::new(256);
    r.change(|tables| tables.adjacencies[9].next_hop = 0);
    for n in 0..1400u16 {
        let [high, low] = n.to_be_bytes();
        r.h.receive(1, &udp([31, 0, high, low], 64, 1));
    }
    r.h.run();
    r.h.tick();
    let held = r.h.engine.balance().held;
    assert!((1024 - 256..=1024 + 256).contains(&held), "{held}");
    let refused = r.h.error("ip4-arp", "too many unresolved neighbours")
        + r.h.error("ip4-arp", "ARP pending queue full");
    assert_eq!(held + refused, 1400);
    // Those who are known are not affected.
    assert_eq!(r.pass(1, &udp([20, 0, 0, 1], 64, 1), 2).len(), 1);
    let mut all = r.events.take(usize::MAX);
    all.dedup();
    assert!(all.len() <= 1024);
}
