//! Bridge domains: learning, flooding, limits, split horizon, the router interface, tags.

mod common;

use common::arp;
use std::sync::Arc;
use wharf_engine::counter::Combined;
use wharf_engine::engine::{InterfaceSetup, Loopback};
use wharf_engine::testing::Harness;
use wharf_engine::wake::Waker;
use wharf_engine::{GraphBuilder, SwIfIndex};
use wharf_nodes::arp::{ArpInterface, ArpTables};
use wharf_nodes::interface::{InputMode, InterfaceEntry, InterfaceTables};
use wharf_nodes::l2::{
    BridgeDomain, L2Port, L2Tables, MAX_MOVES, MacEntry, MacTable, Member, PortMode, Tag, TagRewrite, key,
    l2_flags,
};
use wharf_nodes::wire::MacAddress;
use wharf_nodes::wire::ethernet::EtherType;

const BVI: u32 = 6;
const BVI_MAC: MacAddress = MacAddress([2, 0xfe, 0, 0, 0, 6]);
const GROUP: MacAddress = MacAddress::BROADCAST;

/// A bridge of domain 1 with ports 1 to 4, the router interface 6 (loop0, 10.0.0.1/24), and port 5 in domain 2.
struct Bridge {
    h: Harness,
    tables: L2Tables,
}

fn station(n: u8) -> MacAddress {
    MacAddress([2, 0, 0, 0, 0, n])
}

fn frame(dst: MacAddress, src: MacAddress, tags: &[(u16, u16)]) -> Vec<u8> {
    let mut frame = [dst.0, src.0].concat();
    for (kind, tci) in tags {
        frame.extend(kind.to_be_bytes());
        frame.extend(tci.to_be_bytes());
    }
    frame.extend([0x88, 0xb5]);
    frame.extend(0..46);
    frame
}

impl Bridge {
    fn new() -> Bridge {
        let mut list = GraphBuilder::new();
        drop(wharf_nodes::nodes(&mut list, Waker::new().unwrap()));
        let mut h = Harness::new(list).unwrap();
        for index in 1..=5 {
            h.interface(index, &format!("port{index}"), "l2-input");
        }
        let input = h.engine.graph().find("l2-input");
        let loopback = Some(Loopback::Bridged);
        let loop0 = InterfaceSetup { name: "loop0".into(), up: true, input, loopback };
        h.engine.set_interface(SwIfIndex(BVI), Some(loop0));
        let entry = |mode, mac| InterfaceEntry { up: true, mode, mac, ip4: false };
        let mut entries = vec![entry(InputMode::L2, MacAddress::ZERO); 7];
        entries[BVI as usize] = entry(InputMode::L3, BVI_MAC);
        h.engine
            .tables::<InterfaceTables>()
            .publish(InterfaceTables { list: entries, ..InterfaceTables::default() });
        let mut arp = vec![ArpInterface::default(); 7];
        arp[BVI as usize] = ArpInterface {
            mac: BVI_MAC,
            addresses: vec![([10, 0, 0, 1].into(), "10.0.0.0/24".parse().unwrap())],
        };
        h.engine.tables::<ArpTables>().publish(ArpTables { interfaces: arp });

        let all = l2_flags::LEARN | l2_flags::FORWARD | l2_flags::FLOOD | l2_flags::UU_FLOOD;
        let port = |domain| L2Port {
            mode: PortMode::Bridge,
            flags: all,
            domain,
            learn_limit: 100,
            ..L2Port::default()
        };
        let mut ports = vec![port(1); 7];
        ports[0] = L2Port::default();
        ports[5] = port(2);
        ports[BVI as usize] = L2Port { bvi: true, flags: all & !l2_flags::LEARN, ..port(1) };
        let member = |i| Member { port: SwIfIndex(i), shg: 0, bvi: i == BVI, plain: true };
        let domain = |members: &[u32]| BridgeDomain {
            members: members.iter().map(|i| member(*i)).collect(),
            learn_limit: 1000,
            ..BridgeDomain::default()
        };
        let tables = L2Tables {
            ports,
            domains: vec![BridgeDomain::default(), domain(&[1, 2, 3, 4, BVI]), domain(&[5])],
            macs: Some(Arc::new(MacTable::new(1024, None, [1, 2]).unwrap())),
        };
        tables.macs.as_ref().unwrap().set(key(1, BVI_MAC), MacEntry::bvi(SwIfIndex(BVI))).unwrap();
        let mut bridge = Bridge { h, tables };
        bridge.change(|_| {});
        bridge
    }

