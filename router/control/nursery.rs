//! The table on trial, and the one that ran well: files of the keeper's.
//!
//! Owns when a snapshot is put on trial and what becomes of it; whether it has
//! run well is [`proving`](super::proving)'s to say. A failure costs nothing
//! but a trial: the table on disk is kept by
//! [`snapshots`](super::snapshots) all the same.

use std::fmt;
use std::path::Path;
use std::time::{Duration, Instant};

use super::proving::{PROVING, Seen, Trial, Verdict};
use super::registry::Registry;
use crate::feed::proven::{CANDIDATE_FILE, FILE, look_at, nominate, promote, withdraw};
use crate::feed::snapshot::FileError;

/// Looks at the edges.
pub type Look = Box<dyn Fn() -> Seen + Send>;

/// A table with less than this share of today's apps, in hundredths, is not
/// worth going back to: the newest snapshot is.
const WORTH_PERCENT: u64 = 50;

/// A table that ran well.
#[derive(Clone, Copy, Debug)]
struct Known {
    /// 0: of another epoch.
    revision: u64,
    apps: u64,
}

/// What is on trial.
pub(super) struct Nursery {
    look: Look,
    /// With its apps.
    trial: Option<(Trial, u64)>,
    /// How far the one that ran well is, and its apps.
    proven: Option<Known>,
    /// No trial begins before.
    rests_until: Option<Instant>,
    proving: Duration,
}

impl fmt::Debug for Nursery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Nursery")
            .field("trial", &self.trial)
            .field("proven", &self.proven)
            .finish_non_exhaustive()
    }
}

impl Nursery {
    pub fn new(look: Look) -> Nursery {
        Nursery {
            look,
            trial: None,
            proven: None,
            rests_until: None,
            proving: PROVING,
        }
    }

    /// Goes on with the files found, if they are of this store; a trial begins
    /// anew, since nobody watched meanwhile.
    pub fn resume(&mut self, folder: &Path, registry: &Registry) -> Result<(), FileError> {
        let cluster_id = registry.cluster_id();
        let (epoch, revision) = (registry.epoch(), registry.revision());
        // Another epoch's ran well all the same.
        match look_at(folder, FILE) {
            Some((head, apps)) if head.cluster_id == cluster_id => {
                let revision = match head.epoch == epoch {
                    true => head.revision,
                    false => 0,
                };
                self.proven = Some(Known { revision, apps });
            }
            _ => withdraw(folder, FILE)?,
        }
        match look_at(folder, CANDIDATE_FILE) {
            Some((head, apps))
                if head.cluster_id == cluster_id
                    && head.epoch == epoch
                    && head.revision <= revision =>
            {
                self.trial = Some((Trial::begin(head.revision, &(self.look)()), apps));
                Ok(())
            }
            _ => withdraw(folder, CANDIDATE_FILE),
        }
    }

    /// Whether a trial should begin, with a snapshot as of `revision` or later.
    pub fn wants(&self, revision: u64, apps: u64, now: Instant) -> bool {
        let rests = self.rests_until.is_some_and(|until| now < until);
        let is_new = self.proven.is_none_or(|proven| proven.revision < revision);
        apps > 0 && self.trial.is_none() && is_new && !rests
    }

    /// Puts the newest snapshot on trial.
    pub fn begin(&mut self, folder: &Path) -> Result<(), FileError> {
        let nominated = nominate(folder);
        if nominated.is_err() {
            self.rests_until = Some(Instant::now() + self.proving / 10);
        }
        let (head, apps) = nominated?;
        self.trial = Some((Trial::begin(head.revision, &(self.look)()), apps));
        Ok(())
    }

    /// Gives up what has been outgrown: going back to it would cost more apps
    /// than it saves.
    fn outgrow(&mut self, folder: &Path, apps: u64, now: Instant) -> Result<(), FileError> {
        let is_outgrown = |of: u64| of * 100 < apps * WORTH_PERCENT;
        if self.trial.as_ref().is_some_and(|(_, of)| is_outgrown(*of)) {
            self.trial = None;
            // Whatever makes them so many is likely still under way.
            self.rests_until = Some(now + self.proving / 10);
            withdraw(folder, CANDIDATE_FILE)?;
        }
        if self.proven.is_some_and(|proven| is_outgrown(proven.apps)) {
            self.proven = None;
            withdraw(folder, FILE)?;
        }
        Ok(())
    }

