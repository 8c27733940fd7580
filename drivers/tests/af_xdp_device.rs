//! AF_XDP interfaces in an engine: two pods with the Linux kernel as their stack, cross-connected. Needs root.

#[allow(dead_code, reason = "shared with the tests below the engine, which use all of it")]
#[path = "af_xdp_sys/lab.rs"]
mod lab;

use lab::{Lab, eventually, ip, numbered, run};
use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};
use wharf_drivers::af_xdp::{XdpConfig, XdpError, XdpEvent, XdpManager};
use wharf_engine::buffer::PoolConfig;
use wharf_engine::device::RxMode;
use wharf_engine::engine::{InputId, InterfaceSetup};
use wharf_engine::{
    Cx, DeviceOutput, Disposition, Engine, EngineConfig, GraphBuilder, NoError, Node, PacketRef, SwIfIndex,
    WorkerIndex, next_nodes,
};

const A: SwIfIndex = SwIfIndex(1);
const B: SwIfIndex = SwIfIndex(2);
const RING: u32 = 256;

/// Descriptors are counted, so tests take turns.
fn one_at_a_time() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Sends what one interface receives by the other.
struct Cross;
next_nodes! { enum CrossNext { Out => DeviceOutput } }

impl Node for Cross {
    const NAME: &'static str = "cross";
    type Meta = ();
    type Next = CrossNext;
    type Error = NoError;
    type Tables = ();

    fn process(&mut self, _: &Cx<'_, Self>, p: &mut PacketRef<'_>, (): ()) -> Disposition<Self> {
        Disposition::Next(CrossNext::Out(SwIfIndex(p.rx().0 ^ 3)))
    }
}

struct Rig {
    engine: Engine,
    manager: XdpManager,
    events: VecDeque<XdpEvent>,
    inputs: Vec<(SwIfIndex, InputId)>,
}

impl Rig {
    fn new() -> Rig {
        let mut list = GraphBuilder::new();
        list.node(|_| Cross).input("af_xdp-input");
        let pool = PoolConfig::fixed(8192);
        let engine = Engine::start(&EngineConfig { pool, ..Default::default() }, list).unwrap();
        Rig { engine, manager: XdpManager::default(), events: VecDeque::new(), inputs: Vec::new() }
    }

    fn config(lab: &Lab) -> XdpConfig {
        let mut config = XdpConfig::new("w0");
        config.netns = Some(lab.ours.clone());
        (config.rx_ring, config.tx_ring) = (RING, RING);
        config
    }

    fn create(&mut self, index: SwIfIndex, lab: &Lab) -> Result<usize, XdpError> {
        let pool = Arc::clone(self.engine.pool());
        let created = self.manager.create(index, Rig::config(lab), &pool)?;
        let input = self.engine.graph().find("cross");
        let name = format!("w{}", index.0).as_str().into();
        self.engine.set_interface(index, Some(InterfaceSetup { name, up: true, input, loopback: None }));
        let queues = created.inputs.len();
        for output in created.outputs.into_iter().take(1) {
            self.engine.attach_output(index, WorkerIndex(0), output).unwrap();
        }
        for (queue, input) in created.inputs.into_iter().enumerate() {
            let id = self.engine.attach_input(index, queue as u16, WorkerIndex(0), RxMode::Adaptive, input);
            self.inputs.push((index, id.unwrap()));
        }
        Ok(queues)
    }

    fn detach(&mut self, index: SwIfIndex) {
        for (_, id) in self.inputs.extract_if(.., |(of, _)| *of == index) {
            drop(self.engine.detach_input(id).unwrap());
        }
        drop(self.engine.detach_outputs(index).unwrap());
    }

    fn delete(&mut self, index: SwIfIndex) {
        self.detach(index);
        self.manager.delete(index).unwrap();
    }

    /// The next event, as main's loop would get it.
    fn event(&mut self) -> XdpEvent {
        eventually("an event", || {
            self.events.extend(self.manager.poll(Instant::now(), false));
            self.events.pop_front()
        })
    }

    /// Nothing is lost: not a packet, and once the workers are gone, not a buffer.
    fn finish(mut self) {
        for index in [A, B] {
            self.delete(index);
        }
        let balance = self.engine.balance();
        assert_eq!(balance.in_flight(), 0, "{balance:?}");
        self.engine.shut_down();
        let pool = Arc::clone(self.engine.pool());
        drop(self.engine);
        assert_eq!(pool.owners(), Some((pool.total(), 0, 0)), "buffers lost");
        assert_eq!(pool.stats().reserved, 0);
    }
}

