//! Packets that lie in shared memory: where their bytes are, once that is checked, and how they are copied out.

use std::ptr;

use crate::config::{CHECKED, MAX_DESCRIPTORS, MAX_FRAME};
use crate::copy::{copy, prefetch_read};
use crate::queue::Shared;
use crate::ring::Ring;
use crate::rx::RxSink;
use crate::wire::{DESC_FLAG_NEXT, Descriptor};

/// What a sink took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Accepted {
    /// Packets.
    pub packets: usize,
    /// Their bytes.
    pub bytes: u64,
}

/// Packets that lie in one segment of shared memory each. Their bytes may change until they are copied, so copying is all
/// they offer.
#[derive(Debug, Clone, Copy)]
pub struct Plain<'a> {
    pub(crate) segments: &'a [Segment],
    pub(crate) longest: usize,
}

impl Plain<'_> {
    /// How many there are.
    #[inline(always)]
    pub fn len(&self) -> usize {
        self.segments.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.segments.is_empty()
    }

    /// No packet has more bytes than this.
    #[inline(always)]
    pub fn longest(&self) -> usize {
        self.longest
    }

    /// Gives the packets to `sink` by [`RxSink::room`] and [`RxSink::accept`].
    #[inline(always)]
    pub fn one_by_one<S: RxSink + ?Sized>(self, sink: &mut S) -> Accepted {
        let mut accepted = Accepted::default();
        for packet in self.segments {
            if take(sink, std::slice::from_ref(packet)) {
                accepted.packets += 1;
                accepted.bytes += u64::from(packet.len);
            }
        }
        accepted
    }

    /// Copies packet `k` to `to`, and returns how many bytes that were.
    ///
    /// # Safety
    /// `k` is below [`Plain::len`], and `to` is private memory that is writable for [`Plain::longest`] bytes.
    #[inline(always)]
    pub unsafe fn copy(&self, k: usize, to: *mut u8) -> u16 {
        // SAFETY: the caller's promise; the segment is readable for `len` bytes (its invariant), since the queue that
        // keeps the regions is borrowed by `receive`.
        unsafe {
            let segment = self.segments.get_unchecked(k);
            copy(segment.data, to, usize::from(segment.len));
            segment.len
        }
    }
}

/// Bytes of a packet within shared memory.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Segment {
    /// Invariant, made by [`Snapshot::push`]: valid for `len` bytes as long as the ring's regions.
    data: *const u8,
    len: u16,
    /// Of the whole packet; only in its first segment.
    pub(crate) total: u16,
    /// Segments of the packet; only in its first segment.
    pub(crate) segments: u16,
}

/// Private copy of the checked descriptors of one burst.
#[derive(Debug)]
pub(crate) struct Snapshot {
    pub(crate) segments: Box<[Segment; MAX_DESCRIPTORS]>,
    pub(crate) len: usize,
    pub(crate) packets: usize,
    /// Bytes of the longest segment.
    pub(crate) longest: usize,
    /// Whether a packet has several segments.
    pub(crate) chained: bool,
}

impl Snapshot {
    /// With nothing in it.
    pub(crate) fn new() -> Self {
        let empty = Segment { data: ptr::null(), len: 0, total: 0, segments: 0 };
        Self { segments: Box::new([empty; MAX_DESCRIPTORS]), len: 0, packets: 0, longest: 0, chained: false }
    }

    /// Checks a descriptor against the regions of `shared`, keeps it if it is good, and asks for its bytes.
    #[inline(always)]
    pub(crate) fn push(&mut self, shared: &Shared, d: Descriptor) -> bool {
        let len = d.length as usize;
        if CHECKED && len.wrapping_sub(1) >= MAX_FRAME {
            return false;
        }
        let Some(data) = shared.ring.regions().range(d.region, d.offset, d.length) else { return false };
        let Some(segment) = self.segments.get_mut(self.len) else { return false };
        let data = data.as_ptr().cast_const();
        prefetch_read(data);
        if len > 64 {
            prefetch_read(data.wrapping_add(len - 1));
        }
        *segment = Segment { data, len: len as u16, total: len as u16, segments: 1 };
        self.longest = self.longest.max(len);
        self.len += 1;
        true
    }

