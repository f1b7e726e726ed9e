//! What a failed try means: for its backend, and for its request.
//!
//! Owns the rule of what may be sent again (RFC 9110, section 9.2.2):
//! everything while no byte of it can have been processed; an idempotent
//! request, or one with an `Idempotency-Key`, while no byte of its answer was
//! sent on; each within the app's tries and its budget. What is not sent again
//! is counted by its reason.

use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, SystemTime};

use super::attempt::{ConnectFault, Failed, Fault};
use super::client::Wire;
use super::exchange::{Exchange, Try};
use super::pick;
use crate::edge::clock::Micros;
use crate::edge::gate;
use crate::edge::http1::response::Defect;
use crate::edge::thread::Thread;
use crate::edge::verdict::pronounce;
use crate::observe::{Code, Counter};
use crate::policy::balance::Tried;
use crate::policy::health::{ConnectFailure, Outcome};
use crate::policy::retry::Retry;
use crate::table::{Checkout, Told};

/// A backend that answered somebody this recently is there, however long a
/// connection to it takes.
const STILL_THERE_US: Micros = 1_000_000;

/// A try's failure, as far as its request is concerned.
struct Setback {
    /// The reason of the retry, if there is one.
    retry: Counter,
    /// Not a byte of the request can have been processed.
    unprocessed: bool,
    /// The connection was refused, at once.
    refused: bool,
    /// The backend is innocent and no try is used up.
    stale: bool,
}

impl Setback {
    /// The request reached a backend that is not innocent.
    fn after(retry: Counter) -> Setback {
        Setback {
            retry,
            unprocessed: false,
            refused: false,
            stale: false,
        }
    }
}

