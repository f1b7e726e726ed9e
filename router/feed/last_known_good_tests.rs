//! Every file of the folder is flipped, cut and removed: what is handed out is
//! always true, and what is called exact is exact.

use std::collections::BTreeMap;
use std::fs;

use proptest::prelude::*;

use super::*;
use crate::feed::journal::Journal;
use crate::feed::messages::Op;
use crate::feed::snapshot::SnapshotWriter;

type Table = BTreeMap<String, AppRecord>;

/// A folder with two snapshots and two journals, and what was true when.
struct History {
    folder: tempfile::TempDir,
    at: BTreeMap<u64, Table>,
}

const FILES: [&str; 4] = [
    snapshot::FILE,
    snapshot::PREVIOUS_FILE,
    journal::FILE,
    journal::PREVIOUS_FILE,
];

fn head(revision: u64) -> Head {
    Head {
        cluster_id: "test".to_owned(),
        epoch: 3,
        revision,
    }
}

fn write_snapshot(folder: &Path, revision: u64, table: &Table) -> Journal {
    let mut writer = SnapshotWriter::create(folder, &head(revision)).unwrap();
    for app in table.values() {
        writer.push(app).unwrap();
    }
    writer.finish().unwrap();
    Journal::begin(folder, &head(revision)).unwrap()
}

impl History {
    fn new() -> History {
        let folder = tempfile::tempdir().unwrap();
        let mut table = Table::new();
        let mut at = BTreeMap::new();
        let mut journal = write_snapshot(folder.path(), 0, &table);
        for to in 1..=24u64 {
            let name = format!("app-{}", to * 7 % 10);
            let change = if to % 5 == 0 {
                table.remove(&name);
                Change::Delete(name)
            } else {
                let record = AppRecord {
                    name: name.clone(),
                    domains: vec![format!("{name}.example")],
                    revision: to,
                    ..AppRecord::default()
                };
                table.insert(name, record.clone());
                Change::Put(record)
            };
            let delta = Delta {
                from: to - 1,
                to,
                ops: vec![Op {
                    change: Some(change),
                }],
                committed_at_ms: 0,
                ..Delta::default()
            };
            journal.append(&delta).unwrap();
            at.insert(to, table.clone());
            if to == 10 || to == 20 {
                journal = write_snapshot(folder.path(), to, &table);
            }
        }
        History { folder, at }
    }

    fn load(&self) -> Result<(LastKnownGood, Table), NoTable> {
        let mut table = Table::new();
        let mut handed = 0;
        let found = last_known_good(self.folder.path(), |apps| {
            for app in apps {
                handed += 1;
                let before = table.insert(app.name.clone(), app);
                assert!(before.is_none(), "a name must not come twice");
            }
        })?;
        assert_eq!(found.apps, handed);
        for app in table.values() {
            let is_true = self
                .at
                .values()
                .any(|then| then.get(&app.name) == Some(app));
            assert!(is_true, "never written: {app:?}");
        }
        if found.is_exact {
            assert_eq!(table, self.at[&found.revision], "{found:?}");
        }
        Ok((found, table))
    }

    /// What is found with `bytes` in place of one file.
    fn load_with(&self, file: &str, bytes: Option<&[u8]>) -> Option<LastKnownGood> {
        let path = self.folder.path().join(file);
        let good = fs::read(&path).unwrap();
        match bytes {
            Some(bytes) => fs::write(&path, bytes).unwrap(),
            None => fs::remove_file(&path).unwrap(),
        }
        let found = self.load();
        fs::write(&path, good).unwrap();
        Some(found.ok()?.0)
    }
}

#[test]
fn an_undamaged_folder_is_read_to_its_newest_revision() {
    let history = History::new();
    let (found, table) = history.load().unwrap();
    assert_eq!((found.revision, found.epoch), (24, 3));
    assert_eq!(found.cluster_id, "test");
    assert!(found.is_exact && found.damage.is_empty(), "{found:?}");
    assert_eq!(table, history.at[&24]);
}

#[test]
fn any_one_flipped_byte_is_mended_or_told() {
    let history = History::new();
    for file in FILES {
        let good = fs::read(history.folder.path().join(file)).unwrap();
        for at in 0..good.len() {
            let mut bytes = good.clone();
            bytes[at] ^= 1 << (at % 8);
            let found = history
                .load_with(file, Some(&bytes))
                .expect("one of two snapshots must be left");
            assert!(found.is_exact, "byte {at} of {file}: {found:?}");
            if file == snapshot::FILE {
                assert!(!found.damage.is_empty(), "byte {at} of {file}");
                assert_eq!(found.revision, 24);
            }
        }
    }
}

