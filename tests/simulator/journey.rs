//! A request's way through a modelled router, as the edge's journey goes.
//!
//! ```text
//! arrive → choose → connect → send → (overdue: another beside it) → answer
//!            ▲                          │ failed, 502–504
//!            └──────────────────────────┘ within tries and budget
//! ```
//!
//! Owns the order of the steps and what each tells the health. Every decision
//! is the router's own: [`portico::table::App`] chooses, judges and budgets.

use std::sync::Arc;

use portico::policy::balance::{Ask, Candidates, Choice, Tried};
use portico::policy::health::Outcome;
use portico::policy::retry::Retry;
use portico::table::{Checkout, Hedge, Policy, Told};

use crate::arena::Id;
use crate::engine::Micros;
use crate::record::Failure;
use crate::waiting::Wait;
use crate::world::World;

/// What a client asks, and whom.
#[derive(Clone, Copy, Debug)]
pub struct Asked {
    /// Which of the clients it is one of.
    pub clients: usize,
    pub router: usize,
    /// The router's thread that has its connection.
    pub thread: usize,
    /// Executing it twice does no harm.
    pub repeatable: bool,
    /// How often it asks again, if it has to.
    pub again: u32,
}

/// A request under way.
pub struct Request {
    pub asked: Asked,
    pub router: usize,
    pub serial: u64,
    pub arrived_us: Micros,
    /// Executing it twice does no harm.
    pub repeatable: bool,
    /// The try whose answer is read first.
    pub current: Option<Id>,
    /// Sent, overdue, and still waited for.
    pub aside: Vec<Id>,
    pub tried: Tried,
    pub retries_left: u32,
    /// A kept connection was dead: no other is trusted.
    pub fresh_only: bool,
    /// Some backend has it, or had it.
    pub sent: bool,
    /// A try was closed before it was answered.
    pub closed: bool,
    /// The budget had nothing left for it.
    pub over_budget: bool,
    /// It waits for the backend it is with and no other: nobody else in
    /// rotation had room when patience was over, or the backend answers others.
    pub alone: bool,
    /// It waited for a backend to come up as long as it may.
    pub held: bool,
    pub waiting: Option<Wait>,
    pub waits: u64,
    /// What the answer took after the request was sent.
    pub inside_us: u32,
}

/// A backend, held for a request.
pub struct Pick {
    pub index: usize,
    pub chosen_us: Micros,
    /// `None`: the routers of the run count nothing.
    pub checkout: Option<Checkout>,
}

/// What the balancer has.
pub enum Found {
    Backend(Pick),
    Full,
    Down(usize),
    None,
}

impl World {
    pub(super) fn request(&mut self, id: Id) -> &mut Request {
        self.requests.get_mut(id).expect("it must be under way")
    }

    pub(super) fn router_of(&self, id: Id) -> usize {
        self.requests.get(id).expect("it must be under way").router
    }

    pub(super) fn serial(&self, id: Id) -> u64 {
        self.requests.get(id).expect("it must be under way").serial
    }

    pub(super) fn policy(&self, router: usize) -> &Policy {
        &self.routers[router].app.policy
    }

    /// A client's request.
    pub(super) fn arrive(&mut self, asked: Asked) -> Id {
        let Asked {
            router,
            thread,
            repeatable,
            ..
        } = asked;
        let now_us = self.now_us();
        self.routers[router].live.cells[thread].begin();
        let serial = self.record.arrived(now_us, router, repeatable);
        let request = Request {
            asked,
            router,
            serial,
            arrived_us: now_us,
            repeatable,
            current: None,
            aside: Vec::new(),
            tried: Tried::default(),
            retries_left: self.policy(router).retries,
            fresh_only: false,
            sent: false,
            closed: false,
            over_budget: false,
            alone: false,
            held: false,
            waiting: None,
            waits: 0,
            inside_us: 0,
        };
        let id = self.requests.insert(request);
        self.pick(id);
        id
    }

