//! The prober's loop: what came to be watched, what is due, what came of it.
//!
//! Owns the queue and the probes under way; all of it dies with a panic and is
//! found again by the next life. Never probes but on [`Queue::take`]'s word.

use std::future::pending;
use std::panic::resume_unwind;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use ecow::EcoString;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use super::errand::{self, Ended, Errand};
use super::queue::{Class, Next, Queue, Turn};
use super::{Post, ProberInputs, ask};
use crate::edge::clock::Micros;
use crate::edge::verdict::pronounce_as;
use crate::observe::{Counter, Gauge};
use crate::policy::balance::Candidates;
use crate::policy::health::Verdict;
use crate::table::{App, Probed, Table};

/// How often the prober looks after itself, and whether requests wait.
const TICK: Duration = Duration::from_millis(100);

/// Between two looks through all hot apps for backends whose post was lost.
const SWEEP_US: Micros = 1_000_000;

/// Hot apps looked at, and backends awaiting return asked after, in one tick.
const LOOKED_AT: usize = 1_024;

/// Changed apps taken in one tick.
const CHANGES: usize = 4_096;

/// A probe that a limit holds back is due again after this.
const PUT_OFF_US: Micros = 100_000;

/// A probe that starts this much after its time is late.
const LATE_US: Micros = 100_000;

/// From the prober's start to its end, or to a panic.
pub(super) struct Life<'i> {
    inputs: &'i mut ProberInputs,
    table: Arc<Table>,
    /// [`ProberInputs::origin`], as a time that tests can pause.
    origin: Instant,
    queue: Queue,
    running: JoinSet<Ended>,
    random: fastrand::Rng,
    changed: Vec<EcoString>,
}

impl<'i> Life<'i> {
    pub(super) fn new(inputs: &'i mut ProberInputs) -> Self {
        Life {
            table: Arc::clone(&inputs.table),
            origin: Instant::from_std(inputs.origin),
            queue: Queue::default(),
            running: JoinSet::new(),
            random: fastrand::Rng::new(),
            changed: Vec::new(),
            inputs,
        }
    }

    /// Probes until it is told to stop.
    pub(super) async fn live(mut self, stop: &mut watch::Receiver<bool>) {
        let table = Arc::clone(&self.table);
        table.probed_apps().change_all();
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut sweep = table.hot_apps();
        let mut sweep_began_us = self.now();
        loop {
            self.start_due();
            let wake = self.wake();
            tokio::select! {
                _ = stop.wait_for(|stopped| *stopped) => return,
                Some(ended) = self.running.join_next() => match ended {
                    Ok(ended) => self.end(&ended),
                    Err(error) if error.is_panic() => resume_unwind(error.into_panic()),
                    // Nobody cancels one.
                    Err(_) => {}
                },
                Some(post) = self.inputs.posts.queue.recv() => self.take_post(&post),
                _ = tick.tick() => {
                    self.take_changes();
                    self.hasten_waited_for();
                    let is_over = self.look_after(sweep.by_ref());
                    if is_over && self.now() >= sweep_began_us + SWEEP_US {
                        sweep_began_us = self.now();
                        sweep = table.hot_apps();
                    }
                    self.tell();
                }
                () = wake => {}
            }
        }
    }

    fn now(&self) -> Micros {
        self.origin.elapsed().as_micros() as Micros
    }

    /// Until the queue is to be asked again.
    fn wake(&self) -> impl Future<Output = ()> + use<> {
        let at = match self.queue.wake_at() {
            Micros::MAX => None,
            at => Some(self.origin + Duration::from_micros(at)),
        };
        async move {
            match at {
                Some(at) => sleep_until(at).await,
                None => pending().await,
            }
        }
    }

    fn start_due(&mut self) {
        while let Some(turn) = self.queue.take(self.now()) {
            let app = self.table.app(&turn.app);
            let errand = app.as_ref().and_then(|app| Errand::of(app, turn.key));
            match (app, errand) {
                (Some(_), Some(errand)) if !self.may_ask(&errand) => self.put_off(&turn),
                (Some(app), Some(errand)) => self.start(&app, turn, errand),
                _ => self.queue.put_back(turn.key, None),
            }
        }
    }

    /// Whether an operator's limit lets it; how backends come back has none.
    fn may_ask(&self, errand: &Errand) -> bool {
        errand.class == Class::Return || self.table.limits.flows.probes.take(self.now())
    }

    fn put_off(&mut self, turn: &Turn) {
        let next = Next {
            class: Class::Active,
            due: self.now() + PUT_OFF_US,
            timeouts: turn.timeouts,
        };
        self.queue.put_back(turn.key, Some(next));
    }

    fn start(&mut self, app: &Arc<App>, turn: Turn, errand: Errand) {
        if turn.late_us >= LATE_US {
            self.inputs.cells.inc(Counter::ProbesLate);
        }
        let policy = Arc::clone(&app.policy);
        let patience = errand.patience(app, turn.timeouts);
        let began_us = self.now();
        self.running.spawn(async move {
            Ended {
                finding: ask::ask(errand.address, policy.probe.as_ref(), patience).await,
                app: turn.app,
                key: turn.key,
                began_us,
                class: errand.class,
                timeouts: turn.timeouts,
            }
        });
    }

