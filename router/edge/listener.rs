//! Accepting client connections.
//!
//! Owns when a listener is opened, and its accept loop on one thread: one that
//! listened before its edge serves would hold clients that nobody accepts. At the
//! descriptor limit
//! accepting pauses, it does not fail; an edge that leaves first takes what the
//! kernel has already accepted on its behalf, since nobody may take it up: a
//! successor may listen elsewhere, and at a shutdown there is none.

use std::future::poll_fn;
use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener};
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use socket2::SockRef;
use tokio::net::TcpStream;

use super::journey;
use super::thread::{Listening, Thread};
use crate::heritage::BACKLOG;
use crate::observe::Counter;

/// How long accepting rests when the process has no descriptor left.
const PAUSE: Duration = Duration::from_millis(20);

/// Connections that are taken from the backlog by an edge that leaves: clients
/// that come faster than they are taken would otherwise keep it.
const LAST_TAKEN: u32 = 4_096;

/// Opens every listener; those that listen already, since clients were to wait
/// for the first edge or another accepted from them, stay as they are.
///
/// # Errors
/// One cannot be opened: then none of those that were closed is.
pub fn open(listeners: &[Vec<TcpListener>]) -> io::Result<()> {
    let mut opened = Vec::new();
    for socket in listeners.iter().flatten().map(SockRef::from) {
        let was_open = socket.is_listener()?;
        if let Err(error) = socket.listen(BACKLOG) {
            for socket in opened {
                close(&socket);
            }
            return Err(error);
        }
        if !was_open {
            opened.push(socket);
        }
    }
    Ok(())
}

/// On Linux it stays bound, and the supervisor's.
fn close(socket: &SockRef<'_>) {
    if let Err(error) = socket.shutdown(Shutdown::Read) {
        tracing::error!(%error, "a listening socket cannot be closed");
    }
}

/// Accepts until the thread leaves.
pub async fn accept(listening: Listening, listener: TcpListener) {
    let thread = listening.thread();
    let listener = match tokio::net::TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::error!(%error, "a listening socket cannot be used");
            return;
        }
    };
    // The deadline never comes due: it is how a leave wakes this task.
    let wake = thread.clock.deadline();
    loop {
        let accepted = poll_fn(|cx| {
            if !thread.is_serving() {
                return Poll::Ready(None);
            }
            let accepted = listener.poll_accept(cx);
            if accepted.is_pending() {
                let _ = wake.poll(cx);
            }
            accepted.map(Some)
        });
        match accepted.await {
            None => break,
            Some(Ok((stream, peer))) => welcome(thread, stream, peer),
            Some(Err(error)) => refused(thread, &error).await,
        }
    }
    if let Ok(listener) = listener.into_std() {
        take_rest(thread, &listener);
    }
}

/// Takes what is in the backlog. Asks the system: the event loop may not have
/// been told of those that came last.
fn take_rest(thread: &Rc<Thread>, listener: &TcpListener) {
    for _ in 0..LAST_TAKEN {
        match listener.accept() {
            Ok((stream, peer)) => {
                let stream = stream
                    .set_nonblocking(true)
                    .and_then(|()| TcpStream::from_std(stream));
                if let Ok(stream) = stream {
                    welcome(thread, stream, peer);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            // Nobody is left; or no descriptor is, and none will be soon.
            Err(_) => return,
        }
    }
}

fn welcome(thread: &Rc<Thread>, stream: TcpStream, peer: SocketAddr) {
    thread.cells.inc(Counter::ConnectionsAccepted);
    let (Ok(local), Ok(())) = (stream.local_addr(), stream.set_nodelay(true)) else {
        thread.cells.inc(Counter::ClosedError);
        return;
    };
    thread.spawn(journey::serve(Rc::clone(thread), stream, peer, local));
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
