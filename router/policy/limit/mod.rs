//! Named limits: how many requests may pass in a time, or be under way at
//! once.
//!
//! Owns the figures ([`Rate`]) and the decision whether one more may pass, for
//! all threads together ([`Meter`], [`Crowd`]) and for each of very many keys
//! ([`keyed`]). Never knows which requests a limit is for, never reads a clock:
//! time comes in, in nanoseconds.
//!
//! A rate is held by the generic cell rate algorithm (ITU-T I.371, annex A):
//! one number, the *theoretical arrival time*, which each request that passes
//! moves on by a step; a request may come as much as a burst ahead of it. So a
//! limit costs one compare-and-swap, and any time `t` sees at most
//! `t × rate + burst` requests pass, over all threads.

pub mod keyed;
pub mod own;

use std::fmt;
use std::str::FromStr;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

const SECOND_NS: u64 = 1_000_000_000;

/// What is said of a request that a limit of 0 refuses: it may be raised again.
const STOPPED_WAIT_NS: u64 = 5 * SECOND_NS;

/// The time that a rate speaks of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Period {
    /// `/s`
    Second,
    /// `/m`
    Minute,
    /// `/h`
    Hour,
}

impl Period {
    /// Its length.
    pub fn seconds(self) -> u32 {
        match self {
            Period::Second => 1,
            Period::Minute => 60,
            Period::Hour => 3_600,
        }
    }

    /// The period of so many seconds.
    pub fn of_seconds(seconds: u32) -> Option<Period> {
        let all = [Period::Second, Period::Minute, Period::Hour];
        all.into_iter().find(|period| period.seconds() == seconds)
    }

    fn letter(self) -> &'static str {
        match self {
            Period::Second => "s",
            Period::Minute => "m",
            Period::Hour => "h",
        }
    }
}

/// So many requests in a period: `10/s`, `600/m`, `36/h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// How many; 0 lets nothing pass.
    pub count: u32,
    /// In which time.
    pub per: Period,
}

/// A text that is no rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "expected a whole number from 0, alone (a second) or with /s, /m or /h, of at most 1000000 a second"
)]
pub struct NoRate;

impl Rate {
    /// The most that a limit may let pass in a second.
    pub const MOST_PER_SECOND: u32 = 1_000_000;

    /// So many a second.
    pub const fn per_second(count: u32) -> Rate {
        Rate {
            count,
            per: Period::Second,
        }
    }

    /// Checks that it is not absurdly high.
    ///
    /// # Errors
    /// It is above [`Rate::MOST_PER_SECOND`].
    pub fn checked(self) -> Result<Rate, NoRate> {
        let most = u64::from(Rate::MOST_PER_SECOND) * u64::from(self.per.seconds());
        (u64::from(self.count) <= most)
            .then_some(self)
            .ok_or(NoRate)
    }

    /// Between two requests, nanoseconds; `None`: nothing passes.
    fn step_ns(self) -> Option<u64> {
        let period_ns = u64::from(self.per.seconds()) * SECOND_NS;
        period_ns.checked_div(u64::from(self.count))
    }

    /// How many may come at once after a quiet time, if nothing is said: one
    /// second's worth, and at least 1.
    pub fn usual_burst(self) -> u32 {
        (self.count / self.per.seconds()).max(1)
    }
}

impl FromStr for Rate {
    type Err = NoRate;

    fn from_str(text: &str) -> Result<Rate, NoRate> {
        let (count, per) = match text.split_once('/') {
            None => (text, Period::Second),
            Some((count, "s")) => (count, Period::Second),
            Some((count, "m")) => (count, Period::Minute),
            Some((count, "h")) => (count, Period::Hour),
            Some(_) => return Err(NoRate),
        };
        // `parse` takes a sign, which nobody means here.
        if !count.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(NoRate);
        }
        let count = count.parse().map_err(|_| NoRate)?;
        Rate { count, per }.checked()
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.count, self.per.letter())
    }
}

