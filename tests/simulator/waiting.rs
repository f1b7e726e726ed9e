//! How a modelled request waits: for room, or for a backend to come up.
//!
//! Owns the places in the app's line, which is the router's own
//! [`portico::policy::admission`], and the patience of those in it.

use std::pin::Pin;
use std::task::{Context, Poll};

use portico::policy::admission::{Joining, Turn};

use crate::arena::Id;
use crate::engine::{Micros, SECOND};
use crate::journey::Found;
use crate::record::Failure;
use crate::router::{Waiting, waker};
use crate::world::{Event, World};

/// A request waits at most this long for a backend with room.
const QUEUE_PATIENCE_US: Micros = 5 * SECOND;
/// Places for requests that are held while an app is down.
const HELD: u32 = 1_000;

/// What a request waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// A backend with room.
    Room,
    /// A backend that accepts connections, for this long.
    Boot(Micros),
}

impl World {
    /// Joins the line; `false` if there is no place.
    pub(super) fn join(&mut self, id: Id, wait: Wait) -> bool {
        let router = self.router_of(id);
        let backends = self.routers[router].app.backends.len() as u32;
        let withheld = self.routers[router].app.withheld();
        let places = match wait {
            Wait::Room => 50 * backends + withheld,
            Wait::Boot(_) => HELD.max(50 * backends),
        };
        let known = &mut self.routers[router];
        let joined = known.live.queue.join(&Joining {
            limit: places,
            now_us: self.engine.now_us(),
            pace: known.app.pace(),
            held: wait != Wait::Room,
        });
        let Ok(place) = joined else {
            return false;
        };
        if wait == Wait::Room {
            known.app.press(self.engine.now_us());
        }
        known.waiting.push(Waiting {
            request: id,
            place,
            waker: waker(id, &self.woken),
        });
        self.patience(id, wait);
        self.record.waited += 1;
        // Asked again in the line too: room made before joining woke nobody.
        self.look_again(id);
        self.hasten_probes(router);
        true
    }

    fn patience(&mut self, id: Id, what: Wait) {
        let patience_us = match what {
            Wait::Room => QUEUE_PATIENCE_US,
            Wait::Boot(patience_us) => patience_us,
        };
        let request = self.requests.get_mut(id).expect("it must be under way");
        request.waits += 1;
        request.waiting = Some(what);
        let wait = request.waits;
        let request = id;
        self.engine
            .after(patience_us, Event::WaitOver { request, wait });
    }

    /// It joined the line, or was woken in it.
    pub(super) fn look_again(&mut self, id: Id) {
        let Some(what) = self.requests.get(id).and_then(|request| request.waiting) else {
            return;
        };
        let router = self.router_of(id);
        loop {
            match self.choose(id, false) {
                Found::Backend { index, chosen_us } => {
                    let pace = self.routers[router].app.pace();
                    self.leave(id).place.served(chosen_us, &pace);
                    return self.begin(id, index, chosen_us);
                }
                Found::Full if what != Wait::Room => {
                    // One came up, and others were before us.
                    self.patience(id, Wait::Room);
                }
                Found::Full | Found::Down(_) | Found::None => {}
            }
            let is_second = self
                .requests
                .get(id)
                .is_some_and(|one| !one.tried.is_empty());
            if is_second {
                self.routers[router].blocked_us = Some(self.now_us());
            }
            let waiting = &mut self.routers[router].waiting;
            let waiting = waiting
                .iter_mut()
                .find(|waiting| waiting.request == id)
                .expect("it must have a place");
            let mut context = Context::from_waker(&waiting.waker);
            match Pin::new(&mut waiting.place).poll(&mut context) {
                Poll::Pending => return,
                Poll::Ready(Turn::Come) => {}
                Poll::Ready(Turn::Shed) => {
                    drop(self.leave(id));
                    return self.fail(id, Failure::Shed);
                }
            }
        }
    }

    /// Its place, which it gives up.
    pub(super) fn leave(&mut self, id: Id) -> Waiting {
        let router = self.router_of(id);
        let request = self.requests.get_mut(id).expect("it must be under way");
        request.waiting = None;
        let waiting = &mut self.routers[router].waiting;
        let at = waiting.iter().position(|waiting| waiting.request == id);
        waiting.swap_remove(at.expect("it must have a place"))
    }

    /// Its patience ended, if it still waits for the same.
    pub(super) fn wait_over(&mut self, id: Id, wait: u64) {
        let Some(request) = self.requests.get(id) else {
            return;
        };
        if request.waits != wait {
            return;
        }
        match request.waiting {
            None => {}
            Some(Wait::Room) => {
                drop(self.leave(id));
                self.fail(id, Failure::QueueTimedOut);
            }
            Some(Wait::Boot(_)) => {
                drop(self.leave(id));
                let request = self.requests.get_mut(id).expect("it must be under way");
                request.held = true;
                self.pick(id);
            }
        }
    }
}
