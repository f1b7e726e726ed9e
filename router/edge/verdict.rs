//! What a verdict on a backend's health leads to: a counter and an event.
//!
//! Owns that, for whoever told the judge: a request, a probe, an operator.
//! Judges nothing: that is [`crate::policy::health`].

use super::sync::EventSender;
use crate::observe::{Counter, EdgeCells};
use crate::policy::health::{Reason, Return, Verdict};
use crate::table::{App, Backend};

/// Counts a verdict and tells operators of it.
#[cold]
pub fn pronounce(
    cells: &EdgeCells,
    events: &EventSender,
    app: &App,
    backend: &Backend,
    verdict: &Verdict,
) {
    pronounce_as(cells, events, app, backend, verdict, verdict.to_string());
}

/// The same, in other words.
#[cold]
pub fn pronounce_as(
    cells: &EdgeCells,
    events: &EventSender,
    app: &App,
    backend: &Backend,
    verdict: &Verdict,
    text: String,
) {
    cells.inc(match verdict {
        Verdict::Ejected { reason, .. } => ejected_for(*reason),
        Verdict::Readmitted { by, .. } => match by {
            Return::Trial => Counter::ReadmittedByTrial,
            Return::Probe => Counter::ReadmittedByProbe,
            Return::Order => Counter::ReadmittedByOrder,
        },
        Verdict::Spared { .. } => Counter::EjectionsSpared,
        Verdict::Resting { .. } => Counter::Rests,
    });
    events.post(verdict.event(), &app.name, &backend.id, text);
}

fn ejected_for(reason: Reason) -> Counter {
    match reason {
        Reason::ConnectRefused => Counter::EjectedConnectRefused,
        Reason::ConnectTimedOut => Counter::EjectedConnectTimedOut,
        Reason::Reset => Counter::EjectedReset,
        Reason::TimedOut => Counter::EjectedTimedOut,
        Reason::BadAnswer => Counter::EjectedBadAnswer,
        Reason::Status(_) => Counter::EjectedStatus,
        Reason::Silent => Counter::EjectedSilent,
        Reason::Rate => Counter::EjectedRate,
        Reason::Slow => Counter::EjectedSlow,
        Reason::Probe => Counter::EjectedProbe,
    }
}
