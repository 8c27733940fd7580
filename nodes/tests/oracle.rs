//! The IPv4 graph against a model that is slow and obvious: random routes, random packets.

mod common;

use common::{HOST, MAC, Router, check, udp, with_header};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use wharf_engine::SwIfIndex;
use wharf_engine::mtrie::MtrieWriter;
use wharf_nodes::ip4::{Adjacency, AdjacencyKind};

/// Routes by prefix and length, to the index of an adjacency.
type Routes = BTreeMap<(u32, u8), u32>;

fn masked(address: u32, len: u8) -> u32 {
    if len == 0 { 0 } else { address >> (32 - len) << (32 - len) }
}

/// The longest prefix that contains `address`.
fn longest(routes: &Routes, address: u32, below: u8) -> Option<(u8, u32)> {
    routes
        .iter()
        .filter(|((prefix, len), _)| *len < below && masked(address, *len) == *prefix)
        .max_by_key(|((_, len), _)| *len)
        .map(|((_, len), index)| (*len, *index))
}

/// All kinds of adjacencies, of which index 0 is "no route". Some are not there.
fn adjacencies() -> Vec<Adjacency> {
    let rewrite = |tx: u32, last: u8, mtu| {
        let mut rewrite = [0; 14];
        rewrite[..6].copy_from_slice(&[2, 0, 0, 0, 7, last]);
        rewrite[6..12].copy_from_slice(&MAC[tx as usize].0);
        rewrite[12] = 8;
        Adjacency { rewrite, mtu, tx: SwIfIndex(tx), kind: AdjacencyKind::Rewrite, ..Adjacency::default() }
    };
    let plain = |kind| Adjacency { kind, mtu: 1500, tx: SwIfIndex(2), ..Adjacency::default() };
    vec![
        plain(AdjacencyKind::NoRoute),
        rewrite(1, 1, 1500),
        rewrite(2, 2, 1500),
        rewrite(2, 3, 600),
        rewrite(1, 4, 100),
        plain(AdjacencyKind::Local),
        plain(AdjacencyKind::Drop),
        plain(AdjacencyKind::Punt),
        plain(AdjacencyKind::Arp),
        Adjacency { next_hop: 77, ..plain(AdjacencyKind::Arp) },
    ]
}

/// An IP packet on its way through the model.
#[derive(Clone, Debug)]
struct Packet {
    bytes: Vec<u8>,
    ours: bool,
}

impl Packet {
    fn word(&self, at: usize) -> u32 {
        u32::from_be_bytes(self.bytes[at..at + 4].try_into().unwrap())
    }
}

#[derive(Default)]
struct Model {
    routes: Routes,
    adjacencies: Vec<Adjacency>,
    sent: Vec<(u32, Vec<u8>)>,
    held: BTreeMap<u32, u64>,
    dropped: u64,
    punted: u64,
}

impl Model {
    fn forward(&mut self, mut packet: Packet) {
        let dst = packet.word(16);
        let index = longest(&self.routes, dst, 33).map_or(0, |(_, index)| index);
        let adjacency = self.adjacencies.get(index as usize).cloned().unwrap_or_default();
        match adjacency.kind {
            AdjacencyKind::NoRoute => self.tell(packet, 3, 0, 0),
            AdjacencyKind::Drop => self.dropped += 1,
            AdjacencyKind::Punt => self.punted += 1,
            // Our own messages are of no use to us.
            AdjacencyKind::Local if packet.ours => self.dropped += 1,
            AdjacencyKind::Local => self.punted += 1,
            AdjacencyKind::Arp => {
                let key = if adjacency.next_hop == 0 { dst } else { adjacency.next_hop };
                let waiting = self.held.entry(key).or_default();
                match *waiting {
                    3 => self.dropped += 1,
                    _ => *waiting += 1,
                }
            }
            AdjacencyKind::Rewrite if !packet.ours && packet.bytes[8] <= 1 => self.tell(packet, 11, 0, 0),
            AdjacencyKind::Rewrite if packet.bytes.len() > adjacency.mtu.into() => {
                if packet.bytes[6] & 0x40 != 0 {
                    self.tell(packet, 3, 4, adjacency.mtu)
                } else {
                    self.dropped += 1
                }
            }
            AdjacencyKind::PointToPoint => unreachable!("not in these tables"),
            AdjacencyKind::Rewrite => {
                packet.bytes[8] -= u8::from(!packet.ours);
                let frame = [&adjacency.rewrite[..], &packet.bytes].concat();
                self.sent.push((adjacency.tx.0, comparable(with_header(frame, |_| ()))));
            }
        }
    }

