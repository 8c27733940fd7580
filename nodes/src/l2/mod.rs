//! Layer 2: cross-connects, bridge domains, VLAN tags.
//!
//! A frame takes `l2-input`, and then out of the peer of a cross-connect, or through its bridge domain: `l2-fwd` learns its source and
//! looks up its destination in one pass, `l2-flood` copies what goes to many, `arp-term-l2bd` answers for others. `l2-output` is passed only
//! by frames whose tags are rewritten on the way out, or whose port has features there.

mod arp_term_l2bd;
mod l2_flood;
mod l2_fwd;
mod l2_input;
mod l2_input_feat_arc_end;
mod l2_output;
mod mac_table;
mod tables;
mod tag_rewrite;
pub mod trace;

pub use arp_term_l2bd::ArpTermL2bd;
pub use l2_flood::L2Flood;
pub use l2_fwd::L2Fwd;
pub use l2_input::{L2Input, L2InputArcs, L2InputIp4Arc, L2InputIp6Arc, L2InputNonIpArc};
pub use l2_input_feat_arc_end::L2InputFeatArcEnd;
pub use l2_output::{L2Output, L2OutputArcs, L2OutputIp4Arc, L2OutputIp6Arc, L2OutputNonIpArc};
pub use mac_table::{
    DEFAULT_BUCKETS, DEFAULT_DOMAIN_LIMIT, DEFAULT_PORT_LIMIT, DomainIndex, Learned, MAX_MOVES, MAX_PORTS,
    MacEntry, MacTable, MacTableError, Stamp, key,
};
pub use tables::{BridgeDomain, L2Meta, L2OutputMeta, L2Port, L2Tables, Member, PortMode, l2_flags};
pub use tag_rewrite::{CannotRewrite, Tag, TagRewrite, read_tags, tags};
