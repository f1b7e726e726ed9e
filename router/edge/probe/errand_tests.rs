//! What a backend is probed for, how long, and when next.

use std::sync::Arc;

use super::super::fixture::{self, put};
use super::*;
use crate::feed::messages::{AppRecord, ProbeRecord};
use crate::policy::admission::Joining;
use crate::policy::admission::standing::Pace;
use crate::policy::health::{ConnectFailure, Outcome};
use crate::table::{Table, Told};

const ADDRESS: &str = "127.0.0.1:9";

fn app(record: AppRecord) -> Arc<App> {
    let table = Table::new(1);
    let name = record.name.clone();
    put(&table, record);
    table.app(&name).expect("it was just put")
}

fn probed(backends: usize, interval_ms: u64) -> AppRecord {
    let probe = ProbeRecord {
        interval_ms: Some(interval_ms),
        timeout_ms: Some(100),
        ..ProbeRecord::default()
    };
    fixture::app("a", &vec![ADDRESS; backends], Some(probe))
}

/// A request that is held for the app.
fn waiting() -> Joining {
    Joining {
        limit: 1,
        now_us: 0,
        pace: Pace::of(0),
        held: true,
    }
}

/// Takes the first backend out: nobody answers there.
fn knock_out(app: &App, now_us: Micros) {
    let verdict = app.tell(&Told {
        thread: 0,
        index: 0,
        now_us,
        wall_us: now_us,
        sent_us: now_us,
        waited_us: 0,
        outcome: Outcome::ConnectFailed(ConnectFailure::Refused),
        random: 7,
    });
    assert!(verdict.is_some_and(|verdict| verdict.wants_probe()));
}

fn ended(class: Class, finding: Finding, began_us: Micros, timeouts: u8) -> Ended {
    Ended {
        app: "a".into(),
        key: 0,
        began_us,
        class,
        timeouts,
        finding,
    }
}

/// The time to the next of many probes, the least and the most.
fn spread(app: &App) -> (Micros, Micros) {
    let errand = Errand::of_index(app, 0).expect("it must be probed");
    let mut random = fastrand::Rng::with_seed(1);
    let last = ended(Class::Active, Finding::Well, 1_000_000, 0);
    let watched = app.backends.len();
    let next = std::iter::repeat_with(|| {
        let next = errand.next(app, watched, &last, 1_000_500, &mut random);
        assert_eq!((next.class, next.timeouts), (Class::Active, 0));
        next.due - 1_000_000
    });
    let times: Vec<Micros> = next.take(10_000).collect();
    (
        *times.iter().min().expect("there are many"),
        *times.iter().max().expect("there are many"),
    )
}

#[test]
fn an_interval_is_kept_within_a_tenth() {
    let (least, most) = spread(&app(probed(2, 5_000)));
    assert!((4_500_000..4_510_000).contains(&least), "{least}");
    assert!((5_490_000..=5_500_000).contains(&most), "{most}");
}

#[test]
fn a_large_pool_is_probed_less_often_and_no_app_takes_more_than_its_share() {
    let (least, most) = spread(&app(probed(500, 100)));
    assert!(least >= 500 * ACTIVE_SHARE_US * 9 / 10, "{least}");
    assert!(most <= 500 * ACTIVE_SHARE_US * 11 / 10, "{most}");
}

#[test]
fn first_probes_are_spread_over_the_interval() {
    let app = app(probed(2, 5_000));
    let mut random = fastrand::Rng::with_seed(1);
    let mut tenths = [0; 10];
    for _ in 0..10_000 {
        let due = first_us(&app, 70_000_000, &mut random) - 70_000_000;
        tenths[(due / 500_000) as usize] += 1;
    }
    assert!(
        tenths.iter().all(|of| (800..1_200).contains(of)),
        "{tenths:?}"
    );
}