/// Gives both pods an address of one network.
fn address(a: &Lab, b: &Lab) -> Ipv4Addr {
    ip(&format!("-n {} addr add 10.77.0.1/24 dev p0", a.theirs));
    ip(&format!("-n {} addr add 10.77.0.2/24 dev p0", b.theirs));
    Ipv4Addr::new(10, 77, 0, 2)
}

/// Sends `len` bytes from pod `a` to pod `b`, which sends them back; all must be as they were.
fn tcp(a: &Lab, b: &Lab, to: Ipv4Addr, port: u16, len: usize) {
    let listener = b.outside(|| TcpListener::bind((to, port)).unwrap());
    let data: Vec<u8> = (0..len as u32).map(|i| (i.wrapping_mul(0x9e37_79b1) >> 24) as u8).collect();
    let patience = Some(Duration::from_secs(20));
    thread::scope(|scope| {
        scope.spawn(|| {
            let (mut peer, _) = listener.accept().unwrap();
            peer.set_read_timeout(patience).unwrap();
            let mut all = Vec::new();
            peer.read_to_end(&mut all).unwrap();
            peer.write_all(&all).unwrap();
        });
        let at = (to, port).into();
        let mut stream = a.outside(|| TcpStream::connect_timeout(&at, Duration::from_secs(10))).unwrap();
        stream.set_read_timeout(patience).unwrap();
        stream.set_write_timeout(patience).unwrap();
        stream.write_all(&data).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut back = Vec::new();
        stream.read_to_end(&mut back).unwrap();
        assert!(back == data, "{} of {len} bytes came back, or other ones", back.len());
    });
}

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

#[test]
fn tcp_passes_with_checksum_offload_and_without() {
    let _turn = one_at_a_time();
    let before = descriptors();
    let (a, b) = (Lab::new(1, 1500), Lab::new(1, 1500));
    let mut rig = Rig::new();
    assert_eq!(rig.create(A, &a).unwrap(), 1);
    assert_eq!(rig.create(B, &b).unwrap(), 1);
    let to = address(&a, &b);
    for (port, tx) in [(7001, "on"), (7002, "off")] {
        for lab in [&a, &b] {
            run("ip", &format!("netns exec {} ethtool -K p0 tx {tx}", lab.theirs));
        }
        // Thousands of frames each way: many times around rings of 256.
        tcp(&a, &b, to, port, 4 << 20);
    }
    let info = rig.manager.info(A).unwrap();
    assert_eq!((info.queues, info.statistics.rx_invalid, info.statistics.tx_invalid), (1, 0, 0));
    rig.finish();
    for lab in [&a, &b] {
        assert_eq!(lab.inside(|| lab.link()).xdp_program, None, "the program stays");
    }
    assert_eq!(descriptors(), before, "descriptors lost");
}

#[test]
fn every_queue_of_an_interface_is_served() {
    let _turn = one_at_a_time();
    let (a, b) = (Lab::new(2, 1500), Lab::new(2, 1500));
    let mut rig = Rig::new();
    assert_eq!(rig.create(A, &a).unwrap(), 2);
    assert_eq!(rig.create(B, &b).unwrap(), 2);
    let to = address(&a, &b);
    // Connections hash to either queue.
    for port in 7010..7018 {
        tcp(&a, &b, to, port, 100_000);
    }
    rig.finish();
}

#[test]
fn traffic_goes_on_after_the_link_was_down() {
    let _turn = one_at_a_time();
    let (a, b) = (Lab::new(1, 1500), Lab::new(1, 1500));
    let mut rig = Rig::new();
    rig.create(A, &a).unwrap();
    rig.create(B, &b).unwrap();
    let to = address(&a, &b);
    tcp(&a, &b, to, 7020, 100_000);
    for (round, (ns, device)) in [(&b.theirs, "p0"), (&b.ours, "w0")].into_iter().enumerate() {
        ip(&format!("-n {ns} link set {device} down"));
        eventually("down", || (rig.event() == XdpEvent::Link(B, false)).then_some(()));
        let peer = a.peer();
        for n in 0..600 {
            peer.send(&numbered(n, 60));
        }
        ip(&format!("-n {ns} link set {device} up"));
        eventually("up", || (rig.event() == XdpEvent::Link(B, true)).then_some(()));
        tcp(&a, &b, to, 7021 + round as u16, 100_000);
    }
    rig.finish();
}

