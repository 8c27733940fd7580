//! The bridge, without a driver: addresses set by the operator, and 10, 10 thousand and a million learned ones behind each port.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use wharf_benches::paths::{Path, rig};
use wharf_benches::rig::{Sink, Source};

/// Packets in a turn: one, what a node handles at once, what testpmd takes, and a whole frame.
const SIZES: [usize; 4] = [1, 4, 32, 256];
/// Different frames.
const FRAMES: u32 = 1 << 16;

fn bridge(c: &mut Criterion) {
    let shapes = [
        ("bridge, static", 1),
        ("bridge, 10 learned", 10),
        ("bridge, 10k learned", 10_000),
        ("bridge, 1M learned", 1_000_000),
    ];
    for (name, stations) in shapes {
        let mut group = c.benchmark_group(name);
        for size in SIZES {
            let path = Path::Bridge(stations);
            let mut rig = rig(path, None, Box::new(Source::new(path.packets(FRAMES), size)), Box::new(Sink));
            group.throughput(Throughput::Elements(size as u64));
            group.bench_function(BenchmarkId::from_parameter(size), |b| b.iter(|| rig.turn()));
            rig.check();
        }
        group.finish();
    }
}

criterion_group!(benches, bridge);
criterion_main!(benches);
