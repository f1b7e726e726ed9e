//! The retry budget: how much of an app's traffic may be repeated.
//!
//! Owns the sum. Never decides whether a request is safe to repeat, never
//! counts requests: their number comes in.

/// What a withdrawal is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// A request that failed is tried again.
    Again,
    /// A request that waits is overtaken. Only the upper half of the budget is
    /// for these: what fails comes before what is slow.
    Hedge,
}
