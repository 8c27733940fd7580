//! A worker with a source of packets and a sink, turned by hand.

use std::os::fd::BorrowedFd;

use wharf_engine::buffer::{DATA_START, PoolConfig};
use wharf_engine::device::{DeviceInput, DeviceOutput, RxBurst, RxMode, TxBurst};
use wharf_engine::dispatch::CpuLevel;
use wharf_engine::engine::InterfaceSetup;
use wharf_engine::worker::Worker;
use wharf_engine::{Engine, EngineConfig, GraphBuilder, Packet, SwIfIndex, WorkerIndex};

/// Name of the input node of a [`Source`].
pub const INPUT: &str = "bench-input";

/// The interface that packets come from.
pub const FROM: SwIfIndex = SwIfIndex(0);
/// The interface that they are for.
pub const TO: SwIfIndex = SwIfIndex(1);

/// Packets, over and over, so many a turn.
#[derive(Debug)]
pub struct Source {
    packets: Vec<Vec<u8>>,
    next: usize,
    burst: usize,
}

impl Source {
    /// `burst` packets a turn out of `packets`, of which there is at least one.
    pub fn new(packets: Vec<Vec<u8>>, burst: usize) -> Source {
        Source { packets, next: 0, burst }
    }
}

impl DeviceInput for Source {
    fn node(&self) -> &'static str {
        INPUT
    }

    fn poll(&mut self, rx: &mut RxBurst<'_>) -> bool {
        for _ in 0..self.burst.min(rx.room()) {
            let Some(mut buffer) = rx.cache().alloc() else { break };
            let bytes = &self.packets[self.next];
            self.next = (self.next + 1) % self.packets.len();
            rx.cache().pool().bytes_mut(&mut buffer, DATA_START)[..bytes.len()].copy_from_slice(bytes);
            rx.push(buffer, DATA_START, bytes.len() as u16, 0);
        }
        true
    }

    fn fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    fn arm(&mut self) -> bool {
        false
    }
}

/// Takes everything and keeps nothing.
#[derive(Debug)]
pub struct Sink;

impl DeviceOutput for Sink {
    fn keeps_buffers(&self) -> bool {
        false
    }

    fn transmit(&mut self, _: &mut TxBurst<'_>, packets: &[Packet]) -> usize {
        packets.len()
    }

    fn flush(&mut self, _: &mut TxBurst<'_>) -> bool {
        false
    }
}

/// An engine with one worker, interfaces [`FROM`] and [`TO`].
#[derive(Debug)]
pub struct Rig {
    /// The engine.
    pub engine: Engine,
    worker: Worker,
}

impl Rig {
    /// `list`, to which packets of `source` come at node `input`, and whose packets for [`TO`] go to `sink`. Of the
    /// processor's instruction sets no better one than `level` is used.
    pub fn new(
        mut list: GraphBuilder,
        input: &str,
        level: Option<CpuLevel>,
        source: Box<dyn DeviceInput>,
        sink: Box<dyn DeviceOutput>,
    ) -> Rig {
        list.input(source.node());
        let pool = PoolConfig { buffers: 2048, limit: 2048, ..Default::default() };
        let config = EngineConfig { pool, level, ..Default::default() };
        let (mut engine, mut workers) = Engine::manual(&config, list).expect("the graph is right");
        let node = engine.graph().find(input);
        assert!(node.is_some(), "no node {input}");
        let outputs: [(_, _, Box<dyn DeviceOutput>); 2] = [(FROM, "from", Box::new(Sink)), (TO, "to", sink)];
        for (index, name, output) in outputs {
            let setup = InterfaceSetup { name: name.into(), up: true, input: node, loopback: false };
            engine.set_interface(index, Some(setup));
            engine.attach_output(index, WorkerIndex(0), output).expect("there is a worker");
        }
        let attached = engine.attach_input(FROM, 0, WorkerIndex(0), RxMode::Polling, source);
        assert!(attached.is_ok(), "there is a worker");
        let worker = workers.pop().expect("there is a worker");
        Rig { engine, worker }
    }

    /// One turn of the worker.
    #[inline]
    pub fn turn(&mut self) {
        self.worker.turn();
    }

    /// Packets received, and sent to a device, so far.
    pub fn counts(&self) -> (u64, u64) {
        let balance = self.engine.balance();
        (balance.received, balance.sent)
    }

    /// Turns once more, and checks that all packets of all turns were sent.
    pub fn check(&mut self) {
        self.turn();
        let (received, sent) = self.counts();
        assert!(received != 0 && received == sent, "{:?}", self.engine.balance());
    }
}
