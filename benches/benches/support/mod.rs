//! A worker with a source of packets and a sink, turned by hand.

use wharf_engine::buffer::{DATA_START, PoolConfig};
use wharf_engine::device::{DeviceInput, DeviceOutput, RxBurst, RxMode, TxBurst};
use wharf_engine::engine::InterfaceSetup;
use wharf_engine::worker::Worker;
use wharf_engine::{Engine, EngineConfig, GraphBuilder, Packet, SwIfIndex, WorkerIndex};

use std::os::fd::BorrowedFd;

/// Packets in a turn: one, what a node handles at once, what testpmd takes, and a whole frame.
#[allow(dead_code, reason = "not every benchmark uses it")]
pub(crate) const SIZES: [usize; 4] = [1, 4, 32, 256];

/// Name of the input node.
pub(crate) const INPUT: &str = "bench-input";

/// The interface that packets come from.
pub(crate) const FROM: SwIfIndex = SwIfIndex(0);
/// The interface that they are for.
pub(crate) const TO: SwIfIndex = SwIfIndex(1);

/// Packets, over and over, so many a turn.
struct Source {
    packets: Vec<Vec<u8>>,
    next: usize,
    burst: usize,
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
struct Sink;

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
pub(crate) struct Rig {
    /// The engine.
    pub(crate) engine: Engine,
    worker: Worker,
    turns: u64,
    burst: usize,
}

impl Rig {
    /// `list`, to which packets come at node `input`, `burst` a turn.
    pub(crate) fn new(mut list: GraphBuilder, input: &str, packets: Vec<Vec<u8>>, burst: usize) -> Rig {
        list.input(INPUT);
        let pool = PoolConfig { buffers: 2048, limit: 2048, ..Default::default() };
        let config = EngineConfig { pool, ..Default::default() };
        let (mut engine, mut workers) = Engine::manual(&config, list).expect("the graph is right");
        let node = engine.graph().find(input);
        assert!(node.is_some(), "no node {input}");
        for (index, name) in [(FROM, "from"), (TO, "to")] {
            let setup = InterfaceSetup { name: name.into(), up: true, input: node, loopback: false };
            engine.set_interface(index, Some(setup));
            engine.attach_output(index, WorkerIndex(0), Box::new(Sink)).expect("there is a worker");
        }
        let source = Box::new(Source { packets, next: 0, burst });
        let attached = engine.attach_input(FROM, 0, WorkerIndex(0), RxMode::Polling, source);
        assert!(attached.is_ok(), "there is a worker");
        let worker = workers.pop().expect("there is a worker");
        Rig { engine, worker, turns: 0, burst }
    }

    /// One turn of the worker.
    #[inline]
    pub(crate) fn turn(&mut self) {
        self.worker.turn();
        self.turns += 1;
    }

    /// Turns once, and checks that the packets of all turns went where they should.
    pub(crate) fn check(&mut self) {
        self.turn();
        let balance = self.engine.balance();
        assert_eq!(balance.sent, self.turns * self.burst as u64, "{balance:?}");
    }
}
