//! A request's body as it comes from the client.
//!
//! Owns the reading: before a backend is asked into the request's own buffer,
//! behind the head; from then on piece by piece. Tells a client to send that
//! waits for it (`100 Continue`), and judges the rate of one that is waited for.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use super::super::Work;
use super::super::client::{Client, Wire};
use super::{Trouble, Upload};
use crate::edge::buffer::{Buffer, LARGE_BYTES, PARKED_ROOM, SMALL_BYTES};
use crate::edge::http1::CONTINUE;
use crate::edge::http1::body::Broken;
use crate::edge::http1::request::Refusal;
use crate::observe::Counter;

/// A buffer that a body outgrows becomes so much larger, or by an eighth: who sends
/// slowly takes little more memory than he sent.
const STEP_BYTES: usize = 32 * 1024;

impl Upload {
    /// Reads more of a body of known length, of which nothing was sent, behind
    /// what there is of it. Ready once there is more.
    pub fn poll_more<S: Wire>(
        &mut self,
        cx: &mut Context<'_>,
        client: &mut Client<S>,
        work: &mut Work,
    ) -> Poll<Result<(), Trouble>> {
        ready!(self.poll_continue(cx, client))?;
        if std::mem::take(&mut self.unseen) {
            // It came while its turn was awaited.
            let come = std::mem::take(&mut self.chunk);
            work.input.extend(come.data());
            self.took(work, come.len());
            client.thread.buffers.put(come);
            return Poll::Ready(Ok(()));
        }
        client.thread.buffers.unpark(&mut work.input);
        let left = usize::try_from(self.body.remaining().unwrap_or(0)).unwrap_or(usize::MAX);
        let input = &mut work.input;
        if input.room() <= PARKED_ROOM {
            // What an earlier request left in front of it is room as well.
            input.compact();
        }
        if input.room() <= PARKED_ROOM {
            let all = (input.len() + PARKED_ROOM).saturating_add(left);
            let step = (input.capacity() / 8).max(STEP_BYTES);
            input.grow(all.min(input.capacity() + step));
        }
        // No further: what follows is the next request's.
        let most = left.min(input.room() - PARKED_ROOM);
        match input.poll_read(cx, &mut client.stream, most) {
            Poll::Ready(Ok(read @ 1..)) => {
                self.judge(client, read)?;
                self.took(work, read);
                Poll::Ready(Ok(()))
            }
            Poll::Ready(_) => Poll::Ready(Err(Trouble::ClientGone)),
            Poll::Pending => {
                client.thread.buffers.park(&mut work.input);
                self.await_client(client);
                Poll::Pending
            }
        }
    }

    /// The last `bytes` of `input` are of the body, as far as it goes.
    fn took(&mut self, work: &mut Work, bytes: usize) {
        let left = self.body.remaining().unwrap_or(0);
        let taken = left.min(bytes as u64);
        self.body.pass_unseen(taken);
        self.first.end += taken as usize;
        work.head_bytes = self.first.end;
    }

    /// Tells a client to send the body, if it waits for that.
    fn poll_continue<S: Wire>(
        &mut self,
        cx: &mut Context<'_>,
        client: &mut Client<S>,
    ) -> Poll<Result<(), Trouble>> {
        while let Some(at) = self.owed {
            match ready!(Pin::new(&mut client.stream).poll_write(cx, &CONTINUE[at..])) {
                Ok(n @ 1..) if at + n < CONTINUE.len() => self.owed = Some(at + n),
                Ok(1..) => {
                    self.owed = None;
                    client.thread.cells.inc(Counter::ContinuesSent);
                }
                _ => return Poll::Ready(Err(Trouble::ClientGone)),
            }
        }
        Poll::Ready(Ok(()))
    }

    /// From here on the client is waited for.
    fn await_client<S: Wire>(&mut self, client: &Client<S>) {
        if !self.tempo.is_waiting() {
            self.tempo.wait(client.thread.clock.now());
        }
    }

    /// Whether a client that was waited for keeps its rate, so many bytes having
    /// come.
    fn judge<S: Wire>(&mut self, client: &Client<S>, bytes: usize) -> Result<(), Trouble> {
        if !self.tempo.is_waiting() {
            return Ok(());
        }
        let thread = &client.thread;
        let rate = match self.is_answered {
            false => thread.shared.settings.edge.clients.min_body_rate,
            true => 0,
        };
        match self.tempo.moved(thread.clock.now(), bytes as u64, rate) {
            true => Err(Trouble::TooSlow),
            false => Ok(()),
        }
    }

    /// Reads body bytes from the client.
    pub(super) fn poll_read<S: Wire>(
        &mut self,
        cx: &mut Context<'_>,
        client: &mut Client<S>,
        replay_bytes: usize,
    ) -> Poll<Result<(), Trouble>> {
        ready!(self.poll_continue(cx, client))?;
        if std::mem::take(&mut self.unseen) {
            return Poll::Ready(self.filter(replay_bytes).map_err(Trouble::Malformed));
        }
        // A body in full flow: fewer, larger reads.
        let flowing = self.body.payload() > 4 * SMALL_BYTES as u64;
        let wanted = if flowing { LARGE_BYTES } else { SMALL_BYTES };
        if self.chunk.capacity() < wanted {
            self.widen(client, wanted);
        }
        if self.chunk.room() == 0 {
            self.chunk.compact();
        }
        let room = self.chunk.room();
        match self.chunk.poll_read(cx, &mut client.stream, room) {
            Poll::Ready(Ok(read @ 1..)) => self.judge(client, read)?,
            Poll::Ready(_) => return Poll::Ready(Err(Trouble::ClientGone)),
            Poll::Pending => {
                self.await_client(client);
                // Many may send slowly: what waits for them is little.
                client.thread.buffers.park(&mut self.chunk);
                return Poll::Pending;
            }
        }
        Poll::Ready(self.filter(replay_bytes).map_err(Trouble::Malformed))
    }

    /// A buffer of this size, large or small, for what is held.
    pub(super) fn widen<S>(&mut self, client: &Client<S>, bytes: usize) {
        let buffers = &client.thread.buffers;
        let mut wider = if bytes == LARGE_BYTES {
            buffers.large()
        } else {
            buffers.small()
        };
        wider.extend(self.chunk.data());
        buffers.put(std::mem::replace(&mut self.chunk, wider));
    }

    /// Passes what was read through the body's filter and keeps it for a retry.
    fn filter(&mut self, replay_bytes: usize) -> Result<(), Refusal> {
        let progress = self
            .body
            .advance(self.chunk.data_mut())
            .map_err(malformed)?;
        self.chunk.close_gap(progress.produced, progress.consumed);
        self.pending = progress.produced;
        if self.whole {
            let kept = self.first.len() + self.replay.len() + self.pending;
            if kept <= replay_bytes {
                self.replay.extend(&self.chunk.data()[..self.pending]);
            } else {
                self.whole = false;
                self.replay = Buffer::default();
            }
        }
        Ok(())
    }
}

pub(super) fn malformed(broken: Broken) -> Refusal {
    Refusal {
        status: 400,
        cause: broken.cause,
    }
}
