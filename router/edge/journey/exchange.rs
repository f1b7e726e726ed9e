//! What a request holds while it looks for an answer.
//!
//! Owns the account of its tries: which backends were met and how, what is
//! left of its patience, the tries set aside. Decides nothing: that is
//! [`attempt`](super::attempt) and [`judge`](super::judge).

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::net::TcpStream;

use super::Work;
use super::client::{Client, Wire};
use super::ledger::Ledger;
use super::upload::Upload;
use crate::edge::buffer::Buffer;
use crate::edge::clock::Micros;
use crate::edge::http1::response::{Defect, ResponseHead};
use crate::observe::Code;
use crate::policy::balance::Tried;
use crate::policy::health::Outcome;
use crate::table::{App, Checkout};

/// Never due.
pub(super) const NEVER: Micros = Micros::MAX;

/// A request between its head and its answer's.
pub struct Exchange<'r, S> {
    pub client: &'r mut Client<S>,
    pub work: &'r mut Work,
    pub ledger: &'r mut Ledger,
    pub upload: &'r mut Upload,
    /// Its app, of the newest version looked at.
    pub app: Arc<App>,
    pub(super) tries: Tries,
    /// When the app's `deadline` for it is over.
    pub(super) expires_at: Micros,
    /// From when on a backend is looked for.
    pub(super) due_at: Micros,
}

/// One try whose connection is there.
pub(super) struct Try {
    pub(super) checkout: Checkout,
    pub(super) stream: TcpStream,
    /// The connection had been used before.
    pub(super) reused: bool,
    /// Time to connect.
    pub(super) connect_us: u64,
    /// When the request was sent whole on it.
    pub(super) sent_at: Option<Micros>,
    /// It is known to be overdue.
    pub(super) overdue: bool,
    /// When patience with it is looked at; [`NEVER`] if it is not.
    pub(super) look_at: Micros,
    /// It outlasted the app's `try_timeout`.
    pub(super) outlasted: bool,
    /// It was begun beside others.
    pub(super) overtakes: bool,
}

/// An answer held back while another backend is asked.
pub(super) struct Poor {
    pub(super) from: Try,
    answer: Buffer,
    answer_bytes: usize,
    response: ResponseHead,
    first_byte_at: Option<Micros>,
}

/// What a request's tries met.
pub(super) struct Tries {
    /// Backends met, in the order of the app's present version.
    pub(super) tried: Tried,
    /// The same by key: indices change with the app's version.
    keys: [u64; Tried::MOST],
    pub(super) retries_left: u32,
    /// A pooled connection was dead: no other is trusted.
    pub(super) fresh_only: bool,
    /// It waited for a backend to come up as long as it may.
    pub(super) held: bool,
    pub(super) refused: u32,
    pub(super) timed_out: u32,
    pub(super) closed: u32,
    /// The last answer that could not be passed on.
    pub(super) defect: Option<Defect>,
    /// Time spent on opening connections.
    pub(super) connecting_us: u64,
    /// An answer of 502, 503 or 504 that is passed on if nobody does better.
    pub(super) poor: Option<Box<Poor>>,
    /// It was counted that the budget has none for it.
    pub(super) budget_short: bool,
    /// Sent whole, silent for too long, and still waited for.
    aside: Vec<Try>,
}

impl Tries {
    fn new(retries: u32) -> Self {
        Tries {
            tried: Tried::default(),
            keys: [0; Tried::MOST],
            retries_left: retries,
            fresh_only: false,
            held: false,
            refused: 0,
            timed_out: 0,
            closed: 0,
            defect: None,
            connecting_us: 0,
            poor: None,
            budget_short: false,
            aside: Vec::new(),
        }
    }

    /// Forgets which backends were met: there is no other.
    pub(super) fn forget(&mut self) {
        self.tried = Tried::default();
    }

    /// The code of a request that no try answered, by what refused it.
    fn code(&self) -> Code {
        match (self.refused > 0, self.timed_out > 0, self.closed > 0) {
            (true, false, false) => Code::H21,
            (false, true, false) => Code::H19,
            (false, false, true) => Code::H13,
            _ => Code::H10,
        }
    }

    /// Whether a try is set aside.
    pub(super) fn has_aside(&self) -> bool {
        !self.aside.is_empty()
    }

    /// Sets a try aside, still waited for.
    pub(super) fn set_aside(&mut self, one: Try) {
        self.aside.push(one);
    }

    /// The try set aside last.
    pub(super) fn take_aside(&mut self) -> Option<Try> {
        self.aside.pop()
    }

    /// All tries set aside: their time is over.
    pub(super) fn give_up_aside(&mut self) -> Vec<Try> {
        std::mem::take(&mut self.aside)
    }

    /// The earliest moment at which a try still waited for was sent whole.
    pub(super) fn first_sent_at(&self) -> Option<Micros> {
        self.aside.iter().filter_map(|one| one.sent_at).min()
    }

    /// The try set aside that speaks or closes first: ready with whether it has
    /// something to say.
    pub(super) fn poll_aside(&mut self, cx: &mut Context<'_>) -> Poll<(Try, bool)> {
        for at in 0..self.aside.len() {
            let mut byte = [std::mem::MaybeUninit::uninit(); 1];
            let mut byte = tokio::io::ReadBuf::uninit(&mut byte);
            if let Poll::Ready(read) = self.aside[at].stream.poll_peek(cx, &mut byte) {
                let spoke = matches!(read, Ok(1..));
                return Poll::Ready((self.aside.remove(at), spoke));
            }
        }
        Poll::Pending
    }
}

