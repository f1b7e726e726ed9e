//! The journal: order, torn and flipped bytes, and handing on to the next one.

use super::*;
use crate::feed::messages::{Change, Op};

fn head(revision: u64) -> Head {
    Head {
        cluster_id: "test".to_owned(),
        epoch: 1,
        revision,
    }
}

fn delta(from: u64) -> Delta {
    Delta {
        from,
        to: from + 1,
        ops: vec![Op {
            change: Some(Change::Delete(format!("app-{from}"))),
        }],
        committed_at_ms: from,
        ..Delta::default()
    }
}

fn read_all(path: &Path) -> (Vec<Delta>, Option<&'static str>) {
    let mut reader = JournalReader::open(path).unwrap();
    let mut deltas = Vec::new();
    while let Some(delta) = reader.next_delta() {
        deltas.push(delta);
    }
    (deltas, reader.damage())
}

#[test]
fn deltas_come_back_in_order_and_only_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let mut journal = Journal::begin(folder.path(), &head(5)).unwrap();
    for from in 5..9 {
        journal.append(&delta(from)).unwrap();
    }
    assert!(matches!(
        journal.append(&delta(10)),
        Err(FileError::Refused { .. })
    ));
    journal.sync().unwrap();
    let path = folder.path().join(FILE);
    assert_eq!(journal.bytes(), path.metadata().unwrap().len());
    drop(journal);
    let mut journal = Journal::open(folder.path()).unwrap();
    assert_eq!((journal.revision(), journal.head().revision), (9, 5));
    journal.append(&delta(9)).unwrap();
    let (deltas, damage) = read_all(&path);
    assert_eq!(deltas, (5..10).map(delta).collect::<Vec<_>>());
    assert_eq!(damage, None);
}

#[test]
fn whatever_is_cut_or_flipped_leaves_a_true_beginning() {
    let folder = tempfile::tempdir().unwrap();
    let mut journal = Journal::begin(folder.path(), &head(0)).unwrap();
    for from in 0..5 {
        journal.append(&delta(from)).unwrap();
    }
    let path = folder.path().join(FILE);
    let good = fs::read(&path).unwrap();
    let truth: Vec<_> = (0..5).map(delta).collect();
    let check = |bytes: &[u8]| {
        fs::write(&path, bytes).unwrap();
        let Ok(_) = JournalReader::open(&path) else {
            assert!(Journal::open(folder.path()).is_err());
            return;
        };
        let (deltas, damage) = read_all(&path);
        assert_eq!(deltas, truth[..deltas.len()]);
        assert!(deltas.len() == 5 || damage.is_some() || bytes.len() < good.len());
        // The writer goes on right after the last good one.
        let mut journal = Journal::open(folder.path()).unwrap();
        assert_eq!(journal.revision(), deltas.len() as u64);
        let next = delta(journal.revision());
        journal.append(&next).unwrap();
        let (after, damage) = read_all(&path);
        assert_eq!((after.last(), damage), (Some(&next), None));
    };
    for end in 0..good.len() {
        check(&good[..end]);
    }
    for at in 0..good.len() {
        let mut bytes = good.clone();
        bytes[at] ^= 1 << (at % 8);
        check(&bytes);
    }
}

#[test]
fn a_new_journal_takes_along_what_its_snapshot_lacks() {
    let folder = tempfile::tempdir().unwrap();
    let mut journal = Journal::begin(folder.path(), &head(0)).unwrap();
    for from in 0..6 {
        journal.append(&delta(from)).unwrap();
    }
    let mut journal = Journal::begin(folder.path(), &head(4)).unwrap();
    assert_eq!(journal.revision(), 6);
    journal.append(&delta(6)).unwrap();
    let (deltas, _) = read_all(&folder.path().join(FILE));
    assert_eq!(deltas, (4..7).map(delta).collect::<Vec<_>>());
    let (deltas, _) = read_all(&folder.path().join(PREVIOUS_FILE));
    assert_eq!(deltas.len(), 6);
    // Another store's deltas are not taken along.
    let other = Head {
        epoch: 2,
        ..head(4)
    };
    let journal = Journal::begin(folder.path(), &other).unwrap();
    assert_eq!(journal.revision(), 4);
}
