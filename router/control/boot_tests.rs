//! Start-up: which store is believed, rebuilt, refused or doubted.

use std::fs;
use std::io::{Read, Seek, SeekFrom, Write};

use super::*;
use crate::feed::messages::{AppRecord, BackendRecord};

fn table(revision: u64) -> KnownGood {
    let backends = vec![BackendRecord {
        id: "web.1".into(),
        address: "127.0.0.1:1".into(),
        ..Default::default()
    }];
    let app = AppRecord {
        name: "shop".into(),
        backends,
        revision,
        ..Default::default()
    };
    KnownGood {
        cluster_id: "c".into(),
        epoch: 3,
        revision,
        apps: vec![("shop".into(), app.encode_to_vec().into())],
        totals: Some(Totals {
            apps: 1,
            backends: 1,
        }),
        ..KnownGood::default()
    }
}

fn kinds(events: &Events) -> Vec<String> {
    events
        .latest(10)
        .into_iter()
        .map(|event| event.kind)
        .collect()
}

#[test]
fn a_first_start_founds_a_store_that_keeps_its_identity() {
    let dir = tempfile::tempdir().unwrap();
    let events = Events::default();
    let (store, first) = open(dir.path(), &events, |_| None).unwrap();
    drop(store);
    let (_store, second) = open(dir.path(), &events, |_| None).unwrap();
    assert_eq!(first.cluster_id, second.cluster_id);
    assert_eq!(
        (second.epoch, second.revision, second.apps.len()),
        (1, 0, 0)
    );
    assert!(kinds(&events).is_empty());
}

#[test]
fn an_empty_store_is_not_believed_over_a_snapshot() {
    let dir = tempfile::tempdir().unwrap();
    let events = Events::default();
    let (store, contents) = open(dir.path(), &events, |_| Some(table(9))).unwrap();
    assert_eq!(
        (
            contents.cluster_id.as_str(),
            contents.epoch,
            contents.revision
        ),
        ("c", 4, 10)
    );
    assert_eq!(kinds(&events), ["store_rebuilt"]);
    drop(store);
    let (_store, again) = open(dir.path(), &events, |_| Some(table(9))).unwrap();
    assert_eq!(again.apps, contents.apps);
    assert_eq!(kinds(&events), ["store_rebuilt"]);
}

#[test]
fn an_older_copy_of_the_store_begins_a_new_epoch() {
    let dir = tempfile::tempdir().unwrap();
    let events = Events::default();
    drop(open(dir.path(), &events, |_| Some(table(9))).unwrap());
    let ahead = KnownGood {
        epoch: 4,
        ..table(50)
    };
    let (store, contents) = open(dir.path(), &events, |_| Some(ahead.clone())).unwrap();
    assert_eq!((contents.epoch, contents.revision), (5, 51));
    drop(store);
    let (_store, contents) = open(dir.path(), &events, |_| Some(ahead.clone())).unwrap();
    assert_eq!((contents.epoch, contents.revision), (5, 51));
}

/// Does something to a store's file.
type Damage = fn(&mut fs::File);

