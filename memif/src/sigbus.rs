//! Surviving a page of shared memory that is gone.
//!
//! The checks in [`crate::region`] leave a peer no way to take a page away. Should there be one (memory that fails,
//! a file system without room), the access is a SIGBUS, which ends the process. With the handler of this module the
//! region is replaced by zeros where it stands, and the connection is ended: [`crate::Violation::RegionLost`].

use std::io;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

/// Mappings at most: 1024 connections of four regions.
const MAX_MAPPINGS: usize = 4096;
/// `base` of a free place: no address is as high.
const FREE: usize = usize::MAX;

struct Place {
    base: AtomicUsize,
    end: AtomicUsize,
    lost: AtomicBool,
}

static PLACES: [Place; MAX_MAPPINGS] = [const {
    Place { base: AtomicUsize::new(FREE), end: AtomicUsize::new(0), lost: AtomicBool::new(false) }
}; MAX_MAPPINGS];
/// Held to register; the handler takes no lock.
static REGISTER: Mutex<()> = Mutex::new(());
/// What handled the signal before.
static PREVIOUS: OnceLock<libc::sigaction> = OnceLock::new();

/// A mapping that the handler knows, as long as this lives.
#[derive(Debug)]
pub(crate) struct Registered(usize);

impl Registered {
    /// `None` if there are too many.
    pub(crate) fn new(base: usize, len: usize) -> Option<Self> {
        let _guard = REGISTER.lock().unwrap_or_else(PoisonError::into_inner);
        let free = PLACES.iter().position(|p| p.base.load(Ordering::Relaxed) == FREE)?;
        let place = PLACES.get(free)?;
        place.lost.store(false, Ordering::Relaxed);
        place.end.store(base.saturating_add(len), Ordering::Relaxed);
        place.base.store(base, Ordering::SeqCst);
        Some(Self(free))
    }

    /// Whether the handler had to replace the memory.
    pub(crate) fn lost(&self) -> bool {
        PLACES.get(self.0).is_some_and(|p| p.lost.load(Ordering::Relaxed))
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        if let Some(place) = PLACES.get(self.0) {
            place.base.store(FREE, Ordering::SeqCst);
        }
    }
}

/// Installs, once for the process, a handler of SIGBUS that knows the shared regions of all connections, and leaves
/// every other SIGBUS to what was there before. Without it, and a peer's page that can't be read, the process dies.
/// Nothing that installs a SIGBUS handler later may drop this one.
pub fn survive_sigbus() -> io::Result<()> {
    let _guard = REGISTER.lock().unwrap_or_else(PoisonError::into_inner);
    if PREVIOUS.get().is_some() {
        return Ok(());
    }
    // SAFETY: an all-zero sigaction is a valid value; the calls read and write live locals.
    let mut previous: libc::sigaction = unsafe { std::mem::zeroed() };
    // SAFETY: as above; a null new action only asks.
    if unsafe { libc::sigaction(libc::SIGBUS, ptr::null(), &raw mut previous) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // Before the handler can run.
    let _ = PREVIOUS.set(previous);
    // SAFETY: as above.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = on_sigbus as extern "C" fn(_, _, _) as usize;
    action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
    // SAFETY: `on_sigbus` has the signature that SA_SIGINFO asks for, and only calls what signal-safety(7) allows.
    if unsafe { libc::sigaction(libc::SIGBUS, &raw const action, ptr::null_mut()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

extern "C" fn on_sigbus(signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: the kernel passes a valid siginfo_t; of a fault (code above 0) it has the address.
    let (code, address) = unsafe { ((*info).si_code, (*info).si_addr() as usize) };
    if code > 0 && replace(address) {
        return;
    }
    let previous =
        PREVIOUS.get().filter(|p| p.sa_sigaction != libc::SIG_DFL && p.sa_sigaction != libc::SIG_IGN);
    let Some(previous) = previous else {
        // Back to the faulting instruction, now without a handler.
        // SAFETY: an all-zero sigaction is the default action.
        unsafe {
            let default: libc::sigaction = std::mem::zeroed();
            libc::sigaction(libc::SIGBUS, &raw const default, ptr::null_mut());
            if code <= 0 {
                libc::raise(signal);
            }
        }
        return;
    };
    // SAFETY: the kernel's record of the handler that was there, called as its flags say.
    unsafe {
        if previous.sa_flags & libc::SA_SIGINFO != 0 {
            let handler: extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void) =
                std::mem::transmute(previous.sa_sigaction);
            handler(signal, info, context);
        } else {
            let handler: extern "C" fn(libc::c_int) = std::mem::transmute(previous.sa_sigaction);
            handler(signal);
        }
    }
}

/// Puts zeros where a registered mapping that holds `address` is. All of it at once, so that a region costs one
/// fault, however large it is.
fn replace(address: usize) -> bool {
    for place in &PLACES {
        let base = place.base.load(Ordering::SeqCst);
        let end = place.end.load(Ordering::Relaxed);
        // Looked at twice, as the place may just have passed to another mapping. The one that holds `address` stays:
        // who faulted keeps it.
        if !(base..end).contains(&address) || place.base.load(Ordering::SeqCst) != base {
            continue;
        }
        // SAFETY: replaces a live mapping of this crate (registered in `Mapping::map`, which owns it) by memory that
        // is as readable and writable; nobody holds a Rust reference into it. errno is put back for the code that
        // was interrupted.
        return unsafe {
            let errno = libc::__errno_location();
            let before = *errno;
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED | libc::MAP_NORESERVE;
            let access = libc::PROT_READ | libc::PROT_WRITE;
            let at = libc::mmap(base as *mut libc::c_void, end - base, access, flags, -1, 0);
            *errno = before;
            if at == libc::MAP_FAILED {
                return false;
            }
            place.lost.store(true, Ordering::SeqCst);
            true
        };
    }
    false
}
