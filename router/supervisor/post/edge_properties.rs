//! Whatever happens to edges, in whatever order: what must always hold of
//! their post. The world around it is played by [`World`].

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;

use super::edge::MAX_MEMBERS;
use super::*;

/// What may happen.
#[derive(Clone, Debug)]
enum Event {
    /// The nth living child reports that it is warm, if it may.
    Warm(usize),
    /// The nth reports that it serves, if it was told to.
    Ready(usize),
    /// The nth dies.
    Dies(usize, bool),
    /// Milliseconds pass.
    Wait(u64),
    /// A ping; the bits say who answers.
    Ping(u32),
    /// A replacement is asked for.
    Replace {
        is_held: bool,
        keeps_reserve: bool,
    },
    /// The last replacement asked for is let serve.
    Release,
    /// The same is given up.
    Abandon,
    /// Whether one may stand by.
    Allow(bool),
    Settle,
    FallBack,
    Retire,
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        12 => (0..6_usize).prop_map(Event::Warm),
        12 => (0..6_usize).prop_map(Event::Ready),
        6 => (0..8_usize, any::<bool>()).prop_map(|(at, fault)| Event::Dies(at, fault)),
        6 => (0..20_000_u64).prop_map(Event::Wait),
        6 => any::<u32>().prop_map(Event::Ping),
        4 => (any::<bool>(), any::<bool>())
            .prop_map(|(is_held, keeps_reserve)| Event::Replace { is_held, keeps_reserve }),
        2 => Just(Event::Release),
        1 => Just(Event::Abandon),
        2 => any::<bool>().prop_map(Event::Allow),
        1 => Just(Event::Settle),
        1 => Just(Event::FallBack),
    ]
}

/// A child as the world sees it.
#[derive(Debug, Default)]
struct Actor {
    said_warm: bool,
    told_to_serve: bool,
    said_ready: bool,
    told_to_go: bool,
    drained: bool,
    killed: bool,
}

impl Actor {
    fn serves(&self) -> bool {
        self.said_ready && !self.told_to_go && !self.killed
    }

    fn is_on_duty(&self) -> bool {
        self.told_to_serve && !self.told_to_go && !self.killed
    }

    fn is_idle(&self) -> bool {
        self.said_warm && !self.told_to_serve && !self.told_to_go && !self.killed
    }
}

struct World {
    post: EdgePost,
    now: Moment,
    actors: BTreeMap<u64, Actor>,
    vintages: u64,
    is_held: bool,
    is_retired: bool,
}

impl World {
    fn new() -> World {
        let limits = Limits {
            drain: Duration::from_secs(3),
            hand_over: Duration::from_secs(60),
        };
        World {
            post: EdgePost::new(Vintage(1), limits),
            now: Moment::default(),
            actors: BTreeMap::new(),
            vintages: 1,
            is_held: false,
            is_retired: false,
        }
    }

    fn nth(&self, at: usize) -> Option<u64> {
        // The youngest come first: they are the ones with something to say.
        self.actors.keys().rev().nth(at).copied()
    }

    fn happens(&mut self, event: &Event) {
        match *event {
            Event::Warm(at) => self.warm(at),
            Event::Ready(at) => self.ready(at),
            Event::Dies(at, is_own_fault) => {
                if let Some(generation) = self.nth(at) {
                    self.actors.remove(&generation);
                    let ending = Ending {
                        reason: "it ended".to_owned(),
                        is_own_fault,
                    };
                    assert!(self.post.died(generation, &ending, self.now).is_some());
                }
            }
            Event::Wait(milliseconds) => self.now = self.now + Duration::from_millis(milliseconds),
            Event::Ping(answers) => {
                self.post.pinged();
                for generation in self.actors.keys() {
                    if answers & (1 << (generation % 32)) != 0 {
                        self.post.answered(*generation);
                    }
                }
            }
            Event::Replace {
                is_held,
                keeps_reserve,
            } => {
                self.vintages += 1;
                self.is_held = is_held;
                self.post.replace(Request {
                    vintage: Vintage(self.vintages),
                    is_held,
                    keeps_reserve,
                });
            }
            Event::Release => self.post.release(Vintage(self.vintages)),
            Event::Abandon => self.post.abandon(Vintage(self.vintages)),
            Event::Allow(allowed) => self.post.allow_reserve(allowed),
            Event::Settle => self.post.settle(),
            Event::FallBack => self.post.fall_back(),
            Event::Retire => {
                self.post.retire();
                self.is_retired = true;
            }
        }
    }

    fn warm(&mut self, at: usize) {
        if let Some(generation) = self.nth(at) {
            let actor = self.actors.get_mut(&generation).unwrap();
            if !actor.said_warm {
                actor.said_warm = true;
                self.post.warm(generation, self.now);
            }
        }
    }

    fn ready(&mut self, at: usize) {
        if let Some(generation) = self.nth(at) {
            let actor = self.actors.get_mut(&generation).unwrap();
            if actor.told_to_serve && !actor.said_ready {
                actor.said_ready = true;
                self.post.ready(generation, self.now);
            }
        }
    }

