//! wharf's own nodes, without a driver: cross-connect and IPv4 forwarding.

#[path = "support/router.rs"]
mod router;
mod support;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use router::{FIRST, packet, rig};
use support::SIZES;
use wharf_nodes::interface::InputMode;

/// Different packets.
const PACKETS: u32 = 1 << 16;

/// Packets to random ones of `routes` addresses.
fn packets(routes: u32) -> Vec<Vec<u8>> {
    let mut random = 1u32;
    let mut next = || {
        random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        ((u64::from(random) * u64::from(routes)) >> 32) as u32
    };
    (0..PACKETS).map(|_| packet(FIRST + next())).collect()
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
            let mut rig = rig(mode, routes, packets(routes), size);
            group.throughput(Throughput::Elements(size as u64));
            group.bench_function(BenchmarkId::from_parameter(size), |b| b.iter(|| rig.turn()));
            rig.check();
        }
        group.finish();
    }
}

criterion_group!(benches, paths);
criterion_main!(benches);
