//! What a server can do wrong to a client that connects to `--socket`: `serve-messages` and `serve-rings`.

use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use memif::wire::{ADD_RING_FLAG_S2M, Descriptor, Hello, MESSAGE_SIZE, Message, VERSION};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SocketAddrUnix, SocketFlags,
    SocketType,
};

use crate::Options;
use crate::attach::{ANSWER, Answer, Attach, TURN, eventfd, note_refusal, refusals};
use crate::memory::{Memory, Random};
use crate::rings::{KINDS, attacked};

type Done = Result<String, String>;

/// Waits until there is something to read.
fn readable(fd: &OwnedFd, within: Duration) -> bool {
    let mut fds = [PollFd::new(fd, PollFlags::IN)];
    rustix::event::poll(&mut fds, Timespec::try_from(within).ok().as_ref()).is_ok_and(|n| n != 0)
}

fn listen(options: &Options) -> Result<OwnedFd, String> {
    let _ = std::fs::remove_file(&options.socket);
    let (family, kind) = (AddressFamily::UNIX, SocketType::SEQPACKET);
    let fd = rustix::net::socket_with(family, kind, SocketFlags::CLOEXEC, None)
        .map_err(|e| format!("socket: {e}"))?;
    let address = SocketAddrUnix::new(&options.socket).map_err(|e| format!("address: {e}"))?;
    rustix::net::bind(&fd, &address).map_err(|e| format!("bind: {e}"))?;
    rustix::net::listen(&fd, 1).map_err(|e| format!("listen: {e}"))?;
    Ok(fd)
}

fn hello(min_version: u16, max_version: u16) -> Message {
    Message::Hello(Hello {
        name: "adversary".into(),
        min_version,
        max_version,
        max_region: 0xffff,
        max_m2s_ring: 0xffff,
        max_s2m_ring: 0xffff,
        max_log2_ring_size: 255,
    })
}

/// A client that has connected.
struct Client {
    attach: Attach,
    memory: Option<OwnedFd>,
    size: u64,
    log2: u8,
    /// Of the S2M ring and the M2S ring.
    events: [Option<OwnedFd>; 2],
}

/// How far the client got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Connected,
    Hello,
    Init,
    Region,
    Rings,
    Up,
}

impl Client {
    fn accept(listener: &OwnedFd) -> Result<Self, String> {
        if !readable(listener, TURN) {
            return Err("the client does not come back".into());
        }
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let fd = rustix::net::accept_with(listener, flags).map_err(|e| format!("accept: {e}"))?;
        Ok(Self { attach: Attach { fd }, memory: None, size: 0, log2: 0, events: [None, None] })
    }

    /// The client's next message, and the descriptor that came with it.
    fn hear(&self) -> Result<(Message, Option<OwnedFd>), String> {
        if !readable(&self.attach.fd, TURN) {
            return Err("the client says nothing".into());
        }
        let mut bytes = [0; MESSAGE_SIZE];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let parts = &mut [IoSliceMut::new(&mut bytes)];
        let got = rustix::net::recvmsg(&self.attach.fd, parts, &mut control, RecvFlags::CMSG_CLOEXEC);
        if got.map_err(|e| format!("recvmsg: {e}"))?.bytes == 0 {
            return Err("the client left".into());
        }
        let mut fd = None;
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(fds) = message {
                fd = fds.last();
            }
        }
        Ok((Message::decode(&bytes).map_err(|e| format!("the client's message: {e:?}"))?, fd))
    }

    /// Does what a server should, up to `stage`.
    fn lead(&mut self, stage: Stage) -> Result<(), String> {
        if stage == Stage::Connected {
            return Ok(());
        }
        self.attach.say(&hello(VERSION, VERSION), &[])?;
        let mut at = Stage::Hello;
        while at != stage {
            match self.hear()? {
                (Message::Init(_), _) => at = Stage::Init,
                (Message::AddRegion { size, .. }, fd) => {
                    (self.memory, self.size, at) = (fd, size, Stage::Region);
                }
                (Message::AddRing(ring), fd) => {
                    self.log2 = ring.log2_ring_size;
                    self.events[usize::from(ring.flags & ADD_RING_FLAG_S2M == 0)] = fd;
                    at = Stage::Rings;
                }
                (Message::Connect { .. }, _) => {
                    if stage == Stage::Up {
                        self.attach.say(&Message::Connected { if_name: "adversary".into() }, &[])?;
                    }
                    return Ok(());
                }
                (other, _) => return Err(format!("the client says {other:?}")),
            }
            if at != stage {
                self.attach.say(&Message::Ack, &[])?;
            }
        }
        Ok(())
    }
}

