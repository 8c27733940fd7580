//! Interfaces and their queues, and which worker has which.

use super::{Engine, EngineError, InputId, InputRecord, Output};
use crate::device::{DeviceInput, DeviceOutput, Interface, Interfaces, RxMode, TxPath};
use crate::rcu::Publisher;
use crate::worker::{Command, DeviceNode, InputSlot, OutputSlot};
use crate::{NodeIndex, SwIfIndex, WorkerIndex};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

/// See [`Engine::set_interface`].
#[derive(Clone, Debug)]
pub struct InterfaceSetup {
    /// Its name.
    pub name: Arc<str>,
    /// Whether it is administratively up.
    pub up: bool,
    /// The node that received packets go to.
    pub input: Option<NodeIndex>,
    /// Whether what it sends comes back.
    pub loopback: Option<Loopback>,
}

/// What a loopback is. What it sends goes to its `input`, as from there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loopback {
    /// An end of its own: it receives what it sends.
    Own,
    /// A bridge's router interface: what it sends is the bridge's, and it receives what nodes say that it does.
    Bridged,
}

impl Engine {
    /// Sets what the engine knows of an interface, or forgets it.
    pub fn set_interface(&mut self, index: SwIfIndex, interface: Option<InterfaceSetup>) {
        self.counters.ensure(index.0);
        match interface.as_ref().and_then(|i| i.loopback) {
            Some(loopback) => self.loops.insert(index, loopback),
            None => self.loops.remove(&index),
        };
        if interface.is_none() {
            self.virtuals.remove(&index);
        }
        let tx = self.tx_paths(index);
        self.interfaces.update(|current| {
            let mut next = current.clone();
            if next.list.len() <= index.index() {
                next.list.resize(index.index() + 1, None);
            }
            next.list[index.index()] =
                interface.map(|i| Interface { name: i.name, up: i.up, input: i.input, tx });
            next
        });
    }

    /// Puts a node in the place of an interface's device: it is handed what the interface sends, with the interface as
    /// metadata. It stays until the interface is deleted.
    pub fn set_output_node(&mut self, index: SwIfIndex, node: NodeIndex) {
        self.virtuals.insert(index, node);
        self.publish_tx_paths(index);
    }

    fn tx_paths(&self, index: SwIfIndex) -> Vec<TxPath> {
        let owners: Vec<u16> =
            self.outputs.iter().filter(|o| o.interface == index).map(|o| o.worker.0).collect();
        if let Some(node) = self.virtuals.get(&index) {
            return vec![TxPath::Node(*node); self.workers.len()];
        }
        if let Some(loopback) = self.loops.get(&index) {
            return vec![TxPath::Loop { received: *loopback == Loopback::Own }; self.workers.len()];
        }
        (0..self.workers.len() as u16)
            .map(|worker| match owners.get(usize::from(worker) % owners.len().max(1)) {
                _ if owners.contains(&worker) => TxPath::Here,
                Some(owner) => TxPath::Worker(*owner),
                None => TxPath::None,
            })
            .collect()
    }

    fn publish_tx_paths(&self, index: SwIfIndex) {
        let tx = self.tx_paths(index);
        self.interfaces.update(|current| {
            let mut next = current.clone();
            if let Some(Some(interface)) = next.list.get_mut(index.index()) {
                interface.tx = tx;
            }
            next
        });
    }

    /// The interfaces as the workers see them.
    pub fn interfaces(&self) -> &Publisher<Interfaces> {
        &self.interfaces
    }

    /// Gives a receive queue to a worker.
    pub fn attach_input(
        &mut self,
        interface: SwIfIndex,
        queue: u16,
        worker: WorkerIndex,
        mode: RxMode,
        device: Box<dyn DeviceInput>,
    ) -> Result<InputId, EngineError> {
        let node = device.node();
        let kind = self.graph.find_input(node).ok_or_else(|| EngineError::UnknownInput(node.into()))?;
        let id = InputId(self.next_input);
        self.add_input(id, interface, kind, worker, mode, device)?;
        self.next_input += 1;
        self.inputs.push(InputRecord { id, interface, queue, node, worker, mode });
        Ok(id)
    }

