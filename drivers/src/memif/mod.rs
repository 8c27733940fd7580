//! memif: packets to and from containers and other dataplanes, over shared memory.
//!
//! The protocol is the crate [`memif`]; here its queues become devices of the engine. [`MemifManager`] stays on the
//! main thread with the sockets; when a peer connects, it gives out a [`MemifInput`] per receive ring and a
//! [`MemifOutput`] per transmit ring. Both copy: the peer never sees a buffer of ours, and what it wrote is looked
//! at only after it was copied.

mod config;
mod info;
mod input;
mod manager;
mod output;
mod socket;
#[cfg(test)]
mod tests;

pub use config::{DEFAULT_SOCKET, MAX_RING_SIZE, MIN_SERVER_QUEUES, MemifConfig, MemifError};
pub use info::{MemifInfo, RegionInfo, RingInfo, SocketInfo};
pub use input::MemifInput;
pub use manager::{MemifEvent, MemifManager};
pub use output::MemifOutput;
pub use socket::Access;
