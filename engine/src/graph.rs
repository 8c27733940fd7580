//! The graph: built once from the list of nodes, checked, then instantiated for each worker.

use crate::arc::{ArcStart, FeatureArc, FeatureOrder, order};
use crate::dispatch::{Erased, Runner};
use crate::node::{ErrorCounters, NextNodes, Node, NodeCounters, Target};
use crate::rcu::{Domain, Publisher};
use crate::stats::{NodeStats, Row, Stats};
use crate::trace::TraceView;
use crate::{DeviceOutput, NodeIndex, Punt, WorkerIndex};
use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Why a graph cannot be built. Each names the culprit.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum GraphError {
    /// Two nodes of one name.
    #[error("node `{0}' is in the list twice")]
    DuplicateNode(&'static str),
    /// An edge to nowhere.
    #[error("node `{node}' has an edge to `{next}', which is not in the list")]
    UnknownNext {
        /// The node.
        node: &'static str,
        /// Its target.
        next: &'static str,
    },
    /// Two arcs of one name.
    #[error("arc `{0}' is in the list twice")]
    DuplicateArc(&'static str),
    /// An arc whose end is missing or takes other metadata.
    #[error("arc `{arc}' ends at `{end}', which is not in the list or takes other metadata")]
    ArcEnd {
        /// The arc.
        arc: &'static str,
        /// Its end.
        end: &'static str,
    },
    /// A feature on an arc that is not there.
    #[error("feature `{feature}' is on arc `{arc}', which is not in the list")]
    UnknownArc {
        /// The feature.
        feature: &'static str,
        /// Its arc.
        arc: &'static str,
    },
    /// A feature whose node is not in the list.
    #[error("feature `{feature}' of arc `{arc}' is not in the list of nodes")]
    UnknownFeature {
        /// The feature.
        feature: &'static str,
        /// Its arc.
        arc: &'static str,
    },
    /// Features that must each run before the other.
    #[error("arc `{arc}' cannot be ordered: {} wait for each other", features.join(", "))]
    ArcCycle {
        /// The arc.
        arc: &'static str,
        /// The features in the circle.
        features: Vec<&'static str>,
    },
    /// More nodes than an index can count.
    #[error("too many nodes: {0}")]
    TooMany(usize),
}

/// What a node's constructor may ask for.
#[derive(Debug)]
pub struct Seed<'a> {
    worker: WorkerIndex,
    arcs: &'a HashMap<&'static str, u16>,
}

impl Seed<'_> {
    /// The worker that the instance is for.
    pub fn worker(&self) -> WorkerIndex {
        self.worker
    }

    /// The start of an arc. An arc that is not in the list is one on which nothing can be enabled.
    pub fn arc<A: FeatureArc>(&self) -> ArcStart<A> {
        ArcStart { arc: self.arcs.get(A::NAME).copied().unwrap_or(u16::MAX), _arc: PhantomData }
    }
}

type TraceFn = fn(&TraceView<'_>, &mut fmt::Formatter<'_>) -> fmt::Result;
type Make = Box<dyn FnMut(&Seed<'_>, Wiring, &TableSet) -> Box<dyn Erased>>;

struct Wiring {
    index: NodeIndex,
    edges: Arc<[NodeIndex]>,
    errors: Row,
}

struct Entry {
    name: &'static str,
    next: &'static [&'static str],
    errors: &'static [&'static str],
    meta: TypeId,
    trace: TraceFn,
    tables: fn(&mut TableSet, &Arc<Domain>),
    make: Make,
}

struct Feature {
    arc: &'static str,
    node: &'static str,
    order: FeatureOrder,
}

struct ArcEntry {
    name: &'static str,
    end: &'static str,
    meta: TypeId,
}

/// The published tables, one [`Publisher`] per type.
#[derive(Default)]
pub struct TableSet {
    publishers: HashMap<TypeId, Box<dyn Any + Send + Sync>>,
}

