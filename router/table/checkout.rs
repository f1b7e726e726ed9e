//! A request's hold on a backend.
//!
//! Owns the counting, from when a backend is chosen for a try until the try has
//! ended, whatever way it does, and that who waits for room hears of each place
//! that becomes free. Never chooses: that is [`crate::policy::balance`].

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::server::Seat;
use super::{App, Backend};

/// A request's hold on a backend: counted in its load from checkout until
/// dropped, whatever way the request ends.
pub struct Checkout {
    app: Arc<App>,
    index: usize,
    /// When it was chosen, microseconds of the process's one clock.
    chosen_us: u64,
    /// It finds out whether the backend is well again.
    is_trial: bool,
    stage: Cell<Stage>,
    /// While it waits for an answer of a server that several apps share.
    seat: Cell<Option<Seat>>,
}

/// What a request's hold on a backend counts as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// In flight, and waiting for its answer.
    Awaiting,
    /// In flight.
    Heard,
    /// In flight, and waiting for its client.
    Parked,
}

impl Checkout {
    /// Counts one more request in flight to `app.backends[index]`, unless
    /// another thread took the last room since it was chosen, at `chosen_us`,
    /// as a trial or not.
    pub fn take(app: &Arc<App>, index: usize, chosen_us: u64, is_trial: bool) -> Option<Self> {
        let live = app.backends[index].live();
        if live.requests.load(Relaxed) == 0 {
            app.enrol(index);
        }
        let Ok(seat) = live.begin(app.policy.max_concurrency, chosen_us) else {
            app.live().queue.wake_one();
            if is_trial {
                app.forsake(index, chosen_us);
            }
            return None;
        };
        Some(Checkout {
            app: Arc::clone(app),
            index,
            chosen_us,
            is_trial,
            stage: Cell::new(Stage::Awaiting),
            seat: Cell::new(seat),
        })
    }

    /// Its answer has begun: the backend is not waited for any more.
    pub fn heard(&self) {
        if self.stage.get() == Stage::Awaiting {
            self.stage.set(Stage::Heard);
            self.backend().live().load.heard();
            self.freed();
        }
    }

    /// Its client has to send something first: others need not wait for that.
    pub fn park(&self) {
        if self.stage.get() == Stage::Awaiting {
            self.stage.set(Stage::Parked);
            self.backend().live().load.park();
            self.freed();
        }
    }

    /// Its client has sent everything: the backend is waited for again, be there
    /// room or not.
    pub fn unpark(&self) {
        if self.stage.get() == Stage::Parked {
            self.stage.set(Stage::Awaiting);
            self.seat.set(self.backend().live().unpark());
        }
    }

    /// Its place is another's.
    fn freed(&self) {
        drop(self.seat.take());
        self.app.freed(self.index);
    }

    /// The app, of the version the backend was chosen from.
    pub fn app(&self) -> &Arc<App> {
        &self.app
    }

    /// The backend held.
    pub fn backend(&self) -> &Backend {
        &self.app.backends[self.index]
    }

    /// Its index in the app's backends.
    pub fn index(&self) -> usize {
        self.index
    }

    /// When it was chosen.
    pub fn chosen_us(&self) -> u64 {
        self.chosen_us
    }

    /// It accepted a connection.
    pub fn connected(&self) {
        self.app.connected(self.index);
    }
}

impl Drop for Checkout {
    fn drop(&mut self) {
        let load = &self.backend().live().load;
        match self.stage.get() {
            Stage::Awaiting => load.end(),
            Stage::Heard => load.end_heard(),
            Stage::Parked => load.end_parked(),
        }
        self.freed();
        if self.is_trial {
            // Whoever told how it went has nothing to give back.
            self.app.forsake(self.index, self.chosen_us);
        }
    }
}
