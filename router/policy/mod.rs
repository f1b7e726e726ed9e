//! Pure decisions: time, randomness and load come in as arguments, a decision
//! goes out.
//!
//! Owns the rules of balancing, health, latency, hedges, retries, admission,
//! concurrency and sharing, of named limits, of turns where the processor does not suffice for
//! all, of how slow a client may be, and of how much a table may shrink. Never opens
//! a socket, reads a clock or spawns a task, so that a simulation with a seed can run
//! them.

pub mod admission;
pub mod balance;
pub mod concurrency;
pub mod fair_queue;
pub mod health;
pub mod hedge;
pub mod latency;
pub mod limit;
pub mod overload;
pub mod retry;
pub mod sharing;
pub mod shrink;
pub mod tempo;
