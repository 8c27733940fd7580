//! The control socket: addresses, listening, connecting, and messages with file descriptors.

use std::fmt;
use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode as FileMode, OFlags};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType,
};

use crate::error::{ConfigError, HandshakeError, SocketError};
use crate::wire::{MESSAGE_SIZE, RawMessage};

/// Where a control socket lives. Written as `/path`, `@name` or `abstract:name`, the latter two optionally
/// followed by `,netns_name=X`, where X is a path, a name under `/var/run/netns`, or `pid:N`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Address {
    /// A socket file.
    Path(PathBuf),
    /// A name in the abstract namespace of a network namespace.
    Abstract {
        /// The name, without the leading NUL.
        name: String,
        /// File of the network namespace; `None` is the one of the calling thread.
        netns: Option<PathBuf>,
    },
}

/// Bytes that `sun_path` holds.
const SUN_PATH: usize = 108;

impl Address {
    /// Parses the written form.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        let fail = |why| ConfigError::Address(text.into(), why);
        if let Some(rest) = text.strip_prefix("abstract:").or_else(|| text.strip_prefix('@')) {
            let (name, netns) = match rest.split_once(",netns_name=") {
                Some((name, netns)) => (name, Some(netns_file(netns).ok_or_else(|| fail("bad netns_name"))?)),
                None => (rest, None),
            };
            if name.is_empty() || name.len() >= SUN_PATH {
                return Err(fail("an abstract name has 1 to 107 bytes"));
            }
            return Ok(Self::Abstract { name: name.into(), netns });
        }
        if text.is_empty() || text.len() >= SUN_PATH || text.contains('\0') {
            return Err(fail("a path has 1 to 107 bytes"));
        }
        Ok(Self::Path(text.into()))
    }

    fn unix(&self) -> Result<SocketAddrUnix, SocketError> {
        match self {
            Self::Path(path) => SocketAddrUnix::new(path),
            Self::Abstract { name, .. } => SocketAddrUnix::new_abstract_name(name.as_bytes()),
        }
        .map_err(|e| SocketError::io("sockaddr_un", e))
    }
}

impl std::str::FromStr for Address {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Self, ConfigError> {
        Self::parse(text)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(path) => path.display().fmt(f),
            Self::Abstract { name, netns: None } => write!(f, "@{name}"),
            Self::Abstract { name, netns: Some(netns) } => {
                write!(f, "abstract:{name},netns_name={}", netns.display())
            }
        }
    }
}

/// VPP's three ways to name a network namespace.
fn netns_file(text: &str) -> Option<PathBuf> {
    if let Some(pid) = text.strip_prefix("pid:") {
        pid.parse::<u32>().ok().map(|pid| format!("/proc/{pid}/ns/net").into())
    } else if text.starts_with('/') {
        Some(text.into())
    } else if text.is_empty() || text.contains('/') || text == ".." {
        None
    } else {
        Some(Path::new("/var/run/netns").join(text))
    }
}

/// Runs `open` inside the network namespace of `address`. A socket belongs to the namespace it was made in
/// for ever, so a short-lived thread enters it and hands the socket back.
fn in_netns<T: Send>(
    address: &Address,
    open: impl FnOnce() -> Result<T, SocketError> + Send,
) -> Result<T, SocketError> {
    let Address::Abstract { netns: Some(path), .. } = address else {
        return open();
    };
    let fail = |source: Errno| SocketError::Netns { path: path.clone(), source: source.into() };
    let netns =
        rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK, FileMode::empty())
            .map_err(fail)?;
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("memif-netns".into()).spawn_scoped(scope, || {
            rustix::thread::move_into_link_name_space(
                netns.as_fd(),
                Some(rustix::thread::LinkNameSpaceType::Network),
            )
            .map_err(fail)?;
            open()
        });
        match thread.map_err(|e| SocketError::io("pthread_create", e))?.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

fn new_socket() -> Result<OwnedFd, SocketError> {
    rustix::net::socket_with(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::NONBLOCK | SocketFlags::CLOEXEC,
        None,
    )
    .map_err(|e| SocketError::io("socket", e))
}

/// A listening socket; takes its file away when dropped.
#[derive(Debug)]
pub(crate) struct ListenSocket {
    fd: OwnedFd,
    /// Path, device and inode of the socket file that we made.
    file: Option<(PathBuf, u64, u64)>,
}

