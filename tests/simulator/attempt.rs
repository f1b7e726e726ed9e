//! One try of a modelled request: connecting, sending, and what comes back.
//!
//! Owns what each of these tells the health, and what it means for the request:
//! on with another, back to a try set aside, or the end.

use std::mem;
use std::sync::Arc;

use portico::policy::balance::{Ask, Candidates, Choice};
use portico::policy::health::ConnectFailure;
use portico::policy::health::Outcome;
use portico::policy::hedge::Patience;
use portico::policy::retry::Retry;
use portico::table::{App, Checkout, Waiting};

use crate::arena::Id;
use crate::backend::Reply;
use crate::engine::{MILLISECOND, Micros};
use crate::faults::Mode;
use crate::journey::{Found, Pick, Request};
use crate::record::Failure;
use crate::world::{Event, NETWORK_US, World};

/// A connection that takes longer is given up while another backend is left.
const QUICK_CONNECT_US: Micros = 500 * MILLISECOND;

/// An answer whose body is on its way.
pub struct Streaming {
    _checkout: Option<Checkout>,
}

/// One try of a request.
pub struct Attempt {
    pub request: Id,
    pub backend: usize,
    /// The version of the app it was chosen from.
    pub app: Arc<App>,
    pub chosen_us: Micros,
    checkout: Option<Checkout>,
    /// Its connection had been used before.
    reused: bool,
    pub sent_us: Option<Micros>,
    /// It is known to be overdue.
    overdue: bool,
    /// When patience with it is looked at, if it is.
    look_us: Option<Micros>,
    /// It only asks whether the backend is there.
    knocks: bool,
}

impl World {
    /// A try on a backend that is held for it.
    pub(super) fn begin(&mut self, id: Id, pick: Pick) {
        let Pick {
            index: backend,
            chosen_us,
            checkout,
        } = pick;
        let router = self.router_of(id);
        self.record.tried(self.engine.now_us(), router, backend);
        let fresh_only = self.request(id).fresh_only;
        let idle = &mut self.routers[router].idle[backend];
        let reused = *idle > 0 && !fresh_only;
        *idle -= u32::from(reused);
        let app = Arc::clone(&self.routers[router].app);
        let attempt = self.attempts.insert(Attempt {
            request: id,
            backend,
            app,
            chosen_us,
            checkout,
            reused,
            sent_us: None,
            overdue: false,
            look_us: None,
            knocks: false,
        });
        self.request(id).current = Some(attempt);
        if reused {
            self.send(attempt);
        } else {
            self.open(attempt);
        }
    }

    fn open(&mut self, id: Id) {
        let attempt = self.attempts.get(id).expect("it must be under way");
        match self.backends[attempt.backend].mode {
            Mode::Down => self.engine.after(2 * NETWORK_US, Event::Refused(id)),
            Mode::Unreachable => {
                let router = self.router_of(attempt.request);
                let whole_us = self.policy(router).connect_timeout.as_micros() as Micros;
                let patience_us = if attempt.knocks || self.has_other(attempt) {
                    whole_us.min(QUICK_CONNECT_US)
                } else {
                    whole_us
                };
                self.engine.after(patience_us, Event::ConnectTimedOut(id));
            }
            _ => self.engine.after(2 * NETWORK_US, Event::Connected(id)),
        }
    }

    /// Whether the request could go to another backend at once.
    fn has_other(&self, attempt: &Attempt) -> bool {
        let request = self.requests.get(attempt.request);
        let request = request.expect("it must be under way");
        let mut tried = request.tried;
        tried.push(attempt.backend);
        let choice = self.routers[request.router].app.choose(&Ask {
            now_us: self.now_us(),
            random: 0,
            tried: &tried,
            repeatable: false,
            hedge: true,
        });
        matches!(choice, Choice::Backend(_))
    }

    /// Asks a backend that broke off whether it is still there at all.
    pub(super) fn knock(&mut self, id: Id, pick: Pick) {
        let app = Arc::clone(&self.routers[self.router_of(id)].app);
        let attempt = self.attempts.insert(Attempt {
            request: id,
            backend: pick.index,
            app,
            chosen_us: pick.chosen_us,
            checkout: pick.checkout,
            reused: false,
            sent_us: None,
            overdue: false,
            look_us: None,
            knocks: true,
        });
        self.request(id).current = Some(attempt);
        self.open(attempt);
    }

    pub(super) fn connected(&mut self, id: Id) {
        let Some(attempt) = self.attempts.get(id) else {
            return;
        };
        attempt.app.connected(attempt.backend);
        if !attempt.knocks {
            return self.send(id);
        }
        // It is there: it had its chance.
        let request = attempt.request;
        self.drop_attempt(id);
        self.fail(request, Failure::NoneLeft);
    }

    fn send(&mut self, id: Id) {
        let now_us = self.now_us();
        let attempt = self.attempts.get_mut(id).expect("it must be under way");
        let hedge_us = attempt.app.hedge_after_us();
        attempt.sent_us = Some(now_us);
        attempt.look_us = hedge_us.map(|us| now_us + us);
        let request = attempt.request;
        self.request(request).sent = true;
        self.engine.after(NETWORK_US, Event::Delivered(id));
        self.arm(id);
    }

