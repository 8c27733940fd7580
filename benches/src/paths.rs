//! wharf's own nodes between two devices: cross-connect, bridge, VXLAN, IPv4 forwarding and access lists.

use std::net::Ipv4Addr;
use std::sync::Arc;

use wharf_engine::bihash::Bihash;
use wharf_engine::counter::Combined;
use wharf_engine::device::{DeviceInput, DeviceOutput};
use wharf_engine::dispatch::CpuLevel;
use wharf_engine::engine::InterfaceSetup;
use wharf_engine::mtrie::MtrieWriter;
use wharf_engine::wake::Waker;
use wharf_engine::{GraphBuilder, SwIfIndex, clock};
use wharf_nodes::acl::{
    AclPrefix, AclTables, Action, InterfaceAcl, ListedRule, Lists, Rule, Side, sessions::SessionTable,
};
use wharf_nodes::interface::{InputMode, InterfaceEntry, InterfaceTables};
use wharf_nodes::ip4::{Adjacency, AdjacencyKind, Ip4Interface, Ip4Tables, UdpTables};
use wharf_nodes::l2::{
    BridgeDomain, L2Port, L2Tables, MacEntry, MacTable, Member, PortMode, Stamp, key, l2_flags,
};
use wharf_nodes::vxlan::{Decap, OuterHeader, VxlanTables, VxlanTunnel, decap_key};
use wharf_nodes::wire::checksum::checksum;
use wharf_nodes::wire::ethernet::MacAddress;
use wharf_nodes::wire::ip4::IpProtocol;

use crate::rig::{Devices, FROM, Rig, TO};

const MAC: [u8; 6] = [2, 0xfe, 0, 0, 0, 1];
/// First destination, 16.0.0.0.
pub const FIRST: u32 = 0x1000_0000;
/// Plies that a table may have.
const PLIES: u32 = 1 << 16;

/// A row of pseudo-random numbers, the same in each run.
#[derive(Debug)]
pub struct Random(u32);

impl Random {
    /// From its start.
    #[allow(clippy::new_without_default, reason = "a row has a start, not a default")]
    pub fn new() -> Random {
        Random(1)
    }

    /// The next number below `limit`.
    pub fn below(&mut self, limit: u32) -> u32 {
        self.0 = self.0.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        ((u64::from(self.0) * u64::from(limit)) >> 32) as u32
    }
}

/// UDP over IPv4 to `destination`, 60 bytes.
pub fn packet(destination: u32) -> Vec<u8> {
    let mut p = vec![0; 60];
    p[..6].copy_from_slice(&MAC);
    p[6] = 2;
    p[12..14].copy_from_slice(&[8, 0]);
    p[14] = 0x45;
    p[17] = 46;
    p[22] = 64;
    p[23] = 17;
    p[26..30].copy_from_slice(&[192, 168, 1, 2]);
    p[30..34].copy_from_slice(&destination.to_be_bytes());
    let sum = checksum(&p[14..34]);
    p[24..26].copy_from_slice(&sum.to_be_bytes());
    p
}

/// Packets to `count` random ones of the addresses that [`fib`] of so many routes has.
pub fn packets(routes: u32, count: u32) -> Vec<Vec<u8>> {
    let mut random = Random::new();
    (0..count).map(|_| packet(FIRST + random.below(routes))).collect()
}

/// Station `n` of those behind `port`.
fn station(port: SwIfIndex, n: u32) -> MacAddress {
    MacAddress::from_u64(0x0210_0000_0000 + (u64::from(port.0) << 24) + u64::from(n))
}

/// `count` frames, each from a random one of `stations` behind [`FROM`] to one of as many behind [`TO`].
pub fn frames(stations: u32, count: u32) -> Vec<Vec<u8>> {
    let mut random = Random::new();
    let mut frame = || {
        let mut frame = packet(FIRST);
        frame[..6].copy_from_slice(&station(TO, random.below(stations)).0);
        frame[6..12].copy_from_slice(&station(FROM, random.below(stations)).0);
        frame
    };
    (0..count).map(|_| frame()).collect()
}

/// [`frames`] inside packets from the tunnel's peer.
pub fn tunnelled(count: u32) -> Vec<Vec<u8>> {
    let wrap = |inner: Vec<u8>| {
        let len = (OuterHeader::LEN + inner.len()) as u16;
        let mut ip = vec![0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, 17, 0, 0];
        ip[2..4].copy_from_slice(&len.to_be_bytes());
        ip.extend([PEER.to_be_bytes(), OWN.to_be_bytes()].concat());
        let sum = checksum(&ip);
        ip[10..12].copy_from_slice(&sum.to_be_bytes());
        let udp = [0xc123, VXLAN, len - 20, 0].map(u16::to_be_bytes).concat();
        let vxlan = [8 << 24, VNI << 8].map(u32::to_be_bytes).concat();
        [&MAC[..], &[2, 0, 0, 0, 0, 9, 8, 0], &ip, &udp, &vxlan, &inner].concat()
    };
    frames(1, count).into_iter().map(wrap).collect()
}

