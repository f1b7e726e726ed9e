//! The change log: which apps each revision touched.
//!
//! Owns a bounded tail of it in memory; the store keeps a tail on disk too.
//! It holds names, never values: whoever follows it takes the value of now, so
//! that following slowly coalesces instead of queueing.
//!
//! What a [`Follower`] has yet to see is kept for it in memory, as long as that
//! is no more than a name for each app there is: beyond that, taking the whole
//! table is the shorter way, and while it is taken the log waits again. So a
//! slow follower never takes whole tables over and over.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use prost::Message;

use crate::feed::messages::Removed;

/// Names kept over all entries; older entries are compacted away, unless a
/// [`Follower`] has yet to see them.
pub const KEPT_NAMES: usize = 200_000;

/// What happened to an app.
#[derive(Clone, Copy, Debug, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
pub enum Kind {
    /// Created, or its domains or policy replaced.
    AppPut = 0,
    /// Removed.
    AppDeleted = 1,
    /// A host claimed; the subject is the host.
    DomainClaimed = 2,
    /// A host released; the subject is the host.
    DomainReleased = 3,
    /// A backend registered or changed; the subject is its id.
    BackendPut = 4,
    /// A backend removed; the subject is its id.
    BackendDeleted = 5,
    /// A backend gets no new requests; the subject is its id.
    BackendDraining = 6,
    /// A backend's lease expired; the subject is its id.
    LeaseExpired = 7,
    /// A suspect backend was heard of again; the subject is its id.
    LeaseRenewed = 8,
    /// An operator took a backend out of rotation; the subject is its id.
    BackendEjected = 9,
    /// An operator let it back in; the subject is its id.
    BackendReadmitted = 10,
}

impl Kind {
    /// As the watch names it.
    pub fn name(self) -> &'static str {
        match self {
            Kind::AppPut => "app_put",
            Kind::AppDeleted => "app_deleted",
            Kind::DomainClaimed => "domain_claimed",
            Kind::DomainReleased => "domain_released",
            Kind::BackendPut => "backend_put",
            Kind::BackendDeleted => "backend_deleted",
            Kind::BackendDraining => "backend_draining",
            Kind::LeaseExpired => "lease_expired",
            Kind::LeaseRenewed => "lease_renewed",
            Kind::BackendEjected => "backend_ejected",
            Kind::BackendReadmitted => "backend_readmitted",
        }
    }
}

/// One app touched by a revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Touch {
    /// The app.
    pub app: Arc<str>,
    /// What happened.
    pub kind: Kind,
    /// The host or backend concerned; may be empty.
    pub subject: Box<str>,
}

/// One revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The revision reached.
    pub revision: u64,
    /// When it was committed, Unix milliseconds.
    pub committed_at_ms: u64,
    /// What it touched, in order.
    pub touches: Arc<[Touch]>,
    /// What was ever removed, as of it.
    pub removed: Removed,
}

/// The revisions asked for are no longer known one by one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Compacted {
    /// The oldest revision that can be followed from.
    pub floor: u64,
}

/// Whoever takes the changes one after another; until it is dropped, the log
/// keeps for it what it has yet to see.
#[derive(Debug)]
pub struct Follower(Arc<AtomicU64>);

impl Follower {
    /// It has seen everything up to `revision`; `u64::MAX`: it needs nothing.
    pub fn has_seen(&self, revision: u64) {
        self.0.store(revision, Ordering::Relaxed);
    }
}

/// The tail of the log.
#[derive(Debug, Default)]
pub struct ChangeLog {
    entries: VecDeque<Entry>,
    names: usize,
    floor: u64,
    /// The part of it that is on disk.
    stored_names: usize,
    stored_floor: u64,
    followers: Mutex<Vec<Weak<AtomicU64>>>,
}

impl ChangeLog {
    /// An empty log that can be followed from `floor` on.
    pub fn starting_at(floor: u64) -> ChangeLog {
        ChangeLog {
            floor,
            stored_floor: floor,
            ..ChangeLog::default()
        }
    }

