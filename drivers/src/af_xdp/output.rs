//! A transmit queue of a Linux interface. Packets leave from the buffers that they are in.

use super::health::TxHealth;
use super::lent::Lent;
use super::{TX_METADATA_BYTES, TxFrame, TxKick, TxMetadata, TxQueue};
use std::sync::Arc;
use wharf_engine::Packet;
use wharf_engine::buffer::BufferIndex;
use wharf_engine::device::{DeviceOutput, TxBurst};
use wharf_engine::{flags, offload};

/// Completions taken in one go.
const COMPLETIONS: u32 = 1024;

/// What the kernel said when it was last woken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Device {
    /// It sends.
    Up,
    /// The interface is down. What is in the ring stays, and goes out when it comes up: add nothing to that.
    Down,
    /// Deleted: nothing is ever completed again.
    Gone,
}

/// A transmit queue.
pub struct XdpOutput {
    pub(super) queue: TxQueue,
    pub(super) lent: Arc<Lent>,
    /// Whether the kernel completes checksums.
    pub(super) checksum: bool,
    device: Device,
    health: Arc<TxHealth>,
    /// Completions of this turn.
    completed: u32,
    /// Buffers that came back while the kernel was woken; empty between calls.
    done: Vec<BufferIndex>,
}

impl std::fmt::Debug for XdpOutput {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("XdpOutput").field("checksum", &self.checksum).finish_non_exhaustive()
    }
}

/// Sees to a checksum that was left to the device; returns whether the kernel is to do it, by metadata before the frame.
fn complete_checksum(tx: &TxBurst<'_>, packet: &Packet, by_kernel: bool) -> bool {
    let (at, len) = (tx.address(packet), usize::from(packet.len()));
    // SAFETY: a packet that is being sent is the queue's to read and write.
    let frame = unsafe { std::slice::from_raw_parts_mut(at, len) };
    let Some(partial) = offload::find_partial(frame) else { return false };
    if by_kernel && usize::from(packet.start()) >= wharf_engine::buffer::COLD + TX_METADATA_BYTES {
        // SAFETY: these bytes are headroom of the packet's buffer (checked above), and nobody else's.
        let headroom =
            unsafe { std::slice::from_raw_parts_mut(at.wrapping_sub(TX_METADATA_BYTES), TX_METADATA_BYTES) };
        if (TxMetadata { checksum: partial }).write(headroom, len) {
            return true;
        }
    }
    // A partial checksum that was just found is one that can be finished.
    let finished = offload::finish(frame, partial);
    debug_assert!(finished);
    false
}

impl XdpOutput {
    pub(super) fn new(queue: TxQueue, lent: Arc<Lent>, checksum: bool) -> XdpOutput {
        let health = Arc::default();
        XdpOutput { queue, lent, checksum, device: Device::Up, health, completed: 0, done: Vec::new() }
    }

    /// What main looks at to see whether the queue moves.
    pub(super) fn health(&self) -> &Arc<TxHealth> {
        &self.health
    }

    fn complete(&mut self, tx: &mut TxBurst<'_>) {
        let lent = &self.lent;
        for buffer in self.queue.completed(COMPLETIONS) {
            if let Some(buffer) = lent.take(buffer) {
                self.completed += 1;
                tx.complete(buffer);
            }
        }
    }
}

impl DeviceOutput for XdpOutput {
    fn keeps_buffers(&self) -> bool {
        true
    }

    fn transmit(&mut self, tx: &mut TxBurst<'_>, packets: &[Packet]) -> usize {
        self.complete(tx);
        if self.device != Device::Up {
            return 0;
        }
        let reachable = self.queue.area().buffers();
        let by_kernel = self.checksum;
        let mut slots = self.queue.send(packets.len() as u32);
        let mut sent = 0;
        for packet in packets {
            if slots.room() == 0 {
                break;
            }
            // A buffer that the pool got after the socket was opened is out of the kernel's reach.
            let copy = match packet.raw_buffer() < reachable {
                true => None,
                false => match tx.copy_to_reachable(packet, |index| index < reachable) {
                    None => break,
                    copy => copy,
                },
            };
            let outgoing = copy.as_ref().unwrap_or(packet);
            let metadata =
                outgoing.flags() & flags::L4_CSUM_PARTIAL != 0 && complete_checksum(tx, outgoing, by_kernel);
            let frame = TxFrame {
                buffer: outgoing.raw_buffer(),
                offset: outgoing.start(),
                len: outgoing.len(),
                continues: false,
                metadata,
            };
            if slots.push(&frame) {
                self.lent.give(tx.keep(outgoing));
            } else {
                // Too long for the ring's frames, or empty.
                tx.count_error(1);
                tx.release(outgoing);
            }
            if copy.is_some() {
                tx.release(packet);
            }
            sent += 1;
        }
        sent
    }

    fn flush(&mut self, tx: &mut TxBurst<'_>) -> bool {
        if self.device == Device::Down && self.queue.unsent() == 0 {
            // The kernel took them by itself.
            self.device = Device::Up;
        }
        if self.queue.unsent() != 0 && self.device != Device::Gone {
            let (lent, done) = (&self.lent, &mut self.done);
            let kick = self.queue.kick(|buffer| done.extend(lent.take(buffer)));
            self.completed += done.len() as u32;
            done.drain(..).for_each(|buffer| tx.complete(buffer));
            self.health.kicked(kick);
            self.device = match kick {
                TxKick::LinkDown => Device::Down,
                TxKick::Gone => Device::Gone,
                _ => Device::Up,
            };
            if kick == TxKick::Busy {
                // The frame that it was about is lost.
                tx.count_error(1);
            }
        }
        self.complete(tx);
        self.health.turn(self.queue.held(), std::mem::take(&mut self.completed));
        self.device != Device::Gone && self.queue.held() != 0
    }
}
