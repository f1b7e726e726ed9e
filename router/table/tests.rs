//! Each promise of the table's pages.

mod model;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::*;
use crate::feed::messages::{
    AppRecord, AppView, BackendRecord, Change, Delta, Nack, Op, PolicyRecord, ProbeRecord, Standing,
};

fn backend(id: &str, port: u16) -> BackendRecord {
    BackendRecord {
        id: id.to_owned(),
        address: format!("10.0.0.1:{port}"),
        weight: 100,
        release: "v1".to_owned(),
        standing: Standing::Active as i32,
        incarnation: 1,
        ..BackendRecord::default()
    }
}

fn app(name: &str, domains: &[&str]) -> AppRecord {
    AppRecord {
        name: name.to_owned(),
        domains: domains.iter().map(|&domain| domain.to_owned()).collect(),
        policy: None,
        backends: vec![backend("web.1", 9001), backend("web.2", 9002)],
        revision: 1,
    }
}

fn delta(to: u64, changes: Vec<Change>) -> Delta {
    let ops = changes.into_iter();
    Delta {
        from: to - 1,
        to,
        ops: ops
            .map(|change| Op {
                change: Some(change),
            })
            .collect(),
        committed_at_ms: 0,
        ..Delta::default()
    }
}

pub(super) fn put(table: &Table, records: Vec<AppRecord>) -> Vec<Nack> {
    let to = table.revision() + 1;
    table.apply(&delta(to, records.into_iter().map(Change::Put).collect()))
}

fn route(table: &Table, host: &str, path: &str) -> Option<String> {
    let app = table.route(host.as_bytes(), path.as_bytes())?;
    Some(app.name.to_string())
}

fn is(table: &Table, host: &str, path: &str, app: &str) {
    assert_eq!(
        route(table, host, path).as_deref(),
        Some(app),
        "{host}{path}"
    );
}

#[test]
fn exact_beats_wildcard_and_longest_wins() {
    let table = Table::new(1);
    let nacks = put(
        &table,
        vec![
            app("exact", &["a.example"]),
            app("wild", &["*.a.example"]),
            app("deep", &["*.b.a.example"]),
            app("api", &["a.example/api", "*.a.example/api"]),
            app("admin", &["a.example/api/admin"]),
            app("only-prefixed", &["x.a.example/y"]),
        ],
    );
    assert_eq!(nacks, []);
    is(&table, "a.example", "/", "exact");
    is(&table, "a.example.", "/", "exact");
    is(&table, "a.example", "/api", "api");
    is(&table, "a.example", "/api/adm", "api");
    is(&table, "a.example", "/api/admin?x=1", "admin");
    is(&table, "a.example", "/apis", "exact");
    is(&table, "c.a.example", "/", "wild");
    is(&table, "d.c.a.example", "/", "wild");
    is(&table, "d.c.a.example", "/api/z", "api");
    is(&table, "b.a.example", "/", "wild");
    is(&table, "c.b.a.example", "/", "deep");
    is(&table, "c.b.a.example", "/api", "deep");
    is(&table, "x.a.example", "/y/z", "only-prefixed");
    is(&table, "x.a.example", "/z", "wild");
    assert_eq!(route(&table, "example", "/"), None);
    assert_eq!(route(&table, "", "/"), None);
    assert_eq!(route(&table, ".a.example.", "/").as_deref(), Some("wild"));
    assert_eq!(table.len(), 6);
}

#[test]
fn a_record_that_does_not_compile_keeps_its_previous_value() {
    let table = Table::new(1);
    put(&table, vec![app("shop", &["shop.example"])]);
    let broken = |change: fn(&mut AppRecord)| {
        let mut record = app("shop", &["elsewhere.example"]);
        change(&mut record);
        record
    };
    let cases = [
        broken(|app| app.domains.push("No Host".to_owned())),
        broken(|app| app.backends[0].address = "nowhere".to_owned()),
        broken(|app| app.backends[0].address = "[fe80::1%3]:80".to_owned()),
        broken(|app| app.backends[1].id = "web.1".to_owned()),
        broken(|app| app.backends[1].id = String::new()),
        broken(|app| app.backends[1].standing = 77),
        broken(|app| {
            app.policy = Some(PolicyRecord {
                max_concurrency: Some(0),
                ..PolicyRecord::default()
            });
        }),
    ];
    for record in cases {
        let other = app("other", &["other.example"]);
        let nacks = put(&table, vec![record, other]);
        assert_eq!(nacks.len(), 1, "{nacks:?}");
        assert_eq!(nacks[0].key, "shop");
        is(&table, "shop.example", "/", "shop");
        assert_eq!(route(&table, "elsewhere.example", "/"), None);
        is(&table, "other.example", "/", "other");
    }
    let nacks = put(&table, vec![app("Bad Name", &[])]);
    assert_eq!(nacks.len(), 1);
    assert_eq!(table.len(), 2);
}

