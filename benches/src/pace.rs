//! The load at a set rate: how long packets take, whether any are lost, and how long none comes.
//!
//! Packets come back in the order in which they were sent, so the time of sending is kept here, by number, and no packet
//! carries it. Of each burst that comes back one packet is read, whose identification tells whether others were lost.
//!
//! The load itself may lose its core for a while. What was on its way then says nothing about the program under test: it
//! is not counted, and said to be so.

use std::time::{Duration, Instant};

use memif::MAX_BURST;
use wharf_engine::clock::{ticks, ticks_per_second};

use crate::Result;
use crate::histogram::Histogram;
use crate::load::Load;
use crate::process::Stop;
use crate::traffic::identification;

/// A turn of the load's loop that takes longer is one in which it had lost its core.
const STALL: Duration = Duration::from_micros(10);
/// Packets on their way at most: a power of two, more than all rings together.
const IN_FLIGHT: usize = 1 << 16;
/// Packets sent at once at most.
const BURST: u64 = 64;
/// Packets that are sent late at most, when the ring was full.
const OWED: f64 = 256.0;
/// After the end, for what is on its way.
const LEAD_OUT: Duration = Duration::from_millis(50);

/// What was seen.
#[derive(Debug, Clone)]
pub(crate) struct Paced {
    /// Packets sent.
    pub(crate) sent: u64,
    /// Packets sent that did not come back.
    pub(crate) lost: u64,
    /// Those of them that were on their way when the load had lost its core: it left its ring to run full.
    pub(crate) lost_in_stalls: u64,
    /// Over this time.
    pub(crate) elapsed: Duration,
    /// How long packets took, in ticks.
    pub(crate) times: Histogram,
    /// Packets that were on their way when the load lost its core: they are not in `times`.
    pub(crate) doubtful: u64,
    /// The longest time without a packet, in ticks, in which the load had its core.
    pub(crate) longest_gap: u64,
    /// The longest time, in ticks, for which the load had lost its core.
    pub(crate) longest_stall: u64,
}

/// Numbers of packets and the times that belong to them.
struct Flight {
    sent: u64,
    /// Came back, or were found missing.
    done: u64,
    received: u64,
    times: Vec<u64>,
    /// Slots of the sending ring, as a power of two: what identifications are taken modulo.
    slots: u64,
    /// Identification of packet 0, once one was seen.
    first: Option<u64>,
    /// Packets below this number were on their way when the load had no core.
    doubtful: u64,
}

impl Flight {
    fn new(slots: u64) -> Self {
        Flight { sent: 0, done: 0, received: 0, times: vec![0; IN_FLIGHT], slots, first: None, doubtful: 0 }
    }

    /// The next packet has this identification. Returns how many are missing before it.
    fn missing(&mut self, identification: u16) -> u64 {
        let id = u64::from(identification);
        let first = *self.first.get_or_insert(id.wrapping_sub(self.done) % self.slots);
        let missing = id.wrapping_sub(first).wrapping_sub(self.done) % self.slots;
        // More than are on their way can't be missing: somebody else's packet.
        if missing < self.sent.saturating_sub(self.done) { missing } else { 0 }
    }
}

impl Paced {
    fn new() -> Self {
        Paced {
            sent: 0,
            lost: 0,
            lost_in_stalls: 0,
            elapsed: Duration::ZERO,
            times: Histogram::new(),
            doubtful: 0,
            longest_gap: 0,
            longest_stall: 0,
        }
    }

    /// `n` packets came at `now`, the first of which has this identification.
    fn take(&mut self, flight: &mut Flight, n: u64, identification: u16, now: u64) {
        let missing = flight.missing(identification);
        if flight.done < flight.doubtful {
            self.lost_in_stalls += missing.min(flight.doubtful - flight.done);
        }
        flight.done += missing;
        // Packets that were sent together, and came together, are counted together.
        let mut same = (0, 0);
        for number in flight.done..flight.done + n {
            if number < flight.doubtful {
                self.doubtful += 1;
                continue;
            }
            let time = flight.times[number as usize % IN_FLIGHT];
            if same.0 != time && same.1 != 0 {
                self.times.add(now.wrapping_sub(same.0), same.1);
                same.1 = 0;
            }
            same = (time, same.1 + 1);
        }
        if same.1 != 0 {
            self.times.add(now.wrapping_sub(same.0), same.1);
        }
        flight.done += n;
        flight.received += n;
    }
}

