//! The edge's post: who is started, called, relieved, dismissed and killed
//! when. Time is made up.

use std::time::Duration;

use super::edge::MAX_MEMBERS;
use super::*;

const LIMITS: Limits = Limits {
    drain: Duration::from_secs(35),
    hand_over: Duration::from_secs(3605),
};
const OLD: Vintage = Vintage(1);
const NEW: Vintage = Vintage(2);

fn second(number: u64) -> Duration {
    Duration::from_secs(number)
}

fn crash() -> Ending {
    Ending {
        reason: "ended by signal 11".to_owned(),
        is_own_fault: true,
    }
}

fn request(vintage: Vintage) -> Request {
    Request {
        vintage,
        is_held: false,
        keeps_reserve: false,
    }
}

/// A post whose first member serves; nobody may stand by.
fn manned(now: Moment) -> EdgePost {
    let mut post = EdgePost::new(OLD, LIMITS);
    assert_eq!(post.tick(now), [Action::Start(1, OLD)]);
    assert_eq!(post.tick(now), []);
    post.warm(1, now);
    assert!(!post.is_manned());
    assert_eq!(post.tick(now), [Action::Serve(1)]);
    assert_eq!(post.state_of(1), Some(ProcessState::Starting));
    post.ready(1, now);
    assert_eq!(post.tick(now), []);
    assert!(post.is_manned());
    post
}

/// The first member has been told that the second, a replacement, serves.
fn replaced(post: &mut EdgePost, now: Moment) {
    post.replace(request(NEW));
    post.tick(now);
    post.warm(2, now);
    post.tick(now);
    post.ready(2, now);
    assert_eq!(post.tick(now), [Action::HandOver(1)]);
}

/// As [`manned`], with a second one that stands by, and when that is.
fn relieved() -> (EdgePost, Moment) {
    let now = Moment::default();
    let mut post = manned(now);
    post.allow_reserve(true);
    assert_eq!(post.tick(now), [], "the takeover has the processor");
    assert_eq!(post.wake_at(), Some(now + second(1)));
    let now = now + second(1);
    assert_eq!(post.tick(now), [Action::Start(2, OLD)]);
    post.warm(2, now);
    assert_eq!(post.tick(now), []);
    assert_eq!(post.state_of(2), Some(ProcessState::Standby));
    (post, now)
}

#[test]
fn a_standby_takes_over_in_the_same_turn_and_another_follows() {
    let (mut post, now) = relieved();
    let now = now + second(60);
    post.ready(2, now);
    assert_eq!(post.state_of(2), Some(ProcessState::Standby), "not called");
    let departure = post.died(1, &crash(), now).unwrap();
    assert_eq!(departure.duty, Duty::Serving(second(61)));
    assert_eq!(departure.relief, Relief::TakesOver);
    assert_eq!(post.tick(now), [Action::Serve(2)]);
    post.ready(2, now);
    assert_eq!(post.tick(now), []);
    assert_eq!(post.tick(now + second(1)), [Action::Start(3, OLD)]);
    assert_eq!(post.restarts(), 1);
}

#[test]
fn a_standby_that_still_loads_takes_over_when_it_is_warm() {
    let now = Moment::default();
    let mut post = manned(now);
    post.allow_reserve(true);
    let now = now + second(1);
    assert_eq!(post.tick(now), [Action::Start(2, OLD)]);
    let departure = post.died(1, &crash(), now).unwrap();
    assert_eq!(departure.relief, Relief::Loads);
    assert_eq!(post.tick(now + second(3600)), [], "it is all there is");
    assert_eq!(post.wake_at(), None);
    post.warm(2, now);
    assert_eq!(post.tick(now), [Action::Serve(2)]);
}

#[test]
fn a_stalled_one_is_killed_and_relieved_in_the_same_turn() {
    let (mut post, now) = relieved();
    for _ in 0..5 {
        post.pinged();
        post.answered(2);
    }
    assert_eq!(post.tick(now), []);
    post.pinged();
    let killed = Action::Kill(1, "killed: no answer for 5s".into());
    assert_eq!(post.tick(now), [killed, Action::Serve(2)]);
    post.ready(2, now);
    assert_eq!(post.tick(now), [], "the killed one is asked nothing more");
    let ended = Ending {
        reason: "ended by signal 9".into(),
        is_own_fault: false,
    };
    let departure = post.died(1, &ended, now).unwrap();
    assert!(departure.is_own_fault && departure.is_unwanted());
    assert_eq!(departure.reason, "killed: no answer for 5s");
    assert_eq!(departure.relief, Relief::Serves);
}

