//! The ways of choosing a backend that the fleet run compares.
//!
//! Owns what one router knows of the pool and how it chooses by that. A router
//! sees its own requests only: never a backend's queue, never another router's
//! requests.

use std::sync::Arc;

use fastrand::Rng;
use portico::feed::messages::{AppRecord, BackendRecord, Change, Delta, Op, PolicyRecord};
use portico::policy::balance::{Ask, Choice, Tried};
use portico::policy::health::Outcome;
use portico::table::{App, Table, Told};

use crate::engine::Micros;

/// A way of choosing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strategy {
    /// Any.
    Random,
    /// Each in turn; every router begins at another.
    RoundRobin,
    /// Whoever has the fewest of this router's requests in flight.
    LeastInFlight,
    /// The better of two drawn, by requests in flight (Mitzenmacher 2001).
    TwoChoices,
    /// The better of two drawn, by requests in flight times a latency average
    /// that jumps up and decays down: Finagle's `PeakEwma`.
    PeakEwma,
    /// Portico's: two choices by requests in flight, outliers in latency
    /// counted heavier.
    Portico,
}

impl Strategy {
    /// All of them, in the order of the report.
    pub const ALL: [Strategy; 6] = [
        Strategy::Random,
        Strategy::RoundRobin,
        Strategy::LeastInFlight,
        Strategy::TwoChoices,
        Strategy::PeakEwma,
        Strategy::Portico,
    ];

    /// As the report calls it.
    pub fn name(self) -> &'static str {
        match self {
            Strategy::Random => "random",
            Strategy::RoundRobin => "round-robin",
            Strategy::LeastInFlight => "least in flight",
            Strategy::TwoChoices => "two choices",
            Strategy::PeakEwma => "peak EWMA",
            Strategy::Portico => "Portico",
        }
    }
}

/// What one router knows of one backend.
#[derive(Clone, Copy, Debug, Default)]
struct Known {
    in_flight: u32,
    ewma: PeakEwma,
}

/// One router's view and way of choosing.
pub struct Router {
    strategy: Strategy,
    backends: Vec<Known>,
    turn: usize,
    /// The router's own table entry, for the last strategy.
    app: Option<Arc<App>>,
}

impl Router {
    /// Knows nothing yet.
    pub fn new(strategy: Strategy, backends: usize, random: &mut Rng) -> Self {
        Router {
            strategy,
            backends: vec![Known::default(); backends],
            turn: random.usize(..backends),
            app: (strategy == Strategy::Portico).then(|| app(backends)),
        }
    }

    /// The backend of the next request, which is counted as in flight there.
    pub fn choose(&mut self, now_us: Micros, random: &mut Rng) -> usize {
        let chosen = match self.strategy {
            Strategy::Random => random.usize(..self.backends.len()),
            Strategy::RoundRobin => {
                self.turn = (self.turn + 1) % self.backends.len();
                self.turn
            }
            Strategy::LeastInFlight => self.least_in_flight(random),
            Strategy::TwoChoices => self.by_two_choices(random),
            Strategy::PeakEwma => self.by_peak_ewma(now_us, random),
            Strategy::Portico => self.by_portico(now_us, random),
        };
        self.backends[chosen].in_flight += 1;
        if let Some(app) = &self.app {
            app.backends[chosen].live().load.begin();
        }
        chosen
    }

    /// An answer came.
    pub fn answered(&mut self, backend: usize, latency_us: Micros, now_us: Micros) {
        let known = &mut self.backends[backend];
        known.in_flight -= 1;
        known.ewma.observe(latency_us as f64, now_us);
        if let Some(app) = &self.app {
            app.tell(&Told {
                thread: 0,
                index: backend,
                now_us,
                wall_us: now_us,
                sent_us: now_us - latency_us,
                waited_us: latency_us,
                outcome: Outcome::Answered {
                    status: 200,
                    first_byte_us: latency_us,
                },
                random: 0,
            });
            app.backends[backend].live().load.end();
        }
    }

