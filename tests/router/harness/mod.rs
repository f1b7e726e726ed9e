//! The harness: the real binary, scripted backends, raw clients.
//!
//! Owns starting and ending processes, waiting with a deadline, and free
//! ports. Knows only what CONTRACT promises from outside: the command line,
//! the state folder, HTTP. Nothing here imports the router's own code.

pub mod backend;
pub mod binary;
pub mod child;
pub mod client;
pub mod conn;
pub mod instance;
pub mod limits;
pub mod load;
pub mod logs;
pub mod processes;
pub mod router;
pub mod setup;
pub mod users;
pub mod views;

pub use backend::{Backend, answer_ok};
pub use child::Child;
pub use client::{Answer, Client, get, post, with_body};
pub use conn::Request;
pub use instance::{Conduct, Instance};
pub use load::Load;
pub use router::Router;
pub use setup::Setup;

use std::time::{Duration, Instant};

/// How long anything may take that should happen soon; generous, since the
/// machine may be busy with other tests.
pub const DEADLINE: Duration = Duration::from_secs(20);

/// A pause between two looks. The only sleep of the tests: nothing waits for
/// time to pass, only for something to be seen.
#[expect(
    clippy::disallowed_methods,
    reason = "polling needs a pause between looks; every poll has a deadline"
)]
pub fn pause(time: Duration) {
    std::thread::sleep(time);
}

/// Looks until `check` gives something, or fails naming `what`.
pub fn eventually<T>(what: &str, check: impl FnMut() -> Option<T>) -> T {
    within(DEADLINE, what, check)
}

/// As [`eventually`], with a limit of the caller's.
pub fn within<T>(limit: Duration, what: &str, mut check: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(found) = check() {
            return found;
        }
        assert!(started.elapsed() < limit, "not within {limit:?}: {what}");
        pause(Duration::from_millis(5));
    }
}

/// Fails unless an attempt, which says how long it took, takes less than this.
/// On a busy machine one that took longer is no evidence: another is made, and
/// of five one must do.
#[track_caller]
pub fn soon(limit: Duration, mut attempt: impl FnMut() -> Duration) {
    let mut taken = Vec::new();
    while taken.len() < 5 {
        let took = attempt();
        if took < limit {
            return;
        }
        taken.push(took);
    }
    panic!("never within {limit:?}: {taken:?}");
}

/// Looks again and again, for this long, that something stays as it is.
pub fn stays(time: Duration, what: &str, mut check: impl FnMut() -> bool) {
    let started = Instant::now();
    while started.elapsed() < time {
        assert!(
            check(),
            "no longer so after {:?}: {what}",
            started.elapsed()
        );
        pause(Duration::from_millis(10));
    }
}

/// Bytes that differ along their length, so that a lost, doubled or swapped
/// piece shows in the checksum.
pub fn patterned(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// The place of `needle` in `haystack`.
pub fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack
        .windows(needle.len())
        .position(|window| window == needle)
}

/// Fails, naming the Debian package, unless `program` can be run.
pub fn need(program: &str, package: &str) {
    let found = std::env::var_os("PATH").is_some_and(|path| {
        std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
    });
    assert!(
        found,
        "this test needs `{program}`: install Debian's package `{package}` (tests/all does)"
    );
}
