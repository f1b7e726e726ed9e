//! A new connection to a backend.
//!
//! Owns the time it may take and what its failures mean: the backend's doing,
//! or the router's own want of descriptors and ports.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use tokio::net::TcpStream;

use super::Work;
use super::attempt::{ConnectFault, Failed, Fault};
use super::client::{Client, Wire};
use super::ledger::Ledger;
use super::upload::Upload;
use crate::edge::clock::Micros;
use crate::edge::upstream;
use crate::observe::{Code, Counter, Histogram};
use crate::table::App;

/// Queueing and connecting, retries included, end after this.
const CONNECT_PHASE: Duration = Duration::from_secs(75);

/// Opens a connection, within the attempt's and the phase's time.
pub(super) async fn open<S: Wire>(
    client: &mut Client<S>,
    work: &mut Work,
    ledger: &mut Ledger,
    upload: &mut Upload,
    app: &App,
    address: SocketAddr,
) -> Result<TcpStream, Fault> {
    let thread = Rc::clone(&client.thread);
    let since = thread.clock.now();
    client.deadline.set_after(
        since,
        app.policy.connect_timeout.min(phase_left(ledger, since)),
    );
    let mut connecting = pin!(upstream::connect(address));
    let outcome = poll_fn(|cx| {
        if let Poll::Ready(connected) = connecting.as_mut().poll(cx) {
            return Poll::Ready(connected.map_err(|error| connect_fault(client, &error)));
        }
        if upload.poll_gone(cx, client, &mut work.input).is_ready() {
            return Poll::Ready(Err(Fault::Final(Failed::Client(Code::H27))));
        }
        client.deadline.poll(cx).map(|()| {
            thread.cells.inc(Counter::ConnectTimedOut);
            Err(Fault::Connect(ConnectFault::TimedOut))
        })
    })
    .await;
    let took = thread.clock.now() - since;
    ledger.connect_us = Some(took);
    if outcome.is_ok() {
        thread.cells.inc(Counter::BackendOpened);
        thread.cells.observe(Histogram::Connect, took);
    }
    outcome
}

/// What is left of the time for queueing and connecting.
fn phase_left(ledger: &Ledger, now: Micros) -> Duration {
    CONNECT_PHASE.saturating_sub(Duration::from_micros(now.saturating_sub(ledger.began)))
}

fn connect_fault<S>(client: &Client<S>, error: &io::Error) -> Fault {
    use io::ErrorKind as Kind;
    let (counter, fault) = match error.kind() {
        Kind::ConnectionRefused => (Counter::ConnectRefused, ConnectFault::Refused),
        Kind::TimedOut => (Counter::ConnectTimedOut, ConnectFault::TimedOut),
        Kind::HostUnreachable | Kind::NetworkUnreachable => {
            (Counter::ConnectUnreachable, ConnectFault::Refused)
        }
        _ if matches!(
            rustix::io::Errno::from_io_error(error),
            Some(
                rustix::io::Errno::MFILE
                    | rustix::io::Errno::NFILE
                    | rustix::io::Errno::ADDRNOTAVAIL
            )
        ) =>
        {
            // The router's own want, not the backend's: no attempt elsewhere
            // would fare better.
            client.thread.cells.inc(Counter::ConnectExhausted);
            return Fault::Final(Failed::Answer(Code::H22));
        }
        _ => (Counter::ConnectOther, ConnectFault::Refused),
    };
    client.thread.cells.inc(counter);
    Fault::Connect(fault)
}