#[test]
fn a_contested_domain_stays_with_its_holder() {
    let table = Table::new(1);
    put(&table, vec![app("first", &["a.example"])]);
    let nacks = put(&table, vec![app("second", &["a.example", "b.example"])]);
    assert_eq!(nacks.len(), 1);
    assert_eq!(nacks[0].key, "second");
    is(&table, "a.example", "/", "first");
    is(&table, "b.example", "/", "second");
    // The refused claim must not remove the holder's route when it is dropped.
    put(&table, vec![app("second", &["b.example"])]);
    is(&table, "a.example", "/", "first");
    // Two apps may swap domains in one delta.
    let swap = vec![app("second", &["a.example"]), app("first", &["b.example"])];
    assert_eq!(put(&table, swap), []);
    is(&table, "a.example", "/", "second");
    is(&table, "b.example", "/", "first");
}

#[test]
fn the_last_change_of_an_app_wins() {
    let table = Table::new(1);
    let nacks = table.apply(&delta(
        9,
        vec![
            Change::Put(app("a", &["one.example"])),
            Change::Delete("a".to_owned()),
            Change::Delete("never-there".to_owned()),
            Change::Put(app("a", &["two.example"])),
        ],
    ));
    assert_eq!(nacks, []);
    assert_eq!(table.revision(), 9);
    assert_eq!(route(&table, "one.example", "/"), None);
    is(&table, "two.example", "/", "a");
    table.apply(&delta(10, vec![Change::Delete("a".to_owned())]));
    assert_eq!(route(&table, "two.example", "/"), None);
    assert!(table.is_empty() && table.app("a").is_none());
}

#[test]
fn live_state_outlives_changes_while_the_instance_is_the_same() {
    let table = Table::new(2);
    put(&table, vec![app("a", &["a.example"])]);
    let before = table.app("a").unwrap();
    before.live().cells[1].begin();
    let key = before.backends[0].key();
    for _ in 0..7 {
        let seat = before.backends[0].live().begin(u32::MAX, 0);
        assert!(seat.is_ok_and(|seat| seat.is_none()));
    }

    let mut record = app("a", &["a.example", "b.example"]);
    record.backends[0].weight = 5;
    record.backends[1].incarnation = 2;
    put(&table, vec![record]);
    let after = table.app("a").unwrap();
    assert!(Arc::ptr_eq(before.live(), after.live()));
    assert_eq!(after.backends[0].key(), key);
    assert_eq!(after.backends[0].in_flight(), 7);
    // Not used before the change, but shared all the same: the app was hot.
    assert_ne!(before.backends[1].key(), after.backends[1].key());
    assert_eq!(after.report(Some(Moment::default())).in_flight, 1);
    assert_eq!(
        after.report(Some(Moment::default())).backends[0].in_flight,
        7
    );
    assert_eq!(table.hot_apps().count(), 1);

    table.apply(&delta(9, vec![Change::Delete("a".to_owned())]));
    assert_eq!(table.hot_apps().count(), 0);
    put(&table, vec![app("a", &["a.example"])]);
    assert!(!Arc::ptr_eq(before.live(), table.app("a").unwrap().live()));
}

#[test]
fn a_late_request_on_a_removed_app_leaves_nothing_behind() {
    let table = Table::new(1);
    put(&table, vec![app("a", &["a.example"])]);
    let held = table.app("a").unwrap();
    table.apply(&delta(9, vec![Change::Delete("a".to_owned())]));
    held.live();
    assert_eq!(table.hot_apps().count(), 0);
    assert_eq!(table.hot.names().count(), 0);
}

