//! A small router for the tests of nodes: two interfaces with addresses, two cross-connected ones, one without anything,
//! one that is down.
#![allow(dead_code, reason = "not every test uses all of it")]

use std::net::Ipv4Addr;
use std::sync::Arc;
use wharf_engine::counter::{Combined, Count};
use wharf_engine::dispatch::CpuLevel;
use wharf_engine::mtrie::MtrieWriter;
use wharf_engine::testing::Harness;
use wharf_engine::wake::Waker;
use wharf_engine::{GraphBuilder, SwIfIndex};
use wharf_nodes::arp::{ArpInterface, ArpTables};
use wharf_nodes::event::Events;
use wharf_nodes::interface::{InputMode, InterfaceEntry, InterfaceTables};
use wharf_nodes::ip4::{Adjacency, AdjacencyKind, Ip4Interface, Ip4Tables};
use wharf_nodes::l2::{L2Port, L2Tables, PortMode};
use wharf_nodes::wire::MacAddress;

/// Interfaces: 1 and 2 route, 3 and 4 are cross-connected, 5 has no address. Number 6 is down.
pub(crate) const MAC: [MacAddress; 6] = [
    MacAddress::ZERO,
    MacAddress([2, 0, 0, 0, 0, 1]),
    MacAddress([2, 0, 0, 0, 0, 2]),
    MacAddress([2, 0, 0, 0, 0, 3]),
    MacAddress([2, 0, 0, 0, 0, 4]),
    MacAddress([2, 0, 0, 0, 0, 5]),
];
/// The neighbour 10.0.2.9 on interface 2.
pub(crate) const NEIGHBOUR: MacAddress = MacAddress([2, 0, 0, 0, 9, 9]);
/// An unresolved next hop, on interface 1 for 30.0.0.0/8 and on interface 2 for 31.0.0.0/8.
pub(crate) const FAR: Ipv4Addr = Ipv4Addr::new(10, 9, 9, 9);
/// The host 10.0.1.9 that sends on interface 1.
pub(crate) const HOST: MacAddress = MacAddress([2, 0, 0, 0, 1, 9]);

pub(crate) struct Router {
    pub(crate) h: Harness,
    pub(crate) events: Events,
    tables: Ip4Tables,
}

fn adjacency(kind: AdjacencyKind, tx: u32) -> Adjacency {
    Adjacency { kind, tx: SwIfIndex(tx), mtu: 1500, ..Adjacency::default() }
}

impl Router {
    /// All interfaces receive at most `burst` packets a turn.
    pub(crate) fn new(burst: usize) -> Router {
        Router::with_level(burst, CpuLevel::detect())
    }

