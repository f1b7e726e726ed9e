//! Balancing: properties of one choice, and simulations with a seed.

use proptest::prelude::*;

use super::*;

const SECOND_US: u64 = 1_000_000;
const NOW_US: u64 = 100 * SECOND_US;

#[derive(Clone, Debug)]
struct Backend {
    standing: Standing,
    weight: u32,
    ejected: bool,
    in_flight: u32,
    state: State,
    latency_us: u64,
    answered_us: u64,
    failed_us: u64,
}

impl Default for Backend {
    fn default() -> Self {
        Backend {
            standing: Standing::Active,
            weight: 100,
            ejected: false,
            in_flight: 0,
            state: State::Settled,
            latency_us: 0,
            answered_us: 0,
            failed_us: 0,
        }
    }
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
            ejected: self.0[index].ejected,
        }
    }

    fn in_flight(&self, index: usize) -> u32 {
        self.0[index].in_flight
    }

    fn is_settled(&self) -> bool {
        self.0.iter().all(|backend| backend.state == State::Settled)
    }

    fn state(&self, index: usize) -> State {
        self.0[index].state
    }

    fn latency_us(&self, index: usize, _now_us: u64) -> u64 {
        self.0[index].latency_us
    }

    fn answered_us(&self, index: usize) -> u64 {
        self.0[index].answered_us
    }

    fn failed_us(&self, index: usize) -> u64 {
        self.0[index].failed_us
    }
}

fn active(weights: &[u32]) -> Pool {
    let each = weights.iter().map(|&weight| Backend {
        weight,
        ..Backend::default()
    });
    Pool(each.collect())
}

fn rules(max_concurrency: u32) -> Rules {
    Rules {
        max_concurrency,
        slow_start_us: 10 * SECOND_US,
        median_us: 5_000,
    }
}

fn pick(pool: &Pool, random: u64, max_concurrency: u32, tried: &Tried) -> Choice {
    let ask = Ask {
        now_us: NOW_US,
        random,
        tried,
        repeatable: true,
        hedge: false,
    };
    choose(pool, &rules(max_concurrency), &ask)
}

fn tried(indices: &[usize]) -> Tried {
    let mut tried = Tried::default();
    for &index in indices {
        tried.push(index);
    }
    tried
}

const OUT: State = State::Out {
    hard: false,
    due_us: NOW_US + SECOND_US,
};
const DUE: State = State::Out {
    hard: false,
    due_us: NOW_US,
};
const GONE: State = State::Out {
    hard: true,
    due_us: NOW_US,
};
const TRIED_OUT: State = State::Trial {
    since_us: NOW_US - SECOND_US,
};

fn backends() -> impl Strategy<Value = Vec<Backend>> {
    let standing = prop_oneof![
        3 => Just(Standing::Active),
        1 => Just(Standing::Suspect),
        1 => Just(Standing::Draining),
    ];
    let weight = prop_oneof![Just(0u32), Just(1), 1u32..1000, Just(u32::MAX)];
    let state = prop_oneof![
        4 => Just(State::Settled),
        1 => (0..20 * SECOND_US).prop_map(|ago| State::Ramping { since_us: NOW_US - ago }),
        1 => Just(State::Resting { until_us: NOW_US + 1 }),
        1 => Just(State::Resting { until_us: NOW_US }),
        1 => Just(OUT),
        1 => Just(DUE),
        1 => Just(GONE),
        1 => Just(TRIED_OUT),
    ];
    let times = (0u64..5, 0u64..5, 0u64..100_000);
    let backend = (standing, weight, 0u32..5, state, any::<bool>(), times);
    let backend =
        backend.prop_map(
            |(standing, weight, in_flight, state, ejected, times)| Backend {
                standing,
                weight,
                in_flight,
                state,
                ejected: ejected && weight % 2 == 1,
                answered_us: times.0,
                failed_us: times.1,
                latency_us: times.2,
            },
        );
    proptest::collection::vec(backend, 0..10)
}

/// The rules of a choice, as a person would put them.
struct Model<'m> {
    pool: &'m [Backend],
    tried: &'m Tried,
    cap: u32,
}

