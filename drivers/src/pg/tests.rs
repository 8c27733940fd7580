//! The devices in an engine: what is played goes through the graph and into a capture.

use super::*;
use pcap_file::pcap::{PcapHeader, PcapPacket, PcapReader, PcapWriter};
use pcap_file::{DataLink, TsResolution};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};
use wharf_engine::buffer::PoolConfig;
use wharf_engine::clock;
use wharf_engine::device::RxMode;
use wharf_engine::engine::InterfaceSetup;
use wharf_engine::worker::Worker;
use wharf_engine::{
    Cx, DeviceOutput, Disposition, Engine, EngineConfig, GraphBuilder, NoError, Node, PacketRef, SwIfIndex,
    WorkerIndex, next_nodes,
};

const IN: SwIfIndex = SwIfIndex(1);
const OUT: SwIfIndex = SwIfIndex(2);

/// Sends everything to one interface.
struct Forward;
next_nodes! { enum ForwardNext { Out => DeviceOutput } }

impl Node for Forward {
    const NAME: &'static str = "forward";
    type Meta = ();
    type Next = ForwardNext;
    type Error = NoError;
    type Tables = ();

    fn process(&mut self, _: &Cx<'_, Self>, _: &mut PacketRef<'_>, (): ()) -> Disposition<Self> {
        Disposition::Next(ForwardNext::Out(OUT))
    }
}

fn config() -> EngineConfig {
    let pool = PoolConfig::fixed(1700);
    EngineConfig { pool, ..Default::default() }
}

fn list() -> GraphBuilder {
    let mut list = GraphBuilder::new();
    list.node(|_| Forward).input("pg-input");
    list
}

/// pg0 plays, pg1 records.
fn attach(engine: &mut Engine, mode: RxMode) -> (PgInterface, PgInterface) {
    let (pg0, input, _) = PgInterface::new("pg0", PgMode::Ethernet).unwrap();
    let (pg1, _, output) = PgInterface::new("pg1", PgMode::Ethernet).unwrap();
    let node = engine.graph().find("forward");
    for (index, name) in [(IN, "pg0"), (OUT, "pg1")] {
        let setup = InterfaceSetup { name: name.into(), up: true, input: node, loopback: None };
        engine.set_interface(index, Some(setup));
    }
    engine.attach_output(OUT, WorkerIndex(0), Box::new(output)).unwrap();
    engine.attach_input(IN, 0, WorkerIndex(0), mode, Box::new(input)).unwrap();
    (pg0, pg1)
}

/// An engine whose one worker the test turns.
struct Rig {
    pg0: PgInterface,
    pg1: PgInterface,
    engine: Engine,
    worker: Option<Worker>,
}

impl Rig {
    fn new() -> Rig {
        let (mut engine, mut workers) = Engine::manual(&config(), list()).unwrap();
        let (pg0, pg1) = attach(&mut engine, RxMode::Polling);
        let mut rig = Rig { pg0, pg1, engine, worker: workers.pop() };
        rig.turn();
        rig
    }

    fn turn(&mut self) -> bool {
        let work = self.worker.as_mut().is_some_and(Worker::turn);
        self.pg0.poll();
        self.pg1.poll();
        work
    }

    fn run(&mut self) {
        for _ in 0..10_000 {
            if !self.turn() {
                return;
            }
        }
        panic!("no end");
    }

    fn sent(&self) -> u64 {
        self.pg1.counters().get().0
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        self.pg0.disable_all();
        self.run();
        assert_eq!(self.engine.balance().in_flight(), 0);
        self.engine.shut_down();
        self.turn();
        self.worker = None;
        let stats = self.engine.pool().stats();
        assert_eq!(stats.available, stats.total, "buffers lost");
    }
}

/// A file of its own, removed in the end.
struct Temp(PathBuf);

impl Temp {
    fn new() -> Temp {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        Temp(std::env::temp_dir().join(format!("wharf-pg-{}-{n}.pcap", std::process::id())))
    }

