//! How many requests a backend can have at once without making them wait
//! inside it: learned from its answers, where nobody has said.
//!
//! Owns one backend's limit and the measure it goes by. Never reads a clock,
//! never counts or refuses a request: who is over the limit waits in the app's
//! line ([`super::admission`]), and what waits there too long is shed there.
//!
//! A backend that is given more than it can do lets requests queue inside it:
//! its answers take longer, and no more of them come. By Little's law, of `L`
//! requests that take `R` each where they would take `B` undisturbed,
//! `L (1 - B/R)` are waiting (Brakmo and Peterson, *TCP Vegas*, 1995). The limit
//! rises while hardly anyone waits and sinks when more than [`QUEUED`] or so do.
//!
//! ```text
//!           nobody was turned away: B follows what answers take
//!             ┌───┐
//!             │   ▼   turned away, hardly anyone waits inside: + 1, 2, 4 …
//!           cruise ◀──────────────────────────────────────────────┐
//!             │  │  too many wait inside: L · B/R + what may wait ─┤
//!             │  └── every few seconds of it ──▶ dip to 0.7 L ─────┘
//!             │  └── several apps share it, no more to be had ─────┐
//!             ▼                                                    ▼
//!   a step down that shortened nothing:             reserve: kept below the limit,
//!   back, and B is what answers take now,           so that a place is free, with a
//!   until a dip says otherwise                      look at the limit now and then
//! ```
//!
//! `B` is the hard part: work changes, so the fastest answers ever are no
//! measure of what an undisturbed one takes. What tells is a step down. If
//! requests wait inside, fewer of them are answered sooner, in proportion; if not,
//! the step was for nothing, is taken back, and `B` was wrong. Steps down come by
//! themselves when answers take longer, and else as a short dip now and then
//! (after *BBR*'s probe of the round trip, Cardwell et al., 2016), at moments
//! that all routers share, so that those who share a backend see it together
//! with less to do. A dip delays some requests by a few milliseconds. It refuses
//! none: [`super::admission`] takes no notice of a wait that short.
//!
//! Why this way and not another: `cargo bench --bench concurrency` compares it with
//! those of Netflix and Envoy (`load-tests/results/concurrency.md`).
//!
//! **Invariant**: the limit is at least 1 and at most what the app allows, and a
//! backend at which nobody is turned away is never given less than four times
//! what it has at once.
//!
//! Times are microseconds.

mod dip;
mod reserve;
mod window;

use self::dip::{Now, Step, helped};
use self::reserve::Reserve;
use self::window::{Mean, Spread};
pub use self::window::{Next, Window};

/// What a backend may have before anything is known of it, and what it is never
/// cut below while nobody is turned away.
pub const FIRST: u32 = 16;

/// Requests that may wait inside a backend, so that it never waits for one.
const QUEUED: f64 = 0.75;
/// The same as a share of the limit, where that is more: of a hundred requests
/// one more or less cannot be told from noise.
const QUEUED_SHARE: f64 = 0.075;
/// And so many times what cannot be told from noise in a window.
const QUEUED_BY_ERROR: f64 = 1.25;

/// A dip's share of the limit.
const DIP: f64 = 0.7;
/// A step down tells something from this share of the limit before it.
const TELLING: f64 = 0.85;
/// A step down helped if answers became shorter by this share of what they would
/// have if all of it had been waiting.
const HELPED: f64 = 0.4;
/// After a step down that shortened nothing, at most so many times what was before
/// it until a dip has told more.
const IN_DOUBT: f64 = 1.25;
/// And that only where the error of a window's mean is below this: of answers that
/// differ, a step down tells too little.
const PLAIN: f64 = 0.02;
/// At most this much is cut in one step: it may be for nothing.
const CUT: f64 = 0.5;

/// From one dip to the next, at least, and as a multiple of what an answer takes.
const DIP_EVERY_US: u64 = 2_000_000;
const DIP_EVERY_TIMES: u64 = 30;
/// So many times as long where a backend may have all that the app allows: that may
/// be what it can have, and then there is nothing to find out. And where places are
/// kept free, so that nobody waits anyway.
const RARELY: u64 = 4;

/// A window lasts so long, and as a multiple of what an answer takes.
const WINDOW_US: u64 = 50_000;
const WINDOW_TIMES: u64 = 2;
const PLAIN_ENOUGH: u32 = 12;
const LONGEST_WINDOWS: u64 = 6;

/// No wait inside a backend matters that keeps its answers below this: of one
/// that answers at once, what is longer is the network's, the scheduler's and the
/// router's own.
const NO_MATTER_US: f64 = 5_000.0;

