//! The loop around a node, written once.

use crate::NodeIndex;
use crate::arc::ArcTables;
use crate::buffer::Memory;
use crate::frame::{FRAME_SIZE, Frame, Packet, PacketRef, flags};
use crate::node::{Cx, Disposition, ErrorCounters, Held, HeldPacket, NextNodes, Node, WorkerState};
use crate::rcu::Cell;
use crate::stats::Row;
use crate::trace::{Outcome, Record, Snapshot, TraceBuffer, number, take_note};
use crate::worker::Copying;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

/// Where a packet goes, as dispatch writes it down: a static edge, the drop, the hold queue, or a node's index.
pub(crate) mod code {
    pub(crate) const DROP: u16 = 0;
    /// Static edges are `FIRST_EDGE + variant`.
    pub(crate) const FIRST_EDGE: u16 = 1;
    pub(crate) const HOLD: u16 = 0x4000;
    /// A node's index, found at run time.
    pub(crate) const NODE: u16 = 0x8000;

    use crate::NodeIndex;
    use std::num::NonZeroU16;

    /// That of a static edge.
    #[inline(always)]
    pub(crate) fn edge(number: u16) -> NonZeroU16 {
        const { assert!(FIRST_EDGE == NonZeroU16::MIN.get()) };
        NonZeroU16::MIN.saturating_add(number)
    }

    /// That of a node.
    #[inline(always)]
    pub(crate) const fn node(index: NodeIndex) -> NonZeroU16 {
        NonZeroU16::MIN.saturating_add((NODE | index.0) - 1)
    }
}

pub(crate) type Codes = [u16; FRAME_SIZE];

/// The instruction sets that the loop is compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum CpuLevel {
    /// What the binary was compiled for.
    Base,
    /// x86-64-v3: AVX2, BMI.
    V3,
    /// x86-64-v4: AVX-512.
    V4,
}

impl CpuLevel {
    /// The best that this processor has.
    pub fn detect() -> CpuLevel {
        #[cfg(target_arch = "x86_64")]
        {
            let v3 = is_x86_feature_detected!("avx2")
                && is_x86_feature_detected!("bmi1")
                && is_x86_feature_detected!("bmi2")
                && is_x86_feature_detected!("lzcnt")
                && is_x86_feature_detected!("movbe");
            let v4 = is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512dq")
                && is_x86_feature_detected!("avx512vl");
            if v3 && v4 {
                return CpuLevel::V4;
            }
            if v3 {
                return CpuLevel::V3;
            }
        }
        CpuLevel::Base
    }
}

/// What a dispatch needs besides node and frame.
pub(crate) struct Env<'a> {
    pub(crate) memory: Memory,
    pub(crate) state: &'a WorkerState,
    pub(crate) level: CpuLevel,
    pub(crate) trace: &'a TraceBuffer,
    pub(crate) codes: &'a mut Codes,
    /// Keys of the packets that were answered with `Hold`, in their order.
    pub(crate) hold_keys: &'a mut Vec<u32>,
    /// Makes copies of packets for a node that replicates.
    pub(crate) copier: &'a dyn Copying,
}

