//! Both ends of a memif connection in one process.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use memif::{
    Address, Client, ClientConfig, Connection, InterfaceConfig, Listener, ListenerConfig, Secret, ServerEvent,
};

/// The server's end and the client's, with one ring of 1,024 buffers in each direction.
pub fn connect() -> (Connection, Connection) {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let name = format!("@wharf-benches-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    let address = Address::parse(&name).expect("a good name");
    let now = Instant::now();
    let mut listener = Listener::bind(ListenerConfig::new(address.clone()), now).expect("the name is free");
    let secret = Secret::new(b"bench").ok();
    listener.add(InterfaceConfig { secret, ..InterfaceConfig::new(0, "bench") }).expect("the id is free");
    let mut client = Client::connect(ClientConfig { secret, ..ClientConfig::new(address, 0) }, now)
        .expect("somebody listens");
    let (mut ours, mut theirs) = (None, None);
    loop {
        for event in listener.process(Instant::now()) {
            if let ServerEvent::Connected(connection) = event {
                ours = Some(*connection);
            }
        }
        if theirs.is_none() {
            theirs = client.process(Instant::now()).expect("the handshake works");
        }
        match (ours, theirs) {
            (Some(server), Some(client)) => return (server, client),
            halves => (ours, theirs) = halves,
        }
    }
}
