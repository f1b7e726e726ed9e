//! Traffic that the pool can do: nobody is refused, whatever the router does to
//! find out how much that is.
//!
//! Owns these runs: not a single request is shed in them, but a few where most of
//! the work is in a few long requests and nearly all workers are needed.

use crate::clients::Clients;
use crate::engine::{MILLISECOND, Micros, SECOND};
use crate::load::{Arrivals, Service};
use crate::overload::{SERVICES, clients, even, independent, pool, seen};
use crate::seeds;
use crate::world::{Setup, World};

const LENGTH_US: Micros = 12 * SECOND;

fn assert_nobody_shed(what: &str, setup: Setup) {
    assert_few_shed(what, setup, 0);
}

fn assert_few_shed(what: &str, setup: Setup, permille: u64) {
    let length_us = setup.length_us;
    let record = World::new(setup).run();
    let all = seen(&record, 0, 2 * length_us, None);
    let p99_us = all.p99_us;
    let may_be = record.requests() * permille / 1_000;
    assert!(
        all.shed as u64 <= may_be && all.left == 0,
        "{what}, p99 {p99_us} µs: {all:?}"
    );
}

#[test]
fn loads_below_what_the_pool_can_do() {
    for service in SERVICES {
        for times in [0.3, 0.6, 0.8, 0.9] {
            seeds::each(2, |seed| {
                let setup = Setup {
                    service,
                    length_us: LENGTH_US,
                    ..pool(seed, vec![clients(independent(times))])
                };
                // Where one of ten takes eleven times as long, workers are all
                // busy for longer than a line stands for, now and then.
                let is_rough = service == SERVICES[2] && times > 0.6;
                let permille = if is_rough { 40 } else { 0 };
                assert_few_shed(&format!("{service:?} at {times}"), setup, permille);
            });
        }
    }
}

/// So many within 20 ms, each second.
fn bursts(burst: f64) -> impl Iterator<Item = Clients> {
    let within_us = 20 * MILLISECOND;
    (1..LENGTH_US / SECOND).map(move |second| {
        let from_us = second * SECOND;
        let arrivals = Arrivals::Even(burst * SECOND as f64 / within_us as f64);
        clients(arrivals).between(from_us, from_us + within_us)
    })
}

#[test]
fn bursts_are_taken_up() {
    for service in SERVICES {
        for (times, burst) in [(0.3, 150.0), (0.6, 100.0), (0.8, 50.0)] {
            seeds::each(2, |seed| {
                let mut all = vec![clients(even(times))];
                all.extend(bursts(burst));
                let setup = Setup {
                    service,
                    length_us: LENGTH_US,
                    ..pool(seed, all)
                };
                assert_nobody_shed(&format!("{service:?} at {times}, bursts of {burst}"), setup);
            });
        }
    }
}

#[test]
fn an_app_that_takes_long() {
    for (per_second, workers) in [(40.0, 1_000), (32.0, 10)] {
        for service in [Service::Constant(SECOND), Service::Exponential(SECOND)] {
            seeds::each(2, |seed| {
                let setup = Setup {
                    workers,
                    service,
                    length_us: 40 * SECOND,
                    ..pool(seed, vec![Arrivals::Independent(per_second).into()])
                };
                assert_nobody_shed(&format!("{service:?}, {per_second}/s, {workers}"), setup);
            });
        }
    }
}

#[test]
fn answers_that_last() {
    seeds::each(3, |seed| {
        let setup = Setup {
            body_us: 10 * SECOND,
            length_us: 30 * SECOND,
            ..pool(seed, vec![Arrivals::Independent(60.0).into()])
        };
        assert_nobody_shed("streams", setup);
    });
}
