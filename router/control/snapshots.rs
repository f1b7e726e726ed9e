//! The table on disk: what the edge boots from, and what a lost store is
//! rebuilt from.
//!
//! Owns `<state_dir>/table/`: its only writer. A thread of its own follows the
//! registry like an edge does, appends to the journal and takes a new snapshot
//! when that has grown long. Never in a change's way: if the disk fails, that
//! is said and tried again, and everything else goes on.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::changes::{Compacted, Follower};
use super::events::Events;
use super::registry::Registry;
use crate::feed::journal::Journal;
use crate::feed::snapshot::{self, FileError, Head, SnapshotWriter};

/// Touches of one journalled delta.
const DELTA_TOUCHES: usize = 5_000;
/// Apps looked at while a snapshot is written.
const PAGE: usize = 500;
/// A journal shorter than this is never too long.
const JOURNAL_MIN_BYTES: u64 = 4 << 20;
/// One that is a 64th as long is too long at this age.
const JOURNAL_MAX_AGE: Duration = Duration::from_secs(600);
/// Between two looks at what changed: what changes in the meantime is appended
/// together.
const PACE: Duration = Duration::from_millis(100);
/// How old what was appended may become before it is on the disk for certain.
/// The store is, with every change; were both lost with the machine, a second
/// of changes would be.
const SYNC: Duration = Duration::from_secs(1);
/// After a failure.
const RETRY: Duration = Duration::from_secs(10);

/// Where the table is.
pub fn folder(state_dir: &Path) -> PathBuf {
    state_dir.join("table")
}

/// The thread that keeps the table on disk.
#[derive(Debug)]
pub struct Keeper {
    stop: watch::Sender<bool>,
    thread: JoinHandle<()>,
}

impl Keeper {
    /// Brings the table up to date once more and ends the thread.
    pub fn finish(self) {
        self.stop.send_replace(true);
        if self.thread.join().is_err() {
            tracing::error!("the snapshot's thread had panicked");
        }
    }
}

/// Starts keeping the table in `folder`.
///
/// # Errors
/// The thread cannot be started.
pub fn start(folder: PathBuf, registry: Arc<Registry>, events: Arc<Events>) -> io::Result<Keeper> {
    let (stop, stopping) = watch::channel(false);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()?;
    let mut writer = Writer {
        folder,
        follower: registry.follow(u64::MAX),
        registry,
        journal: None,
        snapshot_bytes: 0,
        begun: Instant::now(),
        unsynced: false,
        synced_at: Instant::now(),
    };
    let thread = thread::Builder::new()
        .name("snapshot".into())
        .spawn(move || {
            writer.resume();
            runtime.block_on(keep(writer, &events, stopping));
        })?;
    Ok(Keeper { stop, thread })
}

async fn keep(mut writer: Writer, events: &Events, mut stopping: watch::Receiver<bool>) {
    let mut head = writer.registry.head();
    let mut failing = false;
    loop {
        head.mark_unchanged();
        let last = *stopping.borrow_and_update();
        let result = writer.catch_up(last);
        if let Err(error) = &result {
            // Whatever state the files are in, a new snapshot replaces it.
            writer.journal = None;
            writer.follower.has_seen(u64::MAX);
            if !failing {
                let text = format!(
                    "the table on disk cannot be kept up to date: {error}; changes are still stored, and \
                     it is tried again every {} s",
                    RETRY.as_secs()
                );
                events.say("snapshot_failed", "", "", text);
            }
        } else if failing {
            events.say(
                "snapshot_recovered",
                "",
                "",
                "the table on disk is up to date again".into(),
            );
        }
        failing = result.is_err();
        if last {
            return;
        }
        tokio::select! {
            () = tokio::time::sleep(PACE) => {}
            stopped = stopping.changed() => match stopped {
                Ok(()) => continue,
                Err(_) => return,
            },
        }
        let retry = tokio::time::sleep(if writer.unsynced { SYNC } else { RETRY });
        tokio::select! {
            moved = head.changed(), if !failing => if moved.is_err() { return },
            () = retry => {}
            stopped = stopping.changed() => if stopped.is_err() { return },
        }
    }
}

struct Writer {
    folder: PathBuf,
    registry: Arc<Registry>,
    /// Keeps what comes after the journal.
    follower: Follower,
    /// `None`: a new snapshot is due.
    journal: Option<Journal>,
    /// Of the last snapshot; 0: not known.
    snapshot_bytes: u64,
    /// When the journal was begun.
    begun: Instant,
    /// Something was appended since the journal was last synced.
    unsynced: bool,
    synced_at: Instant,
}

impl Writer {
    /// Goes on with the journal found, if it belongs to this store.
    fn resume(&mut self) {
        let ours = |journal: &Journal| {
            let Head {
                cluster_id, epoch, ..
            } = journal.head();
            *cluster_id == self.registry.cluster_id()
                && *epoch == self.registry.epoch()
                && journal.revision() <= self.registry.revision()
        };
        match Journal::open(&self.folder) {
            Ok(journal) if ours(&journal) => {
                self.follower.has_seen(journal.revision());
                self.journal = Some(journal);
                // Else the first megabytes of changes after a start would have
                // all apps written anew.
                let snapshot = fs::metadata(self.folder.join(snapshot::FILE));
                self.snapshot_bytes = snapshot.map_or(0, |about| about.len());
            }
            Ok(_) | Err(FileError::Missing { .. }) => {}
            Err(error) => tracing::warn!("a new snapshot is taken: {error}"),
        }
    }

