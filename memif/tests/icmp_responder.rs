//! The example application against our server: answers, survives the loss of its peer, ends by SIGTERM.

mod common;

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use memif::{
    Address, Backoff, Client, ClientConfig, CloseReason, Connection, InterfaceConfig, Listener,
    ListenerConfig, ServerEvent,
};

const PATIENCE: Duration = Duration::from_secs(30);
const MAC: [u8; 6] = [2, 0, 0, 0, 0, 9];
const PEER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];

struct Responder(Child);

/// A listener that takes clients of our own user.
fn for_us(address: Address) -> ListenerConfig {
    let me = rustix::process::geteuid().as_raw();
    ListenerConfig { allowed_uids: vec![me], ..ListenerConfig::new(address) }
}

impl Responder {
    fn start(socket: &str, role: &str) -> Self {
        let args = ["--socket", socket, "--id", "5", "--ip", "192.0.2.9", "--mac", "02:00:00:00:00:09"];
        let child = Command::new(common::example("icmp_responder"))
            .args(args)
            .args(["--role", role, "--queues", "2"])
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        Self(child)
    }

    /// Ends it the polite way; true if it succeeded.
    fn terminate(&mut self) -> bool {
        let pid = rustix::process::Pid::from_raw(self.0.id() as i32).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        self.0.wait().unwrap().success()
    }
}

impl Drop for Responder {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn ethernet(to: [u8; 6], from: [u8; 6], ethertype: u16, payload: &[u8]) -> Vec<u8> {
    [&to[..], &from, &ethertype.to_be_bytes(), payload].concat()
}

/// ARP request for 192.0.2.9 from 192.0.2.1, and the reply that it must get.
fn arp() -> (Vec<u8>, Vec<u8>) {
    let start = [0, 1, 8, 0, 6, 4, 0];
    let (peer, ours) = ([192, 0, 2, 1], [192, 0, 2, 9]);
    let request = [&start[..], &[1], &PEER_MAC, &peer, &[0; 6], &ours].concat();
    let reply = [&start[..], &[2], &MAC, &ours, &PEER_MAC, &peer].concat();
    (ethernet([0xff; 6], PEER_MAC, 0x0806, &request), ethernet(PEER_MAC, MAC, 0x0806, &reply))
}

/// Echo request of RFC 792 with 8 bytes of data, checksums over literal words, and its reply.
fn echo() -> (Vec<u8>, Vec<u8>) {
    let header = |ttl: u8, sum: [u8; 2], from: u8, to: u8| {
        [0x45, 0, 0, 36, 0, 1, 0, 0, ttl, 1, sum[0], sum[1], 192, 0, 2, from, 192, 0, 2, to]
    };
    let body = |kind: u8, sum: [u8; 2]| [kind, 0, sum[0], sum[1], 0, 7, 0, 1, 1, 2, 3, 4, 5, 6, 7, 8];
    let sum = |words: &[u16]| {
        let sum: u32 = words.iter().map(|w| u32::from(*w)).sum();
        (!((sum & 0xffff) + (sum >> 16)) as u16).to_be_bytes()
    };
    let ip = |ttl: u16| sum(&[0x4500, 36, 1, 0, ttl << 8 | 1, 0xc000, 0x0201, 0xc000, 0x0209]);
    let icmp = |kind: u16| sum(&[kind << 8, 7, 1, 0x0102, 0x0304, 0x0506, 0x0708]);
    let request = [&header(9, ip(9), 1, 9)[..], &body(8, icmp(8))].concat();
    let reply = [&header(64, ip(64), 9, 1)[..], &body(0, icmp(0))].concat();
    (ethernet(MAC, PEER_MAC, 0x0800, &request), ethernet(PEER_MAC, MAC, 0x0800, &reply))
}

/// Sends requests on each queue and expects the replies there; noise between them gets none.
fn exchange(link: &mut Connection) {
    for (tx, rx) in link.tx.iter_mut().zip(&mut link.rx) {
        for round in 0..3 {
            let (arp, echo) = (arp(), echo());
            let mut broken = echo.0.clone();
            broken[40] ^= 1;
            let mut foreign = echo.0.clone();
            foreign[33] = 8;
            let noise = [vec![1], vec![0; 14], arp.0[..41].to_vec(), echo.0[..40].to_vec(), broken, foreign];
            let all: Vec<Vec<u8>> = noise.into_iter().chain([arp.0, echo.0]).collect();
            let mut got: Vec<Vec<u8>> = Vec::new();
            let start = Instant::now();
            // A client that has just connected posts its buffers a little later.
            while tx.free_slots() < all.len() {
                assert!(start.elapsed() < PATIENCE, "no buffers");
            }
            assert_eq!(tx.transmit(all.as_slice()), all.len());
            tx.kick();
            while got.len() < 2 {
                rx.receive_with(8, |p| {
                    let mut packet = vec![0; p.len()];
                    p.copy_to(&mut packet);
                    got.push(packet);
                });
                assert!(start.elapsed() < PATIENCE, "round {round}: {got:02x?}");
                std::thread::sleep(Duration::from_millis(1));
            }
            assert_eq!(got, [arp.1, echo.1], "round {round}");
        }
    }
}

fn accept(listener: &mut Listener) -> Connection {
    let start = Instant::now();
    loop {
        match listener.process(Instant::now()).pop() {
            Some(ServerEvent::Connected(link)) => return *link,
            Some(other) => panic!("{other:?}"),
            None => {}
        }
        assert!(start.elapsed() < PATIENCE, "no client");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn as_client() {
    let socket = format!("@memif-responder-{}-c", std::process::id());
    // It starts before its server.
    let mut responder = Responder::start(&socket, "client");
    let mut listener = Listener::bind(for_us(Address::parse(&socket).unwrap()), Instant::now()).unwrap();
    listener.add(InterfaceConfig::new(5, "memif0/5")).unwrap();
    for _ in 0..3 {
        let mut link = accept(&mut listener);
        assert_eq!(link.rx.len(), 2);
        exchange(&mut link);
    }
    let mut link = accept(&mut listener);
    assert!(responder.terminate());
    let reason = CloseReason::Remote { code: 0, reason: "icmp_responder ends".into() };
    assert_eq!(link.control.process(), Some(&reason));
}

#[test]
fn as_server() {
    let socket = format!("@memif-responder-{}-s", std::process::id());
    let mut responder = Responder::start(&socket, "server");
    for _ in 0..3 {
        let mut config = ClientConfig::new(Address::parse(&socket).unwrap(), 5);
        (config.rx_queues, config.tx_queues) = (2, 2);
        let start = Instant::now();
        let mut backoff = Backoff::new();
        let mut link = 'connected: loop {
            assert!(start.elapsed() < PATIENCE, "no server");
            if let Ok(mut client) = Client::connect(config.clone(), Instant::now()) {
                loop {
                    match client.process(Instant::now()) {
                        Ok(Some(link)) => break 'connected link,
                        Ok(None) => std::thread::sleep(Duration::from_millis(1)),
                        // The server has yet to see that our last connection is gone.
                        Err(_) => break,
                    }
                }
            }
            let now = Instant::now();
            std::thread::sleep(backoff.next_attempt(now) - now);
        };
        exchange(&mut link);
    }
    assert!(responder.terminate());
}