impl fmt::Debug for TableSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TableSet").field("tables", &self.publishers.len()).finish()
    }
}

impl TableSet {
    /// The publisher of tables of type `T`, if a node of the graph reads them.
    pub fn get<T: Send + Sync + 'static>(&self) -> Option<Publisher<T>> {
        self.publishers.get(&TypeId::of::<T>()).and_then(|p| p.downcast_ref::<Publisher<T>>()).cloned()
    }

    pub(crate) fn ensure<T: Default + Send + Sync + 'static>(
        &mut self,
        domain: &Arc<Domain>,
    ) -> Publisher<T> {
        if let Some(publisher) = self.get::<T>() {
            return publisher;
        }
        let publisher = Publisher::new(domain, T::default());
        self.publishers.insert(TypeId::of::<T>(), Box::new(publisher.clone()));
        publisher
    }
}

/// The list of nodes, arcs and features from which a graph is built.
#[derive(Default)]
pub struct GraphBuilder {
    entries: Vec<Entry>,
    arcs: Vec<ArcEntry>,
    features: Vec<Feature>,
    inputs: Vec<&'static str>,
}

impl fmt::Debug for GraphBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GraphBuilder").field("nodes", &self.entries.len()).finish_non_exhaustive()
    }
}

fn placeholder(_: &TraceView<'_>, _: &mut fmt::Formatter<'_>) -> fmt::Result {
    Ok(())
}

impl GraphBuilder {
    /// An empty list.
    pub fn new() -> GraphBuilder {
        GraphBuilder::default()
    }

