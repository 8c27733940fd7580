//! The packet trace: what each node did to a few chosen packets.
//!
//! Tracing is a second pass around a node's ordinary loop, compiled apart from it. The engine records the packet's
//! bytes and metadata before and after; a node only says how to print them, and that happens on the thread
//! that asks.

use crate::buffer::Memory;
use crate::frame::{META_SIZE, Meta, Packet, flags, note_slot, read_meta, trace_slot};
use crate::node::WorkerState;
use crate::{NodeIndex, SwIfIndex};
use std::fmt;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Bytes of a packet that are recorded.
pub const TRACE_BYTES: usize = 128;
/// Records that a worker keeps; a packet leaves one per node.
pub const MAX_RECORDS: usize = 65_536;
/// Number of a packet whose first node found no room: it is not recorded.
const UNTRACED: u32 = u32::MAX;

/// The packet at one moment.
#[derive(Clone, Debug)]
pub(crate) struct Snapshot {
    bytes: [u8; TRACE_BYTES],
    len: u16,
    meta: [u8; META_SIZE],
    flags: u16,
}

impl Snapshot {
    pub(crate) fn of(packet: &Packet, memory: Memory) -> Snapshot {
        let len = usize::from(packet.len).min(TRACE_BYTES);
        let mut bytes = [0; TRACE_BYTES];
        // SAFETY: the packet owns its buffer, and `start + len` is inside it (invariant of `Packet`).
        unsafe {
            std::ptr::copy_nonoverlapping(packet.address(memory), bytes.as_mut_ptr(), len);
        }
        Snapshot { bytes, len: packet.len, meta: packet.meta, flags: packet.flags }
    }

    fn data(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len).min(TRACE_BYTES)]
    }
}

/// One packet at one node.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    pub(crate) number: u32,
    pub(crate) time: u64,
    pub(crate) node: NodeIndex,
    /// Name of an input or output device's node, which has no index in the graph.
    pub(crate) device: Option<Arc<str>>,
    pub(crate) rx: SwIfIndex,
    pub(crate) before: Snapshot,
    pub(crate) after: Snapshot,
    pub(crate) outcome: Outcome,
    /// What the node left by [`crate::PacketRef::note`].
    pub(crate) note: u64,
}

/// Where a record says that the packet went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// On to a node.
    Next(NodeIndex),
    /// Dropped, with the number of the reason.
    Dropped(u16),
    /// Kept by the node.
    Held,
    /// Left the graph.
    Done,
}

/// Per worker: which inputs are to mark packets, and what was recorded.
#[derive(Debug, Default)]
pub struct TraceBuffer {
    wanted: Vec<AtomicU32>,
    records: Mutex<Records>,
}

#[derive(Debug, Default)]
struct Records {
    list: Vec<Record>,
    packets: u32,
}

impl TraceBuffer {
    pub(crate) fn new(inputs: usize) -> TraceBuffer {
        TraceBuffer { wanted: (0..inputs).map(|_| AtomicU32::new(0)).collect(), records: Mutex::default() }
    }

    fn records(&self) -> MutexGuard<'_, Records> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many more packets input kind `input` is to mark.
    #[inline(always)]
    pub(crate) fn wanted(&self, input: usize) -> u32 {
        self.wanted.get(input).map_or(0, |w| w.load(Ordering::Relaxed))
    }

    pub(crate) fn add(&self, input: usize, count: u32) {
        if let Some(wanted) = self.wanted.get(input) {
            wanted.store(wanted.load(Ordering::Relaxed).saturating_add(count), Ordering::Relaxed);
        }
    }

    pub(crate) fn clear(&self) {
        self.wanted.iter().for_each(|w| w.store(0, Ordering::Relaxed));
        *self.records() = Records::default();
    }

