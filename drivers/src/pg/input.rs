//! `pg-input`: plays the streams of an interface into the graph.

use super::stream::{Source, Stream};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use wharf_engine::buffer::DATA_SIZE;
use wharf_engine::clock;
use wharf_engine::device::{DeviceInput, RxBurst};
use wharf_engine::ring::Consumer;

/// A stream that fell behind its rate by more than so many seconds (and a frame) does not make up for it.
const MAX_LAG: f64 = 0.1;

/// A stream on the worker.
#[derive(Debug)]
struct Player {
    stream: Arc<Stream>,
    /// The run that the rest is about.
    run: u64,
    packets: u64,
    bytes: u64,
    /// Time of packet number `base`, from which on the rate counts.
    since: u64,
    base: u64,
}

impl Player {
    /// Plays up to `rx.room()` packets. Returns whether there are more to play at once.
    fn play(&mut self, rx: &mut RxBurst<'_>) -> bool {
        let Some(run) = self.stream.playing() else { return false };
        let now = rx.now();
        if run != self.run {
            (self.run, self.packets, self.bytes) = (run, 0, 0);
            (self.since, self.base) = (now, 0);
        }
        let owed = self.owed(now);
        let mut want = owed.min(rx.room() as u64);
        if self.stream.config.max_frame != 0 {
            want = want.min(self.stream.config.max_frame.into());
        }
        let Player { stream, packets, bytes, .. } = self;
        let mut fresh = rx.fresh(want as usize);
        for _ in 0..fresh.left() {
            let Some(to) = fresh.slot(0) else { break };
            // SAFETY: a slot has DATA_SIZE bytes of the pool's mapping, which the kernel initialised; until `commit`
            // they belong to `fresh` alone.
            let to = unsafe { std::slice::from_raw_parts_mut(to, DATA_SIZE) };
            let len = match &stream.config.source {
                Source::Template(template) => template.build(*packets, to),
                Source::Replay(replay) => {
                    let packet = replay.get(*packets);
                    let len = packet.len().min(to.len());
                    to[..len].copy_from_slice(&packet[..len]);
                    len
                }
            };
            fresh.commit(len as u16);
            *packets += 1;
            *bytes += len as u64;
        }
        stream.played(run, *packets, *bytes);
        owed > want
    }

    /// Packets that are due at `now`.
    fn owed(&mut self, now: u64) -> u64 {
        let config = &self.stream.config;
        let left = if config.limit == 0 { u64::MAX } else { config.limit.saturating_sub(self.packets) };
        if config.rate <= 0.0 {
            return left;
        }
        // The first packet is due at once.
        let due = (now.saturating_sub(self.since) as f64 * config.rate / 1e9) as u64 + 1;
        let owed = due.saturating_sub(self.packets - self.base);
        if owed as f64 > config.rate * MAX_LAG + 256.0 {
            (self.since, self.base) = (now, self.packets);
            return left.min(1);
        }
        left.min(owed)
    }

    /// Nanoseconds from `now` until a packet is due.
    fn due(&self, now: u64) -> Option<u64> {
        let run = self.stream.playing()?;
        let rate = self.stream.config.rate;
        if run != self.run || rate <= 0.0 {
            return Some(0);
        }
        let at = self.since.saturating_add(((self.packets - self.base) as f64 * 1e9 / rate).ceil() as u64);
        Some(at.saturating_sub(now))
    }
}

/// The receive queue of a pg interface.
#[derive(Debug)]
pub struct PgInput {
    added: Consumer<Arc<Stream>>,
    players: Vec<Player>,
    /// Who plays first: another one each time, so that a fast stream does not keep the others from it.
    turn: usize,
    /// Written by main when there is something to look at.
    wake: Arc<OwnedFd>,
}

impl PgInput {
    pub(super) fn new(added: Consumer<Arc<Stream>>, wake: Arc<OwnedFd>) -> PgInput {
        PgInput { added, players: Vec::new(), turn: 0, wake }
    }

    fn take_added(&mut self) {
        while let Some(stream) = self.added.pop() {
            self.players.push(Player { stream, run: 0, packets: 0, bytes: 0, since: 0, base: 0 });
        }
    }
}

impl DeviceInput for PgInput {
    fn node(&self) -> &'static str {
        "pg-input"
    }

    fn poll(&mut self, rx: &mut RxBurst<'_>) -> bool {
        self.take_added();
        self.players.retain(|p| !p.stream.is_deleted());
        let n = self.players.len();
        let mut more = false;
        for i in 0..n {
            if rx.room() == 0 {
                more = true;
                break;
            }
            let at = (self.turn + i) % n;
            more |= self.players[at].play(rx);
        }
        self.turn = if n == 0 { 0 } else { (self.turn + 1) % n };
        more
    }

    fn fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.wake.as_fd())
    }

    fn arm(&mut self) -> bool {
        self.added.is_empty() && self.due(clock::nanos()) != Some(0)
    }

    fn disarm(&mut self) {
        let mut count = [0; 8];
        // Nonblocking; nothing to read is fine.
        let _ = rustix::io::read(&*self.wake, &mut count);
    }

    fn due(&self, now: u64) -> Option<u64> {
        self.players.iter().filter_map(|p| p.due(now)).min()
    }
}

#[cfg(test)]
mod tests {
    use super::super::stream::StreamConfig;
    use super::super::template::Template;
    use super::*;

    fn player(rate: f64, limit: u64) -> Player {
        let source = Source::Template(Template::constant(vec![0; 60]));
        let stream =
            Arc::new(Stream::new(StreamConfig { name: "s".into(), limit, rate, max_frame: 0, source }));
        stream.enable();
        Player { stream, run: 1, packets: 0, bytes: 0, since: 1000, base: 0 }
    }

    #[test]
    fn packets_fall_due_at_the_rate() {
        let mut p = player(1e6, 0);
        assert_eq!((p.due(1000), p.owed(1000)), (Some(0), 1));
        p.packets = 1;
        assert_eq!((p.due(1000), p.owed(1000)), (Some(1000), 0));
        assert_eq!((p.due(1999), p.owed(1999)), (Some(1), 0));
        assert_eq!((p.due(2000), p.owed(2000)), (Some(0), 1));
        assert_eq!(p.owed(11_000), 10);
        p.packets = 11;
        assert_eq!(p.due(11_000), Some(1000));
        let mut slow = player(0.5, 0);
        slow.packets = 1;
        assert_eq!(slow.due(1000), Some(2_000_000_000));
        assert_eq!((slow.owed(2_000_000_999), slow.owed(2_000_001_000)), (0, 1));
    }

    #[test]
    fn lost_time_is_not_made_up_for() {
        let mut p = player(1e6, 0);
        p.packets = 1;
        let second = 1_000_000_000;
        assert_eq!(p.owed(1000 + second / 20), 50_000, "a little is");
        assert_eq!(p.owed(1000 + second), 1);
        p.packets += 1;
        assert_eq!(p.owed(1000 + second), 0);
        assert_eq!(p.owed(1000 + second + 5000), 5);
    }

    #[test]
    fn a_limit_is_a_limit() {
        let mut p = player(0.0, 10);
        p.packets = 7;
        assert_eq!((p.owed(0), p.due(0)), (3, Some(0)));
        let mut p = player(1e9, 10);
        p.packets = 9;
        assert_eq!(p.owed(1100), 1);
        p.stream.played(1, 10, 600);
        assert_eq!(p.due(1100), None, "done");
        p.stream.enable();
        assert_eq!(p.due(1100), Some(0), "a new run");
        p.stream.disable();
        assert_eq!(p.due(1100), None);
    }
}
