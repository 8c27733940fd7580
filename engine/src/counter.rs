//! Counters: one plain row per worker, summed by whoever reads. A worker adds with a load and a store; nothing is
//! locked, and no line is written by two threads.

use crate::WorkerIndex;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

const CHUNK: usize = 1024;

/// Entries that a [`Combined`] can hold.
pub const MAX_COUNTERS: usize = CHUNK * CHUNK;

/// Adds to a counter that only the calling thread writes.
#[inline(always)]
pub(crate) fn add(counter: &AtomicU64, n: u64) {
    counter.store(counter.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
}

/// Packets and bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// Packets.
    pub packets: u64,
    /// Bytes.
    pub bytes: u64,
}

#[derive(Debug, Default)]
struct Pair {
    packets: AtomicU64,
    bytes: AtomicU64,
}

type Row = Box<[OnceLock<Box<[Pair]>>]>;

/// A growing table of packet and byte counters.
#[derive(Debug)]
pub struct Combined {
    rows: Box<[Row]>,
    zero: std::sync::Mutex<Vec<Count>>,
}

impl Combined {
    /// A table for `workers` workers; no entry yet.
    pub fn new(workers: usize) -> Combined {
        let row = || (0..CHUNK).map(|_| OnceLock::new()).collect();
        Combined { rows: (0..workers).map(|_| row()).collect(), zero: std::sync::Mutex::new(Vec::new()) }
    }

    /// Makes entry `index` (and its neighbours) countable. The control plane calls it before a worker can.
    pub fn ensure(&self, index: u32) {
        for row in &self.rows {
            if let Some(chunk) = row.get(index as usize / CHUNK) {
                chunk.get_or_init(|| (0..CHUNK).map(|_| Pair::default()).collect());
            }
        }
    }

    /// Adds. An entry that was never ensured counts nothing.
    #[inline(always)]
    pub fn add(&self, worker: WorkerIndex, index: u32, packets: u64, bytes: u64) {
        let index = index as usize;
        if let Some(chunk) = self.rows.get(worker.index()).and_then(|row| row.get(index / CHUNK))
            && let Some(pairs) = chunk.get()
        {
            let pair = &pairs[index % CHUNK];
            add(&pair.packets, packets);
            add(&pair.bytes, bytes);
        }
    }

    fn raw(&self, index: u32) -> Count {
        let mut sum = Count::default();
        for row in &self.rows {
            if let Some(pairs) = row.get(index as usize / CHUNK).and_then(OnceLock::get) {
                let pair = &pairs[index as usize % CHUNK];
                sum.packets = sum.packets.wrapping_add(pair.packets.load(Ordering::Relaxed));
                sum.bytes = sum.bytes.wrapping_add(pair.bytes.load(Ordering::Relaxed));
            }
        }
        sum
    }

    /// Packets of all entries since the start, whatever was cleared.
    pub fn total(&self) -> u64 {
        let chunks = self.rows.iter().flat_map(|row| row.iter().filter_map(OnceLock::get));
        chunks.flat_map(|pairs| pairs.iter()).map(|pair| pair.packets.load(Ordering::Relaxed)).sum()
    }

    fn zero(&self) -> std::sync::MutexGuard<'_, Vec<Count>> {
        self.zero.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// The sum over all workers since the last [`Combined::clear`].
    pub fn get(&self, index: u32) -> Count {
        let raw = self.raw(index);
        let zero = self.zero().get(index as usize).copied().unwrap_or_default();
        Count { packets: raw.packets.wrapping_sub(zero.packets), bytes: raw.bytes.wrapping_sub(zero.bytes) }
    }

    /// Counts from zero again, from the reader's view: the workers' own numbers run on.
    pub fn clear(&self, index: u32) {
        let raw = self.raw(index);
        let mut zero = self.zero();
        if zero.len() <= index as usize {
            zero.resize(index as usize + 1, Count::default());
        }
        zero[index as usize] = raw;
    }
}

/// Collects additions to one entry of a [`Combined`] as long as packets keep to it; most frames touch one entry.
#[derive(Debug, Default)]
pub struct Tally {
    index: u32,
    packets: u64,
    bytes: u64,
}

impl Tally {
    /// Counts one packet of `bytes` on entry `index`.
    #[inline(always)]
    pub fn count(&mut self, counters: &Combined, worker: WorkerIndex, index: u32, bytes: u16) {
        if index != self.index {
            self.turn_to(counters, worker, index);
        }
        self.packets += 1;
        self.bytes += u64::from(bytes);
    }

    #[cold]
    #[inline(never)]
    fn turn_to(&mut self, counters: &Combined, worker: WorkerIndex, index: u32) {
        self.flush(counters, worker);
        self.index = index;
    }

