//! `sub-interface-output`: what a sub-interface sends, on the way to the interface that it is part of.
//!
//! Expects: a whole frame, and the sub-interface.
//! Hands on: with the tags of an L3 sub-interface in front, to `interface-output` of its parent. An L2 one's frames are sent as they are:
//! what happens to their tags says `set interface l2 tag-rewrite`.
//! Drops: frames of a sub-interface that is gone.
//! Reads: [`InterfaceTables`].
//! CLI: `create sub-interfaces`.

use crate::interface::{InterfaceOutput, InterfaceTables};
use std::fmt;
use wharf_engine::{Cx, Disposition, Node, PacketRef, SwIfIndex, TraceView, error_counters, next_nodes};

/// See the module.
#[derive(Debug)]
pub struct SubInterfaceOutput;

next_nodes! {
    /// Where frames go.
    pub enum Next { Output => InterfaceOutput }
}

error_counters! {
    /// Why frames are dropped.
    pub enum Error { Gone => "sub-interface is deleted", Headroom => "no room for the tags" }
}

impl Node for SubInterfaceOutput {
    const NAME: &'static str = "sub-interface-output";
    type Meta = SwIfIndex;
    type Next = Next;
    type Error = Error;
    type Tables = InterfaceTables;

    #[inline(always)]
    fn process(&mut self, cx: &Cx<'_, Self>, p: &mut PacketRef<'_>, tx: SwIfIndex) -> Disposition<Self> {
        let Some(Some(output)) = cx.tables().outputs.get(tx.index()) else {
            return Disposition::Drop(Error::Gone);
        };
        if !output.tags.is_none() && output.tags.apply(p).is_err() {
            return Disposition::Drop(Error::Headroom);
        }
        Disposition::Next(Next::Output(output.parent))
    }

    fn trace(view: &TraceView<'_>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\n  ", view.interface(view.meta()))?;
        super::trace::frame(view.data_after(), f)
    }
}
