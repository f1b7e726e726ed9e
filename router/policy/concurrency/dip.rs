//! Dips: steps down for one window, to find out what an undisturbed answer takes.
//!
//! Owns when there is one, what is learned from it, and the moments that routers
//! share.
//!
//! Times are microseconds.

use super::window::{Mean, Window};
use super::{HELPED, Limiter, Phase, may_wait};

/// A step down whose effect is awaited.
#[derive(Clone, Copy, Debug)]
pub(super) struct Step {
    /// What the backend could have before it.
    pub from: f64,
    /// The limit before it.
    pub limit: f64,
    /// What answers took then.
    pub mean_us: f64,
}

/// A moment, by a clock that only rises and by one that routers share, if only
/// about.
pub(super) struct Now {
    pub now_us: u64,
    pub wall_us: u64,
}

impl Limiter {
    pub(super) fn dip(&mut self, mean_us: f64) {
        self.sinking = None;
        let limit = self.limit;
        let from = match self.phase {
            Phase::Reserve => self.reserve.level(limit),
            Phase::Cruise | Phase::Dip(_) => limit,
        };
        self.phase = Phase::Dip(Step {
            from,
            limit,
            mean_us,
        });
    }

    /// One is due in the middle of a window.
    pub(super) fn is_dip_due(&self, window: &Window, now_us: u64) -> bool {
        !matches!(self.phase, Phase::Dip(_)) && window.was_full && self.wants_dip(now_us)
    }

    /// Until the next moment that is shared; for ever, if it is over.
    pub(super) fn until_shared_us(&self, now_us: u64) -> u64 {
        let until = |at_us: u64| match at_us.saturating_sub(now_us) {
            0 => u64::MAX,
            us => us,
        };
        let until_dip_us = until(self.next_dip_us);
        match self.phase {
            Phase::Reserve => until_dip_us.min(until(self.reserve.next_look_us())),
            Phase::Cruise | Phase::Dip(_) => until_dip_us,
        }
    }

    /// Due, and deep enough to tell something. A new limit is not dipped: it
    /// rises until it meets a queue.
    pub(super) fn wants_dip(&self, now_us: u64) -> bool {
        let is_wanted = !self.is_new || !self.is_base_known;
        let is_wanted = is_wanted && (self.sinking.is_none() || !self.is_base_known);
        is_wanted && now_us >= self.next_dip_us && self.limit >= 2.0
    }

    /// A dip's window is over.
    pub(super) fn climb_out(&mut self, step: Step, mean: &Mean, now: &Now) {
        self.phase = Phase::Cruise;
        self.limit = step.limit;
        self.ceiling = 0.0;
        if helped(&step, f64::from(self.applied), mean) {
            self.is_base_known = mean.us >= self.base_us * (0.95 - mean.error);
            if !self.is_base_known {
                // They waited until now, and may do even so: another look.
                self.base_us = mean.us;
                let soon_us = 2 * mean.us as u64;
                self.next_dip_us = now.shared_moment_us(soon_us);
            }
            let wanted =
                step.from * self.undisturbed_us() / step.mean_us + may_wait(step.from, mean);
            self.limit = wanted.clamp(f64::from(self.applied), step.limit);
            // There is nothing below one to look at.
            self.is_base_known |= self.limit < 2.0;
            return;
        }
        if self.is_shared && step.from < step.limit {
            self.phase = Phase::Reserve;
        }
        let apart = (mean.us / self.base_us - 1.0).abs();
        let is_new = !self.is_base_known || apart > 3.0 * mean.error;
        let weight = if is_new { 1.0 } else { 0.3 };
        self.base_us += (mean.us - self.base_us) * weight;
        self.is_base_known = true;
    }
}

impl Now {
    /// The next of the moments, about so far apart, that are the same for every
    /// router.
    pub(super) fn shared_moment_us(&self, every_us: u64) -> u64 {
        self.shared_moment_apart_us(every_us, 0.0)
    }

    /// The same for one of many things: a share of that time later.
    pub(super) fn shared_moment_apart_us(&self, every_us: u64, apart: f64) -> u64 {
        let every_us = every_us.max(1).next_power_of_two();
        let apart_us = (every_us as f64 * apart) as u64;
        let since_us = (self.wall_us + every_us - apart_us) % every_us;
        self.now_us + every_us - since_us
    }
}

/// Whether answers became shorter with the step down to `used`.
pub(super) fn helped(step: &Step, used: f64, mean: &Mean) -> bool {
    let shorter = 1.0 - mean.us / step.mean_us;
    let fewer = 1.0 - used / step.from;
    shorter > HELPED * fewer
}