    /// Adds a node; `make` is called once per worker.
    pub fn node<N: Node>(&mut self, mut make: impl FnMut(&Seed<'_>) -> N + 'static) -> &mut Self {
        self.entries.push(Entry {
            name: N::NAME,
            next: N::Next::NAMES,
            errors: N::Error::NAMES,
            meta: TypeId::of::<N::Meta>(),
            trace: N::trace,
            tables: |set, domain| {
                set.ensure::<N::Tables>(domain);
            },
            make: Box::new(move |seed, wiring, tables| {
                let node = make(seed);
                let Some(publisher) = tables.get::<N::Tables>() else { unreachable!("ensured by build") };
                Box::new(Runner::new(node, wiring.index, wiring.edges, publisher.cell, wiring.errors))
            }),
        });
        self
    }

    /// Adds the name of an input node, which drivers' receive queues report under.
    pub fn input(&mut self, name: &'static str) -> &mut Self {
        self.inputs.push(name);
        self
    }

    /// Adds an arc.
    pub fn arc<A: FeatureArc>(&mut self) -> &mut Self {
        self.arcs.push(ArcEntry { name: A::NAME, end: A::END, meta: TypeId::of::<A::Meta>() });
        self
    }

    /// Makes node `N`, which is in the list too, a feature of arc `A`.
    pub fn feature<A: FeatureArc, N: Node<Meta = A::Meta>>(&mut self, order: FeatureOrder) -> &mut Self {
        self.features.push(Feature { arc: A::NAME, node: N::NAME, order });
        self
    }

    /// Checks the list and makes an instance per worker.
    pub(crate) fn build(
        self,
        domain: &Arc<Domain>,
        workers: usize,
        (stats, counts): (&Stats, &mut NodeStats),
    ) -> Result<Built, GraphError> {
        let terminals = [
            (crate::worker::DROP_NODE, TypeId::of::<()>(), &[][..]),
            (Punt::TARGET_NAME, TypeId::of::<()>(), &[][..]),
            (
                DeviceOutput::TARGET_NAME,
                TypeId::of::<<DeviceOutput as Target>::TargetMeta>(),
                crate::worker::OUTPUT_ERRORS,
            ),
        ];
        let mut index: HashMap<&'static str, (NodeIndex, TypeId)> = HashMap::new();
        let all = (terminals.iter().map(|t| (t.0, t.1))).chain(self.entries.iter().map(|e| (e.name, e.meta)));
        for (i, (name, meta)) in all.enumerate() {
            let i = u16::try_from(i).ok().filter(|i| *i < 0x4000).ok_or(GraphError::TooMany(i))?;
            if index.insert(name, (NodeIndex(i), meta)).is_some() {
                return Err(GraphError::DuplicateNode(name));
            }
        }
        let arcs = self.build_arcs(&index)?;
        let arc_numbers: HashMap<_, _> = arcs.iter().enumerate().map(|(i, a)| (a.name, i as u16)).collect();

        let mut nodes: Vec<NodeInfo> = terminals
            .iter()
            .map(|(name, _, errors)| {
                let numbers = node_counters(stats, counts, name, workers)?;
                let rows = counts.errors(stats, name, errors);
                Ok(NodeInfo::new(name, errors, Arc::new([]), rows, numbers, placeholder))
            })
            .collect::<Result<_, GraphError>>()?;
        let mut tables = TableSet::default();
        let mut runners: Vec<Vec<Box<dyn Erased>>> = (0..workers).map(|_| Vec::new()).collect();
        for mut entry in self.entries {
            let own = nodes.len() as u16;
            let edges = (entry.next.iter())
                .map(|next| match index.get(next) {
                    Some((i, _)) => Ok(*i),
                    None => Err(GraphError::UnknownNext { node: entry.name, next }),
                })
                .collect::<Result<Arc<[_]>, _>>()?;
            let errors = counts.errors(stats, entry.name, entry.errors);
            let numbers = node_counters(stats, counts, entry.name, workers)?;
            (entry.tables)(&mut tables, domain);
            for (worker, list) in runners.iter_mut().enumerate() {
                let seed = Seed { worker: WorkerIndex(worker as u16), arcs: &arc_numbers };
                let wiring = Wiring {
                    index: NodeIndex(own),
                    edges: Arc::clone(&edges),
                    errors: errors[worker].clone(),
                };
                list.push((entry.make)(&seed, wiring, &tables));
            }
            nodes.push(NodeInfo::new(entry.name, entry.errors, edges, errors, numbers, entry.trace));
        }
        let inputs = (self.inputs.iter())
            .map(|name| Ok(InputInfo { name, counters: node_counters(stats, counts, name, workers)? }))
            .collect::<Result<_, GraphError>>()?;
        Ok(Built { graph: Graph { nodes, inputs, arcs }, tables, runners })
    }

    fn build_arcs(
        &self,
        index: &HashMap<&'static str, (NodeIndex, TypeId)>,
    ) -> Result<Vec<ArcInfo>, GraphError> {
        let mut arcs: Vec<ArcInfo> = Vec::new();
        for entry in &self.arcs {
            if arcs.iter().any(|a| a.name == entry.name) {
                return Err(GraphError::DuplicateArc(entry.name));
            }
            let end = match index.get(entry.end) {
                Some((i, meta)) if *meta == entry.meta => *i,
                _ => return Err(GraphError::ArcEnd { arc: entry.name, end: entry.end }),
            };
            let list: Vec<_> = (self.features.iter())
                .filter(|f| f.arc == entry.name)
                .map(|f| (f.node, f.order.clone()))
                .collect();
            let sorted =
                order(&list).map_err(|features| GraphError::ArcCycle { arc: entry.name, features })?;
            let features = (sorted.into_iter())
                .map(|i| match index.get(list[i].0) {
                    Some((node, _)) => Ok((list[i].0, *node)),
                    None => Err(GraphError::UnknownFeature { feature: list[i].0, arc: entry.name }),
                })
                .collect::<Result<_, _>>()?;
            arcs.push(ArcInfo { name: entry.name, end, features });
        }
        if let Some(f) = self.features.iter().find(|f| arcs.iter().all(|a| a.name != f.arc)) {
            return Err(GraphError::UnknownArc { feature: f.node, arc: f.arc });
        }
        Ok(arcs)
    }
}

/// Room for a node's numbers, on each worker.
fn node_counters(
    stats: &Stats,
    counts: &mut NodeStats,
    name: &str,
    workers: usize,
) -> Result<Vec<Arc<NodeCounters>>, GraphError> {
    let node = counts.node(stats, name).ok_or(GraphError::TooMany(usize::MAX))?;
    let numbers = (0..workers).map(|worker| counts.counters(node, worker).map(Arc::new));
    numbers.collect::<Option<_>>().ok_or(GraphError::TooMany(node))
}

/// A graph and its instances.
pub(crate) struct Built {
    pub(crate) graph: Graph,
    pub(crate) tables: TableSet,
    pub(crate) runners: Vec<Vec<Box<dyn Erased>>>,
}

/// A node as the control plane sees it.
pub struct NodeInfo {
    /// Its name.
    pub name: &'static str,
    /// Names of its counters.
    pub errors: &'static [&'static str],
    pub(crate) edges: Arc<[NodeIndex]>,
    pub(crate) error_counters: Vec<Row>,
    pub(crate) counters: Vec<Arc<NodeCounters>>,
    pub(crate) trace: TraceFn,
}

