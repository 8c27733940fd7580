//! What a driver gives to the engine: receive queues and transmit queues, each run by one worker at a time.

use crate::buffer::{BufferCache, BufferIndex, DATA_START, Lent, Memory, Owner};
use crate::frame::{FRAME_SIZE, Frame, Packet, flags};
use crate::node::WorkerState;
use crate::{NodeIndex, SwIfIndex};
use std::fmt;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

/// When a receive queue is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum RxMode {
    /// Always: its worker never sleeps.
    Polling,
    /// When its file descriptor says so.
    Interrupt,
    /// Polled while there is work, woken by its descriptor after that.
    #[default]
    Adaptive,
}

impl fmt::Display for RxMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            RxMode::Polling => "polling",
            RxMode::Interrupt => "interrupt",
            RxMode::Adaptive => "adaptive",
        })
    }
}

/// A receive queue.
pub trait DeviceInput: Send {
    /// Name of its node as VPP has it: `memif-input`. One of the names that the graph was built with.
    fn node(&self) -> &'static str;

    /// Moves what has arrived, at most a frame of it, into `rx`. Returns whether there is (or may be) more.
    fn poll(&mut self, rx: &mut RxBurst<'_>) -> bool;

    /// What to sleep on, if the queue can wake anybody.
    fn fd(&self) -> Option<BorrowedFd<'_>>;

    /// Asks for a wake-up. Returns false if work is there already, so that nobody sleeps over it.
    fn arm(&mut self) -> bool;

    /// Wake-ups are not needed: it is being polled.
    fn disarm(&mut self) {}

    /// Nanoseconds from `now` until the queue wants to be polled without a wake-up: a generator with a rate.
    fn due(&self, _now: u64) -> Option<u64> {
        None
    }

    /// Takes back what the queue still holds, before it is dropped on another thread. `free` gives to the worker's cache.
    fn close(&mut self, _cache: &mut BufferCache) {}
}

/// A transmit queue.
pub trait DeviceOutput: Send {
    /// Whether [`DeviceOutput::transmit`] takes the packets' buffers over. If not, it copies, and the engine frees them.
    fn keeps_buffers(&self) -> bool;

    /// Sends the first packets of `packets`; returns how many. What does not fit is dropped by the engine as
    /// `no free tx slots`. May be called several times before [`DeviceOutput::flush`].
    fn transmit(&mut self, tx: &mut TxBurst<'_>, packets: &[Packet]) -> usize;

    /// End of the worker's turn: tell the peer or the kernel, take completed buffers back. Returns true if it wants
    /// to be called again soon although nothing is sent, since buffers are out.
    fn flush(&mut self, tx: &mut TxBurst<'_>) -> bool;

    /// Takes back what the queue still holds, before it is dropped on another thread.
    fn close(&mut self, _cache: &mut BufferCache) {}
}

/// What a receive queue fills: one frame.
pub struct RxBurst<'a> {
    pub(crate) frame: &'a mut Frame,
    pub(crate) cache: &'a mut BufferCache,
    pub(crate) state: &'a WorkerState,
    pub(crate) interface: SwIfIndex,
    pub(crate) bytes: u64,
}

impl fmt::Debug for RxBurst<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RxBurst")
            .field("interface", &self.interface)
            .field("frame", &self.frame)
            .finish_non_exhaustive()
    }
}

impl RxBurst<'_> {
    /// Packets that may still be added.
    #[inline(always)]
    pub fn room(&self) -> usize {
        self.frame.room()
    }

    /// The interface that receives.
    pub fn interface(&self) -> SwIfIndex {
        self.interface
    }

    /// Nanoseconds of the worker's clock.
    pub fn now(&self) -> u64 {
        self.state.now
    }

    /// The worker's free buffers.
    pub fn cache(&mut self) -> &mut BufferCache {
        self.cache
    }

    /// Adds a packet whose buffer the queue owned.
    #[inline(always)]
    pub fn push(&mut self, buffer: BufferIndex, start: u16, len: u16, packet_flags: u16) {
        self.bytes += u64::from(len);
        let mut packet = Packet::new(self.cache.pool().memory(), buffer, start, len, self.interface);
        packet.flags = packet_flags & !flags::TRACED;
        if let Err(packet) = self.frame.push(packet) {
            debug_assert!(false, "more packets than room()");
            self.cache.free(packet.buffer);
        }
    }

    /// Prepares up to `want` fresh buffers to copy into; fewer when the pool is short.
    #[inline(always)]
    pub fn fresh(&mut self, want: usize) -> FreshBuffers<'_> {
        let count = self.cache.stock(want.min(self.frame.room()));
        let memory = self.cache.pool().memory();
        FreshBuffers {
            free: self.cache.lend(count),
            at: self.frame.len(),
            frame: self.frame,
            memory,
            interface: self.interface,
            used: 0,
            bytes: &mut self.bytes,
        }
    }

    /// Counts packets that the device refused.
    pub fn count_error(&self, packets: u64) {
        self.state.counters.rx_error.add(self.state.worker, self.interface.0, packets, 0);
    }

    /// Counts packets that were lost for want of a buffer.
    pub fn count_no_buffer(&self, packets: u64) {
        self.state.counters.rx_no_buf.add(self.state.worker, self.interface.0, packets, 0);
    }

    /// Counts packets that the device lost before they could be received.
    pub fn count_miss(&self, packets: u64) {
        self.state.counters.rx_miss.add(self.state.worker, self.interface.0, packets, 0);
    }

    /// Records that a buffer goes from the graph to the interface's rings or back; for the checked build.
    #[inline(always)]
    pub fn change_owner(&self, buffer: &BufferIndex, to_device: bool) {
        change_owner(self.cache, self.interface, buffer, to_device);
    }
}

