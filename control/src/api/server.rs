//! The socket of the binary API, served by the main loop.

use super::connection::{Connection, Turn};
use super::registry::{Client, Registry};
use super::{events, modules};
use crate::access::{
    Access, ClientRecord, Clients, Peer, Place, Quiet, Rights, SocketFile, TokenBucket, listen,
};
use crate::cli::Executor;
use crate::dataplane::{Dataplane, OpError};
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::net::SocketType;
use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use wharf_engine::wake::Waker;

/// Connections taken in one go.
const ACCEPTS: usize = 64;
/// What clients may take of the main loop's time in one go, shared by those that have something to do.
const SLICE: Duration = Duration::from_millis(2);
/// Without descriptors, taking connections pauses for so long.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
const LISTENER: u64 = 0;
const WAKER: u64 = 1;
const JOURNAL: u64 = 2;

/// Where the API is served.
#[derive(Clone, Debug)]
pub struct ApiConfig {
    /// The socket. A file left behind by a daemon that is gone is replaced.
    pub path: PathBuf,
    /// Who may use it.
    pub access: Access,
    /// Where those who are connected are listed.
    pub clients: Clients,
}

/// What connections share.
pub(super) struct Shared {
    pub(super) executor: Arc<dyn Executor>,
    pub(super) waker: Waker,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

struct Slot {
    connection: Connection,
    interest: (bool, bool),
    again: bool,
}

/// The server. Its owner polls [`ApiServer::poll_fd`] and calls [`ApiServer::process`].
pub struct ApiServer {
    listener: UnixListener,
    file: SocketFile,
    access: Access,
    listed: Clients,
    refusals: Quiet,
    epoll: OwnedFd,
    registry: Registry,
    shared: Shared,
    /// Woken when changes have been recorded.
    recorded: Waker,
    clients: BTreeMap<u64, Slot>,
    next: u64,
    seen: events::Seen,
    accept_after: Option<Instant>,
    next_check: Instant,
}

impl std::fmt::Debug for ApiServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ApiServer").field("path", &self.file.path()).finish_non_exhaustive()
    }
}

impl ApiServer {
    /// Listens. `executor` runs the commands of `cli_inband`.
    pub fn start(config: &ApiConfig, executor: Arc<dyn Executor>) -> Result<ApiServer, OpError> {
        let failed = |error: std::io::Error| {
            OpError::System(format!("cannot serve the API on {}", config.path.display()), error)
        };
        let (listener, file) = listen(&config.path, SocketType::STREAM, &config.access).map_err(failed)?;
        let listener = UnixListener::from(listener);
        let waker = Waker::new().map_err(failed)?;
        let recorded = Waker::new().map_err(failed)?;
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(|e| failed(e.into()))?;
        for (number, fd) in
            [(LISTENER, listener.as_fd()), (WAKER, waker.as_fd()), (JOURNAL, recorded.as_fd())]
        {
            epoll::add(&epoll, fd, EventData::new_u64(number), EventFlags::IN)
                .map_err(|e| failed(e.into()))?;
        }
        Ok(ApiServer {
            listener,
            file,
            access: config.access.clone(),
            listed: config.clients.clone(),
            refusals: Quiet::default(),
            epoll,
            registry: Registry::new(&modules()),
            shared: Shared { executor, waker },
            recorded,
            clients: BTreeMap::new(),
            next: 3,
            seen: events::Seen::default(),
            accept_after: None,
            next_check: Instant::now(),
        })
    }

    /// Readable when there is something to do.
    pub fn poll_fd(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }

