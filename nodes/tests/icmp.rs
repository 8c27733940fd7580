//! ICMP: answers to pings, messages about packets that go no further, and when there must be none.

mod common;

use common::{FAR, HOST, MAC, Router, check, echo, udp, with_header, with_options};
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};
use wharf_engine::SwIfIndex;
use wharf_nodes::event::Event;
use wharf_nodes::wire::checksum::checksum;

/// An ICMP message from 10.0.1.9 to `dst`; bytes 2 and 3 become the checksum.
fn icmp(dst: [u8; 4], message: &[u8]) -> Vec<u8> {
    let mut frame = echo(dst, &[]);
    frame.truncate(34);
    frame.extend_from_slice(message);
    frame[36..38].fill(0);
    let sum = checksum(&frame[34..]);
    frame[36..38].copy_from_slice(&sum.to_be_bytes());
    with_header(frame, |ip| ip[2..4].copy_from_slice(&(20 + message.len() as u16).to_be_bytes()))
}

#[test]
fn echo_replies() {
    let mut r = Router::new(256);
    let data: Vec<u8> = (0..=255).cycle().take(1472).collect();
    for len in [0, 1, 2, 7, 56, 255, 1471, 1472] {
        // From the near interface and from the far one; with options; with a TTL that would not take it further.
        for dst in [[10, 0, 1, 1], [10, 0, 2, 1]] {
            for words in [0, 1, 10] {
                if len + usize::from(words) * 4 > data.len() {
                    continue;
                }
                let request = with_options(with_header(echo(dst, &data[..len]), |ip| ip[8] = 1), words);
                let sent = r.pass(1, &request, 1);
                let mut expected = [&HOST.0[..], &MAC[1].0, &request[12..]].concat();
                expected[26..30].copy_from_slice(&dst);
                expected[30..34].copy_from_slice(&[10, 0, 1, 9]);
                let at = 34 + usize::from(words) * 4;
                (expected[22], expected[at]) = (64, 0);
                expected[at + 2..at + 4].fill(0);
                let sum = checksum(&expected[at..]);
                expected[at + 2..at + 4].copy_from_slice(&sum.to_be_bytes());
                let expected = with_header(expected, |_| ());
                assert_eq!(sent, [expected], "{len} bytes, {words} words of options");
                check(&sent[0]);
            }
        }
    }
    assert_eq!(r.h.error("ip4-icmp-echo-request", "icmp4 echo replies sent"), 2 * (6 * 3 + 1 + 1));
}

/// A reply of nothing but zeros has the checksum 0xffff: 0 would be wrong, and no update of a checksum can know.
#[test]
fn an_echo_reply_of_zeros() {
    let mut r = Router::new(256);
    for len in [0, 1, 2, 56] {
        let message = [&[8, 0, 0, 0, 0, 0, 0, 0][..], &vec![0; len]].concat();
        let sent = r.pass(1, &icmp([10, 0, 1, 1], &message), 1);
        assert_eq!(sent[0][36..38], [0xff, 0xff], "{len}");
        check(&sent[0]);
    }
    // And one whose checksum is rightly 0.
    let sent = r.pass(1, &icmp([10, 0, 1, 1], &[8, 0, 0, 0, 0xff, 0xff, 0, 0]), 1);
    assert_eq!(sent[0][36..38], [0, 0]);
    check(&sent[0]);
}

