//! `span-l2-input`: copies what an interface receives to be bridged or cross-connected to other interfaces.
//!
//! Expects: a whole frame as `l2-input` got it, on the arcs `l2-input-ip4`, `l2-input-ip6` and `l2-input-nonip`, before all other features.
//! Hands on: the frame to the next feature of the arc, a copy of it for each destination to `l2-output`, which rewrites tags as for that port.
//! Drops: nothing. A copy for which there is no buffer is counted.
//! Reads: [`SpanTables`].
//! CLI: `set interface span INTERFACE l2`.

use super::{SpanTables, mirror};
use crate::l2::{L2Output, L2OutputMeta};
use wharf_engine::{Cx, Disposition, Node, PacketRef, error_counters, next_nodes};

/// See the module.
#[derive(Debug)]
pub struct SpanL2Input;

next_nodes! {
    /// Where copies go.
    pub enum Next { L2Output => L2Output }
}

error_counters! {
    /// What is counted.
    pub enum Error { Hits => "SPAN incoming packets mirrored", Failed => "SPAN replication failures" }
}

impl Node for SpanL2Input {
    const NAME: &'static str = "span-l2-input";
    type Meta = ();
    type Next = Next;
    type Error = Error;
    type Tables = SpanTables;

    fn process(&mut self, cx: &Cx<'_, Self>, p: &mut PacketRef<'_>, _: ()) -> Disposition<Self> {
        let to = cx.tables().l2_rx.get(&p.rx());
        mirror(cx, p, to, |tx| Next::L2Output(L2OutputMeta { tx, shg: 0 }), [Error::Hits, Error::Failed]);
        Disposition::NextFeature
    }
}
