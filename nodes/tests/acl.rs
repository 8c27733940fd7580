//! Access lists in the graph: each place, against a model that scans rule by rule and remembers flows in a map; traces; attacks.

mod common;

use common::Router;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use wharf_engine::SwIfIndex;
use wharf_engine::counter::Combined;
use wharf_nodes::acl::rule::{ANY_PORT, first_match};
use wharf_nodes::acl::sessions::SessionTable;
use wharf_nodes::acl::{
    AclPrefix, AclTables, Action, Direction, InterfaceAcl, ListedRule, Lists, MacIpList, MacIpRule, Rule,
    Side, Tuple,
};
use wharf_nodes::event::Event;
use wharf_nodes::l2::{L2Tables, PortMode};
use wharf_nodes::wire::ip4::IpProtocol;
use wharf_nodes::wire::tcp::TcpFlags;

const FEATURES: [(&str, &str, Direction); 8] = [
    ("ip4-unicast", "acl-plugin-in-ip4-fa", Direction::Input),
    ("ip4-output", "acl-plugin-out-ip4-fa", Direction::Output),
    ("l2-input-ip4", "acl-plugin-in-ip4-l2", Direction::Input),
    ("l2-output-ip4", "acl-plugin-out-ip4-l2", Direction::Output),
    ("l2-input-ip6", "acl-plugin-in-ip6-l2", Direction::Input),
    ("l2-output-ip6", "acl-plugin-out-ip6-l2", Direction::Output),
    ("l2-input-nonip", "acl-plugin-in-nonip-l2", Direction::Input),
    ("l2-output-nonip", "acl-plugin-out-nonip-l2", Direction::Output),
];

struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % n
    }

    fn of<T: Copy>(&mut self, list: &[T]) -> T {
        list[self.below(list.len() as u64) as usize]
    }
}

/// A router with policy.
struct Guard {
    r: Router,
    tables: AclTables,
}

fn lists(acl: u32, rules: &[Rule]) -> Option<Arc<Lists>> {
    let listed = |(number, rule): (usize, &Rule)| ListedRule {
        rule: *rule,
        acl,
        number: number as u32,
        counter: number as u32,
    };
    Some(Arc::new(Lists::new(rules.iter().enumerate().map(listed).collect()).unwrap()))
}

impl Guard {
    /// With all features on interfaces 1 to 4, of which 3 and 4 are cross-connected.
    fn new(sessions: usize, share: u32) -> Guard {
        let mut r = Router::new(256);
        for interface in 1..=4 {
            for (arc, node, _) in FEATURES {
                r.h.engine.set_feature(arc, node, SwIfIndex(interface), true).unwrap();
            }
        }
        r.h.engine.tables::<L2Tables>().update(|old| {
            let mut l2 = old.clone();
            for port in &mut l2.ports[3..] {
                (port.input_features, port.output_features) = (true, true);
                port.mode = PortMode::XconnectOutput;
            }
            l2
        });
        let counters = Arc::new(Combined::new(1));
        counters.ensure(0);
        let tables = AclTables {
            interfaces: vec![None; 5],
            counters,
            sessions: Some(Arc::new(SessionTable::new(sessions, [1, 2, 3, 4]).unwrap())),
            share,
            ..AclTables::default()
        };
        Guard { r, tables }
    }

    fn change(&mut self, interface: usize, change: impl FnOnce(&mut InterfaceAcl)) {
        let mut acl = self.tables.interfaces[interface].as_deref().cloned().unwrap_or_default();
        change(&mut acl);
        acl.reflects =
            [&acl.input, &acl.output].iter().any(|s| s.lists.as_ref().is_some_and(|l| l.reflects()));
        self.tables.interfaces[interface] = Some(Arc::new(acl));
        self.r.h.engine.tables::<AclTables>().publish(self.tables.clone());
    }

    fn set(&mut self, interface: usize, direction: Direction, rules: &[Rule]) {
        self.change(interface, |acl| {
            let side = if direction == Direction::Input { &mut acl.input } else { &mut acl.output };
            *side = Side { lists: lists(7, rules), epoch: side.epoch + 1, etypes: None };
        });
    }

