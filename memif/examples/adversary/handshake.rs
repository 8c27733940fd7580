//! What a client can do wrong before it is connected.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::Instant;

use memif::wire::{ADD_RING_FLAG_S2M, AddRing, Hello, Init, MESSAGE_SIZE, Message, VERSION};
use rustix::fs::{Mode, OFlags, SealFlags};

use crate::Options;
use crate::attach::{ANSWER, Answer, Attach, Link, add_ring, eventfd, init, refusals, try_connect};
use crate::memory::{Memory, Random, memfd};

type Done = Result<String, String>;

/// How far a connection is before the mistake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Hello,
    Init,
    Region,
    Rings,
}

impl Stage {
    fn reach(self, options: &Options) -> Result<(Attach, Memory), String> {
        let memory = Memory::new(1, 4, 0);
        if self == Self::Hello {
            return Ok((Attach::hello(options)?, memory));
        }
        let attach = Attach::init(options)?;
        if self != Self::Init {
            let region = Message::AddRegion { index: 0, size: memory.size.into() };
            attach.good(&region, &[memory.fd.as_fd()])?;
        }
        if self == Self::Rings {
            for ring in 0..2 {
                let event = eventfd();
                attach.good(&Message::AddRing(add_ring(&memory, ring)), &[event.as_fd()])?;
            }
        }
        Ok((attach, memory))
    }
}

fn all_messages(options: &Options) -> Vec<Message> {
    let hello = Hello {
        name: "adversary".into(),
        min_version: VERSION,
        max_version: VERSION,
        max_region: 0xffff,
        max_m2s_ring: 0xffff,
        max_s2m_ring: 0xffff,
        max_log2_ring_size: 255,
    };
    let ring = AddRing {
        flags: ADD_RING_FLAG_S2M,
        index: 0,
        region: 0,
        offset: 0,
        log2_ring_size: 4,
        private_hdr_size: 0,
    };
    vec![
        Message::Ack,
        Message::Hello(hello),
        init(options),
        Message::AddRegion { index: 0, size: 4096 },
        Message::AddRing(ring),
        Message::Connect { if_name: "adversary".into() },
        Message::Connected { if_name: "adversary".into() },
        Message::Disconnect { code: 1, reason: "adversary".into() },
    ]
}

/// M1: every message at every stage, without the descriptor that it needs; wrong sizes, types, versions, modes, ids.
pub(crate) fn messages(options: &Options) -> Done {
    let mut count = 0;
    for stage in [Stage::Hello, Stage::Init, Stage::Region, Stage::Rings] {
        for message in all_messages(options) {
            let right = match message {
                Message::Init(_) => stage == Stage::Hello,
                Message::Connect { .. } => stage == Stage::Rings,
                _ => false,
            };
            if right {
                continue;
            }
            let (attach, _memory) = stage.reach(options)?;
            attach.say(&message, &[])?;
            attach.refused(&format!("{stage:?} {message:?}"))?;
            count += 1;
        }
    }
    for size in [0, 1, 127, 129, 65536] {
        let (attach, _memory) = Stage::Init.reach(options)?;
        attach.raw(&vec![7; size], &[])?;
        attach.refused(&format!("{size} bytes"))?;
        count += 1;
    }
    for kind in [0u16, 9, 0x100, 0xffff] {
        let (attach, _memory) = Stage::Init.reach(options)?;
        let mut bytes = [0xa5; MESSAGE_SIZE];
        bytes[..2].copy_from_slice(&kind.to_ne_bytes());
        attach.raw(&bytes, &[])?;
        attach.refused(&format!("type {kind}"))?;
        count += 1;
    }
    let Message::Init(good) = init(options) else { return Err("INIT is no INIT".into()) };
    let wrong = [
        Init { version: 0x0100, ..good.clone() },
        Init { version: 0x0201, ..good.clone() },
        Init { version: 0, ..good.clone() },
        Init { mode: 1, ..good.clone() },
        Init { mode: 2, ..good.clone() },
        Init { mode: 255, ..good.clone() },
        Init { id: 0xffff_ffff, ..good.clone() },
        Init { id: options.id ^ 0x8000_0000, ..good },
    ];
    for init in wrong {
        let attach = Attach::hello(options)?;
        attach.say(&Message::Init(init.clone()), &[])?;
        attach.refused(&format!("{init:?}"))?;
        count += 1;
    }
    // A name that is no text and has no end is not a mistake that anybody must notice.
    let attach = Attach::hello(options)?;
    let mut bytes = init(options).encode();
    bytes[33..].fill(0xff);
    attach.raw(&bytes, &[])?;
    if attach.answer(ANSWER) != Answer::Message(Message::Ack) {
        return Err("a name without NUL is refused".into());
    }
    drop(attach);
    let _first = Link::up(options, 1, 4, 0)?;
    let second = Attach::hello(options)?;
    second.say(&init(options), &[])?;
    let why = second.refused("an id in use")?;
    if !why.contains("connected already") {
        return Err(format!("an id in use: {why}"));
    }
    refusals(count + 1)
}