/// A window that is looked at so much later than it was to end, or twice what an
/// answer takes if that is longer, though answers came thick and fast in it, says
/// nothing: the router stood still.
const STALL_US: u64 = 100_000;

/// One answer counts for at most so many times what an undisturbed one takes.
const MOST_TIMES: f64 = 16.0;

#[derive(Clone, Copy, Debug)]
enum Phase {
    /// At the limit.
    Cruise,
    /// Below it: places are kept free.
    Reserve,
    /// Lowered for one window, from this.
    Dip(Step),
}

/// One backend's limit.
#[derive(Clone, Debug)]
pub struct Limiter {
    /// What it is between dips.
    limit: f64,
    /// What it is now, whole.
    applied: u32,
    /// What an undisturbed answer takes; 0: unknown.
    base_us: f64,
    /// Whether that was ever measured with nobody waiting, as far as is known.
    is_base_known: bool,
    phase: Phase,
    /// Where the limit has been sinking from.
    sinking: Option<Step>,
    /// The next rise, if nothing speaks against it.
    rise: f64,
    /// How far it may rise while it is not known what an undisturbed answer takes.
    ceiling: f64,
    /// No queue was ever met: it rises by doubling.
    is_new: bool,
    next_dip_us: u64,
    /// Several apps have requests for the backend.
    is_shared: bool,
    /// As many requests as may wait inside did so at last.
    is_balanced: bool,
    /// More than that did.
    is_queued: bool,
    reserve: Reserve,
    /// Windows closed: fractions of a limit are spread over them.
    windows: u32,
    /// The window before this one was full.
    was_full: bool,
    spread: Spread,
    /// The mean of the last window that was full, dips left out.
    cruise_us: Option<f64>,
}

impl Default for Limiter {
    fn default() -> Self {
        Limiter {
            limit: f64::from(FIRST),
            applied: FIRST,
            base_us: 0.0,
            is_base_known: false,
            phase: Phase::Cruise,
            sinking: None,
            rise: 1.0,
            ceiling: 0.0,
            is_new: true,
            next_dip_us: 0,
            is_shared: false,
            is_balanced: false,
            is_queued: false,
            reserve: Reserve::default(),
            windows: 0,
            was_full: false,
            spread: Spread::default(),
            cruise_us: None,
        }
    }
}

impl Limiter {
    /// Requests that the backend may have at once.
    pub fn limit(&self) -> u32 {
        self.applied
    }

    /// What an undisturbed answer takes, microseconds; 0: unknown.
    pub fn base_us(&self) -> u64 {
        self.base_us as u64
    }

    /// Goes on from what is known with a backend that several apps share. How much
    /// it can do is looked at a share of the time, from 0 to 1, later than of the
    /// first of all of them.
    #[must_use]
    pub fn shared(self, apart: f64) -> Limiter {
        Limiter {
            phase: Phase::Cruise,
            reserve: Reserve::apart(apart),
            windows: 0,
            was_full: false,
            ..self
        }
    }

    /// Nobody has been answered yet: it is slow, and may have more.
    pub fn raise(&mut self, most: u32) {
        self.limit = (2.0 * self.limit).clamp(1.0, f64::from(most));
        self.applied = self.limit as u32;
        // What was lowered for a look is not any more.
        (self.phase, self.sinking) = (Phase::Cruise, None);
    }

