//! Whether a data thread has more to do than its processor can.
//!
//! Owns the judgement ([`Overload`]) and the size of a round
//! ([`Pace`]). Never measures, never says who is served: that is
//! [`super::fair_queue`].
//!
//! A thread is saturated when what is ready waits for it ([`LAG_US`]) though it
//! never rests, twice in a row. Both belong to it: a machine that stood still
//! makes everything late, and leaves no work behind; a thread that is always
//! busy and late with nothing is at its best. It is not saturated any more when
//! for [`CALM_US`] nobody had to wait for another.

/// What is ready is to be looked at within this.
pub const LAG_US: u64 = 5_000;

/// Without a line for so long, a thread is not saturated any more.
pub const CALM_US: u64 = 500_000;

/// A thread that rests less than the rest of this share of its time never rests:
/// asking the system for news is counted as rest.
const BUSY_PERCENT: u64 = 75;

/// A processor shared with others leaves a thread some part of the time; below
/// this it is not work that makes it late.
const WORKED_PERCENT: u64 = 20;

/// Measures in a row that show it.
const SHOWN: u32 = 2;

/// What was measured since the last time.
#[derive(Clone, Copy, Debug, Default)]
pub struct Measure {
    /// Time that passed.
    pub elapsed_us: u64,
    /// Time in which the thread had something to do.
    pub busy_us: u64,
    /// Time in which it did it: the processor's.
    pub worked_us: u64,
    /// How late what was due now came.
    pub lag_us: u64,
    /// Somebody had to wait for another.
    pub stood: bool,
}

impl Measure {
    /// Whether it was busy at least `percent` of the time.
    pub fn is_busy(&self, percent: u64) -> bool {
        self.busy_us.saturating_mul(100) >= self.elapsed_us.saturating_mul(percent)
    }

    fn shows_saturation(&self) -> bool {
        let has_worked =
            self.worked_us.saturating_mul(100) >= self.elapsed_us.saturating_mul(WORKED_PERCENT);
        self.lag_us >= LAG_US && self.is_busy(BUSY_PERCENT) && has_worked
    }
}

/// What is made of the measures.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Overload {
    is_saturated: bool,
    shown: u32,
    calm_us: u64,
}

impl Overload {
    /// Takes a measure; whether the thread is saturated now.
    pub fn take(&mut self, measure: &Measure) -> bool {
        let shows = measure.shows_saturation();
        if !self.is_saturated {
            self.shown = if shows { self.shown + 1 } else { 0 };
            if self.shown >= SHOWN {
                *self = Overload {
                    is_saturated: true,
                    ..Overload::default()
                };
            }
            return self.is_saturated;
        }
        self.calm_us = match shows || measure.stood {
            true => 0,
            false => self.calm_us + measure.elapsed_us,
        };
        if self.calm_us >= CALM_US {
            *self = Overload::default();
        }
        self.is_saturated
    }
}

/// A round is to be over within this: so long waits who passes between two.
const ROUND_US: u64 = 2_000;
/// Served in a round, at least: asking the system for news costs about as much
/// as one.
const LEAST: u32 = 8;
/// At most.
const MOST: u32 = 512;
/// Where a round had time for more.
const STEP: u32 = 4;

/// Connections accepted to each request of a round.
const ACCEPTED_EACH: u32 = 2;
/// Between two rounds, at least.
const LEAST_ACCEPTED: u32 = 32;
/// At most: taking them up takes about as long as a round.
const MOST_ACCEPTED: u32 = 128;

/// How many are served in a round: more while rounds are short, fewer at once
/// where one was long, since what it served was dearer than thought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace(u32);

impl Default for Pace {
    fn default() -> Self {
        Pace(8 * LEAST)
    }
}

impl Pace {
    /// Those to be served in the next round.
    pub fn most(self) -> u32 {
        self.0
    }