    /// The oldest revision that can be followed from.
    pub fn floor(&self) -> u64 {
        self.floor
    }

    /// Revisions held.
    pub fn entries(&self) -> usize {
        self.entries.len()
    }

    /// Names held, over all entries.
    pub fn names(&self) -> usize {
        self.names
    }

    /// Begins to keep what comes after `revision` for a follower.
    pub fn follow(&self, revision: u64) -> Follower {
        let seen = Arc::new(AtomicU64::new(revision));
        let mut followers = self
            .followers
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        followers.retain(|follower| follower.strong_count() > 0);
        followers.push(Arc::downgrade(&seen));
        Follower(seen)
    }

    /// What the follower that is furthest behind has seen.
    fn slowest(&mut self) -> u64 {
        let followers = self
            .followers
            .get_mut()
            .unwrap_or_else(PoisonError::into_inner);
        let seen = followers.iter().filter_map(Weak::upgrade);
        seen.map(|seen| seen.load(Ordering::Relaxed))
            .min()
            .unwrap_or(u64::MAX)
    }

    /// Appends a revision and compacts what no longer fits; what a follower
    /// has yet to see stays, up to `apps` names.
    pub fn push(&mut self, entry: Entry, apps: usize) {
        (self.stored_floor, self.stored_names) = self.stored_after(std::slice::from_ref(&entry));
        self.names += entry.touches.len();
        self.entries.push_back(entry);
        let slowest = self.slowest();
        while let Some(oldest) = self.entries.front() {
            let is_stored = oldest.revision > self.stored_floor;
            let is_needed = oldest.revision > slowest && self.names <= apps.max(KEPT_NAMES);
            if is_stored || is_needed {
                break;
            }
            self.names -= oldest.touches.len();
            self.floor = oldest.revision;
            self.entries.pop_front();
        }
    }

    /// Where the tail on disk will begin once these are pushed too.
    pub fn floor_after(&self, coming: &[Entry]) -> u64 {
        self.stored_after(coming).0
    }

    /// The tail on disk with these pushed: where it begins, and its names.
    fn stored_after(&self, coming: &[Entry]) -> (u64, usize) {
        let first = self.first_after(self.stored_floor);
        let added = coming.iter().map(|entry| entry.touches.len());
        let mut names = self.stored_names + added.sum::<usize>();
        let mut floor = self.stored_floor;
        let all = self.entries.range(first..).chain(coming);
        let removable = (self.entries.len() - first + coming.len()).saturating_sub(1);
        for entry in all.take(removable) {
            if names <= KEPT_NAMES {
                break;
            }
            names -= entry.touches.len();
            floor = entry.revision;
        }
        (floor, names)
    }

    /// The index of the first entry after a revision.
    fn first_after(&self, revision: u64) -> usize {
        self.entries
            .partition_point(|entry| entry.revision <= revision)
    }
    /// Entries after `revision`, oldest first.
    ///
    /// # Errors
    /// They were compacted away.
    pub fn since(&self, revision: u64) -> Result<impl Iterator<Item = &Entry>, Compacted> {
        if revision < self.floor {
            return Err(Compacted { floor: self.floor });
        }
        Ok(self.entries.range(self.first_after(revision)..))
    }
}

/// An [`Entry`] as stored.
#[derive(Clone, PartialEq, Message)]
struct StoredEntry {
    #[prost(uint64, tag = "1")]
    committed_at_ms: u64,
    #[prost(message, repeated, tag = "2")]
    touches: Vec<StoredTouch>,
    #[prost(message, optional, tag = "3")]
    removed: Option<Removed>,
}

#[derive(Clone, PartialEq, Message)]
struct StoredTouch {
    #[prost(string, tag = "1")]
    app: String,
    #[prost(enumeration = "Kind", tag = "2")]
    kind: i32,
    #[prost(string, tag = "3")]
    subject: String,
}