    /// Looks at what was seen since the last step. `now_us` is by a clock that
    /// only rises, `wall_us` by one that routers share, if only about; `most` is
    /// what the app allows, above 0.
    pub fn step(&mut self, window: &Window, now_us: u64, wall_us: u64, most: u32) -> Next {
        let mean_us = window.mean_us();
        self.is_shared = window.apps > 1;
        if window.is_late_by(STALL_US.max(2 * self.base_us as u64)) {
            // What comes with it says nothing either.
            self.spread.forget();
            let after_us = self.undisturbed_us() as u64;
            return match self.begin(mean_us, now_us, most) {
                Next::Begin {
                    limit,
                    served,
                    for_us,
                    most_us,
                    ..
                } => Next::Begin {
                    limit,
                    served,
                    after_us,
                    for_us,
                    most_us,
                },
                extend @ Next::Extend { .. } => extend,
            };
        }
        let now = Now { now_us, wall_us };
        if matches!(self.phase, Phase::Reserve)
            && window.was_full
            && self.reserve.is_look_due(now_us)
        {
            // On time, as for a dip: the others look now.
            self.phase = Phase::Cruise;
            return self.begin(mean_us, now_us, most);
        }
        if let Some(for_us) = self.extension(window, mean_us) {
            if let Some(mean_us) = self.cruise_us.filter(|_| self.is_dip_due(window, now_us)) {
                // On time: the others dip now.
                self.dip(mean_us);
                return self.begin(mean_us, now_us, most);
            }
            let for_us = for_us.min(self.until_shared_us(now_us));
            return Next::Extend { for_us };
        }
        // The first tells how it began, not how it is.
        if window.answers > 0 && self.windows > 0 {
            let is_usual = !matches!(self.phase, Phase::Dip(_));
            let mean = self.spread.read(window, is_usual);
            match self.phase {
                Phase::Dip(step) => {
                    let is_told = step.limit >= f64::from(most);
                    let is_kept = step.from < step.limit;
                    let every = if is_told || is_kept { RARELY } else { 1 };
                    let every_us = every * DIP_EVERY_US.max(DIP_EVERY_TIMES * mean.us as u64);
                    self.next_dip_us = now.shared_moment_us(every_us);
                    self.climb_out(step, &mean, &now);
                }
                Phase::Cruise | Phase::Reserve if window.was_full => self.cruise(&mean, &now),
                Phase::Cruise | Phase::Reserve => self.idle(window, mean_us, &now),
            }
        }
        self.was_full = window.was_full;
        self.limit = self.limit.clamp(1.0, f64::from(most));
        self.begin(mean_us, now_us, most)
    }

    /// How much longer the window should last to say something; `None`: it does.
    fn extension(&self, window: &Window, mean_us: f64) -> Option<u64> {
        let usual_us = window_us(self.base_us.max(mean_us));
        let error = self.spread.error(window.answers);
        let is_plain = window.was_full
            && window.answers >= PLAIN_ENOUGH
            && self.base_us > 0.0
            && mean_us > self.undisturbed_us() * (1.3 + 3.0 * error);
        let is_over = window.answers >= self.spread.enough()
            || is_plain
            || window.length_us >= LONGEST_WINDOWS * usual_us;
        (!is_over).then_some(usual_us / 4)
    }

    /// Nobody was turned away: what answers take is what they take.
    fn idle(&mut self, window: &Window, mean_us: f64, now: &Now) {
        let weight = if self.base_us == 0.0 {
            1.0
        } else if mean_us < self.base_us {
            0.25
        } else {
            // It may be a queue that grows below the limit: slowly.
            0.05
        };
        self.base_us += (mean_us - self.base_us) * weight;
        self.is_base_known = true;
        self.sinking = None;
        self.rise = 1.0;
        // A limit far above what was ever needed bounds nothing.
        let mut needed = (4.0 * window.load()).max(f64::from(FIRST));
        self.phase = Phase::Cruise;
        if self.is_shared {
            // One that comes with more is met with less, for the sake of the others.
            needed = (2.0 * window.usual_load()).max(f64::from(FIRST / 2));
            self.phase = Phase::Reserve;
            self.reserve.put_off(mean_us, now);
        }
        if self.limit > needed {
            self.limit = (self.limit * 0.9).max(needed);
        }
    }

    /// It had all that it may have.
    fn cruise(&mut self, mean: &Mean, now: &Now) {
        let used = f64::from(self.applied);
        self.cruise_us = Some(mean.us);
        if self.base_us == 0.0 {
            self.base_us = mean.us;
        } else if self.has_sunk_for_nothing(used, mean) {
            self.phase = Phase::Cruise;
            return;
        }
        self.weigh(used, mean);
        if self.wants_dip(now.now_us) {
            self.dip(mean.us);
        } else {
            self.phase = self.next_phase(used, mean, now);
        }
    }

    /// More, less, or as it is.
    fn weigh(&mut self, used: f64, mean: &Mean) {
        if mean.us < self.base_us * (0.85 - 2.0 * mean.error) {
            self.base_us += (mean.us - self.base_us) / 2.0;
        }
        let may_wait = may_wait(used, mean);
        self.is_balanced = false;
        let longer = mean.us / self.undisturbed_us() - 1.0;
        let longer = longer.max(0.0);
        let waiting = used * longer / (1.0 + longer);
        let is_queued = waiting > 1.4 * may_wait && longer > 2.0 * mean.error;
        let was_queued = std::mem::replace(&mut self.is_queued, is_queued);
        if matches!(self.phase, Phase::Reserve) {
            self.is_balanced = true;
            if !is_queued {
                self.sinking = None;
                self.base_us += (mean.us - self.base_us) * reserve::BASE_WEIGHT;
            } else if was_queued {
                // Once may be chance, and nothing here takes it back soon.
                self.sink(used, mean, may_wait);
            }
        } else if is_queued {
            self.sink(used, mean, may_wait);
        } else if !self.was_full {
            // It became full in this window: those who came before waited for nobody.
            self.rise = 1.0;
        } else if self.may_rise(mean) && (waiting < 0.7 * may_wait || longer < mean.error) {
            self.sinking = None;
            let doubles = self.is_new && !self.is_shared;
            self.limit += if doubles { self.limit } else { self.rise };
            if !self.is_base_known {
                self.limit = self.limit.min(self.ceiling);
            }
            self.rise = (2.0 * self.rise).min((self.limit / 4.0).max(1.0));
        } else {
            self.is_balanced = true;
            self.sinking = None;
            self.rise = 1.0;
        }
    }

