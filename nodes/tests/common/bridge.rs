//! A bridge with a trunk, a tunnel and a router interface, for tests and fuzzing.

use std::sync::Arc;
use wharf_engine::engine::{InterfaceSetup, Loopback};
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

/// 1 is a trunk: sub-interface 5 (VLAN 100) is bridged, 6 (802.1ad 5 and 802.1Q 9) is routed. 2 is bridged. 3 leads to the peer of tunnel 7, which is
/// bridged. 4 is the domain's router interface.
pub(crate) const TRUNK: u32 = 1;
pub(crate) const PLAIN: u32 = 2;
pub(crate) const UNDERLAY: u32 = 3;
pub(crate) const BVI: u32 = 4;
pub(crate) const SUB_L2: u32 = 5;
pub(crate) const SUB_L3: u32 = 6;
pub(crate) const TUNNEL: u32 = 7;

/// Our address on the underlay.
pub(crate) const US: [u8; 4] = [192, 168, 0, 1];
/// The tunnel's other end.
pub(crate) const PEER: [u8; 4] = [192, 168, 0, 2];

/// The MAC address of one of our interfaces.
pub(crate) fn own(interface: u32) -> MacAddress {
    MacAddress([2, 0xfe, 0, 0, 0, interface as u8])
}

/// The MAC address of somebody.
pub(crate) fn station(n: u8) -> MacAddress {
    MacAddress([2, 0, 0, 0, 0, n])
}

/// All of it.
pub(crate) fn bridge(workers: usize) -> Harness {
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
        let setup = InterfaceSetup { name: name.into(), up: true, input: None, loopback: None };
        h.engine.set_interface(SwIfIndex(index), Some(setup));
        h.engine.set_output_node(SwIfIndex(index), output);
    }
    let input = Some(node(&h, "l2-input"));
    let loop0 = InterfaceSetup { name: "loop0".into(), up: true, input, loopback: Some(Loopback::Bridged) };
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
    let macs = MacTable::new(64, None, [1, 2]).unwrap();
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
        groups: Vec::new(),
        counted: None,
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
        groups: false,
        fibs,
    });
    h
}
