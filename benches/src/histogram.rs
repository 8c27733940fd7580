//! Counts of durations, each to within 1 %.

/// Buckets for each power of two.
const STEPS: u64 = 64;

/// How often each duration came, in ticks.
#[derive(Debug, Clone)]
pub(crate) struct Histogram {
    counts: Vec<u64>,
    total: u64,
}

impl Histogram {
    /// Nothing counted.
    pub(crate) fn new() -> Self {
        Self { counts: vec![0; bucket(u64::MAX) + 1], total: 0 }
    }

    /// Counts one duration, so many times.
    #[inline(always)]
    pub(crate) fn add(&mut self, ticks: u64, times: u64) {
        if let Some(count) = self.counts.get_mut(bucket(ticks)) {
            *count += times;
            self.total += times;
        }
    }

    /// Durations counted.
    pub(crate) fn total(&self) -> u64 {
        self.total
    }

    /// The least duration that `part` (0 to 1) of those counted are not longer than, rounded up; 0 without any.
    pub(crate) fn quantile(&self, part: f64) -> u64 {
        let wanted = (self.total as f64 * part).ceil() as u64;
        let mut sum = 0;
        for (bucket, count) in self.counts.iter().enumerate() {
            sum += count;
            if sum >= wanted && sum != 0 {
                return longest(bucket);
            }
        }
        0
    }
}

#[inline(always)]
fn bucket(ticks: u64) -> usize {
    let power = u64::from((ticks | STEPS).ilog2() - STEPS.ilog2());
    // Above the first two powers each has STEPS buckets, behind those of the ones before.
    (power * STEPS + (ticks >> power)) as usize
}

/// The longest duration of a bucket.
fn longest(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    let power = (bucket / STEPS).saturating_sub(1);
    let step = bucket - power * STEPS;
    ((u128::from(step) + 1) << power).min(u128::from(u64::MAX)) as u64 - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_hold_their_longest_and_are_in_order() {
        let mut before = 0;
        for ticks in (0..5000).chain([1 << 20, 1 << 40, u64::MAX - 1]) {
            let b = bucket(ticks);
            assert!(b >= before && longest(b) >= ticks && bucket(longest(b)) == b, "{ticks}");
            assert!(
                longest(b) as f64 <= ticks as f64 * (1.0 + 1.0 / STEPS as f64) + 1.0,
                "{ticks}: {}",
                longest(b)
            );
            before = b;
        }
    }

    #[test]
    fn quantiles() {
        let mut h = Histogram::new();
        assert_eq!(h.quantile(0.5), 0);
        (1..=100).for_each(|i| h.add(i, 10));
        assert_eq!((h.total(), h.quantile(0.5), h.quantile(0.99)), (1000, 50, 99));
        h.add(1_000_000, 1);
        assert!((1_000_000..1_020_000).contains(&h.quantile(1.0)));
    }
}
