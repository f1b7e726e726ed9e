//! The table on disk: what the edge boots from, and what a lost store is
//! rebuilt from.
//!
//! Owns `<state_dir>/table/`: its only writer. A thread of its own follows the
//! registry like an edge does, appends to the journal and takes a new snapshot
//! when that has grown long. Never in a change's way: if the disk fails, that
//! is said and tried again, and everything else goes on. Writes nothing while
//! the store is doubted (see [`shrink`](super::shrink)): the table on disk may be
//! the right one.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::changes::{Compacted, Follower};
use super::events::Events;
use super::nursery::{Look, Nursery};
use super::registry::Registry;
use crate::feed::journal::Journal;
use crate::feed::snapshot::{self, FileError, Head, SnapshotWriter};
use crate::settings::absolute;

/// Touches of one journalled delta.
const DELTA_TOUCHES: usize = 5_000;
/// Apps looked at while a snapshot is written.
const PAGE: usize = 500;
/// A journal shorter than this is never too long.
const JOURNAL_MIN_BYTES: u64 = 4 << 20;
/// One that is a 64th as long is too long at this age.
const JOURNAL_MAX_AGE: Duration = Duration::from_secs(600);
/// How old what was appended may become before it is on the disk for certain.
/// Appended it is at once, so that an edge which dies boots from what it served.
/// The store is durable with every change; were it lost, and the machine stopped
/// dead, a second of changes would be.
const SYNC: Duration = Duration::from_secs(1);
/// After a failure.
const RETRY: Duration = Duration::from_secs(10);
/// How often the files are looked after with no change to write.
const LOOK: Duration = Duration::from_secs(5);

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

/// Starts keeping the table in `folder`. `look` tells how the edges do, by which
/// a table proves itself.
///
/// # Errors
/// The thread cannot be started.
pub fn start(
    folder: PathBuf,
    registry: Arc<Registry>,
    events: Arc<Events>,
    look: Look,
) -> io::Result<Keeper> {
    let (stop, stopping) = watch::channel(false);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()?;
    let writer = Writer {
        folder,
        follower: registry.follow(u64::MAX),
        registry,
        journal: None,
        snapshot_bytes: 0,
        begun: Instant::now(),
        unsynced: false,
        synced_at: Instant::now(),
        nursery: Nursery::new(look),
    };
    let thread = thread::Builder::new()
        .name("snapshot".into())
        .spawn(move || {
            runtime.block_on(keep(writer, &events, stopping));
        })?;
    Ok(Keeper { stop, thread })
}

async fn keep(mut writer: Writer, events: &Events, mut stopping: watch::Receiver<bool>) {
    let mut head = writer.registry.outgoing();
    let mut failing = false;
    if !wait_until_believed(&writer.registry, &mut stopping).await {
        return;
    }
    writer.resume();
    loop {
        head.mark_unchanged();
        let last = *stopping.borrow_and_update();
        let result = writer.catch_up(last).and_then(|()| writer.prove());
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
        let retry = tokio::time::sleep(match failing {
            true => RETRY,
            false if writer.unsynced => SYNC,
            false => LOOK,
        });
        tokio::select! {
            moved = head.changed(), if !failing => if moved.is_err() { return },
            () = retry => {}
            stopped = stopping.changed() => if stopped.is_err() { return },
        }
    }
}

