//! A memif client that does whatever the input says: regions and rings in the handshake, then bytes in them.
//!
//! The input is a list of operations, each a byte and its operands; what is missing at its end is 0.

use memif::wire::{ADD_RING_FLAG_S2M, AddRing, COOKIE, Init, Message, VERSION, ring_bytes};
use memif::{Address, Connection, InterfaceConfig, Listener, ListenerConfig, Secret, ServerEvent};
use rustix::event::EventfdFlags;
use rustix::fs::{MemfdFlags, SealFlags};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Instant;

/// Bytes of the good region: two rings of 16 slots and a few buffers.
const SIZE: u64 = 8192;
const LOG2: u8 = 4;
const SECRET: &[u8] = b"fuzz";

/// Operands out of the input.
struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn u8(&mut self) -> u8 {
        let [first, rest @ ..] = self.0 else { return 0 };
        self.0 = rest;
        *first
    }

    fn u16(&mut self) -> u16 {
        u16::from_le_bytes([self.u8(), self.u8()])
    }

    fn u32(&mut self) -> u32 {
        u32::from(self.u16()) | u32::from(self.u16()) << 16
    }

    fn u64(&mut self) -> u64 {
        u64::from(self.u32()) | u64::from(self.u32()) << 32
    }
}

fn memfd(size: u64, seals: SealFlags) -> OwnedFd {
    let fd =
        rustix::fs::memfd_create("fuzz", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).expect("memfd");
    rustix::fs::ftruncate(&fd, size).expect("ftruncate");
    rustix::fs::fcntl_add_seals(&fd, seals).expect("seals");
    fd
}

fn eventfd() -> OwnedFd {
    rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).expect("eventfd")
}

/// Both ends.
struct Session {
    listener: Listener,
    socket: OwnedFd,
    region: OwnedFd,
    event: OwnedFd,
    link: Option<Box<Connection>>,
    over: bool,
}