    /// What the balancer has for it; a backend is held for it already.
    pub(super) fn choose(&mut self, id: Id, hedge: bool) -> Found {
        let request = self.requests.get(id).expect("it must be under way");
        let chosen_us = self.now_us();
        let ask = Ask {
            now_us: chosen_us,
            random: self.choosing.u64(..),
            tried: &request.tried,
            repeatable: request.repeatable,
            hedge,
        };
        let router = request.router;
        if self.setup.bare {
            let index = self
                .choosing
                .usize(..self.routers[router].app.backends.len());
            return Found::Backend(Pick {
                index,
                chosen_us,
                checkout: None,
            });
        }
        let choice = self.routers[router].app.choose(&ask);
        let (index, is_trial) = match choice {
            Choice::Backend(index) => (index, false),
            Choice::Trial(index) => (index, true),
            Choice::AllFull => return Found::Full,
            Choice::AllOut(index) => return Found::Down(index),
            Choice::NoneLeft => return Found::None,
        };
        Found::Backend(self.hold(router, index, is_trial))
    }

    fn hold(&mut self, router: usize, index: usize, is_trial: bool) -> Pick {
        let chosen_us = self.now_us();
        let app = &self.routers[router].app;
        let checkout = Checkout::take(app, index, chosen_us, is_trial);
        assert!(checkout.is_some(), "a full backend was chosen");
        assert!(
            self.setup.weights[index] > 0 || self.setup.weights.iter().all(|&w| w == 0),
            "a spare was chosen beside others"
        );
        Pick {
            index,
            chosen_us,
            checkout,
        }
    }

    /// A backend for it, at once or after a wait; or its end.
    pub(super) fn pick(&mut self, id: Id) {
        self.pick_again(id, false);
    }

    /// `knocked`: a backend it had met was asked whether it is still there.
    pub(super) fn pick_again(&mut self, id: Id, mut knocked: bool) {
        loop {
            match self.choose(id, false) {
                Found::Backend(pick) if knocked && self.request(id).closed => {
                    return self.knock(id, pick);
                }
                Found::Backend(pick) if knocked => {
                    drop(pick);
                    return self.give_up(id, Failure::NoneLeft);
                }
                Found::Backend(pick) => return self.begin(id, pick),
                Found::Full => return self.wait(id, Wait::Room),
                Found::Down(index) => {
                    let Some(patience_us) = self.boot_wait_us(id) else {
                        let pick = self.hold(self.router_of(id), index, false);
                        return self.begin(id, pick);
                    };
                    return self.wait(id, Wait::Boot(patience_us));
                }
                Found::None => {
                    if knocked || self.boot_wait_us(id).is_none() {
                        return self.give_up(id, Failure::NoneLeft);
                    }
                    // All were met. Where all are down, one may come up again.
                    knocked = true;
                    self.request(id).tried = Tried::default();
                }
            }
        }
    }

    /// How long it may be held for a backend to come up.
    pub(super) fn boot_wait_us(&self, id: Id) -> Option<Micros> {
        let request = self.requests.get(id).expect("it must be under way");
        let app = &self.routers[request.router].app;
        let usual = app.has_been_up().then_some(Policy::BOOT_WAIT);
        let patience = app.policy.boot_wait.or(usual)?;
        let may = !request.held && request.aside.is_empty() && !patience.is_zero();
        may.then_some(patience.as_micros() as Micros)
    }

    fn wait(&mut self, id: Id, what: Wait) {
        if !self.request(id).aside.is_empty() {
            // A try is under way: better than any place in a line.
            return self.resume(id);
        }
        if !self.join(id, what) {
            self.fail(id, Failure::QueueFull);
        }
    }

    /// There is no other backend for it: a try still waited for, or the end.
    pub(super) fn give_up(&mut self, id: Id, failure: Failure) {
        if self.request(id).aside.is_empty() {
            self.fail(id, failure);
        } else {
            self.resume(id);
        }
    }

