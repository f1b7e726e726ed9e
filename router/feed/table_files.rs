//! The files of a table's folder, read as one table on as many threads as
//! wanted.
//!
//! Owns the order of reading and the mending of what is damaged. Never chooses
//! between files: that is [`last_known_good`](super::last_known_good()) and
//! [`proven`](super::proven).
//!
//! Blocks of the snapshot are read by whoever is free. An app that the journal
//! changed is passed over there; those, and what a damaged section lacked, come
//! at the end.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use hashbrown::HashSet;
use prost::Message;

use super::journal;
use super::last_known_good::{
    Changed, Damage, LastKnownGood, NoTable, follow, is_of_same_store, note_changes, open_both,
    replay,
};
use super::messages::{AppRecord, AppView, Removed};
use super::snapshot::{Snapshot, section_of};
use crate::settings::absolute;

/// Records that are not worth a thread of their own.
const LATE_SHARE_MIN: usize = 4_096;

/// A table's files, open, and what the journals changed since.
pub struct TableFiles {
    folder: PathBuf,
    base: Snapshot,
    /// What stands in for damaged sections; `None`: what is left is all.
    mender: Option<Mender>,
    changed: Changed,
    removed: Removed,
    revision: u64,
    damage: Damage,
}

impl TableFiles {
    /// The newest table of a folder.
    ///
    /// # Errors
    /// There is no usable snapshot.
    pub fn newest(folder: &Path) -> Result<TableFiles, NoTable> {
        let mut damage = Damage::default();
        let (base, older) = open_both(folder, &mut damage)?;
        let mut changed = Changed::default();
        let mut removed = base.summary.unwrap_or_default().removed;
        let revision = follow(folder, &base.head, &mut damage, |delta| {
            removed = delta.removed.unwrap_or(removed);
            note_changes(&mut changed, delta);
        });
        Ok(TableFiles {
            folder: folder.into(),
            mender: Some(Mender {
                folder: folder.into(),
                older: older.filter(|older| is_of_same_store(&older.head, &base.head)),
                changed: None,
            }),
            base,
            changed,
            removed,
            revision,
            damage,
        })
    }

    /// One snapshot as it is.
    pub(super) fn alone(folder: &Path, base: Snapshot, damage: Damage) -> TableFiles {
        TableFiles {
            folder: folder.into(),
            mender: None,
            changed: Changed::default(),
            removed: base.summary.unwrap_or_default().removed,
            revision: base.head.revision,
            base,
            damage,
        }
    }

    /// About how many apps there are.
    pub fn apps(&self) -> usize {
        usize::try_from(self.base.apps.unwrap_or(0)).unwrap_or(0)
    }

    /// Hands every app and its bytes to a `Take`, on as many threads as asked
    /// for, each with one of its own: no name comes twice, in no order.
    pub fn read<Take: FnMut(&AppView<'_>, &[u8])>(
        mut self,
        threads: usize,
        taker: &(impl Fn() -> Take + Sync),
    ) -> LastKnownGood {
        let all = (AtomicU64::new(0), AtomicU64::new(0));
        let counting = || Counting {
            all: &all,
            apps: 0,
            backends: 0,
            take: taker(),
        };
        let changed = &self.changed;
        let damaged = self.base.each(threads, &|| {
            let mut taker = counting();
            move |app: &AppView<'_>, record: &[u8]| {
                if !changed.contains_key(app.name) {
                    taker.one(app, record);
                }
            }
        });
        let mut is_exact = damaged.is_empty();
        let mut late: Vec<Box<[u8]>> = Vec::new();
        if let Some(mender) = &mut self.mender {
            is_exact = true;
            for section in damaged {
                let mut read = self.base.section(section).apps;
                let shown = read.len();
                is_exact &= mender.mend(&self.base, section, &mut read, &mut self.damage);
                let mended = read.into_iter().skip(shown);
                let mended = mended.filter(|app| !changed.contains_key(app.name.as_str()));
                late.extend(mended.map(|app| app.encode_to_vec().into_boxed_slice()));
            }
        } else if !is_exact {
            let path = absolute(self.base.path());
            let path = path.display();
            self.damage
                .note(format!("{path} is damaged; what is left of it is used"));
        }
        // What came after the snapshot.
        late.extend(self.changed.into_values().flatten());
        each_late(&late, threads, &counting);
        let head = &self.base.head;
        LastKnownGood {
            cluster_id: head.cluster_id.clone(),
            epoch: head.epoch,
            revision: self.revision,
            apps: all.0.into_inner(),
            backends: all.1.into_inner(),
            removed: self.removed,
            is_exact,
            damage: self.damage.lines,
        }
    }

    /// The same on this thread, with every record decoded.
    pub(super) fn read_records(self, take: impl FnMut(Vec<AppRecord>) + Send) -> LastKnownGood {
        let take = Mutex::new(take);
        self.read(1, &|| {
            |_: &AppView<'_>, record: &[u8]| {
                let app = AppRecord::decode(record).expect("a record with a view must decode");
                let mut take = take.lock().unwrap_or_else(PoisonError::into_inner);
                take(vec![app]);
            }
        })
    }
}

