//! A backend picked, a connection to it, the request sent, the answer's head
//! read; and again with another backend where that is safe.
//!
//! ```text
//!          ┌──────────── may go on elsewhere ◀───────────┐
//!          ▼                                             │ failed, 502–504
//! pick ──▶ begin: connect ──▶ await the answer's head ───┴──────────▶ answered
//!          │                   │ overdue          ▲
//!          │                   ▼                  │ spoke first
//!          └─────◀── set aside, still waited for ─┘
//! ```
//!
//! Owns the loop over tries. Whether a request may be sent again is
//! [`judge`](super::judge)'s; when a try is overdue, the app's own latency says
//! ([`crate::policy::latency`]), and whether it is overtaken, what its backend
//! did meanwhile ([`crate::policy::hedge`]). A try is set aside rather than cut: where all
//! backends are slow, cutting would make work and lose it.
//!
//! **Invariant**: of the tries of a request at most one is passed on; those set
//! aside are dropped, connection and all, once another has spoken.

use tokio::net::TcpStream;

use super::await_head::await_head;
use super::client::Wire;
use super::exchange::{Exchange, NEVER, Try};
use super::open;
use super::pick::{pick, pick_now};
use crate::edge::clock::Micros;
use crate::edge::http1::request::Refusal;
use crate::edge::http1::response::Defect;
use crate::edge::upstream::Checkout;
use crate::observe::{Code, Counter};
use crate::policy::health::Outcome;
use crate::policy::hedge::Patience;
use crate::policy::retry::Retry;

/// A conversation with a backend whose answer's head is in.
pub struct Answered {
    pub checkout: Checkout,
    pub backend: TcpStream,
}

/// Why there is no answer to pass on.
pub enum Failed {
    /// The router answers, with this code.
    Answer(Code),
    /// The request's body broke its framing.
    Refused(Refusal),
    /// The client is gone or silent; nothing can be answered.
    Client(Code),
    /// A drain's time is up.
    Drained,
}

