//! Who may go out at all: caps, the last one, and the app's own fault.

use proptest::prelude::*;

use super::*;

#[test]
fn a_soft_reason_takes_out_half_of_the_hosts_at_most_and_never_the_last() {
    for backends in (1..=9).chain([100]) {
        let mut world = World::new(backends);
        for index in 0..backends {
            // The others are well, so it is not the app's fault.
            for other in 0..backends {
                if world.is_in(other) && other != index {
                    world.tell(other, OK);
                }
            }
            world.tell_times(5, index, answered(503, 1));
        }
        let most = if backends == 1 {
            0
        } else {
            (backends / 2).max(1)
        };
        assert_eq!(world.soft_out(), most, "of {backends}");
        assert_eq!(world.routable(), backends - most, "of {backends}");
    }
}

#[test]
fn caps_count_hosts_only() {
    // Two that count, and eight that are draining or out by order.
    let mut world = World::new(10);
    for member in &mut world.members[2..] {
        member.host.counts = false;
    }
    assert_eq!(
        reason_of(world.tell_times(5, 0, answered(503, 1))),
        Some(Reason::Status(503))
    );
    assert_eq!(
        spare_of(world.tell_times(5, 1, answered(503, 1))),
        Some(Spare::Last)
    );
    assert!(world.is_in(1));
    // One that does not count is not taken out either.
    assert_eq!(world.tell_times(10, 5, answered(503, 1)), None);
}

#[test]
fn a_hard_failure_takes_out_even_the_last() {
    for backends in 1..=9 {
        let mut world = World::new(backends);
        for index in 0..backends {
            let verdict = world.tell(index, REFUSED);
            assert_eq!(reason_of(verdict), Some(Reason::ConnectRefused));
            assert!(verdict.is_some_and(|verdict| verdict.wants_probe()));
        }
        assert_eq!(world.routable(), 0);
    }
}

#[test]
fn the_last_in_rotation_is_told_of_once_in_ten_seconds() {
    let mut world = World::new(1);
    assert_eq!(world.tell_times(4, 0, answered(502, 1)), None);
    assert_eq!(spare_of(world.tell(0, answered(502, 1))), Some(Spare::Last));
    let mut told = 0;
    for _ in 0..30_000 {
        told += usize::from(world.tell(0, answered(502, 1)).is_some());
    }
    assert_eq!(told, 3, "in 30 s");
    assert!(world.is_in(0));
}

#[test]
fn what_all_do_alike_is_the_apps_fault() {
    for outcome in [
        answered(503, 1),
        answered(500, 1),
        Outcome::Reset,
        Outcome::BadAnswer,
        Outcome::TimedOut,
        Outcome::Overdue,
    ] {
        for backends in 2..=9 {
            let mut world = World::new(backends);
            for round in 0..200 {
                for index in 0..backends {
                    let verdict = world.tell(index, outcome);
                    let ejected = reason_of(verdict);
                    assert_eq!(ejected, None, "{outcome:?} of {backends}, round {round}");
                }
            }
        }
    }
}

#[test]
fn those_out_come_back_when_it_turns_out_to_be_the_apps_fault() {
    let mut world = World::new(4);
    world.tell_times(5, 0, answered(503, 1));
    world.tell_times(2, 1, answered(503, 1));
    assert_eq!(world.soft_out(), 1);
    world.tell_times(2, 2, answered(503, 1));
    let verdict = world.tell_times(5, 3, answered(503, 1));
    assert!(
        matches!(
            verdict,
            Some(Verdict::Spared {
                why: Spare::PeersFailAlike,
                hosts: 4,
                routable: 4,
                readmitted: 1,
                ..
            })
        ),
        "{verdict:?}"
    );
    assert_eq!(world.routable(), 4);
}

#[test]
fn one_that_fails_beside_one_that_fails_otherwise_is_out() {
    let mut world = World::new(2);
    world.tell_times(2, 1, Outcome::Reset);
    let verdict = world.tell_times(5, 0, answered(503, 1));
    assert_eq!(reason_of(verdict), Some(Reason::Status(503)));
}

#[test]
fn an_app_without_ejection_keeps_everybody() {
    let mut world = World::new(4);
    world.rules.ejection = false;
    for outcome in [REFUSED, Outcome::Reset, answered(503, 1), Outcome::Overdue] {
        assert_eq!(world.tell_times(30, 0, outcome), None);
    }
    assert!(world.is_in(0));
}

