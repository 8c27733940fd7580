//! What a client can do wrong once it is connected. Rings: 0 to `queues - 1` to the server, then those from it.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use memif::wire::{self, DESC_FLAG_NEXT, Descriptor, RING_FLAG_MASK_INT};
use rustix::fs::{FallocateFlags, OFlags};

use crate::Options;
use crate::attach::{Attach, Link};
use crate::memory::{BUFFER, Memory, Random};

type Done = Result<String, String>;

/// Bytes of our own packets, which may come back.
pub(crate) const MINE: u8 = 0x5a;

/// Traffic as it should be: packets out of ring 0, and what comes into ring `queues` taken and posted again.
#[derive(Debug, Default)]
struct Traffic {
    head: Option<u16>,
    posted: Option<u16>,
    seen: u16,
    sent: u64,
    received: u64,
}

impl Traffic {
    fn turn(&mut self, link: &Link, start: u16) {
        let Memory { queues, .. } = link.memory;
        let memory = &link.memory;
        let head = self.head.get_or_insert(start);
        for _ in 0..32 {
            if head.wrapping_sub(memory.tail(0)) >= memory.slots() {
                break;
            }
            let mut packet = [MINE; 100];
            packet[..6].fill(0xff);
            memory.fill(0, *head, &packet);
            *head = head.wrapping_add(1);
            self.sent += 1;
        }
        memory.set_head(0, *head);
        let posted = self.posted.get_or_insert_with(|| {
            self.seen = start;
            start.wrapping_add(memory.slots())
        });
        let arrived = memory.tail(queues).wrapping_sub(self.seen).min(memory.slots());
        for _ in 0..arrived {
            memory.describe(queues, self.seen, memory.empty(queues, self.seen));
            self.seen = self.seen.wrapping_add(1);
            *posted = posted.wrapping_add(1);
        }
        self.received += u64::from(arrived);
        memory.set_head(queues, *posted);
        let _ = rustix::io::write(&link.events[0], &1u64.to_ne_bytes());
    }
}

/// One thing that is written where it must not be.
fn scribble(memory: &Memory, what: u64, random: &mut Random) {
    let ring = random.below(2) as u16;
    let slot = random.below(memory.slots().into()) as u16;
    let own = memory.empty(ring, slot);
    match what {
        0 => memory.set_head(ring, random.next() as u16),
        1 => memory.set_tail(ring, random.next() as u16),
        2 => memory.set_u32(memory.ring(ring), random.next() as u32),
        3 => memory.set_u16(memory.ring(ring) + wire::ring::FLAGS as u32, random.next() as u16),
        4 => {
            memory.set_u64(memory.slot(ring, slot), random.next());
            memory.set_u64(memory.slot(ring, slot) + 8, random.next());
        }
        5 => {
            let lengths = [0, 1, 60, 2048, 9000, 9216, 9217, 65535, 65536, 0x7fff_ffff, u32::MAX];
            let length = lengths[random.below(lengths.len() as u64) as usize];
            memory.describe(ring, slot, Descriptor { length, ..own });
        }
        6 => {
            for slot in 0..memory.slots() {
                memory.describe(ring, slot, Descriptor { flags: DESC_FLAG_NEXT, length: 60, ..own });
            }
        }
        7 => memory.describe(ring, slot, Descriptor { region: random.next() as u16, ..own }),
        8 => {
            let size = memory.size;
            let offsets = [size - 1, size - 60, size - 59, size, u32::MAX, u32::MAX - 59, 0, memory.ring(1)];
            let offset = offsets[random.below(offsets.len() as u64) as usize];
            memory.describe(ring, slot, Descriptor { offset, length: 60, ..own });
        }
        // A chain of small pieces, as a good client may send it, and now and then one too many.
        _ => {
            for i in 0..random.below(20) as u16 {
                let flags = if random.below(8) == 0 { 0 } else { DESC_FLAG_NEXT };
                memory.describe(ring, slot.wrapping_add(i), Descriptor { flags, length: 40, ..own });
            }
        }
    }
}

/// Kinds of [`scribble`].
pub(crate) const KINDS: u64 = 10;

