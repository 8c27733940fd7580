//! Interoperation with DPDK's memif driver, in both roles: `dpdk-testpmd` sends back what it receives.
//!
//! Needs `dpdk-testpmd`, in the path or where `tools/testpmd.sh` puts it. Without it, these tests do nothing, except
//! when `WHARF_TEST_PEERS` is set (`make test` does): then they fail.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use memif::{
    Address, Client, ClientConfig, CloseReason, Connection, InterfaceConfig, Listener, ListenerConfig,
    Secret, ServerEvent,
};

/// Long, as the machine may be busy; nothing waits that long when all is well.
const PATIENCE: Duration = Duration::from_secs(60);

/// A directory of its own, with a testpmd; both are gone at the end.
struct Testpmd {
    dir: PathBuf,
    child: Child,
}

impl Testpmd {
    /// Starts testpmd with its end of the interface in `role`. `None` if it is not installed.
    fn start(role: &str, queues: u16, more: &str, before: impl FnOnce(&Path)) -> Option<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("memif-dpdk-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let dir = std::env::temp_dir().join(&name);
        std::fs::create_dir_all(&dir).unwrap();
        before(&dir.join("memif.sock"));
        let log = std::fs::File::create(dir.join("log")).unwrap();
        let device = format!(
            "--vdev=net_memif0,role={role},id=3,socket={},socket-abstract=no,bsize=2048,rsize=9{more}",
            dir.join("memif.sock").display()
        );
        let ours = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/peers/bin/dpdk-testpmd");
        let child = Command::new(if ours.exists() { ours } else { "dpdk-testpmd".into() })
            .args(["--no-huge", "-m", "256", "--no-pci", "--no-telemetry", "--file-prefix", &name])
            .args(["-l", "0,1", &device, "--", "--forward-mode=io", "--port-topology=loop", "--no-mlockall"])
            // It would throw away what comes before its forwarding starts.
            .args(["--total-num-mbufs=8192", "--disable-link-check", "--no-flush-rx"])
            .args([format!("--rxq={queues}"), format!("--txq={queues}")])
            // Where DPDK keeps its own files, which would stay behind.
            .env("RUNTIME_DIRECTORY", &dir)
            // Ends at the end of its input.
            .stdin(Stdio::piped())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn();
        match child {
            Ok(child) => Some(Self { dir, child }),
            Err(e) if e.kind() == ErrorKind::NotFound && std::env::var_os("WHARF_TEST_PEERS").is_none() => {
                eprintln!("dpdk-testpmd is not installed: nothing tested");
                let _ = std::fs::remove_dir_all(&dir);
                None
            }
            Err(e) => panic!("dpdk-testpmd: {e}"),
        }
    }

    fn socket(&self) -> PathBuf {
        self.dir.join("memif.sock")
    }

    fn check(&mut self, doing: &str, since: Instant) {
        let ended = self.child.try_wait().unwrap();
        if ended.is_some() || since.elapsed() > PATIENCE {
            let log = std::fs::read_to_string(self.dir.join("log")).unwrap_or_default();
            panic!("{doing}: testpmd {ended:?}\n{log}");
        }
    }
}

impl Drop for Testpmd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

/// Packet `n` of queue `queue`: 64 to 1500 bytes.
fn packet(queue: usize, n: usize) -> Vec<u8> {
    let mut bytes = vec![0u8; 64 + n * 37 % 1437];
    bytes.iter_mut().enumerate().for_each(|(i, b)| *b = (i * 13 + n * 7 + queue * 101) as u8);
    bytes[..6].copy_from_slice(&[2, 0, 0, 0, 0, 1]);
    bytes[14..18].copy_from_slice(&(n as u32).to_be_bytes());
    bytes
}

