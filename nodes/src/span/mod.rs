//! SPAN: copies of what an interface receives or sends, to another interface; at its device, or where a bridge or a cross-connect takes
//! and gives frames.

use std::collections::HashMap;
use wharf_engine::{Cx, Node, PacketRef, SwIfIndex, flags};

mod span_input;
mod span_l2_input;
mod span_l2_output;
mod span_output;

pub use span_input::SpanInput;
pub use span_l2_input::SpanL2Input;
pub use span_l2_output::SpanL2Output;
pub use span_output::SpanOutput;

/// Where copies go, by the interface that is watched.
pub type Mirrors = HashMap<SwIfIndex, Vec<SwIfIndex>>;

/// All mirrors.
#[derive(Clone, Debug, Default)]
pub struct SpanTables {
    /// Of what a device receives.
    pub rx: Mirrors,
    /// Of what is sent on an interface.
    pub tx: Mirrors,
    /// Of what is received to be bridged or cross-connected.
    pub l2_rx: Mirrors,
    /// Of what is sent by a bridge or a cross-connect.
    pub l2_tx: Mirrors,
}

/// Makes a copy for each interface that watches this one. A copy is not copied again, so interfaces may watch each other.
#[inline(always)]
fn mirror<N: Node>(
    cx: &Cx<'_, N>,
    p: &mut PacketRef<'_>,
    to: Option<&Vec<SwIfIndex>>,
    next: impl Fn(SwIfIndex) -> N::Next,
    [hits, failed]: [N::Error; 2],
) where
    N::Error: Copy,
{
    if p.flags() & flags::MIRRORED != 0 {
        return;
    }
    for to in to.into_iter().flatten() {
        let made = cx.copy(p, |copy| {
            copy.add_flags(flags::MIRRORED);
            next(*to)
        });
        cx.count(if made { hits } else { failed });
    }
}
