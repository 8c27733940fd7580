//! Ethernet.

mod ethernet_input;
pub mod trace;

pub use ethernet_input::EthernetInput;