    /// Whether a frame that interface `from` receives leaves by `to`.
    fn passes(&mut self, from: u32, frame: &[u8], to: u32) -> bool {
        !self.r.pass(from, frame, to).is_empty()
    }
}

/// The frame of a packet, to the router if it is to be routed.
fn frame(t: &Tuple, more: bool) -> Vec<u8> {
    let mut l4 = [t.sport.to_be_bytes(), t.dport.to_be_bytes()].concat();
    match t.protocol {
        IpProtocol::TCP => {
            l4.extend([0; 9]);
            l4.extend([t.flags.0, 0, 0, 0, 0, 0]);
            l4.push(0);
            l4[12] = 0x50;
            l4[13] = t.flags.0;
        }
        IpProtocol::ICMP | IpProtocol::ICMP6 => l4 = vec![t.sport as u8, t.dport as u8, 0, 0, 0, 9, 0, 1],
        _ => l4.extend([0, 8, 0, 0]),
    }
    let mut frame = [common::MAC[1].0, common::HOST.0].concat();
    match (t.src, t.dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            let fragment = if t.has_ports || !more { [0, 0] } else { [0, 4] };
            let len = (20 + l4.len()) as u16;
            frame.extend([8, 0, 0x45, 0]);
            frame.extend(len.to_be_bytes());
            frame.extend([0, 1, fragment[0], fragment[1], 64, t.protocol.0, 0, 0]);
            frame.extend(src.octets());
            frame.extend(dst.octets());
            frame.extend(l4);
            common::with_header(frame, |_| {})
        }
        (IpAddr::V6(src), IpAddr::V6(dst)) => {
            let later = more && !t.has_ports;
            let extension = [t.protocol.0, 0, 0, 16, 0, 0, 0, 1];
            let len = l4.len() + if later { 8 } else { 0 };
            frame.extend([
                0x86,
                0xdd,
                0x60,
                0,
                0,
                0,
                0,
                len as u8,
                if later { 44 } else { t.protocol.0 },
                64,
            ]);
            frame.extend(src.octets());
            frame.extend(dst.octets());
            frame.extend(if later { &extension[..] } else { &[] });
            frame.extend(l4);
            frame
        }
        _ => unreachable!("one family"),
    }
}

fn rule(random: &mut Random, v6: bool) -> Rule {
    let mut rule = Rule::all(random.of(&[Action::Deny, Action::Permit, Action::Reflect]), v6);
    let prefix = |random: &mut Random, side: u8| {
        let len = random.of(&[0, 0, 8, 31, 32]);
        let host = side + random.below(3) as u8;
        match v6 {
            true => AclPrefix::new(IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, host.into()]), len * 4),
            false => AclPrefix::new(IpAddr::from([if side == 1 { 10 } else { 20 }, 0, 1, host]), len),
        }
    };
    let sides = random.of(&[(1, 9), (9, 1)]);
    (rule.src, rule.dst) = (prefix(random, sides.0), prefix(random, sides.1));
    rule.protocol = IpProtocol(random.of(&[0, 1, 6, 17, 58]));
    if rule.protocol.0 != 0 {
        rule.sport = random.of(&[ANY_PORT, ANY_PORT, (8, 8), (100, 101)]);
        rule.dport = random.of(&[ANY_PORT, ANY_PORT, (0, 80), (80, 80)]);
    }
    if rule.protocol == IpProtocol::TCP && random.below(4) == 0 {
        (rule.tcp_mask, rule.tcp_value) = (TcpFlags(18), TcpFlags(2));
    }
    rule
}

fn rules(random: &mut Random) -> Vec<Rule> {
    (0..1 + random.below(8)).map(|i| rule(random, i % 2 == 1)).collect()
}