/// Sends `packets` through each queue and expects all of them back, in order and byte by byte.
fn echo(link: &mut Connection, testpmd: &mut Testpmd, packets: usize) {
    for queue in 0..link.tx.len() {
        let (tx, rx) = (&mut link.tx[queue], &mut link.rx[queue]);
        let (mut sent, mut got) = (0, 0);
        let start = Instant::now();
        let (mut buffers, mut lengths) = (vec![[0u8; 2048]; 64], [0; 64]);
        while got < packets {
            let burst: Vec<_> = (sent..packets.min(got + 128)).map(|n| packet(queue, n)).collect();
            sent += tx.transmit(burst.as_slice());
            tx.kick();
            let n = rx.receive_into(&mut buffers, &mut lengths);
            for (buffer, len) in buffers.iter().zip(lengths).take(n) {
                assert!(buffer[..len] == packet(queue, got), "queue {queue}, packet {got}");
                got += 1;
            }
            if n == 0 {
                assert_eq!(link.control.process(), None);
                testpmd.check(&format!("queue {queue}: {sent} packets sent, {got} came back"), start);
                std::thread::sleep(Duration::from_micros(100));
            }
        }
        assert_eq!(tx.counters().packets, packets as u64);
        let counters = rx.counters();
        assert_eq!((counters.packets, counters.bad_descriptor, counters.no_buffer), (packets as u64, 0, 0));
    }
}

/// testpmd dies: the other end learns it from its socket.
fn dies(link: &mut Connection, testpmd: &mut Testpmd) {
    testpmd.child.kill().unwrap();
    testpmd.child.wait().unwrap();
    assert_eq!(link.control.process(), Some(&CloseReason::RemoteClosed));
    assert!(!link.rx[0].is_alive());
}

fn as_client(queues: u16, more: &str, change: impl Fn(&mut ClientConfig)) {
    let Some(mut testpmd) = Testpmd::start("server", queues, more, |_| {}) else { return };
    let start = Instant::now();
    let mut config = ClientConfig::new(Address::Path(testpmd.socket()), 3);
    (config.rx_queues, config.tx_queues) = (queues, queues);
    config.handshake = PATIENCE;
    change(&mut config);
    let mut link = loop {
        testpmd.check("connecting", start);
        std::thread::sleep(Duration::from_millis(20));
        let Ok(mut client) = Client::connect(config.clone(), Instant::now()) else { continue };
        // While testpmd sets its port up it listens, but refuses.
        let link = loop {
            match client.process(Instant::now()) {
                Ok(None) => std::thread::sleep(Duration::from_millis(1)),
                Ok(Some(link)) => break Some(link),
                Err(e) => {
                    eprintln!("{e}");
                    break None;
                }
            }
        };
        if let Some(link) = link {
            break link;
        }
    };
    assert!(link.info.remote_app.contains("DPDK"), "{:?}", link.info);
    echo(&mut link, &mut testpmd, 10_000);
    dies(&mut link, &mut testpmd);
}

fn as_server(queues: u16, more: &str, secret: Option<Secret>) {
    let mut listener = None;
    let testpmd = Testpmd::start("client", queues, more, |socket| {
        let mut config = ListenerConfig::new(Address::Path(socket.into()));
        config.limits.handshake = PATIENCE;
        let mut bound = Listener::bind(config, Instant::now()).unwrap();
        bound.add(InterfaceConfig { secret, ..InterfaceConfig::new(3, "memif0/3") }).unwrap();
        listener = Some(bound);
    });
    let (Some(mut testpmd), Some(mut listener)) = (testpmd, listener) else { return };
    let start = Instant::now();
    let mut link = loop {
        testpmd.check("waiting for the client", start);
        std::thread::sleep(Duration::from_millis(1));
        match listener.process(Instant::now()).pop() {
            Some(ServerEvent::Connected(link)) => break *link,
            Some(other) => panic!("{other:?}"),
            None => {}
        }
    };
    assert_eq!((link.rx.len(), link.tx.len()), (usize::from(queues), usize::from(queues)));
    assert!(link.info.remote_app.contains("DPDK"), "{:?}", link.info);
    echo(&mut link, &mut testpmd, 10_000);
    dies(&mut link, &mut testpmd);
}

#[test]
fn dpdk_is_the_server() {
    as_client(1, "", |_| {});
}

/// Small buffers: every packet is a chain, for DPDK too.
#[test]
fn dpdk_is_the_server_of_chains() {
    as_client(2, ",secret=opensesame", |c| {
        c.secret = Secret::new(b"opensesame").ok();
        c.buffer_size = 256;
        c.log2_ring_size = 11;
    });
}

#[test]
fn dpdk_is_the_client() {
    as_server(1, "", None);
}

#[test]
fn dpdk_is_the_client_of_two_queues_with_a_secret() {
    as_server(2, ",secret=opensesame", Secret::new(b"opensesame").ok());
}
