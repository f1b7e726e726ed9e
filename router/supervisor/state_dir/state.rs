//! The state folder as a successor takes it over. The lock belongs to the open
//! file, not to the program that opened it, so it is never let go.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::StateDir;
use crate::heritage::{Adopter, HeritageError};

/// The locked folder.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(in crate::supervisor) struct StateDirState {
    folder: RawFd,
    lock: RawFd,
    is_marked: bool,
}

impl StateDirState {
    /// Every descriptor it names.
    pub(in crate::supervisor) fn numbers(&self) -> [RawFd; 2] {
        [self.folder, self.lock]
    }
}

impl StateDir {
    /// As it is.
    pub(in crate::supervisor) fn leave(&self) -> StateDirState {
        StateDirState {
            folder: self.folder.as_raw_fd(),
            lock: self.lock.as_raw_fd(),
            is_marked: self.is_marked,
        }
    }

    /// What has to stay open.
    pub(in crate::supervisor) fn descriptors(&self) -> [BorrowedFd<'_>; 2] {
        [self.folder.as_fd(), self.lock.as_fd()]
    }

    /// As it was left, at this path.
    ///
    /// # Errors
    /// A descriptor is not open.
    pub(in crate::supervisor) fn enter(
        path: &Path,
        state: &StateDirState,
        adopter: &mut Adopter,
    ) -> Result<StateDir, HeritageError> {
        Ok(StateDir {
            path: path.to_owned(),
            folder: adopter.take(state.folder, "state folder")?,
            lock: File::from(adopter.take(state.lock, "lock")?),
            is_marked: state.is_marked,
            unclean: false,
        })
    }
}
