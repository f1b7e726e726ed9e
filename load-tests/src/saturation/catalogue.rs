//! What is run and what it must meet, as data: the cases of each scenario, and
//! every figure with its key in the JSON, its unit, its limit and its words.
//!
//! Limits are of the issue that asked for them and are Portico's; peers are
//! shown, not judged.

use super::subject::Change;

/// What a value must be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Limit {
    /// At least.
    AtLeast(f64),
    /// At most.
    AtMost(f64),
}

impl Limit {
    /// Whether a value meets it; what could not be had does not.
    pub fn is_met(self, value: f64) -> bool {
        match self {
            Self::AtLeast(limit) => value >= limit,
            Self::AtMost(limit) => value <= limit,
        }
    }
}

/// One figure.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// In the JSON and in the code.
    pub key: &'static str,
    /// Behind its value.
    pub unit: &'static str,
    /// What it must be.
    pub limit: Option<Limit>,
    /// What it must be where `max_concurrency` is configured, if that differs.
    pub limit_if_told: Option<Limit>,
    /// Before its value.
    pub words: &'static str,
}

impl Row {
    /// The row of a key.
    pub fn of(key: &str) -> Option<&'static Self> {
        ROWS.iter().find(|row| row.key == key)
    }
}

const fn row(key: &'static str, unit: &'static str, words: &'static str) -> Row {
    Row {
        key,
        unit,
        limit: None,
        limit_if_told: None,
        words,
    }
}

const fn at_least(limit: f64, row: Row) -> Row {
    Row {
        limit: Some(Limit::AtLeast(limit)),
        limit_if_told: Some(Limit::AtLeast(limit)),
        ..row
    }
}

const fn at_most(limit: f64, row: Row) -> Row {
    Row {
        limit: Some(Limit::AtMost(limit)),
        limit_if_told: Some(Limit::AtMost(limit)),
        ..row
    }
}

const fn at_most_if_told(limit: f64, row: Row) -> Row {
    Row {
        limit_if_told: Some(Limit::AtMost(limit)),
        ..row
    }
}

/// Every figure, in the order of the report.
pub static ROWS: &[Row] = &[
    row("offered", "requests/s", "offered, on average"),
    at_least(
        97.0,
        row("goodput", "%", "goodput, of what capacity allowed"),
    ),
    at_least(
        97.0,
        row("goodput_settled", "%", "goodput since 1 s after the change"),
    ),
    row(
        "goodput_spike",
        "%",
        "goodput, what waited through the spike on top",
    ),
    row("p50_ms", "ms", "successes, p50"),
    at_most_if_told(80.0, at_most(120.0, row("p99_ms", "ms", "successes, p99"))),
    row("refused", "%", "refused (503, 429), of what was offered"),
    at_most(5.0, row("refusal_ms", "ms", "a refusal, median")),
    row("refusal_p99_ms", "ms", "a refusal, p99"),
    row("failed", "%", "failed otherwise, of what was offered"),
    at_most(
        1.0,
        row(
            "shed_after_s",
            "s",
            "spike's end → last request that was not answered",
        ),
    ),
    row("cores", "cores", "CPU of the proxy"),
    row("alone_p99_ms", "ms", "quiet app alone, p99"),
    at_least(100.0, row("quiet_success", "%", "quiet app, success")),
    at_most(21.0, row("quiet_p99_ms", "ms", "quiet app, p99")),
    row("quiet_max_ms", "ms", "quiet app, slowest"),
    row(
        "edge_maximum",
        "requests/s",
        "the edge's maximum rate, of the noisy app",
    ),
    row("edge_core", "%", "of its core that the edge used for it"),
    row("edge_offered", "requests/s", "offered to the noisy app"),
    row(
        "edge_taken",
        "requests/s",
        "of it the edge took from its sockets",
    ),
    row("edge_served", "requests/s", "of it answered with 200"),
    row("edge_refused", "requests/s", "of it refused"),
    at_least(99.9, row("edge_quiet_success", "%", "quiet app, success")),
    row("edge_quiet_p99_ms", "ms", "quiet app, p99"),
    at_most(
        3.0,
        row(
            "edge_quiet_ratio",
            "×",
            "quiet app, p99 over that of being alone",
        ),
    ),
    row("noisy_goodput", "%", "noisy app, goodput"),
    at_least(
        99.9,
        row("well_success", "%", "well-behaved clients, success"),
    ),
    row("well_p99_ms", "ms", "well-behaved clients, p99"),
    row("memory_before_mib", "MiB", "memory before, all processes"),
    row("memory_peak_mib", "MiB", "memory at its peak"),
    at_most(64.0, row("memory_growth_mib", "MiB", "growth")),
    row(
        "hostile_open",
        "",
        "hostile connections open at once, at most",
    ),
    row("hostile_opened", "", "hostile connections opened in all"),
    row("hostile_ended", "", "of them ended by the proxy"),
    at_most(
        100.0,
        row(
            "zero_ms",
            "ms",
            "order sent → last request let through, median",
        ),
    ),
    at_most(100.0, row("zero_max_ms", "ms", "the same, worst")),
    at_most(
        100.0,
        row(
            "zero_acked_max_ms",
            "ms",
            "order acknowledged → last request let through, worst",
        ),
    ),
    at_most(
        100.0,
        row(
            "file_zero_ms",
            "ms",
            "file written → last request let through, median",
        ),
    ),
    at_most(100.0, row("file_zero_max_ms", "ms", "the same, worst")),
    row("zero_times", "", "times"),
    row("late_ms", "ms", "harness late, p99"),
    row("late_max_ms", "ms", "harness late, at most"),
];

