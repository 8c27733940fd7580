//! The load: a memif client that sends and counts at next to no cost.
//!
//! Every buffer of the transmit ring is filled once, with a packet of its own. From then on only descriptors move: all
//! slots that the program under test has freed are sent again, and what it sends is counted by its index and given back
//! unread. Before and after that, packets are read and compared with what the path makes of them.
//!
//! Writing a descriptor takes its line away from the other core, as every real client does. What that costs the program
//! under test depends on the machine, and on a shared one on the hour. So the load has a second [`Mode`] that leaves the
//! descriptors alone too, and shows what the program's own work costs.

use std::ops::Range;
use std::path::Path;
use std::time::{Duration, Instant};

use clap::ValueEnum;
use memif::{Address, Client, ClientConfig, Connection};
use serde::Serialize;

use crate::Result;
use crate::process::Stop;
use crate::traffic::{Arrives, Traffic, Writer};

/// Time for the program under test to come up, and for the first packet to come through.
const PATIENCE: Duration = Duration::from_secs(20);
/// Reading packets, before and after the measurement.
const READING: Duration = Duration::from_millis(200);
/// Sending at full speed before counting begins.
const LEAD_IN: Duration = Duration::from_millis(200);
/// Packets published together at most: a burst of an application that has many.
const BURST: u16 = 256;
/// Turns of the loop between two looks at the clock, a fraction of a microsecond each.
const TURNS: u32 = 64;

/// What the load writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Mode {
    /// Descriptors and indices, as an application does
    Descriptors,
    /// Indices only
    Indices,
    /// Whole packets, to destinations that differ all the time
    Packets,
}

/// What was counted.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Sample {
    /// Packets that the program under test took.
    pub(crate) sent: u64,
    /// Packets that it sent on.
    pub(crate) received: u64,
    /// Over this time.
    pub(crate) elapsed: Duration,
    /// Part of the looks at the transmit ring that found it empty: the program may have waited for the load then.
    pub(crate) starved: f64,
}

impl Sample {
    /// Packets a second.
    pub(crate) fn rate(&self) -> f64 {
        self.received as f64 / self.elapsed.as_secs_f64()
    }
}

/// Two connections to a program under test.
#[derive(Debug)]
pub(crate) struct Load {
    pub(crate) to: Connection,
    pub(crate) from: Connection,
    pub(crate) traffic: Traffic,
    arrives: Arrives,
    /// Connections that stay silent.
    silent: Vec<Connection>,
}

impl Load {
    /// Connects to the two sockets, interface 0 each, as soon as somebody listens. `check` says why to give up.
    pub(crate) fn connect(
        sockets: [&Path; 2],
        traffic: Traffic,
        arrives: Arrives,
        mut check: impl FnMut() -> Result<()>,
    ) -> Result<Self> {
        let receiving = Traffic::default();
        let mut to = connect(sockets[0], 0, traffic, &mut check)?;
        let from = connect(sockets[1], 0, receiving, &mut check)?;
        if !to.tx.first_mut().is_some_and(|tx| tx.raw_fill(|n| traffic.packet(n))) || from.rx.is_empty() {
            return Err("the peer grants no ring".into());
        }
        Ok(Self { to, from, traffic, arrives, silent: Vec::new() })
    }

    /// Connects to further interfaces, `ids` of `socket`, which then have nothing to receive.
    pub(crate) fn add_silent(
        &mut self,
        socket: &Path,
        ids: Range<u32>,
        mut check: impl FnMut() -> Result<()>,
    ) -> Result<()> {
        let traffic = Traffic { log2_ring_size: 4, ..Traffic::default() };
        for id in ids {
            self.silent.push(connect(socket, id, traffic, &mut check)?);
        }
        Ok(())
    }

    /// An error if a connection has ended.
    pub(crate) fn alive(&mut self) -> Result<()> {
        for link in [&mut self.to, &mut self.from] {
            if let Some(reason) = link.control.process() {
                return Err(format!("the memif connection ended: {reason}"));
            }
        }
        Ok(())
    }

    /// Sends, and reads what comes back, until that has gone well for a while.
    pub(crate) fn verify(&mut self, stop: &Stop) -> Result<()> {
        let start = Instant::now();
        let mut first = None;
        let (mut good, mut bad, mut example) = (0u64, 0u64, Vec::new());
        let mut buffers = vec![[0u8; 2048]; 64];
        let mut lengths = [0; 64];
        while first.is_none_or(|first: Instant| first.elapsed() < READING) {
            let (Some(tx), Some(rx)) = (self.to.tx.first_mut(), self.from.rx.first_mut()) else { break };
            tx.raw_publish(BURST, self.traffic.length());
            tx.kick();
            let n = rx.receive_into(&mut buffers, &mut lengths);
            for (buffer, len) in buffers.iter().zip(lengths).take(n) {
                let packet = buffer.get(..len).unwrap_or_default();
                if self.traffic.is_mine(self.arrives, packet) {
                    good += 1;
                    first.get_or_insert_with(Instant::now);
                } else {
                    bad += 1;
                    if example.is_empty() {
                        example = packet.to_vec();
                    }
                }
            }
            stop.check()?;
            if n == 0 {
                self.alive()?;
            }
            if first.is_none() && start.elapsed() > PATIENCE {
                return Err(format!(
                    "no packet came through in {PATIENCE:?}; {bad} others, as {example:02x?}"
                ));
            }
        }
        // A gratuitous ARP or the like is no fault.
        if bad > 10 {
            return Err(format!("of {} packets {bad} are not as they should be: {example:02x?}", good + bad));
        }
        Ok(())
    }

