//! A client or server that speaks the protocol wrong. Oracle of all tests: the peer is refused with the right
//! reason, and no descriptor stays open.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Mutex;

use rustix::event::EventfdFlags;
use rustix::fs::{MemfdFlags, SealFlags};

use super::*;
use crate::handshake::ClientHandshake;
use crate::socket::Channel;
use crate::wire::{
    ADD_RING_FLAG_S2M, AddRing, COOKIE, Hello, Init, Message, MessageType, RawMessage, SECRET_SIZE, VERSION,
};
use crate::{Direction, HandshakeError, RegionError, RingError};

/// Tests that count descriptors of the process can't run beside each other: each runs in a child of its own
/// that tests nothing else.
fn alone(test: &str, body: impl FnOnce()) {
    const CHILD: &str = "MEMIF_TEST_CHILD";
    if std::env::var_os(CHILD).is_some_and(|t| t == test) {
        return body();
    }
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _guard = ONE_AT_A_TIME.lock();
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", &format!("tests::hostile::{test}"), "--nocapture", "--test-threads=1"])
        .env(CHILD, test)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && text.contains("1 passed"),
        "{text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

fn open_fds() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

/// A client that sends whatever it is told to.
struct Evil {
    listener: Listener,
    channel: Channel,
}

impl Evil {
    /// Connected; HELLO received.
    fn new() -> Self {
        let mut listener = listener();
        let channel = Channel::connect(listener.address()).unwrap();
        assert!(listener.process(Instant::now()).is_empty());
        let hello = channel.receive().unwrap().unwrap();
        let Message::Hello(hello) = Message::decode(&hello.bytes).unwrap() else { panic!("{hello:?}") };
        assert_eq!((hello.min_version, hello.max_version), (VERSION, VERSION));
        assert_eq!((hello.max_region, hello.max_m2s_ring, hello.max_s2m_ring), (3, 254, 254));
        assert_eq!(hello.max_log2_ring_size, 14);
        Self { listener, channel }
    }

    fn raw(&mut self, bytes: &[u8], fds: &[BorrowedFd<'_>]) {
        let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(253))];
        let mut control = rustix::net::SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() {
            assert!(control.push(rustix::net::SendAncillaryMessage::ScmRights(fds)));
        }
        let iov = [std::io::IoSlice::new(bytes)];
        rustix::net::sendmsg(self.channel.as_fd(), &iov, &mut control, rustix::net::SendFlags::NOSIGNAL)
            .unwrap();
    }

    /// Sends what the server must answer with ACK.
    fn good(&mut self, message: Message, fds: &[BorrowedFd<'_>]) {
        self.raw(&message.encode(), fds);
        let events = self.listener.process(Instant::now());
        assert!(events.is_empty(), "{events:?}");
        let answer = self.channel.receive().unwrap().unwrap();
        assert_eq!(Message::decode(&answer.bytes).unwrap(), Message::Ack);
    }

    /// Sends what the server must refuse, and checks that it says why and closes.
    fn bad(self, message: Message, fds: &[BorrowedFd<'_>]) -> HandshakeError {
        self.bad_raw(&message.encode(), fds)
    }

    fn bad_raw(mut self, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> HandshakeError {
        self.raw(bytes, fds);
        let mut events = self.listener.process(Instant::now());
        let (Some(ServerEvent::Failed { error, .. }), true) = (events.pop(), events.is_empty()) else {
            panic!("not refused");
        };
        if !matches!(error, HandshakeError::Closed | HandshakeError::Disconnected { .. }) {
            let answer = self.channel.receive().unwrap().unwrap();
            let answer = Message::decode(&answer.bytes).unwrap();
            let full = error.to_string();
            assert!(
                matches!(&answer, Message::Disconnect { reason, .. } if full.starts_with(reason.as_str())),
                "{answer:?}"
            );
        }
        // A child that another test starts holds a copy of the server's end until it executes.
        let limit = Instant::now() + Duration::from_secs(10);
        while !matches!(self.channel.receive(), Err(HandshakeError::Closed)) {
            assert!(Instant::now() < limit, "not closed");
        }
        assert_eq!(self.listener.interfaces().collect::<Vec<_>>(), [(0, false)], "the id is free again");
        error
    }

    /// Past INIT.
    fn init() -> Self {
        let mut evil = Self::new();
        evil.good(init(), &[]);
        evil
    }

    /// Past ADD_REGION of 8192 bytes; the memfd is returned too.
    fn region() -> (Self, OwnedFd) {
        let mut evil = Self::init();
        let fd = memfd(8192, SealFlags::SHRINK);
        evil.good(Message::AddRegion { index: 0, size: 8192 }, &[fd.as_fd()]);
        (evil, fd)
    }

    /// Past one good ring each way, with the cookies in place.
    fn rings() -> (Self, OwnedFd) {
        let (mut evil, fd) = Self::region();
        let event = eventfd();
        for (flags, offset) in [(ADD_RING_FLAG_S2M, 0), (0, 1024)] {
            rustix::io::pwrite(&fd, &COOKIE.to_ne_bytes(), offset).unwrap();
            evil.good(Message::AddRing(AddRing { flags, offset: offset as u32, ..ring() }), &[event.as_fd()]);
        }
        (evil, fd)
    }
}

fn init() -> Message {
    Message::Init(Init { version: VERSION, id: 0, mode: 0, secret: [0; SECRET_SIZE], name: "evil".into() })
}

fn ring() -> AddRing {
    AddRing {
        flags: ADD_RING_FLAG_S2M,
        index: 0,
        region: 0,
        offset: 0,
        log2_ring_size: 4,
        private_hdr_size: 0,
    }
}

fn memfd(size: u64, seals: SealFlags) -> OwnedFd {
    let fd = rustix::fs::memfd_create("evil", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
    rustix::fs::ftruncate(&fd, size).unwrap();
    rustix::fs::fcntl_add_seals(&fd, seals).unwrap();
    fd
}

fn eventfd() -> OwnedFd {
    rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).unwrap()
}

fn samples() -> Vec<Message> {
    let hello = Hello {
        name: "evil".into(),
        min_version: VERSION,
        max_version: VERSION,
        max_region: 0,
        max_m2s_ring: 0,
        max_s2m_ring: 0,
        max_log2_ring_size: 4,
    };
    vec![
        Message::Ack,
        Message::Hello(hello),
        init(),
        Message::AddRegion { index: 0, size: 8192 },
        Message::AddRing(ring()),
        Message::Connect { if_name: "x".into() },
        Message::Connected { if_name: "x".into() },
        Message::Disconnect { code: 3, reason: "bye".into() },
    ]
}

#[test]
fn messages_out_of_order() {
    alone("messages_out_of_order", || {
        let before = open_fds();
        type Start = (fn() -> Evil, &'static [MessageType]);
        let starts: [Start; 4] = [
            (Evil::new, &[MessageType::Init]),
            (Evil::init, &[MessageType::AddRegion, MessageType::AddRing]),
            (|| Evil::region().0, &[MessageType::AddRegion, MessageType::AddRing]),
            (|| Evil::rings().0, &[MessageType::AddRing, MessageType::Connect]),
        ];
        for (start, allowed) in starts {
            for message in samples() {
                let kind = message.kind();
                if allowed.contains(&kind) {
                    continue;
                }
                let error = start().bad(message, &[]);
                match kind {
                    MessageType::Disconnect => {
                        assert!(
                            matches!(&error, HandshakeError::Disconnected { code: 3, reason } if reason == "bye")
                        );
                    }
                    MessageType::Connect if !allowed.contains(&MessageType::Init) => {
                        assert!(matches!(error, HandshakeError::NoRing(Direction::S2M)), "{error}");
                    }
                    _ => assert!(
                        matches!(error, HandshakeError::Unexpected { got, .. } if got == kind),
                        "{kind:?}: {error}"
                    ),
                }
                assert_eq!(open_fds(), before, "{kind:?}");
            }
        }
    });
}

#[test]
fn garbage() {
    alone("garbage", || {
        let before = open_fds();
        for kind in [0u16, 9, 0x100, 0xffff] {
            let mut raw: RawMessage = [0xa5; 128];
            raw[..2].copy_from_slice(&kind.to_ne_bytes());
            assert!(matches!(Evil::init().bad_raw(&raw, &[]), HandshakeError::MessageType(k) if k == kind));
        }
        for size in [1, 127, 129, 65536] {
            let fd = eventfd();
            let raw = vec![0; size];
            let error = Evil::new().bad_raw(&raw, &[fd.as_fd()]);
            assert!(matches!(error, HandshakeError::MessageSize(n) if n == size), "{error}");
        }
        assert_eq!(open_fds(), before);
    });
}

#[test]
fn wrong_versions() {
    for version in [0x0100, 0x0201, 0x0300, 0] {
        let Message::Init(init) = init() else { unreachable!() };
        let error = Evil::new().bad(Message::Init(Init { version, ..init }), &[]);
        assert!(matches!(error, HandshakeError::Version(v) if v == version));
    }
}

#[test]
fn descriptors_where_none_belong() {
    alone("descriptors_where_none_belong", || {
        let fd = eventfd();
        let before = open_fds();
        for count in [1, 2, 4, 64, 253] {
            let fds = vec![fd.as_fd(); count];
            let error = Evil::new().bad(init(), &fds);
            match count {
                1..=4 => {
                    assert!(matches!(error, HandshakeError::Descriptors(MessageType::Init, n) if n == count))
                }
                // More than there is room for: the kernel closes the excess, we the rest.
                _ => assert!(matches!(error, HandshakeError::MessageSize(128)), "{error}"),
            }
            let error = Evil::init().bad(Message::Connect { if_name: "x".into() }, &fds[..count.min(4)]);
            assert!(matches!(error, HandshakeError::Descriptors(MessageType::Connect, _)));
            assert_eq!(open_fds(), before, "{count}");
        }
        let memfd = memfd(8192, SealFlags::SHRINK);
        let two = [memfd.as_fd(), memfd.as_fd()];
        let error = Evil::init().bad(Message::AddRegion { index: 0, size: 8192 }, &two);
        assert!(matches!(error, HandshakeError::Descriptors(MessageType::AddRegion, 2)));
        drop(memfd);
        assert_eq!(open_fds(), before);
    });
}

#[test]
fn regions_that_lie() {
    alone("regions_that_lie", || {
        let before = open_fds();
        let refuse = |fd: Option<OwnedFd>, size| {
            let fds: Vec<_> = fd.iter().map(AsFd::as_fd).collect();
            match Evil::init().bad(Message::AddRegion { index: 0, size }, &fds) {
                HandshakeError::Region { index: 0, source } => source,
                other => panic!("{other:?}"),
            }
        };
        let good = || memfd(8192, SealFlags::SHRINK);
        for size in [8193, 1 << 40, 1 << 63, u64::MAX] {
            let error = refuse(Some(good()), size);
            assert!(matches!(error, RegionError::ShorterThanAnnounced { actual: 8192, .. }), "{error}");
        }
        assert!(matches!(refuse(Some(good()), 0), RegionError::Empty));
        assert!(matches!(refuse(None, 8192), RegionError::NoFd));
        assert!(matches!(refuse(Some(memfd(8192, SealFlags::empty())), 8192), RegionError::NotSealed));
        let huge = memfd(65 << 20, SealFlags::SHRINK);
        assert!(matches!(refuse(Some(huge), 65 << 20), RegionError::OverCap { .. }));
        for path in ["/dev/zero", "/proc/self/exe", "/"] {
            let file: OwnedFd = std::fs::File::open(path).unwrap().into();
            assert!(matches!(refuse(Some(file), 1), RegionError::NotMemfd(_)), "{path}");
        }
        assert!(matches!(refuse(Some(eventfd()), 1), RegionError::NotMemfd(_)));
        let pipe = rustix::pipe::pipe().unwrap();
        assert!(matches!(refuse(Some(pipe.0), 1), RegionError::NotMemfd(_)));
        drop(pipe.1);

        let fd = good();
        let error = Evil::init().bad(Message::AddRegion { index: 1, size: 8192 }, &[fd.as_fd()]);
        assert!(matches!(error, HandshakeError::RegionIndex(1)));
        drop(fd);
        let (mut evil, fd) = Evil::region();
        for index in 1..4 {
            evil.good(Message::AddRegion { index, size: 8192 }, &[fd.as_fd()]);
        }
        let error = evil.bad(Message::AddRegion { index: 4, size: 8192 }, &[fd.as_fd()]);
        assert!(matches!(error, HandshakeError::TooManyRegions(4)));
        drop(fd);
        assert_eq!(open_fds(), before);
    });
}

#[test]
fn rings_that_lie() {
    alone("rings_that_lie", || {
        let event = eventfd();
        let before = open_fds();
        let refuse = |change: fn(&mut AddRing)| {
            let mut add = ring();
            change(&mut add);
            match Evil::region().0.bad(Message::AddRing(add), &[event.as_fd()]) {
                HandshakeError::Ring { source, .. } => source,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(refuse(|r| r.log2_ring_size = 15), RingError::Size(15, 14));
        assert_eq!(refuse(|r| r.log2_ring_size = 63), RingError::Size(63, 14));
        assert_eq!(refuse(|r| r.log2_ring_size = 255), RingError::Size(255, 14));
        assert_eq!(refuse(|r| r.region = 1), RingError::NoRegion(1));
        assert_eq!(refuse(|r| r.region = 0xffff), RingError::NoRegion(0xffff));
        assert_eq!(refuse(|r| r.offset = 12), RingError::Misaligned(12));
        assert_eq!(refuse(|r| r.private_hdr_size = 8), RingError::PrivateHeader(8));
        for offset in [8192 - 384 + 8, 8184, 8192, 0xffff_fff8] {
            let mut add = ring();
            add.offset = offset;
            let error = Evil::region().0.bad(Message::AddRing(add), &[event.as_fd()]);
            assert!(matches!(error, HandshakeError::Ring { source: RingError::OutOfRegion { .. }, .. }));
        }
        assert!(matches!(
            refuse(|r| r.log2_ring_size = 9),
            RingError::OutOfRegion { end: 8320, region: 8192 }
        ));

        let error = Evil::region().0.bad(Message::AddRing(ring()), &[]);
        assert!(matches!(error, HandshakeError::Ring { source: RingError::NoFd, .. }));
        let pipe = rustix::pipe::pipe().unwrap();
        let error = Evil::region().0.bad(Message::AddRing(ring()), &[pipe.1.as_fd()]);
        assert!(matches!(error, HandshakeError::Ring { source: RingError::NotEventfd(_), .. }));
        drop(pipe);
        let error = Evil::region().0.bad(Message::AddRing(AddRing { index: 1, ..ring() }), &[event.as_fd()]);
        assert!(matches!(error, HandshakeError::RingIndex(1)));
        let (mut evil, _) = Evil::region();
        evil.good(Message::AddRing(ring()), &[event.as_fd()]);
        let error = evil.bad(Message::Connect { if_name: "x".into() }, &[]);
        assert!(matches!(error, HandshakeError::NoRing(Direction::M2S)));
        let (evil, memfd) = Evil::rings();
        rustix::io::pwrite(&memfd, &[0x21], 1024).unwrap();
        let error = evil.bad(Message::Connect { if_name: "x".into() }, &[]);
        assert!(
            matches!(
                error,
                HandshakeError::Ring { direction: Direction::M2S, source: RingError::Cookie(_), .. }
            ),
            "{error}"
        );
        drop(memfd);
        assert_eq!(open_fds(), before);
    });
}

/// The region of a peer loses its memory under a connection, by a way that the checks did not foresee.
#[test]
fn a_lost_region_ends_the_connection() {
    use crate::connection::{Connection, ConnectionInfo, Parts, Queues, RingSpec};
    use crate::queue::Link as State;
    use crate::region::{Regions, tests::unsealed};
    use crate::ring::Ring;
    use crate::{CloseReason, Mode, Role, Violation};
    use std::sync::Arc;

    crate::survive_sigbus().unwrap();
    let (mapping, file) = unsealed(64 << 10);
    let regions = Arc::new(Regions::new(vec![mapping]));
    let spec = |offset| {
        Ring::new(regions.clone(), 0, offset, 4).unwrap().initialise(0);
        RingSpec { region: 0, offset, log2_size: 4, event: eventfd() }
    };
    let parts = Parts { regions: regions.clone(), s2m: vec![spec(0)], m2s: vec![spec(1024)] };
    let state = Arc::new(State::default());
    let queues = Queues::server(parts, &state).unwrap();
    let (channel, peer) = Channel::pair();
    let info = ConnectionInfo {
        role: Role::Server,
        id: 0,
        mode: Mode::Ethernet,
        remote_interface: "x".into(),
        remote_app: "x".into(),
        peer: None,
        region_sizes: vec![64 << 10],
    };
    let mut link = Connection::new(channel, state, queues, None, info);
    assert_eq!(link.control.process(), None);
    rustix::fs::ftruncate(&file, 0).unwrap();
    assert_eq!(drain(&mut link.rx[0]).len(), 0);
    assert_eq!(link.tx[0].transmit(&[bytes(1, 60)][..]), 0);
    let lost = Violation::RegionLost { region: 0 };
    assert_eq!(link.control.process(), Some(&CloseReason::Violation(lost)));
    assert!(!link.rx[0].is_alive());
    let said = peer.receive().unwrap().unwrap();
    let said = Message::decode(&said.bytes).unwrap();
    assert!(matches!(&said, Message::Disconnect { reason, .. } if reason == "region 0: its memory is gone"));
}

/// After a whole life of a connection nothing stays open, at either end.
#[test]
fn a_whole_life_leaks_nothing() {
    alone("a_whole_life_leaks_nothing", || {
        let before = open_fds();
        let maps = || std::fs::read_to_string("/proc/self/maps").unwrap().matches("memif region").count();
        for _ in 0..20 {
            let mut l = link(|c| c.rx_queues = 3);
            send(&mut l.client.tx[0], &[bytes(1, 100)]);
            assert_eq!(maps(), 2);
            drop((l.server.control, l.client));
            assert_eq!(maps(), 1, "the server's queues keep their mapping");
            assert_eq!(drain(&mut l.server.rx[0]).len(), 0);
        }
        assert_eq!(open_fds(), before);
        assert_eq!(maps(), 0);
    });
}

#[test]
fn half_open_connections_are_bounded() {
    alone("half_open_connections_are_bounded", || {
        let before = open_fds();
        let start = Instant::now();
        let mut listener = Listener::bind(listener_config(), start).unwrap();
        listener.add(InterfaceConfig::new(0, "x")).unwrap();
        let idle = open_fds();
        let mut silent: Vec<Channel> =
            (0..16).map(|_| Channel::connect(listener.address()).unwrap()).collect();
        assert!(listener.process(start).is_empty());
        assert_eq!(open_fds(), idle + 32, "16 of ours, 16 of theirs");
        // An honest client waits behind them until the oldest is stale, not until it times out.
        let mut honest = Client::connect(config(&listener), start).unwrap();
        assert!(listener.process(start).is_empty());
        assert!(honest.process(start).unwrap().is_none());
        let poll_now = |l: &Listener| {
            let fd = l.fd();
            let mut fds = [rustix::event::PollFd::new(&fd, rustix::event::PollFlags::IN)];
            rustix::event::poll(&mut fds, Some(&rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 })).unwrap()
        };
        assert_eq!(poll_now(&listener), 0, "clients that must wait don't keep the listener awake");
        let stale = listener.next_deadline().unwrap();
        assert_eq!(stale, start + Duration::from_millis(100));
        let (mut connected, mut at_client) = (None, None);
        let mut evicted = 0;
        while at_client.is_none() && Instant::now() < start + Duration::from_secs(10) {
            for event in listener.process(stale) {
                match event {
                    ServerEvent::Connected(c) => connected = Some(c),
                    ServerEvent::Failed { error: HandshakeError::Evicted, .. } => evicted += 1,
                    other => panic!("{other:?}"),
                }
            }
            at_client = honest.process(stale).unwrap();
        }
        assert!(connected.is_some());
        assert_eq!(evicted, 1);

        // The rest times out.
        let end = listener.next_deadline().unwrap();
        assert_eq!(end, start + Duration::from_secs(1));
        let events = listener.process(end);
        assert_eq!(events.len(), 15);
        for event in events {
            assert!(matches!(event, ServerEvent::Failed { error: HandshakeError::Timeout, .. }), "{event:?}");
        }
        // Connecting and going again is bounded too: so many in a millisecond.
        silent.clear();
        let mut failed = 0;
        for _ in 0..60 {
            if let Ok(channel) = Channel::connect(listener.address()) {
                drop(channel);
            }
            failed += listener.process(end).len();
        }
        assert!((20..=32).contains(&failed), "{failed}");
        assert_eq!(poll_now(&listener), 0);
        assert_eq!(listener.next_deadline(), Some(end + Duration::from_millis(1)));
        drop((listener, honest, connected, at_client));
        assert_eq!(open_fds(), before);
    });
}

/// A server that lies to our client.
#[test]
fn clients_trust_no_server() {
    alone("clients_trust_no_server", || {
        let before = open_fds();
        let hello = |min_version, max_version| {
            Message::Hello(Hello {
                name: "evil".into(),
                min_version,
                max_version,
                max_region: 0xffff,
                max_m2s_ring: 0xffff,
                max_s2m_ring: 0xffff,
                max_log2_ring_size: 255,
            })
        };
        let config = ClientConfig::new(address(), 0);
        let fresh = || {
            let (mine, theirs) = Channel::pair();
            (mine, ClientHandshake::start(theirs, config.clone(), 0))
        };
        for (min, max) in [(0x100, 0x1ff), (0x201, 0x300), (0x300, 0x100)] {
            let (server, mut client) = fresh();
            server.send(&hello(min, max).encode(), None).unwrap();
            assert!(matches!(client.process(), Err(HandshakeError::Version(_))));
        }
        // Out of order, at each state: before HELLO, after INIT, after CONNECT.
        for acks in [None, Some(0), Some(4)] {
            for message in samples() {
                let kind = message.kind();
                let allowed = match acks {
                    None => MessageType::Hello,
                    Some(0) => MessageType::Ack,
                    _ => MessageType::Connected,
                };
                let (server, mut client) = fresh();
                if let Some(acks) = acks {
                    server.send(&hello(VERSION, VERSION).encode(), None).unwrap();
                    for _ in 0..acks {
                        assert!(client.process().unwrap().is_none());
                        server.send(&Message::Ack.encode(), None).unwrap();
                    }
                    assert!(client.process().unwrap().is_none());
                }
                if kind == allowed {
                    continue;
                }
                server.send(&message.encode(), None).unwrap();
                let error = client.process().unwrap_err();
                assert!(
                    matches!(error, HandshakeError::Unexpected { .. } | HandshakeError::Disconnected { .. }),
                    "{acks:?} {kind:?}: {error}"
                );
            }
        }
        // A descriptor with any message.
        let (server, mut client) = fresh();
        let event = eventfd();
        server.send(&hello(VERSION, VERSION).encode(), Some(event.as_fd())).unwrap();
        assert!(matches!(client.process(), Err(HandshakeError::Descriptors(MessageType::Hello, 1))));
        drop((server, client, event));
        assert_eq!(open_fds(), before);
    });
}
