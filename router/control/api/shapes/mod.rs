//! The JSON shapes of apps, policies and backends, and the way to and from
//! records.
//!
//! Owns names, ranges and normal forms. Everything registered went through
//! here, and everything read comes back in the same shape.

mod app;
mod backend;
mod hedge;
mod lines;
mod policy;
mod probe;

pub use app::{App, AppBody};
pub use backend::{Backend, BackendBody};
pub use hedge::Hedge;
pub use lines::{ExportBackend, ExportLine, ImportLine};
pub use policy::{Policy, RetryBudget};
pub use probe::{Probe, Statuses};
