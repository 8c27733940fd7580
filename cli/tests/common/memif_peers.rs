//! Peers over memif that live in the test itself.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use memif::{Address, Client, ClientConfig, Connection};

use super::{Daemon, PATIENCE, run};

/// What the packets of a [`Bystander`] are full of: nobody else may ever see it.
pub(crate) const CANARY: &str = "\u{1}bystander's own bytes\u{2}";

/// For startup.conf: buffers that a jumbo frame fits into.
pub(crate) const JUMBO: &str = "buffers { buffers-per-numa 2048 default data-size 9216 }";

/// An example program of the memif crate, built as the tests were.
pub(crate) fn memif_example(name: &str) -> PathBuf {
    let profile = Path::new(env!("CARGO_BIN_EXE_wharf")).parent().unwrap();
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "--quiet", "--package", "memif", "--example", name]);
    cargo.current_dir(env!("CARGO_MANIFEST_DIR")).arg("--target-dir").arg(profile.parent().unwrap());
    if profile.ends_with("release") {
        cargo.arg("--release");
    }
    run(&mut cargo);
    profile.join("examples").join(name)
}

/// Whether a memif interface has its peer.
#[track_caller]
pub(crate) fn connected(daemon: &Daemon, interface: &str) -> bool {
    daemon.json(&format!("show memif {interface}"))["interfaces"][0]["connected"] == true
}

/// Whether all rings towards the client have been filled with buffers.
pub(crate) fn has_buffers(daemon: &Daemon, interface: &str) -> bool {
    let memif = daemon.json(&format!("show memif {interface}"));
    let mut rings = memif["interfaces"][0]["rings"].as_array().unwrap().iter();
    rings.all(|ring| ring["direction"] != "master-to-slave" || ring["head"] != ring["tail"])
}

/// What there is to see when packets do not go round.
pub(crate) fn memif_state(daemon: &Daemon) -> String {
    ["show interface", "show errors", "show packets", "show interface rx-placement", "show memif"]
        .map(|show| daemon.script(show))
        .concat()
}

/// Attaches to an interface as a client; tries until it succeeds.
#[track_caller]
pub(crate) fn attach(socket: &Path, id: u32, change: impl Fn(&mut ClientConfig)) -> Connection {
    let start = Instant::now();
    let mut config = ClientConfig::new(Address::Path(socket.into()), id);
    change(&mut config);
    let mut why = String::new();
    while start.elapsed() < PATIENCE {
        match Client::connect(config.clone(), Instant::now()) {
            Ok(mut client) => loop {
                match client.process(Instant::now()) {
                    Ok(Some(connection)) => return connection,
                    Ok(None) => std::thread::sleep(Duration::from_micros(200)),
                    Err(error) => {
                        why = error.to_string();
                        break;
                    }
                }
            },
            Err(error) => why = error.to_string(),
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    panic!("{} id {id}: {why}", socket.display());
}

/// Sends all of `packets`, and wakes the peer.
#[track_caller]
pub(crate) fn transmit(link: &mut memif::Connection, packets: &[Vec<u8>]) {
    assert_eq!(link.tx[0].transmit(packets), packets.len());
    link.tx[0].kick();
}

/// Waits for `count` packets.
#[track_caller]
pub(crate) fn receive(link: &mut memif::Connection, count: usize) -> Vec<Vec<u8>> {
    let (start, mut got) = (Instant::now(), Vec::new());
    while got.len() < count {
        assert!(start.elapsed() < PATIENCE, "{} of {count} packets came", got.len());
        link.rx[0].receive_with(256, |p| {
            let mut packet = vec![0; p.len()];
            p.copy_to(&mut packet);
            got.push(packet);
        });
        std::thread::sleep(Duration::from_micros(200));
    }
    got
}

/// A thread of the test that ends with its guard.
#[derive(Debug)]
struct Worker<T> {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<T>>,
}

impl<T: Send + 'static> Worker<T> {
    fn start(work: impl FnOnce(&AtomicBool) -> T + Send + 'static) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&stop);
        Self { stop, thread: Some(std::thread::spawn(move || work(&seen))) }
    }

    fn join(&mut self) -> Option<T> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().and_then(|thread| thread.join().ok())
    }
}

impl<T> Drop for Worker<T> {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// Sends back what it receives on one interface.
#[derive(Debug)]
pub(crate) struct Echo(Worker<()>);

impl Echo {
    pub(crate) fn start(socket: &Path, id: u32) -> Self {
        let mut link = attach(socket, id, |_| ());
        Self(Worker::start(move |stop| {
            let (mut buffers, mut lengths) = (vec![[0u8; 2048]; 64], [0; 64]);
            while !stop.load(Ordering::Relaxed) && link.control.process().is_none() {
                let n = link.rx[0].receive_into(&mut buffers, &mut lengths);
                let packets: Vec<&[u8]> = buffers.iter().zip(lengths).take(n).map(|(b, l)| &b[..l]).collect();
                link.tx[0].transmit(packets.as_slice());
                link.tx[0].kick();
                if n == 0 {
                    std::thread::sleep(Duration::from_micros(200));
                }
            }
        }))
    }
}

/// What became of a [`Bystander`]'s packets.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Passed {
    pub(crate) sent: u64,
    pub(crate) received: u64,
    /// The longest that one was under way.
    pub(crate) slowest: Duration,
}

/// A flow of 10,000 packets a second from one interface to another that has nothing to do with the test.
#[derive(Debug)]
pub(crate) struct Bystander(Worker<Passed>);

impl Bystander {
    /// From interface 0 of the socket to interface 1.
    pub(crate) fn start(socket: &Path) -> Self {
        // Deep rings: this machine may take the processor away from either end.
        let mut ends = [0, 1].map(|id| attach(socket, id, |c| c.log2_ring_size = 13));
        Self(Worker::start(move |stop| {
            let [from, to] = &mut ends;
            let start = Instant::now();
            let mut passed = Passed::default();
            let mut packet = [0xffu8; 30].to_vec();
            (0..10).for_each(|_| packet.extend(CANARY.bytes()));
            let mut end = None;
            loop {
                let due = start.elapsed().as_micros() as u64 / 100;
                if end.is_none() && stop.load(Ordering::Relaxed) {
                    end = Some(Instant::now());
                }
                if end.is_none() && passed.sent < due {
                    packet[22..30].copy_from_slice(&(start.elapsed().as_nanos() as u64).to_ne_bytes());
                    let burst = vec![packet.clone(); (due - passed.sent).min(64) as usize];
                    passed.sent += from.tx[0].transmit(burst.as_slice()) as u64;
                    from.tx[0].kick();
                }
                let got = to.rx[0].receive_with(256, |p| {
                    let mut head = [0; 30];
                    p.copy_to(&mut head);
                    let then = u64::from_ne_bytes(head[22..30].try_into().unwrap());
                    let now = start.elapsed();
                    passed.slowest = passed.slowest.max(now.saturating_sub(Duration::from_nanos(then)));
                });
                passed.received += got as u64;
                // What is under way arrives soon, or never.
                if end.is_some_and(|end| passed.received >= passed.sent || end.elapsed() > PATIENCE / 6) {
                    return passed;
                }
                if got == 0 {
                    std::thread::sleep(Duration::from_micros(500));
                }
            }
        }))
    }

    /// Ends the flow; panics if it lost a packet.
    #[track_caller]
    pub(crate) fn finish(mut self) -> Passed {
        let passed = self.0.join().expect("the bystander's thread panicked");
        assert!(passed.sent > 0 && passed.sent == passed.received, "the bystander lost packets: {passed:?}");
        passed
    }
}
