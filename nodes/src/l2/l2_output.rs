//! `l2-output`: frames that leave through a port where tags are rewritten.
//!
//! Expects: a whole frame, the interface to send it on, and the split-horizon group that it came from.
//! Hands on: to `interface-output`.
//! Drops: what would go from one port of a split-horizon group to another; frames without the tags that are to be taken.
//! Reads: [`L2Tables`].
//! CLI: `set interface l2 tag-rewrite`.

use super::{L2OutputMeta, L2Tables, trace};
use crate::interface::InterfaceOutput;
use std::fmt;
use wharf_engine::{Cx, Disposition, Node, PacketRef, TraceView, error_counters, next_nodes};

/// See the module.
#[derive(Debug)]
pub struct L2Output;

next_nodes! {
    /// Where frames go.
    pub enum Next { Output => InterfaceOutput }
}

error_counters! {
    /// Why frames are dropped.
    pub enum Error {
        SplitHorizon => "L2 split horizon drops",
        Tags => "frame has not the tags to be rewritten",
        NotL2 => "L2 Output interface not valid",
    }
}

impl Node for L2Output {
    const NAME: &'static str = "l2-output";
    type Meta = L2OutputMeta;
    type Next = Next;
    type Error = Error;
    type Tables = L2Tables;

    #[inline(always)]
    fn process(&mut self, cx: &Cx<'_, Self>, p: &mut PacketRef<'_>, meta: L2OutputMeta) -> Disposition<Self> {
        let Some(port) = cx.tables().port(meta.tx) else {
            return Disposition::Drop(Error::NotL2);
        };
        if meta.shg != 0 && meta.shg == u32::from(port.shg) {
            return Disposition::Drop(Error::SplitHorizon);
        }
        if !port.output.is_none() && port.output.apply(p).is_err() {
            return Disposition::Drop(Error::Tags);
        }
        Disposition::Next(Next::Output(meta.tx))
    }

    fn trace(view: &TraceView<'_>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tx = view.meta::<L2OutputMeta>().tx;
        write!(f, "l2-output: sw_if_index {tx} {} data ", trace::addresses(view))?;
        view.data_after().iter().skip(12).take(12).try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}
