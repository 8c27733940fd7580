//! memif: packets between processes over shared memory, protocol version 2.0, both roles.
//!
//! Two processes share rings of packet descriptors and the buffers they point to, and set this up over a Unix
//! socket. The *client* (VPP and libmemif: *slave*) allocates the memory; the *server* (*master*) listens, and
//! serves many clients on one socket, told apart by interface id. Interoperates with VPP, libmemif and DPDK.
//!
//! Neither role trusts its peer: geometry is validated once, each descriptor is read once and checked, packets
//! are copied before anybody looks at them, and a peer that breaks the rules of a ring is disconnected. Nothing
//! here blocks or, on the packet path, allocates.
//!
//! # Example
//!
//! A client that sends one packet and waits for one:
//!
//! ```no_run
//! use std::time::Instant;
//! use memif::{Address, Client, ClientConfig};
//!
//! fn main() -> Result<(), memif::Error> {
//!     let config = ClientConfig::new(Address::parse("/run/wharf/memif.sock")?, 0);
//!     let mut client = Client::connect(config, Instant::now())?;
//!     let mut link = loop {
//!         // An application polls `client.fd()` here.
//!         if let Some(connection) = client.process(Instant::now())? {
//!             break connection;
//!         }
//!     };
//!     let (rx, tx) = (&mut link.rx[0], &mut link.tx[0]);
//!     tx.transmit([[0xffu8; 60]].as_slice());
//!     tx.kick();
//!     while link.control.process().is_none() {
//!         // And `rx.fd()` here, after `rx.set_interrupt_mode(true)`.
//!         let mut buffers = [[0u8; 2048]; 32];
//!         let mut lengths = [0; 32];
//!         let n = rx.receive_into(&mut buffers, &mut lengths);
//!         for (buffer, len) in buffers.iter().zip(lengths).take(n) {
//!             println!("{:02x?}", &buffer[..len]);
//!         }
//!     }
//!     Ok(())
//! }
//! ```
//!
//! `examples/icmp_responder.rs` is a whole application: it sleeps when idle, and reconnects.
//!
//! # Parts
//!
//! * [`Listener`] (server) and [`Client`] make a [`Connection`].
//! * [`Control`] stays with whoever polls sockets; it learns that the peer is gone, and says why.
//! * [`RxQueue`] and [`TxQueue`] move to the threads that move packets. A queue of a dead connection moves none.
//! * [`wire`] is the format, for tools and tests.

mod client;
mod config;
mod connection;
mod copy;
mod error;
mod handshake;
mod index;
mod kick;
mod queue;
mod region;
mod ring;
mod rx;
mod server;
mod sigbus;
mod socket;
#[cfg(all(test, not(loom)))]
mod tests;
mod tx;
pub mod wire;

pub use client::{Backoff, Client};
pub use config::{
    ClientConfig, InterfaceConfig, Limits, ListenerConfig, MAX_BURST, MAX_DESCRIPTORS, MAX_FRAME,
    MAX_SEGMENTS, Mode, Role, Secret,
};
pub use connection::{CloseReason, Connection, ConnectionInfo, Control};
pub use error::{
    ConfigError, Direction, Error, HandshakeError, RegionError, RingError, SocketError, Violation,
};
pub use queue::{Counters, RingState};
pub use rx::{Packet, RxQueue, RxSink};
pub use server::{Listener, ServerEvent};
pub use sigbus::survive_sigbus;
pub use socket::{Address, PeerCredentials};
pub use tx::{TxQueue, TxSource};
