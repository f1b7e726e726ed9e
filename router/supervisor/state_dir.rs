//! The state folder: made, locked, shared out, and the small files the
//! supervisor keeps in it. Never reads the store, the table or the token.
//!
//! The folder is held open and files are named within it, so that children can
//! be given it whatever folders are above. Where the router is split it is
//! control's, so root follows no link in it.

mod state;

use std::fs::{DirBuilder, File};
use std::io::{self, Read, Seek, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use super::ownership::{Refusal, Share, share_out};
use super::rights::Rights;
use super::voice::say;
use crate::heritage::Role;
pub(super) use state::StateDirState;

/// Held for a supervisor's whole life; holds its pid.
pub(super) const LOCK: &str = "supervisor.lock";
/// The addresses actually bound.
pub(super) const ADDRESSES: &str = "addresses.json";
/// They, while they are being written.
const FRESH_ADDRESSES: &str = "addresses.json.new";

/// Control's: the table that ran well. Only looked for.
const PROVEN: &str = "table/proven";

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
    /// It is not Portico's alone, and cannot be used as it is.
    #[error(
        "state_dir {}: it holds {entry:?}, which is not Portico's, so it is not given to uid {uid}: name a \
         folder of Portico's own, or prepare this one (chown {uid}:{gid}, chmod 0710), or set user = \"root\"",
        path.display()
    )]
    Foreign {
        /// The folder.
        path: PathBuf,
        /// What is in it.
        entry: String,
        /// Who was to own it.
        uid: u32,
        /// Whose group was to enter it.
        gid: u32,
    },
    /// Somebody removed it.
    #[error("state_dir {}: was removed under the running router: restart the router", .0.display())]
    Gone(PathBuf),
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
    /// The folder itself (`O_PATH`): it grants nothing but a name.
    folder: OwnedFd,
    lock: File,
    /// It was a supervisor's before this one came.
    is_marked: bool,
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
        make(path).map_err(failed("create it"))?;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let folder = rustix::fs::open(path, flags, Mode::empty())
            .map_err(|errno| failed("open it")(errno.into()))?;
        let before = rustix::fs::statat(&folder, LOCK, AtFlags::SYMLINK_NOFOLLOW);
        let mut lock = open_lock(&folder).map_err(failed("open its lock file"))?;
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
            folder,
            lock,
            is_marked: before.is_ok(),
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

    /// The folder, for children to work in.
    pub(super) fn folder(&self) -> BorrowedFd<'_> {
        self.folder.as_fd()
    }

    /// Whether control keeps a table that ran well.
    pub(super) fn has_proven_table(&self) -> bool {
        self.path.join(PROVEN).exists()
    }

    /// Makes the folder and what is in it right for a child of this role about
    /// to be started. See [`super::ownership`].
    ///
    /// # Errors
    /// It is gone, it is not Portico's alone, or the system refused.
    pub(super) fn entrust(&self, rights: &Rights, role: Role) -> Result<(), StateDirError> {
        if rustix::fs::fstat(&self.folder).is_ok_and(|found| found.st_nlink == 0) {
            return Err(StateDirError::Gone(self.path.clone()));
        }
        let &Rights::Split { control, edge } = rights else {
            return Ok(());
        };
        let share = Share {
            control: (role == Role::Control).then_some(control),
            edge,
            is_marked: self.is_marked,
        };
        share_out(&self.folder, share).map_err(|refusal| match refusal {
            Refusal::Foreign(entry) => StateDirError::Foreign {
                path: self.path.clone(),
                entry,
                uid: control.uid,
                gid: edge.gid,
            },
            Refusal::System(what, errno) => StateDirError::Io {
                path: self.path.clone(),
                what,
                source: errno.into(),
            },
        })
    }

    /// Writes `addresses.json`, whole or not at all.
    pub(super) fn write_addresses(&self, json: &serde_json::Value) -> Result<(), StateDirError> {
        self.replace(ADDRESSES, FRESH_ADDRESSES, &format!("{json}\n"))
            .map_err(|source| {
                // None rather than those of an earlier life, or half of them.
                self.remove(FRESH_ADDRESSES);
                self.remove(ADDRESSES);
                StateDirError::Io {
                    path: self.path.clone(),
                    what: "write addresses.json",
                    source,
                }
            })
    }

    fn replace(&self, name: &str, fresh: &str, text: &str) -> io::Result<()> {
        self.remove(fresh);
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode(0o644);
        let mut file = File::from(rustix::fs::openat(&self.folder, fresh, flags, mode)?);
        file.write_all(text.as_bytes())?;
        rustix::fs::renameat(&self.folder, fresh, &self.folder, name)?;
        Ok(())
    }

    fn remove(&self, name: &str) {
        // What cannot be removed is found in the way by whoever minds.
        let _ = rustix::fs::unlinkat(&self.folder, name, AtFlags::empty());
    }

    /// Takes leave: the files that speak of a living supervisor go.
    pub(super) fn close(mut self, feed: &Path) {
        self.remove(ADDRESSES);
        // If it stays, it is found stale, and replaced, by the next one.
        let _ = std::fs::remove_file(feed);
        let _ = self.sign("");
    }
}

/// Makes the folder for its owner alone; those above it as usual.
fn make(path: &Path) -> io::Result<()> {
    if let Some(above) = path.parent() {
        std::fs::create_dir_all(above)?;
    }
    let mut builder = DirBuilder::new();
    builder.recursive(true).mode(0o700).create(path)
}

/// Opens or makes the lock file. It is written to, so it must be what it seems.
fn open_lock(folder: &OwnedFd) -> io::Result<File> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let flags = flags | OFlags::NONBLOCK | OFlags::NOCTTY;
    let lock = rustix::fs::openat(folder, LOCK, flags, Mode::from_raw_mode(0o600))?;
    let lock = File::from(lock);
    let found = lock.metadata()?;
    if !found.is_file() || found.nlink() != 1 {
        return Err(io::Error::other("it is no plain file with one name"));
    }
    Ok(lock)
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
