//! How long a dead child's replacement waits. Pure: lifetimes in, delays out.

use std::time::Duration;

/// A child that lived this long was not part of a crash loop.
const HEALTHY_LIFE: Duration = Duration::from_secs(10);
/// The first delay of a streak; each further one doubles.
const FIRST_DELAY: Duration = Duration::from_millis(50);
/// The longest delay: a child that can live again is back within a second.
const MAX_DELAY: Duration = Duration::from_secs(1);

/// Rate limit on restarts: at once after a healthy life, then 50 ms doubling
/// to one second while it keeps dying young. Never gives up.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    streak: u32,
}

impl Backoff {
    /// A child died after `lived`; its replacement starts after the returned
    /// delay.
    pub(super) fn died(&mut self, lived: Duration) -> Duration {
        if lived >= HEALTHY_LIFE {
            self.streak = 0;
        }
        let delay = match self.streak {
            0 => Duration::ZERO,
            streak => FIRST_DELAY
                .saturating_mul(1 << (streak - 1).min(10))
                .min(MAX_DELAY),
        };
        self.streak = self.streak.saturating_add(1);
        delay
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_restart_is_at_once_and_a_crash_loop_slows_to_a_second() {
        let mut backoff = Backoff::default();
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
        let mut backoff = Backoff::default();
        for _ in 0..5 {
            backoff.died(Duration::ZERO);
        }
        assert_eq!(backoff.died(HEALTHY_LIFE), Duration::ZERO);
        assert_eq!(backoff.died(Duration::ZERO), FIRST_DELAY);
    }
}
