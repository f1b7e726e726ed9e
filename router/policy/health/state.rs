//! Where a backend stands: what a choice goes by, and what time alone makes of
//! it.
//!
//! Owns the states, their share of traffic and their form as one word, so that
//! a choice reads and claims them without a lock. Never judges a failure.

/// A lost trial, or a probe that never came, holds a backend out this long at
/// most.
const LOST_US: u64 = 10_000_000;

/// A trial prefers a request that may be sent twice for so long, then takes
/// any.
const PATIENCE_US: u64 = 5_000_000;

/// Where a ramp begins, in thousandths of the weight.
const RAMP_FROM_PERMILLE: u64 = 100;

/// Full share, in thousandths.
pub const FULL_PERMILLE: u32 = 1_000;

/// Where a backend stands. Times are microseconds of the process's one clock,
/// below 2^61.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum State {
    /// In rotation with its full share.
    #[default]
    Settled,
    /// In rotation, its share rising.
    Ramping {
        /// Since when; 0: from the first look on.
        since_us: u64,
    },
    /// Used last, as it asked for.
    Resting {
        /// Until when.
        until_us: u64,
    },
    /// Out of rotation.
    Out {
        /// Nobody is there: a connection brings it back, not a request.
        hard: bool,
        /// When its next trial or probe may begin.
        due_us: u64,
    },
    /// Out of rotation, one request is finding out.
    Trial {
        /// Since when.
        since_us: u64,
    },
}

impl State {
    /// Whether requests go to it as a matter of course, be it last.
    pub fn is_in_rotation(self) -> bool {
        !matches!(self, State::Out { .. } | State::Trial { .. })
    }

    /// Whether it is out for something other than not being there.
    pub fn is_soft_out(self) -> bool {
        matches!(self, State::Out { hard: false, .. } | State::Trial { .. })
    }

    /// What time alone makes of it: ramps and rests begin and end.
    pub fn at(self, now_us: u64, slow_start_us: u64) -> State {
        match self {
            State::Ramping { .. } if slow_start_us == 0 => State::Settled,
            State::Ramping { since_us: 0 } => State::Ramping { since_us: now_us },
            State::Ramping { since_us } if now_us >= since_us + slow_start_us => State::Settled,
            State::Resting { until_us } if now_us >= until_us => State::Settled,
            state => state,
        }
    }

    /// Its share of its weight, in thousandths: below the full one only while
    /// it ramps up; 0 if it is out.
    pub fn share_permille(self, now_us: u64, slow_start_us: u64) -> u32 {
        match self.at(now_us, slow_start_us) {
            State::Ramping { since_us } => {
                let rise = (u64::from(FULL_PERMILLE) - RAMP_FROM_PERMILLE)
                    * now_us.saturating_sub(since_us)
                    / slow_start_us.max(1);
                (RAMP_FROM_PERMILLE + rise).min(u64::from(FULL_PERMILLE)) as u32
            }
            state if state.is_in_rotation() => FULL_PERMILLE,
            _ => 0,
        }
    }

    /// Whether a request may be this backend's trial. One that is `repeatable`
    /// harms nobody if it goes wrong; any other is taken only once the trial is
    /// long overdue. A lost trial, and a probe that never comes, end too.
    pub fn takes_trial(self, now_us: u64, repeatable: bool) -> bool {
        let (from_us, harmless) = match self {
            State::Out {
                hard: false,
                due_us,
            } => (due_us, false),
            // A connection that fails has harmed no request.
            State::Out { hard: true, due_us } => (due_us + LOST_US, true),
            State::Trial { since_us } => (since_us + LOST_US, false),
            _ => return false,
        };
        let patience_us = if repeatable || harmless {
            0
        } else {
            PATIENCE_US
        };
        now_us >= from_us + patience_us
    }

    /// The state as one word; that of [`State::Settled`] is 0.
    pub fn to_bits(self) -> u64 {
        let (tag, time) = match self {
            State::Settled => (0, 0),
            State::Ramping { since_us } => (1, since_us),
            State::Resting { until_us } => (2, until_us),
            State::Out {
                hard: false,
                due_us,
            } => (3, due_us),
            State::Out { hard: true, due_us } => (4, due_us),
            State::Trial { since_us } => (5, since_us),
        };
        tag << TIME_BITS | time.min(TIME_MASK)
    }

    /// The state of a word made by [`to_bits`](Self::to_bits).
    pub fn from_bits(bits: u64) -> State {
        let time = bits & TIME_MASK;
        match bits >> TIME_BITS {
            1 => State::Ramping { since_us: time },
            2 => State::Resting { until_us: time },
            3 => State::Out {
                hard: false,
                due_us: time,
            },
            4 => State::Out {
                hard: true,
                due_us: time,
            },
            5 => State::Trial { since_us: time },
            _ => State::Settled,
        }
    }
}

const TIME_BITS: u32 = 61;
const TIME_MASK: u64 = (1 << TIME_BITS) - 1;
