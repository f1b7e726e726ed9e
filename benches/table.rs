//! What the table costs at a thousand and at a million apps: bytes by part and
//! resident, time of a lookup, of a change and of a start from a snapshot.
//! Plain timing; run it on a quiet machine: `cargo bench --bench table`, or one
//! scene of it: `cargo bench --bench table -- boot`.
//!
//! Each scene runs in a process of its own, so that none is measured with what
//! another left behind.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    reason = "a program for people, not an interface"
)]

use std::hint::black_box;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use portico::feed::TableFiles;
use portico::feed::messages::{AppRecord, AppView, BackendRecord, Change, Delta, Op};
use portico::feed::snapshot::{Head, SnapshotWriter};
use portico::table::Table;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const MILLION: usize = 1_000_000;
const LOOKUPS: usize = 2_000_000;
/// The share of the table that gets most of a fleet's traffic.
const HOT_APPS: usize = 4_000;
const DATA_THREADS: usize = 2;

/// `app-123456.example.com`
fn host(n: usize) -> String {
    format!("app-{n:06}.example.com")
}

fn app(n: usize, port: u16) -> AppRecord {
    let backend = |id: &str, port: u16| BackendRecord {
        id: id.to_owned(),
        address: format!("10.{}.{}.{}:{port}", n >> 16 & 255, n >> 8 & 255, n & 255),
        weight: 100,
        release: format!("v{}", n % 50),
        incarnation: 1,
        ..BackendRecord::default()
    };
    AppRecord {
        name: format!("app-{n:06}"),
        domains: vec![host(n)],
        backends: vec![backend("web.1", port), backend("web.2", port + 1)],
        revision: u64::from(port),
        ..AppRecord::default()
    }
}

/// A host's number, in place: a list of hosts would cost cache misses of its own.
fn write_digits(into: &mut [u8], mut n: usize) {
    for digit in into.iter_mut().rev() {
        *digit = b'0' + (n % 10) as u8;
        n /= 10;
    }
}

/// Resident megabytes of this process: now, and at most so far.
fn resident() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let megabytes = |key: &str| {
        let line = status.lines().find(|line| line.starts_with(key)).unwrap();
        let kib: usize = line.split_whitespace().nth(1).unwrap().parse().unwrap();
        kib / 1_024
    };
    format!(
        "{} MiB resident, {} at most so far",
        megabytes("VmRSS:"),
        megabytes("VmHWM:")
    )
}

fn nanoseconds(took: Duration, times: usize) -> f64 {
    took.as_nanos() as f64 / times as f64
}

/// One lookup after the other: each begins where the last one's answer says,
/// so that a processor cannot work on several at once.
fn lookup(table: &Table, spread: usize) -> f64 {
    let mut random = fastrand::Rng::with_seed(1);
    let order: Vec<usize> = (0..LOOKUPS).map(|_| random.usize(..spread)).collect();
    let mut carried = 0;
    let begun = Instant::now();
    let mut host = host(0).into_bytes();
    for &at in &order {
        write_digits(&mut host[4..10], at + carried);
        let app = table.route(&host, b"/index.html").unwrap();
        carried = usize::from(black_box(app).backends.is_empty());
    }
    nanoseconds(begun.elapsed(), LOOKUPS)
}

fn lookup_of(table: &Table, host: &str) -> f64 {
    let begun = Instant::now();
    for _ in 0..LOOKUPS {
        black_box(table.route(black_box(host).as_bytes(), b"/"));
    }
    nanoseconds(begun.elapsed(), LOOKUPS)
}

fn delta(to: u64, records: impl Iterator<Item = AppRecord>) -> Delta {
    Delta {
        from: to.saturating_sub(1),
        to,
        ops: records
            .map(|record| Op {
                change: Some(Change::Put(record)),
            })
            .collect(),
        ..Delta::default()
    }
}

/// Microseconds to apply a delta of `size` changes, and the longest of them.
fn change(table: &Table, size: usize, make: impl Fn(usize) -> AppRecord) -> String {
    let deltas = (20_000 / size).clamp(20, 2_000);
    let (mut all, mut most) = (Duration::ZERO, Duration::ZERO);
    for n in 0..deltas {
        let records = (n * size..(n + 1) * size).map(&make);
        let delta = delta(n as u64, records);
        let begun = Instant::now();
        assert!(table.apply(&delta).is_empty());
        all += begun.elapsed();
        most = most.max(begun.elapsed());
    }
    format!(
        "{:>10.1} µs a delta, {:.2} µs a change, {:.0} µs at most",
        nanoseconds(all, deltas) / 1_000.0,
        nanoseconds(all, deltas * size) / 1_000.0,
        most.as_micros()
    )
}

fn installed(apps: usize) -> Table {
    let table = Table::new(DATA_THREADS);
    let mut install = table.install();
    let mut n = 0;
    while n < apps {
        let part: Vec<_> = (n..apps.min(n + 1_000)).map(|n| app(n, 9_000)).collect();
        n += part.len();
        install.part(&part);
    }
    assert!(install.finish(1).is_empty());
    table
}

