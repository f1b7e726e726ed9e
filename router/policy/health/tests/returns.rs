//! How a backend comes back, and how often it may come and go.

use proptest::prelude::*;

use super::*;

fn eject_soft(world: &mut World, index: usize) -> u64 {
    for _ in 0..5 {
        if let Some(Verdict::Ejected { hold_us, .. }) = world.tell(index, answered(503, 1)) {
            return hold_us;
        }
    }
    panic!("five are enough");
}

fn eject_hard(world: &mut World, index: usize) -> u64 {
    match world.tell(index, REFUSED) {
        Some(Verdict::Ejected { hold_us, .. }) => hold_us,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_clean_crash_costs_a_tenth_of_a_second() {
    let mut world = World::new(2);
    let hold_us = eject_hard(&mut world, 0);
    assert!((90 * MS..=110 * MS).contains(&hold_us));
    let due_us = world.members[0].health.borrow().return_probe_us(false);
    assert_eq!(due_us, Some(world.now_us + hold_us));
    world.pass_time(hold_us);
    let verdict = world.probe(0, true);
    assert!(is_readmitted(verdict, Return::Probe), "{verdict:?}");
    assert!(matches!(world.state(0), State::Ramping { .. }));
    world.pass_time(10 * SECOND_US);
    assert_eq!(world.state(0), State::Settled);
}

#[test]
fn a_probe_looks_less_often_the_longer_nobody_is_there() {
    let mut world = World::new(2);
    eject_hard(&mut world, 0);
    let mut waits_us = Vec::new();
    while world.now_us < 200 * SECOND_US {
        let due_us = world.members[0].health.borrow().return_probe_us(false);
        let due_us = due_us.expect("nobody is there");
        waits_us.push(due_us - world.now_us);
        world.now_us = due_us - MS;
        assert_eq!(world.probe(0, false), None);
    }
    assert!(
        waits_us[1] < 170 * MS && waits_us[3] > waits_us[1],
        "{waits_us:?}"
    );
    assert!(
        waits_us.iter().take(50).all(|&us| us <= 1_101 * MS),
        "{waits_us:?}"
    );
    assert!(waits_us.iter().all(|&us| us <= 5_501 * MS), "{waits_us:?}");
    assert!(waits_us.last().is_some_and(|&us| us >= 4_499 * MS));
    // While requests wait for it, every tenth of a second.
    let due_us = world.members[0].health.borrow().return_probe_us(true);
    assert_eq!(due_us, Some(world.now_us + 100 * MS));
}

#[test]
fn a_soft_failure_is_back_within_two_seconds_of_recovering() {
    let mut world = World::new(2);
    eject_soft(&mut world, 0);
    let first_us = world.wait_for_trial(0);
    assert!((449 * MS..=550 * MS).contains(&first_us), "{first_us}");
    for _ in 0..40 {
        assert_eq!(world.tell(0, answered(503, 1)), None);
        assert!(!world.claim_trial(0), "one trial at a time");
        let waited_us = world.wait_for_trial(0);
        assert!(waited_us <= 1_100 * MS, "{waited_us}");
    }
    assert!(is_readmitted(world.tell(0, OK), Return::Trial));
}

#[test]
fn a_trial_that_took_long_does_not_put_off_the_next() {
    let mut world = World::new(2);
    world.tell_times(3, 0, Outcome::Overdue);
    for _ in 0..20 {
        world.wait_for_trial(0);
        let began_us = world.now_us;
        world.pass_time(SECOND_US);
        assert_eq!(world.tell_after(0, SECOND_US, Outcome::Overdue), None);
        world.wait_for_trial(0);
        assert!(world.now_us - began_us <= 1_100 * MS);
        // The next one too.
        world.tell(0, Outcome::Overdue);
    }
}

#[test]
fn only_what_the_trial_itself_told_decides_it() {
    let mut world = World::new(2);
    eject_soft(&mut world, 0);
    world.wait_for_trial(0);
    // One sent long before the ejection ends well, another badly.
    assert_eq!(world.tell_after(0, 5 * SECOND_US, OK), None);
    assert_eq!(world.tell_after(0, 5 * SECOND_US, Outcome::Reset), None);
    assert!(matches!(world.state(0), State::Trial { .. }));
    assert!(is_readmitted(world.tell(0, OK), Return::Trial));
}

#[test]
fn a_trial_that_finds_nobody_there_wants_the_prober() {
    let mut world = World::new(2);
    eject_soft(&mut world, 0);
    world.wait_for_trial(0);
    let verdict = world.tell(0, REFUSED);
    assert!(verdict.is_some_and(|verdict| verdict.wants_probe()));
    let health = *world.members[0].health.borrow();
    assert!(health.return_probe_us(false).is_some());
    assert_eq!(health.ejections(), 1, "out all the time");
}

#[test]
fn what_was_slow_or_erred_comes_back_only_if_it_no_longer_does() {
    let mut world = World::new(4);
    world.tell_times(20, 0, answered(200, 60));
    assert!(!world.is_in(0));
    world.wait_for_trial(0);
    assert_eq!(world.tell(0, answered(200, 60)), None);
    world.wait_for_trial(0);
    assert!(is_readmitted(world.tell(0, OK), Return::Trial));

    for index in (0..4).cycle().take(100) {
        world.tell(index, OK);
    }
    world.tell_times(20, 0, answered(500, 1));
    assert!(!world.is_in(0));
    world.wait_for_trial(0);
    assert_eq!(world.tell(0, answered(500, 1)), None);
    assert!(!world.is_in(0));
    // Out for something else, a 500 is as good as any answer.
    eject_soft(&mut world, 1);
    world.wait_for_trial(1);
    assert!(is_readmitted(
        world.tell(1, answered(500, 1)),
        Return::Trial
    ));
}

#[test]
fn a_frozen_one_that_thaws_is_tried_at_once() {
    let mut world = World::new(4);
    for _ in 0..3 {
        world.tell_after(0, 100 * MS, Outcome::Overdue);
    }
    world.wait_for_trial(0);
    world.pass_time(100 * MS);
    assert_eq!(world.tell_after(0, 100 * MS, Outcome::Overdue), None);
    world.pass_time(50 * MS);
    assert!(!world.claim_trial(0));
    // What it was asked before it froze.
    assert_eq!(
        world.tell_after(0, 5 * SECOND_US, answered(200, 5_000)),
        None
    );
    assert!(world.claim_trial(0));
    assert!(is_readmitted(world.tell(0, OK), Return::Trial));
}

#[test]
fn an_app_with_a_probe_wants_as_many_passes_as_it_says() {
    let mut world = World::with_probe(2, 3, 1);
    eject_hard(&mut world, 0);
    assert_eq!(world.probe(0, true), None, "too soon");
    world.pass_time(SECOND_US);
    assert_eq!(world.probe(0, true), None);
    assert_eq!(world.probe(0, false), None);
    for _ in 0..2 {
        world.pass_time(SECOND_US);
        assert_eq!(world.probe(0, true), None);
    }
    assert!(is_readmitted(world.probe(0, true), Return::Probe));
}

#[test]
fn what_a_probe_took_out_no_request_brings_back_while_it_is_probed() {
    let mut world = World::with_probe(3, 2, 2);
    world.probe(0, false);
    assert!(reason_of(world.probe(0, false)).is_some());
    for _ in 0..60 {
        world.pass_time(SECOND_US);
        assert!(!world.claim_trial(0));
        world.probe(0, false);
    }
    // Its probes are no longer heard of.
    let waited_us = world.wait_for_trial(0);
    assert!(
        (12 * SECOND_US..=14 * SECOND_US).contains(&waited_us),
        "{waited_us}"
    );
}

#[test]
fn an_operators_order_forgets_everything() {
    let mut world = World::new(2);
    for _ in 0..5 {
        eject_hard(&mut world, 0);
        assert!(is_readmitted(world.readmit(0), Return::Order));
    }
    let hold_us = eject_hard(&mut world, 0);
    assert!(hold_us <= 110 * MS, "{hold_us}");
    world.tell_times(4, 1, answered(503, 1));
    assert_eq!(world.readmit(1), None);
    assert_eq!(world.tell(1, answered(503, 1)), None);
}

#[test]
fn the_hold_doubles_with_each_return_and_is_forgiven_with_time() {
    let mut world = World::new(3);
    let mut holds_us = Vec::new();
    for _ in 0..12 {
        holds_us.push(eject_hard(&mut world, 0));
        world.pass_time(40 * SECOND_US);
        assert!(is_readmitted(world.probe(0, true), Return::Probe));
    }
    for pair in holds_us.windows(2) {
        let longest = pair[0] >= 24 * SECOND_US;
        let ratio = pair[1] as f64 / pair[0] as f64;
        assert!(longest || (1.6..=2.5).contains(&ratio), "{holds_us:?}");
        assert!(pair[1] <= 30 * SECOND_US, "{holds_us:?}");
    }
    world.pass_time(300 * SECOND_US);
    let hold_us = eject_hard(&mut world, 0);
    assert!(hold_us <= 110 * MS, "{hold_us} after five minutes");
}

/// Requests that reach a backend which passes every trial and fails right
/// after, of 100 a second over four backends for ten minutes; and all of them.
fn flapping(ramp_share: bool) -> (u32, u32) {
    let mut world = World::new(4);
    world.rules.slow_start_us = if ramp_share { 10 * SECOND_US } else { 0 };
    let (mut reached, all) = (0, 60_000);
    let mut passes = false;
    for step in 0..all {
        world.pass_time(10 * MS);
        if world.claim_trial(0) {
            reached += 1;
            passes = true;
        } else {
            let state = world.members[0].health.borrow().state();
            let share = state.share_permille(world.now_us, world.rules.slow_start_us);
            if step % 4 != 0 || world.random.u32(..1_000) >= share {
                continue;
            }
            reached += 1;
        }
        world.tell_after(0, 0, if passes { OK } else { answered(503, 1) });
        passes = false;
    }
    (reached, all)
}

#[test]
fn a_flapping_backends_share_stays_bounded() {
    for ramp_share in [false, true] {
        let (reached, all) = flapping(ramp_share);
        assert!(reached < all / 200, "{reached} of {all}");
        assert!(reached > 60, "it is still asked now and then: {reached}");
    }
}

proptest! {
    #[test]
    fn a_state_survives_as_a_word(tag in 0u8..6, time in 0u64..1 << 61) {
        let state = match tag {
            0 => State::Settled,
            1 => State::Ramping { since_us: time },
            2 => State::Resting { until_us: time },
            3 => State::Out { hard: false, due_us: time },
            4 => State::Out { hard: true, due_us: time },
            _ => State::Trial { since_us: time },
        };
        prop_assert_eq!(State::from_bits(state.to_bits()), state);
        prop_assert_eq!(state.to_bits() == 0, state == State::Settled);
    }

    #[test]
    fn a_ramp_only_rises(slow_start_us in 0u64..100 * SECOND_US, steps in proptest::collection::vec(0u64..10 * SECOND_US, 1..20)) {
        let ramp = State::Ramping { since_us: SECOND_US };
        let (mut now_us, mut before) = (SECOND_US, 0);
        for step in steps {
            now_us += step;
            let share = ramp.share_permille(now_us, slow_start_us);
            prop_assert!((100..=1_000).contains(&share) && share >= before);
            prop_assert_eq!(share == 1_000 && ramp.at(now_us, slow_start_us) == ramp, false);
            before = share;
        }
        prop_assert_eq!(ramp.share_permille(SECOND_US + slow_start_us, slow_start_us), 1_000);
    }

    /// However random falls, a hold is within a tenth of what it should be.
    #[test]
    fn jitter_is_a_tenth_at_most(random in any::<u64>()) {
        let mut health = Health::default();
        prop_assert!(!health.claim_trial(0, true));
        let told = Try { now_us: 5, sent_us: 5, outcome: REFUSED, random };
        let world = World::new(1);
        let verdict = Ward::default().tell(&world, 0, &world.rules, &told);
        health.resume(world.state(0));
        let Some(Verdict::Ejected { hold_us, .. }) = verdict else { panic!("{verdict:?}") };
        prop_assert!((90 * MS..=110 * MS).contains(&hold_us));
    }
}
