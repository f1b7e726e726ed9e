//! What is registered, in memory: the readers' view of the last durable
//! revision.
//!
//! Owns the apps, compactly (each as its encoded record), the host claims that
//! follow from them, and the tail of the change log. Only
//! [`registry`](super::registry) changes it, and only by what is durable.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::Arc;

use prost::Message;

use super::changes::{ChangeLog, Compacted, Entry};
use super::loading::Loaded;
use super::memory::{Weight, allocated, log_bytes};
use crate::feed::messages::{AppRecord, Change, Delta, LimitRecord, Op, Removed, Totals};

/// An app as held: a million of them must fit into a few hundred megabytes.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Stored {
    /// The revision of its last change.
    pub revision: u64,
    /// The encoded [`AppRecord`].
    pub bytes: Box<[u8]>,
    /// Its backends.
    pub backends: u32,
}

impl Stored {
    /// Encodes a record.
    pub fn new(record: &AppRecord) -> Stored {
        Stored {
            revision: record.revision,
            bytes: record.encode_to_vec().into_boxed_slice(),
            backends: u32::try_from(record.backends.len()).unwrap_or(u32::MAX),
        }
    }

    /// The record.
    pub fn record(&self) -> AppRecord {
        AppRecord::decode(&*self.bytes).expect("bytes encoded from a record must decode")
    }
}

/// Totals, for metrics and the admin port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Apps registered.
    pub apps: u64,
    /// Hosts claimed.
    pub domains: u64,
    /// Backends registered.
    pub backends: u64,
}

/// Everything registered, as of one revision.
#[derive(Debug, Default)]
pub struct State {
    /// Which installation this is.
    pub cluster_id: String,
    /// Rises when the store was rebuilt.
    pub epoch: u64,
    /// The last durable revision.
    pub revision: u64,
    /// What was ever removed, as of `revision`.
    pub removed: Removed,
    /// What led here.
    pub log: ChangeLog,
    /// The named limits that are stored.
    pub limits: BTreeMap<String, LimitRecord>,
    /// The revision of their last change.
    pub limits_revision: u64,
    apps: BTreeMap<Arc<str>, Stored>,
    hosts: HashMap<Box<str>, Arc<str>, ahash::RandomState>,
    backends: u64,
    weight: Weight,
}

/// What an app and its key take, bytes.
fn weigh(name_bytes: usize, stored: &Stored) -> usize {
    allocated(name_bytes + 16) + allocated(stored.bytes.len())
}

impl State {
    /// An empty state at a revision, that can be followed from there on.
    pub fn new(cluster_id: String, epoch: u64, revision: u64) -> State {
        State {
            cluster_id,
            epoch,
            revision,
            log: ChangeLog::starting_at(revision),
            ..State::default()
        }
    }

    /// Totals.
    pub fn counts(&self) -> Counts {
        Counts {
            apps: self.apps.len() as u64,
            domains: self.hosts.len() as u64,
            backends: self.backends,
        }
    }

    /// Totals, as a journal tells them.
    pub fn totals(&self) -> Totals {
        Totals {
            apps: self.apps.len() as u64,
            backends: self.backends,
        }
    }

    /// An app.
    pub fn app(&self, name: &str) -> Option<AppRecord> {
        self.apps.get(name).map(Stored::record)
    }

    /// The revision of an app's last change.
    pub fn app_revision(&self, name: &str) -> Option<u64> {
        self.apps.get(name).map(|stored| stored.revision)
    }

    /// Whose host pattern this is.
    pub fn holder(&self, host: &str) -> Option<Arc<str>> {
        self.hosts.get(host).cloned()
    }

    /// Apps in order of name, after `after` (exclusive; empty: from the first).
    pub fn page(&self, after: &str, limit: usize) -> Vec<AppRecord> {
        self.stored_after(after)
            .take(limit)
            .map(|(_, stored)| stored.record())
            .collect()
    }

    /// At most `max_touches` touches' worth of change from `from` on, each app
    /// once and as it is now, and no revision after `until`; `None` if there is
    /// none.
    ///
    /// # Errors
    /// The changes were compacted away: a snapshot is needed.
    pub fn delta(
        &self,
        from: u64,
        max_touches: usize,
        until: u64,
    ) -> Result<Option<Delta>, Compacted> {
        let mut touched: BTreeMap<&str, ()> = BTreeMap::new();
        let (mut to, mut committed_at_ms, mut touches) = (from, 0, 0);
        let mut removed = None;
        if from >= until {
            return Ok(None);
        }
        for entry in self.log.since(from)? {
            if entry.revision > until {
                break;
            }
            if touches > 0 && touches + entry.touches.len() > max_touches {
                break;
            }
            touches += entry.touches.len();
            touched.extend(entry.touches.iter().map(|touch| (&*touch.app, ())));
            to = entry.revision;
            committed_at_ms = entry.committed_at_ms;
            removed = Some(entry.removed);
        }
        if to == from {
            return Ok(None);
        }
        // Removals first, then by age: a host that moved from one app to
        // another is released before it is claimed wherever that can be told.
        let mut puts: Vec<AppRecord> = Vec::new();
        let mut ops = Vec::with_capacity(touched.len());
        for name in touched.keys() {
            match self.app(name) {
                Some(record) => puts.push(record),
                None => ops.push(Op {
                    change: Some(Change::Delete((*name).to_owned())),
                }),
            }
        }
        puts.sort_by_key(|record| record.revision);
        ops.extend(puts.into_iter().map(|record| Op {
            change: Some(Change::Put(record)),
        }));
        Ok(Some(Delta {
            from,
            to,
            ops,
            committed_at_ms,
            removed,
            totals: None,
        }))
    }