impl<'r, S: Wire> Exchange<'r, S> {
    pub(super) fn new(
        client: &'r mut Client<S>,
        work: &'r mut Work,
        ledger: &'r mut Ledger,
        upload: &'r mut Upload,
        app: Arc<App>,
    ) -> Self {
        let tries = Tries::new(app.policy.retries);
        let expires_at = match app.policy.deadline {
            Some(deadline) => after(ledger.began, deadline),
            None => NEVER,
        };
        let due_at = ledger.began;
        Exchange {
            client,
            work,
            ledger,
            upload,
            app,
            tries,
            expires_at,
            due_at,
        }
    }

    /// Bytes of its buffers.
    #[inline]
    fn held_bytes(&self) -> usize {
        let poor = &self.tries.poor;
        let poor_bytes = poor.as_ref().map_or(0, |poor| poor.answer.capacity());
        self.work.held_bytes() + self.upload.held_bytes() + poor_bytes
    }

    /// Its app's account is told of them.
    #[inline]
    pub(super) fn holds(&mut self) {
        self.ledger.holds(self.held_bytes());
    }

    /// The same; whether it took more than others can do without.
    #[inline]
    pub(super) fn outgrows(&mut self) -> bool {
        self.ledger.outgrows(self.held_bytes())
    }

    /// Remembers a backend that was met.
    pub(super) fn meet(&mut self, checkout: &Checkout) {
        let Some(index) = self.index_of(checkout) else {
            return;
        };
        let tries = &mut self.tries;
        if tries.tried.contains(index) {
            return;
        }
        if let Some(place) = tries.keys.get_mut(tries.tried.len()) {
            *place = checkout.backend().key();
        }
        tries.tried.push(index);
    }

    /// Where a backend is in the app as of now; it may have been chosen from an
    /// earlier version.
    pub(super) fn index_of(&self, checkout: &Checkout) -> Option<usize> {
        if Arc::ptr_eq(&self.app, checkout.app()) {
            return Some(checkout.index());
        }
        let key = [checkout.backend().key()];
        let mut backends = self.app.backends.iter();
        backends.position(|backend| backend.has_key_in(&key))
    }

    /// Keeps an answer that is passed on if nobody does better.
    pub(super) fn hold_back(&mut self, from: Try) {
        self.tries.poor = Some(Box::new(Poor {
            from,
            answer: std::mem::take(&mut self.work.answer),
            answer_bytes: self.work.answer_bytes,
            response: std::mem::take(&mut self.work.response),
            first_byte_at: self.ledger.first_byte_at,
        }));
    }

    /// Nobody did better: back to the answer held back, if there is one.
    pub(super) fn fall_back(&mut self) -> Option<Try> {
        let poor = *self.tries.poor.take()?;
        let spoilt = std::mem::replace(&mut self.work.answer, poor.answer);
        self.client.thread.buffers.put(spoilt);
        self.work.answer_bytes = poor.answer_bytes;
        self.work.response = poor.response;
        self.upload.finish();
        self.ledger.resuming(&poor.from);
        self.ledger.first_byte_at = poor.first_byte_at;
        self.ledger.cause = None;
        Some(poor.from)
    }

    /// The code of a request that no try answered; what could not be passed on
    /// says most.
    pub(super) fn failed_as(&mut self) -> Code {
        match self.tries.defect {
            Some(defect) => {
                self.ledger.cause = Some(defect.cause);
                defect.code
            }
            None => self.tries.code(),
        }
    }

    /// Now.
    pub(super) fn now(&self) -> Micros {
        self.client.thread.clock.now()
    }

    /// Executing the request twice does no harm, and all of it that was sent
    /// can be sent again.
    pub(super) fn may_be_repeated(&self) -> bool {
        self.work.head.idempotent() && self.upload.is_replayable() && !self.ledger.interim_sent
    }

    /// A try set aside that has something to say. One that broke off says it
    /// here, and is waited for no more.
    pub(super) fn poll_overtaken(&mut self, cx: &mut Context<'_>) -> Poll<Try> {
        loop {
            match self.tries.poll_aside(cx) {
                Poll::Ready((one, true)) => return Poll::Ready(one),
                Poll::Ready((one, false)) if one.reused => {}
                Poll::Ready((one, false)) => {
                    self.tell_sent(&one.checkout, one.sent_at, Outcome::Reset);
                }
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    /// Goes by the newest version of the app: backends that left or moved since
    /// are not met, those that came are. False if the app is gone.
    pub(super) fn refresh(&mut self) -> bool {
        let Some(newest) = self.client.thread.table.app(&self.app.name) else {
            return false;
        };
        if Arc::ptr_eq(&newest, &self.app) {
            return true;
        }
        if !Arc::ptr_eq(newest.live(), self.app.live()) {
            // Deleted and made anew: another app of the same name.
            return false;
        }
        let keys = &self.tries.keys[..self.tries.tried.len()];
        let mut tried = Tried::default();
        let mut kept = [0; Tried::MOST];
        for (index, backend) in newest.backends.iter().enumerate() {
            if backend.has_key_in(keys) && tried.len() < Tried::MOST {
                kept[tried.len()] = backend.key();
                tried.push(index);
            }
        }
        self.tries.tried = tried;
        self.tries.keys = kept;
        self.app = newest;
        true
    }
}

/// `after` from `since`.
pub(super) fn after(since: Micros, after: Duration) -> Micros {
    since.saturating_add(u64::try_from(after.as_micros()).unwrap_or(NEVER))
}
