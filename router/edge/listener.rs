//! Accepting client connections.
//!
//! Owns the accept loop of one listener on one thread. At the descriptor limit
//! accepting pauses, it does not fail; a drain first takes what the kernel has
//! already accepted on our behalf.

use std::future::poll_fn;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use tokio::net::TcpStream;

use super::journey;
use super::thread::{Phase, Thread};
use crate::observe::Counter;

/// How long accepting rests when the process has no descriptor left.
const PAUSE: Duration = Duration::from_millis(20);

/// Accepts until the thread drains.
pub async fn accept(thread: Rc<Thread>, listener: TcpListener) {
    let listener = match tokio::net::TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::error!(%error, "a listening socket cannot be used");
            return;
        }
    };
    // The deadline never comes due: it is how a drain wakes this task.
    let wake = thread.clock.deadline();
    loop {
        let accepted = poll_fn(|cx| match listener.poll_accept(cx) {
            Poll::Pending if thread.phase() != Phase::Serving => Poll::Ready(None),
            Poll::Pending => {
                let _ = wake.poll(cx);
                Poll::Pending
            }
            Poll::Ready(accepted) => Poll::Ready(Some(accepted)),
        });
        match accepted.await {
            None => return,
            Some(Ok((stream, peer))) => welcome(&thread, stream, peer),
            Some(Err(error)) => refused(&thread, &error).await,
        }
    }
}

fn welcome(thread: &Rc<Thread>, stream: TcpStream, peer: SocketAddr) {
    thread.cells.inc(Counter::ConnectionsAccepted);
    let (Ok(local), Ok(())) = (stream.local_addr(), stream.set_nodelay(true)) else {
        thread.cells.inc(Counter::ClosedError);
        return;
    };
    tokio::task::spawn_local(journey::serve(Rc::clone(thread), stream, peer, local));
}

/// Counts a failed accept; rests where trying again at once would only spin.
async fn refused(thread: &Thread, error: &io::Error) {
    use rustix::io::Errno;
    match Errno::from_io_error(error) {
        Some(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM) => {
            thread.cells.inc(Counter::AcceptDescriptors);
            tokio::time::sleep(PAUSE).await;
        }
        Some(Errno::CONNABORTED) => thread.cells.inc(Counter::AcceptAborted),
        _ => {
            thread.cells.inc(Counter::AcceptOther);
            tokio::time::sleep(PAUSE).await;
        }
    }
}
