//! The model itself: against queueing theory, and against itself.
//!
//! Owns what the other tests rest on: that queues are queues, and that a seed
//! is all a run depends on.

use fastrand::Rng;

use crate::chaos;
use crate::engine::{Engine, Micros, SECOND};
use crate::load::{Arrivals, Service};
use crate::seeds;
use crate::server::{Begun, Server};
use crate::world::World;

enum Event {
    Arrival,
    Done(Begun<u64>),
}

/// Mean time from arrival to end of a queue with one worker, microseconds.
fn mean_time_us(seed: u64, service: Service, per_second: f64) -> f64 {
    let mut random = Rng::with_seed(seed);
    let mut engine = Engine::new();
    let mut server = Server::new(service, 1);
    let arrivals = Arrivals::Independent(per_second);
    engine.at(0, Event::Arrival);
    let mut arrived_us: Vec<Micros> = Vec::new();
    let (mut sum_us, mut ended) = (0, 0u64);
    while let Some(event) = engine.next() {
        let now_us = engine.now_us();
        let begun = match event {
            Event::Arrival => {
                if now_us < 400 * SECOND {
                    engine.after(arrivals.gap_us(&mut random), Event::Arrival);
                }
                arrived_us.push(now_us);
                server.accept(arrived_us.len() as u64 - 1, now_us, &mut random)
            }
            Event::Done(begun) => {
                assert!(server.finish(begun.job, begun.epoch));
                sum_us += now_us - arrived_us[begun.job as usize];
                ended += 1;
                server.next(now_us, &mut random)
            }
        };
        if let Some(begun) = begun {
            engine.at(begun.done_at_us, Event::Done(begun));
        }
    }
    assert_eq!((server.held(), server.requests().count()), (0, 0));
    assert_eq!(ended, arrived_us.len() as u64);
    sum_us as f64 / ended as f64
}

/// Pollaczek and Khinchine: with service of mean `s` and second moment `m`, and
/// requests at rate `r`, the mean is `s + r m / 2 (1 - r s)`.
#[test]
fn a_queue_waits_as_theory_says() {
    let bimodal = Service::Bimodal {
        short_us: 1_000,
        long_us: 41_000,
        long_permille: 100,
    };
    // Second moments, µs²: of an exponential twice its mean's square.
    let cases = [
        (Service::Constant(5_000), 25e6),
        (Service::Exponential(5_000), 50e6),
        (bimodal, 0.9 * 1e6 + 0.1 * 1681e6),
    ];
    for (service, moment) in cases {
        for load in [0.5, 0.8] {
            let mean_us = service.mean_us();
            let rate = load / mean_us;
            let theory_us = mean_us + rate * moment / (2.0 * (1.0 - load));
            let got_us = mean_time_us(3, service, rate * SECOND as f64);
            let apart = (got_us / theory_us - 1.0).abs();
            assert!(
                apart < 0.06,
                "{service:?} at {load}: {got_us}, not {theory_us}"
            );
        }
    }
}

#[test]
fn a_seed_is_all_a_run_depends_on() {
    seeds::each(5, |seed| {
        let story = || {
            let record = World::new(chaos::setup(seed)).run();
            let failed = record.failed.len();
            (
                record.latencies_us,
                record.events,
                record.decided.len(),
                failed,
            )
        };
        assert!(story() == story());
    });
}
