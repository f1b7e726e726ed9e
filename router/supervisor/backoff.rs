//! How long a dead child's replacement waits. Pure: lifetimes in, delays out.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A child that lived this long was not part of a crash loop.
const HEALTHY_LIFE: Duration = Duration::from_secs(10);
/// The first delay of a streak of those that should serve; each further one
/// doubles.
const FIRST_DELAY: Duration = Duration::from_millis(50);
/// Their longest delay: a child that can live again is back within a second.
const MAX_DELAY: Duration = Duration::from_secs(1);
/// Before a dead standby is followed by another: nobody waits for it.
const RESERVE_FIRST_DELAY: Duration = Duration::from_secs(1);
/// The longest of these delays.
const RESERVE_MAX_DELAY: Duration = Duration::from_secs(60);

/// Rate limit on restarts: a delay that doubles while children keep dying
/// young, up to a bound. Never gives up.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Backoff {
    streak: u32,
    /// The first death of a streak costs no delay.
    forgives_one: bool,
    first: Duration,
    max: Duration,
}

impl Backoff {
    /// For those that should serve: at once after a healthy life, then 50 ms
    /// doubling to one second.
    pub(super) fn serving() -> Backoff {
        Backoff {
            streak: 0,
            forgives_one: true,
            first: FIRST_DELAY,
            max: MAX_DELAY,
        }
    }

    /// For those that stand by: one second doubling to a minute.
    pub(super) fn reserve() -> Backoff {
        Backoff {
            streak: 0,
            forgives_one: false,
            first: RESERVE_FIRST_DELAY,
            max: RESERVE_MAX_DELAY,
        }
    }

    /// A child died after `lived`; its replacement starts after the returned
    /// delay.
    pub(super) fn died(&mut self, lived: Duration) -> Duration {
        if lived >= HEALTHY_LIFE {
            self.streak = 0;
        }
        let doublings = match (self.streak, self.forgives_one) {
            (0, true) => None,
            (streak, true) => Some(streak - 1),
            (streak, false) => Some(streak),
        };
        self.streak = self.streak.saturating_add(1);
        doublings.map_or(Duration::ZERO, |doublings| {
            self.first
                .saturating_mul(1 << doublings.min(10))
                .min(self.max)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_restart_is_at_once_and_a_crash_loop_slows_to_a_second() {
        let mut backoff = Backoff::serving();
        let young = Duration::from_millis(1);
        let delays: Vec<u128> = (0..8).map(|_| backoff.died(young).as_millis()).collect();
        assert_eq!(delays, [0, 50, 100, 200, 400, 800, 1000, 1000]);
        for _ in 0..10_000 {
            assert_eq!(
                backoff.died(young),
                MAX_DELAY,
                "never for good, never longer"
            );
        }
    }

    #[test]
    fn a_healthy_life_ends_the_streak() {
        let mut backoff = Backoff::serving();
        for _ in 0..5 {
            backoff.died(Duration::ZERO);
        }
        assert_eq!(backoff.died(HEALTHY_LIFE), Duration::ZERO);
        assert_eq!(backoff.died(Duration::ZERO), FIRST_DELAY);
    }

    #[test]
    fn a_standby_that_cannot_load_is_tried_once_a_minute() {
        let mut backoff = Backoff::reserve();
        let delays: Vec<u64> = (0..8)
            .map(|_| backoff.died(Duration::ZERO).as_secs())
            .collect();
        assert_eq!(delays, [1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(backoff.died(HEALTHY_LIFE), RESERVE_FIRST_DELAY);
    }
}
