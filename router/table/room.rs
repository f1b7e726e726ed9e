//! Room with an app's backends, as its requests see it.
//!
//! Owns nothing but the passing on: what is gathered of answers is a backend's
//! [`Capacity`](super::capacity::Capacity), what is learned from it decided in
//! [`crate::policy::concurrency`]; who is let on when there is room, in
//! [`crate::policy::admission`].

use super::capacity::Heard;
use super::vitals::Told;
use super::{App, AppLive, BackendLive};
use crate::policy::concurrency::FIRST;

/// Places in line that a backend's learned limit adds, at most.
const MOST_WITHHELD: u32 = 200;

impl App {
    /// What an answer, or none, tells of how many requests its backend can have;
    /// where that is more than was thought, requests that wait are let on.
    #[inline]
    pub(super) fn heard(&self, live: &AppLive, backend: &BackendLive, told: &Told, took_us: u64) {
        let heard = Heard {
            took_us,
            awaiting: backend.load.read().awaiting,
            now_us: told.now_us,
            wall_us: told.wall_us,
        };
        let more = backend.capacity.hear(&heard, self.policy.max_concurrency);
        Self::let_on(live, more);
    }

    /// Requests that its backends might have by the app's own limit, and do not
    /// get by what was learned: so many more wait in line instead.
    pub fn withheld(&self) -> u32 {
        if self.policy.queue.is_some() {
            // The app has said how long its line is.
            return 0;
        }
        let most = self.policy.max_concurrency.min(MOST_WITHHELD);
        let limits = self.backends.iter().map(|backend| {
            let live = backend.live.get();
            live.map_or(FIRST, |live| live.capacity.limit()).min(most)
        });
        limits.fold(0, |sum: u32, limit| sum.saturating_add(most - limit))
    }

    /// Whether a backend has a place to spare for a client that is slow to send:
    /// those take no more than half of the places that there are for them.
    pub fn is_spare(&self, index: usize) -> bool {
        let parked = self.backends[index].live().load.read().parked;
        parked < (self.policy.max_concurrency / 2).max(1)
    }

    /// A request waits for room.
    pub fn press(&self, now_us: u64) {
        let live = self.live();
        let most = self.policy.max_concurrency;
        let lives = self.backends.iter().filter_map(|one| one.live.get());
        let more = lives.fold(0, |sum: u32, one| {
            let awaiting = one.load.read().awaiting;
            sum.saturating_add(one.capacity.press(awaiting, now_us, most))
        });
        Self::let_on(live, more);
    }

    /// There is room for so many more.
    #[inline]
    fn let_on(live: &AppLive, more: u32) {
        for _ in 0..more.min(live.queue.waiting()) {
            live.queue.wake_one();
        }
    }

    /// A client gave a try up before it was answered: it took at least so long,
    /// which tells nothing if answers take longer anyway.
    pub fn abandoned(&self, told: &Told) {
        let backend = self.backends[told.index].live();
        if told.waited_us >= backend.capacity.base_us() {
            self.heard(self.live(), backend, told, told.waited_us);
        }
    }
}
