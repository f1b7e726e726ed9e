//! What the table's memory goes to.

use std::sync::PoisonError;

use super::Table;

/// Estimated bytes of each part, allocator's rounding included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TableMemory {
    /// Host → app: the index.
    pub routes: usize,
    /// Name → app: the index.
    pub names: usize,
    /// Apps with their names and domains, without the parts below.
    pub apps: usize,
    /// Backends.
    pub backends: usize,
    /// Policies and release names, shared.
    pub shared: usize,
    /// Counters, queues and loads of apps with traffic.
    pub live: usize,
}

impl TableMemory {
    /// All parts together.
    pub fn total(&self) -> usize {
        self.routes + self.names + self.apps + self.backends + self.shared + self.live
    }
}

impl Table {
    /// Walks the whole table: some 100 ns an app. For tests, benches and an
    /// operator's question, not for every scrape.
    pub fn memory(&self) -> TableMemory {
        let mut memory = TableMemory {
            routes: self.hosts.bytes(),
            names: self.names.bytes(),
            ..TableMemory::default()
        };
        for app in self.names.iter() {
            memory.apps += app.own_bytes();
            memory.backends += app.backend_bytes();
            memory.live += app.live_bytes();
        }
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        memory.shared = writer.shared_bytes();
        memory
    }
}

/// What an allocation of `size` bytes takes: size classes of 8 bytes up to 64,
/// then eight to each doubling, about as mimalloc has them.
pub(super) fn heap_bytes(size: usize) -> usize {
    match size {
        0 => 0,
        1..=64 => size.next_multiple_of(8),
        _ => size.next_multiple_of((size.next_power_of_two() / 8).max(16)),
    }
}