    /// Connections to be accepted between two rounds. The system has one line for
    /// all that come, whoever's they are; so they are taken from it faster than
    /// requests are served, and wait in their app's.
    pub fn accepted(self) -> u32 {
        (ACCEPTED_EACH * self.0).clamp(LEAST_ACCEPTED, MOST_ACCEPTED)
    }

    /// A round took so long.
    pub fn took(&mut self, round_us: u64) {
        self.0 = match round_us > ROUND_US {
            true => self.0 - self.0 / 4,
            false => self.0 + STEP,
        };
        self.0 = self.0.clamp(LEAST, MOST);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LATE: Measure = Measure {
        elapsed_us: 15_000,
        busy_us: 14_500,
        worked_us: 14_000,
        lag_us: LAG_US,
        stood: false,
    };

    const CALM: Measure = Measure {
        elapsed_us: 10_000,
        busy_us: 3_000,
        worked_us: 3_000,
        lag_us: 1_000,
        stood: false,
    };

    fn after(measures: &[Measure]) -> bool {
        let mut overload = Overload::default();
        measures
            .iter()
            .fold(false, |_, measure| overload.take(measure))
    }

    #[test]
    fn late_and_busy_twice_is_saturated() {
        assert!(!after(&[LATE]));
        assert!(after(&[LATE, LATE]));
        assert!(!after(&[LATE, CALM, LATE]));
    }

    #[test]
    fn a_machine_that_stood_still_is_not() {
        let stall = Measure {
            elapsed_us: 300_000,
            busy_us: 299_000,
            worked_us: 3_000,
            lag_us: 290_000,
            stood: false,
        };
        assert!(!after(&[stall; 50]));
        let asleep = Measure {
            busy_us: 0,
            ..stall
        };
        assert!(!after(&[asleep; 50]));
    }

    #[test]
    fn a_thread_at_its_best_is_not_and_one_that_shares_its_processor_is() {
        let best = Measure {
            lag_us: LAG_US - 1,
            ..LATE
        };
        assert!(!after(&[best; 1_000]));
        let half = Measure {
            worked_us: 7_000,
            ..LATE
        };
        assert!(after(&[half, half]));
    }

    #[test]
    fn it_ends_half_a_second_after_nobody_stood_in_line() {
        let mut overload = Overload::default();
        overload.take(&LATE);
        assert!(overload.take(&LATE));
        let standing = Measure {
            stood: true,
            ..CALM
        };
        for _ in 0..1_000 {
            assert!(overload.take(&standing), "a line stands");
        }
        let calm_ms = (1..)
            .find(|_| !overload.take(&CALM))
            .expect("it must end some time")
            * 10;
        assert_eq!(calm_ms, 500);
    }

    #[test]
    fn more_is_accepted_than_served_and_no_more_than_a_round_takes() {
        let mut pace = Pace::default();
        for round_us in [0, 2 * ROUND_US] {
            for _ in 0..500 {
                pace.took(round_us);
                let (served, accepted) = (pace.most(), pace.accepted());
                assert!(accepted <= MOST_ACCEPTED);
                assert!(accepted > served || accepted == MOST_ACCEPTED);
            }
        }
        assert_eq!((pace.most(), pace.accepted()), (LEAST, LEAST_ACCEPTED));
    }

    #[test]
    fn rounds_settle_at_what_fits_into_their_time() {
        for each_us in [3, 9, 40, 150] {
            let mut pace = Pace::default();
            let mut rounds = Vec::new();
            for _ in 0..500 {
                let most = pace.most();
                pace.took(u64::from(most) * each_us);
                rounds.push(most);
            }
            let fits = (ROUND_US / each_us).clamp(LEAST.into(), MOST.into());
            for most in &rounds[200..] {
                let most = u64::from(*most);
                assert!(most <= fits.max(LEAST.into()) + 4, "{most} of {fits}");
                assert!(4 * most + 20 >= 3 * fits, "{most} of {fits}");
            }
        }
    }
}