    fn catch_up(&mut self, is_last: bool) -> Result<(), FileError> {
        loop {
            let Some(journal) = &mut self.journal else {
                self.take_snapshot()?;
                continue;
            };
            match self.registry.delta(journal.revision(), DELTA_TOUCHES) {
                Ok(None) => break,
                Ok(Some(delta)) => match journal.append(&delta) {
                    Ok(()) => {
                        self.unsynced = true;
                        self.follower.has_seen(delta.to);
                    }
                    // Too long for a frame: a snapshot holds it all the same.
                    Err(FileError::Refused { .. }) => self.journal = None,
                    Err(error) => return Err(error),
                },
                Err(Compacted { .. }) => self.journal = None,
            }
        }
        if let Some(journal) = &self.journal {
            if self.unsynced && (is_last || self.synced_at.elapsed() >= SYNC) {
                journal.sync()?;
                self.unsynced = false;
                self.synced_at = Instant::now();
            }
            let long = journal.bytes() > JOURNAL_MIN_BYTES.max(self.snapshot_bytes / 2);
            let old =
                self.begun.elapsed() > JOURNAL_MAX_AGE && journal.bytes() > JOURNAL_MIN_BYTES / 64;
            if long || old {
                self.take_snapshot()?;
            }
        }
        Ok(())
    }

    /// Writes every app as of the newest revision. Apps that change meanwhile
    /// may be written as they are then; the journal, which follows from that
    /// revision, brings all of them up to date.
    fn take_snapshot(&mut self) -> Result<(), FileError> {
        let head = Head {
            cluster_id: self.registry.cluster_id(),
            epoch: self.registry.epoch(),
            revision: self.registry.revision(),
        };
        self.follower.has_seen(head.revision);
        let mut writer = SnapshotWriter::create(&self.folder, &head)?;
        let mut after = String::new();
        loop {
            let page = self.registry.page(&after, PAGE);
            for record in &page {
                writer.push(record)?;
            }
            match page.last() {
                Some(record) if page.len() == PAGE => after.clone_from(&record.name),
                _ => break,
            }
        }
        self.snapshot_bytes = writer.finish()?;
        self.journal = Some(Journal::begin(&self.folder, &head)?);
        self.begun = Instant::now();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::boot::{self, Extent, known_good};
    use crate::control::staging::{AppSpec, Condition};
    use crate::control::tokens::Tokens;

    async fn registry(state_dir: &Path, events: &Events) -> Arc<Registry> {
        let table = folder(state_dir);
        let (store, contents) =
            boot::open(state_dir, events, |extent| known_good(&table, extent)).unwrap();
        Registry::start(store, contents, Arc::new(Tokens::default()))
            .unwrap()
            .0
    }

    async fn put(registry: &Registry, name: &str) -> u64 {
        let spec = AppSpec {
            name: name.into(),
            domains: vec![format!("{name}.example")],
            ..AppSpec::default()
        };
        registry
            .change(move |staging| staging.put_app(&spec, &Condition::Always))
            .await
            .unwrap()
            .revision
    }

    fn names(state_dir: &Path) -> Vec<String> {
        let table = known_good(&folder(state_dir), Extent::Whole).unwrap();
        let mut names: Vec<_> = table
            .apps
            .into_iter()
            .map(|(name, _)| name.into_string())
            .collect();
        names.sort();
        names
    }

    #[tokio::test]
    async fn the_table_follows_the_registry_over_restarts() {
        let dir = tempfile::tempdir().unwrap();
        let events = Arc::<Events>::default();
        for round in 0..3 {
            let registry = registry(dir.path(), &events).await;
            let keeper = start(folder(dir.path()), registry.clone(), events.clone()).unwrap();
            let revision = put(&registry, &format!("app-{round}")).await;
            registry.close().await;
            keeper.finish();
            let table = known_good(&folder(dir.path()), Extent::Head).unwrap();
            assert_eq!(table.revision, revision);
            assert_eq!(names(dir.path()).len(), round + 1);
        }
        assert!(events.latest(10).is_empty(), "{:?}", events.latest(10));
    }

    #[tokio::test]
    async fn a_lost_store_comes_back_from_the_table() {
        let dir = tempfile::tempdir().unwrap();
        let events = Arc::<Events>::default();
        let first = registry(dir.path(), &events).await;
        let keeper = start(folder(dir.path()), first.clone(), events.clone()).unwrap();
        for n in 0..50 {
            put(&first, &format!("app-{n}")).await;
        }
        first.close().await;
        keeper.finish();
        fs::remove_file(dir.path().join("store.redb")).unwrap();

        let second = registry(dir.path(), &events).await;
        assert_eq!(second.counts().apps, 50);
        assert!(second.revision() > first.revision() && second.epoch() > first.epoch());
        let keeper = start(folder(dir.path()), second.clone(), events.clone()).unwrap();
        put(&second, "after").await;
        second.close().await;
        keeper.finish();
        assert_eq!(names(dir.path()).len(), 51);
    }

    #[tokio::test]
    async fn a_folder_that_cannot_be_written_stops_no_change() {
        let dir = tempfile::tempdir().unwrap();
        let events = Arc::<Events>::default();
        fs::write(folder(dir.path()), "in the way").unwrap();
        let registry = registry(dir.path(), &events).await;
        let keeper = start(folder(dir.path()), registry.clone(), events.clone()).unwrap();
        assert_eq!(put(&registry, "a").await, 1);
        assert_eq!(put(&registry, "b").await, 2);
        registry.close().await;
        keeper.finish();
        assert_eq!(events.latest(1)[0].kind, "snapshot_failed");
    }
}
