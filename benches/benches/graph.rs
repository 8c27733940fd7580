//! What the engine costs: a turn, dispatch and enqueue of nodes that do nothing.
//!
//! A turn of nine nodes less one of a single node is eight hops. In a home run all packets go to one next; a split sends
//! them to two, in runs of eight or one by one.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use wharf_benches::rig::{Rig, Sink, Source, TO};
use wharf_engine::{Cx, DeviceOutput, Disposition, GraphBuilder, NoError, Node, PacketRef, next_nodes};

/// Packets in a turn: one, what a node handles at once, what testpmd takes, and a whole frame.
const SIZES: [usize; 4] = [1, 4, 32, 256];

macro_rules! hop {
    ($name:ident, $node:literal, $nexts:ident { $next:ident => $target:ty }, $meta:expr) => {
        /// Hands on.
        struct $name;
        next_nodes! { enum $nexts { $next => $target } }
        impl Node for $name {
            const NAME: &'static str = $node;
            type Meta = ();
            type Next = $nexts;
            type Error = NoError;
            type Tables = ();
            #[inline(always)]
            fn process(&mut self, _: &Cx<'_, Self>, p: &mut PacketRef<'_>, _: ()) -> Disposition<Self> {
                black_box(p.header::<[u8; 1]>()[0]);
                Disposition::Next($nexts::$next($meta))
            }
        }
    };
}

hop!(Last, "last", LastNext { Out => DeviceOutput }, TO);
hop!(Hop2, "hop-2", Hop2Next { On => Last }, ());
hop!(Hop3, "hop-3", Hop3Next { On => Hop2 }, ());
hop!(Hop4, "hop-4", Hop4Next { On => Hop3 }, ());
hop!(Hop5, "hop-5", Hop5Next { On => Hop4 }, ());
hop!(Hop6, "hop-6", Hop6Next { On => Hop5 }, ());
hop!(Hop7, "hop-7", Hop7Next { On => Hop6 }, ());
hop!(Hop8, "hop-8", Hop8Next { On => Hop7 }, ());
hop!(Hop9, "hop-9", Hop9Next { On => Hop8 }, ());

/// Goes by the packet's first byte.
struct Fork;
next_nodes! { enum ForkNext { Last => Last, Other => Hop2 } }

impl Node for Fork {
    const NAME: &'static str = "fork";
    type Meta = ();
    type Next = ForkNext;
    type Error = NoError;
    type Tables = ();

    #[inline(always)]
    fn process(&mut self, _: &Cx<'_, Self>, p: &mut PacketRef<'_>, _: ()) -> Disposition<Self> {
        match p.header::<[u8; 1]>()[0] {
            0 => Disposition::Next(ForkNext::Last(())),
            _ => Disposition::Next(ForkNext::Other(())),
        }
    }
}

fn list() -> GraphBuilder {
    let mut list = GraphBuilder::new();
    list.node(|_| Last).node(|_| Hop2).node(|_| Hop3).node(|_| Hop4).node(|_| Hop5).node(|_| Hop6);
    list.node(|_| Hop7).node(|_| Hop8).node(|_| Hop9).node(|_| Fork);
    list
}

fn graph(c: &mut Criterion) {
    let packet = |first: bool| vec![u8::from(first); 60];
    let shapes = [
        ("one node", "last", vec![packet(false)]),
        ("nine nodes", "hop-9", vec![packet(false)]),
        ("split, runs of 8", "fork", (0..16).map(|i| packet(i >= 8)).collect()),
        ("split, one by one", "fork", (0..2).map(|i| packet(i == 1)).collect()),
    ];
    for (name, input, packets) in shapes {
        let mut group = c.benchmark_group(name);
        for size in SIZES {
            let source = Source::new(packets.clone(), size);
            let mut rig = Rig::new(list(), input, None, vec![(Box::new(source), Box::new(Sink))]);
            group.throughput(Throughput::Elements(size as u64));
            group.bench_function(BenchmarkId::from_parameter(size), |b| b.iter(|| rig.turn()));
            rig.check();
        }
        group.finish();
    }
}

criterion_group!(benches, graph);
criterion_main!(benches);
