//! Counters: one plain row per worker, summed by whoever reads. A worker adds with a load and a store; nothing is
//! locked, and no line is written by two threads. The rows lie in a [`Segment`], where others can read them too.

use crate::WorkerIndex;
use crate::frame::FRAME_SIZE;
use crate::stats::{Row, Segment, Stats, Table};
use crossbeam_utils::CachePadded;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// Entries that a [`Combined`] can hold unless it is made for less.
pub const MAX_COUNTERS: usize = 1 << 20;
/// Interfaces that are counted.
pub const MAX_INTERFACES: usize = 4096;

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

/// A growing table of packet counters, with bytes or without.
#[derive(Debug)]
pub struct Combined {
    /// `None` for no workers.
    table: Option<Table>,
    /// Per worker, and main's at the end.
    rows: Box<[Row]>,
    /// Packets of all entries, row by row, whatever was cleared.
    totals: Box<[CachePadded<AtomicU64>]>,
    /// Numbers in an entry.
    width: usize,
    /// Entries that may be counted.
    len: AtomicUsize,
    capacity: usize,
    zero: std::sync::Mutex<Vec<Count>>,
}

impl Combined {
    /// A table for main and `workers` workers, in memory of its own; no entry yet. Main counts as the worker behind the last.
    ///
    /// # Panics
    /// Without memory.
    pub fn new(workers: usize) -> Combined {
        let made = || {
            let segment = Segment::new((workers + 1) * (MAX_COUNTERS * 16 + 256) + 4096)?;
            Combined::within(&segment, workers, MAX_COUNTERS, 2)
        };
        match workers {
            0 => Combined::over(None, 0, 0, 2),
            _ => made().unwrap_or_else(|error| panic!("no memory for counters: {error}")),
        }
    }

    /// A table in a segment: of packets and bytes for a `width` of 2, of packets for 1.
    pub fn within(
        segment: &Arc<Segment>,
        workers: usize,
        capacity: usize,
        width: usize,
    ) -> io::Result<Combined> {
        Ok(Combined::over(Some(Table::new(segment, workers, capacity, width)?), workers, capacity, width))
    }

    fn over(table: Option<Table>, workers: usize, capacity: usize, width: usize) -> Combined {
        let rows: Box<[Row]> =
            table.iter().flat_map(|table| (1..=workers).chain([0]).map(|thread| table.row(thread))).collect();
        Combined {
            totals: rows.iter().map(|_| CachePadded::default()).collect(),
            rows,
            table,
            width,
            len: AtomicUsize::new(0),
            capacity,
            zero: std::sync::Mutex::new(Vec::new()),
        }
    }

    /// A second table in the same rows, whose [`Combined::total`] is its own. An entry is counted in one of the two.
    pub fn beside(&self) -> Combined {
        let workers = self.rows.len().saturating_sub(1);
        Combined::over(self.table.clone(), workers, self.capacity, self.width)
    }

    /// The rows, to be shown to others.
    pub fn table(&self) -> Option<&Table> {
        self.table.as_ref()
    }

    /// Makes entry `index` countable. The control plane calls it before a worker can.
    pub fn ensure(&self, index: u32) {
        let len = index as usize + 1;
        if len <= self.capacity && self.table.as_ref().is_some_and(|table| table.grow(len)) {
            self.len.fetch_max(len, Ordering::Relaxed);
        }
    }

    /// Adds. An entry that was never ensured counts nothing.
    #[inline(always)]
    pub fn add(&self, worker: WorkerIndex, index: u32, packets: u64, bytes: u64) {
        let index = index as usize;
        if index < self.len.load(Ordering::Relaxed)
            && let Some(row) = self.rows.get(worker.index())
        {
            let at = index * self.width;
            if let Some(counter) = row.get(at) {
                add(counter, packets);
            }
            if self.width == 2
                && let Some(counter) = row.get(at + 1)
            {
                add(counter, bytes);
            }
            if let Some(total) = self.totals.get(worker.index()) {
                add(total, packets);
            }
        }
    }

    fn raw(&self, index: u32) -> Count {
        let at = index as usize * self.width;
        let sum = |at: usize| {
            let numbers = self.rows.iter().filter_map(|row| row.get(at)).map(|n| n.load(Ordering::Relaxed));
            numbers.fold(0, u64::wrapping_add)
        };
        Count { packets: sum(at), bytes: if self.width == 2 { sum(at + 1) } else { 0 } }
    }

    /// Packets of all entries since the start, whatever was cleared.
    pub fn total(&self) -> u64 {
        self.totals.iter().map(|total| total.load(Ordering::Relaxed)).fold(0, u64::wrapping_add)
    }

