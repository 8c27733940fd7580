//! The control socket, by hand.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use memif::wire::{ADD_RING_FLAG_S2M, AddRing, Init, Message, VERSION};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use crate::Options;
use crate::memory::Memory;

/// A server answers at once; the machine may be busy.
pub(crate) const ANSWER: Duration = Duration::from_millis(500);
/// The rate of accepts is limited, so a connection may have to wait for its turn.
pub(crate) const TURN: Duration = Duration::from_secs(10);

/// What is refused is refused this soon, where the machine has time for it.
const PROMPT: Duration = Duration::from_millis(100);

/// Refusals that came later than [`PROMPT`].
static LATE: AtomicU64 = AtomicU64::new(0);

/// The end of a case with `count` refusals: an error if most of them were late.
pub(crate) fn refusals(count: u64) -> Result<String, String> {
    let late = LATE.swap(0, Ordering::Relaxed);
    if 2 * late > count {
        return Err(format!("{late} of {count} refusals took more than {PROMPT:?}"));
    }
    Ok(format!("{count} messages refused, {late} of them late"))
}

/// What was wrong at `start` is refused now.
pub(crate) fn note_refusal(start: Instant) {
    LATE.fetch_add(u64::from(start.elapsed() > PROMPT), Ordering::Relaxed);
}

/// What the server said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    Message(Message),
    /// It closed the socket.
    Closed,
    /// Nothing in time.
    Silent,
}

impl Answer {
    /// Whether that is the end.
    pub(crate) fn is_end(&self) -> bool {
        matches!(self, Self::Closed | Self::Message(Message::Disconnect { .. }))
    }
}

/// A connected control socket.
#[derive(Debug)]
pub(crate) struct Attach {
    pub(crate) fd: OwnedFd,
}

/// One attempt to connect; `None` where the queue of the server is full.
pub(crate) fn try_connect(options: &Options) -> Result<Option<Attach>, String> {
    let fd = rustix::net::socket_with(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::NONBLOCK | SocketFlags::CLOEXEC,
        None,
    )
    .map_err(|e| format!("socket: {e}"))?;
    let address = SocketAddrUnix::new(&options.socket).map_err(|e| format!("address: {e}"))?;
    match rustix::net::connect(&fd, &address) {
        Ok(()) => Ok(Some(Attach { fd })),
        Err(Errno::AGAIN) => Ok(None),
        Err(e) => Err(format!("connect: {e}")),
    }
}

impl Attach {
    /// Connected, and past HELLO.
    pub(crate) fn hello(options: &Options) -> Result<Self, String> {
        let start = Instant::now();
        loop {
            if start.elapsed() > TURN {
                return Err("cannot connect: the server does not take me".into());
            }
            let Some(attach) = try_connect(options)? else {
                std::thread::sleep(Duration::from_millis(2));
                continue;
            };
            match attach.answer(TURN) {
                Answer::Message(Message::Hello(_)) => return Ok(attach),
                // Evicted by the next, while I waited.
                other if other.is_end() => {}
                other => return Err(format!("no HELLO but {other:?}")),
            }
        }
    }

    /// Past INIT.
    pub(crate) fn init(options: &Options) -> Result<Self, String> {
        let start = Instant::now();
        loop {
            let attach = Self::hello(options)?;
            attach.say(&init(options), &[])?;
            match attach.answer(ANSWER) {
                Answer::Message(Message::Ack) => return Ok(attach),
                // The server may not have seen yet that my last connection is gone.
                Answer::Message(Message::Disconnect { reason, .. })
                    if reason.contains("connected already") && start.elapsed() < TURN =>
                {
                    std::thread::sleep(Duration::from_millis(2));
                }
                other => return Err(format!("INIT: {other:?}")),
            }
        }
    }

