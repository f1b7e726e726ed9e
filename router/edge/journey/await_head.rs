//! The request on its way out and the answer's head on its way in, both at once.
//!
//! Owns the wait for the head and its deadlines: rolling while the request is
//! being sent, for the first byte from its end. Interim answers are passed on
//! from here.

use std::future::poll_fn;
use std::task::{Context, Poll};

use tokio::net::TcpStream;

use super::attempt::{Failed, Fault};
use super::client::{Client, Wire};
use super::ledger::Ledger;
use super::upload::{Trouble, Upload};
use super::{Work, relay};
use crate::edge::buffer::SMALL_BYTES;
use crate::edge::http1::head::Limits;
use crate::edge::http1::response::{self, Defect};
use crate::edge::http1::scan::Scan;
use crate::edge::thread::Phase;
use crate::observe::Code;
use crate::table::App;

/// What the wait for an answer's head comes to.
enum Turn {
    /// The final head is parsed.
    Head,
    /// An interim (1xx) head is parsed.
    Interim,
}

/// Sends the request and reads until the answer's head is in; passes interim
/// answers on.
pub(super) async fn await_head<S: Wire>(
    client: &mut Client<S>,
    work: &mut Work,
    ledger: &mut Ledger,
    upload: &mut Upload,
    app: &App,
    backend: &mut TcpStream,
) -> Result<(), Fault> {
    if work.answer.capacity() == 0 {
        work.answer = client.thread.buffers.small();
    }
    work.answer.clear();
    work.answer_scan = Scan::default();
    let mut wait = Wait {
        sent: false,
        armed: false,
    };
    loop {
        let turn = poll_fn(|cx| wait.poll(cx, client, work, ledger, upload, app, backend)).await?;
        match turn {
            Turn::Head => return Ok(()),
            Turn::Interim => {
                relay::interim(client, work, ledger)
                    .await
                    .map_err(Fault::Final)?;
                // Writing it took the deadline.
                wait.armed = false;
            }
        }
    }
}

struct Wait {
    /// The request is sent whole and its end noted.
    sent: bool,
    /// The deadline is set for the present state.
    armed: bool,
}

impl Wait {
    /// Sets the deadline of the present state: for the first byte, from the end
    /// of the request; before that, rolling.
    fn arm<S: Wire>(&mut self, client: &Client<S>, ledger: &Ledger, app: &App, progress: bool) {
        if self.armed && (self.sent || !progress) {
            return;
        }
        self.armed = true;
        let now = client.thread.clock.now();
        let (since, patience) = if self.sent {
            let sent_at = ledger.sent_at.unwrap_or(now);
            (sent_at, app.policy.first_byte_timeout)
        } else {
            (now, app.policy.idle_timeout)
        };
        client.deadline.set_after(since, patience);
    }

    #[allow(
        clippy::too_many_arguments,
        reason = "one wait on everything a request holds"
    )]
    fn poll<S: Wire>(
        &mut self,
        cx: &mut Context<'_>,
        client: &mut Client<S>,
        work: &mut Work,
        ledger: &mut Ledger,
        upload: &mut Upload,
        app: &App,
        backend: &mut TcpStream,
    ) -> Poll<Result<Turn, Fault>> {
        let mut progress = false;
        if !upload.is_over() {
            match upload.poll(
                cx,
                client,
                work,
                backend,
                app.policy.replay_bytes,
                &mut progress,
            ) {
                Poll::Ready(Ok(())) | Poll::Pending => {}
                Poll::Ready(Err(Trouble::ClientGone)) => {
                    return Poll::Ready(Err(Fault::Final(Failed::Client(Code::H27))));
                }
                Poll::Ready(Err(Trouble::Malformed(refusal))) => {
                    return Poll::Ready(Err(Fault::Final(Failed::Refused(refusal))));
                }
            }
        }
        if upload.is_over() && !self.sent {
            self.sent = true;
            self.armed = false;
            ledger.sent_at = Some(client.thread.clock.now());
        }
        if let Poll::Ready(turn) = poll_answer(cx, client, work, ledger, backend) {
            return Poll::Ready(turn.and_then(|turn| switched(turn, work, upload)));
        }
        if self.sent && upload.poll_gone(cx, client, &mut work.input).is_ready() {
            return Poll::Ready(Err(Fault::Final(Failed::Client(Code::H27))));
        }
        if client.thread.phase() == Phase::Cutting {
            return Poll::Ready(Err(Fault::Final(Failed::Drained)));
        }
        self.arm(client, ledger, app, progress);
        client.deadline.poll(cx).map(|()| {
            Err(if self.sent || upload.awaits_backend() {
                Fault::Silent
            } else {
                Fault::Final(Failed::Client(Code::H28))
            })
        })
    }
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
    client: &Client<S>,
    work: &mut Work,
    ledger: &mut Ledger,
    backend: &mut TcpStream,
) -> Poll<Result<Turn, Fault>> {
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
            Poll::Pending => return Poll::Pending,
        }
    }
}
