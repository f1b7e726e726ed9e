//! What a watch calls for, as of now: looked up anew each time, so that what
//! was removed, re-addressed or set to drain is not probed again.
//!
//! Owns the choice between a return and an active probe, how long it waits,
//! and when the next one is. Never judges: [`App::probed`] does.

use std::net::SocketAddr;
use std::time::Duration;

use ecow::EcoString;

use super::ask::{Finding, Patience};
use super::queue::{Class, Next};
use crate::edge::clock::Micros;
use crate::feed::messages::Standing;
use crate::table::App;

/// Between the return probes of a backend while requests wait for its app.
pub(super) const HELD_US: Micros = 100_000;

/// Between the return probes of a backend, whatever else is said.
const LEAST_APART_US: Micros = 90_000;

/// What one app may take of the prober's rate: a return probe each 5 ms, an
/// active one each 20 ms. Larger pools have each backend probed less often.
const RETURN_SHARE_US: Micros = 5_000;
const ACTIVE_SHARE_US: Micros = 20_000;

/// A connection that opens later than this is rare enough to be tried again;
/// each time-out in a row doubles it, up to the app's own limit.
const FIRST_CONNECT: Duration = Duration::from_millis(500);

/// No probe waits longer, whatever its app says: what waits holds one of a
/// bounded number of places.
const LONGEST: Duration = Duration::from_secs(30);

/// A probe to make.
#[derive(Clone, Copy, Debug)]
pub(super) struct Errand {
    /// The backend's index in this version of its app.
    pub(super) index: usize,
    /// Where it is.
    pub(super) address: SocketAddr,
    /// What for.
    pub(super) class: Class,
}

impl Errand {
    /// What the backend with this key of the app is to be probed for now.
    pub(super) fn of(app: &App, key: u64) -> Option<Errand> {
        let mut backends = app.backends.iter();
        let index = backends.position(|backend| backend.existing_key() == Some(key))?;
        Errand::of_index(app, index)
    }

    /// The same, of the backend at an index.
    pub(super) fn of_index(app: &App, index: usize) -> Option<Errand> {
        let backend = &app.backends[index];
        if backend.standing() == Standing::Draining {
            return None;
        }
        let class = match awaits_return(app, index) {
            true => Class::Return,
            false if app.is_probed() => Class::Active,
            false => return None,
        };
        Some(Errand {
            index,
            address: backend.address(),
            class,
        })
    }

    /// How long the probe waits, after so many in a row that did in vain.
    pub(super) fn patience(&self, app: &App, timeouts: u8) -> Patience {
        let probe = app.policy.probe.as_ref();
        let whole = probe.map_or(app.policy.connect_timeout, |probe| probe.timeout);
        let whole = whole.min(LONGEST);
        // While requests wait it is better to ask again than to wait on.
        let timeouts = if is_waited_for(app) { 0 } else { timeouts };
        let connect = match self.class {
            Class::Return => FIRST_CONNECT * (1 << timeouts.min(6)),
            Class::Active => whole,
        };
        Patience {
            connect: connect.min(whole),
            whole,
        }
    }

    /// When the next probe is; `watched` of the app's backends are.
    pub(super) fn next(
        &self,
        app: &App,
        watched: usize,
        ended: &Ended,
        now_us: Micros,
        random: &mut fastrand::Rng,
    ) -> Next {
        let due = match (self.class, &app.policy.probe) {
            (Class::Return, _) | (_, None) => {
                let due = app.next_return_probe_us(self.index).unwrap_or(now_us);
                let due = if is_waited_for(app) {
                    due.min(ended.began_us + apart_us(watched))
                } else {
                    due.max(ended.began_us + crowd_us(watched, RETURN_SHARE_US))
                };
                due.max(ended.began_us + LEAST_APART_US)
            }
            (Class::Active, Some(probe)) => {
                ended.began_us + jittered_us(probe.interval, watched, random.f64())
            }
        };
        Next {
            class: self.class,
            due: due.max(now_us),
            timeouts: match ended.finding {
                Finding::TimedOut => ended.timeouts.saturating_add(1),
                _ => 0,
            },
        }
    }
}

/// A probe that was made.
#[derive(Clone, Debug)]
pub(super) struct Ended {
    /// Whose backend.
    pub(super) app: EcoString,
    /// Which.
    pub(super) key: u64,
    /// When it began.
    pub(super) began_us: Micros,
    /// Whether the backend waited for its return then.
    pub(super) class: Class,
    /// Time-outs in a row before this one.
    pub(super) timeouts: u8,
    /// What it found.
    pub(super) finding: Finding,
}

/// Whether a backend waits for a probe to bring it back.
pub(super) fn awaits_return(app: &App, index: usize) -> bool {
    let backend = &app.backends[index];
    !backend.ejected
        && backend.standing() != Standing::Draining
        && app.next_return_probe_us(index).is_some()
}

/// Whether requests wait for a backend of the app.
pub(super) fn is_waited_for(app: &App) -> bool {
    app.existing_live()
        .is_some_and(|live| live.queue.waiting() > 0)
}

/// Between two return probes of one backend while requests wait.
pub(super) fn apart_us(watched: usize) -> Micros {
    HELD_US.max(crowd_us(watched, RETURN_SHARE_US))
}

/// When the first active probe of a backend is: any time within the interval,
/// so that what came together is not probed together.
pub(super) fn first_us(app: &App, now_us: Micros, random: &mut fastrand::Rng) -> Micros {
    let interval = app.policy.probe.as_ref().map(|probe| probe.interval);
    let interval_us = jittered_us(interval.unwrap_or_default(), app.backends.len(), 0.5);
    now_us + (interval_us as f64 * random.f64()) as Micros
}

/// An interval, or what a pool as large as this has to bear with, ±10 %.
fn jittered_us(interval: Duration, watched: usize, random: f64) -> Micros {
    let interval_us = (interval.as_micros() as Micros).max(crowd_us(watched, ACTIVE_SHARE_US));
    (interval_us as f64 * (0.9 + 0.2 * random)) as Micros
}

fn crowd_us(watched: usize, share_us: Micros) -> Micros {
    watched as Micros * share_us
}

#[cfg(test)]
#[path = "errand_tests.rs"]
mod tests;
