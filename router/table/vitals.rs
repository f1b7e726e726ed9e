//! An app's health as its requests see it: the pure policy, with the atomics
//! and locks around it.
//!
//! Owns nothing but the passing on: what is decided is in
//! [`crate::policy`], what is kept in [`AppLive`] and [`BackendLive`]. All
//! times are microseconds of the process's one clock.
//!
//! A backend's state is a word that choices read, and change by
//! compare-and-swap where time alone changes it or a trial is claimed. Every
//! other change is made under the app's ward: the backend's record takes on the
//! word, decides, and publishes the new word; then the app is marked unsettled.
//! A choice that finds the mark looks at every state, and takes the mark away if
//! all are settled and it has not been renewed meanwhile.
//!
//! **Invariant**: a change of state is seen by every choice that begins after
//! it: the mark is set after the word is published, and is taken away only by a
//! choice that saw all words of the newest version after it saw that very mark.

use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release, SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{App, AppLive, BackendLive, Probe};
use crate::feed::messages::{BackendReport, Health as Shown};
use crate::policy::balance::{self, Ask, Candidate, Candidates, Choice};
use crate::policy::health::{self, Health, Host, Outcome, ProbeRules, State, Try, Verdict};

/// What a try told, and who and when.
#[derive(Clone, Copy, Debug)]
pub struct Told {
    /// The edge thread that tells.
    pub thread: usize,
    /// The backend's index.
    pub index: usize,
    /// Now.
    pub now_us: u64,
    /// The same by the wall clock.
    pub wall_us: u64,
    /// When the try began; not before the choice it came from.
    pub sent_us: u64,
    /// Since the request was sent whole, microseconds; 0: it was not.
    pub waited_us: u64,
    /// What came of it.
    pub outcome: Outcome,
    /// Uniform over all of `u64`.
    pub random: u64,
}

/// What a probe told.
#[derive(Clone, Copy, Debug)]
pub struct Probed {
    /// The backend's index.
    pub index: usize,
    /// Now.
    pub now_us: u64,
    /// Whether it passed.
    pub passed: bool,
    /// Uniform over all of `u64`.
    pub random: u64,
}

/// A moment, on both clocks.
#[derive(Clone, Copy, Debug, Default)]
pub struct Moment {
    /// By the process's one clock.
    pub now_us: u64,
    /// The same, Unix milliseconds.
    pub unix_ms: u64,
}

