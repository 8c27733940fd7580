//! `span-input`: copies what an interface receives to others.
//!
//! Expects: what a device has received, on arc `device-input`.
//! Hands on: the packet to the next feature of the arc, a copy of it for each destination to `interface-output`.
//! Drops: nothing. A copy for which there is no buffer is counted.
//! Reads: [`SpanTables`].
//! CLI: `set interface span`.

use super::SpanTables;
use crate::interface::InterfaceOutput;
use wharf_engine::{Cx, Disposition, Node, PacketRef, error_counters, flags, next_nodes};

/// See the module.
#[derive(Debug)]
pub struct SpanInput;

next_nodes! {
    /// Where copies go.
    pub enum Next { Output => InterfaceOutput }
}

error_counters! {
    /// What is counted.
    pub enum Error { Hits => "SPAN incoming packets mirrored", Failed => "SPAN replication failures" }
}

impl Node for SpanInput {
    const NAME: &'static str = "span-input";
    type Meta = ();
    type Next = Next;
    type Error = Error;
    type Tables = SpanTables;

    fn process(&mut self, cx: &Cx<'_, Self>, p: &mut PacketRef<'_>, _: ()) -> Disposition<Self> {
        for to in cx.tables().rx.get(&p.rx()).into_iter().flatten() {
            let made = cx.copy(p, |copy| {
                copy.add_flags(flags::MIRRORED);
                Next::Output(*to)
            });
            cx.count(if made { Error::Hits } else { Error::Failed });
        }
        Disposition::NextFeature
    }
}
