//! Tests of both roles against each other, and of each against a peer that lies.

mod data;
mod handshake;
mod hostile;
mod port;
mod rings;

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use crate::{
    Address, Client, ClientConfig, Connection, InterfaceConfig, Listener, ListenerConfig, RxQueue,
    ServerEvent, TxQueue,
};

/// An abstract address that no other test uses.
fn address() -> Address {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let n = NEXT.fetch_add(1, Ordering::Relaxed);
    Address::parse(&format!("@memif-test-{}-{n}", std::process::id())).unwrap()
}

/// A listener for us alone.
fn listener_config() -> ListenerConfig {
    let me = rustix::process::geteuid().as_raw();
    ListenerConfig { allowed_uids: vec![me], ..ListenerConfig::new(address()) }
}

/// A listener with interface 0.
fn listener() -> Listener {
    let mut listener = Listener::bind(listener_config(), Instant::now()).unwrap();
    listener.add(InterfaceConfig::new(0, "server0")).unwrap();
    listener
}

fn config(listener: &Listener) -> ClientConfig {
    ClientConfig::new(listener.address().clone(), 0)
}

/// Both ends of a connection.
struct Link {
    server: Connection,
    client: Connection,
}

/// Runs both handshakes to their end. No time passes for them: how fast this machine is does not matter.
fn run(listener: &mut Listener, mut client: Client) -> Link {
    let now = Instant::now();
    let (mut at_server, mut at_client) = (None, None);
    while at_server.is_none() || at_client.is_none() {
        assert!(now.elapsed() < Duration::from_secs(10), "handshake hangs");
        for event in listener.process(now) {
            match event {
                ServerEvent::Connected(c) => at_server = Some(*c),
                other => panic!("{other:?}"),
            }
        }
        if at_client.is_none() {
            at_client = client.process(now).unwrap();
        }
    }
    Link { server: at_server.unwrap(), client: at_client.unwrap() }
}

/// A connection whose indices start at `start`.
fn link_at(start: u16, change: impl FnOnce(&mut ClientConfig)) -> Link {
    let mut listener = listener();
    let mut config = config(&listener);
    change(&mut config);
    let client = Client::connect_at(config, Instant::now(), start).unwrap();
    run(&mut listener, client)
}

fn link(change: impl FnOnce(&mut ClientConfig)) -> Link {
    link_at(0, change)
}

/// `len` bytes that depend on `seed`.
fn bytes(seed: usize, len: usize) -> Vec<u8> {
    (0..len).map(|i| (seed.wrapping_mul(31).wrapping_add(i * 7) ^ (i >> 8)) as u8).collect()
}

/// All packets that are there, one at a time.
fn drain(rx: &mut RxQueue) -> Vec<Vec<u8>> {
    let mut got = Vec::new();
    while rx.receive_with(256, |p| {
        let mut packet = vec![0; p.len()];
        assert_eq!(p.copy_to(&mut packet), p.len());
        got.push(packet);
    }) != 0
    {}
    got
}

/// Sends and expects all of it to be taken.
fn send(tx: &mut TxQueue, packets: &[Vec<u8>]) {
    assert_eq!(tx.transmit(packets), packets.len());
}
