//! The queue in virtual time: order, bounds, and what never happens.

use std::collections::HashMap;

use super::super::pace::{AHEAD, STEP_US};
use super::*;

const SECOND_US: Micros = 1_000_000;

fn app(n: u64) -> EcoString {
    EcoString::from(format!("app-{n}"))
}

fn next(class: Class, due: Micros) -> Option<Next> {
    Some(Next {
        class,
        due,
        timeouts: 0,
    })
}

/// Takes all that may start now.
fn take_all(queue: &mut Queue, now: Micros) -> Vec<u64> {
    std::iter::from_fn(|| queue.take(now).map(|turn| turn.key)).collect()
}

/// A prober in virtual time whose probes take `took_us` each and come again
/// after `interval_us`; what it started, and when.
fn simulate(
    queue: &mut Queue,
    until: Micros,
    took_us: Micros,
    mut next: impl FnMut(u64, Micros) -> Option<Next>,
) -> Vec<(Micros, u64)> {
    let mut started = Vec::new();
    let mut ends: VecDeque<(Micros, u64)> = VecDeque::new();
    let mut now = 0;
    while now < until {
        while ends.front().is_some_and(|(at, _)| *at <= now) {
            let (_, key) = ends.pop_front().expect("it was just seen");
            let next = next(key, now);
            queue.put_back(key, next);
        }
        while let Some(turn) = queue.take(now) {
            started.push((now, turn.key));
            ends.push_back((now + took_us, turn.key));
            assert!(ends.len() <= AT_ONCE, "at most {AT_ONCE} may run at once");
        }
        let ended = ends.front().map_or(NEVER, |(at, _)| *at);
        // Timers wake to the millisecond.
        let woken = queue.wake_at().min(ended).min(until);
        now = woken.max(now + 1).next_multiple_of(1_000);
    }
    started
}

/// No window of a second holds more than the rate allows.
fn assert_paced(started: &[(Micros, u64)]) {
    let most = (SECOND_US / STEP_US + AHEAD + 1) as usize;
    for (first, (at, _)) in started.iter().enumerate() {
        if let Some((beyond, _)) = started.get(first + most) {
            assert!(
                beyond - at > SECOND_US,
                "{most} starts from {at} to {beyond}"
            );
        }
    }
}

#[test]
fn a_hundred_thousand_backends_stay_within_the_rate_and_none_is_left_out() {
    const BACKENDS: u64 = 100_000;
    let mut queue = Queue::default();
    for key in 0..BACKENDS {
        // All at once, as after a start without spread, every 5 s.
        queue.watch(&app(key / 4), key, Class::Active, 0);
    }
    let until = 250 * SECOND_US;
    let started = simulate(&mut queue, until, 3_000, |_, now| {
        next(Class::Active, now + 5 * SECOND_US)
    });
    assert_paced(&started);
    assert!(queue.backlog() as u64 <= BACKENDS, "none waits twice");
    // As many as the rate allows, each as often as any other.
    assert!(started.len() as u64 >= 249 * 1_000, "{}", started.len());
    let mut times: HashMap<u64, u64> = HashMap::new();
    for (_, key) in started {
        *times.entry(key).or_default() += 1;
    }
    assert_eq!(times.len() as u64, BACKENDS);
    assert!(times.values().all(|times| (2..=3).contains(times)));
}

#[test]
fn a_late_probe_is_made_once() {
    let mut queue = Queue::default();
    queue.watch(&app(0), 7, Class::Active, SECOND_US);
    // The prober was away for an hour.
    let hour = 3_600 * SECOND_US;
    let turn = queue.take(hour).expect("it must be due");
    assert_eq!((turn.key, turn.late_us), (7, hour - SECOND_US));
    assert_eq!(queue.take(hour), None);
    queue.put_back(7, next(Class::Active, hour + SECOND_US));
    assert_eq!(queue.take(hour + SECOND_US - 1), None);
    let turn = queue.take(hour + SECOND_US).expect("it must be due");
    assert_eq!(turn.late_us, 0);
    queue.put_back(7, None);
    assert_eq!((queue.len(), queue.backlog()), (0, 0));
}

#[test]
fn a_backend_has_one_watch_however_often_it_is_posted() {
    let mut queue = Queue::default();
    for _ in 0..10 {
        queue.watch(&app(0), 1, Class::Active, 500);
        queue.watch(&app(0), 1, Class::Return, 100);
        queue.watch(&app(0), 1, Class::Return, 300);
    }
    assert_eq!((queue.len(), queue.of_app("app-0")), (1, &[1][..]));
    assert_eq!(take_all(&mut queue, 99), [0u64; 0]);
    assert_eq!(take_all(&mut queue, 100), [1]);
    // While it runs too.
    queue.watch(&app(0), 1, Class::Return, 100);
    assert_eq!(take_all(&mut queue, 100_000), [0u64; 0]);
    queue.put_back(1, next(Class::Return, 200_000));
    assert_eq!(take_all(&mut queue, 199_999), [0u64; 0]);
    assert_eq!(take_all(&mut queue, 200_000), [1]);
}

