//! A child as a successor takes it over: the process stays a child of the
//! same pid, and its pipes are descriptors by number.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::process::ChildStderr;

use rustix::process::Pid;
use serde::{Deserialize, Serialize};

use super::Child;
use crate::heritage::{Adopter, HeritageError, Role, Tether};
use crate::supervisor::last_words::LastWords;

/// One child.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(in crate::supervisor) struct ChildState {
    role: Role,
    generation: u64,
    pid: i32,
    tether: RawFd,
    stderr: Option<RawFd>,
    started_at_ms: u64,
    deaf: bool,
    words: LastWords,
}

impl ChildState {
    /// Every descriptor it names.
    pub(in crate::supervisor) fn numbers(&self) -> impl Iterator<Item = RawFd> {
        [self.tether].into_iter().chain(self.stderr)
    }
}

impl Child {
    /// As it is.
    pub(in crate::supervisor) fn leave(&self) -> ChildState {
        ChildState {
            role: self.role,
            generation: self.generation,
            pid: self.pid.as_raw_nonzero().get(),
            tether: self.tether.as_fd().as_raw_fd(),
            stderr: self.stderr.as_ref().map(AsRawFd::as_raw_fd),
            started_at_ms: self.started_at_ms,
            deaf: self.deaf,
            words: self.words.clone(),
        }
    }

    /// What has to stay open.
    pub(in crate::supervisor) fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let stderr = self.stderr.as_ref().map(AsFd::as_fd);
        [self.tether.as_fd()].into_iter().chain(stderr)
    }

    /// As it was left.
    ///
    /// # Errors
    /// A pipe of its is not open.
    pub(in crate::supervisor) fn enter(
        state: ChildState,
        adopter: &mut Adopter,
    ) -> Result<Child, HeritageError> {
        let pid = Pid::from_raw(state.pid).filter(|_| state.pid > 0);
        let pid = pid.ok_or(HeritageError::NotMine("a child has no pid"))?;
        let stderr = state.stderr.map(|fd| adopter.take(fd, "standard error"));
        Ok(Child {
            role: state.role,
            generation: state.generation,
            pid,
            tether: Tether::from(adopter.take(state.tether, "tether")?),
            stderr: stderr.transpose()?.map(ChildStderr::from),
            started_at_ms: state.started_at_ms,
            deaf: state.deaf,
            words: state.words,
        })
    }
}
