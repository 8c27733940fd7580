//! A node that replicates: each copy arrives, whole, and nothing is lost sight of.

use wharf_engine::testing::{Harness, TEST_INPUT};
use wharf_engine::{
    Cx, DeviceOutput, Disposition, GraphBuilder, Node, PacketRef, SwIfIndex, error_counters, next_nodes,
};

/// Sends as many copies of a packet to interface 2 as its first byte says, each with its number in place of that byte, and the
/// packet itself to interface 3.
#[derive(Debug)]
struct Flood;

next_nodes! { enum Next { Out => DeviceOutput } }
error_counters! { enum Error { NoBuffer => "no buffer for a copy" } }

impl Node for Flood {
    const NAME: &'static str = "flood";
    type Meta = ();
    type Next = Next;
    type Error = Error;
    type Tables = ();

    fn process(&mut self, cx: &Cx<'_, Self>, p: &mut PacketRef<'_>, _: ()) -> Disposition<Self> {
        for number in 0..p.header::<[u8; 1]>()[0] {
            let made = cx.copy(p, |copy| {
                copy.header_mut::<[u8; 1]>()[0] = number;
                Next::Out(SwIfIndex(2))
            });
            if !made {
                cx.count(Error::NoBuffer);
            }
        }
        Disposition::Next(Next::Out(SwIfIndex(3)))
    }
}

fn harness() -> Harness {
    let mut list = GraphBuilder::new();
    list.node(|_| Flood);
    let mut h = Harness::new(list).unwrap();
    for (index, name) in [(1, "one"), (2, "two"), (3, "three")] {
        h.interface(index, name, "flood");
    }
    h
}

#[test]
fn copies_go_their_own_way() {
    let mut h = harness();
    h.engine.trace_add(TEST_INPUT, 1).unwrap();
    let packet: Vec<u8> = std::iter::once(3).chain(1..=200).collect();
    h.receive(1, &packet);
    h.receive(1, &[0, 9]);
    h.receive(1, &[1, 7]);
    h.run();
    assert_eq!(h.sent(3), [packet.clone(), vec![0, 9], vec![1, 7]]);
    let numbered = |n: u8| -> Vec<u8> { std::iter::once(n).chain(1..=200).collect() };
    assert_eq!(h.sent(2), [numbered(0), numbered(1), numbered(2), vec![0, 7]]);
    let balance = h.engine.balance();
    assert_eq!((balance.received, balance.sent), (7, 7));
    // The trace of the first packet tells of its copies: one to the device for each, and one for itself.
    assert_eq!(h.trace().matches("two-tx").count(), 3, "{}", h.trace());
    assert_eq!(h.trace().matches("three-tx").count(), 1);
}

#[test]
fn copies_end_with_the_pool_and_with_their_limit() {
    let mut h = harness();
    // 1,700 buffers: the copies of the first packets take them all.
    for _ in 0..40 {
        h.receive(1, &[100, 0]);
    }
    h.run();
    let made = h.sent(2).len() as u64;
    assert_eq!(made + h.error("flood", "no buffer for a copy"), 4000);
    assert!((1000..1700).contains(&made), "{made}");
    assert_eq!(h.sent(3).len(), 40);
}
