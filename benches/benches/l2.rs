//! The bridge, without a driver: addresses set by the operator, and 10, 10 thousand and a million learned ones.

use std::sync::Arc;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use wharf_benches::rig::{FROM, Rig, Sink, Source, TO};
use wharf_engine::GraphBuilder;
use wharf_engine::wake::Waker;
use wharf_nodes::interface::{InputMode, InterfaceEntry, InterfaceTables};
use wharf_nodes::l2::{
    BridgeDomain, L2Port, L2Tables, MacEntry, MacTable, Member, PortMode, Stamp, key, l2_flags,
};
use wharf_nodes::wire::ethernet::MacAddress;

/// Packets in a turn: one, what a node handles at once, what testpmd takes, and a whole frame.
const SIZES: [usize; 4] = [1, 4, 32, 256];
/// Different frames.
const FRAMES: u32 = 1 << 16;
const SOURCE: MacAddress = MacAddress([2, 0, 0, 0, 0, 1]);

fn station(n: u32) -> MacAddress {
    MacAddress::from_u64(0x0211_0000_0000 + u64::from(n))
}

/// Frames to random ones of `stations`.
fn frames(stations: u32) -> Vec<Vec<u8>> {
    let mut random = 1u32;
    let mut next = || {
        random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        ((u64::from(random) * u64::from(stations)) >> 32) as u32
    };
    let mut frame = vec![0; 60];
    frame[6..12].copy_from_slice(&SOURCE.0);
    frame[12..14].copy_from_slice(&[0x88, 0xb5]);
    (0..FRAMES)
        .map(|_| {
            frame[..6].copy_from_slice(&station(next()).0);
            frame.clone()
        })
        .collect()
}

/// A domain of two ports; the stations are behind the second.
fn rig(stations: u32, learn: bool, burst: usize) -> Rig {
    let mut list = GraphBuilder::new();
    // The events say nothing here.
    let _events = wharf_nodes::nodes(&mut list, Waker::new().expect("an eventfd"));
    let source = Source::new(frames(stations), burst);
    let mut rig = Rig::new(list, "l2-input", None, Box::new(source), Box::new(Sink));
    let entry = InterfaceEntry { up: true, mode: InputMode::L2, ..InterfaceEntry::default() };
    rig.engine
        .tables::<InterfaceTables>()
        .publish(InterfaceTables { list: vec![entry; 2], ..InterfaceTables::default() });
    let macs = MacTable::new(1 << 19, [1, 2]).expect("there is memory");
    for n in 0..stations {
        let key = key(1, station(n));
        match learn {
            true => _ = macs.learn(key, TO, Stamp(0), [u32::MAX; 2]),
            false => macs.set(key, MacEntry::fixed(TO)).expect("there is room"),
        }
    }
    if !learn {
        macs.set(key(1, SOURCE), MacEntry::fixed(FROM)).expect("there is room");
    }
    let port = L2Port {
        mode: PortMode::Bridge,
        flags: l2_flags::LEARN | l2_flags::FORWARD | l2_flags::FLOOD | l2_flags::UU_FLOOD,
        domain: 1,
        learn_limit: u32::MAX,
        ..L2Port::default()
    };
    let member = |port| Member { port, shg: 0, bvi: false, plain: true };
    let domain = BridgeDomain {
        members: vec![member(FROM), member(TO)],
        learn_limit: u32::MAX,
        ..BridgeDomain::default()
    };
    rig.engine.tables::<L2Tables>().publish(L2Tables {
        ports: vec![port; 2],
        domains: vec![BridgeDomain::default(), domain],
        macs: Some(Arc::new(macs)),
    });
    rig
}

fn bridge(c: &mut Criterion) {
    let shapes = [
        ("bridge, static", 2, false),
        ("bridge, 10 learned", 10, true),
        ("bridge, 10k learned", 10_000, true),
        ("bridge, 1M learned", 1_000_000, true),
    ];
    for (name, stations, learn) in shapes {
        let mut group = c.benchmark_group(name);
        for size in SIZES {
            let mut rig = rig(stations, learn, size);
            group.throughput(Throughput::Elements(size as u64));
            group.bench_function(BenchmarkId::from_parameter(size), |b| b.iter(|| rig.turn()));
            rig.check();
        }
        group.finish();
    }
}

criterion_group!(benches, bridge);
criterion_main!(benches);
