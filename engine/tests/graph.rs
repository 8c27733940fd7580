//! The engine with small nodes of its own: edges, enqueueing, arcs, holding, handoff, tracing, errors of the graph.

use std::fmt;
use wharf_engine::testing::Harness;
use wharf_engine::{
    ArcStart, Cx, DeviceOutput, Disposition, FeatureArc, FeatureOrder, GraphBuilder, GraphError, Held,
    NoError, NoNext, Node, PacketRef, SwIfIndex, TraceView, WorkerIndex, error_counters, next_nodes,
};

#[derive(Default)]
struct Numbers {
    ready: bool,
}

/// Sends a packet to the interface in its first byte; 0 drops, 255 holds, 254 punts.
struct Route;
next_nodes! { enum RouteNext { Out => DeviceOutput, Punt => wharf_engine::Punt } }
error_counters! { enum RouteError { Zero => "zero", Old => "too old", Full => "full" } }

impl Node for Route {
    const NAME: &'static str = "route";
    type Meta = u32;
    type Next = RouteNext;
    type Error = RouteError;
    type Tables = Numbers;

    fn process(&mut self, cx: &Cx<'_, Self>, p: &mut PacketRef<'_>, meta: u32) -> Disposition<Self> {
        match p.header::<[u8; 1]>()[0] {
            0 => Disposition::Drop(RouteError::Zero),
            255 if !cx.may_hold() => Disposition::Drop(RouteError::Full),
            255 => Disposition::Hold(meta),
            254 => Disposition::Next(RouteNext::Punt(())),
            to => Disposition::Next(RouteNext::Out(SwIfIndex(to.into()))),
        }
    }

    fn tick(&mut self, cx: &Cx<'_, Self>, held: &mut Held<'_, Self>) {
        if cx.tables().ready {
            held.retain(|key, _, p, meta| {
                assert_eq!(key, meta);
                if key == 9 {
                    return Some(Disposition::Drop(RouteError::Old));
                }
                p.header_mut::<[u8; 1]>()[0] = key as u8;
                Some(Disposition::Next(RouteNext::Out(SwIfIndex(key))))
            });
        }
    }

    fn trace(view: &TraceView<'_>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "route {} -> {}", view.data()[0], view.next())
    }
}

struct TestArc;
impl FeatureArc for TestArc {
    const NAME: &'static str = "test-arc";
    type Meta = u32;
    const END: &'static str = "route";
}

/// Starts the arc, or goes straight to its end.
struct Start(ArcStart<TestArc>);
next_nodes! { enum StartNext { Route => Route } }

impl Node for Start {
    const NAME: &'static str = "start";
    type Meta = ();
    type Next = StartNext;
    type Error = NoError;
    type Tables = ();

    fn process(&mut self, cx: &Cx<'_, Self>, p: &mut PacketRef<'_>, _: ()) -> Disposition<Self> {
        let meta = u32::from(p.header::<[u8; 2]>()[1]);
        match self.0.enter(cx, p, p.rx(), meta) {
            Some(edge) => Disposition::Edge(edge),
            None => Disposition::Next(StartNext::Route(meta)),
        }
    }
}

macro_rules! feature {
    ($name:ident, $node:literal, $byte:literal) => {
        /// Appends its letter to the packet.
        struct $name;
        impl Node for $name {
            const NAME: &'static str = $node;
            type Meta = u32;
            type Next = NoNext;
            type Error = NoError;
            type Tables = ();
            fn process(&mut self, _: &Cx<'_, Self>, p: &mut PacketRef<'_>, _: u32) -> Disposition<Self> {
                p.set_len(p.len() + 1);
                if let Some(last) = p.data_mut().last_mut() {
                    *last = $byte;
                }
                Disposition::NextFeature
            }
        }
    };
}
feature!(FeatureA, "feature-a", b'a');
feature!(FeatureB, "feature-b", b'b');

fn list() -> GraphBuilder {
    let mut list = GraphBuilder::new();
    list.node(|seed| Start(seed.arc()))
        .node(|_| Route)
        .node(|_| FeatureA)
        .node(|_| FeatureB)
        .arc::<TestArc>();
    list.feature::<TestArc, FeatureB>(FeatureOrder { runs_after: &["feature-a"], ..Default::default() });
    list.feature::<TestArc, FeatureA>(FeatureOrder::default());
    list
}

fn harness() -> Harness {
    let mut h = Harness::new(list()).unwrap();
    for i in 1..=3 {
        h.interface(i, &format!("test{i}"), "start");
    }
    h
}