    fn change(&mut self, change: impl FnOnce(&mut L2Tables)) {
        change(&mut self.tables);
        self.h.engine.tables::<L2Tables>().publish(self.tables.clone());
    }

    fn macs(&self) -> &MacTable {
        self.tables.macs.as_ref().unwrap()
    }

    /// Where a frame goes that port `from` receives: the ports, all of which send it as `sent`.
    #[track_caller]
    fn goes(&mut self, from: u32, bytes: &[u8], sent: &[u8]) -> Vec<u32> {
        self.h.receive(from, bytes);
        self.h.run();
        let mut ports = Vec::new();
        for port in 1..=5 {
            for frame in self.h.sent(port) {
                assert_eq!(frame, sent, "port {port}");
                ports.push(port);
            }
        }
        ports
    }

    #[track_caller]
    fn bridged(&mut self, from: u32, dst: MacAddress, src: MacAddress) -> Vec<u32> {
        let frame = frame(dst, src, &[]);
        self.goes(from, &frame, &frame)
    }

    #[track_caller]
    fn drops(&mut self, from: u32, bytes: &[u8], node: &str, reason: &str) {
        let before = (self.h.error(node, reason), self.h.engine.balance().dropped);
        assert_eq!(self.goes(from, bytes, &[]), [], "{reason}");
        let after = (self.h.error(node, reason), self.h.engine.balance().dropped);
        assert_eq!(after, (before.0 + 1, before.1 + 1), "{node}: {reason}: {:?}", self.h.errors());
    }
}

#[test]
fn learns_and_forwards() {
    let mut b = Bridge::new();
    // Nobody is known: everywhere but back, and not into the other domain.
    assert_eq!(b.bridged(1, station(2), station(1)), [2, 3, 4]);
    // The last of them gets the frame itself, and the router, whose address is known, none.
    assert_eq!(b.h.error("l2-flood", "L2 flood copies"), 2);
    assert_eq!(b.bridged(2, station(1), station(2)), [1]);
    assert_eq!(b.bridged(1, station(2), station(1)), [2]);
    assert_eq!(b.bridged(1, GROUP, station(1)), [2, 3, 4]);
    assert_eq!(b.bridged(5, station(1), station(5)), []);
    assert_eq!(b.h.error("l2-flood", "L2 flood has no other port"), 1);
    assert_eq!(b.h.error("l2-fwd", "L2 learn misses"), 3);
    assert_eq!(b.macs().len(), (4, 3));
    // Back out of where it came in: dropped.
    b.drops(1, &frame(station(1), station(9), &[]), "l2-fwd", "Reflection Drop");
}

#[test]
fn moves_are_followed_but_not_for_ever() {
    let mut b = Bridge::new();
    assert_eq!(b.bridged(1, GROUP, station(1)), [2, 3, 4]);
    b.bridged(2, GROUP, station(1));
    assert_eq!(b.h.error("l2-fwd", "L2 mac moves"), 1);
    assert_eq!(b.bridged(3, station(1), station(3)), [2]);
    assert_eq!((b.macs().of_port(SwIfIndex(1)), b.macs().of_port(SwIfIndex(2))), (0, 1));
    for _ in 0..MAX_MOVES {
        b.bridged(1, GROUP, station(1));
        b.bridged(2, GROUP, station(1));
    }
    assert!(b.h.error("l2-fwd", "L2 mac moves damped") > 0);
    assert!(b.h.error("l2-fwd", "L2 mac moves") <= 2 * u64::from(MAX_MOVES));
}

#[test]
fn limits_of_port_and_domain() {
    let mut b = Bridge::new();
    b.bridged(2, GROUP, station(200));
    for n in 0..300u32 {
        let mac = MacAddress::from_u64(0x0211_0000_0000 + u64::from(n));
        b.h.receive(1, &frame(station(200), mac, &[]));
    }
    b.h.run();
    assert_eq!((b.macs().of_port(SwIfIndex(1)), b.macs().of_domain(key(1, GROUP))), (100, 101));
    assert_eq!(b.h.error("l2-fwd", "L2 not learned due to limit"), 200);
    // The frames are forwarded all the same, and the others' addresses are not touched.
    assert_eq!(b.h.sent(2).len(), 300);
    assert_eq!(b.bridged(3, station(200), station(3)), [2]);
    b.change(|t| t.domains[1].learn_limit = 10);
    b.bridged(4, GROUP, station(4));
    assert_eq!(b.macs().get(key(1, station(4))), None);
    // One that is known may move: the domain has not one more for it.
    b.bridged(4, GROUP, station(3));
    assert_eq!(b.bridged(2, station(3), station(200)), [4]);
}