impl Model<'_> {
    fn may(&self, index: usize) -> bool {
        let open = |b: &Backend| b.standing != Standing::Draining && !b.ejected;
        let backend = &self.pool[index];
        let weighty = self.pool.iter().any(|b| open(b) && b.weight > 0);
        open(backend) && (backend.weight > 0 || !weighty)
    }

    fn state(&self, index: usize) -> State {
        self.pool[index].state.at(NOW_US, 10 * SECOND_US)
    }

    fn has_room(&self, index: usize) -> bool {
        self.pool[index].in_flight < self.cap
    }

    /// 0 to 2 for those in rotation, 3 and 4 for those out.
    fn class(&self, index: usize) -> u8 {
        match self.state(index) {
            State::Resting { .. } => 2,
            State::Out { hard: true, .. } => 4,
            State::Out { .. } | State::Trial { .. } => 3,
            _ => u8::from(self.pool[index].standing == Standing::Suspect),
        }
    }

    /// Untried ones that may be used, in or out.
    fn untried(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.pool.len()).filter(|&i| self.may(i) && !self.tried.contains(i))
    }

    /// Whether those that are out may be used at all.
    fn is_desperate(&self) -> bool {
        let in_rotation = |i: usize| self.may(i) && self.class(i) < 3;
        !(0..self.pool.len()).any(in_rotation)
            || (!self.tried.is_empty() && !self.untried().any(|i| self.class(i) < 3))
    }

    fn check(&self, choice: Choice, hedge: bool) -> Result<(), TestCaseError> {
        let usable = |i: usize| self.class(i) < 3 || (self.is_desperate() && !hedge);
        let better = |class: u8| {
            let mut with_room = self.untried().filter(|&i| usable(i) && self.has_room(i));
            with_room.any(|i| self.class(i) < class)
        };
        match choice {
            Choice::Backend(i) => {
                prop_assert!(self.may(i) && self.has_room(i) && !self.tried.contains(i));
                prop_assert!(self.class(i) < 4 && usable(i));
                prop_assert!(!better(self.class(i)));
                let rivals = self
                    .untried()
                    .filter(|&j| self.has_room(j) && self.class(j) == self.class(i));
                for j in rivals {
                    if self.class(i) == 3 {
                        prop_assert!(self.pool[i].failed_us <= self.pool[j].failed_us);
                    } else if !self.tried.is_empty() {
                        prop_assert!(self.pool[i].answered_us >= self.pool[j].answered_us);
                    }
                }
            }
            Choice::Trial(i) => {
                prop_assert!(self.may(i) && self.has_room(i) && !hedge && self.tried.is_empty());
                prop_assert_eq!(self.pool[i].state, DUE);
            }
            Choice::AllOut(i) => {
                prop_assert!(self.may(i) && self.has_room(i) && !self.tried.contains(i));
                prop_assert!(self.class(i) == 4 && self.is_desperate() && !hedge && !better(4));
            }
            Choice::AllFull => {
                prop_assert!(self.untried().any(usable));
                prop_assert!(!self.untried().any(|i| usable(i) && self.has_room(i)));
            }
            Choice::NoneLeft => prop_assert!(!self.untried().any(usable)),
        }
        let due = |i: usize| self.pool[i].state == DUE && self.has_room(i);
        if !hedge && self.tried.is_empty() && self.untried().any(due) {
            prop_assert!(matches!(choice, Choice::Trial(_)));
        }
        Ok(())
    }
}

proptest! {
    #[test]
    fn a_choice_keeps_every_rule(
        pool in backends(),
        random in any::<u64>(),
        cap in 0u32..6,
        indices in proptest::collection::vec(0usize..10, 0..4),
        hedge in any::<bool>(),
    ) {
        let tried = tried(&indices);
        let ask = Ask { now_us: NOW_US, random, tried: &tried, repeatable: true, hedge };
        let choice = choose(&Pool(pool.clone()), &rules(cap), &ask);
        let model = Model { pool: &pool, tried: &tried, cap };
        model.check(choice, hedge)?;
    }
}

#[test]
fn a_trial_waits_for_a_request_that_may_be_sent_twice_but_not_for_ever() {
    let mut pool = active(&[1, 1]);
    pool.0[1].state = DUE;
    let none = Tried::default();
    let ask = |now_us, repeatable| Ask {
        now_us,
        random: 0,
        tried: &none,
        repeatable,
        hedge: false,
    };
    let at = |now_us, repeatable| choose(&pool, &rules(10), &ask(now_us, repeatable));
    assert_eq!(at(NOW_US - 1, true), Choice::Backend(0));
    assert_eq!(at(NOW_US, true), Choice::Trial(1));
    assert_eq!(at(NOW_US + 4 * SECOND_US, false), Choice::Backend(0));
    assert_eq!(at(NOW_US + 5 * SECOND_US, false), Choice::Trial(1));
}