    /// Sends bytes, with descriptors.
    pub(crate) fn raw(&self, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> Result<(), String> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(253))];
        let mut control = rustix::net::SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() && !control.push(rustix::net::SendAncillaryMessage::ScmRights(fds)) {
            return Err("too many descriptors for one message".into());
        }
        let flags = rustix::net::SendFlags::NOSIGNAL;
        match rustix::net::sendmsg(&self.fd, &[IoSlice::new(bytes)], &mut control, flags) {
            // That it has closed already will show in the answer.
            Ok(_) | Err(Errno::PIPE | Errno::CONNRESET) => Ok(()),
            Err(e) => Err(format!("sendmsg: {e}")),
        }
    }

    pub(crate) fn say(&self, message: &Message, fds: &[BorrowedFd<'_>]) -> Result<(), String> {
        self.raw(&message.encode(), fds)
    }

    /// The server's next word.
    pub(crate) fn answer(&self, within: Duration) -> Answer {
        let start = Instant::now();
        loop {
            let mut bytes = [0; memif::wire::MESSAGE_SIZE];
            let got = rustix::net::recvmsg(
                &self.fd,
                &mut [IoSliceMut::new(&mut bytes)],
                &mut rustix::net::RecvAncillaryBuffer::default(),
                rustix::net::RecvFlags::DONTWAIT,
            );
            match got {
                Ok(got) if got.bytes == 0 => return Answer::Closed,
                Ok(_) => return Message::decode(&bytes).map_or(Answer::Closed, Answer::Message),
                Err(Errno::AGAIN) => {}
                Err(_) => return Answer::Closed,
            }
            let Some(left) = within.checked_sub(start.elapsed()) else { return Answer::Silent };
            let mut fds = [PollFd::new(&self.fd, PollFlags::IN)];
            let left = Timespec::try_from(left).ok();
            let _ = rustix::event::poll(&mut fds, left.as_ref());
        }
    }

    /// Says what must be answered with ACK.
    pub(crate) fn good(&self, message: &Message, fds: &[BorrowedFd<'_>]) -> Result<(), String> {
        self.say(message, fds)?;
        match self.answer(ANSWER) {
            Answer::Message(Message::Ack) => Ok(()),
            other => Err(format!("{message:?}: {other:?}")),
        }
    }

    /// Waits for the server to refuse what was said last; `what` it was.
    pub(crate) fn refused(&self, what: &str) -> Result<String, String> {
        let start = Instant::now();
        let answer = self.answer(ANSWER);
        note_refusal(start);
        match answer {
            Answer::Message(Message::Disconnect { reason, .. }) => Ok(reason),
            Answer::Closed => Ok("closed".into()),
            other => Err(format!("not refused: {what}: {other:?}")),
        }
    }

    /// Whether the server has ended it meanwhile.
    pub(crate) fn ended(&self) -> bool {
        self.answer(Duration::ZERO).is_end()
    }
}

/// INIT as it should be.
pub(crate) fn init(options: &Options) -> Message {
    let (version, id, secret) = (VERSION, options.id, options.secret);
    Message::Init(Init { version, id, mode: 0, secret, name: "adversary".into() })
}

/// An eventfd as it should be.
pub(crate) fn eventfd() -> OwnedFd {
    rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).expect("eventfd")
}

/// ADD_RING of ring `ring` of `memory`.
pub(crate) fn add_ring(memory: &Memory, ring: u16) -> AddRing {
    let s2m = ring < memory.queues;
    AddRing {
        flags: if s2m { ADD_RING_FLAG_S2M } else { 0 },
        index: if s2m { ring } else { ring - memory.queues },
        region: 0,
        offset: memory.ring(ring),
        log2_ring_size: memory.log2,
        private_hdr_size: 0,
    }
}

/// A connection that is up: nothing wrong so far.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) attach: Attach,
    pub(crate) memory: Memory,
    /// Of each ring.
    pub(crate) events: Vec<OwnedFd>,
}

impl Link {
    /// Attached, with the indices of all rings starting at `start`.
    pub(crate) fn up(options: &Options, queues: u16, log2: u8, start: u16) -> Result<Self, String> {
        let memory = Memory::new(queues, log2, start);
        let attach = Attach::init(options)?;
        let region = Message::AddRegion { index: 0, size: memory.size.into() };
        attach.good(&region, &[memory.fd.as_fd()])?;
        let mut events = Vec::new();
        for ring in 0..2 * queues {
            let event = eventfd();
            attach.good(&Message::AddRing(add_ring(&memory, ring)), &[event.as_fd()])?;
            events.push(event);
        }
        attach.say(&Message::Connect { if_name: "adversary".into() }, &[])?;
        match attach.answer(ANSWER) {
            Answer::Message(Message::Connected { .. }) => Ok(Self { attach, memory, events }),
            other => Err(format!("CONNECT: {other:?}")),
        }
    }
}
