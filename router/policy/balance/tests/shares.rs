//! What many choices add up to: shares by weight, ramps, slowness, load.

use super::*;

/// The share of 20,000 requests, ten in flight at a time, that each backend
/// gets while it takes its latency to answer.
fn shares(mut pool: Pool, seed: u64) -> Vec<f64> {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut counts = vec![0u32; pool.len()];
    // When each request in flight ends, and where it is.
    let mut ends: std::collections::BinaryHeap<std::cmp::Reverse<(u64, usize)>> =
        std::collections::BinaryHeap::new();
    for step in 0..20_000u64 {
        let now_us = step * 500;
        while let Some(&std::cmp::Reverse((end_us, index))) = ends.peek() {
            if end_us > now_us {
                break;
            }
            ends.pop();
            pool.0[index].in_flight -= 1;
        }
        let Choice::Backend(index) = pick(&pool, random.u64(..), 1_000, &Tried::default()) else {
            panic!("there is room");
        };
        pool.0[index].in_flight += 1;
        counts[index] += 1;
        ends.push(std::cmp::Reverse((
            now_us + pool.0[index].latency_us,
            index,
        )));
    }
    counts
        .into_iter()
        .map(|count| f64::from(count) / 20_000.0)
        .collect()
}

#[test]
fn a_ramp_rises_from_a_tenth_to_the_full_share() {
    for (age_s, least, most) in [(0, 0.02, 0.06), (5, 0.12, 0.19), (10, 0.23, 0.27)] {
        let mut pool = active(&[100; 4]);
        for backend in &mut pool.0 {
            backend.latency_us = 300;
        }
        pool.0[3].state = State::Ramping {
            since_us: NOW_US - age_s * SECOND_US,
        };
        let share = shares(pool, 3)[3];
        assert!((least..=most).contains(&share), "after {age_s} s: {share}");
    }
}

#[test]
fn a_slow_backend_gets_little_and_the_others_their_weights() {
    let mut pool = active(&[100, 100, 100, 200]);
    for backend in &mut pool.0 {
        backend.latency_us = 400;
    }
    pool.0[0].latency_us = 500_000;
    let shares = shares(pool, 5);
    assert!(shares[0] < 0.02, "{shares:?}");
    assert!((0.45..0.55).contains(&shares[3]), "{shares:?}");
}

#[test]
fn a_hiccup_of_a_fast_app_turns_nobody_away() {
    let mut pool = active(&[100, 100, 100]);
    pool.0[0].latency_us = 3_000;
    pool.0[1].latency_us = 200;
    pool.0[2].latency_us = 200;
    let rules = Rules {
        median_us: 200,
        ..rules()
    };
    let mut random = fastrand::Rng::with_seed(7);
    let mut taken = [0_u32; 3];
    for _ in 0..3_000 {
        let ask = Ask {
            now_us: NOW_US,
            random: random.u64(..),
            tried: &Tried::default(),
            repeatable: true,
            hedge: false,
        };
        match choose(&pool, &rules, &ask) {
            Choice::Backend(index) => taken[index] += 1,
            other => panic!("{other:?}"),
        }
    }
    assert!(taken.iter().all(|&times| times > 900), "{taken:?}");
}

#[test]
fn idle_backends_are_chosen_by_weight() {
    let pool = active(&[300, 100, 0, 100]);
    let mut random = fastrand::Rng::with_seed(7);
    let mut counts = [0u32; 4];
    for _ in 0..50_000 {
        match pick(&pool, random.u64(..), 10, &Tried::default()) {
            Choice::Backend(index) => counts[index] += 1,
            other => panic!("{other:?}"),
        }
    }
    for (count, share) in counts.into_iter().zip([0.6, 0.2, 0.0, 0.2]) {
        let got = f64::from(count) / 50_000.0;
        assert!((got - share).abs() < 0.02, "{counts:?}");
    }
}

#[test]
fn under_load_backends_hold_requests_by_weight() {
    let mut pool = active(&[100, 50]);
    let mut random = fastrand::Rng::with_seed(7);
    for _ in 0..300 {
        let Choice::Backend(index) = pick(&pool, random.u64(..), 1_000, &Tried::default()) else {
            panic!("there is room");
        };
        pool.0[index].in_flight += 1;
    }
    assert!((195..=205).contains(&pool.0[0].in_flight), "{:?}", pool.0);
}

/// Requests in flight at the busiest backend, averaged over a simulation of 32
/// backends at 80 % load with one of them five times slower.
fn busiest(seed: u64, mut taken: impl FnMut(&Pool, u64) -> usize) -> f64 {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut pool = active(&[100; 32]);
    let mut sum = 0u64;
    let steps = 40_000;
    for _ in 0..steps {
        // Each tick: 25.6 arrivals per 32 ready servers, scaled to one arrival
        // and, of each busy backend, a chance to finish one.
        let index = taken(&pool, random.u64(..));
        pool.0[index].in_flight += 1;
        for (at, backend) in pool.0.iter_mut().enumerate() {
            let rate = if at == 0 { 0.2 } else { 1.0 } / (32.0 * 0.8);
            if backend.in_flight > 0 && random.f64() < rate {
                backend.in_flight -= 1;
            }
        }
        sum += u64::from(pool.0.iter().map(|b| b.in_flight).max().unwrap_or(0));
    }
    sum as f64 / f64::from(steps)
}

#[test]
fn two_choices_beat_random() {
    for seed in 1..4 {
        let random = busiest(seed, |pool, random| random as usize % pool.len());
        let two = busiest(seed, |pool, random| {
            match pick(pool, random, u32::MAX, &Tried::default()) {
                Choice::Backend(index) => index,
                other => panic!("{other:?}"),
            }
        });
        assert!(two * 3.0 < random, "two choices {two}, random {random}");
    }
}
