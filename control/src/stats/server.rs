//! The socket that hands the segment out: to whoever connects, one descriptor, and that is all.

use crate::access::{Access, Peer, Quiet, SocketFile, listen};
use crate::dataplane::OpError;
use rustix::io::{Errno, IoSlice};
use rustix::net::{
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType, accept_with, sendmsg,
};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Instant;
use wharf_engine::Engine;

/// Clients served in one go.
const ACCEPTS: usize = 64;
const FLAGS: SocketFlags = SocketFlags::NONBLOCK.union(SocketFlags::CLOEXEC);

/// The listening socket. Its owner polls [`StatsServer::poll_fd`] and calls [`StatsServer::process`].
#[derive(Debug)]
pub struct StatsServer {
    socket: OwnedFd,
    _file: SocketFile,
    access: Access,
    refusals: Quiet,
}

impl StatsServer {
    /// Listens at `path`. Who may only look may read all that there is.
    pub fn start(path: &Path, access: Access) -> Result<StatsServer, OpError> {
        let failed = |error| OpError::System(format!("cannot serve statistics on {}", path.display()), error);
        let (socket, _file) = listen(path, SocketType::SEQPACKET, &access).map_err(failed)?;
        Ok(StatsServer { socket, _file, access, refusals: Quiet::default() })
    }

    /// Readable when somebody has connected.
    pub fn poll_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Serves those who have connected.
    pub fn process(&mut self, engine: &Engine) {
        for _ in 0..ACCEPTS {
            let client = match accept_with(&self.socket, FLAGS) {
                Ok(client) => client,
                Err(Errno::AGAIN) => return,
                Err(error) => {
                    tracing::debug!("reader of statistics not accepted: {error}");
                    return;
                }
            };
            let peer = Peer::of(client.as_fd());
            if !peer.as_ref().is_ok_and(|peer| self.access.rights(peer).is_some()) {
                if let Some(more) = self.refusals.tell(Instant::now()) {
                    let who = peer.map_or_else(|error| error.to_string(), |peer| peer.to_string());
                    tracing::warn!("reader of statistics refused: {who} ({more} more were)");
                }
                continue;
            }
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