#[test]
fn addresses_set_by_the_operator() {
    let mut b = Bridge::new();
    b.macs().set(key(1, station(1)), MacEntry::fixed(SwIfIndex(1))).unwrap();
    b.macs().set(key(1, station(9)), MacEntry::filter()).unwrap();
    assert_eq!(b.bridged(2, station(1), station(2)), [1]);
    assert_eq!(b.bridged(1, station(2), station(1)), [2]);
    b.drops(3, &frame(station(2), station(1), &[]), "l2-fwd", "L2 mac move violations");
    b.drops(3, &frame(station(9), station(3), &[]), "l2-fwd", "Filter Mac Drop");
    b.drops(3, &frame(station(2), station(9), &[]), "l2-fwd", "L2 filter mac drops");
    // A port that has left the domain is as good as unknown.
    b.change(|t| t.ports[1].domain = 2);
    assert_eq!(b.bridged(2, station(1), station(2)), [1, 3, 4]);
    assert_eq!(b.macs().remove(key(1, station(1))).unwrap(), Some(MacEntry::fixed(SwIfIndex(1))));
    assert_eq!(b.macs().len(), (4, 2));
}

#[test]
fn what_the_flags_of_a_domain_forbid() {
    let mut b = Bridge::new();
    b.bridged(2, GROUP, station(2));
    let mut without = |flag: u8, bytes: &[u8], ports: &[u32], reason| {
        b.change(|t| t.ports[1].flags &= !flag);
        match reason {
            Some(reason) => b.drops(1, bytes, "l2-fwd", reason),
            None => assert_eq!(b.goes(1, bytes, bytes), ports),
        }
        b.change(|t| t.ports[1].flags |= flag);
    };
    without(l2_flags::FLOOD, &frame(GROUP, station(1), &[]), &[], Some("L2 flooding is off"));
    without(l2_flags::FLOOD, &frame(station(7), station(1), &[]), &[2, 3, 4], None);
    without(l2_flags::UU_FLOOD, &frame(station(7), station(1), &[]), &[], Some("L2 flooding is off"));
    without(l2_flags::UU_FLOOD, &frame(station(2), station(1), &[]), &[2], None);
    without(l2_flags::FORWARD, &frame(station(2), station(1), &[]), &[2, 3, 4], None);
    without(l2_flags::LEARN, &frame(GROUP, station(8), &[]), &[2, 3, 4], None);
    assert_eq!(b.macs().get(key(1, station(8))), None);
    b.change(|t| t.domains[1].uu_fwd = Some(SwIfIndex(3)));
    assert_eq!(b.bridged(1, station(7), station(1)), [3]);
    assert_eq!(b.bridged(1, GROUP, station(1)), [2, 3, 4]);
}

#[test]
fn split_horizon() {
    let mut b = Bridge::new();
    b.change(|t| {
        for port in [2, 3] {
            t.ports[port].shg = 1;
            t.domains[1].members[port - 1].shg = 1;
        }
    });
    assert_eq!(b.bridged(2, GROUP, station(2)), [1, 4]);
    assert_eq!(b.bridged(1, GROUP, station(1)), [2, 3, 4]);
    assert_eq!(b.bridged(3, station(1), station(3)), [1]);
    b.drops(3, &frame(station(2), station(3), &[]), "l2-fwd", "L2 split horizon drops");
}

