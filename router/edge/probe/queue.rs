//! What is to be probed and when: one watch for each backend, in the order of
//! time.
//!
//! Owns the watches, their order, and the bounds: on the rate of all probes
//! together, on how many run at once, and on what one app may take of both. A
//! probe that is late is late once: its next time counts from when it ran.
//! Never looks at an app or a socket; time is an argument.
//!
//! ```text
//! Waiting ──its time came──▶ Due ──rate and room allow──▶ Running
//!    ▲                                                       │
//!    └───────────────── put_back / dropped ──────────────────┘
//! ```
//!
//! **Invariant**: a backend has at most one watch, so at most one probe runs
//! or waits for it, however often it is posted.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use ahash::RandomState;
use ecow::EcoString;
use hashbrown::HashMap;

use super::pace::Pace;
use crate::edge::clock::Micros;

/// Probes that run at once.
pub(super) const AT_ONCE: usize = 256;

/// Of these, return and active ones: neither a rack that swallows packets nor a
/// fleet of mute backends may keep the other kind from running.
const AT_ONCE_OF: [usize; 2] = [224, 192];

/// Of these, of one app.
const OF_ONE_APP: u32 = 32;

/// A probe of an app that has as many under way as it may waits this much
/// longer.
const CROWDED_US: Micros = 100_000;

/// With both kinds due, every so many starts is an active probe.
const ACTIVE_TURN: u32 = 4;

/// Entries of orders that watches left behind by moving, before they are
/// cleared away.
const SLACK: usize = 1_024;

const NEVER: Micros = Micros::MAX;

/// Why a backend is probed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    /// It is out because nobody answers there: goes first.
    Return,
    /// Its app's policy says so.
    Active,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Waiting,
    Due,
    Running,
}

#[derive(Debug)]
struct Watch {
    app: EcoString,
    class: Class,
    place: Place,
    /// When it is looked at.
    due: Micros,
    /// When it was to be: what lateness counts from.
    wanted: Micros,
    /// When its last probe began.
    began: Micros,
    /// It stands in the line of [`Queue::next_return`].
    is_listed: bool,
    timeouts: u8,
}

/// A probe to start now.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Turn {
    /// The backend's key.
    pub(super) key: u64,
    /// Its app's name.
    pub(super) app: EcoString,
    /// By how much it is late.
    pub(super) late_us: Micros,
    /// As its last probe left it ([`Next::timeouts`]).
    pub(super) timeouts: u8,
}

/// What follows a probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Next {
    /// What the next one is for.
    pub(super) class: Class,
    /// When.
    pub(super) due: Micros,
    /// Probes in a row that got no answer in time, this one included.
    pub(super) timeouts: u8,
}

#[derive(Debug, Default)]
struct OfApp {
    keys: Vec<u64>,
    running: u32,
}

/// The queue.
#[derive(Debug, Default)]
pub(super) struct Queue {
    watches: HashMap<u64, Watch, RandomState>,
    of_app: HashMap<EcoString, OfApp, RandomState>,
    /// Times of the waiting; entries that no watch is due at any more are
    /// skipped.
    times: BinaryHeap<Reverse<(Micros, u64)>>,
    /// The due, by class, first come first served; entries of watches that
    /// are not due any more, or in the other class, are skipped.
    due: [VecDeque<u64>; 2],
    /// Watches due and not started.
    backlog: usize,
    running: [usize; 2],
    /// Watches for a return, in the order of [`next_return`](Self::next_return).
    returns: VecDeque<u64>,
    /// Return probes started since the last active one.
    turn: u32,
    pace: Pace,
}

impl Queue {
    /// Watches held.
    pub(super) fn len(&self) -> usize {
        self.watches.len()
    }

    /// Probes that are due and not started.
    pub(super) fn backlog(&self) -> usize {
        self.backlog
    }

    /// Backends of an app that are watched.
    pub(super) fn of_app(&self, app: &str) -> &[u64] {
        self.of_app.get(app).map_or(&[], |of_app| &of_app.keys)
    }

