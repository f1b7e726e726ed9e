//! Succession: all that passes from a supervisor to the one that takes its
//! place in the same process.
//!
//! The state is JSON in a sealed file in memory ([`Memory`]), whose descriptor
//! the environment names ([`VARIABLE`]). The descriptors that the state names
//! stay open under their numbers across `execve`, as do the children. What
//! the state holds is the kernel's to say (`kernel::state`); here is only
//! its form: a version, and for which process it was written.
//!
//! ```text
//!   old image                            new image, same pid
//!   hold the signals                     heritage::claim: none
//!   state ──▶ memory                     open: written by this very process
//!   every descriptor: not closed on exec adopt what it names, closed on exec
//!   execve ─────────────────────────────▶ handlers, let the signals in, go on
//! ```
//!
//! A process that finds the state written by its *parent* rehearses: it reads
//! all of it and adopts nothing.
//!
//! **Invariant**: unknown fields are ignored and new ones have defaults, so
//! that a state can be read by the versions before and after its writer's; a
//! change that does not allow that changes [`VERSION`], and then the rehearsal
//! fails, not the succession.

mod memory;
mod replace;

use std::io;
use std::os::fd::RawFd;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

pub(super) use memory::Memory;
pub(super) use replace::replace;

/// The environment variable that names the state's descriptor.
pub(super) const VARIABLE: &str = "PORTICO_SUCCESSION";
/// The form of the state.
const VERSION: u32 = 1;

/// Why a state cannot be taken over.
#[derive(Debug, thiserror::Error)]
pub(super) enum SuccessionError {
    /// The variable names no state.
    #[error("{VARIABLE} names no supervisor's state: {0}")]
    Missing(io::Error),
    /// It is not what this version reads.
    #[error("the supervisor's state cannot be read: {0}")]
    Unreadable(String),
    /// It is neither this process's own nor its parent's.
    #[error("the supervisor's state was written by process {0}, for itself and its rehearsals")]
    NotMine(u32),
}

/// What a process that finds a state is to do with it.
#[derive(Debug, PartialEq)]
pub(super) enum Part<S> {
    /// Go on as the supervisor that wrote it, with its descriptors. The
    /// number is the memory's own.
    Successor(S, RawFd),
    /// Show that it could.
    Rehearsal(S),
}

#[derive(Serialize)]
struct Written<'a, S> {
    version: u32,
    supervisor_pid: u32,
    state: &'a S,
}

#[derive(Deserialize)]
struct Head {
    version: u32,
    supervisor_pid: u32,
}

#[derive(Deserialize)]
struct Read<S> {
    state: S,
}

/// Writes the state of this process.
///
/// # Errors
/// The system's, when it is out of memory or descriptors.
pub(super) fn write<S: Serialize>(state: &S) -> io::Result<Memory> {
    let written = Written {
        version: VERSION,
        supervisor_pid: std::process::id(),
        state,
    };
    Memory::of(&serde_json::to_vec(&written)?)
}

/// Finds the state that this process was started with; `None`: with none.
///
/// # Errors
/// What is named cannot be read, or is not for this process.
pub(super) fn open<S: DeserializeOwned>() -> Result<Option<Part<S>>, SuccessionError> {
    let Some(number) = std::env::var_os(VARIABLE) else {
        return Ok(None);
    };
    let number = number.to_str().and_then(|text| text.parse().ok());
    let number = number.ok_or_else(|| {
        let what = "it is no number";
        SuccessionError::Missing(io::Error::new(io::ErrorKind::InvalidInput, what))
    })?;
    let bytes = Memory::read(number).map_err(SuccessionError::Missing)?;
    let parent = rustix::process::getppid().map(|pid| pid.as_raw_nonzero().get().unsigned_abs());
    read(&bytes, std::process::id(), parent, number).map(Some)
}

fn read<S: DeserializeOwned>(
    bytes: &[u8],
    own: u32,
    parent: Option<u32>,
    number: RawFd,
) -> Result<Part<S>, SuccessionError> {
    let unreadable = |error: String| SuccessionError::Unreadable(error);
    let head: Head =
        serde_json::from_slice(bytes).map_err(|error| unreadable(error.to_string()))?;
    if head.version != VERSION {
        let (its, ours) = (head.version, VERSION);
        let why = format!("it is of version {its}, and this program knows {ours}");
        return Err(unreadable(why));
    }
    let json = &mut serde_json::Deserializer::from_slice(bytes);
    let Read { state } =
        serde_path_to_error::deserialize(json).map_err(|error| unreadable(error.to_string()))?;
    match head.supervisor_pid {
        pid if pid == own => Ok(Part::Successor(state, number)),
        pid if Some(pid) == parent => Ok(Part::Rehearsal(state)),
        pid => Err(SuccessionError::NotMine(pid)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct State {
        sockets: Vec<RawFd>,
        #[serde(default)]
        added_later: u32,
    }

    fn state() -> State {
        State {
            sockets: vec![5, 6],
            added_later: 0,
        }
    }

    fn written() -> Vec<u8> {
        let memory = write(&state()).unwrap();
        Memory::read(memory.number().parse().unwrap()).unwrap()
    }

    #[test]
    fn its_writer_takes_over_and_its_writers_child_rehearses() {
        let (own, bytes) = (std::process::id(), written());
        let successor = read(&bytes, own, Some(1), 9).unwrap();
        assert_eq!(successor, Part::Successor(state(), 9));
        let rehearsal = read(&bytes, own + 1, Some(own), 9).unwrap();
        assert_eq!(rehearsal, Part::Rehearsal(state()));
        let neither = read::<State>(&bytes, own + 1, Some(own + 2), 9).unwrap_err();
        assert!(neither.to_string().contains(&own.to_string()), "{neither}");
    }

    #[test]
    fn a_neighbouring_version_is_understood_and_another_form_is_not() {
        let own = std::process::id();
        let later = format!(
            "{{\"version\":1,\"supervisor_pid\":{own},\"more\":[],\
             \"state\":{{\"sockets\":[5,6],\"another\":{{}}}}}}"
        );
        let part = read::<State>(later.as_bytes(), own, None, 9).unwrap();
        assert_eq!(part, Part::Successor(state(), 9));
        for (text, why) in [
            (later.replace("\"version\":1", "\"version\":2"), "version 2"),
            (later.replace("[5,6]", "\"none\""), "state.sockets"),
            (later[..20].to_owned(), "cannot be read"),
        ] {
            let refused = read::<State>(text.as_bytes(), own, None, 9).unwrap_err();
            assert!(refused.to_string().contains(why), "{refused}");
        }
    }

    #[test]
    fn a_process_without_one_was_started_by_a_person() {
        assert!(open::<State>().unwrap().is_none());
    }
}
