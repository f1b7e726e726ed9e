//! The writer: the one thread that changes the store and the state.
//!
//! Owns which changes share a commit, and the order of things around it:
//! durable, timed, published, answered. Never decides what a change means.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio::time::timeout_at;

use super::{Answer, Registry, Work};
use crate::control::events::now_ms;
use crate::control::staging::{Batch, Staging};
use crate::control::store::Store;

/// Changes in one commit.
const BATCH: usize = 4_096;
/// How long after a commit the next one waits for more changes.
const GATHER: Duration = Duration::from_millis(5);
/// Commits made without waiting after a wait that brought nothing.
const HURRIED: u32 = 64;

/// The writer's thread.
pub(super) struct Writer {
    registry: Arc<Registry>,
    store: Store,
    queue: mpsc::Receiver<Work>,
    gathering: Gathering,
}

/// Whether the writer waits for more changes after a commit. Each commit costs
/// the same, whatever it holds: at a thousand changes a second, waiting a few
/// milliseconds saves most of the disk's and the processor's work. But whoever
/// makes one change after the other, waiting for each, must not be slowed down:
/// where waiting brings nothing, it is left for a while.
#[derive(Debug, Default)]
struct Gathering {
    /// The last commit's end; `None`: none yet.
    committed_at: Option<Instant>,
    /// Commits left to be made without waiting.
    hurried: u32,
}

impl Gathering {
    /// Until when to wait, having `waiting` changes at `now`.
    fn until(&mut self, waiting: usize, now: Instant) -> Option<Instant> {
        if self.hurried > 0 {
            self.hurried -= 1;
            return None;
        }
        let until = self.committed_at? + GATHER;
        (until > now && waiting < BATCH).then_some(until)
    }

    /// A wait for more ended with `came` of them.
    fn waited(&mut self, came: usize) {
        if came == 0 {
            self.hurried = HURRIED;
        }
    }
}

impl Writer {
    pub(super) fn new(
        registry: Arc<Registry>,
        store: Store,
        queue: mpsc::Receiver<Work>,
    ) -> Writer {
        Writer {
            registry,
            store,
            queue,
            gathering: Gathering::default(),
        }
    }

    /// Runs until the registry is closed, or until a panic.
    pub(super) fn run(mut self, runtime: &Runtime) {
        let _ends = Ends(self.registry.clone());
        self.write(runtime);
        // Closed before `_ends` says so: whoever waits may open it again.
        let Writer {
            store, mut queue, ..
        } = self;
        queue.close();
        drop(store);
    }

    fn write(&mut self, runtime: &Runtime) {
        while let Some(first) = self.queue.blocking_recv() {
            let mut works = vec![first];
            self.take_waiting(&mut works);
            if let Some(until) = self.gathering.until(works.len(), Instant::now()) {
                let had = works.len();
                runtime.block_on(self.gather(until, &mut works));
                self.gathering.waited(works.len() - had);
            }
            self.commit(works);
            let cached = self.store.cache_bytes();
            self.registry
                .store_cache_bytes
                .store(cached, Ordering::Relaxed);
            self.gathering.committed_at = Some(Instant::now());
            if self.registry.closing.load(Ordering::Relaxed) {
                return;
            }
        }
    }

    /// What is in the queue already.
    fn take_waiting(&mut self, works: &mut Vec<Work>) {
        while works.len() < BATCH
            && let Ok(work) = self.queue.try_recv()
        {
            works.push(work);
        }
    }

    /// What comes until a moment.
    async fn gather(&mut self, until: Instant, works: &mut Vec<Work>) {
        while works.len() < BATCH
            && let Ok(Some(work)) = timeout_at(until.into(), self.queue.recv()).await
        {
            works.push(work);
        }
    }

    fn commit(&mut self, works: Vec<Work>) {
        let since: Vec<Instant> = works.iter().map(|work| work.since).collect();
        let (batch, answers) = {
            let state = self.registry.read();
            let mut staging = Staging::new(&state, self.registry.tokens.len(), now_ms());
            let answers: Vec<Answer> = works
                .into_iter()
                .map(|work| (work.run)(&mut staging))
                .collect();
            (staging.into_batch(), answers)
        };
        let result = if batch.is_empty() {
            Ok(())
        } else {
            let floor = self.registry.read().log.floor_after(&batch.entries);
            self.store.commit(&batch, floor)
        };
        match &result {
            Ok(()) => {
                self.time(&batch, &since);
                self.registry.publish(batch);
            }
            Err(failure) => tracing::error!("refused {} changes: {failure}", answers.len()),
        }
        for answer in answers {
            answer(result.clone());
        }
    }

    /// What `batch` holds is durable as of now. Told before it is published,
    /// so that no edge can be quicker than the clock.
    fn time(&self, batch: &Batch, since: &[Instant]) {
        if batch.is_empty() {
            return;
        }
        let now = Instant::now();
        let (first, last) = match (batch.entries.first(), batch.entries.last()) {
            (Some(first), Some(last)) => (first.revision, last.revision),
            // Tokens alone make no revision.
            _ => (1, 0),
        };
        let waits = since
            .iter()
            .map(|since| now.saturating_duration_since(*since));
        self.registry.propagation.durable(first, last, now, waits);
    }
}

/// Tells the rest of control that the writer is gone, however it went.
struct Ends(Arc<Registry>);

impl Drop for Ends {
    fn drop(&mut self) {
        self.0.writing.send_replace(false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lone_change_waits_for_nobody() {
        let now = Instant::now();
        let mut gathering = Gathering::default();
        assert_eq!(gathering.until(1, now), None, "the first");
        gathering.committed_at = Some(now);
        let later = now + GATHER;
        assert_eq!(gathering.until(1, later), None, "one after a pause");
        assert_eq!(gathering.until(BATCH, now), None, "a full commit");
        assert_eq!(gathering.until(1, now), Some(later));
        // Nothing came: whoever asks one by one is not held up again soon.
        gathering.waited(0);
        for commit in 0..HURRIED {
            assert_eq!(gathering.until(1, now), None, "commit {commit}");
        }
        assert_eq!(gathering.until(1, now), Some(later));
        gathering.waited(3);
        assert_eq!(
            gathering.until(1, now),
            Some(later),
            "where it pays, it goes on"
        );
    }
}
