//! What main asks for: queues come and go.

use super::{Command, Handoff, InputSlot, Worker};
use crate::SwIfIndex;
use crate::device::{DeviceInput, DeviceOutput};
use crate::frame::Packet;
use rustix::event::epoll;
use std::sync::atomic::Ordering;

impl Worker {
    pub(super) fn take_commands(&mut self) -> bool {
        let mut any = false;
        while let Ok(command) = self.commands.try_recv() {
            any = true;
            match command {
                Command::AddInput(slot) => self.add_input(slot),
                Command::RemoveInput(id, reply) => {
                    let _ = reply.send(self.remove_input(id));
                }
                Command::SetMode(id, mode) => {
                    self.inputs.iter_mut().filter(|i| i.id == id).for_each(|i| i.mode = mode);
                }
                Command::AddOutput(interface, slot) => {
                    if self.outputs.len() <= interface.index() {
                        self.outputs.resize_with(interface.index() + 1, || None);
                    }
                    self.outputs[interface.index()] = Some(slot);
                }
                Command::RemoveOutput(interface, reply) => {
                    let _ = reply.send(self.remove_output(interface));
                }
                Command::Stop => self.shut_down(),
            }
        }
        any
    }

    pub(super) fn add_input(&mut self, slot: InputSlot) {
        if let Some(fd) = slot.device.fd() {
            let added =
                epoll::add(&self.epoll, fd, epoll::EventData::new_u64(slot.id), epoll::EventFlags::IN);
            if let Err(error) = added {
                tracing::error!("worker {}: cannot wait for a queue: {error}", self.state.worker.0);
            }
        }
        self.inputs.push(slot);
        self.rota.renew(self.inputs.len());
    }

    pub(super) fn remove_input(&mut self, id: u64) -> Option<Box<dyn DeviceInput>> {
        let at = self.inputs.iter().position(|i| i.id == id)?;
        let mut slot = self.inputs.remove(at);
        self.rota.renew(self.inputs.len());
        if let Some(fd) = slot.device.fd() {
            let _ = epoll::delete(&self.epoll, fd);
        }
        slot.device.close(&mut self.cache);
        Some(slot.device)
    }

    pub(super) fn remove_output(&mut self, interface: SwIfIndex) -> Option<Box<dyn DeviceOutput>> {
        let mut slot = self.outputs.get_mut(interface.index())?.take()?;
        self.dirty.retain(|i| *i != interface);
        self.pending_outputs -= usize::from(slot.pending);
        slot.device.close(&mut self.cache);
        Some(slot.device)
    }

    pub(super) fn shut_down(&mut self) {
        for id in self.inputs.iter().map(|i| i.id).collect::<Vec<_>>() {
            self.remove_input(id);
        }
        for i in 0..self.outputs.len() {
            self.remove_output(SwIfIndex(i as u32));
        }
        let mut left: Vec<Packet> = self.runners.iter_mut().flat_map(|r| r.surrender()).collect();
        let waiting = (self.inboxes.iter_mut().flat_map(|i| i.frames.drain(..)))
            .chain(self.handoff_frames.iter_mut().filter_map(Option::take));
        for mut frame in waiting {
            left.extend(frame.drain());
        }
        for ring in &mut self.handoff_in {
            while let Some(Handoff { mut frame, .. }) = ring.pop() {
                left.extend(frame.drain());
            }
        }
        self.ready.clear();
        self.cache.free_iter(left.into_iter().map(Packet::into_buffer));
        self.shared().stopped.store(true, Ordering::Release);
        self.stop = true;
    }
}
