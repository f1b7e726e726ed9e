//! What balancing and health cost a request that goes well: the choice of a
//! backend, and telling what came of it; on one thread, and on two that share
//! the app. Plain timing; run it on a quiet machine:
//! `cargo bench --bench choose`.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    reason = "a program for people, not an interface"
)]

use std::hint::black_box;
use std::sync::Arc;
use std::thread;
use std::time::Instant;

use portico::feed::messages::{AppRecord, BackendRecord, Change, Delta, Op};
use portico::policy::balance::{Ask, Choice, Tried};
use portico::policy::health::{ConnectFailure, Outcome};
use portico::table::{App, Checkout, Table, Told};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const REQUESTS: u64 = 5_000_000;

fn app(backends: u16) -> Arc<App> {
    let backend = |port: u16| BackendRecord {
        id: format!("web.{port:05}"),
        address: format!("10.0.0.1:{port}"),
        weight: 100,
        incarnation: 1,
        ..BackendRecord::default()
    };
    let record = AppRecord {
        name: "shop".to_owned(),
        domains: vec!["shop.example".to_owned()],
        backends: (1..=backends).map(backend).collect(),
        ..AppRecord::default()
    };
    let table = Table::new(2);
    let nacks = table.apply(&Delta {
        to: 1,
        ops: vec![Op {
            change: Some(Change::Put(record)),
        }],
        ..Delta::default()
    });
    assert!(nacks.is_empty());
    table.app("shop").unwrap()
}

/// Nanoseconds a request: chosen, counted in flight, told of if asked.
fn requests(app: &Arc<App>, thread: usize, tells: bool) -> f64 {
    let mut random = fastrand::Rng::with_seed(thread as u64);
    let tried = Tried::default();
    let begun = Instant::now();
    for n in 1..=REQUESTS {
        // A little over 100,000 requests a second.
        let now_us = n * 8;
        let choice = app.choose(&Ask {
            now_us,
            random: random.u64(..),
            tried: &tried,
            repeatable: true,
            hedge: false,
        });
        let Choice::Backend(index) = choice else {
            // One that is out is to stay so.
            continue;
        };
        let checkout = Checkout::take(app, index, now_us, false);
        if tells {
            black_box(app.tell(&Told {
                thread,
                index,
                now_us,
                wall_us: now_us,
                sent_us: now_us,
                waited_us: 0,
                outcome: Outcome::Answered {
                    status: 200,
                    first_byte_us: 4_000 + n % 1_024,
                },
                random: n,
            }));
        }
        drop(checkout);
    }
    begun.elapsed().as_nanos() as f64 / REQUESTS as f64
}

fn on_two_threads(app: &Arc<App>, tells: bool) -> f64 {
    thread::scope(|scope| {
        let threads = [0, 1].map(|at| scope.spawn(move || requests(app, at, tells)));
        let times = threads.map(|thread| thread.join().unwrap());
        (times[0] + times[1]) / 2.0
    })
}

fn main() {
    println!("ns a request         choose   choose + tell   the same on each of two threads");
    for backends in [1, 4, 32] {
        let app = app(backends);
        println!(
            "{backends:>3} backends     {:>10.0} {:>12.0} {:>16.0} {:>8.0}",
            requests(&app, 0, false),
            requests(&app, 0, true),
            on_two_threads(&app, false),
            on_two_threads(&app, true),
        );
    }
    let app = app(4);
    app.tell(&Told {
        thread: 0,
        index: 3,
        now_us: u64::MAX >> 4,
        wall_us: u64::MAX >> 4,
        sent_us: u64::MAX >> 4,
        waited_us: 0,
        outcome: Outcome::ConnectFailed(ConnectFailure::Refused),
        random: 0,
    });
    println!(
        "  4, one of them out {:>5.0} {:>12.0} {:>16.0} {:>8.0}",
        requests(&app, 0, false),
        requests(&app, 0, true),
        on_two_threads(&app, false),
        on_two_threads(&app, true),
    );
}
