//! The line: order, bounds, and no wake-up lost whatever is dropped when.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::task::Wake;

use proptest::prelude::*;

use super::*;

#[derive(Default)]
struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
    }
}

const PACE: Pace = Pace {
    target_us: 10_000,
    interval_us: 100_000,
    depth_us: 10_000,
};

/// Joins a line that has not begun to stand.
fn join(queue: &WaitQueue, limit: u32) -> Option<Waiter<'_>> {
    join_at(queue, limit, 0).ok()
}

fn join_at(queue: &WaitQueue, limit: u32, now_us: u64) -> Result<Waiter<'_>, NoPlace> {
    queue.join(&Joining {
        limit,
        now_us,
        pace: PACE,
        held: false,
    })
}

fn turn(waiter: &mut Waiter<'_>) -> Poll<Turn> {
    let waker = Waker::from(Arc::new(Flag::default()));
    let mut context = Context::from_waker(&waker);
    Pin::new(waiter).poll(&mut context)
}

fn poll(waiter: &mut Waiter<'_>) -> bool {
    turn(waiter).is_ready()
}

#[test]
fn first_come_first_served_up_to_the_limit() {
    let queue = WaitQueue::default();
    let mut waiters: Vec<_> = (0..3).map(|_| join(&queue, 3).unwrap()).collect();
    assert!(join(&queue, 3).is_none());
    assert_eq!(queue.waiting(), 3);
    for waiter in &mut waiters {
        assert!(!poll(waiter));
    }
    queue.wake_one();
    let ready: Vec<_> = waiters.iter_mut().map(poll).collect();
    assert_eq!(ready, [true, false, false]);
    waiters.remove(0).served(0, &PACE);
    assert_eq!(queue.waiting(), 2);
    assert!(join(&queue, 3).is_some());
}

#[test]
fn a_line_that_was_let_grow_long_turns_nobody_away_until_it_is_empty() {
    let queue = WaitQueue::default();
    let held: Vec<_> = (0..5).map(|_| join(&queue, 5).unwrap()).collect();
    assert!(join(&queue, 2).is_none(), "longer than anyone allowed");
    drop(held.into_iter().take(1).collect::<Vec<_>>());
    assert_eq!(queue.waiting(), 0);
    let short: Vec<_> = (0..2).map(|_| join(&queue, 2).unwrap()).collect();
    assert!(join(&queue, 2).is_none(), "the short line is short again");
    let long = join(&queue, 5).unwrap();
    drop(short);
    let newcomers: Vec<_> = (0..4).map(|_| join(&queue, 2).unwrap()).collect();
    assert!(join(&queue, 2).is_none());
    drop((long, newcomers));
}

#[test]
fn a_wake_up_of_a_dropped_waiter_is_passed_on() {
    let queue = WaitQueue::default();
    let (mut first, mut second) = (join(&queue, 9).unwrap(), join(&queue, 9).unwrap());
    assert!(!poll(&mut first) && !poll(&mut second));
    queue.wake_one();
    drop(first);
    assert!(poll(&mut second));
    second.served(0, &PACE);
    assert_eq!(queue.waiting(), 0);
}

#[test]
fn the_waker_of_the_first_in_line_is_called() {
    let queue = WaitQueue::default();
    let mut waiter = join(&queue, 9).unwrap();
    let flag = Arc::new(Flag::default());
    let waker = Waker::from(Arc::clone(&flag));
    assert!(
        Pin::new(&mut waiter)
            .poll(&mut Context::from_waker(&waker))
            .is_pending()
    );
    queue.wake_one();
    assert!(flag.0.load(Ordering::SeqCst));
}

#[test]
fn who_found_no_room_after_all_goes_back_to_the_front() {
    let queue = WaitQueue::default();
    let (mut first, mut second) = (join(&queue, 9).unwrap(), join(&queue, 9).unwrap());
    queue.wake_one();
    assert!(poll(&mut first) && !poll(&mut second));
    assert!(!poll(&mut first), "back in line");
    queue.wake_one();
    assert!(poll(&mut first) && !poll(&mut second));
}

