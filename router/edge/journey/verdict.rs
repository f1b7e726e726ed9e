//! What a try told its backend's health, and what came of it.
//!
//! Owns the way from an outcome to its backend's judge, and from the judge's
//! verdict to counters, to operators and to the prober. Judges nothing: that
//! is [`crate::policy::health`].

use crate::edge::clock::Micros;
use crate::edge::thread::Thread;
use crate::edge::upstream::Checkout;
use crate::observe::Counter;
use crate::policy::health::{Outcome, Reason, Verdict};
use crate::table::Told;

/// Tells the backend's health what a try came to; `sent_at` is when its request
/// was sent whole, if it was.
pub(super) fn tell(
    thread: &Thread,
    checkout: &Checkout,
    sent_at: Option<Micros>,
    outcome: Outcome,
) {
    let now_us = thread.clock.now();
    let verdict = checkout.app().tell(&Told {
        thread: thread.index,
        index: checkout.index(),
        now_us,
        sent_us: sent_at.unwrap_or(now_us),
        outcome,
        random: thread.random.borrow_mut().u64(..),
    });
    if let Some(verdict) = verdict {
        pronounce(thread, checkout, &verdict);
    }
}

#[cold]
fn pronounce(thread: &Thread, checkout: &Checkout, verdict: &Verdict) {
    let (app, backend) = (&checkout.app().name, checkout.backend());
    match verdict {
        Verdict::Ejected { reason, .. } => thread.cells.inc(ejected_for(*reason)),
        Verdict::Readmitted { .. } => thread.cells.inc(Counter::ReadmittedByTrial),
        Verdict::Spared { .. } => thread.cells.inc(Counter::EjectionsSpared),
        Verdict::Resting { .. } => thread.cells.inc(Counter::Rests),
    }
    let text = verdict.to_string();
    thread
        .shared
        .events
        .post(verdict.event(), app, &backend.id, text);
}

/// The series of ejections for a reason.
pub fn ejected_for(reason: Reason) -> Counter {
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
