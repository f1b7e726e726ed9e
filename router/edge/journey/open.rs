//! A connection to a backend: one kept from before, or a new one.
//!
//! Owns the time a new one may take and what its failures mean: the backend's
//! doing, or the router's own want of descriptors and ports.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use tokio::net::TcpStream;

use super::attempt::{ConnectFault, Failed, Fault, Halt};
use super::client::Wire;
use super::exchange::{Exchange, after};
use super::pick;
use crate::edge::clock::Micros;
use crate::edge::thread::Thread;
use crate::edge::upstream;
use crate::observe::{Code, Counter, Histogram};
use crate::table::Checkout;

/// Queueing and connecting, retries included, take at most this together; what
/// the request was sent for meanwhile does not count.
const CONNECT_PHASE: Duration = Duration::from_secs(75);

/// A connection that takes longer is given up while another backend is left:
/// between a lost packet's repeat (1 s) and any round trip.
const QUICK_CONNECT: Duration = Duration::from_millis(500);

/// Clients without a request that go for one connection to a backend.
const MADE_ROOM: usize = 3;

/// A connection for a try.
pub(super) async fn connection<S: Wire>(
    ex: &mut Exchange<'_, S>,
    checkout: &Checkout,
) -> Result<TcpStream, Halt> {
    let reusable = !ex.tries.fresh_only && ex.app.policy.backend_keepalive;
    let pool = &ex.client.thread.pool;
    // What must not be sent twice asks the system, not the event loop, whether
    // the backend is still there: its end may be known to one and not the other.
    let kept = match reusable {
        true if ex.work.head.idempotent() => pool.take(checkout.backend().key()),
        true => pool.take_checked(checkout.backend().key()),
        false => None,
    };
    ex.ledger.reused = kept.is_some();
    if let Some(stream) = kept {
        ex.count(Counter::BackendReused);
        ex.ledger.connect_us = Some(0);
        return Ok(stream);
    }
    let quick = pick::has_other(ex, checkout);
    open(ex, checkout, quick).await
}

/// Opens a connection, within the try's and the phase's time; `quick`: there is
/// another way.
async fn open<S: Wire>(
    ex: &mut Exchange<'_, S>,
    checkout: &Checkout,
    quick: bool,
) -> Result<TcpStream, Halt> {
    let thread = Rc::clone(&ex.client.thread);
    let since = thread.clock.now();
    let timeout = ex.app.policy.connect_timeout;
    let timed_out = match quick && timeout > QUICK_CONNECT {
        true => (after(since, QUICK_CONNECT), ConnectFault::Slow),
        false => (after(since, timeout), ConnectFault::TimedOut),
    };
    let phase_ends = phase_ends(ex, since);
    ex.client
        .deadline
        .set(timed_out.0.min(phase_ends).min(ex.expires_at));
    let mut connecting = pin!(connect(&thread, checkout.backend().address()));
    let outcome = poll_fn(|cx| {
        if let Poll::Ready(connected) = connecting.as_mut().poll(cx) {
            return Poll::Ready(connected.map_err(|error| connect_fault(ex, &error).into()));
        }
        if let Poll::Ready(one) = ex.poll_overtaken(cx) {
            return Poll::Ready(Err(Halt::Overtaken(one)));
        }
        if ex
            .upload
            .poll_gone(cx, ex.client, &mut ex.work.input)
            .is_ready()
        {
            return Poll::Ready(Err(Fault::Final(Failed::Client(Code::H27)).into()));
        }
        if ex.client.poll_forced(cx).is_ready() {
            return Poll::Ready(Err(Fault::Final(Failed::Forced).into()));
        }
        ex.client.deadline.poll(cx).map(|()| {
            let now = thread.clock.now();
            if now >= ex.expires_at {
                return Err(Fault::Final(Failed::Answer(Code::H12)).into());
            }
            if now >= phase_ends {
                // The request's time, not the backend's: nothing to tell of it.
                return Err(Fault::Final(Failed::Answer(Code::H19)).into());
            }
            thread.cells.inc(Counter::ConnectTimedOut);
            Err(Fault::Connect(timed_out.1).into())
        })
    })
    .await;
    let took = thread.clock.now() - since;
    ex.tries.connecting_us += took;
    ex.ledger.connect_us = Some(took);
    if outcome.is_ok() {
        thread.cells.inc(Counter::BackendOpened);
        thread.cells.observe(Histogram::Connect, took);
        checkout.connected();
    }
    outcome
}

/// Opens a connection; short of descriptors, at the cost of clients that have no
/// request.
async fn connect(thread: &Thread, address: SocketAddr) -> io::Result<TcpStream> {
    for _ in 0..MADE_ROOM {
        match upstream::connect(address).await {
            Err(error) if upstream::is_short(&error) && thread.dismiss_one() => {
                tokio::task::yield_now().await;
            }
            outcome => return outcome,
        }
    }
    upstream::connect(address).await
}

/// When the time for queueing and connecting is over, if nothing else is done
/// from `now` on.
pub(super) fn phase_ends<S: Wire>(ex: &Exchange<'_, S>, now: Micros) -> Micros {
    let spent_us = ex.ledger.queue_us + ex.tries.connecting_us;
    after(now, CONNECT_PHASE).saturating_sub(spent_us)
}

/// Asks a backend that broke off whether it is still there at all. If it is,
/// it had its chance and the request fails; if not, it may come back.
pub(super) async fn knock<S: Wire>(
    ex: &mut Exchange<'_, S>,
    checkout: Checkout,
) -> Result<(), Failed> {
    match open(ex, &checkout, true).await {
        Err(Halt::Fault(Fault::Connect(kind))) => {
            ex.left(&checkout, kind);
            Ok(())
        }
        Err(Halt::Fault(Fault::Final(failed))) => Err(failed),
        Ok(_) | Err(_) => {
            ex.count(Counter::WithheldNoBackend);
            Err(Failed::Answer(ex.failed_as()))
        }
    }
}

fn connect_fault<S: Wire>(ex: &Exchange<'_, S>, error: &io::Error) -> Fault {
    use io::ErrorKind as Kind;
    let (counter, fault) = match error.kind() {
        Kind::ConnectionRefused => (Counter::ConnectRefused, ConnectFault::Refused),
        Kind::TimedOut => (Counter::ConnectTimedOut, ConnectFault::TimedOut),
        Kind::HostUnreachable | Kind::NetworkUnreachable => {
            (Counter::ConnectUnreachable, ConnectFault::Refused)
        }
        _ if upstream::is_own_want(error) => {
            // The router's own want, not the backend's: no try elsewhere would
            // fare better.
            ex.count(Counter::ConnectExhausted);
            return Fault::Final(Failed::Answer(Code::H22));
        }
        _ => (Counter::ConnectOther, ConnectFault::Refused),
    };
    ex.count(counter);
    Fault::Connect(fault)
}