/// M2: descriptors in wrong numbers, at wrong places, and of wrong kinds.
pub(crate) fn descriptors(options: &Options) -> Done {
    let mut count = 0;
    let event = eventfd();
    for n in [1, 2, 4, 253] {
        let many = vec![event.as_fd(); n];
        for (stage, message) in [
            (Stage::Hello, init(options)),
            (Stage::Init, Message::Ack),
            (Stage::Rings, Message::Connect { if_name: "x".into() }),
        ] {
            let (attach, _memory) = stage.reach(options)?;
            attach.say(&message, &many)?;
            attach.refused(&format!("{n} descriptors with {message:?}"))?;
            count += 1;
        }
    }
    let region = |size| Message::AddRegion { index: 0, size };
    let good = memfd(4096, SealFlags::SHRINK);
    for n in [0, 2, 4, 253] {
        let (attach, _memory) = Stage::Init.reach(options)?;
        attach.say(&region(4096), &vec![good.as_fd(); n])?;
        attach.refused(&format!("{n} descriptors with ADD_REGION"))?;
        let (attach, memory) = Stage::Region.reach(options)?;
        attach.say(&Message::AddRing(add_ring(&memory, 0)), &vec![event.as_fd(); n])?;
        attach.refused(&format!("{n} descriptors with ADD_RING"))?;
        count += 2;
    }
    for (what, fd) in bad_regions()? {
        let (attach, _memory) = Stage::Init.reach(options)?;
        attach.say(&region(4096), &[fd.as_fd()])?;
        attach.refused(what)?;
        count += 1;
    }
    let (read, write) = rustix::pipe::pipe().map_err(|e| format!("pipe: {e}"))?;
    for (what, fd) in [("a pipe", write.as_fd()), ("a pipe", read.as_fd()), ("a memfd", good.as_fd())] {
        let (attach, memory) = Stage::Region.reach(options)?;
        attach.say(&Message::AddRing(add_ring(&memory, 0)), &[fd])?;
        attach.refused(&format!("{what} instead of an eventfd"))?;
        count += 1;
    }
    refusals(count)
}

fn bad_regions() -> Result<Vec<(&'static str, OwnedFd)>, String> {
    let open = |path: &str, flags| {
        rustix::fs::open(path, flags | OFlags::CLOEXEC, Mode::empty()).map_err(|e| format!("{path}: {e}"))
    };
    let sealed = memfd(4096, SealFlags::SHRINK);
    let read_only = open(&format!("/proc/self/fd/{}", sealed.as_raw_fd()), OFlags::RDONLY)?;
    let (a, _b) = rustix::net::socketpair(
        rustix::net::AddressFamily::UNIX,
        rustix::net::SocketType::STREAM,
        rustix::net::SocketFlags::CLOEXEC,
        None,
    )
    .map_err(|e| format!("socketpair: {e}"))?;
    let mut list = vec![
        ("a regular file", open("/proc/self/exe", OFlags::RDONLY)?),
        ("/dev/zero", open("/dev/zero", OFlags::RDWR)?),
        ("a directory", open("/", OFlags::RDONLY)?),
        ("O_PATH", open("/", OFlags::PATH)?),
        ("a socket", a),
        ("an eventfd", eventfd()),
        ("a read-only memfd", read_only),
        ("an unsealed memfd", memfd(4096, SealFlags::empty())),
        ("a memfd sealed against growing only", memfd(4096, SealFlags::GROW)),
        ("a write-sealed memfd", memfd(4096, SealFlags::SHRINK | SealFlags::WRITE)),
        ("a memfd sealed against future writes", memfd(4096, SealFlags::SHRINK | SealFlags::FUTURE_WRITE)),
    ];
    // Not every kernel has huge pages.
    if let Ok(huge) = rustix::fs::memfd_create(
        "adversary",
        rustix::fs::MemfdFlags::CLOEXEC
            | rustix::fs::MemfdFlags::ALLOW_SEALING
            | rustix::fs::MemfdFlags::HUGETLB,
    ) && rustix::fs::fcntl_add_seals(&huge, SealFlags::SHRINK).is_ok()
    {
        list.push(("a hugetlb memfd", huge));
    }
    Ok(list)
}

