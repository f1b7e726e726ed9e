//! Control's post: never two, and always one. Time is made up.

use std::time::Duration;

use super::*;

const OLD: Vintage = Vintage(1);
const NEW: Vintage = Vintage(2);

fn second(number: u64) -> Duration {
    Duration::from_secs(number)
}

fn exit(code: i32) -> Ending {
    Ending {
        reason: format!("exited with {code}"),
        is_own_fault: code != 0,
    }
}

fn manned(now: Moment) -> ControlPost {
    let mut post = ControlPost::new(OLD);
    assert_eq!(post.tick(now), [Action::Start(1, OLD)]);
    assert!(!post.is_manned());
    post.ready(1, now);
    assert_eq!(post.tick(now), []);
    assert!(post.is_manned());
    post
}

#[test]
fn a_replacement_starts_when_the_old_one_is_gone() {
    let now = Moment::default();
    let mut post = manned(now);
    post.replace(NEW);
    assert_eq!(post.tick(now), [Action::Drain(1)]);
    assert_eq!(post.tick(now), []);
    assert_eq!(post.progress(NEW), Progress::Starting);
    let departure = post.died(1, &exit(0), now).unwrap();
    assert!(!departure.is_unwanted());
    assert_eq!(post.tick(now), [Action::Start(2, NEW)]);
    post.ready(2, now);
    assert_eq!(post.tick(now), []);
    assert_eq!(post.progress(NEW), Progress::Serving);
    assert_eq!(post.restarts(), 0);
}

#[test]
fn one_that_never_gets_ready_is_told_of_and_the_old_program_comes_back() {
    let now = Moment::default();
    let mut post = manned(now);
    post.replace(NEW);
    post.tick(now);
    post.died(1, &exit(0), now);
    post.tick(now);
    post.died(2, &exit(1), now);
    assert_eq!(post.progress(NEW), Progress::Failed("exited with 1".into()));
    post.replace(Vintage(3));
    assert_eq!(post.tick(now), [Action::Start(3, Vintage(3))]);
    assert!(matches!(post.progress(NEW), Progress::Failed(_)));
    assert_eq!(post.progress(Vintage(3)), Progress::Starting);
}

#[test]
fn a_dead_one_is_restarted_at_once_and_a_crash_loop_waits() {
    let now = Moment::default();
    let mut post = manned(now);
    let now = now + second(60);
    let departure = post.died(1, &exit(1), now).unwrap();
    assert_eq!(departure.relief, Relief::Starts(Duration::ZERO));
    assert_eq!(post.tick(now), [Action::Start(2, OLD)]);
    let departure = post.died(2, &exit(1), now).unwrap();
    let Relief::Starts(delay) = departure.relief else {
        panic!("{departure:?}");
    };
    assert!(delay > Duration::ZERO);
    assert_eq!(post.tick(now), []);
    assert_eq!(post.wake_at(), Some(now + delay));
    assert_eq!(post.tick(now + delay), [Action::Start(3, OLD)]);
    assert_eq!(post.restarts(), 2);
}

#[test]
fn a_stalled_one_is_killed_later_than_an_edge() {
    let now = Moment::default();
    let mut post = manned(now);
    for _ in 0..10 {
        post.pinged();
    }
    assert_eq!(post.tick(now), []);
    post.pinged();
    let reason = "killed: no answer for 10s".to_owned();
    assert_eq!(post.tick(now), [Action::Kill(1, reason)]);
    assert_eq!(post.tick(now), [], "killed once, and never two at a time");
}

#[test]
fn it_may_load_for_as_long_as_it_answers() {
    let now = Moment::default();
    let mut post = ControlPost::new(OLD);
    post.tick(now);
    assert_eq!(post.wake_at(), None);
    assert_eq!(post.tick(now + second(3600)), []);
}

#[test]
fn at_the_end_it_has_ten_seconds() {
    let now = Moment::default();
    let mut post = manned(now);
    post.retire();
    assert_eq!(post.tick(now), [Action::Drain(1)]);
    assert_eq!(post.tick(now + second(9)), []);
    assert_eq!(
        post.tick(now + second(10)),
        [Action::Kill(1, "killed: not drained in time".into())]
    );
    post.died(1, &exit(0), now);
    assert_eq!(post.tick(now + second(3600)), []);
    assert!(post.is_empty());
}
