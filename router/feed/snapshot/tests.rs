//! Snapshot files: what is written comes back, in any amount; what is refused.

use super::*;
use crate::feed::messages::AppRecord;

fn head(revision: u64) -> Head {
    Head {
        cluster_id: "test".to_owned(),
        epoch: 1,
        revision,
    }
}

fn app(n: usize, text: &str) -> AppRecord {
    AppRecord {
        name: format!("app-{n}"),
        domains: vec![format!("{n}.{text}.example")],
        revision: n as u64,
        ..AppRecord::default()
    }
}

fn read_all(path: &Path) -> (Vec<AppRecord>, bool) {
    let snapshot = Snapshot::open(path).unwrap();
    let mut apps = Vec::new();
    let mut is_whole = true;
    for section in 0..snapshot.sections() {
        let read = snapshot.section(section);
        is_whole &= read.is_whole;
        apps.extend(read.apps);
    }
    apps.sort_by_key(|app| app.revision);
    (apps, is_whole)
}

#[test]
fn apps_come_back_over_many_blocks_and_the_file_before_stays() {
    let folder = tempfile::tempdir().unwrap();
    let long = "x".repeat(200);
    for (revision, count) in [(1, 0), (2, 40_000)] {
        let mut writer = SnapshotWriter::create(folder.path(), &head(revision)).unwrap();
        for n in 0..count {
            writer.push(&app(n, &long)).unwrap();
        }
        let bytes = writer.finish().unwrap();
        let path = folder.path().join(FILE);
        assert_eq!(bytes, path.metadata().unwrap().len());
        let snapshot = Snapshot::open(&path).unwrap();
        assert_eq!(snapshot.head, head(revision));
        assert_eq!(snapshot.apps, Some(count as u64));
        assert!(count == 0 || snapshot.blocks.len() > SECTIONS as usize);
        let expected: Vec<_> = (0..count).map(|n| app(n, &long)).collect();
        assert!(read_all(&path) == (expected, true));
    }
    let before = Snapshot::open(&folder.path().join(PREVIOUS_FILE)).unwrap();
    assert_eq!(before.head, head(1));
    let mut left: Vec<_> = std::fs::read_dir(folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    left.sort();
    assert_eq!(left, [FILE, PREVIOUS_FILE]);
}

#[test]
fn a_writer_dropped_half_way_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let mut writer = SnapshotWriter::create(folder.path(), &head(1)).unwrap();
    writer.push(&app(1, "a")).unwrap();
    drop(writer);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn a_file_for_later_programs_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(FILE);
    let mut bytes = encode_head(MAGIC, SECTIONS, &head(1));
    bytes[12..16].copy_from_slice(&9u32.to_be_bytes());
    let body = bytes.len() - 4;
    let crc = crc32c::crc32c(&bytes[..body]).to_be_bytes();
    bytes[body..].copy_from_slice(&crc);
    std::fs::write(&path, bytes).unwrap();
    let error = Snapshot::open(&path).unwrap_err();
    assert!(matches!(error, FileError::TooNew { needed: 9, .. }));
    assert!(error.to_string().contains("format 9"), "{error}");
}

#[test]
fn a_lost_index_still_leaves_the_blocks_that_verify() {
    let folder = tempfile::tempdir().unwrap();
    let mut writer = SnapshotWriter::create(folder.path(), &head(1)).unwrap();
    for n in 0..100 {
        writer.push(&app(n, "a")).unwrap();
    }
    let bytes = writer.finish().unwrap();
    let path = folder.path().join(FILE);
    let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.set_len(bytes - 1).unwrap();
    let (apps, is_whole) = read_all(&path);
    assert_eq!(apps.len(), 100);
    assert!(!is_whole);
}

#[test]
fn a_file_without_a_summary_is_read_as_well() {
    let folder = tempfile::tempdir().unwrap();
    let mut writer = SnapshotWriter::create(folder.path(), &head(1)).unwrap();
    for n in 0..100 {
        writer.push(&app(n, "a")).unwrap();
    }
    writer.finish().unwrap();
    let path = folder.path().join(FILE);
    let bytes = std::fs::read(&path).unwrap();
    let at = (bytes.windows(4)).position(|four| four == SUMMARY_MARK);
    let at = at.expect("it must have one");
    let without = [&bytes[..at], &bytes[at + SUMMARY_BYTES..]].concat();
    std::fs::write(&path, without).unwrap();
    let snapshot = Snapshot::open(&path).unwrap();
    assert_eq!((snapshot.summary, snapshot.apps), (None, Some(100)));
    assert!(!snapshot.is_summary_damaged);
    let (apps, is_whole) = read_all(&path);
    assert_eq!((apps.len(), is_whole), (100, true));
}
