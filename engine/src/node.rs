//! What a node is. The engine owns the loop; a node says what happens to one packet.

use crate::arc::ArcTables;
use crate::buffer::Memory;
use crate::counter::InterfaceCounters;
use crate::dispatch::code;
use crate::frame::{META_SIZE, Meta, Packet, PacketRef};
use crate::stats::Counter;
use crate::trace::TraceView;
use crate::worker::Copying;
use crate::{NodeIndex, SwIfIndex, WorkerIndex};
use std::fmt;
use std::marker::PhantomData;
use std::num::NonZeroU16;
use std::sync::atomic::{AtomicU64, Ordering};

/// Something that an edge can lead to: a node, or a terminal of the engine.
pub trait Target {
    /// Its name in the graph.
    const TARGET_NAME: &'static str;
    /// What an edge to it must carry.
    type TargetMeta: Meta;
}

impl<N: Node> Target for N {
    const TARGET_NAME: &'static str = N::NAME;
    type TargetMeta = N::Meta;
}

/// One packet operation of the graph. Each worker has an instance of its own.
pub trait Node: Sized + Send + 'static {
    /// Name in the graph, VPP's where there is one.
    const NAME: &'static str;
    /// What a predecessor hands over with each packet.
    type Meta: Meta;
    /// Where packets go: an enum by [`crate::next_nodes!`].
    type Next: NextNodes;
    /// Why packets are dropped, and what else is counted: an enum by [`crate::error_counters!`].
    type Error: ErrorCounters;
    /// What the control plane publishes for it; one value per type and graph.
    type Tables: Default + Send + Sync + 'static;

    /// Called several packets ahead of [`Node::process`]: touch what it will read first.
    #[inline(always)]
    fn prefetch(&self, _cx: &Cx<'_, Self>, _p: &PacketRef<'_>) {}

    /// Whether [`Node::straight`] is there.
    const STRAIGHT: bool = false;

    /// The way of most packets, tried first: it leaves a packet as it was, and to [`Node::process`], unless all is as usual. It is
    /// compiled into the loop, and `process` out of it: the few things that it needs to know then stay in registers.
    #[inline(always)]
    fn straight(
        &mut self,
        _cx: &Cx<'_, Self>,
        _p: &mut PacketRef<'_>,
        _meta: Self::Meta,
    ) -> Option<Way<Self>> {
        None
    }

    /// Decides about one packet.
    fn process(&mut self, cx: &Cx<'_, Self>, p: &mut PacketRef<'_>, meta: Self::Meta) -> Disposition<Self>;

    /// Called after the last packet of a frame, to write out what was collected over it.
    #[inline(always)]
    fn frame_done(&mut self, _cx: &Cx<'_, Self>) {}

    /// Called when the tables changed, and about every [`TICK`]: to release or give up held packets.
    #[inline(always)]
    fn tick(&mut self, _cx: &Cx<'_, Self>, _held: &mut Held<'_, Self>) {}

    /// Writes what a traced packet looked like here. The first line is already indented.
    fn trace(view: &TraceView<'_>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        view.fmt_default(f)
    }
}

/// How often [`Node::tick`] is called on a worker that is awake or holds packets.
pub const TICK: std::time::Duration = std::time::Duration::from_millis(10);

/// What becomes of a packet: exactly one thing.
#[derive(Debug)]
pub enum Disposition<N: Node> {
    /// On to a node known when the program was compiled.
    Next(N::Next),
    /// On along the feature arc that brought it here, with its metadata unchanged.
    NextFeature,
    /// Dropped, for a counted reason.
    Drop(N::Error),
    /// On to a node known only to the control plane.
    Edge(NextIndex),
    /// Kept by this node under a key, until [`Node::tick`] releases it. Ask [`Cx::may_hold`] first.
    Hold(u32),
}

/// The way on of a packet of node `N` that is all set for it, see [`Node::straight`].
#[derive(Debug)]
pub struct Way<N> {
    /// See [`code`]; not that of the drop, so that an `Option` of it is one register.
    pub(crate) code: NonZeroU16,
    pub(crate) node: PhantomData<fn() -> N>,
}

impl<N: Node> Way<N> {
    /// As [`Disposition::Next`].
    #[inline(always)]
    pub fn next(p: &mut PacketRef<'_>, next: N::Next) -> Way<N> {
        Way { code: code::edge(next.stamp(p.packet)), node: PhantomData }
    }

    /// As [`Disposition::NextFeature`].
    #[inline(always)]
    pub fn next_feature(cx: &Cx<'_, N>, p: &mut PacketRef<'_>) -> Way<N> {
        let next = cx.arcs().next(p.packet.feature);
        p.packet.feature = p.packet.feature.wrapping_add(1);
        Way { code: code::node(next), node: PhantomData }
    }
}

