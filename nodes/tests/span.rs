//! SPAN, and captures: who watches sees what passed, and nothing else changes.

mod common;

use common::{Router, udp};
use std::collections::HashMap;
use wharf_engine::SwIfIndex;
use wharf_engine::capture::{CaptureSetup, points};
use wharf_nodes::span::SpanTables;

fn span(r: &mut Router, rx: &[(u32, u32)], tx: &[(u32, u32)]) {
    let map = |list: &[(u32, u32)]| {
        let mut map: HashMap<SwIfIndex, Vec<SwIfIndex>> = HashMap::new();
        list.iter().for_each(|(from, to)| map.entry(SwIfIndex(*from)).or_default().push(SwIfIndex(*to)));
        map
    };
    r.h.engine.tables::<SpanTables>().publish(SpanTables { rx: map(rx), tx: map(tx) });
    for (list, arc, feature) in [(rx, "device-input", "span-input"), (tx, "interface-output", "span-output")]
    {
        for (from, _) in list {
            r.h.engine.set_feature(arc, feature, SwIfIndex(*from), true).unwrap();
        }
    }
}

#[test]
fn copies_of_both_directions() {
    let mut r = Router::new(256);
    span(&mut r, &[(1, 5)], &[(2, 5), (2, 4)]);
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
    span(&mut r, &[], &[(2, 5), (5, 2)]);
    r.h.receive(1, &udp([20, 0, 0, 1], 64, 18));
    let sent = r.all_sent();
    assert_eq!(sent.iter().map(|(i, _)| *i).collect::<Vec<_>>(), [2, 5]);
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
