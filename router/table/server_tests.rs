//! Apps that share a server, through the table.

use std::thread;

use super::*;
use crate::feed::messages::{AppRecord, BackendRecord};
use crate::policy::admission::Joining;
use crate::policy::admission::standing::Pace;
use crate::policy::balance::Candidates;
use crate::policy::concurrency::FIRST;
use crate::table::{App, Checkout, Table, tests};

const SHARED: &str = "10.0.0.1:9001";
const OWN: &str = "10.0.0.1:9002";

fn put(table: &Table, name: &str, address: &str, incarnation: u64) -> Arc<App> {
    let to = table.revision() + 1;
    let record = AppRecord {
        name: name.to_owned(),
        domains: vec![format!("{name}.example")],
        backends: vec![BackendRecord {
            id: "web.1".to_owned(),
            address: address.to_owned(),
            weight: 100,
            incarnation,
            ..BackendRecord::default()
        }],
        revision: to,
        ..AppRecord::default()
    };
    let nacks = tests::put(table, vec![record]);
    assert!(nacks.is_empty(), "{nacks:?}");
    table.app(name).unwrap()
}

fn take(app: &Arc<App>) -> Option<Checkout> {
    Checkout::take(app, 0, 1_000_000, false)
}

/// As many as it may have at once.
fn fill(app: &Arc<App>) -> Vec<Checkout> {
    std::iter::from_fn(|| take(app)).take(1_000).collect()
}

fn share(app: &App) -> Option<&Share> {
    app.backends[0].live().share.get()
}

/// What waits for its server's answers.
fn all(app: &App) -> u32 {
    share(app).unwrap().crowd().all
}

fn apps_of(app: &App) -> u32 {
    let share = share(app).unwrap();
    share.apps(share.crowd())
}

/// Two apps that have found out that they share a server.
fn two() -> (Table, Arc<App>, Arc<App>) {
    let table = Table::new(1);
    let (noisy, quiet) = (
        put(&table, "noisy", SHARED, 1),
        put(&table, "quiet", SHARED, 1),
    );
    for app in [&noisy, &quiet, &noisy] {
        drop(take(app));
    }
    (table, noisy, quiet)
}

#[test]
fn apps_that_have_an_address_each_share_nothing() {
    let table = Table::new(1);
    let (one, other) = (put(&table, "one", SHARED, 1), put(&table, "other", OWN, 1));
    let held = (fill(&one), fill(&other));
    assert_eq!(
        (held.0.len(), held.1.len()),
        (FIRST as usize, FIRST as usize)
    );
    assert!(share(&one).is_none() && share(&other).is_none());
}

#[test]
fn one_fills_a_server_and_the_other_gets_its_share_all_the_same() {
    let (_table, noisy, quiet) = two();
    let held = fill(&noisy);
    assert_eq!(held.len(), FIRST as usize);
    assert!(noisy.is_full(0) && !quiet.is_full(0));
    assert_eq!(quiet.in_flight(0), FIRST, "balancing knows of the others");
    assert_eq!(quiet.backends[0].in_flight(), 0, "reports do not");
    let few = fill(&quiet);
    assert_eq!(few.len(), FIRST as usize / 2);
    assert!(noisy.is_full(0) && quiet.is_full(0));
    // What is free again is whoever's comes while there are fewer than the limit.
    drop(held);
    assert!(!noisy.is_full(0) && !quiet.is_full(0));
    drop(few);
    assert_eq!(all(&noisy), 0);
}

#[test]
fn a_request_whose_answer_began_or_whose_client_is_waited_for_takes_no_place() {
    let (_table, noisy, quiet) = two();
    let held = fill(&noisy);
    let awaiting = || all(&quiet);
    assert_eq!(awaiting(), FIRST);
    held[0].heard();
    held[1].park();
    assert_eq!(awaiting(), FIRST - 2);
    held[1].unpark();
    held[0].heard();
    assert_eq!(awaiting(), FIRST - 1);
    drop(held);
    assert_eq!(awaiting(), 0);
}

#[test]
fn who_was_there_alone_counts_from_before_it_was_shared() {
    let table = Table::new(1);
    let noisy = put(&table, "noisy", SHARED, 1);
    let held = fill(&noisy);
    let quiet = put(&table, "quiet", SHARED, 1);
    let one = take(&quiet);
    assert!(one.is_some() && share(&noisy).is_some());
    assert!(take(&noisy).is_none(), "it has all there is");
    drop(held);
    assert_eq!(all(&noisy), 1);
}

#[test]
fn an_app_that_had_no_request_for_a_while_has_no_share() {
    let (_table, noisy, quiet) = two();
    let term_us = 1 << TERM_BITS;
    let at = |app, term: u64| drop(Checkout::take(app, 0, term * term_us, false));
    let apps = || apps_of(&noisy);
    assert_eq!(apps(), 2);
    at(&noisy, 7);
    assert_eq!(apps(), 1, "long ago");
    at(&quiet, 7);
    at(&quiet, 7);
    assert_eq!(apps(), 2);
    at(&noisy, 8);
    assert_eq!(apps(), 2, "a moment ago");
    // A clock that was read before another thread's.
    at(&quiet, 7);
    at(&noisy, 9);
    assert_eq!(apps(), 1);
}