    /// Has a probe's finding judged, and the next one queued.
    fn end(&mut self, ended: &Ended) {
        let now_us = self.now();
        let app = self.table.app(&ended.app);
        let errand = app.as_ref().and_then(|app| Errand::of(app, ended.key));
        let (Some(app), Some(errand)) = (app, errand) else {
            self.inputs.cells.inc(Counter::ProbeMoot);
            self.queue.put_back(ended.key, None);
            return;
        };
        self.inputs.cells.inc(ended.finding.counter());
        // What passed before a backend went away says nothing of its return.
        let is_stale = ended.class != errand.class && errand.class == Class::Return;
        match ended.finding.passed() {
            Some(passed) if !(passed && is_stale) => self.judge(&app, &errand, ended, passed),
            _ => {}
        }
        let next = Errand::of(&app, ended.key).map(|errand| {
            let watched = self.queue.of_app(&app.name).len();
            errand.next(&app, watched, ended, now_us, &mut self.random)
        });
        self.queue.put_back(ended.key, next);
    }

    fn judge(&mut self, app: &App, errand: &Errand, ended: &Ended, passed: bool) {
        let verdict = app.probed(&Probed {
            index: errand.index,
            now_us: self.now(),
            passed,
            random: self.random.u64(..),
        });
        let Some(verdict) = verdict else {
            return;
        };
        let text = match verdict {
            Verdict::Ejected { .. } | Verdict::Spared { .. } => {
                format!("{verdict}; the last probe: {}", ended.finding)
            }
            _ => verdict.to_string(),
        };
        let (cells, events) = (&self.inputs.cells, &self.inputs.events);
        let backend = &app.backends[errand.index];
        pronounce_as(cells, events, app, backend, &verdict, text);
    }

    fn take_post(&mut self, post: &Post) {
        if let Some(app) = self.table.app(&post.app) {
            let mut backends = app.backends.iter();
            let index = backends.position(|backend| backend.existing_key() == Some(post.key));
            if let Some(index) = index {
                self.await_return(&app, index, post.key);
            }
        }
    }

    /// Watches a backend for its return, if that is what it waits for.
    fn await_return(&mut self, app: &App, index: usize, key: u64) {
        if errand::awaits_return(app, index)
            && let Some(due) = app.next_return_probe_us(index)
        {
            self.queue.watch(&app.name, key, Class::Return, due);
            if errand::is_waited_for(app) {
                self.queue.hasten_after(key, errand::HELD_US);
            }
        }
    }

    /// Takes what the table says of apps with a probe: new backends are
    /// watched, those that are gone no more.
    fn take_changes(&mut self) {
        let mut changed = std::mem::take(&mut self.changed);
        self.table.probed_apps().take_changed(CHANGES, &mut changed);
        for name in changed.drain(..) {
            let app = self.table.app(&name);
            let watched = self.queue.of_app(&name).to_vec();
            // From the end: see how they are let go.
            for key in watched.into_iter().rev() {
                let is_wanted = app
                    .as_ref()
                    .is_some_and(|app| Errand::of(app, key).is_some());
                if !is_wanted {
                    self.queue.unwatch(key);
                }
            }
            if let Some(app) = app.filter(|app| app.is_probed()) {
                self.watch_all(&app);
            }
        }
        self.changed = changed;
    }

    fn watch_all(&mut self, app: &App) {
        let now_us = self.now();
        for (index, backend) in app.backends.iter().enumerate() {
            let key = backend.key();
            if let Some(errand) = Errand::of_index(app, index) {
                let due = errand::first_us(app, now_us, &mut self.random);
                match errand.class {
                    Class::Return => self.await_return(app, index, key),
                    Class::Active => self.queue.watch(&app.name, key, Class::Active, due),
                }
            }
        }
    }

    /// Finds backends whose post was dropped, in the next of these apps;
    /// whether these were the last.
    fn look_after(&mut self, apps: impl Iterator<Item = Arc<App>>) -> bool {
        let mut looked_at = 0;
        for app in apps.take(LOOKED_AT) {
            looked_at += 1;
            // It is hot: a version that came while it became so learns of it.
            app.live();
            if app.is_settled() {
                continue;
            }
            for (index, backend) in app.backends.iter().enumerate() {
                if let Some(key) = backend.existing_key()
                    && !self.queue.holds_return(key)
                {
                    self.await_return(&app, index, key);
                }
            }
        }
        looked_at < LOOKED_AT
    }

    /// Requests may have come to wait since a return probe was put off.
    fn hasten_waited_for(&mut self) {
        for _ in 0..self.queue.returns().min(LOOKED_AT) {
            let Some((key, name)) = self.queue.next_return() else {
                return;
            };
            let app = self.table.app(&name);
            if app.is_some_and(|app| errand::is_waited_for(&app)) {
                let watched = self.queue.of_app(&name).len();
                self.queue.hasten_after(key, errand::apart_us(watched));
            }
        }
    }

    fn tell(&self) {
        let cells = &self.inputs.cells;
        let dropped = self.inputs.posts.dropped.swap(0, Ordering::Relaxed);
        cells.add(Counter::ProbePostsDropped, dropped);
        cells.set(Gauge::ProbesDue, self.queue.backlog() as u64);
        cells.set(Gauge::BackendsProbed, self.queue.len() as u64);
    }
}

#[cfg(test)]
#[path = "life_tests.rs"]
mod tests;
