//! The CLI's unix socket: accepts clients, a thread for each, and stops them all.

use std::fs;
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, chown};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, listen, socket_with};

use super::connection::serve;
use super::session::Executor;

/// How many clients may be connected at once.
pub const MAX_CLIENTS: usize = 32;
/// How long to pause when the process is out of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Where and how to serve.
#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// The socket file.
    pub path: PathBuf,
    /// The group that may connect besides the owner.
    pub group: Option<u32>,
    /// The prompt of interactive sessions.
    pub prompt: String,
    /// What greets them, with its newlines; `None` for no banner.
    pub banner: Option<String>,
}

impl ServerConfig {
    /// The defaults, on this socket.
    pub fn new(path: impl Into<PathBuf>) -> ServerConfig {
        ServerConfig {
            path: path.into(),
            group: None,
            prompt: "wharf# ".into(),
            banner: Some(format!(
                "wharf {}: `help' lists the commands, `?' what may come next.\n\n",
                env!("CARGO_PKG_VERSION")
            )),
        }
    }
}

/// A running server. Dropping it stops it.
pub struct Server {
    shared: Arc<Shared>,
    /// Written to, or closed, to stop the accepting thread.
    wake: Option<UnixStream>,
    accepting: Option<JoinHandle<()>>,
    /// Device and inode of our socket file, so that nobody else's is removed.
    file: (u64, u64),
}

struct Shared {
    config: ServerConfig,
    executor: Arc<dyn Executor>,
    clients: Mutex<Clients>,
}

#[derive(Default)]
struct Clients {
    stopping: bool,
    next: u64,
    connected: Vec<(u64, Arc<UnixStream>)>,
}

impl Server {
    /// Binds the socket with mode 0660 and starts to accept clients. The directory has to exist. A socket
    /// file that nobody listens on is replaced.
    ///
    /// # Errors
    /// `AddrInUse` when another process listens there; what the system says otherwise. All name the path.
    pub fn start(config: ServerConfig, executor: Arc<dyn Executor>) -> io::Result<Server> {
        let (listener, file) = open(&config).map_err(|error| {
            io::Error::new(error.kind(), format!("CLI socket {}: {error}", config.path.display()))
        })?;
        let (wake, woken) = UnixStream::pair()?;
        let shared = Arc::new(Shared { config, executor, clients: Mutex::default() });
        let accepting = thread::Builder::new().name("cli-accept".into()).spawn({
            let shared = shared.clone();
            move || accept_clients(&shared, &listener, &woken)
        })?;
        Ok(Server { shared, wake: Some(wake), accepting: Some(accepting), file })
    }

    /// The socket file.
    pub fn path(&self) -> &Path {
        &self.shared.config.path
    }

    /// How many clients are connected.
    pub fn clients(&self) -> usize {
        self.shared.lock().connected.len()
    }

    /// Removes the socket file, disconnects all clients and waits for their threads: a command that runs is
    /// waited for.
    pub fn stop(self) {}
}

impl Drop for Server {
    fn drop(&mut self) {
        let ours = fs::symlink_metadata(self.path()).is_ok_and(|meta| (meta.dev(), meta.ino()) == self.file);
        if ours && let Err(error) = fs::remove_file(self.path()) {
            tracing::warn!("CLI socket {}: {error}", self.path().display());
        }
        self.wake = None;
        {
            let mut clients = self.shared.lock();
            clients.stopping = true;
            for (_, stream) in &clients.connected {
                // Fails when the client has gone already.
                let _ = stream.shutdown(std::net::Shutdown::Both);
            }
        }
        if let Some(accepting) = self.accepting.take() {
            let _ = accepting.join();
        }
    }
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, Clients> {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Listens only once the mode is set, so that nobody gets in before.
fn open(config: &ServerConfig) -> io::Result<(UnixListener, (u64, u64))> {
    let path = &config.path;
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(error),
        Ok(meta) if !meta.file_type().is_socket() => {
            return Err(io::Error::new(ErrorKind::AlreadyExists, "exists, and is not a socket"));
        }
        Ok(_) => match UnixStream::connect(path) {
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => fs::remove_file(path)?,
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error),
            Ok(_) => {
                return Err(io::Error::new(
                    ErrorKind::AddrInUse,
                    "address in use: another process listens on it",
                ));
            }
        },
    }
    let socket = socket_with(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
        None,
    )?;
    bind(&socket, &SocketAddrUnix::new(path.as_path())?)?;
    let meta = fs::symlink_metadata(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o660))?;
    if config.group.is_some() {
        chown(path, None, config.group)?;
    }
    listen(&socket, 16)?;
    Ok((UnixListener::from(socket), (meta.dev(), meta.ino())))
}

fn accept_clients(shared: &Arc<Shared>, listener: &UnixListener, woken: &UnixStream) {
    let mut threads: Vec<JoinHandle<()>> = Vec::new();
    let mut pause = None;
    loop {
        let mut fds = [PollFd::new(woken, PollFlags::IN), PollFd::new(listener, PollFlags::IN)];
        let watched = if pause.is_some() { fds.get_mut(..1).unwrap_or_default() } else { &mut fds[..] };
        let ready = poll(watched, pause.as_ref());
        if !fds[0].revents().is_empty() {
            break;
        }
        if matches!(ready, Err(error) if error != rustix::io::Errno::INTR) {
            break;
        }
        pause = None;
        match listener.accept() {
            Ok((stream, _)) => threads.extend(start_client(shared, stream)),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            Err(error) => {
                tracing::warn!("CLI client not accepted: {error}");
                pause = Timespec::try_from(ACCEPT_PAUSE).ok();
            }
        }
        threads.retain(|thread| !thread.is_finished());
    }
    for thread in threads {
        let _ = thread.join();
    }
}

fn start_client(shared: &Arc<Shared>, stream: UnixStream) -> Option<JoinHandle<()>> {
    let stream = Arc::new(stream);
    let id = {
        let mut clients = shared.lock();
        if clients.stopping {
            return None;
        }
        if clients.connected.len() >= MAX_CLIENTS {
            drop(clients);
            refuse(&stream, &format!("too many CLI sessions: at most {MAX_CLIENTS}"));
            return None;
        }
        clients.next += 1;
        let id = clients.next;
        clients.connected.push((id, stream.clone()));
        id
    };
    let place = Place { shared: shared.clone(), id };
    let refused = stream.clone();
    let spawned = thread::Builder::new().name(format!("cli-{id}")).spawn(move || {
        if let Err(error) = serve(&stream, &*place.shared.executor, &place.shared.config) {
            tracing::debug!("CLI client {}: {error}", place.id);
        }
    });
    match spawned {
        Ok(thread) => Some(thread),
        Err(error) => {
            refuse(&refused, &format!("no thread for another CLI session: {error}"));
            None
        }
    }
}

/// Says why without waiting: the socket's buffer takes a line.
fn refuse(mut stream: &UnixStream, why: &str) {
    tracing::warn!("CLI client refused: {why}");
    let _ = stream.set_nonblocking(true);
    let _ = stream.write_all(format!("{why}\n").as_bytes());
}

/// A client's place in the list, given up also when its thread panics.
struct Place {
    shared: Arc<Shared>,
    id: u64,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut clients = self.shared.lock();
        if let Some(at) = clients.connected.iter().position(|(id, _)| *id == self.id) {
            let (_, stream) = clients.connected.swap_remove(at);
            let _ = stream.shutdown(std::net::Shutdown::Both);
        }
    }
}

#[cfg(test)]
#[path = "server_tests.rs"]
mod tests;