/// A packet from side 1 to side 9, or back when `output`.
fn packet(random: &mut Random, v6: bool, output: bool) -> Tuple {
    let address = |random: &mut Random, side: u8| match v6 {
        true => IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, u16::from(side) + random.below(3) as u16]),
        false => IpAddr::from([if side == 1 { 10 } else { 20 }, 0, 1, side + random.below(3) as u8]),
    };
    let icmp = if v6 { 58 } else { 1 };
    let protocol = IpProtocol(random.of(&[6, 17, 17, icmp, 47]));
    let mut ports = [random.of(&[8, 100, 101, 102]), random.of(&[0, 80, 81])];
    let has_ports = protocol.0 != 47 && random.below(10) != 0;
    if protocol.0 == icmp {
        let request = [8, 128][usize::from(v6)];
        let reply = [0, 129][usize::from(v6)];
        ports = [random.of(&[if output { reply } else { request }, request, 3]), 0];
    } else if output {
        ports.swap(0, 1);
    }
    let (src, dst) = (address(random, 1), address(random, 9));
    let (src, dst) = if output { (dst, src) } else { (src, dst) };
    let [sport, dport] = if has_ports { ports } else { [0, 0] };
    let flags = if protocol.0 == 6 && has_ports { random.of(&[2, 16, 18]) } else { 0 };
    Tuple { src, dst, protocol, sport, dport, flags: TcpFlags(flags), has_ports }
}

type FlowKey = (IpAddr, IpAddr, u8, u16, u16);

/// What should happen, slowly: sessions are a map, lists are scanned.
#[derive(Default)]
struct Model {
    lists: [Vec<Rule>; 2],
    versions: [u32; 2],
    /// By the flow as received: direction, opening packet, version of the list.
    sessions: HashMap<FlowKey, (usize, Tuple, u32)>,
}

impl Model {
    fn key(t: &Tuple, output: bool) -> Option<FlowKey> {
        let v6 = t.src.is_ipv6();
        let mut ports = (t.sport, t.dport);
        if !t.has_ports && t.protocol.0 != 47 {
            return None;
        }
        if t.protocol.0 == if v6 { 58 } else { 1 } {
            if t.sport == 3 {
                return None;
            }
            ports = (9, 9);
        }
        Some(match output {
            false => (t.src, t.dst, t.protocol.0, ports.0, ports.1),
            true => (t.dst, t.src, t.protocol.0, ports.1, ports.0),
        })
    }

    fn passes(&mut self, t: &Tuple, output: bool) -> bool {
        let key = Self::key(t, output);
        if let Some((side, opening, version)) = key.and_then(|key| self.sessions.get_mut(&key)) {
            let list = &self.lists[*side];
            let stands = *version == self.versions[*side]
                || first_match(list, opening).is_some_and(|i| list[i].action == Action::Reflect);
            *version = self.versions[*side];
            if stands {
                return true;
            }
            self.sessions.remove(&key.unwrap());
        }
        let side = usize::from(output);
        let list = &self.lists[side];
        let Some(rule) = first_match(list, t).map(|i| list[i]) else { return false };
        let is_icmp = t.protocol.0 == if t.src.is_ipv6() { 58 } else { 1 };
        let opens = !is_icmp || [8, 128].contains(&t.sport);
        if let Some(key) = key.filter(|_| rule.action == Action::Reflect && opens) {
            let flags = if t.protocol == IpProtocol::TCP { TcpFlags::SYN } else { TcpFlags(0) };
            self.sessions.insert(key, (side, Tuple { flags, ..*t }, self.versions[side]));
        }
        rule.action != Action::Deny
    }
}