impl ListenSocket {
    pub(crate) fn bind(address: &Address, file_mode: u32) -> Result<Self, SocketError> {
        in_netns(address, || {
            let unix = address.unix()?;
            let fd = new_socket()?;
            match rustix::net::bind(&fd, &unix) {
                Ok(()) => {}
                Err(Errno::ADDRINUSE) => {
                    let Address::Path(path) = address else {
                        return Err(SocketError::InUse(address.to_string()));
                    };
                    remove_stale(path, address)?;
                    rustix::net::bind(&fd, &unix).map_err(|e| match e {
                        Errno::ADDRINUSE => SocketError::InUse(address.to_string()),
                        e => SocketError::io("bind", e),
                    })?;
                }
                Err(e) => return Err(no_directory(address, e).unwrap_or(SocketError::io("bind", e))),
            }
            let mut listener = Self { fd, file: None };
            if let Address::Path(path) = address {
                // Nobody can connect between bind and listen, so the file never has wider permissions.
                std::fs::set_permissions(path, std::fs::Permissions::from_mode(file_mode))
                    .map_err(|e| SocketError::io("chmod", e))?;
                let meta = std::fs::symlink_metadata(path).map_err(|e| SocketError::io("lstat", e))?;
                listener.file = Some((path.clone(), meta.dev(), meta.ino()));
            }
            rustix::net::listen(&listener.fd, BACKLOG).map_err(|e| SocketError::io("listen", e))?;
            Ok(listener)
        })
    }

    /// The next waiting connection, if any.
    pub(crate) fn accept(&self) -> Result<Option<Channel>, SocketError> {
        match rustix::net::accept_with(&self.fd, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC) {
            Ok(fd) => Ok(Some(Channel { fd })),
            Err(Errno::AGAIN | Errno::CONNABORTED | Errno::INTR) => Ok(None),
            Err(e) => Err(SocketError::io("accept", e)),
        }
    }

    pub(crate) fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Drop for ListenSocket {
    fn drop(&mut self) {
        if let Some((path, dev, ino)) = &self.file
            && std::fs::symlink_metadata(path).is_ok_and(|m| (m.dev(), m.ino()) == (*dev, *ino))
        {
            let _ = std::fs::remove_file(path);
        }
    }
}

fn no_directory(address: &Address, e: Errno) -> Option<SocketError> {
    let Address::Path(path) = address else { return None };
    let parent = path.parent().filter(|p| !p.as_os_str().as_bytes().is_empty())?;
    (e == Errno::NOENT && !parent.is_dir()).then(|| SocketError::NoDirectory(parent.into()))
}

/// Removes a socket file that nobody listens on any more.
fn remove_stale(path: &Path, address: &Address) -> Result<(), SocketError> {
    let meta = std::fs::symlink_metadata(path).map_err(|e| SocketError::io("lstat", e))?;
    if !meta.file_type().is_socket() {
        return Err(SocketError::NotASocket(path.into()));
    }
    let probe = new_socket()?;
    match rustix::net::connect(&probe, &address.unix()?) {
        // PROTOTYPE: somebody uses the path with another socket type.
        Ok(()) | Err(Errno::AGAIN | Errno::PROTOTYPE) => Err(SocketError::InUse(address.to_string())),
        Err(Errno::CONNREFUSED) => std::fs::remove_file(path).map_err(|e| SocketError::io("unlink", e)),
        Err(e) => Err(SocketError::io("connect", e)),
    }
}

/// Who is at the other end, as the kernel saw it at connect time (`SO_PEERCRED`, unix(7)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerCredentials {
    /// Process, 0 if it is outside our pid namespace.
    pub pid: i32,
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

impl PeerCredentials {
    /// Of a connected Unix socket. libc, because rustix can't express the pid 0 of a process in another pid namespace, which
    /// is the usual case with containers.
    pub fn of(socket: BorrowedFd<'_>) -> Option<PeerCredentials> {
        let mut cred = libc::ucred { pid: 0, uid: 0, gid: 0 };
        let mut len = size_of::<libc::ucred>() as libc::socklen_t;
        // SAFETY: `cred` and `len` are live locals, and `len` is the size of `cred`; any bytes make a ucred.
        let rc = unsafe {
            libc::getsockopt(
                socket.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_PEERCRED,
                (&raw mut cred).cast(),
                &raw mut len,
            )
        };
        (rc == 0).then_some(PeerCredentials { pid: cred.pid, uid: cred.uid, gid: cred.gid })
    }