#[test]
fn order_is_kept_per_next_at_every_vector_size() {
    for burst in [1, 2, 3, 4, 5, 7, 8, 11, 64, 255, 256] {
        let mut h = Harness::new(list()).unwrap();
        for i in 1..=3 {
            h.interface_with(i, "test", "start", burst, usize::MAX);
        }
        let pattern = [1u8, 1, 1, 1, 2, 0, 2, 3, 3, 1, 254, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1];
        let mut expected = vec![Vec::new(); 4];
        for i in 0..700u32 {
            let to = pattern[(i as usize * 7 / 3 + i as usize / 9) % pattern.len()];
            let packet = [&[to, 0][..], &i.to_be_bytes()].concat();
            h.receive(1 + i % 3, &packet);
            if (1..=3).contains(&to) {
                expected[usize::from(to)].push(packet);
            }
        }
        h.run();
        for to in 1..=3 {
            let mut sent = h.sent(to);
            // Packets of one receiver keep their order; receivers may interleave.
            let by_receiver =
                |p: &Vec<u8>| (u32::from_be_bytes(p[2..6].try_into().unwrap()) % 3, p[2..6].to_vec());
            for receiver in 0..3 {
                let of = |list: &[Vec<u8>]| -> Vec<Vec<u8>> {
                    list.iter().filter(|p| by_receiver(p).0 == receiver).cloned().collect()
                };
                assert_eq!(of(&sent), of(&expected[to as usize]), "burst {burst} to {to}");
            }
            sent.sort_by_key(by_receiver);
            expected[to as usize].sort_by_key(by_receiver);
            assert_eq!(sent, expected[to as usize]);
        }
        let dropped = pattern.iter().filter(|p| **p == 0).count();
        assert!(dropped > 0 && h.error("route", "zero") > 0);
        assert!(h.engine.balance().punted > 0);
    }
}

#[test]
fn an_arc_runs_its_features_in_order_where_it_is_on() {
    let mut h = harness();
    let one = SwIfIndex(1);
    h.engine.set_feature("test-arc", "feature-b", one, true).unwrap();
    h.engine.set_feature("test-arc", "feature-a", one, true).unwrap();
    h.receive(1, &[3, 0]);
    h.run();
    h.receive(2, &[3, 0]);
    h.run();
    assert_eq!(h.sent(3), [vec![3, 0, b'a', b'b'], vec![3, 0]]);
    assert_eq!(h.engine.features(one), [("test-arc", vec!["feature-a", "feature-b"])]);
    h.engine.set_feature("test-arc", "feature-a", one, false).unwrap();
    h.receive(1, &[3, 0]);
    h.run();
    assert_eq!(h.sent(3), [vec![3, 0, b'b']]);
    h.engine.set_feature("test-arc", "feature-b", one, false).unwrap();
    h.receive(1, &[3, 0]);
    h.run();
    assert_eq!(h.sent(3), [vec![3, 0]]);
    let error = h.engine.set_feature("test-arc", "start", one, true).unwrap_err().to_string();
    assert_eq!(error, "`start' is not a feature of arc `test-arc'");
    let error = h.engine.set_feature("no-arc", "feature-a", one, true).unwrap_err().to_string();
    assert_eq!(error, "there is no feature arc `no-arc'");
}

#[test]
fn held_packets_are_released_or_given_up() {
    let mut h = harness();
    for key in [2u8, 9, 2] {
        h.receive(1, &[255, key]);
    }
    h.run();
    h.tick();
    assert_eq!(h.engine.balance().held, 3);
    assert!(h.sent(2).is_empty());
    h.engine.tables::<Numbers>().publish(Numbers { ready: true });
    h.run();
    h.run();
    assert_eq!(h.sent(2), [vec![2, 2], vec![2, 2]]);
    assert_eq!(h.error("route", "too old"), 1);
    assert_eq!(h.engine.balance().held, 0);
}

#[test]
fn a_hold_queue_is_bounded_and_given_back_at_the_end() {
    let mut h = harness();
    for _ in 0..1100 {
        h.receive(1, &[255, 2]);
    }
    h.run();
    h.tick();
    let held = h.engine.balance().held;
    assert!((1024..1024 + 256).contains(&held), "{held}");
    assert_eq!(h.error("route", "full"), 1100 - held);
}

#[test]
fn packets_change_worker_on_their_way_out() {
    let mut h = Harness::with_workers(list(), 2).unwrap();
    h.interface(1, "test1", "start");
    h.interface(2, "test2", "start");
    for i in 0..2000u32 {
        h.receive(1, &[&[2, 0][..], &i.to_be_bytes()].concat());
        h.receive(2, &[&[1, 0][..], &i.to_be_bytes()].concat());
        if i % 700 == 0 {
            h.run();
        }
    }
    h.run();
    for to in [1u8, 2] {
        let sent = h.sent(to.into());
        let expected: Vec<Vec<u8>> =
            (0..2000u32).map(|i| [&[to, 0][..], &i.to_be_bytes()].concat()).collect();
        assert_eq!(sent, expected);
    }
}