/// Time of a lookup and of a change.
fn time(apps: usize) {
    let table = installed(apps);
    let memory = table.memory();
    println!("{apps} apps, one domain and two backends each");
    println!("  {}", resident());
    println!(
        "  bytes an app       {:>10} estimated; {memory:?}",
        memory.total() / apps,
    );
    let hot = HOT_APPS.min(apps);
    for _ in 0..2 {
        println!("  route, hot apps    {:>10.0} ns", lookup(&table, hot));
        println!("  route, any app     {:>10.0} ns", lookup(&table, apps));
    }
    println!(
        "  route, unknown     {:>10.0} ns",
        lookup_of(&table, "nobody.apps.example")
    );
    let anywhere = |n: usize| (n * 7_919) % apps;
    for size in [1, 100, 5_000] {
        println!(
            "  {size:>5} backends swapped {}",
            change(&table, size, |n| app(
                anywhere(n),
                9_100 + (n % 10_000) as u16
            ))
        );
        println!(
            "  {size:>5} domains added    {}",
            change(&table, size, |n| {
                let mut app = app(anywhere(n), 9_500);
                app.domains.push(format!("new-{size}-{n}.example"));
                app
            })
        );
    }
    let mut wild = app(0, 1);
    wild.name = "wild".to_owned();
    wild.domains = vec!["*.wild.example".to_owned()];
    table.apply(&delta(1, std::iter::once(wild)));
    println!(
        "  route, wildcard    {:>10.0} ns",
        lookup_of(&table, "a.b.c.wild.example")
    );
}

/// Two seconds of changes: what was freed is given back in time.
fn live_on(table: &Table) {
    let begun = Instant::now();
    let mut revision = table.revision();
    while begun.elapsed() < Duration::from_secs(2) {
        revision += 1;
        let at = revision as usize * 100 % MILLION;
        table.apply(&delta(revision, (at..at + 100).map(|n| app(n, 9_300))));
    }
    println!("  after two seconds of changes: {}", resident());
}

/// A start from a snapshot, as an edge has it.
fn boot(folder: &Path) {
    println!("start from a snapshot of a million apps");
    println!("  before: {}", resident());
    let cores = std::thread::available_parallelism().unwrap().get();
    let begun = Instant::now();
    let files = TableFiles::newest(folder).unwrap();
    let read = files.read(cores, &|| {
        |app: &AppView<'_>, _: &[u8]| {
            black_box(app);
        }
    });
    println!("  read alone, on {cores} threads: {:.2?}", begun.elapsed());
    assert_eq!(read.apps, MILLION as u64);

    let begun = Instant::now();
    let table = Table::new(DATA_THREADS);
    let files = TableFiles::newest(folder).unwrap();
    let install = table.install_about(files.apps());
    let found = files.read(cores, &|| {
        let mut thread = install.thread();
        move |app: &AppView<'_>, _: &[u8]| thread.take(app)
    });
    let compiled = begun.elapsed();
    assert!(install.finish(found.revision).is_empty());
    assert!(table.route(host(77).as_bytes(), b"/").is_some());
    println!(
        "  read and compiled: {compiled:.2?}, published: {:.2?}; {}",
        begun.elapsed(),
        resident()
    );
    live_on(&table);
}

/// Growth by deltas from nothing, then a whole table nearly the same.
fn grow() {
    println!("growth to a million apps");
    let table = Table::new(DATA_THREADS);
    let mut applied = Duration::ZERO;
    for at in 0..(MILLION / 5_000) {
        let records = (at * 5_000..(at + 1) * 5_000).map(|n| app(n, 9_000));
        let delta = delta(at as u64 + 1, records);
        let begun = Instant::now();
        assert!(table.apply(&delta).is_empty());
        applied += begun.elapsed();
    }
    println!("  deltas of 5,000: {applied:.1?}; {}", resident());
    let mut install = table.install();
    for at in 0..(MILLION / 1_000) {
        let port = |n: usize| if n.is_multiple_of(100) { 9_700 } else { 9_000 };
        let part: Vec<_> = (at * 1_000..(at + 1) * 1_000)
            .map(|n| app(n, port(n)))
            .collect();
        install.part(&part);
    }
    assert!(install.finish(2_000).is_empty());
    println!("  replaced by nearly itself: {}", resident());
    live_on(&table);
}

fn write_snapshot(folder: &Path) {
    let head = Head {
        cluster_id: "bench".to_owned(),
        epoch: 1,
        revision: 7,
    };
    let mut writer = SnapshotWriter::create(folder, &head).unwrap();
    for n in 0..MILLION {
        writer.push(&app(n, 9_000)).unwrap();
    }
    let bytes = writer.finish().unwrap();
    println!("the snapshot of a million apps: {} MiB", bytes >> 20);
}

fn main() {
    let arguments: Vec<String> = std::env::args()
        .skip(1)
        .filter(|argument| argument != "--bench")
        .collect();
    let scene = |words: &[&str]| {
        let program = std::env::current_exe().unwrap();
        assert!(
            Command::new(program)
                .args(words)
                .status()
                .unwrap()
                .success()
        );
    };
    match arguments
        .iter()
        .map(String::as_str)
        .collect::<Vec<_>>()
        .as_slice()
    {
        ["time", apps] => time(apps.parse().unwrap()),
        ["boot", folder] => boot(Path::new(folder)),
        ["boot"] => {
            let folder = tempfile::tempdir().unwrap();
            write_snapshot(folder.path());
            let folder = folder.path().to_str().unwrap();
            for _ in 0..3 {
                scene(&["boot", folder]);
            }
        }
        ["grow"] => grow(),
        _ => {
            scene(&["time", "1000"]);
            scene(&["time", "1000000"]);
            scene(&["boot"]);
            scene(&["grow"]);
        }
    }
}