    /// Multiples of the golden ratio, from 0 to 1: fractions come out right on
    /// average, soon.
    fn dither(&self) -> f64 {
        (f64::from(self.windows) * 0.618_033_988).fract()
    }

    /// What answers may take without anybody's waiting inside being a matter.
    fn undisturbed_us(&self) -> f64 {
        self.base_us.max(NO_MATTER_US)
    }

    fn sink(&mut self, used: f64, mean: &Mean, may_wait: f64) {
        self.is_new = false;
        self.rise = 1.0;
        self.sinking.get_or_insert(Step {
            from: used,
            limit: self.limit,
            mean_us: mean.us,
        });
        let wanted = used * self.undisturbed_us() / mean.us + may_wait;
        let wanted = wanted.max(CUT * used);
        if wanted < self.limit {
            // The more of the difference may be noise, the less of it is believed.
            let trust = 1.0 / (1.0 + 4.0 * mean.error);
            self.limit += (wanted - self.limit) * trust;
        }
        // There is nothing below one to look at: no dip would tell what is in doubt.
        self.is_base_known |= self.limit < 2.0;
    }

    /// Whether the limit has sunk far enough to tell, and answers take what they
    /// took: then nobody waits inside, and it is back where it was.
    fn has_sunk_for_nothing(&mut self, used: f64, mean: &Mean) -> bool {
        let Some(step) = self.sinking else {
            return false;
        };
        if used > TELLING * step.from {
            return false;
        }
        if helped(&step, used, mean) {
            self.sinking = Some(Step {
                from: used,
                limit: self.limit,
                mean_us: mean.us,
            });
            return false;
        }
        self.sinking = None;
        self.limit = step.limit;
        self.base_us = mean.us;
        // Others who share it were where they were all the while: what answers take
        // when they step down too is for a dip to show.
        self.is_base_known = step.limit < 2.0;
        self.ceiling = step.limit * IN_DOUBT;
        true
    }

    /// Whether it is plain enough what an undisturbed answer takes.
    fn may_rise(&self, mean: &Mean) -> bool {
        self.is_base_known || (self.limit < self.ceiling && mean.error < PLAIN)
    }

    fn begin(&mut self, mean_us: f64, now_us: u64, most: u32) -> Next {
        let before = f64::from(self.applied);
        self.windows = self.windows.wrapping_add(1);
        let limit = match self.phase {
            Phase::Dip(step) => (step.from * DIP).round(),
            Phase::Reserve => reserve::whole(self.reserve.level(self.limit), self.dither()),
            Phase::Cruise => (self.limit + self.dither()).floor(),
        };
        self.applied = (limit as u32).clamp(1, most);
        let is_changed = (f64::from(self.applied) / before - 1.0).abs() > 0.12;
        let after_us = if is_changed { mean_us as u64 } else { 0 };
        let until_dip_us = match self.phase {
            Phase::Dip(_) => u64::MAX,
            Phase::Cruise | Phase::Reserve => self.until_shared_us(now_us).saturating_sub(after_us),
        };
        if is_changed {
            self.spread.forget();
        }
        Next::Begin {
            limit: self.applied,
            served: self.served(),
            after_us,
            for_us: window_us(self.base_us).min(until_dip_us),
            most_us: match self.base_us {
                0.0 => u64::MAX,
                base_us => (MOST_TIMES * base_us) as u64,
            },
        }
    }
}

/// Requests that may wait inside a backend that has so many: more where answers
/// differ, since there the next one may come sooner or later.
fn may_wait(used: f64, mean: &Mean) -> f64 {
    QUEUED.max(QUEUED_SHARE * used) + used * mean.error * QUEUED_BY_ERROR
}

fn window_us(mean_us: f64) -> u64 {
    WINDOW_US.max(WINDOW_TIMES * mean_us as u64)
}

#[cfg(test)]
mod tests;
