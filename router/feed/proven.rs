//! The table that ran well: what an edge stands on when edges crash one after
//! another over the newest.
//!
//! Owns its files, how they are read and how one becomes the other. Never
//! decides that a table has proven itself: control's keeper does.

use std::fs;
use std::io;
use std::path::Path;

use super::last_known_good::Damage;
use super::messages::AppRecord;
use super::snapshot::write::sync_folder;
use super::snapshot::{self, FileError, Head, Snapshot};
use super::{LastKnownGood, NoTable, TableFiles};
use crate::settings::absolute;

/// The table that ran well, in the table's folder: a snapshot file.
pub const FILE: &str = "proven";
/// The one that may take its place, if edges live with it.
pub const CANDIDATE_FILE: &str = "candidate";

/// Opens the table that ran well in `folder`. It is as of its snapshot, without
/// what a journal says since. Where none has proven itself yet, the newest
/// snapshot stands in, then the one before it; one whose every byte verifies
/// comes before one that is damaged.
///
/// # Errors
/// There is no usable snapshot of any name.
pub fn proven_files(folder: &Path) -> Result<TableFiles, NoTable> {
    let mut damage = Damage::default();
    let base = choose(folder, &mut damage)?;
    Ok(TableFiles::alone(folder, base, damage))
}

/// Reads the table that ran well from `folder`, handing its apps to `take`: no
/// name comes twice.
///
/// # Errors
/// As [`proven_files`].
pub fn proven_table(
    folder: &Path,
    take: impl FnMut(Vec<AppRecord>) + Send,
) -> Result<LastKnownGood, NoTable> {
    Ok(proven_files(folder)?.read_records(take))
}

/// Puts the newest snapshot on trial beside the one that ran well; returns what
/// it is of and how many apps it has.
///
/// # Errors
/// There is no snapshot, or I/O.
pub fn nominate(folder: &Path) -> Result<(Head, u64), FileError> {
    let (current, candidate) = (folder.join(snapshot::FILE), folder.join(CANDIDATE_FILE));
    remove(&candidate)?;
    // A snapshot is never written to, only replaced: a second name keeps it.
    if fs::hard_link(&current, &candidate).is_err() {
        // A file system without links. Half a copy is no candidate.
        let copied = folder.join("candidate.new");
        fs::copy(&current, &copied).map_err(FileError::io(&current))?;
        fs::rename(&copied, &candidate).map_err(FileError::io(&candidate))?;
    }
    let snapshot = Snapshot::open(&candidate)?;
    let apps = snapshot.apps.ok_or(FileError::Damaged {
        path: candidate,
        what: "its index",
    })?;
    Ok((snapshot.head, apps))
}

/// What a file of these two is of, and how many apps it has; `None`: it is not
/// there, or of no use.
pub fn look_at(folder: &Path, file: &str) -> Option<(Head, u64)> {
    let snapshot = Snapshot::open(&folder.join(file)).ok()?;
    Some((snapshot.head, snapshot.apps?))
}

/// The candidate ran well: it takes the place of the one that did before.
///
/// # Errors
/// I/O; the one before is then still in place.
pub fn promote(folder: &Path) -> Result<(), FileError> {
    let candidate = folder.join(CANDIDATE_FILE);
    fs::rename(&candidate, folder.join(FILE)).map_err(FileError::io(&candidate))?;
    sync_folder(folder).map_err(FileError::io(folder))
}

/// Takes a file of these two away, if it is there: it is of no use.
///
/// # Errors
/// I/O.
pub fn withdraw(folder: &Path, file: &str) -> Result<(), FileError> {
    remove(&folder.join(file))
}

fn remove(path: &Path) -> Result<(), FileError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(FileError::io(path)(error)),
        _ => Ok(()),
    }
}

/// The first that is whole, else the first that opens.
fn choose(folder: &Path, damage: &mut Damage) -> Result<Snapshot, NoTable> {
    let open = |file| Snapshot::open(&folder.join(file));
    let (current, previous) = (open(snapshot::FILE), open(snapshot::PREVIOUS_FILE));
    let cluster = current.as_ref().or(previous.as_ref()).ok();
    let cluster = cluster.map(|snapshot| snapshot.head.cluster_id.clone());
    let proven = open(FILE);
    let mut opened = Vec::new();
    match proven {
        Ok(proven) if cluster.is_none_or(|id| id == proven.head.cluster_id) => opened.push(proven),
        Ok(proven) => damage.note(format!(
            "{} is of another store",
            absolute(proven.path()).display()
        )),
        Err(FileError::Missing { .. }) => {}
        Err(error) => damage.note(error.to_string()),
    }
    match (current, previous) {
        (Err(FileError::Missing { .. }), Err(FileError::Missing { .. })) if opened.is_empty() => {
            return Err(NoTable::None);
        }
        (Err(current), Err(previous)) if opened.is_empty() => {
            return Err(NoTable::Unusable { current, previous });
        }
        (current, previous) => opened.extend([current, previous].into_iter().flatten()),
    }
    let whole = opened.iter().position(Snapshot::is_whole);
    for passed in &opened[..whole.unwrap_or_default()] {
        damage.note(format!("{} is damaged", absolute(passed.path()).display()));
    }
    Ok(opened.swap_remove(whole.unwrap_or_default()))
}

#[cfg(test)]
#[path = "proven_tests.rs"]
mod tests;
