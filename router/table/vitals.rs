//! An app's health, latency and budget as its requests see them: the pure
//! policies, with the atomics and locks around them.
//!
//! Owns nothing but the passing on: what is decided is in
//! [`crate::policy`], what is kept in [`AppLive`](super::AppLive) and
//! [`BackendLive`](super::BackendLive). All times are microseconds of the
//! process's one clock.

use std::sync::atomic::Ordering::Relaxed;

use super::App;
use crate::policy::balance::{self, Ask, Choice};
use crate::policy::health::{Outcome, Verdict};
use crate::policy::retry::Retry;

/// What a try told, and who and when.
#[derive(Clone, Copy, Debug)]
pub struct Told {
    /// The edge thread that tells.
    pub thread: usize,
    /// The backend's index.
    pub index: usize,
    /// Now.
    pub now_us: u64,
    /// When the try began; not before the choice it came from.
    pub sent_us: u64,
    /// What came of it.
    pub outcome: Outcome,
    /// Uniform over all of `u64`.
    pub random: u64,
}

/// What a probe told.
#[derive(Clone, Copy, Debug)]
pub struct Probed {
    /// The backend's index.
    pub index: usize,
    /// Now.
    pub now_us: u64,
    /// Whether it passed.
    pub passed: bool,
    /// Uniform over all of `u64`.
    pub random: u64,
}

/// A moment, on both clocks.
#[derive(Clone, Copy, Debug, Default)]
pub struct Moment {
    /// By the process's one clock.
    pub now_us: u64,
    /// The same, Unix milliseconds.
    pub unix_ms: u64,
}

impl App {
    /// A backend for a try. A [`Choice::Trial`] is claimed for the caller: no
    /// other request gets it until this one has told how it went, gave it back
    /// ([`forsake`](Self::forsake)), or 10 s have passed.
    pub fn choose(&self, ask: &Ask<'_>) -> Choice {
        balance::choose(self, ask.random, self.policy.max_concurrency, ask.tried)
    }

    /// A trial's request ended without telling anything: the trial is free for
    /// the next. `chosen_us` is the `now_us` of the choice. Harmless if it told
    /// or was no trial.
    pub fn forsake(&self, index: usize, chosen_us: u64) {
        let _ = (index, chosen_us);
    }

    /// What came of a try. A success on a settled backend costs a few loads and
    /// stores.
    pub fn tell(&self, told: &Told) -> Option<Verdict> {
        let _ = told;
        None
    }

    /// A backend accepted a connection.
    pub fn connected(&self, index: usize) {
        let accepted = &self.backends[index].live().accepted;
        if !accepted.load(Relaxed) {
            accepted.store(true, Relaxed);
        }
    }

    /// Whether any of its backends ever accepted a connection: then one that
    /// does not is restarting, and requests may wait for it.
    pub fn has_been_up(&self) -> bool {
        let mut lives = self
            .backends
            .iter()
            .filter_map(|backend| backend.live.get());
        lives.any(|live| live.accepted.load(Relaxed))
    }

    /// What came of a probe, of either kind.
    pub fn probed(&self, probed: &Probed) -> Option<Verdict> {
        let _ = probed;
        None
    }

    /// An operator's order: everything against the backend is forgotten.
    pub fn readmit(&self, index: usize, now_us: u64) -> Option<Verdict> {
        let _ = (index, now_us);
        None
    }

    /// When a try that has not answered is overtaken, microseconds after it was
    /// sent; `None`: never.
    pub fn hedge_after_us(&self) -> Option<u64> {
        None
    }

    /// Takes one retry or hedge out of the app's budget, if there is one.
    pub fn withdraw_retry(&self, now_us: u64, kind: Retry) -> bool {
        let _ = (now_us, kind);
        true
    }

    /// When the prober should next look whether a backend that nobody answers
    /// at is back; `None`: it need not. What it does then is what the app's
    /// probe says, and without one to open a connection. Sooner while requests
    /// wait for the app.
    pub fn next_return_probe_us(&self, index: usize) -> Option<u64> {
        let _ = index;
        None
    }
}