#[test]
fn returns_go_first_and_active_probes_still_have_their_turn() {
    let mut queue = Queue::default();
    for n in 0..20 {
        queue.watch(&app(n), n, Class::Active, 0);
        queue.watch(&app(n), 100 + n, Class::Return, 0);
    }
    let order = take_all(&mut queue, 1);
    let actives = order.iter().filter(|key| **key < 100).count();
    assert_eq!(order.len() as u64, AHEAD + 1);
    assert!(order[..3].iter().all(|key| *key >= 100), "{order:?}");
    // Every fourth while there are both, then what is left.
    assert_eq!(order[..26].iter().filter(|key| **key < 100).count(), 6);
    assert_eq!(actives, order.len() - 20);
}

#[test]
fn a_waiting_active_probe_may_become_a_return_at_any_stage() {
    let mut queue = Queue::default();
    for key in 0..3 {
        queue.watch(&app(key), key, Class::Active, key * 1_000);
    }
    // Due already, but not started: what is taken first is another.
    queue.watch(&app(9), 9, Class::Active, 0);
    assert_eq!(queue.take(1_000).map(|turn| turn.key), Some(0));
    queue.watch(&app(1), 1, Class::Return, 1_000);
    queue.watch(&app(2), 2, Class::Return, 1_000);
    assert!(queue.holds_return(1) && queue.holds_return(2) && !queue.holds_return(9));
    assert_eq!(take_all(&mut queue, 1_000), [1, 2, 9]);
    assert_eq!(queue.backlog(), 0);
    for key in [0, 1, 2, 9] {
        queue.put_back(key, None);
    }
    assert_eq!((queue.len(), queue.next_return()), (0, None));
}

#[test]
fn neither_kind_nor_one_app_takes_every_place() {
    let start = |class: Class, apps: u64| {
        let mut queue = Queue::default();
        for key in 0..1_000 {
            queue.watch(&app(key % apps), key, class, 0);
        }
        // Nothing ends: only the places count, given time.
        let mut started = 0;
        for ms in 0..10_000 {
            started += take_all(&mut queue, ms * 1_000).len();
        }
        started
    };
    assert_eq!(start(Class::Return, 1_000), AT_ONCE_OF[0]);
    assert_eq!(start(Class::Active, 1_000), AT_ONCE_OF[1]);
    assert_eq!(start(Class::Active, 1), OF_ONE_APP as usize);
}

#[test]
fn what_is_unwatched_is_not_taken() {
    let mut queue = Queue::default();
    for key in 0..4 {
        queue.watch(&app(0), key, Class::Active, key);
    }
    queue.unwatch(3);
    assert_eq!(queue.take(2).map(|turn| turn.key), Some(0));
    queue.unwatch(1);
    // Its probe runs: it ends with that.
    queue.unwatch(0);
    assert_eq!((queue.len(), queue.backlog()), (2, 1));
    queue.put_back(0, None);
    assert_eq!(take_all(&mut queue, 10), [2]);
    queue.put_back(2, None);
    assert_eq!((queue.len(), queue.of_app("app-0")), (0, &[][..]));
    assert_eq!(queue.wake_at(), NEVER);
}

#[test]
fn moving_a_watch_back_and_forth_leaves_nothing_behind() {
    let mut queue = Queue::default();
    for round in 0..100_000 {
        let due = 10_000_000 - 2 * round;
        queue.watch(&app(0), 1, Class::Return, due);
        queue.hasten(1, due - 1);
        queue.watch(&app(1), 2, Class::Active, due);
        queue.unwatch(2);
    }
    let bound = 2 * queue.len() + SLACK + 1;
    assert!(queue.times.len() <= bound, "{}", queue.times.len());
    assert!(queue.due.iter().all(|due| due.len() <= bound));
    assert_eq!(queue.returns.len(), 1);
}

#[test]
fn requests_that_wait_hasten_a_return_to_100_ms_after_the_last() {
    let mut queue = Queue::default();
    queue.watch(&app(0), 1, Class::Return, 0);
    assert_eq!(take_all(&mut queue, 5_000), [1]);
    queue.put_back(1, next(Class::Return, SECOND_US));
    for _ in 0..5 {
        queue.hasten_after(1, 100_000);
    }
    assert_eq!(take_all(&mut queue, 104_999), [0u64; 0]);
    assert_eq!(take_all(&mut queue, 105_000), [1]);
}
