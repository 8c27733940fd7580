//! The load: a memif client that sends and counts at next to no cost.
//!
//! Every buffer of the transmit ring is filled once, with a packet of its own. From then on only descriptors move: all
//! slots that the program under test has freed are sent again, and what it sends is counted by its index and given back
//! unread. Before and after that, packets are read and compared with what the path makes of them.
//!
//! Writing a descriptor takes its line away from the other core, as every real client does. What that costs the program
//! under test depends on the machine, and on a shared one on the hour. So the load has a second [`Mode`] that leaves the
//! descriptors alone too, and shows what the program's own work costs.

use std::net::Ipv4Addr;
use std::path::Path;
use std::time::{Duration, Instant};

use clap::ValueEnum;
use memif::{Address, Client, ClientConfig, Connection};
use serde::Serialize;
use wharf_nodes::wire::checksum::checksum;

use crate::Result;
use crate::process::Stop;

/// Bytes of a frame, without its FCS: the shortest.
pub(crate) const FRAME: usize = 60;
/// MAC address of the interface that is sent to, if it has one of its own.
pub(crate) const DUT_MAC: &str = "02:fe:00:00:00:01";
const DUT_MAC_BYTES: [u8; 6] = [2, 0xfe, 0, 0, 0, 1];
const SOURCE_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
/// MAC address of the next hop of routed packets.
pub(crate) const NEXT_HOP_MAC: &str = "02:00:00:00:00:02";
const NEXT_HOP_MAC_BYTES: [u8; 6] = [2, 0, 0, 0, 0, 2];
const SOURCE: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 2);
/// Destinations are [`DESTINATIONS`] addresses from here on.
pub(crate) const FIRST_DESTINATION: Ipv4Addr = Ipv4Addr::new(16, 0, 0, 0);
/// Addresses that destinations are drawn from.
pub(crate) const DESTINATIONS: u32 = 1_000_000;

const TTL: u8 = 64;
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

/// The sending interface's ring.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Traffic {
    /// Slots, as a power of two: as many packets, and destinations.
    pub(crate) log2_ring_size: u8,
    /// Bytes of each buffer.
    pub(crate) buffer_size: u32,
}

/// What the load writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Mode {
    /// Descriptors and indices, as an application does
    Descriptors,
    /// Indices only
    Indices,
}

/// What the path makes of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Arrives {
    /// Nothing.
    Unchanged,
    /// Other MAC addresses, the rest unchanged.
    NewMacs,
    /// It goes to the next hop, with one hop less to live.
    Routed,
}

/// Packet `n`: UDP from [`SOURCE`] to a random destination, the same in each run.
fn packet(n: u16) -> [u8; FRAME] {
    // Finalizer of MurmurHash3: neighbouring numbers get unrelated addresses.
    let mut random = u32::from(n) + 1;
    for factor in [0x85eb_ca6b, 0xc2b2_ae35] {
        random = (random ^ random >> 15).wrapping_mul(factor);
    }
    let destination =
        FIRST_DESTINATION.to_bits() + ((u64::from(random) * u64::from(DESTINATIONS)) >> 32) as u32;
    let mut p = [0; FRAME];
    p[0..6].copy_from_slice(&DUT_MAC_BYTES);
    p[6..12].copy_from_slice(&SOURCE_MAC);
    p[12..14].copy_from_slice(&[8, 0]);
    p[14] = 0x45;
    p[16..18].copy_from_slice(&(FRAME as u16 - 14).to_be_bytes());
    p[22] = TTL;
    p[23] = 17;
    p[26..30].copy_from_slice(&SOURCE.octets());
    p[30..34].copy_from_slice(&destination.to_be_bytes());
    let sum = checksum(&p[14..34]);
    p[24..26].copy_from_slice(&sum.to_be_bytes());
    // UDP to the discard port, without a checksum.
    p[34..38].copy_from_slice(&[0x80, 0, 0, 9]);
    p[38..40].copy_from_slice(&(FRAME as u16 - 34).to_be_bytes());
    p
}