/// So many host routes in a row from [`FIRST`] on; or the one route of 16.0.0.0/8.
pub fn fib(routes: u32) -> MtrieWriter {
    let mut fib = MtrieWriter::new(PLIES);
    if routes == 1 {
        fib.insert(FIRST, 8, 1).expect("there is room");
    } else {
        (0..routes).for_each(|i| fib.insert(FIRST + i, 32, 1).expect("there is room"));
    }
    fib
}

/// What is between the devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Path {
    /// Cross-connect.
    Xconnect,
    /// A bridge with so many stations behind each port, learned; or one, set by the operator.
    Bridge(u32),
    /// Cross-connect into a VXLAN tunnel.
    VxlanEncap,
    /// Out of a VXLAN tunnel, cross-connected.
    VxlanDecap,
    /// IPv4 with as many routes as [`fib`] has.
    Ip4(u32),
    /// IPv4 with a thousand rules for what is received, met by 256 flows.
    Acl(Action),
}

/// Rules of an access list.
const RULES: u32 = 1000;
/// Flows that meet the access list.
const FLOWS: u32 = 256;

impl Path {
    /// `count` packets that take it.
    pub fn packets(self, count: u32) -> Vec<Vec<u8>> {
        match self {
            Path::Xconnect | Path::VxlanEncap => packets(1, count),
            Path::Bridge(stations) => frames(stations, count),
            Path::VxlanDecap => tunnelled(count),
            Path::Ip4(routes) => packets(routes, count),
            Path::Acl(_) => packets(FLOWS, count),
        }
    }
}

/// The tunnel's interface, and what it is.
const TUNNEL: SwIfIndex = SwIfIndex(2);
const OWN: u32 = 0xc0a8_0101;
const PEER: u32 = FIRST + 1;
const VXLAN: u16 = 4789;
const VNI: u32 = 7;

/// Of the MAC table: room for four times the most stations.
const BUCKETS: usize = 1 << 20;

/// The tables of layer 2.
fn l2_tables(path: Path) -> L2Tables {
    let xconnect = |peer| L2Port { mode: PortMode::Xconnect, peer, ..L2Port::default() };
    let Path::Bridge(stations) = path else {
        let from = if path == Path::VxlanEncap { TUNNEL } else { TO };
        return L2Tables { ports: vec![xconnect(from), xconnect(FROM), xconnect(TO)], ..L2Tables::default() };
    };
    let macs = MacTable::new(BUCKETS, None, [1, 2]).expect("there is memory");
    for port in [FROM, TO] {
        for n in 0..stations {
            let key = key(1, station(port, n));
            match stations {
                1 => macs.set(key, MacEntry::fixed(port)).expect("there is room"),
                _ => _ = macs.learn(key, port, Stamp::of(clock::nanos()), [u32::MAX; 2]),
            }
        }
    }
    let port = L2Port {
        mode: PortMode::Bridge,
        flags: l2_flags::LEARN | l2_flags::FORWARD | l2_flags::FLOOD | l2_flags::UU_FLOOD,
        domain: 1,
        learn_limit: u32::MAX,
        ..L2Port::default()
    };
    let member = |port| Member { port, shg: 0, bvi: false, plain: true };
    let members = vec![member(FROM), member(TO)];
    let domain = BridgeDomain { members, learn_limit: u32::MAX, ..BridgeDomain::default() };
    L2Tables {
        ports: vec![port; 2],
        domains: vec![BridgeDomain::default(), domain],
        macs: Some(Arc::new(macs)),
    }
}

/// One tunnel.
fn vxlan_tables(fib: &MtrieWriter) -> VxlanTables {
    let decap = Bihash::new(64, [5, 7]).expect("there is memory");
    decap.put(decap_key(PEER, Some(VNI)), |_| Some(TUNNEL.0.into()), |_| None);
    let tunnel = VxlanTunnel {
        outer: OuterHeader::new(OWN.into(), PEER.into(), [0, VXLAN], VNI),
        sw_if_index: TUNNEL,
        fib_index: 0,
        max_frame: 1464,
        src_port: 0,
        checksum: false,
        decap: Decap::L2,
        local_port: VXLAN,
        up: true,
    };
    VxlanTables {
        tunnels: vec![None, None, Some(Arc::new(tunnel))],
        decap: Some(Arc::new(decap)),
        any_vni: false,
        groups: false,
        fibs: vec![Arc::clone(fib.table())],
    }
}

