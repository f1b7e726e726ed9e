//! Time as the supervisor counts it: since the machine was started.
//!
//! Owns no decision. A [`Moment`] is a number that another program of the
//! same machine reads the same way, so what was due before the supervisor
//! replaced itself is due after it.

use std::ops::Add;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

/// A reading of the monotonic clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct Moment(Duration);

impl Moment {
    /// Now.
    pub(super) fn now() -> Moment {
        let time = clock_gettime(ClockId::Monotonic);
        let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
        let nanoseconds = u32::try_from(time.tv_nsec).unwrap_or_default();
        Moment(Duration::new(seconds, nanoseconds))
    }

    /// How long ago `earlier` was; nothing if it is yet to come.
    pub(super) fn since(self, earlier: Moment) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

impl Add<Duration> for Moment {
    type Output = Moment;

    fn add(self, time: Duration) -> Moment {
        Moment(self.0.saturating_add(time))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_goes_on_and_never_overflows() {
        let earlier = Moment::now();
        let later = Moment::now();
        assert!(later >= earlier);
        assert_eq!(earlier.since(later + Duration::MAX), Duration::ZERO);
        assert_eq!(
            (earlier + Duration::from_secs(3)).since(earlier).as_secs(),
            3
        );
    }
}
