//! What of the state folder belongs to whom, where the router is split.
//!
//! | what | owner | group | mode |
//! |---|---|---|---|
//! | the folder | control | the edge's | 0710 |
//! | `store.redb…`, `token…`, the lock | control | control's | 0600 |
//! | `table/` | control | the edge's | 2750: what is made in it gets its group |
//! | its files | control | the edge's | 0640 |
//! | `feed.sock` | control | the edge's | 0660 |
//!
//! Only what is Portico's is ever changed, by name; nothing is walked. A
//! folder that holds what is not Portico's is not given away: somebody else
//! may rely on whose it is, and whoever owns root's home is root. It is used as
//! it is if the children can, else refused ([`Refusal::Foreign`]).
//!
//! The folder may have belonged to an unprivileged user before, whose things
//! are not to be trusted: nothing is followed that is a link, and an entry
//! changes hands only if its owner was that of the folder, is control already,
//! or is root, where the system keeps users from linking to files of root's
//! (`fs.protected_hardlinks`). So a backup that root copied back is control's
//! again, and a link to `/etc/shadow` stays root's.

use std::fs::read_to_string;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, Dir, FileType, Gid, Mode, OFlags, Stat, Uid};
use rustix::io::Errno;

use super::rights::Identity;
use super::voice::say;

/// Names in the state folder that are Portico's, with what follows them after
/// a dot.
const OURS: &[&str] = &[
    super::state_dir::LOCK,
    super::state_dir::ADDRESSES,
    "feed.sock",
    "token",
    "store.redb",
    "table",
];
/// What a file system keeps at its root.
const LOST_AND_FOUND: &str = "lost+found";
/// Entries looked at in one folder: far more than Portico makes.
const MAX_ENTRIES: usize = 10_000;

const FOLDER: u32 = 0o710;
const PRIVATE: u32 = 0o600;
const TABLE: u32 = 0o2750;
const TABLE_FILE: u32 = 0o640;
const SOCKET: u32 = 0o660;

/// Why a folder cannot be shared out.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// It holds this, which is not ours.
    Foreign(String),
    /// The system refused this.
    System(&'static str, Errno),
}

/// Who shares the folder.
#[derive(Clone, Copy, Debug)]
pub(super) struct Share {
    /// Who owns it. `None`: it stays whose it is, control may be running.
    pub control: Option<Identity>,
    /// Whose group may enter it.
    pub edge: Identity,
    /// A supervisor was here before, so plain files beside ours are an
    /// operator's, and no sign of another's folder.
    pub is_marked: bool,
}

/// Shares out the folder and what is in it. What is right already is not
/// touched, so this can be done before every start of a child.
pub(super) fn share_out(folder: &OwnedFd, share: Share) -> Result<(), Refusal> {
    let stat = rustix::fs::fstat(folder).map_err(system("look at it"))?;
    let owner = share.control.map_or(stat.st_uid, |control| control.uid);
    let wanted = Wanted {
        uid: owner,
        gid: share.edge.gid,
        mode: FOLDER,
    };
    if !wanted.is_met_by(&stat) {
        match foreign_entry(folder, share.is_marked).map_err(system("list it"))? {
            None => wanted.settle(folder).map_err(system("hand it over"))?,
            Some(_) if stat.st_uid == owner && may_enter(&stat, share.edge) => {}
            Some(entry) => return Err(Refusal::Foreign(entry)),
        }
    }
    let adopted = Adoption::of(&stat, owner);
    let group = share.control.map(|control| control.gid);
    adopted.files(folder, owner, group)?;
    adopted.shared(folder, owner, share.edge.gid)
}

/// Makes a socket just bound its owner's alone.
pub(super) fn close_socket(path: &Path) -> Result<(), Errno> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let socket = rustix::fs::open(path, flags, Mode::empty())?;
    let stat = rustix::fs::fstat(&socket)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::Socket {
        return Err(Errno::NOTSOCK);
    }
    set_mode(&socket, PRIVATE)
}

/// Sets the mode of what the descriptor names (`O_PATH`, so fchmod(2) does not
/// take it).
fn set_mode(entry: &OwnedFd, mode: u32) -> Result<(), Errno> {
    let by_descriptor = format!("/proc/self/fd/{}", entry.as_fd().as_raw_fd());
    rustix::fs::chmod(by_descriptor, Mode::from_raw_mode(mode))
}

fn system(what: &'static str) -> impl Fn(Errno) -> Refusal {
    move |errno| Refusal::System(what, errno)
}

/// Whether this user may pass through the folder.
fn may_enter(stat: &Stat, whom: Identity) -> bool {
    let bit = if whom.uid == 0 {
        return true;
    } else if stat.st_uid == whom.uid {
        0o100
    } else if stat.st_gid == whom.gid {
        0o010
    } else {
        0o001
    };
    stat.st_mode & bit != 0
}

/// Something in the folder that says it is not Portico's alone.
fn foreign_entry(folder: &OwnedFd, is_marked: bool) -> Result<Option<String>, Errno> {
    for name in names(folder)? {
        let is_ours = OURS.iter().any(|ours| {
            let rest = name.strip_prefix(ours);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        });
        if is_ours || name == LOST_AND_FOUND {
            continue;
        }
        let stat = match rustix::fs::statat(folder, &*name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => continue,
            stat => stat?,
        };
        let is_plain = FileType::from_raw_mode(stat.st_mode).is_file() && !name.starts_with('.');
        if !(is_marked && is_plain) {
            return Ok(Some(name));
        }
    }
    Ok(None)
}