    /// Marks the first packets of a received frame; returns whether any was.
    #[cold]
    pub(crate) fn mark(
        &self,
        input: usize,
        device: &Arc<str>,
        packets: &mut [Packet],
        memory: Memory,
        state: &WorkerState,
        next: NodeIndex,
    ) -> bool {
        let count = packets.len().min(self.wanted(input) as usize);
        let mut records = self.records();
        for packet in &mut packets[..count] {
            let number = match records.list.len() < MAX_RECORDS {
                true => u32::from(state.worker.0) << 24 | records.packets & 0xff_ffff,
                false => UNTRACED,
            };
            records.packets += 1;
            packet.flags |= flags::TRACED;
            // SAFETY: the packet owns its buffer, so nobody else reads or writes its cold header.
            unsafe { trace_slot(memory, packet).write(number) };
            let snapshot = Snapshot::of(packet, memory);
            records.push(Record {
                number,
                time: state.now,
                node: NodeIndex::DROP,
                device: Some(Arc::clone(device)),
                rx: packet.rx,
                before: snapshot.clone(),
                after: snapshot,
                outcome: Outcome::Next(next),
                note: 0,
            });
        }
        self.wanted[input].fetch_sub(count as u32, Ordering::Relaxed);
        count != 0
    }

    #[cold]
    pub(crate) fn push(&self, record: Record) {
        self.records().push(record);
    }

    pub(crate) fn collect(&self) -> Vec<Record> {
        self.records().list.clone()
    }
}

impl Records {
    fn push(&mut self, record: Record) {
        if record.number != UNTRACED && self.list.len() < MAX_RECORDS {
            self.list.push(record);
        }
    }
}

/// The number of a traced packet.
pub(crate) fn number(packet: &Packet, memory: Memory) -> u32 {
    // SAFETY: the packet owns its buffer; the number was written when it was marked.
    unsafe { trace_slot(memory, packet).read() }
}

/// Takes what a node left in a traced packet.
pub(crate) fn take_note(packet: &Packet, memory: Memory) -> u64 {
    // SAFETY: the packet owns its buffer; every bit pattern is a number.
    unsafe { note_slot(memory, packet).replace(0) }
}

/// What the control plane knows and a trace needs for printing.
pub trait TraceNames {
    /// Name of an interface.
    fn interface(&self, index: SwIfIndex) -> String;
}

/// One record, as [`crate::Node::trace`] gets it.
pub struct TraceView<'a> {
    pub(crate) record: &'a Record,
    pub(crate) next: &'a str,
    pub(crate) names: &'a dyn TraceNames,
}

impl TraceView<'_> {
    /// The packet's first bytes as it came.
    pub fn data(&self) -> &[u8] {
        self.record.before.data()
    }

    /// The packet's first bytes as it left.
    pub fn data_after(&self) -> &[u8] {
        self.record.after.data()
    }

    /// Bytes of the packet as it came.
    pub fn len(&self) -> u16 {
        self.record.before.len
    }

    /// Bytes of the packet as it left.
    pub fn len_after(&self) -> u16 {
        self.record.after.len
    }

    /// Whether the packet had no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The metadata that the node was handed.
    pub fn meta<M: Meta>(&self) -> M {
        read_meta(&self.record.before.meta)
    }

    /// The metadata that it handed on.
    pub fn meta_after<M: Meta>(&self) -> M {
        read_meta(&self.record.after.meta)
    }

    /// See [`flags`].
    pub fn flags(&self) -> u16 {
        self.record.after.flags
    }

    /// Interface that received the packet.
    pub fn rx(&self) -> SwIfIndex {
        self.record.rx
    }

    /// Name of an interface.
    pub fn interface(&self, index: SwIfIndex) -> String {
        self.names.interface(index)
    }

    /// What the node left by [`crate::PacketRef::note`]; 0 if nothing.
    pub fn note(&self) -> u64 {
        self.record.note
    }

    /// Where the packet went.
    pub fn outcome(&self) -> Outcome {
        self.record.outcome
    }

    /// Name of the node where the packet went.
    pub fn next(&self) -> &str {
        self.next
    }

    /// The text of a node that has nothing to add: where the packet went.
    pub fn fmt_default(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.record.outcome {
            Outcome::Next(_) => write!(f, "{} bytes, next {}", self.len(), self.next),
            Outcome::Dropped(_) => write!(f, "{} bytes, dropped: {}", self.len(), self.next),
            Outcome::Held => write!(f, "{} bytes, held", self.len()),
            Outcome::Done => write!(f, "{} bytes", self.len()),
        }
    }
}

impl fmt::Debug for TraceView<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TraceView").field("record", &self.record).finish_non_exhaustive()
    }
}

/// A printed trace: one traced packet.
#[derive(Clone, Debug)]
pub struct TracedPacket {
    /// Worker that received it.
    pub worker: u16,
    /// Its way: nanoseconds since the engine's start, node, and the node's text.
    pub steps: Vec<(u64, String, String)>,
}
