//! The request's way through the edge, top to bottom.
//!
//! ```text
//! read head → find the app → limits → (its turn?) → admit and pick a backend →
//! take or open a connection → send → (retry?) → relay the answer → check in →
//! count and log
//! ```
//!
//! One task per client connection does all of it, on the thread that accepted
//! it: no spawn, no channel, no lock. Owns the order of the steps and every
//! decision between them; the steps' mechanics are in the files below. Never
//! parses (that is [`http1`](super::http1)) and never chooses by itself (that
//! is [`crate::policy`]).
//!
//! | file | step |
//! |---|---|
//! | [`client`] | a client connection: waiting, reading heads, lingering close |
//! | [`limit`] | the named limits that are for it |
//! | [`turn`] | its app's turn, where the thread has more to do than it can |
//! | [`attempt`] | one backend after another until one answers, where that is safe |
//! | [`mod@exchange`] | what a request holds meanwhile, its tries among it |
//! | [`pick`], [`open`] | a backend with room; a connection to it |
//! | [`await_head`] | the request out, the answer's head in |
//! | [`upload`] | the request's body on its way, kept for a retry while small |
//! | [`judge`] | what a failed try means, for its backend and for the request |
//! | [`relay`] | the answer on its way back, uploads going on meanwhile |
//! | [`drain`] | how the client takes it |
//! | [`splice`] | large bodies past our memory |
//! | [`pipe`] | an upgraded connection: bytes both ways |
//! | [`ledger`] | what is counted and logged of a request |
//!
//! **Invariant**: a request is answered once, or its client's connection is cut
//! so that it learns; a request whose answer has begun is never sent again.

mod attempt;
mod await_head;
mod client;
mod drain;
mod exchange;
mod judge;
mod ledger;
mod limit;
mod open;
mod pick;
mod pipe;
mod relay;
mod splice;
mod turn;
mod upload;

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use self::client::{Client, Ready};
use self::exchange::Exchange;
use self::ledger::Ledger;
use self::upload::Upload;
use super::answers::{Answer, wants_json};
use super::budget::SPENT;
use super::buffer::{Buffer, Buffers, SMALL_BYTES};
use super::http1::head::{Framing, Version};
use super::http1::request::{Refusal, RequestHead};
use super::http1::request_writer::{self, Forwarding};
use super::http1::response::ResponseHead;
use super::http1::scan::Scan;
use super::thread::Open;
use crate::observe::{Code, Counter};
use crate::table::App;

pub use self::client::Wire;
pub use self::splice::Pipes;

/// A request's working set: everything with a heap block behind it, recycled
/// by the thread so that a request allocates nothing.
#[derive(Default)]
pub struct Work {
    /// From the client: the head at the front, whatever followed it behind.
    input: Buffer,
    /// Bytes of `input` that are the head, and later also the part of the body
    /// that came with it.
    head_bytes: usize,
    head: RequestHead,
    scan: Scan,
    /// The head as sent to the backend; kept for a retry and for the log.
    sent: Vec<u8>,
    /// From the backend: its head at the front.
    answer: Buffer,
    answer_bytes: usize,
    response: ResponseHead,
    answer_scan: Scan,
    /// On its way to the client: a head or a chunk's size line.
    out: Vec<u8>,
}

impl Work {
    /// Ready for another request; large buffers go back to the thread.
    pub fn reset(&mut self, buffers: &Buffers) {
        buffers.put(std::mem::take(&mut self.input));
        buffers.put(std::mem::take(&mut self.answer));
        self.head_bytes = 0;
        for kept in [&mut self.sent, &mut self.out] {
            kept.clear();
            kept.shrink_to(SMALL_BYTES);
        }
    }
}

/// How a request ended, as far as its client's connection is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// Answered whole; the connection may carry another request.
    KeepAlive,
    /// Answered whole; closes now.
    Close(Counter),
    /// The answer broke off: the client must see that it is not whole.
    Cut(Counter),
}

