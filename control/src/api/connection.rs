//! One client: frames in, frames out, in order.

use super::Malformed;
use super::registry::{After, Client, Cx, FRAME_HEADER, Left, Registry, Rest};
use super::server::Shared;
use crate::access::{Place, TokenBucket};
use crate::config::journal::Ticket;
use crate::dataplane::Dataplane;
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, TryRecvError, sync_channel};
use std::time::{Duration, Instant};

/// The longest message that is taken unless the operator says otherwise, in bytes.
pub const MAX_MESSAGE: usize = 1 << 20;
/// A client with so many bytes to read is asked nothing more before it has read some.
const FULL: usize = 256 << 10;
/// A client that takes nothing for so long is dropped.
const UNREAD_FOR: Duration = Duration::from_secs(30);
/// Bytes read at once.
const CHUNK: usize = 64 << 10;
/// More than that and events besides, and the client is dropped.
const TOO_FULL: usize = 4 << 20;
/// Messages answered before the clock is looked at.
const BATCH: usize = 16;

/// The first frame in `bytes`, without its header, and the bytes it takes; `None` when it is not whole yet.
///
/// Errors: it says that it is too short for a message, or longer than [`MAX_MESSAGE`].
pub fn next_frame(bytes: &[u8]) -> Result<Option<(&[u8], usize)>, Malformed> {
    frame_within(bytes, MAX_MESSAGE)
}