impl Session {
    fn new() -> Session {
        let name = format!("wharf-fuzz-{}", std::process::id());
        let address = Address::Abstract { name: name.clone(), netns: None };
        let now = Instant::now();
        let mut listener =
            Listener::bind(ListenerConfig::new(address), now).expect("nobody else has the name");
        let secret = Secret::new(SECRET).ok();
        listener
            .add(InterfaceConfig { secret, ..InterfaceConfig::new(0, "fuzz") })
            .expect("a good interface");
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None);
        let socket = socket.expect("socket");
        let address = SocketAddrUnix::new_abstract_name(name.as_bytes()).expect("a short name");
        rustix::net::connect(&socket, &address).expect("it listens");
        let region = memfd(SIZE, SealFlags::SHRINK);
        Session { listener, socket, region, event: eventfd(), link: None, over: false }
    }

    fn say(&mut self, bytes: &[u8], fds: &[BorrowedFd<'_>]) {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
        let mut control = rustix::net::SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() {
            control.push(rustix::net::SendAncillaryMessage::ScmRights(fds));
        }
        // Refused where the server has closed.
        let _ = rustix::net::sendmsg(
            &self.socket,
            &[IoSlice::new(bytes)],
            &mut control,
            rustix::net::SendFlags::NOSIGNAL,
        );
        for event in self.listener.process(Instant::now()) {
            match event {
                ServerEvent::Connected(connection) => self.link = Some(connection),
                ServerEvent::Failed { .. } => self.over = true,
                ServerEvent::AcceptFailed(error) => panic!("{error}"),
            }
        }
        if let Some(link) = &mut self.link {
            self.over |= link.control.process().is_some();
        }
        // What it answers is not read on; its queue must not be what stops it.
        while rustix::net::recv(&self.socket, &mut [0u8; 128][..], rustix::net::RecvFlags::DONTWAIT)
            .is_ok_and(|r| r.1 != 0)
        {}
    }

    fn message(&mut self, message: &Message, fd: u8) {
        let (other, pipe) = (memfd(100, SealFlags::SHRINK), rustix::pipe::pipe().expect("pipe"));
        let unsealed = memfd(SIZE, SealFlags::GROW);
        let [region, event] = [&self.region, &self.event].map(|fd| fd.try_clone().expect("dup"));
        let fds: &[BorrowedFd<'_>] = match fd % 8 {
            0 => &[],
            1 => &[region.as_fd()],
            2 => &[event.as_fd()],
            3 => &[unsealed.as_fd()],
            4 => &[other.as_fd()],
            5 => &[pipe.1.as_fd()],
            6 => &[region.as_fd(), region.as_fd()],
            _ => &[event.as_fd(); 7],
        };
        self.say(&message.encode(), fds);
    }

    /// What a good client says first, up to a step.
    fn attach(&mut self, steps: u8) {
        let mut secret = [0; 24];
        secret[..SECRET.len()].copy_from_slice(SECRET);
        for offset in [0, ring_bytes(LOG2)] {
            self.write(offset, &COOKIE.to_ne_bytes());
        }
        let init = Init { version: VERSION, id: 0, mode: 0, secret, name: "fuzz".into() };
        let ring = |flags, offset| {
            Message::AddRing(AddRing {
                flags,
                index: 0,
                region: 0,
                offset,
                log2_ring_size: LOG2,
                private_hdr_size: 0,
            })
        };
        let all = [
            (Message::Init(init), 0),
            (Message::AddRegion { index: 0, size: SIZE }, 1),
            (ring(ADD_RING_FLAG_S2M, 0), 2),
            (ring(0, ring_bytes(LOG2) as u32), 2),
            (Message::Connect { if_name: "fuzz".into() }, 0),
        ];
        for (message, fd) in all.iter().take(steps.into()) {
            self.message(message, *fd);
        }
    }

    fn write(&self, offset: u64, bytes: &[u8]) {
        let offset = offset % (SIZE - bytes.len() as u64);
        rustix::io::pwrite(&self.region, bytes, offset).expect("within the file");
    }

    fn receive(&mut self, input: &mut Input<'_>) {
        let Some(link) = &mut self.link else { return };
        let (max, mut room) = (usize::from(input.u8()), [0; 300]);
        let before = link.rx[0].counters();
        let n = link.rx[0].receive_with(max, |packet| {
            assert!((1..=memif::MAX_FRAME).contains(&packet.len()));
            assert_eq!(packet.copy_to(&mut room), packet.len().min(300));
        });
        assert!(n <= max && link.rx[0].counters().packets == before.packets + n as u64);
        let (mut buffers, mut lengths) = ([[0u8; 100]; 4], [0; 4]);
        let n = link.rx[0].receive_into(&mut buffers, &mut lengths);
        assert!(lengths[..n].iter().all(|len| (1..=100).contains(len)));
    }

    fn transmit(&mut self, input: &mut Input<'_>) {
        let Some(link) = &mut self.link else { return };
        let packets = vec![vec![0x5a; usize::from(input.u16()) % 10_000]; usize::from(input.u8() % 8)];
        let taken = link.tx[0].transmit(packets.as_slice());
        assert!(taken <= packets.len());
        link.tx[0].kick();
    }

    fn operate(&mut self, input: &mut Input<'_>) {
        match input.u8() % 16 {
            0 => {
                let steps = input.u8() % 6;
                self.attach(steps);
            }
            1 => {
                let size = 1 + usize::from(input.u8());
                let bytes: Vec<u8> = (0..size).map(|_| input.u8()).collect();
                self.say(&bytes, &[]);
            }
            2 => {
                let (index, size, fd) = (input.u16(), input.u64(), input.u8());
                self.message(&Message::AddRegion { index, size }, fd);
            }
            3 => {
                let ring = AddRing {
                    flags: input.u16(),
                    index: input.u16(),
                    region: input.u16(),
                    offset: input.u32(),
                    log2_ring_size: input.u8(),
                    private_hdr_size: input.u16(),
                };
                self.message(&Message::AddRing(ring), input.u8());
            }
            4 => self.message(&Message::Connect { if_name: "fuzz".into() }, input.u8()),
            5 => self.message(&Message::Ack, input.u8()),
            6 => self.message(&Message::Disconnect { code: input.u32(), reason: "fuzz".into() }, input.u8()),
            7..=8 => self.receive(input),
            9..=10 => self.transmit(input),
            // An index: of either ring, head or tail.
            11..=12 => {
                let which = input.u8();
                let offset = u64::from(which & 1) * ring_bytes(LOG2) + if which & 2 == 0 { 6 } else { 64 };
                self.write(offset, &input.u16().to_ne_bytes());
            }
            // A descriptor.
            13..=14 => {
                let slot = input.u8();
                let offset = 128 + u64::from(slot & 15) * 16 + u64::from(slot >> 4 & 1) * ring_bytes(LOG2);
                let words = [input.u64(), input.u64()].map(u64::to_le_bytes);
                self.write(offset, words.as_flattened());
            }
            _ => {
                let (offset, value) = (input.u16(), input.u64());
                self.write(offset.into(), &value.to_ne_bytes());
            }
        }
    }
}

/// Plays the input against a server.
pub fn run(data: &[u8]) {
    let (mut input, mut session) = (Input(data), Session::new());
    while !input.0.is_empty() && !session.over {
        session.operate(&mut input);
    }
}