impl Load {
    /// Sends `rate` packets a second, spread as evenly as may be, until `done`.
    pub(crate) fn pace(
        &mut self,
        rate: f64,
        stop: &Stop,
        mut done: impl FnMut(Duration) -> bool,
    ) -> Result<Paced> {
        let length = self.traffic.length();
        let slots = 1 << self.traffic.log2_ring_size;
        let tick = ticks_per_second();
        let stall = (STALL.as_secs_f64() * tick) as u64;
        let per_tick = rate / tick;
        self.drain()?;
        let (Some(tx), Some(rx)) = (self.to.tx.first_mut(), self.from.rx.first_mut()) else {
            return Err("the peer grants no ring".into());
        };
        let (mut seen, mut flight) = (Paced::new(), Flight::new(slots));
        let begin = Instant::now();
        let start = ticks();
        let (mut last, mut last_received, mut owed, mut turns) = (start, start, 0.0, 0u32);
        let mut ending = None;
        loop {
            let now = ticks();
            if ending.is_none() {
                owed = (owed + now.wrapping_sub(last) as f64 * per_tick).min(OWED);
            }
            let room = (IN_FLIGHT as u64 - 1).saturating_sub(flight.sent - flight.done);
            let due = (owed as u64).min(BURST).min(room);
            if due != 0 && ending.is_none() {
                let n = tx.raw_publish(due as u16, length) as u64;
                tx.kick();
                owed -= n as f64;
                for number in flight.sent..flight.sent + n {
                    flight.times[number as usize % IN_FLIGHT] = now;
                }
                flight.sent += n;
            }
            let (mut n, mut first) = (0u64, None);
            rx.receive_with(MAX_BURST, |packet| {
                if n == 0 {
                    let mut head = [0; 20];
                    packet.copy_to(&mut head);
                    first = Some(identification(&head));
                }
                n += 1;
            });
            let after = ticks();
            // From the last look at the ring to this one, with all that is between.
            let turn = after.wrapping_sub(last);
            if turn > stall {
                seen.longest_stall = seen.longest_stall.max(turn);
                flight.doubtful = flight.sent;
                last_received = after;
                owed = 0.0;
            }
            last = if turn > stall { after } else { now };
            if let Some(first) = first {
                seen.take(&mut flight, n, first, after);
                seen.longest_gap = seen.longest_gap.max(after.wrapping_sub(last_received));
                last_received = after;
            }
            turns += 1;
            match ending {
                None if turns.is_multiple_of(256) => {
                    stop.check()?;
                    if done(begin.elapsed()) {
                        seen.elapsed = begin.elapsed();
                        ending = Some(Instant::now());
                    }
                }
                Some(since) if turns.is_multiple_of(256) && since.elapsed() > LEAD_OUT => break,
                _ => {}
            }
        }
        seen.sent = flight.sent;
        seen.lost = flight.sent.saturating_sub(flight.received);
        self.alive()?;
        Ok(seen)
    }

    /// Waits until nothing is on its way.
    fn drain(&mut self) -> Result<()> {
        let Some(rx) = self.from.rx.first_mut() else { return Err("the peer grants no ring".into()) };
        let mut last = Instant::now();
        while last.elapsed() < LEAD_OUT {
            if rx.raw_discard(true) != 0 {
                last = Instant::now();
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_packets_are_counted_where_they_are_missed() {
        let (mut seen, mut flight) = (Paced::new(), Flight::new(16));
        flight.sent = 100;
        seen.take(&mut flight, 12, 5, 0);
        assert_eq!((flight.done, flight.first), (12, Some(5)));
        seen.take(&mut flight, 2, 1, 0);
        assert_eq!(flight.done, 14, "5 and 12 is 17");
        flight.doubtful = 15;
        seen.take(&mut flight, 1, 6, 0);
        assert_eq!((flight.done, flight.received), (18, 15), "three are missing");
        assert_eq!((seen.lost_in_stalls, seen.doubtful), (1, 0), "the first of them in a stall");
        flight.sent = flight.done + 1;
        seen.take(&mut flight, 1, 12, 0);
        assert_eq!(flight.done, 19, "so many are not on their way");
    }

    #[test]
    fn times_are_those_of_the_packets_that_came() {
        let (mut seen, mut flight) = (Paced::new(), Flight::new(16));
        flight.sent = 10;
        flight.times[..10].copy_from_slice(&[0, 10, 20, 30, 40, 50, 60, 70, 80, 90]);
        flight.doubtful = 2;
        seen.take(&mut flight, 3, 0, 30);
        assert_eq!((seen.doubtful, seen.times.total(), seen.times.quantile(1.0)), (2, 1, 10));
        seen.take(&mut flight, 1, 5, 100);
        assert_eq!((seen.times.total(), seen.times.quantile(1.0)), (2, 50));
    }
}
