//! The devices between an engine and a peer that speaks through the protocol crate itself.

use super::*;
use ::memif::{
    Address, Client, ClientConfig, Connection, InterfaceConfig, Listener, ListenerConfig, Mode, Role,
    RxQueue, Secret, ServerEvent,
};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};
use wharf_engine::buffer::PoolConfig;
use wharf_engine::device::RxMode;
use wharf_engine::engine::InterfaceSetup;
use wharf_engine::{
    Cx, DeviceOutput as Out, Disposition, Engine, EngineConfig, GraphBuilder, NoError, Node, PacketRef,
    SwIfIndex, WorkerIndex, flags, next_nodes,
};

const ONE: SwIfIndex = SwIfIndex(1);
const PATIENCE: Duration = Duration::from_secs(20);
/// First byte of packets that the graph marks as in want of a checksum.
const PARTIAL: u8 = 0x42;

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
        if p.header::<[u8; 1]>()[0] == PARTIAL {
            p.add_flags(flags::L4_CSUM_PARTIAL);
        }
        Disposition::Next(EchoNext::Back(p.rx()))
    }
}

/// A directory of its own, removed in the end.
struct Dir(PathBuf);

impl Dir {
    fn new() -> Dir {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("wharf-memif-{}-{n}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Dir(path)
    }

    fn address(&self) -> Address {
        Address::parse(self.0.join("memif.sock").to_str().unwrap()).unwrap()
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// An engine with workers on threads, and main's work for memif.
struct Rig {
    engine: Engine,
    manager: MemifManager,
    mode: RxMode,
    /// Added to the clock that the manager sees.
    ahead: Duration,
    dir: Dir,
    log: Vec<String>,
}

impl Rig {
    fn new(workers: usize, mode: RxMode) -> Rig {
        let mut list = GraphBuilder::new();
        list.node(|_| Echo).input("memif-input");
        let pool = PoolConfig::fixed(2048);
        let config = EngineConfig { workers: vec![None; workers], pool, ..Default::default() };
        let mut engine = Engine::start(&config, list).unwrap();
        let input = engine.graph().find("echo");
        engine.set_interface(
            ONE,
            Some(InterfaceSetup { name: "memif0/0".into(), up: true, input, loopback: None }),
        );
        let dir = Dir::new();
        let manager = MemifManager::new(&dir.0, "wharf").unwrap();
        Rig { engine, manager, mode, ahead: Duration::ZERO, dir, log: Vec::new() }
    }

    fn server(workers: usize, mode: RxMode, change: impl FnOnce(&mut MemifConfig)) -> Rig {
        let mut rig = Rig::new(workers, mode);
        let mut config = MemifConfig::new(0, 0, Role::Server);
        change(&mut config);
        rig.manager.create(ONE, config, Instant::now()).unwrap();
        rig
    }

    fn now(&self) -> Instant {
        Instant::now() + self.ahead
    }

    fn poll(&mut self) {
        for event in self.manager.poll(self.now()) {
            match event {
                MemifEvent::Connected { sw_if_index, inputs, outputs, info } => {
                    self.log.push(format!("connected {}", info.remote_interface));
                    let workers = self.engine.workers();
                    for (i, output) in outputs.into_iter().take(workers).enumerate() {
                        self.engine.attach_output(sw_if_index, WorkerIndex(i as u16), output).unwrap();
                    }
                    self.settle();
                    for (i, input) in inputs.into_iter().enumerate() {
                        let worker = WorkerIndex((i % workers) as u16);
                        self.engine.attach_input(sw_if_index, i as u16, worker, self.mode, input).unwrap();
                    }
                }
                MemifEvent::Disconnected { sw_if_index, reason } => {
                    self.log.push(format!("disconnected: {reason}"));
                    for input in self.engine.inputs().to_vec() {
                        self.engine.detach_input(input.id).unwrap();
                    }
                    self.engine.detach_outputs(sw_if_index).unwrap();
                }
                MemifEvent::Failed { socket_id, sw_if_index, reason } => {
                    let who = sw_if_index.map_or("-".into(), |i| i.to_string());
                    self.log.push(format!("failed {socket_id} {who}: {reason}"));
                }
            }
        }
    }

    /// Waits until the workers see what was published.
    fn settle(&self) {
        for worker in (0..self.engine.workers()).filter_map(|i| self.engine.worker(WorkerIndex(i as u16))) {
            let loops = worker.loops.load(Ordering::Relaxed);
            while worker.loops.load(Ordering::Relaxed) < loops + 2 && !worker.is_sleeping() {
                std::thread::yield_now();
            }
        }
    }

    /// Polls until `done` says so.
    fn wait(&mut self, what: &str, mut done: impl FnMut(&mut Rig) -> bool) {
        let start = Instant::now();
        while !done(self) {
            assert!(
                start.elapsed() < PATIENCE,
                "{what} does not come; log {:?}, rx errors {:?}, {:?}, {:?}",
                self.log,
                self.error(),
                self.engine.balance(),
                self.manager.info(ONE)
            );
            self.poll();
            std::thread::yield_now();
        }
    }

    fn peer(&mut self, change: impl FnOnce(&mut ClientConfig)) -> Connection {
        let mut config = ClientConfig::new(self.dir.address(), 0);
        config.name = "peer".into();
        change(&mut config);
        let mut client = Client::connect(config, Instant::now()).unwrap();
        let mut link = None;
        self.wait("a connection", |_| {
            link = client.process(Instant::now()).unwrap();
            link.is_some()
        });
        self.wait("the event", |rig| rig.manager.info(ONE).unwrap().connected);
        link.unwrap()
    }

    fn error(&self) -> (u64, u64) {
        let counters = self.engine.counters();
        (counters.rx_error.get(1).packets, counters.rx_no_buf.get(1).packets)
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        self.engine.shut_down();
        assert_eq!(self.engine.balance().in_flight(), 0);
        let stats = self.engine.pool().stats();
        assert_eq!(stats.available, stats.total, "buffers lost");
    }
}

/// A packet that says who it is.
fn packet(number: u32, len: usize) -> Vec<u8> {
    let mut bytes: Vec<u8> =
        (0..len).map(|i| (i as u32).wrapping_mul(7).wrapping_add(number) as u8).collect();
    bytes[0] = 2;
    bytes[4..8].copy_from_slice(&number.to_be_bytes());
    bytes
}

fn take(queue: &mut RxQueue, into: &mut Vec<Vec<u8>>) {
    queue.receive_with(256, |p| {
        let mut bytes = vec![0; p.len()];
        p.copy_to(&mut bytes);
        into.push(bytes);
    });
}

/// Sends `packets` on queue `queue` and receives until as many are back as are `expected`.
fn exchange(
    rig: &mut Rig,
    link: &mut Connection,
    queue: usize,
    packets: &[Vec<u8>],
    expected: usize,
) -> Vec<Vec<u8>> {
    let (mut sent, mut back) = (0, Vec::new());
    let (tx, rx) = (&mut link.tx[queue], &mut link.rx[queue]);
    rig.wait("the echo", |_| {
        // No more on their way than the rings hold.
        let burst = 200.min(packets.len() - sent).min(400usize.saturating_sub(sent - back.len().min(sent)));
        sent += tx.transmit(&packets[sent..sent + burst]);
        tx.kick();
        take(rx, &mut back);
        sent == packets.len() && back.len() >= expected
    });
    back
}

#[test]
fn what_goes_in_comes_back_byte_for_byte() {
    for queues in [1, 2] {
        let mut rig = Rig::server(queues, RxMode::Adaptive, |_| {});
        let mut link = rig.peer(|c| (c.rx_queues, c.tx_queues) = (queues as u16, queues as u16));
        for queue in 0..queues {
            let packets: Vec<_> =
                (0..3000u32).map(|i| packet(i, 60 + (i as usize * 7) % (2048 - 60 + 1))).collect();
            assert!(packets.iter().any(|p| p.len() == 2048) && packets[0].len() == 60);
            let back = exchange(&mut rig, &mut link, queue, &packets, packets.len());
            assert!(back == packets, "queue {queue} of {queues}");
        }
        let info = rig.manager.info(ONE).unwrap();
        assert_eq!((info.num_s2m_rings, info.num_m2s_rings), (queues, queues));
        assert!(info.rings.iter().all(|r| r.packets == 3000), "{info:?}");
        assert_eq!(rig.engine.counters().rx.get(1).packets, 3000 * queues as u64);
        assert_eq!(rig.engine.counters().tx.get(1).packets, 3000 * queues as u64);
        assert_eq!(rig.error(), (0, 0));
    }
}

#[test]
fn what_is_longer_than_a_buffer_is_counted_as_an_error() {
    let mut rig = Rig::server(1, RxMode::Polling, |_| {});
    let mut link = rig.peer(|_| {});
    let lens = [60, 2049, 2048, 5000, 9000, 61];
    let packets: Vec<_> = lens.iter().zip(0..).map(|(len, i)| packet(i, *len)).collect();
    let back = exchange(&mut rig, &mut link, 0, &packets, 3);
    assert_eq!(back, [packets[0].clone(), packets[2].clone(), packets[5].clone()]);
    assert_eq!(rig.error(), (3, 0));
    assert_eq!(rig.manager.info(ONE).unwrap().rings[1].lost, 3);
}

#[test]
fn a_sleeping_worker_is_woken_and_wakes_its_peer() {
    for mode in [RxMode::Interrupt, RxMode::Adaptive] {
        let mut rig = Rig::server(1, mode, |_| {});
        let mut link = rig.peer(|_| {});
        let woken = |rig: &Rig| rig.engine.worker(WorkerIndex(0)).unwrap().fd_wakeups.load(Ordering::Relaxed);
        // What comes while it is still going to sleep wakes nobody.
        for round in 0.. {
            if woken(&rig) >= 3 {
                break;
            }
            assert!(round < 100, "{mode}: never woken");
            rig.wait("sleep", |rig| rig.engine.worker(WorkerIndex(0)).unwrap().is_sleeping());
            link.rx[0].set_interrupt_mode(true);
            assert!(!link.rx[0].has_work());
            link.tx[0].transmit(&[packet(round, 64)][..]);
            link.tx[0].kick();
            let fd = link.rx[0].fd();
            let mut fds = [rustix::event::PollFd::from_borrowed_fd(fd, rustix::event::PollFlags::IN)];
            let second = rustix::time::Timespec { tv_sec: 20, tv_nsec: 0 };
            assert_eq!(rustix::event::poll(&mut fds, Some(&second)).unwrap(), 1, "{mode}");
            let mut back = Vec::new();
            assert!(link.rx[0].drain_fd());
            take(&mut link.rx[0], &mut back);
            assert_eq!(back, [packet(round, 64)]);
        }
    }
}

#[test]
fn a_peer_that_vanishes_can_come_back() {
    let mut rig = Rig::server(2, RxMode::Adaptive, |_| {});
    for round in 0..4 {
        let mut link = rig.peer(|c| (c.rx_queues, c.tx_queues) = (2, 2));
        let packets: Vec<_> = (0..200).map(|i| packet(i, 300)).collect();
        let back = exchange(&mut rig, &mut link, 1, &packets, 200);
        assert!(back == packets, "round {round}");
        // Gone in the middle of traffic, with a word or without.
        link.tx[0].transmit(&packets[..]);
        link.tx[0].kick();
        if round % 2 == 0 {
            link.control.disconnect("bye");
        }
        drop(link);
        rig.wait("the end", |rig| !rig.manager.info(ONE).unwrap().connected);
        assert!(rig.engine.inputs().is_empty());
        let info = rig.manager.info(ONE).unwrap();
        let reason = if round % 2 == 0 { "bye" } else { "interface closed" };
        assert_eq!(info.remote_disc_reason.as_deref(), Some(reason));
        assert!(info.rings.is_empty() && info.conn_fd.is_none());
    }
    assert_eq!(rig.log.iter().filter(|l| *l == "connected peer").count(), 4);
}

#[test]
fn deleting_an_interface_ends_its_connection() {
    let mut rig = Rig::server(1, RxMode::Polling, |_| {});
    let mut link = rig.peer(|_| {});
    rig.manager.delete(ONE).unwrap();
    assert!(rig.manager.info(ONE).is_none());
    rig.wait("the end", |_| link.control.process().is_some());
    // The devices are still with the worker, and still.
    link.tx[0].transmit(&[packet(0, 64)][..]);
    let loops = |rig: &Rig| rig.engine.worker(WorkerIndex(0)).unwrap().loops.load(Ordering::Relaxed);
    let before = loops(&rig);
    rig.wait("some turns", |rig| loops(rig) > before + 10);
    assert_eq!(rig.engine.counters().rx.get(1).packets, 0);
}

#[test]
fn a_client_waits_for_its_server_with_back_off() {
    let mut rig = Rig::new(1, RxMode::Adaptive);
    let config = MemifConfig { ring_size: 256, buffer_size: 1024, ..MemifConfig::new(0, 0, Role::Client) };
    rig.manager.create(ONE, config, Instant::now()).unwrap();
    rig.poll();
    assert!(rig.log.is_empty() && rig.manager.next_deadline().is_none(), "down: no attempt");
    rig.manager.set_admin(ONE, true, rig.now()).unwrap();
    assert!(rig.manager.next_deadline().is_some());
    for _ in 0..5 {
        rig.poll();
        rig.ahead += Duration::from_secs(3);
    }
    assert_eq!(rig.log.len(), 1, "told once: {:?}", rig.log);
    assert!(rig.log[0].starts_with("failed 0 1: nobody listens"), "{:?}", rig.log);
    assert!(rig.manager.info(ONE).unwrap().last_error.is_some());

    let mut listener = Listener::bind(ListenerConfig::new(rig.dir.address()), Instant::now()).unwrap();
    listener.add(InterfaceConfig::new(0, "server")).unwrap();
    let mut link = None;
    rig.ahead += Duration::from_secs(3);
    rig.wait("the server", |rig| {
        for event in listener.process(Instant::now()) {
            match event {
                ServerEvent::Connected(connection) => link = Some(connection),
                other => panic!("{other:?}"),
            }
        }
        link.is_some() && rig.manager.info(ONE).unwrap().connected
    });
    let mut link = link.unwrap();
    // Longer than a buffer of the ring: chained on the way.
    let packets: Vec<_> = (0..500).map(|i| packet(i, 60 + i as usize * 3)).collect();
    let mut back = Vec::new();
    for part in packets.chunks(100) {
        back.extend(exchange(&mut rig, &mut link, 0, part, part.len()));
    }
    assert!(back == packets);
    let info = rig.manager.info(ONE).unwrap();
    assert_eq!((info.buffer_size, info.rings[0].ring_size), (1024, 256));
    assert_eq!((info.remote_name.as_str(), info.remote_interface.as_str()), ("memif", "server"));
    drop(link);
    rig.wait("the end", |rig| !rig.manager.info(ONE).unwrap().connected);
    assert!(rig.manager.next_deadline().is_some(), "it tries again");
    rig.manager.set_admin(ONE, false, rig.now()).unwrap();
    assert!(rig.manager.next_deadline().is_none());
}

#[test]
fn a_checksum_left_to_the_device_is_finished() {
    // TCP over IPv4 with the sum of the pseudo-header in the checksum's place.
    let mut frame = vec![PARTIAL, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0];
    frame.extend([0x45, 0, 0, 46, 0, 0, 0, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
    frame.extend([0, 80, 0, 81, 0, 0, 0, 1, 0, 0, 0, 2, 0x50, 0x10, 1, 0, 0, 0, 0, 0]);
    frame.extend([1, 2, 3, 4, 5, 6]);
    let pseudo = 0x0a00 + 1 + 0x0a00 + 2 + 6 + 26u16;
    frame[50..52].copy_from_slice(&pseudo.to_be_bytes());
    let mut unmarked = frame.clone();
    unmarked[0] = 2;
    let mut rig = Rig::server(1, RxMode::Adaptive, |_| {});
    let mut link = rig.peer(|_| {});
    let back = exchange(&mut rig, &mut link, 0, &[frame.clone(), unmarked.clone()], 2);
    assert_eq!(back[1], unmarked, "only what is marked is touched");
    let sum: u32 = [&frame[34..50], &[0, 0][..], &frame[52..60]]
        .concat()
        .chunks(2)
        .map(|w| u32::from(u16::from_be_bytes([w[0], w[1]])))
        .sum::<u32>()
        + u32::from(pseudo);
    let expected = !((sum & 0xffff) + (sum >> 16)) as u16;
    assert_eq!(back[0][50..52], expected.to_be_bytes());
    assert_eq!((&back[0][..50], &back[0][52..]), (&frame[..50], &frame[52..]));
}

#[test]
fn secrets_and_modes_must_match() {
    let secret = Secret::new(b"open sesame").unwrap();
    let mut rig = Rig::server(1, RxMode::Adaptive, |c| {
        c.secret = Some(secret);
        c.mode = Mode::Ip;
    });
    let mut config = ClientConfig::new(rig.dir.address(), 0);
    config.mode = Mode::Ip;
    let mut client = Client::connect(config, Instant::now()).unwrap();
    rig.wait("refusal", |rig| client.process(Instant::now()).is_err() && !rig.log.is_empty());
    assert!(rig.log[0].starts_with("failed 0 "), "{:?}", rig.log);
    assert!(!rig.log[0].contains("sesame"));
    let link = rig.peer(|c| {
        c.secret = Some(secret);
        c.mode = Mode::Ip;
    });
    assert_eq!(link.info.remote_app, "wharf");
    assert_eq!(link.info.remote_interface, "memif0/0");
}

#[test]
fn many_interfaces_on_a_socket_and_what_is_refused() {
    let dir = Dir::new();
    let now = Instant::now();
    let mut manager = MemifManager::new(&dir.0, "wharf").unwrap();
    let says = |result: Result<(), MemifError>| result.unwrap_err().to_string();
    for id in 0..3 {
        manager.create(SwIfIndex(id + 1), MemifConfig::new(0, id, Role::Server), now).unwrap();
    }
    assert_eq!(manager.find(0, 2), Some(SwIfIndex(3)));
    let server = |socket, id| MemifConfig::new(socket, id, Role::Server);
    let client = |socket, id| MemifConfig::new(socket, id, Role::Client);
    assert_eq!(
        says(manager.create(SwIfIndex(9), server(0, 1), now)),
        "memif socket 0 has an interface with id 1 already"
    );
    assert_eq!(
        says(manager.create(SwIfIndex(3), server(0, 9), now)),
        "sw_if_index 3 is a memif interface already"
    );
    assert_eq!(
        says(manager.create(SwIfIndex(9), client(0, 9), now)),
        "memif socket 0 is used by server (master) interfaces: a client (slave) interface needs another socket id"
    );
    assert_eq!(says(manager.create(SwIfIndex(9), server(7, 0), now)), "there is no memif socket 7");
    assert_eq!(says(manager.delete(SwIfIndex(9))), "sw_if_index 9 is not a memif interface");

    let other = Address::parse("@wharf-test-other").unwrap();
    manager.add_socket(7, other.clone(), Access::default()).unwrap();
    manager.add_socket(7, other, Access::default()).unwrap();
    let error = says(manager.add_socket(7, dir.address(), Access::default()));
    assert_eq!(error, "memif socket 7 exists already: @wharf-test-other");
    assert_eq!(
        says(manager.create(SwIfIndex(9), server(7, 0), now)),
        "interface id 0: an abstract socket needs a secret, or users or groups that are allowed"
    );
    manager.create(SwIfIndex(9), client(7, 0), now).unwrap();
    assert_eq!(says(manager.delete_socket(7)), "memif socket 7 is used by 1 interface(s)");
    assert_eq!(says(manager.delete_socket(0)), "memif socket 0 is the default socket and cannot be deleted");
    let sockets: BTreeMap<_, _> =
        manager.sockets().into_iter().map(|s| (s.id, (s.listener, s.interfaces))).collect();
    assert_eq!(sockets, BTreeMap::from([(0, (true, 3)), (7, (false, 1))]));

    manager.delete(SwIfIndex(9)).unwrap();
    manager.delete_socket(7).unwrap();
    let file = dir.0.join("memif.sock");
    assert!(file.exists());
    for index in 1..=3 {
        manager.delete(SwIfIndex(index)).unwrap();
    }
    assert!(!file.exists(), "nobody listens any more");
    manager.create(SwIfIndex(1), client(0, 0), now).unwrap();
}
