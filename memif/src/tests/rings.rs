//! A peer that writes nonsense into the shared memory of a connection that is up. Both ends are in this process,
//! so the tests write through the ring of the honest end.

use super::*;
use crate::index::Indices;
use crate::ring::Ring;
use crate::wire::{DESC_FLAG_NEXT, Descriptor};
use crate::{CloseReason, Direction, Violation};

/// A link with rings of 32 slots; the server's and the client's receive queue, with the ring of each.
fn small() -> Link {
    link(|c| c.log2_ring_size = 5)
}

fn size_of_region(l: &Link) -> u32 {
    l.server.info.region_sizes[0] as u32
}

/// Publishes descriptors on behalf of the producer of an S2M ring (client) or an M2S ring (server).
fn publish(ring: &Ring, s2m: bool, descriptors: &[Descriptor]) {
    let start = if s2m { ring.head() } else { ring.tail() };
    for (i, d) in descriptors.iter().enumerate() {
        ring.set_descriptor(start.wrapping_add(i as u16), *d);
    }
    let end = start.wrapping_add(descriptors.len() as u16);
    if s2m {
        ring.set_head(end);
    } else {
        ring.set_tail(end);
    }
}

/// A good descriptor of 60 bytes somewhere in region 0.
fn good() -> Descriptor {
    Descriptor { flags: 0, region: 0, length: 60, offset: 8192 }
}

#[test]
fn bad_descriptors_are_skipped_and_counted() {
    let mut l = small();
    let size = size_of_region(&l);
    let next = DESC_FLAG_NEXT;
    let bad = [
        Descriptor { region: 1, ..good() },
        Descriptor { region: 0xffff, ..good() },
        Descriptor { length: 0, ..good() },
        Descriptor { length: 9217, offset: 0, ..good() },
        Descriptor { length: u32::MAX, offset: 0, ..good() },
        Descriptor { length: 0x1_0000 + 60, ..good() },
        Descriptor { offset: size - 59, ..good() },
        Descriptor { offset: u32::MAX, ..good() },
        Descriptor { offset: u32::MAX - 59, ..good() },
    ];
    let edge = Descriptor { offset: size - 60, ..good() };
    for (rx, s2m) in [(&mut l.server.rx[0], true), (&mut l.client.rx[0], false)] {
        let ring = rx.shared().ring.clone();
        for (n, bad) in bad.into_iter().enumerate() {
            // Alone, and as each part of a chain; the packets around it pass.
            publish(&ring, s2m, &[edge, bad, good()]);
            assert_eq!(drain(rx).len(), 2, "{bad:?}");
            for at in 0..3 {
                let mut chain = [Descriptor { flags: next, ..good() }; 3];
                chain[at] = Descriptor { flags: next, ..bad };
                chain[2].flags = 0;
                publish(&ring, s2m, &chain);
                publish(&ring, s2m, &[good()]);
                assert_eq!(drain(rx).len(), 1, "{bad:?} at {at}");
            }
            assert_eq!(rx.counters().bad_descriptor, 4 * (n as u64 + 1));
        }
        assert!(rx.is_alive());
    }
}

#[test]
fn chains_have_bounds() {
    let mut l = small();
    let link_of = |length| Descriptor { flags: DESC_FLAG_NEXT, length, ..good() };
    let chain = |n: usize, length| {
        let mut chain = vec![link_of(length); n];
        chain[n - 1].flags = 0;
        chain
    };
    for (rx, s2m) in [(&mut l.server.rx[0], true), (&mut l.client.rx[0], false)] {
        let ring = rx.shared().ring.clone();
        let mut bad = 0;
        for (segments, length, passes) in [
            (16, 60, true),
            (17, 1, false),
            (2, 4608, true),
            (2, 4609, false),
            (16, 576, true),
            (31, 1, false),
        ] {
            publish(&ring, s2m, &chain(segments, length));
            let got = drain(rx);
            assert_eq!(got.len(), usize::from(passes), "{segments} x {length}");
            if let Some(packet) = got.first() {
                assert_eq!(packet.len(), segments * length as usize);
            }
            bad += u64::from(!passes);
            assert_eq!(rx.counters().bad_descriptor, bad);
        }

        // A chain that comes in parts is received when it is whole, and no reason to stay awake before.
        publish(&ring, s2m, &[link_of(60), link_of(60)]);
        assert!(rx.has_work());
        assert_eq!(drain(rx).len(), 0);
        assert!(!rx.has_work());
        publish(&ring, s2m, &[good(), good()]);
        assert!(rx.has_work());
        assert_eq!(drain(rx).iter().map(Vec::len).collect::<Vec<_>>(), [180, 60]);

        // A long one in parts is skipped as it comes, up to its end.
        publish(&ring, s2m, &[link_of(60); 20]);
        assert_eq!(drain(rx).len(), 0);
        publish(&ring, s2m, &[link_of(60), good(), good()]);
        assert_eq!(drain(rx).len(), 1);
        assert_eq!(rx.counters().bad_descriptor, bad + 1);
        assert!(rx.is_alive());
        // Whatever came, each descriptor goes back as one that leads nowhere.
        assert!((0..32).all(|slot| ring.descriptor(slot).flags == 0));
    }
}

