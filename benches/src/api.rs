//! The binary API under load: route messages a second of a client that pipelines, and how long a `control_ping` of another
//! client takes while that, and other long work of the control plane, is done. The clients have the worker's core, which has little
//! to do: on wharf's other core a ping would wait for the client that keeps wharf busy.

use std::io::{Read, Write};
use std::net::Ipv4Addr;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use wharf_control::api::modules::ip::{IpRoute, IpRouteAddDel, IpRouteV2Dump, IpTable, IpTableFlush};
use wharf_control::api::modules::memclnt::{ControlPing, SockclntCreate};
use wharf_control::api::modules::modules;
use wharf_control::api::modules::types::{FibPath, FibPathType, Prefix};
use wharf_control::api::{FRAME_HEADER, Message, Registry, Wire, Writer};

use crate::histogram::Histogram;
use crate::machine::Machine;
use crate::process::{Stop, WorkDir, pin};
use crate::wharf::{Binaries, Wharf};
use crate::{Place, Result};

/// Routes of the long commands.
const MANY: u32 = 1_000_000;
/// Route messages.
const MESSAGES: u32 = 500_000;
/// Rules of the longest list that a line has room for.
const RULES: u32 = 10_000;
/// How long routes come and go with a journal.
const CHURN: Duration = Duration::from_secs(10);
/// Between two pings.
const PAUSE: Duration = Duration::from_micros(200);

/// A client.
struct Client {
    stream: UnixStream,
    registry: Registry,
}

fn failed(error: std::io::Error) -> String {
    format!("API: {error}")
}

impl Client {
    fn connect(socket: &Path) -> Result<Client> {
        let stream = UnixStream::connect(socket).map_err(failed)?;
        let mut client = Client { stream, registry: Registry::new(&modules()) };
        let mut hello = Writer::default();
        client.registry.id(SockclntCreate::DEF).unwrap_or_default().put(&mut hello);
        SockclntCreate { context: 0, name: "bench".into() }.put(&mut hello);
        client.send(&framed(&hello.into_bytes()))?;
        client.answer()?;
        Ok(client)
    }

    /// A request in its frame.
    fn request<M: Message>(&self, message: &M) -> Vec<u8> {
        let mut out = Writer::default();
        self.registry.id(M::DEF).unwrap_or_default().put(&mut out);
        out.raw(&[0; 8]);
        message.put(&mut out);
        framed(&out.into_bytes())
    }

    fn send(&mut self, bytes: &[u8]) -> Result<()> {
        self.stream.write_all(bytes).map_err(failed)
    }

    /// The number of the next message.
    fn answer(&mut self) -> Result<u16> {
        answer(&mut &self.stream, &mut Vec::new())
    }

    fn is<M: Message>(&self, number: u16) -> bool {
        self.registry.id(M::DEF) == Some(number)
    }
}

fn framed(message: &[u8]) -> Vec<u8> {
    let mut frame = vec![0; FRAME_HEADER];
    frame[8..12].copy_from_slice(&(message.len() as u32).to_be_bytes());
    frame.extend_from_slice(message);
    frame
}

fn answer(from: &mut impl Read, message: &mut Vec<u8>) -> Result<u16> {
    let mut header = [0; FRAME_HEADER];
    from.read_exact(&mut header).map_err(failed)?;
    let [_, _, _, _, _, _, _, _, a, b, c, d, ..] = header;
    message.resize(u32::from_be_bytes([a, b, c, d]) as usize, 0);
    from.read_exact(message).map_err(failed)?;
    Ok(message.first_chunk().map_or(0, |number| u16::from_be_bytes(*number)))
}

/// Pings until it is told to stop.
fn probe(socket: &Path, stop: &AtomicBool) -> Result<Histogram> {
    let mut client = Client::connect(socket)?;
    let ping = client.request(&ControlPing {});
    let mut times = Histogram::new();
    while !stop.load(Ordering::Relaxed) {
        let start = Instant::now();
        client.send(&ping)?;
        client.answer()?;
        times.add(start.elapsed().as_nanos() as u64, 1);
        std::thread::sleep(PAUSE);
    }
    Ok(times)
}

