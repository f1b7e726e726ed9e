//! Seeds: what a run is repeated by.
//!
//! Owns which seeds are run, and that a failure says which one it was.

use std::panic::{self, AssertUnwindSafe};

/// Runs one seed and no other.
const ONE: &str = "SIMULATOR_SEED";
/// Runs so many times as many seeds.
const TIMES: &str = "SIMULATOR_TIMES";

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    let number = text.parse();
    Some(number.unwrap_or_else(|_| panic!("{variable} must be a number, not {text:?}")))
}

/// Calls `run` with `count` seeds, or with the one that is asked for.
pub fn each(count: u64, run: impl Fn(u64)) {
    let seeds = match number(ONE) {
        Some(seed) => seed..seed + 1,
        None => 1..1 + count * number(TIMES).unwrap_or(1),
    };
    for seed in seeds {
        let ended = panic::catch_unwind(AssertUnwindSafe(|| run(seed)));
        if let Err(reason) = ended {
            eprintln!("failed with seed {seed}: {ONE}={seed} runs it alone");
            panic::resume_unwind(reason);
        }
    }
}
