//! The glue: what is published, when it is read, and that no thread loses what
//! another found.

use std::sync::atomic::AtomicBool;
use std::thread;

use super::*;
use crate::feed::messages::{AppRecord, BackendRecord, Change, Delta, Op, PolicyRecord};
use crate::policy::admission::Joining;
use crate::policy::admission::standing::Pace;
use crate::policy::balance::Tried;
use crate::policy::health::{ConnectFailure, Reason};
use crate::policy::retry::Retry;
use crate::table::{Table, tests};

#[path = "vitals_evidence_tests.rs"]
mod evidence;

const MS: u64 = 1_000;
const SECOND_US: u64 = 1_000 * MS;
const REFUSED: Outcome = Outcome::ConnectFailed(ConnectFailure::Refused);
const OK: Outcome = Outcome::Answered {
    status: 200,
    first_byte_us: 5 * MS,
};
const BUSY: Outcome = Outcome::Answered {
    status: 503,
    first_byte_us: MS,
};

fn record(ports: &[u16]) -> AppRecord {
    let backend = |&port: &u16| BackendRecord {
        id: format!("web.{port}"),
        address: format!("10.0.0.1:{port}"),
        weight: 100,
        incarnation: 1,
        ..BackendRecord::default()
    };
    AppRecord {
        name: "shop".to_owned(),
        domains: vec!["shop.example".to_owned()],
        backends: ports.iter().map(backend).collect(),
        ..AppRecord::default()
    }
}

fn put(table: &Table, record: AppRecord) -> Arc<App> {
    let to = table.revision() + 1;
    let record = AppRecord {
        revision: to,
        ..record
    };
    let nacks = tests::put(table, vec![record]);
    assert!(nacks.is_empty(), "{nacks:?}");
    table.app("shop").unwrap()
}

fn app(ports: &[u16]) -> (Table, Arc<App>) {
    let table = Table::new(2);
    let app = put(&table, record(ports));
    (table, app)
}

fn ask(now_us: u64, random: u64, tried: &Tried) -> Ask<'_> {
    Ask {
        now_us,
        random,
        tried,
        repeatable: true,
        hedge: false,
    }
}

fn choose(app: &App, now_us: u64) -> Choice {
    app.choose(&ask(now_us, fastrand::u64(..), &Tried::default()))
}

fn tell(app: &App, index: usize, now_us: u64, outcome: Outcome) -> Option<Verdict> {
    app.tell(&Told {
        thread: 0,
        index,
        now_us,
        wall_us: now_us,
        sent_us: now_us - 1,
        waited_us: 1,
        outcome,
        random: 1 << 63,
    })
}

fn probe(app: &App, index: usize, now_us: u64) -> Option<Verdict> {
    app.probed(&Probed {
        index,
        now_us,
        passed: true,
        random: 0,
    })
}

fn is_marked(app: &App) -> bool {
    app.live().unsettled.load(SeqCst) != 0
}

fn chosen(app: &App, now_us: u64) -> [u32; 4] {
    let mut counts = [0; 4];
    for _ in 0..2_000 {
        match choose(app, now_us) {
            Choice::Backend(index) => counts[index] += 1,
            other => panic!("{other:?}"),
        }
    }
    counts
}

#[test]
fn a_backend_goes_out_comes_back_and_settles() {
    let (_table, app) = app(&[1, 2, 3]);
    let mut now_us = SECOND_US;
    for _ in 0..100 {
        assert_eq!(tell(&app, 0, now_us, OK), None);
    }
    assert!(!is_marked(&app));
    let verdict = tell(&app, 1, now_us, REFUSED);
    assert!(verdict.is_some_and(|verdict| verdict.wants_probe()));
    assert_eq!(chosen(&app, now_us)[1], 0);
    let due_us = app.next_return_probe_us(1).unwrap();
    assert!((now_us + 90 * MS..=now_us + 110 * MS).contains(&due_us));
    now_us = due_us;
    assert!(probe(&app, 1, now_us).is_some());
    assert_eq!(app.next_return_probe_us(1), None);
    let few = chosen(&app, now_us)[1];
    assert!((20..300).contains(&few), "ramping: {few}");
    assert!(is_marked(&app));
    now_us += 10 * SECOND_US;
    let fair = chosen(&app, now_us)[1];
    assert!((500..850).contains(&fair), "{fair}");
    assert!(!is_marked(&app), "all are settled again");
}

