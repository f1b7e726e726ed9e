//! What an app and a backend with traffic have: counters and the queue.
//!
//! Owns [`AppLive`], [`BackendLive`] and the list of apps that have any
//! ([`HotApps`]), so that a report over a million apps reads only those. The
//! list's locks are taken on an app's first request and by the collector; those
//! of health and budget when something fails. A request that goes well on a
//! backend that is well takes none.
//!
//! What is known of backends is published in atomics; [`super::vitals`] says in
//! which order.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ahash::RandomState;
use ecow::EcoString;
use hashbrown::HashMap;

use super::capacity::{Capacity, Load};
use super::server::{MayShare, Servers};
use crate::observe::AppCells;
use crate::policy::admission::WaitQueue;
use crate::policy::health::{Health, State, Ward};
use crate::policy::latency::{self, Average, Sketch};
use crate::policy::retry::Budget;

/// While requests need a backend that is not there, it is told so often.
const WANTED_EVERY_US: u64 = 5_000_000;

/// What an app with traffic has.
#[derive(Debug)]
pub struct AppLive {
    /// One set of counters for each edge thread; a thread writes only its own.
    pub cells: Box<[AppCells]>,
    /// Requests waiting for a backend with room, over all threads.
    pub queue: WaitQueue,
    /// One sketch of the times to the first byte for each edge thread.
    pub(super) sketches: Box<[Sketch]>,
    /// The median of the backends' averages, microseconds; 0: unknown.
    pub(super) median_us: AtomicU64,
    /// The same of what answers take that wait for nobody inside a backend.
    pub(super) undisturbed_us: AtomicU64,
    /// An answer that takes so long may be slow beside the others.
    pub(super) slow_us: AtomicU64,
    /// A try that takes so long is overdue.
    pub(super) overdue_us: AtomicU64,
    /// One that takes so long is overtaken, where the app's policy names a
    /// quantile.
    pub(super) hedge_us: AtomicU64,
    /// 0 while every backend of the newest version is settled; else the number
    /// of the change since which this is not known.
    pub(super) unsettled: AtomicU64,
    /// Numbers given to changes.
    pub(super) changes: AtomicU64,
    /// The address of the newest version, to compare; 0: only one had requests.
    pub(super) newest: AtomicUsize,
    /// Whether a backend that is gone accepted connections.
    pub(super) has_been_up: AtomicBool,
    /// When it was last told that a backend is wanted; 0: never.
    wanted_us: AtomicU64,
    pub(super) ward: Mutex<Ward>,
    pub(super) budget: Mutex<Budget>,
}

impl AppLive {
    fn new(threads: usize) -> Self {
        AppLive {
            cells: (0..threads).map(|_| AppCells::default()).collect(),
            queue: WaitQueue::default(),
            sketches: (0..threads).map(|_| Sketch::default()).collect(),
            median_us: AtomicU64::new(0),
            undisturbed_us: AtomicU64::new(0),
            slow_us: AtomicU64::new(u64::MAX),
            overdue_us: AtomicU64::new(latency::UNKNOWN_US),
            hedge_us: AtomicU64::new(latency::UNKNOWN_US),
            unsettled: AtomicU64::new(0),
            changes: AtomicU64::new(0),
            newest: AtomicUsize::new(0),
            has_been_up: AtomicBool::new(false),
            wanted_us: AtomicU64::new(0),
            ward: Mutex::default(),
            budget: Mutex::default(),
        }
    }

    /// Bytes of buffers that its requests hold, over all threads.
    pub fn held_bytes(&self) -> u64 {
        AppCells::held_bytes(&self.cells)
    }

    /// Whether it is time to tell that a backend is wanted.
    pub fn is_wanted_due(&self, now_us: u64) -> bool {
        let told_us = self.wanted_us.load(Ordering::Relaxed);
        told_us == 0 || now_us.saturating_sub(told_us) >= WANTED_EVERY_US
    }

