use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
};

use proptest::prelude::*;

use super::*;
use crate::af_xdp::{RingSizes, testing::FakeKernel};

const STRIDE: u32 = 2368;
/// Close enough to the end of the indices that every test here wraps.
const START: u32 = 0xffff_ff00;
const SIZES: RingSizes = RingSizes { fill: 64, rx: 64, tx: 64, completion: 64 };

fn area() -> Area {
    // SAFETY: the area is never registered with a socket.
    unsafe { Area::new((1 << 20) as *mut u8, 1000 * STRIDE as usize, STRIDE) }.expect("geometry")
}

fn fake() -> (RxQueue, TxQueue, FakeKernel) {
    FakeKernel::new(area(), SIZES, START, false).expect("an eventfd")
}

fn frame(buffer: u32) -> TxFrame {
    TxFrame { buffer, offset: 320, len: 60, continues: false, metadata: false }
}

#[test]
fn frames_pass_while_indices_wrap() {
    let (mut rx, mut tx, mut kernel) = fake();
    for round in 0..40 {
        let mut slots = rx.fill(16);
        for i in 0..16 {
            assert!(slots.push(round * 16 + i));
        }
        drop(slots);
        for i in 0..16 {
            assert_eq!(kernel.deliver(&area(), 60 + i), Some(round * 16 + i));
        }
        let got: Vec<_> = rx.receive(256).collect();
        assert_eq!(got.len(), 16);
        let mut slots = tx.send(16);
        for (i, got) in got.iter().enumerate() {
            let expected =
                RxFrame { buffer: round * 16 + i as u32, offset: 320, len: 60 + i as u16, continues: false };
            assert_eq!(*got, expected);
            assert!(slots.push(&frame(got.buffer)));
        }
        drop(slots);
        assert_eq!(kernel.transmit(256).len(), 16);
        let back: Vec<_> = tx.completed(256).collect();
        assert_eq!(back, (round * 16..round * 16 + 16).collect::<Vec<_>>());
    }
    assert_eq!((rx.held(), tx.held(), rx.invalid(), tx.invalid()), (0, 0, 0, 0));
}

#[test]
fn nothing_is_visible_before_the_reservation_ends() {
    let (mut rx, _tx, mut kernel) = fake();
    let mut slots = rx.fill(8);
    assert!(slots.push(1));
    assert!(slots.push(2));
    assert_eq!(kernel.fill.waiting(), 0);
    assert_eq!(slots.room(), 6);
    drop(slots);
    assert_eq!(kernel.fill.take(8).collect::<Vec<_>>(), [2368 + 64, 2 * 2368 + 64]);
    assert_eq!(rx.held(), 2);
}

#[test]
fn full_rings_take_no_more() {
    let (mut rx, mut tx, mut kernel) = fake();
    let mut slots = rx.fill(100);
    assert_eq!(slots.room(), 64);
    assert_eq!((0..100).filter(|&buffer| slots.push(buffer)).count(), 64);
    drop(slots);
    assert_eq!(rx.fill(1).room(), 0);
    assert_eq!(rx.unfilled(), 64);
    assert!(kernel.deliver(&area(), 60).is_some());
    assert_eq!(rx.fill(9).room(), 1, "the chunk taken made room for one");

    let mut slots = tx.send(100);
    assert_eq!((0..100).filter(|&buffer| slots.push(&frame(buffer))).count(), 64);
    drop(slots);
    assert_eq!((tx.unsent(), tx.held()), (64, 64));
    assert!(!tx.send(1).push(&frame(100)));
    assert_eq!(tx.held(), 64, "what was not pushed is not held");
}

#[test]
fn buffers_of_another_area_stay_with_the_caller() {
    let (mut rx, mut tx, kernel) = fake();
    assert!(!rx.fill(1).push(1000));
    assert!(!tx.send(1).push(&frame(1000)));
    assert_eq!((rx.held(), tx.held()), (0, 0));
    assert_eq!((kernel.fill.waiting(), kernel.tx.waiting()), (0, 0));
}

