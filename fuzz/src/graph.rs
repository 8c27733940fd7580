//! Frames from the wire, through all nodes.

use std::net::Ipv4Addr;
use std::sync::Arc;

use wharf_engine::counter::Combined;
use wharf_engine::mtrie::MtrieWriter;
use wharf_engine::testing::{Harness, TEST_INPUT};
use wharf_engine::wake::Waker;
use wharf_engine::{GraphBuilder, SwIfIndex};
use wharf_nodes::arp::{ArpInterface, ArpTables};
use wharf_nodes::interface::{InputMode, InterfaceEntry, InterfaceTables};
use wharf_nodes::ip4::{Adjacency, AdjacencyKind, Ip4Interface, Ip4Tables};
use wharf_nodes::l2::{L2Port, L2Tables, PortMode};
use wharf_nodes::wire::checksum;
use wharf_nodes::wire::ethernet::{EtherType, EthernetHeader, MacAddress};
use wharf_nodes::wire::ip4::Ip4Prefix;

/// Interfaces 1 and 2 route, 3 and 4 are cross-connected.
const INTERFACES: u32 = 4;
/// Most frames of an input.
const MAX_FRAMES: usize = 64;
/// Enough for these, and for what nodes make of them; a larger pool takes longer to make than an input to run.
const BUFFERS: u32 = 256;
/// Bytes of an IPv4 header without options, and where its checksum is.
const IP4_HEADER: usize = 20;
const IP4_CHECKSUM: usize = 10;

/// MAC address of interface `index`.
fn mac(index: u32) -> MacAddress {
    MacAddress([2, 0xfe, 0, 0, 0, index as u8])
}

/// A frame of an input, and the interface that receives it.
///
/// On the wire of this target: a byte with the interface (low two bits) and bit 2 for "make the IPv4 checksum right"
/// and bit 3 for "address it to the interface", the length in two bytes, low first, and the frame.
fn frames(mut data: &[u8]) -> Vec<(u32, Vec<u8>)> {
    let mut frames = Vec::new();
    while let [how, low, high, rest @ ..] = data {
        let len = usize::from(u16::from_le_bytes([*low, *high]) % 2049).min(rest.len());
        let (bytes, rest) = rest.split_at(len);
        let interface = 1 + u32::from(how & 3);
        let mut frame = bytes.to_vec();
        if how & 8 != 0 && len >= EthernetHeader::LEN {
            frame[..6].copy_from_slice(&mac(interface).0);
        }
        if how & 4 != 0 {
            fix_checksum(&mut frame);
        }
        frames.push((interface, frame));
        data = rest;
        if frames.len() == MAX_FRAMES {
            break;
        }
    }
    frames
}

/// No fuzzer guesses a checksum; what is behind it wants to be reached.
pub(crate) fn fix_checksum(frame: &mut [u8]) {
    let Some(packet) = frame.get_mut(EthernetHeader::LEN..).filter(|p| p.len() >= IP4_HEADER) else { return };
    let len = (usize::from(packet[0] & 15) * 4).clamp(IP4_HEADER, packet.len());
    packet[IP4_CHECKSUM..IP4_CHECKSUM + 2].fill(0);
    let sum = checksum::checksum(&packet[..len]);
    packet[IP4_CHECKSUM..IP4_CHECKSUM + 2].copy_from_slice(&sum.to_be_bytes());
}