impl<S: Wire> Exchange<'_, S> {
    /// Tells of a failed try and fails the request unless it may go on to
    /// another.
    pub(super) fn judge(&mut self, checkout: &Checkout, fault: Fault) -> Result<(), Failed> {
        let begun = !self.work.answer.is_empty();
        let setback = match fault {
            Fault::Final(failed) => {
                if matches!(failed, Failed::Client(_)) {
                    self.abandon(checkout);
                }
                return Err(failed);
            }
            Fault::Silent => {
                self.tell(checkout, Outcome::TimedOut);
                self.count(Counter::BackendFirstByteTimeout);
                self.count(Counter::WithheldTime);
                return Err(Failed::Answer(Code::H12));
            }
            Fault::Defect(defect) => self.defective(checkout, &defect),
            Fault::Closed if begun => self.broke_off(checkout),
            Fault::Closed => self.closed(checkout),
            Fault::Connect(kind) => self.unconnected(checkout, kind),
        };
        self.may_go_on(checkout, &setback)
    }

    /// It closed, or reset, before a byte of the answer.
    fn closed(&mut self, checkout: &Checkout) -> Setback {
        let stale = self.ledger.reused;
        if stale {
            // Its keepalive ended while the request was on its way: no failure
            // of the backend's, and no try used up.
            self.client.thread.pool.forget(checkout.backend().key());
            self.tries.fresh_only = true;
            self.count(Counter::BackendClosedReused);
        } else {
            self.tell(checkout, Outcome::Reset);
            self.tries.closed += 1;
            self.count(Counter::BackendClosedNew);
        }
        Setback {
            retry: if stale {
                Counter::RetriedClosedReused
            } else {
                Counter::RetriedClosedNew
            },
            unprocessed: !self.upload.touched,
            refused: false,
            stale,
        }
    }

    fn unconnected(&mut self, checkout: &Checkout, kind: ConnectFault) -> Setback {
        let outcome = match kind {
            ConnectFault::Refused => {
                self.tries.refused += 1;
                Outcome::ConnectFailed(ConnectFailure::Refused)
            }
            ConnectFault::TimedOut => {
                self.tries.timed_out += 1;
                Outcome::ConnectFailed(ConnectFailure::TimedOut)
            }
            ConnectFault::Slow => {
                self.tries.timed_out += 1;
                let quiet_us = checkout.app().quiet_us(checkout.index(), self.now());
                if quiet_us < STILL_THERE_US {
                    // A lost packet, or a full backlog: it is there.
                    Outcome::TimedOut
                } else {
                    Outcome::ConnectFailed(ConnectFailure::TimedOut)
                }
            }
        };
        self.tell(checkout, outcome);
        Setback {
            retry: Counter::RetriedConnect,
            unprocessed: true,
            refused: kind == ConnectFault::Refused,
            stale: false,
        }
    }

    /// What it answers cannot be passed on, and nothing of it was.
    fn defective(&mut self, checkout: &Checkout, defect: &Defect) -> Setback {
        self.tell(checkout, Outcome::BadAnswer);
        self.tries.defect = Some(*defect);
        self.count(if defect.code == Code::H17 {
            Counter::BackendNotHttp
        } else {
            Counter::BackendBadAnswer
        });
        Setback::after(Counter::RetriedBadAnswer)
    }

    /// It closed, or reset, in the middle of its head.
    fn broke_off(&mut self, checkout: &Checkout) -> Setback {
        self.tell(checkout, Outcome::BadAnswer);
        self.tries.closed += 1;
        self.count(Counter::BackendBrokeOff);
        Setback::after(Counter::RetriedBadAnswer)
    }

    /// Whether the request may be sent again, and counts why not.
    fn may_go_on(&mut self, checkout: &Checkout, setback: &Setback) -> Result<(), Failed> {
        let withheld = if self.ledger.interim_sent {
            Some(Counter::WithheldAnswerBegun)
        } else if !setback.unprocessed && !self.work.head.idempotent() {
            Some(Counter::WithheldNotIdempotent)
        } else if !setback.unprocessed && !self.upload.is_replayable() {
            Some(Counter::WithheldBody)
        } else if setback.stale {
            None
        } else {
            self.meet(checkout);
            // Where nobody is there any more, it waits: tries make no difference.
            self.use_up(setback.refused)
                .filter(|_| setback.retry != Counter::RetriedConnect || !pick::may_be_held(self))
        };
        if let Some(reason) = withheld {
            self.count(reason);
            return Err(Failed::Answer(match setback.stale {
                true => Code::H13,
                false => self.failed_as(),
            }));
        }
        self.count(setback.retry);
        Ok(())
    }

    /// Uses up a try and a part of the app's budget; why not, if it cannot.
    ///
    /// A refused connection costs nothing of its tries: nobody got the request,
    /// and it took no time. Where several have just crashed, it meets them all.
    pub(super) fn use_up(&mut self, was_refused: bool) -> Option<Counter> {
        let is_free =
            was_refused && self.app.policy.retries > 0 && self.tries.tried.len() < Tried::MOST;
        let left = match self.tries.retries_left.checked_sub(1) {
            _ if is_free => self.tries.retries_left,
            Some(left) => left,
            None => return Some(Counter::WithheldTries),
        };
        if self.is_crowded() {
            return Some(Counter::WithheldOverload);
        }
        let now = self.client.thread.clock.recent();
        if !self.app.withdraw_retry(now, Retry::Again) {
            return Some(Counter::WithheldBudget);
        }
        if !self.client.thread.table.limits.flows.retries.take(now) {
            return Some(Counter::WithheldLimit);
        }
        self.tries.retries_left = left;
        None
    }

    /// Whether the thread has more to do than it can, and this app's requests
    /// are why: then none of them is sent again.
    pub(super) fn is_crowded(&self) -> bool {
        let gate = &self.client.thread.gate;
        gate.is_crowded(|| gate::line_of(Some(&self.app)))
    }

    /// A backend met before cannot be connected to any more.
    pub(super) fn left(&mut self, checkout: &Checkout, kind: ConnectFault) {
        self.unconnected(checkout, kind);
    }

    /// Tells of an answer whose head is in.
    pub(super) fn tell_answer(&self, current: &Try) {
        // An early answer, and its request still on its way.
        current.checkout.unpark();
        current.checkout.heard();
        let response = &self.work.response;
        let first_byte_us = self.ledger.first_byte_us().unwrap_or(0);
        // One request is one witness, whatever many backends tell it.
        let is_first = self.ledger.tries == 1;
        let rest = match (response.status, response.retry_after) {
            (503, Some(span)) if is_first => retry_after(span.of(self.work.answer.data())),
            _ => None,
        };
        let outcome = match rest {
            Some(rest) => Outcome::AskedForRest {
                rest_us: u64::try_from(rest.as_micros()).unwrap_or(u64::MAX),
                first_byte_us,
            },
            None => Outcome::Answered {
                status: response.status,
                first_byte_us,
            },
        };
        self.tell(&current.checkout, outcome);
    }

    pub(super) fn tell(&self, checkout: &Checkout, outcome: Outcome) {
        self.tell_sent(checkout, self.ledger.sent_at, outcome);
    }

    /// Tells of a try whose request was sent whole at `sent_at`; `None`: it was
    /// not.
    pub(super) fn tell_sent(&self, checkout: &Checkout, sent_at: Option<Micros>, outcome: Outcome) {
        tell(&self.client.thread, checkout, sent_at, outcome);
    }

    /// Its client left while the backend was waited for.
    fn abandon(&self, checkout: &Checkout) {
        if self.ledger.sent_at.is_some() {
            let thread = &self.client.thread;
            let told = telling(thread, checkout, self.ledger.sent_at, Outcome::TimedOut);
            checkout.app().abandoned(&told);
        }
    }

    pub(super) fn count(&self, counter: Counter) {
        self.client.thread.cells.inc(counter);
    }
}