    /// Answers with an ICMP error.
    fn tell(&mut self, packet: Packet, kind: u8, code: u8, mtu: u16) {
        if packet.ours {
            self.dropped += 1;
            return;
        }
        let quoted = &packet.bytes[..packet.bytes.len().min(548)];
        let mut bytes = vec![0x45, 0xc0, 0, 0, 0, 0, 0, 0, 64, 1, 0, 0, 10, 0, 1, 1];
        bytes.extend_from_slice(&packet.bytes[12..16]);
        bytes.extend([kind, code, 0, 0, 0, 0]);
        bytes.extend(mtu.to_be_bytes());
        bytes.extend_from_slice(quoted);
        let len = bytes.len() as u16;
        bytes[2..4].copy_from_slice(&len.to_be_bytes());
        let sum =
            etherparse::checksum::Sum16BitWords::new().add_slice(&bytes[20..]).ones_complement().to_be();
        bytes[22..24].copy_from_slice(&sum.to_be_bytes());
        self.forward(Packet { bytes, ours: true });
    }
}

/// A frame without the identification of our own messages, which count up in the order of the graph.
fn comparable(mut frame: Vec<u8>) -> Vec<u8> {
    if frame[15] == 0xc0 {
        frame[18..20].fill(0);
        frame[24..26].fill(0);
    }
    frame
}

/// Addresses of which many share a prefix.
fn address() -> impl Strategy<Value = u32> {
    let byte = || prop::sample::select(vec![0u8, 1, 2, 127, 128, 255]);
    (prop::sample::select(vec![10u8, 20, 21]), byte(), byte(), byte())
        .prop_map(|(a, b, c, d)| u32::from_be_bytes([a, b, c, d]))
}

/// A route to add (to an adjacency) or to remove.
fn change() -> impl Strategy<Value = (u32, u8, Option<u32>)> {
    let len = prop_oneof![0u8..=32, prop::sample::select(vec![0u8, 8, 16, 24, 32])];
    (address(), len, prop::option::weighted(0.8, 0u32..12))
}

fn packet() -> impl Strategy<Value = Vec<u8>> {
    let ttl = prop::sample::select(vec![1u8, 2, 3, 64, 255]);
    let len = prop_oneof![0usize..80, prop::sample::select(vec![72, 73, 520, 572, 573, 1472])];
    (address(), address(), ttl, len, any::<bool>(), any::<u16>()).prop_map(|(src, dst, ttl, len, df, id)| {
        with_header(udp(dst.to_be_bytes(), ttl, len), |ip| {
            ip[12..16].copy_from_slice(&src.to_be_bytes());
            ip[4..6].copy_from_slice(&id.to_be_bytes());
            ip[6] = if df { 0x40 } else { 0 };
        })
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_graph_does_what_the_model_does(
        changes in prop::collection::vec(change(), 0..60),
        packets in prop::collection::vec(packet(), 1..64),
        burst in prop::sample::select(vec![1usize, 3, 4, 16, 256]),
    ) {
        let started = Instant::now();
        let mut r = Router::new(burst);
        let mut model = Model { adjacencies: adjacencies(), ..Model::default() };
        let mut fib = MtrieWriter::new(1024);
        for (address, len, index) in changes {
            let prefix = masked(address, len);
            match index {
                Some(index) => {
                    fib.insert(prefix, len, index).unwrap();
                    model.routes.insert((prefix, len), index);
                }
                None => {
                    if model.routes.remove(&(prefix, len)).is_some() {
                        fib.remove(prefix, len, longest(&model.routes, prefix, len));
                    }
                }
            }
        }
        let table = std::sync::Arc::clone(fib.table());
        r.change(|tables| {
            tables.fibs = vec![table];
            tables.adjacencies = model.adjacencies.clone();
        });
        for frame in &packets {
            prop_assert_eq!(&frame[..12], [MAC[1].0, HOST.0].concat());
            r.h.receive(1, frame);
            model.forward(Packet { bytes: frame[14..].to_vec(), ours: false });
        }
        let sent = r.all_sent();
        r.h.tick();
        // A machine that stands still for a second makes the packets that wait time out.
        prop_assume!(started.elapsed() < Duration::from_millis(900));
        sent.iter().for_each(|(_, frame)| check(frame));
        let mut sent: Vec<_> = sent.into_iter().map(|(i, frame)| (i, comparable(frame))).collect();
        model.sent.iter_mut().for_each(|(_, frame)| *frame = comparable(std::mem::take(frame)));
        sent.sort();
        model.sent.sort();
        prop_assert_eq!(sent, model.sent);
        let balance = r.h.engine.balance();
        prop_assert_eq!((balance.dropped, balance.punted), (model.dropped, model.punted), "{:?}", r.h.errors());
        prop_assert_eq!(balance.held, model.held.values().sum::<u64>());
    }
}
