//! `span-l2-output`: copies what a bridge or a cross-connect sends on an interface to others.
//!
//! Expects: a whole frame and the interface that it is sent on, on the arcs `l2-output-ip4`, `l2-output-ip6` and `l2-output-nonip`, after all other
//! features: what they drop is not copied.
//! Hands on: the frame to the next feature of the arc, a copy of it for each destination to `l2-output`, which rewrites tags as for that port.
//! Drops: nothing. A copy for which there is no buffer is counted.
//! Reads: [`SpanTables`].
//! CLI: `set interface span INTERFACE l2`.

use super::{SpanTables, mirror};
use crate::l2::{L2Output, L2OutputMeta};
use wharf_engine::{Cx, Disposition, Node, PacketRef, SwIfIndex, error_counters, next_nodes};

/// See the module.
#[derive(Debug)]
pub struct SpanL2Output;

next_nodes! {
    /// Where copies go.
    pub enum Next { L2Output => L2Output }
}

error_counters! {
    /// What is counted.
    pub enum Error { Hits => "SPAN outgoing packets mirrored", Failed => "SPAN replication failures" }
}

impl Node for SpanL2Output {
    const NAME: &'static str = "span-l2-output";
    type Meta = SwIfIndex;
    type Next = Next;
    type Error = Error;
    type Tables = SpanTables;

    fn process(&mut self, cx: &Cx<'_, Self>, p: &mut PacketRef<'_>, tx: SwIfIndex) -> Disposition<Self> {
        let to = cx.tables().l2_tx.get(&tx);
        mirror(cx, p, to, |tx| Next::L2Output(L2OutputMeta { tx, shg: 0 }), [Error::Hits, Error::Failed]);
        Disposition::NextFeature
    }
}