#[test]
fn a_wake_up_while_the_only_waiter_is_picking_is_kept_for_it() {
    let queue = WaitQueue::default();
    let mut waiter = join(&queue, 9).unwrap();
    queue.wake_one();
    assert!(poll(&mut waiter));
    queue.wake_one();
    assert!(poll(&mut waiter), "it must not wait for a third");
    assert!(!poll(&mut waiter));
}

#[test]
fn waking_all_reaches_those_in_line_and_those_picking() {
    let queue = WaitQueue::default();
    let mut waiters: Vec<_> = (0..3).map(|_| join(&queue, 9).unwrap()).collect();
    queue.wake_one();
    assert!(poll(&mut waiters[0]));
    queue.wake_all();
    assert!(waiters.iter_mut().all(poll));
    drop(waiters);
    assert_eq!(queue.waiting(), 0);
    let mut next = join(&queue, 9).unwrap();
    assert!(!poll(&mut next), "no wake-up may be left over");
}

proptest! {
    /// Room is never idle while someone who was told nothing waits: the line
    /// is run with every order of joins, check-ins, polls and drops, fast or so
    /// slow that it stands.
    #[test]
    fn no_wake_up_is_lost(
        steps in proptest::collection::vec((0u8..5, any::<u8>(), 0u64..40_000), 1..200),
        held in proptest::collection::vec(0u8..8, 200),
    ) {
        let queue = WaitQueue::default();
        let cap = 3u32;
        let mut in_flight = 0u32;
        let mut now_us = 0;
        let mut waiters: Vec<Waiter<'_>> = Vec::new();
        for ((step, which, later_us), held) in steps.into_iter().zip(held) {
            now_us += later_us;
            match step {
                0 | 1 => {
                    let joining = Joining { limit: 20, now_us, pace: PACE, held: held == 0 };
                    if in_flight < cap && queue.waiting() == 0 {
                        in_flight += 1;
                    } else if let Ok(waiter) = queue.join(&joining) {
                        if in_flight < cap {
                            in_flight += 1;
                            waiter.served(now_us, &PACE);
                        } else {
                            waiters.push(waiter);
                        }
                    }
                }
                2 => if in_flight > 0 {
                    in_flight -= 1;
                    queue.wake_one();
                },
                3 => if !waiters.is_empty() {
                    let at = usize::from(which) % waiters.len();
                    drop(waiters.remove(at));
                },
                _ => if !waiters.is_empty() {
                    let at = usize::from(which) % waiters.len();
                    let waiter = waiters.remove(at);
                    waiters.extend(go_on(waiter, &mut in_flight, cap, now_us));
                },
            }
        }
        // Everyone polls on, as their wakers would have them do: then room is
        // left only if nobody waits.
        loop {
            let before = (waiters.len(), in_flight);
            let each = std::mem::take(&mut waiters).into_iter();
            waiters = each
                .filter_map(|waiter| go_on(waiter, &mut in_flight, cap, now_us))
                .collect();
            if (waiters.len(), in_flight) == before {
                break;
            }
        }
        prop_assert!(in_flight == cap || waiters.is_empty());
        drop(waiters);
        prop_assert_eq!(queue.waiting(), 0);
        let line = queue.line();
        prop_assert!(line.is_clean());
    }
}

/// What a waiter does when it is polled: takes room if it is its turn and there
/// is any, leaves if it was shed, waits on else.
fn go_on<'q>(
    mut waiter: Waiter<'q>,
    in_flight: &mut u32,
    cap: u32,
    now_us: u64,
) -> Option<Waiter<'q>> {
    loop {
        match turn(&mut waiter) {
            Poll::Pending => return Some(waiter),
            Poll::Ready(Turn::Shed) => return None,
            Poll::Ready(Turn::Come) if *in_flight < cap => {
                *in_flight += 1;
                waiter.served(now_us, &PACE);
                return None;
            }
            Poll::Ready(Turn::Come) => {}
        }
    }
}

/// A line in which everyone waited for longer than the target for so long that
/// it stands; gives the time.
fn stand(queue: &WaitQueue) -> u64 {
    let (mut waiting, mut now_us) = (std::collections::VecDeque::new(), 0);
    while !queue.is_standing() {
        waiting.push_back(join_at(queue, 1_000, now_us).unwrap());
        waiting.push_back(join_at(queue, 1_000, now_us).unwrap());
        if waiting.len() > 30 {
            let mut first: Waiter<'_> = waiting.pop_front().unwrap();
            queue.wake_one();
            assert!(poll(&mut first));
            first.served(now_us, &PACE);
        }
        now_us += 1_000;
        assert!(now_us < 1_000_000, "it must stand by now");
    }
    now_us
}