#[test]
fn a_chain_without_end_is_a_violation() {
    for parts in [&[32usize][..], &[20, 12], &[16, 16]] {
        let mut l = small();
        let ring = l.server.rx[0].shared().ring.clone();
        for part in parts {
            publish(&ring, true, &vec![Descriptor { flags: DESC_FLAG_NEXT, ..good() }; *part]);
            assert_eq!(drain(&mut l.server.rx[0]).len(), 0);
        }
        let violation = Violation::EndlessChain { direction: Direction::S2M, ring: 0 };
        assert_eq!(l.server.control.violation(), Some(violation), "{parts:?}");
        assert_eq!(l.server.control.process(), Some(&CloseReason::Violation(violation)));
        assert!(!l.server.rx[0].is_alive());
        let Some(CloseReason::Remote { reason, .. }) = l.client.control.process() else {
            panic!("the client was not told");
        };
        assert_eq!(reason, "S2M ring 0: a chain without end");
    }
    // The smallest ring: its one slot leads nowhere.
    let mut l = link(|c| c.log2_ring_size = 0);
    let ring = l.client.rx[0].shared().ring.clone();
    publish(&ring, false, &[Descriptor { flags: DESC_FLAG_NEXT, ..good() }]);
    assert_eq!(drain(&mut l.client.rx[0]).len(), 0);
    let violation = Violation::EndlessChain { direction: Direction::M2S, ring: 0 };
    assert_eq!(l.client.control.violation(), Some(violation));
}

#[test]
fn impossible_indices_are_violations() {
    type Attack = fn(&mut Link);
    let attacks: [(Attack, Direction); 6] = [
        (
            |l| {
                l.server.rx[0].shared().ring.set_head(33);
                assert_eq!(drain(&mut l.server.rx[0]).len(), 0);
            },
            Direction::S2M,
        ),
        (
            |l| {
                send(&mut l.client.tx[0], &[bytes(0, 60), bytes(0, 60)]);
                assert_eq!(drain(&mut l.server.rx[0]).len(), 2);
                l.server.rx[0].shared().ring.set_head(1);
                assert!(l.server.rx[0].has_work());
                assert_eq!(drain(&mut l.server.rx[0]).len(), 0);
            },
            Direction::S2M,
        ),
        (
            |l| {
                l.server.tx[0].shared().ring.set_head(33);
                assert_eq!(l.server.tx[0].free_slots(), 0);
                assert_eq!(l.server.tx[0].transmit(&[bytes(0, 60)][..]), 0);
            },
            Direction::M2S,
        ),
        (
            |l| {
                l.client.tx[0].shared().ring.set_tail(1);
                assert_eq!(l.client.tx[0].free_slots(), 0);
            },
            Direction::S2M,
        ),
        (
            |l| {
                l.client.rx[0].shared().ring.set_tail(33);
                assert_eq!(drain(&mut l.client.rx[0]).len(), 0);
            },
            Direction::M2S,
        ),
        (
            |l| {
                l.client.rx[0].shared().ring.set_tail(0xffff);
                assert_eq!(drain(&mut l.client.rx[0]).len(), 0);
            },
            Direction::M2S,
        ),
    ];
    for (n, (attack, direction)) in attacks.into_iter().enumerate() {
        let mut l = small();
        attack(&mut l);
        let want = Some(Violation::Index { direction, ring: 0 });
        let got = (l.server.control.violation(), l.client.control.violation());
        assert!(got == (want, None) || got == (None, want), "attack {n}: {got:?}");
    }
}

/// Our own indices and slots are not read back: what the peer writes there has no effect.
#[test]
fn own_words_are_never_believed() {
    let mut l = small();
    l.server.rx[0].shared().ring.set_tail(0x7777);
    l.server.tx[0].shared().ring.set_tail(0x7777);
    l.client.tx[0]
        .shared()
        .ring
        .set_descriptor(0, Descriptor { flags: 0xffff, region: 7, length: 0, offset: u32::MAX });
    send(&mut l.client.tx[0], &[bytes(1, 100)]);
    assert_eq!(drain(&mut l.server.rx[0]), [bytes(1, 100)]);
    send(&mut l.server.tx[0], &[bytes(2, 100)]);
    assert_eq!(drain(&mut l.client.rx[0]), [bytes(2, 100)]);
    l.client.rx[0].shared().ring.set_head(0x1234);
    l.client.tx[0].shared().ring.set_head(0x1234);
    send(&mut l.client.tx[0], &[bytes(3, 100)]);
    assert_eq!(drain(&mut l.server.rx[0]), [bytes(3, 100)]);
    send(&mut l.server.tx[0], &[bytes(4, 100)]);
    assert_eq!(drain(&mut l.client.rx[0]), [bytes(4, 100)]);
    assert_eq!(l.client.rx[0].ring_state().head, 2 + 32, "two packets received, all buffers posted");
    assert_eq!(l.client.tx[0].ring_state().head, 2);
}

