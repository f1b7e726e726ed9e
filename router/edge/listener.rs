//! Accepting client connections.
//!
//! Owns when a listener is opened (one that listened before its edge serves would
//! hold clients that nobody accepts), its accept loop on one thread, and turning
//! clients away beyond the [`door`](super::door)'s limits. Where descriptors run
//! short it closes who waits longest for a next request, else it pauses; accepting
//! does not fail, and leaves some for backends. An edge that leaves first takes what the
//! kernel has already accepted on its behalf, since nobody may take it up: a
//! successor may listen elsewhere, and at a shutdown there is none.

use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener};
use std::os::fd::AsRawFd;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use socket2::SockRef;
use tokio::net::TcpStream;

use super::door::{Pass, Plight};
use super::journey;
use super::thread::{Listening, Thread};
use crate::heritage::BACKLOG;
use crate::observe::Counter;

/// How long accepting rests when the process has no descriptor to spare.
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
    let mut at_once = 0;
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
            Some(Ok((stream, peer))) => {
                if welcome(thread, stream, peer) {
                    relieve(thread, &listener).await;
                }
                at_once += 1;
                if thread.gate.is_shut() && at_once >= thread.gate.accepts() {
                    // Those that are open have a turn between.
                    at_once = 0;
                    tokio::task::yield_now().await;
                }
            }
            Some(Err(error)) => refused(thread, &listener, &error).await,
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
                    let _ = welcome(thread, stream, peer);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            // Nobody is left; or no descriptor is, and none will be soon.
            Err(_) => return,
        }
    }
}

/// Serves a connection, or turns it away. Whether descriptors are short now.
fn welcome(thread: &Rc<Thread>, stream: TcpStream, peer: SocketAddr) -> bool {
    let pass = match admit(thread, peer.ip()) {
        Ok(pass) => pass,
        Err(plight) => {
            turn_away(thread, &stream, plight);
            return false;
        }
    };
    thread.cells.inc(Counter::ConnectionsAccepted);
    let (Ok(local), Ok(())) = (stream.local_addr(), stream.set_nodelay(true)) else {
        thread.cells.inc(Counter::ClosedError);
        return false;
    };
    let is_short = thread.shared.door.is_reserved(stream.as_raw_fd());
    thread.spawn(journey::serve(thread.opened(pass), stream, peer, local));
    is_short
}

/// Whether there may be one more. Balancers in front stand for many clients:
/// their addresses do not count.
fn admit(thread: &Thread, address: IpAddr) -> Result<Option<Pass>, Plight> {
    let shared = &thread.shared;
    let pass = match shared.settings.edge.trusts(address) {
        true => None,
        false => shared.door.enter(address)?,
    };
    if shared.connections() >= shared.door.most() as u64 && !thread.make_place() {
        shared.door.want();
        return Err(Plight::Full);
    }
    Ok(pass)
}

fn turn_away(thread: &Thread, stream: &TcpStream, plight: Plight) {
    thread.cells.inc(match plight {
        Plight::Address => Counter::RefusedAddress,
        _ => Counter::RefusedFull,
    });
    thread.tell(plight);
    // At once, and without a trace in the kernel.
    let _ = stream.set_zero_linger();
}

/// Makes do with the descriptors there are: closes who waits longest, and rests
/// while there is nobody and none.
async fn relieve(thread: &Thread, listener: &tokio::net::TcpListener) {
    thread.tell(Plight::Descriptors);
    if thread.dismiss_one() {
        // Its task closes it.
        tokio::task::yield_now().await;
        return;
    }
    while thread.is_serving() && thread.shared.door.is_short(listener) {
        tokio::time::sleep(PAUSE).await;
        thread.dismiss_one();
    }
}

/// Counts a failed accept; rests where trying again at once would only spin.
async fn refused(thread: &Thread, listener: &tokio::net::TcpListener, error: &io::Error) {
    use rustix::io::Errno;
    match Errno::from_io_error(error) {
        Some(Errno::MFILE) => {
            thread.cells.inc(Counter::AcceptDescriptors);
            relieve(thread, listener).await;
        }
        Some(Errno::NFILE | Errno::NOBUFS | Errno::NOMEM) => {
            thread.cells.inc(Counter::AcceptDescriptors);
            thread.dismiss_one();
            tokio::time::sleep(PAUSE).await;
        }
        Some(Errno::CONNABORTED) => thread.cells.inc(Counter::AcceptAborted),
        _ => {
            thread.cells.inc(Counter::AcceptOther);
            tokio::time::sleep(PAUSE).await;
        }
    }
}