pub(super) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Counters and a state: each is whole whatever a panic left undone.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(super) fn micros(time: std::time::Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

impl App {
    /// A backend for a try. A [`Choice::Trial`] is claimed for the caller: no
    /// other request gets it until this one has told how it went, gave it back
    /// ([`forsake`](Self::forsake)), or 10 s have passed.
    pub fn choose(&self, ask: &Ask<'_>) -> Choice {
        let live = self.live.get();
        let rules = self.choosing_rules();
        let mark = live.map_or(0, |live| live.unsettled.load(SeqCst));
        loop {
            let choice = balance::choose(self, &rules, ask);
            match (choice, live) {
                (Choice::Trial(index), _) if !self.claim(index, ask) => {}
                (choice, Some(live)) if mark != 0 => {
                    self.settle(live, mark, ask.now_us, rules.slow_start_us);
                    return choice;
                }
                (choice, _) => return choice,
            }
        }
    }

    /// What a choice would come to as of now. Nothing is claimed: a
    /// [`Choice::Trial`] is still anyone's.
    pub fn preview(&self, ask: &Ask<'_>) -> Choice {
        balance::choose(self, &self.choosing_rules(), ask)
    }

    fn choosing_rules(&self) -> balance::Rules {
        let live = self.live.get();
        balance::Rules {
            slow_start_us: micros(self.policy.slow_start),
            median_us: live.map_or(0, |live| live.median_us.load(Relaxed)),
        }
    }

    /// Claims a backend's trial, unless another request did.
    fn claim(&self, index: usize, ask: &Ask<'_>) -> bool {
        let word = &self.backends[index].live().state;
        let bits = word.load(Acquire);
        let trial = State::Trial {
            since_us: ask.now_us,
        };
        State::from_bits(bits).takes_trial(ask.now_us, ask.repeatable)
            && word
                .compare_exchange(bits, trial.to_bits(), AcqRel, Relaxed)
                .is_ok()
    }

    /// Publishes what time alone made of the states; takes the mark away if all
    /// are settled.
    fn settle(&self, live: &AppLive, mark: u64, now_us: u64, slow_start_us: u64) {
        let mut is_settled = true;
        for backend in self
            .backends
            .iter()
            .filter_map(|backend| backend.live.get())
        {
            let bits = backend.state.load(Acquire);
            let state = State::from_bits(bits);
            let then = state.at(now_us, slow_start_us);
            is_settled &= then == State::Settled;
            if then != state {
                // Another thread found the same, or a change came between:
                // then the mark was renewed.
                let _ = backend
                    .state
                    .compare_exchange(bits, then.to_bits(), AcqRel, Relaxed);
            }
        }
        let newest = live.newest.load(SeqCst);
        if is_settled && (newest == 0 || newest == self.address()) {
            let _ = live.unsettled.compare_exchange(mark, 0, SeqCst, Relaxed);
        }
    }

    fn address(&self) -> usize {
        std::ptr::from_ref(self) as usize
    }

    /// It is the newest version from now on; others may still be in use.
    pub(super) fn succeed(&self, before: &App, live: &AppLive) {
        if before.has_been_up() {
            live.has_been_up.store(true, Relaxed);
        }
        live.newest.store(self.address(), SeqCst);
        live.unsettle();
        self.measure(live);
    }

    /// A trial's request ended without telling anything: the trial is free for
    /// the next. `chosen_us` is the `now_us` of the choice. Harmless if it told
    /// or was no trial.
    pub fn forsake(&self, index: usize, chosen_us: u64) {
        let trial = State::Trial {
            since_us: chosen_us,
        };
        let due = State::Out {
            hard: false,
            due_us: chosen_us,
        };
        let word = &self.backends[index].live().state;
        // An error: it is decided, or was given to another.
        let _ = word.compare_exchange(trial.to_bits(), due.to_bits(), AcqRel, Relaxed);
    }

    /// What came of a try. A success on a backend that is well costs a few
    /// loads and stores.
    pub fn tell(&self, told: &Told) -> Option<Verdict> {
        let backend = self.backends[told.index].live();
        match told.outcome {
            Outcome::Answered {
                status: ..=499,
                first_byte_us,
            } => {
                let live = self.live();
                let usual_us = live.median_us.load(Relaxed);
                backend.latency.note(first_byte_us, usual_us, told.now_us);
                self.heard(live, backend, told, first_byte_us);
                backend.answered_us.store(told.now_us, Relaxed);
                if live.sketches[told.thread].note(first_byte_us) {
                    self.measure(live);
                    self.credit(live, told.now_us);
                }
                let is_well = backend.state().is_in_rotation()
                    && !backend.watched.load(Relaxed)
                    && first_byte_us < live.slow_us.load(Relaxed);
                if is_well {
                    return None;
                }
            }
            Outcome::Answered {
                status: 502..=504, ..
            }
            | Outcome::AskedForRest { .. } => backend.refused_us.store(told.now_us, Relaxed),
            Outcome::Answered { .. } => backend.answered_us.store(told.now_us, Relaxed),
            Outcome::Overdue | Outcome::TimedOut => {
                // Time to connect and to upload is not the backend's.
                backend.latency.note_at_least(told.waited_us, told.now_us);
                if told.outcome == Outcome::TimedOut {
                    self.heard(self.live(), backend, told, told.waited_us);
                }
            }
            _ => {}
        }
        self.judge(told, backend)
    }

    #[cold]
    fn judge(&self, told: &Told, backend: &BackendLive) -> Option<Verdict> {
        let live = self.live();
        let what = Try {
            now_us: told.now_us,
            sent_us: told.sent_us,
            outcome: told.outcome,
            random: told.random,
        };
        let verdict = locked(&live.ward).tell(&Patients(self), told.index, &self.rules(), &what);
        Self::proclaim(live, backend, verdict)
    }

    /// What a verdict changes besides the state.
    fn proclaim(
        live: &AppLive,
        backend: &BackendLive,
        verdict: Option<Verdict>,
    ) -> Option<Verdict> {
        match verdict {
            Some(Verdict::Readmitted { .. }) => {
                // Another process answers now, or the same one well: what it
                // took before would keep its share from it for seconds.
                backend.latency.forget();
                live.queue.wake_all();
            }
            Some(Verdict::Spared {
                readmitted: 1.., ..
            }) => live.queue.wake_all(),
            _ => {}
        }
        verdict
    }

    fn rules(&self) -> health::Rules {
        let policy = &self.policy;
        let rules = |probe: &Probe| ProbeRules {
            rise: probe.rise,
            fall: probe.fall,
            interval_us: micros(probe.interval),
        };
        health::Rules {
            ejection: policy.ejection,
            slow_start_us: micros(policy.slow_start),
            probe: policy.probe.as_ref().map(rules),
        }
    }

    /// Whether anything takes its backends out: if not, what did before its
    /// policy changed has no effect.
    fn is_judged(&self) -> bool {
        self.policy.ejection || self.policy.probe.is_some()
    }

    /// A backend accepted a connection.
    pub fn connected(&self, index: usize) {
        let accepted = &self.backends[index].live().accepted;
        if !accepted.load(Relaxed) {
            accepted.store(true, Relaxed);
        }
    }

    /// Whether any of its backends ever accepted a connection: then one that
    /// does not is restarting, and requests may wait for it.
    pub fn has_been_up(&self) -> bool {
        let before = self.live.get().map(|live| live.has_been_up.load(Relaxed));
        let mut lives = self.backends.iter().filter_map(|one| one.live.get());
        before == Some(true) || lives.any(|one| one.accepted.load(Relaxed))
    }

    /// What came of a probe, of either kind. A cold app whose probes pass stays
    /// cold.
    pub fn probed(&self, probed: &Probed) -> Option<Verdict> {
        let at = &self.backends[probed.index];
        if probed.passed && self.live.get().is_none() {
            return None;
        }
        let (live, backend) = (self.live(), at.live());
        let moment = (probed.now_us, probed.random);
        let verdict = locked(&live.ward).probed(
            &Patients(self),
            probed.index,
            &self.rules(),
            probed.passed,
            moment,
        );
        Self::proclaim(live, backend, verdict)
    }

    /// An operator's order: everything against the backend is forgotten.
    pub fn readmit(&self, index: usize, now_us: u64) -> Option<Verdict> {
        let (live, backend) = (self.live.get()?, self.backends[index].live.get()?);
        let verdict = locked(&live.ward).readmit(&Patients(self), index, &self.rules(), now_us);
        Self::proclaim(live, backend, verdict)
    }

    /// When the prober should next look whether a backend that nobody answers
    /// at is back; `None`: it need not. What it does then is what the app's
    /// probe says, and without one to open a connection. Sooner while requests
    /// wait for the app.
    pub fn next_return_probe_us(&self, index: usize) -> Option<u64> {
        let (live, backend) = (self.live.get()?, self.backends[index].live.get()?);
        let mut health = *locked(&backend.health);
        health.resume(backend.state());
        health.return_probe_us(live.queue.waiting() > 0)
    }

    /// What a report says of a backend's health.
    pub(super) fn show(&self, backend: &BackendLive, moment: Moment, report: &mut BackendReport) {
        let slow_start_us = micros(self.policy.slow_start);
        let mut health = *locked(&backend.health);
        health.resume(backend.state());
        let state = health.state().at(moment.now_us, slow_start_us);
        let shown = match state {
            State::Settled => Shown::Healthy,
            State::Ramping { .. } => Shown::Ramping,
            State::Resting { .. } => Shown::Resting,
            State::Out { .. } => Shown::Ejected,
            State::Trial { .. } => Shown::Trial,
        };
        report.health = shown as i32;
        report.reason = health
            .reason()
            .map_or("", |reason| reason.word())
            .to_owned();
        if health.since_us() > 0 {
            let ago_ms = moment.now_us.saturating_sub(health.since_us()) / 1_000;
            report.since_ms = moment.unix_ms.saturating_sub(ago_ms);
        }
        report.ejections = health.ejections();
        report.latency_us = backend.latency.measured_us();
        let capacity = backend.capacity();
        report.limit = u64::from(capacity.limit().min(self.policy.max_concurrency));
        report.undisturbed_us = capacity.base_us();
        report.share_permille = state.share_permille(moment.now_us, slow_start_us);
    }
}

impl Candidates for App {
    fn len(&self) -> usize {
        self.backends.len()
    }

    #[inline]
    fn candidate(&self, index: usize) -> Candidate {
        let backend = &self.backends[index];
        Candidate {
            standing: backend.standing(),
            weight: backend.weight,
            ejected: backend.ejected,
        }
    }

    #[inline]
    fn in_flight(&self, index: usize) -> u32 {
        let live = self.backends[index].live.get();
        live.map_or(0, |live| live.crowd())
    }

    #[inline]
    fn is_full(&self, index: usize) -> bool {
        let most = self.policy.max_concurrency;
        let live = self.backends[index].live.get();
        live.is_some_and(|live| live.is_full(most))
    }

    #[inline]
    fn is_settled(&self) -> bool {
        self.live
            .get()
            .is_none_or(|live| live.unsettled.load(SeqCst) == 0)
    }

    fn state(&self, index: usize) -> State {
        let live = self.backends[index].live.get();
        let state = live.map_or(State::Settled, |live| live.state());
        if state.is_in_rotation() || self.is_judged() {
            state
        } else {
            State::Settled
        }
    }

    fn latency_us(&self, index: usize, now_us: u64) -> u64 {
        let live = self.backends[index].live.get();
        live.map_or(0, |live| live.latency.read_us(now_us))
    }

    fn answered_us(&self, index: usize) -> u64 {
        let live = self.backends[index].live.get();
        live.map_or(0, |live| live.answered_us.load(Relaxed))
    }

    fn failed_us(&self, index: usize) -> u64 {
        let live = self.backends[index].live.get();
        live.map_or(0, |live| live.failed_us.load(Relaxed))
    }
}

/// An app's backends as the ward sees them. Only who holds the ward's lock
/// makes one.
struct Patients<'a>(&'a App);