#[test]
fn an_app_registered_anew_or_twice_shares_with_nobody() {
    let table = Table::new(1);
    for incarnation in 1..4 {
        let app = put(&table, "shop", SHARED, incarnation);
        assert!(take(&app).is_some());
        assert!(share(&app).is_none());
    }
}

#[test]
fn an_app_that_registers_a_process_twice_has_no_more_of_it() {
    let table = Table::new(1);
    let to = table.revision() + 1;
    let backend = |id: &str| BackendRecord {
        id: id.to_owned(),
        address: SHARED.to_owned(),
        weight: 100,
        incarnation: 1,
        ..BackendRecord::default()
    };
    let put_twice = AppRecord {
        name: "twice".to_owned(),
        domains: vec!["twice.example".to_owned()],
        backends: vec![backend("web.1"), backend("web.2")],
        revision: to,
        ..AppRecord::default()
    };
    tests::put(&table, vec![put_twice]);
    let twice = table.app("twice").unwrap();
    let twice = &twice;
    let by = |index| std::iter::from_fn(move || Checkout::take(twice, index, 1_000_000, false));
    drop((by(0).next(), by(1).next()));
    let alone: Vec<_> = by(0).chain(by(1)).take(1_000).collect();
    assert_eq!(alone.len(), FIRST as usize, "one process, one limit");
    let quiet = put(&table, "quiet", SHARED, 1);
    let one = take(&quiet);
    assert!(one.is_some());
    assert_eq!(apps_of(&quiet), 2);
    drop(alone);
    let rest: Vec<_> = by(1).chain(by(0)).take(1_000).collect();
    assert_eq!(rest.len(), FIRST as usize - 1);
    assert_eq!(fill(&quiet).len(), FIRST as usize / 2 - 1);
}

#[test]
fn an_app_whose_requests_take_long_counts_while_they_do() {
    let (_table, noisy, quiet) = two();
    let long = take(&quiet);
    let later = |app| Checkout::take(app, 0, 100 << TERM_BITS, false);
    drop(later(&noisy));
    assert_eq!(apps_of(&noisy), 2);
    drop(long);
    assert_eq!(apps_of(&noisy), 1);
}

#[test]
fn a_server_ends_with_its_last_backend_and_addresses_are_forgotten() {
    let (table, noisy, quiet) = two();
    let known = || {
        let shards = table.hot.servers.shards.iter();
        shards
            .map(|shard| shard.lock().unwrap().map.len())
            .sum::<usize>()
    };
    assert_eq!(known(), 1);
    drop((noisy, quiet));
    for incarnation in 2..1_000 {
        let address = format!("10.0.{}.{}:80", incarnation / 250, incarnation % 250);
        let app = put(&table, "noisy", &address, incarnation);
        assert!(take(&app).is_some());
    }
    // As many as each lock may leave, not as there ever were.
    assert!(known() <= SHARDS * 20, "{}", known());
    for _ in 0..SHARDS {
        table.hot.servers.sweep();
    }
    // That of the quiet one, which the table holds, and the last.
    assert_eq!(known(), 2);
    let again = put(&table, "noisy", SHARED, 5_000);
    drop(take(&again));
    assert!(share(&again).is_some(), "the quiet one is still there");
}

#[test]
fn an_answer_lets_two_on_where_there_is_room_for_both() {
    let (_table, noisy, _quiet) = two();
    let mut held = fill(&noisy);
    let joining = Joining {
        limit: 10,
        now_us: 0,
        pace: Pace::of(0),
        held: false,
    };
    let queue = &noisy.live().queue;
    let mut places: Vec<_> = (0..3).map(|_| queue.join(&joining).unwrap()).collect();
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    let mut woken = || {
        let turns = places
            .iter_mut()
            .map(|place| std::pin::Pin::new(place).poll(&mut context));
        turns.filter(|turn| turn.is_ready()).count()
    };
    assert_eq!(woken(), 0);
    drop(held.pop());
    assert_eq!(woken(), 2);
    drop(held.split_off(4));
    drop(held);
}

#[test]
fn counts_come_out_whatever_happens_at_once() {
    let (_table, noisy, quiet) = two();
    thread::scope(|scope| {
        for app in [&noisy, &quiet, &noisy, &quiet] {
            scope.spawn(move || {
                for round in 0..2_000 {
                    let Some(checkout) = take(app) else {
                        continue;
                    };
                    match round % 3 {
                        0 => checkout.heard(),
                        1 => {
                            checkout.park();
                            checkout.unpark();
                        }
                        _ => {}
                    }
                }
            });
        }
    });
    assert_eq!(all(&noisy), 0);
    assert_eq!(noisy.in_flight(0) + quiet.in_flight(0), 0);
    assert_eq!(fill(&quiet).len(), FIRST as usize);
}
