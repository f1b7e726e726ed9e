//! From a key to the apps that may have it: a hash table that one writer
//! changes in place under readers that never wait.
//!
//! Owns hashing, the buckets and their growth. Knows no keys: it finds the
//! apps that were put under a hash, and who asks compares the key with the
//! app's own text. So a key is kept once, in its app.
//!
//! ```text
//!  hash ──▶ shard ──▶ bucket, one cache line: 5 × (mark, cell) ──▶ App
//! ```
//!
//! A cell is where an app's current version is published under one of its
//! keys. A bucket that is full sends what comes after on to the next one, and
//! counts how many it sent, so that a search knows when to go on. A shard that
//! is full is built anew, half as large again; it is one of a thousand, so no
//! change costs more than a thousandth of the table.
//!
//! **Invariant**: what is in the index from a search's beginning to its end is
//! found by it. What is moved from one app to another meanwhile may be missed:
//! [`Table`](super::Table) notices and searches again.

use std::hash::{BuildHasher, Hasher};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ahash::RandomState;
use arc_swap::{ArcSwap, ArcSwapOption, Guard};

use super::{App, heap_bytes};

/// Shards of an index.
const SHARDS: usize = 1024;
/// Cells of a bucket: with their marks and the count, one cache line.
const CELLS: usize = 5;
/// A shard built for its entries is this full, in percent: few are then sent
/// on.
const BUILT_PERCENT: usize = 70;
/// A shard that is this full takes no more.
const FULL_PERCENT: usize = 85;

/// An app, as it was found: counted as in use only if it is taken.
pub(super) type Found = Guard<Option<Arc<App>>>;

/// The index.
#[derive(Debug)]
pub(super) struct Index {
    hash: RandomState,
    shards: Box<[ArcSwap<Shard>]>,
}

/// The part of the index that is grown as one.
#[derive(Debug, Default)]
struct Shard {
    buckets: Box<[Bucket]>,
    /// Entries.
    len: AtomicU32,
}

#[derive(Debug)]
#[repr(C, align(64))]
struct Bucket {
    cells: [ArcSwapOption<App>; CELLS],
    /// Of each cell, bits of its hash; 0: it is empty.
    marks: [AtomicU32; CELLS],
    /// Entries that belong here or before and are in a bucket after this one.
    sent_on: AtomicU32,
}

const _: () = assert!(size_of::<Bucket>() == 64);

/// An entry before it is published.
pub(super) type Entry = (u32, Arc<App>);

/// Which shard a hash falls into.
#[inline]
pub(super) fn shard_of(hash: u64) -> usize {
    (((hash >> 32) * SHARDS as u64) >> 32) as usize
}

/// The bits of a hash that tell entries of a shard apart: none of those that
/// chose the shard.
#[inline]
pub(super) fn mark_of(hash: u64) -> u32 {
    (hash as u32).max(1)
}

impl Index {
    pub(super) fn new() -> Self {
        let empty: Arc<Shard> = Arc::default();
        Index {
            hash: RandomState::new(),
            shards: (0..SHARDS)
                .map(|_| ArcSwap::new(Arc::clone(&empty)))
                .collect(),
        }
    }

    /// A key's hash; `kind` keeps two sets of keys apart.
    #[inline]
    pub(super) fn hash(&self, key: &[u8], kind: bool) -> u64 {
        let mut hasher = self.hash.build_hasher();
        hasher.write(key);
        hasher.write_u8(u8::from(kind));
        hasher.finish()
    }

    /// Shows the apps under a hash, and with a very rare one of another, until
    /// `look` returns true.
    #[inline]
    pub(super) fn visit(&self, hash: u64, mut look: impl FnMut(Found) -> bool) {
        let shard = self.shards[shard_of(hash)].load();
        let mark = mark_of(hash);
        for bucket in shard.way(mark) {
            for (own, cell) in bucket.marks.iter().zip(&bucket.cells) {
                if own.load(Ordering::Acquire) == mark && look(cell.load()) {
                    return;
                }
            }
            if bucket.sent_on.load(Ordering::Acquire) == 0 {
                return;
            }
        }
    }

