//! Posts: who is started, drained and killed when. Time is made up.

use std::time::{Duration, Instant};

use super::post::{Action, Post};
use crate::heritage::{ProcessState, Role};

const LIMIT: Duration = Duration::from_secs(35);

fn second(number: u64) -> Duration {
    Duration::from_secs(number)
}

/// A post with its first member ready.
fn manned(role: Role, now: Instant) -> Post {
    let mut post = Post::new(role, LIMIT);
    assert_eq!(post.tick(now), [Action::Start(1)]);
    assert!(!post.is_manned());
    assert_eq!(post.ready(1, now), []);
    assert!(post.is_manned());
    post
}

#[test]
fn a_dead_member_is_replaced_at_once_and_a_crash_loop_waits() {
    let now = Instant::now();
    let mut post = manned(Role::Edge, now);
    let departure = post.died(1, now + second(60)).unwrap();
    assert!(departure.unwanted);
    assert_eq!(departure.lived, second(60));
    assert_eq!(departure.restart_in, Some(Duration::ZERO));
    let now = now + second(60);
    assert_eq!(post.tick(now), [Action::Start(2)]);
    let departure = post.died(2, now).unwrap();
    let delay = departure.restart_in.unwrap();
    assert!(delay > Duration::ZERO);
    assert_eq!(post.tick(now), []);
    assert_eq!(post.wake_at(), Some(now + delay));
    assert_eq!(post.tick(now + delay), [Action::Start(3)]);
    assert_eq!(post.restarts(), 2);
}

#[test]
fn an_edge_is_replaced_without_a_gap() {
    let now = Instant::now();
    let mut post = manned(Role::Edge, now);
    assert!(post.replace());
    assert_eq!(post.tick(now), [Action::Start(2)]);
    assert_eq!(
        post.state_of(1),
        Some(ProcessState::Ready),
        "the old one serves on"
    );
    assert_eq!(post.ready(2, now), [Action::Drain(1)]);
    let departure = post.died(1, now + second(1)).unwrap();
    assert!(!departure.unwanted);
    assert_eq!(post.tick(now + second(1)), []);
    assert_eq!(post.restarts(), 0);
}

#[test]
fn a_replacement_that_fails_leaves_the_old_one_alone() {
    let now = Instant::now();
    let mut post = manned(Role::Edge, now);
    post.replace();
    post.tick(now);
    let departure = post.died(2, now).unwrap();
    assert!(departure.unwanted);
    assert_eq!(departure.restart_in, None);
    assert_eq!(post.tick(now + second(100)), []);
    assert!(post.is_manned());
}

#[test]
fn a_replacement_that_never_gets_ready_is_given_up() {
    let now = Instant::now();
    let mut post = manned(Role::Edge, now);
    post.replace();
    post.tick(now);
    let late = post.wake_at().unwrap();
    assert_eq!(
        post.tick(late),
        [Action::Kill(2, "killed: not ready in time".into())]
    );
    assert_eq!(post.tick(late + second(1)), [], "killed once");
    let departure = post.died(2, late).unwrap();
    assert_eq!(
        departure.killed.as_deref(),
        Some("killed: not ready in time")
    );
    assert!(post.is_manned());
}

#[test]
fn a_slow_replacement_is_kept_when_the_old_one_dies() {
    let now = Instant::now();
    let mut post = manned(Role::Edge, now);
    post.replace();
    post.tick(now);
    assert_eq!(post.died(1, now).unwrap().restart_in, None);
    assert_eq!(post.tick(now + second(3600)), []);
    assert_eq!(post.wake_at(), None);
    assert_eq!(post.state_of(2), Some(ProcessState::Starting));
}

#[test]
fn control_is_never_there_twice() {
    let now = Instant::now();
    let mut post = manned(Role::Control, now);
    assert!(post.replace());
    assert_eq!(post.tick(now), [Action::Drain(1)]);
    assert_eq!(post.tick(now), []);
    post.died(1, now);
    assert_eq!(post.tick(now), [Action::Start(2)]);
    post.ready(2, now);
    assert_eq!(post.tick(now), []);
}

#[test]
fn who_does_not_answer_is_killed_and_replaced() {
    let now = Instant::now();
    let mut post = manned(Role::Edge, now);
    for _ in 0..10 {
        assert_eq!(post.pinged(), []);
    }
    post.answered(1);
    for _ in 0..10 {
        assert_eq!(post.pinged(), []);
    }
    assert_eq!(
        post.pinged(),
        [Action::Kill(1, "killed: no answer for 10s".into())]
    );
    assert_eq!(post.pinged(), [], "killed once");
    let departure = post.died(1, now + second(22)).unwrap();
    assert!(departure.unwanted);
    assert_eq!(post.tick(now + second(22)), [Action::Start(2)]);
    for _ in 0..30 {
        assert_eq!(post.pinged(), [], "it may load for a while");
    }
    assert_eq!(post.pinged().len(), 1);
}

#[test]
fn who_does_not_drain_in_time_is_killed() {
    let now = Instant::now();
    let mut post = manned(Role::Edge, now);
    assert_eq!(post.retire(now), [Action::Drain(1)]);
    assert_eq!(post.retire(now), [], "told once");
    for _ in 0..50 {
        assert_eq!(
            post.pinged(),
            [],
            "a draining member has its deadline instead"
        );
    }
    assert_eq!(
        post.tick(now + LIMIT),
        [Action::Kill(1, "killed: not drained in time".into())]
    );
    let departure = post.died(1, now + LIMIT).unwrap();
    assert!(!departure.unwanted);
    assert_eq!(post.tick(now + second(3600)), [], "nobody follows");
    assert!(post.is_empty());
}

#[test]
fn replacements_do_not_pile_up() {
    let now = Instant::now();
    let mut post = manned(Role::Edge, now);
    for _ in 0..3 {
        assert!(post.replace());
        post.tick(now);
    }
    assert!(!post.replace());
    assert_eq!(
        post.ready(4, now),
        [Action::Drain(1), Action::Drain(2), Action::Drain(3)],
        "the youngest that gets ready relieves all others"
    );
}

#[test]
fn who_never_served_has_little_time_to_leave() {
    let now = Instant::now();
    let mut post = Post::new(Role::Edge, LIMIT);
    post.tick(now);
    assert_eq!(post.retire(now), [Action::Drain(1)]);
    assert_eq!(post.tick(now + second(5)).len(), 1, "killed");
}
