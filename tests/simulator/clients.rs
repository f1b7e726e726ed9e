//! Who asks: when they come, how long they wait, and whether they ask again.
//!
//! Owns the clients of a run. They know nothing of routers but where to ask: a
//! client that leaves or is refused may come back at once, which is how a storm
//! of retries comes from outside the router.

use portico::table::Told;

use crate::arena::Id;
use crate::engine::Micros;
use crate::journey::Asked;
use crate::load::Arrivals;
use crate::record::Failure;
use crate::router::THREADS;
use crate::world::{Event, World};

/// Clients who behave alike.
#[derive(Clone, Copy, Debug)]
pub struct Clients {
    /// When they come.
    pub arrivals: Arrivals,
    /// The first of them.
    pub from_us: Micros,
    /// None comes later.
    pub until_us: Micros,
    /// Whom they ask; `None`: any router.
    pub router: Option<usize>,
    /// They leave when they have waited so long.
    pub patience_us: Option<Micros>,
    /// So often they ask again when they were refused, or left.
    pub again: u32,
    /// So long after that.
    pub pause_us: Micros,
}

impl From<Arrivals> for Clients {
    /// They come all the time, wait for ever and ask once.
    fn from(arrivals: Arrivals) -> Self {
        Clients {
            arrivals,
            from_us: 0,
            until_us: Micros::MAX,
            router: None,
            patience_us: None,
            again: 0,
            pause_us: 0,
        }
    }
}

impl Clients {
    /// They come only then.
    pub fn between(self, from_us: Micros, until_us: Micros) -> Self {
        Clients {
            from_us,
            until_us,
            ..self
        }
    }

    /// They ask one router.
    pub fn at(self, router: usize) -> Self {
        Clients {
            router: Some(router),
            ..self
        }
    }

    /// They leave after so long.
    pub fn with_patience(self, patience_us: Micros) -> Self {
        Clients {
            patience_us: Some(patience_us),
            ..self
        }
    }

    /// They ask again, so often, after such a pause.
    pub fn asking_again(self, again: u32, pause_us: Micros) -> Self {
        Clients {
            again,
            pause_us,
            ..self
        }
    }
}

impl World {
    /// The next of them comes, and the one after it is set.
    pub(super) fn next_of(&mut self, clients: usize) {
        let known = self.setup.clients[clients];
        let random = &mut self.arriving[clients];
        let asked = Asked {
            clients,
            router: known
                .router
                .unwrap_or_else(|| random.usize(..self.setup.routers)),
            repeatable: random.u32(..100) < self.setup.repeatable_percent,
            thread: random.usize(..THREADS),
            again: known.again,
        };
        self.come(asked);
        let gap_us = known.arrivals.gap_us(&mut self.arriving[clients]);
        if self.now_us() + gap_us <= known.until_us.min(self.setup.length_us) {
            self.engine.after(gap_us, Event::Arrival(clients));
        }
    }

    fn come(&mut self, asked: Asked) {
        let id = self.arrive(asked);
        if self.requests.get(id).is_none() {
            return;
        }
        if let Some(patience_us) = self.setup.clients[asked.clients].patience_us {
            self.engine.after(patience_us, Event::ClientLeaves(id));
        }
    }

    /// A client who was refused, or left, asks again if it does so.
    pub(super) fn disappointed(&mut self, asked: Asked) {
        let pause_us = self.setup.clients[asked.clients].pause_us;
        if asked.again > 0 && self.now_us() + pause_us <= self.setup.length_us {
            let asked = Asked {
                again: asked.again - 1,
                ..asked
            };
            self.engine.after(pause_us, Event::Again(asked));
        }
    }

    pub(super) fn again(&mut self, asked: Asked) {
        self.come(asked);
    }

    /// A client has waited long enough: its tries are given up, as the edge's
    /// judge does. The backend has them still, and works for nobody.
    pub(super) fn client_leaves(&mut self, id: Id) {
        let Some(request) = self.requests.get_mut(id) else {
            return;
        };
        let mut tries = std::mem::take(&mut request.aside);
        tries.extend(request.current.take());
        if request.waiting.is_some() {
            drop(self.leave(id));
        }
        for one in tries {
            self.abandon(one);
            self.drop_attempt(one);
        }
        self.fail(id, Failure::ClientLeft);
    }

    fn abandon(&mut self, id: Id) {
        let attempt = self.attempts.get(id).expect("it must be under way");
        if attempt.sent_us.is_some() {
            let app = std::sync::Arc::clone(&attempt.app);
            let told: Told = self.telling(id, portico::policy::health::Outcome::TimedOut);
            app.abandoned(&told);
        }
    }
}
