//! What the table costs: time of a lookup and of a change, bytes of an app, at
//! a thousand and at a million apps. Plain timing; run it on a quiet machine:
//! `cargo bench --bench table`.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    reason = "a program for people, not an interface"
)]

use std::hint::black_box;
use std::time::{Duration, Instant};

use portico::feed::messages::{AppRecord, BackendRecord, Change, Delta, Op};
use portico::table::Table;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const LOOKUPS: usize = 2_000_000;
const CHANGES: u64 = 20_000;
/// The share of the table that gets most of a fleet's traffic.
const HOT_APPS: usize = 4_000;

/// `app-0000042.apps.example`
fn host(n: usize) -> String {
    format!("app-{n:07}.apps.example")
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
        name: format!("app-{n:07}"),
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

/// Resident bytes of this process.
fn resident_bytes() -> usize {
    let status = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: usize = status.split(' ').nth(1).unwrap().parse().unwrap();
    pages * 4096
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
        write_digits(&mut host[4..11], at + carried);
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

fn change(table: &Table, make: impl Fn(u64) -> AppRecord) -> f64 {
    let deltas: Vec<_> = (0..CHANGES)
        .map(|n| Delta {
            from: n,
            to: n + 1,
            ops: vec![Op {
                change: Some(Change::Put(make(n))),
            }],
            ..Delta::default()
        })
        .collect();
    let begun = Instant::now();
    for delta in &deltas {
        assert!(table.apply(delta).is_empty());
    }
    nanoseconds(begun.elapsed(), CHANGES as usize) / 1_000.0
}

fn measure(apps: usize) {
    let before = resident_bytes();
    let table = Table::new(2);
    let begun = Instant::now();
    let mut install = table.install();
    let mut n = 0;
    while n < apps {
        let part: Vec<_> = (n..apps.min(n + 1_000)).map(|n| app(n, 9_000)).collect();
        n += part.len();
        install.part(&part);
    }
    assert!(install.finish(1).is_empty());
    let installed = begun.elapsed();
    let resident = resident_bytes() - before;
    let memory = table.memory();
    println!("{apps} apps, one domain and two backends each");
    println!("  install            {installed:>10.1?}");
    println!(
        "  bytes an app       {:>10} estimated, {} resident; {memory:?}",
        memory.total() / apps,
        resident / apps
    );
    let hot = HOT_APPS.min(apps);
    println!("  route, hot apps    {:>10.0} ns", lookup(&table, hot));
    println!("  route, any app     {:>10.0} ns", lookup(&table, apps));
    println!(
        "  route, unknown     {:>10.0} ns",
        lookup_of(&table, "nobody.apps.example")
    );
    let step = (apps as u64 / CHANGES).max(1);
    let at = |n: u64| (n * step) as usize % apps;
    println!(
        "  change a backend   {:>10.1} µs",
        change(&table, |n| app(at(n), 9_100 + (n / 1_000) as u16))
    );
    println!(
        "  change a domain    {:>10.1} µs",
        change(&table, |n| {
            let mut app = app(at(n), 9_500);
            app.domains.push(format!("new-{n}.example"));
            app
        })
    );
    let mut wild = app(0, 1);
    wild.name = "wild".to_owned();
    wild.domains = vec!["*.wild.example".to_owned()];
    table.apply(&Delta {
        from: 0,
        to: 1,
        ops: vec![Op {
            change: Some(Change::Put(wild)),
        }],
        ..Delta::default()
    });
    println!(
        "  route, wildcard    {:>10.0} ns",
        lookup_of(&table, "a.b.c.wild.example")
    );
}

fn main() {
    for apps in [1_000, 1_000_000] {
        measure(apps);
    }
}