#[test]
fn any_one_file_cut_or_gone_is_mended_or_told() {
    let history = History::new();
    for file in FILES {
        let good = fs::read(history.folder.path().join(file)).unwrap();
        for end in (0..good.len()).step_by(3) {
            let found = history
                .load_with(file, Some(&good[..end]))
                .expect("one of two snapshots must be left");
            assert!(found.is_exact, "{file} cut at {end}: {found:?}");
        }
        let found = history.load_with(file, None).expect("one must be left");
        let reached = if file == journal::FILE {
            20..=24
        } else {
            24..=24
        };
        assert!(reached.contains(&found.revision), "{file} gone: {found:?}");
    }
}

#[test]
fn damage_without_an_older_file_is_not_called_exact() {
    let history = History::new();
    let folder = history.folder.path();
    fs::remove_file(folder.join(snapshot::PREVIOUS_FILE)).unwrap();
    fs::remove_file(folder.join(journal::PREVIOUS_FILE)).unwrap();
    let mut bytes = fs::read(folder.join(snapshot::FILE)).unwrap();
    let at = bytes.len() / 2;
    bytes[at] ^= 0x40;
    let found = history
        .load_with(snapshot::FILE, Some(&bytes))
        .expect("the header is whole");
    assert!(!found.is_exact && !found.damage.is_empty(), "{found:?}");
}

#[test]
fn an_empty_folder_has_no_table_and_garbage_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let load = || last_known_good(folder.path(), |_| ());
    assert!(matches!(load(), Err(NoTable::None)));
    fs::write(folder.path().join(snapshot::FILE), b"garbage").unwrap();
    let error = load().unwrap_err();
    assert!(error.to_string().contains("snapshot is damaged"), "{error}");
}

/// What can happen to a file.
#[derive(Clone, Debug)]
enum Harm {
    Flip(usize, u8),
    Cut(usize),
    Empty,
    Gone,
    /// Another of the files is in its place.
    Swap(usize),
}

fn harm() -> impl Strategy<Value = Harm> {
    prop_oneof![
        8 => (any::<usize>(), 1..=255u8).prop_map(|(at, by)| Harm::Flip(at, by)),
        2 => any::<usize>().prop_map(Harm::Cut),
        1 => Just(Harm::Empty),
        1 => Just(Harm::Gone),
        2 => (0..FILES.len()).prop_map(Harm::Swap),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Whatever happens to any of the files together: nothing that was never
    /// true is handed out, nothing twice, and exact is exact ([`History::load`]).
    #[test]
    fn any_harm_to_any_files_is_met(harms in proptest::collection::vec((0..FILES.len(), harm()), 1..8)) {
        let history = History::new();
        let path = |index: usize| history.folder.path().join(FILES[index]);
        let good: Vec<Vec<u8>> = (0..FILES.len()).map(|at| fs::read(path(at)).unwrap()).collect();
        for (file, harm) in harms {
            let mut bytes = fs::read(path(file)).unwrap_or_default();
            match harm {
                Harm::Flip(at, by) if !bytes.is_empty() => {
                    let at = at % bytes.len();
                    bytes[at] ^= by;
                }
                Harm::Cut(at) if !bytes.is_empty() => bytes.truncate(at % bytes.len()),
                Harm::Swap(other) => bytes.clone_from(&good[other]),
                _ => bytes.clear(),
            }
            match harm {
                Harm::Gone => drop(fs::remove_file(path(file))),
                _ => fs::write(path(file), bytes).unwrap(),
            }
        }
        if let Ok((found, _)) = history.load() {
            let head = known_head(history.folder.path()).unwrap();
            prop_assert_eq!(head.revision, found.revision);
        }
    }
}

#[test]
fn how_much_is_held_and_was_removed_is_told_with_and_without_reading_it_all() {
    let folder = tempfile::tempdir().unwrap();
    let removed = |apps| Removed {
        apps,
        backends: 2 * apps,
    };
    let mut writer = SnapshotWriter::create(folder.path(), &head(5)).unwrap();
    writer.removed(removed(3));
    for name in ["one", "two"] {
        let record = AppRecord {
            name: name.to_owned(),
            backends: vec![Default::default(); 3],
            ..AppRecord::default()
        };
        writer.push(&record).unwrap();
    }
    writer.finish().unwrap();
    let told = || {
        let whole = last_known_good(folder.path(), |_| ()).unwrap();
        let head = known_head(folder.path()).unwrap();
        assert_eq!(whole.removed, head.removed);
        (whole.apps, whole.backends, head.totals, head.removed)
    };
    let totals = |apps, backends| Some(Totals { apps, backends });
    assert_eq!(told(), (2, 6, totals(2, 6), removed(3)));
    let mut journal = Journal::begin(folder.path(), &head(5)).unwrap();
    let delta = Delta {
        from: 5,
        to: 6,
        ops: vec![Op {
            change: Some(Change::Delete("one".to_owned())),
        }],
        removed: Some(removed(4)),
        totals: totals(1, 3),
        ..Delta::default()
    };
    journal.append(&delta).unwrap();
    assert_eq!(told(), (1, 3, totals(1, 3), removed(4)));
}
