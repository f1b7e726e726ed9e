//! A thread's connections whose requests wait in their apps' lines.
//!
//! Owns which of them goes where there is no connection to spare and none that
//! waits for its client: of a few drawn by lot, one of the app whose line is
//! longest. An app that has most of them is nearly always among those drawn, how
//! long a line is its app knows, and nobody walks over all. (Drawing few for the
//! worst: Mitzenmacher, "The power of two choices in randomized load balancing",
//! 2001.) Who is held while his app is down is not here: he waits as long as he
//! was promised.

use std::cell::RefCell;
use std::sync::Arc;

use crate::table::AppLive;

/// How many are drawn.
const DRAWN: usize = 8;

/// The shortest line that somebody has to leave: the only one who waits for an app
/// has no more than whoever comes would have.
const LEAST: u32 = 2;

/// Where a connection is that waits in no line.
const NOWHERE: u32 = u32::MAX;
/// One that is to go.
const DISMISSED: u32 = u32::MAX - 1;

/// Connections by the slots of their deadlines.
#[derive(Default)]
pub struct Lines(RefCell<Inner>);

#[derive(Default)]
struct Inner {
    waiting: Vec<Waiting>,
    /// Where each slot is in `waiting`.
    places: Vec<u32>,
}

struct Waiting {
    slot: u32,
    app: Arc<AppLive>,
}

impl Lines {
    /// This connection's request waits in its app's line from now on.
    pub fn enter(&self, slot: u32, app: &Arc<AppLive>) {
        let inner = &mut *self.0.borrow_mut();
        inner.leave(slot, NOWHERE);
        let index = slot as usize;
        if index >= inner.places.len() {
            inner.places.resize(index + 1, NOWHERE);
        }
        inner.places[index] = inner.waiting.len() as u32;
        let app = Arc::clone(app);
        inner.waiting.push(Waiting { slot, app });
    }

    /// It does no more.
    pub fn leave(&self, slot: u32) {
        self.0.borrow_mut().leave(slot, NOWHERE);
    }

    /// Whether it is to go.
    pub fn is_dismissed(&self, slot: u32) -> bool {
        let inner = self.0.borrow();
        inner.places.get(slot as usize) == Some(&DISMISSED)
    }

    /// One that is to go, if there is any.
    pub fn dismiss(&self, random: &mut fastrand::Rng) -> Option<u32> {
        let inner = &mut *self.0.borrow_mut();
        let count = inner.waiting.len();
        let drawn = (0..DRAWN.min(count)).map(|_| &inner.waiting[random.usize(..count)]);
        let worst = drawn.max_by_key(|one| one.app.queue.waiting())?;
        if worst.app.queue.waiting() < LEAST {
            return None;
        }
        let slot = worst.slot;
        inner.leave(slot, DISMISSED);
        Some(slot)
    }
}

impl Inner {
    fn leave(&mut self, slot: u32, place: u32) {
        let Some(at) = self.places.get_mut(slot as usize) else {
            return;
        };
        let at = std::mem::replace(at, place) as usize;
        if at < self.waiting.len() {
            self.waiting.swap_remove(at);
            if let Some(moved) = self.waiting.get(at) {
                self.places[moved.slot as usize] = at as u32;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::feed::messages::{AppRecord, Change, Delta, Op};
    use crate::policy::admission::standing::Pace;
    use crate::policy::admission::{Joining, Waiter};
    use crate::table::Table;

    fn app(name: &str) -> Arc<AppLive> {
        let table = Table::new(1);
        let record = AppRecord {
            name: name.to_owned(),
            ..AppRecord::default()
        };
        let ops = vec![Op {
            change: Some(Change::Put(record)),
        }];
        let to = table.revision() + 1;
        let delta = Delta {
            to,
            ops,
            ..Delta::default()
        };
        assert_eq!(table.apply(&delta), []);
        Arc::clone(table.app(name).expect("it was put").live())
    }

    fn line(app: &AppLive, length: usize) -> Vec<Waiter<'_>> {
        let joining = Joining {
            limit: 1_000,
            now_us: 1,
            pace: Pace::of(1_000),
            held: false,
        };
        let places = (0..length).map(|_| app.queue.join(&joining));
        places.map(|place| place.expect("there is room")).collect()
    }

    #[test]
    fn who_goes_is_of_the_app_whose_line_is_longest() {
        let (noisy, quiet) = (app("noisy"), app("quiet"));
        let (_long, _short) = (line(&noisy, 90), line(&quiet, 10));
        let lines = Lines::default();
        // Quiet ones are the even slots up to 20.
        for slot in 0..100 {
            let is_quiet = slot < 20 && slot % 2 == 0;
            lines.enter(slot, if is_quiet { &quiet } else { &noisy });
        }
        let mut random = fastrand::Rng::with_seed(7);
        let gone: Vec<u32> = (0..50)
            .map(|_| lines.dismiss(&mut random).expect("many wait"))
            .collect();
        let quiet_gone = gone.iter().filter(|slot| **slot < 20 && *slot % 2 == 0);
        assert_eq!(quiet_gone.count(), 0);
        assert!(gone.iter().all(|slot| lines.is_dismissed(*slot)));
        let mut each = gone.clone();
        each.sort_unstable();
        each.dedup();
        assert_eq!(each.len(), gone.len(), "nobody goes twice");
    }

    #[test]
    fn who_waits_alone_or_no_more_stays() {
        let one = app("one");
        let lines = Lines::default();
        let mut random = fastrand::Rng::with_seed(7);
        assert_eq!(lines.dismiss(&mut random), None);
        lines.enter(3, &one);
        let alone = line(&one, 1);
        assert_eq!(lines.dismiss(&mut random), None);
        drop(alone);
        let _two = line(&one, 2);
        lines.leave(3);
        lines.leave(9);
        assert_eq!(lines.dismiss(&mut random), None);
        assert!(!lines.is_dismissed(3) && !lines.is_dismissed(9));
    }

    #[test]
    fn a_slots_next_owner_inherits_nothing() {
        let one = app("one");
        let _two = line(&one, 2);
        let lines = Lines::default();
        let mut random = fastrand::Rng::with_seed(7);
        lines.enter(0, &one);
        assert_eq!(lines.dismiss(&mut random), Some(0));
        lines.leave(0);
        assert!(!lines.is_dismissed(0));
        lines.enter(0, &one);
        lines.enter(1, &one);
        lines.enter(0, &one);
        lines.leave(0);
        assert_eq!(lines.dismiss(&mut random), Some(1));
        assert_eq!(lines.dismiss(&mut random), None);
    }
}
