//! Backends that several share, none of whom knows of the others: a fleet of
//! routers, and apps that run on the same processes.
//!
//! Owns these runs and their bounds.

use crate::clients::Clients;
use crate::engine::{MILLISECOND, Micros, SECOND};
use crate::load::{Arrivals, Service};
use crate::overload::{CAPACITY, PATIENCE_US, SERVICES, Seen, clients, independent, pool, seen};
use crate::seeds;
use crate::world::{Setup, World};

/// A fleet at so many times the capacity.
fn fleet(seed: u64, routers: usize, times: f64, length_us: Micros) -> Setup {
    Setup {
        routers,
        length_us,
        ..pool(seed, vec![clients(independent(times))])
    }
}

/// By then the limits are found, however many the routers are.
const FOUND_US: Micros = 20 * SECOND;

/// Never below this share of what the pool can do, nor longer inside a backend,
/// in any ten seconds of the run.
fn assert_steady(setup: Setup, share: f64, inside_p99_ms: u64) {
    let length_us = setup.length_us;
    let record = World::new(setup).run();
    for from_us in (FOUND_US..length_us).step_by(10 * SECOND as usize) {
        let until_us = (from_us + 10 * SECOND).min(length_us);
        let part = seen(&record, from_us, until_us, None);
        assert!(part.per_second >= share * CAPACITY, "{part:?}");
        let inside_us = u64::from(part.inside_p99_us);
        assert!(inside_us <= inside_p99_ms * MILLISECOND, "{part:?}");
    }
}

#[test]
fn a_fleet_finds_the_limit_together_and_keeps_it() {
    assert_steady(fleet(1, 4, 2.0, 60 * SECOND), 0.93, 100);
    assert_steady(fleet(2, 4, 5.0, 30 * SECOND), 0.93, 100);
    // Less than one worker of each backend for each router: a limit of one is
    // more than its part, and finding that out takes long.
    assert_steady(fleet(1, 16, 2.0, 40 * SECOND), 0.9, 1_000);
}

#[test]
fn clocks_that_differ_change_nothing() {
    let setup = Setup {
        ahead_us: vec![0, 60_000, 130_000, 200_000],
        ..fleet(3, 4, 2.0, 40 * SECOND)
    };
    assert_steady(setup, 0.93, 150);
}

#[test]
fn a_router_that_starts_late_gets_its_part() {
    let of = |router| clients(independent(0.5)).at(router);
    let mut all: Vec<Clients> = (0..3).map(of).collect();
    all.push(of(3).between(5 * SECOND, Micros::MAX));
    let length_us = 30 * SECOND;
    let record = World::new(Setup {
        routers: 4,
        length_us,
        ..pool(1, all)
    })
    .run();
    let late = seen(&record, 10 * SECOND, length_us, Some(3));
    let others = seen(&record, 10 * SECOND, length_us, None);
    assert!(others.per_second >= 0.93 * CAPACITY, "{others:?}");
    assert!(late.per_second >= 0.5 * CAPACITY / 4.0, "{late:?}");
}

/// Two apps on the same processes: one asks for five times what these can do,
/// one for a hundred a second.
#[test]
fn a_quiet_app_that_shares_its_backends_with_a_noisy_one_loses_nothing() {
    for service in SERVICES {
        seeds::each(2, |seed| {
            let noisy = clients(independent(5.0)).at(0);
            let quiet = Clients::from(Arrivals::Independent(100.0))
                .with_patience(PATIENCE_US)
                .at(1);
            let record = World::new(Setup {
                routers: 2,
                service,
                length_us: 10 * SECOND,
                ..pool(seed, vec![noisy, quiet])
            })
            .run();
            let quiet = seen(&record, 0, 10 * SECOND, Some(1));
            assert_eq!((quiet.shed, quiet.left), (0, 0), "{service:?}: {quiet:?}");
        });
    }
}

/// Two apps of each router on the same processes: what the second one saw, what
/// the first, after the time it takes to find the limit.
fn beside(routers: usize, service: Service, seed: u64, first: f64, second: f64) -> (Seen, Seen) {
    let each = |per_second: f64, app: usize| {
        let arrivals = Arrivals::Independent(per_second / routers as f64);
        (0..routers).map(move |router| clients(arrivals).at(2 * router + app))
    };
    let record = World::new(Setup {
        routers: 2 * routers,
        apps: 2,
        service,
        length_us: 25 * SECOND,
        ..pool(seed, each(first, 0).chain(each(second, 1)).collect())
    })
    .run();
    let of = |app| seen(&record, 5 * SECOND, 25 * SECOND, Some(app));
    (of(0), of(1))
}

#[test]
fn a_quiet_app_beside_a_noisy_one_at_the_same_router_waits_for_nobody() {
    seeds::each(3, |seed| {
        let (noisy, quiet) = beside(1, SERVICES[0], seed, 5.0 * CAPACITY, 100.0);
        assert_eq!((quiet.shed, quiet.left), (0, 0), "{quiet:?}");
        assert!(u64::from(quiet.p99_us) <= 21 * MILLISECOND, "{quiet:?}");
        assert!(noisy.per_second >= 0.8 * CAPACITY, "{noisy:?}");
    });
    for service in &SERVICES[1..] {
        let (noisy, quiet) = beside(1, *service, 1, 5.0 * CAPACITY, 100.0);
        assert_eq!((quiet.shed, quiet.left), (0, 0), "{quiet:?}");
        assert!(noisy.per_second >= 0.7 * CAPACITY, "{service:?}: {noisy:?}");
    }
}

#[test]
fn apps_that_all_want_more_than_there_is_have_equal_parts() {
    for service in SERVICES {
        let (one, other) = beside(1, service, 1, 5.0 * CAPACITY, 1.5 * CAPACITY);
        let sum = one.per_second + other.per_second;
        assert!(sum >= 0.9 * CAPACITY, "{service:?}: {one:?} {other:?}");
        if service == SERVICES[0] {
            let inside_us = one.inside_p99_us.max(other.inside_p99_us);
            assert!(
                u64::from(inside_us) <= 27 * MILLISECOND,
                "{one:?} {other:?}"
            );
        }
        let part = other.per_second / sum;
        assert!((0.4..0.6).contains(&part), "{service:?}: {one:?} {other:?}");
    }
}

#[test]
fn an_app_that_is_left_alone_has_all_there_is() {
    let noisy = clients(independent(5.0)).at(0);
    let quiet = Clients::from(Arrivals::Independent(100.0)).between(0, 5 * SECOND);
    let record = World::new(Setup {
        routers: 2,
        apps: 2,
        length_us: 30 * SECOND,
        ..pool(1, vec![noisy, quiet.at(1)])
    })
    .run();
    let alone = seen(&record, 20 * SECOND, 30 * SECOND, Some(0));
    assert!(alone.per_second >= 0.97 * CAPACITY, "{alone:?}");
}

#[test]
fn of_a_fleet_that_shares_its_backends_no_quiet_app_loses_anything() {
    for routers in [2, 4] {
        let (noisy, quiet) = beside(routers, SERVICES[0], 1, 5.0 * CAPACITY, 100.0);
        assert_eq!((quiet.shed, quiet.left), (0, 0), "{routers}: {quiet:?}");
        let part = 0.7 * CAPACITY / routers as f64;
        assert!(noisy.per_second >= part, "{routers}: {noisy:?}");
    }
}