    /// The messages.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Serves whoever has something to say, for a bounded time. Returns when to call again at the latest.
    pub fn process(&mut self, dp: &mut Dataplane, now: Instant) -> Instant {
        let mut buffer = Vec::with_capacity(128);
        let none = rustix::time::Timespec { tv_sec: 0, tv_nsec: 0 };
        if epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut buffer), Some(&none)).is_err() {
            buffer.clear();
        }
        for event in buffer {
            match event.data.u64() {
                LISTENER => self.accept(now),
                WAKER => {
                    self.shared.waker.clear();
                    self.clients.values_mut().for_each(|slot| slot.again = true);
                }
                JOURNAL => self.recorded.clear(),
                number => {
                    if let Some(slot) = self.clients.get_mut(&number) {
                        let flags = event.flags;
                        slot.again = true;
                        slot.connection.hung_up |= flags.intersects(EventFlags::HUP | EventFlags::ERR);
                    }
                }
            }
        }
        if let Some(journal) = &dp.journal {
            journal.tell(&self.recorded);
        }
        let mut due = Vec::new();
        for (number, slot) in &mut self.clients {
            slot.again |= slot.connection.is_recorded();
            if slot.connection.paused.is_some_and(|until| now >= until) {
                slot.connection.paused = None;
                slot.again = true;
            }
            if slot.again {
                due.push(*number);
            }
        }
        let share = SLICE / due.len().max(1) as u32;
        due.into_iter().for_each(|number| self.turn(number, dp, share));
        self.tell(dp);
        if now >= self.next_check {
            self.next_check = now + Duration::from_secs(1);
            let stuck = self.clients.iter().filter(|(_, slot)| slot.connection.is_stuck(now));
            let stuck: Vec<u64> = stuck.map(|(number, _)| *number).collect();
            stuck.into_iter().for_each(|number| self.close(number, "does not read its answers"));
        }
        if self.accept_after.is_some_and(|at| now >= at) {
            self.accept_after = None;
            let flags = EventFlags::IN;
            let _ = epoll::modify(&self.epoll, &self.listener, EventData::new_u64(LISTENER), flags);
        }
        if self.clients.values().any(|slot| slot.again) {
            return now;
        }
        let paused = self.clients.values().filter_map(|slot| slot.connection.paused);
        paused.chain(self.accept_after).fold(now + Duration::from_secs(1), Instant::min)
    }

    /// Gives clients that waited for the journal their answers, and does nothing more for anybody.
    pub fn finish(&mut self) {
        self.clients.values_mut().for_each(|slot| slot.connection.finish());
    }

    fn turn(&mut self, number: u64, dp: &mut Dataplane, share: Duration) {
        let Some(slot) = self.clients.get_mut(&number) else { return };
        let until = Instant::now() + share;
        match slot.connection.turn(dp, &self.registry, &mut self.shared, until) {
            Turn::Close => return self.close(number, "has left"),
            turn => slot.again = turn == Turn::Again,
        }
        self.watch(number);
    }

    /// Waits for what the connection now needs.
    fn watch(&mut self, number: u64) {
        let Some(slot) = self.clients.get_mut(&number) else { return };
        let interest = slot.connection.interest();
        if interest == slot.interest {
            return;
        }
        slot.interest = interest;
        let mut flags = EventFlags::empty();
        flags.set(EventFlags::IN, interest.0);
        flags.set(EventFlags::OUT, interest.1);
        // That it hangs up is told even then, without end.
        flags.set(EventFlags::ONESHOT, interest == (false, false));
        if epoll::modify(&self.epoll, &slot.connection.stream, EventData::new_u64(number), flags).is_err() {
            self.close(number, "can't be waited for");
        }
    }

    fn close(&mut self, number: u64, why: &str) {
        if let Some(slot) = self.clients.remove(&number) {
            let client = &slot.connection.client;
            tracing::debug!("API client {} `{}' {why}", client.index, client.name);
        }
    }

    fn accept(&mut self, now: Instant) {
        for _ in 0..ACCEPTS {
            let stream = match self.listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => {
                    tracing::warn!("API client not accepted: {error}");
                    self.accept_after = Some(now + ACCEPT_PAUSE);
                    let flags = EventFlags::empty();
                    let _ = epoll::modify(&self.epoll, &self.listener, EventData::new_u64(LISTENER), flags);
                    return;
                }
            };
            let (place, rights) = match self.admit(&stream) {
                Ok(admitted) => admitted,
                Err(why) => {
                    if let Some(more) = self.refusals.tell(now) {
                        tracing::warn!("API client refused: {why} ({more} more were)");
                    }
                    continue;
                }
            };
            let number = self.next;
            let added = stream.set_nonblocking(true).and_then(|()| {
                epoll::add(&self.epoll, &stream, EventData::new_u64(number), EventFlags::IN)
                    .map_err(Into::into)
            });
            if let Err(error) = added {
                tracing::warn!("API client not served: {error}");
                continue;
            }
            self.next += 1;
            let index = (number & 0x7fff_ffff) as u32;
            let client = Client { index, rights, ..Client::default() };
            let bucket = TokenBucket::new(self.access.limits.api_rate, now);
            let connection = Connection::new(stream, client, place, bucket, self.access.limits.api_request);
            self.clients.insert(number, Slot { connection, interest: (true, false), again: false });
        }
    }

    /// What who has connected may do, and its place among the clients. The error is for the log.
    fn admit(&self, stream: &UnixStream) -> Result<(Place, Rights), String> {
        let peer = Peer::of(stream.as_fd()).map_err(|error| error.to_string())?;
        let rights = self.access.rights(&peer).ok_or_else(|| format!("{peer} is not permitted"))?;
        let (most, operator) = (self.access.limits.api_clients, self.access.is_operator(&peer));
        let record = ClientRecord { peer, rights, ..ClientRecord::default() };
        let place = self.listed.enter(record, most, operator);
        Ok((place.ok_or_else(|| format!("there are {most} already"))?, rights))
    }

    /// Sends events to those who want them.
    fn tell(&mut self, dp: &Dataplane) {
        if self.clients.values().all(|slot| slot.connection.client.interface_events.is_none()) {
            self.seen.forget();
            return;
        }
        let news = self.seen.news(dp);
        if news.is_empty() {
            return;
        }
        let mut failed = Vec::new();
        for (number, slot) in &mut self.clients {
            let Some(pid) = slot.connection.client.interface_events else { continue };
            let index = slot.connection.client.index;
            for event in &news {
                events::push(&self.registry, &mut slot.connection.output, event, index, pid);
            }
            if slot.connection.write().is_err() {
                failed.push(*number);
            }
        }
        failed.into_iter().for_each(|number| self.close(number, "takes no events"));
        let all: Vec<u64> = self.clients.keys().copied().collect();
        all.into_iter().for_each(|number| self.watch(number));
    }
}