/// Two subnets, routes of every kind, and a cross-connect.
fn configure(harness: &mut Harness) {
    let own = [Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(198, 51, 100, 1)];
    let subnet = own.map(|address| Ip4Prefix::clamped(address, 24));

    let mut interfaces =
        InterfaceTables { list: vec![InterfaceEntry::default()], ..InterfaceTables::default() };
    let mut l2 = L2Tables { ports: vec![L2Port::default()], ..L2Tables::default() };
    let mut arp = ArpTables { interfaces: vec![ArpInterface::default()] };
    let mut ip4 = vec![Ip4Interface::default()];
    for index in 1..=INTERFACES {
        harness.interface(index, &format!("test{index}"), "ethernet-input");
        let l3 = own.iter().zip(subnet).nth(index as usize - 1);
        let (mode, port) = match l3 {
            Some(_) => (InputMode::L3, PortMode::None),
            None => (InputMode::L2, PortMode::Xconnect),
        };
        l2.ports.push(L2Port {
            mode: port,
            peer: SwIfIndex(7u32.saturating_sub(index)),
            ..L2Port::default()
        });
        interfaces.list.push(InterfaceEntry { up: true, mode, mac: mac(index), ip4: l3.is_some() });
        let addresses = l3.map(|(address, subnet)| (*address, subnet)).into_iter().collect();
        arp.interfaces.push(ArpInterface { mac: mac(index), addresses });
        let address = l3.map_or(0, |(address, _)| address.to_bits());
        ip4.push(Ip4Interface { fib_index: 0, address, enabled: l3.is_some() });
    }

    let rewrite = {
        let header = EthernetHeader::new(MacAddress([2, 1, 1, 1, 1, 1]), mac(2), EtherType::IP4);
        let mut bytes = [0; EthernetHeader::LEN];
        bytes[..6].copy_from_slice(&header.dst.0);
        bytes[6..12].copy_from_slice(&header.src.0);
        bytes[12..].copy_from_slice(&header.ethertype.get().to_be_bytes());
        bytes
    };
    let adjacency = |kind, tx| Adjacency { rewrite, mtu: 1500, tx: SwIfIndex(tx), next_hop: 0, kind };
    let adjacencies = vec![
        Adjacency::default(),
        adjacency(AdjacencyKind::Local, 0),
        adjacency(AdjacencyKind::Arp, 1),
        adjacency(AdjacencyKind::Arp, 2),
        adjacency(AdjacencyKind::Rewrite, 2),
        adjacency(AdjacencyKind::Drop, 0),
        adjacency(AdjacencyKind::Punt, 0),
        Adjacency { mtu: 100, ..adjacency(AdjacencyKind::Rewrite, 1) },
    ];
    let mut fib = MtrieWriter::new(64);
    let mut route = |prefix: Ip4Prefix, adjacency: u32| {
        fib.insert(prefix.to_bits(), prefix.len(), adjacency).expect("a small table");
    };
    own.iter().for_each(|address| route(Ip4Prefix::host(*address), 1));
    route(subnet[0], 2);
    route(subnet[1], 3);
    for (last, adjacency) in [(0, 4), (64, 5), (128, 6), (192, 7)] {
        route(Ip4Prefix::clamped(Ipv4Addr::new(203, 0, 113, last), 26), adjacency);
    }
    let counters = Arc::new(Combined::new(harness.engine.workers()));
    counters.ensure(adjacencies.len() as u32);

    harness.engine.tables::<InterfaceTables>().publish(interfaces);
    harness.engine.tables::<L2Tables>().publish(l2);
    harness.engine.tables::<ArpTables>().publish(arp);
    harness.engine.tables::<Ip4Tables>().publish(Ip4Tables {
        fibs: vec![Arc::clone(fib.table())],
        adjacencies,
        counters,
        interfaces: ip4,
        groups: Vec::new(),
        counted: None,
    });
}

/// Receives the frames of the input, all of them traced. The harness finds every packet again when it is dropped.
pub fn run(data: &[u8]) {
    let frames = frames(data);
    let mut list = GraphBuilder::new();
    let events = wharf_nodes::nodes(&mut list, Waker::new().expect("an eventfd"));
    let mut harness = Harness::with_buffers(list, 1, BUFFERS).expect("the list is right");
    configure(&mut harness);
    harness.engine.trace_add(TEST_INPUT, MAX_FRAMES as u32).expect("the input node");
    for (interface, frame) in &frames {
        harness.receive(*interface, frame);
    }
    harness.run();
    harness.tick();
    for index in 1..=INTERFACES {
        let sent = harness.sent(index);
        // A cross-connect changes nothing.
        if index > 2 {
            let peer = 7 - index;
            let whole = |(rx, f): &&(u32, Vec<u8>)| *rx == peer && f.len() >= EthernetHeader::LEN;
            let expected: Vec<_> = frames.iter().filter(whole).map(|(_, frame)| frame.clone()).collect();
            assert_eq!(sent, expected, "cross-connect from interface {peer} to {index}");
        }
    }
    let traced = harness.trace();
    assert!(frames.is_empty() || !traced.is_empty());
    events.take(usize::MAX);
}
