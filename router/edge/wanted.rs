//! How many apps are told of as wanted, over all apps of the process: who asks for
//! every app there is leaves room for all other events.
//!
//! Owns the allowance, and what was left out of it. That one app is told of now
//! and then only is its own ([`AppLive`](crate::table::AppLive)). Looked at by
//! requests that find no backend, and by no others.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::clock::Micros;
use crate::policy::limit::{Meter, Pace, Rate};

/// Apps told of, a second, and at once after a quiet time: a platform that starts
/// apps on demand hears of each, a scanner's hundred thousand stay few.
const TOLD: Rate = Rate::per_second(10);
const TOLD_AT_ONCE: u32 = 100;

/// What was left out is summed up once in so long.
const SUMMED_EVERY_US: Micros = 10_000_000;

/// What may still be told.
#[derive(Debug, Default)]
pub struct Wanted {
    meter: Meter,
    left_out: AtomicU64,
    /// When it was last summed up; 0: never.
    summed_us: AtomicU64,
}

impl Wanted {
    /// Whether one more may be told; else it counts as left out.
    pub fn take(&self, now_us: Micros) -> bool {
        let pace = Pace::new(TOLD, Some(TOLD_AT_ONCE));
        let may = self.meter.take(pace, now_us.saturating_mul(1_000)).is_ok();
        self.left_out.fetch_add(u64::from(!may), Relaxed);
        may
    }

    /// A sentence about what was left out, if it is time for one.
    pub fn sum_up(&self, now_us: Micros) -> Option<String> {
        let summed_us = self.summed_us.load(Relaxed);
        let is_due = summed_us == 0 || now_us.saturating_sub(summed_us) >= SUMMED_EVERY_US;
        if !is_due || self.left_out.load(Relaxed) == 0 {
            return None;
        }
        let (word, now_us) = (&self.summed_us, now_us.max(1));
        word.compare_exchange(summed_us, now_us, Relaxed, Relaxed)
            .ok()?;
        let left_out = self.left_out.swap(0, Relaxed);
        Some(format!(
            "more apps are wanted than are told of one by one, {TOLD}: \
             of {left_out} more requests that found no backend nothing was said"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND_US: Micros = 1_000_000;

    #[test]
    fn whoever_asks_for_every_app_is_told_of_so_often_and_summed_up() {
        let wanted = Wanted::default();
        let (mut told, mut sums) = (0, Vec::new());
        // 100,000 apps in 20 seconds.
        for request in 0..100_000 {
            let now_us = SECOND_US + request * 200;
            told += u64::from(wanted.take(now_us));
            sums.extend(wanted.sum_up(now_us));
        }
        let most = u64::from(TOLD_AT_ONCE) + 20 * u64::from(TOLD.count);
        assert!((most - 1..=most + 1).contains(&told), "{told}");
        assert_eq!(sums.len(), 2, "{sums:?}");
        assert!(sums[0].contains("10/s: of 1 more"), "{}", sums[0]);
        // None is lost: what came after the last sum is in the next.
        let later_us = 60 * SECOND_US;
        assert!(wanted.take(later_us));
        sums.extend(wanted.sum_up(later_us));
        let count = |sum: &String| -> u64 {
            let word = sum
                .split("of ")
                .last()
                .and_then(|rest| rest.split(' ').next());
            word.and_then(|word| word.parse().ok()).expect("a number")
        };
        assert_eq!(sums.iter().map(count).sum::<u64>(), 100_000 - told);
        assert_eq!(wanted.sum_up(2 * later_us), None, "nothing was left out");
    }
}