    pub(super) fn stored(&self, name: &str) -> Option<&Stored> {
        self.apps.get(name)
    }

    /// The shared key of an app's name, so that claims do not copy it.
    pub(super) fn key(&self, name: &str) -> Option<Arc<str>> {
        self.apps.get_key_value(name).map(|(key, _)| key.clone())
    }

    pub(super) fn stored_after(&self, after: &str) -> impl Iterator<Item = (&Arc<str>, &Stored)> {
        let from = if after.is_empty() {
            Bound::Unbounded
        } else {
            Bound::Excluded(after)
        };
        self.apps.range::<str, _>((from, Bound::Unbounded))
    }

    /// Takes in every app of a store, in order of name; there must be none yet.
    pub(super) fn fill(&mut self, apps: Vec<Loaded>) {
        self.hosts
            .reserve(apps.iter().map(|app| app.domains.len()).sum());
        self.backends = apps.iter().map(Loaded::backends).sum();
        let placed = apps.into_iter().map(|app| {
            for host in app.domains {
                let host: Box<str> = host.into();
                self.weight.hosts += allocated(host.len());
                self.hosts.insert(host, app.name.clone());
            }
            self.weight.apps += weigh(app.name.len(), &app.stored);
            (app.name, app.stored)
        });
        // Sorted as they are, the tree is built in one pass.
        self.apps = placed.collect();
    }

    /// Puts an app in, or takes it out; claims are merged apart from it.
    pub(super) fn place(&mut self, name: Arc<str>, stored: Option<Stored>) {
        let added = stored
            .as_ref()
            .map_or(0, |stored| u64::from(stored.backends));
        let name_bytes = name.len();
        let weighed = |stored: &Option<Stored>| {
            let stored = stored.as_ref();
            stored.map_or(0, |stored| weigh(name_bytes, stored))
        };
        self.weight.apps += weighed(&stored);
        let before = match stored {
            Some(stored) => self.apps.insert(name, stored),
            None => self.apps.remove(&name),
        };
        self.weight.apps -= weighed(&before);
        let removed = before.map_or(0, |stored| u64::from(stored.backends));
        self.backends = self.backends + added - removed;
    }

    /// Gives a host to an app, or to nobody.
    pub(super) fn assign(&mut self, host: Box<str>, app: Option<Arc<str>>) {
        let bytes = allocated(host.len());
        let (is_there, was_there) = match app {
            Some(app) => (true, self.hosts.insert(host, app).is_some()),
            None => (false, self.hosts.remove(&host).is_some()),
        };
        self.weight.hosts += if is_there { bytes } else { 0 };
        self.weight.hosts -= if was_there { bytes } else { 0 };
    }

    /// What apps, hosts and the change log take, bytes, estimated.
    pub(super) fn bytes(&self) -> (usize, usize, usize) {
        // A tree's nodes are about two thirds full; a map has a byte of its own
        // for each place, of which an eighth stays empty.
        let places = (size_of::<Arc<str>>() + size_of::<Stored>()) * 3 / 2;
        let host = size_of::<Box<str>>() + size_of::<Arc<str>>() + 1;
        (
            self.weight.apps + self.apps.len() * places,
            self.weight.hosts + self.hosts.capacity() / 7 * 8 * host,
            log_bytes(self.log.entries(), self.log.names()),
        )
    }

    /// Takes in limits that changed.
    pub(super) fn limit(&mut self, limits: BTreeMap<String, Option<LimitRecord>>, revision: u64) {
        for (name, record) in limits {
            match record {
                Some(record) => self.limits.insert(name, record),
                None => self.limits.remove(&name),
            };
        }
        self.limits_revision = self.limits_revision.max(revision);
    }

    /// Moves on to the revisions of a durable batch.
    pub(super) fn advance(&mut self, entries: Vec<Entry>) {
        for entry in entries {
            self.revision = self.revision.max(entry.revision);
            self.log.push(entry, self.apps.len());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::feed::messages::BackendRecord;

    fn record(name: &str, backends: usize) -> AppRecord {
        AppRecord {
            name: name.to_owned(),
            domains: vec![format!("{name}.example")],
            backends: vec![BackendRecord::default(); backends],
            ..AppRecord::default()
        }
    }

    #[test]
    fn what_was_loaded_weighs_what_was_placed() {
        let (mut loaded, mut placed) = (State::default(), State::default());
        let apps = [record("a", 2), record("b", 30)];
        let loads = apps.iter().map(|record| Loaded {
            name: record.name.as_str().into(),
            stored: Stored::new(record),
            domains: record.domains.clone(),
            timed: None,
        });
        loaded.fill(loads.collect());
        for record in &apps {
            placed.place(record.name.as_str().into(), Some(Stored::new(record)));
            placed.assign(
                record.domains[0].as_str().into(),
                Some(record.name.as_str().into()),
            );
        }
        assert_eq!(loaded.weight.apps, placed.weight.apps);
        assert_eq!(loaded.weight.hosts, placed.weight.hosts);
        assert_eq!(loaded.backends, 32);
        for state in [&mut loaded, &mut placed] {
            state.place("b".into(), Some(Stored::new(&record("b", 1))));
            state.place("a".into(), None);
            state.place("b".into(), None);
            state.assign("a.example".into(), None);
            state.assign("b.example".into(), None);
            assert_eq!((state.weight.apps, state.weight.hosts), (0, 0));
            assert_eq!(state.backends, 0);
        }
    }
}