#[test]
fn install_marks_and_sweeps() {
    let table = Table::new(1);
    put(
        &table,
        vec![
            app("kept", &["kept.example"]),
            app("gone", &["gone.example", "*.gone.example"]),
            app("holder", &["contested.example"]),
            app("broken", &["broken.example"]),
        ],
    );
    let kept = table.app("kept").unwrap();
    let mut broken = app("broken", &["elsewhere.example"]);
    broken.backends[0].address = "x".to_owned();
    let mut install = table.install();
    install.part(&[app("kept", &["kept.example"]), broken]);
    install.part(&[
        app("claimant", &["contested.example", "new.example"]),
        app("holder", &["contested.example", "more.example"]),
        app("kept", &["twice.example"]),
    ]);
    is(&table, "gone.example", "/", "gone");
    let nacks = install.finish(70);
    let keys: Vec<_> = nacks.iter().map(|nack| nack.key.as_str()).collect();
    assert_eq!(keys, ["broken", "claimant", "kept"]);
    assert_eq!((table.revision(), table.len()), (70, 4));
    assert_eq!(route(&table, "gone.example", "/"), None);
    assert_eq!(route(&table, "x.gone.example", "/"), None);
    assert_eq!(table.wildcard_depths.load(Ordering::SeqCst), 0);
    is(&table, "contested.example", "/", "holder");
    is(&table, "more.example", "/", "holder");
    is(&table, "new.example", "/", "claimant");
    is(&table, "broken.example", "/", "broken");
    assert_eq!(route(&table, "twice.example", "/"), None);
    assert!(Arc::ptr_eq(&kept, &table.app("kept").unwrap()));
}

/// As an edge boots: threads that take apps, among them one that takes none.
#[test]
fn threads_install_a_table_that_changes_as_any_other() {
    let table = Table::new(1);
    let install = table.install_about(2);
    std::thread::scope(|scope| {
        for records in [vec![app("a", &["a.example"])], vec![app("b", &[])], vec![]] {
            let mut thread = install.thread();
            scope.spawn(move || {
                for record in &records {
                    thread.take(&AppView::of(record));
                }
            });
        }
    });
    assert_eq!((install.len(), install.backends()), (2, 4));
    assert_eq!(install.finish(5), []);
    assert_eq!((table.len(), table.backends(), table.revision()), (2, 4, 5));
    is(&table, "a.example", "/", "a");
    table.apply(&delta(6, vec![Change::Delete("b".to_owned())]));
    let one = AppRecord {
        backends: vec![backend("web.1", 9_001)],
        ..app("a", &[])
    };
    assert_eq!(put(&table, vec![one]), []);
    assert_eq!((table.len(), table.backends()), (1, 1));
}

fn probed(name: &str) -> AppRecord {
    AppRecord {
        policy: Some(PolicyRecord {
            probe: Some(ProbeRecord::default()),
            ..PolicyRecord::default()
        }),
        ..app(name, &[])
    }
}

fn changed(table: &Table) -> Vec<String> {
    let mut names = Vec::new();
    table.probed_apps().take_changed(usize::MAX, &mut names);
    let mut names: Vec<String> = names.iter().map(ToString::to_string).collect();
    names.sort_unstable();
    names
}

#[test]
fn every_change_of_a_probed_app_is_told_and_of_no_other() {
    let table = Table::new(1);
    put(&table, vec![probed("a"), probed("b"), app("c", &[])]);
    assert_eq!(changed(&table), ["a", "b"]);
    put(&table, vec![probed("a"), app("b", &[]), app("c", &[])]);
    assert_eq!(changed(&table), ["a", "b"]);
    assert_eq!(table.probed_apps().len(), 1);
    put(&table, vec![app("b", &[]), probed("c")]);
    assert_eq!(changed(&table), ["c"]);
    table.apply(&delta(9, vec![Change::Delete("a".to_owned())]));
    table.apply(&delta(10, vec![Change::Delete("b".to_owned())]));
    assert_eq!(changed(&table), ["a"]);

    // A whole table: what it leaves out is gone, what does not compile stays.
    put(&table, vec![probed("a"), probed("b")]);
    let _ = changed(&table);
    let mut broken = app("b", &[]);
    broken.backends[0].address = "x".to_owned();
    let mut install = table.install();
    install.part(&[app("a", &[]), broken, probed("d")]);
    assert_eq!(changed(&table), [""; 0]);
    assert_eq!(install.finish(11).len(), 1);
    assert_eq!(changed(&table), ["a", "b", "c", "d"]);
    assert_eq!(table.probed_apps().len(), 2);
}

#[test]
fn a_probed_backend_keeps_its_live_state_before_any_request() {
    let table = Table::new(1);
    put(&table, vec![probed("a")]);
    let before = table.app("a").unwrap();
    let keys = [before.backends[0].key(), before.backends[1].key()];
    let mut record = probed("a");
    record.backends[0].weight = 5;
    record.backends[1].incarnation = 2;
    put(&table, vec![record]);
    let after = table.app("a").unwrap();
    assert_eq!(after.backends[0].existing_key(), Some(keys[0]));
    assert_ne!(after.backends[1].key(), keys[1]);
    assert_eq!(table.hot_apps().count(), 0);
}

