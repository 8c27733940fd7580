//! Packet headers as they are on the wire.
//!
//! Each header is a plain struct without padding and with alignment 1, so that any bytes are a valid one: a node views
//! the front of a packet as a header, and then judges its fields. Multi-byte fields are [`U16`] and [`U32`] in network
//! byte order; `get()` gives the number. What a field's bits mean is behind an accessor, with the RFC that says so.

pub mod arp;
pub mod checksum;
pub mod ethernet;
pub mod icmp4;
pub mod inner;
pub mod ip4;
pub mod tcp;
pub mod udp;
pub mod vxlan;

pub use ethernet::{EtherType, EthernetHeader, MacAddress, VlanTag};
pub use ip4::{Ip4Header, Ip4Prefix, IpProtocol};
pub use vxlan::VxlanHeader;

/// A 16-bit number in network byte order.
pub type U16 = zerocopy::byteorder::U16<zerocopy::byteorder::NetworkEndian>;
/// A 32-bit number in network byte order.
pub type U32 = zerocopy::byteorder::U32<zerocopy::byteorder::NetworkEndian>;
