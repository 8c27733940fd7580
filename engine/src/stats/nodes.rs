//! The counters of nodes: `/sys/node/...` and, as links into these, `/nodes/NODE/...`; `/err/NODE/REASON` as links into `/node/errors`.

use super::{Counter, Entry, Names, Row, Stats, Table, link_name};
use crate::node::NodeCounters;
use std::io;

/// Nodes that are counted: the graph's, input nodes, and a transmit node per interface.
const MAX_NODES: usize = 8192;
/// Reasons that are counted.
const MAX_ERRORS: usize = 16384;
/// Numbers that a node keeps.
const NUMBERS: [&str; 4] = ["calls", "vectors", "clocks", "suspends"];

/// The counters of all nodes.
#[derive(Debug)]
pub(crate) struct NodeStats {
    names: Names,
    numbers: [(Table, Entry); 4],
    errors: (Table, Entry),
    workers: usize,
    nodes: Vec<Option<String>>,
    reasons: usize,
}

impl NodeStats {
    pub(crate) fn new(stats: &Stats, workers: usize) -> io::Result<NodeStats> {
        let full = || io::Error::from(io::ErrorKind::OutOfMemory);
        let table = |name: &str, elements| {
            let table = Table::new(stats.segment(), workers, elements, 1)?;
            let entry = stats.table(name, &table).ok_or_else(full)?;
            Ok::<_, io::Error>((table, entry))
        };
        let [calls, vectors, clocks, suspends] =
            NUMBERS.map(|name| table(&format!("/sys/node/{name}"), MAX_NODES));
        Ok(NodeStats {
            names: stats.names("/sys/node/names", MAX_NODES)?,
            numbers: [calls?, vectors?, clocks?, suspends?],
            errors: table("/node/errors", MAX_ERRORS)?,
            workers,
            nodes: Vec::new(),
            reasons: 0,
        })
    }

    /// The number of a node of this name: the one that it has, or a free one, counting from zero. `None` when there is none.
    pub(crate) fn node(&mut self, stats: &Stats, name: &str) -> Option<usize> {
        if let Some(known) = self.nodes.iter().position(|node| node.as_deref() == Some(name)) {
            return Some(known);
        }
        let number = self.nodes.iter().position(Option::is_none).unwrap_or(self.nodes.len());
        if !self.numbers.iter().all(|(table, _)| table.grow(number + 1)) {
            return None;
        }
        let cells = self.numbers.iter().flat_map(|(table, _)| table.column(number));
        cells.for_each(|cell| cell.store(0, std::sync::atomic::Ordering::Relaxed));
        if number == self.nodes.len() {
            self.nodes.push(None);
        }
        self.nodes[number] = Some(name.to_owned());
        stats.set_name(&self.names, number, Some(name));
        for (what, (_, entry)) in NUMBERS.iter().zip(&self.numbers) {
            stats.symlink(&format!("/nodes/{}/{what}", link_name(name)), *entry, number as u32);
        }
        Some(number)
    }

    /// Gives a node's number back.
    pub(crate) fn free(&mut self, stats: &Stats, name: &str) {
        if let Some(number) = self.nodes.iter().position(|node| node.as_deref() == Some(name)) {
            self.nodes[number] = None;
            stats.set_name(&self.names, number, None);
            stats.remove(&format!("/nodes/{}/", link_name(name)));
        }
    }

    /// The counters of a node on a worker.
    pub(crate) fn counters(&self, node: usize, worker: usize) -> Option<NodeCounters> {
        let [calls, vectors, clocks, suspends] =
            self.numbers.each_ref().map(|(table, _)| Counter::new(&table.row(worker + 1), node));
        Some(NodeCounters { calls: calls?, vectors: vectors?, clocks: clocks?, suspends: suspends? })
    }

    /// Room for a node's reasons, on each worker. Empty rows when there is none.
    pub(crate) fn errors(&mut self, stats: &Stats, node: &str, reasons: &[&str]) -> Vec<Row> {
        let (table, entry) = &self.errors;
        let first = self.reasons;
        let fits = table.grow(first + reasons.len());
        if fits {
            self.reasons += reasons.len();
            for (i, reason) in reasons.iter().enumerate() {
                stats.symlink(&format!("/err/{node}/{reason}"), *entry, (first + i) as u32);
            }
        }
        let len = if fits { reasons.len() } else { 0 };
        (0..self.workers).map(|worker| table.row(worker + 1).part(first, len)).collect()
    }
}