/// Rates, in multiples of capacity, and how long each lasts, ms.
pub type Phases = &'static [(f64, u64)];

/// One run of the overload scenario.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// Its name on the command line and in the JSON.
    pub key: &'static str,
    /// Its name in the report.
    pub title: &'static str,
    /// The load.
    pub phases: Phases,
    /// From when to when it is measured, ms.
    pub measured_ms: (u64, u64),
    /// What changes mid-run, and when, ms.
    pub change: Option<(Change, u64)>,
    /// When a spike ends, ms.
    pub spike_ends_ms: Option<u64>,
}

const fn steady(key: &'static str, title: &'static str, phases: Phases) -> Case {
    Case {
        key,
        title,
        phases,
        measured_ms: (2_000, 8_000),
        change: None,
        spike_ends_ms: None,
    }
}

const fn changing(key: &'static str, title: &'static str, phases: Phases, change: Change) -> Case {
    Case {
        measured_ms: (2_000, 10_000),
        change: Some((change, 5_000)),
        ..steady(key, title, phases)
    }
}

/// All begin with 2 s at half of capacity, which are not measured.
pub static CASES: &[Case] = &[
    steady("1x", "1×", &[(0.5, 2_000), (1.0, 6_000)]),
    steady("2x", "2×", &[(0.5, 2_000), (2.0, 6_000)]),
    steady("5x", "5×", &[(0.5, 2_000), (5.0, 6_000)]),
    steady("10x", "10×", &[(0.5, 2_000), (10.0, 6_000)]),
    Case {
        measured_ms: (2_000, 10_000),
        spike_ends_ms: Some(6_000),
        ..steady(
            "spike",
            "spike of 5× for 3 s",
            &[(0.5, 3_000), (5.0, 3_000), (0.5, 4_000)],
        )
    },
    changing(
        "slower-2x",
        "service time doubles, 2×",
        TWICE,
        Change::ServiceDoubles,
    ),
    changing(
        "slower-5x",
        "service time doubles, 5×",
        FIVEFOLD,
        Change::ServiceDoubles,
    ),
    changing(
        "joins-2x",
        "a fifth backend joins, 2×",
        TWICE,
        Change::BackendJoins,
    ),
    changing(
        "joins-5x",
        "a fifth backend joins, 5×",
        FIVEFOLD,
        Change::BackendJoins,
    ),
    changing(
        "leaves-2x",
        "one of four leaves, 2×",
        TWICE,
        Change::BackendLeaves,
    ),
    changing(
        "leaves-5x",
        "one of four leaves, 5×",
        FIVEFOLD,
        Change::BackendLeaves,
    ),
];

const TWICE: Phases = &[(0.5, 2_000), (2.0, 8_000)];
const FIVEFOLD: Phases = &[(0.5, 2_000), (5.0, 8_000)];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cases_and_figures_are_consistent() {
        for case in CASES {
            let ends: u64 = case.phases.iter().map(|(_, ms)| ms).sum();
            let (from, to) = case.measured_ms;
            assert!(from < to && to == ends, "{}", case.key);
            assert!(
                case.change
                    .is_none_or(|(_, at)| from < at && at + 1_000 < to)
            );
            assert_eq!(
                CASES.iter().filter(|other| other.key == case.key).count(),
                1
            );
        }
        for row in ROWS {
            assert_eq!(
                ROWS.iter().filter(|other| other.key == row.key).count(),
                1,
                "{}",
                row.key
            );
        }
    }

    #[test]
    fn limits_are_of_both_kinds() {
        assert!(Limit::AtLeast(1.0).is_met(1.0) && !Limit::AtLeast(1.0).is_met(0.9));
        assert!(Limit::AtMost(1.0).is_met(1.0) && !Limit::AtMost(1.0).is_met(f64::NAN));
        let p99 = Row::of("p99_ms").unwrap();
        assert_eq!(p99.limit_if_told, Some(Limit::AtMost(80.0)));
    }
}
