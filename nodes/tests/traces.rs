//! What `show trace` prints, whole.

mod common;

use common::{HOST, Router, arp, echo, udp, with_header};
use insta::assert_snapshot;

/// The trace of one frame received on an interface.
fn trace(interface: u32, frame: &[u8]) -> String {
    let mut r = Router::new(256);
    r.h.engine.trace_add("test-input", 10).unwrap();
    r.h.receive(interface, frame);
    r.h.run();
    let trace = r.h.trace();
    // Only then is a packet that waits counted as held.
    r.h.tick();
    trace
}

#[test]
fn routed() {
    assert_snapshot!(trace(1, &udp([20, 0, 0, 1], 64, 18)));
}

#[test]
fn cross_connected() {
    assert_snapshot!(trace(3, &udp([20, 0, 0, 1], 64, 18)));
}

#[test]
fn arp_request() {
    assert_snapshot!(trace(1, &arp(1, (HOST, [10, 0, 1, 9]), [10, 0, 1, 1])));
}

#[test]
fn ttl_expired() {
    assert_snapshot!(trace(1, &udp([20, 0, 0, 1], 1, 18)));
}

#[test]
fn no_route() {
    assert_snapshot!(trace(1, &udp([99, 0, 0, 1], 64, 18)));
}

#[test]
fn pinged() {
    assert_snapshot!(trace(1, &echo([10, 0, 1, 1], &[1; 18])));
}

#[test]
fn punted() {
    let mut frame = Vec::new();
    etherparse::PacketBuilder::ethernet2(HOST.0, common::MAC[1].0)
        .ipv4([10, 0, 1, 9], [10, 0, 1, 1], 64)
        .tcp(40000, 179, 0x0102_0304, 65535)
        .syn()
        .write(&mut frame, &[])
        .unwrap();
    assert_snapshot!(trace(1, &frame));
}

#[test]
fn waiting() {
    assert_snapshot!(trace(1, &udp([10, 0, 2, 33], 64, 18)));
}

#[test]
fn dropped() {
    let bad = with_header(udp([20, 0, 0, 1], 64, 18), |ip| ip[12] = 127);
    assert_snapshot!(trace(1, &bad));
}

#[test]
fn dropped_fragment() {
    let fragment = with_header(udp([20, 9, 0, 1], 64, 18), |ip| (ip[6], ip[7]) = (0x20, 2));
    assert_snapshot!(trace(1, &fragment));
}

#[test]
fn dropped_early() {
    assert_snapshot!(trace(1, &[1, 2, 3]));
}
