//! How long changes take: each until it is durable, and each revision from
//! then until every serving edge routes by it.
//!
//! Owns the two distributions and the revisions still on their way. Measured
//! by the monotonic clock, in one process: nothing here believes in the time
//! of day. Bounded: revisions of one commit share an entry, and of more
//! commits than [`PENDING`] the oldest are taken together, under the older
//! one's time, so that a long wait is never told shorter than it was.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::observe::histogram::{BUCKETS, bucket, quantile};

/// Commits on their way that are told apart.
const PENDING: usize = 4_096;
/// Minutes that [`Spread::recent`] looks back on.
const MINUTES: usize = 5;

/// Both distributions, and what is still on its way.
#[derive(Debug)]
pub struct Propagation {
    inner: Mutex<Inner>,
    origin: Instant,
}

#[derive(Debug, Default)]
struct Inner {
    /// Revisions that not every serving edge has, oldest first.
    pending: VecDeque<Commit>,
    commit: Spread,
    active: Spread,
}

/// The revisions of one commit.
#[derive(Clone, Copy, Debug)]
struct Commit {
    first: u64,
    last: u64,
    durable_at: Instant,
}

/// A distribution of times.
#[derive(Clone, Debug)]
pub struct Spread {
    /// Observations by bucket of [`crate::observe::histogram`].
    pub buckets: [u64; BUCKETS],
    /// Their sum, microseconds.
    pub sum_us: u64,
    /// The last minutes' buckets; the newest minute is the last.
    minutes: VecDeque<(u64, [u64; BUCKETS])>,
}

impl Default for Spread {
    fn default() -> Self {
        Spread {
            buckets: [0; BUCKETS],
            sum_us: 0,
            minutes: VecDeque::new(),
        }
    }
}

impl Spread {
    fn observe(&mut self, time: Duration, count: u64, minute: u64) {
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let at = bucket(micros);
        self.buckets[at] += count;
        self.sum_us = self.sum_us.saturating_add(micros.saturating_mul(count));
        if self.minutes.back().is_none_or(|(last, _)| *last < minute) {
            self.minutes.push_back((minute, [0; BUCKETS]));
            while self.minutes.len() > MINUTES {
                self.minutes.pop_front();
            }
        }
        if let Some((_, buckets)) = self.minutes.back_mut() {
            buckets[at] += count;
        }
    }

    fn forget_before(&mut self, minute: u64) {
        self.minutes.retain(|(of, _)| *of >= minute);
    }

    /// The buckets of the last minutes together.
    pub fn recent(&self) -> [u64; BUCKETS] {
        let mut sum = [0; BUCKETS];
        for (_, buckets) in &self.minutes {
            for (sum, count) in sum.iter_mut().zip(buckets) {
                *sum += count;
            }
        }
        sum
    }

    /// The value below which `share` (0 to 1) of the last minutes' observations
    /// lie, seconds; `None` without any.
    pub fn recent_quantile(&self, share: f64) -> Option<f64> {
        quantile(&self.recent(), share)
    }
}

impl Default for Propagation {
    fn default() -> Self {
        Propagation {
            inner: Mutex::default(),
            origin: Instant::now(),
        }
    }
}

impl Propagation {
    /// Revisions `first` to `last` became durable at `at`, by changes that had
    /// waited as long as `waits` for it.
    pub fn durable(
        &self,
        first: u64,
        last: u64,
        at: Instant,
        waits: impl Iterator<Item = Duration>,
    ) {
        let minute = self.minute(at);
        let mut inner = self.lock();
        for wait in waits {
            inner.commit.observe(wait, 1, minute);
        }
        if first > last {
            return;
        }
        if inner.pending.len() == PENDING
            && let Some(oldest) = inner.pending.pop_front()
            && let Some(next) = inner.pending.front_mut()
        {
            next.first = oldest.first;
            next.durable_at = oldest.durable_at;
        }
        inner.pending.push_back(Commit {
            first,
            last,
            durable_at: at,
        });
    }