    /// Adds an entry.
    pub(super) fn insert(&self, hash: u64, app: &Arc<App>) {
        let at = &self.shards[shard_of(hash)];
        let shard = at.load();
        if shard.has_room() {
            shard.put(mark_of(hash), Arc::clone(app));
        } else {
            let mut entries = shard.entries();
            entries.push((mark_of(hash), Arc::clone(app)));
            let buckets = shard.buckets.len() + shard.buckets.len() / 2 + 1;
            at.store(Arc::new(Shard::of(entries, buckets)));
        }
    }

    /// Publishes an app's next version in the place of `before`.
    pub(super) fn replace(&self, hash: u64, before: &Arc<App>, app: &Arc<App>) {
        let shard = self.shards[shard_of(hash)].load();
        if let Some((bucket, cell)) = shard.position(mark_of(hash), before) {
            shard.buckets[bucket].cells[cell].store(Some(Arc::clone(app)));
        }
    }

    /// Takes an entry away.
    pub(super) fn remove(&self, hash: u64, app: &Arc<App>) {
        let at = &self.shards[shard_of(hash)];
        let shard = at.load();
        if !shard.take(mark_of(hash), app) {
            return;
        }
        let len = shard.len.load(Ordering::Relaxed) as usize;
        if shard.buckets.len() > 8 && 4 * len < shard.buckets.len() * CELLS {
            at.store(Arc::new(Shard::of(shard.entries(), buckets_for(len))));
        }
    }

    /// Replaces a shard by one of just these; returns the apps it had.
    pub(super) fn publish(&self, shard: usize, entries: Vec<Entry>) -> Vec<Entry> {
        let buckets = buckets_for(entries.len());
        let before = self.shards[shard].swap(Arc::new(Shard::of(entries, buckets)));
        before.entries()
    }

    /// Every entry's app, a shard at a time.
    pub(super) fn iter(&self) -> impl Iterator<Item = Arc<App>> + '_ {
        let shards = self.shards.iter().map(ArcSwap::load_full);
        shards.flat_map(|shard| shard.entries().into_iter().map(|(_, app)| app))
    }

    /// Bytes of the index itself.
    pub(super) fn bytes(&self) -> usize {
        let shards = self.shards.iter().map(ArcSwap::load);
        let each = shards.map(|shard| match size_of_val(&*shard.buckets) {
            0 => 0,
            buckets => heap_bytes(buckets) + heap_bytes(size_of::<Shard>() + 16),
        });
        SHARDS * size_of::<ArcSwap<Shard>>() + each.sum::<usize>()
    }
}

fn buckets_for(entries: usize) -> usize {
    (entries * 100).div_ceil(CELLS * BUILT_PERCENT)
}

impl Shard {
    /// A shard of these entries.
    fn of(entries: Vec<Entry>, buckets: usize) -> Shard {
        #[derive(Default)]
        struct Plan {
            entries: [Option<Entry>; CELLS],
            sent_on: u32,
        }
        let len = entries.len();
        let mut plans: Vec<Plan> = (0..buckets).map(|_| Plan::default()).collect();
        for entry in entries {
            let mut at = home(entry.0, buckets);
            let free = loop {
                let plan = &mut plans[at];
                match plan.entries.iter().position(Option::is_none) {
                    Some(free) => break &mut plan.entries[free],
                    None => plan.sent_on += 1,
                }
                at = if at + 1 == buckets { 0 } else { at + 1 };
            };
            *free = Some(entry);
        }
        let publish = |plan: Plan| {
            let mark = |entry: &Option<Entry>| entry.as_ref().map_or(0, |&(mark, _)| mark);
            Bucket {
                marks: std::array::from_fn(|at| AtomicU32::new(mark(&plan.entries[at]))),
                cells: plan
                    .entries
                    .map(|entry| ArcSwapOption::new(entry.map(|(_, app)| app))),
                sent_on: AtomicU32::new(plan.sent_on),
            }
        };
        Shard {
            buckets: plans.into_iter().map(publish).collect(),
            len: AtomicU32::new(u32::try_from(len).expect("a shard must be a part of memory")),
        }
    }

    /// The buckets in which an entry may be, nearest first.
    #[inline]
    fn way(&self, mark: u32) -> impl Iterator<Item = &Bucket> {
        let (before, after) = self.buckets.split_at(home(mark, self.buckets.len()));
        after.iter().chain(before)
    }