#[test]
fn one_host_has_a_bounded_number_of_prefixes() {
    let table = Table::new(1);
    let domains: Vec<_> = (0..200).map(|n| format!("a.example/p{n}")).collect();
    let domains: Vec<_> = domains.iter().map(String::as_str).collect();
    assert_eq!(put(&table, vec![app("a", &domains)]).len(), 200 - 128);
}

#[test]
fn a_cold_app_stays_small() {
    let table = Table::new(16);
    let records: Vec<_> = (0..20_000)
        .map(|n| {
            let name = format!("app-{n:06}");
            let host = format!("{name}.apps.example");
            app(&name, &[&host])
        })
        .collect();
    let mut install = table.install();
    install.part(&records);
    assert_eq!(install.finish(1), []);
    let memory = table.memory();
    // Half-filled shards cost 70 bytes an app more here than at a million.
    assert!(memory.total() / records.len() < 420, "{memory:?}");
    assert_eq!(memory.live, 0);
}

/// What a reader may see while a writer changes an app: both of its backends
/// on the same port, never one of each version.
#[test]
fn readers_see_an_app_whole_and_always() {
    let table = Arc::new(Table::new(2));
    let version = |port: u16| AppRecord {
        backends: vec![backend("web.1", port), backend("web.2", port)],
        revision: u64::from(port),
        ..app("a", &["a.example", "*.b.example"])
    };
    put(&table, vec![version(1)]);
    let done = Arc::new(AtomicBool::new(false));
    let readers: Vec<_> = ["a.example", "x.b.example"]
        .into_iter()
        .map(|host| {
            let (table, done) = (Arc::clone(&table), Arc::clone(&done));
            std::thread::spawn(move || {
                let mut seen = 0u64;
                while !done.load(Ordering::Relaxed) {
                    let app = table
                        .route(host.as_bytes(), b"/")
                        .expect("the app must never be away");
                    assert_eq!(
                        app.backends[0].address().port(),
                        app.backends[1].address().port()
                    );
                    assert!(app.revision >= seen, "an older version must not return");
                    seen = app.revision;
                }
            })
        })
        .collect();
    for port in 2..2_000 {
        if port % 7 == 0 {
            let mut install = table.install();
            install.part(&[version(port)]);
            install.finish(u64::from(port));
        } else {
            put(&table, vec![version(port)]);
        }
    }
    done.store(true, Ordering::Relaxed);
    for reader in readers {
        reader.join().unwrap();
    }
}

/// Two apps hand the domains of one host, and a wildcard, to each other and
/// back: each is always with one of them.
#[test]
fn a_domain_that_changes_hands_is_never_away() {
    const DOMAINS: [&str; 4] = ["h.example", "h.example/x", "*.w.example", "deep.w.example"];
    let table = Arc::new(Table::new(2));
    let holding = |name: &str, turn: usize| {
        let domains = DOMAINS.iter().enumerate();
        let mine = domains.filter(|(at, _)| (at + turn).is_multiple_of(2));
        app(name, &mine.map(|(_, &domain)| domain).collect::<Vec<_>>())
    };
    let pair = |turn: usize| vec![holding("p", turn), holding("q", turn + 1)];
    assert_eq!(put(&table, pair(0)), []);
    let done = Arc::new(AtomicBool::new(false));
    let requests = [
        ("h.example", "/"),
        ("h.example", "/x/y"),
        ("deep.w.example", "/"),
    ];
    let readers = requests.map(|(host, path)| {
        let (table, done) = (Arc::clone(&table), Arc::clone(&done));
        std::thread::spawn(move || {
            while !done.load(Ordering::Relaxed) {
                let app = table.route(host.as_bytes(), path.as_bytes());
                let app = app.expect("a domain must never be away");
                let exact = format!("{host}{}", path.strip_suffix("/y").unwrap_or(""));
                assert!(app.domains.contains(&exact), "{exact}: {:?}", app.domains);
            }
        })
    });
    for turn in 1..3_000 {
        if turn % 50 == 0 {
            let mut install = table.install();
            install.part(&pair(turn));
            assert_eq!(install.finish(turn as u64), []);
        } else {
            assert_eq!(put(&table, pair(turn)), []);
        }
    }
    done.store(true, Ordering::Relaxed);
    for reader in readers {
        reader.join().unwrap();
    }
    table.apply(&delta(9_000, vec![Change::Delete("p".to_owned())]));
    table.apply(&delta(9_001, vec![Change::Delete("q".to_owned())]));
    assert_eq!(
        (table.hosts.iter().count(), table.names.iter().count()),
        (0, 0)
    );
}