/// A refusal: how long until a request may pass, nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wait(pub u64);

impl Wait {
    /// As `Retry-After` says it: whole seconds, at least 1.
    pub fn seconds(self) -> u32 {
        u32::try_from(self.0.div_ceil(SECOND_NS))
            .unwrap_or(u32::MAX)
            .max(1)
    }
}

/// A rate as it is reckoned with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// Between two requests; 0: nothing passes.
    step_ns: u64,
    /// How far requests may run ahead.
    span_ns: u64,
}

impl Pace {
    /// A rate with as much at once as `burst`; `None`: the usual.
    pub fn new(rate: Rate, burst: Option<u32>) -> Pace {
        let step_ns = rate.step_ns().unwrap_or(0);
        let burst = burst.unwrap_or(rate.usual_burst()).max(1);
        Pace {
            step_ns,
            span_ns: step_ns.saturating_mul(u64::from(burst)),
        }
    }

    /// The arrival time after one more, at `now_ns`.
    fn after(self, arrival_ns: u64, now_ns: u64) -> Result<u64, Wait> {
        if self.step_ns == 0 {
            return Err(Wait(STOPPED_WAIT_NS));
        }
        let next = arrival_ns.max(now_ns).saturating_add(self.step_ns);
        let most = now_ns.saturating_add(self.span_ns);
        match next.checked_sub(most) {
            None | Some(0) => Ok(next),
            Some(early_ns) => Err(Wait(early_ns)),
        }
    }

    /// What an arrival time of another pace comes to: nobody waits longer than
    /// this one has them wait.
    fn settled(self, arrival_ns: u64, now_ns: u64) -> u64 {
        arrival_ns.min(now_ns.saturating_add(self.span_ns))
    }
}

/// A rate over all threads: when the next request is expected.
#[derive(Debug, Default)]
pub struct Meter {
    arrival_ns: AtomicU64,
}

impl Meter {
    /// Lets one more pass, or says how long it would have to wait.
    ///
    /// # Errors
    /// The wait.
    pub fn take(&self, pace: Pace, now_ns: u64) -> Result<(), Wait> {
        let mut arrival = self.arrival_ns.load(Relaxed);
        loop {
            let next = pace.after(arrival, now_ns)?;
            let swapped = self
                .arrival_ns
                .compare_exchange_weak(arrival, next, Relaxed, Relaxed);
            match swapped {
                Ok(_) => return Ok(()),
                Err(newer) => arrival = newer,
            }
        }
    }

    /// What was let pass did not take place: another limit refused it.
    pub fn give_back(&self, pace: Pace) {
        let given = |arrival: u64| Some(arrival.saturating_sub(pace.step_ns));
        // The closure always gives a value.
        let _ = self.arrival_ns.fetch_update(Relaxed, Relaxed, given);
    }

    /// Goes by another pace from here on.
    pub fn settle(&self, pace: Pace, now_ns: u64) {
        let settled = |arrival| Some(pace.settled(arrival, now_ns));
        // The closure always gives a value.
        let _ = self.arrival_ns.fetch_update(Relaxed, Relaxed, settled);
    }
}

/// How many are under way, over all threads.
#[derive(Debug, Default)]
pub struct Crowd {
    inside: AtomicU32,
}

impl Crowd {
    /// Lets one more in, if there are fewer than `most`. True: it must
    /// [`leave`](Self::leave).
    pub fn enter(&self, most: u32) -> bool {
        let one_more = |inside| (inside < most).then_some(inside + 1);
        self.inside.fetch_update(Relaxed, Relaxed, one_more).is_ok()
    }

    /// One that was let in is gone.
    pub fn leave(&self) {
        self.inside.fetch_sub(1, Relaxed);
    }

    /// How many are inside.
    pub fn inside(&self) -> u32 {
        self.inside.load(Relaxed)
    }
}

#[cfg(test)]
mod tests;
