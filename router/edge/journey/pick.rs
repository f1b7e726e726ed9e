//! A backend for an attempt, from the balancer; a place in the app's queue when
//! all are full.
//!
//! Owns the wait and its end: room, patience, the client's leaving, a drain.
//! Chooses nothing itself: that is [`crate::policy::balance`], and the order of
//! the queue [`crate::policy::admission`].

use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use super::Work;
use super::attempt::{Failed, Seen};
use super::client::{Client, Wire};
use super::ledger::Ledger;
use super::upload::Upload;
use crate::edge::thread::{Phase, Thread};
use crate::edge::upstream::Checkout;
use crate::observe::{Code, Counter, Gauge, Histogram};
use crate::policy::balance::{self, Choice};
use crate::table::App;

/// A request waits at most this long for a backend with room.
const QUEUE_PATIENCE: Duration = Duration::from_secs(5);

/// A backend with room; none: all are full.
fn choose(thread: &Thread, app: &Arc<App>, seen: &Seen) -> Option<Result<Checkout, Failed>> {
    loop {
        let random = thread.random.borrow_mut().u64(..);
        match balance::choose(&**app, random, app.policy.max_concurrency, &seen.tried) {
            Choice::Backend(index) | Choice::Trial(index) | Choice::AllOut(index) => {
                if let Some(checkout) = Checkout::take(app, index) {
                    return Some(Ok(checkout));
                }
            }
            Choice::NoneLeft if seen.tried.is_empty() => {
                return Some(Err(Failed::Answer(Code::H14)));
            }
            Choice::NoneLeft => {
                thread.cells.inc(Counter::WithheldNoBackend);
                return Some(Err(Failed::Answer(seen.code())));
            }
            Choice::AllFull => return None,
        }
    }
}

/// A backend with room, waiting in the app's queue if there is none.
pub(super) async fn pick<S: Wire>(
    client: &mut Client<S>,
    work: &mut Work,
    ledger: &mut Ledger,
    upload: &mut Upload,
    app: &Arc<App>,
    seen: &Seen,
) -> Result<Checkout, Failed> {
    let thread = Rc::clone(&client.thread);
    if let Some(picked) = choose(&thread, app, seen) {
        return picked;
    }
    let limit = app
        .policy
        .queue
        .unwrap_or_else(|| 50 * u32::try_from(app.backends.len()).unwrap_or(u32::MAX / 50));
    let since = thread.clock.now();
    let Some(mut place) = app.live().queue.join(limit) else {
        thread.cells.inc(Counter::QueueFull);
        return Err(Failed::Answer(Code::H11));
    };
    thread.cells.up(Gauge::Queued);
    client.deadline.set_after(since, QUEUE_PATIENCE);
    let waited = poll_fn(|cx| {
        loop {
            // Asked again in the queue too: room made before joining it woke nobody.
            if let Some(picked) = choose(&thread, app, seen) {
                return Poll::Ready(picked);
            }
            if Pin::new(&mut place).poll(cx).is_pending() {
                break;
            }
        }
        if upload.poll_gone(cx, client, &mut work.input).is_ready() {
            return Poll::Ready(Err(Failed::Client(Code::H27)));
        }
        if thread.phase() == Phase::Cutting {
            return Poll::Ready(Err(Failed::Drained));
        }
        client
            .deadline
            .poll(cx)
            .map(|()| Err(Failed::Answer(Code::H11)))
    })
    .await;
    if waited.is_ok() {
        place.served();
    }
    thread.cells.down(Gauge::Queued);
    let waited_us = thread.clock.now() - since;
    ledger.queue_us += waited_us;
    thread.cells.observe(Histogram::QueueWait, waited_us);
    thread.cells.inc(match &waited {
        Ok(_) => Counter::QueueAdmitted,
        Err(Failed::Client(_)) => Counter::QueueClientLeft,
        Err(_) => Counter::QueueTimedOut,
    });
    waited
}
