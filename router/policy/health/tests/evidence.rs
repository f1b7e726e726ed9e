//! What is enough to go out, and what is not.

use super::*;

#[test]
fn five_gateway_errors_in_a_row_are_enough_and_four_are_not() {
    for status in [502, 503, 504] {
        let mut world = World::new(4);
        assert_eq!(world.tell_times(4, 0, answered(status, 1)), None);
        world.tell(0, OK);
        assert_eq!(world.tell_times(4, 0, answered(status, 1)), None);
        let verdict = world.tell(0, answered(status, 1));
        assert_eq!(reason_of(verdict), Some(Reason::Status(status)));
    }
}

#[test]
fn three_tries_without_a_usable_answer_are_enough() {
    for (outcome, reason) in [
        (Outcome::Reset, Reason::Reset),
        (Outcome::BadAnswer, Reason::BadAnswer),
        (Outcome::TimedOut, Reason::TimedOut),
    ] {
        let mut world = World::new(4);
        assert_eq!(world.tell_times(2, 0, outcome), None);
        assert_eq!(reason_of(world.tell(0, outcome)), Some(reason));
    }
}

#[test]
fn failures_of_different_kinds_add_up() {
    let mut world = World::new(4);
    assert_eq!(world.tell(0, Outcome::Reset), None);
    assert_eq!(world.tell_times(3, 0, answered(503, 1)), None);
    // A 500 neither adds to a streak nor ends it.
    assert_eq!(world.tell(0, answered(500, 1)), None);
    let verdict = world.tell(0, answered(502, 1));
    assert_eq!(reason_of(verdict), Some(Reason::Status(502)));
}

#[test]
fn silence_is_three_overdue_and_no_answer_since() {
    let mut world = World::new(4);
    world.tell(0, OK);
    world.pass_time(SECOND_US);
    for _ in 0..2 {
        assert_eq!(world.tell_after(0, 100 * MS, Outcome::Overdue), None);
    }
    let verdict = world.tell_after(0, 100 * MS, Outcome::Overdue);
    assert_eq!(reason_of(verdict), Some(Reason::Silent));
}

#[test]
fn one_that_answers_meanwhile_is_slow_but_not_silent() {
    let mut world = World::new(4);
    for _ in 0..50 {
        world.pass_time(20 * MS);
        world.tell_after(0, MS, OK);
        // Sent before that answer came.
        assert_eq!(world.tell_after(0, 100 * MS, Outcome::Overdue), None);
    }
    // An answer ends what was counted.
    world.pass_time(SECOND_US);
    world.tell_after(0, 100 * MS, Outcome::Overdue);
    world.tell_after(0, 100 * MS, Outcome::Overdue);
    world.tell_after(0, 150 * MS, OK);
    world.pass_time(SECOND_US);
    assert_eq!(world.tell_after(0, 100 * MS, Outcome::Overdue), None);
    assert!(world.is_in(0));
}

/// One backend fails with the given chance at each try, the others never; how
/// many tries of its own it took to take it out.
fn tries_until_out(chance: f64, seed: u64, status: u16) -> Option<usize> {
    let mut world = World::new(4);
    let mut random = fastrand::Rng::with_seed(seed);
    for index in (0..4).cycle().take(200) {
        world.tell(index, OK);
    }
    for tried in 1..=2_000 {
        for other in 1..4 {
            world.tell(other, OK);
        }
        let outcome = if random.f64() < chance {
            answered(status, 1)
        } else {
            OK
        };
        if let Some(reason) = reason_of(world.tell(0, outcome)) {
            assert!(status != 500 || reason == Reason::Rate);
            return Some(tried);
        }
    }
    None
}

#[test]
fn half_of_the_tries_failing_is_enough_where_peers_do_not() {
    for seed in 0..50 {
        // All of them: within 20 of its own.
        assert!(tries_until_out(1.0, seed, 500).is_some_and(|tries| tries <= 20));
        assert!(tries_until_out(1.0, seed, 503).is_some_and(|tries| tries <= 5));
        assert!(tries_until_out(0.6, seed, 500).is_some_and(|tries| tries <= 200));
        // A few are borne.
        assert_eq!(tries_until_out(0.05, seed, 500), None);
    }
}

#[test]
fn a_new_backend_is_not_judged_by_rate_before_twenty_tries() {
    let mut world = World::new(3);
    for _ in 0..20 {
        world.tell(1, OK);
        world.tell(2, OK);
    }
    assert_eq!(world.tell_times(19, 0, answered(500, 1)), None);
    assert_eq!(
        reason_of(world.tell(0, answered(500, 1))),
        Some(Reason::Rate)
    );
}

#[test]
fn errors_that_some_peers_have_too_take_nobody_out() {
    let mut world = World::new(4);
    for round in 0..400 {
        world.tell(0, answered(500, 1));
        for other in 1..4 {
            let outcome = if (round + other) % 5 == 0 {
                answered(500, 1)
            } else {
                OK
            };
            assert_eq!(reason_of(world.tell(other, outcome)), None);
        }
    }
    assert!(world.is_in(0), "its peers fail a fifth of theirs");
}