#[test]
fn one_request_at_a_time_is_the_trial_and_a_lost_one_is_given_back() {
    let (_table, app) = app(&[1, 2]);
    let mut now_us = SECOND_US;
    for _ in 0..5 {
        tell(&app, 0, now_us, BUSY);
    }
    now_us += SECOND_US;
    assert_eq!(choose(&app, now_us), Choice::Trial(0));
    assert_eq!(choose(&app, now_us), Choice::Backend(1));
    app.forsake(0, now_us - 1);
    assert_eq!(choose(&app, now_us), Choice::Backend(1), "not that one's");
    app.forsake(0, now_us);
    assert_eq!(choose(&app, now_us), Choice::Trial(0));
    // Lost without a word.
    now_us += 10 * SECOND_US;
    assert_eq!(choose(&app, now_us), Choice::Trial(0));
    let verdict = tell(&app, 0, now_us + 1, OK);
    assert!(matches!(verdict, Some(Verdict::Readmitted { .. })));
    // Its claim is over.
    app.forsake(0, now_us);
    assert!(Candidates::state(&*app, 0).is_in_rotation());
}

#[test]
fn when_nobody_is_there_the_one_that_failed_longest_ago_is_named() {
    let (_table, app) = app(&[1, 2, 3]);
    for (at, index) in [2, 0, 1].into_iter().enumerate() {
        tell(&app, index, SECOND_US + at as u64, REFUSED);
    }
    assert_eq!(choose(&app, SECOND_US + 10), Choice::AllOut(2));
}

#[test]
fn those_who_wait_are_woken_when_one_comes_back() {
    let (_table, app) = app(&[1]);
    tell(&app, 0, SECOND_US, REFUSED);
    let live = app.live();
    let waiter = live.queue.join(&waiting()).unwrap();
    let mut waiter = std::pin::pin!(waiter);
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    assert!(waiter.as_mut().poll(&mut context).is_pending());
    // Awaited, it is looked for every tenth of a second.
    let due_us = app.next_return_probe_us(0).unwrap();
    assert!(due_us <= SECOND_US + 100 * MS);
    assert!(probe(&app, 0, SECOND_US + 50 * MS).is_some());
    assert!(waiter.as_mut().poll(&mut context).is_ready());
}

#[test]
fn a_backend_that_joins_traffic_ramps_up_and_one_that_begins_it_does_not() {
    let (table, cold) = app(&[1, 2]);
    assert!(cold.existing_live().is_none());
    // A cold app's new backend is like the others.
    let hot = put(&table, record(&[1, 2, 3]));
    hot.live();
    let counts = chosen(&hot, SECOND_US);
    assert!(counts[2] > 500, "{counts:?}");
    let joined = put(&table, record(&[1, 2, 3, 4]));
    let counts = chosen(&joined, SECOND_US);
    assert!((10..200).contains(&counts[3]), "{counts:?}");
    let counts = chosen(&joined, 12 * SECOND_US);
    assert!(counts[3] > 350, "{counts:?}");
    // All replaced at once: nobody is there to take the traffic meanwhile.
    let replaced = put(&table, record(&[11, 12]));
    chosen(&replaced, 20 * SECOND_US);
    assert!(!is_marked(&replaced));
}

#[test]
fn a_change_of_the_table_keeps_who_is_out_and_an_old_version_takes_no_mark_away() {
    let (table, old) = app(&[1, 2]);
    tell(&old, 0, SECOND_US, OK);
    let new = put(&table, record(&[1, 2, 3]));
    tell(&new, 2, SECOND_US, REFUSED);
    // The old version does not know the one that is out.
    assert_ne!(choose(&old, 60 * SECOND_US), Choice::NoneLeft);
    assert!(is_marked(&new));
    tell(&new, 0, SECOND_US, REFUSED);
    let newer = put(&table, record(&[1, 2, 3]));
    assert_eq!(choose(&newer, SECOND_US + 1), Choice::Backend(1));
    let mut moved = record(&[1, 2, 3]);
    moved.backends[0].address = "10.0.0.1:100".to_owned();
    let moved = put(&table, moved);
    assert!(
        Candidates::state(&*moved, 0).is_in_rotation(),
        "another process"
    );
}

#[test]
fn only_who_saw_the_newest_mark_takes_it_away() {
    let (_table, app) = app(&[1, 2]);
    let live = app.live();
    live.unsettle();
    let first = live.unsettled.load(SeqCst);
    live.unsettle();
    app.settle(live, first, SECOND_US, 0);
    assert!(is_marked(&app), "something changed since");
    app.settle(live, live.unsettled.load(SeqCst), SECOND_US, 0);
    assert!(!is_marked(&app));
}

#[test]
fn an_app_remembers_that_it_was_up() {
    let (table, app) = app(&[1]);
    assert!(!app.has_been_up());
    app.live();
    app.connected(0);
    assert!(app.has_been_up());
    let mut moved = record(&[1]);
    moved.backends[0].address = "10.0.0.1:100".to_owned();
    assert!(put(&table, moved).has_been_up());
}

