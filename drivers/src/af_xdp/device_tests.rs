//! The two devices in an engine, against a kernel made of memory.

use super::health::TxHealth;
use super::lent::Lent;
use super::testing::FakeKernel;
use super::{Area, Descriptor, RingSizes, XdpInput, XdpOutput};
use rustix::io::Errno;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use wharf_engine::buffer::{Owner, PoolConfig};

const STRIDE: usize = 2368;
use wharf_engine::device::RxMode;
use wharf_engine::engine::InterfaceSetup;
use wharf_engine::offload;
use wharf_engine::worker::Worker;
use wharf_engine::{
    Cx, DeviceOutput as Out, Disposition, Engine, EngineConfig, GraphBuilder, NoError, Node, PacketRef,
    SwIfIndex, WorkerIndex, next_nodes,
};

const ONE: SwIfIndex = SwIfIndex(1);
const SIZES: RingSizes = RingSizes { fill: 128, rx: 128, tx: 128, completion: 128 };
/// XDP_PKT_CONTD of linux/if_xdp.h.
const CONTINUES: u32 = 1;

/// Sends packets back to where they came from.
struct Echo;
next_nodes! { enum EchoNext { Back => Out } }

impl Node for Echo {
    const NAME: &'static str = "echo";
    type Meta = ();
    type Next = EchoNext;
    type Error = NoError;
    type Tables = ();

    fn process(&mut self, _: &Cx<'_, Self>, p: &mut PacketRef<'_>, (): ()) -> Disposition<Self> {
        Disposition::Next(EchoNext::Back(p.rx()))
    }
}

struct Rig {
    engine: Engine,
    worker: Worker,
    kernel: FakeKernel,
    area: Area,
    lent: [Arc<Lent>; 2],
    health: Arc<TxHealth>,
}

impl Rig {
    fn new(partial: bool, by_kernel: bool) -> Rig {
        Rig::with(PoolConfig::fixed(1024), partial, by_kernel)
    }

    fn with(pool: PoolConfig, partial: bool, by_kernel: bool) -> Rig {
        let mut list = GraphBuilder::new();
        list.node(|_| Echo).input("af_xdp-input");
        let config = EngineConfig { pool, ..Default::default() };
        let (mut engine, mut workers) = Engine::manual(&config, list).unwrap();
        let worker = workers.remove(0);
        let input = engine.graph().find("echo");
        engine.set_interface(ONE, Some(InterfaceSetup { name: "x".into(), up: true, input, loopback: None }));
        let (base, buffers) = (engine.pool().memory().base(), engine.pool().total());
        // SAFETY: no kernel but the fake one, which reads and writes no buffer.
        let area = unsafe { Area::new(base, buffers as usize * STRIDE, STRIDE as u32) }.unwrap();
        // The indices wrap within the first ring's worth.
        let (rx, tx, kernel) = FakeKernel::new(area, SIZES, u32::MAX - 50, false).unwrap();
        let lent = [Arc::new(Lent::new(buffers)), Arc::new(Lent::new(buffers))];
        let output = XdpOutput::new(tx, Arc::clone(&lent[1]), by_kernel);
        let health = Arc::clone(output.health());
        let input = XdpInput::new(rx, Arc::clone(&lent[0]), partial);
        engine.attach_output(ONE, WorkerIndex(0), Box::new(output)).unwrap();
        engine.attach_input(ONE, 0, WorkerIndex(0), RxMode::Polling, Box::new(input)).unwrap();
        let mut rig = Rig { engine, worker, kernel, area, lent, health };
        rig.turns(3);
        rig
    }

    fn turns(&mut self, count: u32) {
        for _ in 0..count {
            self.worker.turn();
        }
    }

    /// The kernel receives `frame`.
    fn deliver(&mut self, frame: &[u8]) -> u32 {
        let buffer = self.kernel.deliver(&self.area, frame.len() as u32).expect("an empty buffer");
        let at = self.area.base().wrapping_add(buffer as usize * STRIDE + 320);
        // SAFETY: the buffer was just taken from the fill ring, and nobody looks at it before the next turn.
        unsafe { std::ptr::copy_nonoverlapping(frame.as_ptr(), at, frame.len()) };
        buffer
    }

    fn bytes(&self, descriptor: Descriptor) -> Vec<u8> {
        let at = self.area.base().wrapping_add(descriptor.addr as usize);
        // SAFETY: a descriptor from the transmit ring lies in the area, and no worker runs.
        unsafe { std::slice::from_raw_parts(at, descriptor.len as usize) }.to_vec()
    }

    fn rx_errors(&self) -> u64 {
        self.engine.counters().rx_error.total()
    }

    fn tx_errors(&self) -> u64 {
        self.engine.counters().tx_error.total()
    }