    /// The supplementary groups of who is at the other end of a connected Unix socket (`SO_PEERGROUPS`); none where the kernel
    /// does not tell. At most 65,536, the kernel's own limit.
    pub fn groups(socket: BorrowedFd<'_>) -> Vec<u32> {
        // Most have few; what is too short is answered with the length that it takes.
        let mut groups = vec![0u32; 32];
        for _ in 0..2 {
            let mut len = size_of_val(&*groups) as libc::socklen_t;
            // SAFETY: `groups` is live and `len` its size in bytes; any bytes make numbers.
            let rc = unsafe {
                libc::getsockopt(
                    socket.as_raw_fd(),
                    libc::SOL_SOCKET,
                    libc::SO_PEERGROUPS,
                    groups.as_mut_ptr().cast(),
                    &raw mut len,
                )
            };
            let found = len as usize / size_of::<u32>();
            if rc == 0 {
                groups.truncate(found);
                return groups;
            }
            if found <= groups.len() || found > 1 << 16 {
                break;
            }
            groups.resize(found, 0);
        }
        Vec::new()
    }

    /// The peer's network namespace (`net:[4026531840]`), if /proc tells.
    pub fn network_namespace(&self) -> Option<String> {
        let link = std::fs::read_link(format!("/proc/{}/ns/net", self.proc_name()?)).ok()?;
        Some(link.to_string_lossy().into_owned())
    }

    /// What tells its network namespace from others, without the text.
    pub(crate) fn network_namespace_inode(&self) -> Option<u64> {
        Some(std::fs::metadata(format!("/proc/{}/ns/net", self.proc_name()?)).ok()?.ino())
    }

    /// The peer's control group, which names the container, if /proc tells.
    pub fn cgroup(&self) -> Option<String> {
        let text = std::fs::read_to_string(format!("/proc/{}/cgroup", self.proc_name()?)).ok()?;
        // The one of cgroup v2 is last; every line is `number:controllers:path`.
        let path = text.lines().last()?.splitn(3, ':').nth(2)?;
        Some(path.chars().filter(|c| !c.is_control()).collect())
    }

    fn proc_name(&self) -> Option<i32> {
        (self.pid > 0).then_some(self.pid)
    }
}

/// A message and the file descriptors that came with it.
#[derive(Debug)]
pub(crate) struct Received {
    pub(crate) bytes: RawMessage,
    pub(crate) fds: Vec<OwnedFd>,
}

/// Clients that the kernel lets wait to be accepted. A flood fills it, and then this is how many of its connections an
/// honest client is behind.
const BACKLOG: i32 = 128;

/// File descriptors for which a message has room. One is allowed; the rest lets us see the excess.
const MAX_FDS: usize = 4;

/// A connected control socket. Nothing here blocks.
#[derive(Debug)]
pub(crate) struct Channel {
    fd: OwnedFd,
}

impl Channel {
    /// Connects, which a Unix socket does at once or not at all.
    pub(crate) fn connect(address: &Address) -> Result<Self, SocketError> {
        in_netns(address, || {
            let fd = new_socket()?;
            match rustix::net::connect(&fd, &address.unix()?) {
                Ok(()) => Ok(Self { fd }),
                Err(Errno::NOENT | Errno::CONNREFUSED | Errno::AGAIN) => {
                    Err(no_directory(address, Errno::NOENT)
                        .unwrap_or(SocketError::NoListener(address.to_string())))
                }
                Err(e) => Err(SocketError::io("connect", e)),
            }
        })
    }

    #[cfg(test)]
    pub(crate) fn pair() -> (Self, Self) {
        let (a, b) = rustix::net::socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::NONBLOCK | SocketFlags::CLOEXEC,
            None,
        )
        .unwrap();
        (Self { fd: a }, Self { fd: b })
    }

    /// Sends one message with at most one file descriptor.
    pub(crate) fn send(&self, bytes: &RawMessage, fd: Option<BorrowedFd<'_>>) -> Result<(), HandshakeError> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let fds: Vec<BorrowedFd<'_>> = fd.into_iter().collect();
        if !fds.is_empty() {
            control.push(SendAncillaryMessage::ScmRights(&fds));
        }
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        match rustix::net::sendmsg(&self.fd, &[IoSlice::new(bytes)], &mut control, flags) {
            Ok(_) => Ok(()),
            Err(Errno::AGAIN) => Err(HandshakeError::SendBlocked),
            Err(Errno::PIPE | Errno::CONNRESET) => Err(HandshakeError::Closed),
            Err(e) => Err(HandshakeError::io("sendmsg", e)),
        }
    }