/// Lets traffic flow, a `turn` at a time, while a second thread writes to the rings at full speed: one kind of thing, or all with
/// [`KINDS`]. Whether the peer ended it.
pub(crate) fn attacked(
    memory: &Memory,
    attach: &Attach,
    kind: u64,
    seed: u64,
    mut turn: impl FnMut(),
) -> bool {
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut random = Random::new(seed);
            while !done.load(Ordering::Relaxed) {
                let what = if kind == KINDS { random.below(KINDS) } else { kind };
                scribble(memory, what, &mut random);
                // What ends the connection at once leaves the rest untried: at first a little traffic.
                if what < 2 {
                    std::thread::sleep(Duration::from_millis(20));
                }
            }
        });
        let start = Instant::now();
        let mut ended = false;
        while !ended && start.elapsed() < Duration::from_millis(150) {
            turn();
            ended = attach.ended();
        }
        done.store(true, Ordering::Relaxed);
        ended
    })
}

/// M5: a second thread writes to the rings at full speed while traffic flows; one kind at a time, then all of them.
pub(crate) fn rings(options: &Options) -> Done {
    let (start, mut random) = (Instant::now(), Random::new(options.seed));
    let (mut attached, mut ended, mut sent, mut received) = (0, 0, 0, 0);
    while start.elapsed() < options.time {
        let link = Link::up(options, 1, 4 + random.below(5) as u8, 0)?;
        let kind = attached % (KINDS + 1);
        attached += 1;
        let mut traffic = Traffic::default();
        let turn = || traffic.turn(&link, 0);
        ended += u64::from(attacked(&link.memory, &link.attach, kind, random.next(), turn));
        sent += traffic.sent;
        received += traffic.received;
        link.memory.scan(&options.canary)?;
    }
    Ok(format!(
        "{attached} times attached, {ended} times ended by the server, {sent} sent, {received} received"
    ))
}

/// M6: holes are punched into the region at full speed while traffic flows.
pub(crate) fn holes(options: &Options) -> Done {
    let link = Link::up(options, 1, 8, 0)?;
    let done = AtomicBool::new(false);
    let mut traffic = Traffic::default();
    let mut punched = 0u64;
    std::thread::scope(|scope| {
        let puncher = scope.spawn(|| {
            let (mut random, mut punched) = (Random::new(options.seed), 0u64);
            let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            while !done.load(Ordering::Relaxed) {
                let page = random.below(u64::from(link.memory.size) / 4096);
                // Not the rings themselves at first: traffic would end with them.
                let page = if punched < 10_000 { page.max(8) } else { page };
                punched +=
                    u64::from(rustix::fs::fallocate(&link.memory.fd, flags, page * 4096, 4096).is_ok());
            }
            punched
        });
        let start = Instant::now();
        while start.elapsed() < options.time {
            traffic.turn(&link, 0);
        }
        done.store(true, Ordering::Relaxed);
        punched = puncher.join().unwrap_or(0);
    });
    // It must not be possible to take memory away.
    if rustix::fs::ftruncate(&link.memory.fd, 0).is_ok() {
        return Err("the region can be cut".into());
    }
    link.memory.scan(&options.canary)?;
    Ok(format!("{punched} holes, {} sent, {} received", traffic.sent, traffic.received))
}

/// M6: traffic without end; somebody else kills or stops this process.
pub(crate) fn burst(options: &Options) -> Done {
    let link = Link::up(options, 1, 10, 0)?;
    let mut traffic = Traffic::default();
    let start = Instant::now();
    while start.elapsed() < options.time {
        traffic.turn(&link, 0);
    }
    Ok(format!("{} sent, {} received", traffic.sent, traffic.received))
}

/// M6: a child keeps all descriptors for a while after this process has gone.
pub(crate) fn fork(options: &Options) -> Done {
    let link = Link::up(options, 1, 4, 0)?;
    Traffic::default().turn(&link, 0);
    for fd in [link.attach.fd.as_fd(), link.memory.fd.as_fd()] {
        rustix::io::fcntl_setfd(fd, rustix::io::FdFlags::empty()).map_err(|e| format!("fcntl: {e}"))?;
    }
    let seconds = options.time.as_secs_f32().to_string();
    let child = std::process::Command::new("sleep").arg(seconds).spawn();
    let child = child.map_err(|e| format!("sleep: {e}"))?;
    Ok(format!("process {} keeps the descriptors", child.id()))
}

