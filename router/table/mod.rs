//! The published routing table: host → app → policy and backends.
//!
//! Owns the compiled, immutable [`App`]s and the sharded maps that lead to
//! them; compiles feed records into apps and refuses, per record, those it
//! cannot use. Never does I/O, never waits, never knows who is asking.
//!
//! ```text
//!  host ──hash──▶ index of hosts ──▶ App (immutable, whole)
//!  name ──hash──▶ index of names ──▶ the same App
//! ```
//!
//! Readers (edge threads) go through two cache lines of an [index](index::Index)
//! and the app's own, and never wait. One writer at a time (the edge's feed
//! thread) applies changes; a change costs what it touches: a backend swap one
//! cell of an index for each of the app's hosts and one for its name, a new
//! domain one cell more, and now and then a thousandth of an index.
//!
//! An app is entered once under each of its hosts, whatever the prefixes, and
//! once under its name; the texts are its own and are kept nowhere else. It
//! lists only the domains it holds: one that it was refused is not among them.
//!
//! **Invariant**: a request sees one [`App`] whole, as of one revision. A host
//! that goes from one app to another is with either at any moment: it is
//! entered for the new one, then [`Table::turns`] is counted on, then the old
//! entry goes; a lookup during which it was counted on begins again.

mod app;
mod capacity;
mod change;
mod checkout;
mod compile;
mod domain;
mod domains;
mod index;
mod install;
pub mod limits;
mod live;
mod memory;
mod pace;
mod policy;
mod probed;
mod room;
mod server;
#[cfg(test)]
mod tests;
mod vitals;

pub use app::{App, Backend};
pub use capacity::{Load, Loaded};
pub use checkout::Checkout;
pub use domains::Domains;
pub use install::{Install, InstallThread};
pub use live::{AppLive, BackendLive};
pub use memory::TableMemory;
pub use pace::Waiting;
pub use policy::{Hedge, Policy, PolicyError, Probe, StatusSet};
pub use probed::ProbedApps;
pub use vitals::{Moment, Probed, Told};

use std::sync::atomic::{AtomicU64, Ordering, fence};
use std::sync::{Arc, Mutex};

use arc_swap::Guard;

use change::Writer;
use domain::Domain;
use index::{Found, Index};
use limits::Limits;
use live::HotApps;

use memory::heap_bytes;

/// The table. Shared by all edge threads.
#[derive(Debug)]
pub struct Table {
    hosts: Index,
    names: Index,
    /// Counted on between entering what was moved where it now is and removing
    /// it from where it was.
    turns: AtomicU64,
    /// Bit n: some wildcard's host has n labels (63: that or more).
    wildcard_depths: AtomicU64,
    /// The named limits, which are published beside the routes.
    pub limits: Limits,
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
            hosts: Index::new(),
            names: Index::new(),
            turns: AtomicU64::new(0),
            wildcard_depths: AtomicU64::new(0),
            limits: Limits::default(),
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
        loop {
            let turn = self.turns.load(Ordering::Acquire);
            let found = self.find(host, false, path);
            let found = found.or_else(|| self.find_wildcard(host, path));
            // What was read above was read before this.
            fence(Ordering::Acquire);
            if self.turns.load(Ordering::Relaxed) == turn {
                return found;
            }
        }
    }

    fn find_wildcard(&self, host: &[u8], path: &[u8]) -> Option<Arc<App>> {
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

    #[inline]
    fn find(&self, host: &[u8], wildcard: bool, path: &[u8]) -> Option<Arc<App>> {
        let mut best: Option<(Found, usize)> = None;
        self.hosts.visit(self.hosts.hash(host, wildcard), |found| {
            let app = found.as_ref();
            let length = app.and_then(|app| app.domains.matched(wildcard, host, path));
            if let Some(length) = length
                && best.as_ref().is_none_or(|&(_, longest)| length > longest)
            {
                best = Some((found, length));
            }
            false
        });
        best.and_then(|(found, _)| Guard::into_inner(found))
    }

    /// The app of this name.
    pub fn app(&self, name: &str) -> Option<Arc<App>> {
        let mut named = None;
        self.names.visit(self.name_hash(name), |found| {
            if found.as_ref().is_some_and(|app| app.name == name) {
                named = Guard::into_inner(found);
            }
            named.is_some()
        });
        named
    }

    fn name_hash(&self, name: &str) -> u64 {
        self.names.hash(name.as_bytes(), false)
    }

    fn host_hash(&self, domain: &Domain<'_>) -> u64 {
        self.hosts.hash(domain.host.as_bytes(), domain.wildcard)
    }

    /// The hashes of an app's hosts, each once.
    fn host_hashes(&self, app: &App) -> Vec<u64> {
        let domains = app.domains.iter();
        let mut hashes: Vec<u64> = domains
            .map(|domain| self.host_hash(&Domain::of(domain)))
            .collect();
        hashes.sort_unstable();
        hashes.dedup();
        hashes
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
    /// order. Costs as much as there are of these, not as the table is long. Each call
    /// also forgets some of the addresses whose backends are gone.
    pub fn hot_apps(&self) -> impl Iterator<Item = Arc<App>> + '_ {
        self.hot.servers.sweep();
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