/// A node without its types.
pub(crate) trait Erased: Send {
    /// Runs over the frame, leaves a code per packet, and says whether they are all the same.
    fn run(&mut self, env: &mut Env<'_>, frame: &mut Frame) -> bool;
    /// Keeps a packet whose code is HOLD.
    fn hold(&mut self, key: u32, now: u64, packet: Packet);
    /// Runs the node's tick; packets that it lets go are appended with their codes.
    fn tick(&mut self, env: &mut Env<'_>, released: &mut Vec<(u16, Packet)>);
    /// Packets held.
    fn held(&self) -> usize;
    /// Loads the published tables, to be used after `settle`.
    fn stage(&mut self);
    /// Moves on to what `stage` loaded.
    fn settle(&mut self);
    /// Gives up all held packets.
    fn surrender(&mut self) -> Vec<Packet>;
}

pub(crate) struct Runner<N: Node> {
    node: N,
    index: NodeIndex,
    edges: Arc<[NodeIndex]>,
    cell: Arc<Cell<N::Tables>>,
    staged: *const N::Tables,
    tables: *const N::Tables,
    errors: Row,
    held: Vec<HeldPacket>,
}

// SAFETY: the raw pointers are to `N::Tables: Send + Sync` values that rcu keeps alive for this runner's worker.
unsafe impl<N: Node> Send for Runner<N> {}

impl<N: Node> Runner<N> {
    pub(crate) fn new(
        node: N,
        index: NodeIndex,
        edges: Arc<[NodeIndex]>,
        cell: Arc<Cell<N::Tables>>,
        errors: Row,
    ) -> Self {
        Runner {
            node,
            index,
            edges,
            cell,
            staged: std::ptr::null(),
            tables: std::ptr::null(),
            errors,
            held: Vec::new(),
        }
    }

    #[inline(always)]
    fn cx<'a>(tables: *const N::Tables, errors: &'a [AtomicU64], held: usize, env: &Env<'a>) -> Cx<'a, N> {
        // SAFETY: a worker settles before it dispatches, and the generation that it settled on outlives the turn.
        Cx { tables: unsafe { &*tables }, state: env.state, errors, held, copier: env.copier }
    }
}

/// Turns a disposition into a code and leaves in the descriptor what the next node needs.
#[inline(always)]
fn resolve<N: Node>(
    disposition: Disposition<N>,
    packet: &mut Packet,
    arcs: &ArcTables,
    node: NodeIndex,
    hold_keys: &mut Vec<u32>,
) -> u16 {
    match disposition {
        Disposition::Next(next) => code::edge(next.stamp(packet)).get(),
        Disposition::NextFeature => {
            let next = arcs.next(packet.feature);
            packet.feature = packet.feature.wrapping_add(1);
            code::node(next).get()
        }
        Disposition::Drop(error) => {
            packet.put_meta([node.0, error.index()]);
            code::DROP
        }
        Disposition::Edge(next) => {
            packet.meta = next.meta;
            code::node(next.node).get()
        }
        Disposition::Hold(key) => {
            hold_keys.push(key);
            code::HOLD
        }
    }
}

/// Packets that `Node::prefetch` runs ahead of `Node::process`.
const AHEAD: usize = 8;

/// # Safety
/// `i < frame.len()`.
#[inline(always)]
unsafe fn view<'a>(packets: *mut Packet, i: usize, memory: Memory) -> PacketRef<'a> {
    // SAFETY: the caller's promise; distinct `i` give disjoint packets.
    PacketRef { packet: unsafe { &mut *packets.add(i) }, memory }
}

#[inline(never)]
fn not_straight<N: Node>(
    node: &mut N,
    cx: &Cx<'_, N>,
    mut p: PacketRef<'_>,
    index: NodeIndex,
    keys: &mut Vec<u32>,
) -> u16 {
    let meta = p.packet.take_meta();
    resolve(node.process(cx, &mut p, meta), p.packet, cx.arcs(), index, keys)
}

#[inline(always)]
fn run_inline<N: Node>(runner: &mut Runner<N>, env: &mut Env<'_>, frame: &mut Frame) -> bool {
    let cx = Runner::<N>::cx(runner.tables, &runner.errors, runner.held.len(), env);
    let (node, index, memory) = (&mut runner.node, runner.index, env.memory);
    let arcs = cx.arcs();
    let n = frame.len();
    let packets = frame.as_mut_ptr();
    let codes = &mut *env.codes;
    let keys = &mut *env.hold_keys;
    let mut i = 0;
    // All calls of `view` below: the index is below n, and one view ends before the next begins.
    for k in 0..n.min(AHEAD) {
        // SAFETY: see above.
        node.prefetch(&cx, &unsafe { view(packets, k, memory) });
    }
    // One packet after the other, each disposition resolved where it is made: the compiler then needs neither the
    // enum nor a second branch. Four at a time, which the processor overlaps no better than it does by itself, cost a
    // fifth more.
    while i < n {
        if i + AHEAD < n {
            // SAFETY: see above.
            node.prefetch(&cx, &unsafe { view(packets, i + AHEAD, memory) });
        }
        // SAFETY: see above.
        let mut a = unsafe { view(packets, i, memory) };
        let meta = a.packet.take_meta();
        let code = if !N::STRAIGHT {
            resolve(node.process(&cx, &mut a, meta), a.packet, arcs, index, keys)
        } else if let Some(way) = node.straight(&cx, &mut a, meta) {
            way.code.get()
        } else {
            not_straight(node, &cx, a, index, keys)
        };
        // SAFETY: i < n <= FRAME_SIZE.
        unsafe { *codes.get_unchecked_mut(i) = code };
        i += 1;
    }
    node.frame_done(&cx);
    let codes = codes.get(..n).unwrap_or_default();
    let first = codes.first().copied().unwrap_or_default();
    codes.iter().fold(0, |all, code| all | (code ^ first)) == 0
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,bmi1,bmi2,lzcnt,movbe,popcnt")]
fn run_v3<N: Node>(runner: &mut Runner<N>, env: &mut Env<'_>, frame: &mut Frame) -> bool {
    run_inline(runner, env, frame)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,bmi1,bmi2,lzcnt,movbe,popcnt")]
fn run_v4<N: Node>(runner: &mut Runner<N>, env: &mut Env<'_>, frame: &mut Frame) -> bool {
    run_inline(runner, env, frame)
}

#[inline(never)]
fn run_base<N: Node>(runner: &mut Runner<N>, env: &mut Env<'_>, frame: &mut Frame) -> bool {
    run_inline(runner, env, frame)
}

fn run_level<N: Node>(runner: &mut Runner<N>, env: &mut Env<'_>, frame: &mut Frame) -> bool {
    match env.level {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: `CpuLevel::detect` found these features on this processor.
        CpuLevel::V4 => unsafe { run_v4(runner, env, frame) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: `CpuLevel::detect` found these features on this processor.
        CpuLevel::V3 => unsafe { run_v3(runner, env, frame) },
        _ => run_base(runner, env, frame),
    }
}

#[cold]
fn run_traced<N: Node>(runner: &mut Runner<N>, env: &mut Env<'_>, frame: &mut Frame) -> bool {
    let memory = env.memory;
    let traced = |p: &Packet| p.flags & flags::TRACED != 0;
    let before: Vec<(usize, Snapshot)> =
        (frame.packets().iter().enumerate().filter(|(_, p)| traced(p)).map(|(i, p)| {
            take_note(p, memory);
            (i, Snapshot::of(p, memory))
        }))
        .collect();
    let same = run_level(runner, env, frame);
    for (i, before) in before {
        let packet = &frame.packets()[i];
        let outcome = match env.codes[i] {
            code::DROP => Outcome::Dropped(packet.take_meta::<[u16; 2]>()[1]),
            code::HOLD => Outcome::Held,
            c if c & code::NODE != 0 => Outcome::Next(NodeIndex(c & !code::NODE)),
            c => Outcome::Next(runner.edges[usize::from(c - code::FIRST_EDGE)]),
        };
        env.trace.push(Record {
            number: number(packet, memory),
            time: env.state.now,
            node: runner.index,
            device: None,
            rx: packet.rx,
            before,
            after: Snapshot::of(packet, memory),
            outcome,
            note: take_note(packet, memory),
        });
    }
    same
}

impl<N: Node> Erased for Runner<N> {
    fn run(&mut self, env: &mut Env<'_>, frame: &mut Frame) -> bool {
        if frame.traced { run_traced(self, env, frame) } else { run_level(self, env, frame) }
    }

    fn hold(&mut self, key: u32, since: u64, packet: Packet) {
        self.held.push(HeldPacket { key, since, packet });
    }

    fn tick(&mut self, env: &mut Env<'_>, released: &mut Vec<(u16, Packet)>) {
        let cx = Runner::<N>::cx(self.tables, &self.errors, self.held.len(), env);
        let mut held = Held { packets: &mut self.held, released: Vec::new(), memory: env.memory };
        self.node.tick(&cx, &mut held);
        let Held { released: list, .. } = held;
        for (disposition, mut kept) in list {
            let code = resolve(disposition, &mut kept.packet, cx.arcs(), self.index, env.hold_keys);
            if code == code::HOLD {
                env.hold_keys.pop();
                self.held.push(kept);
            } else {
                released.push((code, kept.packet));
            }
        }
    }

    fn held(&self) -> usize {
        self.held.len()
    }

    fn stage(&mut self) {
        self.staged = self.cell.load();
    }

    fn settle(&mut self) {
        self.tables = self.staged;
    }

    fn surrender(&mut self) -> Vec<Packet> {
        self.held.drain(..).map(|h| h.packet).collect()
    }
}
