//! wharf's own nodes, without a driver: cross-connect and IPv4 forwarding.

mod support;

use std::sync::Arc;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use support::{FROM, Rig, SIZES, TO};
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
const FIRST: u32 = 0x1000_0000;
/// Different packets.
const PACKETS: u32 = 1 << 16;

fn packet(destination: u32) -> Vec<u8> {
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

/// Packets to random ones of `routes` addresses.
fn packets(routes: u32) -> Vec<Vec<u8>> {
    let mut random = 1u32;
    let mut next = || {
        random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        ((u64::from(random) * u64::from(routes)) >> 32) as u32
    };
    (0..PACKETS).map(|_| packet(FIRST + next())).collect()
}

fn rig(mode: InputMode, routes: u32, burst: usize) -> Rig {
    let mut list = GraphBuilder::new();
    // The events say nothing here.
    let _events = wharf_nodes::nodes(&mut list, Waker::new().expect("an eventfd"));
    let mut rig = Rig::new(list, "ethernet-input", packets(routes), burst);
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

fn paths(c: &mut Criterion) {
    let shapes = [
        ("cross-connect", InputMode::L2, 1),
        ("ip4, one route", InputMode::L3, 1),
        ("ip4, 1k routes", InputMode::L3, 1_000),
        ("ip4, 1M routes", InputMode::L3, 1_000_000),
    ];
    for (name, mode, routes) in shapes {
        let mut group = c.benchmark_group(name);
        for size in SIZES {
            let mut rig = rig(mode, routes, size);
            group.throughput(Throughput::Elements(size as u64));
            group.bench_function(BenchmarkId::from_parameter(size), |b| b.iter(|| rig.turn()));
            rig.check();
        }
        group.finish();
    }
}

criterion_group!(benches, paths);
criterion_main!(benches);
