//! Health of backends: who is out of rotation, why, and how it comes back.
//!
//! Owns every judgement about a backend, from what tries and probes tell of
//! it. Never chooses one ([`super::balance`] does, from [`State`]), never reads
//! a clock: time, randomness and the peers come in as arguments, a [`Verdict`]
//! with reason and numbers goes out.
//!
//! ```text
//!             hard: connect failed (at once, no cap)
//!             soft: streak, silence, rate, slowness, probes (caps count hosts)
//!   ┌─────────┐ ─────────────────────────────────────────▶ ┌──────┐
//!   │ Settled │                                            │ Out  │◀─┐ fails:
//!   └─────────┘ ◀─┐ slow start over   ┌─────────┐          └──────┘  │ the next
//!     ▲    │      └───────────────────│ Ramping │ ◀─┐ a probe  │     │ is later
//!     │    │ 503s with Retry-After    └─────────┘   │ passes   │ due │
//!     │    ▼                                 ▲      └──────────┤     │
//!   ┌─────────┐                              │ passes     ┌────▼──┐  │
//!   │ Resting │                              └────────────│ Trial │──┘
//!   └─────────┘                                           └───────┘
//! ```
//!
//! A *hard* failure (nobody listens there) takes a backend out at once, even
//! the last one, and a connection brings it back, so no request pays for
//! finding out. A *soft* one needs evidence, is held against the app's other
//! backends, and is forgiven by one request that goes well.
//!
//! Made for apps of one to nine backends as much as for those of a hundred:
//! caps count hosts, not percentages of them, and the last routable backend
//! stays in whatever it answers. What all do alike is the app's fault.

mod backoff;
mod rate;
mod record;
mod state;
mod streak;
#[cfg(test)]
mod tests;
mod verdict;
mod ward;

pub use record::Health;
pub use state::{FULL_PERMILLE, State};
pub use verdict::{Return, Spare, Verdict};
pub use ward::{Host, Pool, SLOW_FLOOR_US, SLOW_TIMES, Ward};

/// What an app asks of the judgement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// Whether what tries tell takes a backend out. Active probes do either
    /// way: who configures one means it.
    pub ejection: bool,
    /// From readmission to the full share; 0: at once.
    pub slow_start_us: u64,
    /// The app's active probe, if it has one.
    pub probe: Option<ProbeRules>,
}

/// What an app's active probe asks of the judgement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProbeRules {
    /// Passed probes in a row that bring a backend back, at least 1.
    pub rise: u32,
    /// Failed probes in a row that take it out, at least 1.
    pub fall: u32,
    /// Between two probes of one backend.
    pub interval_us: u64,
}

/// A try and what it told.
#[derive(Clone, Copy, Debug)]
pub struct Try {
    /// Now.
    pub now_us: u64,
    /// When it began; not before the choice it came from.
    pub sent_us: u64,
    /// What came of it.
    pub outcome: Outcome,
    /// Uniform over all of `u64`.
    pub random: u64,
}

/// What one try on a backend told. A reused connection found dead and a client
/// that left tell nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// An answer's head came, in time or late.
    Answered {
        /// Its status, 100 to 599.
        status: u16,
        /// From the request's end to the answer's first byte.
        first_byte_us: u64,
    },
    /// A 503 with `Retry-After`: it asks for rest and is not to blame. A lone
    /// one may be about what was asked for: it rests after the second in a row.
    AskedForRest {
        /// For this long; more than 30 s is taken as 30 s.
        rest_us: u64,
        /// From the request's end to the answer's first byte.
        first_byte_us: u64,
    },
    /// No connection.
    ConnectFailed(ConnectFailure),
    /// A new connection closed or reset before a byte of the answer.
    Reset,
    /// No first byte in all the time a try may take.
    TimedOut,
    /// Not HTTP, over a limit, broke off or went idle mid-answer.
    BadAnswer,
    /// No first byte within the app's usual time; it may still come, and is
    /// then told too.
    Overdue,
}

/// Why there is no connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectFailure {
    /// Refused, unreachable, or failed otherwise before its time was up.
    Refused,
    /// Not opened in time.
    TimedOut,
}

/// Why a backend is out of rotation, or would be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// It refuses connections.
    ConnectRefused,
    /// Connections to it are not opened in time.
    ConnectTimedOut,
    /// Connections closed without an answer, in a row.
    Reset,
    /// No answer in a try's whole time, in a row.
    TimedOut,
    /// What it answers is not to be passed on, in a row.
    BadAnswer,
    /// 502, 503 or 504, in a row; the last of them.
    Status(u16),
    /// Requests overdue, and no answer since.
    Silent,
    /// Half of its recent tries fail, its peers' do not.
    Rate,
    /// Each answer takes ten times what its peers take.
    Slow,
    /// The app's own probe fails.
    Probe,
}

impl Reason {
    /// The reason as a word of an event or report, snake case.
    pub fn word(self) -> &'static str {
        match self {
            Reason::ConnectRefused => "connect_refused",
            Reason::ConnectTimedOut => "connect_timed_out",
            Reason::Reset => "reset",
            Reason::TimedOut => "timed_out",
            Reason::BadAnswer => "bad_answer",
            Reason::Status(502) => "status_502",
            Reason::Status(504) => "status_504",
            Reason::Status(_) => "status_503",
            Reason::Silent => "silent",
            Reason::Rate => "rate",
            Reason::Slow => "slow",
            Reason::Probe => "probe",
        }
    }

    /// Whether nobody is there: out at once, back by a connection.
    pub fn is_hard(self) -> bool {
        matches!(self, Reason::ConnectRefused | Reason::ConnectTimedOut)
    }
}

impl From<ConnectFailure> for Reason {
    fn from(failure: ConnectFailure) -> Reason {
        match failure {
            ConnectFailure::Refused => Reason::ConnectRefused,
            ConnectFailure::TimedOut => Reason::ConnectTimedOut,
        }
    }
}
