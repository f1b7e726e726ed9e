//! What a probe means for a backend's record.
//!
//! Owns rising and falling. A connection that looks whether a backend is back
//! and an app's own probe are told the same way; the latter also takes out.

use super::super::streak::Kind;
use super::super::{Reason, Return, Rules, State};
use super::{Health, Step, Suspicion};

impl Health {
    /// What a probe means. `alone`: no other backend is in rotation.
    pub(in super::super) fn probed(
        &mut self,
        rules: &Rules,
        passed: bool,
        alone: bool,
        tries: u64,
        (now_us, random): (u64, u64),
    ) -> Step {
        self.looked_us = now_us;
        if !passed {
            self.failed_us = now_us;
        }
        match self.state {
            State::Out { hard, .. } => {
                if passed && (now_us >= self.held_until_us || alone) {
                    return self.rise(rules, tries, now_us);
                }
                if !passed {
                    self.rises = 0;
                    self.look_later(rules, hard, now_us, random);
                }
                Step::Nothing
            }
            State::Trial { .. } if passed => self.rise(rules, tries, now_us),
            State::Trial { .. } => {
                self.rises = 0;
                Step::Nothing
            }
            _ => self.fall(rules, passed),
        }
    }

    fn rise(&mut self, rules: &Rules, tries: u64, now_us: u64) -> Step {
        self.rises = self.rises.saturating_add(1);
        if self.rises >= rules.probe.map_or(1, |probe| probe.rise) {
            return Step::Decided(self.readmit(Return::Probe, tries, now_us, rules));
        }
        if let State::Out { hard: true, due_us } = &mut self.state {
            // The next of those it still needs.
            const NEXT_RISE_US: u64 = 100_000;
            *due_us = now_us + NEXT_RISE_US;
        }
        Step::Nothing
    }

    fn fall(&mut self, rules: &Rules, passed: bool) -> Step {
        let Some(probe) = rules.probe else {
            return Step::Nothing;
        };
        self.falls = if passed {
            0
        } else {
            self.falls.saturating_add(1)
        };
        if self.falls < probe.fall {
            return Step::Nothing;
        }
        Step::Suspected(Suspicion {
            reason: Reason::Probe,
            kind: Some(Kind::Probe),
            failed: self.falls,
            tried: self.falls,
        })
    }

    /// A look failed, or the one that took it out did.
    fn look_later(&mut self, rules: &Rules, hard: bool, now_us: u64, random: u64) {
        let out_us = now_us.saturating_sub(self.since_us);
        let wait_us = match self.reason {
            _ if hard => self.backoff.again(out_us, true, random),
            Some(reason @ Reason::Probe) => unheard_us(reason, rules),
            _ => return,
        };
        self.state = State::Out {
            hard,
            due_us: now_us + wait_us,
        };
    }
}

/// What a probe took out, a probe brings back; a request asks only once no
/// probe was heard of for so long.
pub(super) fn unheard_us(reason: Reason, rules: &Rules) -> u64 {
    const FLOOR_US: u64 = 10_000_000;
    match (reason, rules.probe) {
        (Reason::Probe, Some(probe)) => 3 * probe.interval_us + FLOOR_US,
        _ => 0,
    }
}
