//! Balancing: properties of one choice, and simulations with a seed.

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
struct Backend {
    standing: Standing,
    weight: u32,
    in_flight: u32,
}

struct Pool(Vec<Backend>);

impl Candidates for Pool {
    fn len(&self) -> usize {
        self.0.len()
    }

    fn candidate(&self, index: usize) -> Candidate {
        Candidate {
            standing: self.0[index].standing,
            weight: self.0[index].weight,
        }
    }

    fn in_flight(&self, index: usize) -> u32 {
        self.0[index].in_flight
    }
}

fn active(weights: &[u32]) -> Pool {
    let weights = weights.iter();
    Pool(
        weights
            .map(|&weight| Backend {
                standing: Standing::Active,
                weight,
                in_flight: 0,
            })
            .collect(),
    )
}

fn backends() -> impl Strategy<Value = Vec<Backend>> {
    let standing = prop_oneof![
        3 => Just(Standing::Active),
        1 => Just(Standing::Suspect),
        1 => Just(Standing::Draining),
    ];
    let weight = prop_oneof![Just(0u32), Just(1), 1u32..1000, Just(u32::MAX)];
    let backend = (standing, weight, 0u32..5).prop_map(|(standing, weight, in_flight)| Backend {
        standing,
        weight,
        in_flight,
    });
    proptest::collection::vec(backend, 0..12)
}

proptest! {
    #[test]
    fn a_choice_keeps_every_rule(
        pool in backends(),
        random in any::<u64>(),
        cap in 0u32..6,
        indices in proptest::collection::vec(0usize..12, 0..4),
    ) {
        let mut tried = Tried::default();
        for &index in &indices {
            tried.push(index);
        }
        let usable = |index: usize| {
            let backend = &pool[index];
            let others = pool.iter().any(|b| b.weight > 0 && b.standing != Standing::Draining);
            !indices.contains(&index)
                && backend.standing != Standing::Draining
                && (backend.weight > 0 || !others)
        };
        let has_room = |index: usize| usable(index) && pool[index].in_flight < cap;
        let any = |test: &dyn Fn(usize) -> bool| (0..pool.len()).any(test);
        match choose(&Pool(pool.clone()), random, cap, &tried) {
            Choice::Backend(index) => {
                prop_assert!(has_room(index));
                if pool[index].standing == Standing::Suspect && pool[index].weight > 0 {
                    let better = |i| has_room(i) && pool[i].standing == Standing::Active;
                    prop_assert!(!any(&better));
                }
            }
            Choice::AllFull => {
                prop_assert!(!any(&has_room));
                prop_assert!(any(&usable));
            }
            _ => prop_assert!(!any(&usable)),
        }
    }
}

#[test]
fn idle_backends_are_chosen_by_weight() {
    let pool = active(&[300, 100, 0, 100]);
    let mut random = fastrand::Rng::with_seed(7);
    let mut counts = [0u32; 4];
    for _ in 0..50_000 {
        match choose(&pool, random.u64(..), 10, &Tried::default()) {
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
        let Choice::Backend(index) = choose(&pool, random.u64(..), 1_000, &Tried::default()) else {
            panic!("there is room");
        };
        pool.0[index].in_flight += 1;
    }
    assert!((195..=205).contains(&pool.0[0].in_flight), "{:?}", pool.0);
}

/// Requests in flight at the busiest backend, averaged over a simulation of 32
/// backends at 80 % load with one of them five times slower.
fn busiest(seed: u64, mut pick: impl FnMut(&Pool, u64) -> usize) -> f64 {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut pool = active(&[100; 32]);
    let mut sum = 0u64;
    let steps = 40_000;
    for _ in 0..steps {
        // Each tick: 25.6 arrivals per 32 ready servers, scaled to one arrival
        // and, of each busy backend, a chance to finish one.
        let index = pick(&pool, random.u64(..));
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
            match choose(pool, random, u32::MAX, &Tried::default()) {
                Choice::Backend(index) => index,
                other => panic!("{other:?}"),
            }
        });
        assert!(two * 3.0 < random, "two choices {two}, random {random}");
    }
}

#[test]
fn tried_remembers_the_first_dozen() {
    let mut tried = Tried::default();
    for index in 0..40 {
        tried.push(index);
    }
    assert!((0..Tried::MOST).all(|index| tried.contains(index)));
    assert!(!tried.contains(Tried::MOST));
}
