//! How a modelled request waits: for room, or for a backend to come up.
//!
//! Owns the places in the app's line, which is the router's own
//! [`portico::policy::admission`], and the patience of those in it.

use std::pin::Pin;
use std::task::{Context, Poll};

use portico::policy::admission::{Joining, Turn};
use portico::policy::balance::{Ask, Choice};

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

/// How often one that waits for room has a look at what makes it wait.
const LOOK_US: Micros = SECOND / 10;

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
        if what == Wait::Room {
            self.press(request, wait);
        }
    }

    /// It waits for room: more may be sent than was thought.
    fn press(&mut self, request: Id, wait: u64) {
        let router = self.router_of(request);
        self.routers[router].app.press(self.engine.now_us());
        self.engine
            .after(LOOK_US, Event::WaitLook { request, wait });
    }

    /// The same after a while; or all went down.
    pub(super) fn look(&mut self, id: Id, wait: u64) {
        let Some(request) = self.requests.get(id) else {
            return;
        };
        if request.waits != wait || request.waiting != Some(Wait::Room) {
            return;
        }
        let now_us = self.now_us();
        let ask = Ask {
            now_us,
            random: 0,
            tried: &request.tried,
            repeatable: false,
            hedge: false,
        };
        let app = &self.routers[request.router].app;
        let is_down = matches!(app.preview(&ask), Choice::AllOut(_));
        if !is_down {
            self.press(id, wait);
        } else if !self.hold_in_line(id) {
            drop(self.leave(id));
            self.pick(id);
        }
    }

    /// All that it waited for room on went down: it is held from here on, at its
    /// place in the line, if one that just came would be. False: it would not.
    fn hold_in_line(&mut self, id: Id) -> bool {
        let is_first = self.request(id).tried.is_empty();
        let Some(patience_us) = self.boot_wait_us(id).filter(|_| is_first) else {
            return false;
        };
        self.place(id).place.hold();
        self.patience(id, Wait::Boot(patience_us));
        self.hasten_probes(self.router_of(id));
        true
    }

    fn place(&mut self, id: Id) -> &mut Waiting {
        let router = self.router_of(id);
        let waiting = self.routers[router].waiting.iter_mut();
        let mut waiting = waiting.filter(|waiting| waiting.request == id);
        waiting.next().expect("it must have a place")
    }

    /// It joined the line, or was woken in it.
    pub(super) fn look_again(&mut self, id: Id) {
        let waits = |world: &World| world.requests.get(id).and_then(|request| request.waiting);
        if waits(self).is_none() {
            return;
        }
        let router = self.router_of(id);
        while let Some(what) = waits(self) {
            match self.choose(id, false) {
                Found::Backend(pick) => {
                    let pace = self.routers[router].app.pace();
                    self.leave(id).place.served(pick.chosen_us, &pace);
                    return self.begin(id, pick);
                }
                Found::Full if what != Wait::Room => {
                    // One came up, and others were before us.
                    self.patience(id, Wait::Room);
                }
                Found::Full => {}
                found @ (Found::Down(_) | Found::None) if what == Wait::Room => {
                    if !matches!(found, Found::Down(_)) || !self.hold_in_line(id) {
                        drop(self.leave(id));
                        return self.pick(id);
                    }
                }
                Found::Down(_) | Found::None => {}
            }
            let is_second = self
                .requests
                .get(id)
                .is_some_and(|one| !one.tried.is_empty());
            if is_second {
                self.routers[router].blocked_us = Some(self.now_us());
            }
            let waiting = self.place(id);
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
