//! The fault scenarios, as data: what is asked, what happens when, and the
//! figure each must meet.
//!
//! Where do I change X: a time, a rate, a target → its row in [`SCENARIOS`];
//! a new kind of target → `target.rs`.

use super::backend::Behaviour;
use super::pool::Action;
use super::target::Target;

/// What clients send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// May be tried again by whoever likes.
    Get,
    /// Carries a body, must not be executed twice.
    Post,
}

impl Method {
    /// As HTTP spells it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Post => "POST",
        }
    }
}

/// One thing done to some backends.
#[derive(Clone, Copy, Debug)]
pub struct Step {
    /// When, from the first measured request, ms.
    pub at_ms: u64,
    /// To which.
    pub backends: &'static [usize],
    /// What.
    pub action: Action,
}

/// One scenario.
#[derive(Clone, Copy, Debug)]
pub struct Scenario {
    /// Its name on the command line and in the JSON.
    pub key: &'static str,
    /// Its name in the table.
    pub title: &'static str,
    /// What is asked.
    pub method: Method,
    /// How many backends there are.
    pub backends: usize,
    /// Requests due per second.
    pub rate: u64,
    /// How long a client waits, ms.
    pub deadline_ms: u64,
    /// What happens, in the order of time.
    pub steps: &'static [Step],
    /// What must be met.
    pub targets: &'static [Target],
    /// Whether its latency over time is drawn.
    pub drawn: bool,
}

/// Seconds of load measured.
pub const SECONDS: u64 = 10;
/// Slower than this is slow, ms.
pub const SLOW_MS: u64 = 250;

/// When the fault begins, ms.
const FAULT_MS: u64 = 3_000;
/// When one that lasts 5 s ends, ms.
const OVER_MS: u64 = 8_000;

const fn step(at_ms: u64, backends: &'static [usize], action: Action) -> Step {
    Step {
        at_ms,
        backends,
        action,
    }
}

const fn behave(at_ms: u64, behaviour: Behaviour) -> Step {
    step(at_ms, &[0], Action::Behave(behaviour))
}

/// Four backends, GETs at 1,000 a second, a deadline of 1 s: what most scenarios are.
const USUAL: Scenario = Scenario {
    key: "",
    title: "",
    method: Method::Get,
    backends: 4,
    rate: 1_000,
    deadline_ms: 1_000,
    steps: &[],
    targets: &[],
    drawn: false,
};

/// A crash of one of four, and its return after 2 s.
const KILL_AND_RETURN: &[Step] = &[
    step(FAULT_MS, &[0], Action::Crash),
    step(FAULT_MS + 2_000, &[0], Action::Return),
];

