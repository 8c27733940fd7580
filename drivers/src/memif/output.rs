//! Transmit to a memif ring: one copy each, one interrupt per turn of the worker if the peer sleeps.

use memif::{Counters, Mode, TxQueue, TxSource};
use wharf_engine::buffer::Memory;
use wharf_engine::device::{DeviceOutput, TxBurst};
use wharf_engine::{Packet, flags, offload};

/// A transmit ring of a memif connection.
#[derive(Debug)]
pub struct MemifOutput {
    queue: TxQueue,
    mode: Mode,
    /// The queue's counters as the interface has them.
    seen: Counters,
}

impl MemifOutput {
    /// The device of `queue`, whose packets start as `mode` says.
    pub fn new(queue: TxQueue, mode: Mode) -> MemifOutput {
        let seen = queue.counters();
        MemifOutput { queue, mode, seen }
    }
}

struct Source<'a> {
    memory: Memory,
    packets: &'a [Packet],
}

impl TxSource for Source<'_> {
    #[inline(always)]
    fn packets(&self) -> usize {
        self.packets.len()
    }

    #[inline(always)]
    fn segment(&self, packet: usize, _: usize) -> &[u8] {
        let Some(packet) = self.packets.get(packet) else { return &[] };
        // SAFETY: `len` bytes from the packet's address lie in its buffer (invariant of `Packet`), and nobody writes
        // to it while the engine lends it to be transmitted.
        unsafe { std::slice::from_raw_parts(packet.address(self.memory), packet.len().into()) }
    }
}

/// Completes the L4 checksums that a kernel left to its device: memif has no word for them.
#[cold]
fn finish_checksums(tx: &TxBurst<'_>, packets: &[Packet], mode: Mode) {
    for packet in packets.iter().filter(|p| p.flags() & flags::L4_CSUM_PARTIAL != 0) {
        let (start, len) = (tx.address(packet), usize::from(packet.len()));
        // SAFETY: the packet's bytes are in its buffer, and the sender's to write; no other reference exists.
        let bytes = unsafe { std::slice::from_raw_parts_mut(start, len) };
        // A packet without such a checksum is sent as it is.
        let _ = match mode {
            Mode::Ethernet => offload::complete(bytes),
            _ => offload::complete_ip(bytes),
        };
    }
}

impl DeviceOutput for MemifOutput {
    fn keeps_buffers(&self) -> bool {
        false
    }

    fn transmit(&mut self, tx: &mut TxBurst<'_>, packets: &[Packet]) -> usize {
        if tx.flags() & flags::L4_CSUM_PARTIAL != 0 {
            finish_checksums(tx, packets, self.mode);
        }
        let done = self.queue.transmit(&Source { memory: tx.memory(), packets });
        let now = self.queue.counters();
        let lost = (now.bad_descriptor.wrapping_sub(self.seen.bad_descriptor))
            .wrapping_add(now.bad_length.wrapping_sub(self.seen.bad_length));
        self.seen = now;
        if lost != 0 {
            tx.count_error(lost);
        }
        done
    }

    fn flush(&mut self, _: &mut TxBurst<'_>) -> bool {
        self.queue.kick();
        false
    }
}
