//! The request on its way out and the answer's head on its way in, both at once.
//!
//! Owns the wait for the head and its deadlines: rolling while the request is
//! being sent; from its end, what the app allows a try, and what it may be
//! expected to take. Interim answers are passed on from here.

use std::future::poll_fn;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::net::TcpStream;

use super::attempt::{Failed, Fault, Halt};
use super::client::Wire;
use super::exchange::{Exchange, NEVER, Try, after};
use super::upload::Upload;
use super::{Work, relay};
use crate::edge::buffer::SMALL_BYTES;
use crate::edge::clock::Micros;
use crate::edge::http1::head::Limits;
use crate::edge::http1::response::{self, Defect};
use crate::edge::http1::scan::Scan;
use crate::observe::Code;

/// What the wait for an answer's head comes to.
enum Turn {
    /// The final head is parsed.
    Head,
    /// An interim (1xx) head is parsed.
    Interim,
}

/// Sends the request, as far as it is not sent, and reads until the answer's
/// head is in; passes interim answers on.
pub(super) async fn await_head<S: Wire>(
    ex: &mut Exchange<'_, S>,
    current: &mut Try,
) -> Result<(), Halt> {
    ex.work.answer_scan = Scan::default();
    let mut wait = Wait {
        armed: false,
        idle_at: NEVER,
    };
    loop {
        match poll_fn(|cx| wait.poll(cx, ex, current)).await? {
            Turn::Head => return Ok(()),
            Turn::Interim => {
                relay::interim(ex.client, ex.work, ex.ledger)
                    .await
                    .map_err(Fault::Final)?;
                // Writing it took the deadline.
                wait.armed = false;
            }
        }
    }
}

/// A client that has not sent the rest of its request for so long is slow: its
/// backend is not what is waited for.
const SLOW_CLIENT: Duration = Duration::from_millis(200);

struct Wait {
    /// The deadline is set for the present state.
    armed: bool,
    /// When the client, or the backend, has been idle for too long.
    idle_at: Micros,
}

impl Wait {
    /// Sets the deadline of the present state: before the end of the request,
    /// rolling; after it, whatever comes next.
    fn arm<S: Wire>(&mut self, ex: &Exchange<'_, S>, current: &Try, progress: bool) {
        if self.armed && (current.sent_at.is_some() || !progress) {
            return;
        }
        self.armed = true;
        let at = match current.sent_at {
            None => {
                let now = ex.now();
                self.idle_at = after(now, ex.app.policy.idle_timeout).min(ex.expires_at);
                self.idle_at.min(after(now, SLOW_CLIENT))
            }
            Some(sent_at) => Due::of(ex, current, sent_at).next(),
        };
        ex.client.deadline.set(at);
    }

    /// The request is with its backend: from now on it is waited for.
    fn sent_whole<S: Wire>(&mut self, ex: &mut Exchange<'_, S>, current: &mut Try) {
        current.checkout.unpark();
        let now = ex.now();
        current.sent_at = Some(now);
        let hedge_us = ex.app.hedge_after_us();
        current.look_at = hedge_us.map_or(NEVER, |us| now.saturating_add(us));
        ex.ledger.sent_at = Some(now);
        self.armed = false;
    }

    /// The client was looked at before it is idle for too long: others need not
    /// wait for it.
    fn look_at_client<S: Wire>(&self, ex: &Exchange<'_, S>, current: &Try) -> bool {
        let is_early = current.sent_at.is_none() && ex.now() < self.idle_at;
        if is_early {
            if !ex.upload.awaits_backend() {
                current.checkout.park();
            }
            ex.client.deadline.set(self.idle_at);
        }
        is_early
    }

    fn poll<S: Wire>(
        &mut self,
        cx: &mut Context<'_>,
        ex: &mut Exchange<'_, S>,
        current: &mut Try,
    ) -> Poll<Result<Turn, Halt>> {
        let mut progress = false;
        if !ex.upload.is_over() {
            let replay_bytes = match ex.client.thread.is_tight_for(&ex.app) {
                true => 0,
                false => ex.app.policy.replay_bytes,
            };
            match ex.upload.poll(
                cx,
                ex.client,
                ex.work,
                &mut current.stream,
                replay_bytes,
                &mut progress,
            ) {
                Poll::Ready(Ok(())) | Poll::Pending => {}
                Poll::Ready(Err(trouble)) => return Poll::Ready(ended(trouble.into())),
            }
        }
        if current.sent_at.is_none() && ex.upload.awaits_backend() {
            current.checkout.unpark();
        }
        if ex.upload.is_over() && current.sent_at.is_none() {
            self.sent_whole(ex, current);
        }
        if let Poll::Ready(turn) = poll_answer(cx, ex, &mut current.stream) {
            let turn = turn.and_then(|turn| switched(turn, ex.work, ex.upload));
            return Poll::Ready(turn.map_err(Halt::from));
        }
        if ex.work.answer.is_empty()
            && let Poll::Ready(one) = ex.poll_overtaken(cx)
        {
            return Poll::Ready(Err(Halt::Overtaken(one)));
        }
        if current.sent_at.is_some()
            && ex
                .upload
                .poll_gone(cx, ex.client, &mut ex.work.input)
                .is_ready()
        {
            return Poll::Ready(ended(Failed::Client(Code::H27)));
        }
        if ex.client.poll_forced(cx).is_ready() {
            return Poll::Ready(ended(Failed::Forced));
        }
        if ex.outgrows() {
            return Poll::Ready(ended(Failed::Answer(Code::H22)));
        }
        self.arm(ex, current, progress);
        while ex.client.deadline.poll(cx).is_ready() {
            if self.look_at_client(ex, current) {
                continue;
            }
            if let Some(halt) = lapsed(ex, current) {
                return Poll::Ready(Err(halt));
            }
            self.armed = false;
            self.arm(ex, current, false);
        }
        Poll::Pending
    }
}