    /// The next message; `None` if there is none yet. Descriptors of a message that is refused are closed.
    pub(crate) fn receive(&self) -> Result<Option<Received>, HandshakeError> {
        let mut bytes = [0; MESSAGE_SIZE];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC | RecvFlags::TRUNC;
        let mut receive =
            || rustix::net::recvmsg(&self.fd, &mut [IoSliceMut::new(&mut bytes)], &mut control, flags);
        // A peer that closes with something unread resets the connection, which is told once, before what it sent
        // last: the reason why it closes.
        let got = match receive() {
            Err(Errno::CONNRESET) => receive(),
            other => other,
        };
        let got = match got {
            Ok(got) => got,
            Err(Errno::AGAIN | Errno::INTR) => return Ok(None),
            Err(Errno::CONNRESET) => return Err(HandshakeError::Closed),
            Err(e) => return Err(HandshakeError::io("recvmsg", e)),
        };
        let mut fds = Vec::new();
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = message {
                fds.extend(rights);
            }
        }
        if got.bytes == 0 && fds.is_empty() {
            return Err(HandshakeError::Closed);
        }
        if got.bytes != MESSAGE_SIZE || got.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) {
            return Err(HandshakeError::MessageSize(got.bytes));
        }
        Ok(Some(Received { bytes, fds }))
    }

    /// Throws away what has arrived. Closing a Unix socket with unread data resets it, and the peer would
    /// lose what we sent last: the reason why we close.
    pub(crate) fn discard_unread(&self) {
        for _ in 0..MAX_FDS * 4 {
            match self.receive() {
                Ok(Some(_)) | Err(HandshakeError::MessageSize(_)) => {}
                Ok(None) | Err(_) => break,
            }
        }
    }

    /// Who is at the other end.
    pub(crate) fn peer(&self) -> Option<PeerCredentials> {
        PeerCredentials::of(self.as_fd())
    }

    pub(crate) fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        let abs = |name: &str, netns: Option<&str>| Address::Abstract {
            name: name.into(),
            netns: netns.map(PathBuf::from),
        };
        assert_eq!(Address::parse("/run/x.sock"), Ok(Address::Path("/run/x.sock".into())));
        assert_eq!(Address::parse("@a/b"), Ok(abs("a/b", None)));
        assert_eq!(Address::parse("abstract:a,netns_name=/p/ns"), Ok(abs("a", Some("/p/ns"))));
        assert_eq!(Address::parse("@a,netns_name=blue"), Ok(abs("a", Some("/var/run/netns/blue"))));
        assert_eq!(Address::parse("@a,netns_name=pid:7"), Ok(abs("a", Some("/proc/7/ns/net"))));
        for bad in ["", "@", "abstract:", "@a,netns_name=", "@a,netns_name=../x", "@a,netns_name=pid:x"] {
            assert!(Address::parse(bad).is_err(), "{bad}");
        }
        assert!(Address::parse(&format!("/{}", "x".repeat(107))).is_err());
        for text in ["/run/x.sock", "@a", "abstract:a,netns_name=/p/ns"] {
            assert_eq!(Address::parse(text).unwrap().to_string(), text);
        }
    }

    #[test]
    fn wrong_sizes_are_refused() {
        for size in [0usize, 1, 127, 129, 65536] {
            let (a, b) = Channel::pair();
            rustix::net::send(&a.fd, &vec![1; size], SendFlags::empty()).unwrap();
            let got = b.receive();
            assert!(
                matches!(got, Err(HandshakeError::MessageSize(n)) if n == size)
                    || (size == 0 && matches!(got, Err(HandshakeError::Closed))),
                "{size}: {got:?}"
            );
        }
    }

    #[test]
    fn socket_file_life() {
        let dir = std::env::temp_dir().join(format!("memif-socket-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let path = dir.join("a.sock");
        let address = Address::Path(path.clone());
        let missing = Address::Path(dir.join("no/a.sock"));
        assert!(
            matches!(ListenSocket::bind(&missing, 0o660), Err(SocketError::NoDirectory(d)) if d == dir.join("no"))
        );
        assert!(matches!(Channel::connect(&missing), Err(SocketError::NoDirectory(_))));
        assert!(matches!(Channel::connect(&address), Err(SocketError::NoListener(_))));

        // A stale file is replaced, a live one and a foreign file are not.
        let stale = ListenSocket::bind(&address, 0o660).unwrap();
        assert_eq!(std::fs::symlink_metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);
        assert!(matches!(ListenSocket::bind(&address, 0o660), Err(SocketError::InUse(_))));
        let ListenSocket { fd, .. } = &stale;
        rustix::net::shutdown(fd, rustix::net::Shutdown::Both).unwrap();
        let live = ListenSocket::bind(&address, 0o600).unwrap();
        drop(stale);
        assert!(path.exists(), "the old listener must not remove the new one's file");
        drop(Channel::connect(&address).unwrap());
        drop(live);
        assert!(!path.exists());
        std::fs::write(&path, "precious").unwrap();
        assert!(matches!(ListenSocket::bind(&address, 0o660), Err(SocketError::NotASocket(_))));
        assert_eq!(std::fs::read(&path).unwrap(), b"precious");
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
