//! A request's body on its way to the backend.
//!
//! Owns what is left to send of a request and the bytes kept for sending it
//! again: those that came before a backend was asked stay where they are, behind
//! the head; later ones are copied into a replay buffer until all would outgrow
//! the app's `replay_bytes`. Never decides to retry, nor how much is taken in
//! before ([`collect`](super::collect)).

mod intake;

use std::io::{self, IoSlice};
use std::ops::Range;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::AsyncWrite;
use tokio::net::TcpStream;

use self::intake::malformed;
use super::attempt::Failed;
use super::client::{Client, Wire};
use super::{Work, has_body};
use crate::edge::buffer::{Buffer, SMALL_BYTES};
use crate::edge::http1::body::{Body, Mode};
use crate::edge::http1::request::Refusal;
use crate::observe::Code;
use crate::policy::tempo::Tempo;

/// A body left unread by the router's own answer is read and dropped up to
/// this size to keep the connection.
const SETTLED_BYTES: u64 = 64 * 1024;
const SETTLED_IN: Duration = Duration::from_secs(1);

/// A request being sent.
pub struct Upload {
    body: Body,
    /// Body bytes that came before a backend was asked, filtered, as offsets in
    /// `input`.
    first: Range<usize>,
    /// Body bytes since, filtered: `pending` at the front to be sent, then raw
    /// ones that belong to what follows.
    chunk: Buffer,
    pending: usize,
    /// The raw ones are of the body and have not met the filter.
    unseen: bool,
    /// Filtered bytes after `first`, while all of them fit.
    replay: Buffer,
    whole: bool,
    stage: Stage,
    /// Whether `100 Continue` is owed, and how much of it is written.
    owed: Option<usize>,
    /// How fast the client sends while it is waited for.
    tempo: Tempo,
    /// The answer's head is in: the two may talk at any pace.
    is_answered: bool,
    /// Bytes went to the backend in this attempt.
    pub touched: bool,
}

/// What is being sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// The head and the first body bytes, in one write where they fit.
    Lead(usize),
    /// What a failed attempt had sent beyond them.
    Replay(usize),
    /// Body bytes as the client sends them.
    Live,
    /// Everything is sent.
    Done,
    /// The backend takes no more; its answer may still come.
    Refused,
}

/// Why an upload cannot go on.
pub enum Trouble {
    /// The client went away or broke off.
    ClientGone,
    /// It sends, but slower than anybody has to wait for; not once the answer's
    /// head is in.
    TooSlow,
    /// The body breaks its framing.
    Malformed(Refusal),
}

/// What a client is told whose body drips.
const TOO_SLOW: Refusal = Refusal {
    status: 408,
    cause: "body too slow",
};

impl From<Trouble> for Failed {
    fn from(trouble: Trouble) -> Failed {
        match trouble {
            Trouble::ClientGone => Failed::Client(Code::H27),
            Trouble::TooSlow => Failed::Refused(TOO_SLOW),
            Trouble::Malformed(refusal) => Failed::Refused(refusal),
        }
    }
}

impl Upload {
    /// Takes stock of what came with the head. Errors: the body's framing is
    /// broken already.
    pub fn begin(work: &mut Work) -> Result<Self, Refusal> {
        let mut upload = Upload {
            body: Body::new(work.head.framing, Mode::Forward),
            first: work.head_bytes..work.head_bytes,
            chunk: Buffer::default(),
            pending: 0,
            unseen: false,
            replay: Buffer::default(),
            whole: true,
            stage: Stage::Lead(0),
            owed: work.head.expect_continue.then_some(0),
            tempo: Tempo::default(),
            is_answered: false,
            touched: false,
        };
        if has_body(work.head.framing) && work.input.len() > work.head_bytes {
            let rest = &mut work.input.data_mut()[work.head_bytes..];
            let progress = upload.body.advance(rest).map_err(malformed)?;
            upload.first.end = work.head_bytes + progress.produced;
            work.head_bytes += progress.consumed;
            if !progress.done && work.input.len() > work.head_bytes {
                // The filter wants to see these again with what follows them.
                upload.chunk.extend(&work.input.data()[work.head_bytes..]);
                work.input.truncate(work.head_bytes);
            }
            // A client that sends without waiting is not kept waiting.
            upload.owed = None;
        }
        Ok(upload)
    }

