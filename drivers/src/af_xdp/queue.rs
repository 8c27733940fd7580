//! The two directions of a bound socket, in buffer indices instead of addresses.
//!
//! A queue does not own buffers, it counts them: what goes in by [`RxQueue::fill`] or
//! [`TxQueue::send`] is the kernel's until [`RxQueue::receive`] or [`TxQueue::completed`] names
//! it again. When the device disappears the kernel never does, and the caller's own table of
//! owners is the only way to get the buffers back.

use std::{
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::Arc,
};

use rustix::{
    io::Errno,
    net::{RecvFlags, SendFlags},
};

use super::{
    Area, CompletionRing, FillRing, RxFrame, RxRing, TxFrame, TxRing,
    rings::{Descriptor, Reservation, Taken},
    testing::FakePort,
};

/// Frames that the kernel sends for one system call in copy mode, unless told otherwise (the
/// default of XDP_MAX_TX_SKB_BUDGET).
pub(crate) const DEFAULT_TX_BUDGET: u32 = 32;

/// What the rings belong to.
pub(crate) enum Port {
    Socket(OwnedFd),
    /// A kernel played by a test.
    Fake(FakePort),
}

impl Port {
    fn send(&self) -> Result<(), Errno> {
        match self {
            Port::Socket(fd) => rustix::net::send(fd, &[], SendFlags::DONTWAIT).map(drop),
            Port::Fake(kernel) => kernel.send(),
        }
    }

    fn receive(&self) -> Result<(), Errno> {
        match self {
            Port::Socket(fd) => rustix::net::recv(fd, &mut [0u8; 0][..], RecvFlags::DONTWAIT).map(drop),
            Port::Fake(kernel) => kernel.receive(),
        }
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        match self {
            Port::Socket(fd) => fd.as_fd(),
            Port::Fake(kernel) => kernel.fd(),
        }
    }
}

/// How waking the kernel for transmission ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TxKick {
    /// The kernel took everything (zero-copy: knows of everything).
    Done,
    /// Frames are left after as many calls as a full ring can need: the completion ring is full,
    /// or the kernel is busy. Kick again next time round; never in a loop.
    Unfinished,
    /// EBUSY: the device refused a frame, which is lost, as when a veth's peer is down. Each kick
    /// costs one frame.
    Busy,
    /// ENOBUFS, ENOMEM: the kernel has no memory, or too many frames of the socket are unsent.
    NoBuffers,
    /// ENETDOWN: the interface is down. What is in the ring goes out, stale, when it comes up.
    LinkDown,
    /// ENXIO, ENODEV: the device was deleted. Nothing will be completed any more.
    Gone,
    /// Any other error. EINVAL means that a frame's metadata is wrong, and that the queue will not
    /// move until the socket is recreated.
    Failed(Errno),
}

/// How waking the kernel for reception ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RxKick {
    /// It knows of the fill ring's entries.
    Done,
    /// ENETDOWN: the interface is down.
    LinkDown,
    /// ENXIO, ENODEV: the device was deleted.
    Gone,
    /// Any other error.
    Failed(Errno),
}

/// The receiving half of a socket: fill ring and RX ring.
pub struct RxQueue {
    // The rings come first, so that they are unmapped before the socket is closed: a mapping
    // alone keeps the queue bound.
    fill: FillRing,
    rx: RxRing,
    area: Area,
    held: u32,
    invalid: u64,
    port: Arc<Port>,
}

/// The sending half of a socket: TX ring and completion ring.
pub struct TxQueue {
    // As in `RxQueue`: rings before the socket.
    tx: TxRing,
    completion: CompletionRing,
    area: Area,
    zero_copy: bool,
    held: u32,
    invalid: u64,
    port: Arc<Port>,
}

impl RxQueue {
    pub(crate) fn new(fill: FillRing, rx: RxRing, area: Area, port: Arc<Port>) -> RxQueue {
        RxQueue { fill, rx, area, held: 0, invalid: 0, port }
    }

