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
//! An application that sends every packet back. It sleeps while there is none, and connects again when the other
//! side has restarted:
//!
//! ```no_run
//! use memif::{Address, ClientConfig, Port};
//!
//! fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let mut port = Port::client(ClientConfig::new(Address::parse("/run/wharf/memif.sock")?, 0))?;
//!     let (mut buffers, mut lengths) = (vec![[0; 2048]; 64], [0; 64]);
//!     loop {
//!         if let Some(event) = port.wait(None)? {
//!             println!("{event:?}");
//!         }
//!         let Some(link) = port.link() else { continue };
//!         let n = link.rx[0].receive_into(&mut buffers, &mut lengths);
//!         let packets: Vec<&[u8]> = buffers.iter().zip(lengths).take(n).map(|(b, len)| &b[..len]).collect();
//!         link.tx[0].transmit(packets.as_slice());
//!         link.tx[0].kick();
//!     }
//! }
//! ```
//!
//! The directory `examples` has whole applications: an answerer of pings, a bridge, a generator, a packet dump.
//!
//! # Parts
//!
//! * [`Port`] is one interface that keeps itself connected: all that an application with one thread needs. The rest is
//!   for those with more.
//! * [`Listener`] (server) and [`Client`] make a [`Connection`].
//! * [`Control`] stays with whoever polls sockets; it learns that the peer is gone, and says why.
//! * [`RxQueue`] and [`TxQueue`] move to the threads that move packets. A queue of a dead connection moves none.
//! * [`wire`] is the format, for tools and tests.

/// The examples of the README are compiled.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

mod admission;
mod client;
mod config;
mod connection;
mod copy;
mod error;
mod handshake;
mod index;
mod kick;
mod port;
mod queue;
mod region;
mod ring;
mod rx;
mod segment;
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
pub use port::{Link, Port, PortEvent};
pub use queue::{Counters, RingState};
pub use rx::{RxQueue, RxSink};
pub use segment::{Accepted, Packet, Plain};
pub use server::{Listener, ServerEvent};
pub use sigbus::survive_sigbus;
pub use socket::{Address, PeerCredentials};
pub use tx::{TxQueue, TxSource};
