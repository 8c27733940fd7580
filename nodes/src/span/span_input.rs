//! `span-input`: copies what a device receives to other interfaces.
//!
//! Expects: what a device has received, on arc `device-input`.
//! Hands on: the packet to the next feature of the arc, a copy of it for each destination to `interface-output`.
//! Drops: nothing. A copy for which there is no buffer is counted.
//! Reads: [`SpanTables`].
//! CLI: `set interface span`.

use super::{SpanTables, mirror};
use crate::interface::InterfaceOutput;
use wharf_engine::{Cx, Disposition, Node, PacketRef, error_counters, next_nodes};

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
        let to = cx.tables().rx.get(&p.rx());
        mirror(cx, p, to, Next::Output, [Error::Hits, Error::Failed]);
        Disposition::NextFeature
    }
}
