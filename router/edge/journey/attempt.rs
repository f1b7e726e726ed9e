//! A backend picked, a connection to it, the request sent, the answer's head
//! read; and again with another backend where that is safe.
//!
//! Owns the loop over attempts and what is safe to repeat (RFC 9110, section
//! 9.2.2): everything while no byte of the request can have been processed; an
//! idempotent request, or one with an `Idempotency-Key`, while no byte of its
//! answer was sent on. Balancing and queueing are asked of [`crate::policy`].

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::net::TcpStream;

use super::client::{Client, Wire};
use super::ledger::Ledger;
use super::upload::{Trouble, Upload};
use super::{Work, relay};
use crate::edge::buffer::SMALL_BYTES;
use crate::edge::clock::Micros;
use crate::edge::http1::head::Limits;
use crate::edge::http1::request::Refusal;
use crate::edge::http1::response::{self, Defect};
use crate::edge::http1::scan::Scan;
use crate::edge::thread::{Phase, Thread};
use crate::edge::upstream::{self, Checkout};
use crate::observe::{Code, Counter, Gauge, Histogram};
use crate::policy::balance::{self, Choice, Tried};
use crate::table::App;

/// Queueing and connecting, retries included, end after this.
const CONNECT_PHASE: Duration = Duration::from_secs(75);