impl fmt::Debug for TableFiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TableFiles")
            .field("folder", &self.folder)
            .field("revision", &self.revision)
            .finish_non_exhaustive()
    }
}

/// Hands out encoded records on as many threads as asked for.
fn each_late<'c, Take: FnMut(&AppView<'_>, &[u8])>(
    records: &[Box<[u8]>],
    threads: usize,
    taker: &(impl Fn() -> Counting<'c, Take> + Sync),
) {
    let work = |records: &[Box<[u8]>]| {
        let mut taker = taker();
        for record in records {
            let mut app = AppView::default();
            app.read(record)
                .expect("a record that was just encoded must decode");
            taker.one(&app, record);
        }
    };
    let share = records.len().div_ceil(threads.max(1)).max(LATE_SHARE_MIN);
    std::thread::scope(|scope| {
        let mut shares = records.chunks(share);
        let own = shares.next().unwrap_or_default();
        let others: Vec<_> = shares.map(|share| scope.spawn(|| work(share))).collect();
        work(own);
        for other in others {
            if let Err(panic) = other.join() {
                std::panic::resume_unwind(panic);
            }
        }
    });
}

/// A taker that counts, and tells at its end.
struct Counting<'c, Take> {
    /// Apps and backends that all of them took.
    all: &'c (AtomicU64, AtomicU64),
    apps: u64,
    backends: u64,
    take: Take,
}

impl<Take: FnMut(&AppView<'_>, &[u8])> Counting<'_, Take> {
    fn one(&mut self, app: &AppView<'_>, record: &[u8]) {
        self.apps += 1;
        self.backends += app.backends.len() as u64;
        (self.take)(app, record);
    }
}

impl<Take> Drop for Counting<'_, Take> {
    fn drop(&mut self) {
        self.all.0.fetch_add(self.apps, Ordering::Relaxed);
        self.all.1.fetch_add(self.backends, Ordering::Relaxed);
    }
}

/// Mends damaged sections from the older files.
struct Mender {
    folder: PathBuf,
    older: Option<Snapshot>,
    /// The older journal up to the newer snapshot's revision, and whether it
    /// reaches that; read when first needed.
    changed: Option<(Changed, bool)>,
}

impl Mender {
    /// Adds to `apps` what the section's damaged blocks held, as far as the
    /// older files know; true if the section is then exact.
    fn mend(
        &mut self,
        base: &Snapshot,
        section: u32,
        apps: &mut Vec<AppRecord>,
        damage: &mut Damage,
    ) -> bool {
        let what = format!(
            "{}: section {section} is damaged",
            absolute(base.path()).display()
        );
        let Some(older) = &self.older else {
            damage.note(format!(
                "{what}; there is no snapshot before it, {} of its apps are left",
                apps.len()
            ));
            return false;
        };
        let (changed, reaches) = self.changed.get_or_insert_with(|| {
            let mut changed = Changed::default();
            let path = self.folder.join(journal::PREVIOUS_FILE);
            let span = (older.head.revision, base.head.revision);
            let mut note = |delta| note_changes(&mut changed, delta);
            let (reached, _) = replay(&path, &base.head, span, damage, &mut note);
            (changed, reached == base.head.revision)
        });
        let mut known: HashSet<String> = apps.iter().map(|app| app.name.clone()).collect();
        let before = older.section_of_other(section, base.sections());
        let is_exact = before.is_whole && *reaches;
        for app in before.apps {
            if known.contains(&app.name) || changed.contains_key(app.name.as_str()) {
                continue;
            }
            known.insert(app.name.clone());
            apps.push(app);
        }
        for (name, record) in changed {
            if section_of(name, base.sections()) == section
                && let Some(record) = record
                && known.insert(name.to_string())
            {
                let app = AppRecord::decode(&record[..]);
                apps.push(app.expect("a record that was just encoded must decode"));
            }
        }
        let how = if is_exact {
            "mended from the files before it"
        } else {
            "the files before it stand in"
        };
        damage.note(format!("{what}; {how}"));
        is_exact
    }
}
