//! The table that ran well: what an edge stands on when edges crash one after
//! another over the newest.
//!
//! Owns the names of its files and how it is read. Never writes and never
//! decides that a table has proven itself: control's keeper does.

use std::path::Path;

use super::last_known_good::Damage;
use super::messages::AppRecord;
use super::snapshot::{self, FileError, Snapshot};
use super::{LastKnownGood, NoTable};

/// The table that ran well, in the table's folder: a snapshot file.
pub const FILE: &str = "proven";
/// The one that may take its place, if edges live with it.
pub const CANDIDATE_FILE: &str = "candidate";

/// Reads the table that ran well from `folder`, handing its apps to `take` a
/// section at a time: no name comes twice. It is as of its snapshot, without
/// what a journal says since. Where none has proven itself yet, the newest
/// snapshot stands in, then the one before it; one whose every byte verifies
/// comes before one that is damaged.
///
/// # Errors
/// There is no usable snapshot of any name.
pub fn proven_table(
    folder: &Path,
    mut take: impl FnMut(Vec<AppRecord>),
) -> Result<LastKnownGood, NoTable> {
    let mut damage = Damage::default();
    let base = choose(folder, &mut damage)?;
    let mut read = LastKnownGood {
        cluster_id: base.head.cluster_id.clone(),
        epoch: base.head.epoch,
        revision: base.head.revision,
        apps: 0,
        backends: 0,
        removed: base.summary.unwrap_or_default().removed,
        is_exact: true,
        damage: Vec::new(),
    };
    for number in 0..base.sections() {
        let section = base.section(number);
        read.is_exact &= section.is_whole;
        read.count(&section.apps);
        take(section.apps);
    }
    if !read.is_exact {
        let path = base.path().display();
        damage.note(format!("{path} is damaged; what is left of it is used"));
    }
    read.damage = damage.lines;
    Ok(read)
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
        Ok(proven) => damage.note(format!("{} is of another store", proven.path().display())),
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
        damage.note(format!("{} is damaged", passed.path().display()));
    }
    Ok(opened.swap_remove(whole.unwrap_or_default()))
}

#[cfg(test)]
#[path = "proven_tests.rs"]
mod tests;