/// What is in a folder, but for itself and the one above.
fn names(folder: &OwnedFd) -> Result<Vec<String>, Errno> {
    let mut names = Vec::new();
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let listed = rustix::fs::openat(folder, ".", flags, Mode::empty())?;
    for entry in Dir::new(listed)?.take(MAX_ENTRIES) {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if name != "." && name != ".." {
            names.push(name);
        }
    }
    Ok(names)
}

/// How an entry is to be.
#[derive(Clone, Copy, Debug)]
struct Wanted {
    uid: u32,
    gid: u32,
    mode: u32,
}

impl Wanted {
    fn is_met_by(&self, stat: &Stat) -> bool {
        (stat.st_uid, stat.st_gid, stat.st_mode & 0o7777) == (self.uid, self.gid, self.mode)
    }

    /// Makes it so; the entry is named by descriptor, so it cannot be swapped
    /// for another meanwhile.
    fn settle(&self, entry: &OwnedFd) -> Result<(), Errno> {
        let (uid, gid) = (Uid::from_raw(self.uid), Gid::from_raw(self.gid));
        rustix::fs::chownat(entry, "", Some(uid), Some(gid), AtFlags::EMPTY_PATH)?;
        set_mode(entry, self.mode)
    }
}

/// Whose entries change hands.
struct Adoption {
    owners: Vec<u32>,
}

impl Adoption {
    fn of(folder: &Stat, owner: u32) -> Adoption {
        let mut owners = vec![folder.st_uid, owner];
        let guarded = read_to_string("/proc/sys/fs/protected_hardlinks");
        if guarded.is_ok_and(|text| text.trim() == "1") {
            owners.push(0);
        }
        Adoption { owners }
    }

    /// What is control's alone. Modes are set where the owner changes: an
    /// operator may have had a reason for another.
    fn files(&self, folder: &OwnedFd, uid: u32, gid: Option<u32>) -> Result<(), Refusal> {
        let Some(gid) = gid else { return Ok(()) };
        let all = names(folder).map_err(system("list it"))?;
        let is_private = |name: &&String| {
            let starts = |prefix| name.starts_with(prefix);
            starts("store.redb") || starts("token") || *name == super::state_dir::LOCK
        };
        for name in all.iter().filter(is_private) {
            let wanted = Wanted {
                uid,
                gid,
                mode: PRIVATE,
            };
            self.adopt(folder, name, FileType::RegularFile, |stat| {
                (stat.st_uid != uid).then_some(wanted)
            })?;
        }
        Ok(())
    }

    /// What the edge reads.
    fn shared(&self, folder: &OwnedFd, uid: u32, gid: u32) -> Result<(), Refusal> {
        let to = |mode| {
            move |stat: &Stat| {
                let wanted = Wanted { uid, gid, mode };
                (!wanted.is_met_by(stat)).then_some(wanted)
            }
        };
        self.adopt(folder, "feed.sock", FileType::Socket, to(SOCKET))?;
        // Made here, or the edge could not read what control makes.
        let made = match rustix::fs::mkdirat(folder, "table", Mode::from_raw_mode(PRIVATE)) {
            Err(Errno::EXIST) => None,
            made => Some(made.map_err(system("make table/"))?),
        };
        let fresh = Adoption { owners: vec![0] };
        let adopting = made.map_or(self, |()| &fresh);
        let table = adopting.adopt(folder, "table", FileType::Directory, to(TABLE))?;
        let Some(table) = table else { return Ok(()) };
        for name in names(&table).map_err(system("list table/"))? {
            self.adopt(&table, &name, FileType::RegularFile, to(TABLE_FILE))?;
        }
        Ok(())
    }

    /// Makes an entry as it is wanted, if it may change hands; what is not
    /// there, or is not of that kind, is left alone.
    fn adopt(
        &self,
        folder: &OwnedFd,
        name: &str,
        kind: FileType,
        wanted: impl Fn(&Stat) -> Option<Wanted>,
    ) -> Result<Option<OwnedFd>, Refusal> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let entry = match rustix::fs::openat(folder, name, flags, Mode::empty()) {
            Err(Errno::NOENT) => return Ok(None),
            entry => entry.map_err(system("open what is in it"))?,
        };
        let stat = rustix::fs::fstat(&entry).map_err(system("look at what is in it"))?;
        if FileType::from_raw_mode(stat.st_mode) != kind {
            return Ok(None);
        }
        if let Some(wanted) = wanted(&stat) {
            if !self.owners.contains(&stat.st_uid) {
                say(&format!(
                    "state_dir: {name} belongs to uid {} and is left so; control is uid {}",
                    stat.st_uid, wanted.uid
                ));
                return Ok(None);
            }
            let settled = wanted.settle(&entry);
            settled.map_err(system("hand over what is in it"))?;
        }
        Ok(Some(entry))
    }
}

#[cfg(test)]
#[path = "ownership_tests.rs"]
mod tests;
