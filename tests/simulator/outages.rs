//! One thing goes wrong at a time: the scenarios and the rules that
//! need a known fault to be stated.
//!
//! Owns these runs and their bounds. Unless said otherwise they are the issue's:
//! 4 backends of 5 ms, 1,000 requests a second, the fault from 3 s to 8 s, and
//! the app's policy at its defaults.

use portico::policy::health::Verdict;

use crate::engine::{MILLISECOND, Micros, SECOND};
use crate::faults::{Mode, Schedule};
use crate::load::Arrivals;
use crate::record::{Decided, Record};
use crate::seeds;
use crate::world::{Setup, World};

const FROM_US: Micros = 3 * SECOND;
const UNTIL_US: Micros = 8 * SECOND;

fn run(seed: u64, faults: Schedule) -> Record {
    World::new(Setup {
        faults,
        seed,
        length_us: 12 * SECOND,
        ..Setup::default()
    })
    .run()
}

fn outage(mode: Mode) -> Schedule {
    Schedule::default().outage(0, FROM_US, UNTIL_US, mode)
}

/// The latency that this many of a million requests stayed within.
fn within_us(record: &Record, of_a_million: usize) -> u64 {
    let mut latencies_us = record.latencies_us.clone();
    latencies_us.sort_unstable();
    let at = latencies_us.len() * of_a_million / 1_000_000;
    u64::from(latencies_us[at.min(latencies_us.len() - 1)])
}

fn slower_than(record: &Record, limit_us: Micros) -> usize {
    let latencies_us = record.latencies_us.iter();
    latencies_us.filter(|&&us| u64::from(us) > limit_us).count()
}

fn decisions<'r>(
    record: &'r Record,
    wanted: impl Fn(&Verdict) -> bool + 'r,
) -> impl Iterator<Item = &'r Decided> + 'r {
    let decided = record.decided.iter();
    decided.filter(move |decided| wanted(&decided.verdict))
}

fn is_ejection(verdict: &Verdict) -> bool {
    matches!(verdict, Verdict::Ejected { .. })
}

fn is_return(verdict: &Verdict) -> bool {
    matches!(verdict, Verdict::Readmitted { .. })
}

/// Each backend's part of all tries in a span, in percent.
pub fn shares_percent(
    record: &Record,
    backends: usize,
    from_us: Micros,
    until_us: Micros,
) -> Vec<f64> {
    let tries: Vec<u64> = (0..backends)
        .map(|backend| record.tries_on(backend, from_us, until_us))
        .collect();
    let all: u64 = tries.iter().sum();
    let percent = |&count: &u64| count as f64 * 100.0 / all as f64;
    tries.iter().map(percent).collect()
}

#[test]
fn nothing_wrong_nothing_done() {
    seeds::each(4, |seed| {
        let record = run(seed, Schedule::default());
        assert!(record.failed.is_empty() && record.decided.is_empty());
        assert_eq!(record.retries + record.hedges, 0);
        assert!(within_us(&record, 990_000) <= 6_000);
        for share in shares_percent(&record, 4, 0, 12 * SECOND) {
            assert!((22.5..27.5).contains(&share), "{share} % of four");
        }
    });
}

#[test]
fn a_crash_costs_no_request_and_no_time() {
    seeds::each(10, |seed| {
        let record = run(seed, outage(Mode::Down));
        record.assert_none_failed();
        assert!(within_us(&record, 990_000) <= 5_800);
        // The try that died, and another.
        assert!(within_us(&record, 1_000_000) <= 15_000);
        let tries = record.tries_on(0, FROM_US + SECOND, UNTIL_US);
        assert_eq!(tries, 0, "requests went to a backend known to be gone");
    });
}

#[test]
fn a_frozen_backend_costs_a_few_requests_a_moment() {
    seeds::each(10, |seed| {
        let record = run(seed, outage(Mode::Frozen));
        record.assert_none_failed();
        let slow = slower_than(&record, 250 * MILLISECOND);
        assert!(slow <= 1, "{slow} slower than 250 ms");
        assert!(within_us(&record, 1_000_000) <= 300 * MILLISECOND);
    });
}

#[test]
fn a_backend_that_fails_is_out_within_twenty_requests_and_back_within_two_seconds() {
    for mode in [Mode::Answering(503), Mode::Answering(502), Mode::Resetting] {
        seeds::each(5, |seed| {
            let record = run(seed, outage(mode));
            record.assert_none_failed();
            assert!(within_us(&record, 990_000) <= 7_000, "{mode:?}");
            let out = decisions(&record, is_ejection).next();
            let out_us = out.expect("it must be ejected").at_us;
            let tries = record.tries_on(0, FROM_US, out_us);
            assert!(tries <= 20, "{mode:?}: {tries} tries before it was out");
            let back = decisions(&record, is_return).last();
            let back_us = back.expect("it must be readmitted").at_us;
            assert!(back_us <= UNTIL_US + 2 * SECOND, "{mode:?}: {back_us}");
        });
    }
}

#[test]
fn a_backend_a_hundred_times_slower_is_hardly_met() {
    seeds::each(10, |seed| {
        let record = run(seed, outage(Mode::Slow(100)));
        record.assert_none_failed();
        let slow = slower_than(&record, 250 * MILLISECOND) as f64;
        let permyriad = slow * 10_000.0 / record.requests() as f64;
        assert!(permyriad <= 5.0, "{slow} slower than 250 ms");
    });
}

