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

/// What a worker receives from, and what it sends to.
pub type Devices = (Box<dyn DeviceInput>, Box<dyn DeviceOutput>);

/// An engine with a worker or more, interfaces [`FROM`] and [`TO`].
#[derive(Debug)]
pub struct Rig {
    /// The engine.
    pub engine: Engine,
    /// Its workers, of which there is at least one.
    pub workers: Vec<Worker>,
}

impl Rig {
    /// `list` with a worker for each of `devices`, whose packets come in at node `input`; those for [`TO`] go to its sink. Of the
    /// processor's instruction sets no better one than `level` is used.
    pub fn new(mut list: GraphBuilder, input: &str, level: Option<CpuLevel>, devices: Vec<Devices>) -> Rig {
        if let Some((source, _)) = devices.first() {
            list.input(source.node());
        }
        let buffers = 2048 * devices.len() as u32;
        let pool = PoolConfig { buffers, limit: buffers, ..Default::default() };
        let config = EngineConfig { pool, level, workers: vec![None; devices.len()], ..Default::default() };
        let (mut engine, workers) = Engine::manual(&config, list).expect("the graph is right");
        let node = engine.graph().find(input);
        assert!(node.is_some(), "no node {input}");
        for (index, name) in [(FROM, "from"), (TO, "to")] {
            let setup = InterfaceSetup { name: name.into(), up: true, input: node, loopback: None };
            engine.set_interface(index, Some(setup));
        }
        for (n, (source, sink)) in devices.into_iter().enumerate() {
            let worker = WorkerIndex(n as u16);
            for (index, output) in [(FROM, Box::new(Sink) as Box<dyn DeviceOutput>), (TO, sink)] {
                engine.attach_output(index, worker, output).expect("there is a worker");
            }
            let attached = engine.attach_input(FROM, n as u16, worker, RxMode::Polling, source);
            assert!(attached.is_ok(), "there is a worker");
        }
        Rig { engine, workers }
    }

    /// One turn of each worker.
    #[inline]
    pub fn turn(&mut self) {
        for worker in &mut self.workers {
            worker.turn();
        }
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
