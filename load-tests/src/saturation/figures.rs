//! The arithmetic: what became of requests, and what capacity would have allowed.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::catalogue::{Case, Row};
use super::fleet::BACKEND_RATE;
use super::subject::Change;
use crate::faults::client::{End, Exchange};
use crate::scale::figure::quantile;

/// Backends at the start.
pub const BACKENDS: usize = 4;
/// How long after a change a proxy has to have found its way, µs.
const SETTLE_US: u64 = 1_000_000;

/// One number found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Figure {
    /// Whose row in the catalogue says what it is.
    pub key: String,
    /// `NaN` (null) where it could not be had.
    #[serde(deserialize_with = "number_or_nan")]
    pub value: f64,
}

/// JSON has no NaN: it is written as null.
fn number_or_nan<'de, D: serde::Deserializer<'de>>(from: D) -> Result<f64, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or(f64::NAN))
}

/// What a run found.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Found {
    /// In the order they were found.
    pub figures: Vec<Figure>,
    /// Failed requests that were not refused, by kind.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub failed: BTreeMap<String, u64>,
    /// What no number says.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

impl Found {
    /// Adds a figure of the catalogue.
    pub fn put(&mut self, key: &str, value: f64) {
        assert!(Row::of(key).is_some(), "{key} must be in the catalogue");
        self.figures.push(Figure {
            key: key.to_owned(),
            value,
        });
    }

    /// The value of a figure that was found.
    pub fn value(&self, key: &str) -> Option<f64> {
        let found = self.figures.iter().find(|figure| figure.key == key);
        found.map(|figure| figure.value)
    }
}

/// What became of the requests due in a window.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tally {
    /// All of them.
    pub due: u64,
    /// Latencies of those answered with 200, from when they were due, µs, sorted.
    pub answered_us: Vec<u64>,
    /// The same of those refused.
    pub refused_us: Vec<u64>,
    /// Others, by kind.
    pub failed: BTreeMap<String, u64>,
    /// By how much the client was late, µs, sorted.
    pub late_us: Vec<u64>,
}

impl Tally {
    /// Of the requests due from one time until before another, CLOCK_MONOTONIC, µs.
    pub fn of(exchanges: &[Exchange], from_us: u64, to_us: u64) -> Self {
        let mut tally = Self::default();
        let due = exchanges
            .iter()
            .filter(|one| (from_us..to_us).contains(&one.due_us));
        for one in due {
            tally.due += 1;
            tally.late_us.push(one.sent_us - one.due_us);
            let took_us = one.ended_us.saturating_sub(one.due_us);
            let kind = match one.end {
                End::Answered => {
                    tally.answered_us.push(took_us);
                    continue;
                }
                End::Status(503 | 429) => {
                    tally.refused_us.push(took_us);
                    continue;
                }
                End::Status(status) => status.to_string(),
                End::NotConnected => "connect".to_owned(),
                End::Deadline => "deadline".to_owned(),
                End::Broken => "broken".to_owned(),
            };
            *tally.failed.entry(kind).or_default() += 1;
        }
        tally.answered_us.sort_unstable();
        tally.refused_us.sort_unstable();
        tally.late_us.sort_unstable();
        tally
    }

    /// How many failed without being refused.
    pub fn failed_total(&self) -> u64 {
        self.failed.values().sum()
    }

    /// Answered with 200, of all, %.
    pub fn success(&self) -> f64 {
        percent(self.answered_us.len() as f64, self.due as f64)
    }
}

/// A quantile of sorted µs, in ms.
pub fn quantile_ms(sorted_us: &[u64], share: f64) -> f64 {
    quantile(sorted_us, share) / 1e3
}

/// A part of a whole, %; 100 of nothing.
pub fn percent(part: f64, whole: f64) -> f64 {
    if whole > 0.0 {
        part / whole * 100.0
    } else {
        100.0
    }
}