/// Does `work`, which says of how many things it consists, while another client pings.
fn phase(name: &str, socket: &Path, work: impl FnOnce() -> Result<u64>) -> Result<()> {
    let stop = AtomicBool::new(false);
    let (done, seconds, times) = std::thread::scope(|scope| {
        let probe = scope.spawn(|| probe(socket, &stop));
        let start = Instant::now();
        let done = work();
        let seconds = start.elapsed().as_secs_f64();
        stop.store(true, Ordering::Relaxed);
        (done, seconds, probe.join().unwrap_or_else(|_| Err("the probe panicked".into())))
    });
    let (done, times) = (done?, times?);
    let [p50, p99, max] = [0.5, 0.99, 1.0].map(|part| times.quantile(part) as f64 / 1000.0);
    let rate = if done == 0 { String::new() } else { format!("{:.0}/s", done as f64 / seconds) };
    println!(
        "{name:<34} {seconds:>7.2} s {rate:>12}   ping p50 {p50:>7.0}  p99 {p99:>7.0}  max {max:>7.0} us  ({} pings)",
        times.total()
    );
    Ok(())
}

/// Adds routes, one a message, without waiting for answers; all of them are read.
fn routes(socket: &Path) -> Result<u64> {
    let mut client = Client::connect(socket)?;
    let path =
        FibPath { r#type: FibPathType::FIB_API_PATH_TYPE_DROP, sw_if_index: u32::MAX, ..FibPath::default() };
    let mut messages = Vec::new();
    for n in 0..MESSAGES {
        let address = Ipv4Addr::from_bits(0x1000_0000 + (n << 8));
        let prefix = Prefix { address: address.into(), len: 24 };
        let route = IpRoute { prefix, paths: vec![path.clone()], ..IpRoute::default() };
        messages.extend(client.request(&IpRouteAddDel { is_add: true, is_multipath: false, route }));
    }
    let reader = client.stream.try_clone().map_err(failed)?;
    std::thread::scope(|scope| {
        let reader = scope.spawn(move || -> Result<u64> {
            let mut reader = std::io::BufReader::with_capacity(64 << 10, reader);
            let mut message = Vec::new();
            for _ in 0..MESSAGES {
                answer(&mut reader, &mut message)?;
                if message.get(6..10) != Some(&[0; 4]) {
                    return Err(format!("a route was refused: {message:?}"));
                }
            }
            Ok(MESSAGES.into())
        });
        client.send(&messages)?;
        reader.join().unwrap_or_else(|_| Err("the reader panicked".into()))
    })
}

/// Dumps all routes.
fn dump(socket: &Path) -> Result<u64> {
    let mut client = Client::connect(socket)?;
    let requests = [client.request(&IpRouteV2Dump::default()), client.request(&ControlPing {})];
    client.send(&requests.concat())?;
    let ping = client.registry.messages().find(|(_, def)| def.name == "control_ping_reply").map(|(id, _)| id);
    let stream = client.stream.try_clone().map_err(failed)?;
    let mut reader = std::io::BufReader::with_capacity(64 << 10, stream);
    let (mut message, mut found) = (Vec::new(), 0);
    while Some(answer(&mut reader, &mut message)?) != ping {
        found += 1;
    }
    Ok(found)
}

/// Adds and removes the same routes without end, for some seconds: the journal grows by each, and says no more than before.
fn churn(socket: &Path, journal: &Path) -> Result<u64> {
    let (start, mut done, mut longest) = (Instant::now(), 0, 0);
    while start.elapsed() < CHURN {
        done += routes(socket)? + flush(socket)?;
        longest = longest.max(length(journal));
    }
    println!("the journal was {} MiB long at most", longest >> 20);
    Ok(done)
}

fn length(file: &Path) -> u64 {
    std::fs::metadata(file).map_or(0, |meta| meta.len())
}

/// Removes all routes.
fn flush(socket: &Path) -> Result<u64> {
    let mut client = Client::connect(socket)?;
    let request = client.request(&IpTableFlush { table: IpTable::default() });
    client.send(&request)?;
    let number = client.answer()?;
    if client.is::<IpTableFlush>(number) { Err("no answer".into()) } else { Ok(MESSAGES.into()) }
}

/// Routes, and interfaces with addresses: 10,000 objects.
fn document(routes: u32) -> String {
    let mut text = String::new();
    for n in 0..100 {
        text += &format!(
            "[interface.loop{n}]\ntype = \"loopback\"\nup = true\naddresses = [\"10.{n}.0.1/24\"]\n"
        );
    }
    text += "[route.0]\n";
    for n in 0..routes {
        let prefix = Ipv4Addr::from_bits(0x2000_0000 + (n << 8));
        text += &format!("\"{prefix}/24\" = \"via 10.{}.0.{} loop{}\"\n", n % 100, 2 + n % 200, n % 100);
    }
    text
}

/// Rules whose boxes cross each other in three dimensions: the hardest for who compiles them.
fn crossing_rules() -> String {
    let rule = |n: u32| {
        let src = n.wrapping_mul(0x9e37_79b9);
        let [sport, dport] = [7919, 10_007].map(|prime| n.wrapping_mul(prime) % 60_000);
        let [wide, far] = [6133, 9973].map(|prime| n.wrapping_mul(prime) % 20_000);
        format!(
            "permit src {}/{} proto 17 sport {sport}-{} dport {dport}-{}",
            Ipv4Addr::from_bits(src),
            [2, 4, 8, 12, 16][n as usize % 5],
            (sport + wide).min(65_535),
            (dport + far).min(65_535)
        )
    };
    (0..RULES).map(rule).collect::<Vec<_>>().join(", ")
}

/// A pcap file of many small packets.
fn pcap(file: &Path) -> Result<()> {
    let mut bytes =
        vec![0xd4, 0xc3, 0xb2, 0xa1, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0, 0, 1, 0, 0, 0];
    let mut packet = vec![0; 16 + 64];
    (packet[8], packet[12]) = (64, 64);
    for _ in 0..MANY {
        bytes.extend_from_slice(&packet);
    }
    std::fs::write(file, bytes).map_err(|error| format!("{}: {error}", file.display()))
}

/// What is done as one thing: others wait for it, but not pings.
fn large(wharf: &Wharf, dir: &Path, socket: &Path) -> Result<()> {
    let command = |line: &str, things: u64| wharf.run(line).map(|_| things);
    let script = |line: &str, things: u64| wharf.script(line).map(|()| things);
    let [all, none] = ["all.toml", "none.toml"].map(|name| dir.join(name));
    for (file, text) in [(&all, document(9_700)), (&none, String::new())] {
        std::fs::write(file, text).map_err(|error| format!("{}: {error}", file.display()))?;
    }
    let [apply, clear] = [&all, &none].map(|file| format!("config apply {}", file.display()));
    phase("config apply of 10,000 objects", socket, || command(&apply, 10_000))?;
    phase("config show of these", socket, || command("config show", 10_000))?;
    phase("config apply of an empty one", socket, || command(&clear, 10_000))?;
    wharf.run("create packet-generator interface pg9")?;
    wharf.run(&format!("ip route add count {MANY} 16.0.0.0/28 via pg9"))?;
    phase("config save of a million routes", socket, || {
        command(&format!("config save {}", dir.join("saved.toml").display()), MANY.into())
    })?;
    phase("an interface with a million routes", socket, || {
        command("delete packet-generator interface pg9", MANY.into())
    })?;
    wharf.run("ip table add 9")?;
    wharf.run(&format!("ip route add count {MANY} 16.0.0.0/28 table 9 via drop"))?;
    wharf.run(&format!("ip route del count {MANY} 16.0.0.0/28 table 9"))?;
    phase("the table that had a million routes", socket, || command("ip table del 9", 1))?;
    wharf.run("create packet-generator interface pg8")?;
    let rules = format!("set acl-plugin acl {}", crossing_rules());
    phase("10,000 rules that cross each other", socket, || script(&rules, RULES.into()))?;
    phase("their compilation", socket, || command("set acl-plugin interface pg8 input acl 0", RULES.into()))?;
    let file = dir.join("many.pcap");
    pcap(&file)?;
    let new = format!("packet-generator new pcap {} source pg8 name many", file.display());
    phase("a pcap file of a million packets", socket, || command(&new, MANY.into()))?;
    command("delete packet-generator interface pg8", 1).map(drop)
}

/// Starts wharf, and goes through all phases.
pub(crate) fn run(place: &Place, stop: &Stop) -> Result<()> {
    let binaries = Binaries::locate(place.wharf.as_deref())?;
    print!("{}", Machine::here().describe());
    // A thread each: programs inherit the core of who starts them, and may be told to use others.
    for part in [unrecorded, journal] {
        let done = std::thread::scope(|scope| scope.spawn(|| part(place, stop, &binaries)).join());
        done.unwrap_or_else(|_| Err("the load died".into()))?;
        stop.check()?;
    }
    Ok(())
}

/// Without a journal.
fn unrecorded(place: &Place, stop: &Stop, binaries: &Binaries) -> Result<()> {
    let dir = WorkDir::new()?;
    let wharf = Wharf::start(binaries, place.dut_core, place.load_core, &dir, stop)?;
    pin(place.dut_core)?;
    let socket = dir.path().join("api.sock");
    let command = |line: &str, things: u64| wharf.run(line).map(|_| things);
    phase("nothing", &socket, || {
        std::thread::sleep(Duration::from_secs(1));
        Ok(0)
    })?;
    let add = format!("ip route add count {MANY} 16.0.0.0/28 via drop");
    phase("a million routes by one command", &socket, || command(&add, MANY.into()))?;
    phase("a dump of a million routes", &socket, || dump(&socket))?;
    phase("show ip fib of a million routes", &socket, || command("show ip fib", MANY.into()))?;
    let del = format!("ip route del count {MANY} 16.0.0.0/28");
    phase("a million routes gone by one command", &socket, || command(&del, MANY.into()))?;
    stop.check()?;
    large(&wharf, dir.path(), &socket)?;
    stop.check()?;
    phase("half a million route messages", &socket, || routes(&socket))?;
    phase("ip_table_flush of these", &socket, || flush(&socket))?;
    wharf.run("create packet-generator interface pg0")?;
    wharf.run("set interface state pg0 up")?;
    wharf.run(
        "packet-generator new { name x limit 0 size 64-64 interface pg0 data { IP4: 02:00:00:00:00:01 -> \
         02:00:00:00:00:02 UDP: 10.0.0.1 -> 10.0.0.2 UDP: 1 -> 2 incrementing 22 } }",
    )?;
    wharf.run("packet-generator enable-stream x")?;
    phase("a worker without rest", &socket, || {
        std::thread::sleep(Duration::from_secs(1));
        Ok(0)
    })?;
    phase("a million routes, worker without rest", &socket, || command(&add, MANY.into()))
}

/// The same route messages, recorded.
fn journal(place: &Place, stop: &Stop, binaries: &Binaries) -> Result<()> {
    let dir = WorkDir::new()?;
    let (socket, file) = (dir.path().join("api.sock"), dir.path().join("journal"));
    let more = format!("config {{ journal {} }}", file.display());
    let _wharf = Wharf::start_with(binaries, (place.dut_core, place.load_core), &dir, stop, &more)?;
    pin(place.dut_core)?;
    phase("half a million, with a journal", &socket, || routes(&socket))?;
    println!("the journal is {} MiB long", length(&file) >> 20);
    phase("their flush, with a journal", &socket, || flush(&socket))?;
    phase("routes that come and go, journal", &socket, || churn(&socket, &file))?;
    std::thread::sleep(Duration::from_secs(2));
    println!("two seconds later it is {} KiB long", length(&file) >> 10);
    Ok(())
}