    /// Looks how the one on trial does, with so many apps registered today.
    pub fn observe(&mut self, folder: &Path, apps: u64, now: Instant) -> Result<(), FileError> {
        self.outgrow(folder, apps, now)?;
        let Some((trial, tried)) = &mut self.trial else {
            return Ok(());
        };
        let (revision, apps, seen) = (trial.revision(), *tried, (self.look)());
        let verdict = trial.observe(now, &seen, self.proving);
        if verdict == Verdict::Waits {
            return Ok(());
        }
        // It is over, whatever becomes of its files: one that somebody removed
        // must not be tried for ever.
        self.trial = None;
        self.rests_until = Some(now + self.proving);
        match verdict {
            Verdict::Waits => {}
            Verdict::Proven => {
                promote(folder)?;
                self.proven = Some(Known { revision, apps });
                tracing::info!(revision, "the table has run well and is kept as such");
            }
            Verdict::Failed => {
                withdraw(folder, CANDIDATE_FILE)?;
                tracing::warn!(
                    revision,
                    "an edge died soon after its start: the table is not taken for one that runs well"
                );
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::control::boot;
    use crate::control::events::Events;
    use crate::control::staging::{AppSpec, Condition};
    use crate::feed::messages::AppRecord;
    use crate::feed::proven_table;
    use crate::feed::snapshot::Head;
    use crate::feed::snapshot::SnapshotWriter;

    const PERIOD: Duration = Duration::from_secs(60);

    struct Stage {
        dir: tempfile::TempDir,
        registry: Arc<Registry>,
        seen: Arc<Mutex<Seen>>,
        nursery: Nursery,
    }

    impl Stage {
        async fn set() -> Stage {
            let dir = tempfile::tempdir().unwrap();
            let (store, contents) = boot::open(dir.path(), &Events::default(), |_| None).unwrap();
            let (registry, _writer) = Registry::start(store, contents, Arc::default()).unwrap();
            let seen = Arc::<Mutex<Seen>>::default();
            let mut nursery = Stage::nursery(&seen);
            nursery.resume(dir.path(), &registry).unwrap();
            Stage {
                dir,
                registry,
                seen,
                nursery,
            }
        }

        fn nursery(seen: &Arc<Mutex<Seen>>) -> Nursery {
            let look = seen.clone();
            let mut nursery = Nursery::new(Box::new(move || look.lock().unwrap().clone()));
            nursery.proving = PERIOD;
            nursery
        }

        /// A change, and a snapshot after it; its revision.
        async fn snapshot(&self) -> u64 {
            let spec = AppSpec {
                name: format!("app-{}", self.registry.revision()),
                ..AppSpec::default()
            };
            let change = move |staging: &mut crate::control::staging::Staging<'_>| {
                staging.put_app(&spec, &Condition::Always)
            };
            let revision = self.registry.change(change).await.unwrap().revision;
            let head = Head {
                cluster_id: self.registry.cluster_id(),
                epoch: self.registry.epoch(),
                revision,
            };
            let mut writer = SnapshotWriter::create(self.dir.path(), &head).unwrap();
            writer.push(&AppRecord::default()).unwrap();
            writer.finish().unwrap();
            revision
        }

        /// An edge serves this revision for a while, from a moment on.
        fn serve(&mut self, revision: u64, from: Instant, seconds: u64) {
            self.seen.lock().unwrap().serving = vec![(9, revision)];
            for second in 0..=seconds {
                let now = from + Duration::from_secs(second);
                self.nursery.observe(self.dir.path(), 1, now).unwrap();
            }
        }

        fn proven(&self) -> u64 {
            proven_table(self.dir.path(), |_| ()).unwrap().revision
        }
    }

    #[tokio::test]
    async fn a_table_runs_well_takes_its_place_and_the_next_waits() {
        let mut stage = Stage::set().await;
        let first = stage.snapshot().await;
        let start = Instant::now();
        assert!(stage.nursery.wants(first, 1, start));
        stage.nursery.begin(stage.dir.path()).unwrap();
        let second = stage.snapshot().await;
        assert!(!stage.nursery.wants(second, 1, start), "one at a time");
        stage.serve(first, start, 59);
        assert_eq!(stage.proven(), second, "the newest stands in");
        stage.serve(first, start, 60);
        assert_eq!(stage.proven(), first);
        let now = start + PERIOD;
        assert!(!stage.nursery.wants(second, 1, now), "not at once");
        assert!(stage.nursery.wants(second, 1, now + PERIOD));
        assert!(
            !stage.nursery.wants(first, 1, now + PERIOD),
            "it has proven"
        );
    }

    #[tokio::test]
    async fn a_young_death_ends_the_trial_and_another_begins_later() {
        let mut stage = Stage::set().await;
        let revision = stage.snapshot().await;
        let start = Instant::now();
        stage.nursery.begin(stage.dir.path()).unwrap();
        stage.seen.lock().unwrap().young_deaths.insert((8, 1));
        stage.serve(revision, start, 1);
        assert!(!stage.dir.path().join(CANDIDATE_FILE).exists());
        assert!(!stage.nursery.wants(revision, 1, start));
        assert!(stage.nursery.wants(revision, 1, start + PERIOD + PERIOD));
    }

    #[tokio::test]
    async fn a_trial_whose_file_is_gone_is_over() {
        let mut stage = Stage::set().await;
        let (revision, start) = (stage.snapshot().await, Instant::now());
        stage.nursery.begin(stage.dir.path()).unwrap();
        stage.serve(revision, start, 59);
        fs::remove_file(stage.dir.path().join(CANDIDATE_FILE)).unwrap();
        let now = start + PERIOD;
        let promoted = stage.nursery.observe(stage.dir.path(), 1, now);
        assert!(promoted.is_err(), "there is nothing to keep");
        assert!(stage.nursery.trial.is_none(), "it would fail for ever");
        stage.nursery.observe(stage.dir.path(), 1, now).unwrap();
        assert!(!stage.nursery.wants(revision, 1, now), "not at once");
        assert!(stage.nursery.wants(revision, 1, now + PERIOD));
    }

    #[tokio::test]
    async fn a_trial_goes_on_after_a_restart_and_foreign_files_are_cleared() {
        let mut stage = Stage::set().await;
        let revision = stage.snapshot().await;
        stage.nursery.begin(stage.dir.path()).unwrap();
        let mut next = Stage::nursery(&stage.seen);
        next.resume(stage.dir.path(), &stage.registry).unwrap();
        assert!(next.trial.is_some());
        // Another store over the same folder.
        let other = Stage::set().await;
        let mut next = Stage::nursery(&stage.seen);
        fs::copy(
            stage.dir.path().join(CANDIDATE_FILE),
            stage.dir.path().join(FILE),
        )
        .unwrap();
        next.resume(stage.dir.path(), &other.registry).unwrap();
        assert!(next.trial.is_none() && next.wants(revision, 1, Instant::now()));
        for file in [FILE, CANDIDATE_FILE] {
            assert!(!stage.dir.path().join(file).exists(), "{file}");
        }
    }

    #[tokio::test]
    async fn an_empty_table_is_not_tried_and_an_outgrown_one_is_given_up() {
        let mut stage = Stage::set().await;
        let (first, start) = (stage.snapshot().await, Instant::now());
        assert!(!stage.nursery.wants(first, 0, start), "it would be empty");
        stage.nursery.begin(stage.dir.path()).unwrap();
        stage.serve(first, start, 60);
        let folder = stage.dir.path().to_owned();
        let mut observe = |apps| stage.nursery.observe(&folder, apps, start).unwrap();
        observe(2);
        assert!(folder.join(FILE).exists(), "half of the apps");
        observe(3);
        assert!(!folder.join(FILE).exists());
        assert!(stage.nursery.wants(first, 3, start + PERIOD + PERIOD));
    }
}
