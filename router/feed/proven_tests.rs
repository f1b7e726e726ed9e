//! Which of the folder's snapshots is handed out as the one that ran well.

use std::fs;

use super::*;
use crate::feed::messages::{BackendRecord, Removed};
use crate::feed::snapshot::{Head, SnapshotWriter};

/// A snapshot of one app, named for its revision.
fn write(folder: &Path, cluster_id: &str, revision: u64) {
    let head = Head {
        cluster_id: cluster_id.to_owned(),
        epoch: 1,
        revision,
    };
    let mut writer = SnapshotWriter::create(folder, &head).unwrap();
    writer.removed(Removed {
        apps: revision,
        backends: 0,
    });
    writer
        .push(&AppRecord {
            name: format!("app-{revision}"),
            backends: vec![BackendRecord::default(); 2],
            ..AppRecord::default()
        })
        .unwrap();
    writer.finish().unwrap();
}

/// As control leaves it: proven, the one before, the newest.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for revision in [1, 2, 3] {
        write(folder.path(), "here", revision);
        if revision == 1 {
            let current = folder.path().join(snapshot::FILE);
            fs::hard_link(current, folder.path().join(FILE)).unwrap();
        }
    }
    folder
}

fn read(folder: &Path) -> (LastKnownGood, Vec<String>) {
    let mut names = Vec::new();
    let take = |apps: Vec<AppRecord>| names.extend(apps.into_iter().map(|app| app.name));
    let found = proven_table(folder, take).unwrap();
    (found, names)
}

/// Flips a byte of the file's apps.
fn damage(folder: &Path, file: &str) {
    let path = folder.join(file);
    let mut bytes = fs::read(&path).unwrap();
    let at = bytes.windows(4).position(|four| four == b"app-").unwrap();
    bytes[at] ^= 1;
    fs::remove_file(&path).unwrap();
    fs::write(&path, bytes).unwrap();
}

#[test]
fn the_proven_one_is_read_and_nothing_newer() {
    let folder = folder();
    let (found, names) = read(folder.path());
    assert_eq!(names, ["app-1"]);
    assert_eq!((found.revision, found.apps, found.backends), (1, 1, 2));
    assert_eq!(found.removed.apps, 1);
    assert!(found.is_exact && found.damage.is_empty(), "{found:?}");
}

#[test]
fn without_it_the_newest_snapshot_stands_in_and_then_the_one_before() {
    let folder = folder();
    fs::remove_file(folder.path().join(FILE)).unwrap();
    assert_eq!(read(folder.path()).1, ["app-3"]);
    damage(folder.path(), snapshot::FILE);
    let (found, names) = read(folder.path());
    assert_eq!(names, ["app-2"]);
    assert!(found.is_exact, "{found:?}");
    assert!(found.damage[0].contains("snapshot is damaged"), "{found:?}");
}

#[test]
fn a_damaged_one_is_better_than_none() {
    let folder = folder();
    for file in [FILE, snapshot::FILE, snapshot::PREVIOUS_FILE] {
        damage(folder.path(), file);
    }
    let (found, names) = read(folder.path());
    assert!(names.is_empty() && !found.is_exact, "{found:?}");
    assert!(found.damage[0].contains("proven is damaged"), "{found:?}");
}

#[test]
fn another_installations_is_passed_over() {
    let folder = folder();
    for revision in [8, 9] {
        write(folder.path(), "there", revision);
    }
    let (found, names) = read(folder.path());
    assert_eq!(names, ["app-9"]);
    assert!(found.damage[0].contains("another store"), "{found:?}");
}

#[test]
fn an_empty_folder_has_none_and_garbage_is_named() {
    let folder = tempfile::tempdir().unwrap();
    assert!(matches!(
        proven_table(folder.path(), |_| ()),
        Err(NoTable::None)
    ));
    for file in [FILE, snapshot::FILE] {
        fs::write(folder.path().join(file), b"garbage").unwrap();
    }
    let error = proven_table(folder.path(), |_| ()).unwrap_err();
    assert!(error.to_string().contains("snapshot is damaged"), "{error}");
}
