//! The CLI's unix socket: accepts clients, a thread for each, and stops them all.

use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::SocketType;

use super::connection::serve;
use super::session::{Executor, MAX_REQUEST};
use crate::access::{Access, ClientRecord, Clients, Peer, Place, Quiet, Rights, SocketFile, listen};

/// How long to pause when the process is out of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Where and how to serve.
#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// The socket file.
    pub path: PathBuf,
    /// Who may connect.
    pub access: Access,
    /// Where those who are connected are listed.
    pub clients: Clients,
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
            access: Access::default(),
            clients: Clients::default(),
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
    file: Option<SocketFile>,
}

struct Shared {
    config: ServerConfig,
    executor: Arc<dyn Executor>,
    connected: Mutex<Connected>,
}

#[derive(Default)]
struct Connected {
    stopping: bool,
    next: u64,
    streams: Vec<(u64, Arc<UnixStream>)>,
    refusals: Quiet,
}

impl Server {
    /// Binds the socket with mode 0660 and starts to accept clients. The directory has to exist. A socket
    /// file that nobody listens on is replaced.
    ///
    /// # Errors
    /// `AddrInUse` when another process listens there; what the system says otherwise. All name the path.
    pub fn start(config: ServerConfig, executor: Arc<dyn Executor>) -> io::Result<Server> {
        let (listener, file) = listen(&config.path, SocketType::STREAM, &config.access).map_err(|error| {
            io::Error::new(error.kind(), format!("CLI socket {}: {error}", config.path.display()))
        })?;
        let listener = UnixListener::from(listener);
        let (wake, woken) = UnixStream::pair()?;
        let shared = Arc::new(Shared { config, executor, connected: Mutex::default() });
        let accepting = thread::Builder::new().name("cli-accept".into()).spawn({
            let shared = shared.clone();
            move || accept_clients(&shared, &listener, &woken)
        })?;
        Ok(Server { shared, wake: Some(wake), accepting: Some(accepting), file: Some(file) })
    }

    /// The socket file.
    pub fn path(&self) -> &Path {
        &self.shared.config.path
    }

    /// How many clients are connected.
    pub fn clients(&self) -> usize {
        self.shared.lock().streams.len()
    }

    /// Removes the socket file, disconnects all clients and waits for their threads: a command that runs is
    /// waited for.
    pub fn stop(self) {}
}

impl Drop for Server {
    fn drop(&mut self) {
        self.file = None;
        self.wake = None;
        {
            let mut clients = self.shared.lock();
            clients.stopping = true;
            for (_, stream) in &clients.streams {
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
    fn lock(&self) -> std::sync::MutexGuard<'_, Connected> {
        self.connected.lock().unwrap_or_else(PoisonError::into_inner)
    }
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
    let (place, rights) = match admit(&shared.config, &stream) {
        Ok(admitted) => admitted,
        Err(why) => {
            refuse(shared, &stream, &why);
            return None;
        }
    };
    let stream = Arc::new(stream);
    let id = {
        let mut clients = shared.lock();
        if clients.stopping {
            return None;
        }
        clients.next += 1;
        let id = clients.next;
        clients.streams.push((id, stream.clone()));
        id
    };
    let listed = Listed { shared: shared.clone(), id };
    let refused = stream.clone();
    let spawned = thread::Builder::new().name(format!("cli-{id}")).spawn(move || {
        if let Err(error) = serve(&stream, &*listed.shared.executor, &listed.shared.config, (&place, rights))
        {
            tracing::debug!("CLI client {}: {error}", listed.id);
        }
    });
    match spawned {
        Ok(thread) => Some(thread),
        Err(error) => {
            refuse(shared, &refused, &format!("no thread for another CLI session: {error}"));
            None
        }
    }
}

/// What who has connected may do, and its place among the clients. The error is for who has connected.
fn admit(config: &ServerConfig, stream: &UnixStream) -> Result<(Place, Rights), String> {
    let peer = Peer::of(stream.as_fd()).map_err(|error| format!("not permitted: {error}"))?;
    let rights = config.access.rights(&peer).ok_or_else(|| format!("not permitted: {peer}"))?;
    let (most, operator) = (config.access.limits.cli_clients, config.access.is_operator(&peer));
    let record = ClientRecord { peer, rights, ..ClientRecord::default() };
    let place = config.clients.enter(record, most, operator);
    Ok((place.ok_or_else(|| format!("too many CLI sessions: at most {most}"))?, rights))
}

/// Says why without waiting: the socket's buffer takes a line.
fn refuse(shared: &Shared, mut stream: &UnixStream, why: &str) {
    match shared.lock().refusals.tell(Instant::now()) {
        Some(0) => tracing::warn!("CLI client refused: {why}"),
        Some(more) => tracing::warn!("CLI client refused: {why} ({more} more were)"),
        None => {}
    }
    let _ = stream.set_nonblocking(true);
    let _ = stream.write_all(format!("{why}\n").as_bytes());
    // What is unread when the socket closes would take the reason away from the client.
    let _ = stream.shutdown(std::net::Shutdown::Both);
    let _ = io::copy(&mut stream.take(MAX_REQUEST as u64), &mut io::sink());
}

/// A client's stream in the list, taken out also when its thread panics.
struct Listed {
    shared: Arc<Shared>,
    id: u64,
}

impl Drop for Listed {
    fn drop(&mut self) {
        let mut clients = self.shared.lock();
        if let Some(at) = clients.streams.iter().position(|(id, _)| *id == self.id) {
            let (_, stream) = clients.streams.swap_remove(at);
            let _ = stream.shutdown(std::net::Shutdown::Both);
        }
    }
}

#[cfg(test)]
#[path = "server_tests.rs"]
mod tests;