    /// Bytes of its buffers.
    pub fn held_bytes(&self) -> usize {
        self.chunk.capacity() + self.replay.capacity()
    }

    /// Whether all of the body is here.
    pub fn is_whole(&self) -> bool {
        self.body.done()
    }

    /// Whether everything was sent.
    pub fn is_done(&self) -> bool {
        self.stage == Stage::Done
    }

    /// Whether nothing more will be sent, the end reached or not.
    pub fn is_over(&self) -> bool {
        matches!(self.stage, Stage::Done | Stage::Refused)
    }

    /// Whether the next write waits for the backend rather than the client.
    pub fn awaits_backend(&self) -> bool {
        !self.is_over() && (self.stage != Stage::Live || self.pending > 0)
    }

    /// Whether all that was sent could be sent again.
    pub fn is_replayable(&self) -> bool {
        self.whole
    }

    /// Payload bytes read from the client.
    pub fn payload_bytes(&self) -> u64 {
        self.body.payload()
    }

    /// The answer's head is in. From here on the client's pace is between it and
    /// the app: who streams both ways may say little.
    pub fn answered(&mut self) {
        self.is_answered = true;
    }

    /// From the start again, to another connection.
    pub fn rewind(&mut self) {
        debug_assert!(self.whole, "only a whole upload may be sent again");
        // What was read but not sent is the end of what is kept.
        self.chunk.consume(self.pending);
        self.pending = 0;
        self.stage = Stage::Lead(0);
        self.tempo = Tempo::default();
        self.touched = false;
    }

    /// Back to a try that was sent whole before another began.
    pub fn finish(&mut self) {
        debug_assert!(self.body.done(), "only a whole upload may be finished");
        self.pending = 0;
        self.stage = Stage::Done;
        self.touched = true;
    }

    /// Notices a client that leaves while nothing is read from it. What it
    /// sends meanwhile is kept in its order, as far as there is room: behind
    /// the body bytes held here, or in `input` if the body is over.
    pub fn poll_gone<S: Wire>(
        &mut self,
        cx: &mut Context<'_>,
        client: &mut Client<S>,
        input: &mut Buffer,
    ) -> Poll<()> {
        if self.body.done() && self.chunk.is_empty() {
            return client.poll_gone(cx, input);
        }
        if self.chunk.capacity() < SMALL_BYTES {
            self.widen(client, SMALL_BYTES);
        }
        let held = self.chunk.len();
        let gone = client.poll_gone(cx, &mut self.chunk);
        if self.chunk.len() > held && !self.body.done() {
            self.unseen = true;
            self.owed = self.owed.filter(|written| *written > 0);
        }
        client.thread.buffers.park(&mut self.chunk);
        gone
    }

    /// What can be sent no more is not kept: of a large body there is only what
    /// is on its way.
    fn forget_first<S: Wire>(&mut self, client: &Client<S>, work: &mut Work) {
        let head_bytes = self.first.start;
        work.input.truncate(head_bytes);
        work.head_bytes = head_bytes;
        self.first = head_bytes..head_bytes;
        client.thread.buffers.park(&mut work.input);
    }