/// Tells the backend's health what a try came to, its request sent whole at
/// `sent_at`; `None`: it was not.
pub(super) fn tell(
    thread: &Thread,
    checkout: &Checkout,
    sent_at: Option<Micros>,
    outcome: Outcome,
) {
    match outcome {
        // One that is overdue may still answer.
        Outcome::Answered { .. } | Outcome::AskedForRest { .. } | Outcome::Overdue => {}
        Outcome::ConnectFailed(_) | Outcome::Reset | Outcome::TimedOut | Outcome::BadAnswer => {
            checkout.backend().live().failures.fetch_add(1, Relaxed);
        }
    }
    let verdict = checkout
        .app()
        .tell(&telling(thread, checkout, sent_at, outcome));
    if let Some(verdict) = verdict {
        let Thread { cells, shared, .. } = thread;
        let (app, backend) = (checkout.app(), checkout.backend());
        if verdict.wants_probe() {
            shared.prober.watch(&app.name, backend.key());
        }
        pronounce(cells, &shared.events, app, backend, &verdict);
    }
}

fn telling(
    thread: &Thread,
    checkout: &Checkout,
    sent_at: Option<Micros>,
    outcome: Outcome,
) -> Told {
    let now_us = match outcome {
        // Its first byte was noted a moment ago.
        Outcome::Answered { .. } => thread.clock.recent(),
        _ => thread.clock.now(),
    };
    Told {
        thread: thread.index,
        index: checkout.index(),
        now_us,
        wall_us: thread.clock.unix_us(now_us),
        sent_us: checkout.chosen_us(),
        waited_us: sent_at.map_or(0, |at| now_us.saturating_sub(at)),
        outcome,
        random: thread.random.borrow_mut().u64(..),
    }
}

/// How long a `Retry-After` asks to be left alone (RFC 9110, section 10.2.3):
/// seconds, or a date.
fn retry_after(value: &[u8]) -> Option<Duration> {
    let value = std::str::from_utf8(value).ok()?.trim();
    if let Ok(seconds) = value.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let until = httpdate::parse_http_date(value).ok()?;
    until.duration_since(SystemTime::now()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_retry_after_is_seconds_or_a_date_to_come() {
        assert_eq!(retry_after(b" 7 "), Some(Duration::from_secs(7)));
        let soon = httpdate::fmt_http_date(SystemTime::now() + Duration::from_secs(60));
        let rest = retry_after(soon.as_bytes()).expect("a date to come must count");
        assert!(rest <= Duration::from_secs(60) && rest > Duration::from_secs(50));
        for refused in ["", "-1", "soon", "1.5", "Sun, 06 Nov 1994 08:49:37 GMT"] {
            assert_eq!(retry_after(refused.as_bytes()), None, "{refused}");
        }
    }
}
