//! Publication of tables to workers: read-copy-update by quiescent states.
//!
//! The control plane publishes whole new values; a worker looks at what there is once per turn of its loop and
//! keeps to that generation until the next. Nobody waits: an old value is dropped, on the publishing side, when every worker has
//! passed a turn since it was replaced. A worker that sleeps is offline and holds nothing back.
//!
//! Protocol: `seq` is even while stable and odd inside a [`Transaction`]. A reader announces in its slot the
//! even `seq` of the generation that it uses, or that it is offline. A value replaced in the transaction that ended at
//! `t` may go when no slot is below `t`.

use crate::sync::{AtomicPtr, AtomicU64, Ordering, fence};
use crossbeam_utils::CachePadded;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

const OFFLINE: u64 = u64::MAX;
/// A reader that is about to load pointers: nothing may be dropped.
const ENTERING: u64 = 0;

type Retired = Box<dyn FnOnce() + Send>;

struct Writer {
    retired: VecDeque<(u64, Retired)>,
}

/// The readers and the generations of one set of tables.
pub struct Domain {
    seq: AtomicU64,
    slots: Box<[CachePadded<AtomicU64>]>,
    writer: Mutex<Writer>,
}

impl std::fmt::Debug for Domain {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Domain").field("readers", &self.slots.len()).finish_non_exhaustive()
    }
}

impl Domain {
    /// A domain for `readers` workers, all offline.
    pub fn new(readers: usize) -> Arc<Domain> {
        Arc::new(Domain {
            seq: AtomicU64::new(2),
            slots: (0..readers).map(|_| CachePadded::new(AtomicU64::new(OFFLINE))).collect(),
            writer: Mutex::new(Writer { retired: VecDeque::new() }),
        })
    }

    /// Opens a transaction: what is published in it becomes visible as one generation when it is dropped.
    pub fn begin(&self) -> Transaction<'_> {
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let odd = self.seq.load(Ordering::Relaxed) + 1;
        self.seq.store(odd, Ordering::Relaxed);
        // Pairs with the reader's acquire fence in `Reader::try_settle`: who sees a pointer of this transaction
        // also sees the odd number.
        fence(Ordering::Release);
        Transaction { domain: self, writer, seq: odd }
    }

    /// Runs `release` once no reader can still see what was reachable before this call. For parts of a table that
    /// is changed in place.
    pub fn retire(&self, release: impl FnOnce() + Send + 'static) {
        self.begin().retire(release);
    }

    /// Drops what no reader can see any more; returns how much is still held. Called regularly by the main
    /// thread; `begin` does it too.
    pub fn reclaim(&self) -> usize {
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        self.reclaim_locked(&mut writer)
    }

    /// Waits until every reader that is not asleep has moved to what is published now, at most `timeout`; false if one
    /// has not. For a change of which one part must be seen before the next is made.
    #[cfg(not(loom))]
    pub fn synchronize(&self, timeout: std::time::Duration) -> bool {
        fence(Ordering::SeqCst);
        let seq = self.seq.load(Ordering::Acquire) & !1;
        let start = std::time::Instant::now();
        loop {
            if self.slots.iter().all(|slot| slot.load(Ordering::Acquire) >= seq) {
                return true;
            }
            if start.elapsed() > timeout {
                return false;
            }
            std::thread::yield_now();
        }
    }

    fn reclaim_locked(&self, writer: &mut Writer) -> usize {
        if writer.retired.is_empty() {
            return 0;
        }
        // Pairs with the fence in `Reader::online`: either we see the reader's ENTERING, or it sees our pointers.
        fence(Ordering::SeqCst);
        let oldest = self.slots.iter().map(|s| s.load(Ordering::Acquire)).min().unwrap_or(OFFLINE);
        while writer.retired.front().is_some_and(|(at, _)| *at <= oldest) {
            if let Some((_, release)) = writer.retired.pop_front() {
                release();
            }
        }
        writer.retired.len()
    }
}

impl Drop for Domain {
    fn drop(&mut self) {
        let writer = self.writer.get_mut().unwrap_or_else(PoisonError::into_inner);
        for (_, release) in writer.retired.drain(..) {
            release();
        }
    }
}

/// One generation in the making; see [`Domain::begin`].
pub struct Transaction<'a> {
    domain: &'a Domain,
    writer: MutexGuard<'a, Writer>,
    seq: u64,
}

impl Transaction<'_> {
    /// As [`Domain::retire`], as part of this generation.
    pub fn retire(&mut self, release: impl FnOnce() + Send + 'static) {
        self.writer.retired.push_back((self.seq + 1, Box::new(release)));
    }
}

impl Drop for Transaction<'_> {
    fn drop(&mut self) {
        self.domain.seq.store(self.seq + 1, Ordering::Release);
        self.domain.reclaim_locked(&mut self.writer);
    }
}