    /// As [`Snapshot::push`] for packets of a descriptor each, from slot `position` on, until one is something else. Returns how many
    /// of at most `n` there were.
    #[inline(always)]
    pub(crate) fn push_plain(&mut self, ring: &Ring, position: u16, n: usize) -> usize {
        let mut window = ring.regions().window();
        let mut longest = self.longest;
        let mut done = 0;
        for segment in self.segments.get_mut(self.len..).unwrap_or_default().iter_mut().take(n) {
            let d = ring.descriptor(position.wrapping_add(done as u16));
            let len = d.length as usize;
            let plain = d.flags & DESC_FLAG_NEXT == 0 && (!CHECKED || len.wrapping_sub(1) < MAX_FRAME);
            let Some(data) = window.range(d.region, d.offset, d.length).filter(|_| plain) else { break };
            let data = data.as_ptr().cast_const();
            prefetch_read(data);
            if len > 64 {
                prefetch_read(data.wrapping_add(len - 1));
            }
            *segment = Segment { data, len: len as u16, total: len as u16, segments: 1 };
            longest = longest.max(len);
            done += 1;
        }
        self.longest = longest;
        self.len += done;
        done
    }

    pub(crate) fn set_first(&mut self, first: usize, total: usize, segments: usize) {
        if let Some(segment) = self.segments.get_mut(first) {
            segment.total = total as u16;
            segment.segments = segments as u16;
        }
        self.chained |= segments != 1;
    }
}

/// A packet that lies in shared memory. Its bytes may change until they are copied, so copying is all it offers.
#[derive(Debug)]
pub struct Packet<'a> {
    pub(crate) segments: &'a [Segment],
}

impl Packet<'_> {
    /// Bytes of the packet, 1 to [`MAX_FRAME`].
    #[allow(clippy::len_without_is_empty)] // A packet is never empty.
    pub fn len(&self) -> usize {
        self.segments.first().map_or(0, |s| usize::from(s.total))
    }

    /// Copies as much of the packet as `to` holds, and returns how many bytes that were.
    pub fn copy_to(&self, to: &mut [u8]) -> usize {
        let mut reader = Reader { segments: self.segments, at: 0 };
        reader.read(to)
    }
}

/// Reads the segments of one packet in order.
struct Reader<'a> {
    segments: &'a [Segment],
    /// Bytes of the first segment that are read already.
    at: usize,
}

impl Reader<'_> {
    fn read(&mut self, to: &mut [u8]) -> usize {
        let mut done = 0;
        while let [segment, rest @ ..] = self.segments {
            let room = to.get_mut(done..).unwrap_or_default();
            let len = (usize::from(segment.len) - self.at).min(room.len());
            // SAFETY: at + len <= segment.len, readable by the invariant of `Segment` (the queue that keeps the
            // regions is borrowed); `room` is private memory of at least `len` bytes.
            unsafe { copy(segment.data.add(self.at), room.as_mut_ptr(), len) };
            done += len;
            self.at += len;
            if self.at < usize::from(segment.len) {
                break;
            }
            self.segments = rest;
            self.at = 0;
        }
        done
    }
}

/// Gives one packet to the sink, which takes it or gives up.
#[inline(always)]
pub(crate) fn take<S: RxSink + ?Sized>(sink: &mut S, packet: &[Segment]) -> bool {
    let Some(first) = packet.first() else { return false };
    let len = usize::from(first.total);
    match sink.room(len) {
        Some(room) if packet.len() == 1 && room.len() >= len => {
            // SAFETY: `first` is readable for `len` bytes (its invariant), since the queue that keeps the regions is
            // borrowed by `receive`; `room` is private memory of at least `len` bytes.
            unsafe { copy(first.data, room.as_mut_ptr(), len) };
            sink.accept(len);
            true
        }
        Some(room) => {
            let mut reader = Reader { segments: packet, at: 0 };
            let done = reader.read(room);
            deliver(&mut reader, sink, len, done)
        }
        None => false,
    }
}

/// The rest of a packet of `len` bytes, of which `done` are copied, into as much more room as it takes. False if
/// the sink gave up.
#[cold]
fn deliver<S: RxSink + ?Sized>(reader: &mut Reader<'_>, sink: &mut S, len: usize, mut done: usize) -> bool {
    while done < len {
        let copied = match sink.more(len - done) {
            Some(room) => reader.read(room),
            None => 0,
        };
        if copied == 0 {
            sink.reject();
            return false;
        }
        done += copied;
    }
    sink.accept(len);
    true
}
