//! A bounded ring between one producer and one consumer, for handing work to another thread.

use crate::sync::{AtomicUsize, Ordering, UnsafeCell};
use crossbeam_utils::CachePadded;
use std::mem::MaybeUninit;
use std::sync::Arc;

struct Shared<T> {
    /// Written by the producer.
    tail: CachePadded<AtomicUsize>,
    /// Written by the consumer.
    head: CachePadded<AtomicUsize>,
    slots: Box<[UnsafeCell<MaybeUninit<T>>]>,
}

// SAFETY: a slot is touched by the producer only between head + size and tail, by the consumer only between head and
// tail; the indices' release stores and acquire loads pass it from one to the other.
unsafe impl<T: Send> Sync for Shared<T> {}
// SAFETY: the values are `Send`.
unsafe impl<T: Send> Send for Shared<T> {}

impl<T> Drop for Shared<T> {
    fn drop(&mut self) {
        let tail = self.tail.load(Ordering::Acquire);
        let mut head = self.head.load(Ordering::Acquire);
        while head != tail {
            let slot = &self.slots[head & (self.slots.len() - 1)];
            // SAFETY: slots between head and tail are initialised, and both ends are gone.
            slot.with_mut(|value| unsafe { (*value).assume_init_drop() });
            head = head.wrapping_add(1);
        }
    }
}

/// The end that puts in.
pub struct Producer<T> {
    shared: Arc<Shared<T>>,
    tail: usize,
    head_seen: usize,
}

/// The end that takes out.
pub struct Consumer<T> {
    shared: Arc<Shared<T>>,
    head: usize,
    tail_seen: usize,
}

impl<T> std::fmt::Debug for Producer<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Producer").field("tail", &self.tail).finish_non_exhaustive()
    }
}

impl<T> std::fmt::Debug for Consumer<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Consumer").field("head", &self.head).finish_non_exhaustive()
    }
}

/// A ring of at least `size` slots (rounded up to a power of two).
pub fn ring<T: Send>(size: usize) -> (Producer<T>, Consumer<T>) {
    starting_at(size, 0)
}

fn starting_at<T: Send>(size: usize, index: usize) -> (Producer<T>, Consumer<T>) {
    let size = size.next_power_of_two();
    let shared = Arc::new(Shared {
        tail: CachePadded::new(AtomicUsize::new(index)),
        head: CachePadded::new(AtomicUsize::new(index)),
        slots: (0..size).map(|_| UnsafeCell::new(MaybeUninit::uninit())).collect(),
    });
    (
        Producer { shared: Arc::clone(&shared), tail: index, head_seen: index },
        Consumer { shared, head: index, tail_seen: index },
    )
}

impl<T: Send> Producer<T> {
    /// Whether more than half of the ring waits for the consumer. It can only have become less since.
    #[inline]
    pub fn is_half_full(&mut self) -> bool {
        let half = self.shared.slots.len() / 2;
        if self.tail.wrapping_sub(self.head_seen) > half {
            self.head_seen = self.shared.head.load(Ordering::Acquire);
        }
        self.tail.wrapping_sub(self.head_seen) > half
    }

    /// Puts `value` in, or gives it back when the ring is full.
    #[inline]
    pub fn push(&mut self, value: T) -> Result<(), T> {
        let size = self.shared.slots.len();
        if self.tail.wrapping_sub(self.head_seen) == size {
            self.head_seen = self.shared.head.load(Ordering::Acquire);
            if self.tail.wrapping_sub(self.head_seen) == size {
                return Err(value);
            }
        }
        let slot = &self.shared.slots[self.tail & (size - 1)];
        // SAFETY: the slot is outside [head, tail), so it is the producer's, of which there is one.
        slot.with_mut(|at| unsafe { (*at).write(value) });
        self.tail = self.tail.wrapping_add(1);
        self.shared.tail.store(self.tail, Ordering::Release);
        Ok(())
    }
}

impl<T: Send> Consumer<T> {
    /// Takes the oldest value out.
    #[inline]
    pub fn pop(&mut self) -> Option<T> {
        if self.is_empty() {
            return None;
        }
        let slot = &self.shared.slots[self.head & (self.shared.slots.len() - 1)];
        // SAFETY: the slot is inside [head, tail), initialised by the producer's push that the acquire load saw.
        let value = slot.with_mut(|at| unsafe { (*at).assume_init_read() });
        self.head = self.head.wrapping_add(1);
        self.shared.head.store(self.head, Ordering::Release);
        Some(value)
    }

    /// Whether there is nothing to take now.
    #[inline(always)]
    pub fn is_empty(&mut self) -> bool {
        if self.head == self.tail_seen {
            self.tail_seen = self.shared.tail.load(Ordering::Acquire);
        }
        self.head == self.tail_seen
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn keeps_order_across_the_wrap_and_refuses_when_full() {
        let (mut tx, mut rx) = starting_at(4, usize::MAX - 2);
        for round in 0..10u32 {
            for i in 0..4 {
                tx.push(round * 4 + i).unwrap();
            }
            assert_eq!(tx.push(99), Err(99));
            for i in 0..4 {
                assert_eq!(tx.is_half_full(), i < 2);
                assert_eq!(rx.pop(), Some(round * 4 + i));
            }
            assert_eq!(rx.pop(), None);
        }
    }

    #[test]
    fn drops_what_is_left() {
        let value = Arc::new(());
        let (mut tx, rx) = ring(8);
        tx.push(Arc::clone(&value)).unwrap();
        drop((tx, rx));
        assert_eq!(Arc::strong_count(&value), 1);
    }

    #[test]
    fn two_threads() {
        let (mut tx, mut rx) = ring(64);
        let sender = std::thread::spawn(move || {
            for i in 0..200_000u64 {
                let mut value = i;
                while let Err(back) = tx.push(value) {
                    value = back;
                    std::thread::yield_now();
                }
            }
        });
        for i in 0..200_000u64 {
            loop {
                if let Some(value) = rx.pop() {
                    assert_eq!(value, i);
                    break;
                }
                std::thread::yield_now();
            }
        }
        sender.join().unwrap();
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use super::*;

    #[test]
    fn nothing_lost_nothing_twice() {
        loom::model(|| {
            let (mut tx, mut rx) = ring::<Box<u32>>(2);
            let sender = loom::thread::spawn(move || {
                for i in 0..3 {
                    let mut value = Box::new(i);
                    while let Err(back) = tx.push(value) {
                        value = back;
                        loom::thread::yield_now();
                    }
                }
            });
            for i in 0..3 {
                loop {
                    if let Some(value) = rx.pop() {
                        assert_eq!(*value, i);
                        break;
                    }
                    loom::thread::yield_now();
                }
            }
            sender.join().unwrap();
        });
    }
}
