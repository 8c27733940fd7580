//! The load at a set rate: how long packets take, whether any are lost, and how long none comes.
//!
//! Packets come back in the order in which they were sent, so the time of sending is kept here, by number, and no packet
//! carries it. Of each burst that comes back one packet is read, whose identification tells whether others were lost.
//!
//! The load itself may lose its core for a while. What was on its way then says nothing about the program under test: it
//! is not counted, and said to be so.

use std::time::{Duration, Instant};

use wharf_engine::clock::ticks;

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
/// After the end, for what is on its way.
const LEAD_OUT: Duration = Duration::from_millis(50);

/// What was seen.
#[derive(Debug, Clone)]
pub(crate) struct Paced {
    /// Packets sent.
    pub(crate) sent: u64,
    /// Packets sent that did not come back.
    pub(crate) lost: u64,
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
    received: u64,
    lost: u64,
    times: Vec<u64>,
    /// Slots of the sending ring, as a power of two: what identifications are taken modulo.
    slots: u64,
    /// Identification of packet 0, once one was seen.
    first: Option<u64>,
}

impl Flight {
    /// The next packet has this identification: counts those that are missing before it.
    fn check(&mut self, identification: u16) {
        let id = u64::from(identification);
        let number = self.received + self.lost;
        let first = *self.first.get_or_insert(id.wrapping_sub(number) % self.slots);
        let missing = id.wrapping_sub(first).wrapping_sub(number) % self.slots;
        // More than are on their way can't be missing: somebody else's packet.
        if missing <= self.sent.saturating_sub(number + 1) {
            self.lost += missing;
        }
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
        let tick = wharf_engine::clock::ticks_per_second();
        let stall = (STALL.as_secs_f64() * tick) as u64;
        let per_tick = rate / tick;
        self.drain()?;
        let (Some(tx), Some(rx)) = (self.to.tx.first_mut(), self.from.rx.first_mut()) else {
            return Err("the peer grants no ring".into());
        };
        let mut seen = Paced {
            sent: 0,
            lost: 0,
            elapsed: Duration::ZERO,
            times: Histogram::new(),
            doubtful: 0,
            longest_gap: 0,
            longest_stall: 0,
        };
        let mut flight =
            Flight { sent: 0, received: 0, lost: 0, times: vec![0; IN_FLIGHT], slots, first: None };
        let begin = Instant::now();
        let start = ticks();
        // Packets below this number were on their way when the load had no core.
        let mut doubtful = 0;
        let (mut last, mut last_received, mut owed, mut turns) = (start, start, 0.0, 0u32);
        let mut ending = None;
        loop {
            let now = ticks();
            let turn = now.wrapping_sub(last);
            last = now;
            if turn > stall {
                seen.longest_stall = seen.longest_stall.max(turn);
                doubtful = flight.sent;
                last_received = now;
            } else if ending.is_none() {
                // What was not sent during a stall is not sent later.
                owed = (owed + turn as f64 * per_tick).min(BURST as f64 * 4.0);
            }
            let room = (IN_FLIGHT as u64 - 1).saturating_sub(flight.sent - flight.received - flight.lost);
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
            let (mut n, mut example) = (0u64, None);
            rx.receive_with(256, |packet| {
                if example.is_none() {
                    let mut head = [0; 20];
                    packet.copy_to(&mut head);
                    example = Some(identification(&head));
                }
                n += 1;
            });
            if let Some(example) = example {
                let now = ticks();
                flight.check(example);
                let number = flight.received + flight.lost;
                let mut same = (0, 0);
                for number in number..number + n {
                    if number < doubtful {
                        seen.doubtful += 1;
                        continue;
                    }
                    // Packets that were sent together, and came together, are counted together.
                    let time = flight.times[number as usize % IN_FLIGHT];
                    if same.0 != time && same.1 != 0 {
                        seen.times.add(now.wrapping_sub(same.0), same.1);
                        same.1 = 0;
                    }
                    same = (time, same.1 + 1);
                }
                if same.1 != 0 {
                    seen.times.add(now.wrapping_sub(same.0), same.1);
                }
                flight.received += n;
                if number >= doubtful {
                    seen.longest_gap = seen.longest_gap.max(now.wrapping_sub(last_received));
                }
                last_received = now;
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
        let mut flight =
            Flight { sent: 100, received: 0, lost: 0, times: Vec::new(), slots: 16, first: None };
        flight.check(5);
        assert_eq!((flight.lost, flight.first), (0, Some(5)));
        flight.received += 12;
        flight.check(1);
        assert_eq!(flight.lost, 0, "5 and 12 is 17");
        flight.received += 2;
        flight.check(6);
        assert_eq!(flight.lost, 3);
        flight.sent = flight.received + flight.lost + 1;
        flight.check(9);
        assert_eq!(flight.lost, 3, "so many are not on their way");
    }
}
