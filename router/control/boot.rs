//! Start-up: a store that can be believed, or a reason to refuse.
//!
//! Owns the choice between the store and the last-known-good table beside it.
//! Never overwrites what it cannot read: a damaged store is moved aside and
//! kept.
//!
//! **Invariant**: an empty store is never believed over a snapshot that is not
//! empty. To start afresh, remove both.

use std::io;
use std::path::{Path, PathBuf};

use prost::Message;

use super::events::{Events, now_ms};
use super::loading::{self, Row};
use super::store::{Contents, OpenError, Store, StoreFailure, set_aside, store_path};
use crate::feed::messages::{Removed, Totals};
use crate::feed::{KnownHead, LastKnownGood, NoTable, known_head, last_known_good};
use crate::policy::shrink::{self, Shrink, Tally};
use crate::settings::absolute;

/// A table found beside the store.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct KnownGood {
    /// Which installation it belongs to.
    pub cluster_id: String,
    /// Its epoch.
    pub epoch: u64,
    /// The revision it is as of.
    pub revision: u64,
    /// What was ever removed, as of it.
    pub removed: Removed,
    /// How much it holds, or held before it was damaged; `None`: its files do
    /// not say, and only the head was read.
    pub totals: Option<Totals>,
    /// Every app's name and encoded record, unless only the head was read.
    pub apps: Vec<Row>,
    /// What was wrong with it; empty: nothing.
    pub damage: String,
}

/// How much of the table beside the store to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// Which revision it reaches.
    Head,
    /// That and every app.
    Whole,
}

/// Reads the table beside the store; `None`: there is none that can be used.
pub fn known_good(folder: &Path, extent: Extent) -> Option<KnownGood> {
    let read = match extent {
        Extent::Head => known_head(folder).map(KnownGood::from),
        Extent::Whole => whole(folder),
    };
    match read {
        Ok(found) => Some(found),
        Err(NoTable::None) => None,
        Err(error) => {
            tracing::warn!("the table in {}: {error}", absolute(folder).display());
            None
        }
    }
}

impl From<KnownHead> for KnownGood {
    fn from(head: KnownHead) -> KnownGood {
        KnownGood {
            cluster_id: head.cluster_id,
            epoch: head.epoch,
            revision: head.revision,
            removed: head.removed,
            totals: head.totals,
            ..KnownGood::default()
        }
    }
}

fn whole(folder: &Path) -> Result<KnownGood, NoTable> {
    let totals = known_head(folder)?.totals;
    let mut apps = Vec::new();
    let LastKnownGood {
        cluster_id,
        epoch,
        revision,
        apps: _,
        backends,
        removed,
        is_exact,
        damage,
    } = last_known_good(folder, |records| {
        apps.extend(records.iter().map(|record| {
            let bytes = record.encode_to_vec().into_boxed_slice();
            (record.name.as_str().into(), bytes)
        }));
    })?;
    let read = Totals {
        apps: apps.len() as u64,
        backends,
    };
    Ok(KnownGood {
        cluster_id,
        epoch,
        revision,
        removed,
        // What it says of itself counts only where something of it is missing.
        totals: totals.filter(|_| !is_exact).or(Some(read)),
        apps,
        damage: if is_exact {
            String::new()
        } else {
            damage.join("; ")
        },
    })
}

/// Why control does not start. Each names the file and a remedy.
#[derive(Debug, thiserror::Error)]
pub enum BootError {
    /// The store cannot be used, for now.
    #[error("{0}")]
    Store(#[from] OpenError),
    /// The store is damaged, and there is nothing to rebuild it from.
    #[error(
        "{damage}; there is no usable snapshot in {} to rebuild it from. Restore the file from a backup, \
         or move it away to start with nothing registered",
        absolute(.snapshots).display()
    )]
    NoWayBack {
        /// What is wrong with it.
        damage: OpenError,
        /// Where snapshots would be.
        snapshots: PathBuf,
    },
    /// The damaged store cannot be moved out of the way.
    #[error("{damage}; moving it aside failed: {source}")]
    SetAside {
        /// What is wrong with it.
        damage: OpenError,
        /// Why it cannot be moved.
        source: io::Error,
    },
    /// A new store could not be written.
    #[error("a new store could not be written: {0}")]
    Found(#[from] StoreFailure),
}

/// Opens the store; makes or rebuilds it where that is right.
///
/// `known_good` reads the table beside it.
///
/// # Errors
/// See [`BootError`].
pub fn open(
    state_dir: &Path,
    events: &Events,
    known_good: impl Fn(Extent) -> Option<KnownGood>,
) -> Result<(Store, Contents), BootError> {
    let path = store_path(state_dir);
    let damage = match Store::open(&path) {
        Ok((store, contents)) if !contents.cluster_id.is_empty() => {
            let table = known_good(Extent::Head).and_then(|head| match head.totals {
                Some(_) => Some(head),
                None => known_good(Extent::Whole),
            });
            return believed(store, contents, events, table);
        }
        Ok((store, _)) => {
            return match known_good(Extent::Whole).filter(|table| !table.apps.is_empty()) {
                Some(table) => {
                    let why = format!(
                        "store {} is empty but the snapshot is not",
                        absolute(&path).display()
                    );
                    rebuild(store, table, events, &why)
                }
                None => found(store),
            };
        }
        Err(damage @ OpenError::Damaged { .. }) => damage,
        Err(error) => return Err(error.into()),
    };
    let Some(table) = known_good(Extent::Whole) else {
        return Err(BootError::NoWayBack {
            damage,
            snapshots: state_dir.join("table"),
        });
    };
    let aside = match set_aside(&path, now_ms()) {
        Ok(aside) => aside,
        Err(source) => return Err(BootError::SetAside { damage, source }),
    };
    let (store, _) = Store::open(&path)?;
    let why = format!("{damage}; it is kept as {}", absolute(&aside).display());
    rebuild(store, table, events, &why)
}