    /// Makes room for up to `count` empty buffers in the fill ring. They become visible to the
    /// kernel when the value returned is dropped.
    #[inline]
    pub fn fill(&mut self, count: u32) -> FillSlots<'_> {
        FillSlots { slots: self.fill.reserve(count), area: self.area, held: &mut self.held }
    }

    /// Takes up to `count` entries of the RX ring; with them the buffers are the caller's again.
    /// Entries whose address is not ours are counted ([`RxQueue::invalid`]) and skipped.
    #[inline]
    pub fn receive(&mut self, count: u32) -> Received<'_> {
        Received {
            entries: self.rx.take(count),
            area: self.area,
            held: &mut self.held,
            invalid: &mut self.invalid,
        }
    }

    /// Frames waiting in the RX ring.
    pub fn waiting(&self) -> u32 {
        self.rx.waiting()
    }

    /// Buffers that the kernel has: filled and not received.
    pub fn held(&self) -> u32 {
        self.held
    }

    /// Entries that the kernel has not taken out of the fill ring.
    pub fn unfilled(&self) -> u32 {
        self.fill.pending()
    }

    /// RX entries dropped because their address was not in the area. Their buffers are lost to us.
    pub fn invalid(&self) -> u64 {
        self.invalid
    }

    /// Whether [`RxQueue::kick`] is needed for the kernel to see what was filled.
    #[inline]
    pub fn needs_wakeup(&self) -> bool {
        self.fill.needs_wakeup()
    }

    /// Wakes the kernel (recvfrom with MSG_DONTWAIT: no data passes). One system call.
    pub fn kick(&mut self) -> RxKick {
        match self.port.receive() {
            Ok(()) | Err(Errno::AGAIN | Errno::INTR) => RxKick::Done,
            Err(Errno::NETDOWN) => RxKick::LinkDown,
            Err(Errno::NXIO | Errno::NODEV) => RxKick::Gone,
            Err(other) => RxKick::Failed(other),
        }
    }

    /// The area the socket was opened with.
    pub fn area(&self) -> &Area {
        &self.area
    }
}

impl AsFd for RxQueue {
    /// The socket, readable while the RX ring holds frames. It goes silent for ever when the
    /// device is deleted: listen to [`Monitor`](super::netlink::Monitor) too.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.port.fd()
    }
}

impl TxQueue {
    pub(crate) fn new(
        tx: TxRing,
        completion: CompletionRing,
        area: Area,
        zero_copy: bool,
        port: Arc<Port>,
    ) -> TxQueue {
        TxQueue { tx, completion, area, zero_copy, held: 0, invalid: 0, port }
    }

    /// Makes room for up to `count` frames in the TX ring. They become visible to the kernel when
    /// the value returned is dropped; [`TxQueue::kick`] makes it look.
    #[inline]
    pub fn send(&mut self, count: u32) -> TxSlots<'_> {
        TxSlots { slots: self.tx.reserve(count), area: self.area, held: &mut self.held }
    }

    /// Takes up to `count` entries of the completion ring: indices of buffers that are the
    /// caller's again. Entries that are not ours are counted ([`TxQueue::invalid`]) and skipped.
    #[inline]
    pub fn completed(&mut self, count: u32) -> Completed<'_> {
        Completed {
            entries: self.completion.take(count),
            area: self.area,
            held: &mut self.held,
            invalid: &mut self.invalid,
        }
    }

    /// Buffers that the kernel has: sent and not completed.
    pub fn held(&self) -> u32 {
        self.held
    }

    /// Frames in the TX ring that the kernel has not taken.
    pub fn unsent(&self) -> u32 {
        self.tx.pending()
    }

    /// Completions dropped because their address was not in the area.
    pub fn invalid(&self) -> u64 {
        self.invalid
    }

    /// Whether [`TxQueue::kick`] is needed for the kernel to see what was sent. In copy mode it
    /// always is.
    #[inline]
    pub fn needs_wakeup(&self) -> bool {
        self.tx.needs_wakeup()
    }

    /// Makes the kernel send, handing buffers completed on the way to `free`. At most
    /// `ring size / 32 + 1` system calls: the kernel answers EAGAIN after each batch of its
    /// budget, but also for ever while the completion ring is full, so that is drained before
    /// each.
    pub fn kick(&mut self, mut free: impl FnMut(u32)) -> TxKick {
        for _ in 0..=self.tx.size() / DEFAULT_TX_BUDGET {
            self.completed(u32::MAX).for_each(&mut free);
            match self.port.send() {
                // A batch also ends, without an error, at a descriptor the kernel finds invalid.
                Ok(()) if self.zero_copy || self.tx.pending() == 0 => return TxKick::Done,
                Ok(()) | Err(Errno::AGAIN | Errno::INTR) => {}
                Err(Errno::BUSY) => return TxKick::Busy,
                Err(Errno::NOBUFS | Errno::NOMEM) => return TxKick::NoBuffers,
                Err(Errno::NETDOWN) => return TxKick::LinkDown,
                Err(Errno::NXIO | Errno::NODEV) => return TxKick::Gone,
                Err(other) => return TxKick::Failed(other),
            }
        }
        TxKick::Unfinished
    }

    /// The area the socket was opened with.
    pub fn area(&self) -> &Area {
        &self.area
    }
}