    /// Sets when something is to be done about a try that stays silent.
    pub(super) fn arm(&mut self, id: Id) {
        let at_us = self.due_us(id);
        self.engine.at(at_us, Event::AttemptDue(id));
    }

    /// When a try that was sent is overdue, looked at, or out of time.
    fn due_us(&self, id: Id) -> Micros {
        let attempt = self.attempts.get(id).expect("it must be under way");
        let app = &attempt.app;
        let sent_us = attempt.sent_us.expect("it must have been sent");
        let overdue_us = (!attempt.overdue).then(|| sent_us + app.overdue_after_us());
        let first = [attempt.look_us, overdue_us].into_iter().flatten().min();
        first.unwrap_or(Micros::MAX).min(self.silent_us(id))
    }

    /// When its request has waited for a first byte as long as it may: from the
    /// first try that is still waited for.
    fn silent_us(&self, id: Id) -> Micros {
        let request = self.request_of(id);
        let waited_for = request.aside.iter().chain([&id]);
        let sent_us = waited_for.filter_map(|&one| self.attempts.get(one)?.sent_us);
        let first_us = sent_us.min().expect("it must have been sent");
        let app = &self.routers[request.router].app;
        first_us + app.policy.first_byte_timeout.as_micros() as Micros
    }

    pub(super) fn attempt_due(&mut self, id: Id) {
        let now_us = self.now_us();
        if self.attempts.get(id).is_none() || self.request_of(id).current != Some(id) {
            // Over; or set aside, and armed anew when it is waited for again.
            return;
        }
        if now_us >= self.silent_us(id) {
            self.silent(id);
        } else if now_us >= self.due_us(id) {
            self.overdue(id);
        } else {
            // Armed for another time meanwhile, or the app has become slower.
            self.arm(id);
        }
    }

    pub(super) fn request_of(&self, attempt: Id) -> &Request {
        let attempt = self.attempts.get(attempt).expect("it must be under way");
        let request = self.requests.get(attempt.request);
        request.expect("it must be under way")
    }

    /// A try is overdue: another beside it, if patience with its backend is
    /// over and the request may be repeated; else it is only waited for.
    fn overdue(&mut self, id: Id) {
        let now_us = self.now_us();
        let attempt = self.attempts.get_mut(id).expect("it must be under way");
        let app = Arc::clone(&attempt.app);
        let sent_us = attempt.sent_us.expect("it must have been sent");
        let (request, backend, look_us) = (attempt.request, attempt.backend, attempt.look_us);
        let became_overdue = !attempt.overdue && now_us >= sent_us + app.overdue_after_us();
        attempt.overdue |= became_overdue;
        let overtakes = self.request(request).aside.iter().any(|&other| other != id);
        if became_overdue && !overtakes {
            self.tell(id, Outcome::Overdue);
        }
        let known = self.request(request);
        let look_us = if !known.repeatable || known.retries_left == 0 {
            None
        } else {
            let waiting = Waiting {
                index: backend,
                now_us,
                waited_us: now_us - sent_us,
                overtakes,
            };
            match app.patience(&waiting) {
                Some(Patience::Again { after_us }) => Some(now_us + after_us),
                Some(Patience::Over) => return self.overtake(id),
                None if look_us.is_some_and(|at_us| now_us >= at_us) => return self.overtake(id),
                None => look_us,
            }
        };
        self.look_at(id, look_us);
    }

    fn look_at(&mut self, id: Id, look_us: Option<Micros>) {
        let attempt = self.attempts.get_mut(id).expect("it must be under way");
        attempt.look_us = look_us;
        self.arm(id);
    }

    /// Another try beside this one, if there is a backend and a budget for it.
    fn overtake(&mut self, id: Id) {
        let attempt = self.attempts.get(id).expect("it must be under way");
        let (request, backend) = (attempt.request, attempt.backend);
        self.look_at(id, None);
        self.request(request).tried.push(backend);
        let Found::Backend(pick) = self.choose(request, true) else {
            self.request(request).alone = true;
            return;
        };
        let (router, now_us) = (self.router_of(request), self.now_us());
        if !self.withdraw(router, now_us, Retry::Hedge) {
            self.request(request).over_budget = true;
            return;
        }
        let known = self.request(request);
        known.retries_left -= 1;
        known.aside.push(id);
        known.current = None;
        self.record.hedges += 1;
        self.begin(request, pick);
    }

    /// No first byte in all the time there is.
    fn silent(&mut self, id: Id) {
        let attempt = self.attempts.get(id).expect("it must be under way");
        let (request, backend, sent_us) = (attempt.request, attempt.backend, attempt.sent_us);
        let app = &attempt.app;
        let answered_others = sent_us.is_some_and(|sent_us| app.answered_us(backend) >= sent_us);
        if answered_others || !attempt.overdue {
            // Silent to this one only, or the app takes as long as that: a long
            // request is left alone.
            self.request(request).alone = true;
        }
        self.tell(id, Outcome::TimedOut);
        for one in mem::take(&mut self.request(request).aside) {
            self.tell(one, Outcome::TimedOut);
            self.drop_attempt(one);
        }
        self.drop_attempt(id);
        self.fail(request, Failure::Silent);
    }