#[test]
fn a_policy_without_ejection_ignores_what_was_found_before() {
    let (table, app) = app(&[1, 2]);
    tell(&app, 0, SECOND_US, REFUSED);
    let mut lenient = record(&[1, 2]);
    lenient.policy = Some(PolicyRecord {
        ejection: Some(false),
        ..PolicyRecord::default()
    });
    let lenient = put(&table, lenient);
    let counts = chosen(&lenient, SECOND_US);
    assert!(counts[0] > 800, "{counts:?}");
}

#[test]
fn hedges_come_when_the_policy_says() {
    let (table, app) = app(&[1]);
    assert_eq!(app.hedge_after_us(), None);
    assert_eq!(app.overdue_after_us(), SECOND_US, "unknown");
    for _ in 0..64 {
        tell(&app, 0, SECOND_US, OK);
    }
    assert_eq!(app.overdue_after_us(), 100 * MS);
    let mut chosen = record(&[1]);
    let hedge = crate::feed::messages::HedgeRecord {
        permille: Some(950),
        ..Default::default()
    };
    chosen.policy = Some(PolicyRecord {
        hedge: Some(hedge),
        ..PolicyRecord::default()
    });
    let after_us = put(&table, chosen).hedge_after_us().unwrap();
    assert!((5 * MS..=6_250).contains(&after_us), "{after_us}");
}

#[test]
fn retries_are_a_share_of_the_requests_begun() {
    let (_table, app) = app(&[1]);
    let all = |now_us| {
        let granted = (0..1_000).filter(|_| app.withdraw_retry(now_us, Retry::Again));
        granted.count()
    };
    assert_eq!(all(SECOND_US), 20, "what time leaves");
    for _ in 0..100 {
        app.live().cells[0].begin();
        app.live().cells[1].begin();
        app.live().cells[1].answered(200, None, 1, 1);
    }
    assert_eq!(all(SECOND_US + 1), 40);
}

#[test]
fn a_report_says_how_each_backend_does() {
    let (_table, app) = app(&[1, 2]);
    tell(&app, 0, SECOND_US, OK);
    tell(&app, 1, 2 * SECOND_US, REFUSED);
    let moment = Moment {
        now_us: 5 * SECOND_US,
        unix_ms: 1_000_000,
    };
    let report = app.report(Some(moment));
    let (well, out) = (&report.backends[0], &report.backends[1]);
    assert_eq!(
        (well.health, well.since_ms, well.share_permille),
        (0, 0, 1_000)
    );
    assert_eq!(well.latency_us, 5 * MS);
    assert_eq!(out.health, Shown::Ejected as i32);
    assert_eq!(out.reason, Reason::ConnectRefused.word());
    assert_eq!(
        (out.since_ms, out.ejections, out.share_permille),
        (997_000, 1, 0)
    );
}

/// Threads tell successes, failures and probes of the same backends and choose
/// all the while. Whenever all are still, choices agree with the states.
#[test]
fn no_thread_loses_what_another_found() {
    let (_table, app) = app(&[1, 2, 3, 4]);
    for round in 1..200u64 {
        let now_us = round * 100 * SECOND_US;
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    while !stop.load(Relaxed) {
                        let _ = choose(&app, now_us);
                        tell(&app, 0, now_us, OK);
                    }
                });
            }
            let failing = scope.spawn(|| {
                for index in 1..4 {
                    tell(&app, index, now_us + 1, REFUSED);
                }
                probe(&app, 3, now_us + SECOND_US);
            });
            failing.join().unwrap();
            stop.store(true, Relaxed);
        });
        let states: Vec<_> = (0..4).map(|at| Candidates::state(&*app, at)).collect();
        for gone in &states[1..3] {
            assert!(!gone.is_in_rotation(), "round {round}: {states:?}");
        }
        assert!(is_marked(&app), "round {round}");
        let counts = chosen(&app, now_us + SECOND_US);
        assert_eq!(counts[1] + counts[2], 0, "round {round}: {counts:?}");
        for index in 1..4 {
            app.readmit(index, now_us + SECOND_US);
        }
    }
}

/// Many threads want the same trial.
#[test]
fn a_trial_is_claimed_once() {
    let (_table, app) = app(&[1, 2]);
    for round in 1..300u64 {
        let now_us = round * 100 * SECOND_US;
        for _ in 0..5 {
            tell(&app, 0, now_us, BUSY);
        }
        let now_us = now_us + SECOND_US;
        let trials: usize = thread::scope(|scope| {
            let claim = || usize::from(choose(&app, now_us) == Choice::Trial(0));
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(claim)).collect();
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap())
                .sum()
        });
        assert_eq!(trials, 1, "round {round}");
        app.readmit(0, now_us);
    }
}

/// A request that asks for one of ten places in line.
fn waiting() -> Joining {
    Joining {
        limit: 10,
        now_us: 0,
        pace: Pace::of(0),
        held: false,
    }
}