#[test]
fn the_router_interface_answers_and_sends() {
    let mut b = Bridge::new();
    let request = arp(1, (station(1), [10, 0, 0, 9]), [10, 0, 0, 1]);
    b.h.receive(1, &request);
    b.h.run();
    // The request is flooded, and the router, which is a port as others are, answers to where it learned the station.
    let answer = b.h.sent(1);
    assert_eq!(answer.len(), 1, "{:?}", b.h.errors());
    assert_eq!((&answer[0][..6], &answer[0][6..12]), (&station(1).0[..], &BVI_MAC.0[..]));
    assert_eq!(answer[0][20..22], [0, 2]);
    for port in 2..=4 {
        assert_eq!(b.h.sent(port), std::slice::from_ref(&request));
    }
    let counters = b.h.engine.counters();
    // It received what the bridge had for it, and sent the answer, which does not come back as received.
    let of = |counter: &Combined| (counter.get(BVI).packets, counter.get(BVI).bytes);
    assert_eq!(of(&counters.rx), (1, request.len() as u64));
    assert_eq!(of(&counters.tx), (1, answer[0].len() as u64));
    // A frame to the router that is no business of its, and one from somebody who claims to be it.
    b.drops(1, &frame(BVI_MAC, station(1), &[]), "ethernet-input", "unknown ethernet type");
    b.drops(1, &frame(station(2), BVI_MAC, &[]), "l2-fwd", "L2 mac move violations");
}

#[test]
fn arp_termination() {
    let mut b = Bridge::new();
    b.change(|t| {
        t.domains[1].arp.insert([10, 0, 0, 7].into(), station(7));
        t.ports.iter_mut().for_each(|p| p.flags |= l2_flags::ARP_TERM);
    });
    let request = arp(1, (station(1), [10, 0, 0, 9]), [10, 0, 0, 7]);
    let answer = {
        let mut bytes = [station(1).0, station(7).0].concat();
        bytes.extend([8, 6, 0, 1, 8, 0, 6, 4, 0, 2]);
        bytes.extend([&station(7).0[..], &[10, 0, 0, 7], &station(1).0, &[10, 0, 0, 9]].concat());
        bytes
    };
    assert_eq!(b.goes(1, &request, &answer), [1]);
    // What it does not know, and what lies, is flooded.
    let other = arp(1, (station(1), [10, 0, 0, 9]), [10, 0, 0, 8]);
    assert_eq!(b.goes(1, &other, &other), [2, 3, 4]);
    let mut lie = request.clone();
    lie[27] = 9;
    assert_eq!(b.goes(1, &lie, &lie), [2, 3, 4]);
    let short = &request[..41];
    assert_eq!(b.goes(1, short, short), [2, 3, 4]);
}

#[test]
fn tags_are_rewritten_both_ways() {
    let mut b = Bridge::new();
    let q = |id| Tag::new(EtherType::VLAN, id);
    let ad = |id| Tag::new(EtherType::QINQ, id);
    let set = |b: &mut Bridge, port: usize, input, output| {
        b.change(|t| {
            t.ports[port].input = input;
            t.ports[port].output = output;
            if let Some(member) = t.domains[1].members.get_mut(port - 1) {
                member.plain = false;
            }
        });
    };
    // Port 1 is a trunk with VLAN 100, port 2 one with 200 in service VLAN 5, port 3 and 4 see no tags.
    set(&mut b, 1, TagRewrite::new(1, &[]), TagRewrite::new(0, &[q(100)]));
    set(&mut b, 2, TagRewrite::new(2, &[]), TagRewrite::new(0, &[ad(5), q(200)]));
    b.change(|t| t.domains[1].members.truncate(2));
    let plain = frame(station(2), station(1), &[]);
    let single = frame(station(2), station(1), &[(0x8100, 100)]);
    let double = frame(station(2), station(1), &[(0x88a8, 5), (0x8100, 200)]);
    assert_eq!(b.goes(1, &single, &double), [2]);
    let back = |tags: &[(u16, u16)]| frame(station(1), station(2), tags);
    assert_eq!(b.goes(2, &back(&[(0x88a8, 5), (0x8100, 200)]), &back(&[(0x8100, 100)])), [1]);
    assert_eq!(b.goes(3, &plain, &double), [2]);
    b.drops(1, &plain, "l2-input", "frame has not the tags to be rewritten");
    b.drops(2, &single, "l2-input", "frame has not the tags to be rewritten");
    // Also behind one that had them.
    let before = b.h.error("l2-input", "frame has not the tags to be rewritten");
    for bytes in [&single[..], &single[..16], &plain] {
        b.h.receive(1, bytes);
    }
    assert_eq!(b.goes(1, &single, &double), [2, 2]);
    assert_eq!(b.h.error("l2-input", "frame has not the tags to be rewritten"), before + 2);
    // Cut inside of a tag: there is no tag.
    b.drops(1, &single[..16], "l2-input", "frame has not the tags to be rewritten");
    b.drops(2, &double[..20], "l2-input", "frame has not the tags to be rewritten");
    for len in 0..14 {
        b.drops(1, &single[..len], "l2-input", "truncated frame");
    }
    // Translation keeps the priority of the outer tag.
    set(&mut b, 1, TagRewrite::new(1, &[q(7)]), TagRewrite::new(1, &[q(100)]));
    b.change(|t| t.ports[2].output = TagRewrite::default());
    let with = |tci| frame(station(2), station(1), &[(0x8100, tci)]);
    assert_eq!(b.goes(1, &with(0xb064), &with(0xb007)), [2]);
    set(&mut b, 1, TagRewrite::new(1, &[ad(7), q(8)]), TagRewrite::new(2, &[q(100)]));
    let pushed = frame(station(2), station(1), &[(0x88a8, 7), (0x8100, 8)]);
    assert_eq!(b.goes(1, &with(100), &pushed), [2]);
}

