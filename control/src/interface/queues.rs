//! The queues of interfaces, and what their drivers tell of them.

use crate::dataplane::{Dataplane, OpError};
use wharf_drivers::af_xdp::XdpEvent;
use wharf_drivers::memif::MemifEvent;
use wharf_engine::device::{DeviceInput, DeviceOutput, RxMode};
use wharf_engine::engine::InputId;
use wharf_engine::{SwIfIndex, WorkerIndex};

/// What was said of one receive queue. What was not, is as for the others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueSettings {
    /// When it is looked at.
    pub mode: Option<RxMode>,
    /// Who looks at it.
    pub worker: Option<WorkerIndex>,
}

impl Dataplane {
    /// Gives an interface's queues to workers. Transmit queues first: what arrives can then be answered.
    pub(crate) fn attach(
        &mut self,
        index: SwIfIndex,
        inputs: Vec<Box<dyn DeviceInput>>,
        outputs: Vec<Box<dyn DeviceOutput>>,
    ) -> Result<(), OpError> {
        let record = self.record(index)?;
        let (mode, settings) = (record.rx_mode, record.queues.clone());
        let workers = self.engine.workers() as u16;
        let first = self.engine.least_loaded().0;
        for (i, output) in outputs.into_iter().take(usize::from(workers)).enumerate() {
            self.engine.attach_output(index, WorkerIndex((first + i as u16) % workers), output)?;
        }
        for (queue, input) in inputs.into_iter().enumerate() {
            let queue = queue as u16;
            let set = settings.get(&queue).copied().unwrap_or_default();
            let worker = set.worker.filter(|worker| worker.0 < workers);
            let worker = worker.unwrap_or(WorkerIndex(first.wrapping_add(queue) % workers));
            self.engine.attach_input(index, queue, worker, set.mode.unwrap_or(mode), input)?;
        }
        Ok(())
    }

    /// Takes an interface's queues back.
    pub(crate) fn detach(&mut self, index: SwIfIndex) -> Result<(), OpError> {
        for id in self.inputs_of(index) {
            drop(self.engine.detach_input(id)?);
        }
        drop(self.engine.detach_outputs(index)?);
        Ok(())
    }

    pub(crate) fn inputs_of(&self, index: SwIfIndex) -> Vec<InputId> {
        self.engine.inputs().iter().filter(|i| i.interface == index).map(|i| i.id).collect()
    }

    pub(crate) fn memif_event(&mut self, event: MemifEvent) {
        match event {
            MemifEvent::Connected { sw_if_index, inputs, outputs, .. } => {
                if let Err(error) = self.attach(sw_if_index, inputs, outputs) {
                    tracing::error!("{}: {error}", self.interface_name(sw_if_index));
                }
                self.set_link(sw_if_index, true);
            }
            MemifEvent::Disconnected { sw_if_index, reason } => {
                tracing::info!("{}: disconnected: {reason}", self.interface_name(sw_if_index));
                self.set_link(sw_if_index, false);
                if let Err(error) = self.detach(sw_if_index) {
                    tracing::error!("{}: {error}", self.interface_name(sw_if_index));
                }
            }
            MemifEvent::Failed { socket_id, reason, .. } => {
                tracing::info!("memif socket {socket_id}: {reason}");
            }
        }
    }

    pub(crate) fn set_link(&mut self, index: SwIfIndex, up: bool) {
        let Some(record) = self.interfaces.get_mut(&index) else { return };
        if std::mem::replace(&mut record.link_up, up) != up {
            self.announce(index);
        }
    }

    pub(crate) fn xdp_event(&mut self, event: XdpEvent) {
        match event {
            XdpEvent::Link(index, up) => self.set_link(index, up),
            XdpEvent::Lost(index, why) => {
                tracing::warn!("{}: {why}", self.interface_name(index));
                self.set_link(index, false);
                if let Err(error) = self.detach(index) {
                    tracing::error!("{}: {error}", self.interface_name(index));
                }
            }
            XdpEvent::Missed(index, packets) => self.engine.counters().missed(index.0, packets),
            XdpEvent::Stalled(index, why) => tracing::warn!("{}: {why}", self.interface_name(index)),
        }
    }

    /// Sets when receive queues are looked at: one, or all of the interface and those that come.
    pub fn set_rx_mode(&mut self, index: SwIfIndex, queue: Option<u32>, mode: RxMode) -> Result<(), OpError> {
        self.record_mut(index)?;
        let chosen = self.chosen_inputs(index, queue)?;
        for (_, id) in &chosen {
            self.engine.set_rx_mode(*id, mode)?;
        }
        let record = self.record_mut(index)?;
        match queue {
            None => {
                record.rx_mode = mode;
                record.queues.values_mut().for_each(|set| set.mode = None);
                record.queues.retain(|_, set| *set != QueueSettings::default());
            }
            Some(_) => {
                chosen
                    .iter()
                    .for_each(|(queue, _)| record.queues.entry(*queue).or_default().mode = Some(mode));
            }
        }
        Ok(())
    }

    /// Moves receive queues to a worker, where they come back to after the peer was gone: one, or all that there are.
    pub fn set_placement(
        &mut self,
        index: SwIfIndex,
        queue: Option<u32>,
        worker: u32,
    ) -> Result<(), OpError> {
        self.record_mut(index)?;
        let chosen = self.chosen_inputs(index, queue)?;
        let worker = self.worker_index(worker)?;
        for (queue, id) in chosen {
            self.engine.place_input(id, worker)?;
            self.record_mut(index)?.queues.entry(queue).or_default().worker = Some(worker);
        }
        Ok(())
    }

    /// Sets what is said of one receive queue, which need not be there.
    pub(crate) fn set_queue(
        &mut self,
        index: SwIfIndex,
        queue: u16,
        new: QueueSettings,
    ) -> Result<(), OpError> {
        if let Some(worker) = new.worker {
            self.worker_index(worker.0.into())?;
        }
        let record = self.record_mut(index)?;
        let mode = new.mode.unwrap_or(record.rx_mode);
        match new == QueueSettings::default() {
            true => record.queues.remove(&queue),
            false => record.queues.insert(queue, new),
        };
        for (_, id) in self.chosen_inputs(index, Some(queue.into())).unwrap_or_default() {
            self.engine.set_rx_mode(id, mode)?;
            if let Some(worker) = new.worker {
                self.engine.place_input(id, worker)?;
            }
        }
        Ok(())
    }

    fn worker_index(&self, worker: u32) -> Result<WorkerIndex, OpError> {
        let workers = self.engine.workers();
        match u16::try_from(worker) {
            Ok(number) if usize::from(number) < workers => Ok(WorkerIndex(number)),
            _ => {
                let why =
                    format!("there is no worker {worker}: workers are 0 to {}", workers.saturating_sub(1));
                OpError::parameter("worker", why)
            }
        }
    }

    fn chosen_inputs(&self, index: SwIfIndex, queue: Option<u32>) -> Result<Vec<(u16, InputId)>, OpError> {
        let list: Vec<(u16, InputId)> = (self.engine.inputs().iter())
            .filter(|i| i.interface == index && queue.is_none_or(|q| q == u32::from(i.queue)))
            .map(|i| (i.queue, i.id))
            .collect();
        match (queue, list.is_empty()) {
            (Some(queue), true) => {
                let name = self.interface_name(index);
                OpError::parameter("queue", format!("{name} has no receive queue {queue}"))
            }
            _ => Ok(list),
        }
    }
}
