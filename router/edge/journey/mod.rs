//! The request's way through the edge, top to bottom.
//!
//! ```text
//! read head → find the app → limits → (its turn?) → collect the body → admit and
//! pick a backend → take or open a connection → send → (retry?) → relay the answer
//! → check in → count and log
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
//! | [`client`] | a client connection: waiting, reading heads |
//! | [`limit`] | the named limits that are for it |
//! | [`turn`] | its app's turn, where the thread has more to do than it can |
//! | [`collect`] | the body, or its beginning, before anybody is asked |
//! | [`attempt`] | one backend after another until one answers, where that is safe |
//! | [`mod@exchange`] | what a request holds meanwhile, its tries among it |
//! | [`pick`], [`open`] | a backend with room; a connection to it |
//! | [`spare`] | one only if it costs nobody else |
//! | [`await_head`] | the request out, the answer's head in |
//! | [`upload`] | the request's body on its way, kept for a retry while small |
//! | [`judge`] | what a failed try means, for its backend and for the request |
//! | [`relay`] | the answer on its way back, uploads going on meanwhile |
//! | [`drain`] | how the client takes it |
//! | [`splice`] | large bodies past our memory |
//! | [`pipe`] | an upgraded connection: bytes both ways |
//! | [`parting`] | the end of a connection |
//! | [`ledger`] | what is counted and logged of a request |
//!
//! **Invariant**: a request is answered once, or its client's connection is cut
//! so that it learns; a request whose answer has begun is never sent again.

mod attempt;
mod await_head;
mod client;
mod collect;
mod drain;
mod exchange;
mod judge;
mod ledger;
mod limit;
mod open;
mod parting;
mod pick;
mod pipe;
mod relay;
mod spare;
mod splice;
mod turn;
mod upload;

use std::net::SocketAddr;
use std::sync::Arc;

use self::attempt::{Answered, Failed};
use self::client::{Client, Ready, Unread};
use self::exchange::Exchange;
use self::ledger::Ledger;
use self::parting::Parting;
use self::upload::Upload;
use super::answers::{Answer, wants_json};
use super::buffer::{Buffer, Buffers, SMALL_BYTES};
use super::clock::Micros;
use super::http1::head::{Framing, Version};
use super::http1::request::{Refusal, RequestHead};
use super::http1::request_writer::{self, Forwarding};
use super::http1::response::ResponseHead;
use super::http1::scan::Scan;
use super::thread::Open;
use super::wanted;
use crate::observe::{Code, Counter};
use crate::table::App;

pub use self::client::Wire;
pub use self::splice::Pipes;

/// Why a request ended whose place or memory others needed.
const MADE_ROOM: &str = "made room for others";

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
    /// Bytes of its buffers.
    fn held_bytes(&self) -> usize {
        self.input.capacity() + self.answer.capacity()
    }

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
    /// The same, and its place is needed: its client is not waited for.
    Yield(Counter),
    /// The answer broke off: the client must see that it is not whole.
    Cut(Counter),
}

/// A request whose head was read.
struct Asked {
    work: Box<Work>,
    /// When its first bytes were there.
    began: Micros,
}

/// Serves a client connection until it closes.
///
/// What a request needs beyond its head is boxed, and made once there is one:
/// of the connections that never get so far there may be thousands.
pub fn serve<S: Wire>(
    open: Open,
    stream: S,
    peer: SocketAddr,
    local: SocketAddr,
) -> impl Future<Output = ()> {
    let mut client = Client::new(open.thread(), stream, peer, local);
    async move {
        let mut carried = Buffer::default();
        let parting = match next(&mut client, &mut carried).await {
            Ok(first) => {
                let talk = Box::pin(serve_all(&mut client, &mut carried, first));
                open.talks(size_of_val(&*talk));
                talk.await
            }
            Err(parting) => parting,
        };
        open.talks(0);
        open.thread().buffers.put(std::mem::take(&mut carried));
        let reason = parting.part(&mut client).await;
        client.await_no_more();
        open.thread().cells.inc(reason);
    }
}

/// Serves all requests of a connection.
async fn serve_all<S: Wire>(client: &mut Client<S>, carried: &mut Buffer, first: Asked) -> Parting {
    let mut asked = first;
    loop {
        let end = request(client, &mut asked).await;
        let mut work = asked.work;
        if end == End::KeepAlive && !work.input.is_empty() {
            *carried = std::mem::take(&mut work.input);
        }
        client.thread.put_work(work);
        if let Some(parting) = Parting::after(end) {
            return parting;
        }
        client.served += 1;
        asked = match next(client, carried).await {
            Ok(next) => next,
            Err(parting) => return parting,
        };
    }
}

