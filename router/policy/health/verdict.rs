//! What was decided about a backend, with reason and numbers.
//!
//! Owns the words an operator reads. Decides nothing.

use std::fmt;

use super::Reason;

/// A decision about a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Taken out of rotation; or, out already, found not to be there at all.
    Ejected {
        /// Why.
        reason: Reason,
        /// Failures that led to it.
        failed: u32,
        /// Among this many tries.
        tried: u32,
        /// Until its first trial or probe.
        hold_us: u64,
        /// Ejections shortly after readmissions before this one.
        repeats: u32,
        /// Other backends in rotation now.
        left: u32,
    },
    /// Back in rotation.
    Readmitted {
        /// Why it was out.
        reason: Reason,
        /// What brought it back.
        by: Return,
        /// For how long it was out.
        out_us: u64,
        /// Until it has its full share.
        ramp_us: u64,
    },
    /// Would have been taken out.
    Spared {
        /// For this.
        reason: Reason,
        /// Why it was not.
        why: Spare,
        /// Backends that count.
        hosts: u32,
        /// Of these, in rotation, itself included.
        routable: u32,
        /// Backends readmitted at once, since the fault is the app's.
        readmitted: u32,
    },
    /// Used last for a while, as it asked for.
    Resting {
        /// For this long.
        rest_us: u64,
    },
}

/// What brought a backend back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Return {
    /// A request that went well.
    Trial,
    /// A probe.
    Probe,
    /// An operator's order.
    Order,
}

/// Why a backend was not taken out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spare {
    /// No other is in rotation.
    Last,
    /// As many are out as may be.
    Cap,
    /// The others fail alike: the app's fault.
    PeersFailAlike,
}

impl Verdict {
    /// The kind of the event, snake case.
    pub fn event(&self) -> &'static str {
        match self {
            Verdict::Ejected { .. } => "backend_ejected",
            Verdict::Readmitted { .. } => "backend_readmitted",
            Verdict::Spared { .. } => "backend_spared",
            Verdict::Resting { .. } => "backend_resting",
        }
    }

    /// Whether the backend needs the prober now: only a connection brings it
    /// back.
    pub fn wants_probe(&self) -> bool {
        matches!(self, Verdict::Ejected { reason, .. } if reason.is_hard())
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::ConnectRefused => f.write_str("it refuses connections"),
            Reason::ConnectTimedOut => f.write_str("connections to it are not opened in time"),
            Reason::Reset => f.write_str("it closed connections without an answer"),
            Reason::TimedOut => f.write_str("it did not answer in time"),
            Reason::BadAnswer => f.write_str("its answers cannot be passed on"),
            Reason::Status(status) => write!(f, "it answered {status} in a row"),
            Reason::Silent => f.write_str("it fell silent"),
            Reason::Rate => f.write_str("its tries fail and its peers' do not"),
            Reason::Slow => f.write_str("it is ten times slower than its peers"),
            Reason::Probe => f.write_str("its probes fail"),
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Verdict::Ejected {
                reason,
                failed,
                tried,
                hold_us,
                repeats,
                left,
            } => {
                write!(f, "out of rotation: {reason} ({failed} of {tried} tries)")?;
                let what = match reason.is_hard() {
                    true => "looked for again",
                    false => "a request may try it again",
                };
                write!(f, "; {what} in {} ms", hold_us / 1000)?;
                if repeats > 0 {
                    write!(f, ", later each time (repetitions so far: {repeats})")?;
                }
                write!(f, "; others in rotation: {left}")
            }
            Verdict::Readmitted {
                reason,
                by,
                out_us,
                ramp_us,
            } => {
                let by = match by {
                    Return::Trial => "a request went well",
                    Return::Probe => "a probe passed",
                    Return::Order => "an operator readmitted it",
                };
                match out_us {
                    ..10_000_000 => {
                        write!(f, "back in rotation: {by}, after {} ms", out_us / 1000)?
                    }
                    _ => write!(f, "back in rotation: {by}, after {} s", out_us / 1_000_000)?,
                }
                write!(f, " ({reason})")?;
                if ramp_us > 0 {
                    write!(f, "; its full share in {} ms", ramp_us / 1000)?;
                }
                Ok(())
            }
            Verdict::Spared {
                reason,
                why,
                hosts,
                routable,
                readmitted,
            } => {
                write!(f, "stays in rotation though {reason}: ")?;
                match why {
                    Spare::Last => f.write_str("no other is left")?,
                    Spare::Cap => f.write_str("as many are out as may be, so it is used last")?,
                    Spare::PeersFailAlike => {
                        f.write_str("the others fail alike, which is the app's fault")?;
                    }
                }
                write!(f, "; {routable} of {hosts} are in rotation")?;
                if readmitted > 0 {
                    write!(f, ", {readmitted} of them readmitted now")?;
                }
                Ok(())
            }
            Verdict::Resting { rest_us } => {
                write!(f, "asked for {} ms of rest: used last", rest_us / 1000)
            }
        }
    }
}
