//! Rates and counts against plain models, and a million keys against the
//! promises of [`super::keyed`].

use std::collections::HashMap;

use proptest::prelude::*;

use super::keyed::{Crowds, Full, KEYS, Meters};
use super::*;

const MS: u64 = 1_000_000;

fn pace(text: &str, burst: Option<u32>) -> Pace {
    Pace::new(text.parse().unwrap(), burst)
}

#[test]
fn rates_as_people_write_them() {
    for (text, shown, burst) in [
        ("10", "10/s", 10),
        ("0", "0/s", 1),
        ("600/m", "600/m", 10),
        ("10/m", "10/m", 1),
        ("7200/h", "7200/h", 2),
        ("1000000", "1000000/s", 1_000_000),
        ("60000000/m", "60000000/m", 1_000_000),
    ] {
        let rate: Rate = text.parse().unwrap();
        assert_eq!(rate.to_string(), shown);
        assert_eq!(rate.usual_burst(), burst);
    }
    for text in [
        "",
        "-1",
        "+1",
        "1.5",
        "ten",
        "1e3",
        "10/d",
        "10/",
        "/s",
        " 10",
        "10/s/s",
        "1000001",
        "60000001/m",
        "99999999999999999999",
        "NaN",
        "0x10",
        "١",
    ] {
        assert_eq!(text.parse::<Rate>(), Err(NoRate), "{text}");
    }
}

#[test]
fn what_is_over_the_rate_is_told_how_long_to_wait() {
    let (meter, pace) = (Meter::default(), pace("10/s", Some(2)));
    assert_eq!(meter.take(pace, 5), Ok(()));
    assert_eq!(meter.take(pace, 5), Ok(()));
    assert_eq!(meter.take(pace, 5), Err(Wait(100 * MS)));
    assert_eq!(meter.take(pace, 5 + 99 * MS), Err(Wait(MS)));
    assert_eq!(meter.take(pace, 5 + 100 * MS), Ok(()));
    assert_eq!((Wait(1).seconds(), Wait(SECOND_NS + 1).seconds()), (1, 2));
}

#[test]
fn zero_lets_nothing_pass_and_owes_nothing_later() {
    let meter = Meter::default();
    let stopped = pace("0", None);
    for now in 0..100 {
        assert!(meter.take(stopped, now * SECOND_NS).is_err());
    }
    assert_eq!(meter.take(pace("1", None), 100 * SECOND_NS), Ok(()));
    let meters = Meters::default();
    assert!(meters.take(1, stopped, 0).is_err());
    assert_eq!(Crowds::default().enter(1, 0), Err(Full));
}

#[test]
fn a_raised_rate_does_not_wait_out_the_old_one() {
    let (meter, slow, quick) = (Meter::default(), pace("1/h", None), pace("10", Some(1)));
    assert_eq!(meter.take(slow, 0), Ok(()));
    assert!(meter.take(slow, SECOND_NS).is_err());
    meter.settle(quick, SECOND_NS);
    assert_eq!(meter.take(quick, SECOND_NS), Err(Wait(100 * MS)));
    assert_eq!(meter.take(quick, SECOND_NS + 100 * MS), Ok(()));
    let meters = Meters::default();
    assert_eq!(meters.take(9, slow, 0), Ok(()));
    meters.settle(quick, SECOND_NS);
    assert_eq!(meters.take(9, quick, SECOND_NS + 100 * MS), Ok(()));
}

#[test]
fn threads_share_one_rate() {
    let (meter, pace) = (Meter::default(), pace("1000", Some(1_000)));
    let passed: usize = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|_| scope.spawn(|| (0..10_000).filter(|_| meter.take(pace, 7).is_ok()).count()))
            .collect();
        let passed = threads.into_iter().map(|thread| thread.join().unwrap());
        passed.sum()
    });
    assert_eq!(passed, 1_000);
}

#[test]
fn a_crowd_is_never_larger_than_it_may_be() {
    let crowd = Crowd::default();
    assert!(crowd.enter(2) && crowd.enter(2) && !crowd.enter(2));
    crowd.leave();
    assert!(crowd.enter(2));
    assert!(!crowd.enter(0));
    assert_eq!(crowd.inside(), 2);
}