/// A store that reads well. If the snapshot is ahead of it, the store is an
/// older copy: edges hold revisions that it will give to other changes, so it
/// begins a new epoch, and they take its whole table. If it lacks more than
/// was removed, that too makes an epoch of its own, and nothing of it goes out
/// before an operator has confirmed.
fn believed(
    mut store: Store,
    mut contents: Contents,
    events: &Events,
    table: Option<KnownGood>,
) -> Result<(Store, Contents), BootError> {
    let Some(table) = table else {
        return Ok((store, contents));
    };
    let is_ours = table.cluster_id == contents.cluster_id;
    let is_ahead = (table.epoch, table.revision) > (contents.epoch, contents.revision);
    contents.doubt = match is_ours {
        true => doubt(&table, &contents),
        false => replacement(&table, &contents),
    };
    if is_ours {
        // Edges count removals from where that table does: what an operator
        // confirms must come on top of it, or explains nothing to them.
        contents.removed = Removed {
            apps: contents.removed.apps.max(table.removed.apps),
            backends: contents.removed.backends.max(table.removed.backends),
        };
    }
    let parts = contents.doubt.is_some() && contents.epoch <= table.epoch;
    if is_ours && (is_ahead || parts) {
        contents.epoch = contents.epoch.max(table.epoch) + 1;
        contents.revision = contents.revision.max(table.revision) + 1;
        contents.changes_floor = contents.revision;
        contents.changes.clear();
        store.begin_epoch(contents.epoch, contents.revision)?;
    }
    if is_ours && is_ahead {
        let text = format!(
            "the store is older than the snapshot at revision {}: it was restored from a backup; \
             its {} apps count, from revision {} on",
            table.revision,
            contents.apps.len(),
            contents.revision
        );
        events.say("store_restored", "", "", text);
    }
    if !is_ours {
        let text = format!(
            "the table on disk is of another installation ({}) than the store ({}). Edges that hold that table \
             take the store's only once that is confirmed and they are restarted",
            table.cluster_id, contents.cluster_id
        );
        events.say("table_foreign", "", "", text);
    }
    announce(&contents, events);
    Ok((store, contents))
}

/// Whether a store lacks more of a table than was removed since.
fn doubt(table: &KnownGood, contents: &Contents) -> Option<Shrink> {
    let offered = Tally {
        apps: contents.apps.len() as u64,
        backends: contents.backends(),
    };
    let removed = Tally::from(contents.removed).less(table.removed.into());
    shrink::implausible(table.totals?.into(), offered, removed)
}

/// A store that has nothing to do with the table beside it: taking it would
/// make all of that vanish.
fn replacement(table: &KnownGood, contents: &Contents) -> Option<Shrink> {
    let held = Tally::from(table.totals?);
    let offered = Tally {
        apps: contents.apps.len() as u64,
        backends: contents.backends(),
    };
    (held.apps > 0).then_some(Shrink {
        held,
        offered,
        unexplained: held,
    })
}

/// Says that a store is doubted, and what can be done.
fn announce(contents: &Contents, events: &Events) {
    if let Some(shrink) = &contents.doubt {
        let text = format!(
            "the store is not believed over the table on disk: {shrink}. Changes are stored, edges serve what \
             they have, and neither they nor the table on disk hear of anything until that is settled: {}. \
             Otherwise put the right store.redb in its place, or move it away to have it rebuilt from the \
             table on disk, and restart the router",
            super::shrink::REMEDY
        );
        events.say("shrink_refused", "", "", text);
    }
}

fn found(mut store: Store) -> Result<(Store, Contents), BootError> {
    let contents = Contents {
        cluster_id: uuid::Uuid::new_v4().to_string(),
        epoch: 1,
        ..Contents::default()
    };
    store.found(&contents)?;
    Ok((store, contents))
}

fn rebuild(
    mut store: Store,
    mut table: KnownGood,
    events: &Events,
    why: &str,
) -> Result<(Store, Contents), BootError> {
    // What was committed after the snapshot is lost, and edges may hold it.
    let revision = table.revision + 1;
    let mut contents = Contents {
        cluster_id: Some(table.cluster_id.clone())
            .filter(|id| !id.is_empty())
            .unwrap_or_else(|| uuid::Uuid::new_v4().to_string()),
        epoch: table.epoch + 1,
        revision,
        changes_floor: revision,
        removed: table.removed,
        ..Contents::default()
    };
    let rows = std::mem::take(&mut table.apps);
    contents.apps = loading::decode(rows).expect("records that were just encoded must decode");
    contents.doubt = doubt(&table, &contents);
    store.found(&contents)?;
    events.say(
        "store_rebuilt",
        "",
        "",
        format!(
            "{why}. Rebuilt from the snapshot at revision {}: {} apps. Issued tokens are gone (the operator's \
             stays): issue them again{}{}",
            table.revision,
            contents.apps.len(),
            if table.damage.is_empty() { "" } else { ". The snapshot was damaged too: " },
            table.damage
        ),
    );
    announce(&contents, events);
    Ok((store, contents))
}

#[cfg(test)]
#[path = "boot_tests.rs"]
mod tests;