#[test]
fn a_damaged_store_is_kept_and_rebuilt_or_refused() {
    let damages: [(&str, Damage); 5] = [
        ("nonsense", |file| {
            file.set_len(0).unwrap();
            file.write_all(b"this is no store, it is a letter to my aunt")
                .unwrap();
        }),
        ("cut short", |file| {
            let length = file.metadata().unwrap().len();
            file.set_len(length / 2).unwrap();
        }),
        ("a head of zeros", |file| file.write_all(&[0; 512]).unwrap()),
        ("flipped bytes", |file| flip(file, 97)),
        ("one page of noise", |file| {
            file.seek(SeekFrom::Start(4096)).unwrap();
            file.write_all(&[0xa5; 4096]).unwrap();
        }),
    ];
    for (name, damage) in damages {
        let dir = tempfile::tempdir().unwrap();
        let events = Events::default();
        drop(open(dir.path(), &events, |_| Some(table(9))).unwrap());
        let path = store_path(dir.path());
        let file = || {
            fs::OpenOptions::new()
                .read(true)
                .write(true)
                .open(&path)
                .unwrap()
        };
        damage(&mut file());
        let bytes = fs::read(&path).unwrap();

        let refused = open(dir.path(), &events, |_| None)
            .expect_err(name)
            .to_string();
        assert!(
            refused.contains("store.redb") && refused.contains("backup"),
            "{name}: {refused}"
        );
        assert_eq!(
            fs::read(&path).unwrap().len(),
            bytes.len(),
            "{name}: it was written to"
        );

        let (_store, contents) = open(dir.path(), &events, |_| Some(table(9))).expect(name);
        assert_eq!(contents.apps.len(), 1, "{name}");
        let kept = fs::read_dir(dir.path()).unwrap().filter(|entry| {
            entry
                .as_ref()
                .unwrap()
                .file_name()
                .to_string_lossy()
                .contains("damaged")
        });
        assert_eq!(kept.count(), 1, "{name}");
    }
}

/// Flips a byte of every `step`.
fn flip(file: &mut fs::File, step: usize) {
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).unwrap();
    bytes
        .iter_mut()
        .step_by(step)
        .for_each(|byte| *byte ^= 0x5a);
    file.seek(SeekFrom::Start(0)).unwrap();
    file.write_all(&bytes).unwrap();
}

#[test]
fn a_store_in_use_and_a_folder_in_its_place_are_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let events = Events::default();
    let held = open(dir.path(), &events, |_| None).unwrap();
    let locked = open(dir.path(), &events, |_| Some(table(9)))
        .unwrap_err()
        .to_string();
    assert!(
        locked.contains("store.redb") && locked.contains("another process"),
        "{locked}"
    );
    drop(held);
    fs::remove_file(store_path(dir.path())).unwrap();
    fs::create_dir(store_path(dir.path())).unwrap();
    let folder = open(dir.path(), &events, |_| Some(table(9)))
        .unwrap_err()
        .to_string();
    assert!(
        folder.contains("store.redb") && folder.contains("folder"),
        "{folder}"
    );
}

/// A table of so many apps, with one backend each, by its head alone.
fn large(apps: u64, revision: u64) -> KnownGood {
    let totals = Totals {
        apps,
        backends: apps,
    };
    KnownGood {
        totals: Some(totals),
        ..table(revision)
    }
}

/// A store of one app that was founded as of revision 10, epoch 4.
fn founded() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    drop(open(dir.path(), &Events::default(), |_| Some(table(9))).unwrap());
    dir
}

#[test]
fn a_store_that_lacks_most_of_the_table_is_doubted_and_parts_ways_with_it() {
    let (dir, events) = (founded(), Events::default());
    let held = KnownGood {
        epoch: 4,
        ..large(100, 10)
    };
    let (store, contents) = open(dir.path(), &events, |_| Some(held.clone())).unwrap();
    let doubt = contents.doubt.expect("99 of 100 apps are missing");
    assert_eq!(
        (doubt.unexplained.apps, doubt.unexplained.backends),
        (99, 99)
    );
    // Whoever holds the table cannot go on with this store's changes.
    assert_eq!((contents.epoch, contents.revision), (5, 11));
    assert_eq!(kinds(&events), ["shrink_refused"]);
    let text = events.latest(1)[0].text.clone();
    assert!(text.contains("portico confirm-shrink"), "{text}");
    drop(store);
    // The same at every start, without a further epoch each time.
    let (store, contents) = open(dir.path(), &events, |_| Some(held.clone())).unwrap();
    assert_eq!((contents.doubt, contents.epoch), (Some(doubt), 5));
    drop(store);
    // What was removed explains it.
    let removed = KnownGood {
        removed: Removed::default(),
        ..held
    };
    let (mut store, contents) = open(dir.path(), &events, |_| None).unwrap();
    let contents = Contents {
        removed: Removed {
            apps: 99,
            backends: 99,
        },
        ..contents
    };
    store.found(&contents).unwrap();
    drop(store);
    let (_store, contents) = open(dir.path(), &events, |_| Some(removed.clone())).unwrap();
    assert_eq!(contents.doubt, None);
}