fn ended(failed: Failed) -> Result<Turn, Halt> {
    Err(Fault::Final(failed).into())
}

/// What a silent try comes to, and when.
struct Due {
    /// The request's time for a first byte, from the first try waited for.
    silent: Micros,
    /// The request's own deadline.
    expired: Micros,
    /// The app's `try_timeout`.
    outlasted: Micros,
    /// Far longer than the app takes, or than it wants to wait.
    overdue: Micros,
}

impl Due {
    fn of<S: Wire>(ex: &Exchange<'_, S>, current: &Try, sent_at: Micros) -> Due {
        let policy = &ex.app.policy;
        let first = ex.tries.first_sent_at().unwrap_or(sent_at).min(sent_at);
        // What has begun to speak is not silent.
        let spoke = !ex.work.answer.is_empty();
        Due {
            silent: after(first, policy.first_byte_timeout),
            expired: ex.expires_at,
            outlasted: match policy.try_timeout {
                Some(timeout) if !current.outlasted && !spoke => after(sent_at, timeout),
                _ => NEVER,
            },
            overdue: match current.overdue {
                _ if spoke => NEVER,
                true => current.look_at,
                false => current.look_at.min(sent_at + ex.app.overdue_after_us()),
            },
        }
    }

    fn next(&self) -> Micros {
        self.silent
            .min(self.expired)
            .min(self.outlasted)
            .min(self.overdue)
    }
}

/// The deadline is reached: what of it, if anything.
fn lapsed<S: Wire>(ex: &mut Exchange<'_, S>, current: &mut Try) -> Option<Halt> {
    let now = ex.now();
    if now >= ex.expires_at {
        return Some(Fault::Final(Failed::Answer(Code::H12)).into());
    }
    let Some(sent_at) = current.sent_at else {
        return Some(if ex.upload.awaits_backend() {
            Fault::Silent.into()
        } else {
            Fault::Final(Failed::Client(Code::H28)).into()
        });
    };
    let due = Due::of(ex, current, sent_at);
    if now >= due.silent {
        return Some(Fault::Silent.into());
    }
    current.outlasted |= now >= due.outlasted;
    (now >= due.overdue.min(due.outlasted)).then_some(Halt::Overdue)
}

/// Lets a 101 through only if the client asked for it and its request is sent
/// whole: after any other, its next requests would pass the routing by.
fn switched(turn: Turn, work: &Work, upload: &Upload) -> Result<Turn, Fault> {
    let cause = match (work.head.upgrade, upload.is_done()) {
        _ if !work.response.switching => return Ok(turn),
        (true, true) => return Ok(turn),
        (true, false) => "101 before the end of the request",
        (false, _) => "101 to a request without Upgrade",
    };
    Err(Fault::Defect(Defect {
        code: Code::H25,
        cause,
    }))
}

/// Reads the answer until a head is whole.
fn poll_answer<S: Wire>(
    cx: &mut Context<'_>,
    ex: &mut Exchange<'_, S>,
    backend: &mut TcpStream,
) -> Poll<Result<Turn, Fault>> {
    let Exchange {
        client,
        work,
        ledger,
        ..
    } = ex;
    let was_head = work.head.is_head();
    loop {
        if !work.answer.is_empty() {
            let parsed = response::parse_response(
                work.answer.data(),
                &mut work.answer_scan,
                &Limits::RESPONSE,
                was_head,
                &mut work.response,
            );
            match parsed {
                Ok(Some(bytes)) => {
                    work.answer_bytes = bytes;
                    let interim = work.response.interim();
                    return Poll::Ready(Ok(if interim { Turn::Interim } else { Turn::Head }));
                }
                Ok(None) => {}
                Err(defect) => return Poll::Ready(Err(Fault::Defect(defect))),
            }
        }
        if work.answer.room() == 0 {
            if work.answer.capacity() == 0 {
                work.answer = client.thread.buffers.small();
            }
            work.answer.compact();
            if work.answer.room() == 0 {
                let larger =
                    (work.answer.capacity() * 4).min(Limits::RESPONSE.head_bytes + SMALL_BYTES);
                work.answer.grow(larger);
            }
        }
        let room = work.answer.room();
        match work.answer.poll_read(cx, backend, room) {
            Poll::Ready(Ok(n @ 1..)) => {
                if ledger.first_byte_at.is_none() {
                    ledger.first_byte_at = Some(client.thread.clock.now());
                }
                debug_assert!(n <= room);
            }
            Poll::Ready(_) => return Poll::Ready(Err(Fault::Closed)),
            Poll::Pending => {
                if work.answer.is_empty() {
                    client.thread.buffers.put(std::mem::take(&mut work.answer));
                }
                return Poll::Pending;
            }
        }
    }
}
