//! Any bytes as the files of the table's folder: nothing panics, nothing is
//! handed out twice, and what is told of them without reading them whole is
//! what reading them tells.
#![no_main]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::LazyLock;

use portico::feed::journal::{self, Journal, JournalReader};
use portico::feed::messages::{AppRecord, AppView, Change, Delta, Op};
use portico::feed::snapshot::{self, Head, SnapshotWriter};
use portico::feed::{LastKnownGood, known_head, last_known_good, proven_table};
use prost::Message;

/// Where the files are.
static FOLDER: LazyLock<tempfile::TempDir> =
    LazyLock::new(|| tempfile::tempdir().expect("the temporary folder must be writable"));

/// Good files: a snapshot of two apps, and a journal that removes one.
static GOOD: LazyLock<[Vec<u8>; 2]> = LazyLock::new(|| {
    let folder = FOLDER.path();
    let head = Head {
        cluster_id: "fuzz".to_owned(),
        epoch: 1,
        revision: 1,
    };
    let mut writer = SnapshotWriter::create(folder, &head).expect("writable");
    for name in ["one", "two"] {
        writer.push(&app(name)).expect("writable");
    }
    writer.finish().expect("writable");
    let mut journal = Journal::begin(folder, &head).expect("writable");
    let change = Some(Change::Delete("one".to_owned()));
    let delta = Delta {
        from: 1,
        to: 2,
        ops: vec![Op { change }],
        ..Delta::default()
    };
    journal.append(&delta).expect("writable");
    [snapshot::FILE, journal::FILE].map(|file| fs::read(folder.join(file)).expect("readable"))
});

fn app(name: &str) -> AppRecord {
    AppRecord {
        name: name.to_owned(),
        domains: vec![format!("{name}.example")],
        ..AppRecord::default()
    }
}

/// Both ways of decoding a record agree.
fn decodes_alike(bytes: &[u8]) {
    let whole = AppRecord::decode(bytes);
    let mut view = AppView::default();
    let read = view.read(bytes);
    assert_eq!(whole.is_ok(), read.is_ok(), "{whole:?} {read:?}");
    if let Ok(whole) = whole {
        assert_eq!(AppView::of(&whole), view);
    }
}

fn read(
    folder: &Path,
    reader: impl FnOnce(&Path, &mut (dyn FnMut(Vec<AppRecord>) + Send)) -> Option<LastKnownGood>,
) -> Option<LastKnownGood> {
    let mut names = BTreeSet::new();
    let mut backends = 0;
    let found = reader(folder, &mut |apps| {
        for app in apps {
            backends += app.backends.len() as u64;
            assert!(names.insert(app.name.clone()), "{} comes twice", app.name);
        }
    })?;
    assert_eq!((found.apps, found.backends), (names.len() as u64, backends));
    Some(found)
}

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let Some((&choice, input)) = input.split_first() else {
        return;
    };
    decodes_alike(input);
    let folder = FOLDER.path();
    let [mut snapshot, mut journal] = GOOD.clone();
    match choice % 4 {
        0 => snapshot = input.to_vec(),
        1 => journal = input.to_vec(),
        // A frame that verifies, whatever is in it.
        2 => {
            journal.extend((input.len() as u32).to_be_bytes());
            journal.extend(crc32c::crc32c(input).to_be_bytes());
            journal.extend(input);
        }
        // Good files with bytes changed: where, and by what.
        _ => {
            for change in input.chunks_exact(3) {
                let at = usize::from(u16::from_be_bytes([change[0], change[1]]));
                let length = snapshot.len();
                match at < length {
                    true => snapshot[at] ^= change[2],
                    false => {
                        let length = journal.len();
                        journal[at % length] ^= change[2];
                    }
                }
            }
        }
    }
    fs::write(folder.join(snapshot::FILE), &snapshot).expect("writable");
    fs::write(folder.join(journal::FILE), &journal).expect("writable");
    let whole = read(folder, |folder, take| last_known_good(folder, take).ok());
    let head = known_head(folder).ok();
    assert_eq!(
        whole.map(|it| (it.cluster_id, it.epoch, it.revision, it.removed)),
        head.map(|it| (it.cluster_id, it.epoch, it.revision, it.removed))
    );
    read(folder, |folder, take| proven_table(folder, take).ok());
    if let Ok(mut reader) = JournalReader::open(&folder.join(journal::FILE)) {
        let mut reached = reader.head.revision;
        while let Some(delta) = reader.next_delta() {
            assert!(delta.from == reached && delta.to >= reached);
            reached = delta.to;
        }
    }
});