/// An access list on [`FROM`]: networks and ports side by side, none of which the packets match, and a rule for the rest.
fn acl_tables(action: Action, workers: usize) -> AclTables {
    let rule = |n: u32| Rule {
        dst: AclPrefix::new(Ipv4Addr::from_bits(FIRST + 256 + 16 * n).into(), 28),
        protocol: IpProtocol::UDP,
        dport: (n as u16, n as u16 + 80),
        ..Rule::all(Action::Deny, false)
    };
    let rules = (0..RULES).map(rule).chain([Rule::all(action, false)]);
    let listed = rules.zip(0..).map(|(rule, number)| ListedRule { rule, acl: 0, number, counter: number });
    let lists = Lists::new(listed.collect()).expect("it is simple");
    let input = Side { lists: Some(Arc::new(lists)), ..Side::default() };
    let acl = InterfaceAcl { reflects: action == Action::Reflect, input, ..InterfaceAcl::default() };
    let counters = Arc::new(Combined::new(workers));
    (0..=RULES).for_each(|i| counters.ensure(i));
    let sessions = SessionTable::new(1 << 16, [1, 2, 3, 4]).expect("there is memory");
    AclTables {
        interfaces: vec![Some(Arc::new(acl))],
        counters,
        sessions: (action == Action::Reflect).then(|| Arc::new(sessions)),
        share: 1 << 16,
        ..AclTables::default()
    }
}

/// All of wharf's nodes, set up for `path` between `source`, on [`FROM`], and `sink`, on [`TO`].
pub fn rig(
    path: Path,
    level: Option<CpuLevel>,
    source: Box<dyn DeviceInput>,
    sink: Box<dyn DeviceOutput>,
) -> Rig {
    rig_of(path, level, vec![(source, sink)])
}

/// As [`rig`], with a worker for each of `devices`.
pub fn rig_of(path: Path, level: Option<CpuLevel>, devices: Vec<Devices>) -> Rig {
    let workers = devices.len();
    let mut list = GraphBuilder::new();
    // The events say nothing here.
    let _events = wharf_nodes::nodes(&mut list, Waker::new().expect("an eventfd"));
    // As the control plane has it: an interface in L2 mode has no need of ethernet-input.
    let (input, mode, routes) = match path {
        Path::Xconnect | Path::Bridge(_) | Path::VxlanEncap => ("l2-input", InputMode::L2, 1),
        Path::VxlanDecap | Path::Acl(_) => ("ethernet-input", InputMode::L3, 1),
        Path::Ip4(routes) => ("ethernet-input", InputMode::L3, routes),
    };
    let mut rig = Rig::new(list, input, level, devices);
    let entry = InterfaceEntry { up: true, mode, mac: MacAddress(MAC), ip4: true };
    rig.engine
        .tables::<InterfaceTables>()
        .publish(InterfaceTables { list: vec![entry; 3], ..InterfaceTables::default() });
    rig.engine.tables::<L2Tables>().publish(l2_tables(path));
    let mut fib = fib(routes);
    let node = |name| rig.engine.graph().find(name).expect("it is in the list");
    let (encap, input) = (node("vxlan4-encap"), node("vxlan4-input"));
    let setup = InterfaceSetup { name: "vxlan_tunnel0".into(), up: true, input: None, loopback: None };
    rig.engine.set_interface(TUNNEL, Some(setup));
    rig.engine.set_output_node(TUNNEL, encap);
    rig.engine.tables::<UdpTables>().publish(UdpTables { nodes: vec![(VXLAN, input)] });
    rig.engine.tables::<VxlanTables>().publish(vxlan_tables(&fib));

    let counters = Arc::new(Combined::new(workers));
    (0..3).for_each(|i| counters.ensure(i));
    let rewrite = Adjacency {
        rewrite: [2, 0, 0, 0, 0, 2, 2, 0xfe, 0, 0, 0, 2, 8, 0],
        mtu: 1500,
        tx: TO,
        next_hop: 0,
        kind: AdjacencyKind::Rewrite,
    };
    let local = Adjacency { kind: AdjacencyKind::Local, ..Adjacency::default() };
    if path == Path::VxlanDecap {
        fib.insert(OWN, 32, 2).expect("there is room");
    }
    let interface = Ip4Interface { fib_index: 0, address: 0xc0a8_0101, enabled: true };
    rig.engine.tables::<Ip4Tables>().publish(Ip4Tables {
        fibs: vec![Arc::clone(fib.table())],
        adjacencies: vec![Adjacency::default(), rewrite, local],
        counters,
        interfaces: vec![interface; 2],
        groups: Vec::new(),
        counted: None,
    });
    if let Path::Acl(action) = path {
        rig.engine.tables::<AclTables>().publish(acl_tables(action, workers));
        rig.engine.set_feature("ip4-unicast", "acl-plugin-in-ip4-fa", FROM, true).expect("there is one");
    }
    assert_eq!(FROM.0, 0, "what the lists above begin with");
    rig
}
