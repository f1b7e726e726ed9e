//! Failures in a row, overdue tries in a row, slow answers in a row.
//!
//! Owns the counting and its thresholds. Never looks at the peers.

use super::Reason;

/// A streak of so many points is enough: five answers of 502, 503 or 504, or
/// three tries without a usable answer, or a mixture.
const ENOUGH_POINTS: u8 = 15;
const STATUS_POINTS: u8 = 3;
const BROKEN_POINTS: u8 = 5;

/// Overdue tries without an answer that make silence.
const ENOUGH_OVERDUE: u8 = 3;

/// Slow answers in a row that are not chance.
const ENOUGH_SLOW: u8 = 20;

/// Answers that ask for rest: a lone one may be about what was asked for.
const ENOUGH_RESTS: u8 = 2;

/// What counts as failing alike.
const ALIKE: u8 = 2;

/// Kinds of failure that are compared with the peers'.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// 502, 503, 504.
    Status,
    /// Closed, or not to be passed on.
    Broken,
    /// No first byte.
    Waiting,
    /// A failed active probe.
    Probe,
}

/// What has gone wrong in a row. Anything that goes well ends it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Streak {
    points: u8,
    statuses: u8,
    broken: u8,
    timed_out: u8,
    overdue: u8,
    slow: u8,
    rests: u8,
}

impl Streak {
    /// Counts a failure; whether there are enough of them.
    pub(super) fn fail(&mut self, reason: Reason) -> bool {
        let (count, points) = match reason {
            Reason::Status(_) => (&mut self.statuses, STATUS_POINTS),
            Reason::TimedOut => (&mut self.timed_out, BROKEN_POINTS),
            _ => (&mut self.broken, BROKEN_POINTS),
        };
        *count = count.saturating_add(1);
        self.points = self.points.saturating_add(points);
        self.points >= ENOUGH_POINTS
    }

    /// Counts an overdue try; whether it has fallen silent.
    pub(super) fn overdue(&mut self) -> bool {
        self.overdue = self.overdue.saturating_add(1);
        self.overdue >= ENOUGH_OVERDUE
    }

    /// Counts a slow answer, which says that it is neither silent nor failing;
    /// whether there are enough of them.
    pub(super) fn slow(&mut self) -> bool {
        *self = Streak {
            slow: self.slow.saturating_add(1),
            ..Streak::default()
        };
        self.slow >= ENOUGH_SLOW
    }

    /// Counts an answer that asks for rest; whether it means it.
    pub(super) fn rest(&mut self) -> bool {
        self.rests = self.rests.saturating_add(1);
        self.rests >= ENOUGH_RESTS
    }

    /// Whether an answer asked for rest.
    pub(super) fn has_asked_for_rest(&self) -> bool {
        self.rests > 0
    }

    /// An answer came, if not a good one.
    pub(super) fn heard(&mut self) {
        self.overdue = 0;
    }

    /// Failures and overdue tries in the streak.
    pub(super) fn len(&self) -> u32 {
        [self.statuses, self.broken, self.timed_out, self.overdue]
            .into_iter()
            .map(u32::from)
            .sum()
    }

    /// Overdue tries in the streak.
    pub(super) fn overdue_len(&self) -> u32 {
        u32::from(self.overdue)
    }

    /// Slow answers in the streak.
    pub(super) fn slow_len(&self) -> u32 {
        u32::from(self.slow)
    }

    /// Whether an answer that goes well would change anything.
    pub(super) fn is_empty(&self) -> bool {
        self.points == 0 && self.overdue == 0 && self.slow == 0 && self.rests == 0
    }

    /// Whether it fails in this way, more than by chance.
    pub(super) fn is_alike(&self, kind: Kind) -> bool {
        let count = match kind {
            Kind::Status => self.statuses,
            Kind::Broken => self.broken,
            Kind::Waiting => self.timed_out.saturating_add(self.overdue),
            Kind::Probe => 0,
        };
        count >= ALIKE
    }
}