/// Serves a client connection until it closes.
pub async fn serve<S: Wire>(open: Open, stream: S, peer: SocketAddr, local: SocketAddr) {
    let thread = Rc::clone(open.thread());
    let mut client = Client::new(&thread, stream, peer, local);
    let mut carried = Buffer::default();
    let reason = loop {
        match client.wait(&mut carried).await {
            Ready::Request => {}
            Ready::Closed(reason) => break reason,
            Ready::Dismissed(reason) => {
                client.linger_idle().await;
                break reason;
            }
        }
        if let Err(reason) = client.unwrap_proxy(&mut carried).await {
            break reason;
        }
        if carried.is_empty() {
            // A header of the balancer's, and no request behind it yet.
            continue;
        }
        let mut work = thread.take_work();
        work.input = std::mem::take(&mut carried);
        let end = request(&mut client, &mut work).await;
        if end == End::KeepAlive && !work.input.is_empty() {
            carried = std::mem::take(&mut work.input);
        }
        thread.put_work(work);
        match end {
            End::KeepAlive => client.served += 1,
            End::Close(reason) => {
                client.linger().await;
                break reason;
            }
            End::Cut(reason) => {
                client.stream.reset_on_close();
                break reason;
            }
        }
    };
    client.await_no_more();
    thread.buffers.put(carried);
    thread.cells.inc(reason);
}

/// One request, from its head to its log line.
async fn request<S: Wire>(client: &mut Client<S>, work: &mut Work) -> End {
    let mut ledger = Ledger::begin(&client.thread);
    let end = match client.read_head(work).await {
        Ok(()) => exchange(client, work, &mut ledger).await,
        Err(client::Unread::Refused(refusal)) => refuse(client, work, &mut ledger, refusal).await,
        // Nothing of a request arrived whole: there is nothing to log. One that
        // makes room for others does so at once.
        Err(client::Unread::Gone(reason @ Counter::ClosedEvicted)) => return End::Cut(reason),
        Err(client::Unread::Gone(reason)) => return End::Close(reason),
    };
    ledger.close(client, work);
    let used = work.head_bytes;
    work.input.consume(used.min(work.input.len()));
    end
}

/// From a head that was read to the end of its answer.
async fn exchange<S: Wire>(client: &mut Client<S>, work: &mut Work, ledger: &mut Ledger) -> End {
    ledger.identify(work);
    let mut upload = match Upload::begin(work) {
        Ok(upload) => upload,
        Err(refusal) => return refuse(client, work, ledger, refusal).await,
    };
    let end = route(client, work, ledger, &mut upload).await;
    client
        .thread
        .cells
        .add(Counter::ClientReceivedBytes, upload.payload_bytes());
    end
}

/// Finds the app and has it answer, or says why it cannot.
async fn route<S: Wire>(
    client: &mut Client<S>,
    work: &mut Work,
    ledger: &mut Ledger,
    upload: &mut Upload,
) -> End {
    let path = work.head.path(work.input.data());
    let app = client.thread.table.route(work.head.host.as_bytes(), path);
    if let Some(app) = &app {
        ledger.found(app);
    }
    if !limit::admits(client, work, ledger) {
        return answer(client, work, ledger, upload, Code::H29).await;
    }
    if client.thread.gate.is_shut()
        && let Err(failed) = turn::take(client, work, ledger, upload).await
    {
        return fail(client, work, ledger, upload, failed).await;
    }
    if client.thread.shared.budget.pressure() >= SPENT {
        client.thread.cells.inc(Counter::ShedMemory);
        return answer(client, work, ledger, upload, Code::H22).await;
    }
    let Some(app) = app else {
        return answer(client, work, ledger, upload, Code::H30).await;
    };
    if app.policy.maintenance {
        return answer(client, work, ledger, upload, Code::H80).await;
    }
    if app.backends.is_empty() && !pick::waits_for_first(&app) {
        pick::tell_wanted(&client.thread, &app);
        return answer(client, work, ledger, upload, Code::H14).await;
    }
    prepare(client, work, ledger, &app);
    // From here on others are waited for.
    client.thread.buffers.park(&mut work.input);
    let mut exchange = Exchange::new(client, work, ledger, upload, app);
    match attempt::converse(&mut exchange).await {
        Ok(answered) => relay::relay(client, work, ledger, upload, answered).await,
        Err(failed) => fail(client, work, ledger, upload, failed).await,
    }
}

