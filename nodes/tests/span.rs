//! SPAN, and captures: who watches sees what passed, and nothing else changes.

mod common;

use common::{Router, udp};
use std::collections::HashMap;
use wharf_engine::SwIfIndex;
use wharf_engine::capture::{CaptureSetup, points};
use wharf_nodes::l2::{L2Port, L2Tables, PortMode, Tag, TagRewrite};
use wharf_nodes::span::SpanTables;
use wharf_nodes::wire::ethernet::EtherType;

/// The arcs of a layer, and the node on them: for what is received, and for what is sent.
type Features = [(&'static [&'static str], &'static str); 2];

const DEVICE: Features = [(&["device-input"], "span-input"), (&["interface-output"], "span-output")];
const L2: Features = [
    (&["l2-input-ip4", "l2-input-ip6", "l2-input-nonip"], "span-l2-input"),
    (&["l2-output-ip4", "l2-output-ip6", "l2-output-nonip"], "span-l2-output"),
];

fn span(r: &mut Router, layer: Features, rx: &[(u32, u32)], tx: &[(u32, u32)]) {
    let map = |list: &[(u32, u32)]| {
        let mut map: HashMap<SwIfIndex, Vec<SwIfIndex>> = HashMap::new();
        list.iter().for_each(|(from, to)| map.entry(SwIfIndex(*from)).or_default().push(SwIfIndex(*to)));
        map
    };
    let mut tables = SpanTables::default();
    match layer == L2 {
        true => (tables.l2_rx, tables.l2_tx) = (map(rx), map(tx)),
        false => (tables.rx, tables.tx) = (map(rx), map(tx)),
    }
    r.h.engine.tables::<SpanTables>().publish(tables);
    for (list, (arcs, feature)) in [rx, tx].into_iter().zip(layer) {
        for (from, arc) in list.iter().flat_map(|(from, _)| arcs.iter().map(move |arc| (*from, arc))) {
            r.h.engine.set_feature(arc, feature, SwIfIndex(from), true).unwrap();
        }
    }
}

#[test]
fn copies_of_both_directions() {
    let mut r = Router::new(256);
    span(&mut r, DEVICE, &[(1, 5)], &[(2, 5), (2, 4)]);
    let frame = udp([20, 0, 0, 1], 64, 18);
    r.h.receive(1, &frame);
    let sent = r.all_sent();
    let of = |i: u32| sent.iter().filter(|(to, _)| *to == i).map(|(_, f)| f.clone()).collect::<Vec<_>>();
    let forwarded = of(2);
    assert_eq!(forwarded.len(), 1);
    assert_eq!(of(5), [frame, forwarded[0].clone()], "as received, and as sent");
    assert_eq!(of(4), forwarded);
    // A cross-connected frame is not touched.
    let frame = udp([20, 0, 0, 1], 64, 19);
    assert_eq!(r.pass(3, &frame, 4), [frame]);
    assert_eq!(r.h.error("span-input", "SPAN incoming packets mirrored"), 1);
    assert_eq!(r.h.error("span-output", "SPAN outgoing packets mirrored"), 2);
}

#[test]
fn interfaces_that_watch_each_other_do_not_echo() {
    let mut r = Router::new(256);
    span(&mut r, DEVICE, &[], &[(2, 5), (5, 2)]);
    r.h.receive(1, &udp([20, 0, 0, 1], 64, 18));
    let sent = r.all_sent();
    assert_eq!(sent.iter().map(|(i, _)| *i).collect::<Vec<_>>(), [2, 5]);
}

#[test]
fn copies_of_bridged_frames_alone() {
    let mut r = Router::new(256);
    // A trunk with VLAN 100 and a port without tags, cross-connected. Interface 5 watches the trunk, and has VLAN 7 in front of what it gets.
    let (vlan, own) = (Tag::new(EtherType::VLAN, 100), Tag::new(EtherType::VLAN, 7));
    let port = |mode, peer| L2Port { mode, peer: SwIfIndex(peer), ..L2Port::default() };
    let trunk = L2Port {
        input: TagRewrite::new(1, &[]),
        output: TagRewrite::new(0, &[vlan]),
        input_features: true,
        output_features: true,
        ..port(PortMode::Xconnect, 4)
    };
    let watcher = L2Port { output: TagRewrite::new(0, &[own]), ..L2Port::default() };
    let none = L2Port::default();
    r.h.engine.tables::<L2Tables>().publish(L2Tables {
        ports: vec![none, none, none, trunk, port(PortMode::XconnectOutput, 3), watcher],
        ..L2Tables::default()
    });
    span(&mut r, L2, &[(3, 5)], &[(3, 5)]);
    let plain = udp([20, 0, 0, 1], 64, 18);
    let tagged = |ids: &[u16]| {
        let tags = ids.iter().flat_map(|id| [0x81, 0, 0, *id as u8]).collect::<Vec<u8>>();
        [&plain[..12], &tags, &plain[12..]].concat()
    };
    // In: as it came, before its tag is taken. Out: as it leaves, behind the rewrite.
    r.h.receive(3, &tagged(&[100]));
    assert_eq!(r.all_sent(), [(4, plain.clone()), (5, tagged(&[7, 100]))]);
    r.h.receive(4, &plain);
    assert_eq!(r.all_sent(), [(3, tagged(&[100])), (5, tagged(&[7, 100]))]);
    // What is not IP, and a frame that has not the tag: seen, and then dropped.
    let mut other = tagged(&[100]);
    other[16] = 0x88;
    r.h.receive(3, &other);
    r.h.receive(3, &plain);
    let sent = r.all_sent();
    assert_eq!(sent.iter().map(|(port, _)| *port).collect::<Vec<_>>(), [4, 5, 5]);
    assert_eq!(sent[2].1, tagged(&[7]), "{sent:?}");
    // What is routed there is not copied; nor is a copy.
    r.h.receive(1, &udp([20, 0, 0, 1], 64, 18));
    assert_eq!(r.all_sent().len(), 1);
    assert_eq!(r.h.error("span-l2-input", "SPAN incoming packets mirrored"), 3);
    assert_eq!(r.h.error("span-l2-output", "SPAN outgoing packets mirrored"), 1);
}

#[test]
fn captures_of_what_is_received_sent_and_dropped() {
    let mut r = Router::new(256);
    let setup = |points, max| CaptureSetup { points, interface: None, filter: None, max, snaplen: 2048 };
    let good = udp([20, 0, 0, 1], 64, 18);
    let bad = udp([20, 9, 0, 1], 64, 18);
    let mut run = |setup: CaptureSetup| {
        r.h.engine.capture().start(setup);
        [&good, &bad].iter().for_each(|frame| r.h.receive(1, frame));
        r.h.receive(3, &good);
        r.h.run();
        let sent = r.all_sent();
        (r.h.engine.capture().stop().unwrap(), sent)
    };
    let bytes = |list: &[wharf_engine::capture::Captured]| -> Vec<Vec<u8>> {
        list.iter().map(|c| c.bytes.to_vec()).collect()
    };
    let (received, _) = run(setup(points::RX, 100));
    assert_eq!(bytes(&received), [good.clone(), bad.clone(), good.clone()]);
    let (sent, frames) = run(setup(points::TX, 100));
    let mut frames: Vec<_> = frames.into_iter().map(|(_, frame)| frame).collect();
    let mut sent = bytes(&sent);
    frames.sort();
    sent.sort();
    assert_eq!(sent, frames);
    // The drop is in the IPv4 nodes, and the Ethernet header is captured all the same.
    let (dropped, _) = run(setup(points::DROP, 100));
    assert_eq!(bytes(&dropped), std::slice::from_ref(&bad));
    let (one, _) = run(setup(points::RX | points::TX | points::DROP, 1));
    assert_eq!(one.len(), 1);
    let wanted = CaptureSetup {
        interface: Some(SwIfIndex(3)),
        snaplen: 20,
        filter: Some(Box::new(|frame| frame.len() > 59)),
        ..setup(points::RX | points::TX, 100)
    };
    let (some, _) = run(wanted);
    assert_eq!(bytes(&some), [good[..20].to_vec()]);
    assert_eq!(some[0].len, 60);
    assert!(r.h.engine.capture().stop().is_none());
}
