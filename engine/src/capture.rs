//! Capture of packets where devices receive and send them, and where they are dropped: VPP's `pcap trace`.
//!
//! While nothing is captured it costs a relaxed load per frame. While something is, workers take a lock for each frame: it is a tool for
//! looking, not for recording at line rate. What is kept is bounded in packets and bytes.

use crate::SwIfIndex;
use crate::buffer::{DATA_START, Memory};
use crate::frame::Packet;
use std::fmt;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Bytes that a capture keeps at most.
pub const MAX_CAPTURE_BYTES: usize = 256 << 20;

/// Where packets are captured; bits.
pub mod points {
    /// As devices receive them.
    pub const RX: u8 = 1;
    /// As devices are to send them.
    pub const TX: u8 = 2;
    /// As they are dropped by nodes: from where data was received on, headers that nodes had behind them included.
    pub const DROP: u8 = 4;
}

/// Says whether a packet is wanted, by its bytes.
pub type Filter = Box<dyn Fn(&[u8]) -> bool + Send>;

/// What to capture.
pub struct CaptureSetup {
    /// See [`points`].
    pub points: u8,
    /// Received on, or sent on, this interface only.
    pub interface: Option<SwIfIndex>,
    /// Only what this wants.
    pub filter: Option<Filter>,
    /// Packets to keep.
    pub max: usize,
    /// Bytes of each packet to keep.
    pub snaplen: usize,
}

impl fmt::Debug for CaptureSetup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CaptureSetup")
            .field("points", &self.points)
            .field("max", &self.max)
            .finish_non_exhaustive()
    }
}

/// A captured packet.
#[derive(Clone, Debug)]
pub struct Captured {
    /// When, since 1970.
    pub time: Duration,
    /// Its bytes, at most as many as wanted.
    pub bytes: Box<[u8]>,
    /// Bytes that it had.
    pub len: u16,
}

struct Running {
    setup: CaptureSetup,
    packets: Vec<Captured>,
    bytes: usize,
}

/// The capture of an engine; one at a time.
#[derive(Default)]
pub struct Capture {
    points: AtomicU8,
    running: Mutex<Option<Running>>,
}

impl fmt::Debug for Capture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Capture").field("points", &self.points).finish_non_exhaustive()
    }
}

impl Capture {
    fn running(&self) -> MutexGuard<'_, Option<Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins; what was captured before is gone.
    pub fn start(&self, setup: CaptureSetup) {
        let points = setup.points;
        *self.running() = Some(Running { setup, packets: Vec::new(), bytes: 0 });
        self.points.store(points, Ordering::Relaxed);
    }

    /// Ends; what was captured, or `None` if nothing was to be.
    pub fn stop(&self) -> Option<Vec<Captured>> {
        self.points.store(0, Ordering::Relaxed);
        self.running().take().map(|running| running.packets)
    }

    /// Where it captures now, and how many packets it has.
    pub fn status(&self) -> Option<(u8, usize)> {
        self.running().as_ref().map(|running| (running.setup.points, running.packets.len()))
    }

    /// Whether anything is captured at `point`.
    #[inline(always)]
    pub(crate) fn wants(&self, point: u8) -> bool {
        self.points.load(Ordering::Relaxed) & point != 0
    }

    /// Captures those of `packets` that are wanted. `interface` is where they are sent; `None` takes where each was received.
    #[cold]
    pub(crate) fn take(&self, point: u8, packets: &[Packet], memory: Memory, interface: Option<SwIfIndex>) {
        let mut guard = self.running();
        let Some(running) = &mut *guard else { return };
        let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        for packet in packets {
            if running.packets.len() >= running.setup.max || running.bytes >= MAX_CAPTURE_BYTES {
                // Full: the workers need not look any more.
                self.points.store(0, Ordering::Relaxed);
                return;
            }
            let of = interface.unwrap_or(packet.rx);
            if running.setup.interface.is_some_and(|wanted| wanted != of) {
                continue;
            }
            let start = if point == points::DROP { packet.start.min(DATA_START) } else { packet.start };
            let len = packet.len + (packet.start - start);
            // SAFETY: `start + len` is the end of the packet, which lies inside its buffer (invariant of `Packet`), and `start` is not before the
            // buffer's headroom. The packet is owned by the frame that the caller looks at.
            let bytes = unsafe {
                let at = memory.at(packet.buffer.0, start);
                std::slice::from_raw_parts(at, usize::from(len))
            };
            if running.setup.filter.as_ref().is_some_and(|filter| !filter(bytes)) {
                continue;
            }
            let bytes: Box<[u8]> = bytes[..bytes.len().min(running.setup.snaplen)].into();
            running.bytes += bytes.len();
            running.packets.push(Captured { time, bytes, len });
        }
    }
}