#[test]
fn a_burst_that_is_served_in_time_sheds_nobody() {
    let queue = WaitQueue::default();
    // 60 at once, one served each millisecond: the last waits 60 ms.
    for start_us in [0, 200_000, 400_000] {
        let burst: Vec<_> = (0..60)
            .map(|_| join_at(&queue, 60, start_us).unwrap())
            .collect();
        for (late_ms, mut waiter) in (0..).zip(burst) {
            queue.wake_one();
            assert_eq!(turn(&mut waiter), Poll::Ready(Turn::Come));
            waiter.served(start_us + late_ms * 1_000, &PACE);
        }
        assert!(!queue.is_standing());
    }
}

#[test]
fn a_burst_that_takes_long_to_serve_sheds_nobody() {
    let queue = WaitQueue::default();
    let burst: Vec<_> = (0..200).map(|_| join_at(&queue, 200, 0).unwrap()).collect();
    for (late_ms, mut waiter) in (0..).zip(burst) {
        queue.wake_one();
        assert_eq!(turn(&mut waiter), Poll::Ready(Turn::Come));
        waiter.served(late_ms * 10_000, &PACE);
        assert!(!queue.is_standing(), "it only gets shorter");
    }
}

#[test]
fn a_line_that_does_not_grow_never_stands() {
    // Sixty clients, each of whom asks again once it was answered, one answer a
    // millisecond.
    let queue = WaitQueue::default();
    let first: Vec<_> = (0..60).map(|_| join_at(&queue, 60, 0).unwrap()).collect();
    let mut waiting = std::collections::VecDeque::from(first);
    for now_ms in 0..5_000 {
        let mut next: Waiter<'_> = waiting.pop_front().unwrap();
        queue.wake_one();
        assert_eq!(turn(&mut next), Poll::Ready(Turn::Come));
        next.served(now_ms * 1_000, &PACE);
        waiting.push_back(join_at(&queue, 60, now_ms * 1_000).unwrap());
        assert!(!queue.is_standing());
    }
}

#[test]
fn a_line_that_stands_is_short_and_serves_the_newest() {
    let queue = WaitQueue::default();
    let now_us = stand(&queue);
    assert_eq!(queue.waiting(), 0, "whoever stood in it is gone");
    let line: Vec<_> = (0..)
        .map_while(|_| join_at(&queue, 1_000, now_us).ok())
        .collect();
    assert!((8..=20).contains(&line.len()), "{}", line.len());
    assert_eq!(join_at(&queue, 1_000, now_us).unwrap_err(), NoPlace::Shed);
    let mut line = line;
    queue.wake_one();
    let ready: Vec<_> = line.iter_mut().map(poll).collect();
    assert_eq!(ready.iter().position(|&is| is), Some(line.len() - 1));
}

#[test]
fn who_waits_too_long_in_a_standing_line_is_told() {
    let queue = WaitQueue::default();
    let now_us = stand(&queue);
    let mut old = join_at(&queue, 1_000, now_us).unwrap();
    assert_eq!(turn(&mut old), Poll::Pending);
    let _other = join_at(&queue, 1_000, now_us + PACE.depth_us).unwrap();
    assert_eq!(turn(&mut old), Poll::Pending, "not a moment too early");
    let _third = join_at(&queue, 1_000, now_us + PACE.depth_us + 1).unwrap();
    assert_eq!(turn(&mut old), Poll::Ready(Turn::Shed));
    drop(old);
    assert_eq!(queue.waiting(), 2);
}

