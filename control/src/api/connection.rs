//! One client: frames in, frames out, in order.

use super::Malformed;
use super::registry::{After, Client, Cx, FRAME_HEADER, Registry, Rest};
use super::server::Shared;
use crate::dataplane::Dataplane;
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, TryRecvError, sync_channel};
use std::time::{Duration, Instant};

/// The longest message that is taken, in bytes.
pub const MAX_MESSAGE: usize = 1 << 20;
/// A client with so many bytes to read is asked nothing more before it has read some.
const FULL: usize = 256 << 10;
/// A client that takes nothing for so long is dropped.
const UNREAD_FOR: Duration = Duration::from_secs(30);
/// Bytes read at once.
const CHUNK: usize = 64 << 10;
/// Messages answered before others have a turn.
const BATCH: usize = 64;

/// The first frame in `bytes`, without its header, and the bytes it takes; `None` when it is not whole yet.
///
/// Errors: it says that it is too short for a message, or longer than [`MAX_MESSAGE`].
pub fn next_frame(bytes: &[u8]) -> Result<Option<(&[u8], usize)>, Malformed> {
    let Some(header) = bytes.first_chunk::<FRAME_HEADER>() else { return Ok(None) };
    let [_, _, _, _, _, _, _, _, a, b, c, d, ..] = *header;
    let len = u32::from_be_bytes([a, b, c, d]) as usize;
    if !(2..=MAX_MESSAGE).contains(&len) {
        return Err(Malformed);
    }
    Ok(bytes.get(FRAME_HEADER..FRAME_HEADER + len).map(|message| (message, FRAME_HEADER + len)))
}

/// What a request still waits for.
enum Pending {
    Nothing,
    Rest(Rest),
    Job(Receiver<Vec<u8>>),
}

/// A connected client.
pub(super) struct Connection {
    pub(super) stream: UnixStream,
    pub(super) client: Client,
    input: Vec<u8>,
    /// Bytes at the start of `input` that are done with.
    taken: usize,
    pub(super) output: Vec<u8>,
    /// Bytes at the start of `output` that are sent.
    sent: usize,
    /// When it last took something.
    moved: Instant,
    pending: Pending,
    /// The client sends no more.
    ended: bool,
    /// Nobody is left at the other end.
    pub(super) hung_up: bool,
}

/// What there is to do for a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// Nothing before the socket or a job has news.
    Wait,
    /// More that could be done at once.
    Again,
    /// Drop it.
    Close,
}

impl Connection {
    pub(super) fn new(stream: UnixStream, client: Client) -> Connection {
        Connection {
            stream,
            client,
            input: Vec::new(),
            taken: 0,
            output: Vec::new(),
            sent: 0,
            moved: Instant::now(),
            pending: Pending::Nothing,
            ended: false,
            hung_up: false,
        }
    }

    fn unread(&self) -> usize {
        self.output.len() - self.sent
    }

    /// Whether to wait until it sends, and until it can take.
    pub(super) fn interest(&self) -> (bool, bool) {
        let whole = matches!(next_frame(&self.input[self.taken..]), Ok(Some(_)));
        (!self.ended && !whole && self.unread() < FULL, self.unread() > 0)
    }

    /// Whether it has left its answers unread for too long.
    pub(super) fn is_stuck(&self, now: Instant) -> bool {
        self.unread() > 0 && now.saturating_duration_since(self.moved) > UNREAD_FOR
    }

    /// Reads, answers, and writes, some of each.
    pub(super) fn turn(&mut self, dp: &mut Dataplane, registry: &Registry, shared: &mut Shared) -> Turn {
        match self.try_turn(dp, registry, shared) {
            Ok(turn) => turn,
            Err(error) => {
                tracing::info!("API client {} `{}': {error}", self.client.index, self.client.name);
                Turn::Close
            }
        }
    }

    fn try_turn(&mut self, dp: &mut Dataplane, registry: &Registry, shared: &mut Shared) -> io::Result<Turn> {
        self.read()?;
        let mut again = false;
        for turn in 0.. {
            if self.unread() >= FULL || self.client.leaving {
                break;
            }
            if turn == BATCH {
                again = true;
                break;
            }
            if !self.step(dp, registry, shared)? {
                break;
            }
        }
        self.write()?;
        if self.hung_up && !matches!(self.pending, Pending::Nothing) {
            return Ok(Turn::Close);
        }
        let gone = self.ended && matches!(self.pending, Pending::Nothing);
        if (gone || self.client.leaving) && (self.unread() == 0 || self.ended) && !again {
            return Ok(Turn::Close);
        }
        // What could not be answered for want of room can be now.
        let ready = self.unread() < FULL
            && match self.pending {
                Pending::Nothing => matches!(next_frame(&self.input[self.taken..]), Ok(Some(_))),
                Pending::Rest(_) => true,
                Pending::Job(_) => false,
            };
        Ok(if again || ready { Turn::Again } else { Turn::Wait })
    }

