//! Packets both ways.

use super::*;
use crate::{MAX_FRAME, Mode, Role, RxSink, TxSource};
use rustix::event::{PollFd, PollFlags, Timespec};

/// Sends every length up to 9000 (some above 300 left out) and expects each back byte by byte.
fn all_lengths(tx: &mut TxQueue, rx: &mut RxQueue) {
    for (n, len) in (1..300).chain((300..=9000).step_by(97)).chain([2047, 2048, 2049, 4096, 9000]).enumerate()
    {
        let packet = bytes(n, len);
        send(tx, std::slice::from_ref(&packet));
        let got = drain(rx);
        assert!(got == [packet], "length {len}: got {:?}", got.iter().map(Vec::len).collect::<Vec<_>>());
    }
}

#[test]
fn every_length_both_ways() {
    for (buffer_size, log2) in [(2048, 10), (600, 4), (9216, 0)] {
        let mut l = link(|c| {
            c.buffer_size = buffer_size;
            c.log2_ring_size = log2;
        });
        all_lengths(&mut l.client.tx[0], &mut l.server.rx[0]);
        all_lengths(&mut l.server.tx[0], &mut l.client.rx[0]);
    }
}

#[test]
fn queues_are_apart() {
    for queues in 1..=4u16 {
        let mut l = link(|c| {
            c.rx_queues = queues;
            c.tx_queues = 5 - queues;
        });
        assert_eq!((l.server.rx.len(), l.server.tx.len()), (usize::from(5 - queues), usize::from(queues)));
        for (a, b) in [(&mut l.client.tx, &mut l.server.rx), (&mut l.server.tx, &mut l.client.rx)] {
            for (q, tx) in a.iter_mut().enumerate() {
                send(tx, &[bytes(q, 100 + q), bytes(q + 50, 64)]);
            }
            for (q, rx) in b.iter_mut().enumerate() {
                assert_eq!(drain(rx), [bytes(q, 100 + q), bytes(q + 50, 64)]);
            }
        }
    }
}

/// Bursts of changing size and packets of changing length, until the 16-bit indices have wrapped several times.
#[test]
fn indices_wrap_many_times() {
    for start in [0, 0xfff0] {
        let mut l = link_at(start, |c| {
            c.log2_ring_size = 5;
            c.buffer_size = 256;
        });
        let ends = [(&mut l.client.tx[0], &mut l.server.rx[0]), (&mut l.server.tx[0], &mut l.client.rx[0])];
        for (tx, rx) in ends {
            let mut total = 0;
            for n in 0..20_000usize {
                let burst: Vec<_> =
                    (0..n * 7 % 19 + 1).map(|i| bytes(n + i, (n * 13 + i * 5) % 250 + 1)).collect();
                send(tx, &burst);
                total += burst.len();
                assert!(drain(rx) == burst, "start {start}, burst {n}");
            }
            let (sent, got) = (tx.counters(), rx.counters());
            assert_eq!((sent.packets, got.packets), (total as u64, total as u64));
            assert_eq!(sent.bytes, got.bytes);
            assert_eq!((got.bad_descriptor, got.no_buffer, sent.ring_full), (0, 0, 0));
        }
    }
}

#[test]
fn a_full_ring_takes_no_more_and_loses_nothing() {
    let mut l = link(|c| c.log2_ring_size = 4);
    let packets: Vec<_> = (0..40).map(|i| bytes(i, 60 + i)).collect();
    for (tx, rx) in [(&mut l.client.tx[0], &mut l.server.rx[0]), (&mut l.server.tx[0], &mut l.client.rx[0])] {
        assert_eq!(tx.transmit(packets.as_slice()), 16);
        assert_eq!(tx.transmit(&packets[16..]), 0);
        assert_eq!(tx.counters().ring_full, 24 + 24);
        assert_eq!(tx.free_slots(), 0);
        assert_eq!(drain(rx), packets[..16]);
        assert_eq!(tx.free_slots(), 16);
        // Room for one packet of three slots but not for two of eight.
        send(tx, &[bytes(1, 9000), bytes(2, 9000), bytes(3, 9000)]);
        assert_eq!(tx.transmit(&[bytes(4, 6000)][..]), 0);
        assert_eq!(drain(rx), [bytes(1, 9000), bytes(2, 9000), bytes(3, 9000)]);
        send(tx, &[bytes(4, 6000)]);
        assert_eq!(drain(rx), [bytes(4, 6000)]);
    }
}

#[test]
fn lengths_that_cannot_be_sent() {
    let mut l = link(|c| c.buffer_size = 64);
    for (tx, rx) in [(&mut l.client.tx[0], &mut l.server.rx[0]), (&mut l.server.tx[0], &mut l.client.rx[0])] {
        send(tx, &[vec![], bytes(1, 16 * 64), bytes(2, 16 * 64 + 1), bytes(3, MAX_FRAME + 1), bytes(4, 1)]);
        assert_eq!(drain(rx), [bytes(1, 16 * 64), bytes(4, 1)]);
        assert_eq!(tx.counters().bad_length, 3);
    }
}