#[test]
fn a_lost_trial_and_a_missing_prober_keep_nobody_out_for_ever() {
    let none = Tried::default();
    for state in [State::Trial { since_us: NOW_US }, GONE] {
        let mut pool = active(&[1, 1]);
        pool.0[1].state = state;
        let at = |now_us| {
            let ask = Ask {
                now_us,
                random: 0,
                tried: &none,
                repeatable: true,
                hedge: false,
            };
            choose(&pool, &rules(10), &ask)
        };
        assert_eq!(at(NOW_US + 9 * SECOND_US), Choice::Backend(0), "{state:?}");
        assert_eq!(at(NOW_US + 10 * SECOND_US), Choice::Trial(1), "{state:?}");
    }
}

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
        ..rules(10)
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

/// A pool whose only backend goes out, or comes back, at the given look.
struct Shifting {
    looks: std::cell::Cell<u32>,
    at: u32,
    states: [State; 2],
}

impl Candidates for Shifting {
    fn len(&self) -> usize {
        1
    }

    fn candidate(&self, _: usize) -> Candidate {
        Candidate {
            standing: Standing::Active,
            weight: 100,
            ejected: false,
        }
    }

    fn in_flight(&self, _: usize) -> u32 {
        1
    }

    fn is_settled(&self) -> bool {
        false
    }

    fn state(&self, _: usize) -> State {
        self.looks.set(self.looks.get() + 1);
        self.states[usize::from(self.looks.get() > self.at)]
    }

    fn latency_us(&self, _: usize, _: u64) -> u64 {
        0
    }

    fn answered_us(&self, _: usize) -> u64 {
        0
    }

    fn failed_us(&self, _: usize) -> u64 {
        0
    }
}

#[test]
fn a_state_that_changes_during_a_choice_breaks_nothing() {
    let ramping = State::Ramping { since_us: NOW_US };
    for states in [
        [State::Settled, GONE],
        [GONE, State::Settled],
        [ramping, State::Settled],
    ] {
        for at in 0..6 {
            let pool = Shifting {
                looks: Default::default(),
                at,
                states,
            };
            let none = Tried::default();
            let ask = Ask {
                now_us: NOW_US,
                random: u64::MAX,
                tried: &none,
                repeatable: true,
                hedge: false,
            };
            let choice = choose(&pool, &rules(10), &ask);
            let is_gone = states[0] != ramping && states[1] == GONE && at == 0;
            match choice {
                Choice::Backend(0) => assert!(!is_gone),
                // Gone between two looks: the caller asks again.
                Choice::AllFull => assert!(states.contains(&GONE)),
                other => assert_eq!(other, Choice::AllOut(0)),
            }
        }
    }
}

#[test]
fn a_slow_backend_costs_as_many_times_more_as_it_is_slower() {
    // Fifty times the usual ten milliseconds, or twice of it.
    for (slow_us, busy, wanted) in [
        (500_000, 48, 1),
        (500_000, 50, 0),
        (20_000, 3, 0),
        (9_000, 1, 0),
    ] {
        let mut pool = active(&[100, 100]);
        pool.0[0].latency_us = slow_us;
        pool.0[1].in_flight = busy;
        pool.0[1].latency_us = 4_000;
        for random in [0, u64::MAX] {
            assert_eq!(
                pick(&pool, random, 100, &Tried::default()),
                Choice::Backend(wanted)
            );
        }
    }
}

#[test]
fn a_retry_goes_to_whoever_answered_last_and_a_hedge_to_nobody_that_is_out() {
    let mut pool = active(&[100; 3]);
    pool.0[1].answered_us = 5;
    pool.0[2].answered_us = 4;
    for random in [0, u64::MAX / 2, u64::MAX] {
        assert_eq!(pick(&pool, random, 10, &tried(&[0])), Choice::Backend(1));
    }
    pool.0[1].state = OUT;
    pool.0[2].state = GONE;
    let tried = tried(&[0]);
    let mut ask = Ask {
        now_us: NOW_US,
        random: 0,
        tried: &tried,
        repeatable: true,
        hedge: true,
    };
    assert_eq!(choose(&pool, &rules(10), &ask), Choice::NoneLeft);
    ask.hedge = false;
    assert_eq!(choose(&pool, &rules(10), &ask), Choice::Backend(1));
    pool.0[1].state = GONE;
    pool.0[2].failed_us = 1;
    assert_eq!(choose(&pool, &rules(10), &ask), Choice::AllOut(1));
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

#[test]
fn tried_remembers_the_first_dozen() {
    let mut tried = Tried::default();
    for index in 0..40 {
        tried.push(index);
    }
    assert!((0..Tried::MOST).all(|index| tried.contains(index)));
    assert!(!tried.contains(Tried::MOST));
}