    fn add_input(
        &self,
        id: InputId,
        interface: SwIfIndex,
        kind: usize,
        worker: WorkerIndex,
        mode: RxMode,
        device: Box<dyn DeviceInput>,
    ) -> Result<(), EngineError> {
        let name = Arc::from(device.node());
        self.command(
            worker,
            Command::AddInput(InputSlot { id: id.0, interface, kind, name, mode, silent: 0, device }),
        )
    }

    /// Takes a receive queue back; it has given its buffers back.
    pub fn detach_input(&mut self, id: InputId) -> Result<Option<Box<dyn DeviceInput>>, EngineError> {
        let Some(at) = self.inputs.iter().position(|i| i.id == id) else { return Ok(None) };
        let record = self.inputs.remove(at);
        self.ask(record.worker, |reply| Command::RemoveInput(id.0, reply))
    }

    /// Moves a receive queue to another worker. Packets that it received before stay where they are.
    pub fn place_input(&mut self, id: InputId, worker: WorkerIndex) -> Result<(), EngineError> {
        self.handle(worker)?;
        let Some(at) = self.inputs.iter().position(|i| i.id == id) else { return Ok(()) };
        let record = self.inputs[at].clone();
        if record.worker == worker {
            return Ok(());
        }
        let device = self.ask(record.worker, |reply| Command::RemoveInput(id.0, reply))?;
        if let (Some(device), Some(kind)) = (device, self.graph.find_input(record.node)) {
            self.add_input(id, record.interface, kind, worker, record.mode, device)?;
            self.inputs[at].worker = worker;
        }
        Ok(())
    }

    /// Sets when a receive queue is looked at.
    pub fn set_rx_mode(&mut self, id: InputId, mode: RxMode) -> Result<(), EngineError> {
        let Some(record) = self.inputs.iter_mut().find(|i| i.id == id) else { return Ok(()) };
        record.mode = mode;
        let worker = record.worker;
        self.command(worker, Command::SetMode(id.0, mode))
    }

    /// The receive queues.
    pub fn inputs(&self) -> &[InputRecord] {
        &self.inputs
    }

    /// The worker with the fewest receive queues.
    pub fn least_loaded(&self) -> WorkerIndex {
        let queues = |w: &u16| self.inputs.iter().filter(|i| i.worker.0 == *w).count();
        WorkerIndex((0..self.workers.len() as u16).min_by_key(queues).unwrap_or(0))
    }

    /// Gives a transmit queue to a worker; other workers hand their packets over, unless they get one too.
    pub fn attach_output(
        &mut self,
        interface: SwIfIndex,
        worker: WorkerIndex,
        device: Box<dyn DeviceOutput>,
    ) -> Result<(), EngineError> {
        let name = self.interfaces.read(|i| i.get(interface).map(|i| Arc::clone(&i.name)));
        let name: Arc<str> = Arc::from(format!("{}-tx", name.unwrap_or_default()));
        let full = || EngineError::Stats(std::io::ErrorKind::OutOfMemory.into());
        let number = self.counts.node(&self.stats, &name).ok_or_else(full)?;
        let counters = self.counts.counters(number, worker.index()).ok_or_else(full)?;
        let node = Arc::new(DeviceNode { name, counters, no_slots: AtomicU64::new(0) });
        self.command(worker, Command::AddOutput(interface, OutputSlot::new(device, Arc::clone(&node))))?;
        self.outputs.push(Output { interface, worker, node });
        self.publish_tx_paths(interface);
        Ok(())
    }

    /// Takes all transmit queues of an interface back.
    pub fn detach_outputs(
        &mut self,
        interface: SwIfIndex,
    ) -> Result<Vec<Box<dyn DeviceOutput>>, EngineError> {
        let (gone, kept): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.outputs).into_iter().partition(|o| o.interface == interface);
        self.outputs = kept;
        self.publish_tx_paths(interface);
        let mut devices = Vec::new();
        for output in gone {
            devices.extend(self.ask(output.worker, |reply| Command::RemoveOutput(interface, reply))?);
            self.counts.free(&self.stats, &output.node.name);
        }
        Ok(devices)
    }

    /// The transmit nodes, with their interface and worker.
    pub fn device_nodes(&self) -> impl Iterator<Item = (SwIfIndex, WorkerIndex, &DeviceNode)> {
        self.outputs.iter().map(|o| (o.interface, o.worker, &*o.node))
    }
}