#[test]
fn hostile_sources() {
    let mut b = Bridge::new();
    for src in [GROUP, MacAddress::ZERO, MacAddress([1, 0, 0x5e, 0, 0, 1])] {
        b.drops(1, &frame(station(2), src, &[]), "l2-fwd", "source is a group address or zero");
    }
    assert_eq!(b.macs().len(), (1, 0));
}

#[test]
fn a_million_sources_on_one_port_cost_another_no_packet() {
    let mut b = Bridge::new();
    b.bridged(2, GROUP, station(2));
    b.bridged(3, GROUP, station(3));
    let mut mac = 0x0400_0000_0000u64;
    let mut sent = 0;
    for _ in 0..4000 {
        for _ in 0..250 {
            mac += 1;
            b.h.receive(1, &frame(station(4), MacAddress::from_u64(mac), &[])[..60]);
        }
        b.h.receive(2, &frame(station(3), station(2), &[]));
        b.h.run();
        // Flooded frames come there too; the other flow's frame is never missing, and never flooded.
        sent += b.h.sent(3).iter().filter(|f| f[6..12] == station(2).0).count();
        assert!(b.h.sent(4).iter().all(|f| f[6..12] != station(2).0));
        b.h.sent(2);
        b.h.sent(1);
    }
    assert_eq!(sent, 4000);
    assert_eq!(b.macs().len(), (103, 102));
}

#[test]
fn frames_of_one_vector_are_as_they_are_alone() {
    let (mut together, mut alone) = (Bridge::new(), Bridge::new());
    let mut random = 7u32;
    let mut below = |limit: u32| {
        random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        ((u64::from(random) * u64::from(limit)) >> 32) as u32
    };
    // Stations behind all ports, the router, a group, and no address; a filter, and one that is set.
    let who = |n: u32| match n {
        0 => MacAddress::ZERO,
        1 => MacAddress::BROADCAST,
        2 => BVI_MAC,
        n => station(n as u8),
    };
    for b in [&mut together, &mut alone] {
        b.macs().set(key(1, station(3)), MacEntry::filter()).unwrap();
        b.macs().set(key(1, station(4)), MacEntry::fixed(SwIfIndex(2))).unwrap();
        b.change(|t| {
            (t.ports[1].shg, t.ports[3].shg) = (1, 1);
            t.domains[1].members.iter_mut().for_each(|m| m.shg = t.ports[m.port.index()].shg);
        });
    }
    for _ in 0..2000 {
        let (port, mut pair) = (1 + below(5), (0, 0));
        for _ in 0..1 + below(8) {
            // Mostly the flow of before.
            if below(3) == 0 {
                pair = (below(9), below(9));
            }
            let frame = frame(who(pair.0), who(pair.1), &[]);
            together.h.receive(port, &frame);
            alone.h.receive(port, &frame);
            alone.h.run();
        }
        together.h.run();
        for port in 1..=5 {
            let [mut a, mut b] = [&mut together, &mut alone].map(|b| b.h.sent(port));
            a.sort();
            b.sort();
            assert_eq!(a, b, "port {port}");
        }
    }
    assert!(together.h.error("l2-fwd", "L2 mac moves") > 10, "{:?}", together.h.errors());
    let dropped = |b: &Bridge| b.h.engine.balance().dropped;
    assert_eq!(dropped(&together), dropped(&alone));
}