/// A way on that was found at run time, with the metadata that its target takes.
#[derive(Clone, Copy, Debug)]
pub struct NextIndex {
    pub(crate) node: NodeIndex,
    pub(crate) meta: [u8; META_SIZE],
}

impl NextIndex {
    /// To `node`, which must take metadata of type `M`. Control-plane code gets node indices, with the type of their metadata,
    /// from the graph; a wrong one is seen as wrong values, never as undefined behaviour.
    #[inline(always)]
    pub fn new<M: Meta>(node: NodeIndex, meta: M) -> NextIndex {
        const { assert!(size_of::<M>() <= META_SIZE) };
        let mut bytes = [0; META_SIZE];
        bytes[..size_of::<M>()].copy_from_slice(meta.as_bytes());
        NextIndex { node, meta: bytes }
    }
}

/// The static edges of a node. Implemented by [`crate::next_nodes!`].
pub trait NextNodes: Sized + fmt::Debug {
    /// Names of the targets, by variant.
    const NAMES: &'static [&'static str];
    /// Number of the variant.
    fn number(&self) -> u16;
    /// Writes the target's metadata into the packet and returns the number of the variant.
    fn stamp(self, packet: &mut Packet) -> u16;
}

/// The counters of a node. Implemented by [`crate::error_counters!`].
pub trait ErrorCounters: Copy + fmt::Debug + 'static {
    /// VPP's names of the reasons, by variant.
    const NAMES: &'static [&'static str];
    /// Number of the variant.
    fn index(self) -> u16;
}

/// Declares the edges of a node: `Variant => Target`. The variant carries the target's metadata.
///
/// ```
/// wharf_engine::next_nodes! {
///     /// Where packets of this node go.
///     pub enum Next { Out => wharf_engine::DeviceOutput }
/// }
/// ```
#[macro_export]
macro_rules! next_nodes {
    ($(#[$doc:meta])* $vis:vis enum $name:ident { $($variant:ident => $target:ty),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug)]
        $vis enum $name {
            $(#[doc = concat!("To `", stringify!($target), "`.")]
            $variant(<$target as $crate::Target>::TargetMeta)),*
        }
        impl $crate::NextNodes for $name {
            const NAMES: &'static [&'static str] = &[$(<$target as $crate::Target>::TARGET_NAME),*];
            #[inline(always)]
            #[allow(dead_code, reason = "an enum without variants")]
            fn number(&self) -> u16 {
                enum Number { $($variant),* }
                match *self {
                    $($name::$variant(_) => Number::$variant as u16,)*
                }
            }
            #[inline(always)]
            #[allow(unused_variables, dead_code, reason = "an enum without variants")]
            fn stamp(self, packet: &mut $crate::Packet) -> u16 {
                enum Number { $($variant),* }
                match self {
                    $($name::$variant(meta) => {
                        packet.stamp(meta);
                        Number::$variant as u16
                    })*
                }
            }
        }
    };
}

/// Declares the counters of a node: `Variant => "reason"`.
///
/// ```
/// wharf_engine::error_counters! {
///     /// What is counted here.
///     pub enum Error { TooShort => "packet too short" }
/// }
/// ```
#[macro_export]
macro_rules! error_counters {
    ($(#[$doc:meta])* $vis:vis enum $name:ident { $($variant:ident => $reason:literal),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u16)]
        $vis enum $name { $(#[doc = $reason] $variant),* }
        impl $crate::ErrorCounters for $name {
            const NAMES: &'static [&'static str] = &[$($reason),*];
            #[inline(always)]
            fn index(self) -> u16 {
                self as u16
            }
        }
    };
}

/// For a node that never hands on.
#[derive(Debug)]
pub enum NoNext {}

impl NextNodes for NoNext {
    const NAMES: &'static [&'static str] = &[];
    fn number(&self) -> u16 {
        match *self {}
    }
    fn stamp(self, _: &mut Packet) -> u16 {
        match self {}
    }
}

/// For a node that never drops.
#[derive(Clone, Copy, Debug)]
pub enum NoError {}

impl ErrorCounters for NoError {
    const NAMES: &'static [&'static str] = &[];
    fn index(self) -> u16 {
        match self {}
    }
}

impl Packet {
    /// Writes the metadata for the next node. Called by [`crate::next_nodes!`].
    #[inline(always)]
    pub fn stamp<M: Meta>(&mut self, meta: M) {
        self.put_meta(meta);
    }
}

/// What of a worker is the same for all of its nodes.
#[derive(Debug)]
pub struct WorkerState {
    pub(crate) worker: WorkerIndex,
    /// Nanoseconds of the monotonic clock, read once per turn.
    pub(crate) now: u64,
    pub(crate) counters: std::sync::Arc<InterfaceCounters>,
    pub(crate) arcs: *const ArcTables,
}