#[test]
fn a_backend_that_went_away_is_asked_soon_and_sooner_while_requests_wait() {
    let app = app(fixture::app("a", &[ADDRESS; 2], None));
    let key = app.backends[0].key();
    assert!(Errand::of(&app, key).is_none(), "it is well");
    app.live();
    knock_out(&app, 1_000_000);
    let errand = Errand::of(&app, key).expect("it must be asked for");
    assert_eq!((errand.index, errand.class), (0, Class::Return));
    let due = app.next_return_probe_us(0).expect("it is out");
    assert!((1_080_000..=1_120_000).contains(&due), "{due}");
    let mut random = fastrand::Rng::with_seed(1);
    let mut now_us = due;
    let mut next = |wait: &mut dyn FnMut()| {
        let verdict = app.probed(&crate::table::Probed {
            index: 0,
            now_us: now_us + 200,
            passed: false,
            random: 1 << 63,
        });
        assert_eq!(verdict, None);
        wait();
        let last = ended(Class::Return, Finding::Refused, now_us, 0);
        let due = errand.next(&app, 1, &last, now_us + 200, &mut random).due;
        let apart = due - now_us;
        now_us = due;
        apart
    };
    let apart: Vec<Micros> = (0..12).map(|_| next(&mut || {})).collect();
    assert!(
        apart.windows(2).take(4).all(|two| two[0] < two[1]),
        "{apart:?}"
    );
    assert!(
        apart.iter().all(|us| (90_000..=1_100_000).contains(us)),
        "{apart:?}"
    );
    let live = app.live();
    let mut place = None;
    let mut wait = || {
        place.get_or_insert_with(|| live.queue.join(&waiting()));
    };
    let apart: Vec<Micros> = (0..3).map(|_| next(&mut wait)).collect();
    assert_eq!(apart, [HELD_US; 3]);
}

#[test]
fn what_is_drained_or_taken_out_by_hand_is_not_asked_back() {
    let record = |change: fn(&mut crate::feed::messages::BackendRecord)| {
        let mut record = fixture::app("a", &[ADDRESS; 2], None);
        change(&mut record.backends[0]);
        record
    };
    let is_asked = |record: AppRecord, is_probed: bool| {
        let table = Table::new(1);
        let mut before = fixture::app("a", &[ADDRESS; 2], None);
        let probe = is_probed.then(ProbeRecord::default);
        before.policy = fixture::app("a", &[], probe).policy;
        put(&table, before.clone());
        let app = table.app("a").expect("it was just put");
        app.live();
        let key = app.backends[0].key();
        knock_out(&app, 1_000_000);
        assert!(Errand::of(&app, key).is_some());
        put(
            &table,
            AppRecord {
                policy: before.policy,
                ..record
            },
        );
        let app = table.app("a").expect("it was just put");
        Errand::of(&app, key).map(|errand| errand.class)
    };
    for is_probed in [false, true] {
        let same = is_asked(record(|_| {}), is_probed);
        assert_eq!(same, Some(Class::Return));
        let draining = record(|backend| backend.standing = Standing::Draining as i32);
        assert_eq!(is_asked(draining, is_probed), None);
        let elsewhere = record(|backend| backend.address = "127.0.0.1:10".to_owned());
        assert_eq!(is_asked(elsewhere, is_probed), None);
        let again = record(|backend| backend.incarnation += 1);
        assert_eq!(is_asked(again, is_probed), None);
        // Its own probe goes on, so that what is readmitted is known.
        let ejected = is_asked(record(|backend| backend.ejected = true), is_probed);
        assert_eq!(ejected, is_probed.then_some(Class::Active));
    }
}

#[test]
fn connections_are_waited_for_longer_each_time_in_vain() {
    let app = app(fixture::app("a", &[ADDRESS], None));
    app.live();
    knock_out(&app, 1_000_000);
    let errand = Errand::of_index(&app, 0).expect("it must be asked for");
    let waits = [0, 1, 2, 3, 4, 255].map(|timeouts| errand.patience(&app, timeouts).connect);
    let ms = waits.map(|wait| wait.as_millis());
    assert_eq!(ms, [500, 1_000, 2_000, 4_000, 5_000, 5_000]);
    let mut random = fastrand::Rng::with_seed(1);
    let mut timeouts = |finding, before| {
        let last = ended(Class::Return, finding, 0, before);
        errand.next(&app, 1, &last, 0, &mut random).timeouts
    };
    assert_eq!(timeouts(Finding::TimedOut, 3), 4);
    assert_eq!(timeouts(Finding::TimedOut, 255), 255);
    assert_eq!(timeouts(Finding::Refused, 3), 0);
    let _place = app
        .live()
        .queue
        .join(&waiting())
        .expect("there must be room");
    assert_eq!(errand.patience(&app, 4).connect, FIRST_CONNECT);
}
