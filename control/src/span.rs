//! SPAN: interfaces that get copies of what others receive and send.

use crate::dataplane::{Dataplane, OpError};
use crate::interface::InterfaceKind;
use std::collections::BTreeMap;
use wharf_engine::SwIfIndex;
use wharf_nodes::span::SpanTables;

/// Where packets are copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SpanLayer {
    /// At the device: all that it receives, all that is sent there.
    Device,
    /// Where a bridge or a cross-connect takes and gives frames.
    L2,
}

impl SpanLayer {
    /// Both.
    pub const ALL: [SpanLayer; 2] = [SpanLayer::Device, SpanLayer::L2];
}

/// What is copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Directions {
    /// What the source receives.
    pub rx: bool,
    /// What it sends.
    pub tx: bool,
}

impl Directions {
    /// Nothing.
    pub const NONE: Directions = Directions { rx: false, tx: false };

    /// VPP's word: `none`, `rx`, `tx` or `both`.
    pub fn word(self) -> &'static str {
        match (self.rx, self.tx) {
            (false, false) => "none",
            (true, false) => "rx",
            (false, true) => "tx",
            (true, true) => "both",
        }
    }
}

/// Destinations of a source and layer at most: each costs a copy of every packet.
const MAX_DESTINATIONS: usize = 8;

/// By source, destination and layer.
pub(crate) type Spans = BTreeMap<(SwIfIndex, SwIfIndex, SpanLayer), Directions>;

/// The arcs and the node that copy what is received, and what is sent.
fn features(layer: SpanLayer) -> [(&'static [&'static str], &'static str); 2] {
    match layer {
        SpanLayer::Device => [(&["device-input"], "span-input"), (&["interface-output"], "span-output")],
        SpanLayer::L2 => [
            (&["l2-input-ip4", "l2-input-ip6", "l2-input-nonip"], "span-l2-input"),
            (&["l2-output-ip4", "l2-output-ip6", "l2-output-nonip"], "span-l2-output"),
        ],
    }
}

impl Dataplane {
    /// Copies what `source` receives or sends to `destination`; neither ends it.
    pub fn set_span(
        &mut self,
        source: SwIfIndex,
        destination: SwIfIndex,
        layer: SpanLayer,
        directions: Directions,
    ) -> Result<(), OpError> {
        if source == destination {
            return OpError::parameter("destination", "an interface cannot watch itself");
        }
        let to = self.record_mut(destination)?.kind;
        let kind = self.record_mut(source)?.kind;
        if directions != Directions::NONE {
            self.check_span(source, kind, destination, to, layer, directions)?;
        }
        let key = (source, destination, layer);
        let old = self.spans.remove(&key).unwrap_or(Directions::NONE);
        if directions != Directions::NONE {
            self.spans.insert(key, directions);
        }
        let mut tables = SpanTables::default();
        for ((from, to, layer), directions) in &self.spans {
            let (rx, tx) = match layer {
                SpanLayer::Device => (&mut tables.rx, &mut tables.tx),
                SpanLayer::L2 => (&mut tables.l2_rx, &mut tables.l2_tx),
            };
            for (mirrors, _) in [(rx, directions.rx), (tx, directions.tx)].into_iter().filter(|(_, on)| *on) {
                mirrors.entry(*from).or_default().push(*to);
            }
        }
        self.engine.tables::<SpanTables>().publish(tables);
        let changes = [(old.rx, directions.rx), (old.tx, directions.tx)];
        for ((arcs, feature), (was, is)) in features(layer).into_iter().zip(changes) {
            for arc in arcs.iter().filter(|_| was != is) {
                self.engine.set_feature(arc, feature, source, is)?;
            }
        }
        // The ports say whether there are features.
        self.publish();
        Ok(())
    }

    fn check_span(
        &self,
        source: SwIfIndex,
        kind: InterfaceKind,
        destination: SwIfIndex,
        to: InterfaceKind,
        layer: SpanLayer,
        directions: Directions,
    ) -> Result<(), OpError> {
        let name = self.interface_name(source);
        if to == InterfaceKind::Loopback {
            // A copy could come by here again, without an end.
            let to = self.interface_name(destination);
            return OpError::parameter(
                "destination",
                format!("{to} is a loopback: it receives what it sends"),
            );
        }
        let device = matches!(kind, InterfaceKind::Memif | InterfaceKind::Pg | InterfaceKind::AfXdp);
        if layer == SpanLayer::Device && directions.rx && !device {
            return OpError::parameter(
                "interface",
                format!("{name} has no device: what it receives can't be copied there, but by `l2'"),
            );
        }
        if layer == SpanLayer::L2 && directions.tx && kind == InterfaceKind::Loopback {
            return OpError::parameter(
                "interface",
                format!("{name} is a loopback: what a bridge gives to its router can't be copied"),
            );
        }
        let other = |key: &&(SwIfIndex, SwIfIndex, SpanLayer)| {
            (key.0, key.2) == (source, layer) && key.1 != destination
        };
        if self.spans.keys().filter(other).count() >= MAX_DESTINATIONS {
            return OpError::parameter(
                "interface",
                format!("{MAX_DESTINATIONS} interfaces watch it already"),
            );
        }
        Ok(())
    }

    /// Ends all copies of what an interface receives or sends, at a layer.
    pub fn end_spans(&mut self, source: SwIfIndex, layer: SpanLayer) -> Result<(), OpError> {
        self.record(source)?;
        self.end_where(|(from, _, of)| (*from, *of) == (source, layer))
    }

    /// Ends what has to do with an interface that is being deleted.
    pub(crate) fn forget_spans(&mut self, index: SwIfIndex) -> Result<(), OpError> {
        self.end_where(|(from, to, _)| *from == index || *to == index)
    }

    fn end_where(
        &mut self,
        which: impl Fn(&(SwIfIndex, SwIfIndex, SpanLayer)) -> bool,
    ) -> Result<(), OpError> {
        let ending: Vec<_> = self.spans.keys().copied().filter(which).collect();
        for (source, destination, layer) in ending {
            self.set_span(source, destination, layer, Directions::NONE)?;
        }
        Ok(())
    }

    /// Whether frames of an interface are copied on the arcs of L2 input and output.
    pub(crate) fn span_features(&self, index: SwIfIndex) -> [bool; 2] {
        let of = |key: &(SwIfIndex, SwIfIndex, SpanLayer)| (key.0, key.2) == (index, SpanLayer::L2);
        let mut copied = self.spans.iter().filter(|(key, _)| of(key)).map(|(_, directions)| directions);
        [copied.clone().any(|d| d.rx), copied.any(|d| d.tx)]
    }
}
