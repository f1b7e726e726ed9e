//! The state folder: made, locked, and the small files the supervisor keeps
//! in it. Never looks at the store, the table or the token.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;
use rustix::io::Errno;

use super::voice::say;

/// Held for a supervisor's whole life; holds its pid.
const LOCK: &str = "supervisor.lock";
/// The addresses actually bound.
const ADDRESSES: &str = "addresses.json";

/// Why a state folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateDirError {
    /// Another supervisor lives in it.
    #[error("state_dir {}: in use by another supervisor (pid {pid})", path.display())]
    Locked {
        /// The folder.
        path: PathBuf,
        /// Whose it is, as the lock file says.
        pid: String,
    },
    /// The system refused.
    #[error("state_dir {}: cannot {what}: {source}", path.display())]
    Io {
        /// The folder.
        path: PathBuf,
        /// What was tried.
        what: &'static str,
        /// What it said.
        source: io::Error,
    },
}

/// A locked state folder.
#[derive(Debug)]
pub(super) struct StateDir {
    path: PathBuf,
    lock: File,
    /// The last supervisor did not take its leave: its children may still
    /// be finishing, and hold sockets.
    pub unclean: bool,
}

impl StateDir {
    /// Makes the folder (0700) if it is missing, and locks it.
    pub(super) fn open(path: &Path) -> Result<StateDir, StateDirError> {
        let failed = |what| {
            move |source| StateDirError::Io {
                path: path.to_owned(),
                what,
                source,
            }
        };
        let mut builder = DirBuilder::new();
        builder
            .recursive(true)
            .mode(0o700)
            .create(path)
            .map_err(failed("create it"))?;
        let mut options = OpenOptions::new();
        options
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600);
        let mut lock = options
            .open(path.join(LOCK))
            .map_err(failed("open its lock file"))?;
        let mut pid = String::new();
        // A pid is short; anything else in the file is not worth reading.
        let read = Read::by_ref(&mut lock).take(32).read_to_string(&mut pid);
        let pid = read.map(|_| pid.trim().to_owned()).unwrap_or_default();
        match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => {
                let pid = if pid.is_empty() {
                    "unknown".to_owned()
                } else {
                    pid
                };
                return Err(StateDirError::Locked {
                    path: path.to_owned(),
                    pid,
                });
            }
            Err(errno) => return Err(failed("lock it")(errno.into())),
        }
        let unclean = !pid.is_empty();
        let mut state_dir = StateDir {
            path: path.to_owned(),
            lock,
            unclean,
        };
        // The lock is what counts; the pid in it only tells people whose it is.
        // On a full disk the table that is there is served all the same.
        if let Err(error) = state_dir.sign(&std::process::id().to_string()) {
            say(&failed("write its lock file")(error).to_string());
        }
        Ok(state_dir)
    }

    fn sign(&mut self, pid: &str) -> io::Result<()> {
        // Written over what is there, which a full disk allows, then cut.
        self.lock.rewind()?;
        self.lock.write_all(pid.as_bytes())?;
        self.lock.set_len(pid.len() as u64)
    }

    /// Writes `addresses.json`, whole or not at all.
    pub(super) fn write_addresses(&self, json: &serde_json::Value) -> Result<(), StateDirError> {
        let target = self.path.join(ADDRESSES);
        let fresh = self.path.join("addresses.json.new");
        std::fs::write(&fresh, format!("{json}\n"))
            .and_then(|()| std::fs::rename(&fresh, &target))
            .map_err(|source| {
                // None rather than those of an earlier life, or half of them.
                let _ = std::fs::remove_file(&fresh);
                let _ = std::fs::remove_file(&target);
                StateDirError::Io {
                    path: self.path.clone(),
                    what: "write addresses.json",
                    source,
                }
            })
    }

    /// Takes leave: the files that speak of a living supervisor go.
    pub(super) fn close(mut self, feed: &Path) {
        // What cannot be removed is found stale, and replaced, by the next one.
        let _ = std::fs::remove_file(self.path.join(ADDRESSES));
        let _ = std::fs::remove_file(feed);
        let _ = self.sign("");
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn makes_the_folder_private_and_lets_one_supervisor_in() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("deep/state");
        let first = StateDir::open(&path).unwrap();
        assert!(!first.unclean);
        assert_eq!(
            std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o700
        );
        let refused = StateDir::open(&path).unwrap_err().to_string();
        assert!(
            refused.contains(&format!("pid {}", std::process::id())),
            "{refused}"
        );
        first.close(&path.join("feed.sock"));
        assert!(!StateDir::open(&path).unwrap().unclean, "it took its leave");
    }

    #[test]
    fn a_lock_left_behind_is_taken_over_and_noticed() {
        let temp = tempfile::tempdir().unwrap();
        drop(StateDir::open(temp.path()).unwrap());
        assert!(StateDir::open(temp.path()).unwrap().unclean);
    }

    #[test]
    fn addresses_that_cannot_be_written_leave_no_older_ones() {
        let temp = tempfile::tempdir().unwrap();
        let state_dir = StateDir::open(temp.path()).unwrap();
        let old = serde_json::json!({ "api": "127.0.0.1:1" });
        state_dir.write_addresses(&old).unwrap();
        std::fs::create_dir(temp.path().join("addresses.json.new")).unwrap();
        assert!(state_dir.write_addresses(&old).is_err());
        assert!(!temp.path().join(ADDRESSES).exists());
    }

    #[test]
    fn a_file_in_the_way_is_named() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("file");
        std::fs::write(&path, "").unwrap();
        let error = StateDir::open(&path).unwrap_err().to_string();
        assert!(
            error.contains("file") && error.contains("cannot create it"),
            "{error}"
        );
    }
}