#[inline(always)]
fn change_owner(cache: &BufferCache, interface: SwIfIndex, buffer: &BufferIndex, to_device: bool) {
    let device = Owner::device(interface);
    let (from, to) = if to_device { (Owner::GRAPH, device) } else { (device, Owner::GRAPH) };
    cache.pool().change_owner(buffer.0, from, to);
}

/// Free buffers that become packets one by one, in order, as they are filled. What is not used stays in the cache.
pub struct FreshBuffers<'a> {
    free: Lent<'a>,
    frame: &'a mut Frame,
    /// Length of the frame before.
    at: usize,
    memory: Memory,
    interface: SwIfIndex,
    used: usize,
    bytes: &'a mut u64,
}

impl fmt::Debug for FreshBuffers<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FreshBuffers")
            .field("count", &self.free.len())
            .field("used", &self.used)
            .finish_non_exhaustive()
    }
}

impl FreshBuffers<'_> {
    /// Bytes that each of them holds.
    #[inline(always)]
    pub fn data_size(&self) -> usize {
        self.memory.data_size()
    }

    /// Buffers that are left.
    #[inline(always)]
    pub fn left(&self) -> usize {
        self.free.len() - self.used
    }

    /// Where the data of the `k`-th next buffer goes: [`Memory::data_size`] bytes, 64-byte aligned. `None` when
    /// there are fewer.
    #[inline(always)]
    pub fn slot(&self, k: usize) -> Option<*mut u8> {
        let index = self.free.get(self.used + k)?;
        Some(self.memory.at(index, DATA_START))
    }

    /// Fills the next `n` buffers, or as many as are left: `fill` gets the number of a packet and where it goes, as
    /// [`FreshBuffers::slot`] has it, and returns its length. Returns how many packets and bytes it was.
    #[inline(always)]
    pub fn fill(&mut self, n: usize, mut fill: impl FnMut(usize, *mut u8) -> u16) -> (usize, u64) {
        let n = n.min(self.left());
        let (free, memory, interface) = (self.free.rest(self.used), self.memory, self.interface);
        // SAFETY: `RxBurst::fresh` lends no more than the frame has room for behind `at`.
        let packets = unsafe { self.frame.as_mut_ptr().add(self.at + self.used) };
        let data_size = memory.data_size() as u16;
        let mut bytes = 0;
        let next = free.get(free.len() - n..).unwrap_or_default();
        for (k, &index) in next.iter().rev().enumerate() {
            let to = memory.at(index, DATA_START);
            let packet = Packet::fresh(BufferIndex(index), data_size, fill(k, to), interface);
            bytes += u64::from(packet.len);
            // SAFETY: k < n <= left.
            unsafe { packets.add(k).write(packet) };
        }
        self.used += n;
        *self.bytes += bytes;
        (n, bytes)
    }

    /// The next buffer holds a packet of `len` bytes.
    #[inline(always)]
    pub fn commit(&mut self, len: u16) {
        if let Some(index) = self.free.get(self.used) {
            let packet = Packet::new(self.memory, BufferIndex(index), DATA_START, len, self.interface);
            *self.bytes += u64::from(packet.len);
            // SAFETY: `RxBurst::fresh` lends no more than the frame has room for behind `at`.
            unsafe { self.frame.as_mut_ptr().add(self.at + self.used).write(packet) };
            self.used += 1;
        }
    }
}

impl Drop for FreshBuffers<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        self.free.keep_from(self.used);
        // SAFETY: `commit` initialised the packets up to there.
        unsafe { self.frame.set_len(self.at + self.used) };
    }
}

