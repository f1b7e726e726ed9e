//! One backend's record: its state and what speaks for a change of it.
//!
//! Owns the transitions. Whether an ejection for a soft reason is allowed is
//! not its to say: it reports a [`Step::Suspected`], and [`super::ward`] asks
//! the peers.

mod probing;

use super::backoff::Backoff;
use super::rate::Recent;
use super::streak::{Kind, Streak};
use super::{Outcome, Reason, Return, Rules, State, Try, Verdict};

/// Longest rest a backend may ask for.
const LONGEST_REST_US: u64 = 30_000_000;

/// What one backend is known for. The edge keeps it behind a lock, and its
/// [`state`](Self::state) beside it for all to read and to claim trials in.
#[derive(Clone, Copy, Debug, Default)]
pub struct Health {
    state: State,
    reason: Option<Reason>,
    since_us: u64,
    failed_us: u64,
    looked_us: u64,
    ejections: u64,
    streak: Streak,
    recent: Recent,
    backoff: Backoff,
    /// While out: a probe that passes before this came too soon.
    held_until_us: u64,
    /// Probes in a row that passed (while out) or failed (while in).
    rises: u32,
    falls: u32,
    /// Its trial was moved forward, as it gave a sign of life.
    stirred: bool,
}

/// What an outcome means for a backend.
#[derive(Clone, Copy)]
pub(super) enum Step {
    Nothing,
    Decided(Verdict),
    /// Should go out, if the peers allow it.
    Suspected(Suspicion),
    /// Should rest, if the peers allow it.
    Tired {
        rest_us: u64,
    },
}

/// A soft reason to eject, with its numbers.
#[derive(Clone, Copy)]
pub(super) struct Suspicion {
    pub(super) reason: Reason,
    pub(super) kind: Option<Kind>,
    pub(super) failed: u32,
    pub(super) tried: u32,
}

/// A try, as seen by its backend's record.
pub(super) struct Seen<'t> {
    pub(super) rules: &'t Rules,
    pub(super) told: &'t Try,
    /// Tries finished on it, this one included.
    pub(super) tries: u64,
    /// When it last answered anything.
    pub(super) answered_us: u64,
    /// The answer took far longer than its peers take.
    pub(super) is_slow: bool,
}

impl Health {
    /// A backend that joins others: its share rises from the first look on.
    pub fn joining() -> Health {
        Health {
            state: State::Ramping { since_us: 0 },
            ..Health::default()
        }
    }

    /// Where it stands, as of its last transition or claim.
    pub fn state(&self) -> State {
        self.state
    }

    /// Takes on a state changed outside: a trial claimed, a ramp over.
    pub fn resume(&mut self, state: State) {
        self.state = state;
    }

    /// When it went out, or asked for rest, or came back; 0 if it never did.
    pub fn since_us(&self) -> u64 {
        self.since_us
    }

    /// Why it is out, or was last.
    pub fn reason(&self) -> Option<Reason> {
        self.reason
    }

    /// When a try or probe on it last failed; 0 if none did.
    pub fn failed_us(&self) -> u64 {
        self.failed_us
    }

    /// Times it was ejected.
    pub fn ejections(&self) -> u64 {
        self.ejections
    }

    /// Whether a success would change anything while it is in rotation: if
    /// not, a success need not be told.
    pub fn is_watched(&self) -> bool {
        !self.streak.is_empty()
    }

    /// Overdue tries on it since it last answered.
    pub fn overdue_len(&self) -> u32 {
        self.streak.overdue_len()
    }

    /// When the prober should look again whether it is there; sooner if
    /// requests wait for it. `None` unless nobody is there.
    pub fn return_probe_us(&self, awaited: bool) -> Option<u64> {
        match self.state {
            State::Out { hard: true, due_us } if awaited => {
                const AWAITED_US: u64 = 100_000;
                Some(due_us.min(self.looked_us.max(self.since_us) + AWAITED_US))
            }
            State::Out { hard: true, due_us } => Some(due_us),
            _ => None,
        }
    }

    /// Claims the trial if one is due; for those who hold the record itself.
    pub fn claim_trial(&mut self, now_us: u64, repeatable: bool) -> bool {
        let takes = self.state.takes_trial(now_us, repeatable);
        if takes {
            self.state = State::Trial { since_us: now_us };
        }
        takes
    }

    pub(super) fn is_alike(&self, kind: Kind, rules: &Rules) -> bool {
        match kind {
            Kind::Probe => {
                let fall = rules.probe.map_or(u32::MAX, |probe| probe.fall);
                self.falls >= fall.min(2)
            }
            _ => self.streak.is_alike(kind),
        }
    }

    pub(super) fn recent(&self, tries: u64) -> (u32, u32) {
        self.recent.of(tries)
    }

    pub(super) fn is_failing_often(&self, tries: u64) -> bool {
        self.recent.is_too_many(tries)
    }

    pub(super) fn repeats(&self) -> u32 {
        self.backoff.repeats()
    }