impl AsFd for TxQueue {
    /// The socket, the same as the receiving half's.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.port.fd()
    }
}

/// Room in the fill ring.
pub struct FillSlots<'q> {
    slots: Reservation<'q, u64>,
    area: Area,
    held: &'q mut u32,
}

impl FillSlots<'_> {
    /// Buffers that can still be pushed.
    pub fn room(&self) -> u32 {
        self.slots.room()
    }

    /// Gives an empty buffer to the kernel. False when there is no room, or the buffer is not in
    /// the socket's area: then it stays the caller's.
    #[inline]
    #[must_use]
    pub fn push(&mut self, buffer: u32) -> bool {
        let pushed = self.area.fill_address(buffer).is_some_and(|address| self.slots.push(address));
        *self.held += u32::from(pushed);
        pushed
    }
}

/// Room in the TX ring.
pub struct TxSlots<'q> {
    slots: Reservation<'q, Descriptor>,
    area: Area,
    held: &'q mut u32,
}

impl TxSlots<'_> {
    /// Frames that can still be pushed.
    pub fn room(&self) -> u32 {
        self.slots.room()
    }

    /// Gives a frame to the kernel. False when there is no room, or the frame is not in one chunk
    /// of the socket's area ([`Area::tx_descriptor`]): then its buffer stays the caller's.
    #[inline]
    #[must_use]
    pub fn push(&mut self, frame: &TxFrame) -> bool {
        let pushed = self.area.tx_descriptor(frame).is_some_and(|descriptor| self.slots.push(descriptor));
        *self.held += u32::from(pushed);
        pushed
    }
}

/// Iterates over received frames.
pub struct Received<'q> {
    entries: Taken<'q, Descriptor>,
    area: Area,
    held: &'q mut u32,
    invalid: &'q mut u64,
}

impl Iterator for Received<'_> {
    type Item = RxFrame;

    #[inline]
    fn next(&mut self) -> Option<RxFrame> {
        loop {
            let descriptor = self.entries.next()?;
            match self.area.rx_frame(descriptor) {
                Some(frame) => {
                    *self.held = self.held.saturating_sub(1);
                    return Some(frame);
                }
                None => *self.invalid += 1,
            }
        }
    }
}

/// Iterates over the buffers of frames that were sent.
pub struct Completed<'q> {
    entries: Taken<'q, u64>,
    area: Area,
    held: &'q mut u32,
    invalid: &'q mut u64,
}

impl Iterator for Completed<'_> {
    type Item = u32;

    #[inline]
    fn next(&mut self) -> Option<u32> {
        loop {
            let address = self.entries.next()?;
            match self.area.completed(address) {
                Some(buffer) => {
                    *self.held = self.held.saturating_sub(1);
                    return Some(buffer);
                }
                None => *self.invalid += 1,
            }
        }
    }
}

#[cfg(test)]
#[path = "queue_tests.rs"]
mod tests;