    /// As [`Router::new`], with the nodes as compiled for `level`.
    pub(crate) fn with_level(burst: usize, level: CpuLevel) -> Router {
        let mut list = GraphBuilder::new();
        let events = wharf_nodes::nodes(&mut list, Waker::new().unwrap());
        let mut h = Harness::with_level(list, level).unwrap();
        for (index, name) in [(1, "eth1"), (2, "eth2"), (3, "x1"), (4, "x2"), (5, "bare")] {
            h.interface_with(index, name, "ethernet-input", burst, usize::MAX);
        }
        let entry = |i: usize, mode, ip4| InterfaceEntry { up: true, mode, mac: MAC[i], ip4 };
        h.engine.tables::<InterfaceTables>().publish(InterfaceTables {
            list: vec![
                InterfaceEntry::default(),
                entry(1, InputMode::L3, true),
                entry(2, InputMode::L3, true),
                entry(3, InputMode::L2, false),
                entry(4, InputMode::L2, false),
                entry(5, InputMode::L3, false),
                InterfaceEntry::default(),
            ],
            ..InterfaceTables::default()
        });
        let xconnect = |peer| L2Port { mode: PortMode::Xconnect, peer: SwIfIndex(peer), ..L2Port::default() };
        h.engine.tables::<L2Tables>().publish(L2Tables {
            ports: [[L2Port::default(); 3].as_slice(), &[xconnect(4), xconnect(3)]].concat(),
            ..L2Tables::default()
        });
        let arp = |i: usize| ArpInterface {
            mac: MAC[i],
            addresses: vec![(Ipv4Addr::new(10, 0, i as u8, 1), format!("10.0.{i}.0/24").parse().unwrap())],
        };
        h.engine
            .tables::<ArpTables>()
            .publish(ArpTables { interfaces: vec![ArpInterface::default(), arp(1), arp(2)] });

        let mut rewrite = adjacency(AdjacencyKind::Rewrite, 2);
        rewrite.rewrite[..6].copy_from_slice(&NEIGHBOUR.0);
        rewrite.rewrite[6..12].copy_from_slice(&MAC[2].0);
        rewrite.rewrite[12] = 8;
        let mut back = adjacency(AdjacencyKind::Rewrite, 1);
        back.rewrite[..6].copy_from_slice(&HOST.0);
        back.rewrite[6..12].copy_from_slice(&MAC[1].0);
        back.rewrite[12] = 8;
        let narrow = Adjacency { mtu: 1000, ..rewrite.clone() };
        let down = Adjacency { tx: SwIfIndex(6), ..rewrite.clone() };
        // One next hop's address on two interfaces: two neighbours.
        let unresolved = |tx| Adjacency { next_hop: FAR.to_bits(), ..adjacency(AdjacencyKind::Arp, tx) };
        let adjacencies = vec![
            Adjacency::default(),
            rewrite,
            back,
            adjacency(AdjacencyKind::Local, 0),
            adjacency(AdjacencyKind::Arp, 2),
            adjacency(AdjacencyKind::Drop, 0),
            adjacency(AdjacencyKind::Punt, 0),
            narrow,
            unresolved(1),
            unresolved(2),
            down,
        ];
        let mut fib = MtrieWriter::new(4096);
        for (prefix, len, index) in [
            ([10, 0, 2, 0], 24, 4),
            ([10, 0, 2, 9], 32, 1),
            ([10, 0, 1, 9], 32, 2),
            ([10, 0, 1, 1], 32, 3),
            ([10, 0, 2, 1], 32, 3),
            ([20, 0, 0, 0], 8, 1),
            ([20, 9, 0, 0], 16, 5),
            ([20, 8, 0, 0], 16, 6),
            ([20, 7, 0, 0], 16, 7),
            ([20, 6, 0, 0], 16, 10),
            ([30, 0, 0, 0], 8, 8),
            ([31, 0, 0, 0], 8, 9),
        ] {
            fib.insert(u32::from_be_bytes(prefix), len, index).unwrap();
        }
        let counters = Arc::new(Combined::new(1));
        counters.ensure(15);
        let interface =
            |i: u8| Ip4Interface { fib_index: 0, address: u32::from_be_bytes([10, 0, i, 1]), enabled: true };
        let tables = Ip4Tables {
            fibs: vec![Arc::clone(fib.table())],
            adjacencies,
            counters,
            groups: Vec::new(),
            counted: None,
            interfaces: vec![
                Ip4Interface::default(),
                interface(1),
                interface(2),
                Ip4Interface::default(),
                Ip4Interface::default(),
                Ip4Interface::default(),
            ],
        };
        // The writer may go: the table that readers have stays as it is.
        h.engine.tables::<Ip4Tables>().publish(tables.clone());
        Router { h, events, tables }
    }

    /// Publishes the IPv4 tables with a change.
    pub(crate) fn change(&mut self, change: impl FnOnce(&mut Ip4Tables)) {
        change(&mut self.tables);
        self.h.engine.tables::<Ip4Tables>().publish(self.tables.clone());
    }

    /// What went over an adjacency.
    pub(crate) fn adjacency_count(&self, index: u32) -> Count {
        self.tables.counters.get(index)
    }

    /// Makes the unresolved neighbours of interface 2 known.
    pub(crate) fn resolve(&mut self) {
        self.change(|tables| tables.adjacencies[4] = tables.adjacencies[1].clone());
    }

    /// Runs, and returns all that was sent, as (interface, frame).
    pub(crate) fn all_sent(&mut self) -> Vec<(u32, Vec<u8>)> {
        self.h.run();
        (1..=5).flat_map(|i| self.h.sent(i).into_iter().map(move |frame| (i, frame))).collect()
    }

