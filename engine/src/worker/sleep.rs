//! Sleeping when there is nothing to do, without missing anything: arm the queues, say so, look once more, sleep.

use super::{MAX_SLEEP_NANOS, PENDING_SLEEP_NANOS, WAKE, Worker};
use crate::clock;
use crate::counter::add;
use crate::node::TICK;
use rustix::event::epoll;
use std::sync::atomic::{Ordering, fence};

impl Worker {
    pub(super) fn sleep(&mut self) {
        let mut armed = 0;
        let mut work = !self.ready.is_empty();
        for input in &mut self.inputs {
            if work {
                break;
            }
            work = !input.device.arm();
            armed += 1;
        }
        if work && armed != 0 {
            // Not asked for only when it is its turn.
            self.rota.wake(armed - 1);
        }
        if !work {
            self.sleep_armed();
        }
        // A command may have taken some of them away meanwhile; then all that are left were armed.
        for input in self.inputs.iter_mut().take(armed) {
            input.device.disarm();
        }
        self.last_turn = 0;
    }

    pub(super) fn sleep_armed(&mut self) {
        self.shared().sleeping.store(true, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        let handed = self.handoff_in.iter_mut().any(|ring| !ring.is_empty());
        if !handed && !self.take_commands() {
            let nanos = self.sleep_nanos();
            self.reader.offline();
            let before = clock::nanos();
            let timeout = rustix::time::Timespec {
                tv_sec: (nanos / 1_000_000_000) as i64,
                tv_nsec: (nanos % 1_000_000_000) as i64,
            };
            let mut events =
                [epoll::Event { flags: epoll::EventFlags::empty(), data: epoll::EventData::new_u64(0) }; 16];
            let woken = epoll::wait(&self.epoll, &mut events[..], Some(&timeout)).unwrap_or(0);
            let slept = clock::nanos() - before;
            let by_queue = events[..woken].iter().any(|e| e.data.u64() != WAKE);
            self.come_online();
            let shared = self.shared();
            add(&shared.sleeps, 1);
            add(&shared.slept_nanos, slept);
            add(&shared.fd_wakeups, u64::from(by_queue));
            for event in &events[..woken] {
                if let Some(at) = self.inputs.iter().position(|i| i.id == event.data.u64()) {
                    let kind = self.inputs[at].kind;
                    add(&self.graph.inputs[kind].counters[self.state.worker.index()].suspends, 1);
                    self.rota.wake(at);
                }
            }
        }
        let shared = self.shared();
        shared.sleeping.store(false, Ordering::SeqCst);
        let mut counter = [0; 8];
        let _ = rustix::io::read(&shared.wake_fd, &mut counter);
    }

    pub(super) fn sleep_nanos(&self) -> u64 {
        let now = clock::nanos();
        let mut nanos = MAX_SLEEP_NANOS;
        if self.holding != 0 {
            nanos = nanos.min(TICK.as_nanos() as u64);
        }
        if self.pending_outputs != 0 || self.keeps_handoffs() {
            nanos = nanos.min(PENDING_SLEEP_NANOS);
        }
        self.inputs.iter().filter_map(|i| i.device.due(now)).fold(nanos, u64::min)
    }
}