#[test]
fn bad_buffers_take_no_packet() {
    let mut l = small();
    let size = size_of_region(&l);
    let tx = &mut l.server.tx[0];
    let ring = tx.shared().ring.clone();
    let bad = [
        Descriptor { region: 1, ..good() },
        Descriptor { length: 0, ..good() },
        Descriptor { length: u32::MAX, ..good() },
        Descriptor { offset: size - 59, ..good() },
        Descriptor { offset: u32::MAX, ..good() },
    ];
    for (n, bad) in bad.into_iter().enumerate() {
        // Alone, and behind a good buffer in a chain.
        let own = ring.tail();
        ring.set_descriptor(own, bad);
        send(tx, &[bytes(1, 60), bytes(2, 60)]);
        assert_eq!(ring.descriptor(own).length, 0);
        assert_eq!(drain(&mut l.client.rx[0]), [bytes(2, 60)], "{bad:?}");
        let own = ring.tail();
        ring.set_descriptor(own.wrapping_add(1), bad);
        send(tx, &[bytes(3, 3000), bytes(4, 60)]);
        assert_eq!(drain(&mut l.client.rx[0]), [bytes(4, 60)], "{bad:?}");
        assert_eq!(tx.counters().bad_descriptor, 2 * (n as u64 + 1));
        assert!(tx.is_alive());
    }
}

/// A server's packet that finds too few buffers leaves those it looked at as they were.
#[test]
fn unused_buffers_keep_their_size() {
    let mut l = link(|c| {
        c.log2_ring_size = 1;
        c.buffer_size = 64;
    });
    let tx = &mut l.server.tx[0];
    assert_eq!(tx.transmit(&[bytes(0, 129)][..]), 0);
    assert_eq!(tx.counters().ring_full, 1);
    send(tx, &[bytes(1, 128)]);
    assert_eq!(drain(&mut l.client.rx[0]), [bytes(1, 128)]);
}

/// Nothing behind the end of a packet is copied: it could be another tenant's.
#[test]
fn stale_bytes_stay_private() {
    let mut l = small();
    let mut source = vec![0xeeu8; 4096];
    for (len, fill) in [(1usize, 1u8), (13, 2), (60, 3), (64, 4), (65, 5), (127, 6), (513, 7), (1500, 8)] {
        source[..len].fill(fill);
        for tx in [&mut l.client.tx[0], &mut l.server.tx[0]] {
            assert_eq!(tx.transmit(&[&source[..len]][..]), 1);
        }
        source[..len].fill(0xee);
    }
    for regions in [l.server.rx[0].shared().ring.regions(), l.client.rx[0].shared().ring.regions()] {
        let len = l.server.info.region_sizes[0] as u32;
        let base = regions.range(0, 0, len).unwrap();
        for at in 0..len as usize {
            // SAFETY: `at` is within the region, which the queue keeps mapped.
            assert_ne!(unsafe { base.add(at).read_volatile() }, 0xee, "byte {at}");
        }
    }
}

/// Random writes of a peer at full speed, while traffic flows both ways: no crash, no wild access, and every end
/// is a named one. Seeds are fixed, the interleaving is not.
#[test]
fn a_peer_that_scribbles() {
    let limit = Instant::now() + Duration::from_secs(3);
    for seed in 1..=30u64 {
        if Instant::now() > limit {
            break;
        }
        let mut l = small();
        let rings = [l.server.rx[0].shared().ring.clone(), l.server.tx[0].shared().ring.clone()];
        let stop = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut x = seed;
                let mut random = move || {
                    x ^= x << 13;
                    x ^= x >> 7;
                    x ^= x << 17;
                    x
                };
                while !stop.load(Ordering::Relaxed) {
                    let ring = &rings[(random() & 1) as usize];
                    let words = (random(), random());
                    match random() % 64 {
                        // Now and then an index, mostly a possible one.
                        0 => ring.set_head(ring.tail().wrapping_add((random() % 33) as u16)),
                        1 => ring.set_flags(random() as u16),
                        _ => {
                            let mut d = Descriptor::from_words(words.0, words.1);
                            if random() & 1 == 0 {
                                (d.region, d.length, d.offset) = (0, d.length % 3000, d.offset % 80_000);
                            }
                            ring.set_descriptor(random() as u16, d);
                        }
                    }
                }
            });
            let packets: Vec<_> = (0..32).map(|i| bytes(i, i * 90 + 1)).collect();
            for _ in 0..3000 {
                l.server.tx[0].transmit(packets.as_slice());
                l.server.rx[0].receive_with(256, |p| {
                    let mut packet = vec![0; p.len()];
                    assert_eq!(p.copy_to(&mut packet), p.len());
                });
                l.server.tx[0].kick();
                l.server.rx[0].drain_fd();
            }
            stop.store(true, Ordering::Relaxed);
        });
        assert_eq!(l.server.rx[0].is_alive(), l.server.control.violation().is_none());
    }
}
