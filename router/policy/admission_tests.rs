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

fn poll(waiter: &mut Waiter<'_>) -> bool {
    let waker = Waker::from(Arc::new(Flag::default()));
    let mut context = Context::from_waker(&waker);
    Pin::new(waiter).poll(&mut context).is_ready()
}

#[test]
fn first_come_first_served_up_to_the_limit() {
    let queue = WaitQueue::default();
    let mut waiters: Vec<_> = (0..3).map(|_| queue.join(3).unwrap()).collect();
    assert!(queue.join(3).is_none());
    assert_eq!(queue.waiting(), 3);
    for waiter in &mut waiters {
        assert!(!poll(waiter));
    }
    queue.wake_one();
    let ready: Vec<_> = waiters.iter_mut().map(poll).collect();
    assert_eq!(ready, [true, false, false]);
    waiters.remove(0).served();
    assert_eq!(queue.waiting(), 2);
    assert!(queue.join(3).is_some());
}

#[test]
fn a_line_that_was_let_grow_long_turns_nobody_away_until_it_is_empty() {
    let queue = WaitQueue::default();
    let held: Vec<_> = (0..5).map(|_| queue.join(5).unwrap()).collect();
    assert!(queue.join(2).is_none(), "longer than anyone allowed");
    drop(held.into_iter().take(1).collect::<Vec<_>>());
    assert_eq!(queue.waiting(), 0);
    let short: Vec<_> = (0..2).map(|_| queue.join(2).unwrap()).collect();
    assert!(queue.join(2).is_none(), "the short line is short again");
    let long = queue.join(5).unwrap();
    drop(short);
    let newcomers: Vec<_> = (0..4).map(|_| queue.join(2).unwrap()).collect();
    assert!(queue.join(2).is_none());
    drop((long, newcomers));
}

#[test]
fn a_wake_up_of_a_dropped_waiter_is_passed_on() {
    let queue = WaitQueue::default();
    let (mut first, mut second) = (queue.join(9).unwrap(), queue.join(9).unwrap());
    assert!(!poll(&mut first) && !poll(&mut second));
    queue.wake_one();
    drop(first);
    assert!(poll(&mut second));
    second.served();
    assert_eq!(queue.waiting(), 0);
}

#[test]
fn the_waker_of_the_first_in_line_is_called() {
    let queue = WaitQueue::default();
    let mut waiter = queue.join(9).unwrap();
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
    let (mut first, mut second) = (queue.join(9).unwrap(), queue.join(9).unwrap());
    queue.wake_one();
    assert!(poll(&mut first) && !poll(&mut second));
    assert!(!poll(&mut first), "back in line");
    queue.wake_one();
    assert!(poll(&mut first) && !poll(&mut second));
}

#[test]
fn a_wake_up_while_the_only_waiter_is_picking_is_kept_for_it() {
    let queue = WaitQueue::default();
    let mut waiter = queue.join(9).unwrap();
    queue.wake_one();
    assert!(poll(&mut waiter));
    queue.wake_one();
    assert!(poll(&mut waiter), "it must not wait for a third");
    assert!(!poll(&mut waiter));
}

#[test]
fn waking_all_reaches_those_in_line_and_those_picking() {
    let queue = WaitQueue::default();
    let mut waiters: Vec<_> = (0..3).map(|_| queue.join(9).unwrap()).collect();
    queue.wake_one();
    assert!(poll(&mut waiters[0]));
    queue.wake_all();
    assert!(waiters.iter_mut().all(poll));
    drop(waiters);
    assert_eq!(queue.waiting(), 0);
    let mut next = queue.join(9).unwrap();
    assert!(!poll(&mut next), "no wake-up may be left over");
}

proptest! {
    /// Room is never idle while someone who was told nothing waits: the line
    /// is run with every order of joins, check-ins, polls and drops.
    #[test]
    fn no_wake_up_is_lost(steps in proptest::collection::vec((0u8..5, any::<u8>()), 1..200)) {
        let queue = WaitQueue::default();
        let cap = 3u32;
        let mut in_flight = 0u32;
        let mut waiters: Vec<(Waiter<'_>, bool)> = Vec::new();
        for (step, which) in steps {
            match step {
                0 | 1 => {
                    if in_flight < cap && queue.waiting() == 0 {
                        in_flight += 1;
                    } else if let Some(waiter) = queue.join(20) {
                        if in_flight < cap {
                            in_flight += 1;
                            waiter.served();
                        } else {
                            waiters.push((waiter, false));
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
                    let (mut waiter, _) = waiters.remove(at);
                    let mut served = false;
                    while poll(&mut waiter) {
                        if in_flight < cap {
                            served = true;
                            break;
                        }
                    }
                    if served {
                        in_flight += 1;
                        waiter.served();
                    } else {
                        waiters.insert(at, (waiter, true));
                    }
                },
            }
        }
        // Everyone polls once more, as their wakers would have them do: then
        // room is left only if nobody waits.
        let mut progress = true;
        while progress {
            progress = false;
            for _ in 0..waiters.len() {
                let (mut waiter, _) = waiters.remove(0);
                let ready = poll(&mut waiter);
                if ready && in_flight < cap {
                    in_flight += 1;
                    waiter.served();
                    progress = true;
                } else {
                    waiters.push((waiter, true));
                }
            }
        }
        prop_assert!(in_flight == cap || waiters.is_empty());
        drop(waiters);
        prop_assert_eq!(queue.waiting(), 0);
    }
}

#[test]
fn all_woken_in_vain_keep_their_order() {
    let queue = WaitQueue::default();
    let mut waiters: Vec<_> = (0..4).map(|_| queue.join(9).unwrap()).collect();
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
        waiters.remove(0).served();
    }
}