    /// What a try means.
    pub(super) fn note(&mut self, seen: &Seen<'_>) -> Step {
        match seen.told.outcome {
            Outcome::ConnectFailed(failure) => self.missing(failure.into(), seen),
            Outcome::AskedForRest { rest_us, .. } => self.rest(rest_us, seen),
            Outcome::Answered {
                status: status @ 502..=504,
                ..
            } => {
                self.streak.heard();
                self.fail(Reason::Status(status), Kind::Status, seen)
            }
            Outcome::Answered { status: 500, .. } => self.erred(seen),
            Outcome::Answered { .. } => self.pass(seen),
            Outcome::Reset => self.fail(Reason::Reset, Kind::Broken, seen),
            Outcome::BadAnswer => self.fail(Reason::BadAnswer, Kind::Broken, seen),
            Outcome::TimedOut => self.fail(Reason::TimedOut, Kind::Waiting, seen),
            Outcome::Overdue => self.overdue(seen),
        }
    }

    /// Nobody is there.
    fn missing(&mut self, reason: Reason, seen: &Seen<'_>) -> Step {
        let now_us = seen.told.now_us;
        self.failed_us = now_us;
        let is_out_hard = matches!(self.state, State::Out { hard: true, .. });
        if !seen.rules.ejection || is_out_hard || self.is_stale(seen) {
            return Step::Nothing;
        }
        let suspicion = Suspicion {
            reason,
            kind: None,
            failed: 1,
            tried: 1,
        };
        let moment = (now_us, seen.told.random);
        Step::Decided(self.eject(&suspicion, seen.rules, seen.tries, moment))
    }

    /// The try began before the backend came back: it tells of what is over.
    fn is_stale(&self, seen: &Seen<'_>) -> bool {
        self.state.is_in_rotation() && seen.told.sent_us < self.backoff.readmitted_us()
    }

    /// The try is the trial, or began after it.
    fn is_trial(&self, seen: &Seen<'_>) -> bool {
        matches!(self.state, State::Trial { since_us } if seen.told.sent_us >= since_us)
    }

    fn fail(&mut self, reason: Reason, kind: Kind, seen: &Seen<'_>) -> Step {
        self.failed_us = seen.told.now_us;
        if self.is_trial(seen) {
            self.fail_trial(seen, 0);
        }
        if !self.state.is_in_rotation() || self.is_stale(seen) {
            return Step::Nothing;
        }
        self.recent.fail(seen.tries);
        if self.streak.fail(reason) {
            return Step::Suspected(Suspicion {
                reason,
                kind: Some(kind),
                failed: self.streak.len(),
                tried: self.streak.len(),
            });
        }
        self.often(seen)
    }

    /// A 500: held against it only if its peers have none.
    fn erred(&mut self, seen: &Seen<'_>) -> Step {
        self.streak.heard();
        if !self.state.is_in_rotation() {
            if self.reason != Some(Reason::Rate) {
                return self.pass(seen);
            }
            self.failed_us = seen.told.now_us;
            if self.is_trial(seen) {
                self.fail_trial(seen, 0);
            }
            return Step::Nothing;
        }
        if self.is_stale(seen) {
            return Step::Nothing;
        }
        self.recent.fail(seen.tries);
        self.often(seen)
    }

    fn often(&self, seen: &Seen<'_>) -> Step {
        if !self.recent.is_too_many(seen.tries) {
            return Step::Nothing;
        }
        let (failed, tried) = self.recent.of(seen.tries);
        Step::Suspected(Suspicion {
            reason: Reason::Rate,
            kind: None,
            failed,
            tried,
        })
    }

    fn overdue(&mut self, seen: &Seen<'_>) -> Step {
        let told = seen.told;
        if self.is_trial(seen) {
            self.failed_us = told.now_us;
            self.fail_trial(seen, 0);
        }
        // An answer since it was sent: slow perhaps, but not silent.
        if !self.state.is_in_rotation() || self.is_stale(seen) || seen.answered_us >= told.sent_us {
            return Step::Nothing;
        }
        self.failed_us = told.now_us;
        if !self.streak.overdue() {
            return Step::Nothing;
        }
        Step::Suspected(Suspicion {
            reason: Reason::Silent,
            kind: Some(Kind::Waiting),
            failed: self.streak.len(),
            tried: self.streak.len(),
        })
    }

    fn pass(&mut self, seen: &Seen<'_>) -> Step {
        let told = seen.told;
        if !self.state.is_in_rotation() {
            let began_after = self.is_trial(seen) || told.sent_us > self.since_us;
            if began_after && !seen.is_slow {
                let verdict = self.readmit(Return::Trial, seen.tries, told.now_us, seen.rules);
                return Step::Decided(verdict);
            }
            if self.is_trial(seen) {
                self.fail_trial(seen, 0);
            }
            self.stir(told.now_us);
            return Step::Nothing;
        }
        if self.is_stale(seen) {
            return Step::Nothing;
        }
        let state = self.state.at(told.now_us, seen.rules.slow_start_us);
        // One that warms up is slow, and has little to do for it.
        if !seen.is_slow || matches!(state, State::Ramping { .. }) {
            self.streak = Streak::default();
        } else if self.streak.slow() {
            return Step::Suspected(Suspicion {
                reason: Reason::Slow,
                kind: None,
                failed: self.streak.slow_len(),
                tried: self.streak.slow_len(),
            });
        }
        Step::Nothing
    }