impl std::fmt::Debug for Transaction<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Transaction").field("seq", &self.seq).finish_non_exhaustive()
    }
}

/// Where a published value hangs.
#[derive(Debug)]
pub(crate) struct Cell<T> {
    current: AtomicPtr<T>,
}

impl<T> Cell<T> {
    /// The current value's address; valid for a reader that is not offline until it announces a later generation.
    #[inline(always)]
    pub(crate) fn load(&self) -> *const T {
        self.current.load(Ordering::Acquire)
    }
}

impl<T> Drop for Cell<T> {
    fn drop(&mut self) {
        let current = self.current.load(Ordering::Acquire);
        // SAFETY: `current` came from Box::into_raw, and with the last reference to the cell no reader is left.
        drop(unsafe { Box::from_raw(current) });
    }
}

/// The control plane's end of a published value of type `T`.
#[derive(Debug)]
pub struct Publisher<T: Send + Sync + 'static> {
    pub(crate) cell: Arc<Cell<T>>,
    domain: Arc<Domain>,
}

impl<T: Send + Sync + 'static> Clone for Publisher<T> {
    fn clone(&self) -> Self {
        Publisher { cell: Arc::clone(&self.cell), domain: Arc::clone(&self.domain) }
    }
}

struct Old<T>(*mut T);
// SAFETY: the pointer is the only one left to a `T: Send` value when it is released.
unsafe impl<T: Send> Send for Old<T> {}

impl<T: Send + Sync + 'static> Publisher<T> {
    /// Publishes a first value in `domain`.
    pub fn new(domain: &Arc<Domain>, value: T) -> Publisher<T> {
        let current = AtomicPtr::new(Box::into_raw(Box::new(value)));
        Publisher { cell: Arc::new(Cell { current }), domain: Arc::clone(domain) }
    }

    /// Replaces the value as a generation of its own.
    pub fn publish(&self, value: T) {
        self.publish_in(&mut self.domain.begin(), value);
    }

    /// Replaces the value as part of a transaction.
    pub fn publish_in(&self, transaction: &mut Transaction<'_>, value: T) {
        let old = Old(self.cell.current.swap(Box::into_raw(Box::new(value)), Ordering::AcqRel));
        transaction.retire(move || {
            let Old(old) = { old };
            // SAFETY: `old` came from Box::into_raw, was unlinked above, and the domain says no reader has it.
            drop(unsafe { Box::from_raw(old) });
        });
    }

    /// Replaces the value by what `change` makes of the current one.
    pub fn update(&self, change: impl FnOnce(&T) -> T) {
        let mut transaction = self.domain.begin();
        // SAFETY: replaced values are dropped only by a holder of the writer's lock, which we are.
        let value = change(unsafe { &*self.cell.load() });
        self.publish_in(&mut transaction, value);
    }

    /// Looks at the current value. Holds off other publishers meanwhile.
    pub fn read<R>(&self, look: impl FnOnce(&T) -> R) -> R {
        let _writer = self.domain.writer.lock().unwrap_or_else(PoisonError::into_inner);
        // SAFETY: replaced values are dropped only by a holder of the writer's lock, which we are.
        look(unsafe { &*self.cell.load() })
    }
}

/// A worker's place in a [`Domain`].
#[derive(Debug)]
pub struct Reader {
    domain: Arc<Domain>,
    slot: usize,
    seen: u64,
}

impl Reader {
    /// The reader of slot `slot`, offline.
    ///
    /// # Panics
    /// When the domain was made for fewer readers.
    pub fn new(domain: Arc<Domain>, slot: usize) -> Reader {
        assert!(slot < domain.slots.len());
        Reader { domain, slot, seen: OFFLINE }
    }

    #[inline(always)]
    fn announce(&self, value: u64, order: Ordering) {
        self.domain.slots[self.slot].store(value, order);
    }

    /// Once per turn: whether there is a new, stable generation to move to. If so, load the pointers and ask
    /// [`Reader::try_settle`].
    #[inline(always)]
    pub fn changed(&self) -> Option<u64> {
        let seq = self.domain.seq.load(Ordering::Acquire);
        (seq != self.seen && seq & 1 == 0).then_some(seq)
    }

    /// Whether the pointers loaded since `changed` said `seq` are all of that generation. If so it is announced, and
    /// values of earlier generations must not be used any more; if not, keep to the earlier ones.
    #[inline]
    pub fn try_settle(&mut self, seq: u64) -> bool {
        fence(Ordering::Acquire);
        if self.domain.seq.load(Ordering::Relaxed) != seq {
            return false;
        }
        self.seen = seq;
        self.announce(seq, Ordering::Release);
        true
    }

