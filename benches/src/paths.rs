//! wharf's own nodes between two devices: cross-connect and IPv4 forwarding.

use std::sync::Arc;

use wharf_engine::GraphBuilder;
use wharf_engine::counter::Combined;
use wharf_engine::device::{DeviceInput, DeviceOutput};
use wharf_engine::dispatch::CpuLevel;
use wharf_engine::mtrie::MtrieWriter;
use wharf_engine::wake::Waker;
use wharf_nodes::interface::{InputMode, InterfaceEntry, InterfaceTables};
use wharf_nodes::ip4::{Adjacency, AdjacencyKind, Ip4Interface, Ip4Tables};
use wharf_nodes::l2::{L2Port, L2Tables, PortMode};
use wharf_nodes::wire::checksum::checksum;
use wharf_nodes::wire::ethernet::MacAddress;

use crate::rig::{FROM, Rig, TO};

const MAC: [u8; 6] = [2, 0xfe, 0, 0, 0, 1];
/// First destination, 16.0.0.0.
pub const FIRST: u32 = 0x1000_0000;
/// Plies that a table may have.
const PLIES: u32 = 1 << 16;

/// A row of pseudo-random numbers, the same in each run.
#[derive(Debug)]
pub struct Random(u32);

impl Random {
    /// From its start.
    #[allow(clippy::new_without_default, reason = "a row has a start, not a default")]
    pub fn new() -> Random {
        Random(1)
    }

    /// The next number below `limit`.
    pub fn below(&mut self, limit: u32) -> u32 {
        self.0 = self.0.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        ((u64::from(self.0) * u64::from(limit)) >> 32) as u32
    }
}

/// UDP over IPv4 to `destination`, 60 bytes.
pub fn packet(destination: u32) -> Vec<u8> {
    let mut p = vec![0; 60];
    p[..6].copy_from_slice(&MAC);
    p[6] = 2;
    p[12..14].copy_from_slice(&[8, 0]);
    p[14] = 0x45;
    p[17] = 46;
    p[22] = 64;
    p[23] = 17;
    p[26..30].copy_from_slice(&[192, 168, 1, 2]);
    p[30..34].copy_from_slice(&destination.to_be_bytes());
    let sum = checksum(&p[14..34]);
    p[24..26].copy_from_slice(&sum.to_be_bytes());
    p
}

/// Packets to `count` random ones of the addresses that [`fib`] of so many routes has.
pub fn packets(routes: u32, count: u32) -> Vec<Vec<u8>> {
    let mut random = Random::new();
    (0..count).map(|_| packet(FIRST + random.below(routes))).collect()
}

/// So many host routes in a row from [`FIRST`] on; or the one route of 16.0.0.0/8.
pub fn fib(routes: u32) -> MtrieWriter {
    let mut fib = MtrieWriter::new(PLIES);
    if routes == 1 {
        fib.insert(FIRST, 8, 1).expect("there is room");
    } else {
        (0..routes).for_each(|i| fib.insert(FIRST + i, 32, 1).expect("there is room"));
    }
    fib
}

/// What is between the devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Path {
    /// Cross-connect.
    Xconnect,
    /// IPv4 with as many routes as [`fib`] has.
    Ip4(u32),
}

/// All of wharf's nodes, set up for `path` between `source`, on [`FROM`], and `sink`, on [`TO`].
pub fn rig(
    path: Path,
    level: Option<CpuLevel>,
    source: Box<dyn DeviceInput>,
    sink: Box<dyn DeviceOutput>,
) -> Rig {
    let mut list = GraphBuilder::new();
    // The events say nothing here.
    let _events = wharf_nodes::nodes(&mut list, Waker::new().expect("an eventfd"));
    // As the control plane has it: an interface in L2 mode has no need of ethernet-input.
    let (input, mode, routes) = match path {
        Path::Xconnect => ("l2-input", InputMode::L2, 1),
        Path::Ip4(routes) => ("ethernet-input", InputMode::L3, routes),
    };
    let mut rig = Rig::new(list, input, level, source, sink);
    let entry = InterfaceEntry { up: true, mode, mac: MacAddress(MAC), ip4: true };
    rig.engine
        .tables::<InterfaceTables>()
        .publish(InterfaceTables { list: vec![entry; 2], ..InterfaceTables::default() });
    let port = L2Port { mode: PortMode::Xconnect, peer: TO, ..L2Port::default() };
    rig.engine.tables::<L2Tables>().publish(L2Tables { ports: vec![port; 2], ..L2Tables::default() });

    let counters = Arc::new(Combined::new(1));
    (0..2).for_each(|i| counters.ensure(i));
    let rewrite = Adjacency {
        rewrite: [2, 0, 0, 0, 0, 2, 2, 0xfe, 0, 0, 0, 2, 8, 0],
        mtu: 1500,
        tx: TO,
        next_hop: 0,
        kind: AdjacencyKind::Rewrite,
    };
    let interface = Ip4Interface { fib_index: 0, address: 0xc0a8_0101, enabled: true };
    rig.engine.tables::<Ip4Tables>().publish(Ip4Tables {
        fibs: vec![Arc::clone(fib(routes).table())],
        adjacencies: vec![Adjacency::default(), rewrite],
        counters,
        interfaces: vec![interface; 2],
    });
    assert_eq!(FROM.0, 0, "what the lists above begin with");
    rig
}
