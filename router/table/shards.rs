//! A map cut into shards, each published on its own.
//!
//! Owns hashing, the shards and the drafts a writer changes before it
//! publishes them. Readers load a shard and never wait; a writer copies the
//! shards it changes, a few hundred entries each at a million.

use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;

use ahash::RandomState;
use arc_swap::{ArcSwap, Guard};
use hashbrown::{HashMap, HashTable};

/// Shards of a map. Not a power of two: at a million entries each shard of a
/// power-of-two division would sit just above a doubling, half empty.
const SHARDS: usize = 5120;

/// A published, immutable shard.
type Shard<T> = Arc<HashTable<T>>;

/// The map.
#[derive(Debug)]
pub(super) struct Shards<T> {
    hash: RandomState,
    shards: Box<[ArcSwap<HashTable<T>>]>,
}

impl<T: Clone> Shards<T> {
    pub(super) fn new() -> Self {
        let empty: Shard<T> = Arc::default();
        Shards {
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

    /// Which shard a hash falls into: by bits that the shard's own table uses
    /// neither as tag (the top 7) nor as bucket (the lowest).
    #[inline]
    pub(super) fn at(hash: u64) -> usize {
        ((((hash >> 16) & 0xffff_ffff) * SHARDS as u64) >> 32) as usize
    }

    #[inline]
    pub(super) fn load(&self, hash: u64) -> Guard<Shard<T>> {
        self.shards[Self::at(hash)].load()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = Shard<T>> + '_ {
        self.shards.iter().map(ArcSwap::load_full)
    }

    /// Replaces every shard.
    pub(super) fn publish_all(&self, drafts: Vec<HashTable<T>>) {
        assert_eq!(drafts.len(), SHARDS, "a whole table must be replaced");
        for (shard, draft) in self.shards.iter().zip(drafts) {
            shard.store(Arc::new(draft));
        }
    }

    /// A table's worth of empty drafts.
    pub(super) fn empty_drafts() -> Vec<HashTable<T>> {
        (0..SHARDS).map(|_| HashTable::new()).collect()
    }

    /// Bytes of the maps themselves, not of what their entries point to.
    pub(super) fn bytes(&self) -> usize {
        let own = SHARDS * size_of::<ArcSwap<HashTable<T>>>();
        let shard = super::heap_bytes(size_of::<HashTable<T>>() + 16);
        own + self
            .iter()
            .filter(|table| !table.is_empty())
            .map(|table| shard + super::heap_bytes(table.allocation_size()))
            .sum::<usize>()
    }
}

/// The shards a change touches, copied on first touch.
pub(super) struct Drafts<'s, T> {
    shards: &'s Shards<T>,
    touched: HashMap<usize, HashTable<T>>,
}

impl<'s, T: Clone> Drafts<'s, T> {
    pub(super) fn of(shards: &'s Shards<T>) -> Self {
        Drafts {
            shards,
            touched: HashMap::new(),
        }
    }

    /// Reads the shard of a hash as changed so far.
    pub(super) fn read<R>(&self, hash: u64, read: impl FnOnce(&HashTable<T>) -> R) -> R {
        match self.touched.get(&Shards::<T>::at(hash)) {
            Some(table) => read(table),
            None => read(&self.shards.load(hash)),
        }
    }

    /// The shard of a hash, to change.
    pub(super) fn write(&mut self, hash: u64) -> &mut HashTable<T> {
        let shards = self.shards;
        self.touched
            .entry(Shards::<T>::at(hash))
            .or_insert_with(|| HashTable::clone(&shards.load(hash)))
    }

    /// The map these are drafts of.
    pub(super) fn shards(&self) -> &'s Shards<T> {
        self.shards
    }

    pub(super) fn publish(self) {
        for (at, table) in self.touched {
            self.shards.shards[at].store(Arc::new(table));
        }
    }
}