    /// Everything is where it should be once the interface is deleted.
    fn finish(mut self) {
        self.turns(2);
        let balance = self.engine.balance();
        assert_eq!(balance.in_flight(), 0, "{balance:?}");
        self.engine.shut_down();
        self.turns(1);
        let pool = Arc::clone(self.engine.pool());
        drop(self.worker);
        for lent in &self.lent {
            lent.reclaim(&pool, Owner::device(ONE));
        }
        assert_eq!(pool.owners(), Some((pool.total(), 0, 0)), "buffers lost");
    }
}

/// What the kernel writes to the receive ring for a frame in a buffer.
fn entry(buffer: u32) -> u64 {
    (u64::from(buffer) * STRIDE as u64 + 64) | (256 << 48)
}

/// UDP over IPv4 in Ethernet with the checksum left as the pseudo-header's sum.
fn partial_frame() -> Vec<u8> {
    let mut f = vec![2; 12];
    f.extend([0x08, 0x00, 0x45, 0, 0, 32, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
    f.extend([0x04, 0xd2, 0x09, 0x29, 0, 12, 0, 0, 1, 2, 3, 4]);
    let pseudo: u32 = 0x0a00 + 1 + 0x0a00 + 2 + 17 + 12;
    f[40..42].copy_from_slice(&(pseudo as u16).to_be_bytes());
    f
}

#[test]
fn a_frame_crosses_in_the_buffer_it_came_in() {
    let mut rig = Rig::new(false, false);
    // Several times around each ring.
    for n in 0..1000u32 {
        let frame = [&[7; 60][..], &n.to_be_bytes()].concat();
        let buffer = rig.deliver(&frame);
        rig.turns(1);
        let sent = rig.kernel.transmit(8);
        assert_eq!(sent.len(), 1);
        assert_eq!(rig.area.completed(sent[0].addr), Some(buffer));
        assert_eq!(rig.bytes(sent[0]), frame);
    }
    assert_eq!((rig.rx_errors(), rig.tx_errors()), (0, 0));
    rig.finish();
}

#[test]
fn what_was_not_lent_is_not_taken() {
    let mut rig = Rig::new(false, false);
    let buffer = rig.deliver(&[1; 60]);
    let again = entry(buffer);
    let not_lent =
        (0..1024).rev().find(|b| *b != buffer && rig.lent[0].take(*b).map(|i| rig.lent[0].give(i)).is_none());
    let foreign = entry(not_lent.unwrap());
    for addr in [again, foreign, u64::MAX, 0, 1 << 40] {
        let mut slots = rig.kernel.rx.reserve(1);
        assert!(slots.push(Descriptor { addr, len: 60, options: 0 }));
    }
    for addr in [foreign, u64::MAX, 0] {
        assert!(rig.kernel.completion.reserve(1).push(addr));
    }
    rig.turns(3);
    assert_eq!(rig.rx_errors(), 5);
    assert_eq!(rig.kernel.transmit(8).len(), 1, "the one real frame");
    rig.finish();
}

#[test]
fn a_frame_over_several_buffers_is_dropped_whole() {
    let mut rig = Rig::new(false, false);
    for options in [CONTINUES, CONTINUES, 0] {
        let chunk = rig.kernel.fill.take(1).next().unwrap();
        assert!(rig.kernel.rx.reserve(1).push(Descriptor { addr: chunk | 256 << 48, len: 100, options }));
        // The parts need not arrive together.
        rig.turns(1);
    }
    assert_eq!(rig.kernel.transmit(8).len(), 0, "a part of a frame is no frame");
    rig.deliver(&[1; 60]);
    rig.turns(1);
    assert_eq!(rig.kernel.transmit(8).len(), 1, "the next frame is whole again");
    assert_eq!(rig.rx_errors(), 3);
    rig.finish();
}

#[test]
fn completions_withheld_fill_the_ring_and_no_more() {
    let mut rig = Rig::new(false, false);
    for _ in 0..4 {
        for _ in 0..100 {
            rig.deliver(&[1; 60]);
        }
        rig.turns(2);
    }
    assert_eq!(rig.tx_errors(), 400 - 128);
    let sent: Vec<_> = rig.kernel.tx.take(200).collect();
    assert_eq!(sent.len(), 128);
    for descriptor in sent {
        assert!(rig.kernel.completion.reserve(1).push(descriptor.addr));
    }
    rig.deliver(&[1; 60]);
    rig.turns(2);
    assert_eq!(rig.kernel.transmit(8).len(), 1, "room again");
    rig.finish();
}

/// Counts the fake kernel's calls to send, each answered with `errno`.
fn answer(rig: &Rig, errno: Errno) -> Arc<AtomicU32> {
    let calls = Arc::new(AtomicU32::new(0));
    let counter = Arc::clone(&calls);
    rig.kernel.on_send(move || {
        counter.fetch_add(1, Ordering::Relaxed);
        Err(errno)
    });
    calls
}

#[test]
fn a_queue_writes_down_what_waits_and_what_failed() {
    let mut rig = Rig::new(false, false);
    let calls = answer(&rig, Errno::INVAL);
    rig.deliver(&[7; 60]);
    rig.turns(3);
    let (no_memory, failed, last) = rig.health.failures();
    assert_eq!((no_memory, failed), (0, calls.load(Ordering::Relaxed).into()));
    assert_eq!(last.and_then(|e| e.raw_os_error()), Some(Errno::INVAL.raw_os_error()));
    assert_eq!(rig.health.held(), 1);
    let sent = rig.kernel.tx.take(1).next().unwrap();
    assert!(rig.kernel.completion.reserve(1).push(sent.addr));
    rig.turns(1);
    assert_eq!(rig.health.held(), 0);
    rig.finish();
}

#[test]
fn a_kernel_that_always_says_again_gets_a_bounded_number_of_calls() {
    let mut rig = Rig::new(false, false);
    let calls = answer(&rig, Errno::AGAIN);
    rig.deliver(&[1; 60]);
    rig.turns(1);
    assert!((1..=SIZES.tx / 32 + 1).contains(&calls.load(Ordering::Relaxed)));
    rig.kernel.on_send(|| Ok(()));
    rig.finish();
}

#[test]
fn while_the_link_is_down_packets_are_dropped_instead_of_kept() {
    let mut rig = Rig::new(false, false);
    let calls = answer(&rig, Errno::NETDOWN);
    for _ in 0..50 {
        rig.deliver(&[1; 60]);
        rig.turns(1);
    }
    assert!(calls.load(Ordering::Relaxed) <= 60, "one call a turn");
    assert_eq!(rig.tx_errors(), 49);
    // Up again: the one stale frame goes, and then fresh ones do.
    rig.kernel.on_send(|| Ok(()));
    assert_eq!(rig.kernel.transmit(100).len(), 1);
    rig.turns(2);
    rig.deliver(&[2; 60]);
    rig.turns(1);
    let sent = rig.kernel.transmit(100);
    assert_eq!(sent.len(), 1);
    assert_eq!(rig.bytes(sent[0]), [2; 60]);
    rig.finish();
}

#[test]
fn a_deleted_device_is_left_alone() {
    let mut rig = Rig::new(false, false);
    rig.kernel.set_needs_wakeup(true, true);
    let received = Arc::new(AtomicU32::new(0));
    let counter = Arc::clone(&received);
    rig.kernel.on_receive(move || {
        counter.fetch_add(1, Ordering::Relaxed);
        Err(Errno::NXIO)
    });
    let calls = answer(&rig, Errno::NXIO);
    for _ in 0..50 {
        rig.deliver(&[1; 60]);
        rig.turns(2);
    }
    assert_eq!(calls.load(Ordering::Relaxed), 1, "calls to send");
    assert_eq!(received.load(Ordering::Relaxed), 1, "calls to receive");
    assert_eq!(rig.tx_errors(), 49, "all but the packet that found out");
    rig.finish();
}

#[test]
fn partial_checksums_go_on_as_metadata_or_complete() {
    for (by_kernel, partial) in [(true, true), (false, true), (true, false)] {
        let mut rig = Rig::new(partial, by_kernel);
        rig.deliver(&partial_frame());
        rig.turns(1);
        let sent = rig.kernel.transmit(8);
        let with_metadata = sent[0].options & libc::XDP_TX_METADATA != 0;
        assert_eq!(with_metadata, by_kernel && partial);
        let open = offload::find_partial(&rig.bytes(sent[0])).is_some();
        assert_eq!(open, by_kernel || !partial, "completed in software only where the kernel does not");
        rig.finish();
    }
}

#[test]
fn buffers_of_a_pool_that_grew_do_not_starve_the_queues() {
    let mut rig = Rig::with(PoolConfig { limit: 2048, ..PoolConfig::fixed(512) }, false, false);
    let pool = Arc::clone(rig.engine.pool());
    let reachable = rig.area.buffers();
    // The pool runs dry and grows; what it had then comes back. The worker's cache meanwhile fills with the new ones.
    let held: Vec<_> = std::iter::from_fn(|| pool.alloc_one()).collect();
    assert!(pool.maintain(), "grows");
    assert!(pool.total() > reachable);
    for n in 0..2000u32 {
        if rig.kernel.deliver(&rig.area, 60).is_none() {
            assert!(n > 100);
            break;
        }
        rig.turns(1);
        // Nothing is completed: the cache gets no reachable buffer back.
        let _ = rig.kernel.tx.take(8).count();
    }
    held.into_iter().for_each(|buffer| pool.free_one(buffer));
    // The pool's list is looked through batch by batch.
    rig.turns(16);
    assert!(rig.kernel.deliver(&rig.area, 60).is_some(), "the pool has hundreds that the kernel can reach");
    rig.turns(2);
    rig.finish();
}
