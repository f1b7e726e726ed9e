//! What the router says about itself: metrics, access log, process log.
//!
//! Owns the rows of every metric and code, the per-thread cells behind them,
//! and the log writer. Never waits: what does not fit is dropped and counted.

pub mod access_log;
mod apps;
mod cells;
mod code;
pub mod histogram;
pub mod instant;
pub mod limits;
pub mod metrics;
pub mod process_log;
mod samples;

pub use apps::busiest;
pub use cells::{AppCells, EdgeCells};
pub use code::{Code, Fault};
pub use metrics::{Counter, Gauge, Histogram};