/// Hundreds of interfaces that are silent, one of them not for ever, and one that is busy all the time.
#[test]
fn an_interface_among_many_silent_ones_is_heard() {
    let mut h = Harness::new(list()).unwrap();
    for i in 1..=200 {
        h.interface(i, &format!("test{i}"), "start");
    }
    let busy = |h: &mut Harness| {
        h.receive(1, &[2, 0]);
        h.turn();
        h.sent(2).len() + h.sent(3).len()
    };
    for _ in 0..300 {
        assert_eq!(busy(&mut h), 1, "the busy one is polled in each turn");
    }
    let input = h.engine.graph().inputs[0].counters(WorkerIndex(0));
    assert!(input[0] < 64 * 200 + 300 * (200 / 8 + 10), "polls: {}", input[0]);
    for quiet in [3, 77, 200] {
        for packets in 0..5 {
            h.receive(quiet, &[3, packets]);
        }
        let turns = (1..).find(|_| busy(&mut h) > 1).unwrap();
        assert!(turns <= 9, "heard after {turns} turns");
        h.receive(quiet, &[3, 5]);
        assert_eq!(busy(&mut h), 2, "and from then on in each turn");
    }
    // Interfaces that go, and others that come, are polled as all are.
    h.engine.set_interface(SwIfIndex(50), None);
    h.interface(201, "test201", "start");
    h.receive(201, &[3, 1]);
    assert_eq!(busy(&mut h), 2);
}

/// One packet a turn, and far more turns than a handoff ring has places.
#[test]
fn a_worker_that_is_held_up_loses_nothing_at_a_low_rate() {
    let mut h = Harness::with_workers(list(), 2).unwrap();
    h.interface(1, "test1", "start");
    h.interface(2, "test2", "start");
    let packets: Vec<Vec<u8>> = (0..1000u32).map(|i| [&[2, 0][..], &i.to_be_bytes()].concat()).collect();
    for packet in &packets {
        h.receive(1, packet);
        h.turn_worker(1);
    }
    assert!(h.sent(2).is_empty());
    h.run();
    assert_eq!(h.sent(2), packets);
    assert_eq!(h.error("device-output", "handoff congestion"), 0);
}

#[test]
fn what_a_full_queue_refuses_is_counted() {
    let mut h = Harness::new(list()).unwrap();
    h.interface_with(1, "test1", "start", 256, 10);
    for _ in 0..300 {
        h.receive(1, &[1, 0]);
    }
    h.receive(1, &[77, 0]);
    h.run();
    assert_eq!(h.sent(1).len(), 10);
    assert_eq!(h.error("device-output", "no free tx slots"), 290);
    assert_eq!(h.error("device-output", "interface has no transmit queue"), 1);
}

#[test]
fn a_trace_shows_each_node() {
    let mut h = harness();
    h.engine.set_feature("test-arc", "feature-a", SwIfIndex(2), true).unwrap();
    h.engine.trace_add("test-input", 2).unwrap();
    for to in [3, 0, 3] {
        h.receive(2, &[to, 0]);
    }
    h.run();
    assert_eq!(
        h.trace(),
        "test-input\n  rx test2 len 2 next start\nstart\n  2 bytes, next feature-a\nfeature-a\n  2 bytes, next \
         route\nroute\n  route 3 -> device-output\ntest3-tx\n  tx test3 len 3 flags 0x0001\n\ntest-input\n  rx test2 \
         len 2 next start\nstart\n  2 bytes, next feature-a\nfeature-a\n  2 bytes, next route\nroute\n  route 0 -> \
         zero\nerror-drop\n  rx:test2\n  route: zero\n\n"
    );
    h.engine.trace_clear();
    assert_eq!(h.trace(), "");
    assert!(h.engine.trace_add("route", 1).unwrap_err().to_string().contains("`route'"));
}

#[test]
fn an_interface_that_is_down_or_gone_drops() {
    let mut h = harness();
    h.receive(1, &[3, 0]);
    h.engine.set_interface(SwIfIndex(1), None);
    h.run();
    assert!(h.sent(3).is_empty());
    assert_eq!(h.error("device-output", "interface is down"), 1);
}

fn build(list: GraphBuilder) -> GraphError {
    match Harness::new(list) {
        Err(wharf_engine::EngineError::Graph(error)) => error,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_wrong_graph_names_the_culprit() {
    let mut twice = list();
    twice.node(|_| Route);
    assert_eq!(build(twice).to_string(), "node `route' is in the list twice");

    let mut missing = GraphBuilder::new();
    missing.node(|seed| Start(seed.arc()));
    assert_eq!(build(missing).to_string(), "node `start' has an edge to `route', which is not in the list");

    let mut arcless = GraphBuilder::new();
    arcless.node(|_| FeatureA).feature::<TestArc, FeatureA>(FeatureOrder::default());
    assert_eq!(
        build(arcless).to_string(),
        "feature `feature-a' is on arc `test-arc', which is not in the list"
    );

    let mut circle = GraphBuilder::new();
    circle.node(|_| Route).node(|_| FeatureA).node(|_| FeatureB).arc::<TestArc>();
    circle.feature::<TestArc, FeatureA>(FeatureOrder { runs_after: &["feature-b"], ..Default::default() });
    circle.feature::<TestArc, FeatureB>(FeatureOrder { runs_after: &["feature-a"], ..Default::default() });
    assert_eq!(
        build(circle).to_string(),
        "arc `test-arc' cannot be ordered: feature-a, feature-b wait for each other"
    );

    let mut endless = GraphBuilder::new();
    endless.arc::<TestArc>();
    assert!(build(endless).to_string().contains("`test-arc' ends at `route'"));
}
