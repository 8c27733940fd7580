//! SPAN: interfaces that get copies of what others receive and send.

use crate::dataplane::{Dataplane, OpError};
use crate::interface::InterfaceKind;
use std::collections::BTreeMap;
use wharf_engine::SwIfIndex;
use wharf_nodes::span::SpanTables;

/// What is copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Directions {
    /// What the source receives.
    pub rx: bool,
    /// What it sends.
    pub tx: bool,
}

/// Destinations of a source at most: each costs a copy of every packet.
const MAX_DESTINATIONS: usize = 8;

/// By source and destination.
pub(crate) type Spans = BTreeMap<(SwIfIndex, SwIfIndex), Directions>;

impl Dataplane {
    /// Copies what `source` receives or sends to `destination`; neither ends it.
    pub fn set_span(
        &mut self,
        source: SwIfIndex,
        destination: SwIfIndex,
        directions: Directions,
    ) -> Result<(), OpError> {
        if source == destination {
            return OpError::parameter("destination", "an interface cannot watch itself");
        }
        self.record_mut(destination)?;
        let kind = self.record_mut(source)?.kind;
        let device = matches!(kind, InterfaceKind::Memif | InterfaceKind::Pg | InterfaceKind::AfXdp);
        if directions.rx && !device {
            return OpError::parameter(
                "interface",
                format!(
                    "{} has no device: what it receives can't be copied, only what it sends",
                    self.interface_name(source)
                ),
            );
        }
        let count = self.spans.keys().filter(|(from, to)| *from == source && *to != destination).count();
        if count >= MAX_DESTINATIONS {
            return OpError::parameter(
                "interface",
                format!("{MAX_DESTINATIONS} interfaces watch it already"),
            );
        }
        let old = self.spans.remove(&(source, destination)).unwrap_or(Directions { rx: false, tx: false });
        if directions.rx || directions.tx {
            self.spans.insert((source, destination), directions);
        }
        let mut tables = SpanTables::default();
        for ((from, to), directions) in &self.spans {
            if directions.rx {
                tables.rx.entry(*from).or_default().push(*to);
            }
            if directions.tx {
                tables.tx.entry(*from).or_default().push(*to);
            }
        }
        self.engine.tables::<SpanTables>().publish(tables);
        for (arc, feature, was, is) in [
            ("device-input", "span-input", old.rx, directions.rx),
            ("interface-output", "span-output", old.tx, directions.tx),
        ] {
            if was != is {
                self.engine.set_feature(arc, feature, source, is)?;
            }
        }
        Ok(())
    }

    /// Ends what has to do with an interface that is being deleted.
    pub(crate) fn forget_spans(&mut self, index: SwIfIndex) -> Result<(), OpError> {
        let of: Vec<_> = self.spans.keys().copied().filter(|(a, b)| *a == index || *b == index).collect();
        for (source, destination) in of {
            self.set_span(source, destination, Directions { rx: false, tx: false })?;
        }
        Ok(())
    }
}
