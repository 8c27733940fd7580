//! What `show trace` prints of bridged, tagged and tunnelled frames, whole.

#[path = "common/bridge.rs"]
mod lab;

use insta::assert_snapshot;
use lab::{BVI, PLAIN, SUB_L3, TRUNK, UNDERLAY, bridge, own, station};
use wharf_nodes::wire::MacAddress;

fn frame(dst: MacAddress, tags: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    etherparse::PacketBuilder::ethernet2(station(1).0, dst.0)
        .ipv4([10, 0, 0, 9], [10, 9, 0, 8], 64)
        .udp(1000, 2000)
        .write(&mut frame, &[0xa5; 18])
        .unwrap();
    frame.splice(12..12, tags.iter().copied());
    frame
}

/// The trace of one frame received on an interface, after station 2 was learned behind the trunk's VLAN 100.
fn trace(interface: u32, frame: &[u8]) -> String {
    let mut h = bridge(1);
    let mut hello = [station(1).0, station(2).0].concat();
    hello.extend([0x81, 0, 0, 100, 0x88, 0xb5]);
    hello.extend([0; 46]);
    h.receive(TRUNK, &hello);
    h.run();
    h.engine.trace_add("test-input", 10).unwrap();
    h.receive(interface, frame);
    h.run();
    let trace = h.trace();
    (1..=3).for_each(|i| drop(h.sent(i)));
    h.tick();
    // The source port and the checksum of a tunnelled packet go by a hash: they are what they are, in each run.
    trace
}

#[test]
fn bridged_into_a_vlan() {
    assert_snapshot!(trace(PLAIN, &frame(station(2), &[])));
}

#[test]
fn flooded_and_tunnelled() {
    assert_snapshot!(trace(PLAIN, &frame(station(77), &[])));
}

#[test]
fn from_the_bridge_to_the_router_and_out_of_a_sub_interface() {
    assert_snapshot!(trace(PLAIN, &frame(own(BVI), &[])));
}

#[test]
fn tagged_twice_for_a_routed_sub_interface() {
    assert_snapshot!(trace(TRUNK, &frame(own(SUB_L3), &[0x88, 0xa8, 0, 5, 0x81, 0, 0, 9])));
}

#[test]
fn out_of_a_tunnel() {
    let inner = frame(station(2), &[]);
    let mut packet = Vec::new();
    etherparse::PacketBuilder::ethernet2(station(200).0, own(UNDERLAY).0)
        .ipv4(lab::PEER, lab::US, 64)
        .udp(50_000, 4789)
        .write(&mut packet, &[&[8, 0, 0, 0, 0, 0, 42, 0], &inner[..]].concat())
        .unwrap();
    assert_snapshot!(trace(UNDERLAY, &packet));
}