    /// Sends as fast as the program under test takes packets, and counts for so long.
    pub(crate) fn measure(&mut self, mode: Mode, time: Duration, stop: &Stop) -> Result<Sample> {
        self.count(mode, LEAD_IN, stop)?;
        self.count(mode, time, stop)
    }

    fn count(&mut self, mode: Mode, time: Duration, stop: &Stop) -> Result<Sample> {
        let (Some(tx), Some(rx)) = (self.to.tx.first_mut(), self.from.rx.first_mut()) else {
            return Err("the peer grants no ring".into());
        };
        let ring = usize::from(tx.ring_state().size);
        let length = if mode == Mode::Descriptors { self.traffic.length() } else { None };
        // Left alone, the descriptors of receive buffers say the length of the last packet.
        let anew = mode != Mode::Indices || self.traffic.length().is_none();
        let mut writer = (mode == Mode::Packets).then(|| Writer::new(self.traffic.destinations));
        let mut sample = Sample::default();
        let (mut turns, mut empty) = (0u64, 0u64);
        let start = Instant::now();
        while sample.elapsed < time {
            for _ in 0..TURNS {
                empty += u64::from(tx.free_slots() == ring);
                let sent = match &mut writer {
                    None => tx.raw_publish(BURST, length),
                    Some(writer) => {
                        // Packets that find no room are not sent; the next burst has others.
                        writer.write();
                        tx.transmit(writer)
                    }
                };
                if sent != 0 {
                    tx.kick();
                    sample.sent += sent as u64;
                }
                sample.received += rx.raw_discard(anew) as u64;
                turns += 1;
                // Each look takes the line of an index away from its writer: not too often.
                for _ in 0..2 {
                    std::hint::spin_loop();
                }
            }
            sample.elapsed = start.elapsed();
            stop.check()?;
        }
        sample.starved = empty as f64 / turns as f64;
        self.alive()?;
        Ok(sample)
    }
}

/// Connects, again and again until it works: a server listens before it is ready.
pub(crate) fn connect(
    socket: &Path,
    id: u32,
    traffic: Traffic,
    check: &mut impl FnMut() -> Result<()>,
) -> Result<Connection> {
    let start = Instant::now();
    let mut config = ClientConfig::new(Address::Path(socket.into()), id);
    config.app_name = "wharf-benches".into();
    config.log2_ring_size = traffic.log2_ring_size;
    config.buffer_size = traffic.buffer_size;
    loop {
        check()?;
        let error = match attempt(&config) {
            Ok(connection) => return Ok(connection),
            Err(e) => e,
        };
        if start.elapsed() > PATIENCE {
            return Err(format!("{}: {error}", socket.display()));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn attempt(config: &ClientConfig) -> std::result::Result<Connection, memif::Error> {
    let mut client = Client::connect(config.clone(), Instant::now())?;
    loop {
        if let Some(connection) = client.process(Instant::now())? {
            return Ok(connection);
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::floor;
    use crate::process::WorkDir;

    #[test]
    fn the_floor_forwards_all_that_is_sent() {
        let (dir, stop) = (WorkDir::new().unwrap(), Stop::new().unwrap());
        let [first, second] = dir.sockets();
        std::thread::scope(|scope| {
            let floor = scope.spawn(|| floor::run(dir.path(), 0));
            let traffic = Traffic { log2_ring_size: 8, buffer_size: 256, ..Traffic::default() };
            let mut load = Load::connect([&first, &second], traffic, Arrives::Unchanged, || Ok(())).unwrap();
            for mode in [Mode::Indices, Mode::Descriptors, Mode::Packets] {
                load.verify(&stop).unwrap();
                // On a busy machine the floor may have no core for a while.
                let samples = (0..100).map(|_| load.measure(mode, Duration::from_millis(50), &stop).unwrap());
                let sample = samples.into_iter().find(|s| s.received > 1000).expect("packets");
                // What is on its way when the counting begins or ends: two rings and a burst.
                assert!(sample.sent.abs_diff(sample.received) < 2000, "{sample:?}");
            }
            load.arrives = Arrives::Routed;
            let error = load.verify(&Stop::soon()).unwrap_err();
            assert_eq!(error, "interrupted", "nothing is routed, so it waits");
            drop(load);
            floor.join().unwrap().unwrap();
        });
    }
}