    /// Answers one message, or goes on with one. Whether there may be more to do.
    fn step(&mut self, dp: &mut Dataplane, registry: &Registry, shared: &mut Shared) -> io::Result<bool> {
        let mut cx = Cx { dp, client: &mut self.client, registry, shared, out: &mut self.output };
        match &mut self.pending {
            Pending::Rest(rest) => {
                if rest(&mut cx) {
                    self.pending = Pending::Nothing;
                }
                return Ok(true);
            }
            Pending::Job(answer) => {
                match answer.try_recv() {
                    Ok(frames) => self.output.extend_from_slice(&frames),
                    Err(TryRecvError::Empty) => return Ok(false),
                    Err(TryRecvError::Disconnected) => {
                        return Err(io::Error::other("its request could not be finished"));
                    }
                }
                self.pending = Pending::Nothing;
                return Ok(true);
            }
            Pending::Nothing => {}
        }
        let frame = next_frame(&self.input[self.taken..]).map_err(invalid)?;
        let Some((message, len)) = frame else { return Ok(false) };
        cx.dp.api_trace.record(message);
        self.pending = match registry.handle(&mut cx, message).map_err(invalid)? {
            After::Done => Pending::Nothing,
            After::Rest(rest) => Pending::Rest(rest),
            After::Job(job) => {
                let (send, answer) = sync_channel(1);
                let waker = cx.shared.waker.clone();
                std::thread::Builder::new().name("api-job".into()).spawn(move || {
                    let _ = send.send(job());
                    waker.wake();
                })?;
                Pending::Job(answer)
            }
        };
        self.taken += len;
        Ok(true)
    }

    fn read(&mut self) -> io::Result<()> {
        if self.taken > 0 {
            self.input.drain(..self.taken);
            self.taken = 0;
        }
        // Never more than a message and a chunk.
        while !self.ended && self.unread() < FULL && self.input.len() < CHUNK + wanted(&self.input) {
            let old = self.input.len();
            self.input.resize(old + CHUNK, 0);
            let read = self.stream.read(&mut self.input[old..]);
            self.input.truncate(old + read.as_ref().map_or(0, |len| *len));
            match read {
                Ok(0) => self.ended = true,
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
            if matches!(next_frame(&self.input), Ok(Some(_)) | Err(_)) {
                break;
            }
        }
        Ok(())
    }

    /// Writes what the socket takes.
    pub(super) fn write(&mut self) -> io::Result<()> {
        while self.unread() > 0 {
            match self.stream.write(&self.output[self.sent..]) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(len) => {
                    self.sent += len;
                    self.moved = Instant::now();
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        if self.unread() == 0 {
            self.output.clear();
            self.output.shrink_to(FULL);
            self.sent = 0;
            self.moved = Instant::now();
        } else if self.sent > FULL {
            self.output.drain(..self.sent);
            self.sent = 0;
        }
        Ok(())
    }
}

/// How long the message at the start says it is, as far as is known.
fn wanted(input: &[u8]) -> usize {
    input.get(8..12).map_or(0, |len| match *len {
        [a, b, c, d] => (u32::from_be_bytes([a, b, c, d]) as usize).min(MAX_MESSAGE),
        _ => 0,
    })
}

fn invalid(error: Malformed) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_whole_or_not_at_all() {
        let mut bytes = vec![0; 16];
        bytes[11] = 3;
        bytes.extend_from_slice(b"abcX");
        for len in 0..19 {
            assert_eq!(next_frame(&bytes[..len]), Ok(None), "{len}");
        }
        assert_eq!(next_frame(&bytes), Ok(Some((&b"abc"[..], 19))));
        for lie in [0u32, 1, MAX_MESSAGE as u32 + 1, u32::MAX] {
            bytes[8..12].copy_from_slice(&lie.to_be_bytes());
            assert_eq!(next_frame(&bytes), Err(Malformed), "{lie}");
        }
    }
}
