//! Feature arcs: places where optional nodes join a path, interface by interface.
//!
//! An arc starts inside a node ([`ArcStart::enter`]), runs through the features that are enabled on the interface, in one fixed
//! order, and ends at its end node, which the starting node would otherwise have chosen itself. All of them take
//! the arc's one metadata, so a feature hands on by [`crate::Disposition::NextFeature`] and can lose nothing.

use crate::dispatch::code;
use crate::frame::{Meta, PacketRef};
use crate::node::{Cx, NextIndex, NextNodes, Node, Way};
use crate::{NodeIndex, SwIfIndex};
use std::marker::PhantomData;
use std::num::NonZeroU16;
use zerocopy::FromZeros;

/// An arc, as a type.
pub trait FeatureArc: 'static {
    /// VPP's name of the arc.
    const NAME: &'static str;
    /// What all nodes of the arc take.
    type Meta: Meta;
    /// Name of the node at its end.
    const END: &'static str;
}

/// The arcs as the workers see them: published by the control plane.
#[derive(Clone, Debug, Default)]
pub struct ArcTables {
    /// Per arc and interface: where its chain starts in `chains`; 0 = no feature is on.
    pub(crate) starts: Vec<Vec<u16>>,
    /// Chains of nodes, one behind the other. Entry 0 is unused.
    pub(crate) chains: Vec<u16>,
}

impl ArcTables {
    /// The node at `position`, or the drop when a packet outlived its chain.
    #[inline(always)]
    pub(crate) fn next(&self, position: u16) -> NodeIndex {
        NodeIndex(self.chains.get(usize::from(position)).copied().unwrap_or(NodeIndex::DROP.0))
    }

    #[inline(always)]
    pub(crate) fn start(&self, arc: u16, interface: SwIfIndex) -> u16 {
        self.starts.get(usize::from(arc)).and_then(|s| s.get(interface.index())).copied().unwrap_or(0)
    }
}

/// The start of arc `A`, held by the node where it starts.
#[derive(Debug)]
pub struct ArcStart<A: FeatureArc> {
    pub(crate) arc: u16,
    pub(crate) _arc: PhantomData<fn() -> A>,
}

impl<A: FeatureArc> Clone for ArcStart<A> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<A: FeatureArc> Copy for ArcStart<A> {}

impl<A: FeatureArc> ArcStart<A> {
    /// The way into the arc for packets on `interface`, or straight to the arc's end, which is an edge of the node: to be
    /// kept for a frame at most.
    #[inline(always)]
    pub fn way<N: Node>(
        self,
        cx: &Cx<'_, N>,
        interface: SwIfIndex,
        end: fn(A::Meta) -> N::Next,
    ) -> ArcWay<N, A> {
        let arcs = cx.arcs();
        let start = arcs.start(self.arc, interface);
        let code = match start {
            0 => code::edge(end(A::Meta::new_zeroed()).number()),
            _ => code::node(arcs.next(start)),
        };
        ArcWay { code, feature: start + 1, of: PhantomData }
    }

    /// The way into the arc for a packet on `interface`, or `None` when no feature is on there: then go to the
    /// arc's end node directly.
    #[inline(always)]
    pub fn enter<N: Node>(
        self,
        cx: &Cx<'_, N>,
        p: &mut PacketRef<'_>,
        interface: SwIfIndex,
        meta: A::Meta,
    ) -> Option<NextIndex> {
        let arcs = cx.arcs();
        let start = arcs.start(self.arc, interface);
        if start == 0 {
            return None;
        }
        p.packet.feature = start + 1;
        Some(NextIndex::new(arcs.next(start), meta))
    }
}

/// The way of packets of node `N` to the end of arc `A`, through the features that are on, if any: see [`ArcStart::way`].
#[derive(Debug)]
pub struct ArcWay<N, A> {
    code: NonZeroU16,
    feature: u16,
    of: PhantomData<fn() -> (N, A)>,
}

impl<N, A> Clone for ArcWay<N, A> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<N, A> Copy for ArcWay<N, A> {}

impl<N: Node, A: FeatureArc> ArcWay<N, A> {
    /// To the drop.
    pub const NOWHERE: Self = ArcWay { code: code::node(NodeIndex::DROP), feature: 0, of: PhantomData };

    /// Sends a packet there.
    #[inline(always)]
    pub fn take(self, p: &mut PacketRef<'_>, meta: A::Meta) -> Way<N> {
        p.packet.feature = self.feature;
        p.packet.put_meta(meta);
        Way { code: self.code, node: PhantomData }
    }
}

/// Where a feature stands in its arc.
#[derive(Clone, Debug, Default)]
pub struct FeatureOrder {
    /// Features that must come later.
    pub runs_before: &'static [&'static str],
    /// Features that must come earlier.
    pub runs_after: &'static [&'static str],
}

/// Sorts the features of an arc so that each constraint holds; ties keep their order in the list.
///
/// Errors: the names of the features that wait for each other in a circle.
pub(crate) fn order(features: &[(&'static str, FeatureOrder)]) -> Result<Vec<usize>, Vec<&'static str>> {
    let precedes = |j: usize, i: usize| {
        features[i].1.runs_after.contains(&features[j].0)
            || features[j].1.runs_before.contains(&features[i].0)
    };
    let mut placed: Vec<usize> = Vec::with_capacity(features.len());
    while placed.len() < features.len() {
        let ready = (0..features.len()).find(|&i| {
            !placed.contains(&i) && (0..features.len()).all(|j| !precedes(j, i) || placed.contains(&j))
        });
        match ready {
            Some(i) => placed.push(i),
            None => {
                let stuck = |i: &usize| !placed.contains(i);
                return Err((0..features.len()).filter(stuck).map(|i| features[i].0).collect());
            }
        }
    }
    Ok(placed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn constraints_order_the_features() {
        let list = [
            ("c", FeatureOrder { runs_after: &["b"], ..Default::default() }),
            ("a", FeatureOrder { runs_before: &["b", "c"], ..Default::default() }),
            ("b", FeatureOrder { runs_after: &["absent"], ..Default::default() }),
            ("d", FeatureOrder::default()),
        ];
        assert_eq!(order(&list).unwrap(), [1, 2, 0, 3]);
    }

    #[test]
    fn a_circle_is_named() {
        let list = [
            ("a", FeatureOrder { runs_after: &["b"], ..Default::default() }),
            ("x", FeatureOrder::default()),
            ("b", FeatureOrder { runs_after: &["a"], ..Default::default() }),
        ];
        assert_eq!(order(&list).unwrap_err(), ["a", "b"]);
        let own = [("a", FeatureOrder { runs_after: &["a"], ..Default::default() })];
        assert_eq!(order(&own).unwrap_err(), ["a"]);
    }
}
