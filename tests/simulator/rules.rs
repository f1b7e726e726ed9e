//! The rules that hold in every run, at every moment.
//!
//! Owns what is checked after each decision and at the end of each run. What
//! holds of single requests is checked where they end, in
//! [`record`](super::record) and [`world`](super::world).

use portico::policy::balance::Candidates;
use portico::policy::health::{State, Verdict};

use crate::engine::{Micros, SECOND};
use crate::record::{CELL_US, Record};
use crate::world::{Setup, World};

/// How far back the budget's share of requests reaches: 10 s.
const MEMORY_CELLS: usize = (10 * SECOND / CELL_US) as usize;

impl World {
    /// After a decision: an ejection for a soft reason leaves at least one
    /// backend in rotation, and at most half of those that count are out for
    /// such reasons (one of two or three).
    pub(super) fn check_ejection(&self, router: usize, backend: usize, verdict: &Verdict) {
        let Verdict::Ejected { reason, left, .. } = *verdict else {
            return;
        };
        let app = &self.routers[router].app;
        assert!(app.policy.ejection, "ejected though the app forbids it");
        let counting: Vec<State> = (0..app.backends.len())
            .filter(|&index| self.setup.weights[index] > 0)
            .map(|index| app.state(index))
            .collect();
        let routable = counting.iter().filter(|state| state.is_in_rotation());
        let routable = routable.count();
        assert_eq!(routable, left as usize, "an event told another number");
        if reason.is_hard() {
            return;
        }
        assert!(
            routable > 0,
            "backend {backend} was the last in rotation: {verdict}"
        );
        let out =
            |state: &&State| matches!(state, State::Out { hard: false, .. } | State::Trial { .. });
        let out = counting.iter().filter(out).count();
        let most = (counting.len() / 2).max(1);
        assert!(out <= most, "{out} are out, {most} may be: {verdict}");
    }
}

/// Retries and hedges stay within the budget in *every* window of the run: at
/// most `percent` of the requests of the window and of the 10 s before it, and
/// `per_second` for each second of it and two more. A kept connection found
/// dead is not a retry: the request had reached nobody, at most once for each.
pub fn check_budget(setup: &Setup, record: &Record) {
    let percent = u64::from(setup.policy.retry_percent.unwrap_or(20));
    let per_second = u64::from(setup.policy.retry_per_second.unwrap_or(10));
    for (withdrawn, requests) in record.withdrawn.iter().zip(&record.arrivals) {
        let cells = withdrawn.len();
        let (taken, requests) = (withdrawn.sums(cells), requests.sums(cells));
        for until in 1..=cells {
            for from in 0..until {
                let before = from.saturating_sub(MEMORY_CELLS);
                let counted = requests[until] - requests[before];
                let store_us = (until - from) as Micros * CELL_US + 2 * SECOND;
                let most = counted * percent / 100 + per_second * store_us / SECOND + 1;
                let took = taken[until] - taken[from];
                assert!(
                    took <= most,
                    "{took} retries in cells {from} to {until}, {most} allowed"
                );
            }
        }
    }
}

/// No request is begun by more backends than its tries and the budget explain.
pub fn check_amplification(record: &Record) {
    let each = record.withdrawn.iter();
    let withdrawn: u64 = each.map(|cells| cells.between(0, Micros::MAX)).sum();
    let most = record.requests() + withdrawn + record.stale;
    assert!(
        record.executions <= most,
        "{} executions of {} requests, {withdrawn} retries, {} dead connections",
        record.executions,
        record.requests(),
        record.stale
    );
}