    /// Holds nothing any more, until [`Reader::online`].
    pub fn offline(&mut self) {
        self.seen = OFFLINE;
        self.announce(OFFLINE, Ordering::Release);
    }

    /// Enters: from now on nothing is dropped until the reader settles, which it must do before it uses anything.
    pub fn online(&mut self) {
        self.announce(ENTERING, Ordering::SeqCst);
        fence(Ordering::SeqCst);
    }

    /// Loads `pointers` until they are of one generation. For a reader that has come online.
    pub fn settle(&mut self, mut load: impl FnMut()) {
        loop {
            if let Some(seq) = self.changed() {
                load();
                if self.try_settle(seq) {
                    return;
                }
            }
            #[cfg(loom)]
            loom::thread::yield_now();
            #[cfg(not(loom))]
            std::thread::yield_now();
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.offline();
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;

    struct Counted(u64, Arc<AtomicUsize>);
    impl Drop for Counted {
        fn drop(&mut self) {
            self.1.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn an_old_value_lives_until_the_reader_moves_on() {
        let drops = Arc::new(AtomicUsize::new(0));
        let domain = Domain::new(1);
        let publisher = Publisher::new(&domain, Counted(1, Arc::clone(&drops)));
        let mut reader = Reader::new(Arc::clone(&domain), 0);
        reader.online();
        let mut at = std::ptr::null();
        reader.settle(|| at = publisher.cell.load());
        publisher.publish(Counted(2, Arc::clone(&drops)));
        assert_eq!(domain.reclaim(), 1);
        // SAFETY: the reader has not moved on.
        assert_eq!(unsafe { &*at }.0, 1);
        let seq = reader.changed().unwrap();
        at = publisher.cell.load();
        assert!(reader.try_settle(seq));
        // SAFETY: of the generation that was just announced.
        assert_eq!(unsafe { &*at }.0, 2);
        assert_eq!(domain.reclaim(), 0);
        assert_eq!(drops.load(Ordering::SeqCst), 1);
        reader.offline();
        publisher.publish(Counted(3, Arc::clone(&drops)));
        assert_eq!(drops.load(Ordering::SeqCst), 2);
        drop((publisher, reader, domain));
        assert_eq!(drops.load(Ordering::SeqCst), 3);
    }

    #[test]
    fn a_transaction_is_one_generation() {
        let domain = Domain::new(1);
        let a = Publisher::new(&domain, 0u64);
        let b = Publisher::new(&domain, 0u64);
        let stop = Arc::new(AtomicUsize::new(0));
        let (cell_a, cell_b) = (Arc::clone(&a.cell), Arc::clone(&b.cell));
        let mut reader = Reader::new(Arc::clone(&domain), 0);
        let watch = Arc::clone(&stop);
        let worker = std::thread::spawn(move || {
            let (mut pa, mut pb) = (cell_a.load(), cell_b.load());
            reader.online();
            reader.settle(|| (pa, pb) = (cell_a.load(), cell_b.load()));
            while watch.load(Ordering::Relaxed) == 0 {
                if let Some(seq) = reader.changed() {
                    let staged = (cell_a.load(), cell_b.load());
                    if reader.try_settle(seq) {
                        (pa, pb) = staged;
                    }
                }
                // SAFETY: both are of the generation that the reader has announced.
                let (x, y) = unsafe { (*pa, *pb) };
                assert_eq!(x, y);
            }
        });
        for i in 1..20_000u64 {
            let mut t = domain.begin();
            a.publish_in(&mut t, i);
            b.publish_in(&mut t, i);
        }
        stop.store(1, Ordering::Relaxed);
        worker.join().unwrap();
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use super::*;

    #[test]
    fn no_reader_sees_a_dropped_value() {
        let mut model = loom::model::Builder::new();
        model.preemption_bound = Some(3);
        model.check(|| {
            let domain = Domain::new(1);
            let alive = Arc::new([AtomicU64::new(1), AtomicU64::new(1)]);
            let current = Arc::new(AtomicU64::new(0));
            let reader_domain = Arc::clone(&domain);
            let (reader_alive, reader_current) = (Arc::clone(&alive), Arc::clone(&current));
            let reader = loom::thread::spawn(move || {
                let mut reader = Reader::new(reader_domain, 0);
                reader.online();
                let mut index = 0;
                reader.settle(|| index = reader_current.load(Ordering::Acquire));
                assert_eq!(reader_alive[index as usize].load(Ordering::Relaxed), 1);
                reader.offline();
            });
            let mut t = domain.begin();
            current.store(1, Ordering::Release);
            let dead = Arc::clone(&alive);
            t.retire(move || dead[0].store(0, Ordering::Relaxed));
            drop(t);
            domain.reclaim();
            reader.join().unwrap();
        });
    }
}