/// As [`next_frame`], with a limit of one's own.
fn frame_within(bytes: &[u8], max: usize) -> Result<Option<(&[u8], usize)>, Malformed> {
    let Some(header) = bytes.first_chunk::<FRAME_HEADER>() else { return Ok(None) };
    let [_, _, _, _, _, _, _, _, a, b, c, d, ..] = *header;
    let len = u32::from_be_bytes([a, b, c, d]) as usize;
    if !(2..=max).contains(&len) {
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
    /// The rest of a request goes on when the waker is woken.
    later: bool,
    /// What it has changed is being recorded: until that is done, it hears nothing, and nothing more is done for it.
    unrecorded: Option<Ticket>,
    place: Place,
    bucket: TokenBucket,
    /// The longest message that is taken, in bytes.
    max: usize,
    /// It has sent too much: nothing is read from it before then.
    pub(super) paused: Option<Instant>,
    /// Messages since its record was brought up to date.
    counted: u64,
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
    pub(super) fn new(
        stream: UnixStream,
        client: Client,
        place: Place,
        bucket: TokenBucket,
        max: usize,
    ) -> Connection {
        Connection {
            stream,
            client,
            input: Vec::new(),
            taken: 0,
            output: Vec::new(),
            sent: 0,
            moved: Instant::now(),
            pending: Pending::Nothing,
            later: false,
            unrecorded: None,
            place,
            bucket,
            max,
            paused: None,
            counted: 0,
            ended: false,
            hung_up: false,
        }
    }

    fn unread(&self) -> usize {
        self.output.len() - self.sent
    }

    /// Whether to wait until it sends, and until it can take.
    pub(super) fn interest(&self) -> (bool, bool) {
        if self.unrecorded.is_some() {
            return (false, false);
        }
        let whole = matches!(frame_within(&self.input[self.taken..], self.max), Ok(Some(_)));
        let wanted = !self.ended && !whole && self.paused.is_none() && self.unread() < FULL;
        (wanted, self.unread() > 0)
    }

    /// Whether it waited for a record that is written now.
    pub(super) fn is_recorded(&self) -> bool {
        self.unrecorded.as_ref().is_some_and(Ticket::is_done)
    }

    /// Whether it has left its answers unread for too long, or does not read the events that it asked for.
    pub(super) fn is_stuck(&self, now: Instant) -> bool {
        let unread = self.unread();
        unread > TOO_FULL && self.client.interface_events.is_some()
            || unread > 0
                && self.unrecorded.is_none()
                && now.saturating_duration_since(self.moved) > UNREAD_FOR
    }

    /// Writes what was held back until it was recorded.
    pub(super) fn finish(&mut self) {
        if self.is_recorded() {
            self.unrecorded = None;
            // Who is gone hears nothing.
            let _ = self.write();
        }
    }

    /// Reads, answers, and writes, some of each, until about a time.
    pub(super) fn turn(
        &mut self,
        dp: &mut Dataplane,
        registry: &Registry,
        shared: &mut Shared,
        until: Instant,
    ) -> Turn {
        let turn = self.try_turn(dp, registry, shared, until);
        if self.counted > 0 {
            let counted = std::mem::take(&mut self.counted);
            self.place.update(|record| {
                record.requests += counted;
                if record.name != self.client.name {
                    record.name.clone_from(&self.client.name);
                }
            });
        }
        match turn {
            Ok(turn) => turn,
            Err(error) => {
                tracing::info!("API client {} `{}': {error}", self.client.index, self.client.name);
                Turn::Close
            }
        }
    }

    fn try_turn(
        &mut self,
        dp: &mut Dataplane,
        registry: &Registry,
        shared: &mut Shared,
        until: Instant,
    ) -> io::Result<Turn> {
        if self.unrecorded.as_ref().is_some_and(|ticket| !ticket.is_done()) {
            return Ok(Turn::Wait);
        }
        if self.unrecorded.take().is_some() {
            // It could take nothing before.
            self.moved = Instant::now();
        }
        let before = dp.recorded();
        self.paused = self.paused.filter(|_| !self.hung_up);
        if self.paused.is_none() {
            self.read()?;
        }
        let mut again = false;
        for turn in 0.. {
            if self.unread() >= FULL || self.client.leaving {
                break;
            }
            let large = matches!(self.pending, Pending::Rest(_));
            if (turn % BATCH == BATCH - 1 || large) && Instant::now() + dp.changes.debt() >= until {
                again = true;
                break;
            }
            if !self.step(dp, registry, shared)? {
                break;
            }
        }
        dp.record_changes();
        self.unrecorded = dp.unrecorded(before);
        if self.unrecorded.is_some() {
            return Ok(Turn::Wait);
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
                Pending::Nothing if self.paused.is_some() => false,
                Pending::Nothing => matches!(frame_within(&self.input[self.taken..], self.max), Ok(Some(_))),
                Pending::Rest(_) => !self.later,
                Pending::Job(_) => false,
            };
        Ok(if again || ready { Turn::Again } else { Turn::Wait })
    }

    /// Answers one message, or goes on with one. Whether there may be more to do.
    fn step(&mut self, dp: &mut Dataplane, registry: &Registry, shared: &mut Shared) -> io::Result<bool> {
        let mut cx = Cx { dp, client: &mut self.client, registry, shared, out: &mut self.output };
        match &mut self.pending {
            Pending::Rest(rest) => {
                let left = rest(&mut cx);
                self.later = left == Left::Later;
                if left == Left::Nothing {
                    self.pending = Pending::Nothing;
                }
                return Ok(!self.later);
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
        let frame = frame_within(&self.input[self.taken..], self.max).map_err(invalid)?;
        let Some((message, len)) = frame else { return Ok(false) };
        // What one that is gone has left is bounded, and must not keep its place.
        self.paused = self.bucket.take(Instant::now()).err().filter(|_| !self.hung_up);
        if self.paused.is_some() {
            return Ok(false);
        }
        self.counted += 1;
        cx.dp.api_trace.record(registry, message);
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
            self.input.shrink_to(2 * CHUNK);
            self.taken = 0;
        }
        // Never more than a message and a chunk.
        while !self.ended && self.unread() < FULL && self.input.len() < CHUNK + wanted(&self.input, self.max)
        {
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
            if matches!(frame_within(&self.input, self.max), Ok(Some(_)) | Err(_)) {
                break;
            }
        }
        Ok(())
    }

    /// Writes what the socket takes, and the client may hear.
    pub(super) fn write(&mut self) -> io::Result<()> {
        if self.unrecorded.is_some() {
            return Ok(());
        }
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
fn wanted(input: &[u8], max: usize) -> usize {
    input.get(8..12).map_or(0, |len| match *len {
        [a, b, c, d] => (u32::from_be_bytes([a, b, c, d]) as usize).min(max),
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
