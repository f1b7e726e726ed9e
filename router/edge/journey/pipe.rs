//! An upgraded connection: after a 101, bytes both ways until both ends are
//! done.
//!
//! Owns the two directions and their half-closes. Knows nothing of what is
//! spoken: WebSocket or anything else.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use super::attempt::Answered;
use super::client::{Client, Wire};
use super::ledger::Ledger;
use super::{End, Work, relay};
use crate::edge::buffer::{Buffer, Buffers};
use crate::observe::{Code, Counter, Gauge};
use crate::table::App;

/// One direction.
struct Way {
    /// Read and not yet written; holds no memory while nothing is on its way.
    buffer: Buffer,
    /// The reading end saw the end of the stream.
    ended: bool,
    /// And the writing end was told.
    closed: bool,
    bytes: u64,
}

impl Way {
    fn new(buffer: Buffer) -> Self {
        Way {
            buffer,
            ended: false,
            closed: false,
            bytes: 0,
        }
    }

    /// Moves what can be moved; ready once the end has been passed on.
    fn poll<R: AsyncRead + Unpin, W: AsyncWrite + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        buffers: &Buffers,
        from: &mut R,
        to: &mut W,
        progress: &mut bool,
    ) -> Poll<io::Result<()>> {
        loop {
            while !self.buffer.is_empty() {
                let Poll::Ready(wrote) = Pin::new(&mut *to).poll_write(cx, self.buffer.data())?
                else {
                    return Poll::Pending;
                };
                if wrote == 0 {
                    return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
                }
                self.bytes += wrote as u64;
                self.buffer.consume(wrote);
                *progress = true;
            }
            if self.closed {
                return Poll::Ready(Ok(()));
            }
            if self.ended {
                self.closed = Pin::new(&mut *to).poll_shutdown(cx)?.is_ready();
                return if self.closed {
                    Poll::Ready(Ok(()))
                } else {
                    Poll::Pending
                };
            }
            if self.buffer.capacity() == 0 {
                self.buffer = buffers.small();
            }
            let room = self.buffer.room();
            match self.buffer.poll_read(cx, from, room)? {
                Poll::Ready(0) => self.ended = true,
                Poll::Ready(_) => *progress = true,
                Poll::Pending => {
                    buffers.put(std::mem::take(&mut self.buffer));
                    return Poll::Pending;
                }
            }
        }
    }
}

/// Passes the 101 on and becomes a pipe.
pub async fn upgrade<S: Wire>(
    client: &mut Client<S>,
    work: &mut Work,
    ledger: &mut Ledger,
    answered: Answered,
) -> End {
    let Answered {
        checkout,
        mut backend,
    } = answered;
    relay::write_head(work, ledger, false);
    let early = std::mem::take(&mut work.answer);
    let head = std::mem::take(&mut work.out);
    let told = client.write_all(&head).await;
    work.out = head;
    if told.is_err() {
        ledger.ended(499, Code::H27);
        return End::Cut(Counter::ClosedClientAborted);
    }
    let thread = Rc::clone(&client.thread);
    thread.cells.inc(Counter::Upgrades);
    thread.cells.up(Gauge::UpgradesOpen);
    let mut down = Way::new(early);
    let mut up = Way::new(Buffer::default());
    // What the client sent behind its head belongs to the new protocol.
    if work.input.len() > work.head_bytes {
        up.buffer = thread.buffers.small();
        up.buffer.extend(&work.input.data()[work.head_bytes..]);
        work.input.truncate(work.head_bytes);
    }
    // Hours may pass: what is kept of the head is what the log will tell.
    thread.buffers.park(&mut work.input);
    let kept_bytes = work.held_bytes();
    let outgrows = |bytes| ledger.outgrows(kept_bytes + bytes);
    let app = checkout.app();
    let ended = flow(client, &mut backend, &mut down, &mut up, app, outgrows).await;
    thread.cells.down(Gauge::UpgradesOpen);
    thread.cells.add(Counter::ClientReceivedBytes, up.bytes);
    ledger.bytes = down.bytes;
    ledger.code = ended.err().flatten();
    thread.buffers.put(down.buffer);
    thread.buffers.put(up.buffer);
    drop(checkout);
    match ended {
        Ok(()) => End::Close(Counter::ClosedUpgraded),
        Err(Some(Code::H24)) => End::Cut(Counter::ClosedForced),
        Err(Some(Code::H22)) => End::Cut(Counter::ClosedEvicted),
        Err(_) => End::Cut(Counter::ClosedUpgraded),
    }
}

/// Bytes both ways until both ends are done. Errors: it was cut, with a code
/// unless one of the ends hung up. `outgrows` is told what is on its way, and tells
/// whether that is too much.
async fn flow<S: Wire>(
    client: &mut Client<S>,
    backend: &mut TcpStream,
    down: &mut Way,
    up: &mut Way,
    app: &App,
    mut outgrows: impl FnMut(usize) -> bool,
) -> Result<(), Option<Code>> {
    let thread = Rc::clone(&client.thread);
    let buffers = &thread.buffers;
    let mut progress = true;
    poll_fn(|cx| {
        let to_client = down.poll(cx, buffers, backend, &mut client.stream, &mut progress);
        let to_backend = up.poll(cx, buffers, &mut client.stream, backend, &mut progress);
        match (to_client, to_backend) {
            (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) => return Poll::Ready(Ok(())),
            // A reset ends the pipe: it is how many clients hang up.
            (Poll::Ready(Err(_)), _) | (_, Poll::Ready(Err(_))) => return Poll::Ready(Err(None)),
            _ => {}
        }
        if client.poll_forced(cx).is_ready() {
            return Poll::Ready(Err(Some(Code::H24)));
        }
        if outgrows(down.buffer.capacity() + up.buffer.capacity()) {
            return Poll::Ready(Err(Some(Code::H22)));
        }
        if std::mem::take(&mut progress) {
            client
                .deadline
                .set_after(thread.clock.now(), app.policy.idle_timeout);
        }
        // Idle both ways: the app should have sent a ping.
        client.deadline.poll(cx).map(|()| Err(Some(Code::H15)))
    })
    .await
}