/// What a transmit queue works with.
pub struct TxBurst<'a> {
    pub(crate) cache: &'a mut BufferCache,
    pub(crate) state: &'a WorkerState,
    pub(crate) interface: SwIfIndex,
    pub(crate) flags: u16,
}

impl fmt::Debug for TxBurst<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TxBurst").field("interface", &self.interface).finish_non_exhaustive()
    }
}

impl TxBurst<'_> {
    /// Bits of [`flags`] that any of the packets to transmit has.
    #[inline(always)]
    pub fn flags(&self) -> u16 {
        self.flags
    }

    /// The interface that sends.
    pub fn interface(&self) -> SwIfIndex {
        self.interface
    }

    /// Nanoseconds of the worker's clock.
    pub fn now(&self) -> u64 {
        self.state.now
    }

    /// Address of a packet's first byte; [`Packet::len`] bytes may be read and, since a sent packet is the
    /// queue's, written; [`crate::buffer::HEADROOM`] and the cold header lie before it.
    #[inline(always)]
    pub fn address(&self, packet: &Packet) -> *mut u8 {
        packet.address(self.memory())
    }

    /// Where the buffers lie.
    #[inline(always)]
    pub fn memory(&self) -> Memory {
        self.cache.pool().memory()
    }

    /// Takes the buffer of a packet that is being sent over; only for a queue that keeps buffers, once per sent packet.
    #[inline(always)]
    pub fn keep(&self, packet: &Packet) -> BufferIndex {
        let buffer = BufferIndex(packet.buffer.0);
        change_owner(self.cache, self.interface, &buffer, true);
        buffer
    }

    /// Gives a kept buffer back once it is sent.
    #[inline(always)]
    pub fn complete(&mut self, buffer: BufferIndex) {
        change_owner(self.cache, self.interface, &buffer, false);
        self.cache.free(buffer);
    }

    /// Frees the buffer of a packet that a queue which keeps buffers has dealt with and does not keep; once per packet.
    #[inline]
    pub fn release(&mut self, packet: &Packet) {
        self.cache.free(BufferIndex(packet.buffer.0));
    }

    /// Counts packets that the device took and could not send.
    pub fn count_error(&self, packets: u64) {
        self.state.counters.tx_error.add(self.state.worker, self.interface.0, packets, 0);
    }

    /// Copies a packet that lies where the device cannot reach it into a buffer that satisfies `reachable`. `None`
    /// when there is no such buffer.
    pub fn copy_to_reachable(&mut self, packet: &Packet, reachable: impl Fn(u32) -> bool) -> Option<Packet> {
        let buffer = self.cache.alloc_where(reachable)?;
        let copy = Packet::new(self.memory(), buffer, packet.start, packet.len, packet.rx);
        // SAFETY: both ranges lie in their buffers (invariant of `Packet`), which are different.
        unsafe {
            std::ptr::copy_nonoverlapping(self.address(packet), self.address(&copy), usize::from(packet.len));
        }
        Some(Packet { flags: packet.flags, ..copy })
    }
}

/// How a worker finds the transmit queue of an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum TxPath {
    /// The interface has none: packets are dropped.
    #[default]
    None,
    /// Each worker has a queue of its own, or this is the one that has it.
    Here,
    /// The queue is another worker's: packets are handed off.
    Worker(u16),
    /// What is sent comes back: a loopback.
    Loop {
        /// Whether that counts as received.
        received: bool,
    },
    /// A node takes the place of a device: a sub-interface, a tunnel. It is handed the interface as metadata.
    Node(NodeIndex),
}

/// What the engine knows of an interface.
#[derive(Clone, Debug, Default)]
pub struct Interface {
    /// Its name; also names its transmit node, `<name>-tx`.
    pub name: Arc<str>,
    /// Whether it is administratively up: received packets of one that is down are dropped.
    pub up: bool,
    /// The node that received packets go to.
    pub input: Option<NodeIndex>,
    /// The way to its transmit queue, per worker.
    pub tx: Vec<TxPath>,
}

/// The interfaces as the engine sees them, by `sw_if_index`. Published by the control plane.
#[derive(Clone, Debug, Default)]
pub struct Interfaces {
    /// `None` where the index is free.
    pub list: Vec<Option<Interface>>,
}

impl Interfaces {
    /// One interface.
    #[inline(always)]
    pub fn get(&self, index: SwIfIndex) -> Option<&Interface> {
        self.list.get(index.index()).and_then(Option::as_ref)
    }
}

const _: () = assert!(FRAME_SIZE <= 256);