/// Waits while the store is doubted. False: control ends before it is settled.
async fn wait_until_believed(registry: &Registry, stopping: &mut watch::Receiver<bool>) -> bool {
    let mut standing = registry.guard().follow();
    tokio::select! {
        biased;
        believed = standing.wait_for(|standing| standing.withheld.is_none()) => believed.is_ok(),
        _ = stopping.wait_for(|stopping| *stopping) => false,
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
    nursery: Nursery,
}

impl Writer {
    /// Goes on with the files found, if they belong to this store and are
    /// whole. What the store was doubted for is not in its log: then they are
    /// not gone on with.
    fn resume(&mut self) {
        if let Err(error) = self.nursery.resume(&self.folder, &self.registry) {
            tracing::warn!("the table on trial: {error}");
        }
        let ours = |head: &Head, revision: u64| {
            head.cluster_id == self.registry.cluster_id()
                && head.epoch == self.registry.epoch()
                && revision <= self.registry.revision()
        };
        if self.registry.guard().standing().confirmations > 0 {
            return;
        }
        match Journal::open(&self.folder) {
            Ok(journal) if ours(journal.head(), journal.revision()) => {
                match snapshot::check(&self.folder) {
                    Ok(head) if leads_to(&head, &journal) => {
                        self.follower.has_seen(journal.revision());
                        self.journal = Some(journal);
                        // Else the first megabytes of changes after a start would
                        // have all apps written anew.
                        let snapshot = fs::metadata(self.folder.join(snapshot::FILE));
                        self.snapshot_bytes = snapshot.map_or(0, |about| about.len());
                    }
                    Ok(_) => {}
                    Err(error) => tracing::warn!("a new snapshot is taken: {error}"),
                }
            }
            Ok(_) | Err(FileError::Missing { .. }) => {}
            Err(error) => tracing::warn!("a new snapshot is taken: {error}"),
        }
    }

    /// Puts a snapshot on trial where one is due, and looks how it does.
    /// Looks after the table on trial. What fails there costs that trial only:
    /// the table itself is as it should be, and is not written anew.
    fn prove(&mut self) -> Result<(), FileError> {
        let now = Instant::now();
        let (revision, apps) = (self.registry.revision(), self.registry.totals().apps);
        let is_held = self.registry.outgoing().borrow().is_held();
        if !is_held && self.nursery.wants(revision, apps, now) {
            let snapshot = self.journal.as_ref().map(|journal| journal.head().revision);
            if snapshot != Some(revision) {
                self.take_snapshot()?;
            }
            if let Err(error) = self.nursery.begin(&self.folder) {
                tracing::warn!("the table on trial: {error}");
            }
        }
        if let Err(error) = self.nursery.observe(&self.folder, apps, now) {
            tracing::warn!("the table on trial: {error}");
        }
        Ok(())
    }

    fn catch_up(&mut self, is_last: bool) -> Result<(), FileError> {
        if self.journal.as_ref().is_some_and(|it| !it.is_in_place()) {
            // Somebody took the folder away: what is appended would be lost.
            tracing::warn!(
                "{} is gone: it is written anew",
                absolute(&self.folder).display()
            );
            self.journal = None;
        }
        loop {
            let Some(journal) = &mut self.journal else {
                self.take_snapshot()?;
                continue;
            };
            match self.registry.delta(journal.revision(), DELTA_TOUCHES) {
                Ok(None) => break,
                Ok(Some(mut delta)) => {
                    delta.totals = Some(self.registry.totals());
                    match journal.append(&delta) {
                        Ok(()) => {
                            self.unsynced = true;
                            self.follower.has_seen(delta.to);
                        }
                        // Too long for a frame: a snapshot holds it all the same.
                        Err(FileError::Refused { .. }) => self.journal = None,
                        Err(error) => return Err(error),
                    }
                }
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
            let is_held = self.registry.outgoing().borrow().is_held();
            if (long || old) && !is_held {
                self.take_snapshot()?;
            }
        }
        Ok(())
    }

    /// Writes every app as of the newest revision. Apps that change meanwhile
    /// may be written as they are then; the journal, which follows from that
    /// revision, brings all of them up to date.
    fn take_snapshot(&mut self) -> Result<(), FileError> {
        let (revision, removed) = self.registry.removed();
        let head = Head {
            cluster_id: self.registry.cluster_id(),
            epoch: self.registry.epoch(),
            revision,
        };
        self.follower.has_seen(head.revision);
        let mut writer = SnapshotWriter::create(&self.folder, &head)?;
        writer.removed(removed);
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

/// Whether a journal goes on where a snapshot ends.
fn leads_to(snapshot: &Head, journal: &Journal) -> bool {
    snapshot.cluster_id == journal.head().cluster_id
        && snapshot.epoch == journal.head().epoch
        && (journal.head().revision..=journal.revision()).contains(&snapshot.revision)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::boot::{self, Extent, known_good};
    use crate::control::staging::{AppSpec, Condition};
    use crate::control::tokens::Tokens;

    /// No edge to be seen.
    fn nobody() -> Look {
        Box::new(Default::default)
    }

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
            let keeper = start(
                folder(dir.path()),
                registry.clone(),
                events.clone(),
                nobody(),
            )
            .unwrap();
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
        let keeper = start(folder(dir.path()), first.clone(), events.clone(), nobody()).unwrap();
        for n in 0..50 {
            put(&first, &format!("app-{n}")).await;
        }
        first.close().await;
        keeper.finish();
        fs::remove_file(dir.path().join("store.redb")).unwrap();

        let second = registry(dir.path(), &events).await;
        assert_eq!(second.counts().apps, 50);
        assert!(second.revision() > first.revision() && second.epoch() > first.epoch());
        let keeper = start(folder(dir.path()), second.clone(), events.clone(), nobody()).unwrap();
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
        let keeper = start(
            folder(dir.path()),
            registry.clone(),
            events.clone(),
            nobody(),
        )
        .unwrap();
        assert_eq!(put(&registry, "a").await, 1);
        assert_eq!(put(&registry, "b").await, 2);
        registry.close().await;
        keeper.finish();
        assert_eq!(events.latest(1)[0].kind, "snapshot_failed");
    }
}
