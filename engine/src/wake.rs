//! Waking a thread that polls file descriptors, with at most one system call per wake-up.

use rustix::event::{EventfdFlags, eventfd};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

#[derive(Debug)]
struct Shared {
    fd: OwnedFd,
    woken: AtomicBool,
}

/// Wakes the thread that polls it. Clones wake the same thread.
#[derive(Clone, Debug)]
pub struct Waker(Arc<Shared>);

impl Waker {
    /// A new one.
    pub fn new() -> std::io::Result<Waker> {
        let fd = eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?;
        Ok(Waker(Arc::new(Shared { fd, woken: AtomicBool::new(false) })))
    }

    /// Wakes, unless that was done already and not yet noticed. Call it after the work is in its place.
    pub fn wake(&self) {
        if !self.0.woken.swap(true, Ordering::SeqCst) {
            let _ = rustix::io::write(&self.0.fd, &1u64.to_ne_bytes());
        }
    }

    /// Notices wake-ups. Call it before looking for work.
    pub fn clear(&self) {
        let mut counter = [0; 8];
        let _ = rustix::io::read(&self.0.fd, &mut counter);
        self.0.woken.store(false, Ordering::SeqCst);
    }
}

impl AsFd for Waker {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.fd.as_fd()
    }
}
