//! ARP over Ethernet, RFC 826.

mod arp_input;
mod arp_reply;
mod tables;

pub use arp_input::ArpInput;
pub use arp_reply::ArpReply;
pub use tables::{ArpInterface, ArpTables};
