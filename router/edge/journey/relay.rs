//! The answer on its way back to the client.
//!
//! Owns the relay loop: read from the backend, filter the framing, write to the
//! client, while an upload that has not ended goes on. One write carries the
//! head and the first body bytes. A slow client slows its backend: at most one
//! buffer is between them.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::net::TcpStream;

use super::attempt::{Answered, Failed};
use super::client::{Client, Wire};
use super::drain::Drain;
use super::judge::tell;
use super::ledger::Ledger;
use super::splice::{Spliced, WORTH_BYTES};
use super::upload::{Trouble, Upload};
use super::{End, MADE_ROOM, Work, pipe};
use crate::edge::buffer::{LARGE_BYTES, SMALL_BYTES};
use crate::edge::http1::body::{self, Body, LAST_CHUNK, PREFIX_BYTES, chunk_prefix};
use crate::edge::http1::head::{Framing, Version};
use crate::edge::http1::response_writer::{self, Downstream, Promise};
use crate::edge::http1::scan::Scan;
use crate::observe::{Code, Counter};
use crate::policy::health::Outcome;
use crate::table::{App, Checkout};

/// Body bytes up to this many are copied behind the head rather than gathered.
const COPIED_BYTES: usize = 2048;

/// Passes an interim answer on, unless it is one the router gave itself or the
/// client's version has no interim answers.
pub async fn interim<S: Wire>(
    client: &mut Client<S>,
    work: &mut Work,
    ledger: &mut Ledger,
) -> Result<(), Failed> {
    let bytes = work.answer_bytes;
    let answered_by_us = work.response.status == 100 && work.head.expect_continue;
    if !answered_by_us && work.head.version == Version::Http11 {
        let mut out = std::mem::take(&mut work.out);
        out.clear();
        response_writer::write_interim(&work.response, work.answer.data(), &mut out);
        let written = client.write_all(&out).await;
        work.out = out;
        if written.is_err() {
            return Err(Failed::Client(Code::H27));
        }
        ledger.interim_sent = true;
    }
    work.answer.consume(bytes);
    work.answer_scan = Scan::default();
    // The first byte that counts is the answer's.
    ledger.first_byte_at = None;
    Ok(())
}