/// A well-spread 64-bit number (splitmix64), as a hash is.
fn hash(key: u64) -> u64 {
    let mut z = key.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A million clients within their due, each of 2 requests, among a thousand
/// that hammer: not one request of the million is refused, and the thousand
/// are held to theirs.
#[test]
fn of_a_million_clients_no_honest_one_is_refused() {
    const CLIENTS: u64 = 1_000_000;
    let (meters, pace) = (Meters::default(), pace("2/s", None));
    let hammering = |n: u64| hash(u64::MAX - n % 1_000);
    let mut passed = 0;
    // 20 s: 100,000 requests a second, half of them the hammerers'.
    for n in 0..CLIENTS {
        let now = n * 20 * SECOND_NS / CLIENTS;
        assert_eq!(meters.take(hash(n), pace, now), Ok(()), "client {n}");
        assert_eq!(meters.take(hash(n), pace, now), Ok(()), "client {n}, again");
        passed += u64::from(meters.take(hammering(n), pace, now).is_ok());
    }
    // 1,000 of them, 2/s for 20 s, and 2 at once: 42,000.
    assert!((41_000..=42_000).contains(&passed), "{passed} passed");
    // With 51,000 of them busy at a time, one group in eighty is full.
    assert!(meters.forgotten() < CLIENTS / 50, "{}", meters.forgotten());
}

/// Far more busy clients than there are places: still no honest one is refused.
#[test]
fn a_table_that_is_too_small_errs_for_the_client() {
    let (meters, pace) = (Meters::default(), pace("1/m", None));
    for n in 0..1_000_000 {
        assert_eq!(meters.take(hash(n), pace, n), Ok(()), "client {n}");
    }
    assert!(meters.forgotten() > 1_000_000 - KEYS as u64 - 1);
}

#[test]
fn of_a_million_clients_under_way_in_turn_no_honest_one_is_refused() {
    let crowds = Crowds::default();
    let mut under_way = std::collections::VecDeque::new();
    for n in 0..1_000_000 {
        let seat = crowds.enter(hash(n), 1);
        assert!(seat.is_ok(), "client {n}");
        assert_eq!(crowds.enter(hash(n), 1).is_err(), seat.unwrap().is_some());
        under_way.push_back(seat.unwrap());
        if under_way.len() > 20_000
            && let Some(Some(seat)) = under_way.pop_front()
        {
            crowds.leave(seat);
        }
    }
    assert!(crowds.uncounted() < 100, "{}", crowds.uncounted());
}

#[test]
fn everybody_who_left_is_forgotten() {
    let crowds = Crowds::default();
    for round in 0..3 {
        let seats: Vec<_> = (0..50).map(|n| crowds.enter(hash(n), 2).unwrap()).collect();
        let twice: Vec<_> = (0..50).map(|n| crowds.enter(hash(n), 2).unwrap()).collect();
        assert!(
            (0..50).all(|n| crowds.enter(hash(n), 2).is_err()),
            "{round}"
        );
        for seat in seats.into_iter().chain(twice) {
            crowds.leave(seat.unwrap());
        }
    }
}

proptest! {
    /// Against a bucket that is filled continuously, in exact arithmetic.
    #[test]
    fn a_meter_is_a_token_bucket(
        count in 1_u32..2_000,
        burst in 1_u32..50,
        waits in prop::collection::vec(0_u64..20 * MS, 1..300),
    ) {
        let pace = Pace::new(Rate::per_second(count), Some(burst));
        let step = u128::from(pace.step_ns);
        let (meter, meters) = (Meter::default(), Meters::default());
        let (mut now, mut last, mut held) = (SECOND_NS, 0_u64, u128::from(burst) * step);
        for wait in waits {
            now += wait;
            held = (held + u128::from(now - last)).min(u128::from(burst) * step);
            last = now;
            let passes = held >= step;
            held -= if passes { step } else { 0 };
            let taken = meter.take(pace, now);
            prop_assert_eq!(taken.is_ok(), passes);
            prop_assert_eq!(meters.take(hash(1), pace, now), taken);
            if let Err(Wait(wait)) = taken {
                prop_assert_eq!(u128::from(wait), step - held);
            }
        }
    }

    /// What another limit refused is as if it had not been.
    #[test]
    fn what_is_given_back_was_never_taken(
        count in 1_u32..100,
        takes in prop::collection::vec((0_u64..50 * MS, any::<bool>()), 1..200),
    ) {
        let pace = Pace::new(Rate::per_second(count), None);
        let (meter, plain) = (Meter::default(), Meter::default());
        let mut now = SECOND_NS;
        for (wait, refused) in takes {
            now += wait;
            if refused {
                if meter.take(pace, now).is_ok() {
                    meter.give_back(pace);
                }
            } else {
                prop_assert_eq!(meter.take(pace, now), plain.take(pace, now));
            }
        }
    }

    /// Against a map with an entry for each key.
    #[test]
    fn crowds_count_like_a_map(
        most in 1_u32..5,
        steps in prop::collection::vec((0_u64..6, any::<bool>()), 1..300),
    ) {
        let crowds = Crowds::default();
        let mut inside: HashMap<u64, Vec<_>> = HashMap::new();
        for (key, enters) in steps {
            let seats = inside.entry(key).or_default();
            if enters {
                let entered = crowds.enter(hash(key), most);
                prop_assert_eq!(entered.is_ok(), seats.len() < most as usize);
                if let Ok(seat) = entered {
                    seats.push(seat.unwrap());
                }
            } else if let Some(seat) = seats.pop() {
                crowds.leave(seat);
            }
        }
    }
}
