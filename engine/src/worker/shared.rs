//! What a worker and the rest of the process hand each other.

use crate::device::{DeviceInput, DeviceOutput, RxMode};
use crate::frame::Frame;
use crate::node::NodeCounters;
use crate::{NodeIndex, SwIfIndex};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};
use std::sync::mpsc::SyncSender;

/// A frame on its way to another worker.
pub(crate) struct Handoff {
    pub(crate) node: NodeIndex,
    pub(crate) frame: Box<Frame>,
}

/// Names and numbers of an interface's transmit node on one worker.
#[derive(Debug)]
pub struct DeviceNode {
    /// `<interface>-tx`.
    pub name: Arc<str>,
    /// Its numbers.
    pub counters: NodeCounters,
    /// Packets dropped for want of a slot.
    pub no_slots: AtomicU64,
}

pub(crate) struct InputSlot {
    pub(crate) id: u64,
    pub(crate) interface: SwIfIndex,
    pub(crate) kind: usize,
    pub(crate) name: Arc<str>,
    pub(crate) mode: RxMode,
    /// Polls in vain since the last packet, up to the most that fits.
    pub(crate) silent: u8,
    pub(crate) device: Box<dyn DeviceInput>,
}

pub(crate) struct OutputSlot {
    pub(crate) device: Box<dyn DeviceOutput>,
    pub(crate) node: Arc<DeviceNode>,
    pub(super) dirty: bool,
    pub(super) pending: bool,
}

impl OutputSlot {
    pub(crate) fn new(device: Box<dyn DeviceOutput>, node: Arc<DeviceNode>) -> OutputSlot {
        OutputSlot { device, node, dirty: false, pending: false }
    }
}

/// What main asks of a worker.
pub(crate) enum Command {
    AddInput(InputSlot),
    RemoveInput(u64, SyncSender<Option<Box<dyn DeviceInput>>>),
    SetMode(u64, RxMode),
    AddOutput(SwIfIndex, OutputSlot),
    RemoveOutput(SwIfIndex, SyncSender<Option<Box<dyn DeviceOutput>>>),
    Stop,
}

/// What others may see of a worker while it runs.
#[derive(Debug)]
pub struct WorkerShared {
    pub(crate) wake_fd: OwnedFd,
    pub(crate) sleeping: AtomicBool,
    pub(crate) stopped: AtomicBool,
    pub(crate) thread_id: AtomicU64,
    /// Turns of the loop.
    pub loops: AtomicU64,
    /// Times it went to sleep.
    pub sleeps: AtomicU64,
    /// Times it was woken by a receive queue's descriptor.
    pub fd_wakeups: AtomicU64,
    /// Nanoseconds spent asleep.
    pub slept_nanos: AtomicU64,
    /// Longest time between two turns without a sleep, in nanoseconds.
    pub max_gap_nanos: AtomicU64,
    /// Packets handed to another worker.
    pub handoffs: AtomicU64,
    /// Packets lost since the other worker's ring was full.
    pub handoff_drops: AtomicU64,
    /// Packets dropped by transmit queues.
    pub tx_drops: AtomicU64,
    /// Copies of packets that nodes made.
    pub copies: AtomicU64,
    /// Packets that nodes hold now.
    pub held: AtomicU64,
    /// Frames pending at the end of the last turn.
    pub pending: AtomicU64,
    /// Free buffers in the worker's cache.
    pub cached: AtomicU64,
}

impl WorkerShared {
    pub(crate) fn new() -> rustix::io::Result<WorkerShared> {
        use rustix::event::{EventfdFlags, eventfd};
        let zero = || AtomicU64::new(0);
        Ok(WorkerShared {
            wake_fd: eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?,
            sleeping: AtomicBool::new(false),
            stopped: AtomicBool::new(false),
            thread_id: zero(),
            loops: zero(),
            sleeps: zero(),
            fd_wakeups: zero(),
            slept_nanos: zero(),
            max_gap_nanos: zero(),
            handoffs: zero(),
            handoff_drops: zero(),
            tx_drops: zero(),
            copies: zero(),
            held: zero(),
            pending: zero(),
            cached: zero(),
        })
    }

    /// Wakes the worker if it sleeps. Call it after the work is where the worker will look.
    #[inline]
    pub(crate) fn wake(&self) {
        fence(Ordering::SeqCst);
        if self.sleeping.load(Ordering::Relaxed) {
            self.wake_now();
        }
    }

    pub(crate) fn wake_now(&self) {
        // A full counter is a wake-up too, so an error means nothing.
        let _ = rustix::io::write(&self.wake_fd, &1u64.to_ne_bytes());
    }

    /// Whether it is asleep now.
    pub fn is_sleeping(&self) -> bool {
        self.sleeping.load(Ordering::Relaxed)
    }
}
