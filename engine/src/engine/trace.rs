//! The packet trace, collected from the workers and put into words.

use super::{Engine, EngineError};
use crate::NodeIndex;
use crate::trace::{Outcome, Record, TraceNames, TraceView, TracedPacket};
use std::collections::BTreeMap;
use std::fmt;

impl Engine {
    /// Traces the next `count` packets of an input node, on each worker.
    pub fn trace_add(&self, input: &str, count: u32) -> Result<(), EngineError> {
        let kind = self.graph.find_input(input).ok_or_else(|| EngineError::UnknownInput(input.into()))?;
        self.workers.iter().for_each(|w| w.trace.add(kind, count));
        Ok(())
    }

    /// Forgets the trace and stops tracing.
    pub fn trace_clear(&self) {
        self.workers.iter().for_each(|w| w.trace.clear());
    }

    /// The traced packets, in the order of their arrival.
    pub fn trace(&self, names: &dyn TraceNames) -> Vec<TracedPacket> {
        let mut packets: BTreeMap<u32, Vec<Record>> = BTreeMap::new();
        for worker in &self.workers {
            for record in worker.trace.collect() {
                packets.entry(record.number).or_default().push(record);
            }
        }
        packets.into_iter().map(|(number, records)| self.print(number, records, names)).collect()
    }

    fn print(&self, number: u32, mut records: Vec<Record>, names: &dyn TraceNames) -> TracedPacket {
        records.sort_by_key(|r| r.time);
        let mut steps = Vec::new();
        let mut reason = String::new();
        for record in &records {
            let info = &self.graph.nodes[record.node.index()];
            let next = match record.outcome {
                Outcome::Next(node) => self.graph.name(node),
                Outcome::Dropped(error) => info.errors.get(usize::from(error)).copied().unwrap_or("?"),
                Outcome::Held | Outcome::Done => "",
            };
            let view = TraceView { record, next, names };
            let text = match &record.device {
                Some(_) => DeviceText(&view).to_string(),
                None if record.node == NodeIndex::DROP => {
                    format!("rx:{}\n  {reason}", names.interface(record.rx))
                }
                None if record.node == NodeIndex::PUNT => format!("rx:{}", names.interface(record.rx)),
                None => NodeText(info.trace, &view).to_string(),
            };
            if let Outcome::Dropped(_) = record.outcome {
                reason = format!("{}: {next}", info.name);
            }
            let name = record.device.as_deref().unwrap_or(info.name).to_owned();
            steps.push((record.time.saturating_sub(self.started), name, text));
        }
        TracedPacket { worker: (number >> 24) as u16, steps }
    }
}

struct NodeText<'a>(fn(&TraceView<'_>, &mut fmt::Formatter<'_>) -> fmt::Result, &'a TraceView<'a>);

impl fmt::Display for NodeText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (self.0)(self.1, f)
    }
}

struct DeviceText<'a>(&'a TraceView<'a>);

impl fmt::Display for DeviceText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let view = self.0;
        match view.outcome() {
            Outcome::Next(_) => {
                write!(f, "rx {} len {} next {}", view.interface(view.rx()), view.len(), view.next())
            }
            _ => write!(
                f,
                "tx {} len {} flags 0x{:04x}",
                view.interface(view.meta()),
                view.len(),
                view.flags()
            ),
        }
    }
}
