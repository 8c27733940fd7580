//! Transmit to a pg interface: packets are counted, and copied for a capture if there is one.

use super::capture::Tap;
use super::interface::PgCounters;
use std::sync::Arc;
use wharf_engine::Packet;
use wharf_engine::device::{DeviceOutput, TxBurst};
use wharf_engine::ring::Consumer;

/// The transmit queue of a pg interface.
#[derive(Debug)]
pub struct PgOutput {
    counters: Arc<PgCounters>,
    taps: Consumer<Tap>,
    tap: Option<Tap>,
}

impl PgOutput {
    pub(super) fn new(counters: Arc<PgCounters>, taps: Consumer<Tap>) -> PgOutput {
        PgOutput { counters, taps, tap: None }
    }
}

impl DeviceOutput for PgOutput {
    fn keeps_buffers(&self) -> bool {
        false
    }

    fn transmit(&mut self, tx: &mut TxBurst<'_>, packets: &[Packet]) -> usize {
        if let Some(tap) = self.taps.pop() {
            self.tap = Some(tap);
        }
        let bytes = packets.iter().map(|p| u64::from(p.len())).sum();
        self.counters.sent(packets.len() as u64, bytes);
        if let Some(tap) = &mut self.tap {
            let now = tx.now();
            let bytes = |packet: &Packet| {
                // SAFETY: `len` bytes from the packet's address lie in its buffer (invariant of `Packet`), and nobody
                // writes to it while the engine lends it to be transmitted.
                unsafe { std::slice::from_raw_parts(tx.address(packet), packet.len().into()) }
            };
            if !tap.record(now, packets.iter().map(bytes)) {
                self.tap = None;
            }
        }
        packets.len()
    }

    fn flush(&mut self, _: &mut TxBurst<'_>) -> bool {
        false
    }
}