    /// Whether a backend is watched for its return.
    pub(super) fn holds_return(&self, key: u64) -> bool {
        let watch = self.watches.get(&key);
        watch.is_some_and(|watch| watch.class == Class::Return)
    }

    /// The backends watched for their return, one after the other, for ever;
    /// with their app.
    pub(super) fn next_return(&mut self) -> Option<(u64, EcoString)> {
        while let Some(key) = self.returns.pop_front() {
            let Some(watch) = self.watches.get_mut(&key) else {
                continue;
            };
            if watch.class == Class::Return {
                self.returns.push_back(key);
                return Some((key, watch.app.clone()));
            }
            watch.is_listed = false;
        }
        None
    }

    /// Backends watched for their return, about.
    pub(super) fn returns(&self) -> usize {
        self.returns.len()
    }

    /// Watches a backend from `due` on. One watched already is probed at the
    /// sooner of both times; one whose probe runs is left to it.
    pub(super) fn watch(&mut self, app: &EcoString, key: u64, class: Class, due: Micros) {
        if let Some(watch) = self.watches.get_mut(&key) {
            let is_raised = class == Class::Return && watch.class == Class::Active;
            if is_raised && watch.place != Place::Running {
                watch.class = class;
                if watch.place == Place::Due {
                    self.due[class as usize].push_back(key);
                }
            }
            self.hasten(key, due);
        } else {
            let watch = Watch {
                app: app.clone(),
                class,
                place: Place::Waiting,
                due,
                wanted: due,
                began: 0,
                is_listed: false,
                timeouts: 0,
            };
            self.watches.insert(key, watch);
            let of_app = self.of_app.entry(app.clone()).or_default();
            of_app.keys.push(key);
            self.times.push(Reverse((due, key)));
        }
        self.list(key);
    }

    /// A waiting backend is probed at `due`, if that is sooner.
    pub(super) fn hasten(&mut self, key: u64, due: Micros) {
        if let Some(watch) = self.watches.get_mut(&key)
            && watch.place == Place::Waiting
            && due < watch.due
        {
            watch.due = due;
            watch.wanted = due;
            self.times.push(Reverse((due, key)));
            self.tidy();
        }
    }

    /// The same, at `apart_us` after its last probe began.
    pub(super) fn hasten_after(&mut self, key: u64, apart_us: Micros) {
        if let Some(watch) = self.watches.get(&key) {
            self.hasten(key, watch.began + apart_us);
        }
    }

    /// Ends a watch, unless its probe runs: then its end does, by
    /// [`put_back`](Self::put_back).
    pub(super) fn unwatch(&mut self, key: u64) {
        match self.watches.get(&key).map(|watch| watch.place) {
            None | Some(Place::Running) => return,
            Some(Place::Due) => self.backlog -= 1,
            Some(Place::Waiting) => {}
        }
        self.forget(key);
    }

    /// The next probe to start, if one is due and the bounds allow it. Each
    /// needs its [`put_back`](Self::put_back).
    pub(super) fn take(&mut self, now: Micros) -> Option<Turn> {
        self.come_due(now);
        loop {
            if now < self.pace.free_at() {
                return None;
            }
            let class = self.next_class()?;
            let key = self.due[class as usize].pop_front()?;
            let Some(watch) = self.watches.get_mut(&key) else {
                continue;
            };
            if watch.place != Place::Due || watch.class != class {
                continue;
            }
            self.backlog -= 1;
            let of_app = self.of_app.entry(watch.app.clone()).or_default();
            if of_app.running >= OF_ONE_APP {
                watch.place = Place::Waiting;
                watch.due = now + CROWDED_US;
                self.times.push(Reverse((watch.due, key)));
                continue;
            }
            watch.place = Place::Running;
            watch.began = now;
            self.turn = match class {
                Class::Return => self.turn.saturating_add(1),
                Class::Active => 0,
            };
            of_app.running += 1;
            self.running[class as usize] += 1;
            self.pace.book(now);
            return Some(Turn {
                key,
                app: watch.app.clone(),
                late_us: now.saturating_sub(watch.wanted),
                timeouts: watch.timeouts,
            });
        }
    }