impl Entry {
    /// As stored under its revision.
    pub fn encode(&self) -> Vec<u8> {
        let touches = self
            .touches
            .iter()
            .map(|touch| StoredTouch {
                app: touch.app.to_string(),
                kind: touch.kind.into(),
                subject: touch.subject.to_string(),
            })
            .collect();
        StoredEntry {
            committed_at_ms: self.committed_at_ms,
            touches,
            removed: Some(self.removed),
        }
        .encode_to_vec()
    }

    /// Reads what [`Entry::encode`] wrote.
    ///
    /// # Errors
    /// The bytes are no entry.
    pub fn decode(revision: u64, bytes: &[u8]) -> Result<Entry, prost::DecodeError> {
        let stored = StoredEntry::decode(bytes)?;
        let touches = stored
            .touches
            .into_iter()
            .map(|touch| Touch {
                kind: touch.kind(),
                app: touch.app.into(),
                subject: touch.subject.into(),
            })
            .collect();
        Ok(Entry {
            revision,
            committed_at_ms: stored.committed_at_ms,
            touches,
            removed: stored.removed.unwrap_or_default(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(revision: u64, names: usize) -> Entry {
        let touch = Touch {
            app: "shop".into(),
            kind: Kind::BackendPut,
            subject: "web.1".into(),
        };
        Entry {
            revision,
            committed_at_ms: 7,
            touches: vec![touch; names].into(),
            removed: Removed {
                apps: revision,
                backends: 2 * revision,
            },
        }
    }

    #[test]
    fn is_followed_from_its_floor_on_and_no_further_back() {
        let mut log = ChangeLog::starting_at(10);
        log.push(entry(11, 1), 0);
        log.push(entry(12, 1), 0);
        let revisions = |from| {
            log.since(from)
                .map(|it| it.map(|e| e.revision).collect::<Vec<_>>())
        };
        assert_eq!(revisions(10).unwrap(), [11, 12]);
        assert_eq!(revisions(11).unwrap(), [12]);
        assert_eq!(revisions(99).unwrap(), [0u64; 0]);
        assert_eq!(revisions(9).unwrap_err(), Compacted { floor: 10 });
    }

    #[test]
    fn stays_bounded_and_keeps_the_newest() {
        let mut log = ChangeLog::starting_at(0);
        for revision in 1..=5 {
            log.push(entry(revision, KEPT_NAMES / 2), 0);
        }
        assert_eq!(log.floor(), 3);
        assert!(log.since(2).is_err());
        assert_eq!(log.since(3).unwrap().count(), 2);
        let coming = [entry(6, KEPT_NAMES * 2)];
        assert_eq!(log.floor_after(&coming), 5);
        log.push(coming[0].clone(), 0);
        assert_eq!(log.floor(), 5);
        assert_eq!(log.since(5).unwrap().count(), 1);
    }

    #[test]
    fn what_a_follower_has_yet_to_see_is_kept_while_the_table_is_longer() {
        let half = KEPT_NAMES / 2;
        let apps = 2 * KEPT_NAMES;
        let mut log = ChangeLog::starting_at(0);
        let follower = log.follow(0);
        for revision in 1..=4 {
            log.push(entry(revision, half), apps);
        }
        assert_eq!((log.floor(), log.names()), (0, apps));
        assert_eq!(log.floor_after(&[]), 2, "the disk keeps no more for it");
        // One more than it could take over with the whole table.
        log.push(entry(5, half), apps);
        assert_eq!(log.floor(), 1);
        follower.has_seen(4);
        log.push(entry(6, 1), apps);
        assert_eq!((log.floor(), log.names()), (4, half + 1));
        drop(follower);
        log.push(entry(7, half), apps);
        log.push(entry(8, half), apps);
        assert_eq!(log.floor(), 6);
    }

    #[test]
    fn entries_read_back() {
        let entry = entry(3, 2);
        assert_eq!(Entry::decode(3, &entry.encode()).unwrap(), entry);
        assert!(Entry::decode(3, &[0xff; 9]).is_err());
    }
}