#[test]
fn twenty_answers_ten_times_slower_than_the_peers_are_enough() {
    let mut world = World::new(4);
    assert_eq!(world.tell_times(19, 0, answered(200, 60)), None);
    world.tell(0, OK);
    assert_eq!(world.tell_times(19, 0, answered(200, 60)), None);
    let verdict = world.tell(0, answered(200, 60));
    assert_eq!(reason_of(verdict), Some(Reason::Slow));
    // Nine times slower, or slow where all are, is not.
    let mut world = World::new(4);
    assert_eq!(world.tell_times(100, 0, answered(200, 49)), None);
    for member in &mut world.members {
        member.host.latency_us = 40 * MS;
    }
    assert_eq!(world.tell_times(100, 0, answered(200, 300)), None);
}

#[test]
fn a_try_that_began_before_the_backend_came_back_tells_of_what_is_over() {
    let mut world = World::new(2);
    world.tell(0, REFUSED);
    world.pass_time(SECOND_US);
    assert!(is_readmitted(world.probe(0, true), Return::Probe));
    for outcome in [REFUSED, Outcome::Reset, Outcome::Reset, Outcome::Reset] {
        assert_eq!(world.tell_after(0, SECOND_US, outcome), None);
    }
    assert!(world.is_in(0));
    assert!(reason_of(world.tell(0, REFUSED)).is_some());
}

#[test]
fn asking_for_rest_is_no_failure() {
    let mut world = World::new(3);
    let rest = rest_for;
    // A lone one may be about what was asked for.
    for _ in 0..10 {
        assert_eq!(world.tell(0, rest(300)), None);
        assert!(world.members[0].health.borrow().is_watched());
        world.tell(0, OK);
    }
    assert_eq!(world.tell(0, rest(300)), None);
    let verdict = world.tell(0, rest(300));
    assert_eq!(
        verdict,
        Some(Verdict::Resting {
            rest_us: 30 * SECOND_US
        })
    );
    assert_eq!(world.tell_times(50, 0, rest(1)), None, "said once");
    assert!(matches!(world.state(0), State::Resting { .. }));
    world.pass_time(31 * SECOND_US);
    assert_eq!(world.state(0), State::Settled);
}

const fn rest_for(s: u64) -> Outcome {
    Outcome::AskedForRest {
        rest_us: s * SECOND_US,
        first_byte_us: MS,
    }
}

#[test]
fn at_most_half_rest_or_are_out_and_one_stays_awake() {
    for backends in 1..=9 {
        let mut world = World::new(backends);
        let most = if backends == 1 {
            0
        } else {
            (backends / 2).max(1)
        };
        let out = usize::from(backends >= 4);
        if out == 1 {
            world.tell_times(5, 0, answered(502, 1));
            assert!(!world.is_in(0));
        }
        let mut resting = 0;
        for index in out..backends {
            // Once it rests it asks no more, and the others are well.
            for other in out..backends {
                world.tell(other, OK);
            }
            let verdict = world.tell_times(2, index, rest_for(30));
            resting += usize::from(matches!(verdict, Some(Verdict::Resting { .. })));
        }
        assert_eq!(resting + out, most, "of {backends}");
    }
}

#[test]
fn nobody_rests_where_half_of_the_others_ask_for_it_too() {
    for backends in 3..=9 {
        let mut world = World::new(backends);
        for _ in 0..20 {
            for index in 0..backends {
                assert_eq!(world.tell(index, rest_for(30)), None, "of {backends}");
            }
        }
    }
}

#[test]
fn one_that_warms_up_is_slow_and_stays() {
    let mut world = World::new(4);
    *world.members[0].health.borrow_mut() = Health::joining();
    assert_eq!(world.tell_times(100, 0, answered(200, 60)), None);
    assert!(world.is_in(0));
    world.rules.slow_start_us = 0;
    let verdict = world.tell_times(20, 0, answered(200, 60));
    assert_eq!(reason_of(verdict), Some(Reason::Slow));
}

#[test]
fn probes_take_out_after_so_many_failures_in_a_row() {
    let mut world = World::with_probe(3, 2, 3);
    world.rules.ejection = false;
    for passed in [false, false, true, false, false] {
        assert_eq!(world.probe(0, passed), None);
    }
    assert_eq!(reason_of(world.probe(0, false)), Some(Reason::Probe));
    // All fail alike: the app's fault.
    let mut world = World::with_probe(3, 2, 3);
    for _ in 0..20 {
        for index in 0..3 {
            assert_eq!(reason_of(world.probe(index, false)), None);
        }
    }
    assert_eq!(world.routable(), 3);
}

#[test]
fn a_failed_connection_of_a_prober_says_nothing_of_one_in_rotation() {
    let mut world = World::new(3);
    for _ in 0..10 {
        assert_eq!(world.probe(0, false), None);
    }
    assert!(world.is_in(0));
}
