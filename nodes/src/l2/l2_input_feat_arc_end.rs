//! `l2-input-feat-arc-end`: frames that the features of the arcs of `l2-input` have let pass go on as that node would have sent them.
//!
//! Expects: a whole frame.
//! Hands on, drops, reads: as `l2-input`.

use super::l2_input::{Error, Next, switch};
use super::{L2Tables, trace};
use std::fmt;
use wharf_engine::{Cx, Disposition, Node, PacketRef, TraceView};

/// See the module.
#[derive(Debug)]
pub struct L2InputFeatArcEnd;

impl Node for L2InputFeatArcEnd {
    const NAME: &'static str = "l2-input-feat-arc-end";
    type Meta = ();
    type Next = Next;
    type Error = Error;
    type Tables = L2Tables;

    #[inline(always)]
    fn process(&mut self, cx: &Cx<'_, Self>, p: &mut PacketRef<'_>, _: ()) -> Disposition<Self> {
        let Some(port) = cx.tables().port(p.rx()) else {
            return Disposition::Drop(Error::NotL2);
        };
        match switch(cx.tables(), port, p) {
            Ok(next) => Disposition::Next(next),
            Err(error) => Disposition::Drop(error),
        }
    }

    fn trace(view: &TraceView<'_>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sw_if_index {} {}, next {}", view.rx(), trace::addresses(view), view.next())
    }
}