    /// A probe ended; `None`: there is nothing to watch any more.
    pub(super) fn put_back(&mut self, key: u64, next: Option<Next>) {
        let Some(watch) = self.watches.get_mut(&key) else {
            return;
        };
        debug_assert_eq!(watch.place, Place::Running, "only what runs may end");
        self.running[watch.class as usize] -= 1;
        if let Some(of_app) = self.of_app.get_mut(&watch.app) {
            of_app.running -= 1;
        }
        match next {
            Some(next) => {
                watch.class = next.class;
                watch.place = Place::Waiting;
                watch.due = next.due;
                watch.wanted = next.due;
                watch.timeouts = next.timeouts;
                self.times.push(Reverse((next.due, key)));
                self.list(key);
            }
            None => self.forget(key),
        }
    }

    /// When [`take`](Self::take) should be asked again unless something is put
    /// back before.
    pub(super) fn wake_at(&self) -> Micros {
        let next = self.times.peek().map_or(NEVER, |Reverse((due, _))| *due);
        match self.next_class() {
            Some(_) => next.min(self.pace.free_at()),
            None => next,
        }
    }

    fn come_due(&mut self, now: Micros) {
        while let Some(Reverse((due, key))) = self.times.peek().copied() {
            if due > now {
                break;
            }
            self.times.pop();
            if let Some(watch) = self.watches.get_mut(&key)
                && watch.place == Place::Waiting
                && watch.due == due
            {
                watch.place = Place::Due;
                self.due[watch.class as usize].push_back(key);
                self.backlog += 1;
            }
        }
    }

    /// The class whose turn it is, if any may have one due and has room.
    fn next_class(&self) -> Option<Class> {
        if self.running.iter().sum::<usize>() >= AT_ONCE {
            return None;
        }
        let ready = |class: Class| {
            let at = class as usize;
            !self.due[at].is_empty() && self.running[at] < AT_ONCE_OF[at]
        };
        match (ready(Class::Return), ready(Class::Active)) {
            (true, true) if self.turn.saturating_add(1) >= ACTIVE_TURN => Some(Class::Active),
            (true, _) => Some(Class::Return),
            (false, true) => Some(Class::Active),
            (false, false) => None,
        }
    }

    fn list(&mut self, key: u64) {
        if let Some(watch) = self.watches.get_mut(&key)
            && watch.class == Class::Return
            && !watch.is_listed
        {
            watch.is_listed = true;
            self.returns.push_back(key);
        }
    }

    fn forget(&mut self, key: u64) {
        let Some(watch) = self.watches.remove(&key) else {
            return;
        };
        if let Some(of_app) = self.of_app.get_mut(&watch.app) {
            // From the end, where one finds it at once who lets go of all.
            if let Some(at) = of_app.keys.iter().rposition(|held| *held == key) {
                of_app.keys.swap_remove(at);
            }
            if of_app.keys.is_empty() {
                self.of_app.remove(&watch.app);
            }
        }
    }

    /// Clears the orders of what watches left behind, once that is most of them.
    fn tidy(&mut self) {
        let bound = 2 * self.watches.len() + SLACK;
        let watches = &self.watches;
        if self.times.len() > bound {
            self.times.retain(|Reverse((due, key))| {
                let watch = watches.get(key);
                watch.is_some_and(|w| w.place == Place::Waiting && w.due == *due)
            });
        }
        for (class, due) in [Class::Return, Class::Active]
            .into_iter()
            .zip(&mut self.due)
        {
            if due.len() > bound {
                due.retain(|key| {
                    let watch = watches.get(key);
                    watch.is_some_and(|w| w.place == Place::Due && w.class == class)
                });
            }
        }
    }
}

#[cfg(test)]
#[path = "queue_tests.rs"]
mod tests;