    /// The same, and if it is, whoever asked tells, and nobody else for a while.
    pub fn may_tell_wanted(&self, now_us: u64) -> bool {
        let told_us = self.wanted_us.load(Ordering::Relaxed);
        let (word, now_us) = (&self.wanted_us, now_us.max(1));
        self.is_wanted_due(now_us)
            && word
                .compare_exchange(told_us, now_us, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
    }

    /// Some backend may not be settled any more: choices look at each again.
    /// After its new state was published.
    pub(super) fn unsettle(&self) {
        let number = self.changes.fetch_add(1, Ordering::SeqCst) + 1;
        self.unsettled.store(number, Ordering::SeqCst);
    }
}

/// A backend's live state, shared by all threads. What a request that goes well
/// writes is one cache line, so that threads that share a backend hand on one.
#[derive(Debug)]
#[repr(C, align(64))]
pub struct BackendLive {
    /// Unique in this process: the key of connection pools.
    pub key: u64,
    /// Requests in flight, over all threads, and those of them that wait for
    /// their answer's first byte.
    pub load: Load,
    /// Its [`State`], as bits: claimed and settled without a lock.
    pub(super) state: AtomicU64,
    /// Requests sent to it.
    pub requests: AtomicU64,
    /// Its time to the first byte.
    pub(super) latency: Average,
    /// When it last answered, other than 502, 503 and 504; 0: never.
    pub(super) answered_us: AtomicU64,
    /// What its answers tell of how many requests it can have.
    pub(super) capacity: Capacity,
    /// If another app's backend has its address: then that server's capacity
    /// counts, not its own.
    pub(super) share: MayShare,
    /// Whether it ever accepted a connection.
    pub accepted: AtomicBool,
    /// Whether a success changes anything while it is in rotation.
    pub(super) watched: AtomicBool,
    /// What speaks for or against it. Locked only by who holds the app's ward,
    /// and by those who just read it.
    pub(super) health: Mutex<Health>,
    /// When a try or probe on it last failed; 0: never.
    pub(super) failed_us: AtomicU64,
    /// Attempts on it that failed.
    pub failures: AtomicU64,
    /// When it last answered 502, 503 or 504; 0: never.
    pub(super) refused_us: AtomicU64,
}

const _: () = assert!(std::mem::offset_of!(BackendLive, capacity) == 48);

impl BackendLive {
    /// A backend that joins others which have traffic.
    pub(super) fn joining() -> Self {
        let health = Health::joining();
        BackendLive {
            state: AtomicU64::new(health.state().to_bits()),
            health: Mutex::new(health),
            ..BackendLive::default()
        }
    }

    /// Where it stands, as published.
    #[inline]
    pub(super) fn state(&self) -> State {
        State::from_bits(self.state.load(Ordering::Acquire))
    }

    /// When it last answered anything; 0: never.
    pub(super) fn heard_us(&self) -> u64 {
        let (answered, refused) = (&self.answered_us, &self.refused_us);
        let refused_us = refused.load(Ordering::Relaxed);
        answered.load(Ordering::Relaxed).max(refused_us)
    }
}

impl Default for BackendLive {
    fn default() -> Self {
        static NEXT_KEY: AtomicU64 = AtomicU64::new(1);
        BackendLive {
            key: NEXT_KEY.fetch_add(1, Ordering::Relaxed),
            load: Load::default(),
            requests: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            accepted: AtomicBool::new(false),
            state: AtomicU64::new(State::Settled.to_bits()),
            watched: AtomicBool::new(false),
            latency: Average::default(),
            answered_us: AtomicU64::new(0),
            refused_us: AtomicU64::new(0),
            failed_us: AtomicU64::new(0),
            capacity: Capacity::default(),
            share: MayShare::new(),
            health: Mutex::default(),
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
    pub servers: Servers,
    hash: RandomState,
    shards: [Mutex<Shard>; SHARDS],
}

impl HotApps {
    pub(super) fn new(threads: usize) -> Self {
        HotApps {
            threads,
            servers: Servers::new(),
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
        let live = shard
            .entry(name.clone())
            .or_insert_with(|| Arc::new(AppLive::new(self.threads)));
        Arc::clone(live)
    }

    /// The app is gone; who waits for one of its backends should look again.
    pub(super) fn remove(&self, name: &str) {
        let live = self.shard(name).remove(name);
        if let Some(live) = live {
            live.queue.wake_all();
        }
    }

    /// All names, one shard copied at a time.
    pub(super) fn names(&self) -> impl Iterator<Item = EcoString> + '_ {
        self.shards.iter().flat_map(|shard| {
            let shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            shard.keys().cloned().collect::<Vec<_>>()
        })
    }
}
