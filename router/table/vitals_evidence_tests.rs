//! What the glue lets count against whom, and what ends with an app.

use super::*;
use crate::policy::hedge::Patience;
use crate::table::Waiting;

#[test]
fn a_slow_upload_is_not_held_against_the_backend() {
    let (_table, app) = app(&[1, 2]);
    let now_us = 100 * SECOND_US;
    tell(&app, 0, now_us, OK);
    let told = |waited_us, outcome| Told {
        thread: 0,
        index: 0,
        now_us,
        wall_us: now_us,
        sent_us: now_us - 60 * SECOND_US,
        waited_us,
        outcome,
        random: 0,
    };
    app.tell(&told(0, Outcome::TimedOut));
    app.tell(&told(4 * MS, Outcome::Overdue));
    let latency_us = || app.backends[0].live().latency.measured_us();
    assert_eq!(latency_us(), 5 * MS);
    app.tell(&told(45 * MS, Outcome::Overdue));
    assert_eq!(latency_us(), 15 * MS);
}

#[test]
fn what_was_given_up_counts_among_the_slow_ones() {
    let (table, app) = app(&[1, 2]);
    let mut chosen = record(&[1, 2]);
    let hedge = crate::feed::messages::HedgeRecord {
        permille: Some(950),
        ..Default::default()
    };
    chosen.policy = Some(PolicyRecord {
        hedge: Some(hedge),
        ..PolicyRecord::default()
    });
    app.live();
    let app = put(&table, chosen);
    // Each tenth is slow, and overtaken as soon as the policy says.
    let mut now_us = SECOND_US;
    for n in 0..2_000u64 {
        now_us += MS;
        if n % 10 == 0 {
            let after_us = app.hedge_after_us().unwrap();
            app.gave_up(1, 0, now_us, after_us + 5 * MS);
        }
        tell(&app, 0, now_us, OK);
    }
    let after_us = app.hedge_after_us().unwrap();
    assert!(after_us > 7 * MS, "no slower than the winners: {after_us}");
}

#[test]
fn an_app_that_answers_errors_is_not_silent() {
    for status in [500, 503] {
        let (_table, app) = app(&[1, 2]);
        let now_us = 100 * SECOND_US;
        let error = Outcome::Answered {
            status,
            first_byte_us: MS,
        };
        for _ in 0..2 {
            tell(&app, 0, now_us - SECOND_US, Outcome::Overdue);
        }
        tell(&app, 0, now_us, error);
        assert_eq!(app.backends[0].live().heard_us(), now_us);
        let patience = app.patience(&Waiting {
            index: 0,
            now_us: now_us + 500 * MS,
            waited_us: 4_000 * MS,
            overtakes: false,
        });
        assert_eq!(app.quiet_us(0, now_us + MS), MS);
        assert!(matches!(patience, Some(Patience::Again { .. })), "{status}");
        // A retry prefers who does better than that.
        let is_preferred = Candidates::answered_us(&*app, 0) == now_us;
        assert_eq!(is_preferred, status == 500);
    }
}

#[test]
fn who_passed_the_trial_is_not_shunned_for_what_it_took_before() {
    let (_table, app) = app(&[1, 2]);
    let mut now_us = 100 * SECOND_US;
    for index in (0..2).cycle().take(200) {
        now_us += MS;
        tell(&app, index, now_us, OK);
    }
    let overdue = |now_us| Told {
        thread: 0,
        index: 0,
        now_us,
        wall_us: now_us,
        sent_us: now_us - 100 * MS,
        waited_us: 400 * MS,
        outcome: Outcome::Overdue,
        random: 0,
    };
    now_us += SECOND_US;
    for _ in 0..3 {
        app.tell(&overdue(now_us));
    }
    now_us += SECOND_US;
    assert_eq!(choose(&app, now_us), Choice::Trial(0));
    assert!(app.backends[0].live().latency.read_us(now_us) > 50 * MS);
    let verdict = tell(&app, 0, now_us + 1, OK);
    assert!(matches!(verdict, Some(Verdict::Readmitted { .. })));
    // A tenth of its share, as any that ramps up.
    let few = chosen(&app, now_us + 2)[0];
    assert!(few > 100, "{few}");
}

#[test]
fn a_mark_that_an_old_cold_version_took_away_is_set_again() {
    let (table, old) = app(&[1, 2]);
    let new = put(&table, record(&[1, 2, 3]));
    tell(&new, 2, SECOND_US, REFUSED);
    // It does not know that one, nor that it is not the newest.
    old.live();
    assert!(matches!(choose(&old, 2 * SECOND_US), Choice::Backend(_)));
    assert!(!is_marked(&new));
    tell(&new, 2, SECOND_US + 1, REFUSED);
    assert!(is_marked(&new));
    assert_eq!(chosen(&new, SECOND_US + 2)[2], 0);
}

#[test]
fn who_waits_for_an_app_that_is_deleted_is_woken() {
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    for is_whole in [false, true] {
        let (table, app) = app(&[1]);
        let waiter = app.live().queue.join(&waiting()).unwrap();
        let mut waiter = std::pin::pin!(waiter);
        assert!(waiter.as_mut().poll(&mut context).is_pending());
        if is_whole {
            assert!(table.install().finish(9).is_empty());
        } else {
            let delta = Delta {
                from: table.revision(),
                to: table.revision() + 1,
                ops: vec![Op {
                    change: Some(Change::Delete("shop".to_owned())),
                }],
                ..Delta::default()
            };
            assert!(table.apply(&delta).is_empty());
        }
        assert!(table.app("shop").is_none());
        assert!(waiter.as_mut().poll(&mut context).is_ready(), "{is_whole}");
    }
}
