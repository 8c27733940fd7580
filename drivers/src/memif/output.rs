//! Transmit to a memif ring: one copy each, one interrupt per turn of the worker if the peer sleeps.

use crate::af_xdp::offload;
use memif::{Counters, Mode, TxQueue, TxSource};
use wharf_engine::buffer::Memory;
use wharf_engine::device::{DeviceOutput, TxBurst};
use wharf_engine::{Packet, flags, prefetch};

/// Packets between a prefetch and its use.
const AHEAD: usize = 4;
const ETHERNET_HEADER: usize = 14;
const ETHERTYPE_IP4: [u8; 2] = [0x08, 0x00];
const ETHERTYPE_IP6: [u8; 2] = [0x86, 0xdd];

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
        if let Some(later) = self.packets.get(packet + AHEAD) {
            prefetch(later.address(self.memory));
        }
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
        let len = usize::from(packet.len());
        let start = tx.address(packet);
        if mode == Mode::Ethernet {
            // SAFETY: the packet's bytes are in its buffer, and the sender's to write; no other reference exists.
            finish(unsafe { std::slice::from_raw_parts_mut(start, len) });
        } else if len != 0 {
            // SAFETY: at least the buffer's cold header of 64 bytes lies before a packet, and it belongs to the
            // packet's owner as the packet does; no other reference exists.
            let frame = unsafe {
                let start = start.sub(ETHERNET_HEADER);
                std::slice::from_raw_parts_mut(start, ETHERNET_HEADER + len)
            };
            finish_ip(frame);
        }
    }
}

fn finish(frame: &mut [u8]) {
    if let Some(partial) = offload::find_partial(frame) {
        // It was found inside the frame.
        let _ = offload::finish(frame, partial);
    }
}

/// As [`finish`] for a bare IP packet behind 14 bytes that may hold anything, and are left as they were.
fn finish_ip(frame: &mut [u8]) {
    let ethertype = match frame.get(ETHERNET_HEADER) {
        Some(first) if first >> 4 == 6 => ETHERTYPE_IP6,
        _ => ETHERTYPE_IP4,
    };
    let Some(field) = frame.get_mut(ETHERNET_HEADER - 2..ETHERNET_HEADER) else { return };
    let before = [field[0], field[1]];
    field.copy_from_slice(&ethertype);
    finish(frame);
    if let Some(field) = frame.get_mut(ETHERNET_HEADER - 2..ETHERNET_HEADER) {
        field.copy_from_slice(&before);
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

#[cfg(test)]
mod tests {
    use super::*;

    /// UDP over IPv4 with the checksum field left as the pseudo-header's sum.
    fn partial() -> Vec<u8> {
        let mut p = vec![0x45, 0, 0, 32, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
        p.extend([0x04, 0xd2, 0x09, 0x29, 0, 12, 0, 0, 1, 2, 3, 4]);
        let pseudo: u32 = 0x0a00 + 1 + 0x0a00 + 2 + 17 + 12;
        p[26..28].copy_from_slice(&(pseudo as u16).to_be_bytes());
        p
    }

    #[test]
    fn a_bare_ip_packet_is_finished_and_what_lies_before_it_stays() {
        let mut frame = [&[0xab; ETHERNET_HEADER][..], &partial()].concat();
        finish_ip(&mut frame);
        assert_eq!(frame[..ETHERNET_HEADER], [0xab; ETHERNET_HEADER]);
        let sum = 0x0a00 + 1 + 0x0a00 + 2 + 17 + 12 + 0x04d2 + 0x0929 + 12 + 0x0102 + 0x0304u32;
        let expected = !((sum & 0xffff) + (sum >> 16)) as u16;
        assert_eq!(frame[ETHERNET_HEADER + 26..ETHERNET_HEADER + 28], expected.to_be_bytes());
        let done = frame.clone();
        finish_ip(&mut frame);
        assert_eq!(frame, done, "a complete checksum is left alone");
        finish_ip(&mut []);
        finish_ip(&mut [0; ETHERNET_HEADER + 1]);
    }
}
