//! The newest table that the folder's files still tell, whatever happened to
//! them.
//!
//! Owns the choice between a file and the one before it, and what the journals
//! say; [`TableFiles`] puts it together. Never writes. The edge boots from it; control rebuilds
//! a lost store from it.
//!
//! ```text
//! snapshot           ──▶ journal             the usual way
//! snapshot.previous  ──▶ journal.previous    stands in for what is damaged
//! ```

use std::path::Path;

use ahash::RandomState;
use hashbrown::HashMap;
use prost::Message;

use super::journal::{self, JournalReader};
use super::messages::{AppRecord, Change, Delta, Removed, Totals};
use super::snapshot::{self, FileError, Head, Snapshot};
use super::table_files::TableFiles;
use crate::settings::absolute;

/// What [`last_known_good`] found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LastKnownGood {
    /// Which installation it is of.
    pub cluster_id: String,
    /// The store's epoch.
    pub epoch: u64,
    /// The revision reached.
    pub revision: u64,
    /// Apps handed out.
    pub apps: u64,
    /// Backends of these.
    pub backends: u64,
    /// What was ever removed, as of `revision`.
    pub removed: Removed,
    /// Whether the apps are exactly those of `revision`. If not, something was
    /// damaged beyond what the older files could mend: some apps may be older,
    /// missing, or removed ones, and a whole snapshot must be asked for.
    pub is_exact: bool,
    /// What was damaged, a sentence each; bounded.
    pub damage: Vec<String>,
}

/// Why there is no table to begin with.
#[derive(Debug, thiserror::Error)]
pub enum NoTable {
    /// No snapshot was ever written.
    #[error("no snapshot was written yet")]
    None,
    /// There are files, and none can be used.
    #[error("no snapshot can be used: {current}; {previous}")]
    Unusable {
        /// What is wrong with the newer one.
        current: FileError,
        /// What is wrong with the older one.
        previous: FileError,
    },
}

/// Where the table in a folder stands, without its apps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownHead {
    /// Which installation it is of.
    pub cluster_id: String,
    /// The store's epoch.
    pub epoch: u64,
    /// The revision reached.
    pub revision: u64,
    /// What was ever removed, as of `revision`.
    pub removed: Removed,
    /// How much it holds; `None`: its files do not say.
    pub totals: Option<Totals>,
}

/// Most sentences of damage kept.
const DAMAGE_LINES: usize = 100;

/// What became of an app since a snapshot: its record, encoded, or `None` if
/// removed. A journal may say this of half of all apps, and a decoded record is
/// ten times its bytes.
pub(super) type Changed = HashMap<Box<str>, Option<Box<[u8]>>, RandomState>;

/// Reads the newest table from `folder`, handing its apps to `take`: no name
/// comes twice.
///
/// # Errors
/// There is no usable snapshot. Anything less is told as
/// [`damage`](LastKnownGood::damage).
pub fn last_known_good(
    folder: &Path,
    take: impl FnMut(Vec<AppRecord>) + Send,
) -> Result<LastKnownGood, NoTable> {
    Ok(TableFiles::newest(folder)?.read_records(take))
}

/// Where the newest table of `folder` stands, by its snapshot's head and its
/// journal: quick, whatever the number of apps.
///
/// # Errors
/// As [`last_known_good`].
pub fn known_head(folder: &Path) -> Result<KnownHead, NoTable> {
    let mut damage = Damage::default();
    let (base, _) = open_both(folder, &mut damage)?;
    let mut removed = base.summary.unwrap_or_default().removed;
    let mut totals = base.summary.map(|summary| summary.totals);
    let revision = follow(folder, &base.head, &mut damage, |delta| {
        removed = delta.removed.unwrap_or(removed);
        totals = delta.totals;
    });
    Ok(KnownHead {
        cluster_id: base.head.cluster_id,
        epoch: base.head.epoch,
        revision,
        removed,
        totals,
    })
}

