//! The socket that hands the segment out: to whoever connects, one descriptor, and that is all.

use crate::dataplane::OpError;
use rustix::io::{Errno, IoSlice};
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags,
    SocketType, accept_with, bind, connect, listen, sendmsg, socket_with,
};
use std::fs::Permissions;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use wharf_engine::Engine;

/// Clients served in one go.
const ACCEPTS: usize = 64;
const FLAGS: SocketFlags = SocketFlags::NONBLOCK.union(SocketFlags::CLOEXEC);

/// The listening socket. Its owner polls [`StatsServer::poll_fd`] and calls [`StatsServer::process`].
#[derive(Debug)]
pub struct StatsServer {
    socket: OwnedFd,
    path: PathBuf,
}

fn open(path: &Path, group: Option<u32>) -> io::Result<OwnedFd> {
    let address = SocketAddrUnix::new(path)?;
    let new = || socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, FLAGS, None);
    let socket = new()?;
    match bind(&socket, &address) {
        // A file left behind by a daemon that is gone.
        Err(Errno::ADDRINUSE) if connect(new()?, &address) == Err(Errno::CONNREFUSED) => {
            std::fs::remove_file(path)?;
            bind(&socket, &address)?;
        }
        result => result?,
    }
    if group.is_some() {
        chown(path, None, group)?;
    }
    std::fs::set_permissions(path, Permissions::from_mode(0o660))?;
    listen(&socket, 64)?;
    Ok(socket)
}

impl StatsServer {
    /// Listens at `path`, for the daemon's user and a group.
    pub fn start(path: &Path, group: Option<u32>) -> Result<StatsServer, OpError> {
        let failed = |error| OpError::System(format!("cannot serve statistics on {}", path.display()), error);
        Ok(StatsServer { socket: open(path, group).map_err(failed)?, path: path.to_owned() })
    }

    /// Readable when somebody has connected.
    pub fn poll_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Serves those who have connected.
    pub fn process(&self, engine: &Engine) {
        for _ in 0..ACCEPTS {
            let client = match accept_with(&self.socket, FLAGS) {
                Ok(client) => client,
                Err(Errno::AGAIN) => return,
                Err(error) => {
                    tracing::debug!("reader of statistics not accepted: {error}");
                    return;
                }
            };
            if let Err(error) = hand_over(&client, engine.stats().segment().fd()) {
                tracing::debug!("reader of statistics not served: {error}");
            }
        }
    }
}

/// A new socket has room for one message, so this never waits.
fn hand_over(client: &OwnedFd, segment: BorrowedFd<'_>) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let segment = [segment];
    if !control.push(SendAncillaryMessage::ScmRights(&segment)) {
        return Err(io::ErrorKind::OutOfMemory.into());
    }
    sendmsg(client, &[IoSlice::new(&[0])], &mut control, SendFlags::NOSIGNAL)?;
    Ok(())
}

impl Drop for StatsServer {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}
