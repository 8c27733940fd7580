//! Who may use the control sockets, to do what, and how much.
//!
//! A socket file has mode 0660, an owner and a group; users and groups that are listed beside them get in by an access control
//! list on it. At accept the kernel is asked who has connected, and [`Access::rights`] decides.

mod clients;
mod limits;
mod socket;

pub use clients::{ClientRecord, Clients, Place};
pub use limits::{Limits, Quiet, TokenBucket};
pub use socket::{SocketFile, listen, make_directory};

use memif::PeerCredentials;
use serde::Serialize;
use std::fmt;
use std::io;
use std::os::fd::BorrowedFd;
use std::path::Path;

/// What a client may do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rights {
    /// All.
    #[default]
    ReadWrite,
    /// Look: `show` commands, dumps, and requests that change nothing.
    ReadOnly,
}

impl fmt::Display for Rights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Rights::ReadWrite => "read-write",
            Rights::ReadOnly => "read-only",
        })
    }
}

/// A process at the other end of a socket, as it was when it connected.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Peer {
    /// Process, 0 if it is outside our pid namespace.
    pub pid: i32,
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
}

impl Peer {
    /// Of a connected socket.
    ///
    /// # Errors
    /// The kernel does not tell.
    pub fn of(socket: BorrowedFd<'_>) -> io::Result<Peer> {
        let credentials = PeerCredentials::of(socket).ok_or_else(io::Error::last_os_error)?;
        let PeerCredentials { pid, uid, gid } = credentials;
        Ok(Peer { pid, uid, gid, groups: PeerCredentials::groups(socket) })
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "process {} of user {} and group {}", self.pid, self.uid, self.gid)
    }
}

/// Users and groups.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Who {
    /// Users.
    pub uids: Vec<u32>,
    /// Groups.
    pub gids: Vec<u32>,
}

impl Who {
    fn has(&self, peer: &Peer) -> bool {
        let mut groups = std::iter::once(&peer.gid).chain(&peer.groups);
        self.uids.contains(&peer.uid) || groups.any(|gid| self.gids.contains(gid))
    }

    fn is_empty(&self) -> bool {
        self.uids.is_empty() && self.gids.is_empty()
    }
}

/// Who may do what.
#[derive(Clone, Debug, Default)]
pub struct Access {
    /// Owner of the socket files, if not the daemon's user.
    pub owner: Option<u32>,
    /// Group of the socket files, if not the daemon's.
    pub group: Option<u32>,
    /// Who may change something. If nobody is listed, whoever the files let in and who is not listed below.
    pub read_write: Who,
    /// Who may only look.
    pub read_only: Who,
    /// How much.
    pub limits: Limits,
}

impl Access {
    /// What a process may do; `None` for nothing. Of two answers the better one counts.
    pub fn rights(&self, peer: &Peer) -> Option<Rights> {
        if self.is_operator(peer) || self.read_write.has(peer) {
            return Some(Rights::ReadWrite);
        }
        if self.read_only.has(peer) {
            return Some(Rights::ReadOnly);
        }
        self.read_write.is_empty().then_some(Rights::ReadWrite)
    }

    /// Root, the daemon's own user, and the owner of the sockets.
    pub fn is_operator(&self, peer: &Peer) -> bool {
        let own = rustix::process::geteuid().as_raw();
        peer.uid == 0 || peer.uid == own || Some(peer.uid) == self.owner
    }
}

/// The number of a user or group: `name` is the number, or stands in `file`, `/etc/passwd` or `/etc/group`.
///
/// # Errors
/// It does not, or the file can't be read; for the operator.
pub fn number(name: &str, file: &Path) -> Result<u32, String> {
    if let Ok(number) = name.parse() {
        return Ok(number);
    }
    let shown = file.display();
    let text = std::fs::read_to_string(file).map_err(|error| format!("cannot read {shown}: {error}"))?;
    let mut lines = text.lines().map(|line| line.split(':'));
    let number = lines.find_map(|mut words| (words.next() == Some(name)).then(|| words.nth(1)?.parse().ok()));
    number.flatten().ok_or_else(|| format!("`{name}' is not in {shown}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(uid: u32, gid: u32, groups: &[u32]) -> Peer {
        Peer { pid: 1, uid, gid, groups: groups.to_vec() }
    }

    #[test]
    fn the_better_of_two_answers_counts_and_operators_are_never_locked_out() {
        let list = |uids: &[u32], gids: &[u32]| Who { uids: uids.to_vec(), gids: gids.to_vec() };
        let mut access = Access { owner: Some(70), ..Access::default() };
        let rights = |access: &Access, peer: Peer| access.rights(&peer);
        assert_eq!(rights(&access, peer(5, 5, &[])), Some(Rights::ReadWrite), "the file has let it in");

        access.read_only = list(&[5], &[100]);
        assert_eq!(rights(&access, peer(5, 5, &[])), Some(Rights::ReadOnly));
        assert_eq!(rights(&access, peer(6, 100, &[])), Some(Rights::ReadOnly));
        assert_eq!(rights(&access, peer(6, 6, &[7, 100])), Some(Rights::ReadOnly));
        assert_eq!(rights(&access, peer(6, 6, &[7])), Some(Rights::ReadWrite));

        access.read_write = list(&[5], &[200]);
        assert_eq!(rights(&access, peer(5, 5, &[])), Some(Rights::ReadWrite));
        assert_eq!(rights(&access, peer(6, 100, &[200])), Some(Rights::ReadWrite));
        assert_eq!(rights(&access, peer(6, 100, &[])), Some(Rights::ReadOnly));
        assert_eq!(rights(&access, peer(6, 6, &[])), None);
        for operator in [0, 70, rustix::process::geteuid().as_raw()] {
            assert_eq!(rights(&access, peer(operator, 100, &[])), Some(Rights::ReadWrite));
        }
    }

    #[test]
    fn names_are_looked_up_and_numbers_taken_as_they_are() {
        let file = Path::new("/etc/passwd");
        assert_eq!(number("root", file), Ok(0));
        assert_eq!(number("77", Path::new("/nonexistent")), Ok(77));
        assert!(number("nobody-of-that-name", file).unwrap_err().contains("is not in /etc/passwd"));
        assert!(number("x", Path::new("/nonexistent")).unwrap_err().starts_with("cannot read"));
    }

    #[test]
    fn a_process_is_known_by_what_the_kernel_says() {
        use std::os::fd::AsFd;
        let (one, _other) = std::os::unix::net::UnixStream::pair().unwrap();
        let peer = Peer::of(one.as_fd()).unwrap();
        assert_eq!(peer.pid as u32, std::process::id());
        assert_eq!(peer.uid, rustix::process::geteuid().as_raw());
        let groups: Vec<u32> = rustix::process::getgroups().unwrap().iter().map(|g| g.as_raw()).collect();
        assert_eq!(peer.groups, groups);
        assert!(Peer::of(std::fs::File::open("/dev/null").unwrap().as_fd()).is_err());
    }
}
