//! Ring code of the memif crate: a burst is sent and received by one thread, so nothing waits for another core.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use memif::{RxSink, TxSource};
use wharf_benches::loopback;

const SIZES: [usize; 4] = [1, 4, 32, 256];
/// Buffers lie so far apart: an odd number of cache lines.
const STRIDE: usize = 33 * 64;

/// Packets of one length, and room for as many.
struct Buffers {
    data: Vec<[u8; STRIDE]>,
    len: usize,
    packets: usize,
    next: usize,
}

impl TxSource for Buffers {
    #[inline(always)]
    fn packets(&self) -> usize {
        self.packets
    }
    #[inline(always)]
    fn segment(&self, packet: usize, _: usize) -> &[u8] {
        &self.data[packet][..self.len]
    }
}

impl RxSink for Buffers {
    #[inline(always)]
    fn room(&mut self, len: usize) -> Option<&mut [u8]> {
        self.data[self.next].get_mut(..len)
    }
    #[inline(always)]
    fn accept(&mut self, _: usize) {
        self.next = (self.next + 1) % self.data.len();
    }
}

fn rings(c: &mut Criterion) {
    let (mut server, mut client) = loopback::connect();
    let new = || Buffers { data: vec![[0; STRIDE]; 256], len: 0, packets: 0, next: 0 };
    let (mut from, mut to) = (new(), new());
    for (name, tx, rx) in [
        ("client to server", &mut client.tx[0], &mut server.rx[0]),
        ("server to client", &mut server.tx[0], &mut client.rx[0]),
    ] {
        let mut group = c.benchmark_group(name);
        for (len, size) in SIZES.map(|size| (60, size)).into_iter().chain([(1500, 256)]) {
            (from.len, from.packets) = (len, size);
            group.throughput(Throughput::Elements(size as u64));
            group.bench_function(BenchmarkId::new(format!("{len} bytes"), size), |b| {
                b.iter(|| {
                    let sent = tx.transmit(&from);
                    let received = rx.receive(256, &mut to);
                    assert_eq!((sent, received), (size, size));
                });
            });
        }
        group.finish();
    }
}

criterion_group!(benches, rings);
criterion_main!(benches);