    fn with(packets: &[Vec<u8>], datalink: DataLink) -> Temp {
        let temp = Temp::new();
        let header = PcapHeader { datalink, ts_resolution: TsResolution::MicroSecond, ..Default::default() };
        let mut writer = PcapWriter::with_header(File::create(&temp.0).unwrap(), header).unwrap();
        for packet in packets {
            let packet = PcapPacket::new(Duration::from_secs(7), packet.len() as u32, packet);
            writer.write_packet(&packet).unwrap();
        }
        temp
    }
}

impl Drop for Temp {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn read(file: &Path) -> (PcapHeader, Vec<(Duration, u32, Vec<u8>)>) {
    let mut reader = PcapReader::new(File::open(file).unwrap()).unwrap();
    let header = reader.header();
    let mut packets = Vec::new();
    while let Some(packet) = reader.next_raw_packet() {
        let packet = packet.unwrap();
        let unit = if header.ts_resolution == TsResolution::NanoSecond { 1 } else { 1000 };
        let time = Duration::new(packet.ts_sec.into(), packet.ts_frac * unit);
        packets.push((time, packet.orig_len, packet.data.into_owned()));
    }
    (header, packets)
}

fn packets(n: usize) -> Vec<Vec<u8>> {
    let len = |i: usize| [60, 2048, 1, 61, 1500][i % 5] - i / 5 % 3 * usize::from(i % 5 != 2);
    (0..n).map(|i| (0..len(i)).map(|b| (b * 3 + i) as u8).collect()).collect()
}

fn template(len: usize) -> Source {
    Source::Template(Template::constant(vec![5; len]))
}

fn stream(name: &str, limit: u64, rate: f64, source: Source) -> StreamConfig {
    StreamConfig { name: name.into(), limit, rate, max_frame: 0, source }
}

#[test]
fn pcap_in_graph_pcap_out_byte_for_byte() {
    let wanted = packets(1000);
    let (input, output) = (Temp::with(&wanted, DataLink::ETHERNET), Temp::new());
    let mut rig = Rig::new();
    rig.pg1.start_capture(CaptureConfig::new(&output.0)).unwrap();
    assert_eq!(std::fs::metadata(&output.0).unwrap().len(), 24, "the header is there at once");
    let script = format!("{{ name s interface pg0 pcap {} }}", input.0.display());
    let config = script.parse::<StreamScript>().unwrap().into_config(PgMode::Ethernet).unwrap();
    assert_eq!(config.limit, 1000);
    rig.pg0.add(config).unwrap();
    rig.run();
    assert_eq!(rig.sent(), 0, "it is not enabled yet");
    rig.pg0.enable("s").unwrap();
    rig.turn();
    let so_far = rig.pg1.capture().unwrap();
    assert!(so_far.running && so_far.packets == 256, "written as they come");
    assert!(read(&output.0).1.len() == 256);
    rig.run();
    let bytes: u64 = wanted.iter().map(|p| p.len() as u64).sum();
    assert_eq!(rig.pg1.counters().get(), (1000, bytes));
    let info = rig.pg0.streams().pop().unwrap();
    assert_eq!((info.enabled, info.done, info.packets, info.bytes), (false, true, 1000, bytes));
    let capture = rig.pg1.stop_capture().unwrap();
    assert_eq!((capture.packets, capture.dropped, capture.running), (1000, 0, false));
    let (header, got) = read(&output.0);
    assert_eq!((header.datalink, header.ts_resolution), (DataLink::ETHERNET, TsResolution::NanoSecond));
    assert!(got.iter().map(|p| &p.2).eq(&wanted));
    assert!(got.windows(2).all(|w| w[0].0 <= w[1].0));
    let year_2020 = Duration::from_secs(1_577_836_800);
    assert!(got[0].0 > year_2020, "time stamps are of the wall clock");
}

#[test]
fn a_done_stream_plays_again_when_it_is_enabled() {
    let mut rig = Rig::new();
    let mut replay = Replay::default();
    packets(3).iter().for_each(|p| replay.push(p).unwrap());
    rig.pg0.add(stream("s", 7, 0.0, Source::Replay(replay))).unwrap();
    for round in 1..=3 {
        rig.pg0.enable("s").unwrap();
        rig.run();
        assert_eq!(rig.sent(), 7 * round);
        assert!(rig.pg0.streams()[0].done);
    }
    rig.pg0.disable("s").unwrap();
    assert!(!rig.pg0.streams()[0].done);
}

#[test]
fn endless_streams_share_the_interface_until_they_are_stopped() {
    let mut rig = Rig::new();
    rig.pg0.add(stream("a", 0, 0.0, template(60))).unwrap();
    rig.pg0.add(stream("b", 0, 0.0, template(61))).unwrap();
    rig.pg0.enable_all();
    for _ in 0..20 {
        assert!(rig.turn());
    }
    let played: Vec<u64> = rig.pg0.streams().iter().map(|s| s.packets).collect();
    assert_eq!(played, [2560, 2560]);
    rig.pg0.disable("a").unwrap();
    rig.turn();
    assert_eq!(rig.pg0.streams()[0].packets, 2560);
    assert_eq!(rig.pg0.streams()[1].packets, 2816);
    rig.pg0.delete("b").unwrap();
    rig.run();
    assert_eq!(rig.pg0.streams().len(), 1);
    assert_eq!(rig.sent(), 2560 * 2 + 256);
    assert_eq!(rig.pg0.enable("b").unwrap_err().to_string(), "there is no stream `b'");
}

#[test]
fn many_streams_can_be_made_before_the_worker_looks() {
    let mut rig = Rig::new();
    for i in 0..200 {
        rig.pg0.add(stream(&format!("s{i}"), 2, 0.0, template(60))).unwrap();
    }
    rig.pg0.enable_all();
    for _ in 0..20 {
        rig.turn();
    }
    rig.run();
    assert_eq!(rig.sent(), 400);
}

#[test]
fn a_rate_is_kept() {
    let mut rig = Rig::new();
    let rate = 100_000.0;
    rig.pg0.add(stream("s", 0, rate, template(60))).unwrap();
    rig.pg0.enable("s").unwrap();
    let start = clock::nanos();
    while rig.sent() < 1000 {
        rig.turn();
        // The worker's clock and this one may be some hundred nanoseconds apart.
        let most = (clock::nanos() - start) as f64 * rate / 1e9 + 2.0;
        assert!(rig.sent() as f64 <= most, "{} of {most}", rig.sent());
    }
}

#[test]
fn a_capture_keeps_what_was_asked_for() {
    let file = Temp::new();
    let mut rig = Rig::new();
    let config =
        CaptureConfig { max_packets: 300, snaplen: 100, nanoseconds: false, ..CaptureConfig::new(&file.0) };
    rig.pg1.start_capture(config.clone()).unwrap();
    let error = rig.pg1.start_capture(config.clone()).unwrap_err().to_string();
    assert!(error.starts_with("a capture to "), "{error}");
    rig.pg0.add(stream("s", 1000, 0.0, template(400))).unwrap();
    rig.pg0.enable("s").unwrap();
    rig.run();
    let info = rig.pg1.capture().unwrap();
    assert_eq!((info.running, info.packets, info.max_packets), (false, 300, 300));
    let (header, got) = read(&file.0);
    assert_eq!((header.snaplen, header.ts_resolution), (100, TsResolution::MicroSecond));
    assert_eq!(got.len(), 300);
    assert!(got.iter().all(|(_, len, bytes)| *len == 400 && bytes[..] == [5; 100]));
    assert_eq!(Replay::read(&file.0, PgMode::Ethernet).unwrap().get(299), [5; 100]);
    rig.pg1.start_capture(config).unwrap();
    assert!(rig.pg1.capture().unwrap().running, "another may follow");
}

#[test]
fn packets_that_main_does_not_fetch_in_time_are_counted() {
    let file = Temp::new();
    let mut rig = Rig::new();
    rig.pg1.start_capture(CaptureConfig::new(&file.0)).unwrap();
    // A burst takes 256 * (16 + 60) bytes.
    let (bursts, fit) = (4000, capture::MAX_WAITING / (256 * 76));
    rig.pg0.add(stream("s", 256 * bursts, 0.0, template(60))).unwrap();
    rig.pg0.enable("s").unwrap();
    let mut worker = rig.worker.take().unwrap();
    while worker.turn() {}
    rig.worker = Some(worker);
    let info = rig.pg1.stop_capture().unwrap();
    assert_eq!((info.packets, info.dropped), (fit * 256, (bursts - fit) * 256));
    assert_eq!(read(&file.0).1.len() as u64, fit * 256);
}

#[test]
fn a_sleeping_worker_is_woken_and_sleeps_between_packets() {
    let mut engine = Engine::start(&config(), list()).unwrap();
    let (mut pg0, pg1) = attach(&mut engine, RxMode::Interrupt);
    let patience = Instant::now() + Duration::from_secs(20);
    let wait = |what: &str, done: &mut dyn FnMut() -> bool| {
        while !done() {
            assert!(Instant::now() < patience, "{what} does not come");
            std::thread::yield_now();
        }
    };
    let worker = engine.worker(WorkerIndex(0)).unwrap();
    pg0.add(stream("s", 5, 100.0, template(60))).unwrap();
    wait("sleep", &mut || worker.is_sleeping());
    let before = worker.sleeps.load(Ordering::Relaxed);
    pg0.enable("s").unwrap();
    wait("the end", &mut || pg0.streams()[0].done);
    assert!(worker.sleeps.load(Ordering::Relaxed) >= before + 4);
    engine.shut_down();
    assert_eq!(pg1.counters().get().0, 5);
}

#[test]
fn files_that_can_not_be_played() {
    let says = |temp: &Temp, mode| Replay::read(&temp.0, mode).unwrap_err().to_string();
    let name = |temp: &Temp| temp.0.display().to_string();
    let missing = Temp::new();
    assert!(says(&missing, PgMode::Ethernet).starts_with(&format!("{}: ", name(&missing))));

    let directory = Replay::read(&std::env::temp_dir(), PgMode::Ethernet).unwrap_err().to_string();
    assert!(directory.ends_with("not a regular file"), "{directory}");

    let text = Temp::new();
    std::fs::write(&text.0, b"this is not a capture of packets").unwrap();
    assert!(says(&text, PgMode::Ethernet).contains("not a pcap file"));

    let empty = Temp::with(&[], DataLink::ETHERNET);
    assert_eq!(says(&empty, PgMode::Ethernet), format!("{}: no packet in it", name(&empty)));

    let long = Temp::with(&[vec![0; 60], vec![0; 2049]], DataLink::ETHERNET);
    let expected = format!("{}: packet 2: 2049 bytes: a packet has 1 to 2048", name(&long));
    assert_eq!(says(&long, PgMode::Ethernet), expected);

    let cut = Temp::with(&packets(2), DataLink::ETHERNET);
    let len = std::fs::metadata(&cut.0).unwrap().len();
    File::options().write(true).open(&cut.0).unwrap().set_len(len - 1).unwrap();
    assert!(says(&cut, PgMode::Ethernet).starts_with(&format!("{}: packet 2: ", name(&cut))));

    let raw = Temp::with(&packets(2), DataLink::RAW);
    let expected = format!("{}: link type RAW does not suit an interface in mode ethernet", name(&raw));
    assert_eq!(says(&raw, PgMode::Ethernet), expected);
    assert_eq!(Replay::read(&raw.0, PgMode::Ip4).unwrap().len(), 2);
}

#[test]
fn streams_that_can_not_be_made() {
    let mut rig = Rig::new();
    let mut says = |config| rig.pg0.add(config).unwrap_err().to_string();
    assert_eq!(says(stream("s", 1, -1.0, template(60))), "rate -1 is not a number of packets per second");
    assert_eq!(
        says(stream("s", 1, f64::NAN, template(60))),
        "rate NaN is not a number of packets per second"
    );
    assert!(says(stream("s", 1, 0.0, template(2049))).contains("sizes are 1 to 2048"));
    assert_eq!(says(stream("s", 1, 0.0, Source::Replay(Replay::default()))), "stream `s' has no packets");
    rig.pg0.add(stream("s", 1, 0.0, template(60))).unwrap();
    let error = rig.pg0.add(stream("s", 1, 0.0, template(60))).unwrap_err().to_string();
    assert_eq!(error, "stream `s' exists already");
}
