//! Frames through a bridge with a trunk, a tunnel and a router interface.

#[path = "../../nodes/tests/common/bridge.rs"]
mod lab;

use crate::graph::fix_checksum;
use lab::{PEER, PLAIN, TRUNK, UNDERLAY, US, bridge, own, station};
use wharf_engine::testing::TEST_INPUT;

/// Most frames of an input.
const MAX_FRAMES: usize = 64;

/// The frames of an input, and the interface that receives each.
///
/// On the wire of this target: a byte, of which the low two bits are the interface, bit 2 means "make the IPv4 checksum right", bit 3 "put it into a
/// VXLAN packet from the peer"; the length in two bytes, low first, and the frame.
fn frames(mut data: &[u8]) -> Vec<(u32, Vec<u8>)> {
    let mut frames = Vec::new();
    while let [how, low, high, rest @ ..] = data {
        let len = usize::from(u16::from_le_bytes([*low, *high]) % 2000).min(rest.len());
        let (bytes, rest) = rest.split_at(len);
        let mut interface = [PLAIN, TRUNK, UNDERLAY, PLAIN][usize::from(how & 3)];
        let mut frame = bytes.to_vec();
        if how & 4 != 0 {
            fix_checksum(&mut frame);
        }
        if how & 8 != 0 {
            (interface, frame) = (UNDERLAY, tunnelled(&frame));
        }
        frames.push((interface, frame));
        data = rest;
        if frames.len() == MAX_FRAMES {
            break;
        }
    }
    frames
}

/// In a packet from the tunnel's peer.
fn tunnelled(frame: &[u8]) -> Vec<u8> {
    let mut packet = [own(UNDERLAY).0, station(200).0].concat();
    let len = frame.len() as u16;
    packet.extend([8, 0, 0x45, 0]);
    packet.extend((len + 36).to_be_bytes());
    packet.extend([0, 0, 0, 0, 64, 17, 0, 0]);
    packet.extend(PEER);
    packet.extend(US);
    packet.extend([0xc0, 0, 0x12, 0xb5]);
    packet.extend((len + 16).to_be_bytes());
    packet.extend([0, 0, 8, 0, 0, 0, 0, 0, 42, 0]);
    packet.extend(frame);
    fix_checksum(&mut packet);
    packet
}

/// Receives the frames of the input, all of them traced. The harness finds every packet again when it is dropped.
pub fn run(data: &[u8]) {
    let frames = frames(data);
    let mut harness = bridge(1);
    harness.engine.trace_add(TEST_INPUT, MAX_FRAMES as u32).expect("the input node");
    for (interface, frame) in &frames {
        harness.receive(*interface, frame);
    }
    harness.run();
    harness.tick();
    for interface in [TRUNK, PLAIN, UNDERLAY] {
        harness.sent(interface);
    }
    let traced = harness.trace();
    assert!(frames.is_empty() || !traced.is_empty());
}
