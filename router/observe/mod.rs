//! What the router says about itself: metrics, access log, process log.
//!
//! Owns the rows of every metric and code, the per-thread cells behind them,
//! and the log writer. Never waits: what does not fit is dropped and counted.

pub mod access_log;
mod code;
mod metrics;

pub use code::{Code, Fault};
pub use metrics::AppCells;