#[test]
fn messages_for_us() {
    let mut r = Router::new(256);
    let us = [10, 0, 1, 1];
    for len in 0..8 {
        let cut = with_header(echo(us, &[])[..34 + len].to_vec(), |ip| ip[3] = 20 + len as u8);
        r.drops(&cut, "ip4-icmp-input", "icmp4 message shorter than its header");
    }
    for at in [34, 35, 36, 37, 41, 45] {
        let mut broken = echo(us, &[1, 2, 3, 4]);
        broken[at] ^= 0x10;
        r.drops(&broken, "ip4-icmp-input", "bad icmp4 checksum");
    }
    for kind in [3, 4, 5, 11, 12] {
        let message = [&[kind, 0, 0, 0, 0, 0, 0, 0][..], &udp(us, 9, 0)[14..]].concat();
        r.drops(&icmp(us, &message), "ip4-icmp-input", "icmp4 error messages received");
        // What it quotes may be cut anywhere, or be no packet at all.
        for cut in 8..message.len() {
            r.drops(&icmp(us, &message[..cut]), "ip4-icmp-input", "icmp4 error messages received");
        }
    }
    for kind in [1, 2, 6, 7, 9, 10, 13, 15, 17, 40, 255] {
        r.drops(&icmp(us, &[kind, 0, 0, 0, 0, 0, 0, 0]), "ip4-icmp-input", "unknown icmp4 type");
    }
    assert_eq!(r.events.take(10), []);
    let before = wharf_engine::clock::nanos();
    r.drops(
        &icmp(us, &[0, 0, 0, 0, 0x12, 0x34, 0, 7, 1, 2, 3]),
        "ip4-icmp-input",
        "icmp4 echo replies received",
    );
    let events = r.events.take(10);
    let [Event::EchoReply { from, id, sequence, ttl, len, received }] = events[..] else {
        panic!("{events:?}")
    };
    assert_eq!((from, id, sequence, ttl, len), (Ipv4Addr::new(10, 0, 1, 9), 0x1234, 7, 64, 31));
    assert!((before..=wharf_engine::clock::nanos()).contains(&received));
}

/// The message about `frame`, with everything but its kind checked.
fn told(r: &mut Router, frame: &[u8]) -> Vec<u8> {
    let mut sent = r.pass(1, frame, 1);
    assert_eq!(sent.len(), 1, "{:?}", r.h.errors());
    let sent = sent.remove(0);
    check(&sent);
    let total = usize::from(u16::from_be_bytes([frame[16], frame[17]]));
    assert_eq!(sent[..14], [&HOST.0[..], &MAC[1].0, &[8, 0]].concat());
    assert_eq!((&sent[14..16], &sent[20..22], &sent[22..24]), (&[0x45, 0xc0][..], &[0, 0][..], &[64, 1][..]));
    assert_eq!(sent[26..34], [10, 0, 1, 1, 10, 0, 1, 9]);
    // RFC 1812 section 4.3.2.3: as much of the packet as fits into 576 bytes.
    assert_eq!(sent[42..], frame[14..14 + total.min(548)]);
    sent
}

#[test]
fn messages_quote_the_packet_as_it_came() {
    let mut r = Router::new(256);
    for len in [0, 1, 519, 520, 521, 1472] {
        for words in [0, 2, 10] {
            if len + usize::from(words) * 4 > 1472 {
                continue;
            }
            let lost = with_options(udp([99, 0, 0, 1], 64, len), words);
            let mut padded = lost.clone();
            padded.resize(lost.len().max(60), 0xee);
            let sent = told(&mut r, &padded);
            assert_eq!((&sent[34..36], &sent[38..42]), (&[3, 0][..], &[0; 4][..]));
            assert!(sent.len() <= 14 + 576);
            let sent = told(&mut r, &with_options(udp([20, 0, 0, 1], 1, len), words));
            assert_eq!((&sent[34..36], &sent[38..42]), (&[11, 0][..], &[0; 4][..]));
        }
    }
    let long = with_header(udp([20, 7, 0, 1], 64, 973), |ip| ip[6] = 0x40);
    let sent = told(&mut r, &long);
    assert_eq!((&sent[34..36], &sent[38..42]), (&[3, 4][..], &[0, 0, 3, 232][..]));
    assert_eq!(r.h.error("ip4-icmp-error", "icmp4 fragmentation needed sent"), 1);
    assert_eq!(r.h.error("ip4-icmp-error", "icmp4 time exceeded sent"), 16);
    assert_eq!(r.h.error("ip4-icmp-error", "icmp4 unreachable sent"), 16);
    // Each message has an identification of its own.
    let ids: Vec<Vec<u8>> =
        (0..3).map(|_| told(&mut r, &udp([99, 0, 0, 1], 64, 1))[18..20].to_vec()).collect();
    assert!(ids[0] != ids[1] && ids[1] != ids[2] && ids[0] != ids[2]);
}