    /// An answer's head came.
    pub(super) fn answered(&mut self, id: Id, reply: Reply) {
        let now_us = self.now_us();
        let Some(attempt) = self.attempts.get(id) else {
            return;
        };
        let (request, backend) = (attempt.request, attempt.backend);
        let first_byte_us = now_us - attempt.sent_us.expect("it must have been sent");
        let status = reply.status;
        let inside_us = first_byte_us as u32;
        let outcome = match reply.rest_us {
            Some(rest_us) => Outcome::AskedForRest {
                rest_us,
                first_byte_us,
            },
            None => Outcome::Answered {
                status,
                first_byte_us,
            },
        };
        self.speaks(request, id);
        if let (502..=504, Some(pick)) = (status, self.better(request, backend, status)) {
            self.tell(id, outcome);
            self.drop_attempt(id);
            self.record.retries += 1;
            return self.begin(request, pick);
        }
        for one in mem::take(&mut self.request(request).aside) {
            self.drop_attempt(one);
        }
        self.tell(id, outcome);
        let router = self.router_of(request);
        if self.backends[backend].mode != Mode::Down {
            self.routers[router].idle[backend] += 1;
        }
        if self.setup.body_us > 0 {
            self.stream(id);
        } else {
            self.drop_attempt(id);
        }
        self.request(request).inside_us = inside_us;
        self.end(request, Ok(status));
    }

    /// The body follows: the try counts as in flight, but waits no more.
    fn stream(&mut self, id: Id) {
        let attempt = self.attempts.remove(id).expect("it must be under way");
        if let Some(checkout) = &attempt.checkout {
            checkout.heard();
        }
        let stream = self.streaming.insert(Streaming {
            _checkout: attempt.checkout,
        });
        self.engine
            .after(self.setup.body_us, Event::Streamed(stream));
    }

    /// The body's end.
    pub(super) fn streamed(&mut self, stream: Id) {
        let streaming = self.streaming.remove(stream);
        drop(streaming.expect("it must be under way"));
    }

    /// A try set aside that speaks first is the one that counts: the other is
    /// dropped.
    fn speaks(&mut self, request: Id, id: Id) {
        let known = self.request(request);
        let Some(at) = known.aside.iter().position(|&aside| aside == id) else {
            return;
        };
        known.aside.remove(at);
        if let Some(other) = known.current.replace(id) {
            self.drop_attempt(other);
        }
    }

    /// A backend that may do better than an answer of 502, 503 or 504.
    fn better(&mut self, request: Id, backend: usize, status: u16) -> Option<Pick> {
        if !(502..=504).contains(&status) || !self.request(request).repeatable {
            return None;
        }
        self.request(request).tried.push(backend);
        let Found::Backend(pick) = self.choose(request, true) else {
            return None;
        };
        self.use_up(request).then_some(pick)
    }

    /// Closed, or reset, before a byte of the answer.
    pub(super) fn closed(&mut self, id: Id) {
        let Some(attempt) = self.attempts.get(id) else {
            return;
        };
        let (request, backend, reused) = (attempt.request, attempt.backend, attempt.reused);
        if !reused {
            self.tell(id, Outcome::Reset);
        }
        let router = self.router_of(request);
        self.drop_attempt(id);
        let known = self.request(request);
        if let Some(at) = known.aside.iter().position(|&aside| aside == id) {
            // Nobody's answer any more; the one beside it goes on.
            known.aside.remove(at);
            return;
        }
        known.current = None;
        if reused {
            known.fresh_only = true;
            self.record.stale += 1;
            self.routers[router].idle[backend] = 0;
        } else {
            known.closed = true;
            known.tried.push(backend);
        }
        let goes_on = self.request(request).repeatable && (reused || self.use_up(request));
        if goes_on {
            self.record.retries += u64::from(!reused);
            self.pick(request);
        } else {
            self.give_up(request, Failure::Closed);
        }
    }

    pub(super) fn refused(&mut self, id: Id) {
        self.unconnected(id, false);
    }

    pub(super) fn connect_timed_out(&mut self, id: Id) {
        self.unconnected(id, true);
    }

    fn unconnected(&mut self, id: Id, timed_out: bool) {
        let Some(attempt) = self.attempts.get(id) else {
            return;
        };
        let (request, backend, knocks) = (attempt.request, attempt.backend, attempt.knocks);
        let failure = if timed_out {
            ConnectFailure::TimedOut
        } else {
            ConnectFailure::Refused
        };
        self.tell(id, Outcome::ConnectFailed(failure));
        self.drop_attempt(id);
        self.request(request).current = None;
        if knocks {
            return self.pick_again(request, true);
        }
        self.request(request).tried.push(backend);
        if self.use_up(request) {
            self.record.retries += 1;
            self.pick(request);
        } else {
            self.give_up(request, Failure::Unconnected);
        }
    }
}