/// A backup counts fewer removals than the edges have seen, and an operator's
/// confirmation must explain what vanished to those who are not there to hear it.
#[test]
fn a_restored_store_counts_removals_from_where_the_table_does() {
    let (dir, events) = (founded(), Events::default());
    let held = KnownGood {
        epoch: 4,
        removed: Removed {
            apps: 5_000,
            backends: 7_000,
        },
        ..large(100, 50)
    };
    let (_store, contents) = open(dir.path(), &events, |_| Some(held.clone())).unwrap();
    let doubt = contents.doubt.expect("99 of 100 apps are missing");
    assert_eq!(contents.removed, held.removed);
    let confirmed = Tally {
        apps: contents.removed.apps + doubt.unexplained.apps,
        backends: contents.removed.backends + doubt.unexplained.backends,
    };
    let rose = confirmed.less(held.removed.into());
    assert_eq!(shrink::implausible(doubt.held, doubt.offered, rose), None);
    // One of another installation says nothing of this one's.
    let (dir, theirs) = (founded(), "elsewhere".to_owned());
    let theirs = KnownGood {
        cluster_id: theirs,
        ..held
    };
    let (_store, contents) = open(dir.path(), &events, |_| Some(theirs.clone())).unwrap();
    assert_eq!(contents.removed, Removed::default());
}

#[test]
fn a_table_that_does_not_say_how_much_it_holds_is_counted() {
    let (dir, events) = (founded(), Events::default());
    let (_store, contents) = open(dir.path(), &events, |extent| {
        let held = KnownGood {
            epoch: 4,
            ..large(100, 10)
        };
        Some(KnownGood {
            totals: held.totals.filter(|_| extent == Extent::Whole),
            ..held
        })
    })
    .unwrap();
    assert!(contents.doubt.is_some());
}

#[test]
fn a_store_of_another_installation_is_doubted_however_large() {
    let (dir, events) = (founded(), Events::default());
    let theirs = KnownGood {
        cluster_id: "elsewhere".into(),
        ..table(3)
    };
    let (_store, contents) = open(dir.path(), &events, |_| Some(theirs.clone())).unwrap();
    assert_eq!(contents.doubt.expect("all of it").unexplained.apps, 1);
    assert_eq!(contents.epoch, 4, "they share no history");
    assert_eq!(kinds(&events), ["table_foreign", "shrink_refused"]);
}

#[test]
fn a_store_rebuilt_from_half_a_table_is_doubted() {
    let (dir, events) = (tempfile::tempdir().unwrap(), Events::default());
    let (_store, contents) = open(dir.path(), &events, |_| Some(large(100, 9))).unwrap();
    assert_eq!(contents.apps.len(), 1, "what could be read of it");
    assert!(contents.doubt.is_some());
    assert_eq!(kinds(&events), ["store_rebuilt", "shrink_refused"]);
}

#[test]
fn a_byte_flipped_anywhere_in_the_store_costs_nothing_that_the_table_has() {
    let dir = founded();
    let path = store_path(dir.path());
    let good = fs::read(&path).unwrap();
    let expected = Store::open(&path).unwrap().1.apps;
    // Every page's head, and places within.
    for at in (0..good.len()).step_by(4096 + 61).chain(0..64) {
        let mut bytes = good.clone();
        bytes[at] ^= 1 << (at % 8);
        fs::write(&path, bytes).unwrap();
        let (store, contents) = open(dir.path(), &Events::default(), |_| Some(table(9)))
            .unwrap_or_else(|error| panic!("byte {at}: {error}"));
        assert_eq!(contents.apps, expected, "byte {at}");
        drop(store);
        fs::remove_file(&path).unwrap();
        for aside in fs::read_dir(dir.path()).unwrap() {
            fs::remove_file(aside.unwrap().path()).unwrap();
        }
    }
}