    /// Does what the post says, and holds it to its promises.
    fn obey(&mut self) {
        for action in self.post.tick(self.now) {
            match action {
                Action::Start(generation, vintage) => {
                    assert!(vintage.0 <= self.vintages);
                    let before = self.actors.insert(generation, Actor::default());
                    assert!(before.is_none(), "a generation comes once");
                }
                Action::Serve(generation) => {
                    let actor = self.actors.get_mut(&generation).unwrap();
                    assert!(actor.is_idle(), "only one that is warm, and once");
                    actor.told_to_serve = true;
                }
                Action::HandOver(generation) => {
                    let relieved = self
                        .actors
                        .iter()
                        .any(|(other, actor)| *other != generation && actor.serves());
                    assert!(relieved, "{generation} goes, and nobody serves");
                    let actor = self.actors.get_mut(&generation).unwrap();
                    assert!(actor.is_on_duty());
                    actor.told_to_go = true;
                }
                Action::Drain(generation) => {
                    let actor = self.actors.get_mut(&generation).unwrap();
                    assert!(!actor.drained && !actor.killed);
                    assert!(self.is_retired || !actor.told_to_serve);
                    (actor.told_to_go, actor.drained) = (true, true);
                }
                Action::Kill(generation, _) => {
                    let actor = self.actors.get_mut(&generation).unwrap();
                    assert!(!actor.killed, "killed once");
                    actor.killed = true;
                }
            }
        }
    }

    /// What holds after every turn.
    fn check(&mut self) {
        assert!(self.actors.len() <= MAX_MEMBERS);
        assert_eq!(self.post.tick(self.now), [], "one turn does all");
        let on_duty = self.actors.values().filter(|actor| actor.is_on_duty());
        let on_duty = on_duty.count();
        assert!(on_duty <= 2 || self.is_retired, "{:?}", self.actors);
        if on_duty == 0 && !self.is_retired {
            let idle = self.actors.values().any(Actor::is_idle);
            assert!(!idle, "one could serve, and nobody does");
            let coming = self
                .actors
                .values()
                .any(|actor| !actor.said_warm && !actor.told_to_go && !actor.killed);
            let soon = self.post.wake_at();
            let soon = soon.is_some_and(|at| at.since(self.now) <= Duration::from_secs(1));
            let full = self.actors.len() == MAX_MEMBERS;
            assert!(coming || soon || full, "nobody comes: {:?}", self.actors);
        }
        if let Some(at) = self.post.wake_at() {
            assert!(at > self.now, "the loop would spin");
        }
        let serves = self.actors.values().any(Actor::serves);
        assert_eq!(self.post.is_manned(), serves);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn somebody_always_serves_or_is_about_to(events in prop::collection::vec(event(), 1..200)) {
        let mut world = World::new();
        world.obey();
        world.check();
        for event in &events {
            world.happens(event);
            world.obey();
            world.check();
        }
    }

    #[test]
    fn a_shutdown_ends_with_nobody(events in prop::collection::vec(event(), 1..60)) {
        let mut world = World::new();
        world.obey();
        for event in &events {
            world.happens(event);
            world.obey();
        }
        world.happens(&Event::Retire);
        world.obey();
        world.check();
        assert!(world.actors.values().all(|actor| actor.drained || actor.killed));
        world.happens(&Event::Wait(3_000));
        world.obey();
        assert!(world.actors.values().all(|actor| actor.killed), "all are late");
        while !world.actors.is_empty() {
            world.happens(&Event::Dies(0, false));
            world.obey();
        }
        assert!(world.post.is_empty());
    }

    /// Events that end well: once everything answers and nobody dies any
    /// more, one serves, of the vintage that was asked for last.
    #[test]
    fn in_quiet_times_all_that_was_asked_for_comes_true(
        events in prop::collection::vec(event(), 1..60),
    ) {
        let mut world = World::new();
        world.obey();
        for event in &events {
            world.happens(event);
            world.obey();
        }
        world.happens(&Event::Allow(true));
        world.happens(&Event::Settle);
        world.vintages += 1;
        world.post.replace(Request {
            vintage: Vintage(world.vintages),
            is_held: false,
            keeps_reserve: false,
        });
        for held in 1..world.vintages {
            world.post.release(Vintage(held));
        }
        for _ in 0..300 {
            world.obey();
            world.happens(&Event::Ping(u32::MAX));
            for at in (0..world.actors.len()).rev() {
                world.warm(at);
                world.ready(at);
            }
            let leaving = world.actors.values().rev().position(|actor| {
                actor.killed || actor.told_to_go
            });
            if let Some(at) = leaving {
                world.happens(&Event::Dies(at, false));
            }
            world.happens(&Event::Wait(1_000));
        }
        let serving: Vec<u64> = world
            .actors
            .iter()
            .filter(|(_, actor)| actor.serves())
            .map(|(generation, _)| *generation)
            .collect();
        assert_eq!(serving.len(), 1, "{:?}", world.actors);
        assert_eq!(world.post.progress(Vintage(world.vintages)), Progress::Serving);
        assert_eq!(world.actors.len(), 2, "one serves, one stands by: {:?}", world.actors);
    }
}
