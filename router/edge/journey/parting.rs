//! How a client's connection ends.
//!
//! Owns the lingering close that lets a last answer arrive, and the close that
//! shows that something is missing. Holds no buffer but while it reads:
//! thousands may be closed at once.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use super::End;
use super::client::{Client, Wire};
use crate::observe::Counter;

/// A lingering close reads and discards at most this long, this much.
const LINGER: Duration = Duration::from_secs(2);
/// One of an idle connection, whose client may have sent at that very moment:
/// it then reads an end, and not a reset that would take it for a failure.
const IDLE_LINGER: Duration = Duration::from_millis(500);
const LINGER_BYTES: usize = 1024 * 1024;

/// What a connection's end is like.
pub(super) enum Parting {
    /// At once.
    Now(Counter),
    /// Once its client has had time to read what was answered.
    Answered(Counter),
    /// The same, of an idle one that the router closes.
    Dismissed(Counter),
    /// So that its client sees that something is missing.
    Cut(Counter),
}

impl Parting {
    /// After a request that ended so; `None`: another may follow.
    pub(super) fn after(end: End) -> Option<Parting> {
        match end {
            End::KeepAlive => None,
            End::Close(reason) => Some(Parting::Answered(reason)),
            End::Yield(reason) => Some(Parting::Now(reason)),
            End::Cut(reason) => Some(Parting::Cut(reason)),
        }
    }

    /// Ends the connection, but for closing its socket; why.
    pub(super) async fn part<S: Wire>(self, client: &mut Client<S>) -> Counter {
        match self {
            Parting::Now(reason) => reason,
            Parting::Answered(reason) => {
                linger(client, LINGER).await;
                reason
            }
            Parting::Dismissed(reason) => {
                linger(client, IDLE_LINGER).await;
                reason
            }
            Parting::Cut(reason) => {
                client.stream.reset_on_close();
                reason
            }
        }
    }
}

/// Closes our side and reads on for a moment: a close with bytes unread would
/// reset the connection and could destroy the answer on its way (RFC 9112,
/// section 9.6).
async fn linger<S: Wire>(client: &mut Client<S>, time: Duration) {
    let now = client.thread.clock.now();
    client.deadline.set_after(now, time);
    let mut discarded = 0;
    poll_fn(|cx| {
        let is_closed = Pin::new(&mut client.stream).poll_shutdown(cx).is_ready();
        if is_closed && poll_discard(cx, client, &mut discarded).is_ready() {
            return Poll::Ready(());
        }
        client.deadline.poll(cx)
    })
    .await;
}

/// Drops what comes; ready when nothing more will, or too much has.
fn poll_discard<S: Wire>(
    cx: &mut Context<'_>,
    client: &mut Client<S>,
    discarded: &mut usize,
) -> Poll<()> {
    let mut buffer = client.thread.buffers.small();
    let over = loop {
        buffer.clear();
        let room = buffer.room();
        match buffer.poll_read(cx, &mut client.stream, room) {
            Poll::Ready(Ok(read @ 1..)) if *discarded < LINGER_BYTES => *discarded += read,
            Poll::Ready(_) => break Poll::Ready(()),
            Poll::Pending => break Poll::Pending,
        }
    };
    client.thread.buffers.put(buffer);
    over
}
