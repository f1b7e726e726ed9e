//! The published routing table: host → app → policy and backends.
//!
//! Owns the compiled, immutable [`App`]s and the sharded maps that lead to
//! them; compiles feed records into apps and refuses, per record, those it
//! cannot use. Never does I/O, never waits, never knows who is asking.
//!
//! Readers (edge threads) load a shard through `arc-swap` and never wait. One
//! writer at a time (the edge's feed thread) applies changes; a change costs
//! what it touches: one app, and one shard for each domain that changed.
//!
//! **Invariant**: a request sees one [`App`] whole, as of one revision.

mod app;
mod policy;

pub use app::{App, AppLive, Backend, BackendLive};
pub use policy::Policy;