    /// Every serving edge routes by `revision` at `at`.
    pub fn active(&self, revision: u64, at: Instant) {
        let minute = self.minute(at);
        let mut inner = self.lock();
        while let Some(commit) = inner.pending.front().copied() {
            if commit.first > revision {
                return;
            }
            let reached = commit.last.min(revision);
            let took = at.saturating_duration_since(commit.durable_at);
            inner
                .active
                .observe(took, reached - commit.first + 1, minute);
            if reached == commit.last {
                inner.pending.pop_front();
            } else if let Some(front) = inner.pending.front_mut() {
                front.first = reached + 1;
            }
        }
    }

    /// How long changes waited until they were durable.
    pub fn commits(&self) -> Spread {
        self.spread(|inner| &mut inner.commit)
    }

    /// How long revisions took from then until they were active.
    pub fn activations(&self) -> Spread {
        self.spread(|inner| &mut inner.active)
    }

    fn spread(&self, which: fn(&mut Inner) -> &mut Spread) -> Spread {
        let oldest = (self.minute(Instant::now()) + 1).saturating_sub(MINUTES as u64);
        let mut inner = self.lock();
        let spread = which(&mut inner);
        spread.forget_before(oldest);
        spread.clone()
    }

    fn minute(&self, at: Instant) -> u64 {
        at.saturating_duration_since(self.origin).as_secs() / 60
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn counts(spread: &Spread) -> Vec<(u64, u64)> {
        let filled = spread.buckets.iter().enumerate();
        filled
            .filter(|(_, count)| **count > 0)
            .map(|(at, count)| (at as u64, *count))
            .collect()
    }

    fn at(time: Duration) -> u64 {
        bucket(time.as_micros() as u64) as u64
    }

    #[test]
    fn each_revision_counts_once_when_the_last_edge_has_it() {
        let propagation = Propagation::default();
        let start = propagation.origin;
        propagation.durable(1, 3, start, [2 * MS, 4 * MS].into_iter());
        propagation.durable(4, 4, start + 5 * MS, [MS].into_iter());
        propagation.active(0, start + 6 * MS);
        assert_eq!(counts(&propagation.activations()), []);
        propagation.active(2, start + 10 * MS);
        assert_eq!(counts(&propagation.activations()), [(at(10 * MS), 2)]);
        propagation.active(9, start + 25 * MS);
        propagation.active(9, start + 900 * MS);
        let spread = propagation.activations();
        assert_eq!(
            counts(&spread),
            [(at(10 * MS), 2), (at(20 * MS), 1), (at(25 * MS), 1)]
        );
        assert_eq!(spread.sum_us, 65_000);
        assert_eq!(propagation.commits().buckets.iter().sum::<u64>(), 3);
    }

    #[test]
    fn what_waits_long_is_bounded_and_never_told_shorter() {
        let propagation = Propagation::default();
        let start = propagation.origin;
        let commits = 3 * PENDING as u64;
        for revision in 1..=commits {
            let at = start + Duration::from_micros(revision);
            propagation.durable(revision, revision, at, std::iter::empty());
        }
        assert_eq!(propagation.lock().pending.len(), PENDING);
        let end = start + Duration::from_secs(1);
        propagation.active(commits, end);
        let spread = propagation.activations();
        assert_eq!(spread.buckets.iter().sum::<u64>(), commits);
        let truly: u64 = (1..=commits).map(|revision| 1_000_000 - revision).sum();
        assert!(spread.sum_us >= truly);
    }

    #[test]
    fn recent_times_are_of_the_last_minutes() {
        let propagation = Propagation::default();
        let mut spread = Spread::default();
        spread.observe(MS, 5, 0);
        spread.observe(80 * MS, 5, 3);
        assert!(spread.recent_quantile(0.99).unwrap() > 0.07);
        assert!(spread.recent_quantile(0.1).unwrap() < 0.002);
        spread.forget_before(2);
        assert!(spread.recent_quantile(0.1).unwrap() > 0.06);
        assert_eq!(propagation.commits().recent_quantile(0.5), None);
    }
}
