//! Which counters belong to which list.

use crate::dataplane::OpError;
use std::collections::BTreeMap;
use std::sync::Arc;
use wharf_engine::counter::{Combined, MAX_COUNTERS};

/// A table of counters, given out in ranges.
#[derive(Debug)]
pub(crate) struct Counters {
    table: Arc<Combined>,
    /// First and length of the ranges in use.
    used: BTreeMap<u32, u32>,
}

impl Counters {
    pub(crate) fn new(workers: usize) -> Counters {
        Counters { table: Arc::new(Combined::new(workers)), used: BTreeMap::new() }
    }

    pub(crate) fn table(&self) -> &Arc<Combined> {
        &self.table
    }

    /// The first of the range that [`Counters::take`] would give.
    pub(crate) fn free(&self, len: u32) -> u32 {
        let mut first = 0;
        for (start, used) in &self.used {
            if start - first >= len.max(1) {
                break;
            }
            first = start + used;
        }
        first
    }

    /// A range of `len` counters that are zero.
    pub(crate) fn take(&mut self, len: u32) -> Result<u32, OpError> {
        // Ranges are told apart by their first.
        let len = len.max(1);
        let first = self.free(len);
        if first as usize + len as usize > MAX_COUNTERS {
            return OpError::refused(format!("all lists together have more than {MAX_COUNTERS} rules"));
        }
        self.used.insert(first, len);
        for index in first..first + len {
            if index == first || index % 1024 == 0 {
                self.table.ensure(index);
            }
            self.table.clear(index);
        }
        Ok(first)
    }

    pub(crate) fn give_back(&mut self, first: u32) {
        self.used.remove(&first);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_do_not_overlap_and_are_used_again() {
        let mut counters = Counters::new(1);
        let ranges = [10, 2000, 5].map(|len| counters.take(len).unwrap());
        assert_eq!(ranges, [0, 10, 2010]);
        counters.give_back(10);
        assert_eq!(counters.take(2001).unwrap(), 2015);
        assert_eq!(counters.take(1999).unwrap(), 10);
        assert_eq!(counters.take(1).unwrap(), 2009);
        assert!(counters.take(MAX_COUNTERS as u32).is_err());
        assert_ne!(counters.take(0).unwrap(), counters.take(0).unwrap());
    }
}
