//! Whose handshake goes first when many want to connect: bounds on what a process may start, and shares of a socket.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::socket::PeerCredentials;

/// Connections taken from the kernel's queue in [`WINDOW`], whoever they are of: what a flood costs us at most.
const ACCEPTS: u32 = 32;
const WINDOW: Duration = Duration::from_millis(1);
/// Handshakes that a process may start at once, and the time to earn one more: 200 a second in the long run.
const BURST: u32 = 256;
const EARN: Duration = Duration::from_millis(5);
/// Processes whose handshakes are counted; the one that tried last the longest ago is forgotten.
const MAX_PROCESSES: usize = 64;

/// Where a peer is, as far as it can't choose: its user and its network namespace, which is the container's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Origin {
    uid: u32,
    /// Inode; 0 if /proc does not tell.
    namespace: u64,
}

/// Who wants to connect, as the kernel says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Claimant {
    origin: Origin,
    pid: i32,
}

impl Claimant {
    pub(crate) fn new(peer: Option<PeerCredentials>) -> Self {
        let origin = Origin {
            uid: peer.map_or(u32::MAX, |p| p.uid),
            namespace: peer.and_then(|p| p.network_namespace_inode()).unwrap_or(0),
        };
        Self { origin, pid: peer.map_or(0, |p| p.pid) }
    }

    pub(crate) fn origin(&self) -> Origin {
        self.origin
    }
}

/// How many of `all` are of the claimant's origin, and how many of them of its process. Compared in this order, so that
/// a container does not get more by having more processes.
fn share<'a>(claimant: &Claimant, all: impl Iterator<Item = &'a Claimant>) -> (usize, usize) {
    all.filter(|other| other.origin == claimant.origin).fold((0, 0), |(origin, process), other| {
        (origin + 1, process + usize::from(other.pid == claimant.pid))
    })
}

/// The first of those that have most of `all`.
pub(crate) fn heaviest(all: &[Claimant]) -> Option<usize> {
    // The last maximum is the one taken.
    (0..all.len()).rev().max_by_key(|i| all.get(*i).map(|c| share(c, all.iter())))
}

/// The first of `waiting` that has least of `held`.
pub(crate) fn lightest(waiting: &[Claimant], held: &[Claimant]) -> Option<usize> {
    (0..waiting.len()).min_by_key(|i| waiting.get(*i).map(|c| share(c, held.iter())))
}

/// Whether shares get more even if `held` gives a place of `from` to `to`.
pub(crate) fn evens_out(from: &Claimant, to: &Claimant, held: &[Claimant]) -> bool {
    let (has, wants) = (share(from, held.iter()), share(to, held.iter()));
    if from.origin == to.origin { has.1 > wants.1 + 1 } else { has.0 > wants.0 + 1 }
}

/// Tokens of one process.
#[derive(Debug)]
struct Bucket {
    /// Process and user.
    owner: (i32, u32),
    tokens: u32,
    since: Instant,
}

/// Bounds the rate of accepts, and that of the handshakes of each process.
#[derive(Debug)]
pub(crate) struct Rates {
    accepts: u32,
    window: Instant,
    /// The one that tried last is at the back.
    buckets: VecDeque<Bucket>,
}

impl Rates {
    pub(crate) fn new(now: Instant) -> Self {
        Self { accepts: 0, window: now, buckets: VecDeque::new() }
    }

    /// Whether a connection may be taken from the kernel's queue; else, when to come back.
    pub(crate) fn may_accept(&mut self, now: Instant) -> Result<(), Instant> {
        let end = self.window + WINDOW;
        if now >= end {
            (self.window, self.accepts) = (now, 0);
        }
        if self.accepts < ACCEPTS { Ok(()) } else { Err(end) }
    }

    pub(crate) fn accepted(&mut self) {
        self.accepts += 1;
    }

    /// Whether the process may start a handshake; if so, it is counted.
    pub(crate) fn may_start(&mut self, peer: Option<PeerCredentials>, now: Instant) -> bool {
        let owner = peer.map_or((0, u32::MAX), |p| (p.pid, p.uid));
        let known = self.buckets.iter().rposition(|b| b.owner == owner);
        let mut bucket =
            known.and_then(|i| self.buckets.remove(i)).unwrap_or(Bucket { owner, tokens: BURST, since: now });
        let earned = now.saturating_duration_since(bucket.since).as_micros() / EARN.as_micros();
        if earned > 0 {
            // What is earned of the next one is lost only where it does not matter: after a pause.
            let earned = u32::try_from(earned).unwrap_or(u32::MAX);
            bucket.tokens = bucket.tokens.saturating_add(earned).min(BURST);
            bucket.since = if bucket.tokens == BURST { now } else { bucket.since + EARN * earned };
        }
        let may = bucket.tokens > 0;
        bucket.tokens = bucket.tokens.saturating_sub(1);
        if self.buckets.len() >= MAX_PROCESSES {
            self.buckets.pop_front();
        }
        self.buckets.push_back(bucket);
        may
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claimant(namespace: u64, pid: i32) -> Claimant {
        Claimant { origin: Origin { uid: 0, namespace }, pid }
    }

    #[test]
    fn a_place_goes_from_who_has_most_to_who_has_least() {
        // One container with many processes, one with two handshakes of one process.
        let mut held: Vec<Claimant> = (1..=6).map(|pid| claimant(1, pid)).collect();
        held.push(claimant(1, 3));
        held.extend([claimant(2, 20), claimant(2, 20)]);
        assert_eq!(heaviest(&held), Some(2), "the first of process 3");
        let waiting = [claimant(1, 1), claimant(1, 9), claimant(2, 20), claimant(3, 30), claimant(3, 31)];
        assert_eq!(lightest(&waiting, &held), Some(3));
        assert_eq!(lightest(&waiting[..3], &held), Some(2));
        assert_eq!(lightest(&waiting[..2], &held), Some(1), "of one container, the process that has none");
        assert!(evens_out(&held[0], &claimant(3, 30), &held));
        assert!(evens_out(&held[0], &claimant(2, 21), &held));
        assert!(evens_out(&held[2], &claimant(1, 9), &held));
        assert!(!evens_out(&held[0], &claimant(1, 9), &held), "one for one");
        assert!(!evens_out(&held[7], &claimant(1, 9), &held));
        assert_eq!(heaviest(&[]), None);
    }

    #[test]
    fn a_process_that_hammers_uses_up_its_own_tokens() {
        let start = Instant::now();
        let peer = |pid| Some(PeerCredentials { pid, uid: 0, gid: 0 });
        let mut rates = Rates::new(start);
        assert_eq!((0..1000).filter(|_| rates.may_start(peer(1), start)).count(), BURST as usize);
        assert!(rates.may_start(peer(2), start));
        let later = start + Duration::from_millis(52);
        assert_eq!((0..1000).filter(|_| rates.may_start(peer(1), later)).count(), 10);
        assert!(rates.may_start(peer(1), start + Duration::from_millis(55)), "2 ms were not lost");
        // Strangers push out only who has been quiet.
        for pid in 100..200 {
            assert!(rates.may_start(peer(pid), later));
            assert!(!rates.may_start(peer(1), later));
        }
    }

    #[test]
    fn accepts_are_bounded_in_time() {
        let start = Instant::now();
        let mut rates = Rates::new(start);
        for _ in 0..ACCEPTS {
            assert_eq!(rates.may_accept(start), Ok(()));
            rates.accepted();
        }
        assert_eq!(rates.may_accept(start), Err(start + WINDOW));
        assert_eq!(rates.may_accept(start + WINDOW), Ok(()));
    }
}