impl fmt::Debug for NodeInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NodeInfo").field("name", &self.name).finish_non_exhaustive()
    }
}

impl NodeInfo {
    fn new(
        name: &'static str,
        errors: &'static [&'static str],
        edges: Arc<[NodeIndex]>,
        error_counters: Vec<Row>,
        counters: Vec<Arc<NodeCounters>>,
        trace: TraceFn,
    ) -> NodeInfo {
        NodeInfo { name, errors, edges, error_counters, counters, trace }
    }

    /// Where its static edges lead.
    pub fn edges(&self) -> &[NodeIndex] {
        &self.edges
    }

    /// `(calls, vectors, clocks, suspends)` on one worker.
    pub fn counters(&self, worker: WorkerIndex) -> [u64; 4] {
        self.counters.get(worker.index()).map_or([0; 4], |c| c.get())
    }

    /// One of its counters on one worker.
    pub fn error(&self, worker: WorkerIndex, error: usize) -> u64 {
        let counter = self.error_counters.get(worker.index()).and_then(|e| e.get(error));
        counter.map_or(0, |c| c.load(Ordering::Relaxed))
    }
}

/// An input node as the control plane sees it: all receive queues of one driver.
#[derive(Debug)]
pub struct InputInfo {
    /// Its name.
    pub name: &'static str,
    pub(crate) counters: Vec<Arc<NodeCounters>>,
}

impl InputInfo {
    /// `(calls, vectors, clocks, suspends)` on one worker.
    pub fn counters(&self, worker: WorkerIndex) -> [u64; 4] {
        self.counters.get(worker.index()).map_or([0; 4], |c| c.get())
    }
}

/// An arc with its features in order.
#[derive(Debug)]
pub struct ArcInfo {
    /// Its name.
    pub name: &'static str,
    /// The node at its end.
    pub end: NodeIndex,
    /// Its features.
    pub features: Vec<(&'static str, NodeIndex)>,
}

/// The checked graph.
#[derive(Debug)]
pub struct Graph {
    /// All nodes, by [`NodeIndex`]; the terminals first.
    pub nodes: Vec<NodeInfo>,
    /// All input nodes.
    pub inputs: Vec<InputInfo>,
    /// All arcs.
    pub arcs: Vec<ArcInfo>,
}

impl Graph {
    /// A node by name.
    pub fn find(&self, name: &str) -> Option<NodeIndex> {
        self.nodes.iter().position(|n| n.name == name).map(|i| NodeIndex(i as u16))
    }

    /// Number of an input node.
    pub fn find_input(&self, name: &str) -> Option<usize> {
        self.inputs.iter().position(|i| i.name == name)
    }

    /// Name of a node.
    pub fn name(&self, node: NodeIndex) -> &'static str {
        self.nodes.get(node.index()).map_or("?", |n| n.name)
    }
}