/// M6: descriptors and mapping go, but for the socket.
pub(crate) fn close_all(options: &Options) -> Done {
    let Link { attach, memory, events } = {
        let link = Link::up(options, 1, 4, 0)?;
        Traffic::default().turn(&link, 0);
        link
    };
    drop((memory, events));
    std::thread::sleep(options.time);
    let ended = attach.ended();
    Ok(format!("closed; ended by the server: {ended}"))
}

/// Makes a shared open file blocking or not, as the peer can.
fn set_blocking(event: &OwnedFd, blocking: bool) {
    let flags = if blocking { OFlags::empty() } else { OFlags::NONBLOCK };
    let _ = rustix::fs::fcntl_setfl(event, flags);
}

/// M7: the eventfds are made blocking, and a thread fills and empties their counters at full speed.
pub(crate) fn eventfds(options: &Options) -> Done {
    let link = Link::up(options, 1, 8, 0)?;
    let done = AtomicBool::new(false);
    let mut traffic = Traffic::default();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let full = (u64::MAX - 1).to_ne_bytes();
            while !done.load(Ordering::Relaxed) {
                for event in &link.events {
                    // Without blocking itself.
                    set_blocking(event, false);
                    let _ = rustix::io::write(event, &full);
                    set_blocking(event, true);
                }
                // Now and then they stay full, or are emptied between a look and a write.
                set_blocking(&link.events[1], false);
                let _ = rustix::io::read(&link.events[1], &mut [0; 8]);
                set_blocking(&link.events[1], true);
                // Interrupts, please.
                link.memory.set_u16(link.memory.ring(1) + wire::ring::FLAGS as u32, 0);
            }
            link.events.iter().for_each(|event| set_blocking(event, false));
        });
        let start = Instant::now();
        while start.elapsed() < options.time {
            set_blocking(&link.events[0], false);
            traffic.turn(&link, 0);
        }
        done.store(true, Ordering::Relaxed);
    });
    link.memory.scan(&options.canary)?;
    Ok(format!("{} sent, {} received", traffic.sent, traffic.received))
}

/// M7: interrupts without packets, as many as there can be.
pub(crate) fn storm(options: &Options) -> Done {
    let link = Link::up(options, 1, 4, 0)?;
    let (start, mut count) = (Instant::now(), 0u64);
    while start.elapsed() < options.time {
        // Never masked, whatever the server wishes.
        link.memory.set_u16(link.memory.ring(0) + wire::ring::FLAGS as u32, 0);
        count += u64::from(rustix::io::write(&link.events[0], &1u64.to_ne_bytes()).is_ok());
    }
    let masked = link.memory.u16(link.memory.ring(0) + wire::ring::FLAGS as u32) & RING_FLAG_MASK_INT;
    Ok(format!("{count} interrupts, masked {masked}"))
}

/// M8: attaches with 16 queues, sends a little, goes; again and again, 200 times at least.
pub(crate) fn churn(options: &Options) -> Done {
    let (start, mut count, mut sent) = (Instant::now(), 0, 0);
    while count < 200 || start.elapsed() < options.time {
        let link = Link::up(options, 16, 5, 0)?;
        let mut traffic = Traffic::default();
        for _ in 0..20 {
            traffic.turn(&link, 0);
        }
        sent += traffic.sent;
        count += 1;
    }
    Ok(format!("{count} times attached, {sent} sent"))
}

/// M11: indices that wrap soon; here nothing is wrong, so every packet must come back (the interface is connected to
/// itself through another, or to a second attachment that sends back).
pub(crate) fn wrap(options: &Options) -> Done {
    let mut total = 0;
    for start in [0xfff0, 0xffff, 0x7ff8] {
        let link = Link::up(options, 1, 4, start)?;
        let mut traffic = Traffic::default();
        let limit = Instant::now();
        while traffic.sent < 2000 {
            traffic.turn(&link, start);
            if link.attach.ended() || limit.elapsed() > Duration::from_secs(10) {
                return Err(format!("from index {start:#x} on: {traffic:?}"));
            }
        }
        while link.memory.tail(0) != link.memory.head(0) {
            if limit.elapsed() > Duration::from_secs(10) {
                return Err(format!("not all taken from index {start:#x} on: {traffic:?}"));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        let first = link.memory.contents(0, start, BUFFER.min(8));
        if first != [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, MINE, MINE] {
            return Err(format!("the server wrote into a packet of mine: {first:02x?}"));
        }
        total += traffic.sent;
    }
    Ok(format!("{total} sent"))
}