#[test]
fn wild_addresses_are_counted_and_skipped() {
    let (mut rx, mut tx, mut kernel) = fake();
    for buffer in 0..2 {
        assert!(rx.fill(1).push(buffer));
        assert!(tx.send(1).push(&frame(buffer)));
    }
    let good = |buffer: u64| Descriptor { addr: (buffer * 2368 + 64) | 256 << 48, len: 60, options: 0 };
    let wild = [
        Descriptor { addr: 0, ..good(0) },
        Descriptor { addr: u64::MAX, ..good(0) },
        Descriptor { addr: (1 << 48) - 1, ..good(0) },
        Descriptor { len: u32::MAX, ..good(0) },
        good(1000),
    ];
    let mut slots = kernel.rx.reserve(16);
    for descriptor in [&[good(0)], &wild[..], &[good(1)]].concat() {
        assert!(slots.push(descriptor));
    }
    drop(slots);
    assert_eq!(rx.receive(256).map(|frame| frame.buffer).collect::<Vec<_>>(), [0, 1]);
    assert_eq!(rx.invalid(), 5);
    assert_eq!((rx.held(), rx.waiting()), (0, 0));

    let mut slots = kernel.completion.reserve(16);
    for address in [64 + 256, 5, u64::MAX, 1000 * 2368 + 64, 2368 + 320] {
        assert!(slots.push(address));
    }
    drop(slots);
    assert_eq!(tx.completed(256).collect::<Vec<_>>(), [0, 1]);
    assert_eq!(tx.invalid(), 3);
}

