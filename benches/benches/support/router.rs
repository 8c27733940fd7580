//! A router with two interfaces, for benchmarks of its nodes.

use std::sync::Arc;

use crate::support::{FROM, Rig, TO};
use wharf_engine::GraphBuilder;
use wharf_engine::counter::Combined;
use wharf_engine::mtrie::MtrieWriter;
use wharf_engine::wake::Waker;
use wharf_nodes::interface::{InputMode, InterfaceEntry, InterfaceTables};
use wharf_nodes::ip4::{Adjacency, AdjacencyKind, Ip4Interface, Ip4Tables};
use wharf_nodes::l2::{L2Port, L2Tables, PortMode};
use wharf_nodes::wire::checksum::checksum;
use wharf_nodes::wire::ethernet::MacAddress;

const MAC: [u8; 6] = [2, 0xfe, 0, 0, 0, 1];
/// First destination, 16.0.0.0.
pub(crate) const FIRST: u32 = 0x1000_0000;
/// A UDP packet from 192.168.1.2 in a frame of 60 bytes.
pub(crate) fn packet(destination: u32) -> Vec<u8> {
    let mut p = vec![0; 60];
    p[..6].copy_from_slice(&MAC);
    p[6] = 2;
    p[12..14].copy_from_slice(&[8, 0]);
    p[14] = 0x45;
    p[17] = 46;
    p[22] = 64;
    p[23] = 17;
    p[39] = 26;
    p[26..30].copy_from_slice(&[192, 168, 1, 2]);
    p[30..34].copy_from_slice(&destination.to_be_bytes());
    let sum = checksum(&p[14..34]);
    p[24..26].copy_from_slice(&sum.to_be_bytes());
    p
}

/// The router with so many routes from [`FIRST`] on, all to [`TO`], which receives `packets`, `burst` a turn.
pub(crate) fn rig(mode: InputMode, routes: u32, packets: Vec<Vec<u8>>, burst: usize) -> Rig {
    let mut list = GraphBuilder::new();
    // The events say nothing here.
    let _events = wharf_nodes::nodes(&mut list, Waker::new().expect("an eventfd"));
    let mut rig = Rig::new(list, "ethernet-input", packets, burst);
    let entry = InterfaceEntry { up: true, mode, mac: MacAddress(MAC), ip4: true };
    rig.engine
        .tables::<InterfaceTables>()
        .publish(InterfaceTables { list: vec![entry; 2], ..InterfaceTables::default() });
    let port = L2Port { mode: PortMode::Xconnect, peer: TO, ..L2Port::default() };
    rig.engine.tables::<L2Tables>().publish(L2Tables { ports: vec![port; 2], ..L2Tables::default() });

    let mut fib = MtrieWriter::new(1 << 16);
    if routes == 1 {
        fib.insert(FIRST, 8, 1).expect("there is room");
    } else {
        (0..routes).for_each(|i| fib.insert(FIRST + i, 32, 1).expect("there is room"));
    }
    let counters = Arc::new(Combined::new(1));
    (0..2).for_each(|i| counters.ensure(i));
    let rewrite = Adjacency {
        rewrite: [2, 0, 0, 0, 0, 2, 2, 0xfe, 0, 0, 0, 2, 8, 0],
        mtu: 1500,
        tx: TO,
        next_hop: 0,
        kind: AdjacencyKind::Rewrite,
    };
    let interface = Ip4Interface { fib_index: 0, address: 0xc0a8_0101, enabled: true };
    rig.engine.tables::<Ip4Tables>().publish(Ip4Tables {
        fibs: vec![Arc::clone(fib.table())],
        adjacencies: vec![Adjacency::default(), rewrite],
        counters,
        interfaces: vec![interface; 2],
    });
    assert_eq!(FROM.0, 0, "what the lists above begin with");
    rig
}