    fn has_room(&self) -> bool {
        let len = self.len.load(Ordering::Relaxed) as usize;
        100 * (len + 1) <= FULL_PERCENT * CELLS * self.buckets.len()
    }

    fn put(&self, mark: u32, app: Arc<App>) {
        for bucket in self.way(mark) {
            let mut marks = bucket.marks.iter();
            let free = marks.position(|mark| mark.load(Ordering::Relaxed) == 0);
            if let Some(free) = free {
                bucket.cells[free].store(Some(app));
                bucket.marks[free].store(mark, Ordering::Release);
                self.len.fetch_add(1, Ordering::Relaxed);
                return;
            }
            bucket.sent_on.fetch_add(1, Ordering::Release);
        }
        unreachable!("a shard with room must have an empty cell");
    }

    /// Where the entry of just this version is: bucket and cell.
    fn position(&self, mark: u32, app: &Arc<App>) -> Option<(usize, usize)> {
        let len = self.buckets.len();
        let mut at = home(mark, len);
        for _ in 0..len {
            let bucket = &self.buckets[at];
            for (cell, own) in bucket.marks.iter().enumerate() {
                if own.load(Ordering::Relaxed) == mark {
                    let current = bucket.cells[cell].load();
                    if current.as_ref().is_some_and(|held| Arc::ptr_eq(held, app)) {
                        return Some((at, cell));
                    }
                }
            }
            if bucket.sent_on.load(Ordering::Relaxed) == 0 {
                return None;
            }
            at = if at + 1 == len { 0 } else { at + 1 };
        }
        None
    }

    fn take(&self, mark: u32, app: &Arc<App>) -> bool {
        let Some((found, cell)) = self.position(mark, app) else {
            return false;
        };
        self.buckets[found].marks[cell].store(0, Ordering::Release);
        self.buckets[found].cells[cell].store(None);
        let mut at = home(mark, self.buckets.len());
        while at != found {
            self.buckets[at].sent_on.fetch_sub(1, Ordering::Release);
            at = if at + 1 == self.buckets.len() {
                0
            } else {
                at + 1
            };
        }
        self.len.fetch_sub(1, Ordering::Relaxed);
        true
    }

    fn entries(&self) -> Vec<Entry> {
        let mut entries = Vec::with_capacity(self.len.load(Ordering::Relaxed) as usize + 1);
        for bucket in &self.buckets {
            for (mark, cell) in bucket.marks.iter().zip(&bucket.cells) {
                let mark = mark.load(Ordering::Acquire);
                if mark != 0
                    && let Some(app) = cell.load_full()
                {
                    entries.push((mark, app));
                }
            }
        }
        entries
    }
}

/// The bucket in which an entry belongs.
#[inline]
fn home(mark: u32, buckets: usize) -> usize {
    ((u64::from(mark) * buckets as u64) >> 32) as usize
}

/// Entries gathered for a whole index, by any number of threads at once.
#[derive(Debug)]
pub(super) struct Draft {
    shards: Box<[Mutex<Vec<Entry>>]>,
    /// Entries to make room for in a shard when its first one comes.
    expected: usize,
}

impl Draft {
    /// A draft for about this many entries.
    pub(super) fn for_about(entries: usize) -> Self {
        let each = entries / SHARDS;
        Draft {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            expected: each + each / 8,
        }
    }

    /// Adds an entry.
    pub(super) fn push(&self, hash: u64, app: &Arc<App>) {
        let mut shard = self.lock(shard_of(hash));
        if shard.capacity() == 0 {
            shard.reserve(self.expected);
        }
        shard.push((mark_of(hash), Arc::clone(app)));
    }

    /// One shard's entries.
    pub(super) fn lock(&self, shard: usize) -> MutexGuard<'_, Vec<Entry>> {
        // A list has no invariant that a panic could break half-way.
        self.shards[shard]
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Numbers of all shards.
    pub(super) fn shards(&self) -> std::ops::Range<usize> {
        0..SHARDS
    }
}

#[cfg(test)]
#[path = "index_tests.rs"]
mod tests;
