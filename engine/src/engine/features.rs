//! Features on arcs, switched on and off interface by interface.

use super::{Engine, EngineError};
use crate::SwIfIndex;
use crate::arc::ArcTables;

impl Engine {
    /// Switches a feature on or off on an interface. Each `on` needs its own `off`.
    pub fn set_feature(
        &mut self,
        arc: &str,
        feature: &str,
        interface: SwIfIndex,
        on: bool,
    ) -> Result<(), EngineError> {
        let number = self.graph.arcs.iter().position(|a| a.name == arc);
        let number = number.ok_or_else(|| EngineError::UnknownArc(arc.into()))?;
        let info = &self.graph.arcs[number];
        let at = info.features.iter().position(|f| f.0 == feature);
        let at =
            at.ok_or_else(|| EngineError::UnknownFeature { feature: feature.into(), arc: arc.into() })?;
        let known = self.features.get(&(number, interface));
        let mut uses = known.cloned().unwrap_or_else(|| vec![0; info.features.len()]);
        uses[at] = if on { uses[at] + 1 } else { uses[at].saturating_sub(1) };
        let mut chain: Vec<u16> =
            info.features.iter().zip(&uses).filter(|(_, n)| **n != 0).map(|(f, _)| f.1.0).collect();
        if !chain.is_empty() {
            chain.push(info.end.0);
        }
        let mut tables = self.arcs.read(ArcTables::clone);
        let start = match tables.chains.windows(chain.len().max(1)).position(|w| w == chain) {
            _ if chain.is_empty() => 0,
            Some(at) => at,
            // Chains are never moved or reused: a packet on its way through one keeps its place.
            None => {
                let at = tables.chains.len();
                if at + chain.len() > usize::from(u16::MAX) {
                    return Err(EngineError::TooManyChains);
                }
                tables.chains.extend(&chain);
                at
            }
        };
        let starts = &mut tables.starts[number];
        if starts.len() <= interface.index() {
            starts.resize(interface.index() + 1, 0);
        }
        starts[interface.index()] = start as u16;
        self.features.insert((number, interface), uses);
        self.arcs.publish(tables);
        Ok(())
    }

    /// The features that are on: arc, features in order.
    pub fn features(&self, interface: SwIfIndex) -> Vec<(&'static str, Vec<&'static str>)> {
        (self.graph.arcs.iter().enumerate())
            .map(|(number, info)| {
                let uses = self.features.get(&(number, interface));
                let on = |i: usize| uses.is_some_and(|u| u[i] != 0);
                let list = info.features.iter().enumerate().filter(|(i, _)| on(*i)).map(|(_, f)| f.0);
                (info.name, list.collect())
            })
            .collect()
    }

    /// Switches all features of an interface off: it is being deleted.
    pub fn clear_features(&mut self, interface: SwIfIndex) {
        self.features.retain(|(_, i), _| *i != interface);
        let mut tables = self.arcs.read(ArcTables::clone);
        for starts in &mut tables.starts {
            if let Some(start) = starts.get_mut(interface.index()) {
                *start = 0;
            }
        }
        self.arcs.publish(tables);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arc::{FeatureArc, FeatureOrder};
    use crate::testing::Harness;
    use crate::{Cx, Disposition, GraphBuilder, NoError, NoNext, Node, PacketRef};

    struct End;
    struct Feature;
    macro_rules! node {
        ($node:ident, $name:literal) => {
            impl Node for $node {
                const NAME: &'static str = $name;
                type Meta = ();
                type Next = NoNext;
                type Error = NoError;
                type Tables = ();
                fn process(&mut self, _: &Cx<'_, Self>, _: &mut PacketRef<'_>, (): ()) -> Disposition<Self> {
                    Disposition::NextFeature
                }
            }
        };
    }
    node!(End, "end");
    node!(Feature, "feature");

    struct TestArc;
    impl FeatureArc for TestArc {
        const NAME: &'static str = "test-arc";
        type Meta = ();
        const END: &'static str = "end";
    }

    #[test]
    fn a_feature_that_finds_no_room_is_not_on() {
        let mut list = GraphBuilder::new();
        list.node(|_| End).node(|_| Feature).arc::<TestArc>();
        list.feature::<TestArc, Feature>(FeatureOrder::default());
        let mut h = Harness::new(list).unwrap();
        let empty = h.engine.arcs.read(ArcTables::clone);
        let full = ArcTables { chains: vec![0; usize::from(u16::MAX)], ..empty.clone() };
        h.engine.arcs.publish(full);
        let set = |h: &mut Harness, on| h.engine.set_feature("test-arc", "feature", SwIfIndex(1), on);
        assert!(matches!(set(&mut h, true), Err(EngineError::TooManyChains)));
        assert_eq!(h.engine.features(SwIfIndex(1)), [("test-arc", vec![])]);
        h.engine.arcs.publish(empty);
        // One `on` needs one `off`: the refused one does not count.
        set(&mut h, true).unwrap();
        assert_eq!(h.engine.features(SwIfIndex(1)), [("test-arc", vec!["feature"])]);
        set(&mut h, false).unwrap();
        assert_eq!(h.engine.features(SwIfIndex(1)), [("test-arc", vec![])]);
    }
}
