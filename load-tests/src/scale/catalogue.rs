//! Every figure as a row: its key in the JSON, its unit, what Portico must not
//! exceed (nothing, if empty), and its words in the report.
//!
//! Limits are of the issue that asked for them; peers are shown, not judged.

/// One figure.
#[derive(Debug)]
pub struct Row {
    /// In the JSON and in the code.
    pub key: &'static str,
    /// Behind its value.
    pub unit: &'static str,
    /// What Portico must not exceed.
    pub at_most: Option<f64>,
    /// Before its value.
    pub words: &'static str,
}

impl Row {
    /// The row of a key.
    pub fn of(key: &str) -> Option<&'static Self> {
        ROWS.iter().find(|row| row.key == key)
    }
}

const fn limit(limits: &[f64]) -> Option<f64> {
    match limits {
        [one, ..] => Some(*one),
        [] => None,
    }
}

macro_rules! rows {
    ($($key:literal $unit:literal [$($limit:literal)?] $words:literal)+) => {
        &[$(Row { key: $key, unit: $unit, at_most: limit(&[$($limit)?]), words: $words },)+]
    };
}

/// Every figure.
static ROWS: &[Row] = rows! {
    "apps" "" [] "apps with one domain"
    "gives_up" "apps" [] "gives up at"
    "load_s" "s" [2.0] "from its files to the first answer, nothing of it running before; median"
    "load_max_s" "s" [2.0] "the same, slowest"
    "load_cpu_s" "s" [] "CPU of that"
    "memory_mib" "MiB" [] "all processes, shared pages once"

    "import_s" "s" [60.0] "imported by the CLI and active in the edge"
    "import_cpu_s" "s" [] "CPU of the import, all processes"
    "edge_ready_mib" "MiB" [600.0] "serving edge, resident"
    "edge_ready_peak_mib" "MiB" [] "serving edge, peak"
    "edge_standby_mib" "MiB" [600.0] "standby edge, resident"
    "edge_standby_peak_mib" "MiB" [] "standby edge, peak"
    "control_ready_mib" "MiB" [1024.0] "control, resident"
    "control_ready_peak_mib" "MiB" [] "control, peak"
    "supervisor_ready_mib" "MiB" [] "supervisor, resident"
    "supervisor_ready_peak_mib" "MiB" [] "supervisor, peak"
    "store_mib" "MiB" [] "its files: store, snapshots, journal"
    "takeover_ms" "ms" [50.0] "kill -9 of the edge → next answer, median"
    "takeover_max_ms" "ms" [50.0] "the same, slowest"
    "death_ms" "ms" [] "of it: the kernel takes the dead process apart, median"
    "control_restart_s" "s" [] "kill -9 of control → its API answers, median"
    "ready_s" "s" [] "cold start → /readyz, control included, median"
    "start_without_control_s" "s" [2.0] "cold start with a store that cannot be opened → first answer"
    "processes_without_control" "" [] "processes meanwhile"

    "changes" "" [] "changes"
    "rate" "a second" [] "of them answered"
    "unacknowledged" "" [0.0] "changes not acknowledged"
    "put_p50_ms" "ms" [] "a change from due to durable, p50"
    "put_p99_ms" "ms" [] "a change from due to durable, p99"
    "change_ms" "ms" [] "a change from due to active, seen from outside, p50"
    "active_p99_ms" "ms" [] "a change from due to active, seen from outside, p99"
    "change_cpu_ms" "ms" [] "CPU of a change, all processes"
    "propagation_p50_ms" "ms" [] "commit → active, p50"
    "propagation_p99_ms" "ms" [100.0] "commit → active, p99"
    "propagation_count" "" [] "commits observed"
    "revisions" "" [] "revisions"
    "swaps" "" [] "swaps said to be active, and asked at once"
    "stale" "" [0.0] "of them answered by the old backend"
    "quiet_p50_ms" "ms" [] "traffic p50 without changes"
    "busy_p50_ms" "ms" [] "traffic p50 under changes"
    "quiet_p99_ms" "ms" [] "traffic p99 without changes"
    "busy_p99_ms" "ms" [] "traffic p99 under changes"
    "p99_ratio" "×" [1.2] "the second ÷ the first"
    "quiet_p999_ms" "ms" [] "traffic p99.9 without changes"
    "busy_p999_ms" "ms" [] "traffic p99.9 under changes"
    "failed" "" [0.0] "requests failed"

    "reloads" "" [] "reloads"
    "upgrades" "" [] "upgrades"
    "reload_s" "s" [] "a reload, median"
    "reload_max_s" "s" [] "a reload, slowest"
    "reload_cpu_s" "s" [] "CPU of a reload, median"
    "upgrade_s" "s" [] "an upgrade, median"
    "upgrade_max_s" "s" [] "an upgrade, slowest"
    "reload_requests" "" [] "requests meanwhile"
    "reload_failed" "" [0.0] "of them failed"
    "reload_p99_ms" "ms" [] "request p99"
    "reload_slowest_ms" "ms" [] "slowest request"
    "reload_sockets" "" [] "open WebSockets"
    "reload_cut" "" [0.0] "of them cut"
    "reload_echoes" "" [] "frames echoed"
    "reload_memory_mib" "MiB" [] "all processes after the reloads, shared pages once"
    "before_mib" "MiB" [] "all processes before"
    "processes" "" [] "processes at the end"

    "kills" "" [] "kills"
    "requests" "" [] "requests"
    "refused" "" [0.0] "connections refused"
    "others" "" [0.0] "requests failed that were not in flight at a kill"
    "in_flight_lost" "" [] "requests failed in flight at a kill"
    "control_in_flight_lost" "" [0.0] "requests failed in flight at a kill of control"
    "in_flight" "" [] "requests in flight at all kills together"
    "gap_ms" "ms" [] "longest time without an answer"
    "kills_p99_ms" "ms" [] "request p99"
    "kills_slowest_ms" "ms" [] "slowest request"
    "acknowledged" "" [] "registrations acknowledged"
    "lost" "" [0.0] "of them gone afterwards"
    "unanswered" "" [] "registrations without an answer"

    "lookup_few_ns" "ns" [] "lookup of any host among 1,000"
    "lookup_many_ns" "ns" [] "lookup of any host among 1,000,000"
    "lookup_ratio" "×" [3.0] "the second ÷ the first"
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_there_once() {
        for (place, row) in ROWS.iter().enumerate() {
            let same = ROWS.iter().position(|other| other.key == row.key);
            assert_eq!(same, Some(place), "{}", row.key);
        }
        assert_eq!(Row::of("takeover_ms").unwrap().at_most, Some(50.0));
        assert_eq!(Row::of("kills").unwrap().at_most, None);
    }
}