/// A request waits at most this long for a backend with room.
const QUEUE_PATIENCE: Duration = Duration::from_secs(5);

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
enum Fault {
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
enum ConnectFault {
    Refused,
    TimedOut,
}

/// What a request's attempts met, to name its failure when none is left.
#[derive(Default)]
struct Seen {
    tried: Tried,
    /// Backends in `tried`.
    tries: usize,
    retries_left: u32,
    /// A pooled connection was dead: no other is trusted.
    fresh_only: bool,
    refused: u32,
    timed_out: u32,
    closed: u32,
}

impl Seen {
    fn code(&self) -> Code {
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
        seen.tries += 1;
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

/// A backend with room; none: all are full.
fn choose(thread: &Thread, app: &Arc<App>, seen: &Seen) -> Option<Result<Checkout, Failed>> {
    loop {
        let random = thread.random.borrow_mut().u64(..);
        match balance::choose(&**app, random, app.policy.max_concurrency, &seen.tried) {
            Choice::Backend(index) => {
                if let Some(checkout) = Checkout::take(app, index) {
                    return Some(Ok(checkout));
                }
            }
            Choice::NoneLeft if seen.tries == 0 => return Some(Err(Failed::Answer(Code::H14))),
            Choice::NoneLeft => {
                thread.cells.inc(Counter::WithheldNoBackend);
                return Some(Err(Failed::Answer(seen.code())));
            }
            Choice::AllFull => return None,
        }
    }
}

/// A backend with room, waiting in the app's queue if there is none.
async fn pick<S: Wire>(
    client: &mut Client<S>,
    work: &mut Work,
    ledger: &mut Ledger,
    upload: &mut Upload,
    app: &Arc<App>,
    seen: &Seen,
) -> Result<Checkout, Failed> {
    let thread = Rc::clone(&client.thread);
    if let Some(picked) = choose(&thread, app, seen) {
        return picked;
    }
    let limit = app
        .policy
        .queue
        .unwrap_or_else(|| 50 * u32::try_from(app.backends.len()).unwrap_or(u32::MAX / 50));
    let since = thread.clock.now();
    let Some(mut place) = app.live().queue.join(limit) else {
        thread.cells.inc(Counter::QueueFull);
        return Err(Failed::Answer(Code::H11));
    };
    thread.cells.up(Gauge::Queued);
    client.deadline.set_after(since, QUEUE_PATIENCE);
    let waited = poll_fn(|cx| {
        loop {
            // Asked again in the queue too: room made before joining it woke nobody.
            if let Some(picked) = choose(&thread, app, seen) {
                return Poll::Ready(picked);
            }
            if Pin::new(&mut place).poll(cx).is_pending() {
                break;
            }
        }
        if upload.poll_gone(cx, client, &mut work.input).is_ready() {
            return Poll::Ready(Err(Failed::Client(Code::H27)));
        }
        if thread.phase() == Phase::Cutting {
            return Poll::Ready(Err(Failed::Drained));
        }
        client
            .deadline
            .poll(cx)
            .map(|()| Err(Failed::Answer(Code::H11)))
    })
    .await;
    if waited.is_ok() {
        place.served();
    }
    thread.cells.down(Gauge::Queued);
    let waited_us = thread.clock.now() - since;
    ledger.queue_us += waited_us;
    thread.cells.observe(Histogram::QueueWait, waited_us);
    thread.cells.inc(match &waited {
        Ok(_) => Counter::QueueAdmitted,
        Err(Failed::Client(_)) => Counter::QueueClientLeft,
        Err(_) => Counter::QueueTimedOut,
    });
    waited
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

/// Opens a connection, within the attempt's and the phase's time.
async fn open<S: Wire>(
    client: &mut Client<S>,
    work: &mut Work,
    ledger: &mut Ledger,
    upload: &mut Upload,
    app: &App,
    address: SocketAddr,
) -> Result<TcpStream, Fault> {
    let thread = Rc::clone(&client.thread);
    let since = thread.clock.now();
    client.deadline.set_after(
        since,
        app.policy.connect_timeout.min(phase_left(ledger, since)),
    );
    let mut connecting = pin!(upstream::connect(address));
    let outcome = poll_fn(|cx| {
        if let Poll::Ready(connected) = connecting.as_mut().poll(cx) {
            return Poll::Ready(connected.map_err(|error| connect_fault(client, &error)));
        }
        if upload.poll_gone(cx, client, &mut work.input).is_ready() {
            return Poll::Ready(Err(Fault::Final(Failed::Client(Code::H27))));
        }
        client.deadline.poll(cx).map(|()| {
            thread.cells.inc(Counter::ConnectTimedOut);
            Err(Fault::Connect(ConnectFault::TimedOut))
        })
    })
    .await;
    let took = thread.clock.now() - since;
    ledger.connect_us = Some(took);
    if outcome.is_ok() {
        thread.cells.inc(Counter::BackendOpened);
        thread.cells.observe(Histogram::Connect, took);
    }
    outcome
}

/// What is left of the time for queueing and connecting.
fn phase_left(ledger: &Ledger, now: Micros) -> Duration {
    CONNECT_PHASE.saturating_sub(Duration::from_micros(now.saturating_sub(ledger.began)))
}

fn connect_fault<S>(client: &Client<S>, error: &io::Error) -> Fault {
    use io::ErrorKind as Kind;
    let (counter, fault) = match error.kind() {
        Kind::ConnectionRefused => (Counter::ConnectRefused, ConnectFault::Refused),
        Kind::TimedOut => (Counter::ConnectTimedOut, ConnectFault::TimedOut),
        Kind::HostUnreachable | Kind::NetworkUnreachable => {
            (Counter::ConnectUnreachable, ConnectFault::Refused)
        }
        _ if matches!(
            rustix::io::Errno::from_io_error(error),
            Some(
                rustix::io::Errno::MFILE
                    | rustix::io::Errno::NFILE
                    | rustix::io::Errno::ADDRNOTAVAIL
            )
        ) =>
        {
            // The router's own want, not the backend's: no attempt elsewhere
            // would fare better.
            client.thread.cells.inc(Counter::ConnectExhausted);
            return Fault::Final(Failed::Answer(Code::H22));
        }
        _ => (Counter::ConnectOther, ConnectFault::Refused),
    };
    client.thread.cells.inc(counter);
    Fault::Connect(fault)
}

/// What the wait for an answer's head comes to.
enum Turn {
    /// The final head is parsed.
    Head,
    /// An interim (1xx) head is parsed.
    Interim,
}

/// Sends the request and reads until the answer's head is in; passes interim
/// answers on.
async fn await_head<S: Wire>(
    client: &mut Client<S>,
    work: &mut Work,
    ledger: &mut Ledger,
    upload: &mut Upload,
    app: &App,
    backend: &mut TcpStream,
) -> Result<(), Fault> {
    if work.answer.capacity() == 0 {
        work.answer = client.thread.buffers.small();
    }
    work.answer.clear();
    work.answer_scan = Scan::default();
    let mut wait = Wait {
        sent: false,
        armed: false,
    };
    loop {
        let turn = poll_fn(|cx| wait.poll(cx, client, work, ledger, upload, app, backend)).await?;
        match turn {
            Turn::Head => return Ok(()),
            Turn::Interim => {
                relay::interim(client, work, ledger)
                    .await
                    .map_err(Fault::Final)?;
                // Writing it took the deadline.
                wait.armed = false;
            }
        }
    }
}

struct Wait {
    /// The request is sent whole and its end noted.
    sent: bool,
    /// The deadline is set for the present state.
    armed: bool,
}

impl Wait {
    /// Sets the deadline of the present state: for the first byte, from the end
    /// of the request; before that, rolling.
    fn arm<S: Wire>(&mut self, client: &Client<S>, ledger: &Ledger, app: &App, progress: bool) {
        if self.armed && (self.sent || !progress) {
            return;
        }
        self.armed = true;
        let now = client.thread.clock.now();
        let (since, patience) = if self.sent {
            let sent_at = ledger.sent_at.unwrap_or(now);
            (sent_at, app.policy.first_byte_timeout)
        } else {
            (now, app.policy.idle_timeout)
        };
        client.deadline.set_after(since, patience);
    }

    #[allow(
        clippy::too_many_arguments,
        reason = "one wait on everything a request holds"
    )]
    fn poll<S: Wire>(
        &mut self,
        cx: &mut Context<'_>,
        client: &mut Client<S>,
        work: &mut Work,
        ledger: &mut Ledger,
        upload: &mut Upload,
        app: &App,
        backend: &mut TcpStream,
    ) -> Poll<Result<Turn, Fault>> {
        let mut progress = false;
        if !upload.is_over() {
            match upload.poll(
                cx,
                client,
                work,
                backend,
                app.policy.replay_bytes,
                &mut progress,
            ) {
                Poll::Ready(Ok(())) | Poll::Pending => {}
                Poll::Ready(Err(Trouble::ClientGone)) => {
                    return Poll::Ready(Err(Fault::Final(Failed::Client(Code::H27))));
                }
                Poll::Ready(Err(Trouble::Malformed(refusal))) => {
                    return Poll::Ready(Err(Fault::Final(Failed::Refused(refusal))));
                }
            }
        }
        if upload.is_over() && !self.sent {
            self.sent = true;
            self.armed = false;
            ledger.sent_at = Some(client.thread.clock.now());
        }
        if let Poll::Ready(turn) = poll_answer(cx, client, work, ledger, backend) {
            return Poll::Ready(turn.and_then(|turn| switched(turn, work, upload)));
        }
        if self.sent && upload.poll_gone(cx, client, &mut work.input).is_ready() {
            return Poll::Ready(Err(Fault::Final(Failed::Client(Code::H27))));
        }
        if client.thread.phase() == Phase::Cutting {
            return Poll::Ready(Err(Fault::Final(Failed::Drained)));
        }
        self.arm(client, ledger, app, progress);
        client.deadline.poll(cx).map(|()| {
            Err(if self.sent || upload.awaits_backend() {
                Fault::Silent
            } else {
                Fault::Final(Failed::Client(Code::H28))
            })
        })
    }
}

/// Lets a 101 through only if the client asked for it and its request is sent
/// whole: after any other, its next requests would pass the routing by.
fn switched(turn: Turn, work: &Work, upload: &Upload) -> Result<Turn, Fault> {
    let cause = match (work.head.upgrade, upload.is_done()) {
        _ if !work.response.switching => return Ok(turn),
        (true, true) => return Ok(turn),
        (true, false) => "101 before the end of the request",
        (false, _) => "101 to a request without Upgrade",
    };
    Err(Fault::Defect(Defect {
        code: Code::H25,
        cause,
    }))
}

/// Reads the answer until a head is whole.
fn poll_answer<S: Wire>(
    cx: &mut Context<'_>,
    client: &Client<S>,
    work: &mut Work,
    ledger: &mut Ledger,
    backend: &mut TcpStream,
) -> Poll<Result<Turn, Fault>> {
    let was_head = work.head.is_head();
    loop {
        if !work.answer.is_empty() {
            let parsed = response::parse_response(
                work.answer.data(),
                &mut work.answer_scan,
                &Limits::RESPONSE,
                was_head,
                &mut work.response,
            );
            match parsed {
                Ok(Some(bytes)) => {
                    work.answer_bytes = bytes;
                    let interim = work.response.interim();
                    return Poll::Ready(Ok(if interim { Turn::Interim } else { Turn::Head }));
                }
                Ok(None) => {}
                Err(defect) => return Poll::Ready(Err(Fault::Defect(defect))),
            }
        }
        if work.answer.room() == 0 {
            work.answer.compact();
            if work.answer.room() == 0 {
                let larger =
                    (work.answer.capacity() * 4).min(Limits::RESPONSE.head_bytes + SMALL_BYTES);
                work.answer.grow(larger);
            }
        }
        let room = work.answer.room();
        match work.answer.poll_read(cx, backend, room) {
            Poll::Ready(Ok(n @ 1..)) => {
                if ledger.first_byte_at.is_none() {
                    ledger.first_byte_at = Some(client.thread.clock.now());
                }
                debug_assert!(n <= room);
            }
            Poll::Ready(_) => return Poll::Ready(Err(Fault::Closed)),
            Poll::Pending => return Poll::Pending,
        }
    }
}
