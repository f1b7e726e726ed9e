//! Balancing: properties of one choice, and simulations with a seed.

mod model;
mod shares;

use super::*;

const SECOND_US: u64 = 1_000_000;
const NOW_US: u64 = 100 * SECOND_US;

#[derive(Clone, Debug)]
struct Backend {
    standing: Standing,
    weight: u32,
    ejected: bool,
    in_flight: u32,
    most: u32,
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
            most: 10,
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

    fn is_full(&self, index: usize) -> bool {
        self.0[index].in_flight >= self.0[index].most
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

/// The same pool, each of which takes so many requests.
fn bounded(pool: &[Backend], most: u32) -> Pool {
    let each = pool.iter().map(|backend| Backend {
        most,
        ..backend.clone()
    });
    Pool(each.collect())
}

fn rules() -> Rules {
    Rules {
        slow_start_us: 10 * SECOND_US,
        median_us: 5_000,
    }
}

fn pick(pool: &Pool, random: u64, most: u32, tried: &Tried) -> Choice {
    let ask = Ask {
        now_us: NOW_US,
        random,
        tried,
        repeatable: true,
        hedge: false,
    };
    choose(&bounded(&pool.0, most), &rules(), &ask)
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
    let at = |now_us, repeatable| choose(&pool, &rules(), &ask(now_us, repeatable));
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
            choose(&pool, &rules(), &ask)
        };
        assert_eq!(at(NOW_US + 9 * SECOND_US), Choice::Backend(0), "{state:?}");
        assert_eq!(at(NOW_US + 10 * SECOND_US), Choice::Trial(1), "{state:?}");
    }
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

    fn is_full(&self, _: usize) -> bool {
        false
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
            let choice = choose(&pool, &rules(), &ask);
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
    assert_eq!(choose(&pool, &rules(), &ask), Choice::NoneLeft);
    ask.hedge = false;
    assert_eq!(choose(&pool, &rules(), &ask), Choice::Backend(1));
    pool.0[1].state = GONE;
    pool.0[2].failed_us = 1;
    assert_eq!(choose(&pool, &rules(), &ask), Choice::AllOut(1));
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