    /// Back to a try set aside.
    fn resume(&mut self, id: Id) {
        let request = self.request(id);
        request.alone = true;
        let one = request.aside.pop().expect("a try must be set aside");
        request.current = Some(one);
        self.arm(one);
    }

    /// Uses up a try and a part of the app's budget, if there is one.
    pub(super) fn use_up(&mut self, id: Id) -> bool {
        let (router, now_us) = (self.router_of(id), self.now_us());
        if self.request(id).retries_left == 0 {
            return false;
        }
        if !self.withdraw(router, now_us, Retry::Again) {
            self.request(id).over_budget = true;
            return false;
        }
        self.request(id).retries_left -= 1;
        true
    }

    pub(super) fn withdraw(&mut self, router: usize, now_us: Micros, kind: Retry) -> bool {
        let granted = self.routers[router].app.withdraw_retry(now_us, kind);
        if granted {
            self.record.withdrew(now_us, router);
        }
        granted
    }

    pub(super) fn telling(&mut self, id: Id, outcome: Outcome) -> Told {
        let now_us = self.now_us();
        let random = self.choosing.u64(..);
        let attempt = self.attempts.get(id).expect("it must be under way");
        let request = self.request_of(id);
        let ahead_us = self.setup.ahead_us.get(request.router);
        Told {
            thread: request.asked.thread,
            index: attempt.backend,
            now_us,
            wall_us: now_us + ahead_us.unwrap_or(&0),
            sent_us: attempt.chosen_us,
            waited_us: attempt.sent_us.map_or(0, |at| now_us.saturating_sub(at)),
            outcome,
            random,
        }
    }

    pub(super) fn tell(&mut self, id: Id, outcome: Outcome) {
        let told = self.telling(id, outcome);
        let attempt = self.attempts.get(id).expect("it must be under way");
        let (app, backend) = (Arc::clone(&attempt.app), attempt.backend);
        let router = self.request_of(id).router;
        if let Some(verdict) = app.tell(&told) {
            self.pronounced(router, backend, verdict);
        }
    }

    /// A try is over, whatever came of it.
    pub(super) fn drop_attempt(&mut self, id: Id) {
        let attempt = self.attempts.remove(id);
        drop(attempt.expect("it must be under way"));
    }

    /// The router answers by itself.
    pub(super) fn fail(&mut self, id: Id, failure: Failure) {
        self.end(id, Err(failure));
    }

    /// Whether the request could have been served there: the backend has been
    /// up without a break since it arrived, is in rotation, has room, was not
    /// tried for it, and is no spare beside others.
    fn is_well(&self, request: &Request, index: usize) -> bool {
        let app = &self.routers[request.router].app;
        let has_weight = self.setup.weights.iter().any(|&weight| weight > 0);
        self.backends[index].has_been_up_since(request.arrived_us)
            && app.state(index).is_in_rotation()
            && !request.tried.contains(index)
            && !app.is_full(index)
            && (self.setup.weights[index] > 0 || !has_weight)
    }

    pub(super) fn end(&mut self, id: Id, ending: Result<u16, Failure>) {
        let now_us = self.now_us();
        let request = self.requests.remove(id).expect("it must be under way");
        let router = &self.routers[request.router];
        let status = ending.unwrap_or(503);
        let took_us = now_us - request.arrived_us;
        router.live.cells[request.asked.thread].answered(status, None, 0, took_us);
        let well = (0..router.app.backends.len()).filter(|&index| self.is_well(&request, index));
        let blocked_us = self.routers[request.router].blocked_us;
        let is_behind = ending == Err(Failure::QueueTimedOut)
            && blocked_us.is_some_and(|at_us| at_us >= request.arrived_us);
        let well = if is_behind { 0 } else { well.count() };
        let may_hedge = self.policy(request.router).hedge != Hedge::Off;
        self.record
            .ended(now_us, &request, ending, (well, may_hedge));
        if ending.is_err() || matches!(status, 502..=504) {
            self.disappointed(request.asked);
        }
    }
}
