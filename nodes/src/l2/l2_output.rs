//! `l2-output`: frames that leave through a port where tags are rewritten, or with features.
//!
//! Expects: a whole frame, the interface to send it on, and the split-horizon group that it came from.
//! Hands on: to the features of arc `l2-output-ip4`, `l2-output-ip6` or `l2-output-nonip`, by what the frame carries, and `interface-output`.
//! Drops: what would go from one port of a split-horizon group to another; frames without the tags that are to be taken.
//! Reads: [`L2Tables`].
//! CLI: `set interface l2 tag-rewrite`.

use super::{L2OutputMeta, L2Tables, trace};
use crate::acl::packet::payload;
use crate::interface::InterfaceOutput;
use crate::wire::ethernet::EtherType;
use std::fmt;
use wharf_engine::{
    ArcStart, Cx, Disposition, FeatureArc, Node, PacketRef, Seed, SwIfIndex, Target, TraceView,
    error_counters, next_nodes,
};

macro_rules! arc {
    ($arc:ident, $name:literal, $what:literal) => {
        #[doc = concat!("Arc `", $name, "`: between `l2-output` and `interface-output`, for ", $what, ".")]
        #[derive(Debug)]
        pub struct $arc;

        impl FeatureArc for $arc {
            const NAME: &'static str = $name;
            type Meta = SwIfIndex;
            const END: &'static str = InterfaceOutput::TARGET_NAME;
        }
    };
}

arc!(L2OutputIp4Arc, "l2-output-ip4", "IPv4");
arc!(L2OutputIp6Arc, "l2-output-ip6", "IPv6");
arc!(L2OutputNonIpArc, "l2-output-nonip", "everything else");

/// Where the arcs start.
#[derive(Clone, Copy, Debug)]
pub struct L2OutputArcs {
    ip4: ArcStart<L2OutputIp4Arc>,
    ip6: ArcStart<L2OutputIp6Arc>,
    nonip: ArcStart<L2OutputNonIpArc>,
}

impl L2OutputArcs {
    /// Those of a graph.
    pub fn new(seed: &Seed<'_>) -> L2OutputArcs {
        L2OutputArcs { ip4: seed.arc(), ip6: seed.arc(), nonip: seed.arc() }
    }
}

/// See the module.
#[derive(Debug)]
pub struct L2Output {
    /// Where the arcs start.
    pub arcs: L2OutputArcs,
}

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
        let tx = meta.tx;
        if port.output_features {
            let edge = match payload(p).0 {
                EtherType::IP4 => self.arcs.ip4.enter(cx, p, tx, tx),
                EtherType::IP6 => self.arcs.ip6.enter(cx, p, tx, tx),
                _ => self.arcs.nonip.enter(cx, p, tx, tx),
            };
            if let Some(edge) = edge {
                return Disposition::Edge(edge);
            }
        }
        Disposition::Next(Next::Output(tx))
    }

    fn trace(view: &TraceView<'_>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tx = view.meta::<L2OutputMeta>().tx;
        write!(f, "l2-output: sw_if_index {tx} {} data ", trace::addresses(view))?;
        view.data_after().iter().skip(12).take(12).try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}
