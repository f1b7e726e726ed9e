//! Whether a try that has not answered is overtaken by another.
//!
//! Owns the rule. Never says when a try is overdue ([`super::latency`] learns
//! that), never whether a request may be sent twice.
//!
//! Unless the app says when, a slow request alone is no reason: its work would
//! be done twice, and where all are slow that makes them slower. A backend that
//! has gone *silent* is one: nothing came from it for as long as a try takes to
//! be overdue, nor for most of this one's wait, though others wait for it too,
//! or it was in doubt before, or the wait is out of all proportion. (What came
//! just after the request was sent says nothing of what came of it: a backend
//! freezes between two answers.)

/// What is known of an overdue try and its backend.
#[derive(Clone, Copy, Debug)]
pub struct Stall {
    /// Since the request was sent whole.
    pub waited_us: u64,
    /// When a try of this app is overdue.
    pub overdue_us: u64,
    /// Whether that was learned from enough answers.
    pub is_learned: bool,
    /// Since the backend answered anything.
    pub quiet_us: u64,
    /// Overdue tries on it, this one included, since it last answered.
    pub overdue: u32,
    /// The try overtakes another: two backends were too slow for this request.
    pub overtakes: bool,
    /// It is out of rotation, on trial, or back from there a moment ago.
    pub in_doubt: bool,
}

/// What to do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Patience {
    /// Begin another try beside it.
    Over,
    /// Look again after this long.
    Again {
        /// Microseconds.
        after_us: u64,
    },
}

/// A lone overdue try waits so many times longer: of few requests one may just
/// be long.
const LONE_TIMES: u64 = 2;
const LONE_FLOOR_US: u64 = 250_000;

/// Looks are a quarter of the wait apart, so that even a long poll costs only a
/// few.
const LOOK_FLOOR_US: u64 = 25_000;

impl Stall {
    /// Whether patience is over.
    pub fn patience(&self) -> Patience {
        let is_silent = self.quiet_us >= self.overdue_us && self.quiet_us >= self.waited_us / 2;
        let lone_us = (LONE_TIMES * self.overdue_us).max(LONE_FLOOR_US);
        let is_out_of_proportion = self.is_learned && !self.overtakes && self.waited_us >= lone_us;
        if is_silent && (self.overdue >= 2 || self.in_doubt || is_out_of_proportion) {
            return Patience::Over;
        }
        Patience::Again {
            after_us: (self.waited_us / 4).max(LOOK_FLOOR_US),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONE: Stall = Stall {
        waited_us: 120_000,
        overdue_us: 100_000,
        is_learned: true,
        quiet_us: u64::MAX,
        overdue: 1,
        overtakes: false,
        in_doubt: false,
    };

    #[test]
    fn a_backend_that_answers_others_is_not_overtaken() {
        let busy = Stall {
            quiet_us: 90_000,
            waited_us: 60_000_000,
            overdue: 9,
            in_doubt: true,
            ..LONE
        };
        assert!(matches!(busy.patience(), Patience::Again { .. }));
        let now_and_then = Stall {
            quiet_us: 20_000_000,
            ..busy
        };
        assert!(matches!(now_and_then.patience(), Patience::Again { .. }));
    }

    #[test]
    fn an_answer_just_after_the_request_was_sent_does_not_save_a_frozen_backend() {
        let frozen = Stall {
            quiet_us: 119_000,
            overdue: 2,
            ..LONE
        };
        assert_eq!(frozen.patience(), Patience::Over);
    }

    #[test]
    fn a_silent_backend_is_overtaken_once_two_wait_or_it_was_in_doubt() {
        assert_eq!(LONE.patience(), Patience::Again { after_us: 30_000 });
        let two = Stall { overdue: 2, ..LONE };
        assert_eq!(two.patience(), Patience::Over);
        let doubted = Stall {
            in_doubt: true,
            ..LONE
        };
        assert_eq!(doubted.patience(), Patience::Over);
    }

    #[test]
    fn a_lone_try_is_overtaken_when_it_is_out_of_proportion() {
        let long = Stall {
            waited_us: 250_000,
            ..LONE
        };
        assert_eq!(long.patience(), Patience::Over);
        let second = Stall {
            overtakes: true,
            ..long
        };
        assert!(matches!(second.patience(), Patience::Again { .. }));
        let unknown = Stall {
            is_learned: false,
            ..long
        };
        assert_eq!(unknown.patience(), Patience::Again { after_us: 62_500 });
        let slow_app = Stall {
            overdue_us: 300_000,
            ..long
        };
        assert!(matches!(slow_app.patience(), Patience::Again { .. }));
    }

    #[test]
    fn a_long_poll_is_looked_at_a_few_times_only() {
        let (mut waited_us, mut looks) = (100_000, 0);
        while waited_us < 60_000_000 {
            let poll = Stall {
                waited_us,
                quiet_us: 0,
                ..LONE
            };
            let Patience::Again { after_us } = poll.patience() else {
                panic!("its backend is not silent");
            };
            waited_us += after_us;
            looks += 1;
        }
        assert!(looks < 40, "{looks}");
    }
}