/// The newest snapshot that can be used, and the one before it.
pub(super) fn open_both(
    folder: &Path,
    damage: &mut Damage,
) -> Result<(Snapshot, Option<Snapshot>), NoTable> {
    let current = Snapshot::open(&folder.join(snapshot::FILE));
    let previous = Snapshot::open(&folder.join(snapshot::PREVIOUS_FILE));
    let (base, older) = match (current, previous) {
        (Ok(current), previous) => (current, usable(previous, damage)),
        (Err(error), Ok(previous)) => {
            damage.note(format!("{error}; the snapshot before it is used"));
            (previous, None)
        }
        (Err(FileError::Missing { .. }), Err(FileError::Missing { .. })) => {
            return Err(NoTable::None);
        }
        (Err(current), Err(previous)) => return Err(NoTable::Unusable { current, previous }),
    };
    if base.is_summary_damaged {
        damage.note(format!(
            "{}: its summary is damaged",
            absolute(base.path()).display()
        ));
    }
    Ok((base, older))
}

/// The older snapshot, if it is there and can be used.
fn usable(previous: Result<Snapshot, FileError>, damage: &mut Damage) -> Option<Snapshot> {
    match previous {
        Ok(previous) => Some(previous),
        Err(FileError::Missing { .. }) => None,
        Err(error) => {
            damage.note(error.to_string());
            None
        }
    }
}

pub(super) fn is_of_same_store(a: &Head, b: &Head) -> bool {
    a.cluster_id == b.cluster_id && a.epoch == b.epoch
}

/// Hands `note` the deltas that lead on from a snapshot; returns the revision
/// reached. The journal before this one is read only where it is needed: after
/// a usual life it has nothing more to say, and may be of another store.
pub(super) fn follow(
    folder: &Path,
    base: &Head,
    damage: &mut Damage,
    mut note: impl FnMut(Delta),
) -> u64 {
    let newest = folder.join(journal::FILE);
    let all = |from| (from, u64::MAX);
    let (reached, is_clean) = replay(&newest, base, all(base.revision), damage, &mut note);
    if is_clean {
        return reached;
    }
    let before = folder.join(journal::PREVIOUS_FILE);
    let (reached, _) = replay(&before, base, all(reached), damage, &mut note);
    replay(&newest, base, all(reached), damage, &mut note).0
}

/// Hands `note` a journal's deltas from revision `span.0` to at most `span.1`;
/// returns the revision reached, and whether the journal leads on from
/// `span.0` and is whole.
pub(super) fn replay(
    path: &Path,
    store: &Head,
    span: (u64, u64),
    damage: &mut Damage,
    note: &mut impl FnMut(Delta),
) -> (u64, bool) {
    let (mut revision, to) = span;
    let mut journal = match JournalReader::open(path) {
        Ok(journal) if is_of_same_store(&journal.head, store) => journal,
        Ok(_) => {
            damage.note(format!("{} is of another store", absolute(path).display()));
            return (revision, false);
        }
        Err(FileError::Missing { .. }) => return (revision, false),
        Err(error) => {
            damage.note(error.to_string());
            return (revision, false);
        }
    };
    let leads_on = journal.head.revision <= revision;
    while let Some(delta) = journal.next_after(revision) {
        if delta.to > to {
            break;
        }
        revision = delta.to;
        note(delta);
    }
    if let Some(what) = journal.damage() {
        damage.note(format!(
            "{} is damaged after revision {}: {what}",
            absolute(path).display(),
            journal.revision()
        ));
    }
    (revision, leads_on && journal.damage().is_none())
}

pub(super) fn note_changes(changed: &mut Changed, delta: Delta) {
    for op in delta.ops {
        match op.change {
            Some(Change::Put(record)) => {
                let encoded = record.encode_to_vec().into_boxed_slice();
                changed.insert(record.name.into(), Some(encoded));
            }
            Some(Change::Delete(name)) => {
                changed.insert(name.into(), None);
            }
            None => {}
        }
    }
}

/// Sentences, up to a bound.
#[derive(Default)]
pub(super) struct Damage {
    pub(super) lines: Vec<String>,
}

impl Damage {
    pub(super) fn note(&mut self, line: String) {
        if self.lines.len() < DAMAGE_LINES && !self.lines.contains(&line) {
            self.lines.push(line);
        }
    }
}

#[cfg(test)]
#[path = "last_known_good_tests.rs"]
mod tests;
