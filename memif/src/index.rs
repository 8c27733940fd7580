//! The index algorithm of a ring, apart from where the indices live, so that loom can check it.
//!
//! The two indices of a ring run freely over all 16 bits. *Head* is written by the client, *tail* by the server.
//! Of our own index only the private shadow counts; shared memory is told, never asked. The peer's index is
//! accepted if it moved forward, and not beyond the slots that were its to move over.

use std::sync::atomic::Ordering;

use crate::config::CHECKED;

/// Order of the loads: what the peer wrote before it moved its index is seen.
pub(crate) const LOAD: Ordering = Ordering::Acquire;
/// Order of the stores: what we read and wrote before is done when the peer sees our index.
pub(crate) const STORE: Ordering = Ordering::Release;

/// The two indices of a ring, loaded with [`LOAD`] and stored with [`STORE`].
pub(crate) trait Indices {
    fn head(&self) -> u16;
    fn tail(&self) -> u16;
    fn set_head(&self, value: u16);
    fn set_tail(&self, value: u16);
}

/// The peer's index moved where it can't be.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Impossible;

/// Which end of a ring we are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// Takes slots between tail and head: packets of an S2M ring, empty buffers of an M2S ring.
    Server,
    /// Fills slots from head on, as long as the server freed them.
    ClientTx,
    /// Takes packets up to tail and posts each buffer again at once, so head is always a ring size ahead.
    ClientRx,
}

/// Our place in a ring. Slots from `own` up to `limit` are ours to work on.
#[derive(Debug)]
pub(crate) struct Cursor {
    end: End,
    size: u16,
    own: u16,
    limit: u16,
}

impl Cursor {
    /// A cursor at `start`, the value that both indices have before any packet (a server's head may be ahead).
    /// Writes nothing; a client must post its buffers by [`Cursor::advance`] of zero slots.
    pub(crate) fn new(end: End, log2_size: u8, start: u16) -> Self {
        let size = 1 << log2_size;
        let limit = if end == End::ClientTx { start.wrapping_add(size) } else { start };
        Self { end, size, own: start, limit }
    }

    /// The first slot that is ours; later ones follow, wrapping.
    #[inline(always)]
    pub(crate) fn position(&self) -> u16 {
        self.own
    }

    /// Slots of the ring.
    #[inline(always)]
    pub(crate) fn size(&self) -> u16 {
        self.size
    }

    #[inline(always)]
    fn peer_limit(&self, ring: &impl Indices) -> u16 {
        match self.end {
            End::Server => ring.head(),
            End::ClientTx => ring.tail().wrapping_add(self.size),
            End::ClientRx => ring.tail(),
        }
    }

    /// Slots that are ours. Asks the peer's index only if fewer than `want` are known.
    #[inline(always)]
    pub(crate) fn available(&mut self, ring: &impl Indices, want: u16) -> Result<u16, Impossible> {
        let known = self.limit.wrapping_sub(self.own);
        if known >= want {
            return Ok(known);
        }
        let limit = self.peer_limit(ring);
        if CHECKED && limit.wrapping_sub(self.limit) > self.size - known {
            return Err(Impossible);
        }
        self.limit = limit;
        Ok(limit.wrapping_sub(self.own))
    }

    /// Whether the peer's index says more than [`Cursor::position`] already; `seen` is a limit to ignore.
    pub(crate) fn pending(&self, ring: &impl Indices, seen: Option<u16>) -> bool {
        let limit = self.peer_limit(ring);
        limit != self.own && Some(limit) != seen
    }

    /// The limit known from the last look at the peer's index.
    pub(crate) fn limit(&self) -> u16 {
        self.limit
    }

