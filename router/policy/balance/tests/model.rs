//! One choice over any pool, against the rules as a person would put them.

use proptest::prelude::*;

use super::*;

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
                most: 10,
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
        let choice = choose(&bounded(&pool, cap), &rules(), &ask);
        let model = Model { pool: &pool, tried: &tried, cap };
        model.check(choice, hedge)?;
    }
}