    /// Lets interface 1 receive a frame, and expects that nothing is sent and `node` counts `reason` once.
    #[track_caller]
    pub(crate) fn drops(&mut self, frame: &[u8], node: &str, reason: &str) {
        let before = (self.h.error(node, reason), self.h.engine.balance().dropped);
        self.h.receive(1, frame);
        assert_eq!(self.all_sent(), [], "{reason}");
        let after = (self.h.error(node, reason), self.h.engine.balance().dropped);
        assert_eq!(after, (before.0 + 1, before.1 + 1), "{node}: {reason}: {:?}", self.h.errors());
    }

    /// Lets interface `i` receive a frame, runs, and returns what interface `out` sent.
    pub(crate) fn pass(&mut self, i: u32, frame: &[u8], out: u32) -> Vec<Vec<u8>> {
        self.h.receive(i, frame);
        self.h.run();
        self.h.sent(out)
    }
}

/// A UDP packet from 10.0.1.9 to `dst`, received on interface 1.
pub(crate) fn udp(dst: [u8; 4], ttl: u8, payload: usize) -> Vec<u8> {
    let mut frame = Vec::new();
    etherparse::PacketBuilder::ethernet2(HOST.0, MAC[1].0)
        .ipv4([10, 0, 1, 9], dst, ttl)
        .udp(1000, 2000)
        .write(&mut frame, &vec![0xa5; payload])
        .unwrap();
    frame
}

/// An echo request from 10.0.1.9 to `dst`.
pub(crate) fn echo(dst: [u8; 4], payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    etherparse::PacketBuilder::ethernet2(HOST.0, MAC[1].0)
        .ipv4([10, 0, 1, 9], dst, 64)
        .icmpv4_echo_request(7, 3)
        .write(&mut frame, payload)
        .unwrap();
    frame
}

/// Changes the IPv4 header of a frame and makes its checksum right again.
pub(crate) fn with_header(mut frame: Vec<u8>, change: impl FnOnce(&mut [u8])) -> Vec<u8> {
    change(&mut frame[14..]);
    let len = usize::from(frame[14] & 15) * 4;
    frame[24..26].fill(0);
    let end = (14 + len.max(20)).min(frame.len());
    let sum = wharf_nodes::wire::checksum::checksum(&frame[14..end]);
    frame[24..26].copy_from_slice(&sum.to_be_bytes());
    frame
}

/// An ARP frame.
pub(crate) fn arp(operation: u16, sender: (MacAddress, [u8; 4]), target: [u8; 4]) -> Vec<u8> {
    let mut frame = [0xff; 6].to_vec();
    frame.extend(sender.0.0);
    frame.extend([8, 6, 0, 1, 8, 0, 6, 4]);
    frame.extend(operation.to_be_bytes());
    frame.extend(sender.0.0);
    frame.extend(sender.1);
    frame.extend([0; 6]);
    frame.extend(target);
    frame
}

/// Puts `words` 4-byte words of options ("no operation") behind the IPv4 header of a frame.
pub(crate) fn with_options(mut frame: Vec<u8>, words: u8) -> Vec<u8> {
    frame.splice(34..34, vec![1; usize::from(words) * 4]);
    let len = (frame.len() - 14) as u16;
    with_header(frame, |ip| {
        ip[0] += words;
        ip[2..4].copy_from_slice(&len.to_be_bytes());
    })
}

/// Lengths and checksums of a sent frame are right, in another's opinion too.
#[track_caller]
pub(crate) fn check(frame: &[u8]) {
    let packet = etherparse::PacketHeaders::from_ethernet_slice(frame).unwrap();
    let Some(etherparse::NetHeaders::Ipv4(ip, _)) = packet.net else { return };
    assert_eq!(wharf_nodes::wire::checksum::ones_complement_sum(&frame[14..14 + ip.header_len()]), 0xffff);
    assert_eq!(usize::from(ip.total_len), frame.len() - 14);
    assert!(ip.time_to_live > 0);
    if let Some(etherparse::TransportHeader::Icmpv4(icmp)) = packet.transport {
        assert_eq!(icmp.checksum, icmp.icmp_type.calc_checksum(packet.payload.slice()));
    }
}