    /// Hands `n` slots to the peer, at most as many as are available.
    #[inline(always)]
    pub(crate) fn advance(&mut self, ring: &impl Indices, n: u16) {
        self.own = self.own.wrapping_add(n);
        match self.end {
            End::Server => ring.set_tail(self.own),
            End::ClientTx => ring.set_head(self.own),
            End::ClientRx => ring.set_head(self.own.wrapping_add(self.size)),
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::cell::Cell;

    #[derive(Default)]
    struct Plain {
        head: Cell<u16>,
        tail: Cell<u16>,
    }

    impl Indices for Plain {
        fn head(&self) -> u16 {
            self.head.get()
        }
        fn tail(&self) -> u16 {
            self.tail.get()
        }
        fn set_head(&self, value: u16) {
            self.head.set(value);
        }
        fn set_tail(&self, value: u16) {
            self.tail.set(value);
        }
    }

    /// A model with plain integers beside both ends of both directions, through the wrap of the indices.
    #[test]
    fn both_ends_agree_through_the_wrap() {
        for log2 in [0, 1, 3, 14] {
            for start in [0u16, 0xfff0, 0xffff, 0x7fff] {
                let size = 1u32 << log2;
                for (client_end, posted) in [(End::ClientTx, 0), (End::ClientRx, size)] {
                    let ring = Plain { head: Cell::new(start), tail: Cell::new(start) };
                    let mut client = Cursor::new(client_end, log2, start);
                    let mut server = Cursor::new(End::Server, log2, start);
                    client.advance(&ring, 0);
                    let (mut at_server, mut at_client) = (posted, size - posted);
                    let mut step = 1u32;
                    for _ in 0..400 {
                        step = step.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                        assert_eq!(u32::from(server.available(&ring, u16::MAX).unwrap()), at_server);
                        let n = (step >> 8) % (at_server + 1);
                        server.advance(&ring, n as u16);
                        at_server -= n;
                        at_client += n;
                        assert_eq!(u32::from(client.available(&ring, u16::MAX).unwrap()), at_client);
                        let n = (step >> 16) % (at_client + 1);
                        client.advance(&ring, n as u16);
                        at_client -= n;
                        at_server += n;
                    }
                }
            }
        }
    }

    #[test]
    fn every_impossible_move_is_seen() {
        // Exhaustive over the peer's index: from a server's point, 5 of 8 slots posted, own index 0xfffe.
        for head in 0..=u16::MAX {
            let ring = Plain { head: Cell::new(3), tail: Cell::new(0xfffe) };
            let mut server = Cursor::new(End::Server, 3, 0xfffe);
            assert_eq!(server.available(&ring, 1), Ok(5));
            ring.head.set(head);
            let got = server.available(&ring, 6);
            if (3..=6).contains(&head) {
                assert_eq!(got, Ok(head + 2));
            } else {
                assert_eq!(got, Err(Impossible), "head {head}");
            }
        }
        // A client that has sent 2 of 8, of which 1 is back.
        for tail in 0..=u16::MAX {
            let ring = Plain::default();
            let mut client = Cursor::new(End::ClientTx, 3, 0);
            client.advance(&ring, 2);
            ring.tail.set(1);
            assert_eq!(client.available(&ring, 8), Ok(7));
            ring.tail.set(tail);
            let want = match tail {
                1 => Ok(7),
                2 => Ok(8),
                _ => Err(Impossible),
            };
            assert_eq!(client.available(&ring, 8), want, "tail {tail}");
        }
    }

    #[test]
    fn known_slots_need_no_look() {
        let ring = Plain::default();
        ring.head.set(4);
        let mut server = Cursor::new(End::Server, 3, 0);
        assert_eq!(server.available(&ring, 1), Ok(4));
        ring.head.set(1000);
        assert_eq!(server.available(&ring, 4), Ok(4), "the cached limit is enough");
        assert_eq!(server.available(&ring, 5), Err(Impossible));
    }
}

/// Run with `RUSTFLAGS="--cfg loom" cargo test -p memif --lib loom --release`.
#[cfg(all(test, loom))]
mod loom_tests {
    use super::*;
    use loom::cell::UnsafeCell;
    use loom::sync::Arc;
    use loom::sync::atomic::AtomicU16;

    const LOG2: u8 = 1;
    const SIZE: usize = 1 << LOG2;

    struct Ring {
        head: AtomicU16,
        tail: AtomicU16,
        slots: [UnsafeCell<u32>; SIZE],
    }

    impl Indices for Ring {
        fn head(&self) -> u16 {
            self.head.load(LOAD)
        }
        fn tail(&self) -> u16 {
            self.tail.load(LOAD)
        }
        fn set_head(&self, value: u16) {
            self.head.store(value, STORE);
        }
        fn set_tail(&self, value: u16) {
            self.tail.store(value, STORE);
        }
    }

    impl Ring {
        fn new(start: u16) -> Arc<Self> {
            Arc::new(Self {
                head: AtomicU16::new(start),
                tail: AtomicU16::new(start),
                slots: std::array::from_fn(|_| UnsafeCell::new(0)),
            })
        }

        fn slot(&self, index: u16) -> &UnsafeCell<u32> {
            &self.slots[usize::from(index) % SIZE]
        }
    }

    const START: u16 = 0xfffe;
    const PACKETS: u32 = 3;

    fn send(ring: &Ring, mut cursor: Cursor) {
        let mut next = 1;
        while next <= PACKETS {
            let free = cursor.available(ring, 1).unwrap();
            let mut used = 0;
            while used < free && next <= PACKETS {
                // SAFETY: the slot is ours, which is what the model checks.
                ring.slot(cursor.position().wrapping_add(used)).with_mut(|p| unsafe { *p = next });
                used += 1;
                next += 1;
            }
            cursor.advance(ring, used);
            if used == 0 {
                loom::thread::yield_now();
            }
        }
    }

    fn receive(ring: &Ring, mut cursor: Cursor) {
        let mut expected = 1;
        while expected <= PACKETS {
            let ready = cursor.available(ring, 1).unwrap();
            for i in 0..ready {
                // SAFETY: as above.
                let got = ring.slot(cursor.position().wrapping_add(i)).with(|p| unsafe { *p });
                assert_eq!(got, expected);
                expected += 1;
            }
            cursor.advance(ring, ready);
            if ready == 0 {
                loom::thread::yield_now();
            }
        }
    }

    fn model(f: impl Fn() + Sync + Send + 'static) {
        let mut model = loom::model::Builder::new();
        model.preemption_bound = Some(3);
        model.check(f);
    }

    #[test]
    fn loom_client_to_server() {
        model(|| {
            let ring = Ring::new(START);
            let peer = ring.clone();
            let client = loom::thread::spawn(move || send(&peer, Cursor::new(End::ClientTx, LOG2, START)));
            receive(&ring, Cursor::new(End::Server, LOG2, START));
            client.join().unwrap();
        });
    }

    #[test]
    fn loom_server_to_client() {
        model(|| {
            let ring = Ring::new(START);
            let peer = ring.clone();
            let server = loom::thread::spawn(move || send(&peer, Cursor::new(End::Server, LOG2, START)));
            let mut cursor = Cursor::new(End::ClientRx, LOG2, START);
            cursor.advance(&*ring, 0);
            receive(&ring, cursor);
            server.join().unwrap();
        });
    }
}
