//! The bound on the prober's rate (a virtual schedule as of ATM's generic cell
//! rate algorithm, ITU-T I.371): starts are booked a step apart, and may run
//! ahead of that by a little, since a timer wakes to the millisecond.
//!
//! **Invariant**: any `t` microseconds hold at most `t / STEP_US + AHEAD + 1`
//! starts.

use crate::edge::clock::Micros;

/// Between two probes, at the full rate: 1,000 in a second.
pub(super) const STEP_US: Micros = 1_000;

/// Probes that may start at once after a quiet time.
pub(super) const AHEAD: u64 = 32;

/// When the next probe may start.
#[derive(Debug, Default)]
pub(super) struct Pace {
    booked: Micros,
}

impl Pace {
    /// From when on the next may start.
    pub(super) fn free_at(&self) -> Micros {
        self.booked.saturating_sub(AHEAD * STEP_US)
    }

    /// One starts; the caller saw that it may.
    pub(super) fn book(&mut self, now: Micros) {
        debug_assert!(
            now >= self.free_at(),
            "a probe must not start ahead of its time"
        );
        self.booked = self.booked.max(now) + STEP_US;
    }
}
