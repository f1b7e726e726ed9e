//! How far below its limit a backend is kept that several apps share.
//!
//! Owns the level, and when the limit is looked at anew. At its limit a backend
//! has somebody waiting inside, so that it never waits for anyone: right for one
//! app, whose requests are all alike, wrong where the one that waits is of an app
//! that asked for little. So a place is kept free ([`crate::policy::sharing`] says
//! for whom), and how many there are is looked at for a moment now and then, of
//! each backend at a time of its own: balancing sends those who ask for little
//! elsewhere meanwhile. All routers look at one at the same moment, as they dip
//! together, for who looks while others keep places free finds those.
//!
//! Times are microseconds.

use super::dip::Now;
use super::window::Mean;
use super::{DIP, Limiter, Phase};

/// Places kept free.
const KEPT: f64 = 1.0;
/// No more than this share of what a backend works on.
const KEPT_SHARE: f64 = 0.2;
/// What is missing from a whole place, at most, for it to be one: what is known of
/// them is not more exact.
const NEARLY: f64 = 0.3;

/// Before the first look, that many are worked on of those that it may have.
const GUESSED: f64 = 0.85;

/// Weight of a look in what is known of how many are worked on.
const WEIGHT: f64 = 0.3;
/// One that shows so many times as many, or more, is believed at once.
const FAR: f64 = 1.15;
/// One that shows less than this share of them is one at a limit that is low by
/// chance: another one follows at once, so often.
const SHORT: f64 = 0.85;
const SHORT_LOOKS: u32 = 8;

/// Weight of what answers take while places are kept free in what an undisturbed
/// one takes: nobody waits for another then.
pub(super) const BASE_WEIGHT: f64 = 0.05;

/// From one look to the next, and as a multiple of what an answer takes.
const LOOK_EVERY_US: u64 = 4_000_000;
const LOOK_EVERY_TIMES: u64 = 60;
/// The first ones come sooner: after a share of this that doubles with each.
const FIRST_LOOKS: u32 = 3;

/// What is known of the places.
#[derive(Clone, Debug, Default)]
pub(super) struct Reserve {
    /// Share of the time between two looks that this one's come later than the
    /// first's of all backends.
    apart: f64,
    /// Requests that are worked on at once at the limit; 0: unknown.
    served: f64,
    next_look_us: u64,
    /// Looks since what is known was found.
    looks: u32,
    /// Looks in a row that showed too little.
    short: u32,
}

impl Reserve {
    /// Nothing is known.
    pub(super) fn apart(apart: f64) -> Reserve {
        Reserve {
            apart,
            ..Reserve::default()
        }
    }

    /// At the limit as many wait as may, and so many are worked on: whether places
    /// are kept free from here on.
    pub(super) fn look(&mut self, served: f64, mean_us: f64, now: &Now) -> bool {
        let is_short = served < SHORT * self.served;
        if is_short && self.short < SHORT_LOOKS {
            self.short += 1;
            return false;
        }
        if is_short || served > FAR * self.served {
            (self.served, self.looks) = (served, 0);
        } else {
            self.served += (served - self.served) * WEIGHT;
            self.looks += 1;
        }
        self.short = 0;
        self.next_look_us = self.moment_us(mean_us, now);
        true
    }

    /// Nobody asks for more than there is: the limit is looked at after somebody
    /// does, not at once.
    pub(super) fn put_off(&mut self, mean_us: f64, now: &Now) {
        if self.is_look_due(now.now_us) {
            self.looks = 0;
            self.next_look_us = self.moment_us(mean_us, now);
        }
    }

    fn moment_us(&self, mean_us: f64, now: &Now) -> u64 {
        let every_us = LOOK_EVERY_US.max(LOOK_EVERY_TIMES * mean_us as u64);
        let every_us = every_us >> FIRST_LOOKS.saturating_sub(self.looks);
        now.shared_moment_apart_us(every_us, self.apart)
    }

    /// When the limit is to be looked at.
    pub(super) fn next_look_us(&self) -> u64 {
        self.next_look_us
    }

    /// Whether it is now.
    pub(super) fn is_look_due(&self, now_us: u64) -> bool {
        now_us >= self.next_look_us
    }

    /// Requests that the backend works on at once.
    pub(super) fn served(&self, limit: f64) -> f64 {
        match self.served {
            0.0 => limit,
            served => served.min(limit),
        }
    }

    /// Requests that it may have with places kept free.
    pub(super) fn level(&self, limit: f64) -> f64 {
        let served = match self.served {
            0.0 => GUESSED * limit,
            served => served,
        };
        let kept = KEPT.min(KEPT_SHARE * served);
        (served - kept).min(limit).max(1.0)
    }
}

impl Limiter {
    /// Where several apps share the backend: below the limit, once that is found,
    /// and at it for a look now and then.
    pub(super) fn next_phase(&mut self, used: f64, mean: &Mean, now: &Now) -> Phase {
        if !self.is_shared || !self.is_balanced || !self.is_base_known {
            return Phase::Cruise;
        }
        let served = used * (self.undisturbed_us() / mean.us).min(1.0);
        if matches!(self.phase, Phase::Reserve) || self.reserve.look(served, mean.us, now) {
            return Phase::Reserve;
        }
        Phase::Cruise
    }

    /// What the apps that share the backend have fair shares of.
    pub(super) fn served(&self) -> u32 {
        let served = match self.phase {
            _ if !self.is_shared => return self.applied,
            // Or where each asks for its share, nothing would be lowered.
            Phase::Dip(_) => DIP * self.reserve.served(self.limit),
            Phase::Cruise | Phase::Reserve => self.reserve.served(self.limit),
        };
        (served as u32).max(1)
    }
}

/// A level as a whole number. Of few places a fraction counts, by `dither`, from 0
/// to 1; of more it would only be a place that is free at times and at times is
/// not.
pub(super) fn whole(level: f64, dither: f64) -> f64 {
    let few = KEPT / KEPT_SHARE;
    (level + if level < few { dither } else { NEARLY }).floor()
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: Now = Now {
        now_us: 0,
        wall_us: 0,
    };

    fn known(served: f64) -> Reserve {
        let mut reserve = Reserve::default();
        assert!(reserve.look(served, 20_000.0, &AT));
        reserve
    }

    #[test]
    fn one_place_is_kept_free_of_many_and_a_part_of_one_of_few() {
        let level = |workers: f64| known(workers).level(workers + 0.75);
        assert!((level(100.0) - 99.0).abs() < 1e-9);
        assert!((level(10.0) - 9.0).abs() < 1e-9);
        assert!((level(2.0) - 1.6).abs() < 1e-9);
        assert!((level(1.0) - 1.0).abs() < 1e-9);
    }

    #[test]
    fn a_fraction_counts_where_there_are_few() {
        let mean = |level: f64| {
            (0..100)
                .map(|n| whole(level, f64::from(n) / 100.0))
                .sum::<f64>()
        };
        assert!((mean(1.6) - 160.0).abs() < 1.5);
        assert!((mean(8.8) - 900.0).abs() < 1e-9);
        assert!((mean(9.6) - 900.0).abs() < 1e-9);
    }

    #[test]
    fn what_looks_too_little_is_believed_when_it_stays() {
        let mut reserve = known(10.0);
        for _ in 0..SHORT_LOOKS {
            assert!(!reserve.look(5.0, 20_000.0, &AT));
        }
        assert!(reserve.look(5.0, 20_000.0, &AT));
        assert!((reserve.served(6.0) - 5.0).abs() < 1e-9);
        assert!(!reserve.is_look_due(500_000) && reserve.is_look_due(525_000));
    }
}
