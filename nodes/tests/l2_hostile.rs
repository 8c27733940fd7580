//! Frames that are cut, changed and made up, through a bridge with a trunk, a tunnel and a router interface, with tracing on: nothing is lost,
//! each drop has one named reason, and any trace can be printed.

use proptest::prelude::*;
use std::sync::Arc;
use wharf_engine::engine::InterfaceSetup;
use wharf_engine::mtrie::MtrieWriter;
use wharf_engine::testing::Harness;
use wharf_engine::wake::Waker;
use wharf_engine::{GraphBuilder, SwIfIndex, bihash::Bihash, counter::Combined};
use wharf_nodes::arp::{ArpInterface, ArpTables};
use wharf_nodes::ethernet::{SubInterfaces, SubMatch, SubOutput, VlanId};
use wharf_nodes::interface::{InputMode, InterfaceEntry, InterfaceTables};
use wharf_nodes::ip4::{Adjacency, AdjacencyKind, Ip4Interface, Ip4Tables, UdpTables};
use wharf_nodes::l2::{
    BridgeDomain, L2Port, L2Tables, MacEntry, MacTable, Member, PortMode, Tag, TagRewrite, key, l2_flags,
};
use wharf_nodes::vxlan::{Decap, OuterHeader, VxlanTables, VxlanTunnel, decap_key};
use wharf_nodes::wire::MacAddress;
use wharf_nodes::wire::ethernet::EtherType;

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

/// 1 is a trunk: sub-interface 5 (VLAN 100) is bridged, 6 (802.1ad 5 and 802.1Q 9) is routed. 2 is bridged. 3 leads to the peer of tunnel 7, which is
/// bridged. 4 is the domain's router interface.
const TRUNK: u32 = 1;
const PLAIN: u32 = 2;
const UNDERLAY: u32 = 3;
const BVI: u32 = 4;
const SUB_L2: u32 = 5;
const SUB_L3: u32 = 6;
const TUNNEL: u32 = 7;

const US: [u8; 4] = [192, 168, 0, 1];
const PEER: [u8; 4] = [192, 168, 0, 2];

fn own(interface: u32) -> MacAddress {
    MacAddress([2, 0xfe, 0, 0, 0, interface as u8])
}

fn station(n: u8) -> MacAddress {
    MacAddress([2, 0, 0, 0, 0, n])
}