/// What a node may look at while it works.
#[derive(Debug)]
pub struct Cx<'a, N: Node> {
    pub(crate) tables: &'a N::Tables,
    pub(crate) state: &'a WorkerState,
    pub(crate) errors: &'a [AtomicU64],
    pub(crate) held: usize,
    pub(crate) copier: &'a dyn Copying,
}

impl<'a, N: Node> Cx<'a, N> {
    /// The tables, of one generation throughout a turn of the worker's loop.
    #[inline(always)]
    pub fn tables(&self) -> &'a N::Tables {
        self.tables
    }

    /// Nanoseconds of the worker's monotonic clock, read once per turn.
    #[inline(always)]
    pub fn now(&self) -> u64 {
        self.state.now
    }

    /// The worker that runs this.
    #[inline(always)]
    pub fn worker(&self) -> WorkerIndex {
        self.state.worker
    }

    /// Counters of the interfaces.
    #[inline(always)]
    pub fn interfaces(&self) -> &'a InterfaceCounters {
        &self.state.counters
    }

    /// Counts something that is not a drop.
    #[inline(always)]
    pub fn count(&self, what: N::Error) {
        if let Some(counter) = self.errors.get(usize::from(what.index())) {
            crate::counter::add(counter, 1);
        }
    }

    /// Whether this node may answer [`Disposition::Hold`]: it holds less than [`MAX_HELD`] packets.
    #[inline(always)]
    pub fn may_hold(&self) -> bool {
        self.held < MAX_HELD
    }

    /// Feature arcs as they are set now.
    #[inline(always)]
    pub(crate) fn arcs(&self) -> &'a ArcTables {
        // SAFETY: the pointer is of the generation that the worker settled on, which outlives the turn.
        unsafe { &*self.state.arcs }
    }
}

/// Packets that a node may hold on one worker.
pub const MAX_HELD: usize = 1024;

/// A packet that a node kept, see [`Disposition::Hold`].
#[derive(Debug)]
pub(crate) struct HeldPacket {
    pub(crate) key: u32,
    pub(crate) since: u64,
    pub(crate) packet: Packet,
}

/// The packets that a node holds, oldest first.
#[derive(Debug)]
pub struct Held<'a, N: Node> {
    pub(crate) packets: &'a mut Vec<HeldPacket>,
    pub(crate) released: Vec<(Disposition<N>, HeldPacket)>,
    pub(crate) memory: Memory,
}

impl<N: Node> Held<'_, N> {
    /// Whether nothing is held.
    pub fn is_empty(&self) -> bool {
        self.packets.is_empty()
    }

    /// Asks about each held packet: its key, since when it is held (as [`Cx::now`]), and the packet with the metadata it came
    /// with. `None` keeps it.
    pub fn retain(
        &mut self,
        mut decide: impl FnMut(u32, u64, &mut PacketRef<'_>, N::Meta) -> Option<Disposition<N>>,
    ) {
        let mut kept = Vec::with_capacity(self.packets.len());
        for mut held in self.packets.drain(..) {
            let meta = held.packet.take_meta();
            let mut view = PacketRef { packet: &mut held.packet, memory: self.memory };
            match decide(held.key, held.since, &mut view, meta) {
                Some(disposition) => self.released.push((disposition, held)),
                None => kept.push(held),
            }
        }
        *self.packets = kept;
    }
}

/// The numbers that every node keeps, on one worker. Written by the worker, read by anyone.
#[derive(Debug)]
pub struct NodeCounters {
    /// Frames (for an input: polls).
    pub calls: Counter,
    /// Packets.
    pub vectors: Counter,
    /// Ticks of the time stamp counter spent.
    pub clocks: Counter,
    /// Interrupts taken, for an input.
    pub suspends: Counter,
}

impl NodeCounters {
    /// Calls that are over, what they handled, and their ticks.
    #[inline(always)]
    pub(crate) fn record(&self, calls: u64, vectors: usize, clocks: u64) {
        crate::counter::add(&self.calls, calls);
        crate::counter::add(&self.vectors, vectors as u64);
        crate::counter::add(&self.clocks, clocks);
    }

    /// `(calls, vectors, clocks, suspends)`.
    pub fn get(&self) -> [u64; 4] {
        [&self.calls, &self.vectors, &self.clocks, &self.suspends].map(|c| c.load(Ordering::Relaxed))
    }
}

macro_rules! terminal {
    ($(#[$doc:meta])* $name:ident, $node:literal, $meta:ty) => {
        $(#[$doc])*
        #[derive(Debug)]
        pub enum $name {}
        impl Target for $name {
            const TARGET_NAME: &'static str = $node;
            type TargetMeta = $meta;
        }
    };
}

terminal!(
    /// Where packets leave the graph for the host: counted and freed while no host interface is there.
    Punt, "error-punt", ()
);
terminal!(
    /// Where packets leave the graph for a device: the interface's transmit queue, on whichever worker has it.
    DeviceOutput, "device-output", SwIfIndex
);
