//! Reading the segment in this process.

use super::{ENTRY, Entry, Kind, Stats, VALUE_AT};
use std::sync::atomic::Ordering;

/// What an entry holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// Numbers, per thread.
    Simple(Vec<Vec<u64>>),
    /// Packets and bytes in turn, per thread.
    Combined(Vec<Vec<u64>>),
    /// Names by number.
    Names(Vec<Option<String>>),
    /// A number that goes up and down.
    Gauge(u64),
    /// One element of another entry, summed over the threads: packets, if it has bytes too.
    Element(u64),
    /// Nothing.
    Empty,
}

impl Stats {
    /// All entries with their values, as they are now, by name.
    pub fn read(&self) -> Vec<(String, Value)> {
        let directory = self.lock();
        let entries = directory.by_name.iter();
        entries.map(|(name, entry)| (name.clone(), self.value(directory.at, *entry))).collect()
    }

    /// A vector's elements: where they are, and how many.
    fn vector(&self, address: u64) -> (usize, usize) {
        let at = (address - self.segment.address(0)) as usize;
        (at, self.segment.half(at - 8).load(Ordering::Acquire) as usize)
    }

    fn threads(&self, address: u64, width: usize) -> Vec<Vec<u64>> {
        let word = |at: usize| self.segment.word(at).load(Ordering::Relaxed);
        let (rows, threads) = self.vector(address);
        let row = |thread: usize| {
            let (at, len) = self.vector(word(rows + thread * 8));
            (0..len * width).map(|i| word(at + i * 8)).collect()
        };
        (0..threads).map(row).collect()
    }

    fn value(&self, directory: usize, entry: Entry) -> Value {
        let at = directory + entry.0 as usize * ENTRY;
        let kind = self.segment.half(at).load(Ordering::Relaxed);
        let value = self.segment.word(at + VALUE_AT).load(Ordering::Relaxed);
        match kind {
            kind if kind == Kind::Simple as u32 => Value::Simple(self.threads(value, 1)),
            kind if kind == Kind::Combined as u32 => Value::Combined(self.threads(value, 2)),
            kind if kind == Kind::Gauge as u32 => Value::Gauge(value),
            kind if kind == Kind::Symlink as u32 => {
                let (of, element) = (value as u32 as usize, (value >> 32) as usize);
                let of = directory + of * ENTRY;
                let width = if self.segment.half(of).load(Ordering::Relaxed) == Kind::Combined as u32 {
                    2
                } else {
                    1
                };
                let (rows, threads) = self.vector(self.segment.word(of + VALUE_AT).load(Ordering::Relaxed));
                let number = |thread: usize| {
                    let (at, len) = self.vector(self.segment.word(rows + thread * 8).load(Ordering::Relaxed));
                    let number = self.segment.word(at + element.min(len) * width * 8);
                    if element < len { number.load(Ordering::Relaxed) } else { 0 }
                };
                Value::Element((0..threads).map(number).fold(0, u64::wrapping_add))
            }
            kind if kind == Kind::Names as u32 => {
                let (list, len) = self.vector(value);
                let name = |number: usize| {
                    let address = self.segment.word(list + number * 8).load(Ordering::Relaxed);
                    let (at, len) = (address != 0).then(|| self.vector(address))?;
                    let byte = |i: usize| self.segment.byte(at + i).load(Ordering::Relaxed);
                    Some((0..len.saturating_sub(1)).map(|i| char::from(byte(i))).collect())
                };
                Value::Names((0..len).map(name).collect())
            }
            _ => Value::Empty,
        }
    }
}
