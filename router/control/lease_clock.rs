//! The clock that leases run by: time during which control could listen.
//!
//! Owns one thing: a monotonic clock that stands still while this process does
//! (stopped, starved, its machine suspended), so that silence of our own
//! making expires nothing.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// A gap between two looks that is longer than this was ours.
const STALL: Duration = Duration::from_secs(3);

/// Milliseconds since start, less those spent stalled.
#[derive(Debug)]
pub struct LeaseClock(Mutex<Hands>);

#[derive(Debug)]
struct Hands {
    last: Instant,
    elapsed: Duration,
}

impl Default for LeaseClock {
    fn default() -> Self {
        LeaseClock(Mutex::new(Hands {
            last: Instant::now(),
            elapsed: Duration::ZERO,
        }))
    }
}

impl LeaseClock {
    /// Now. Must be looked at at least once a second for the clock to run true.
    pub fn now_ms(&self) -> u64 {
        self.at(Instant::now())
    }

    fn at(&self, now: Instant) -> u64 {
        let mut hands = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let gap = now.saturating_duration_since(hands.last);
        hands.elapsed += if gap > STALL { STALL } else { gap };
        hands.last = hands.last.max(now);
        u64::try_from(hands.elapsed.as_millis()).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stall_hardly_counts() {
        let clock = LeaseClock::default();
        let start = Instant::now();
        let first = clock.at(start);
        assert_eq!(clock.at(start + Duration::from_secs(2)) - first, 2_000);
        assert_eq!(
            clock.at(start + Duration::from_secs(3_600)) - first,
            2_000 + 3_000
        );
        assert_eq!(
            clock.at(start),
            clock.at(start + Duration::from_secs(3_600))
        );
    }
}
