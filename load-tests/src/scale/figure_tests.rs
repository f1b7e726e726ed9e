//! The figures' arithmetic.

use super::*;

fn exchange(due_us: u64, ended_us: u64, end: End) -> Exchange {
    Exchange {
        due_us,
        sent_us: due_us,
        ended_us,
        end,
    }
}

#[test]
fn quantiles_are_values_that_were_there() {
    let sorted: Vec<u64> = (1..=100).collect();
    assert!((quantile(&sorted, 0.99) - 99.0).abs() < 1e-9);
    assert!((quantile(&sorted, 1.0) - 100.0).abs() < 1e-9);
    assert!((quantile(&[7], 0.5) - 7.0).abs() < 1e-9);
    assert!(quantile(&[], 0.5).is_nan());
}

fn figure(key: &str, value: f64) -> Figure {
    Figure {
        key: key.to_owned(),
        value,
    }
}

#[test]
fn a_figure_that_could_not_be_had_is_not_met() {
    let takeover = |value| figure("takeover_ms", value);
    assert_eq!(takeover(50.0).is_met(), Some(true));
    assert_eq!(takeover(50.1).is_met(), Some(false));
    assert_eq!(takeover(f64::NAN).is_met(), Some(false));
    assert_eq!(figure("kills", 1.0).is_met(), None);
    assert_eq!(takeover(f64::NAN).shown(), "–");
    assert_eq!(takeover(12.345).shown(), "12.3 ms");
    assert_eq!(figure("lost", 0.0).shown(), "0");
}

#[test]
fn a_figure_survives_its_json() {
    let json = serde_json::to_string(&figure("lost", f64::NAN)).unwrap();
    let back: Figure = serde_json::from_str(&json).unwrap();
    assert!(back.value.is_nan() && back.key == "lost");
}

#[test]
fn latencies_are_of_the_requests_due_in_the_windows() {
    let exchanges = [
        exchange(0, 10, End::Answered),
        exchange(100, 140, End::Answered),
        exchange(150, 155, End::Answered),
        exchange(160, 1_160, End::Deadline),
        exchange(170, 171, End::Status(503)),
        exchange(180, 0, End::Deadline),
        exchange(300, 307, End::Answered),
    ];
    let windows = [(100, 200), (300, 400)];
    assert_eq!(latencies_us(&exchanges, &windows), [5, 7, 40, 1_000]);
}

#[test]
fn what_the_harness_cut_short_has_not_failed() {
    let exchanges = [
        exchange(0, 1, End::Answered),
        exchange(0, 1, End::Status(503)),
        exchange(0, 1, End::Broken),
        exchange(0, 1, End::Broken),
        exchange(0, 0, End::Deadline),
    ];
    let failed = failures(&exchanges);
    assert_eq!((failed.len(), failed["503"], failed["broken"]), (2, 1, 2));
}

#[test]
fn only_requests_in_flight_at_a_kill_may_be_lost() {
    let kills = [
        Kill {
            at_us: 1_000,
            gone_us: 1_020,
        },
        Kill {
            at_us: 3_000,
            gone_us: 3_010,
        },
    ];
    let exchanges = [
        exchange(900, 1_015, End::Broken),   // in flight
        exchange(950, 5_000, End::Answered), // in flight, and survived
        exchange(1_010, 1_021, End::Broken), // sent before its sockets were closed
        exchange(1_100, 1_200, End::Broken), // after it was gone
        exchange(2_000, 2_500, End::Status(503)),
        exchange(3_005, 3_006, End::NotConnected),
        exchange(2_999, 0, End::Deadline), // still waiting when the harness stopped
    ];
    assert_eq!(
        Losses::of(&exchanges, &kills),
        Losses {
            refused: 1,
            in_flight: 2,
            others: 2,
            in_flight_max: 3,
            in_flight_all: 6,
        }
    );
}

#[test]
fn the_longest_gap_is_between_answers() {
    let exchanges = [
        exchange(0, 500, End::Answered),
        exchange(0, 100, End::Answered),
        exchange(0, 700, End::Broken),
        exchange(0, 950, End::Answered),
        exchange(0, 0, End::Deadline),
    ];
    assert_eq!(longest_gap_us(&exchanges), 450);
    assert_eq!(longest_gap_us(&[]), 0);
}