fn outcomes() -> impl Strategy<Value = Outcome> {
    prop_oneof![
        6 => Just(OK),
        2 => Just(answered(500, 1)),
        4 => (502u16..=504).prop_map(|status| answered(status, 1)),
        1 => Just(answered(200, 900)),
        1 => Just(REFUSED),
        1 => Just(Outcome::ConnectFailed(ConnectFailure::TimedOut)),
        3 => Just(Outcome::Reset),
        2 => Just(Outcome::TimedOut),
        2 => Just(Outcome::BadAnswer),
        3 => Just(Outcome::Overdue),
        1 => (0u64..60).prop_map(|s| Outcome::AskedForRest {
            rest_us: s * SECOND_US,
            first_byte_us: MS
        }),
    ]
}

#[derive(Clone, Debug)]
enum Deed {
    Tell(usize, u64, Outcome, u8),
    Probe(usize, bool),
    Claim(usize),
    Pass(u64),
    Readmit(usize),
}

fn deeds() -> impl Strategy<Value = Vec<Deed>> {
    let at = 0usize..9;
    let deed = prop_oneof![
        12 => (at.clone(), 0u64..2_000, outcomes(), 1u8..8)
            .prop_map(|(at, took, outcome, times)| Deed::Tell(at, took * MS, outcome, times)),
        2 => (at.clone(), any::<bool>()).prop_map(|(at, passed)| Deed::Probe(at, passed)),
        2 => at.clone().prop_map(Deed::Claim),
        2 => (0u64..20_000).prop_map(|ms| Deed::Pass(ms * MS)),
        1 => at.prop_map(Deed::Readmit),
    ];
    proptest::collection::vec(deed, 0..120)
}

proptest! {
    /// Whatever is told, in whatever order: no soft reason ever takes out the
    /// last one in rotation, or more than the cap; every verdict says what
    /// became of the state; nobody waits longer than the longest hold.
    #[test]
    fn whatever_is_told_the_caps_hold(
        backends in 1usize..=9,
        probed in any::<bool>(),
        deeds in deeds(),
    ) {
        let mut world = if probed { World::with_probe(backends, 2, 3) } else { World::new(backends) };
        let most = if backends == 1 { 0 } else { (backends / 2).max(1) };
        for deed in deeds {
            let (routable, soft) = (world.routable(), world.soft_out());
            let may_empty =
                matches!(deed, Deed::Tell(_, _, Outcome::ConnectFailed(_), _));
            let verdict = match deed {
                Deed::Tell(at, took_us, outcome, times) => {
                    for _ in 1..times {
                        world.tell_after(at % backends, took_us, outcome);
                    }
                    world.tell_after(at % backends, took_us, outcome)
                }
                Deed::Probe(at, passed) => world.probe(at % backends, passed),
                Deed::Claim(at) => {
                    world.claim_trial(at % backends);
                    None
                }
                Deed::Pass(us) => {
                    world.pass_time(us);
                    None
                }
                Deed::Readmit(at) => world.readmit(at % backends),
            };
            // A trial claimed of one that is hard out makes it soft out without
            // an ejection: only a growth by ejection is bounded.
            let has_grown = world.soft_out() > soft && world.routable() < routable;
            prop_assert!(!has_grown || world.soft_out() <= most.max(soft));
            let has_emptied = routable > 0 && world.routable() == 0;
            prop_assert!(!has_emptied || may_empty);
            if let Some(Verdict::Ejected { reason, left, hold_us, .. }) = verdict {
                prop_assert!(reason.is_hard() || left > 0);
                prop_assert!(hold_us <= 30 * SECOND_US);
                prop_assert_eq!(left as usize, world.routable());
            }
        }
    }
}

#[test]
fn what_the_others_answer_brings_back_nobody_who_is_frozen_or_slow() {
    for is_frozen in [true, false] {
        let mut world = World::new(4);
        let verdict = match is_frozen {
            true => world.tell_times(3, 0, Outcome::Overdue),
            false => world.tell_times(20, 0, answered(200, 60)),
        };
        assert!(reason_of(verdict).is_some());
        for _ in 0..20 {
            for index in 1..4 {
                world.tell(index, answered(503, 5));
            }
        }
        assert!(!world.is_in(0), "frozen: {is_frozen}");
    }
}

#[test]
fn one_that_fell_silent_comes_back_if_all_fall_silent() {
    let mut world = World::new(4);
    world.tell_times(3, 0, Outcome::Overdue);
    for _ in 0..3 {
        for index in 1..4 {
            world.tell(index, Outcome::Overdue);
        }
    }
    assert!(world.is_in(0));
}
