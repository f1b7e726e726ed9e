//! The choice among the backends of one class.
//!
//! Owns the draw and the comparison. Which class it is, and what comes after
//! it, is [`super::choose`]'s.

use super::{Candidates, Class, Look, View};

/// Latencies below this are not told apart: of an app that answers in less, the
/// differences are the network's and the scheduler's, and going by them would
/// have one hiccup turn all requests away from a backend for seconds.
const NOISE_US: u64 = 5_000;

/// The backends of one class that were not tried.
pub(super) struct Among<'v, P> {
    view: &'v View<'v, P>,
    class: Class,
}

impl<'v, P: Candidates> Among<'v, P> {
    pub(super) fn new(view: &'v View<'v, P>, class: Class) -> Self {
        Among { view, class }
    }

    /// Its share in this class; 0 if it is not of it.
    #[inline]
    fn share(&self, index: usize) -> u64 {
        match self.view.look(index) {
            Look::In(class, share)
                if class == self.class && !self.view.ask.tried.contains(index) =>
            {
                share
            }
            _ => 0,
        }
    }

    /// The cheaper of two drawn by share, or whoever has room; `None`: nobody.
    /// `total` is the sum of shares as of a moment ago, above 0.
    pub(super) fn draw_two(&self, total: u64, random: u64) -> Option<usize> {
        let (first, share) = self.draw(total, random >> 32, None)?;
        let load = self.view.pool.in_flight(first);
        if load == 0 && self.view.has_room(first) && !self.is_slow(first) {
            // Idle: taking it keeps to the weights exactly.
            return Some(first);
        }
        let rest = total.saturating_sub(share);
        let second = match rest {
            0 => None,
            _ => self.draw(rest, random & 0xffff_ffff, Some(first)),
        };
        let chosen = match second {
            Some(second) => self.cheaper((first, share), second).0,
            None => first,
        };
        if self.view.has_room(chosen) {
            return Some(chosen);
        }
        self.cheapest()
    }

    /// The backend at a random point of the sum of shares, `skipped` left out,
    /// and its share; `None` if none is left, since states changed meanwhile.
    /// `random` is uniform over 32 bits.
    fn draw(&self, total: u64, random: u64, skipped: Option<usize>) -> Option<(usize, u64)> {
        let mut point = ((u128::from(random) * u128::from(total)) >> 32) as u64;
        let mut last = None;
        for index in (0..self.view.pool.len()).filter(|&index| Some(index) != skipped) {
            let share = self.share(index);
            if share == 0 {
                continue;
            }
            last = Some((index, share));
            if point < share {
                break;
            }
            point -= share;
        }
        last
    }

    /// Twice the app's median, but no less than what tells nothing; a latency
    /// takes no part below. 0 if unknown.
    fn usual_us(&self) -> u64 {
        match self.view.rules.median_us {
            0 => 0,
            median_us => (2 * median_us).max(NOISE_US),
        }
    }

    fn is_slow(&self, index: usize) -> bool {
        let usual_us = self.usual_us();
        usual_us > 0 && self.latency_us(index) > usual_us
    }

    fn latency_us(&self, index: usize) -> u64 {
        let view = self.view;
        view.pool.latency_us(index, view.ask.now_us)
    }

    /// Whichever would cost less with one request more, of two with their
    /// shares.
    fn cheaper(&self, a: (usize, u64), b: (usize, u64)) -> (usize, u64) {
        let usual_us = self.usual_us();
        // In units of the app's usual time, without dividing by it.
        let cost = |index: usize| {
            let slowdown = match usual_us {
                0 => 1,
                _ => self.latency_us(index).max(usual_us),
            };
            let requests = u64::from(self.view.pool.in_flight(index)) + 1;
            u128::from(requests) * u128::from(slowdown)
        };
        let cost_a = cost(a.0) * u128::from(b.1);
        let cost_b = cost(b.0) * u128::from(a.1);
        if cost_b < cost_a { b } else { a }
    }

    /// Both drawn are full: whoever has room and costs least.
    fn cheapest(&self) -> Option<usize> {
        let with_room = (0..self.view.pool.len())
            .map(|index| (index, self.share(index)))
            .filter(|&(index, share)| share > 0 && self.view.has_room(index));
        with_room
            .reduce(|best, next| self.cheaper(best, next))
            .map(|(index, _)| index)
    }

    /// For a retry: of those with room, whoever answered last; the cheapest if
    /// none ever did.
    pub(super) fn latest(&self) -> Option<usize> {
        let pool = self.view.pool;
        let latest = (0..pool.len())
            .filter(|&index| self.share(index) > 0 && self.view.has_room(index))
            .max_by_key(|&index| pool.answered_us(index))?;
        if pool.answered_us(latest) == 0 {
            return self.cheapest();
        }
        Some(latest)
    }
}