#[test]
fn bridged_packets_and_their_sessions_are_as_the_model_has_them() {
    let (mut passed, mut denied) = (0, 0);
    for seed in 0..60 {
        let mut random = Random(seed);
        let mut guard = Guard::new(4096, 4096);
        let mut model = Model::default();
        for step in 0..500 {
            if step % 60 == 0 {
                for (side, direction) in [Direction::Input, Direction::Output].into_iter().enumerate() {
                    model.lists[side] = rules(&mut random);
                    model.versions[side] += 1;
                    guard.set(3, direction, &model.lists[side]);
                }
            }
            let (v6, output) = (random.below(2) == 0, random.below(2) == 0);
            let t = packet(&mut random, v6, output);
            let expected = model.passes(&t, output);
            let bytes = frame(&t, t.protocol.0 != 47);
            let found = if output { guard.passes(4, &bytes, 3) } else { guard.passes(3, &bytes, 4) };
            assert_eq!(found, expected, "seed {seed} step {step} output {output}: {t}");
            *(if found { &mut passed } else { &mut denied }) += 1;
        }
    }
    assert!(passed > 5000 && denied > 5000, "{passed} {denied}");
}

#[test]
fn routed_packets_are_as_the_rules_say() {
    for seed in 0..40 {
        let mut random = Random(seed);
        let mut guard = Guard::new(1024, 1024);
        let mut model = Model::default();
        for (side, direction) in [Direction::Input, Direction::Output].into_iter().enumerate() {
            model.lists[side] = (0..6).map(|_| rule(&mut random, false)).collect();
            guard.set(1, direction, &model.lists[side]);
        }
        for step in 0..200 {
            let output = random.below(2) == 0;
            let mut t = packet(&mut random, false, output);
            // The one host on interface 1 that has a route.
            let host = IpAddr::from([10, 0, 1, 9]);
            *(if output { &mut t.dst } else { &mut t.src }) = host;
            let expected = model.passes(&t, output);
            let mut bytes = frame(&t, t.protocol.0 != 47);
            let found = match output {
                true => {
                    bytes[..6].copy_from_slice(&common::MAC[2].0);
                    guard.passes(2, &bytes, 1)
                }
                false => guard.passes(1, &bytes, 2),
            };
            assert_eq!(found, expected, "seed {seed} step {step} output {output}: {t}");
        }
    }
}

fn udp(sport: u16) -> Tuple {
    Tuple {
        src: [10, 0, 1, 9].into(),
        dst: [20, 0, 0, 1].into(),
        protocol: IpProtocol::UDP,
        sport,
        dport: 53,
        flags: TcpFlags(0),
        has_ports: true,
    }
}

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

/// A flood on one interface, of new flows or of crafted ones, while another interface's flows go on.
#[test]
fn a_flood_of_a_million_flows_costs_no_packet_of_another_interface() {
    let mut guard = Guard::new(65_536, 16_384);
    let rules = [Rule::all(Action::Reflect, false)];
    for interface in [1, 3] {
        guard.set(interface, Direction::Input, &rules);
        // Nothing may come back but what belongs to a session.
        guard.set(interface, Direction::Output, &[Rule::all(Action::Deny, false)]);
    }
    let flows: Vec<(Vec<u8>, Vec<u8>)> = (0..200)
        .map(|sport| {
            let there = udp(sport + 1);
            let back = Tuple { src: there.dst, dst: there.src, sport: 53, dport: sport + 1, ..there };
            (frame(&there, true), frame(&back, true))
        })
        .collect();
    assert!(flows.iter().all(|(there, _)| guard.passes(3, there, 4)));
    let mut n = 0u32;
    let mut bystander = flows.iter().cycle();
    while n < 1_000_000 {
        for _ in 0..255 {
            let mut t = udp(n as u16);
            t.dst = [20, 1, (n >> 16) as u8, 1].into();
            // The header's checksum is the work of this test, not of the flood.
            guard.r.h.receive(1, &frame(&t, true));
            n += 1;
        }
        let (_, back) = bystander.next().unwrap();
        guard.r.h.receive(4, back);
        guard.r.h.run();
        assert_eq!(guard.r.h.sent(3).len(), 1, "after {n}");
        guard.r.h.sent(2);
    }
    let sessions = guard.tables.sessions.as_ref().unwrap();
    assert_eq!(sessions.count(SwIfIndex(3)), 200);
    assert!(sessions.count(SwIfIndex(1)) <= 16_384);
    assert!(flows.iter().all(|(_, back)| guard.passes(4, back, 3)));
}