    /// Writes out what was collected. A node calls it in [`crate::Node::frame_done`].
    #[inline]
    pub fn flush(&mut self, counters: &Combined, worker: WorkerIndex) {
        if self.packets != 0 {
            counters.add(worker, self.index, self.packets, self.bytes);
            (self.packets, self.bytes) = (0, 0);
        }
    }
}

/// The counters that every interface has, with VPP's names.
#[derive(Debug)]
pub struct InterfaceCounters {
    /// `rx`: received by the device.
    pub rx: Combined,
    /// `tx`: handed to the device.
    pub tx: Combined,
    /// `rx` of an interface without a device (a sub-interface, a tunnel, a BVI): counted by the node that finds it.
    pub virtual_rx: Combined,
    /// `tx` of an interface without a device.
    pub virtual_tx: Combined,
    /// `drops`: packets received here that the graph dropped.
    pub drops: Combined,
    /// `punt`: packets received here that went to the host.
    pub punt: Combined,
    /// `ip4`: IPv4 packets received here.
    pub ip4: Combined,
    /// `rx-no-buf`: not received for want of a buffer.
    pub rx_no_buf: Combined,
    /// `rx-miss`: lost by the device before we saw them.
    pub rx_miss: Combined,
    /// `rx-error`: refused by the driver.
    pub rx_error: Combined,
    /// `tx-error`: not sent.
    pub tx_error: Combined,
}

impl InterfaceCounters {
    /// Counters for `workers` workers.
    pub fn new(workers: usize) -> InterfaceCounters {
        let new = || Combined::new(workers);
        InterfaceCounters {
            rx: new(),
            tx: new(),
            virtual_rx: new(),
            virtual_tx: new(),
            drops: new(),
            punt: new(),
            ip4: new(),
            rx_no_buf: new(),
            // Devices tell main how much they lost: the last row is its own.
            rx_miss: Combined::new(workers + 1),
            rx_error: new(),
            tx_error: new(),
        }
    }

    /// All of them, with the names of `show interface` and the stats segment. Some names have two: an interface counts in one of them.
    pub fn all(&self) -> [(&'static str, &Combined); 11] {
        [
            ("rx", &self.rx),
            ("tx", &self.tx),
            ("rx", &self.virtual_rx),
            ("tx", &self.virtual_tx),
            ("drops", &self.drops),
            ("punt", &self.punt),
            ("ip4", &self.ip4),
            ("rx-no-buf", &self.rx_no_buf),
            ("rx-miss", &self.rx_miss),
            ("rx-error", &self.rx_error),
            ("tx-error", &self.tx_error),
        ]
    }

    /// Counts packets that a device lost, as main learns of them.
    pub fn missed(&self, sw_if_index: u32, packets: u64) {
        let main = WorkerIndex(self.rx_miss.rows.len() as u16 - 1);
        self.rx_miss.add(main, sw_if_index, packets, 0);
    }

    /// See [`Combined::ensure`].
    pub fn ensure(&self, sw_if_index: u32) {
        self.all().iter().for_each(|(_, counter)| counter.ensure(sw_if_index));
    }

    /// See [`Combined::clear`].
    pub fn clear(&self, sw_if_index: u32) {
        self.all().iter().for_each(|(_, counter)| counter.clear(sw_if_index));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn main_counts_what_devices_lost() {
        let counters = InterfaceCounters::new(1);
        counters.ensure(3);
        counters.missed(3, 5);
        counters.rx_miss.add(WorkerIndex(0), 3, 2, 0);
        assert_eq!(counters.rx_miss.get(3).packets, 7);
    }

    #[test]
    fn sums_over_workers_and_clears_for_the_reader() {
        let counters = Combined::new(2);
        counters.add(WorkerIndex(0), 5, 1, 1);
        assert_eq!(counters.get(5), Count::default(), "not ensured");
        counters.ensure(5);
        let mut tally = Tally::default();
        for index in [5, 5, 6, 5] {
            tally.count(&counters, WorkerIndex(1), index, 100);
        }
        tally.flush(&counters, WorkerIndex(1));
        counters.add(WorkerIndex(0), 5, 1, 60);
        assert_eq!(counters.get(5), Count { packets: 4, bytes: 360 });
        assert_eq!(counters.get(6), Count { packets: 1, bytes: 100 });
        counters.clear(5);
        counters.add(WorkerIndex(0), 5, 2, 20);
        assert_eq!(counters.get(5), Count { packets: 2, bytes: 20 });
        counters.add(WorkerIndex(9), u32::MAX, 1, 1);
    }
}