#[test]
fn about_which_packets_nobody_is_told() {
    let mut r = Router::new(256);
    let nowhere = [99, 0, 0, 1];
    for kind in [3, 4, 5, 11, 12] {
        let error = icmp(nowhere, &[kind, 0, 0, 0, 0, 0, 0, 0]);
        r.drops(&error, "ip4-icmp-error", "no icmp4 error about an icmp4 error");
        // Options don't hide it.
        r.drops(&with_options(error.clone(), 4), "ip4-icmp-error", "no icmp4 error about an icmp4 error");
        // Nor does a first fragment, nor an expired TTL.
        let first = with_header(error.clone(), |ip| ip[6] = 0x20);
        r.drops(&first, "ip4-icmp-error", "no icmp4 error about an icmp4 error");
        let expired = with_header(error, |ip| (ip[8], ip[16]) = (1, 20));
        r.drops(&expired, "ip4-icmp-error", "no icmp4 error about an icmp4 error");
    }
    let bare = with_header(icmp(nowhere, &[8, 0, 0, 0])[..34].to_vec(), |ip| ip[3] = 20);
    r.drops(&bare, "ip4-icmp-error", "no icmp4 error about an icmp4 error");
    for bits in [[0x20, 2], [0, 1], [0x1f, 0]] {
        let later = with_header(udp(nowhere, 64, 30), |ip| ip[6..8].copy_from_slice(&bits));
        r.drops(&later, "ip4-icmp-error", "no icmp4 error about a later fragment");
    }
    // A sender without a way back: our own message goes no further, and nobody hears of that.
    let stranger = with_header(udp(nowhere, 64, 30), |ip| ip[12..16].copy_from_slice(&[98, 0, 0, 1]));
    r.drops(&stranger, "ip4-icmp-error", "no icmp4 error about a packet of our own");
    // A ping's answer that does not fit.
    r.change(|tables| tables.adjacencies[2].mtu = 100);
    let ping = with_header(echo([10, 0, 1, 1], &[7; 80]), |ip| ip[6] = 0x40);
    r.drops(&ping, "ip4-icmp-error", "no icmp4 error about a packet of our own");
    // Questions, and first fragments of anything else, are told about.
    let question = echo(nowhere, &[1, 2, 3]);
    assert_eq!(told(&mut r, &question)[34..36], [3, 0]);
    let first = with_header(udp(nowhere, 64, 24), |ip| ip[6] = 0x20);
    assert_eq!(told(&mut r, &first)[34..36], [3, 0]);
}

#[test]
fn the_way_back_may_need_a_neighbour() {
    let mut r = Router::new(256);
    // The sender is behind an unresolved next hop: the message waits, as any packet does.
    let lost = with_header(udp([99, 0, 0, 1], 64, 30), |ip| ip[12..16].copy_from_slice(&[30, 0, 0, 1]));
    r.h.receive(1, &lost);
    assert_eq!(r.all_sent(), []);
    assert_eq!(r.events.take(10), [Event::Resolve { interface: SwIfIndex(1), address: FAR }]);
    assert_eq!(r.h.engine.balance().held, 0, "not counted before a tick");
    r.h.tick();
    assert_eq!(r.h.engine.balance().held, 1);
    r.change(|tables| tables.adjacencies[8] = tables.adjacencies[2].clone());
    let sent = r.all_sent();
    assert_eq!(sent.len(), 1);
    check(&sent[0].1);
    assert_eq!((sent[0].0, &sent[0].1[30..36], sent[0].1[22]), (1, &[30, 0, 0, 1, 3, 0][..], 64));
}

#[test]
fn messages_are_limited_and_the_limit_ends() {
    let mut r = Router::new(256);
    let started = Instant::now();
    for _ in 0..1500 {
        r.h.receive(1, &udp([20, 0, 0, 1], 1, 1));
    }
    let sent = r.all_sent().len() as u128;
    // A hundred at once, and one more each millisecond.
    let most = 101 + started.elapsed().as_millis();
    assert!((100..=most).contains(&sent), "{sent} of at most {most}");
    let limited = r.h.error("ip4-icmp-error", "icmp4 error rate limited");
    assert_eq!(u128::from(limited), 1500 - sent);
    std::thread::sleep(Duration::from_millis(20));
    r.h.receive(1, &udp([20, 0, 0, 1], 1, 1));
    assert_eq!(r.all_sent().len(), 1);
    assert_eq!(r.h.error("ip4-icmp-error", "icmp4 error rate limited"), limited);
}