fn bridge(workers: usize) -> Harness {
    let mut list = GraphBuilder::new();
    drop(wharf_nodes::nodes(&mut list, Waker::new().unwrap()));
    let mut h = Harness::with_workers(list, workers).unwrap();
    h.interface(TRUNK, "trunk", "ethernet-input");
    h.interface(PLAIN, "plain", "l2-input");
    h.interface(UNDERLAY, "underlay", "ethernet-input");
    let node = |h: &Harness, name: &str| h.engine.graph().find(name).unwrap();
    for (index, name, output) in [
        (SUB_L2, "trunk.100", "sub-interface-output"),
        (SUB_L3, "trunk.5", "sub-interface-output"),
        (TUNNEL, "vxlan_tunnel0", "vxlan4-encap"),
    ] {
        let output = node(&h, output);
        let setup = InterfaceSetup { name: name.into(), up: true, input: None, loopback: false };
        h.engine.set_interface(SwIfIndex(index), Some(setup));
        h.engine.set_output_node(SwIfIndex(index), output);
    }
    let input = Some(node(&h, "l2-input"));
    let loop0 = InterfaceSetup { name: "loop0".into(), up: true, input, loopback: true };
    h.engine.set_interface(SwIfIndex(BVI), Some(loop0));

    let entry = |mode, index| InterfaceEntry { up: true, mode, mac: own(index), ip4: true };
    let mut subs = SubInterfaces::new(InputMode::L3);
    let tags = |outer_type, outer, inner| SubMatch::Tags {
        outer_type,
        outer: VlanId::Id(outer),
        inner,
        exact: true,
    };
    subs.add(SwIfIndex(SUB_L2), tags(EtherType::VLAN, 100, None)).unwrap();
    subs.add(SwIfIndex(SUB_L3), tags(EtherType::QINQ, 5, Some(VlanId::Id(9)))).unwrap();
    let qinq = [Tag::new(EtherType::QINQ, 5), Tag::new(EtherType::VLAN, 9)];
    let out = |tags: &[Tag]| Some(SubOutput { parent: SwIfIndex(TRUNK), tags: TagRewrite::new(0, tags) });
    h.engine.tables::<InterfaceTables>().publish(InterfaceTables {
        list: vec![
            InterfaceEntry::default(),
            entry(InputMode::Trunk, TRUNK),
            entry(InputMode::L2, PLAIN),
            entry(InputMode::L3, UNDERLAY),
            entry(InputMode::L3, BVI),
            entry(InputMode::L2, SUB_L2),
            entry(InputMode::L3, SUB_L3),
            entry(InputMode::L2, TUNNEL),
        ],
        trunks: vec![None, Some(Arc::new(subs))],
        outputs: vec![None, None, None, None, None, out(&[]), out(&qinq)],
    });

    let all = l2_flags::LEARN | l2_flags::FORWARD | l2_flags::FLOOD | l2_flags::UU_FLOOD | l2_flags::ARP_TERM;
    let port = L2Port { mode: PortMode::Bridge, flags: all, domain: 1, learn_limit: 50, ..L2Port::default() };
    let mut ports = vec![L2Port::default(); 8];
    ports[PLAIN as usize] = port;
    ports[TUNNEL as usize] = L2Port { shg: 1, ..port };
    ports[BVI as usize] = L2Port { bvi: true, flags: all & !l2_flags::LEARN, ..port };
    let q = [Tag::new(EtherType::VLAN, 100)];
    ports[SUB_L2 as usize] =
        L2Port { input: TagRewrite::new(1, &[]), output: TagRewrite::new(0, &q), ..port };
    let member = |i, shg| Member { port: SwIfIndex(i), shg, bvi: i == BVI, plain: i != SUB_L2 };
    let macs = MacTable::new(64, [1, 2]).unwrap();
    macs.set(key(1, own(BVI)), MacEntry::bvi(SwIfIndex(BVI))).unwrap();
    macs.set(key(1, station(66)), MacEntry::filter()).unwrap();
    let domain = BridgeDomain {
        members: vec![member(PLAIN, 0), member(TUNNEL, 1), member(BVI, 0), member(SUB_L2, 0)],
        learn_limit: 100,
        arp: [([10, 0, 0, 7].into(), station(7))].into_iter().collect(),
        ..BridgeDomain::default()
    };
    h.engine.tables::<L2Tables>().publish(L2Tables {
        ports,
        domains: vec![BridgeDomain::default(), domain],
        macs: Some(Arc::new(macs)),
    });

    let mut arp = vec![ArpInterface::default(); 8];
    let mut ip4 = vec![Ip4Interface::default(); 8];
    for (index, address) in [(UNDERLAY, US), (BVI, [10, 0, 0, 1]), (SUB_L3, [10, 9, 0, 1])] {
        let subnet = wharf_nodes::wire::Ip4Prefix::clamped(address.into(), 24);
        arp[index as usize] = ArpInterface { mac: own(index), addresses: vec![(address.into(), subnet)] };
        ip4[index as usize] =
            Ip4Interface { fib_index: 0, address: u32::from_be_bytes(address), enabled: true };
    }
    h.engine.tables::<ArpTables>().publish(ArpTables { interfaces: arp });
    let to = |index: u32, mac: MacAddress| {
        let mut adjacency = Adjacency {
            kind: AdjacencyKind::Rewrite,
            tx: SwIfIndex(index),
            mtu: 1500,
            ..Adjacency::default()
        };
        adjacency.rewrite[..6].copy_from_slice(&mac.0);
        adjacency.rewrite[6..12].copy_from_slice(&own(index).0);
        adjacency.rewrite[12] = 8;
        adjacency
    };
    let local = Adjacency { kind: AdjacencyKind::Local, ..Adjacency::default() };
    let adjacencies = vec![
        Adjacency::default(),
        local,
        to(UNDERLAY, station(200)),
        to(BVI, station(1)),
        to(SUB_L3, station(9)),
    ];
    let mut fib = MtrieWriter::new(64);
    for (address, len, adjacency) in [
        (US, 32, 1),
        (PEER, 32, 2),
        ([10, 0, 0, 1], 32, 1),
        ([10, 0, 0, 0], 24, 3),
        ([10, 9, 0, 1], 32, 1),
        ([10, 9, 0, 0], 24, 4),
    ] {
        fib.insert(u32::from_be_bytes(address), len, adjacency).unwrap();
    }
    let counters = Arc::new(Combined::new(workers));
    counters.ensure(0);
    let fibs = vec![Arc::clone(fib.table())];
    h.engine.tables::<Ip4Tables>().publish(Ip4Tables {
        fibs: fibs.clone(),
        adjacencies,
        counters,
        interfaces: ip4,
    });
    let vxlan = node(&h, "vxlan4-input");
    h.engine.tables::<UdpTables>().publish(UdpTables { nodes: vec![(4789, vxlan)] });
    let decap = Bihash::new(64, [5, 7]).unwrap();
    decap.put(decap_key(u32::from_be_bytes(PEER), Some(42)), |_| Some(TUNNEL.into()), |_| None);
    let tunnel = VxlanTunnel {
        outer: OuterHeader::new(US.into(), PEER.into(), [0, 4789], 42),
        sw_if_index: SwIfIndex(TUNNEL),
        fib_index: 0,
        max_frame: 1468,
        src_port: 0,
        checksum: true,
        decap: Decap::L2,
        local_port: 4789,
        up: true,
    };
    let mut tunnels = vec![None; TUNNEL as usize];
    tunnels.push(Some(Arc::new(tunnel)));
    h.engine.tables::<VxlanTables>().publish(VxlanTables {
        tunnels,
        decap: Some(Arc::new(decap)),
        any_vni: true,
        fibs,
    });
    h
}

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
