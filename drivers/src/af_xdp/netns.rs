//! Network namespaces: sockets and interface look-ups belong to the one a thread is in.

use std::{
    fs::File,
    os::fd::{AsFd, OwnedFd},
    panic,
    path::PathBuf,
    thread,
};

use rustix::{
    io::Errno,
    thread::{LinkNameSpaceType, move_into_link_name_space},
};

use super::XdpError;

/// A network namespace, kept alive by this value.
#[derive(Debug)]
pub struct NetNs {
    fd: OwnedFd,
    name: String,
}

impl NetNs {
    /// Opens a namespace by what an operator calls it: `pid:N` for that of a process, a path if
    /// there is a slash in it, and else a name as `ip netns` has it, a file in /run/netns.
    ///
    /// # Errors
    ///
    /// [`XdpError::NoNamespace`]. That a path is something else shows in [`NetNs::run`].
    pub fn open(name: &str) -> Result<NetNs, XdpError> {
        let failed = |source| XdpError::NoNamespace { name: name.to_owned(), source };
        let invalid = || failed(Errno::INVAL.into());
        let path = if let Some(pid) = name.strip_prefix("pid:") {
            let pid: u32 = pid.parse().map_err(|_| invalid())?;
            PathBuf::from(format!("/proc/{pid}/ns/net"))
        } else if name.contains('/') {
            PathBuf::from(name)
        } else if matches!(name, "" | "." | "..") {
            return Err(invalid());
        } else {
            PathBuf::from("/run/netns").join(name)
        };
        let fd = File::open(path).map_err(failed)?.into();
        Ok(NetNs { fd, name: name.to_owned() })
    }

    /// What it was opened by.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs `work` inside. File descriptors it returns stay bound to the namespace.
    ///
    /// It runs on a thread of its own, which then ends: nothing can leave the caller in the wrong
    /// namespace. A panic of `work` is passed on.
    ///
    /// # Errors
    ///
    /// [`XdpError::Privilege`] without CAP_SYS_ADMIN; [`XdpError::NoNamespace`] when it is not a
    /// network namespace.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, XdpError> {
        thread::scope(|scope| {
            let inside = thread::Builder::new().name("netns".into()).spawn_scoped(scope, || {
                move_into_link_name_space(self.fd.as_fd(), Some(LinkNameSpaceType::Network))?;
                Ok(work())
            });
            let inside = inside.map_err(|error| XdpError::system("starting a thread", error))?;
            let result: Result<T, Errno> = inside.join().unwrap_or_else(|panic| panic::resume_unwind(panic));
            result.map_err(|errno| match errno {
                Errno::PERM => XdpError::Privilege {
                    action: "entering a network namespace",
                    capability: "CAP_SYS_ADMIN",
                },
                other => XdpError::NoNamespace { name: self.name.clone(), source: other.into() },
            })
        })
    }
}
