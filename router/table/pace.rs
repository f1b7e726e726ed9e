//! An app's usual times and its retry budget as its requests see them.
//!
//! Owns nothing but the passing on: when a try is overdue or overtaken, and
//! whether there is a retry left, is decided in [`crate::policy`]. All times are
//! microseconds of the process's one clock.

use std::sync::atomic::Ordering::Relaxed;

use super::policy::Hedge;
use super::vitals::{locked, micros};
use super::{App, AppLive, BackendLive};
use crate::observe::AppCells;
use crate::policy::admission::standing::Pace;
use crate::policy::health::{SLOW_FLOOR_US, SLOW_TIMES, State};
use crate::policy::hedge::{Patience, Stall};
use crate::policy::latency::Merged;
use crate::policy::retry::{Allowance, Retry};

/// A try that waits for its first byte.
#[derive(Clone, Copy, Debug)]
pub struct Waiting {
    /// The backend's index.
    pub index: usize,
    /// Now.
    pub now_us: u64,
    /// Since its request was sent whole.
    pub waited_us: u64,
    /// It was begun beside another.
    pub overtakes: bool,
}

impl App {
    /// Reads the sketches anew.
    #[cold]
    pub(super) fn measure(&self, live: &AppLive) {
        let merged = Merged::of(&live.sketches);
        if let Some(median_us) = merged.median_us() {
            let slow_us = (SLOW_TIMES * median_us).max(SLOW_FLOOR_US);
            let usual = |by: fn(&BackendLive) -> u64| self.usual_us(by).unwrap_or(median_us);
            let usual_us = usual(|one| one.latency.measured_us());
            live.median_us.store(usual_us, Relaxed);
            let undisturbed_us = usual(|one| one.undisturbed_us()).min(usual_us);
            live.undisturbed_us.store(undisturbed_us, Relaxed);
            live.slow_us.store(slow_us, Relaxed);
        }
        live.overdue_us.store(merged.learned_us(), Relaxed);
        if let Hedge::Quantile(permille) = self.policy.hedge {
            live.hedge_us.store(merged.chosen_us(permille), Relaxed);
        }
    }

    /// The median of what is known of the backends, of the first 64 of which it is;
    /// the lower of two, so that of a pair the slower one is the slow one.
    fn usual_us(&self, of: fn(&BackendLive) -> u64) -> Option<u64> {
        let mut known = [0; 64];
        let mut len = 0;
        let lives = self.backends.iter().filter_map(|one| one.live.get());
        for us in lives.map(|live| of(live)).filter(|&us| us > 0).take(64) {
            known[len] = us;
            len += 1;
        }
        let known = &mut known[..len];
        known.sort_unstable();
        known.get(len.saturating_sub(1) / 2).copied()
    }

    /// When a try that has not answered is overdue, microseconds after it was
    /// sent.
    pub fn overdue_after_us(&self) -> u64 {
        self.live().overdue_us.load(Relaxed)
    }

    /// When a try that has not answered is overtaken whatever its backend does,
    /// microseconds after it was sent; `None`: the app's policy does not say.
    pub fn hedge_after_us(&self) -> Option<u64> {
        match self.policy.hedge {
            Hedge::Off | Hedge::Learned => None,
            Hedge::After(time) => Some(micros(time)),
            Hedge::Quantile(_) => Some(self.live().hedge_us.load(Relaxed)),
        }
    }

    /// A try that was sent whole `waited_us` ago and has not answered is given
    /// up, as another was faster. Where the app's policy says when tries are
    /// overtaken, what is learned knows of the slow ones so: a quantile of the
    /// winners alone would sink with each overtaking. Elsewhere only silent
    /// backends are overtaken, whose silence is not the app's usual time, and
    /// nothing is learned. `thread` is the edge thread that tells.
    pub fn gave_up(&self, index: usize, thread: usize, now_us: u64, waited_us: u64) {
        if matches!(self.policy.hedge, Hedge::Off | Hedge::Learned) {
            return;
        }
        let live = self.live();
        let latency = &self.backends[index].live().latency;
        latency.note_at_least(waited_us, now_us);
        if waited_us > 0 && live.sketches[thread].note(waited_us) {
            self.measure(live);
        }
    }

    /// Since a backend answered anything, microseconds; for ever if it never did.
    pub fn quiet_us(&self, index: usize, now_us: u64) -> u64 {
        match self.backends[index].live().heard_us() {
            0 => u64::MAX,
            at_us => now_us.saturating_sub(at_us),
        }
    }

    /// What to do about an overdue try where the app's policy leaves that to
    /// what was learned; `None`: nothing.
    pub fn patience(&self, waiting: &Waiting) -> Option<Patience> {
        let &Waiting {
            index,
            now_us,
            waited_us,
            overtakes,
        } = waiting;
        if self.policy.hedge != Hedge::Learned {
            return None;
        }
        let (live, backend) = (self.live(), self.backends[index].live());
        let is_steady = matches!(backend.state(), State::Settled | State::Resting { .. });
        let stall = Stall {
            waited_us,
            overdue_us: live.overdue_us.load(Relaxed),
            is_learned: live.median_us.load(Relaxed) > 0,
            quiet_us: now_us.saturating_sub(backend.heard_us()),
            overdue: locked(&backend.health).overdue_len(),
            overtakes,
            in_doubt: !is_steady,
        };
        Some(stall.patience())
    }

    /// What a wait in the app's line is measured against.
    pub fn pace(&self) -> Pace {
        let live = self.live.get();
        Pace::of(live.map_or(0, |live| live.undisturbed_us.load(Relaxed)))
    }

    fn allowance(&self) -> Allowance {
        Allowance {
            percent: self.policy.retry_percent,
            per_second: self.policy.retry_per_second,
        }
    }

    /// Tells the budget of recent requests, unless somebody else has it.
    pub(super) fn credit(&self, live: &AppLive, now_us: u64) {
        if let Ok(mut budget) = live.budget.try_lock() {
            budget.catch_up(now_us, AppCells::begun(&live.cells), self.allowance());
        }
    }

    /// Takes one retry or hedge out of the app's budget, if there is one.
    pub fn withdraw_retry(&self, now_us: u64, kind: Retry) -> bool {
        let live = self.live();
        let mut budget = locked(&live.budget);
        let requests = AppCells::begun(&live.cells);
        budget.withdraw(now_us, requests, self.allowance(), kind)
    }
}