#[test]
fn entries_not_taken_stay() {
    let (mut rx, _tx, mut kernel) = fake();
    for buffer in 0..4 {
        assert!(rx.fill(1).push(buffer));
        assert!(kernel.deliver(&area(), 60).is_some());
    }
    assert_eq!(rx.receive(256).next().map(|frame| frame.buffer), Some(0));
    assert_eq!(rx.receive(2).map(|frame| frame.buffer).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(rx.receive(0).count(), 0);
    assert_eq!(rx.receive(256).map(|frame| frame.buffer).collect::<Vec<_>>(), [3]);
    assert_eq!(rx.receive(256).count(), 0);
}

#[test]
fn wakeup_flag_is_the_kernels() {
    let (rx, tx, kernel) = fake();
    assert!(!rx.needs_wakeup() && !tx.needs_wakeup());
    kernel.set_needs_wakeup(true, false);
    assert!(rx.needs_wakeup() && !tx.needs_wakeup());
    kernel.set_needs_wakeup(false, true);
    assert!(!rx.needs_wakeup() && tx.needs_wakeup());
}

/// A transmit queue with `frames` in it, whose kernel sends as `each` says per system call, and
/// the number of system calls made.
fn kicked(
    frames: u32,
    each: impl Fn(&mut FakeKernel) -> Result<(), Errno> + Send + 'static,
) -> (TxQueue, Arc<AtomicU32>) {
    let (_rx, mut tx, kernel) = fake();
    let mut slots = tx.send(frames);
    for buffer in 0..frames {
        assert!(slots.push(&frame(buffer)));
    }
    drop(slots);
    let calls = Arc::new(AtomicU32::new(0));
    let counter = calls.clone();
    let kernel = Arc::new(Mutex::new(kernel));
    let inner = kernel.clone();
    kernel.lock().expect("not poisoned").on_send(move || {
        counter.fetch_add(1, Ordering::Relaxed);
        each(&mut inner.lock().expect("not poisoned"))
    });
    (tx, calls)
}

#[test]
fn kick_goes_on_after_each_budget() {
    let (mut tx, calls) = kicked(64, |kernel| {
        kernel.transmit(32);
        if kernel.tx.waiting() == 0 { Ok(()) } else { Err(Errno::AGAIN) }
    });
    let mut freed = Vec::new();
    assert_eq!(tx.kick(|buffer| freed.push(buffer)), TxKick::Done);
    assert_eq!(calls.load(Ordering::Relaxed), 2);
    freed.extend(tx.completed(256));
    assert_eq!(freed, (0..64).collect::<Vec<_>>());
}

#[test]
fn kick_gives_up_when_the_kernel_will_not_send() {
    let (mut tx, calls) = kicked(64, |_| Err(Errno::AGAIN));
    assert_eq!(tx.kick(|_| ()), TxKick::Unfinished);
    assert_eq!(calls.load(Ordering::Relaxed), 64 / 32 + 1);
    assert_eq!(tx.unsent(), 64);
}

#[test]
fn kick_goes_on_past_an_invalid_descriptor() {
    let (mut tx, calls) = kicked(3, |kernel| {
        kernel.transmit(2);
        Ok(())
    });
    assert_eq!(tx.kick(|_| ()), TxKick::Done);
    assert_eq!(calls.load(Ordering::Relaxed), 2);
}

#[test]
fn kick_drains_completions_before_each_call() {
    // This kernel sends only into an empty completion ring.
    let (mut tx, _) = kicked(64, |kernel| {
        if kernel.completion.pending() != 0 {
            return Err(Errno::AGAIN);
        }
        kernel.transmit(30);
        if kernel.tx.waiting() == 0 { Ok(()) } else { Err(Errno::AGAIN) }
    });
    let mut freed = 0;
    assert_eq!(tx.kick(|_| freed += 1), TxKick::Done);
    assert_eq!(freed + tx.completed(256).count(), 64);
}

#[test]
fn errors_end_a_kick_at_once() {
    for (errno, expected) in [
        (Errno::BUSY, TxKick::Busy),
        (Errno::NOBUFS, TxKick::NoBuffers),
        (Errno::NETDOWN, TxKick::LinkDown),
        (Errno::NXIO, TxKick::Gone),
        (Errno::INVAL, TxKick::Failed(Errno::INVAL)),
    ] {
        let (mut tx, calls) = kicked(3, move |_| Err(errno));
        assert_eq!(tx.kick(|_| ()), expected);
        assert_eq!(calls.load(Ordering::Relaxed), 1);
    }
    for (errno, expected) in
        [(Errno::AGAIN, RxKick::Done), (Errno::NETDOWN, RxKick::LinkDown), (Errno::NXIO, RxKick::Gone)]
    {
        let (mut rx, _tx, kernel) = fake();
        kernel.on_receive(move || Err(errno));
        assert_eq!(rx.kick(), expected);
    }
}

#[test]
fn wild_index_of_the_other_side_is_contained() {
    let (mut rx, _tx, mut kernel) = fake();
    // Takes more than was filled: our view of the room left must not grow beyond the ring.
    kernel.fill.jump(1000);
    assert_eq!(rx.fill(256).room(), 0);
    assert!(rx.unfilled() <= 64);
    // Announces more than the ring holds.
    kernel.rx.jump(1000);
    assert!(rx.waiting() <= 64);
    assert!(rx.receive(u32::MAX).count() <= 64);
}

/// Against a model: buffers are conserved whatever the two sides do.
#[derive(Clone, Debug)]
enum Step {
    Fill(u32),
    Deliver(u32),
    Receive(u32),
    Send(u32),
    Transmit(u32),
    Complete(u32),
}

fn step() -> impl Strategy<Value = Step> {
    let count = 0..80u32;
    prop_oneof![
        count.clone().prop_map(Step::Fill),
        count.clone().prop_map(Step::Deliver),
        count.clone().prop_map(Step::Receive),
        count.clone().prop_map(Step::Send),
        count.clone().prop_map(Step::Transmit),
        count.prop_map(Step::Complete),
    ]
}

proptest! {
    #[test]
    fn buffers_are_conserved(steps in prop::collection::vec(step(), 1..60), start: u32) {
        let (mut rx, mut tx, mut kernel) = FakeKernel::new(area(), SIZES, start, false).expect("an eventfd");
        let mut free: BTreeSet<u32> = (0..200).collect();
        let mut received = BTreeSet::new();
        for step in steps {
            match step {
                Step::Fill(count) => {
                    let mut slots = rx.fill(count);
                    while slots.room() > 0 {
                        let Some(buffer) = free.pop_first() else { break };
                        prop_assert!(slots.push(buffer));
                    }
                }
                Step::Deliver(count) => {
                    for _ in 0..count {
                        if kernel.deliver(&area(), 60).is_none() {
                            break;
                        }
                    }
                }
                Step::Receive(count) => {
                    for frame in rx.receive(count) {
                        prop_assert!(received.insert(frame.buffer));
                    }
                }
                Step::Send(count) => {
                    let mut slots = tx.send(count);
                    while slots.room() > 0 {
                        let Some(buffer) = received.pop_first() else { break };
                        prop_assert!(slots.push(&frame(buffer)));
                    }
                }
                Step::Transmit(count) => drop(kernel.transmit(count)),
                Step::Complete(count) => {
                    for buffer in tx.completed(count) {
                        prop_assert!(free.insert(buffer));
                    }
                }
            }
            let held = (rx.held() + tx.held()) as usize;
            prop_assert_eq!(free.len() + received.len() + held, 200);
        }
        prop_assert_eq!((rx.invalid(), tx.invalid()), (0, 0));
    }
}