/// There is no backend's answer to pass on.
async fn fail<S: Wire>(
    client: &mut Client<S>,
    work: &mut Work,
    ledger: &mut Ledger,
    upload: &mut Upload,
    failed: attempt::Failed,
) -> End {
    match failed {
        attempt::Failed::Answer(code) => answer(client, work, ledger, upload, code).await,
        attempt::Failed::Refused(refusal) => refuse(client, work, ledger, refusal).await,
        attempt::Failed::Client(code) => {
            ledger.ended(499, code);
            End::Close(Counter::ClosedClientAborted)
        }
        attempt::Failed::Forced => {
            ledger.ended(Code::H24.status(), Code::H24);
            match say(client, work, ledger, false).await {
                End::Close(Counter::ClosedAsAsked) => End::Close(Counter::ClosedForced),
                end => end,
            }
        }
    }
}

/// Writes the head that every attempt sends.
fn prepare<S: Wire>(client: &Client<S>, work: &mut Work, ledger: &mut Ledger, app: &Arc<App>) {
    let mut sent = std::mem::take(&mut work.sent);
    sent.clear();
    let mut random = client.thread.random.borrow_mut();
    let forwarding = Forwarding {
        peer: &client.forwarded,
        request_id: ledger.request_id(work),
        received_ms: ledger.received_at_ms,
        trace_id: random.u128(1..),
        span_id: random.u64(1..),
        backend_keepalive: app.policy.backend_keepalive,
    };
    let forwarded_for =
        request_writer::write_request_head(&work.head, work.input.data(), &forwarding, &mut sent);
    work.sent = sent;
    ledger.forwarded_for = forwarded_for;
}

/// The router answers by itself, with `code`; the connection stays open where
/// the request's framing allows.
async fn answer<S: Wire>(
    client: &mut Client<S>,
    work: &mut Work,
    ledger: &mut Ledger,
    upload: &mut Upload,
    code: Code,
) -> End {
    let keep_alive =
        work.head.keep_alive && client.may_be_kept() && upload.settle(client, work).await;
    ledger.ended(code.status(), code);
    say(client, work, ledger, keep_alive).await
}

/// Refuses a request that is malformed or over a limit, and closes: what
/// follows it on the connection cannot be trusted.
async fn refuse<S: Wire>(
    client: &mut Client<S>,
    work: &mut Work,
    ledger: &mut Ledger,
    refusal: Refusal,
) -> End {
    ledger.ended(refusal.status, Code::H26);
    ledger.cause = Some(refusal.cause);
    say(client, work, ledger, false).await;
    End::Close(match refusal.status {
        408 if work.head_bytes > 0 => Counter::ClosedTooSlow,
        408 => Counter::ClosedHeadTimeout,
        _ => Counter::ClosedMalformed,
    })
}

async fn say<S: Wire>(
    client: &mut Client<S>,
    work: &mut Work,
    ledger: &mut Ledger,
    keep_alive: bool,
) -> End {
    let mut out = std::mem::take(&mut work.out);
    out.clear();
    let known = work.head_bytes > 0;
    let input = work.input.data();
    let answer = Answer {
        code: ledger
            .code
            .expect("an answer of the router's own must have a code"),
        status: ledger.status,
        cause: ledger.cause(),
        retry_after: ledger.limited.as_ref().map(|limited| limited.retry_after),
        json: known && wants_json(work.head.accept.map_or(b"", |span| span.of(input))),
        head_only: known && work.head.is_head(),
        keep_alive,
        http10: known && work.head.version == Version::Http10,
        request_id: if known { ledger.request_id(work) } else { b"" },
    };
    ledger.bytes = answer.write(&mut out);
    let written = client.write_all(&out).await;
    work.out = out;
    match written {
        Ok(()) if keep_alive => End::KeepAlive,
        Ok(()) => End::Close(Counter::ClosedAsAsked),
        Err(_) => End::Close(Counter::ClosedClientAborted),
    }
}

/// Whether a request's framing announces a body.
fn has_body(framing: Framing) -> bool {
    framing != Framing::None
}
