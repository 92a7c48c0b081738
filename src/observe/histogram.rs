//! Histograms of durations: sixteen buckets to each power of two, so a figure is off by 6 % at most.
//!
//! A [`Histogram`] is written with atomics and read at any time; [`Counts`] is a copy of one that
//! can be added, subtracted and asked. Writing is one load and one store where a histogram has one
//! writer ([`Histogram::record_alone`]) and one atomic addition where it has several.

use std::sync::atomic::{AtomicU64, Ordering};

/// Buckets to a power of two, as a power of two.
const FINE_BITS: u32 = 4;
const FINE: usize = 1 << FINE_BITS;
/// Values from here on are counted as this one: 2^40 ns are 18 minutes.
const CEILING: u64 = (1 << 40) - 1;
/// How many buckets there are.
const BUCKETS: usize = bucket_of(CEILING) + 1;

/// Values below sixteen have a bucket each; after that the four bits behind the leading one decide.
#[inline]
const fn bucket_of(value: u64) -> usize {
    if value < FINE as u64 {
        return value as usize;
    }
    let value = if value > CEILING { CEILING } else { value };
    let exponent = 63 - value.leading_zeros();
    let fine = (value >> (exponent - FINE_BITS)) as usize & (FINE - 1);
    ((exponent - FINE_BITS + 1) as usize) * FINE + fine
}

/// The largest value that a bucket counts.
const fn upper_end(bucket: usize) -> u64 {
    if bucket < FINE {
        return bucket as u64;
    }
    let shift = (bucket / FINE - 1) as u32;
    ((((bucket % FINE) + FINE + 1) as u64) << shift) - 1
}

/// How often which value was seen; about 5 KB. The unit is the caller's.
#[derive(Debug)]
pub struct Histogram([AtomicU64; BUCKETS]);

impl Histogram {
    /// An empty one.
    pub fn new() -> Histogram {
        Histogram([const { AtomicU64::new(0) }; BUCKETS])
    }

    /// Counts `value`, where this thread is the only one that ever records here.
    #[inline]
    pub fn record_alone(&self, value: u64) {
        let count = &self.0[bucket_of(value)];
        count.store(count.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    }

    /// Counts `value`, whoever else does at the same time.
    #[inline]
    pub fn record(&self, value: u64) {
        self.0[bucket_of(value)].fetch_add(1, Ordering::Relaxed);
    }

    /// A copy of what was counted so far.
    pub fn counts(&self) -> Counts {
        Counts(self.0.iter().map(|count| count.load(Ordering::Relaxed)).collect())
    }
}

impl Default for Histogram {
    fn default() -> Histogram {
        Histogram::new()
    }
}

/// A histogram at rest; one that is empty has allocated nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts(Vec<u64>);

impl Counts {
    /// Adds what `histogram` has counted.
    pub fn add(&mut self, histogram: &Histogram) {
        self.0.resize(BUCKETS, 0);
        for (sum, count) in self.0.iter_mut().zip(&histogram.0) {
            *sum += count.load(Ordering::Relaxed);
        }
    }

    /// Takes away what was there at an earlier time.
    pub fn subtract(&mut self, earlier: &Counts) {
        for (count, before) in self.0.iter_mut().zip(&earlier.0) {
            *count = count.saturating_sub(*before);
        }
    }

    /// How many values were counted.
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }

    /// The value that `percent` (0 to 100) of all values do not exceed, at the upper end of its
    /// bucket; 0 when nothing was counted. 0 percent is the smallest value seen, 100 the largest.
    pub fn percentile(&self, percent: f64) -> u64 {
        let total = self.total();
        if total == 0 {
            return 0;
        }
        // The same rounding as HdrHistogram, which Redis uses: half a count up, at least one.
        let wanted = ((percent.clamp(0.0, 100.0) / 100.0 * total as f64 + 0.5) as u64).clamp(1, total);
        let mut seen = 0;
        for (bucket, count) in self.0.iter().enumerate() {
            seen += count;
            if seen >= wanted {
                return upper_end(bucket);
            }
        }
        upper_end(BUCKETS - 1)
    }

    /// The rows of LATENCY HISTOGRAM for a histogram of nanoseconds: an upper bound in microseconds
    /// and how many values are not above it, for each power of two at which that number grows.
    ///
    /// The bounds are Redis' own: 1, 2, 4, 8, 16, 33, 66, 132 ..., which is 1024 ns doubled, at the
    /// end of the bucket that Redis counts it in.
    pub fn powers_of_two_us(&self) -> Vec<(u64, u64)> {
        let mut rows = Vec::new();
        let (mut seen, mut told, mut bucket) = (0, 0, 0);
        for exponent in 10..=40 {
            while bucket < self.0.len() && upper_end(bucket) < 1 << exponent {
                seen += self.0[bucket];
                bucket += 1;
            }
            if seen > told {
                told = seen;
                let bound: u64 = 1 << exponent;
                // Redis counts up to a second and ends at 2^30 ns exactly; we go on from there.
                let bound = if exponent < 30 { bound + bound / 128 - 1 } else { bound };
                rows.push((bound / 1000, seen));
            }
        }
        rows
    }
}

