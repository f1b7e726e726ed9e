//! What an app and a backend with traffic have: counters and the queue.
//!
//! Owns [`AppLive`], [`BackendLive`] and the list of apps that have any
//! ([`HotApps`]), so that a report over a million apps reads only those. Its
//! locks are taken on an app's first request and by the collector, never on
//! the way of a request after that.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ahash::RandomState;
use ecow::EcoString;
use hashbrown::HashMap;

use crate::observe::AppCells;
use crate::policy::admission::WaitQueue;

/// What an app with traffic has.
#[derive(Debug)]
pub struct AppLive {
    /// One set of counters for each edge thread; a thread writes only its own.
    pub cells: Box<[AppCells]>,
    /// Requests waiting for a backend with room, over all threads.
    pub queue: WaitQueue,
}

/// A backend's live state, shared by all threads.
#[derive(Debug)]
pub struct BackendLive {
    /// Unique in this process: the key of connection pools.
    pub key: u64,
    /// Requests in flight, over all threads. Lowered with `SeqCst`, before
    /// [`WaitQueue::wake_one`]: the two together lose no wake-up.
    pub in_flight: AtomicU32,
    /// Requests sent to it.
    pub requests: AtomicU64,
    /// Attempts on it that failed.
    pub failures: AtomicU64,
    /// Whether it ever accepted a connection.
    pub accepted: AtomicBool,
}

impl Default for BackendLive {
    fn default() -> Self {
        static NEXT_KEY: AtomicU64 = AtomicU64::new(1);
        BackendLive {
            key: NEXT_KEY.fetch_add(1, Ordering::Relaxed),
            in_flight: AtomicU32::new(0),
            requests: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            accepted: AtomicBool::new(false),
        }
    }
}

/// Locks of [`HotApps`]: enough that the collector never holds up a data
/// thread for more than the copy of a 64th of the names.
const SHARDS: usize = 64;

type Shard = HashMap<EcoString, Arc<AppLive>, RandomState>;

/// The apps that have live state. At most one entry for each app of the table:
/// the writer removes an app's entry with the app, and the collector what a
/// late request on a removed app put back.
#[derive(Debug)]
pub(super) struct HotApps {
    threads: usize,
    hash: RandomState,
    shards: [Mutex<Shard>; SHARDS],
}

impl HotApps {
    pub(super) fn new(threads: usize) -> Self {
        HotApps {
            threads,
            hash: RandomState::new(),
            shards: std::array::from_fn(|_| Mutex::default()),
        }
    }

    fn shard(&self, name: &str) -> MutexGuard<'_, Shard> {
        let at = self.hash.hash_one(name) as usize % SHARDS;
        // A map of counters has no invariant a panic could break half-way.
        self.shards[at]
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// The app's one live state.
    pub(super) fn live(&self, name: &EcoString) -> Arc<AppLive> {
        let mut shard = self.shard(name);
        let live = shard.entry(name.clone()).or_insert_with(|| {
            Arc::new(AppLive {
                cells: (0..self.threads).map(|_| AppCells::default()).collect(),
                queue: WaitQueue::default(),
            })
        });
        Arc::clone(live)
    }

    pub(super) fn remove(&self, name: &str) {
        self.shard(name).remove(name);
    }

    /// All names, one shard copied at a time.
    pub(super) fn names(&self) -> impl Iterator<Item = EcoString> + '_ {
        self.shards.iter().flat_map(|shard| {
            let shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            shard.keys().cloned().collect::<Vec<_>>()
        })
    }
}
