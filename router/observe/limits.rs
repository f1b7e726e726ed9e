//! The metrics of named limits: one series for each limit there is, so as many
//! as operators have named and no more.

use super::metrics::{Kind, Merge, Row};

/// What passed.
pub static ADMITTED: Row = Row {
    name: "portico_limit_admitted_total",
    kind: Kind::Counter,
    unit: "requests",
    labels: &["limit"],
    merge: Merge::Sum,
    help: "Requests that a named limit was for and let pass, by the limit's name; of the router's own flows (retries, probes, access_log) what was let go while an operator limited them. With portico_limit_refused_total it says how near a limit is to its figure.",
};

/// What did not.
pub static REFUSED: Row = Row {
    name: "portico_limit_refused_total",
    kind: Kind::Counter,
    unit: "requests",
    labels: &["limit"],
    merge: Merge::Sum,
    help: "Requests that a named limit refused (H29), by the limit's name; of the router's own flows what was not let go: retries and hedges not made, active probes put off, access log lines dropped.",
};

/// Keys that were not told apart.
pub static FORGOTTEN: Row = Row {
    name: "portico_limit_keys_forgotten_total",
    kind: Kind::Counter,
    unit: "keys",
    labels: &["limit"],
    merge: Merge::Sum,
    help: "Clients or header values that a limit with an allowance for each could not keep apart because too many were busy at one time: of a rate, one was forgotten while its time ran, and may have had a burst more than its due; of a concurrency, one was let in uncounted. Nobody is refused for it. A steady rise means that the limit leaks.",
};

/// The rows.
pub(super) fn rows() -> [&'static Row; 3] {
    [&ADMITTED, &REFUSED, &FORGOTTEN]
}