impl Arrives {
    /// Whether the path makes this of our packets.
    fn matches(self, packet: &[u8]) -> bool {
        if packet.len() != FRAME || packet[12..14] != [8, 0] || packet[26..30] != SOURCE.octets() {
            return false;
        }
        let sum_ok = checksum(&packet[14..34]) == 0;
        let (macs, ttl) = (&packet[..12], packet[22]);
        let own = [DUT_MAC_BYTES, SOURCE_MAC].concat();
        sum_ok
            && match self {
                Arrives::Unchanged => macs == own && ttl == TTL,
                Arrives::NewMacs => macs[..6] != own[..6] && ttl == TTL,
                Arrives::Routed => macs[..6] == NEXT_HOP_MAC_BYTES && ttl == TTL - 1,
            }
    }
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
    to: Connection,
    from: Connection,
    arrives: Arrives,
}

impl Load {
    /// Connects to the two sockets, interface 0 each, as soon as somebody listens. `check` says why to give up.
    pub(crate) fn connect(
        sockets: [&Path; 2],
        traffic: Traffic,
        arrives: Arrives,
        mut check: impl FnMut() -> Result<()>,
    ) -> Result<Self> {
        let receiving = Traffic { log2_ring_size: 10, buffer_size: 2048 };
        let mut to = connect(sockets[0], traffic, &mut check)?;
        let from = connect(sockets[1], receiving, &mut check)?;
        if !to.tx.first_mut().is_some_and(|tx| tx.raw_fill(packet)) || from.rx.is_empty() {
            return Err("the peer grants no ring".into());
        }
        Ok(Self { to, from, arrives })
    }

    fn alive(&mut self) -> Result<()> {
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
            tx.raw_publish(BURST, Some(FRAME as u32));
            tx.kick();
            let n = rx.receive_into(&mut buffers, &mut lengths);
            for (buffer, len) in buffers.iter().zip(lengths).take(n) {
                let packet = buffer.get(..len).unwrap_or_default();
                if self.arrives.matches(packet) {
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
        let length = (mode == Mode::Descriptors).then_some(FRAME as u32);
        let mut sample = Sample::default();
        let (mut turns, mut empty) = (0u64, 0u64);
        let start = Instant::now();
        while sample.elapsed < time {
            for _ in 0..TURNS {
                empty += u64::from(tx.free_slots() == ring);
                let sent = tx.raw_publish(BURST, length);
                if sent != 0 {
                    tx.kick();
                    sample.sent += sent as u64;
                }
                sample.received += rx.raw_discard(length.is_some()) as u64;
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
fn connect(socket: &Path, traffic: Traffic, check: &mut impl FnMut() -> Result<()>) -> Result<Connection> {
    let start = Instant::now();
    let mut config = ClientConfig::new(Address::Path(socket.into()), 0);
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
    use std::collections::HashSet;

    #[test]
    fn the_floor_forwards_all_that_is_sent() {
        let (dir, stop) = (WorkDir::new().unwrap(), Stop::new().unwrap());
        let [first, second] = dir.sockets();
        std::thread::scope(|scope| {
            let floor = scope.spawn(|| floor::run(dir.path(), 0));
            let traffic = Traffic { log2_ring_size: 8, buffer_size: 256 };
            let mut load = Load::connect([&first, &second], traffic, Arrives::Unchanged, || Ok(())).unwrap();
            for mode in [Mode::Indices, Mode::Descriptors] {
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

    #[test]
    fn packets_have_random_destinations_within_the_routes() {
        let destinations: HashSet<u32> = (0..1 << 14)
            .map(|n| {
                let p = packet(n);
                assert!(Arrives::Unchanged.matches(&p) && !Arrives::Routed.matches(&p));
                u32::from_be_bytes([p[30], p[31], p[32], p[33]]) - FIRST_DESTINATION.to_bits()
            })
            .collect();
        assert!(destinations.iter().all(|d| *d < DESTINATIONS));
        assert!(destinations.len() > 16_000, "{} different ones", destinations.len());
        let low = destinations.iter().filter(|d| **d < DESTINATIONS / 2).count();
        assert!((7_500..8_800).contains(&low), "{low} in the lower half");
    }

    #[test]
    fn what_a_path_makes_of_a_packet_is_checked() {
        let mut p = packet(7);
        p[..6].copy_from_slice(&NEXT_HOP_MAC_BYTES);
        assert!(Arrives::NewMacs.matches(&p) && !Arrives::Unchanged.matches(&p));
        p[22] -= 1;
        assert!(!Arrives::Routed.matches(&p), "the checksum is the old one");
        p[24..26].fill(0);
        let sum = checksum(&p[14..34]);
        p[24..26].copy_from_slice(&sum.to_be_bytes());
        assert!(Arrives::Routed.matches(&p));
        assert!(!Arrives::Routed.matches(&p[..59]));
    }
}
