//! Figures: what a scenario found, what it must meet, and the arithmetic that
//! makes the one of requests, kills and histograms.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::catalogue::Row;
use crate::faults::client::{End, Exchange};

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

impl Figure {
    /// Whether it meets its limit; `None` if it has none. What could not be had does not.
    pub fn is_met(&self) -> Option<bool> {
        let limit = Row::of(&self.key)?.at_most?;
        Some(self.value <= limit)
    }

    /// `12.3 ms`, `–` where it could not be had.
    pub fn shown(&self) -> String {
        let unit = Row::of(&self.key).map_or("", |row| row.unit);
        shown(self.value, unit)
    }
}

/// A value with its unit.
pub fn shown(value: f64, unit: &str) -> String {
    if value.is_nan() {
        return "–".to_owned();
    }
    format!("{} {unit}", number(value)).trim_end().to_owned()
}

/// A number with three digits or so.
fn number(value: f64) -> String {
    let size = value.abs();
    if value.fract() == 0.0 || size >= 100.0 {
        format!("{value:.0}")
    } else if size >= 10.0 {
        format!("{value:.1}")
    } else if size >= 0.1 {
        format!("{value:.2}")
    } else {
        format!("{value:.4}")
    }
}

/// The value below which a share of the sorted values lies; NaN of nothing.
pub fn quantile(sorted: &[u64], share: f64) -> f64 {
    let rank = (share * sorted.len() as f64).ceil() as usize;
    match sorted.len() {
        0 => f64::NAN,
        count => sorted[rank.clamp(1, count) - 1] as f64,
    }
}

/// A time on CLOCK_MONOTONIC, µs: from, to.
pub type Window = (u64, u64);

/// Latencies, µs, sorted, of the requests due in a window: from when each was
/// due, those given up at their deadline included.
pub fn latencies_us(exchanges: &[Exchange], windows: &[Window]) -> Vec<u64> {
    let counts = |one: &&Exchange| {
        one.ended_us > 0
            && matches!(one.end, End::Answered | End::Deadline)
            && windows
                .iter()
                .any(|(from, to)| (*from..*to).contains(&one.due_us))
    };
    let mut sorted: Vec<u64> = exchanges
        .iter()
        .filter(counts)
        .map(|one| one.ended_us - one.due_us)
        .collect();
    sorted.sort_unstable();
    sorted
}

/// What failed, by kind. A request that was cut short by the harness itself has not ended and counts for nothing.
pub fn failures(exchanges: &[Exchange]) -> BTreeMap<String, u64> {
    let mut kinds = BTreeMap::new();
    for one in exchanges.iter().filter(|one| one.ended_us > 0) {
        let kind = match one.end {
            End::Answered => continue,
            End::NotConnected => "refused".to_owned(),
            End::Status(status) => status.to_string(),
            End::Deadline => "deadline".to_owned(),
            End::Broken => "broken".to_owned(),
        };
        *kinds.entry(kind).or_default() += 1;
    }
    kinds
}

/// A process killed; times are CLOCK_MONOTONIC, µs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kill {
    /// When the signal was sent.
    pub at_us: u64,
    /// When the kernel had taken the process apart: its sockets are closed.
    pub gone_us: u64,
}

/// What kills cost the clients.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Losses {
    /// Connections refused.
    pub refused: u64,
    /// Failed, sent before a killed process was gone and not ended when it was killed.
    pub in_flight: u64,
    /// Failed otherwise.
    pub others: u64,
    /// The most requests in flight at any one kill, lost or not.
    pub in_flight_max: u64,
    /// Requests in flight at all kills together, lost or not.
    pub in_flight_all: u64,
}

impl Losses {
    /// Of the requests under these kills.
    pub fn of(exchanges: &[Exchange], kills: &[Kill]) -> Self {
        let mut losses = Self::default();
        for kill in kills {
            let there = exchanges.iter().filter(|one| was_in_flight(one, *kill));
            let count = there.count() as u64;
            losses.in_flight_all += count;
            losses.in_flight_max = losses.in_flight_max.max(count);
        }
        for one in exchanges {
            let ended_well = one.ended_us == 0 || one.end == End::Answered;
            match one.end {
                _ if ended_well => {}
                End::NotConnected => losses.refused += 1,
                _ if kills.iter().any(|kill| was_in_flight(one, *kill)) => losses.in_flight += 1,
                _ => losses.others += 1,
            }
        }
        losses
    }
}

/// Sent before the process was gone, and not ended when it was killed.
fn was_in_flight(one: &Exchange, kill: Kill) -> bool {
    let ended_us = if one.ended_us == 0 {
        u64::MAX
    } else {
        one.ended_us
    };
    one.sent_us <= kill.gone_us && ended_us >= kill.at_us
}

/// The longest time without an answered request, µs, between the first and the last.
pub fn longest_gap_us(exchanges: &[Exchange]) -> u64 {
    let mut ends: Vec<u64> = exchanges
        .iter()
        .filter(|one| one.ended_us > 0 && one.end == End::Answered)
        .map(|one| one.ended_us)
        .collect();
    ends.sort_unstable();
    ends.windows(2)
        .map(|pair| pair[1] - pair[0])
        .max()
        .unwrap_or(0)
}

#[cfg(test)]
#[path = "figure_tests.rs"]
mod tests;
