//! How much a client may ask for, and how often the log tells of the same.

use crate::api::MAX_MESSAGE;
use crate::cli::MAX_REQUEST;
use std::time::{Duration, Instant};

/// What clients may use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// API clients at a time.
    pub api_clients: usize,
    /// Messages a second of an API client; 0 for as many as it can send.
    pub api_rate: u32,
    /// The longest message of an API client, in bytes.
    pub api_request: usize,
    /// CLI clients at a time.
    pub cli_clients: usize,
    /// Commands a second of a CLI client; 0 for as many as it can send.
    pub cli_rate: u32,
    /// The longest request of a CLI client, in bytes; a document of wharfctl may be longer.
    pub cli_request: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            api_clients: 256,
            api_rate: 1_000_000,
            api_request: MAX_MESSAGE,
            cli_clients: 32,
            cli_rate: 100_000,
            cli_request: MAX_REQUEST,
        }
    }
}

/// So much of a second's tokens may be taken at once.
const BURST: Duration = Duration::from_millis(100);

/// Lets so many through in a second, evenly but for bursts.
#[derive(Clone, Debug)]
pub struct TokenBucket {
    /// Between two tokens; zero without a limit.
    interval: Duration,
    /// When the bucket is full again.
    full: Instant,
}

impl TokenBucket {
    /// A full bucket with so many tokens a second; 0 for no limit.
    pub fn new(rate: u32, now: Instant) -> TokenBucket {
        let interval = Duration::from_secs(1).checked_div(rate).unwrap_or_default();
        TokenBucket { interval, full: now }
    }

    /// Takes a token. When there is none, the time at which to come again.
    ///
    /// # Errors
    /// As said: nothing is taken.
    pub fn take(&mut self, now: Instant) -> Result<(), Instant> {
        // At a low rate, the token of the moment is all.
        if let Some(empty) = now.checked_add(BURST)
            && self.full > empty
        {
            return Err(self.full.checked_sub(BURST).unwrap_or(now));
        }
        self.full = self.full.max(now) + self.interval;
        Ok(())
    }
}

/// Keeps the log from being flooded by what repeats: a line a second, with the number of those left out.
#[derive(Clone, Debug, Default)]
pub struct Quiet {
    told: Option<Instant>,
    silent: u64,
}

impl Quiet {
    /// Whether to tell, and then how often it was not told before.
    pub fn tell(&mut self, now: Instant) -> Option<u64> {
        if self.told.is_some_and(|told| now.saturating_duration_since(told) < Duration::from_secs(1)) {
            self.silent += 1;
            return None;
        }
        self.told = Some(now);
        Some(std::mem::take(&mut self.silent))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_gives_its_burst_and_then_its_rate() {
        let start = Instant::now();
        let mut bucket = TokenBucket::new(1000, start);
        let burst = (0..1000).take_while(|_| bucket.take(start).is_ok()).count();
        assert_eq!(burst, 101);
        let mut now = start;
        for _ in 0..1000 {
            while let Err(at) = bucket.take(now) {
                assert!(at > now);
                now = at;
            }
        }
        assert_eq!(now - start, Duration::from_secs(1));
    }

    #[test]
    fn a_slow_bucket_gives_one_at_a_time_and_one_without_limit_never_ends() {
        let start = Instant::now();
        let mut slow = TokenBucket::new(1, start);
        assert_eq!(slow.take(start), Ok(()));
        let at = slow.take(start).unwrap_err();
        assert_eq!(at - start, Duration::from_millis(900));
        let mut endless = TokenBucket::new(0, start);
        assert!((0..10_000_000).all(|_| endless.take(start).is_ok()));
    }

    #[test]
    fn the_log_is_told_once_a_second() {
        let start = Instant::now();
        let mut quiet = Quiet::default();
        let told: Vec<_> =
            (0..=2000).filter_map(|ms| quiet.tell(start + Duration::from_millis(ms))).collect();
        assert_eq!(told, [0, 999, 999]);
    }
}
