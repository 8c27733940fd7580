//! Access lists, after VPP's acl plugin.
//!
//! [`rule`] says what a rule means, [`classifier`] finds the first of many that matches, [`sessions`] remembers the flows that permit+reflect rules let
//! pass, [`packet`] reads what rules look at. [`AclPlugin`] is the node that puts them together; [`MacIpAcl`] is port security.

mod acl_plugin;
pub mod classifier;
mod lists;
mod macip;
pub mod packet;
pub mod rule;
mod session;
mod session_bucket;
pub mod sessions;
mod tables;
mod verdicts;

pub use acl_plugin::{
    AclPlugin, InIp4Fa, InIp4L2, InIp6L2, InNonIpL2, Kind, OutIp4Fa, OutIp4L2, OutIp6L2, OutNonIpL2, Place,
};
pub use lists::{Fields, ListedRule, Lists};
pub use macip::{MAX_MACIP_RULES, MacIpAcl, MacIpList, MacIpRule};
pub use rule::{AclPrefix, Action, Rule, Tuple};
pub use tables::{AclTables, Direction, InterfaceAcl, Side};

use crate::event::Events;
use crate::interface::DeviceInputArc;
use wharf_engine::{FeatureOrder, GraphBuilder};

/// Adds the nodes and features of this family to `list`.
pub(crate) fn nodes(list: &mut GraphBuilder, events: &Events) {
    place::<InIp4Fa>(list, events);
    place::<OutIp4Fa>(list, events);
    place::<InIp4L2>(list, events);
    place::<OutIp4L2>(list, events);
    place::<InIp6L2>(list, events);
    place::<OutIp6L2>(list, events);
    place::<InNonIpL2>(list, events);
    place::<OutNonIpL2>(list, events);
    list.node(|_| MacIpAcl);
    list.feature::<DeviceInputArc, MacIpAcl>(FeatureOrder::default());
}

fn place<P: Place>(list: &mut GraphBuilder, events: &Events) {
    let events = events.clone();
    list.node(move |_| AclPlugin::<P>::new(events.sender()));
    list.feature::<P::Arc, AclPlugin<P>>(FeatureOrder::default());
}
