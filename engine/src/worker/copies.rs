//! Copies of packets, for nodes that replicate: flooding, mirroring.
//!
//! A copy is a buffer of its own out of the worker's cache, made while the node looks at the packet. It goes on when the node has
//! done its frame. Nodes that make none pay one comparison a frame.

use super::Worker;
use crate::NodeIndex;
use crate::buffer::BufferCache;
use crate::counter::add;
use crate::dispatch::code;
use crate::frame::{Packet, PacketRef, flags, trace_slot};
use crate::node::{Cx, NextNodes, Node};
use std::cell::RefCell;

/// Copies that a node makes of one frame at most: a storm into many ports may not take the whole pool.
pub const MAX_COPIES: usize = 4096;

/// What [`Cx::copy`] works with: an object, so that its lifetimes stay out of the types of nodes' contexts.
pub(crate) trait Copying {
    /// The packet again, in a buffer of its own.
    fn copy(&self, p: &PacketRef<'_>) -> Option<Packet>;
    /// The copy goes where `code` says, once the frame is done.
    fn send(&self, code: u16, copy: Packet);
}

impl std::fmt::Debug for dyn Copying + '_ {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Copying")
    }
}

pub(crate) struct Copier<'a> {
    cache: &'a mut BufferCache,
    made: &'a mut Vec<(u16, Packet)>,
}

impl<'a> Copier<'a> {
    #[inline(always)]
    pub(super) fn new(cache: &'a mut BufferCache, made: &'a mut Vec<(u16, Packet)>) -> RefCell<Copier<'a>> {
        RefCell::new(Copier { cache, made })
    }
}

impl Copying for RefCell<Copier<'_>> {
    /// At the same place in the buffer: a copy has the headroom of its original.
    fn copy(&self, p: &PacketRef<'_>) -> Option<Packet> {
        let mut copier = self.borrow_mut();
        if copier.made.len() >= MAX_COPIES {
            return None;
        }
        let original = &*p.packet;
        let copy = Packet {
            buffer: copier.cache.alloc()?,
            start: original.start,
            len: original.len,
            rx: original.rx,
            flags: original.flags,
            feature: original.feature,
            meta: original.meta,
        };
        // SAFETY: `start + len` is inside each buffer (invariant of `Packet`), and the buffers are different: the new one was free.
        unsafe {
            let (from, to) = (original.address(p.memory), copy.address(p.memory));
            std::ptr::copy_nonoverlapping(from, to, usize::from(original.len));
        }
        if copy.flags & flags::TRACED != 0 {
            // SAFETY: each packet owns its buffer, and so its cold header.
            unsafe { trace_slot(p.memory, &copy).write(trace_slot(p.memory, original).read()) };
        }
        Some(copy)
    }

    fn send(&self, code: u16, copy: Packet) {
        self.borrow_mut().made.push((code, copy));
    }
}

impl<N: Node> Cx<'_, N> {
    /// Makes a copy of the packet as it is now, metadata and trace included, and hands it to where `next` says. `next` may change the
    /// copy. False when there is no copy, since the pool is empty or this frame had [`MAX_COPIES`] already: the node counts that.
    #[inline]
    pub fn copy(&self, p: &PacketRef<'_>, next: impl FnOnce(&mut PacketRef<'_>) -> N::Next) -> bool {
        let Some(mut copy) = self.copier.copy(p) else { return false };
        let next = next(&mut PacketRef { packet: &mut copy, memory: p.memory });
        let code = code::FIRST_EDGE + next.stamp(&mut copy);
        self.copier.send(code, copy);
        true
    }
}

impl Worker {
    /// Sends the copies that `node` made on their way.
    #[inline(never)]
    pub(super) fn enqueue_copies(&mut self, node: NodeIndex) {
        let mut copies = std::mem::take(&mut self.copies);
        add(&self.shared().copies, copies.len() as u64);
        for (code, packet) in copies.drain(..) {
            let target = self.target(node, code);
            self.append(target, packet);
        }
        self.copies = copies;
    }

    fn append(&mut self, node: NodeIndex, packet: Packet) {
        let traced = packet.flags & flags::TRACED != 0;
        match self.inboxes[node.index()].frames.last_mut() {
            Some(last) if last.room() != 0 => {
                last.traced |= traced;
                let pushed = last.push(packet);
                debug_assert!(pushed.is_ok(), "there is room");
                self.schedule(node);
            }
            _ => self.enqueue_packet(node, packet),
        }
    }
}
