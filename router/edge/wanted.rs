//! How many apps are told of as wanted, over all apps of the process: who asks for
//! every app there is leaves room for all other events.
//!
//! Owns the telling, the allowance, and what was left out of it. That one app is
//! told of now and then only is its own ([`AppLive`](crate::table::AppLive)). Asked
//! by requests that find no backend, and by no others; the sum is looked for by
//! whoever keeps house, so that the last is told of too.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::clock::Micros;
use super::thread::Thread;
use crate::observe::Counter;
use crate::policy::limit::{Meter, Pace, Rate};
use crate::table::App;

/// Apps told of, a second, and at once after a quiet time: a platform that starts
/// apps on demand hears of each, a scanner's hundred thousand stay few.
const TOLD: Rate = Rate::per_second(10);
const TOLD_AT_ONCE: u32 = 100;

/// What was left out is summed up so long after the first of it.
const SUMMED_AFTER_US: Micros = 10_000_000;

/// What may still be told.
#[derive(Debug, Default)]
pub struct Wanted {
    meter: Meter,
    /// Since the last sum.
    left_out: AtomicU64,
    /// When the first of them was; 0: there is none.
    since_us: AtomicU64,
}

impl Wanted {
    /// Whether one more may be told; else it counts as left out.
    pub fn take(&self, now_us: Micros) -> bool {
        let pace = Pace::new(TOLD, Some(TOLD_AT_ONCE));
        let may = self.meter.take(pace, now_us.saturating_mul(1_000)).is_ok();
        if !may && self.left_out.fetch_add(1, Relaxed) == 0 {
            self.since_us.store(now_us.max(1), Relaxed);
        }
        may
    }

    /// A sentence about what was left out, if it is time for one.
    pub fn sum_up(&self, now_us: Micros) -> Option<String> {
        let since_us = self.since_us.load(Relaxed);
        if since_us == 0 || now_us.saturating_sub(since_us) < SUMMED_AFTER_US {
            return None;
        }
        // Before the count, so that whoever finds that at 0 begins anew.
        let word = &self.since_us;
        word.compare_exchange(since_us, 0, Relaxed, Relaxed).ok()?;
        let left_out = self.left_out.swap(0, Relaxed);
        Some(format!(
            "more apps are wanted than are told of one by one, {TOLD}: \
             of {left_out} more requests that found no backend nothing was said"
        ))
    }
}

/// Tells operators, and whoever starts backends on demand, that a request needs
/// one of an app that has none; now and then while requests come, and of so many
/// apps.
#[cold]
pub fn tell(thread: &Thread, app: &App) {
    let (now_us, shared) = (thread.clock.recent(), &thread.shared);
    let live = app.live();
    if !live.is_wanted_due(now_us) {
        return;
    }
    if !shared.wanted.take(now_us) {
        thread.cells.inc(Counter::WantedUntold);
    } else if live.may_tell_wanted(now_us) {
        let text = match app.backends.len() {
            0 => "a request came, and no backend is registered".to_owned(),
            down => format!("a request came, and none of {down} backends accepts connections"),
        };
        shared.events.post("app_wanted", &app.name, "", text);
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
        assert_eq!(sums.len(), 1, "{sums:?}");
        // None is lost, though nobody asks any more.
        assert_eq!(wanted.sum_up(21 * SECOND_US), None, "not yet");
        sums.extend(wanted.sum_up(60 * SECOND_US));
        let count = |sum: &String| -> u64 {
            let word = sum
                .split("of ")
                .last()
                .and_then(|rest| rest.split(' ').next());
            word.and_then(|word| word.parse().ok()).expect("a number")
        };
        let counts: Vec<u64> = sums.iter().map(count).collect();
        assert!(counts.iter().all(|count| *count > 1_000), "{counts:?}");
        assert_eq!(counts.iter().sum::<u64>(), 100_000 - told);
        assert_eq!(wanted.sum_up(200 * SECOND_US), None, "nothing was left out");
    }
}