    fn by_portico(&self, now_us: Micros, random: &mut Rng) -> usize {
        let app = self.app.as_ref().expect("it must have its table entry");
        let choice = app.choose(&Ask {
            now_us,
            random: random.u64(..),
            tried: &Tried::default(),
            repeatable: true,
            hedge: false,
        });
        match choice {
            Choice::Backend(index) => index,
            other => panic!("there is always room: {other:?}"),
        }
    }

    fn by_two_choices(&self, random: &mut Rng) -> usize {
        let (first, second) = two_of(self.backends.len(), random);
        if self.backends[second].in_flight < self.backends[first].in_flight {
            second
        } else {
            first
        }
    }

    /// Ties are broken at random: all would herd to the first otherwise.
    fn least_in_flight(&self, random: &mut Rng) -> usize {
        let count = self.backends.len();
        let start = random.usize(..count);
        let order = (0..count).map(|step| (start + step) % count);
        order
            .min_by_key(|&index| self.backends[index].in_flight)
            .expect("a pool must have backends")
    }

    fn by_peak_ewma(&mut self, now_us: Micros, random: &mut Rng) -> usize {
        let (first, second) = two_of(self.backends.len(), random);
        let mut load = |index: usize| {
            let known = &mut self.backends[index];
            known.ewma.load(known.in_flight, now_us)
        };
        if load(second) < load(first) {
            second
        } else {
            first
        }
    }
}

/// Two different ones.
fn two_of(count: usize, random: &mut Rng) -> (usize, usize) {
    let first = random.usize(..count);
    let second = random.usize(..count.max(2) - 1);
    (
        first,
        (second + usize::from(second >= first)).min(count - 1),
    )
}

/// An app of equal backends. No backend is ever ejected here: balancing alone
/// is compared.
fn app(backends: usize) -> Arc<App> {
    let backend = |number: usize| BackendRecord {
        id: format!("web.{number:03}"),
        address: format!("10.0.{}.{}:9000", number / 200, number % 200 + 1),
        weight: 100,
        incarnation: 1,
        ..BackendRecord::default()
    };
    let record = AppRecord {
        name: "shop".to_owned(),
        domains: vec!["shop.example".to_owned()],
        backends: (0..backends).map(backend).collect(),
        policy: Some(PolicyRecord {
            ejection: Some(false),
            max_concurrency: Some(u32::MAX),
            ..PolicyRecord::default()
        }),
        revision: 1,
    };
    let table = Table::new(1);
    let refused = table.apply(&Delta {
        from: 0,
        to: 1,
        ops: vec![Op {
            change: Some(Change::Put(record)),
        }],
        committed_at_ms: 0,
        ..Delta::default()
    });
    assert!(refused.is_empty(), "{refused:?}");
    table.app("shop").expect("it must be there")
}

/// A latency average as Finagle's `PeakEwma` keeps it
/// (`finagle-core/.../loadbalancer/PeakEwma.scala`): it jumps to a latency
/// above it at once and decays to those below over `DECAY_US`.
#[derive(Clone, Copy, Debug, Default)]
struct PeakEwma {
    average_us: f64,
    stamp_us: Micros,
}

/// Finagle's default `decayTime`.
const DECAY_US: f64 = 10_000_000.0;
/// Finagle's `Penalty`: the load of a backend with requests and no answer yet,
/// in its nanoseconds and here in microseconds far above any latency.
const PENALTY_US: f64 = 1e12;

impl PeakEwma {
    fn observe(&mut self, latency_us: f64, now_us: Micros) {
        let elapsed_us = now_us - self.stamp_us;
        self.stamp_us = now_us;
        if latency_us > self.average_us {
            self.average_us = latency_us;
        } else {
            let kept = (-(elapsed_us as f64) / DECAY_US).exp();
            self.average_us = self.average_us * kept + latency_us * (1.0 - kept);
        }
    }

    fn load(&mut self, in_flight: u32, now_us: Micros) -> f64 {
        // Reading decays it towards 0, so that a shunned backend is tried again.
        self.observe(0.0, now_us);
        if self.average_us == 0.0 && in_flight > 0 {
            PENALTY_US + f64::from(in_flight)
        } else {
            self.average_us * f64::from(in_flight + 1)
        }
    }
}