/// A sink of small pieces, with a limit on how many there are.
struct Pieces {
    size: usize,
    left: usize,
    current: Vec<Vec<u8>>,
    done: Vec<Vec<u8>>,
    rejected: usize,
}

impl RxSink for Pieces {
    fn room(&mut self, len: usize) -> Option<&mut [u8]> {
        assert!(self.current.is_empty());
        self.more(len)
    }
    fn more(&mut self, _left: usize) -> Option<&mut [u8]> {
        self.left = self.left.checked_sub(1)?;
        self.current.push(vec![0; self.size]);
        self.current.last_mut().map(Vec::as_mut_slice)
    }
    fn accept(&mut self, len: usize) {
        let mut packet: Vec<u8> = self.current.drain(..).flatten().collect();
        assert!(packet.len() >= len && packet.len() < len + self.size);
        packet.truncate(len);
        self.done.push(packet);
    }
    fn reject(&mut self) {
        self.current.clear();
        self.rejected += 1;
    }
}

#[test]
fn sinks_of_pieces_and_without_room() {
    let mut l = link(|c| c.buffer_size = 1000);
    let (tx, rx) = (&mut l.client.tx[0], &mut l.server.rx[0]);
    let packets: Vec<_> = [700, 1, 300, 301, 2500, 64].map(|len| bytes(len, len)).into();
    send(tx, &packets);
    let mut sink = Pieces { size: 300, left: 100, current: vec![], done: vec![], rejected: 0 };
    assert_eq!(rx.receive(256, &mut sink), 6);
    assert_eq!(sink.done, packets);

    // 3 + 1 + 1 pieces fit; the fourth packet gets one piece of two, the others none.
    send(tx, &packets);
    let mut sink = Pieces { size: 300, left: 6, current: vec![], done: vec![], rejected: 0 };
    assert_eq!(rx.receive(256, &mut sink), 3);
    assert_eq!(sink.done, packets[..3]);
    assert_eq!(sink.rejected, 1);
    assert_eq!(rx.counters().no_buffer, 3);
    assert_eq!(rx.receive(256, &mut sink), 0, "what had no room is gone");

    // A packet that is longer than the buffer for it does not use the buffer up.
    send(tx, &[bytes(1, 100), bytes(2, 500), bytes(3, 128)]);
    let (mut buffers, mut lengths) = ([[0u8; 128]; 3], [0; 3]);
    assert_eq!(rx.receive_into(&mut buffers, &mut lengths), 2);
    assert_eq!(lengths, [100, 128, 0]);
    assert_eq!(buffers[0][..100], bytes(1, 100));
    assert_eq!(buffers[1], bytes(3, 128)[..]);
    assert_eq!(rx.counters().no_buffer, 4);
}

/// A source whose packets lie in several pieces.
struct Split(Vec<Vec<Vec<u8>>>);

impl TxSource for Split {
    fn packets(&self) -> usize {
        self.0.len()
    }
    fn segments(&self, packet: usize) -> usize {
        self.0[packet].len()
    }
    fn segment(&self, packet: usize, segment: usize) -> &[u8] {
        &self.0[packet][segment]
    }
}

#[test]
fn sources_of_pieces() {
    let mut l = link(|c| c.buffer_size = 128);
    let source = Split(vec![
        vec![bytes(0, 50), bytes(1, 50)],
        vec![bytes(2, 60)],
        vec![bytes(3, 100), vec![], bytes(4, 300), bytes(5, 1)],
        vec![bytes(6, 200)],
    ]);
    let whole: Vec<Vec<u8>> = source.0.iter().map(|p| p.concat()).collect();
    for (tx, rx) in [(&mut l.client.tx[0], &mut l.server.rx[0]), (&mut l.server.tx[0], &mut l.client.rx[0])] {
        assert_eq!(tx.transmit(&source), 4);
        assert_eq!(drain(rx), whole);
    }
}

#[test]
fn max_bounds_a_burst() {
    let mut l = link(|_| {});
    let packets: Vec<_> = (0..200).map(|i| bytes(i, 60)).collect();
    send(&mut l.client.tx[0], &packets);
    send(&mut l.client.tx[0], &packets);
    let rx = &mut l.server.rx[0];
    assert_eq!(rx.receive_with(0, |_| panic!("none asked for")), 0);
    assert_eq!(rx.receive_with(3, |_| {}), 3);
    assert_eq!(rx.receive_with(usize::MAX, |_| {}), 256);
    assert_eq!(rx.receive_with(256, |_| {}), 141);
}

fn readable(rx: &RxQueue) -> bool {
    let fd = rx.fd();
    let mut fds = [PollFd::new(&fd, PollFlags::IN)];
    rustix::event::poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).unwrap() == 1
}

