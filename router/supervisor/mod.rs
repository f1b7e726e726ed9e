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
//! - `upgrade`: what comes next in an upgrade, and what is undone (pure);
//!   `rehearsal`: the new binary, tried; `succession`: how this process becomes
//!   it; `origin`: where it is;
//! - `signals`, `voice`, `service`: in and out.
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
mod moment;
mod origin;
mod ownership;
mod post;
mod rehearsal;
mod reload;
mod rights;
mod service;
mod signals;
mod sockets;
#[cfg(test)]
mod sockets_tests;
mod standby;
mod state_dir;
mod succession;
#[cfg(test)]
mod tests;
mod upgrade;
mod vintage;
mod voice;

use std::process::ExitCode;

use crate::heritage::HeritageError;
use crate::settings::Settings;
pub use child::Program;
pub use kernel::Kernel;
use kernel::State;
pub use log_file::LogError;
pub use origin::Origin;
pub use rehearsal::QUESTION;
pub use rights::{Identity, RightsError};
pub use sockets::BindError;
pub use state_dir::StateDirError;
use succession::Part;

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
    /// A predecessor's descriptor is not what it said.
    #[error("cannot take over: {0}")]
    Succession(#[from] HeritageError),
    /// The system refused something basic.
    #[error("cannot {what}: {source}")]
    System {
        /// What was tried.
        what: &'static str,
        /// What it said.
        source: std::io::Error,
    },
}

/// Whether a router can be upgraded in place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Renewable {
    /// By the file it was started from.
    Yes,
    /// Never: it is the demo.
    No,
}

/// Runs the router until SIGTERM or SIGINT: 0 after a drain, 1 if it could
/// not start or was forced.
pub fn run(settings: Settings, reread: Reread, renewable: Renewable) -> ExitCode {
    let program = Program::this().map_err(|source| StartError::System {
        what: "find its own binary",
        source,
    });
    let origin = match renewable {
        Renewable::Yes => Origin::this().map_err(|error| format!("its file is unknown: {error}")),
        Renewable::No => Err("the demo is not upgraded: start it anew".to_owned()),
    };
    let kernel = program.and_then(|program| Kernel::start(settings, program, reread));
    enter(kernel.map(|kernel| kernel.from_origin(origin)))
}

/// Goes on as the supervisor that this process was before it became this
/// program, or rehearses that in a process of its own; `None` if this process
/// was started for neither.
pub fn succeed(mut reread: Reread) -> Option<ExitCode> {
    match succession::open::<State>() {
        Ok(None) => None,
        Ok(Some(Part::Successor(state, memory))) => {
            Some(enter(Kernel::succeed_from(state, memory, reread)))
        }
        // What was opened here can be taken over; a later restart has to read
        // the settings' file as well.
        Ok(Some(Part::Rehearsal(_))) => Some(match reread() {
            Ok(_) => answer(),
            Err(error) => {
                eprintln!("portico: bad settings: {error}");
                ExitCode::FAILURE
            }
        }),
        Err(error) => {
            eprintln!("portico: {error}");
            Some(ExitCode::FAILURE)
        }
    }
}

/// Says that this program can take a supervisor's place: `portico rehearse`.
pub fn answer() -> ExitCode {
    println!("{}{}", rehearsal::ANSWER, env!("CARGO_PKG_VERSION"));
    ExitCode::SUCCESS
}

fn enter(kernel: Result<Kernel, StartError>) -> ExitCode {
    match kernel {
        Ok(kernel) => kernel.run(),
        Err(error) => {
            voice::say(&error.to_string());
            ExitCode::FAILURE
        }
    }
}
