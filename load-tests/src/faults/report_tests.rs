//! Judging, summing up, storing.

use super::*;
use crate::faults::target::Target;

fn run(round: u64, change: impl FnOnce(&mut Figures)) -> Run {
    let mut figures = Figures {
        requests: 10_000,
        tries: 10_000,
        p50_us: 5_200,
        p99_us: 5_700,
        p999_us: 6_000,
        max_us: 9_000,
        ..Figures::default()
    };
    change(&mut figures);
    Run {
        scenario: "kill".to_owned(),
        subject: Subject::Portico,
        version: "0.1.0".to_owned(),
        date: format!("2026-01-0{round}T00:00:00Z"),
        pinned: false,
        realtime: false,
        round,
        figures,
    }
}

fn failing(kind: &str, count: u64) -> impl FnOnce(&mut Figures) {
    let kind = kind.to_owned();
    move |figures| {
        figures.failed.insert(kind, count);
    }
}

fn summary(runs: &[Run]) -> Summary {
    Summary::of(&runs.iter().collect::<Vec<_>>()).unwrap()
}

fn scenario(key: &str) -> &'static Scenario {
    SCENARIOS.iter().find(|one| one.key == key).unwrap()
}

#[test]
fn latencies_are_medians_and_failures_are_sums() {
    let runs = [
        run(1, |figures| figures.max_us = 50_000),
        run(2, failing("503", 1)),
        run(3, |figures| figures.slow = 3),
    ];
    let summary = summary(&runs);
    assert!((summary.max_us - 9_000.0).abs() < 1e-9);
    assert_eq!(summary.failed_total(), 1);
    assert!((summary.slow_share - 0.000_1).abs() < 1e-9);
    assert!(!Target::NoneFailed.met(&summary));
    assert!(Target::MaxUs(15_000).met(&summary));
    assert!(Target::SlowShare(0.000_1).met(&summary));
    assert!(!Target::SlowShare(0.000_09).met(&summary));
}

#[test]
fn what_never_happened_is_not_met() {
    let nothing = summary(&[run(1, |_| ())]);
    for target in [
        Target::OutWithinRequests(20),
        Target::BackWithinMs(2_000),
        Target::FirstSuccessWithinMs(300),
        Target::NoneExecutedTwice,
    ] {
        assert!(!target.met(&nothing), "{target:?}");
        assert!(!target.found(&nothing).is_empty());
    }
    let once_never = summary(&[
        run(1, |figures| figures.back_ms = Some(900)),
        run(2, |figures| figures.never_back = true),
    ]);
    assert!(!Target::BackWithinMs(2_000).met(&once_never));
    let once_no_success = summary(&[
        run(1, |figures| figures.first_success_ms = Some(10.0)),
        run(2, |_| ()),
    ]);
    assert!(!Target::FirstSuccessWithinMs(300).met(&once_no_success));
}

#[test]
fn in_flight_losses_are_excused_only_where_the_scenario_says_so() {
    let lost = summary(&[run(1, |figures| {
        figures.failed.insert("broken".to_owned(), 2);
        figures.failed_in_flight = 2;
    })]);
    assert!(Target::NoneFailedButInFlight.met(&lost));
    assert!(!Target::NoneFailed.met(&lost));
    let more = summary(&[run(1, |figures| {
        figures.failed.insert("broken".to_owned(), 3);
        figures.failed_in_flight = 2;
    })]);
    assert!(!Target::NoneFailedButInFlight.met(&more));
}

#[test]
fn results_come_back_from_their_file_and_later_runs_replace() {
    let folder = tempfile::tempdir().unwrap();
    let mut results = Results::read(folder.path()).unwrap();
    results.add(run(1, |figures| figures.timeline = vec![(1, 2, 3)]));
    results.add(run(2, failing("deadline", 7)));
    results.write(folder.path()).unwrap();
    let mut again = Results::read(folder.path()).unwrap();
    let before = again.summary(scenario("kill"), Subject::Portico).unwrap();
    assert_eq!((before.rounds, before.failed_total()), (2, 7));
    let first = again.first(scenario("kill"), Subject::Portico).unwrap();
    assert_eq!(first.timeline, [(1, 2, 3)]);
    again.add(run(1, |_| ()));
    let after = again.summary(scenario("kill"), Subject::Portico).unwrap();
    assert_eq!((after.rounds, after.failed_total()), (1, 0));
}

#[test]
fn the_table_says_what_was_missed() {
    let mut results = Results::default();
    results.add(run(1, |figures| {
        figures.failed.insert("503".to_owned(), 4);
        figures.max_us = 1_003_000;
    }));
    let markdown = results.markdown();
    assert!(markdown.contains("✗ 4 failed; max 1003 ms"), "{markdown}");
    assert!(markdown.contains("| 4: 4 × 503 |"), "{markdown}");
    assert!(markdown.contains("**missed**"), "{markdown}");
    let met = |change: fn(&mut Figures)| {
        let mut results = Results::default();
        results.add(run(1, change));
        results.markdown()
    };
    assert!(met(|_| ()).contains("| met |"));
}