    /// Starts an entry anew, for a new owner. No worker may be counting on it.
    pub fn reset(&self, index: u32) {
        let at = index as usize * self.width;
        let numbers = self.rows.iter().flat_map(|row| row.get(at..at + self.width).unwrap_or_default());
        numbers.for_each(|number| number.store(0, Ordering::Relaxed));
        if let Some(zero) = self.zero().get_mut(index as usize) {
            *zero = Count::default();
        }
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

/// Collects additions to one entry of a [`Combined`] as long as packets keep to it; most frames touch one entry. No entry is
/// kept over [`Tally::flush`], so a node that ends its frames with it may keep what it knows of the entry as long as [`Tally::is_on`]
/// says so.
#[derive(Debug)]
pub struct Tally {
    index: u64,
    /// Bytes in the lower [`Tally::BYTES`] bits, which are enough for a frame, and packets above.
    sum: u64,
}

const _: () = assert!(FRAME_SIZE * (u16::MAX as usize) < 1 << Tally::BYTES);

impl Default for Tally {
    fn default() -> Tally {
        Tally { index: Tally::NONE, sum: 0 }
    }
}

impl Tally {
    /// No `u32`.
    const NONE: u64 = u64::MAX;
    /// So that one packet is a number that an instruction can add.
    const BYTES: u32 = 24;

    /// Counts one packet of `bytes` on entry `index`.
    #[inline(always)]
    pub fn count(&mut self, counters: &Combined, worker: WorkerIndex, index: u32, bytes: u16) {
        if !self.is_on(index) {
            self.turn_to(counters, worker, index);
        }
        self.add(bytes);
    }

    /// Whether the last packet of this frame was counted on entry `index`.
    #[inline(always)]
    pub fn is_on(&self, index: u32) -> bool {
        u64::from(index) == self.index
    }

    /// Counts from now on on entry `index`.
    #[cold]
    #[inline(never)]
    pub fn turn_to(&mut self, counters: &Combined, worker: WorkerIndex, index: u32) {
        self.flush(counters, worker);
        self.index = index.into();
    }

    /// Counts one packet of `bytes` on the entry of before.
    #[inline(always)]
    pub fn add(&mut self, bytes: u16) {
        self.sum += 1 << Tally::BYTES | u64::from(bytes);
    }

    /// Writes out what was collected. A node calls it in [`crate::Node::frame_done`].
    #[inline]
    pub fn flush(&mut self, counters: &Combined, worker: WorkerIndex) {
        if self.sum != 0 {
            // Packets are added behind `turn_to`, so it is an index.
            counters.add(
                worker,
                self.index as u32,
                self.sum >> Tally::BYTES,
                self.sum & ((1 << Tally::BYTES) - 1),
            );
            self.sum = 0;
        }
        self.index = Tally::NONE;
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
    /// Counters for `workers` workers, shown as `/if/NAME`.
    pub fn new(stats: &Stats, workers: usize) -> io::Result<InterfaceCounters> {
        let new = |width| Combined::within(stats.segment(), workers, MAX_INTERFACES, width);
        let (rx, tx) = (new(2)?, new(2)?);
        let counters = InterfaceCounters {
            virtual_rx: rx.beside(),
            virtual_tx: tx.beside(),
            rx,
            tx,
            drops: new(1)?,
            punt: new(1)?,
            ip4: new(1)?,
            rx_no_buf: new(1)?,
            rx_miss: new(1)?,
            rx_error: new(1)?,
            tx_error: new(1)?,
        };
        for (name, counter) in counters.all() {
            if let Some(table) = counter.table() {
                stats.table(&format!("/if/{name}"), table).ok_or(io::ErrorKind::OutOfMemory)?;
            }
        }
        Ok(counters)
    }

    /// All of them, with the names of `show interface` and the stats segment. Those of interfaces without a device are in the rows of
    /// the others.
    pub fn all(&self) -> [(&'static str, &Combined); 9] {
        [
            ("rx", &self.rx),
            ("tx", &self.tx),
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
        let all = self.all().map(|(_, counter)| counter);
        all.iter()
            .chain(&[&self.virtual_rx, &self.virtual_tx])
            .for_each(|counter| counter.ensure(sw_if_index));
    }

    /// See [`Combined::reset`].
    pub fn reset(&self, sw_if_index: u32) {
        self.all().iter().for_each(|(_, counter)| counter.reset(sw_if_index));
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
        let counters = InterfaceCounters::new(&Stats::new(8 << 20).unwrap(), 1).unwrap();
        counters.ensure(3);
        counters.virtual_rx.add(WorkerIndex(0), 3, 4, 400);
        assert_eq!((counters.rx.get(3).bytes, counters.rx.total(), counters.virtual_rx.total()), (400, 0, 4));
        counters.missed(3, 5);
        counters.rx_miss.add(WorkerIndex(0), 3, 2, 0);
        assert_eq!(counters.rx_miss.get(3).packets, 7);
    }

    #[test]
    fn sums_over_workers_and_clears_for_the_reader() {
        let counters = Combined::new(2);
        counters.add(WorkerIndex(0), 5, 1, 1);
        assert_eq!(counters.get(5), Count::default(), "not ensured");
        counters.ensure(6);
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
        counters.reset(5);
        assert_eq!(
            (counters.get(5), counters.total()),
            (Count::default(), 7),
            "what was counted stays counted"
        );
    }
}
