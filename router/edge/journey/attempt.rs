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
//!
//! nobody did better: the answer of 502, 503 or 504 held back is passed on
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
use super::spare::pick_kept;
use crate::edge::clock::Micros;
use crate::edge::http1::request::Refusal;
use crate::edge::http1::response::Defect;
use crate::observe::{Code, Counter};
use crate::policy::health::Outcome;
use crate::policy::hedge::Patience;
use crate::policy::retry::Retry;
use crate::table::{Checkout, Waiting};

/// A try that should be overtaken and cannot be, for want of a backend or of
/// budget, is looked at again after a quarter of its wait, and not before this.
const AGAIN_US: Micros = 250_000;

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
    /// Others need its place.
    Dismissed,
    /// The edge leaves, and its time is over.
    Forced,
}

/// One try's failure.
pub(super) enum Fault {
    Connect(ConnectFault),
    /// Closed or reset before a byte of the answer.
    Closed,
    /// No first byte in the request's time.
    Silent,
    /// The answer breaks a rule.
    Defect(Defect),
    /// Not the backend's: ends the request.
    Final(Failed),
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum ConnectFault {
    Refused,
    TimedOut,
    /// Not opened as quickly as any should be; there is another way.
    Slow,
}

/// What interrupted a try.
pub(super) enum Halt {
    /// It failed.
    Fault(Fault),
    /// No first byte for far longer than the app takes, or than it allows a try;
    /// it may still come.
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
    /// With nothing: its answer is in, and nobody did better.
    Answered(Try),
}

/// Sends the request until one backend answers; `first`: one that is held for it
/// already.
pub async fn converse<S: Wire>(
    ex: &mut Exchange<'_, S>,
    first: Option<Checkout>,
) -> Result<Answered, Failed> {
    let mut next = first.map_or(Next::Pick, Next::Begin);
    loop {
        let current = match next {
            Next::Pick => match pick(ex).await {
                Ok(checkout) => begin(ex, checkout).await,
                Err(failed) => Err(instead(ex, failed)),
            },
            Next::Begin(checkout) => begin(ex, checkout).await,
            Next::Wait(one) => Ok(one),
            Next::Resume(one) => Ok(resume(ex, one)),
            Next::Answered(poor) => return Ok(pass_on(ex, poor)),
        };
        let mut current = match current {
            Ok(current) => current,
            Err(step) => {
                next = step?;
                continue;
            }
        };
        next = match await_head(ex, &mut current).await {
            Ok(()) => match answered(ex, current) {
                Ok(answered) => return Ok(answered),
                Err(next) => next,
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
            overtakes: ex.tries.has_aside(),
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

/// A try failed: another, or what there is instead.
fn go_on<S: Wire>(
    ex: &mut Exchange<'_, S>,
    checkout: &Checkout,
    fault: Fault,
) -> Result<Next, Failed> {
    if matches!(fault, Fault::Silent) {
        // All of them had their time.
        for one in ex.tries.give_up_aside() {
            ex.tell_sent(&one.checkout, one.sent_at, Outcome::TimedOut);
        }
    }
    match ex.judge(checkout, fault) {
        Ok(()) => Ok(Next::Pick),
        Err(failed) => instead(ex, failed),
    }
}

/// No other try will begin: one set aside may still answer; then there may be
/// an answer held back; else the request failed.
fn instead<S: Wire>(ex: &mut Exchange<'_, S>, failed: Failed) -> Result<Next, Failed> {
    if !matches!(failed, Failed::Answer(_)) {
        return Err(failed);
    }
    if let Some(one) = ex.tries.take_aside() {
        return Ok(Next::Resume(one));
    }
    match ex.fall_back() {
        Some(poor) => Ok(Next::Answered(poor)),
        None => Err(failed),
    }
}

/// An answer's head is in: it is passed on, unless another backend may do
/// better.
fn answered<S: Wire>(ex: &mut Exchange<'_, S>, current: Try) -> Result<Answered, Next> {
    ex.tell_answer(&current);
    if matches!(ex.work.response.status, 502..=504) {
        if let Some(checkout) = better(ex, &current) {
            // An answer that came before the request's end cannot be kept: what
            // is left of the request goes to the next.
            if ex.upload.is_done() {
                ex.hold_back(current);
            }
            return Err(Next::Begin(checkout));
        }
        if let Some(one) = ex.tries.take_aside() {
            ex.hold_back(current);
            return Err(Next::Resume(one));
        }
    }
    Ok(pass_on(ex, current))
}

/// The answer is the request's: every other try is over.
fn pass_on<S: Wire>(ex: &mut Exchange<'_, S>, current: Try) -> Answered {
    let given_up = ex.tries.give_up_aside();
    if current.overtakes && !given_up.is_empty() {
        ex.count(Counter::HedgesWon);
    }
    for one in given_up {
        let now = ex.now();
        let waited_us = one.sent_at.map_or(0, |at| now.saturating_sub(at));
        let (app, index) = (one.checkout.app(), one.checkout.index());
        app.gave_up(index, ex.client.thread.index, now, waited_us);
    }
    Answered {
        checkout: current.checkout,
        backend: current.stream,
    }
}

/// A backend that may do better than an answer of 502, 503 or 504.
fn better<S: Wire>(ex: &mut Exchange<'_, S>, current: &Try) -> Option<Checkout> {
    if !ex.may_be_repeated() {
        ex.count(if ex.work.head.idempotent() {
            Counter::WithheldBody
        } else {
            Counter::WithheldNotIdempotent
        });
        return None;
    }
    ex.meet(&current.checkout);
    let checkout = pick_now(ex)?;
    if let Some(withheld) = ex.use_up(false) {
        ex.count(withheld);
        return None;
    }
    ex.count(Counter::RetriedStatus);
    Some(checkout)
}

/// A try is overdue, or outlasted the app's `try_timeout`: another beside it, if
/// patience with its backend is over, the request may be repeated and a better
/// backend is at hand; else it is only waited for.
fn overdue<S: Wire>(ex: &mut Exchange<'_, S>, mut current: Try) -> Next {
    let now = ex.now();
    let sent_at = current.sent_at.unwrap_or(now);
    if !current.overdue && now >= sent_at + ex.app.overdue_after_us() {
        current.overdue = true;
        if !current.overtakes {
            // Where two were too slow for it, the request is, not they.
            ex.tell_sent(&current.checkout, current.sent_at, Outcome::Overdue);
        }
    }
    let may_be_overtaken = ex.may_be_repeated()
        && ex.upload.is_done()
        && !ex.work.head.upgrade
        && ex.tries.retries_left > 0;
    if !may_be_overtaken {
        current.look_at = NEVER;
        return Next::Wait(current);
    }
    if current.outlasted {
        return overtake(ex, current, Retry::Again, now);
    }
    let waiting = Waiting {
        index: current.checkout.index(),
        now_us: now,
        waited_us: now - sent_at,
        overtakes: current.overtakes,
    };
    let after_us = match current.checkout.app().patience(&waiting) {
        Some(Patience::Again { after_us }) => after_us,
        Some(Patience::Over) => return overtake(ex, current, Retry::Hedge, now),
        None if now >= current.look_at => return overtake(ex, current, Retry::Hedge, now),
        None => return Next::Wait(current),
    };
    current.look_at = now + after_us;
    Next::Wait(current)
}

/// Another try beside this one, if there is a backend and a budget for it; if
/// not, it is looked at again.
fn overtake<S: Wire>(
    ex: &mut Exchange<'_, S>,
    mut current: Try,
    spend: Retry,
    now: Micros,
) -> Next {
    let waited_us = now - current.sent_at.unwrap_or(now);
    current.look_at = now + (waited_us / 4).max(AGAIN_US);
    if ex.client.thread.gate.is_shut() {
        // Of what may be left out, the first: it has a try under way.
        return Next::Wait(current);
    }
    ex.meet(&current.checkout);
    // What descriptors are left, requests need that have no connection yet.
    let door = &ex.client.thread.shared.door;
    let checkout = if spend == Retry::Hedge && door.is_short(&current.stream) {
        pick_kept(ex)
    } else {
        pick_now(ex)
    };
    let Some(checkout) = checkout else {
        return Next::Wait(current);
    };
    if !ex.app.withdraw_retry(now, spend) {
        if !std::mem::replace(&mut ex.tries.budget_short, true) {
            ex.count(Counter::WithheldBudget);
        }
        return Next::Wait(current);
    }
    if !ex.client.thread.table.limits.flows.retries.take(now) {
        ex.count(Counter::WithheldLimit);
        return Next::Wait(current);
    }
    ex.tries.retries_left -= 1;
    ex.count(match spend {
        Retry::Again => Counter::RetriedTryTimeout,
        Retry::Hedge => Counter::HedgesBegun,
    });
    ex.tries.set_aside(current);
    Next::Begin(checkout)
}
