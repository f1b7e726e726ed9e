//! The index against a plain list.

use proptest::prelude::*;

use super::*;
use crate::feed::messages::{AppRecord, Change, Delta, Op};
use crate::table::Table;

/// Apps to put into indexes; who they are does not matter.
fn apps(number: usize) -> Vec<Arc<App>> {
    let table = Table::new(1);
    let put = |n: usize| Op {
        change: Some(Change::Put(AppRecord {
            name: format!("a{n}"),
            ..AppRecord::default()
        })),
    };
    table.apply(&Delta {
        ops: (0..number).map(put).collect(),
        ..Delta::default()
    });
    let app = |n: usize| table.app(&format!("a{n}"));
    (0..number).map(|n| app(n).unwrap()).collect()
}

/// What is under a hash: the names, in order.
fn under(index: &Index, hash: u64) -> Vec<String> {
    let mut names = Vec::new();
    index.visit(hash, |found| {
        names.extend(found.iter().map(|app| app.name.to_string()));
        false
    });
    names.sort_unstable();
    names
}

/// Hashes of few shards and many collisions.
fn hash() -> impl Strategy<Value = u64> {
    (0u64..3, 0u64..9, 1u64..12).prop_map(|(shard, home, low)| shard << 60 | home << 28 | low)
}

proptest! {
    #[test]
    fn finds_what_a_list_has(
        changes in proptest::collection::vec((hash(), 0usize..8, 0usize..8, 0u8..4), 1..400),
    ) {
        let apps = apps(8);
        let index = Index::new();
        let mut list: Vec<(u64, usize)> = Vec::new();
        for (hash, app, next, what) in changes {
            // An app is under a hash once.
            let known = list.iter().position(|&entry| entry == (hash, app));
            match (what, known) {
                (0..=1, None) => {
                    index.insert(hash, &apps[app]);
                    list.push((hash, app));
                }
                (0..=1, Some(_)) => {}
                (2, Some(at)) if !list.contains(&(hash, next)) => {
                    index.replace(hash, &apps[app], &apps[next]);
                    list[at].1 = next;
                }
                (2, _) => index.replace(hash, &apps[app], &apps[app]),
                _ => {
                    index.remove(hash, &apps[app]);
                    list.retain(|&entry| entry != (hash, app));
                }
            }
            let same = |other: u64| shard_of(other) == shard_of(hash) && mark_of(other) == mark_of(hash);
            let mut expected: Vec<String> = list
                .iter()
                .filter(|entry| same(entry.0))
                .map(|entry| apps[entry.1].name.to_string())
                .collect();
            expected.sort_unstable();
            prop_assert_eq!(under(&index, hash), expected);
        }
        for &(hash, app) in &list {
            prop_assert!(under(&index, hash).contains(&apps[app].name.to_string()));
        }
        prop_assert_eq!(index.iter().count(), list.len());
    }

    #[test]
    fn a_published_shard_is_the_same_as_one_grown(hashes in proptest::collection::vec(hash(), 0..200)) {
        let apps = apps(1);
        let draft = Draft::for_about(hashes.len());
        for &hash in &hashes {
            draft.push(hash, &apps[0]);
        }
        let index = Index::new();
        for shard in draft.shards() {
            index.publish(shard, std::mem::take(&mut *draft.lock(shard)));
        }
        prop_assert_eq!(index.iter().count(), hashes.len());
        for &hash in &hashes {
            let same = |other: &&u64| shard_of(**other) == shard_of(hash) && mark_of(**other) == mark_of(hash);
            prop_assert_eq!(under(&index, hash).len(), hashes.iter().filter(same).count());
        }
    }
}

#[test]
fn a_shard_gives_back_what_it_grew() {
    let apps = apps(1);
    let index = Index::new();
    // One shard; every entry has a mark and a home of its own.
    let hashes: Vec<u64> = (1..20_000u64)
        .map(|n| (n * 200_003) & 0xffff_ffff)
        .collect();
    let empty = index.bytes();
    for &hash in &hashes {
        index.insert(hash, &apps[0]);
    }
    let full = index.bytes() - empty;
    assert!(full / hashes.len() < 25, "{full}");
    for &hash in &hashes {
        index.remove(hash, &apps[0]);
    }
    assert!(index.bytes() - empty < 4_096, "{}", index.bytes() - empty);
    assert_eq!(Arc::strong_count(&apps[0]), 1);
}
