//! What the nodes do with packets: each place, traces, the log, malformed packets.

use crate::common;
use crate::guard::{Guard, Random, frame, packet, rules, udp};
use std::sync::Arc;
use wharf_engine::SwIfIndex;
use wharf_nodes::acl::{AclPrefix, Action, Direction, MacIpList, MacIpRule, Rule, Tuple};
use wharf_nodes::event::Event;
use wharf_nodes::wire::ip4::IpProtocol;

#[test]
fn the_trace_and_the_log_name_list_and_rule() {
    let mut guard = Guard::new(1024, 1024);
    let mut deny = Rule::all(Action::Deny, false);
    (deny.protocol, deny.sport) = (IpProtocol::UDP, (5, 5));
    guard.set(1, Direction::Input, &[deny, Rule::all(Action::Reflect, false)]);
    guard.r.h.engine.trace_add("test-input", 3).unwrap();
    for sport in [5, 6, 6] {
        guard.passes(1, &frame(&udp(sport), true), 2);
    }
    let trace = guard.r.h.trace();
    for line in [
        "acl-plugin-in-ip4-fa\n  acl 7 rule 0, ACL deny packets\n",
        "acl-plugin-in-ip4-fa\n  acl 7 rule 1, ip4-lookup\n",
        "acl-plugin-in-ip4-fa\n  in a session, ip4-lookup\n",
    ] {
        assert!(trace.contains(line), "{line}{trace}");
    }
    let told: Vec<Event> = guard.r.events.take(10);
    let denied =
        |e: &Event| matches!(e, Event::AclDenied { rule: Some((7, 0)), tuple, .. } if tuple.sport == 5);
    assert!(told.iter().any(denied), "{told:?}");
    assert_eq!(guard.tables.counters.get(0).packets, 1);
    // The log is sampled: of many, few.
    for _ in 0..1000 {
        guard.passes(1, &frame(&udp(5), true), 2);
    }
    assert!(guard.r.events.take(1000).len() < 100);
    assert_eq!(guard.r.h.error("acl-plugin-in-ip4-fa", "ACL deny packets"), 1001);
}

#[test]
fn what_cannot_be_read_is_dropped() {
    let mut guard = Guard::new(1024, 1024);
    guard.set(3, Direction::Input, &[Rule::all(Action::Permit, false), Rule::all(Action::Permit, true)]);
    let whole = frame(&Tuple { protocol: IpProtocol::TCP, ..udp(1) }, true);
    assert!(guard.passes(3, &whole, 4));
    for len in 14..whole.len() {
        assert!(!guard.passes(3, &whole[..len], 4), "{len}");
    }
    let dropped = guard.r.h.error("acl-plugin-in-ip4-l2", "ACL deny packets, malformed");
    assert_eq!(dropped, whole.len() as u64 - 14);
    // Tags in front change nothing.
    let mut tagged = whole.clone();
    tagged.splice(12..12, [0x81, 0, 0, 5, 0x81, 0, 0, 6]);
    assert!(guard.passes(3, &tagged, 4));
    let mut deny = Rule::all(Action::Deny, false);
    (deny.protocol, deny.sport) = (IpProtocol::TCP, (1, 1));
    guard.set(3, Direction::Input, &[deny, Rule::all(Action::Permit, false)]);
    assert!(!guard.passes(3, &tagged, 4));
}

#[test]
fn bytes_at_random_are_judged_or_dropped() {
    let mut guard = Guard::new(1024, 256);
    let mut random = Random(4);
    for interface in 1..=4 {
        for direction in [Direction::Input, Direction::Output] {
            guard.set(interface, direction, &[rules(&mut random), rules(&mut random)].concat());
        }
    }
    for _ in 0..30_000 {
        let (v6, output) = (random.below(2) == 0, random.below(2) == 0);
        let t = packet(&mut random, v6, output);
        let mut bytes = frame(&t, true);
        if random.below(4) == 0 {
            bytes.splice(
                12..12,
                [0x88, 0xa8, 0, 5, 0x81, 0, 0, 6].into_iter().take(4 + 4 * random.below(2) as usize),
            );
        }
        for _ in 0..random.below(6) {
            let at = 12 + random.below(bytes.len() as u64 - 12) as usize;
            bytes[at] = random.of(&[0, 1, 6, 43, 44, 51, 60, 0x45, 0x60, 0xff]);
        }
        bytes.truncate(14 + random.below(bytes.len() as u64) as usize);
        guard.r.h.receive(1 + random.below(4) as u32, &bytes);
    }
    // The harness checks at its end that each went somewhere.
    guard.r.h.run();
    (1..=4).for_each(|i| drop(guard.r.h.sent(i)));
    assert!(guard.r.h.error("acl-plugin-in-ip6-l2", "ACL deny packets, malformed") > 100);
}

#[test]
fn etypes_and_stations() {
    let mut guard = Guard::new(1024, 1024);
    guard.change(3, |acl| acl.input.etypes = Some(Arc::from([0x0806u16, 0x88cc])));
    let other = |etype: [u8; 2]| [&common::MAC[1].0[..], &common::HOST.0, &etype, &[0; 46]].concat();
    assert!(guard.passes(3, &other([0x88, 0xcc]), 4) && !guard.passes(3, &other([0x88, 0xb5]), 4));
    assert!(guard.passes(3, &frame(&udp(1), true), 4), "IP is not the whitelist's matter");
    guard.r.h.engine.set_feature("device-input", "macip-acl", SwIfIndex(1), true).unwrap();
    let mac = common::HOST;
    let prefix = AclPrefix::new([10, 0, 1, 9].into(), 32);
    let rule = MacIpRule { permit: true, mac, mask: wharf_nodes::wire::MacAddress::BROADCAST, prefix };
    guard.change(1, |acl| acl.macip = Some(Arc::new(MacIpList { rules: vec![rule], counter: 0 })));
    assert!(guard.passes(1, &frame(&udp(1), true), 2));
    let mut spoofed = udp(1);
    spoofed.src = [10, 0, 1, 8].into();
    assert!(!guard.passes(1, &frame(&spoofed, true), 2));
    let arp = |mac, ip| common::arp(1, (mac, ip), [10, 0, 1, 1]);
    assert!(guard.passes(1, &arp(mac, [10, 0, 1, 9]), 1));
    assert!(!guard.passes(1, &arp(mac, [10, 0, 1, 1]), 1), "another's address");
    let mut lie = arp(common::MAC[5], [10, 0, 1, 9]);
    lie[6..12].copy_from_slice(&mac.0);
    assert!(!guard.passes(1, &lie, 1), "another's MAC address in the packet");
}
