//! A request's turn, where its thread has more to do than it can.
//!
//! Owns the wait at the gate ([`crate::edge::gate`]) and its ends: the turn, the
//! refusal, the client's leaving, a drain. Meanwhile the client is not read,
//! beyond what tells that it left.

use std::future::poll_fn;
use std::rc::Rc;
use std::task::Poll;

use super::Work;
use super::attempt::Failed;
use super::client::{Client, Wire};
use super::ledger::Ledger;
use super::upload::Upload;
use crate::observe::{Code, Counter, Gauge, Histogram};
use crate::policy::fair_queue::Turn;

/// Waits until it is the request's turn.
pub(super) async fn take<S: Wire>(
    client: &mut Client<S>,
    work: &mut Work,
    ledger: &mut Ledger,
    upload: &mut Upload,
) -> Result<(), Failed> {
    let thread = Rc::clone(&client.thread);
    let Some(place) = thread.gate.join(ledger.line_of(), client.served == 0) else {
        return Ok(());
    };
    let since = thread.clock.recent();
    thread.cells.up(Gauge::Gated);
    // Thousands may wait here.
    thread.buffers.park(&mut work.input);
    ledger.holds(work.held_bytes() + upload.held_bytes());
    let turn = poll_fn(|cx| {
        if let Poll::Ready(turn) = place.poll(cx) {
            return Poll::Ready(Ok(turn));
        }
        if upload.poll_gone(cx, client, &mut work.input).is_ready() {
            return Poll::Ready(Err(Failed::Client(Code::H27)));
        }
        client.poll_forced(cx).map(|()| Err(Failed::Forced))
    });
    let turn = turn.await;
    drop(place);
    thread.cells.down(Gauge::Gated);
    let waited_us = thread.clock.now() - since;
    ledger.queue_us += waited_us;
    thread.cells.observe(Histogram::GateWait, waited_us);
    match turn {
        Ok(Turn::Served) => {
            thread.cells.inc(Counter::GateServed);
            Ok(())
        }
        Ok(Turn::Refused) => {
            thread.cells.inc(Counter::ShedProcessor);
            thread.gate.refused(ledger.app());
            Err(Failed::Answer(Code::H22))
        }
        Err(failed) => {
            thread.cells.inc(Counter::GateLeft);
            Err(failed)
        }
    }
}
