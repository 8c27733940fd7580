//! The forwarding table, and the Internet checksum.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use wharf_engine::mtrie::MtrieWriter;
use wharf_nodes::wire::checksum::{checksum, header_checksum_ok};

/// Addresses looked up in a turn: a vector.
const VECTOR: usize = 256;
/// Different vectors.
const VECTORS: usize = 256;

fn mtrie(c: &mut Criterion) {
    let mut group = c.benchmark_group("mtrie");
    group.throughput(Throughput::Elements(VECTOR as u64));
    for routes in [1u32, 1_000, 1_000_000] {
        let mut fib = MtrieWriter::new(1 << 16);
        (0..routes).for_each(|i| fib.insert(0x1000_0000 + i, 32, 1 + i % 100).expect("there is room"));
        let table = fib.table();
        let mut random = 1u32;
        let addresses: Vec<u32> = (0..VECTOR * VECTORS)
            .map(|_| {
                random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                0x1000_0000 + ((u64::from(random) * u64::from(routes)) >> 32) as u32
            })
            .collect();
        let mut vectors = addresses.chunks_exact(VECTOR).cycle();
        let mut next = || vectors.next().unwrap_or_default();
        group.bench_function(BenchmarkId::new("one by one", routes), |b| {
            b.iter(|| next().iter().map(|a| table.lookup(*a)).fold(0u32, u32::wrapping_add));
        });
    }
    group.finish();
}

fn checksums(c: &mut Criterion) {
    let mut group = c.benchmark_group("checksum");
    let data = vec![0x5a; 9000];
    for len in [20usize, 64, 256, 1500, 9000] {
        group.throughput(Throughput::Bytes(len as u64));
        group.bench_function(BenchmarkId::new("data", len), |b| b.iter(|| checksum(black_box(&data[..len]))));
    }
    group.throughput(Throughput::Bytes(20));
    group.bench_function("header", |b| b.iter(|| header_checksum_ok(black_box(&[0x45; 20]))));
    group.finish();
}

criterion_group!(benches, mtrie, checksums);
criterion_main!(benches);
