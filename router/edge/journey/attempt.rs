//! A backend picked, a connection to it, the request sent, the answer's head
//! read; and again with another backend where that is safe.
//!
//! Owns the loop over attempts and what is safe to repeat (RFC 9110, section
//! 9.2.2): everything while no byte of the request can have been processed; an
//! idempotent request, or one with an `Idempotency-Key`, while no byte of its
//! answer was sent on.

use std::sync::Arc;

use tokio::net::TcpStream;

use super::Work;
use super::await_head::await_head;
use super::client::{Client, Wire};
use super::ledger::Ledger;
use super::open::open;
use super::pick::pick;
use super::upload::Upload;
use crate::edge::http1::request::Refusal;
use crate::edge::http1::response::Defect;
use crate::edge::thread::Thread;
use crate::edge::upstream::Checkout;
use crate::observe::{Code, Counter};
use crate::policy::balance::Tried;
use crate::table::App;

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

/// One attempt's failure.
pub(super) enum Fault {
    Connect(ConnectFault),
    /// Closed or reset before a byte of the answer.
    Closed,
    /// No first byte in time.
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
}

/// What a request's attempts met, to name its failure when none is left.
#[derive(Default)]
pub(super) struct Seen {
    pub(super) tried: Tried,
    retries_left: u32,
    /// A pooled connection was dead: no other is trusted.
    fresh_only: bool,
    refused: u32,
    timed_out: u32,
    closed: u32,
}

impl Seen {
    pub(super) fn code(&self) -> Code {
        match (self.refused > 0, self.timed_out > 0, self.closed > 0) {
            (true, false, false) => Code::H21,
            (false, true, false) => Code::H19,
            (false, false, true) => Code::H13,
            _ => Code::H10,
        }
    }
}

/// Sends the request until one backend answers.
pub async fn converse<S: Wire>(
    client: &mut Client<S>,
    work: &mut Work,
    ledger: &mut Ledger,
    upload: &mut Upload,
    app: &Arc<App>,
) -> Result<Answered, Failed> {
    let mut seen = Seen {
        retries_left: app.policy.retries,
        ..Seen::default()
    };
    loop {
        let checkout = pick(client, work, ledger, upload, app, &seen).await?;
        ledger.trying(checkout.index());
        match attempt(
            client,
            work,
            ledger,
            upload,
            app,
            &checkout,
            seen.fresh_only,
        )
        .await
        {
            Ok(backend) => return Ok(Answered { checkout, backend }),
            Err(fault) => {
                let begun = ledger.interim_sent || !work.answer.is_empty();
                if let Fault::Defect(defect) = &fault {
                    ledger.cause = Some(defect.cause);
                }
                let state = State {
                    begun,
                    reused: ledger.reused,
                    repeatable: work.head.idempotent() || !upload.touched,
                    replayable: upload.is_replayable(),
                };
                judge(&client.thread, fault, &checkout, &state, &mut seen)?;
            }
        }
        upload.rewind();
        work.answer.clear();
    }
}

/// Where a failed attempt left the request.
struct State {
    /// A byte of an answer is here, or an interim answer went to the client.
    begun: bool,
    /// Its connection had been used before.
    reused: bool,
    /// Executing it twice does no harm, or it cannot have been executed.
    repeatable: bool,
    /// What was sent of it can be sent again.
    replayable: bool,
}

/// Counts a failed attempt; fails the request unless it may be tried again.
fn judge(
    thread: &Thread,
    fault: Fault,
    checkout: &Checkout,
    state: &State,
    seen: &mut Seen,
) -> Result<(), Failed> {
    let cells = &thread.cells;
    let stale = matches!(fault, Fault::Closed) && state.reused && !state.begun;
    if !stale && !matches!(fault, Fault::Final(_)) {
        checkout.failed();
    }
    let retry = match fault {
        Fault::Final(failed) => return Err(failed),
        Fault::Silent => {
            cells.inc(Counter::BackendFirstByteTimeout);
            return Err(Failed::Answer(Code::H12));
        }
        Fault::Defect(defect) => {
            let not_http = defect.code == Code::H17;
            cells.inc(if not_http {
                Counter::BackendNotHttp
            } else {
                Counter::BackendBadAnswer
            });
            return Err(Failed::Answer(defect.code));
        }
        Fault::Closed if state.begun => {
            cells.inc(Counter::BackendBrokeOff);
            cells.inc(Counter::WithheldAnswerBegun);
            return Err(Failed::Answer(Code::H13));
        }
        Fault::Closed if stale => {
            // Its keepalive ended while the request was on its way: no failure
            // of the backend's, and no attempt used up.
            thread.pool.forget(checkout.backend().key());
            seen.fresh_only = true;
            cells.inc(Counter::BackendClosedReused);
            Counter::RetriedClosedReused
        }
        Fault::Closed => {
            cells.inc(Counter::BackendClosedNew);
            seen.closed += 1;
            Counter::RetriedClosedNew
        }
        Fault::Connect(kind) => {
            seen.refused += u32::from(kind == ConnectFault::Refused);
            seen.timed_out += u32::from(kind == ConnectFault::TimedOut);
            Counter::RetriedConnect
        }
    };
    let mut withheld = None;
    if retry != Counter::RetriedConnect {
        if !state.repeatable {
            withheld = Some(Counter::WithheldNotIdempotent);
        } else if !state.replayable {
            withheld = Some(Counter::WithheldBody);
        }
    }
    if !stale {
        seen.tried.push(checkout.index());
        if seen.retries_left == 0 {
            withheld = withheld.or(Some(Counter::WithheldTries));
        }
        seen.retries_left = seen.retries_left.saturating_sub(1);
    }
    if let Some(reason) = withheld {
        cells.inc(reason);
        return Err(Failed::Answer(if stale { Code::H13 } else { seen.code() }));
    }
    cells.inc(retry);
    Ok(())
}

/// One attempt: connection, request out, answer's head in.
async fn attempt<S: Wire>(
    client: &mut Client<S>,
    work: &mut Work,
    ledger: &mut Ledger,
    upload: &mut Upload,
    app: &App,
    checkout: &Checkout,
    fresh_only: bool,
) -> Result<TcpStream, Fault> {
    let pooled = if fresh_only || !app.policy.backend_keepalive {
        None
    } else {
        client.thread.pool.take(checkout.backend().key())
    };
    ledger.reused = pooled.is_some();
    let mut backend = if let Some(stream) = pooled {
        client.thread.cells.inc(Counter::BackendReused);
        ledger.connect_us = Some(0);
        stream
    } else {
        let address = checkout.backend().address();
        open(client, work, ledger, upload, app, address).await?
    };
    await_head(client, work, ledger, upload, app, &mut backend).await?;
    Ok(backend)
}
