//! Crash loops in made-up time: when the footing changes, and back.

use std::time::Duration;

use super::crash_loop::{Advice, CrashLoop, Standing};
use super::moment::Moment;
use super::post::{Departure, Duty, Progress, Relief};
use super::vintage::Vintage;
use crate::heritage::Footing;

const NEWEST: Vintage = Vintage(1);
const PROVEN: Vintage = Vintage(2);
const TRIAL: Vintage = Vintage(3);

fn second(number: u64) -> Duration {
    Duration::from_secs(number)
}

fn death(vintage: Vintage, served: u64, is_own_fault: bool) -> Departure {
    Departure {
        vintage,
        duty: Duty::Serving(second(served)),
        reason: String::new(),
        is_own_fault,
        lived: second(served),
        relief: Relief::TakesOver,
    }
}

fn standing(present: Vintage, trial: Option<Progress>) -> Standing {
    Standing {
        present,
        footing: match present {
            PROVEN => Footing::Proven,
            _ => Footing::Newest,
        },
        is_replacing: false,
        has_proven: true,
        trial,
    }
}

/// One that stands on the proven table, and when its next trial is due.
fn pinned() -> (CrashLoop, Moment) {
    let now = Moment::default();
    let mut rule = CrashLoop::default();
    assert_eq!(rule.advise(&standing(PROVEN, None), now), None);
    let due = rule.wake_at().expect("a trial must come");
    assert_eq!(due, now + second(60));
    (rule, due)
}

#[test]
fn three_young_crashes_in_a_row_change_the_footing() {
    let now = Moment::default();
    let mut rule = CrashLoop::default();
    for _ in 0..3 {
        assert_eq!(rule.advise(&standing(NEWEST, None), now), None);
        rule.died(&death(NEWEST, 29, true), now);
    }
    let advice = rule.advise(&standing(NEWEST, None), now);
    assert_eq!(advice, Some(Advice::Change(Footing::Proven)));
    assert_eq!(rule.advise(&standing(NEWEST, None), now), None, "said once");
}

#[test]
fn without_a_table_that_ran_well_the_newest_stays() {
    let now = Moment::default();
    let mut rule = CrashLoop::default();
    let unproven = Standing {
        has_proven: false,
        ..standing(NEWEST, None)
    };
    for _ in 0..20 {
        assert_eq!(rule.advise(&unproven, now), None);
        rule.died(&death(NEWEST, 1, true), now);
    }
}

#[test]
fn deaths_from_outside_do_not_count_and_a_long_service_forgives() {
    let now = Moment::default();
    let mut rule = CrashLoop::default();
    rule.advise(&standing(NEWEST, None), now);
    for (served, is_own_fault) in [
        (1, true),
        (1, true),
        (1, false),
        (30, true),
        (1, true),
        (1, true),
    ] {
        rule.died(&death(NEWEST, served, is_own_fault), now);
        assert_eq!(rule.advise(&standing(NEWEST, None), now), None);
    }
    let waiting = Departure {
        duty: Duty::Waiting,
        ..death(NEWEST, 1, true)
    };
    rule.died(&waiting, now);
    assert_eq!(rule.advise(&standing(NEWEST, None), now), None);
    rule.died(&death(NEWEST, 1, true), now);
    assert!(rule.advise(&standing(NEWEST, None), now).is_some());
}

#[test]
fn another_vintage_starts_anew_and_a_replacement_is_waited_for() {
    let now = Moment::default();
    let mut rule = CrashLoop::default();
    rule.advise(&standing(NEWEST, None), now);
    for _ in 0..5 {
        rule.died(&death(NEWEST, 1, true), now);
    }
    let busy = Standing {
        is_replacing: true,
        ..standing(NEWEST, None)
    };
    assert_eq!(rule.advise(&busy, now), None);
    let other = standing(Vintage(9), None);
    assert_eq!(rule.advise(&other, now), None);
}

#[test]
fn a_proven_one_that_crashes_too_gives_the_newest_another_chance() {
    let (mut rule, now) = pinned();
    for _ in 0..3 {
        rule.died(&death(PROVEN, 1, true), now);
    }
    let advice = rule.advise(&standing(PROVEN, None), now);
    assert_eq!(advice, Some(Advice::Change(Footing::Newest)));
}

#[test]
fn a_trial_that_lives_settles_the_matter() {
    let (mut rule, now) = pinned();
    assert_eq!(rule.advise(&standing(PROVEN, None), now), Some(Advice::Try));
    rule.tries(TRIAL);
    let loading = standing(PROVEN, Some(Progress::Starting));
    assert_eq!(rule.advise(&loading, now), None);
    let serving = standing(TRIAL, Some(Progress::Serving));
    assert_eq!(rule.advise(&serving, now), None);
    assert_eq!(rule.wake_at(), Some(now + second(30)));
    assert_eq!(rule.advise(&serving, now + second(29)), None);
    let advice = rule.advise(&serving, now + second(30));
    assert_eq!(advice, Some(Advice::Settle));
    assert_eq!(rule.trial(), None);
    assert_eq!(rule.wake_at(), None);
}

#[test]
fn trials_that_crash_come_ever_later_up_to_half_an_hour() {
    let (mut rule, mut now) = pinned();
    for pause in [120, 240, 480, 960, 1800, 1800] {
        assert_eq!(rule.advise(&standing(PROVEN, None), now), Some(Advice::Try));
        rule.tries(TRIAL);
        rule.advise(&standing(TRIAL, Some(Progress::Serving)), now);
        rule.died(&death(TRIAL, 3, true), now);
        let gone = standing(TRIAL, None);
        assert_eq!(rule.advise(&gone, now), Some(Advice::FallBack));
        assert_eq!(rule.advise(&standing(PROVEN, None), now), None);
        assert_eq!(rule.wake_at(), Some(now + second(pause)));
        now = now + second(pause);
    }
}

#[test]
fn a_trial_that_never_serves_fails_as_well() {
    let (mut rule, now) = pinned();
    rule.tries(TRIAL);
    let failed = standing(PROVEN, Some(Progress::Failed("exited with 1".into())));
    assert_eq!(rule.advise(&failed, now), Some(Advice::FallBack));
    assert_eq!(rule.wake_at(), Some(now + second(120)));
}

#[test]
fn a_trial_killed_from_outside_does_not_make_the_next_one_later() {
    let (mut rule, now) = pinned();
    rule.tries(TRIAL);
    rule.died(&death(TRIAL, 3, false), now);
    let advice = rule.advise(&standing(TRIAL, None), now);
    assert_eq!(advice, Some(Advice::FallBack));
    assert_eq!(rule.wake_at(), Some(now + second(60)));
}