    /// Sends what can be sent now. Ready once nothing is left, or on trouble
    /// with the client; a backend that takes no more ends it quietly, since its
    /// answer may already be on the way.
    pub fn poll<S: Wire>(
        &mut self,
        cx: &mut Context<'_>,
        client: &mut Client<S>,
        work: &mut Work,
        backend: &mut TcpStream,
        replay_bytes: usize,
        progress: &mut bool,
    ) -> Poll<Result<(), Trouble>> {
        loop {
            let sent = match self.stage {
                Stage::Done | Stage::Refused => return Poll::Ready(Ok(())),
                Stage::Lead(at) => self.poll_lead(cx, work, backend, at),
                Stage::Replay(at) => self.poll_replay(cx, backend, at),
                Stage::Live if self.pending > 0 => self.poll_pending(cx, backend),
                Stage::Live if self.body.done() => {
                    work.input.extend(self.chunk.data());
                    client.thread.buffers.put(std::mem::take(&mut self.chunk));
                    self.stage = Stage::Done;
                    continue;
                }
                Stage::Live => {
                    let read = ready!(self.poll_read(cx, client, replay_bytes));
                    if !self.whole && !self.first.is_empty() {
                        self.forget_first(client, work);
                    }
                    read?;
                    Poll::Ready(Ok(()))
                }
            };
            match sent {
                Poll::Ready(Ok(())) => *progress = true,
                Poll::Ready(Err(_)) => self.stage = Stage::Refused,
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    fn poll_lead(
        &mut self,
        cx: &mut Context<'_>,
        work: &Work,
        backend: &mut TcpStream,
        at: usize,
    ) -> Poll<io::Result<()>> {
        let first = &work.input.data()[self.first.clone()];
        let head = &work.sent[at.min(work.sent.len())..];
        let body = &first[at.saturating_sub(work.sent.len())..];
        let wrote = if body.is_empty() {
            Pin::new(backend).poll_write(cx, head)
        } else {
            Pin::new(backend).poll_write_vectored(cx, &[IoSlice::new(head), IoSlice::new(body)])
        };
        let Poll::Ready(wrote) = wrote else {
            return Poll::Pending;
        };
        let at = at + nonzero(wrote)?;
        self.touched = true;
        self.stage = if at < work.sent.len() + first.len() {
            Stage::Lead(at)
        } else if self.replay.is_empty() && self.body.done() && self.chunk.is_empty() {
            Stage::Done
        } else {
            Stage::Replay(0)
        };
        Poll::Ready(Ok(()))
    }

    fn poll_replay(
        &mut self,
        cx: &mut Context<'_>,
        backend: &mut TcpStream,
        at: usize,
    ) -> Poll<io::Result<()>> {
        if at == self.replay.len() {
            self.stage = Stage::Live;
            return Poll::Ready(Ok(()));
        }
        let Poll::Ready(wrote) = Pin::new(backend).poll_write(cx, &self.replay.data()[at..]) else {
            return Poll::Pending;
        };
        self.stage = Stage::Replay(at + nonzero(wrote)?);
        Poll::Ready(Ok(()))
    }

    fn poll_pending(
        &mut self,
        cx: &mut Context<'_>,
        backend: &mut TcpStream,
    ) -> Poll<io::Result<()>> {
        let Poll::Ready(wrote) =
            Pin::new(backend).poll_write(cx, &self.chunk.data()[..self.pending])
        else {
            return Poll::Pending;
        };
        let wrote = nonzero(wrote)?;
        self.chunk.consume(wrote);
        self.pending -= wrote;
        Poll::Ready(Ok(()))
    }

    /// After an answer of the router's own: reads and drops what is left of a
    /// small body, so that the connection can be kept. Whether it can.
    pub async fn settle<S: Wire>(&mut self, client: &mut Client<S>, work: &mut Work) -> bool {
        // What no backend took is not the next request's.
        self.chunk.consume(self.pending);
        self.pending = 0;
        if self.body.done() {
            work.input.extend(self.chunk.data());
            self.chunk.clear();
            return true;
        }
        // Without the 100 it waits for, a client may send the body or not.
        if self.owed.is_some()
            || self
                .body
                .remaining()
                .is_none_or(|left| left > SETTLED_BYTES)
        {
            return false;
        }
        // What is refused holds nothing meanwhile.
        client.thread.buffers.park(&mut work.input);
        client
            .deadline
            .set_after(client.thread.clock.now(), SETTLED_IN);
        std::future::poll_fn(|cx| {
            while !self.body.done() {
                self.chunk.consume(self.pending);
                self.pending = 0;
                match self.poll_read(cx, client, 0) {
                    Poll::Ready(Ok(())) => {}
                    Poll::Ready(Err(_)) => return Poll::Ready(false),
                    Poll::Pending => return client.deadline.poll(cx).map(|()| false),
                }
            }
            self.chunk.consume(self.pending);
            self.pending = 0;
            work.input.extend(self.chunk.data());
            Poll::Ready(true)
        })
        .await
    }
}

fn nonzero(wrote: io::Result<usize>) -> io::Result<usize> {
    match wrote {
        Ok(0) => Err(io::ErrorKind::WriteZero.into()),
        other => other,
    }
}
