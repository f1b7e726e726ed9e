//! The figures of requests that were made up, and what capacity allows.

use super::*;
use crate::saturation::catalogue::CASES;

fn case(key: &str) -> &'static Case {
    CASES.iter().find(|case| case.key == key).unwrap()
}

fn exchange(due_us: u64, took_us: u64, end: End) -> Exchange {
    Exchange {
        due_us,
        sent_us: due_us + 5,
        ended_us: due_us + took_us,
        end,
    }
}

#[test]
fn requests_are_told_apart() {
    let exchanges = [
        exchange(10, 20_000, End::Answered),
        exchange(20, 100, End::Status(503)),
        exchange(30, 300, End::Status(429)),
        exchange(40, 1_000_000, End::Deadline),
        exchange(50, 10, End::Status(502)),
        exchange(99, 10, End::Answered), // not of the window
    ];
    let tally = Tally::of(&exchanges, 0, 99);
    assert_eq!((tally.due, tally.answered_us.len()), (5, 1));
    assert_eq!(tally.refused_us, [100, 300]);
    assert_eq!(tally.failed_total(), 2);
    assert_eq!(tally.failed.get("502"), Some(&1));
    assert!((tally.success() - 20.0).abs() < 1e-9);
}

#[test]
fn what_is_allowed_is_the_smaller_of_load_and_capacity() {
    let near = |found: f64, wanted: f64| assert!((found - wanted).abs() < 3.0, "{found}");
    near(allowed(case("10x"), None, 2_000_000, 8_000_000), 12_000.0);
    // 3 s at half of it, of which one is measured, 3 s at all of it, 4 s at half.
    near(
        allowed(case("spike"), None, 2_000_000, 10_000_000),
        11_000.0,
    );
    // 3 s at 2,000 and 5 s at 1,000, 2,500, 1,500.
    for (key, wanted) in [
        ("slower-2x", 11_000.0),
        ("joins-2x", 18_500.0),
        ("leaves-5x", 13_500.0),
    ] {
        near(
            allowed(case(key), Some(5_000_000), 2_000_000, 10_000_000),
            wanted,
        );
    }
}

#[test]
fn a_spike_is_over_with_the_last_request_not_answered() {
    let exchanges = [
        exchange(7_000_000, 100, End::Status(503)),
        exchange(6_500_000, 1_000_000, End::Deadline),
        exchange(8_000_000, 20_000, End::Answered),
    ];
    let mut found = Found::default();
    overload(&mut found, case("spike"), &exchanges, 0, None);
    assert_eq!(found.value("shed_after_s"), Some(1.0));
    assert_eq!(found.value("goodput"), None);
    assert_eq!(found.failed.get("deadline"), Some(&1));
}

#[test]
#[should_panic(expected = "must be in the catalogue")]
fn a_figure_without_a_row_is_a_mistake() {
    Found::default().put("nobody", 1.0);
}
