//! Interrupts to the peer that can't block.
//!
//! A `write` to an eventfd blocks when its counter is full and the open file is blocking. The peer shares that
//! file, and can bring about both between a look and the write. `RWF_NOWAIT` is refused for it (eventfd(2) has no
//! `write_iter`). But when an asynchronous read completes, the kernel adds to an eventfd by itself
//! (`IOCB_FLAG_RESFD`, io_submit(2)), saturating, whatever the file's flags say; an empty read completes at once.
//! It takes a tenth longer than `poll` and `write`.

use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::sync::OnceLock;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::MemfdFlags;

/// `struct iocb`, `linux/aio_abi.h`. The order of the second and third field depends on the byte order; both are 0.
#[repr(C)]
struct Iocb {
    data: u64,
    key: u32,
    rw_flags: u32,
    opcode: u16,
    priority: i16,
    file: u32,
    buffer: u64,
    len: u64,
    offset: i64,
    reserved: u64,
    flags: u32,
    result_file: u32,
}

const IOCB_CMD_PREAD: u16 = 0;
const IOCB_FLAG_RESFD: u32 = 1;
/// Kicks between two visits of the queue of completions, which nobody reads.
const EVENTS: usize = 64;
/// Bytes of `struct io_event`.
const EVENT_SIZE: usize = 32;

/// One per process, used from all threads; made at the first kick, and never taken down.
#[derive(Debug)]
struct Context {
    id: libc::c_ulong,
    /// An empty file to read.
    empty: OwnedFd,
}

static CONTEXT: OnceLock<Option<Context>> = OnceLock::new();

impl Context {
    fn new() -> Option<Self> {
        let empty = rustix::fs::memfd_create("memif kick", MemfdFlags::CLOEXEC).ok()?;
        let mut id: libc::c_ulong = 0;
        // SAFETY: io_setup(2) writes one aio_context_t, an unsigned long, to a live local.
        let rc = unsafe { libc::syscall(libc::SYS_io_setup, EVENTS as libc::c_long, &raw mut id) };
        (rc == 0).then_some(Self { id, empty })
    }

    fn kick(&self, event: BorrowedFd<'_>) -> bool {
        let mut read = Iocb {
            data: 0,
            key: 0,
            rw_flags: 0,
            opcode: IOCB_CMD_PREAD,
            priority: 0,
            file: self.empty.as_raw_fd() as u32,
            buffer: 0,
            len: 0,
            offset: 0,
            reserved: 0,
            flags: IOCB_FLAG_RESFD,
            result_file: event.as_raw_fd() as u32,
        };
        let mut list = [&raw mut read];
        for _ in 0..3 {
            // SAFETY: io_submit(2) reads one pointer from `list` and the iocb behind it, both live locals, and
            // writes to its `key`. The read has length 0 and is complete on return: no buffer is touched.
            let rc =
                unsafe { libc::syscall(libc::SYS_io_submit, self.id, 1 as libc::c_long, list.as_mut_ptr()) };
            if rc == 1 {
                return true;
            }
            if std::io::Error::last_os_error().raw_os_error() != Some(libc::EAGAIN) {
                return false;
            }
            self.reap();
        }
        false
    }

    /// Makes room in the queue of completions.
    #[cold]
    fn reap(&self) {
        let mut events = [[0u64; EVENT_SIZE / 8]; EVENTS];
        let mut at_once = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: io_getevents(2) writes at most EVENTS events of EVENT_SIZE bytes to `events`, and waits for none.
        unsafe {
            libc::syscall(
                libc::SYS_io_getevents,
                self.id,
                0 as libc::c_long,
                EVENTS as libc::c_long,
                events.as_mut_ptr(),
                &raw mut at_once,
            )
        };
    }
}

/// Adds one to an eventfd; true if the kernel did. Never blocks where the kernel has asynchronous I/O; elsewhere
/// (`ENOSYS`, a seccomp filter, the child of a fork) it asks before it writes.
pub(crate) fn kick(event: BorrowedFd<'_>) -> bool {
    match CONTEXT.get_or_init(Context::new) {
        Some(context) if context.kick(event) => true,
        _ => kick_by_write(event),
    }
}

#[cold]
fn kick_by_write(event: BorrowedFd<'_>) -> bool {
    let mut fds = [PollFd::from_borrowed_fd(event, PollFlags::OUT)];
    let writable = rustix::event::poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }));
    // A full counter means that an interrupt is pending already.
    matches!(writable, Ok(1))
        && fds.iter().all(|fd| fd.revents().contains(PollFlags::OUT))
        && rustix::io::write(event, &1u64.to_ne_bytes()).is_ok()
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use rustix::event::EventfdFlags;
    use std::os::fd::AsFd;

    fn count(fd: &OwnedFd) -> u64 {
        let mut bytes = [0; 8];
        assert_eq!(rustix::io::read(fd, &mut bytes), Ok(8));
        u64::from_ne_bytes(bytes)
    }

    #[test]
    fn each_kick_counts_one() {
        let fd = rustix::event::eventfd(0, EventfdFlags::CLOEXEC).unwrap();
        // More than the queue of completions holds.
        for _ in 0..1000 {
            assert!(kick(fd.as_fd()));
        }
        assert_eq!(count(&fd), 1000);
        assert!(kick_by_write(fd.as_fd()));
        assert_eq!(count(&fd), 1);
    }

    /// The counter is filled and emptied at full speed behind a blocking file, so that a look before the write says
    /// nothing about the write.
    #[test]
    fn a_peer_that_fills_the_counter_blocks_nobody() {
        let fd = rustix::event::eventfd(0, EventfdFlags::CLOEXEC).unwrap();
        let peer = fd.try_clone().unwrap();
        let done = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let full = (u64::MAX - 1).to_ne_bytes();
                while !done.load(std::sync::atomic::Ordering::Relaxed) {
                    // Only what can't block this thread: the kicker is the one under test.
                    let mut fds = [PollFd::new(&peer, PollFlags::IN | PollFlags::OUT)];
                    let _ = rustix::event::poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }));
                    let state = fds.map(|fd| fd.revents());
                    if state.iter().any(|s| s.contains(PollFlags::IN)) {
                        let _ = rustix::io::read(&peer, &mut [0; 8]);
                    }
                    rustix::io::ioctl_fionbio(&peer, true).unwrap();
                    let _ = rustix::io::write(&peer, &full);
                    rustix::io::ioctl_fionbio(&peer, false).unwrap();
                }
            });
            let start = std::time::Instant::now();
            let context = CONTEXT.get_or_init(Context::new).as_ref().expect("asynchronous I/O");
            let mut kicks = 0;
            while start.elapsed() < std::time::Duration::from_millis(200) {
                assert!(context.kick(fd.as_fd()));
                kicks += 1;
            }
            done.store(true, std::sync::atomic::Ordering::Relaxed);
            assert!(kicks > 100, "{kicks}");
        });
    }
}