/// M1 and M2: in each state everything that a server does not say there.
pub(crate) fn messages(options: &Options) -> Done {
    let listener = listen(options)?;
    let event = eventfd();
    let disconnect = || Message::Disconnect { code: 7, reason: "go".into() };
    let connected = || Message::Connected { if_name: "x".into() };
    let mut count = 0;
    for stage in [Stage::Connected, Stage::Hello, Stage::Init, Stage::Region, Stage::Rings] {
        let wrong = [
            vec![],
            vec![0; MESSAGE_SIZE - 1],
            vec![0xff; MESSAGE_SIZE + 1],
            vec![0xff; MESSAGE_SIZE],
            Message::Connect { if_name: "x".into() }.encode().to_vec(),
            Message::AddRegion { index: 0, size: u64::MAX }.encode().to_vec(),
            match stage {
                // Where they belong, an older and a newer version.
                Stage::Connected => hello(0x100, 0x1ff).encode().to_vec(),
                _ => hello(VERSION, VERSION).encode().to_vec(),
            },
            if stage == Stage::Connected { Message::Ack } else { connected() }.encode().to_vec(),
            disconnect().encode().to_vec(),
        ];
        // What is well-formed, with a descriptor too.
        let with = wrong.iter().skip(6).map(|bytes| (bytes, true));
        for (bytes, with) in wrong.iter().map(|bytes| (bytes, false)).chain(with) {
            let mut client = Client::accept(&listener)?;
            client.lead(stage)?;
            // What it had to say here may be on its way.
            let fds: &[_] = if with { &[std::os::fd::AsFd::as_fd(&event)] } else { &[] };
            client.attach.raw(bytes, fds)?;
            let start = Instant::now();
            loop {
                match client.attach.answer(ANSWER) {
                    answer if answer.is_end() => {
                        note_refusal(start);
                        break;
                    }
                    Answer::Message(_) if start.elapsed() < ANSWER => {}
                    other => return Err(format!("not refused: {bytes:02x?} at {stage:?}: {other:?}")),
                }
            }
            count += 1;
            // A good connection, so that the client comes back soon.
            drop(client);
            Client::accept(&listener)?.lead(Stage::Up)?;
        }
    }
    refusals(count)
}

/// Traffic as it should be, from the server's end.
#[derive(Default)]
struct Traffic {
    tails: [u16; 2],
    sent: u64,
    received: u64,
}

impl Traffic {
    fn turn(&mut self, memory: &Memory, events: &[Option<OwnedFd>; 2]) {
        let came = memory.head(0).wrapping_sub(self.tails[0]).min(memory.slots());
        self.tails[0] = self.tails[0].wrapping_add(came);
        self.received += u64::from(came);
        memory.set_tail(0, self.tails[0]);
        let room = memory.head(1).wrapping_sub(self.tails[1]).min(memory.slots());
        for _ in 0..room.min(32) {
            let own = memory.described(1, self.tails[1]);
            let mut packet = [crate::rings::MINE; 100];
            packet[..6].fill(0xff);
            // The descriptor may have been written over.
            if own.offset <= memory.size - packet.len() as u32 {
                (own.offset..).zip(packet).for_each(|(at, byte)| memory.set_u8(at, byte));
            }
            memory.describe(1, self.tails[1], Descriptor { flags: 0, length: 100, ..own });
            self.tails[1] = self.tails[1].wrapping_add(1);
            self.sent += 1;
        }
        memory.set_tail(1, self.tails[1]);
        if let Some(event) = &events[1] {
            let _ = rustix::io::write(event, &1u64.to_ne_bytes());
        }
    }
}

/// M5: a second thread writes to the client's rings at full speed while traffic flows; one kind at a time, then all of them.
pub(crate) fn rings(options: &Options) -> Done {
    let listener = listen(options)?;
    let (start, mut random) = (Instant::now(), Random::new(options.seed));
    let (mut attached, mut ended, mut sent, mut received) = (0, 0, 0, 0);
    while start.elapsed() < options.time {
        let mut client = Client::accept(&listener)?;
        client.lead(Stage::Up)?;
        let fd = client.memory.take().ok_or("the client gave no memory")?;
        let memory = Memory::of(fd, client.size as u32, client.log2);
        let kind = attached % (KINDS + 1);
        attached += 1;
        let mut traffic = Traffic::default();
        let turn = || traffic.turn(&memory, &client.events);
        ended += u64::from(attacked(&memory, &client.attach, kind, random.next(), turn));
        sent += traffic.sent;
        received += traffic.received;
        memory.scan(&options.canary)?;
    }
    Ok(format!(
        "{attached} times attached, {ended} times ended by the client, {sent} sent, {received} received"
    ))
}
