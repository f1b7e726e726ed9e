//! What a scenario must meet, and whether it did.

use super::report::{Summary, share};

/// One figure that must be met.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Target {
    /// No request failed.
    NoneFailed,
    /// None but those in flight on a backend when it crashed.
    NoneFailedButInFlight,
    /// No request was begun by backends more than once.
    NoneExecutedTwice,
    /// 99th percentile, µs, at most.
    P99Us(u64),
    /// Highest latency, µs, at most.
    MaxUs(u64),
    /// The share of requests slower than 250 ms, at most.
    SlowShare(f64),
    /// Requests of its own that a failing backend got until it was out, at most.
    OutWithinRequests(u64),
    /// A recovered backend has traffic again within this, ms.
    BackWithinMs(u64),
    /// The first success after everything was down, from when one listened, ms, at most.
    FirstSuccessWithinMs(u64),
}

impl Target {
    /// As the report says it.
    pub fn words(self) -> String {
        let ms = |us: u64| us as f64 / 1e3;
        match self {
            Self::NoneFailed => "0 failed".to_owned(),
            Self::NoneFailedButInFlight => "0 failed but those in flight at the crash".to_owned(),
            Self::NoneExecutedTwice => "0 executed twice".to_owned(),
            Self::P99Us(limit) => format!("p99 ≤ {:.1} ms", ms(limit)),
            Self::MaxUs(limit) => format!("max ≤ {:.0} ms", ms(limit)),
            Self::SlowShare(limit) => format!("≤ {:.2} % slower than 250 ms", limit * 100.0),
            Self::OutWithinRequests(limit) => format!("out within {limit} requests"),
            Self::BackWithinMs(limit) => format!("back within {limit} ms"),
            Self::FirstSuccessWithinMs(limit) => format!("first success within {limit} ms"),
        }
    }

    /// Whether the runs met it.
    pub fn met(self, runs: &Summary) -> bool {
        match self {
            Self::NoneFailed => runs.failed_total() == 0,
            Self::NoneFailedButInFlight => runs.failed_total() == runs.failed_in_flight,
            Self::NoneExecutedTwice => runs.executed_twice == Some(0),
            Self::P99Us(limit) => runs.p99_us <= limit as f64,
            Self::MaxUs(limit) => runs.max_us <= limit as f64,
            Self::SlowShare(limit) => runs.slow_share <= limit,
            Self::OutWithinRequests(limit) => runs.until_out.is_some_and(|count| count <= limit),
            Self::BackWithinMs(limit) => {
                !runs.never_back && runs.back_ms.is_some_and(|back| back <= limit)
            }
            Self::FirstSuccessWithinMs(limit) => runs
                .first_success_ms
                .is_some_and(|first| first <= limit as f64),
        }
    }

    /// What was found instead.
    pub fn found(self, runs: &Summary) -> String {
        let or_never = |found: Option<String>| found.unwrap_or_else(|| "never".to_owned());
        match self {
            Self::NoneFailed => format!("{} failed", runs.failed_total()),
            Self::NoneFailedButInFlight => format!(
                "{} failed besides {} in flight",
                runs.failed_total() - runs.failed_in_flight,
                runs.failed_in_flight
            ),
            Self::NoneExecutedTwice => {
                format!("{} executed twice", runs.executed_twice.unwrap_or(0))
            }
            Self::P99Us(_) => format!("p99 {:.1} ms", runs.p99_us / 1e3),
            Self::MaxUs(_) => format!("max {:.0} ms", runs.max_us / 1e3),
            Self::SlowShare(_) => format!("{} slower", share(runs.slow_share)),
            Self::OutWithinRequests(_) => {
                let count = runs.until_out.map(|count| count.to_string());
                format!("out after {}", or_never(count))
            }
            Self::BackWithinMs(_) => {
                let back = runs.back_ms.filter(|_| !runs.never_back);
                format!("back after {}", or_never(back.map(|ms| format!("{ms} ms"))))
            }
            Self::FirstSuccessWithinMs(_) => {
                let first = runs.first_success_ms.map(|ms| format!("{ms:.0} ms"));
                format!("first success after {}", or_never(first))
            }
        }
    }
}
