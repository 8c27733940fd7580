//! A client's attempt to connect, and the pace of further ones.

use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use crate::config::ClientConfig;
use crate::connection::Connection;
use crate::error::{Error, HandshakeError};
use crate::handshake::ClientHandshake;
use crate::socket::Channel;
use crate::wire::{Hello, MessageType};

/// One attempt to connect. It ends with a [`Connection`] or an error; for the next attempt make another
/// `Client`, at the time that a [`Backoff`] gives.
#[derive(Debug)]
pub struct Client {
    handshake: ClientHandshake,
    deadline: Instant,
}

impl Client {
    /// Connects to the server's socket and starts the handshake. Never blocks.
    ///
    /// Fails if the configuration can't work, or nobody listens.
    pub fn connect(config: ClientConfig, now: Instant) -> Result<Self, Error> {
        Self::connect_at(config, now, 0)
    }

    pub(crate) fn connect_at(config: ClientConfig, now: Instant, start: u16) -> Result<Self, Error> {
        config.check()?;
        let channel = Channel::connect(&config.address)?;
        let deadline = now + config.handshake;
        Ok(Self { handshake: ClientHandshake::start(channel, config, start), deadline })
    }

    /// The socket to poll for input; `None` once the attempt has ended.
    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.handshake.channel().map(Channel::as_fd)
    }

    /// What the server said of itself, once it has.
    pub fn server(&self) -> Option<&Hello> {
        self.handshake.hello()
    }

    /// The message that was sent last: after an error, what the server did not take.
    pub fn last_sent(&self) -> Option<MessageType> {
        self.handshake.last_sent()
    }

    /// When the attempt is given up: call [`Client::process`] then at the latest.
    pub fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Goes on with the handshake as far as possible. `None` means: not yet. An error ends the attempt. Never
    /// blocks.
    pub fn process(&mut self, now: Instant) -> Result<Option<Connection>, Error> {
        match self.handshake.process()? {
            None if now >= self.deadline => Err(HandshakeError::Timeout.into()),
            progress => Ok(progress),
        }
    }
}

/// When to try again: first soon, then every two seconds.
#[derive(Debug, Clone)]
pub struct Backoff {
    delay: Duration,
}

impl Backoff {
    const FIRST: Duration = Duration::from_millis(100);
    const LAST: Duration = Duration::from_secs(2);

    /// The next failure is the first.
    pub const fn new() -> Self {
        Self { delay: Self::FIRST }
    }

    /// An attempt failed at `now`: when to make the next.
    pub fn next_attempt(&mut self, now: Instant) -> Instant {
        let next = now + self.delay;
        self.delay = (self.delay * 2).min(Self::LAST);
        next
    }

    /// A connection came up: the next failure is the first again.
    pub fn reset(&mut self) {
        *self = Self::new();
    }
}

impl Default for Backoff {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retries_slow_down() {
        let now = Instant::now();
        let mut backoff = Backoff::new();
        let delays: Vec<_> = (0..7).map(|_| (backoff.next_attempt(now) - now).as_millis()).collect();
        assert_eq!(delays, [100, 200, 400, 800, 1600, 2000, 2000]);
        backoff.reset();
        assert_eq!((backoff.next_attempt(now) - now).as_millis(), 100);
    }
}