/// Waits for the next request and reads its head.
async fn next<S: Wire>(client: &mut Client<S>, carried: &mut Buffer) -> Result<Asked, Parting> {
    loop {
        match client.wait(carried).await {
            Ready::Request => {}
            Ready::Closed(reason) => return Err(Parting::Now(reason)),
            Ready::Dismissed(reason) => return Err(Parting::Dismissed(reason)),
        }
        client.unwrap_proxy(carried).await.map_err(Parting::Now)?;
        if carried.is_empty() {
            // A header of the balancer's, and no request behind it yet.
            continue;
        }
        let began = client.thread.clock.now();
        return match client.read_head(carried).await {
            Ok(work) => Ok(Asked { work, began }),
            Err(Unread::Refused(work, refusal)) => {
                let asked = Asked { work, began };
                let reason = Box::pin(turn_down(client, asked, refusal)).await;
                Err(Parting::Answered(reason))
            }
            // Nothing of a request arrived whole: there is nothing to log. One
            // that makes room for others does so at once.
            Err(Unread::Gone(reason @ Counter::ClosedEvicted)) => Err(Parting::Cut(reason)),
            Err(Unread::Gone(reason)) => Err(Parting::Answered(reason)),
        };
    }
}

/// Answers what has no proper head.
async fn turn_down<S: Wire>(client: &mut Client<S>, asked: Asked, refusal: Refusal) -> Counter {
    let Asked { mut work, began } = asked;
    let mut ledger = Ledger::begin(&client.thread, began);
    let reason = refuse(client, &mut work, &mut ledger, refusal).await;
    ledger.close(client, &work);
    client.thread.put_work(work);
    reason
}

/// One request, from its head to its log line.
async fn request<S: Wire>(client: &mut Client<S>, asked: &mut Asked) -> End {
    let mut ledger = Ledger::begin(&client.thread, asked.began);
    let work = &mut *asked.work;
    let end = exchange(client, work, &mut ledger).await;
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
        Err(refusal) => return End::Close(refuse(client, work, ledger, refusal).await),
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
    let Some(app) = app else {
        return answer(client, work, ledger, upload, Code::H30).await;
    };
    if client.thread.is_scarce_for(&app) {
        client.thread.shed_for_memory(&app);
        return answer(client, work, ledger, upload, Code::H22).await;
    }
    if app.policy.maintenance {
        return answer(client, work, ledger, upload, Code::H80).await;
    }
    if app.backends.is_empty() && !pick::waits_for_first(&app) {
        wanted::tell(&client.thread, &app);
        return answer(client, work, ledger, upload, Code::H14).await;
    }
    let mut exchange = Exchange::new(client, work, ledger, upload, app);
    match talk(&mut exchange).await {
        Ok(answered) => relay::relay(client, work, ledger, upload, answered).await,
        Err(failed) => fail(client, work, ledger, upload, failed).await,
    }
}

/// Has a backend answer.
async fn talk<S: Wire>(ex: &mut Exchange<'_, S>) -> Result<Answered, Failed> {
    let spare = match collect::is_due(ex) {
        true => collect::collect(ex).await?,
        false => None,
    };
    prepare(ex.client, ex.work, ex.ledger, &ex.app);
    // From here on others are waited for.
    ex.client.thread.buffers.park(&mut ex.work.input);
    if ex.outgrows() {
        return Err(Failed::Answer(Code::H22));
    }
    attempt::converse(ex, spare).await
}

/// There is no backend's answer to pass on.
async fn fail<S: Wire>(
    client: &mut Client<S>,
    work: &mut Work,
    ledger: &mut Ledger,
    upload: &mut Upload,
    failed: Failed,
) -> End {
    match failed {
        Failed::Answer(code) => answer(client, work, ledger, upload, code).await,
        Failed::Refused(refusal) => End::Close(refuse(client, work, ledger, refusal).await),
        Failed::Client(code) => {
            ledger.ended(499, code);
            End::Close(Counter::ClosedClientAborted)
        }
        Failed::Dismissed => {
            ledger.ended(Code::H22.status(), Code::H22);
            ledger.cause = Some(MADE_ROOM);
            say(client, work, ledger, false).await;
            End::Yield(Counter::ClosedEvicted)
        }
        Failed::Forced => {
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

/// Refuses a request that is malformed or over a limit; why its connection
/// closes then: what follows on it cannot be trusted.
async fn refuse<S: Wire>(
    client: &mut Client<S>,
    work: &mut Work,
    ledger: &mut Ledger,
    refusal: Refusal,
) -> Counter {
    ledger.ended(refusal.status, Code::H26);
    ledger.cause = Some(refusal.cause);
    say(client, work, ledger, false).await;
    match refusal.status {
        408 if work.head_bytes > 0 => Counter::ClosedTooSlow,
        408 => Counter::ClosedHeadTimeout,
        _ => Counter::ClosedMalformed,
    }
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