#[test]
fn crashes_of_two_and_rolling_restarts_cost_no_request() {
    let two = outage(Mode::Down).outage(1, FROM_US, UNTIL_US, Mode::Down);
    let rolling = Schedule::default().rolling_restart(4, SECOND, SECOND, SECOND);
    for faults in [two, rolling] {
        seeds::each(5, |seed| {
            let record = run(seed, faults.clone());
            record.assert_none_failed();
        });
    }
}

/// Failures of requests that arrived before a moment, and of all others.
fn failed_around(record: &Record, at_us: Micros) -> (usize, usize) {
    let failed = record.failed.iter();
    let before = failed.filter(|failed| failed.arrived_us <= at_us).count();
    (before, record.failed.len() - before)
}

#[test]
fn a_pool_that_is_down_answers_as_soon_as_one_is_back() {
    seeds::each(10, |seed| {
        let mut faults = Schedule::default().outage(0, FROM_US, 6 * SECOND, Mode::Down);
        // The others stay away for longer than requests are held.
        for backend in 1..4 {
            faults = faults.outage(backend, FROM_US, 11 * SECOND, Mode::Down);
        }
        let record = World::new(Setup {
            clients: vec![Arrivals::Independent(100.0).into()],
            faults,
            seed,
            length_us: 12 * SECOND,
            ..Setup::default()
        })
        .run();
        let back = decisions(&record, is_return).next();
        let back_us = back.expect("it must be readmitted").at_us;
        assert!(back_us <= 6 * SECOND + 300 * MILLISECOND, "{back_us}");
        let (in_flight, later) = failed_around(&record, FROM_US);
        assert!(in_flight <= 5, "{in_flight} were in flight");
        // Who found the others gone before it was held may meet nobody else.
        assert!(later <= 3, "{later} failed though they arrived later");
    });
}

#[test]
fn a_pool_of_one_loses_only_what_was_in_flight() {
    seeds::each(10, |seed| {
        let faults = Schedule::default().outage(0, FROM_US, 5 * SECOND, Mode::Down);
        let record = World::new(Setup {
            weights: vec![100],
            // Held are as many as may be in flight when it is back: more than
            // that wait for room, where there are 50 places.
            clients: vec![Arrivals::Independent(75.0).into()],
            repeatable_percent: 50,
            faults,
            seed,
            ..Setup::default()
        })
        .run();
        let (in_flight, later) = failed_around(&record, FROM_US);
        assert!(in_flight <= 5, "{in_flight} were in flight");
        assert_eq!(later, 0, "failed though they arrived later");
    });
}

#[test]
fn an_app_that_fails_everywhere_loses_no_backend() {
    let app_wide = [
        (Mode::Answering(500), 0),
        (Mode::Answering(503), 1),
        (Mode::Resetting, 1),
    ];
    for (mode, settled_s) in app_wide {
        for backends in [1, 2, 3, 9] {
            seeds::each(3, |seed| {
                let faults = Schedule::default().everywhere(backends, FROM_US, UNTIL_US, mode);
                let record = World::new(Setup {
                    weights: vec![100; backends],
                    faults,
                    seed,
                    length_us: 12 * SECOND,
                    ..Setup::default()
                })
                .run();
                // One that is ahead of the others may go out, and comes back
                // as soon as they are seen to fail alike.
                let after_us = FROM_US + settled_s * SECOND;
                let out = decisions(&record, is_ejection);
                let out = out.filter(|decided| decided.at_us >= after_us).count();
                assert_eq!(out, 0, "{mode:?}, {backends} backends");
                assert!(record.never_fewer_than(after_us, backends), "{mode:?}");
            });
        }
    }
}

/// From one fault on a healthy pool: how soon it is back, and that shares even
/// out again once its slow start is over.
#[test]
fn what_recovered_returns_and_gets_its_share() {
    let modes = [
        // A connection is tried each second, give or take a tenth.
        (Mode::Down, 1_200),
        (Mode::Unreachable, 2_700),
        (Mode::Answering(504), 2_000),
        (Mode::Resetting, 2_000),
        (Mode::Frozen, 2_000),
    ];
    for (mode, within_ms) in modes {
        for backends in [2, 5, 12] {
            seeds::each(3, |seed| {
                let record = World::new(Setup {
                    routers: 2,
                    weights: vec![100; backends],
                    faults: outage(mode),
                    seed,
                    length_us: 40 * SECOND,
                    ..Setup::default()
                })
                .run();
                let back_us = decisions(&record, is_return).map(|decided| decided.at_us);
                // One that says nothing may be shunned without being taken out.
                let was_out = !matches!(mode, Mode::Frozen | Mode::Unreachable);
                let back_us = back_us.max();
                assert!(
                    back_us.is_some() || !was_out,
                    "{mode:?}: it must be readmitted"
                );
                let back_us = back_us.unwrap_or(UNTIL_US);
                let late_us = back_us.saturating_sub(UNTIL_US);
                assert!(late_us <= within_ms * MILLISECOND, "{mode:?}: {late_us} µs");
                let fair = 100.0 / backends as f64;
                for share in shares_percent(&record, backends, 25 * SECOND, 40 * SECOND) {
                    let apart = (share / fair - 1.0).abs();
                    assert!(apart < 0.15, "{mode:?}: {share} % of {fair} %");
                }
            });
        }
    }
}