#[test]
fn a_device_deleted_under_traffic_gives_everything_back() {
    let _turn = one_at_a_time();
    let before = descriptors();
    let (a, b) = (Lab::new(1, 1500), Lab::new(1, 1500));
    let mut rig = Rig::new();
    rig.create(A, &a).unwrap();
    rig.create(B, &b).unwrap();
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let (peer, stop) = (a.peer(), &stop);
        scope.spawn(move || {
            let mut n = 0;
            while !stop.load(Ordering::Relaxed) {
                for _ in 0..32 {
                    peer.send(&numbered(n, 200));
                    n += 1;
                }
                thread::sleep(Duration::from_micros(500));
            }
        });
        let sent = |rig: &Rig| rig.engine.counters().tx.get(B.0).packets;
        eventually("traffic", || (sent(&rig) > 1000).then_some(()));
        ip(&format!("-n {} link del w0", b.ours));
        let lost = eventually("the loss", || match rig.event() {
            XdpEvent::Lost(index, why) => Some((index, why)),
            _ => None,
        });
        assert_eq!(lost, (B, "the Linux interface was deleted".to_owned()));
        // The other interface still works, and its packets have nowhere to go.
        let errors = rig.engine.counters().tx_error.get(B.0).packets;
        eventually("drops", || {
            (rig.engine.counters().tx_error.get(B.0).packets > errors + 100).then_some(())
        });
        assert!(rig.manager.delete(B).unwrap_err().to_string().contains("in use"), "queues are attached");
        rig.detach(B);
        stop.store(true, Ordering::Relaxed);
    });
    assert!(rig.manager.info(B).unwrap().lost.is_some());
    rig.finish();
    drop((a, b));
    assert_eq!(descriptors(), before, "descriptors lost");
}

#[test]
fn what_cannot_be_taken_over_is_refused_in_words() {
    let _turn = one_at_a_time();
    let before = descriptors();
    let (lab, large) = (Lab::new(1, 1500), Lab::new(1, 9000));
    let mut rig = Rig::new();
    let refused = |rig: &mut Rig, lab: &Lab| rig.create(A, lab).unwrap_err().to_string();
    assert_eq!(
        refused(&mut rig, &large),
        "w0 has MTU 9000: frames must fit one buffer, so at most 2030; `ip link set w0 mtu 1500' first"
    );
    let pool = Arc::clone(rig.engine.pool());
    let create =
        |rig: &mut Rig, index, config| rig.manager.create(index, config, &pool).unwrap_err().to_string();
    let config = XdpConfig { host_if: "absent0".into(), ..Rig::config(&lab) };
    assert_eq!(create(&mut rig, A, config), "there is no interface absent0 in this network namespace");
    let config = XdpConfig { netns: Some("wh-absent".into()), ..Rig::config(&lab) };
    assert!(create(&mut rig, A, config).starts_with("network namespace wh-absent: "));
    for rx_ring in [0, 100, u32::MAX, 1 << 31] {
        let error = create(&mut rig, A, XdpConfig { rx_ring, ..Rig::config(&lab) });
        assert!(error.contains("not a power of two"), "{error}");
    }
    let error = create(&mut rig, A, XdpConfig { rx_ring: 4096, ..Rig::config(&lab) });
    assert!(error.contains("out of buffers: 8448 needed"), "{error}");

    let memory = lab::Pool::new();
    let other = lab.open(&memory, 0).unwrap();
    assert_eq!(refused(&mut rig, &lab), "queue 0 of w0 is in use by another AF_XDP socket");
    drop(other);
    // None of the refusals left anything behind.
    rig.create(A, &lab).unwrap();
    assert_eq!(create(&mut rig, B, Rig::config(&lab)), "w0 is taken already");
    let other = Lab::new(1, 1500);
    assert_eq!(create(&mut rig, A, Rig::config(&other)), "sw_if_index 1 is taken already");
    let mut second = XdpManager::default();
    let error = second.create(B, Rig::config(&lab), &pool).unwrap_err().to_string();
    assert!(error.starts_with("w0 is in use by process ") && error.contains("XDP program (id "), "{error}");
    rig.finish();
    drop(pool);
    drop((lab, large, other));
    assert_eq!(descriptors(), before, "descriptors lost");
}
