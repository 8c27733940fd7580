//! A kernel made of plain memory: drives an [`RxQueue`] and a [`TxQueue`] from the other side,
//! so that what is built on them can be tested without root, devices or time.

use std::{
    cell::UnsafeCell,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    ptr::NonNull,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
};

use rustix::io::Errno;

use super::{
    Area, Descriptor, RingSizes, RxQueue, TxQueue,
    queue::Port,
    rings::{Consumer, Layout, Producer, sealed::Entry},
};

/// A ring on the heap.
struct HeapRing<T> {
    producer: AtomicU32,
    consumer: AtomicU32,
    flags: AtomicU32,
    entries: Box<[UnsafeCell<T>]>,
}

// SAFETY: the indices are atomic, and which side may touch an entry follows from them.
unsafe impl<T: Send> Sync for HeapRing<T> {}

/// Both ends of a new ring whose indices stand at `start`, and its flag word.
fn ring<T: Entry>(size: u32, start: u32, empty: T) -> (Producer<T>, Consumer<T>, Flag) {
    assert!(size.is_power_of_two(), "a ring's size is a power of two");
    let ring = Arc::new(HeapRing {
        producer: AtomicU32::new(start),
        consumer: AtomicU32::new(start),
        flags: AtomicU32::new(0),
        entries: (0..size).map(|_| UnsafeCell::new(empty)).collect(),
    });
    let layout = || Layout {
        producer: NonNull::from(&ring.producer),
        consumer: NonNull::from(&ring.consumer),
        flags: NonNull::from(&ring.flags),
        entries: NonNull::from(&*ring.entries).cast::<T>(),
        size,
    };
    // SAFETY: the pointers are into `ring`, which each end keeps alive; this is the ring's only
    // producer.
    let producer = unsafe { Producer::new(layout(), ring.clone()) };
    // SAFETY: the same; the only consumer, and all entries are initialised.
    let consumer = unsafe { Consumer::new(layout(), ring.clone()) };
    let flag = Flag(Arc::new(move |bits| ring.flags.store(bits, Ordering::Relaxed)));
    (producer, consumer, flag)
}

/// Writes a ring's flag word.
#[derive(Clone)]
struct Flag(Arc<dyn Fn(u32) + Send + Sync>);

/// What a fake socket does when it is woken.
type Answer = Box<dyn FnMut() -> Result<(), Errno> + Send>;

/// The system calls of a fake socket.
pub(crate) struct FakePort {
    send: Arc<Mutex<Answer>>,
    receive: Arc<Mutex<Answer>>,
    fd: OwnedFd,
}

impl FakePort {
    pub(crate) fn send(&self) -> Result<(), Errno> {
        self.send.lock().unwrap_or_else(PoisonError::into_inner)()
    }

    pub(crate) fn receive(&self) -> Result<(), Errno> {
        self.receive.lock().unwrap_or_else(PoisonError::into_inner)()
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// The kernel's end of the four rings of one socket.
pub struct FakeKernel {
    /// Takes what was filled.
    pub fill: Consumer<u64>,
    /// Delivers frames, or anything else.
    pub rx: Producer<Descriptor>,
    /// Takes frames to send.
    pub tx: Consumer<Descriptor>,
    /// Completes them.
    pub completion: Producer<u64>,
    fill_flag: Flag,
    tx_flag: Flag,
    send: Arc<Mutex<Answer>>,
    receive: Arc<Mutex<Answer>>,
}

impl FakeKernel {
    /// A socket over `area` whose ring indices start at `start`, and its kernel. Until told
    /// otherwise its system calls succeed and do nothing. Its file descriptor is an eventfd that
    /// is never readable.
    ///
    /// # Errors
    ///
    /// When there are no file descriptors left.
    ///
    /// # Panics
    ///
    /// When a ring size is not a power of two.
    pub fn new(
        area: Area,
        sizes: RingSizes,
        start: u32,
        zero_copy: bool,
    ) -> Result<(RxQueue, TxQueue, FakeKernel), Errno> {
        let empty = Descriptor { addr: 0, len: 0, options: 0 };
        let (our_fill, fill, fill_flag) = ring(sizes.fill, start, 0);
        let (rx, our_rx, _) = ring(sizes.rx, start, empty);
        let (our_tx, tx, tx_flag) = ring(sizes.tx, start, empty);
        let (completion, our_completion, _) = ring(sizes.completion, start, 0);
        let idle = || Arc::new(Mutex::new(Box::new(|| Ok(())) as Answer));
        let (send, receive) = (idle(), idle());
        let fd = rustix::event::eventfd(0, rustix::event::EventfdFlags::CLOEXEC)?;
        let port = Arc::new(Port::Fake(FakePort { send: send.clone(), receive: receive.clone(), fd }));
        Ok((
            RxQueue::new(our_fill, our_rx, area, port.clone()),
            TxQueue::new(our_tx, our_completion, area, zero_copy, port),
            FakeKernel { fill, rx, tx, completion, fill_flag, tx_flag, send, receive },
        ))
    }

    /// Sets or clears XDP_RING_NEED_WAKEUP on the fill and TX rings.
    pub fn set_needs_wakeup(&self, fill: bool, tx: bool) {
        let bits = |on| if on { libc::XDP_RING_NEED_WAKEUP } else { 0 };
        self.fill_flag.0(bits(fill));
        self.tx_flag.0(bits(tx));
    }

    /// Sets what waking for transmission does and answers.
    pub fn on_send(&self, answer: impl FnMut() -> Result<(), Errno> + Send + 'static) {
        *self.send.lock().unwrap_or_else(PoisonError::into_inner) = Box::new(answer);
    }

    /// Sets what waking for reception answers.
    pub fn on_receive(&self, answer: impl FnMut() -> Result<(), Errno> + Send + 'static) {
        *self.receive.lock().unwrap_or_else(PoisonError::into_inner) = Box::new(answer);
    }

    /// Receives a frame of `len` bytes into the next chunk of the fill ring, as the kernel does
    /// in copy mode. The bytes are the caller's to write, at offset 320 of the buffer whose index
    /// is returned. `None` when the fill ring is empty or the RX ring full.
    pub fn deliver(&mut self, area: &Area, len: u32) -> Option<u32> {
        let mut room = self.rx.reserve(1);
        if room.room() == 0 {
            return None;
        }
        let chunk = self.fill.take(1).next()?;
        let addr = chunk | u64::from(super::RX_HEADROOM) << 48;
        room.push(Descriptor { addr, len, options: 0 });
        area.completed(chunk)
    }

    /// Takes up to `count` frames from the TX ring and completes them, as far as the completion
    /// ring has room. Returns them.
    pub fn transmit(&mut self, count: u32) -> Vec<Descriptor> {
        let mut room = self.completion.reserve(count);
        let sent: Vec<_> = self.tx.take(room.room()).collect();
        for descriptor in &sent {
            room.push(descriptor.addr);
        }
        sent
    }
}
