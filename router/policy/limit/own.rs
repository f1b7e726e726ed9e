//! The limits on the router's own flows: their names, and what holds where
//! nobody said anything.

use super::Rate;

/// Lines of the access log.
pub const ACCESS_LOG: &str = "access_log";
/// Changes from control to edges, as revisions.
pub const CHANGES: &str = "changes";
/// Active probes of backends.
pub const PROBES: &str = "probes";
/// Retries and hedges.
pub const RETRIES: &str = "retries";

/// Probes that an edge makes a second, at most.
pub const MOST_PROBES: Rate = Rate::per_second(1_000);

/// Every one by name, with the rate that holds by itself; `None`: none does.
pub const ALL: [(&str, Option<Rate>); 4] = [
    (ACCESS_LOG, None),
    (CHANGES, None),
    (PROBES, Some(MOST_PROBES)),
    (RETRIES, None),
];

/// Whether this is the name of a flow of the router's own.
pub fn is_own(name: &str) -> bool {
    ALL.iter().any(|(own, _)| *own == name)
}
