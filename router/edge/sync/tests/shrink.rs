//! The shrink guard: a whole table that lacks too much is not taken.

use super::*;
use crate::feed::messages::{Doubt, Removed};

fn apps(count: usize) -> Vec<AppRecord> {
    (0..count).map(|n| app(&format!("app-{n}"))).collect()
}

fn whole(count: usize, removed: u64, is_confirmed: bool) -> Body {
    Body::Snapshot(Snapshot {
        apps: apps(count),
        first: true,
        last: true,
        is_confirmed,
        removed: Some(Removed {
            apps: removed,
            backends: removed,
        }),
    })
}

/// A stage that took a table of 100 apps, of which 7 had been removed.
fn stage() -> (Stage, Control) {
    let stage = Stage::set(Some(9));
    let (mut control, ..) = stage.greet();
    control.say(EPOCH, 20, whole(100, 7, false));
    assert_eq!(control.hear_ack(), 20);
    (stage, control)
}

fn hear_doubt(control: &mut Control) -> Doubt {
    match control.hear().body {
        Some(Body::Doubt(doubt)) => doubt,
        other => panic!("{other:?}"),
    }
}

#[test]
fn half_a_table_is_not_taken_and_the_link_stays() {
    let (stage, mut control) = stage();
    control.say(EPOCH, 30, whole(50, 7, false));
    let doubt = hear_doubt(&mut control);
    let said = (doubt.revision, doubt.apps_held, doubt.apps_offered);
    assert_eq!(said, (30, 100, 50));
    assert_eq!((doubt.backends_held, doubt.backends_offered), (100, 50));
    // What follows leads on from what was not taken.
    control.say(EPOCH, 31, delta(30, 31, vec![app("unseen")]));
    let report = control.collect("");
    assert_eq!(counted(&report, "portico_tables_refused_total", ""), 1.0);
    assert_eq!(counted(&report, "portico_table_doubted", ""), 1.0);
    assert_eq!(counted(&report, "portico_table_revision", ""), 20.0);
    assert_eq!(counted(&report, "portico_feed_connects_total", ""), 1.0);
    assert!(stage.routes("app-99.example") && !stage.routes("unseen.example"));
    // The same again, confirmed.
    control.say(EPOCH, 31, whole(50, 7, true));
    assert_eq!(control.hear_ack(), 31);
    assert!(stage.routes("app-49.example") && !stage.routes("app-50.example"));
    let report = control.collect("");
    assert_eq!(counted(&report, "portico_table_doubted", ""), 0.0);
    control.say(EPOCH, 32, delta(31, 32, vec![app("seen")]));
    assert_eq!(control.hear_ack(), 32);
    assert!(stage.routes("seen.example"));
}

#[test]
fn what_was_removed_may_be_gone() {
    let (stage, mut control) = stage();
    control.say(EPOCH, 30, whole(50, 57, false));
    assert_eq!(control.hear_ack(), 30);
    assert!(!stage.routes("app-50.example"));
    // Counted from then on: the same removals explain nothing twice.
    control.say(EPOCH, 31, whole(20, 57, false));
    assert_eq!(hear_doubt(&mut control).apps_offered, 20);
}

#[test]
fn a_changes_removals_are_held_with_it() {
    let (stage, mut control) = stage();
    let Body::Delta(mut change) = delta(20, 21, vec![app("one-more")]) else {
        unreachable!("it was just made");
    };
    change.removed = Some(Removed {
        apps: 90,
        backends: 90,
    });
    control.say(EPOCH, 21, Body::Delta(change));
    assert_eq!(control.hear_ack(), 21);
    control.say(EPOCH, 30, whole(50, 90, false));
    assert_eq!(hear_doubt(&mut control).apps_held, 101);
    assert!(stage.routes("one-more.example"));
}

/// Read on all cores, it must count what it holds as one from control does.
#[test]
fn a_table_from_disk_is_judged_by_its_backends_too() {
    let folder = tempfile::tempdir().unwrap();
    let head = Head {
        cluster_id: CLUSTER.to_owned(),
        epoch: EPOCH,
        revision: 9,
    };
    let mut files = SnapshotWriter::create(&folder.path().join("table"), &head).unwrap();
    for record in apps(100) {
        files.push(&record).unwrap();
    }
    files.finish().unwrap();
    let stage = Stage::over(folder);
    let (mut control, ..) = stage.greet();
    assert_eq!((stage.table.len(), stage.table.backends()), (100, 100));
    let change = Delta {
        from: 9,
        to: 10,
        ops: vec![Op {
            change: Some(Change::Delete("app-99".to_owned())),
        }],
        removed: Some(Removed {
            apps: 1,
            backends: 1,
        }),
        ..Delta::default()
    };
    control.say(EPOCH, 10, Body::Delta(change));
    assert_eq!(control.hear_ack(), 10);
    assert_eq!((stage.table.len(), stage.table.backends()), (99, 99));
    control.say(EPOCH, 20, whole(99, 1, false));
    assert_eq!(control.hear_ack(), 20);
    let mut poorer = apps(99);
    for record in &mut poorer[..30] {
        record.backends.clear();
    }
    control.say(EPOCH, 30, snapshot(true, true, poorer));
    let doubt = hear_doubt(&mut control);
    assert_eq!((doubt.apps_held, doubt.apps_offered), (99, 99));
    assert_eq!((doubt.backends_held, doubt.backends_offered), (99, 69));
}

#[test]
fn a_doubt_outlives_the_connection() {
    let (stage, mut control) = stage();
    control.say(EPOCH + 1, 30, whole(50, 7, false));
    hear_doubt(&mut control);
    drop(control);
    let (mut control, envelope, hello) = stage.greet();
    assert_eq!((envelope.epoch, envelope.revision), (EPOCH, 20));
    assert!(hello.has_table);
    control.say(EPOCH, 40, whole(50, 7, false));
    hear_doubt(&mut control);
    // And what is whole is taken all the same.
    control.say(EPOCH, 41, whole(100, 7, false));
    assert_eq!(control.hear_ack(), 41);
}
