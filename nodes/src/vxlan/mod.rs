//! VXLAN over IPv4, RFC 7348. A tunnel is an interface: what is sent there is put into packets to its peer, and what comes from the peer is
//! received there.

mod tables;
mod vxlan4_encap;
mod vxlan4_input;

pub use tables::{Decap, OuterHeader, VxlanTables, VxlanTunnel, decap_key};
pub use vxlan4_encap::Vxlan4Encap;
pub use vxlan4_input::Vxlan4Input;
