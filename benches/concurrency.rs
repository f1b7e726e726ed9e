//! Ways of finding out how many requests a backend can have at once, compared
//! in virtual time by what is answered, how soon, and who is refused.
//!
//! ```text
//! cargo bench --bench concurrency
//! ```
//!
//! writes `load-tests/results/concurrency.md` and `concurrency.svg`. The engine
//! is the simulator's (`tests/simulator`); the last way is the router's own
//! [`portico::policy::concurrency`]. Takes some seconds; the figures do not
//! depend on the machine.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    reason = "a program for people, not an interface"
)]

#[allow(dead_code, reason = "the simulator uses more of it")]
#[path = "../tests/simulator/engine.rs"]
mod engine;
#[path = "concurrency/limits.rs"]
mod limits;
#[allow(dead_code, reason = "the simulator uses more of it")]
#[path = "../tests/simulator/load.rs"]
mod load;
#[path = "concurrency/plot.rs"]
mod plot;
#[path = "concurrency/run.rs"]
mod run;
#[allow(dead_code, reason = "the simulator uses more of it")]
#[path = "../tests/simulator/server.rs"]
mod server;
#[path = "concurrency/table.rs"]
mod table;

use std::path::Path;

use engine::{MILLISECOND, SECOND};
use limits::Way;
use load::Service;
use run::{Measured, Scenario};

/// One scenario, and what each way made of it, in the order of [`Way::ALL`].
pub struct Row {
    scenario: Scenario,
    measured: Vec<Measured>,
}

const STEADY: Service = Service::Constant(20 * MILLISECOND);
const NOISY: Service = Service::Bimodal {
    short_us: 10 * MILLISECOND,
    long_us: 110 * MILLISECOND,
    long_permille: 100,
};

fn scenarios() -> [Scenario; 9] {
    let plain = Scenario {
        name: "2 × capacity",
        routers: 1,
        load: 2.0,
        service: STEADY,
        doubles_us: None,
        burst: 0,
        length_us: 45 * SECOND,
    };
    [
        plain,
        Scenario {
            name: "10 × capacity",
            load: 10.0,
            ..plain
        },
        Scenario {
            name: "2 ×, service doubles",
            doubles_us: Some(25 * SECOND),
            ..plain
        },
        Scenario {
            name: "2 ×, noisy service",
            service: NOISY,
            ..plain
        },
        Scenario {
            name: "2 ×, fleet of 8",
            routers: 8,
            ..plain
        },
        Scenario {
            name: "healthy: 0.8 ×",
            load: 0.8,
            length_us: 150 * SECOND,
            ..plain
        },
        Scenario {
            name: "healthy: 0.8 ×, noisy service",
            load: 0.8,
            service: NOISY,
            length_us: 150 * SECOND,
            ..plain
        },
        Scenario {
            name: "healthy: 0.95 ×, noisy service",
            load: 0.95,
            service: NOISY,
            length_us: 150 * SECOND,
            ..plain
        },
        Scenario {
            name: "healthy: 0.5 ×, bursts of 100",
            load: 0.5,
            burst: 100,
            length_us: 150 * SECOND,
            ..plain
        },
    ]
}

fn main() {
    let begun = std::time::Instant::now();
    let rows: Vec<Row> = scenarios()
        .into_iter()
        .map(|scenario| Row {
            scenario,
            measured: Way::ALL.map(|way| run::run(scenario, way)).into(),
        })
        .collect();
    let results = Path::new(env!("CARGO_MANIFEST_DIR")).join("load-tests/results");
    std::fs::write(results.join("concurrency.md"), table::markdown(&rows)).unwrap();
    std::fs::write(results.join("concurrency.svg"), plot::svg(&rows)).unwrap();
    println!("{:.1?}: {}", begun.elapsed(), results.display());
}
