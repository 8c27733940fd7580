//! One interface that keeps itself connected, for an application with a loop of its own.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, epoll};
use rustix::io::Errno;

use crate::client::{Backoff, Client};
use crate::config::{ClientConfig, InterfaceConfig, ListenerConfig};
use crate::connection::{CloseReason, Connection, ConnectionInfo};
use crate::error::{Error, SocketError};
use crate::rx::RxQueue;
use crate::server::{Listener, ServerEvent};
use crate::tx::TxQueue;

/// What happened to a [`Port`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PortEvent {
    /// The peer is there: [`Port::link`] has the queues.
    Up,
    /// The peer is gone. The port goes on trying.
    Down(CloseReason),
    /// An attempt to connect failed, or a client was refused, for the reason given. The port goes on trying.
    Failed(String),
}

/// The queues of a [`Port`] that is up.
#[derive(Debug)]
pub struct Link<'a> {
    /// To receive from.
    pub rx: &'a mut [RxQueue],
    /// To transmit to.
    pub tx: &'a mut [TxQueue],
    /// What both peers agreed on.
    pub info: &'a ConnectionInfo,
}

#[derive(Debug)]
enum Endpoint {
    Server(Box<Listener>),
    Client { config: Box<ClientConfig>, backoff: Backoff, attempt: Option<Box<Client>>, next: Instant },
}

/// One interface in either role: connects, connects again when the peer has gone, and wakes its owner for packets and
/// for all else by one descriptor.
///
/// With a loop of one's own: poll [`Port::fd`] for input until [`Port::deadline`], between [`Port::arm`] and
/// [`Port::disarm`], then call [`Port::process`]. [`Port::wait`] is that loop's body. An application with threads per
/// queue uses [`Client`] and [`Listener`] directly.
#[derive(Debug)]
pub struct Port {
    endpoint: Endpoint,
    /// Holds whatever can become readable.
    epoll: OwnedFd,
    link: Option<Connection>,
    events: VecDeque<PortEvent>,
}

impl Port {
    /// A client; its first attempt is made by [`Port::process`] or [`Port::wait`].
    pub fn client(config: ClientConfig) -> Result<Self, Error> {
        config.check()?;
        let (backoff, next) = (Backoff::new(), Instant::now());
        Self::new(Endpoint::Client { config: Box::new(config), backoff, attempt: None, next })
    }

    /// A server with one interface; it listens at once.
    pub fn server(listener: ListenerConfig, interface: InterfaceConfig) -> Result<Self, Error> {
        let mut listener = Listener::bind(listener, Instant::now())?;
        listener.add(interface)?;
        Self::new(Endpoint::Server(Box::new(listener)))
    }

    fn new(endpoint: Endpoint) -> Result<Self, Error> {
        let epoll =
            epoll::create(epoll::CreateFlags::CLOEXEC).map_err(|e| SocketError::io("epoll_create1", e))?;
        if let Endpoint::Server(listener) = &endpoint {
            watch(&epoll, listener.fd()).map_err(|e| SocketError::io("epoll_ctl", e))?;
        }
        Ok(Self { endpoint, epoll, link: None, events: VecDeque::new() })
    }

