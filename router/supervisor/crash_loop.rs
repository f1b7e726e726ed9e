//! Crash loops: when the edge is to stand on another table than the newest.
//!
//! Pure: deaths, how things stand and the time come in, [`Advice`] goes out.
//!
//! Three edges that serve and crash young, one after another, are more likely
//! to crash on what is in the newest table than by chance. Then the next one
//! boots from the last table that ran well, and stays with it
//! ([`Footing::Proven`]). From time to time, and whenever an operator reloads,
//! the newest table is tried again beside it, with one of the proven kind
//! standing by until the trial has lived long enough. If the proven one
//! crashes in a loop too, the table is not the reason, and the newest comes
//! back: the footing alternates.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::moment::Moment;
use super::post::{Departure, Duty, Progress};
use super::vintage::Vintage;
use crate::heritage::Footing;

/// One that served this long did not crash young.
pub(super) const HEALTHY_SERVICE: Duration = Duration::from_secs(30);
/// Young deaths in a row that make a crash loop.
const DEATHS: u32 = 3;
/// Before the newest table is tried again; doubles with each failure.
const FIRST_PAUSE: Duration = Duration::from_secs(60);
/// The longest of these.
const MAX_PAUSE: Duration = Duration::from_secs(30 * 60);

/// What the kernel is to do about the edge's footing.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Advice {
    /// A crash loop: replace the edge by one that stands on this.
    Change(Footing),
    /// Try the newest table beside the proven one.
    Try,
    /// The trial failed: the proven one serves on.
    FallBack,
    /// The trial lived: the newest table is the one to stand on.
    Settle,
}

/// How the edge's post stands.
#[derive(Debug)]
pub(super) struct Standing {
    /// What serves, or shall.
    pub present: Vintage,
    /// What that stands on.
    pub footing: Footing,
    /// A replacement is asked for or under way.
    pub is_replacing: bool,
    /// There is a table that ran well.
    pub has_proven: bool,
    /// How far the trial came, if there is one.
    pub trial: Option<Progress>,
}

/// The newest table, tried.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Trial {
    vintage: Vintage,
    serves_since: Option<Moment>,
}

/// See the module.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct CrashLoop {
    /// Young deaths in a row of this vintage.
    deaths: u32,
    counted_for: Option<Vintage>,
    trial: Option<Trial>,
    pause: Duration,
    /// When the next trial is due; only while the proven table is stood on.
    retry_at: Option<Moment>,
    falls_back: bool,
}

impl Default for CrashLoop {
    fn default() -> Self {
        CrashLoop {
            deaths: 0,
            counted_for: None,
            trial: None,
            pause: FIRST_PAUSE,
            retry_at: None,
            falls_back: false,
        }
    }
}

impl CrashLoop {
    /// An edge died.
    pub(super) fn died(&mut self, departure: &Departure, now: Moment) {
        let Duty::Serving(served) = departure.duty else {
            return;
        };
        if self.trial() == Some(departure.vintage) {
            self.trial_failed(departure.is_own_fault, now);
        } else if served >= HEALTHY_SERVICE {
            self.deaths = 0;
        } else if departure.is_own_fault {
            self.deaths += 1;
        }
    }

    /// The vintage on trial.
    pub(super) fn trial(&self) -> Option<Vintage> {
        self.trial.as_ref().map(|trial| trial.vintage)
    }

    /// A trial of this vintage begins.
    pub(super) fn tries(&mut self, vintage: Vintage) {
        self.retry_at = None;
        self.trial = Some(Trial {
            vintage,
            serves_since: None,
        });
    }

    /// What to do now, if anything. Ask after every event and when
    /// [`CrashLoop::wake_at`] passes.
    pub(super) fn advise(&mut self, standing: &Standing, now: Moment) -> Option<Advice> {
        if self.counted_for.replace(standing.present) != Some(standing.present) {
            self.deaths = 0;
        }
        if let Some(progress) = &standing.trial {
            self.follow_trial(progress, now);
        }
        if std::mem::take(&mut self.falls_back) {
            return Some(Advice::FallBack);
        }
        if self.trial.is_some() {
            return self.has_trial_lived(now).then(|| {
                *self = CrashLoop::default();
                Advice::Settle
            });
        }
        if standing.is_replacing {
            return None;
        }
        if self.deaths >= DEATHS {
            self.deaths = 0;
            return match standing.footing {
                // Without one the newest is all there is.
                Footing::Newest if !standing.has_proven => None,
                Footing::Newest => Some(Advice::Change(Footing::Proven)),
                Footing::Proven => Some(Advice::Change(Footing::Newest)),
            };
        }
        match standing.footing {
            Footing::Newest => {
                self.retry_at = None;
                None
            }
            Footing::Proven => {
                let retry_at = *self.retry_at.get_or_insert(now + self.pause);
                (retry_at <= now).then_some(Advice::Try)
            }
        }
    }

    /// When time alone changes the advice.
    pub(super) fn wake_at(&self) -> Option<Moment> {
        match &self.trial {
            Some(trial) => trial.serves_since.map(|since| since + HEALTHY_SERVICE),
            None => self.retry_at,
        }
    }

    fn follow_trial(&mut self, progress: &Progress, now: Moment) {
        let Some(trial) = &mut self.trial else {
            return;
        };
        match progress {
            Progress::Serving => {
                trial.serves_since.get_or_insert(now);
            }
            Progress::Failed(_) => self.trial_failed(true, now),
            Progress::Asked | Progress::Starting | Progress::Warm => {}
        }
    }

    fn has_trial_lived(&self, now: Moment) -> bool {
        let since = self.trial.as_ref().and_then(|trial| trial.serves_since);
        since.is_some_and(|since| now.since(since) >= HEALTHY_SERVICE)
    }

    fn trial_failed(&mut self, is_own_fault: bool, now: Moment) {
        self.trial = None;
        self.falls_back = true;
        if is_own_fault {
            self.pause = self.pause.saturating_mul(2).min(MAX_PAUSE);
        }
        self.retry_at = Some(now + self.pause);
    }
}
