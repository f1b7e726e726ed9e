//! Metrics: one row each, with the paragraph that explains it.
//!
//! Owns the rows (name, labels, kind, unit, prose), the per-thread cells that
//! edge threads write with plain stores, and their sum. A total is the sum of
//! its reasons. Never holds a lock on the request path.

/// One edge thread's counters for one app; only that thread writes.
#[derive(Debug, Default)]
pub struct AppCells {}
