//! `span-output`: copies what an interface sends to others.
//!
//! Expects: a whole frame and the interface that it is sent on, on arc `interface-output`.
//! Hands on: the frame to the next feature of the arc, a copy of it for each destination to `interface-output`.
//! Drops: nothing. A copy for which there is no buffer is counted.
//! Reads: [`SpanTables`].
//! CLI: `set interface span`.

use super::{SpanTables, mirror};
use crate::interface::InterfaceOutput;
use wharf_engine::{Cx, Disposition, Node, PacketRef, SwIfIndex, error_counters, next_nodes};

/// See the module.
#[derive(Debug)]
pub struct SpanOutput;

next_nodes! {
    /// Where copies go.
    pub enum Next { Output => InterfaceOutput }
}

error_counters! {
    /// What is counted.
    pub enum Error { Hits => "SPAN outgoing packets mirrored", Failed => "SPAN replication failures" }
}

impl Node for SpanOutput {
    const NAME: &'static str = "span-output";
    type Meta = SwIfIndex;
    type Next = Next;
    type Error = Error;
    type Tables = SpanTables;

    fn process(&mut self, cx: &Cx<'_, Self>, p: &mut PacketRef<'_>, tx: SwIfIndex) -> Disposition<Self> {
        let to = cx.tables().tx.get(&tx);
        mirror(cx, p, to, Next::Output, [Error::Hits, Error::Failed]);
        Disposition::NextFeature
    }
}
