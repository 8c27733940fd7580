//! AF_XDP below the packet graph: sockets, rings, the XDP program, and the interfaces they are on.
//!
//! A host interface is taken over in this order: [`netns::NetNs::run`] to be in its namespace,
//! [`link::Links::by_name`] for its facts, [`program::XdpProgram::attach`], one [`XskSocket`] for
//! *every* receive queue, each filled with buffers and named to the program, and only then
//! [`program::XdpProgram::steal`]. Dropping program and sockets gives it back.
//!
//! Memory is the caller's: an [`Area`] describes it, and everything here speaks of its buffers by
//! index. Which buffer belongs to whom is the caller's to know. A device that disappears keeps
//! what it had, and [`netlink::Monitor`] is the one to tell.

mod area;
#[cfg(test)]
mod device_tests;
mod error;
mod ethtool;
mod health;
mod holder;
mod input;
mod interface;
mod lent;
pub mod link;
mod metadata;
pub mod netlink;
pub mod netns;
mod output;
pub mod program;
mod queue;
pub mod rings;
mod socket;
pub mod testing;

pub use area::{Area, BUFFER_HEADER, RX_HEADROOM, RxFrame, TxFrame};
pub use error::XdpError;
pub use ethtool::Feature;
pub use holder::Holder;
pub use input::XdpInput;
pub use interface::{TxInfo, XdpConfig, XdpCreated, XdpEvent, XdpInfo, XdpManager};
pub use metadata::{TX_METADATA_BYTES, TX_METADATA_LEN, TxMetadata};
pub use output::XdpOutput;
pub use queue::{Completed, FillSlots, Received, RxKick, RxQueue, TxKick, TxQueue, TxSlots};
pub use rings::{CompletionRing, Descriptor, FillRing, RxRing, TxRing};
pub use socket::{
    BusyPoll, Capabilities, CopyMode, RingSizes, SocketConfig, SocketMonitor, Statistics, XskSocket,
    raise_memlock_limit,
};