    /// A silent one answers after all: its trial may begin at once, the first
    /// time.
    fn stir(&mut self, now_us: u64) {
        if self.reason == Some(Reason::Silent)
            && !self.stirred
            && self.backoff.repeats() == 0
            && let State::Out {
                hard: false,
                due_us,
            } = &mut self.state
        {
            *due_us = now_us.min(*due_us);
            self.stirred = true;
        }
    }

    fn rest(&mut self, rest_us: u64, seen: &Seen<'_>) -> Step {
        let rest_us = rest_us.min(LONGEST_REST_US);
        let now_us = seen.told.now_us;
        self.streak.heard();
        if self.is_trial(seen) {
            self.failed_us = now_us;
            self.fail_trial(seen, rest_us);
        }
        if !self.state.is_in_rotation() || self.is_stale(seen) || rest_us == 0 {
            return Step::Nothing;
        }
        let is_enough = self.streak.rest();
        match self.state.at(now_us, seen.rules.slow_start_us) {
            State::Resting { until_us } => {
                let until_us = until_us.max(now_us + rest_us);
                self.state = State::Resting { until_us };
                Step::Nothing
            }
            _ if is_enough => Step::Tired { rest_us },
            _ => Step::Nothing,
        }
    }

    /// Gives it its rest; whether that is allowed was settled before.
    pub(super) fn lay_down(&mut self, rest_us: u64, now_us: u64) -> Verdict {
        let until_us = now_us + rest_us;
        self.state = State::Resting { until_us };
        self.since_us = now_us;
        Verdict::Resting { rest_us }
    }

    /// Whether it asked for rest and has not answered well since.
    pub(super) fn is_tired(&self) -> bool {
        self.streak.has_asked_for_rest()
    }

    fn fail_trial(&mut self, seen: &Seen<'_>, at_least_us: u64) {
        /// However long the trial took.
        const PAUSE_US: u64 = 100_000;
        let (now_us, random) = (seen.told.now_us, seen.told.random);
        let out_us = now_us.saturating_sub(self.since_us);
        let wait_us = self.backoff.again(out_us, false, random);
        // From its beginning: it may have recovered just after.
        let began_us = match self.state {
            State::Trial { since_us } => since_us,
            _ => now_us,
        };
        let due_us = (began_us + wait_us).max(now_us + at_least_us.max(PAUSE_US));
        self.state = State::Out {
            hard: false,
            due_us,
        };
    }

    /// Takes it out; whether that is allowed was settled before.
    pub(super) fn eject(
        &mut self,
        suspicion: &Suspicion,
        rules: &Rules,
        tries: u64,
        (now_us, random): (u64, u64),
    ) -> Verdict {
        let reason = suspicion.reason;
        let hard = reason.is_hard();
        let hold_us = self.backoff.eject(now_us, hard, random);
        if self.state.is_in_rotation() {
            self.ejections += 1;
            self.since_us = now_us;
        }
        self.held_until_us = now_us + hold_us;
        self.state = State::Out {
            hard,
            due_us: now_us + hold_us.max(probing::unheard_us(reason, rules)),
        };
        self.reason = Some(reason);
        self.forget(tries);
        Verdict::Ejected {
            reason,
            failed: suspicion.failed,
            tried: suspicion.tried,
            hold_us,
            repeats: self.repeats(),
            left: 0,
        }
    }

    /// Brings it back.
    pub(super) fn readmit(
        &mut self,
        by: Return,
        tries: u64,
        now_us: u64,
        rules: &Rules,
    ) -> Verdict {
        let out_us = now_us.saturating_sub(self.since_us);
        self.backoff.readmit(now_us);
        self.since_us = now_us;
        self.state = State::Ramping { since_us: now_us }.at(now_us, rules.slow_start_us);
        self.forget(tries);
        Verdict::Readmitted {
            reason: self.reason.unwrap_or(Reason::Probe),
            by,
            out_us,
            ramp_us: rules.slow_start_us,
        }
    }

    /// An operator's order: everything against it is forgotten, its history
    /// of coming and going too.
    pub(super) fn pardon(&mut self, tries: u64, now_us: u64, rules: &Rules) -> Option<Verdict> {
        self.forget(tries);
        let verdict = match self.state {
            State::Out { .. } | State::Trial { .. } => {
                Some(self.readmit(Return::Order, tries, now_us, rules))
            }
            State::Resting { .. } => {
                self.state = State::Settled;
                None
            }
            _ => None,
        };
        self.backoff.pardon(now_us);
        verdict
    }

    fn forget(&mut self, tries: u64) {
        self.streak = Streak::default();
        self.recent.clear(tries);
        self.rises = 0;
        self.falls = 0;
        self.stirred = false;
    }
}