#[test]
fn interrupts_come_when_wanted() {
    let mut l = link(|_| {});
    for (tx, rx) in [(&mut l.client.tx[0], &mut l.server.rx[0]), (&mut l.server.tx[0], &mut l.client.rx[0])] {
        assert_eq!(rx.ring_state().flags, 1, "polling at first");
        tx.kick();
        send(tx, &[bytes(0, 60)]);
        assert!(rx.has_work());
        tx.kick();
        assert!(!readable(rx));
        assert_eq!(drain(rx).len(), 1);
        assert!(!rx.has_work());

        rx.set_interrupt_mode(true);
        tx.kick();
        assert!(!readable(rx), "nothing was sent since the last kick");
        for _ in 0..2 {
            send(tx, &[bytes(0, 60)]);
            assert!(!readable(rx));
            tx.kick();
            assert!(readable(rx));
            assert!(rx.drain_fd());
            assert!(!readable(rx) && !rx.drain_fd());
            assert_eq!(drain(rx).len(), 1);
        }
        assert_eq!((tx.counters().interrupts, rx.counters().interrupts), (2, 2));
        assert_eq!(rx.ring_state().interrupts, 2);
        rx.set_interrupt_mode(false);
        send(tx, &[bytes(0, 60)]);
        tx.kick();
        assert!(!readable(rx));
    }
}

/// The peer clears O_NONBLOCK of the shared open file and fills the counter: nobody may hang.
#[test]
fn a_saturated_blocking_eventfd_hangs_nobody() {
    let mut l = link(|_| {});
    let (tx, rx) = (&mut l.server.tx[0], &mut l.client.rx[0]);
    rx.set_interrupt_mode(true);
    rustix::fs::fcntl_setfl(rx.fd(), rustix::fs::OFlags::empty()).unwrap();
    assert!(!rx.drain_fd());
    rustix::io::write(rx.fd(), &(u64::MAX - 1).to_ne_bytes()).unwrap();
    send(tx, &[bytes(0, 60)]);
    tx.kick();
    assert_eq!(tx.counters().interrupts, 1, "the kernel adds what fits");
    assert!(readable(rx) && rx.drain_fd() && !rx.drain_fd());
}

#[test]
fn no_interrupt_is_lost() {
    let mut l = link(|c| c.log2_ring_size = 3);
    let (mut tx, mut rx) = (l.client.tx.remove(0), l.server.rx.remove(0));
    const PACKETS: usize = 20_000;
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let packet = [bytes(0, 60)];
            for _ in 0..PACKETS {
                while tx.transmit(packet.as_slice()) == 0 {
                    std::thread::yield_now();
                }
                tx.kick();
            }
        });
        let mut got = 0;
        while got < PACKETS {
            got += rx.receive_with(4, |_| {});
            rx.set_interrupt_mode(true);
            if !rx.has_work() && got < PACKETS {
                let fd = rx.fd();
                let mut fds = [PollFd::new(&fd, PollFlags::IN)];
                let limit = Timespec { tv_sec: 10, tv_nsec: 0 };
                assert_eq!(rustix::event::poll(&mut fds, Some(&limit)).unwrap(), 1, "slept after {got}");
            }
            rx.drain_fd();
            rx.set_interrupt_mode(false);
        }
    });
}

#[test]
fn two_threads_move_everything_in_order() {
    let mut l = link_at(0xfff0, |c| c.log2_ring_size = 6);
    const PACKETS: usize = 30_000;
    let ends =
        [(l.client.tx.remove(0), l.server.rx.remove(0)), (l.server.tx.remove(0), l.client.rx.remove(0))];
    for (mut tx, mut rx) in ends {
        std::thread::scope(|scope| {
            scope.spawn(move || {
                let mut n = 0;
                while n < PACKETS {
                    let burst: Vec<_> =
                        (n..PACKETS.min(n + n % 40 + 1)).map(|i| bytes(i, i * 11 % 2500 + 1)).collect();
                    let mut rest = burst.as_slice();
                    while !rest.is_empty() {
                        let taken = tx.transmit(rest);
                        rest = &rest[taken..];
                        if taken == 0 {
                            std::thread::yield_now();
                        }
                    }
                    n += burst.len();
                }
            });
            let mut n = 0;
            while n < PACKETS {
                let got = rx.receive_with(64, |p| {
                    let mut packet = vec![0; p.len()];
                    p.copy_to(&mut packet);
                    assert!(packet == bytes(n, n * 11 % 2500 + 1), "packet {n}");
                    n += 1;
                });
                if got == 0 {
                    std::thread::yield_now();
                }
            }
        });
    }
}

#[test]
fn dead_connections_move_nothing() {
    let mut l = link(|c| c.mode = Mode::Ethernet);
    assert_eq!((l.server.info.role, l.client.info.role), (Role::Server, Role::Client));
    send(&mut l.client.tx[0], &[bytes(0, 60)]);
    drop(l.server.control);
    assert!(!l.server.rx[0].is_alive() && !l.server.rx[0].has_work());
    assert_eq!(drain(&mut l.server.rx[0]).len(), 0);
    assert_eq!(l.server.tx[0].transmit(&[bytes(0, 60)][..]), 0);
}
