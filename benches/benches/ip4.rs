//! wharf's own nodes, without a driver: cross-connect and IPv4 forwarding.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use wharf_benches::paths::{self, Path};
use wharf_benches::rig::{Sink, Source};

/// Packets in a turn: one, what a node handles at once, what testpmd takes, and a whole frame.
const SIZES: [usize; 4] = [1, 4, 32, 256];
/// Different packets.
const PACKETS: u32 = 1 << 16;

fn paths(c: &mut Criterion) {
    let shapes = [
        ("cross-connect", Path::Xconnect, 1),
        ("ip4, one route", Path::Ip4(1), 1),
        ("ip4, 1k routes", Path::Ip4(1_000), 1_000),
        ("ip4, 1M routes", Path::Ip4(1_000_000), 1_000_000),
    ];
    for (name, path, routes) in shapes {
        let mut group = c.benchmark_group(name);
        for size in SIZES {
            let source = Source::new(paths::packets(routes, PACKETS), size);
            let mut rig = paths::rig(path, None, Box::new(source), Box::new(Sink));
            group.throughput(Throughput::Elements(size as u64));
            group.bench_function(BenchmarkId::from_parameter(size), |b| b.iter(|| rig.turn()));
            rig.check();
        }
        group.finish();
    }
}

criterion_group!(benches, paths);
criterion_main!(benches);
