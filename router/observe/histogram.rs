//! The histograms' buckets: where an observation falls, and the bounds.
//!
//! Log-linear, as in Gil Tene's HdrHistogram: each power of two of microseconds
//! is cut into [`STEPS`] equal steps, so a bound is at most 25 % above the one
//! before it anywhere between 64 µs and 67 s. The bounds are the same in every
//! process and version, so histograms add up bucket by bucket.
//!
//! **Invariant**: bucket `i` holds the observations in `(bound(i-1), bound(i)]`
//! (Prometheus' `le`); the last bucket is everything above the last bound.

/// Steps per power of two.
pub const STEPS: usize = 4;
const STEP_BITS: u32 = STEPS.trailing_zeros();
/// The first bound is `2^LOWEST` microseconds.
const LOWEST: u32 = 6;
/// The last bound is `2^HIGHEST` microseconds.
const HIGHEST: u32 = 26;
/// Bounds that are numbers; the bucket after them is `+Inf`.
pub const BOUNDS: usize = 1 + (HIGHEST - LOWEST) as usize * STEPS;
/// Buckets of a histogram.
pub const BUCKETS: usize = BOUNDS + 1;

/// The bucket of an observation of `micros`.
#[inline]
pub fn bucket(micros: u64) -> usize {
    let below = micros.saturating_sub(1);
    if below < 1 << LOWEST {
        return 0;
    }
    let power = u64::BITS - 1 - below.leading_zeros();
    if power >= HIGHEST {
        return BOUNDS;
    }
    let step = (below >> (power - STEP_BITS)) as usize & (STEPS - 1);
    1 + (power - LOWEST) as usize * STEPS + step
}

/// The upper bound of bucket `index`, microseconds; `None` for the last.
pub fn bound(index: usize) -> Option<u64> {
    match index {
        0 => Some(1 << LOWEST),
        1..BOUNDS => {
            let power = LOWEST + ((index - 1) / STEPS) as u32;
            let step = ((index - 1) % STEPS) as u64 + 1;
            Some((1 << power) + (step << (power - STEP_BITS)))
        }
        _ => None,
    }
}

/// The value below which `share` (0 to 1) of the observations lie, seconds, with
/// linear interpolation inside the bucket; `None` without observations. What is
/// above the last bound counts as the last bound.
pub fn quantile(buckets: &[u64], share: f64) -> Option<f64> {
    let total: u64 = buckets.iter().sum();
    if total == 0 {
        return None;
    }
    let rank = share.clamp(0.0, 1.0) * total as f64;
    let mut seen = 0.0;
    for (index, &count) in buckets.iter().enumerate() {
        let lower = index.checked_sub(1).and_then(bound).unwrap_or(0) as f64;
        let Some(upper) = bound(index) else {
            return Some(lower / 1e6);
        };
        if count > 0 && seen + count as f64 >= rank {
            let within = (rank - seen) / count as f64;
            return Some((lower + (upper as f64 - lower) * within) / 1e6);
        }
        seen += count as f64;
    }
    bound(BOUNDS - 1).map(|micros| micros as f64 / 1e6)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn bounds_rise_by_at_most_a_quarter() {
        for index in 1..BOUNDS {
            let (before, here) = (bound(index - 1).unwrap(), bound(index).unwrap());
            assert!(before < here, "bound {index}");
            assert!(here * 4 <= before * 5, "bound {index}: {before} to {here}");
        }
        assert_eq!(bound(BOUNDS - 1), Some(1 << HIGHEST));
        assert_eq!(bound(BOUNDS), None);
    }

    #[test]
    fn a_bound_belongs_to_its_own_bucket() {
        for index in 0..BOUNDS {
            let bound = bound(index).unwrap();
            assert_eq!(bucket(bound), index);
            assert_eq!(bucket(bound + 1), index + 1);
        }
        assert_eq!(bucket(0), 0);
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn quantiles_of_known_distributions() {
        let mut buckets = [0; BUCKETS];
        assert_eq!(quantile(&buckets, 0.5), None);
        for micros in 1..=100_000u64 {
            buckets[bucket(micros)] += 1;
        }
        let p50 = quantile(&buckets, 0.5).unwrap();
        let p99 = quantile(&buckets, 0.99).unwrap();
        assert!((p50 - 0.050).abs() < 0.001, "{p50}");
        // The bucket it falls into reaches from 98.3 to 114.7 ms.
        assert!((0.098..0.115).contains(&p99), "{p99}");
        let mut above = [0; BUCKETS];
        above[BUCKETS - 1] = 1;
        assert_eq!(quantile(&above, 0.99), Some(67.108_864));
    }

    proptest! {
        #[test]
        fn an_observation_is_within_its_buckets_bounds(micros in 0u64..1 << 40) {
            let index = bucket(micros);
            prop_assert!(index < BUCKETS);
            if let Some(upper) = bound(index) {
                prop_assert!(micros <= upper);
            }
            if index > 0 {
                prop_assert!(micros > bound(index - 1).unwrap());
            }
        }
    }
}