/// What backends can answer a second after `change`, or before any.
fn capacity(change: Option<Change>) -> f64 {
    let whole = BACKENDS as f64 * BACKEND_RATE;
    match change {
        None => whole,
        Some(Change::ServiceDoubles) => whole / 2.0,
        Some(Change::BackendJoins) => whole + BACKEND_RATE,
        Some(Change::BackendLeaves) => whole - BACKEND_RATE,
    }
}

/// How many requests could have been answered from one time until another (µs
/// from the load's start): as many as were due, or as capacity allowed.
pub fn allowed(case: &Case, changed_us: Option<u64>, from_us: u64, to_us: u64) -> f64 {
    const STEP_US: u64 = 1_000;
    let rate_at = |at_us: u64| {
        let mut ends_us = 0;
        for (multiple, ms) in case.phases {
            ends_us += ms * 1_000;
            if at_us < ends_us {
                return multiple * capacity(None);
            }
        }
        0.0
    };
    let steps = (from_us..to_us).step_by(1_000);
    let of_step = |at_us: u64| {
        let changed = changed_us.is_some_and(|changed| at_us >= changed);
        let change = case.change.filter(|_| changed).map(|(change, _)| change);
        rate_at(at_us).min(capacity(change)) * STEP_US as f64 / 1e6
    };
    steps.map(of_step).sum()
}

/// Puts the figures of a run of the overload scenario. Times of the run are
/// CLOCK_MONOTONIC, µs: when the load began, when the change was made.
pub fn overload(
    found: &mut Found,
    case: &Case,
    exchanges: &[Exchange],
    start_us: u64,
    changed_us: Option<u64>,
) {
    let (from_us, to_us) = (case.measured_ms.0 * 1_000, case.measured_ms.1 * 1_000);
    let tally = Tally::of(exchanges, start_us + from_us, start_us + to_us);
    let changed_us = changed_us.map(|at_us| at_us - start_us);
    // What was answered in the measured time, whenever it was due: at a steady
    // rate the same, and never more than the backends could.
    let good = |from_us: u64, to_us: u64| {
        let within = (start_us + from_us)..(start_us + to_us);
        let answered = exchanges
            .iter()
            .filter(|one| one.end == End::Answered && within.contains(&one.ended_us));
        percent(
            answered.count() as f64,
            allowed(case, changed_us, from_us, to_us),
        )
    };
    found.put("offered", tally.due as f64 * 1e6 / (to_us - from_us) as f64);
    if case.spike_ends_ms.is_some() {
        found.put("goodput_spike", good(from_us, to_us));
    } else {
        found.put("goodput", good(from_us, to_us));
    }
    if let Some(changed_us) = changed_us {
        found.put("goodput_settled", good(changed_us + SETTLE_US, to_us));
    }
    found.put("p50_ms", quantile_ms(&tally.answered_us, 0.50));
    found.put("p99_ms", quantile_ms(&tally.answered_us, 0.99));
    let due = tally.due as f64;
    found.put("refused", percent(tally.refused_us.len() as f64, due));
    if !tally.refused_us.is_empty() {
        found.put("refusal_ms", quantile_ms(&tally.refused_us, 0.50));
        found.put("refusal_p99_ms", quantile_ms(&tally.refused_us, 0.99));
    }
    found.put("failed", percent(tally.failed_total() as f64, due));
    if let Some(ends_ms) = case.spike_ends_ms {
        let ends_us = start_us + ends_ms * 1_000;
        let unanswered = exchanges
            .iter()
            .filter(|one| one.due_us >= ends_us && one.end != End::Answered);
        let last_us = unanswered.map(|one| one.due_us - ends_us).max();
        found.put("shed_after_s", last_us.unwrap_or(0) as f64 / 1e6);
    }
    put_lateness(found, &tally);
    found.failed = tally.failed;
}

/// Puts by how much the client was late.
pub fn put_lateness(found: &mut Found, tally: &Tally) {
    found.put("late_ms", quantile_ms(&tally.late_us, 0.99));
    found.put("late_max_ms", quantile_ms(&tally.late_us, 1.0));
}

#[cfg(test)]
#[path = "figures_tests.rs"]
mod tests;
