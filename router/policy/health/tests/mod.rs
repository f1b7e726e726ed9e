//! The judgement, by stories and by properties, in virtual time.

mod caps;
mod evidence;
mod returns;

use std::cell::RefCell;

use super::*;

pub(super) const MS: u64 = 1_000;
pub(super) const SECOND_US: u64 = 1_000 * MS;

struct Member {
    health: RefCell<Health>,
    host: Host,
}

/// The backends of an app, with as much of a router around them as the
/// judgement needs.
struct World {
    members: Vec<Member>,
    ward: Ward,
    rules: Rules,
    now_us: u64,
    random: fastrand::Rng,
}

impl Pool for World {
    fn len(&self) -> usize {
        self.members.len()
    }

    fn host(&self, index: usize) -> Host {
        self.members[index].host
    }

    fn with<R>(&self, index: usize, act: impl FnOnce(&mut Health) -> R) -> R {
        act(&mut self.members[index].health.borrow_mut())
    }
}

pub(super) const OK: Outcome = answered(200, 5);
pub(super) const REFUSED: Outcome = Outcome::ConnectFailed(ConnectFailure::Refused);

pub(super) const fn answered(status: u16, ms: u64) -> Outcome {
    Outcome::Answered {
        status,
        first_byte_us: ms * MS,
    }
}

impl World {
    fn new(backends: usize) -> World {
        let member = || Member {
            health: RefCell::default(),
            host: Host {
                counts: true,
                tries: 0,
                answered_us: 0,
                latency_us: 5 * MS,
            },
        };
        World {
            members: (0..backends).map(|_| member()).collect(),
            ward: Ward::default(),
            rules: Rules {
                ejection: true,
                slow_start_us: 10 * SECOND_US,
                probe: None,
            },
            now_us: 100 * SECOND_US,
            random: fastrand::Rng::with_seed(1),
        }
    }

    fn with_probe(backends: usize, rise: u32, fall: u32) -> World {
        let mut world = World::new(backends);
        world.rules.probe = Some(ProbeRules {
            rise,
            fall,
            interval_us: SECOND_US,
        });
        world
    }

    /// A try that ends now and began `took_us` ago.
    fn tell_after(&mut self, index: usize, took_us: u64, outcome: Outcome) -> Option<Verdict> {
        let told = Try {
            now_us: self.now_us,
            sent_us: self.now_us - took_us,
            outcome,
            random: self.random.u64(..),
        };
        let mut ward = self.ward;
        let verdict = ward.tell(self, index, &self.rules, &told);
        self.ward = ward;
        let host = &mut self.members[index].host;
        host.tries += 1;
        if let Outcome::Answered { .. } | Outcome::AskedForRest { .. } = outcome {
            host.answered_us = self.now_us;
        }
        verdict
    }

    /// A try that begins and ends a moment from now.
    fn tell(&mut self, index: usize, outcome: Outcome) -> Option<Verdict> {
        self.now_us += MS;
        self.tell_after(index, MS / 2, outcome)
    }

    /// The same try over and over; the last verdict.
    fn tell_times(&mut self, times: usize, index: usize, outcome: Outcome) -> Option<Verdict> {
        let mut last = None;
        for _ in 0..times {
            last = self.tell(index, outcome);
        }
        last
    }

    fn probe(&mut self, index: usize, passed: bool) -> Option<Verdict> {
        self.now_us += MS;
        let moment = (self.now_us, self.random.u64(..));
        let mut ward = self.ward;
        let verdict = ward.probed(self, index, &self.rules, passed, moment);
        self.ward = ward;
        verdict
    }

    fn readmit(&mut self, index: usize) -> Option<Verdict> {
        let mut ward = self.ward;
        let verdict = ward.readmit(self, index, &self.rules, self.now_us);
        self.ward = ward;
        verdict
    }

    fn state(&self, index: usize) -> State {
        let state = self.members[index].health.borrow().state();
        state.at(self.now_us, self.rules.slow_start_us)
    }

    fn is_in(&self, index: usize) -> bool {
        self.state(index).is_in_rotation()
    }

    fn routable(&self) -> usize {
        let counted = (0..self.len()).filter(|&i| self.members[i].host.counts);
        counted.filter(|&index| self.is_in(index)).count()
    }

    fn soft_out(&self) -> usize {
        let counted = (0..self.len()).filter(|&i| self.members[i].host.counts);
        counted.filter(|&i| self.state(i).is_soft_out()).count()
    }

    fn claim_trial(&mut self, index: usize) -> bool {
        let mut health = self.members[index].health.borrow_mut();
        health.claim_trial(self.now_us, true)
    }

    /// Waits until a trial may be claimed, and claims it; how long it took.
    fn wait_for_trial(&mut self, index: usize) -> u64 {
        let since_us = self.now_us;
        while !self.claim_trial(index) {
            self.now_us += MS;
            assert!(self.now_us < since_us + 60 * SECOND_US, "no trial");
        }
        self.now_us - since_us
    }

    fn pass_time(&mut self, us: u64) {
        self.now_us += us;
    }
}

fn reason_of(verdict: Option<Verdict>) -> Option<Reason> {
    match verdict {
        Some(Verdict::Ejected { reason, .. }) => Some(reason),
        _ => None,
    }
}

fn spare_of(verdict: Option<Verdict>) -> Option<Spare> {
    match verdict {
        Some(Verdict::Spared { why, .. }) => Some(why),
        _ => None,
    }
}

fn is_readmitted(verdict: Option<Verdict>, by: Return) -> bool {
    matches!(verdict, Some(Verdict::Readmitted { by: it, .. }) if it == by)
}
