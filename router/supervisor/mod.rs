//! The error kernel: it must not fail, so that everything else may.
//!
//! Owns every socket, the state folder's lock, and the two children. It is
//! synchronous, has one thread, and reads nothing from the network.
//!
//! ```text
//!   signals ─┐                     ┌─▶ post(control) ─┐
//!   lifelines├─▶ kernel: one poll ─┤   decide         ├─▶ start, drain, kill
//!   stderr  ─┘                     └─▶ post(edge)    ─┘
//! ```
//!
//! - `kernel`: the loop; the only folder that acts on decisions;
//! - `post`: when a child starts, serves, hands over, drains, dies (pure);
//! - `backoff`: how soon a dead one is replaced (pure);
//! - `standby`: whether an edge may stand by (pure); `memory`: what there is;
//! - `crash_loop`: when the edge stands on the table that ran well (pure);
//! - `vintage`: the program and settings a child is started with; `moment`:
//!   time;
//! - `child`: one process, its lifeline, its last words;
//! - `descriptors`: how many may be open;
//! - `sockets`: what is bound; `state_dir`: the lock; `log_file`: the log;
//! - `rights`: whom children run as; `ownership`: what belongs to them;
//! - `reload`: what new settings change;
//! - `signals`, `voice`: in and out.
//!
//! **Invariant**: a listening socket, once bound, stays open until its
//! address leaves the settings or the supervisor exits, so no crash or
//! replacement of a child refuses a connection.

mod backoff;
mod child;
mod crash_loop;
#[cfg(test)]
mod crash_loop_tests;
mod descriptors;
mod kernel;
mod last_words;
mod log_file;
mod memory;
mod moment;
mod ownership;
mod post;
mod reload;
mod rights;
mod signals;
mod sockets;
#[cfg(test)]
mod sockets_tests;
mod standby;
mod state_dir;
#[cfg(test)]
mod tests;
mod vintage;
mod voice;

use std::process::ExitCode;

use crate::settings::Settings;
pub use child::Program;
pub use kernel::Kernel;
pub use log_file::LogError;
pub use rights::{Identity, RightsError};
pub use sockets::BindError;
pub use state_dir::StateDirError;

/// Reads settings again, for SIGHUP; the error is for the operator.
pub type Reread = Box<dyn FnMut() -> Result<Settings, String>>;

/// Why the supervisor could not start. After that it does not fail.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The state folder is in use or unusable.
    #[error(transparent)]
    StateDir(#[from] StateDirError),
    /// A user that the children cannot run as.
    #[error(transparent)]
    Rights(#[from] RightsError),
    /// The access log cannot be opened.
    #[error(transparent)]
    Log(#[from] LogError),
    /// An address is in use or not ours.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The system refused something basic.
    #[error("cannot {what}: {source}")]
    System {
        /// What was tried.
        what: &'static str,
        /// What it said.
        source: std::io::Error,
    },
}

/// Runs the router until SIGTERM or SIGINT: 0 after a drain, 1 if it could
/// not start or was forced.
pub fn run(settings: Settings, reread: Reread) -> ExitCode {
    let program = Program::this().map_err(|source| StartError::System {
        what: "find its own binary",
        source,
    });
    let kernel = program.and_then(|program| Kernel::start(settings, program, reread));
    match kernel {
        Ok(kernel) => kernel.run(),
        Err(error) => {
            voice::say(&error.to_string());
            ExitCode::FAILURE
        }
    }
}
