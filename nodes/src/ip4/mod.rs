//! IPv4 forwarding, RFC 791 and RFC 1812.

mod counted;
mod ip4_arp;
mod ip4_icmp_echo_request;
mod ip4_icmp_error;
mod ip4_icmp_input;
mod ip4_input;
mod ip4_load_balance;
mod ip4_local;
mod ip4_lookup;
mod ip4_punt;
mod ip4_rewrite;
mod ip4_udp_lookup;
mod tables;
pub mod trace;

pub use counted::CountedRoutes;
pub use ip4_arp::{Ip4Arp, PENDING_PER_NEIGHBOUR};
pub use ip4_icmp_echo_request::Ip4IcmpEchoRequest;
pub use ip4_icmp_error::{IcmpError, Ip4IcmpError};
pub use ip4_icmp_input::Ip4IcmpInput;
pub use ip4_input::{Ip4Input, Ip4UnicastArc};
pub use ip4_load_balance::Ip4LoadBalance;
pub use ip4_local::Ip4Local;
pub use ip4_lookup::Ip4Lookup;
pub use ip4_punt::Ip4Punt;
pub use ip4_rewrite::{Ip4OutputArc, Ip4Rewrite};
pub use ip4_udp_lookup::{Ip4UdpLookup, UdpTables};
pub use tables::{AdjIndex, Adjacency, AdjacencyKind, Ip4Interface, Ip4Tables};
