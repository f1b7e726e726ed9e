//! The published routing table: host → app → policy and backends.
//!
//! Owns the compiled, immutable [`App`]s and the sharded maps that lead to
//! them; compiles feed records into apps and refuses, per record, those it
//! cannot use. Never does I/O, never waits, never knows who is asking.
//!
//! ```text
//!  host ──hash──▶ shard of routes ──▶ slot ──▶ App (immutable, whole)
//!  name ──hash──▶ shard of apps ────▶ slot ──▶ the same App
//! ```
//!
//! Readers (edge threads) load a shard and a slot through `arc-swap` and never
//! wait. One writer at a time (the edge's feed thread) applies changes; a
//! change costs what it touches: a backend swap one slot, a domain one shard
//! of a few hundred routes.
//!
//! **Invariant**: a request sees one [`App`] whole, as of one revision.

mod app;
mod change;
mod compile;
mod domain;
mod live;
mod memory;
mod pace;
mod policy;
mod probed;
mod shards;
#[cfg(test)]
mod tests;
mod vitals;

pub use app::{App, Backend};
pub use change::Install;
pub use live::{AppLive, BackendLive};
pub use memory::TableMemory;
pub use pace::Waiting;
pub use policy::{Hedge, Policy, PolicyError, Probe, StatusSet};
pub use probed::ProbedApps;
pub use vitals::{Moment, Probed, Told};

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use arc_swap::ArcSwapOption;
use ecow::EcoString;

use change::Writer;
use live::HotApps;
use shards::Shards;

use memory::heap_bytes;

/// Where an app's current version is published. It stays the same object from
/// the app's creation to its removal, so a change of the app touches no map.
#[derive(Debug)]
struct Slot {
    /// `None` once the app is removed.
    current: ArcSwapOption<App>,
}

impl Slot {
    fn new(app: App) -> Arc<Slot> {
        Arc::new(Slot {
            current: ArcSwapOption::from_pointee(app),
        })
    }
}

/// A canonical domain and whose it is.
#[derive(Clone, Debug)]
struct Route {
    domain: EcoString,
    slot: Arc<Slot>,
}

/// The table. Shared by all edge threads.
#[derive(Debug)]
pub struct Table {
    routes: Shards<Route>,
    apps: Shards<Arc<Slot>>,
    /// Bit n: some wildcard's host has n labels (63: that or more).
    wildcard_depths: AtomicU64,
    revision: AtomicU64,
    len: AtomicU64,
    backends: AtomicU64,
    hot: Arc<HotApps>,
    probed: ProbedApps,
    writer: Mutex<Writer>,
}

impl Table {
    /// An empty table for an edge of `threads` data threads.
    pub fn new(threads: usize) -> Table {
        let hot = Arc::new(HotApps::new(threads));
        Table {
            routes: Shards::new(),
            apps: Shards::new(),
            wildcard_depths: AtomicU64::new(0),
            revision: AtomicU64::new(0),
            len: AtomicU64::new(0),
            backends: AtomicU64::new(0),
            writer: Mutex::new(Writer::new(Arc::clone(&hot))),
            hot,
            probed: ProbedApps::default(),
        }
    }

    /// The app for a request. `host` is lower-case, without a port; `path` is
    /// the target as sent, with or without its query.
    ///
    /// An exact host beats a wildcard, a longer wildcard a shorter one, and on
    /// one host a longer path prefix a shorter one; a host none of whose
    /// prefixes match falls to the next less specific wildcard.
    ///
    /// Takes no lock and allocates nothing.
    pub fn route(&self, host: &[u8], path: &[u8]) -> Option<Arc<App>> {
        let host = host.strip_suffix(b".").unwrap_or(host);
        if let Some(app) = self.find(host, false, path) {
            return Some(app);
        }
        let depths = self.wildcard_depths.load(Ordering::Acquire);
        if depths == 0 {
            return None;
        }
        let mut labels = domain::labels(host);
        let mut rest = host;
        while let Some(dot) = memchr::memchr(b'.', rest) {
            rest = &rest[dot + 1..];
            labels -= 1;
            if depths & depth_bit(labels) != 0
                && let Some(app) = self.find(rest, true, path)
            {
                return Some(app);
            }
        }
        None
    }

    fn find(&self, host: &[u8], wildcard: bool, path: &[u8]) -> Option<Arc<App>> {
        let hash = self.routes.hash(host, wildcard);
        let shard = self.routes.load(hash);
        let mut best: Option<(&Route, usize)> = None;
        for route in shard.iter_hash(hash) {
            let Some(length) = domain::matched(&route.domain, wildcard, host, path) else {
                continue;
            };
            if best.is_none_or(|(_, longest)| length > longest) {
                best = Some((route, length));
            }
        }
        // A slot emptied since the shard was loaded: the app is gone.
        best.and_then(|(route, _)| route.slot.current.load_full())
    }

    /// The app of this name.
    pub fn app(&self, name: &str) -> Option<Arc<App>> {
        self.slot(name)?.current.load_full()
    }

    fn slot(&self, name: &str) -> Option<Arc<Slot>> {
        let hash = self.apps.hash(name.as_bytes(), false);
        let shard = self.apps.load(hash);
        let found = shard.find(hash, |slot| is_named(slot, name));
        found.cloned()
    }

    /// The revision that every later [`route`](Self::route) on any thread goes
    /// by.
    pub fn revision(&self) -> u64 {
        self.revision.load(Ordering::Acquire)
    }

    /// Apps held.
    pub fn len(&self) -> usize {
        self.len.load(Ordering::Acquire) as usize
    }

    /// Backends of the apps held.
    pub fn backends(&self) -> u64 {
        self.backends.load(Ordering::Acquire)
    }

    /// Whether it holds no app.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The apps that have a probe configured, hot or not.
    pub fn probed_apps(&self) -> &ProbedApps {
        &self.probed
    }

    /// The apps that ever had a request since they were registered, in no
    /// order. Costs as much as there are of these, not as the table is long.
    pub fn hot_apps(&self) -> impl Iterator<Item = Arc<App>> + '_ {
        self.hot.names().filter_map(|name| {
            let app = self.app(&name);
            if app.is_none() {
                // Put back by a request that still held the removed app.
                self.hot.remove(&name);
            }
            app
        })
    }
}

fn depth_bit(labels: usize) -> u64 {
    1 << labels.min(63)
}

fn is_named(slot: &Slot, name: &str) -> bool {
    let current = slot.current.load();
    current.as_ref().is_some_and(|app| app.name == name)
}