#[test]
fn before_its_first_answer_one_may_load_for_half_a_minute() {
    let mut post = EdgePost::new(OLD, LIMITS);
    let now = Moment::default();
    post.tick(now);
    for _ in 0..30 {
        post.pinged();
    }
    assert_eq!(post.tick(now), []);
    post.pinged();
    assert_eq!(
        post.tick(now),
        [
            Action::Kill(1, "killed: no answer for 30s".into()),
            Action::Start(2, OLD)
        ]
    );
}

#[test]
fn without_a_standby_the_dead_is_replaced_at_once_and_a_crash_loop_waits() {
    let now = Moment::default();
    let mut post = manned(now);
    let now = now + second(60);
    let departure = post.died(1, &crash(), now).unwrap();
    assert_eq!(departure.relief, Relief::Starts(Duration::ZERO));
    assert_eq!(post.tick(now), [Action::Start(2, OLD)]);
    let departure = post.died(2, &crash(), now).unwrap();
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
fn a_replacement_serves_before_the_old_one_hands_over() {
    let (mut post, now) = relieved();
    post.replace(request(NEW));
    assert_eq!(post.progress(NEW), Progress::Asked);
    assert_eq!(post.tick(now), [Action::Start(3, NEW)]);
    assert_eq!(post.progress(NEW), Progress::Starting);
    post.warm(3, now);
    assert_eq!(post.tick(now), [Action::Serve(3)]);
    assert_eq!(post.state_of(1), Some(ProcessState::Ready));
    post.ready(3, now);
    assert_eq!(post.tick(now), [Action::HandOver(1), Action::Drain(2)]);
    assert_eq!(post.progress(NEW), Progress::Serving);
    assert_eq!(post.state_of(1), Some(ProcessState::Draining));
    let left = Ending {
        reason: "exited with 0".into(),
        is_own_fault: false,
    };
    for generation in [1, 2] {
        let departure = post.died(generation, &left, now).unwrap();
        assert!(!departure.is_unwanted());
    }
    assert_eq!(post.tick(now + second(1)), [Action::Start(4, NEW)]);
    assert_eq!(post.restarts(), 0);
}

#[test]
fn a_replacement_that_dies_leaves_everything_as_it_was() {
    let (mut post, now) = relieved();
    post.replace(request(NEW));
    post.tick(now);
    let departure = post.died(3, &crash(), now).unwrap();
    assert_eq!(departure.duty, Duty::Waiting);
    assert_eq!(departure.relief, Relief::Serves);
    assert_eq!(
        post.progress(NEW),
        Progress::Failed("ended by signal 11".into())
    );
    assert_eq!(post.tick(now + second(100)), []);
    assert_eq!(post.present(), OLD);
    post.died(1, &crash(), now);
    assert_eq!(post.tick(now), [Action::Serve(2)]);
}

#[test]
fn a_replacement_that_is_late_is_given_up() {
    let now = Moment::default();
    let mut post = manned(now);
    post.replace(request(NEW));
    post.tick(now);
    let late = post.wake_at().unwrap();
    let reason = "killed: no table in time".to_owned();
    assert_eq!(post.tick(late), [Action::Kill(2, reason.clone())]);
    assert_eq!(post.progress(NEW), Progress::Failed(reason));
    assert_eq!(post.tick(late + second(1)), [], "killed once");
    post.replace(request(Vintage(3)));
    post.tick(late);
    post.warm(3, late);
    assert_eq!(post.tick(late), [Action::Serve(3)]);
    let late = post.wake_at().unwrap();
    let reason = "killed: not ready in time".to_owned();
    assert_eq!(post.tick(late), [Action::Kill(3, reason)]);
    assert_eq!(post.state_of(1), Some(ProcessState::Ready));
}

#[test]
fn a_slow_replacement_is_kept_when_the_old_one_dies() {
    let now = Moment::default();
    let mut post = manned(now);
    post.replace(request(NEW));
    post.tick(now);
    assert_eq!(post.died(1, &crash(), now).unwrap().relief, Relief::Loads);
    assert_eq!(post.tick(now + second(3600)), []);
    assert_eq!(post.wake_at(), None);
    post.warm(2, now);
    assert_eq!(post.tick(now), [Action::Serve(2)]);
    post.ready(2, now);
    assert_eq!(post.present(), NEW);
}

#[test]
fn a_held_replacement_waits_to_be_let() {
    let (mut post, now) = relieved();
    let held = Request {
        is_held: true,
        ..request(NEW)
    };
    post.replace(held);
    post.tick(now);
    post.warm(3, now);
    assert_eq!(post.tick(now + second(3600)), []);
    assert_eq!(post.progress(NEW), Progress::Warm);
    assert_eq!(post.state_of(3), Some(ProcessState::Standby));
    post.release(NEW);
    assert_eq!(post.tick(now), [Action::Serve(3)]);
}

#[test]
fn a_held_replacement_serves_when_nobody_else_can() {
    let (mut post, now) = relieved();
    post.replace(Request {
        is_held: true,
        ..request(NEW)
    });
    post.tick(now);
    post.warm(3, now);
    post.died(1, &crash(), now);
    assert_eq!(post.tick(now), [Action::Serve(2)], "the standby goes first");
    post.died(2, &crash(), now);
    assert_eq!(post.tick(now), [Action::Serve(3)]);
    post.ready(3, now);
    assert_eq!(post.progress(NEW), Progress::Serving);
}

#[test]
fn an_abandoned_replacement_leaves_and_the_next_one_comes() {
    let (mut post, now) = relieved();
    post.replace(Request {
        is_held: true,
        ..request(NEW)
    });
    post.tick(now);
    post.warm(3, now);
    post.replace(request(Vintage(3)));
    assert_eq!(post.tick(now), [], "one after another");
    post.abandon(NEW);
    assert_eq!(post.progress(NEW), Progress::Failed("given up".into()));
    assert_eq!(
        post.tick(now),
        [Action::Drain(3), Action::Start(4, Vintage(3))]
    );
}

#[test]
fn the_last_replacement_asked_for_is_the_next() {
    let now = Moment::default();
    let mut post = manned(now);
    post.replace(request(NEW));
    post.tick(now);
    post.replace(request(Vintage(3)));
    post.replace(request(Vintage(4)));
    assert_eq!(post.latest(), Vintage(4));
    assert!(matches!(post.progress(Vintage(3)), Progress::Failed(_)));
    post.warm(2, now);
    post.tick(now);
    post.ready(2, now);
    assert_eq!(
        post.tick(now),
        [Action::HandOver(1), Action::Start(3, Vintage(4))]
    );
}

#[test]
fn handing_over_and_draining_have_limits_of_their_own() {
    let now = Moment::default();
    let mut post = manned(now);
    replaced(&mut post, now);
    assert_eq!(post.wake_at(), Some(now + LIMITS.hand_over));
    let reason = "killed: not handed over in time".into();
    let late = now + LIMITS.hand_over;
    assert_eq!(post.tick(late), [Action::Kill(1, reason)]);
}

#[test]
fn one_that_stalls_while_it_hands_over_is_killed() {
    let now = Moment::default();
    let mut post = manned(now);
    replaced(&mut post, now);
    for _ in 0..6 {
        post.pinged();
        post.answered(2);
    }
    let reason = "killed: no answer for 5s".to_owned();
    assert_eq!(post.tick(now), [Action::Kill(1, reason)]);
}

#[test]
fn a_shutdown_drains_those_that_hand_over_and_dismisses_the_standby() {
    let (mut post, now) = relieved();
    post.replace(request(NEW));
    post.tick(now);
    post.warm(3, now);
    post.tick(now);
    post.ready(3, now);
    post.tick(now);
    let now = now + second(1);
    assert_eq!(post.tick(now), [Action::Start(4, NEW)]);
    post.retire();
    assert_eq!(
        post.tick(now),
        [Action::Drain(1), Action::Drain(3), Action::Drain(4)]
    );
    assert_eq!(post.tick(now), [], "told once");
    let unborn = Action::Kill(4, "killed: not drained in time".into());
    let standby = Action::Kill(2, "killed: not drained in time".into());
    assert_eq!(post.tick(now + second(5)), [standby, unborn]);
    assert_eq!(post.tick(now + LIMITS.drain).len(), 2);
    for generation in 1..=4 {
        let departure = post.died(generation, &crash(), now).unwrap();
        assert_eq!(departure.relief, Relief::Nobody);
    }
    assert_eq!(post.tick(now + second(3600)), [], "nobody follows");
    assert!(post.is_empty());
}

#[test]
fn a_drain_never_lengthens_a_handover() {
    let now = Moment::default();
    let mut post = EdgePost::new(
        OLD,
        Limits {
            drain: second(35),
            hand_over: second(10),
        },
    );
    post.tick(now);
    post.warm(1, now);
    post.tick(now);
    post.ready(1, now);
    replaced(&mut post, now);
    post.retire();
    post.tick(now);
    let killed = post.tick(now + second(10));
    assert_eq!(
        killed,
        [Action::Kill(1, "killed: not drained in time".into())]
    );
}

#[test]
fn a_standby_that_may_not_be_is_dismissed_but_never_the_last_hope() {
    let (mut post, now) = relieved();
    post.allow_reserve(false);
    assert!(post.stands_by());
    assert_eq!(post.tick(now), [Action::Drain(2)]);
    assert!(!post.stands_by());
    let (mut post, now) = relieved();
    post.died(1, &crash(), now);
    post.allow_reserve(false);
    assert_eq!(post.tick(now), [Action::Serve(2)]);
}

#[test]
fn a_standby_that_cannot_load_is_tried_ever_later() {
    let now = Moment::default();
    let mut post = manned(now);
    post.allow_reserve(true);
    let mut now = now + second(1);
    for (generation, pause) in [(2, 1), (3, 2), (4, 4)] {
        assert_eq!(post.tick(now), [Action::Start(generation, OLD)]);
        let departure = post.died(generation, &crash(), now).unwrap();
        assert_eq!(departure.duty, Duty::Waiting);
        assert_eq!(post.wake_at(), Some(now + second(pause)));
        now = now + second(pause);
    }
    assert_eq!(post.progress(OLD), Progress::Serving);
}

#[test]
fn a_trial_has_the_old_kind_stand_by_until_it_is_settled() {
    let (mut post, now) = relieved();
    post.replace(Request {
        keeps_reserve: true,
        ..request(NEW)
    });
    post.tick(now);
    post.warm(3, now);
    post.tick(now);
    post.ready(3, now);
    assert_eq!(post.tick(now), [Action::HandOver(1)], "2 stays");
    post.settle();
    assert_eq!(post.tick(now), [Action::Drain(2)]);
    assert_eq!(post.tick(now + second(1)), [Action::Start(4, NEW)]);
}

#[test]
fn a_trial_that_dies_is_relieved_by_the_old_kind() {
    let (mut post, now) = relieved();
    post.replace(Request {
        keeps_reserve: true,
        ..request(NEW)
    });
    post.tick(now);
    post.warm(3, now);
    post.tick(now);
    post.ready(3, now);
    post.tick(now);
    let departure = post.died(3, &crash(), now).unwrap();
    assert_eq!(departure.vintage, NEW);
    post.fall_back();
    assert_eq!(post.tick(now), [Action::Serve(2)]);
    post.ready(2, now);
    assert_eq!(post.present(), OLD);
    assert_eq!(post.tick(now + second(1)), [Action::Start(4, OLD)]);
}

#[test]
fn a_replacement_waits_for_room_and_a_place_is_kept_for_need() {
    let now = Moment::default();
    let mut post = manned(now);
    let mut asked = 1;
    while post.has_room() {
        asked += 1;
        post.replace(request(Vintage(asked)));
        let started = post.tick(now);
        assert_eq!(started, [Action::Start(asked, Vintage(asked))]);
        post.warm(asked, now);
        post.tick(now);
        post.ready(asked, now);
        assert_eq!(post.tick(now), [Action::HandOver(asked - 1)]);
    }
    assert_eq!(asked as usize, MAX_MEMBERS - 1);
    post.replace(request(Vintage(99)));
    assert_eq!(post.tick(now), [], "kept");
    assert_eq!(post.progress(Vintage(99)), Progress::Asked);
    post.died(1, &crash(), now);
    assert_eq!(post.tick(now), [Action::Start(32, Vintage(99))]);
    post.died(31, &crash(), now);
    post.died(32, &crash(), now);
    let now = now + second(1);
    assert_eq!(post.tick(now), [Action::Start(33, Vintage(31))]);
}

#[test]
fn what_a_replaced_supervisor_knew_its_successor_knows() {
    let (mut post, now) = relieved();
    post.replace(request(NEW));
    post.tick(now);
    let text = serde_json::to_string(&post).unwrap();
    let mut again: EdgePost = serde_json::from_str(&text).unwrap();
    again.warm(3, now);
    assert_eq!(again.tick(now), [Action::Serve(3)]);
    assert_eq!(again.wake_at(), Some(now + second(10)));
}