    /// The descriptor to poll for input (an epoll instance).
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }

    /// When to call [`Port::process`] at the latest, even if nothing is readable.
    pub fn deadline(&self) -> Option<Instant> {
        match &self.endpoint {
            Endpoint::Server(listener) => listener.next_deadline(),
            Endpoint::Client { .. } if self.link.is_some() => None,
            Endpoint::Client { attempt: Some(client), .. } => Some(client.deadline()),
            Endpoint::Client { next, .. } => Some(*next),
        }
    }

    /// The queues, while there is a peer.
    pub fn link(&mut self) -> Option<Link<'_>> {
        self.link.as_mut().map(|link| Link { rx: &mut link.rx, tx: &mut link.tx, info: &link.info })
    }

    /// Goes on with whatever is ready, and returns the next thing that happened: call it until it returns `None`. Never
    /// blocks.
    pub fn process(&mut self, now: Instant) -> Option<PortEvent> {
        if let Some(link) = &mut self.link
            && let Some(reason) = link.control.process().cloned()
        {
            self.down(now);
            self.events.push_back(PortEvent::Down(reason));
        }
        match &mut self.endpoint {
            Endpoint::Server(listener) => {
                for event in listener.process(now) {
                    match event {
                        ServerEvent::Connected(connection) => self.link = self.up(*connection),
                        ServerEvent::Failed { error, .. } => self.fail(error.to_string()),
                        ServerEvent::AcceptFailed(error) => self.fail(error.to_string()),
                    }
                }
            }
            Endpoint::Client { .. } if self.link.is_none() => self.attempt(now),
            Endpoint::Client { .. } => {}
        }
        self.events.pop_front()
    }

    fn attempt(&mut self, now: Instant) {
        let Endpoint::Client { config, backoff, attempt, next } = &mut self.endpoint else { return };
        if attempt.is_none() && now >= *next {
            let started = Client::connect(ClientConfig::clone(config), now).and_then(|client| {
                if let Some(fd) = client.fd() {
                    watch(&self.epoll, fd).map_err(|e| SocketError::io("epoll_ctl", e))?;
                }
                Ok(client)
            });
            match started {
                Ok(client) => *attempt = Some(Box::new(client)),
                Err(error) => {
                    *next = backoff.next_attempt(now);
                    return self.fail(error.to_string());
                }
            }
        }
        let Some(client) = attempt else { return };
        match client.process(now) {
            Ok(None) => {}
            Ok(Some(connection)) => {
                backoff.reset();
                *attempt = None;
                self.link = self.up(connection);
            }
            Err(error) => {
                *attempt = None;
                *next = backoff.next_attempt(now);
                self.fail(error.to_string());
            }
        }
    }

    /// An event that says the same as the last is no news.
    fn fail(&mut self, reason: String) {
        let event = PortEvent::Failed(reason);
        if self.events.back() != Some(&event) {
            self.events.push_back(event);
        }
    }

    fn up(&mut self, connection: Connection) -> Option<Connection> {
        let fds = connection.rx.iter().map(RxQueue::fd).chain([connection.control.fd()]);
        for fd in fds {
            match watch(&self.epoll, fd) {
                // A client's socket is there since the handshake.
                Ok(()) | Err(Errno::EXIST) => {}
                Err(error) => {
                    self.fail(format!("epoll_ctl: {error}"));
                    return None;
                }
            }
        }
        self.events.push_back(PortEvent::Up);
        Some(connection)
    }

    fn down(&mut self, now: Instant) {
        if let Some(link) = self.link.take() {
            // The peer holds the eventfds too, so that closing ours does not take them out of the epoll set.
            for fd in link.rx.iter().map(RxQueue::fd).chain([link.control.fd()]) {
                let _ = epoll::delete(&self.epoll, fd);
            }
        }
        if let Endpoint::Client { backoff, next, .. } = &mut self.endpoint {
            *next = backoff.next_attempt(now);
        }
    }

    /// Asks the peer to interrupt when it sends. False if there is something to do already: then don't sleep.
    pub fn arm(&mut self) -> bool {
        let Some(link) = &mut self.link else { return self.events.is_empty() };
        link.rx.iter_mut().for_each(|rx| rx.set_interrupt_mode(true));
        self.events.is_empty()
            && link.control.violation().is_none()
            && !link.rx.iter_mut().any(|rx| rx.has_work())
    }

    /// Takes interrupts and wants no more: the queues are polled.
    pub fn disarm(&mut self) {
        for rx in self.link.iter_mut().flat_map(|link| &mut link.rx) {
            rx.drain_fd();
            rx.set_interrupt_mode(false);
        }
    }

    /// Sleeps until there are packets, something else has happened, or `timeout` has passed (`None`: for ever), and
    /// returns what happened, if not packets. Also returns when a signal comes.
    pub fn wait(&mut self, timeout: Option<Duration>) -> io::Result<Option<PortEvent>> {
        if self.arm() {
            let until_deadline = self.deadline().map(|at| {
                // Rounded up, so as not to wake just before it.
                at.saturating_duration_since(Instant::now()) + Duration::from_micros(100)
            });
            let time = [timeout, until_deadline].into_iter().flatten().min();
            let time =
                time.map(|t| Timespec { tv_sec: t.as_secs() as i64, tv_nsec: t.subsec_nanos().into() });
            let mut fds = [PollFd::new(&self.epoll, PollFlags::IN)];
            match rustix::event::poll(&mut fds, time.as_ref()) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => {
                    self.disarm();
                    return Err(error.into());
                }
            }
        }
        self.disarm();
        Ok(self.process(Instant::now()))
    }

    /// Ends the connection, if there is one, and tells the peer why. A client then connects again.
    pub fn disconnect(&mut self, reason: &str) {
        if let Some(link) = &mut self.link {
            link.control.disconnect(reason);
        }
    }
}

fn watch(epoll: &OwnedFd, fd: BorrowedFd<'_>) -> Result<(), Errno> {
    epoll::add(epoll, fd, epoll::EventData::new_u64(0), epoll::EventFlags::IN)
}