#[test]
fn those_near_their_turn_when_a_line_comes_to_stand_get_it_in_order() {
    let queue = WaitQueue::default();
    let (mut waiting, mut now_us) = (std::collections::VecDeque::new(), 0);
    // Two come and one is served each millisecond.
    while !queue.is_standing() {
        waiting.push_back(join_at(&queue, 1_000, now_us).unwrap());
        waiting.push_back(join_at(&queue, 1_000, now_us).unwrap());
        if waiting.len() > 30 {
            let mut first: Waiter<'_> = waiting.pop_front().unwrap();
            queue.wake_one();
            assert_eq!(turn(&mut first), Poll::Ready(Turn::Come));
            first.served(now_us, &PACE);
        }
        now_us += 1_000;
    }
    // Some ten are served within the target.
    for number in 0..waiting.len() {
        now_us += 1_000;
        queue.wake_one();
        let mut turns = waiting.iter_mut().map(turn);
        let at = turns.position(|turn| turn == Poll::Ready(Turn::Come));
        let served = waiting.remove(at.unwrap()).unwrap();
        assert!(number >= 6 || at == Some(0), "number {number} was {at:?}");
        served.served(now_us, &PACE);
        let before = waiting.len();
        waiting.retain_mut(|one| turn(one) == Poll::Pending);
        // Who waited long and is far from it is not kept until they had theirs.
        assert!(number > 0 || waiting.len() < before - 5, "{before} waited");
        if waiting.is_empty() {
            return;
        }
    }
}

#[test]
fn a_line_stops_standing_once_nobody_was_shed_for_an_interval() {
    let queue = WaitQueue::default();
    let now_us = stand(&queue) + PACE.interval_us;
    let long: Vec<_> = (0..)
        .map_while(|_| join_at(&queue, 200, now_us).ok())
        .collect();
    assert_eq!(long.len(), 200);
    assert!(!queue.is_standing());
}

#[test]
fn those_held_while_an_app_was_down_are_never_shed() {
    let queue = WaitQueue::default();
    let held: Vec<_> = (0..100)
        .map(|_| {
            let joining = Joining {
                limit: 100,
                now_us: 0,
                pace: PACE,
                held: true,
            };
            queue.join(&joining).unwrap()
        })
        .collect();
    // Up after 4 s; 5 ms each.
    let mut now_us = 4_000_000;
    for mut waiter in held {
        queue.wake_one();
        assert_eq!(turn(&mut waiter), Poll::Ready(Turn::Come));
        waiter.served(now_us, &PACE);
        now_us += 5_000;
        assert!(!queue.is_standing());
    }
}

#[test]
fn who_is_held_in_line_keeps_its_place_and_is_not_shed() {
    let queue = WaitQueue::default();
    let now_us = stand(&queue);
    let mut waiters: Vec<_> = (0..4)
        .map(|_| join_at(&queue, 100, now_us).unwrap())
        .collect();
    assert!(waiters.iter_mut().all(|waiter| !poll(waiter)));
    // All waited too long: they are taken out, and one was not told yet.
    let late_us = now_us + PACE.depth_us + 1;
    let newest = join_at(&queue, 100, late_us).unwrap();
    assert_eq!(turn(&mut waiters[0]), Poll::Ready(Turn::Shed));
    for waiter in &mut waiters[1..] {
        waiter.hold();
        waiter.hold();
        assert!(waiter.is_held() && !poll(waiter));
    }
    assert!(!queue.is_standing());
    for mut waiter in waiters.drain(1..) {
        queue.wake_one();
        assert_eq!(turn(&mut waiter), Poll::Ready(Turn::Come));
        waiter.served(late_us, &PACE);
    }
    drop((waiters, newest));
    assert!(queue.line().is_clean());
}

#[test]
fn all_woken_in_vain_keep_their_order() {
    let queue = WaitQueue::default();
    let mut waiters: Vec<_> = (0..4).map(|_| join(&queue, 9).unwrap()).collect();
    for waiter in &mut waiters {
        assert!(!poll(waiter));
    }
    queue.wake_all();
    // No room: each picks in vain and waits again, in whatever order.
    for at in [2, 0, 3, 1] {
        assert!(poll(&mut waiters[at]));
        assert!(!poll(&mut waiters[at]));
    }
    for _ in 0..4 {
        queue.wake_one();
        let ready: Vec<_> = waiters.iter_mut().map(poll).collect();
        let first = ready.iter().position(|&is_ready| is_ready);
        assert_eq!(first, Some(0), "{ready:?}");
        waiters.remove(0).served(0, &PACE);
    }
}
