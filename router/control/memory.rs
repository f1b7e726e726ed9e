//! What control's memory goes to, part by part.
//!
//! Owns the estimates. Never walks what is registered: sums are kept as it
//! changes, so that asking costs nothing.

use super::AdminState;
use super::changes::{Entry, Touch};
use crate::feed::messages::MemoryPart;

/// An event kept, about.
const EVENT_BYTES: usize = 300;
/// An issued token, about.
const TOKEN_BYTES: usize = 400;

/// Bytes that registered things take, kept up to date as they change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Weight {
    /// Apps: names and records.
    pub apps: usize,
    /// Hosts.
    pub hosts: usize,
}

/// What an allocation of `length` bytes takes: in steps of 8 bytes up to 64,
/// then eight steps to each doubling, about as mimalloc has them.
pub(super) fn allocated(length: usize) -> usize {
    match length {
        0 => 0,
        1..=64 => length.next_multiple_of(8),
        _ => length.next_multiple_of((length.next_power_of_two() / 8).max(16)),
    }
}

/// Entries of the change log, with so many names in all.
pub(super) fn log_bytes(entries: usize, names: usize) -> usize {
    // Each entry's names are an allocation with two counts before them; most
    // have a short subject.
    entries * (size_of::<Entry>() + 16) + names * (size_of::<Touch>() + 8)
}

/// Every part of control's that is worth a name.
pub(super) fn parts(state: &AdminState) -> Vec<MemoryPart> {
    let registry = &state.registry;
    let (apps, hosts, change_log) = registry.read().bytes();
    let part = |part: &str, bytes: usize| MemoryPart {
        part: part.to_owned(),
        bytes: bytes as u64,
    };
    vec![
        part("apps", apps),
        part("hosts", hosts),
        part("change_log", change_log),
        part("leases", registry.lock_leases().bytes()),
        part("tokens", state.tokens.len() * TOKEN_BYTES),
        part("events", state.events.len() * EVENT_BYTES),
        part("store_cache", registry.store_cache_bytes()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn allocations_are_rounded_up() {
        for (length, bytes) in [(0, 0), (1, 8), (64, 64), (65, 80), (200, 224), (1000, 1024)] {
            assert_eq!(allocated(length), bytes, "{length}");
        }
    }
}