/// Why a relay ended.
#[derive(Clone, Copy)]
pub(super) enum Broke {
    /// The backend closed or broke the framing mid-answer.
    Backend(Code, Option<&'static str>),
    /// The client closed, or took or sent nothing for too long.
    Client(Code),
    /// It takes its answer slower than it may; why.
    TooSlow(&'static str),
    /// The rest of the client's request breaks its framing.
    Malformed(&'static str),
    /// Others need what it would take of the buffers.
    Memory,
    /// The edge leaves, and its time is over.
    Forced,
}

/// Relays an answer whose head is in, or turns into a pipe after a 101.
pub async fn relay<S: Wire>(
    client: &mut Client<S>,
    work: &mut Work,
    ledger: &mut Ledger,
    upload: &mut Upload,
    answered: Answered,
) -> End {
    ledger.answered(work.response.status);
    upload.answered();
    if work.response.status == 101 {
        return pipe::upgrade(client, work, ledger, answered).await;
    }
    let Answered {
        checkout,
        mut backend,
    } = answered;
    let framing = work.response.framing;
    // A connection whose request is not read to its end cannot carry another.
    let keep_alive = work.head.keep_alive && upload.is_done() && client.may_be_kept();
    let promise = write_head(work, ledger, keep_alive);
    let mut flow = Flow::new(Body::new(framing, promise.mode), promise.chunk);
    flow.fresh = !work.answer.is_empty();
    if let Err(bad) = flow.filter(work) {
        // Not a byte of it was passed on: the client can still be told.
        let sent_at = ledger.sent_at;
        tell(&client.thread, &checkout, sent_at, Outcome::BadAnswer);
        client.thread.cells.inc(Counter::BackendBadAnswer);
        ledger.cause = Some(bad.cause);
        return super::answer(client, work, ledger, upload, Code::H25).await;
    }
    let outcome = poll_fn(|cx| {
        let polled = flow.poll(cx, client, work, upload, &mut backend, checkout.app());
        match polled.is_pending() && ledger.outgrows(work.held_bytes() + upload.held_bytes()) {
            true => Poll::Ready(Err(Broke::Memory)),
            false => polled,
        }
    });
    let outcome = outcome.await;
    ledger.bytes = flow.payload_sent();
    if let Some(spliced) = flow.spliced.take() {
        client.thread.pipes.put(spliced);
    }
    match outcome {
        Ok(()) => {
            let clean = framing != Framing::UntilClose
                && work.response.keep_alive
                && upload.is_done()
                && work.answer.is_empty();
            if clean && checkout.app().policy.backend_keepalive {
                let now = client.thread.clock.recent();
                client
                    .thread
                    .pool
                    .put(checkout.backend().key(), backend, now);
            }
            if promise.close {
                End::Close(Counter::ClosedAsAsked)
            } else {
                End::KeepAlive
            }
        }
        Err(broke) => {
            let delimited = flow.chunk || shows_its_end(framing, work.head.version);
            match cut(client, ledger, &checkout, broke) {
                End::Cut(reason)
                    if delimited && !matches!(broke, Broke::Client(_) | Broke::TooSlow(_)) =>
                {
                    End::Close(reason)
                }
                end => end,
            }
        }
    }
}

/// Whether a body's framing, as the client gets it, shows a break. Without a
/// length or chunks the end of the connection is the end of the body, and only
/// a reset tells that it broke off.
fn shows_its_end(framing: Framing, client: Version) -> bool {
    match framing {
        Framing::UntilClose => false,
        Framing::Chunked => client != Version::Http10,
        _ => true,
    }
}

fn cut<S: Wire>(client: &Client<S>, ledger: &mut Ledger, checkout: &Checkout, broke: Broke) -> End {
    let cells = &client.thread.cells;
    match broke {
        Broke::Backend(code, cause) => {
            if code != Code::H15 {
                // A stream that idles is no proof of anything.
                tell(&client.thread, checkout, ledger.sent_at, Outcome::BadAnswer);
            }
            cells.inc(match code {
                Code::H15 => Counter::BackendIdle,
                Code::H18 => Counter::BackendBrokeOff,
                _ => Counter::BackendBadAnswer,
            });
            ledger.cause = cause;
            ledger.code = Some(code);
            End::Cut(Counter::ClosedAnswerCut)
        }
        Broke::Client(code) => {
            ledger.ended(499, code);
            End::Cut(Counter::ClosedClientAborted)
        }
        Broke::TooSlow(cause) => {
            ledger.ended(499, Code::H28);
            ledger.cause = Some(cause);
            End::Cut(Counter::ClosedTooSlow)
        }
        Broke::Malformed(cause) => {
            ledger.code = Some(Code::H26);
            ledger.cause = Some(cause);
            End::Cut(Counter::ClosedMalformed)
        }
        Broke::Memory => {
            ledger.code = Some(Code::H22);
            ledger.cause = Some(MADE_ROOM);
            End::Cut(Counter::ClosedEvicted)
        }
        Broke::Forced => {
            ledger.code = Some(Code::H24);
            End::Cut(Counter::ClosedForced)
        }
    }
}

/// Writes the head for the client into `out` and drops the backend's.
pub(super) fn write_head(work: &mut Work, ledger: &Ledger, keep_alive: bool) -> Promise {
    let mut out = std::mem::take(&mut work.out);
    out.clear();
    let downstream = Downstream {
        version: work.head.version,
        keep_alive,
        chunk_unframed: true,
        request_id: ledger.request_id(work),
    };
    let head = &work.response;
    let promise =
        response_writer::write_response_head(head, work.answer.data(), &downstream, &mut out);
    work.out = out;
    work.answer.consume(work.answer_bytes);
    promise
}

/// Bytes on their way: `out` (a head or a chunk's size), then the first `ready`
/// bytes of `answer`, then `tail`; `at` of them are written.
struct Flow {
    body: Body,
    /// Chunked by us: close-delimited by the backend, for a client that can
    /// keep its connection.
    chunk: bool,
    /// The backend's end of a close-delimited body was seen.
    ended: bool,
    /// There are bytes in `answer` that the filter has not seen.
    fresh: bool,
    ready: usize,
    at: usize,
    tail: &'static [u8],
    /// Something moved since the deadline was last set.
    progress: bool,
    /// What is left of a large body goes through this.
    spliced: Option<Spliced>,
    drain: Drain,
}

impl Flow {
    fn new(body: Body, chunk: bool) -> Self {
        Flow {
            body,
            chunk,
            ended: false,
            fresh: false,
            ready: 0,
            at: 0,
            tail: b"",
            progress: true,
            spliced: None,
            drain: Drain::default(),
        }
    }

    /// Read to its end, and none of it left in a pipe.
    fn is_whole(&self) -> bool {
        let held = self.spliced.as_ref().map_or(0, Spliced::held);
        held == 0 && (self.body.done() || self.ended)
    }

    /// Body bytes that reached the client's socket, framing not counted; exact
    /// once the answer is whole.
    fn payload_sent(&self) -> u64 {
        let held = self.spliced.as_ref().map_or(0, Spliced::held);
        self.body
            .payload()
            .saturating_sub((self.ready + held) as u64)
    }

    /// Filters what was read and frames it for the client.
    fn filter(&mut self, work: &mut Work) -> Result<(), body::Broken> {
        if !std::mem::take(&mut self.fresh) || self.body.done() {
            return Ok(());
        }
        let progress = self.body.advance(work.answer.data_mut())?;
        work.answer.close_gap(progress.produced, progress.consumed);
        self.ready = progress.produced;
        if self.ready == 0 {
            return Ok(());
        }
        if self.chunk {
            let mut prefix = [0; PREFIX_BYTES];
            let bytes = chunk_prefix(self.ready as u64, &mut prefix);
            work.out.extend_from_slice(&prefix[..bytes]);
            self.tail = b"\r\n";
        }
        if self.tail.is_empty() && self.ready <= COPIED_BYTES && !work.out.is_empty() {
            work.out
                .extend_from_slice(&work.answer.data()[..self.ready]);
            work.answer.consume(std::mem::take(&mut self.ready));
        }
        Ok(())
    }

    fn poll<S: Wire>(
        &mut self,
        cx: &mut Context<'_>,
        client: &mut Client<S>,
        work: &mut Work,
        upload: &mut Upload,
        backend: &mut TcpStream,
        app: &App,
    ) -> Poll<Result<(), Broke>> {
        let outcome = self.poll_flow(cx, client, work, backend);
        if outcome.is_ready() {
            return outcome;
        }
        let writing = self.is_writing(work);
        if !upload.is_over() {
            // The backend's answer came early; the client may still be sending.
            match upload.poll(cx, client, work, backend, 0, &mut self.progress) {
                Poll::Ready(Err(Trouble::ClientGone)) => {
                    return Poll::Ready(Err(Broke::Client(Code::H27)));
                }
                Poll::Ready(Err(Trouble::Malformed(bad))) => {
                    return Poll::Ready(Err(Broke::Malformed(bad.cause)));
                }
                Poll::Ready(Err(Trouble::TooSlow)) => {
                    unreachable!("a body must not be judged once its answer is in")
                }
                Poll::Ready(Ok(())) | Poll::Pending => {}
            }
        }
        // Also where the upload ended just now: it waits for the client no more.
        if upload.is_over() && !writing && upload.poll_gone(cx, client, &mut work.input).is_ready()
        {
            return Poll::Ready(Err(Broke::Client(Code::H27)));
        }
        if client.poll_forced(cx).is_ready() {
            return Poll::Ready(Err(Broke::Forced));
        }
        if writing || self.drain.is_waiting() {
            let spliced = self.spliced.as_ref().map_or(0, Spliced::sent);
            if let Some(broke) = self.drain.judge(&client.thread, writing, spliced, app) {
                return Poll::Ready(Err(broke));
            }
        }
        if std::mem::take(&mut self.progress) {
            client
                .deadline
                .set_after(client.thread.clock.now(), app.policy.idle_timeout);
        }
        client.deadline.poll(cx).map(|()| {
            Err(if writing {
                Broke::Client(Code::H28)
            } else {
                Broke::Backend(Code::H15, None)
            })
        })
    }

    /// Whether it waits for the client rather than the backend.
    fn is_writing(&self, work: &Work) -> bool {
        self.is_framed(work)
            || self
                .spliced
                .as_ref()
                .is_some_and(|spliced| spliced.held() > 0)
    }

    /// Whether bytes of our own memory are on their way.
    fn is_framed(&self, work: &Work) -> bool {
        self.at < work.out.len() + self.ready + self.tail.len()
    }

    fn poll_flow<S: Wire>(
        &mut self,
        cx: &mut Context<'_>,
        client: &mut Client<S>,
        work: &mut Work,
        backend: &mut TcpStream,
    ) -> Poll<Result<(), Broke>> {
        loop {
            while self.is_framed(work) {
                match self.poll_write(cx, client, work) {
                    Poll::Ready(Ok(n @ 1..)) => {
                        self.at += n;
                        self.drain.sent += n as u64;
                        self.progress = true;
                    }
                    Poll::Ready(_) => return Poll::Ready(Err(Broke::Client(Code::H27))),
                    Poll::Pending => return Poll::Pending,
                }
            }
            work.answer.consume(std::mem::take(&mut self.ready));
            work.out.clear();
            self.at = 0;
            self.tail = b"";
            if self.is_whole() {
                return Poll::Ready(Ok(()));
            }
            self.choose_splicing(client, work);
            if let (Some(spliced), Some(socket)) = (&mut self.spliced, client.stream.socket()) {
                return spliced.poll(cx, &mut self.body, socket, backend, &mut self.progress);
            }
            match self.poll_read(cx, client, work, backend) {
                Poll::Ready(Ok(())) => self.progress = true,
                Poll::Ready(Err(broke)) => return Poll::Ready(Err(broke)),
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    /// From here on past our memory, if enough of the body is left.
    fn choose_splicing<S: Wire>(&mut self, client: &Client<S>, work: &Work) {
        let left = self.body.remaining().unwrap_or(0);
        if self.spliced.is_none()
            && left >= WORTH_BYTES
            && work.answer.is_empty()
            && client.stream.socket().is_some()
        {
            self.spliced = client.thread.pipes.lend();
        }
    }

    fn poll_write<S: Wire>(
        &self,
        cx: &mut Context<'_>,
        client: &mut Client<S>,
        work: &Work,
    ) -> Poll<io::Result<usize>> {
        let stream = Pin::new(&mut client.stream);
        let (out, body) = (work.out.as_slice(), &work.answer.data()[..self.ready]);
        let lead = &out[self.at.min(out.len())..];
        let after = self.at.saturating_sub(out.len());
        let rest = &body[after.min(body.len())..];
        let tail = &self.tail[after.saturating_sub(body.len()).min(self.tail.len())..];
        match (lead.is_empty(), rest.is_empty(), tail.is_empty()) {
            (false, true, true) => stream.poll_write(cx, lead),
            (true, false, true) => stream.poll_write(cx, rest),
            _ => stream.poll_write_vectored(
                cx,
                &[IoSlice::new(lead), IoSlice::new(rest), IoSlice::new(tail)],
            ),
        }
    }

    fn poll_read<S: Wire>(
        &mut self,
        cx: &mut Context<'_>,
        client: &Client<S>,
        work: &mut Work,
        backend: &mut TcpStream,
    ) -> Poll<Result<(), Broke>> {
        if work.answer.is_empty() && work.answer.capacity() < LARGE_BYTES {
            let buffers = &client.thread.buffers;
            // A body in full flow: fewer, larger reads.
            if self.body.payload() >= SMALL_BYTES as u64 / 2 {
                buffers.put(std::mem::replace(&mut work.answer, buffers.large()));
            } else if work.answer.capacity() == 0 {
                work.answer = buffers.small();
            }
        }
        if work.answer.room() == 0 {
            work.answer.compact();
        }
        let room = work.answer.room();
        match work.answer.poll_read(cx, backend, room) {
            Poll::Ready(Ok(1..)) => {
                self.fresh = true;
                Poll::Ready(
                    self.filter(work)
                        .map_err(|bad| Broke::Backend(Code::H25, Some(bad.cause))),
                )
            }
            Poll::Ready(Ok(_)) if self.body.ends_with_connection() => {
                self.ended = true;
                if self.chunk {
                    work.out.extend_from_slice(LAST_CHUNK);
                }
                Poll::Ready(Ok(()))
            }
            Poll::Ready(_) => Poll::Ready(Err(Broke::Backend(Code::H18, None))),
            Poll::Pending => {
                if work.answer.is_empty() {
                    client.thread.buffers.put(std::mem::take(&mut work.answer));
                }
                Poll::Pending
            }
        }
    }
}