/// Every scenario, in the order of the table.
pub const SCENARIOS: &[Scenario] = &[
    Scenario {
        key: "none",
        title: "no fault",
        targets: &[Target::NoneFailed, Target::P99Us(6_000)],
        ..USUAL
    },
    Scenario {
        key: "kill",
        title: "kill -9 of one, back 2 s later",
        steps: KILL_AND_RETURN,
        targets: &[
            Target::NoneFailed,
            Target::P99Us(5_800),
            Target::MaxUs(15_000),
        ],
        drawn: true,
        ..USUAL
    },
    Scenario {
        key: "kill-post",
        title: "the same with POSTs",
        method: Method::Post,
        steps: KILL_AND_RETURN,
        targets: &[Target::NoneFailedButInFlight, Target::NoneExecutedTwice],
        ..USUAL
    },
    Scenario {
        key: "freeze",
        title: "SIGSTOP of one for 5 s",
        steps: &[
            step(FAULT_MS, &[0], Action::Freeze),
            step(OVER_MS, &[0], Action::Thaw),
        ],
        targets: &[
            Target::NoneFailed,
            Target::SlowShare(0.000_1),
            Target::MaxUs(300_000),
        ],
        drawn: true,
        ..USUAL
    },
    Scenario {
        key: "503",
        title: "one answers 503 to all for 5 s",
        steps: &[
            behave(FAULT_MS, Behaviour::Refusing),
            behave(OVER_MS, Behaviour::Well),
        ],
        targets: OUT_AND_BACK,
        ..USUAL
    },
    Scenario {
        key: "reset",
        title: "one resets after reading for 5 s",
        steps: &[
            behave(FAULT_MS, Behaviour::Resetting),
            behave(OVER_MS, Behaviour::Well),
        ],
        targets: OUT_AND_BACK,
        ..USUAL
    },
    Scenario {
        key: "slow",
        title: "one 100 times slower for 5 s",
        steps: &[
            behave(FAULT_MS, Behaviour::Slow),
            behave(OVER_MS, Behaviour::Well),
        ],
        targets: &[Target::SlowShare(0.000_5)],
        ..USUAL
    },
    Scenario {
        key: "kill-two",
        title: "two of four crash at once, back 2 s later",
        steps: &[
            step(FAULT_MS, &[0, 1], Action::Crash),
            step(FAULT_MS + 2_000, &[0, 1], Action::Return),
        ],
        targets: &[Target::NoneFailed],
        ..USUAL
    },
    Scenario {
        key: "flap",
        title: "one crashes and returns every 500 ms for 5 s",
        steps: &[
            step(FAULT_MS, &[0], Action::Crash),
            step(3_500, &[0], Action::Return),
            step(4_000, &[0], Action::Crash),
            step(4_500, &[0], Action::Return),
            step(5_000, &[0], Action::Crash),
            step(5_500, &[0], Action::Return),
            step(6_000, &[0], Action::Crash),
            step(6_500, &[0], Action::Return),
            step(7_000, &[0], Action::Crash),
            step(7_500, &[0], Action::Return),
        ],
        targets: &[Target::NoneFailed],
        ..USUAL
    },
    Scenario {
        key: "rolling",
        title: "rolling restart of all four, not deregistered",
        steps: &[
            step(FAULT_MS, &[0], Action::Crash),
            step(3_500, &[0], Action::Return),
            step(4_500, &[1], Action::Crash),
            step(5_000, &[1], Action::Return),
            step(6_000, &[2], Action::Crash),
            step(6_500, &[2], Action::Return),
            step(7_500, &[3], Action::Crash),
            step(8_000, &[3], Action::Return),
        ],
        targets: &[Target::NoneFailed],
        ..USUAL
    },
    Scenario {
        key: "all-down",
        title: "all four crash, one is back 2 s later",
        steps: &[
            step(FAULT_MS, &[0, 1, 2, 3], Action::Crash),
            step(FAULT_MS + 2_000, &[0], Action::Return),
        ],
        targets: &[Target::FirstSuccessWithinMs(300)],
        ..USUAL
    },
    Scenario {
        key: "pool-of-one",
        title: "the only one crashes, back 1 s later",
        backends: 1,
        // What each of four carries in the other scenarios.
        rate: 250,
        // Clients outwait the restart: what is held must come through.
        deadline_ms: 5_000,
        steps: &[
            step(FAULT_MS, &[0], Action::Crash),
            step(FAULT_MS + 1_000, &[0], Action::Return),
        ],
        targets: &[Target::NoneFailedButInFlight],
        ..USUAL
    },
];

/// Of one that fails loudly.
const OUT_AND_BACK: &[Target] = &[
    Target::NoneFailed,
    Target::P99Us(5_900),
    Target::OutWithinRequests(20),
    Target::BackWithinMs(2_000),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scenarios_are_consistent() {
        for scenario in SCENARIOS {
            let Scenario { key, steps, .. } = scenario;
            assert!(!key.is_empty() && !scenario.title.is_empty());
            assert_eq!(
                SCENARIOS.iter().filter(|other| other.key == *key).count(),
                1,
                "{key} twice"
            );
            assert!(!scenario.targets.is_empty(), "{key}: nothing to meet");
            assert!(steps.is_sorted_by_key(|step| step.at_ms), "{key}");
            for step in *steps {
                assert!(step.at_ms < SECONDS * 1_000, "{key}: a step after the end");
                assert!(step.backends.iter().all(|one| *one < scenario.backends));
            }
        }
    }
}