/// How late something happens: percentiles and the exact maximum. Any thread may record.
#[derive(Debug, Default)]
pub struct Lag {
    histogram: Histogram,
    max: AtomicU64,
    /// What had been counted at the last reset.
    before: parking_lot::Mutex<Counts>,
}

/// What a [`Lag`] has seen, in the unit that was recorded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LagSummary {
    /// How many were counted.
    pub count: u64,
    /// Half were not later than this.
    pub p50: u64,
    /// 99 of 100 were not later than this.
    pub p99: u64,
    /// The latest.
    pub max: u64,
}

impl Lag {
    /// Nothing seen yet.
    pub fn new() -> Lag {
        Lag::default()
    }

    /// Counts one that was `late` units late.
    #[inline]
    pub fn record(&self, late: u64) {
        self.histogram.record(late);
        if late > self.max.load(Ordering::Relaxed) {
            self.max.fetch_max(late, Ordering::Relaxed);
        }
    }

    /// What was seen since the last reset.
    pub fn summary(&self) -> LagSummary {
        let mut counts = self.histogram.counts();
        counts.subtract(&self.before.lock());
        let max = self.max.load(Ordering::Relaxed);
        // A bucket's upper end may lie above the largest value that was ever in it.
        let at = |percent| counts.percentile(percent).min(max);
        LagSummary { count: counts.total(), p50: at(50.0), p99: at(99.0), max }
    }

    /// Begins anew. What is recorded at the same moment may fall on either side.
    pub fn reset(&self) {
        let mut before = self.before.lock();
        *before = self.histogram.counts();
        self.max.store(0, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn counted(values: &[u64]) -> Counts {
        let histogram = Histogram::new();
        values.iter().for_each(|value| histogram.record_alone(*value));
        histogram.counts()
    }

    #[test]
    fn buckets_follow_each_other_without_gap() {
        for bucket in 1..BUCKETS {
            assert_eq!(bucket_of(upper_end(bucket - 1) + 1), bucket);
            assert_eq!(bucket_of(upper_end(bucket)), bucket);
        }
        assert_eq!(bucket_of(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn latency_histogram_has_redis_bounds_and_skips_those_where_nothing_is_added() {
        let us = |values: &[u64]| values.iter().map(|v| v * 1000).collect::<Vec<_>>();
        assert_eq!(counted(&us(&[3, 4])).powers_of_two_us(), [(4, 2)]);
        assert_eq!(counted(&us(&[10, 61, 62, 94])).powers_of_two_us(), [(16, 1), (66, 3), (132, 4)]);
        assert_eq!(
            counted(&us(&[2075, 4080, 10_100, 901_000])).powers_of_two_us(),
            [(2113, 1), (4227, 2), (16_908, 3), (1_073_741, 4)]
        );
        assert_eq!(counted(&[u64::MAX]).powers_of_two_us().len(), 1, "what is above the ceiling is still counted");
        assert!(Counts::default().powers_of_two_us().is_empty());
    }

    #[test]
    fn a_lag_forgets_on_reset() {
        let lag = Lag::new();
        assert_eq!(lag.summary(), LagSummary::default());
        (1..=100).for_each(|late| lag.record(late * 1000));
        let summary = lag.summary();
        assert_eq!((summary.count, summary.max), (100, 100_000));
        assert!((50_000..54_000).contains(&summary.p50) && summary.p99 <= 100_000 && summary.p99 >= 99_000);
        lag.reset();
        assert_eq!(lag.summary(), LagSummary::default());
        lag.record(3);
        assert_eq!(lag.summary(), LagSummary { count: 1, p50: 3, p99: 3, max: 3 });
    }

    proptest! {
        #[test]
        fn a_percentile_is_that_of_the_sorted_values_within_a_sixteenth(
            mut values in prop::collection::vec(0u64..10_000_000, 1..200),
            percent in 0.0f64..=100.0,
        ) {
            let counts = counted(&values);
            values.sort_unstable();
            let rank = ((percent / 100.0 * values.len() as f64 + 0.5) as usize).clamp(1, values.len());
            let exact = values[rank - 1];
            let told = counts.percentile(percent);
            prop_assert!(told >= exact && told <= exact + exact / 16, "{told} for {exact}");
        }

        #[test]
        fn what_was_there_before_can_be_subtracted(
            early in prop::collection::vec(any::<u64>(), 0..50),
            late in prop::collection::vec(any::<u64>(), 0..50),
        ) {
            let before = counted(&early);
            let mut all = counted(&[early, late.clone()].concat());
            all.subtract(&before);
            prop_assert_eq!(all, counted(&late));
        }
    }
}
