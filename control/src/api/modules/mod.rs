//! The messages, a file per module of VPP's. What has no function here answers "not implemented".

pub mod acl;
pub mod af_packet;
pub mod af_xdp;
pub mod arp;
pub mod bond;
pub mod feature;
pub mod gso;
pub mod interface;
pub mod ip;
pub mod ip6_nd;
pub mod ip_neighbor;
pub mod l2;
pub mod lcp;
pub mod memclnt;
pub mod memif;
pub mod mpls;
pub mod pg;
pub mod ping;
pub mod sflow;
pub mod span;
pub mod tapv2;
pub mod tracedump;
pub mod types;
pub mod vlib;
pub mod vpe;
pub mod vxlan;

use super::registry::Served;

/// All modules, with what answers their requests. The first one is first because clients expect its numbers.
pub fn modules() -> Vec<Served> {
    vec![
        (&memclnt::MODULE, memclnt::handlers),
        (&vlib::MODULE, vlib::handlers),
        (&vpe::MODULE, vpe::handlers),
        (&interface::MODULE, interface::handlers),
        (&feature::MODULE, feature::handlers),
        (&ip::MODULE, ip::handlers),
        (&ip_neighbor::MODULE, ip_neighbor::handlers),
        (&arp::MODULE, arp::handlers),
        (&ping::MODULE, ping::handlers),
        (&l2::MODULE, l2::handlers),
        (&span::MODULE, span::handlers),
        (&vxlan::MODULE, vxlan::handlers),
        (&acl::MODULE, acl::handlers),
        (&memif::MODULE, memif::handlers),
        (&af_xdp::MODULE, af_xdp::handlers),
        (&pg::MODULE, pg::handlers),
        (&tracedump::MODULE, tracedump::handlers),
        (&gso::MODULE, gso::handlers),
        (&tapv2::MODULE, tapv2::handlers),
        (&af_packet::MODULE, af_packet::handlers),
        (&ip6_nd::MODULE, ip6_nd::handlers),
        (&mpls::MODULE, mpls::handlers),
        (&lcp::MODULE, lcp::handlers),
        (&bond::MODULE, bond::handlers),
        (&sflow::MODULE, sflow::handlers),
    ]
}
