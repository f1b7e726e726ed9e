//! How long a backend stays out, and how often it is looked at.
//!
//! Owns the times. Grows with repetition, so that a flapping backend's share of
//! the traffic stays bounded; a single clean crash costs next to nothing. Every
//! time has ±10 % of jitter, so that a fleet of routers does not look at once.

/// From an ejection to the first look: a connection harms nobody.
const HARD_US: u64 = 100_000;
/// Longest time between two connections tried.
const HARD_LONGEST_US: u64 = 1_000_000;
/// The same once it is out for [`LONG_OUT_US`].
const HARD_LONG_OUT_US: u64 = 5_000_000;
const LONG_OUT_US: u64 = 60_000_000;

/// From an ejection to the first trial, which costs a request.
const SOFT_US: u64 = 500_000;
/// Longest time between two trials: a first few answers within 2 s of
/// recovering, with the tenth of its share that it begins with.
const SOFT_LONGEST_US: u64 = 1_000_000;

/// Longest hold, however often it comes and goes.
const LONGEST_HOLD_US: u64 = 30_000_000;
/// An ejection this soon after a readmission is a repetition.
const REPEATED_WITHIN_US: u64 = 60_000_000;
/// One repetition is forgiven for each such time in rotation.
const FORGIVEN_EACH_US: u64 = 30_000_000;
/// More make no difference: 100 ms × 2^9 passes the longest hold.
const MOST_REPEATS: u32 = 9;

/// A backend's history of going and coming back.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Backoff {
    repeats: u32,
    readmitted_us: Option<u64>,
    /// It came back by an operator's order: no repetition begins with that.
    pardoned: bool,
    /// Looks since it is out.
    looks: u32,
}

impl Backoff {
    /// It goes out: the time to its first look.
    pub(super) fn eject(&mut self, now_us: u64, hard: bool, random: u64) -> u64 {
        if let Some(readmitted_us) = self.readmitted_us.take() {
            let stayed_us = now_us.saturating_sub(readmitted_us);
            let forgiven = stayed_us / FORGIVEN_EACH_US;
            self.repeats = self
                .repeats
                .saturating_sub(u32::try_from(forgiven).unwrap_or(u32::MAX));
            if stayed_us < REPEATED_WITHIN_US && !self.pardoned {
                self.repeats = (self.repeats + 1).min(MOST_REPEATS);
            }
        }
        self.looks = 0;
        self.pardoned = false;
        let base_us = if hard { HARD_US } else { SOFT_US };
        jittered(
            (base_us << self.repeats).min(LONGEST_HOLD_US * 9 / 10),
            random,
        )
    }

    /// A look failed: the time to the next.
    pub(super) fn again(&mut self, out_us: u64, hard: bool, random: u64) -> u64 {
        self.looks = self.looks.saturating_add(1);
        let (base_us, longest_us) = match hard {
            true if out_us >= LONG_OUT_US => (HARD_LONG_OUT_US, HARD_LONG_OUT_US),
            true => (HARD_US, HARD_LONGEST_US),
            false => (SOFT_US, SOFT_LONGEST_US),
        };
        let mut wait_us = base_us;
        for _ in 0..self.looks.min(8) {
            wait_us = (wait_us + wait_us / 2).min(longest_us);
        }
        jittered(wait_us, random)
    }

    /// It is back.
    pub(super) fn readmit(&mut self, now_us: u64) {
        self.readmitted_us = Some(now_us);
    }

    /// It is back, or stays, by an operator's order: its history is forgotten.
    pub(super) fn pardon(&mut self, now_us: u64) {
        *self = Backoff {
            readmitted_us: Some(now_us),
            pardoned: true,
            ..Backoff::default()
        };
    }

    /// When it came back; 0 if it never went.
    pub(super) fn readmitted_us(&self) -> u64 {
        self.readmitted_us.unwrap_or(0)
    }

    /// Repetitions counted now.
    pub(super) fn repeats(&self) -> u32 {
        self.repeats
    }
}

/// `time_us` ± 10 %.
fn jittered(time_us: u64, random: u64) -> u64 {
    let spread_us = time_us / 5;
    let part = ((u128::from(random) * u128::from(spread_us + 1)) >> 64) as u64;
    time_us - spread_us / 2 + part
}