/// M3: sizes, offsets and indices beyond what is there.
pub(crate) fn geometry(options: &Options) -> Done {
    let mut count = 0;
    for size in [0, 8193, 1 << 40, 1 << 63, u64::MAX] {
        let (attach, _memory) = Stage::Init.reach(options)?;
        let fd = memfd(8192, SealFlags::SHRINK);
        attach.say(&Message::AddRegion { index: 0, size }, &[fd.as_fd()])?;
        attach.refused(&format!("a region of {size} bytes"))?;
        count += 1;
    }
    let refuse = |message: &Message, fd: BorrowedFd<'_>, stage: Stage| {
        let (attach, _memory) = stage.reach(options)?;
        attach.say(message, &[fd])?;
        attach.refused(&format!("{message:?}"))
    };
    let fd = memfd(1 << 30, SealFlags::SHRINK);
    refuse(&Message::AddRegion { index: 0, size: 1 << 30 }, fd.as_fd(), Stage::Init)?;
    for index in [1, 255, 256, 0xffff] {
        refuse(&Message::AddRegion { index, size: 4096 }, fd.as_fd(), Stage::Init)?;
        refuse(&Message::AddRegion { index: index.wrapping_add(1), size: 4096 }, fd.as_fd(), Stage::Region)?;
        count += 2;
    }
    // As many as it takes.
    let (attach, _memory) = Stage::Region.reach(options)?;
    let refused = (1..=256).find(|index| {
        let region = Message::AddRegion { index: *index, size: 4096 };
        attach.good(&region, &[fd.as_fd()]).is_err()
    });
    if refused.is_none() {
        return Err("257 regions are taken".into());
    }
    let event = eventfd();
    let memory = Memory::new(1, 4, 0);
    let good = add_ring(&memory, 0);
    let size = memory.size;
    let mut bad = vec![
        AddRing { private_hdr_size: 8, ..good },
        AddRing { region: 1, ..good },
        AddRing { region: 255, ..good },
        AddRing { region: 0xffff, ..good },
        AddRing { index: 1, ..good },
        AddRing { index: 0xffff, ..good },
    ];
    bad.extend([15, 31, 32, 63, 64, 255].map(|log2_ring_size| AddRing { log2_ring_size, ..good }));
    // A whole ring does not fit in the last bytes.
    let offsets =
        [size - 1, size - 8, size - 128, size - 8 * 16, size, size + 8, u32::MAX, u32::MAX - 7, 1, 2, 4];
    bad.extend(offsets.map(|offset| AddRing { offset, ..good }));
    for ring in bad {
        refuse(&Message::AddRing(ring), event.as_fd(), Stage::Region)?;
        count += 1;
    }
    // Rings without a cookie.
    let (attach, memory) = Stage::Rings.reach(options)?;
    memory.set_u32(memory.ring(1), 0);
    attach.say(&Message::Connect { if_name: "x".into() }, &[])?;
    attach.refused("a ring without cookie")?;
    Ok(format!("{}, region {refused:?} was too many", refusals(count + 2)?))
}

/// Sockets that [`half_open`] holds.
const HELD: usize = 10_000;

/// M4: as many connections as it gets, of which each says nothing, or too little, or a byte.
pub(crate) fn half_open(options: &Options) -> Done {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let more = rustix::process::Rlimit { current: limit.maximum, ..limit };
    rustix::process::setrlimit(rustix::process::Resource::Nofile, more)
        .map_err(|e| format!("setrlimit: {e}"))?;
    let (start, mut random) = (Instant::now(), Random::new(options.seed));
    let mut held = std::collections::VecDeque::new();
    let (mut opened, mut refused) = (0u64, 0u64);
    while start.elapsed() < options.time {
        match try_connect(options)? {
            Some(attach) => {
                opened += 1;
                match random.below(4) {
                    0 => attach.raw(&[0], &[])?,
                    1 | 2 => attach.say(&init(options), &[])?,
                    _ => {}
                }
                held.push_back(attach);
            }
            None => {
                refused += 1;
                std::thread::sleep(std::time::Duration::from_micros(100));
            }
        }
        if held.len() > HELD {
            held.pop_front();
        }
    }
    Ok(format!("{opened} connections opened, {} held, {refused} times the queue was full", held.len()))
}

/// M4: connections that go as soon as they have come.
pub(crate) fn connect_close(options: &Options) -> Done {
    let start = Instant::now();
    let (mut opened, mut refused) = (0u64, 0u64);
    while start.elapsed() < options.time {
        match try_connect(options)? {
            Some(_) => opened += 1,
            None => {
                refused += 1;
                std::thread::sleep(std::time::Duration::from_micros(100));
            }
        }
    }
    Ok(format!("{opened} connections opened and closed, {refused} times the queue was full"))
}

/// M4: so many guesses of the secret of the interface; none may be answered with ACK.
pub(crate) fn wrong_secrets(options: &Options) -> Done {
    const GUESSES: u32 = 1000;
    let (start, mut random) = (Instant::now(), Random::new(options.seed));
    for _ in 0..GUESSES {
        let attach = Attach::hello(options)?;
        let Message::Init(mut guess) = init(options) else { return Err("INIT is no INIT".into()) };
        guess.secret.fill_with(|| random.next() as u8);
        attach.say(&Message::Init(guess), &[])?;
        attach.refused("a guess of the secret")?;
    }
    Ok(format!("{GUESSES} guesses in {:?}", start.elapsed()))
}
