//! Room with an app's backends, as its requests see it.
//!
//! Owns nothing but the passing on: what is gathered of answers is a backend's
//! [`Capacity`], or that of the [server](super::server) that it shares with other
//! apps; what is learned from it is decided in [`crate::policy::concurrency`]; who is
//! let on when there is room, in [`crate::policy::admission`].

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::capacity::{Capacity, Heard, Loaded};
use super::server::{Crowd, Seat, Share};
use super::vitals::Told;
use super::{App, AppLive, BackendLive};
use crate::policy::concurrency::FIRST;

/// No limit that is learned is above this.
const MOST_SHARED: u32 = 1 << 20;

/// Places in line that a backend's learned limit adds, at most.
const MOST_WITHHELD: u32 = 200;

impl App {
    /// What an answer, or none, tells of how many requests its backend can have;
    /// where that is more than was thought, requests that wait are let on.
    #[inline]
    pub(super) fn heard(&self, live: &AppLive, backend: &BackendLive, told: &Told, took_us: u64) {
        let share = backend.share.get();
        let heard = Heard {
            took_us,
            awaiting: backend.awaiting(),
            apps: share.map_or(1, |share| share.apps(share.crowd())),
            now_us: told.now_us,
            wall_us: told.wall_us,
        };
        let capacity = backend.capacity();
        let more = capacity.hear(&heard, self.most_of(backend));
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
            live.map_or(FIRST, |live| live.capacity().limit()).min(most)
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
        let lives = self.backends.iter().filter_map(|one| one.live.get());
        let more = lives.fold(0, |sum: u32, one| {
            let most = self.most_of(one);
            sum.saturating_add(one.capacity().press(one.awaiting(), now_us, most))
        });
        Self::let_on(live, more);
    }

    /// Requests that may ever wait for a backend's answer: of a server that
    /// several apps share, no one app's policy says.
    fn most_of(&self, backend: &BackendLive) -> u32 {
        match backend.share.get() {
            Some(_) => MOST_SHARED,
            None => self.policy.max_concurrency,
        }
    }

    /// A request that waited for a backend's answer does not any more: whoever is
    /// first in line may come, and the next one too if there is room for both.
    /// Nobody else wakes an app whose server has less to do for others than before.
    #[inline]
    pub(super) fn freed(&self, index: usize) {
        let queue = &self.live().queue;
        queue.wake_one();
        let backend = self.backends[index].live();
        let is_shared = || backend.share.get().is_some();
        if queue.waiting() > 0 && is_shared() && !backend.is_full(self.policy.max_concurrency) {
            queue.wake_one();
        }
    }

    /// A backend is about to have its first request.
    #[cold]
    pub(super) fn enrol(&self, index: usize) {
        let backend = &self.backends[index];
        // The same for all versions of the app.
        let app = Arc::as_ptr(self.live()).addr();
        let servers = &self.hot.servers;
        servers.enrol(backend.address(), app, backend.live());
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
        if told.waited_us >= backend.undisturbed_us() {
            self.heard(self.live(), backend, told, told.waited_us);
        }
    }
}

/// There is no room for one request more.
#[derive(Debug)]
pub(super) struct Full;

impl BackendLive {
    /// What is known of how many requests it can have: its own, or the server's
    /// that it shares.
    #[inline]
    pub(super) fn capacity(&self) -> &Capacity {
        match self.share.get() {
            Some(share) => &share.server().capacity,
            None => &self.capacity,
        }
    }

    /// What its answers take where nobody waits for another, microseconds; 0:
    /// unknown. Of a server that several apps share that is known only of all
    /// apps' together, so it is what this one's take.
    pub(super) fn undisturbed_us(&self) -> u64 {
        match self.share.get() {
            Some(_) => self.latency.measured_us(),
            None => self.capacity.base_us(),
        }
    }

    /// Requests that wait for its answer, or its server's.
    #[inline]
    fn awaiting(&self) -> u32 {
        match self.share.get() {
            Some(share) => share.crowd().all,
            None => self.load.read().awaiting,
        }
    }

    /// Requests in flight, and those of other apps that wait for its server.
    #[inline]
    pub(super) fn crowd(&self) -> u32 {
        let own = self.load.read();
        let others = self.share.get().map_or(0, |share| {
            let all = share.crowd().all;
            all.saturating_sub(own.awaiting)
        });
        own.in_flight.saturating_add(others)
    }

    /// Whether it has as many requests as the app allows it, or as it was found
    /// to be able to have.
    #[inline]
    pub(super) fn is_full(&self, most: u32) -> bool {
        let own = self.load.read();
        match self.share.get() {
            Some(share) => is_full_of(own, most, share, share.crowd()),
            None => own.is_full(most, self.capacity.limit()),
        }
    }

    /// Counts one more request, that waits for its answer; `most` is what the app
    /// allows, `now_us` by the process's clock. With a seat, it is counted as
    /// waiting until that is gone.
    ///
    /// # Errors
    /// There is no room for it any more.
    pub(super) fn begin(&self, most: u32, now_us: u64) -> Result<Option<Seat>, Full> {
        let before = self.load.begin();
        let (seat, is_full, is_last) = match self.share.get() {
            None => {
                let limit = self.capacity.limit();
                let is_last = before.awaiting + 1 >= limit.min(most);
                (None, before.is_full(most, limit), is_last)
            }
            Some(share) => {
                share.note(now_us);
                let (seat, crowd) = share.sit();
                let is_last = crowd.all + 1 >= share.server().capacity.limit();
                let is_full = is_full_of(before, most, share, crowd);
                (Some(seat), is_full, is_last)
            }
        };
        if is_full {
            self.load.end();
            return Err(Full);
        }
        if is_last {
            self.capacity().note_full();
        }
        self.requests.fetch_add(1, Relaxed);
        Ok(seat)
    }

    /// A request's client has sent the rest: it waits for its answer again, be
    /// there room or not.
    pub(super) fn unpark(&self) -> Option<Seat> {
        self.load.unpark();
        let seat = self.share.get().map(|share| share.sit().0);
        if self.awaiting() >= self.capacity().limit() {
            self.capacity().note_full();
        }
        seat
    }
}

/// The same for one that shares a server. Requests that were there before it did
/// are its own only.
fn is_full_of(own: Loaded, most: u32, share: &Share, crowd: Crowd) -> bool {
    let crowd = Crowd {
        own: crowd.own.max(own.awaiting),
        ..crowd
    };
    own.is_full(most, u32::MAX) || crowd.own >= share.allowance(crowd)
}
