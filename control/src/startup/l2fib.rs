//! The stanzas `l2fib` and `l2learn`: how large the table of MAC addresses is, and how many of them may be learned.

use super::display::Stanza;
use super::words::{ConfigError, Reader, Warning};
use wharf_engine::bihash::{BUCKET_SIZE, MAX_BUCKETS, MIN_BUCKETS};
use wharf_nodes::l2::DEFAULT_BUCKETS;

/// Both stanzas.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct L2FibConfig {
    /// `l2fib { num-buckets }`: buckets, of seven addresses each; a power of two.
    pub num_buckets: Option<u32>,
    /// `l2fib { table-size }`: bytes that the buckets take at most.
    pub table_size: Option<u64>,
    /// `l2learn { limit }`: addresses that may be learned in all.
    pub learn_limit: Option<u32>,
}

pub(super) const L2FIB: &[&str] = &["num-buckets", "table-size"];
pub(super) const L2LEARN: &[&str] = &["limit"];

/// Bytes of so many buckets.
fn bytes(buckets: u32) -> u64 {
    u64::from(buckets) * BUCKET_SIZE as u64
}

impl L2FibConfig {
    /// How many buckets the table has: as many as are asked for, or the usual number, or as many as there is room for.
    pub fn buckets(&self) -> usize {
        let wanted = self.num_buckets.unwrap_or(DEFAULT_BUCKETS as u32);
        let room = self.table_size.map_or(u64::MAX, |size| size / BUCKET_SIZE as u64);
        match u64::from(wanted) <= room {
            true => wanted as usize,
            false => 1 << room.max(1).ilog2(),
        }
    }

    pub(super) fn read_l2fib(&mut self, mut reader: Reader<'_>) -> Result<Vec<Warning>, ConfigError> {
        let mut last = None;
        while let Some(key) = reader.key()? {
            match key.text.as_str() {
                "num-buckets" => {
                    let (min, max) = (MIN_BUCKETS as u64, MAX_BUCKETS as u64);
                    let buckets = reader.size(key, min, max)?;
                    // As in VPP, the next power of two.
                    self.num_buckets = Some(buckets.next_power_of_two() as u32);
                }
                "table-size" => {
                    let smallest = bytes(MIN_BUCKETS as u32);
                    self.table_size = Some(reader.size(key, smallest, u64::MAX)?);
                }
                _ => {
                    reader.unknown(key);
                    continue;
                }
            }
            last = Some(key);
        }
        match (last, self.num_buckets, self.table_size) {
            (Some(key), Some(buckets), Some(size)) if bytes(buckets) > size => {
                let needed = bytes(buckets);
                let message = format!("{buckets} buckets are {needed} bytes, and `table-size' is {size}");
                Err(ConfigError::new(key.at, message))
            }
            _ => Ok(reader.warnings),
        }
    }

    pub(super) fn read_l2learn(&mut self, mut reader: Reader<'_>) -> Result<Vec<Warning>, ConfigError> {
        while let Some(key) = reader.key()? {
            match key.text.as_str() {
                "limit" => self.learn_limit = Some(reader.number(key, 1, u32::MAX)?),
                _ => reader.unknown(key),
            }
        }
        Ok(reader.warnings)
    }

    pub(super) fn stanzas(&self) -> [Stanza; 2] {
        let mut fib = Stanza::new("l2fib");
        fib.value("num-buckets", self.num_buckets);
        fib.value("table-size", self.table_size);
        let mut learn = Stanza::new("l2learn");
        learn.value("limit", self.learn_limit);
        [fib, learn]
    }
}
