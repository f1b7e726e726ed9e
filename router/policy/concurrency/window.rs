//! What is seen of a backend from one step of its limit to the next.
//!
//! Owns the windows, and how far what they say can be trusted. Decides nothing.
//!
//! Times are microseconds.

/// Answers in a window, unless what they say is plain or it lasts too long.
const ENOUGH: f64 = 32.0;
/// More where answers differ: so many for each unit of their relative variance.
const ENOUGH_BY_SPREAD: f64 = 128.0;
const MOST_ENOUGH: f64 = 400.0;
/// Weight of a new window in what is known of how answers differ.
const SPREAD_WEIGHT: f64 = 0.1;

/// What was seen of a backend since its limit was set last.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    /// Answers that came in it. All of them: of those to requests sent in it,
    /// the long ones would be missing.
    pub answers: u32,
    /// The sum of the times to their first bytes, microseconds.
    pub sum_us: u64,
    /// How long it has lasted, microseconds.
    pub length_us: u64,
    /// Whether the backend had as many requests as it may at some moment.
    pub was_full: bool,
    /// Requests that wait for an answer now.
    pub awaiting: u32,
    /// How long ago it was to end, microseconds.
    pub late_us: u64,
    /// Apps that have requests for it.
    pub apps: u32,
}

impl Window {
    pub(super) fn mean_us(&self) -> f64 {
        self.sum_us as f64 / f64::from(self.answers.max(1))
    }

    /// Whether it is looked at so late, and ten times as late as answers were apart.
    pub(super) fn is_late_by(&self, late_us: u64) -> bool {
        let on_time_us = self.length_us.saturating_sub(self.late_us);
        let apart_us = on_time_us / u64::from(self.answers.max(1));
        self.late_us > late_us && self.late_us > 10 * apart_us
    }

    /// Requests it had at once, on average (Little), or has now: of those that
    /// take long most are not answered yet.
    pub(super) fn load(&self) -> f64 {
        self.on_average().max(f64::from(self.awaiting))
    }

    /// The same where a moment with more than that is to count for nothing.
    pub(super) fn usual_load(&self) -> f64 {
        if self.answers >= self.awaiting {
            self.on_average()
        } else {
            self.load()
        }
    }

    fn on_average(&self) -> f64 {
        self.sum_us as f64 / self.length_us.max(1) as f64
    }
}

/// What is to be done until a window is looked at again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// The window goes on for so long: it says too little yet.
    Extend {
        /// Microseconds.
        for_us: u64,
    },
    /// Another begins.
    Begin {
        /// Requests that the backend may have at once.
        limit: u32,
        /// What it can work on at once, of which each app that shares it has a fair
        /// share.
        served: u32,
        /// Until it begins, microseconds: answers that come before are of the
        /// limit before.
        after_us: u64,
        /// How long it lasts then, microseconds.
        for_us: u64,
        /// No answer counts for more, microseconds.
        most_us: u64,
    },
}

/// What answers took in a window.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mean {
    pub us: f64,
    /// The standard error, relative.
    pub error: f64,
}

/// How much single answers differ.
#[derive(Clone, Debug, Default)]
pub(super) struct Spread {
    /// The relative variance of what they take, from how much the means of windows
    /// differ.
    variance: f64,
    /// The mean of the window before, if its limit was about the same.
    before_us: Option<f64>,
}

impl Spread {
    /// Answers that a window should have.
    pub(super) fn enough(&self) -> u32 {
        (ENOUGH_BY_SPREAD * self.variance).clamp(ENOUGH, MOST_ENOUGH) as u32
    }

    /// The standard error of the mean of so many answers, relative.
    pub(super) fn error(&self, answers: u32) -> f64 {
        (self.variance / f64::from(answers.max(1))).sqrt()
    }

    /// A window's mean, and how far to trust it; `is_usual`: its limit was not
    /// lowered for it.
    pub(super) fn read(&mut self, window: &Window, is_usual: bool) -> Mean {
        let mean_us = window.mean_us();
        if let Some(before_us) = self.before_us.filter(|_| is_usual) {
            let apart = (mean_us - before_us) / before_us;
            let seen = apart * apart * f64::from(window.answers) / 2.0;
            // A change of what they take is no difference between answers.
            let seen = seen.min(4.0 * self.variance + 0.05);
            self.variance += (seen - self.variance) * SPREAD_WEIGHT;
        }
        self.before_us = is_usual.then_some(mean_us);
        Mean {
            us: mean_us,
            error: self.error(window.answers),
        }
    }

    /// What comes cannot be compared with what was.
    pub(super) fn forget(&mut self) {
        self.before_us = None;
    }
}