/// One try's failure.
pub(super) enum Fault {
    Connect(ConnectFault),
    /// Closed or reset before a byte of the answer.
    Closed,
    /// No first byte in the request's time.
    Silent,
    /// No first byte in the app's `try_timeout`, and another way is open.
    Outlasted,
    /// The answer breaks a rule.
    Defect(Defect),
    /// Not the backend's: ends the request.
    Final(Failed),
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum ConnectFault {
    Refused,
    TimedOut,
}

/// What interrupted a try.
pub(super) enum Halt {
    /// It failed.
    Fault(Fault),
    /// No first byte for far longer than the app takes; it may still come.
    Overdue,
    /// A try set aside had something to say first.
    Overtaken(Try),
}

impl From<Fault> for Halt {
    fn from(fault: Fault) -> Self {
        Halt::Fault(fault)
    }
}

/// How the loop goes on.
enum Next {
    /// With a backend held already.
    Begin(Checkout),
    /// With whichever backend is best.
    Pick,
    /// With the try as it is.
    Wait(Try),
    /// With one that was set aside.
    Resume(Try),
}

/// Sends the request until one backend answers.
pub async fn converse<S: Wire>(ex: &mut Exchange<'_, S>) -> Result<Answered, Failed> {
    let mut next = Next::Pick;
    loop {
        let current = match next {
            Next::Pick => match pick(ex).await {
                Ok(checkout) => begin(ex, checkout).await,
                Err(failed) => match ex.tries.take_aside() {
                    Some(one) if matches!(failed, Failed::Answer(_)) => Ok(resume(ex, one)),
                    _ => return Err(failed),
                },
            },
            Next::Begin(checkout) => begin(ex, checkout).await,
            Next::Wait(one) => Ok(one),
            Next::Resume(one) => Ok(resume(ex, one)),
        };
        let mut current = match current {
            Ok(current) => current,
            Err(step) => {
                next = step?;
                continue;
            }
        };
        next = match await_head(ex, &mut current).await {
            Ok(()) => match better(ex, &current) {
                Some(checkout) => Next::Begin(checkout),
                None => return Ok(answered(ex, current)),
            },
            Err(Halt::Overtaken(one)) => Next::Resume(one),
            Err(Halt::Overdue) => overdue(ex, current),
            Err(Halt::Fault(fault)) => {
                // Its connection ends here; its hold on the backend a line on.
                let Try { checkout, .. } = current;
                go_on(ex, &checkout, fault)?
            }
        };
    }
}

/// Opens a try: the request is not sent yet. `Err` says how to go on instead.
async fn begin<S: Wire>(
    ex: &mut Exchange<'_, S>,
    checkout: Checkout,
) -> Result<Try, Result<Next, Failed>> {
    if ex.ledger.tries > 0 {
        ex.upload.rewind();
    }
    ex.work.answer.clear();
    ex.ledger.trying(&checkout);
    match open::connection(ex, &checkout).await {
        Ok(stream) => Ok(Try {
            reused: ex.ledger.reused,
            connect_us: ex.ledger.connect_us.unwrap_or(0),
            checkout,
            stream,
            sent_at: None,
            overdue: false,
            look_at: NEVER,
            outlasted: false,
        }),
        Err(Halt::Overtaken(one)) => Err(Ok(Next::Resume(one))),
        Err(Halt::Overdue) => unreachable!("a connection being opened must not be overdue"),
        Err(Halt::Fault(fault)) => Err(go_on(ex, &checkout, fault)),
    }
}

/// Back to a try set aside, whose request was sent whole.
fn resume<S: Wire>(ex: &mut Exchange<'_, S>, one: Try) -> Try {
    ex.upload.finish();
    ex.work.answer.clear();
    ex.ledger.resuming(&one);
    one
}

/// A try failed: another, one set aside, or the end.
fn go_on<S: Wire>(
    ex: &mut Exchange<'_, S>,
    checkout: &Checkout,
    fault: Fault,
) -> Result<Next, Failed> {
    let silent = matches!(fault, Fault::Silent);
    match ex.judge(checkout, fault) {
        Ok(()) => Ok(Next::Pick),
        Err(Failed::Answer(_)) if !silent && ex.tries.has_aside() => {
            let one = ex.tries.take_aside();
            Ok(Next::Resume(one.expect("a try must be set aside")))
        }
        Err(failed) => {
            if silent {
                for one in ex.tries.give_up_aside() {
                    ex.tell_sent(&one.checkout, one.sent_at, Outcome::TimedOut);
                }
            }
            Err(failed)
        }
    }
}

/// The answer is passed on.
fn answered<S: Wire>(ex: &mut Exchange<'_, S>, current: Try) -> Answered {
    if !ex.tries.give_up_aside().is_empty() {
        ex.count(Counter::HedgesWon);
    }
    ex.tell_answer(&current);
    Answered {
        checkout: current.checkout,
        backend: current.stream,
    }
}

/// A backend that may do better than an answer of 502, 503 or 504; none: the
/// answer is passed on as it is.
fn better<S: Wire>(ex: &mut Exchange<'_, S>, current: &Try) -> Option<Checkout> {
    if !matches!(ex.work.response.status, 502..=504) {
        return None;
    }
    if !ex.may_be_repeated() {
        ex.count(if ex.work.head.idempotent() {
            Counter::WithheldBody
        } else {
            Counter::WithheldNotIdempotent
        });
        return None;
    }
    ex.tries.met(&current.checkout);
    let checkout = pick_now(ex)?;
    if let Some(withheld) = ex.use_up() {
        ex.count(withheld);
        return None;
    }
    ex.tell_answer(current);
    ex.count(Counter::RetriedStatus);
    Some(checkout)
}

/// A try is overdue: another beside it, if patience with its backend is over,
/// the request may be repeated and a better backend is at hand; else it is only
/// waited for.
fn overdue<S: Wire>(ex: &mut Exchange<'_, S>, mut current: Try) -> Next {
    let now = ex.now();
    let sent_at = current.sent_at.unwrap_or(now);
    if !current.overdue && now >= sent_at + ex.app.overdue_after_us() {
        current.overdue = true;
        ex.tell_sent(&current.checkout, current.sent_at, Outcome::Overdue);
    }
    let may_be_overtaken = ex.may_be_repeated()
        && ex.upload.is_done()
        && !ex.work.head.upgrade
        && ex.tries.retries_left > 0;
    if !may_be_overtaken {
        current.look_at = NEVER;
        return Next::Wait(current);
    }
    let (checkout, waited_us) = (&current.checkout, now - sent_at);
    let after_us = match checkout.app().patience(checkout.index(), now, waited_us) {
        Some(Patience::Again { after_us }) => after_us,
        Some(Patience::Over) => return overtake(ex, current, now),
        None if now >= current.look_at => return overtake(ex, current, now),
        None => return Next::Wait(current),
    };
    current.look_at = now + after_us;
    Next::Wait(current)
}

/// Another try beside this one, if there is a backend and a budget for it.
fn overtake<S: Wire>(ex: &mut Exchange<'_, S>, mut current: Try, now: Micros) -> Next {
    ex.tries.met(&current.checkout);
    current.look_at = NEVER;
    let Some(checkout) = pick_now(ex) else {
        return Next::Wait(current);
    };
    if !ex.app.withdraw_retry(now, Retry::Hedge) {
        ex.count(Counter::WithheldBudget);
        return Next::Wait(current);
    }
    ex.tries.retries_left -= 1;
    ex.count(Counter::HedgesBegun);
    ex.tries.set_aside(current);
    Next::Begin(checkout)
}