impl health::Pool for Patients<'_> {
    fn len(&self) -> usize {
        self.0.backends.len()
    }

    fn host(&self, index: usize) -> Host {
        let backend = &self.0.backends[index];
        let live: &Arc<BackendLive> = backend.live();
        let in_flight = u64::from(live.load.read().in_flight);
        Host {
            counts: backend.counts(),
            tries: live.requests.load(Relaxed).saturating_sub(in_flight),
            answered_us: live.heard_us(),
            latency_us: live.latency.measured_us(),
        }
    }

    fn with<R>(&self, index: usize, act: impl FnOnce(&mut Health) -> R) -> R {
        let live = self.0.backends[index].live();
        let mut health = locked(&live.health);
        let before = live.state();
        health.resume(before);
        let answer = act(&mut health);
        live.failed_us.store(health.failed_us(), Relaxed);
        live.watched.store(health.is_watched(), Relaxed);
        let (app, state) = (self.0.live(), health.state());
        if state != before {
            live.state.store(state.to_bits(), Release);
            app.unsettle();
        } else if state != State::Settled && app.unsettled.load(SeqCst) == 0 {
            // Taken away by a choice on a version that does not know this one,
            // while no version was known to be the newest.
            app.unsettle();
        }
        answer
    }
}

#[cfg(test)]
#[path = "vitals_tests.rs"]
mod tests;
