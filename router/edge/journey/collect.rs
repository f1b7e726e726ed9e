//! A request's body, before anybody is asked.
//!
//! Owns the wait for it, and how much is waited for. Until it is over the
//! request has no backend, no connection to one and no place in a line, and
//! holds one buffer that is not much larger than what came: clients that are
//! slow to send keep nobody from an app. What is collected can be sent again. (A
//! named limit on requests at once counts it all the while: it asked.)
//!
//! | the body | a backend is asked |
//! |---|---|
//! | came with its head, or there is none | at once |
//! | fits into the app's `replay_bytes` | when it is whole |
//! | is larger | when [`FIRST_BYTES`] of it came, or `replay_bytes` if those are fewer; the rest streams |
//! | is of unknown length (chunked) | at once; it streams |
//!
//! A client that pauses may wait for an answer before it sends more. Its request
//! goes to a backend as it is, if one has room to spare: half of the places that
//! there are for clients that are slow to send, and one at least. If none has, it is waited for as
//! before. An app that wants every request at once sets `replay_bytes` to 0.
//!
//! While it is waited for, its rate is judged ([`crate::policy::tempo`]). Where
//! connections run short it goes with those whose heads are awaited. Where memory
//! does ([`crate::edge::budget`]), that of an app which holds its share of it goes,
//! and is not waited for beyond its first bytes; other apps' are as ever.

use std::future::poll_fn;
use std::task::{Context, Poll};
use std::time::Duration;

use super::attempt::Failed;
use super::client::Wire;
use super::exchange::{Exchange, after};
use super::spare::pick_spare;
use crate::edge::buffer::SMALL_BYTES;
use crate::edge::clock::Micros;
use crate::edge::http1::head::Framing;
use crate::edge::roster::{Awaits, Notice};
use crate::observe::Code;
use crate::table::Checkout;

/// Of a body that is not kept whole: who has sent so much does not drip. With its
/// head it has room in a small buffer.
const FIRST_BYTES: usize = SMALL_BYTES / 2;

/// A client that sends nothing for so long may wait for an answer.
const PAUSE: Duration = Duration::from_secs(2);

/// Body bytes that a backend is not asked without.
fn wanted<S: Wire>(ex: &Exchange<'_, S>) -> u64 {
    let Framing::Length(length) = ex.work.head.framing else {
        return 0;
    };
    let kept = ex.app.policy.replay_bytes;
    if length <= kept as u64 && !ex.client.thread.is_tight_for(&ex.app) {
        length
    } else {
        length.min(kept.min(FIRST_BYTES) as u64)
    }
}

/// Whether there is anything to wait for.
#[inline]
pub(super) fn is_due<S: Wire>(ex: &Exchange<'_, S>) -> bool {
    !ex.upload.is_whole() && ex.upload.payload_bytes() < wanted(ex)
}

/// Waits for the body; a backend that is held for it, if it goes on before.
pub(super) async fn collect<S: Wire>(ex: &mut Exchange<'_, S>) -> Result<Option<Checkout>, Failed> {
    let mut wait = Wait {
        idle_at: 0,
        look_at: 0,
        is_listed: false,
    };
    let collected = poll_fn(|cx| wait.poll(cx, ex)).await;
    if !wait.is_listed {
        return collected;
    }
    ex.client.await_no_more();
    let spare = collected?;
    ex.due_at = ex.now();
    // The app may be another by now.
    if !ex.refresh() {
        return Err(Failed::Answer(Code::H14));
    }
    if ex.app.policy.maintenance {
        return Err(Failed::Answer(Code::H80));
    }
    Ok(spare)
}

struct Wait {
    /// When its client has sent nothing for too long; 0: it has not been waited
    /// for.
    idle_at: Micros,
    /// When it is looked at.
    look_at: Micros,
    /// Others know that it waits.
    is_listed: bool,
}

impl Wait {
    fn poll<S: Wire>(
        &mut self,
        cx: &mut Context<'_>,
        ex: &mut Exchange<'_, S>,
    ) -> Poll<Result<Option<Checkout>, Failed>> {
        while is_due(ex) {
            match ex.upload.poll_more(cx, ex.client, ex.work) {
                Poll::Ready(Ok(())) => self.idle_at = 0,
                Poll::Ready(Err(trouble)) => return Poll::Ready(Err(trouble.into())),
                Poll::Pending if ex.outgrows() => return Poll::Ready(Err(Failed::Dismissed)),
                Poll::Pending => return self.poll_lapsed(cx, ex),
            }
        }
        Poll::Ready(Ok(None))
    }

    /// Nothing came: ready once there is no more waiting.
    fn poll_lapsed<S: Wire>(
        &mut self,
        cx: &mut Context<'_>,
        ex: &mut Exchange<'_, S>,
    ) -> Poll<Result<Option<Checkout>, Failed>> {
        if ex.client.poll_forced(cx).is_ready() {
            return Poll::Ready(Err(Failed::Forced));
        }
        if self.is_dismissed(ex) {
            // Looked at before the deadline is set, which would forget it.
            return Poll::Ready(Err(Failed::Dismissed));
        }
        if self.idle_at == 0 {
            let now = ex.now();
            let idle_at = after(now, ex.app.policy.idle_timeout);
            self.idle_at = idle_at.min(ex.expires_at);
            self.look_again(ex, now);
        }
        while ex.client.deadline.poll(cx).is_ready() {
            let now = ex.now();
            if now >= ex.expires_at {
                return Poll::Ready(Err(Failed::Answer(Code::H12)));
            }
            if now >= self.idle_at {
                return Poll::Ready(Err(Failed::Client(Code::H28)));
            }
            if let Some(spare) = pick_spare(ex) {
                return Poll::Ready(Ok(Some(spare)));
            }
            self.look_again(ex, now);
        }
        Poll::Pending
    }

    /// Whether others need its place, or its memory more than its app does;
    /// others know from here on that it waits.
    fn is_dismissed<S: Wire>(&mut self, ex: &Exchange<'_, S>) -> bool {
        let thread = &ex.client.thread;
        let slot = ex.client.deadline.slot();
        if !std::mem::replace(&mut self.is_listed, true) {
            thread.roster.enter(slot, Awaits::Body);
            return false;
        }
        match thread.roster.notice(slot) {
            Notice::None => false,
            Notice::Dismissed => true,
            Notice::Asked if thread.has_its_share(&ex.app) => true,
            Notice::Asked => {
                thread.roster.enter(slot, Awaits::Body);
                ex.client.deadline.set(self.look_at);
                false
            }
        }
    }

    fn look_again<S: Wire>(&mut self, ex: &Exchange<'_, S>, now: Micros) {
        self.look_at = self.idle_at.min(after(now, PAUSE));
        ex.client.deadline.set(self.look_at);
    }
}
