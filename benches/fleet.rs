//! A fleet of independent routers over one shared pool, in virtual time: six
//! ways of choosing a backend, compared by what clients wait.
//!
//! ```text
//! cargo bench --bench fleet
//! ```
//!
//! writes `load-tests/results/fleet.md` and `fleet.svg`. The engine is the
//! simulator's (`tests/simulator`); the last way is the router's own
//! [`portico::table::App`]. Takes about a minute; the figures do not depend on
//! the machine.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    reason = "a program for people, not an interface"
)]

#[allow(dead_code, reason = "the simulator uses more of it")]
#[path = "../tests/simulator/engine.rs"]
mod engine;
#[allow(dead_code, reason = "the simulator uses more of it")]
#[path = "../tests/simulator/load.rs"]
mod load;
#[path = "fleet/plot.rs"]
mod plot;
#[path = "fleet/run.rs"]
mod run;
#[allow(dead_code, reason = "the simulator uses more of it")]
#[path = "../tests/simulator/server.rs"]
mod server;
#[path = "fleet/strategies.rs"]
mod strategies;
#[path = "fleet/table.rs"]
mod table;

use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::thread;

use engine::SECOND;
use load::Service;
use run::{Measured, Setup};
use strategies::Strategy;

/// One situation, and what each strategy made of it, in the order of
/// [`Strategy::ALL`].
struct Row {
    setup: Setup,
    measured: Vec<Measured>,
}

const BIMODAL: Service = Service::Bimodal {
    short_us: 1_000,
    long_us: 41_000,
    long_permille: 100,
};

/// Every situation, by pool, service, the first backend's speed, load and
/// fleet.
fn situations() -> Vec<Setup> {
    let mut setups = Vec::new();
    for backends in [50, 4] {
        for service in [Service::Exponential(5_000), BIMODAL] {
            for slowness in [1, 10] {
                for load in [0.7, 0.9] {
                    for routers in [1, 10, 100] {
                        setups.push(Setup {
                            routers,
                            backends,
                            load,
                            service,
                            slowness,
                            strategy: Strategy::Random,
                            // As many requests from a small pool as from a large.
                            length_us: if backends == 50 { 60 } else { 480 } * SECOND,
                            seed: 1,
                        });
                    }
                }
            }
        }
    }
    setups
}

/// Runs all, on as many threads as the machine has.
fn run_all(setups: &[Setup]) -> Vec<Row> {
    let next = AtomicUsize::new(0);
    let rows: Mutex<Vec<Option<Row>>> = Mutex::new(setups.iter().map(|_| None).collect());
    let threads = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some(&setup) = setups.get(next.fetch_add(1, Relaxed)) {
                    let measured =
                        Strategy::ALL.map(|strategy| run::run(Setup { strategy, ..setup }));
                    let at = setups.iter().position(|other| *other == setup).unwrap();
                    rows.lock().unwrap()[at] = Some(Row {
                        setup,
                        measured: measured.into(),
                    });
                }
            });
        }
    });
    rows.into_inner().unwrap().into_iter().flatten().collect()
}

fn main() {
    let begun = std::time::Instant::now();
    let rows = run_all(&situations());
    let requests: usize = rows
        .iter()
        .flat_map(|row| &row.measured)
        .map(Measured::requests)
        .sum();
    let results = Path::new(env!("CARGO_MANIFEST_DIR")).join("load-tests/results");
    std::fs::write(results.join("fleet.md"), table::markdown(&rows)).unwrap();
    std::fs::write(results.join("fleet.svg"), plot::svg(&rows)).unwrap();
    println!(
        "{requests} requests in {:.1?}: {}",
        begun.elapsed(),
        results.display()
    );
}
