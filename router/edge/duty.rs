//! What an edge's main thread waits for: its table, the word to serve, the
//! word to leave, the end of its data threads.
//!
//! Owns the one lock and condition of these. They change a few times in a
//! process's life; no request comes near.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::leaving::Timetable;

/// How long an edge that has a table waits for control to bring it up to date
/// before it could serve. Without a control it does not wait.
const CATCH_UP: Duration = Duration::from_millis(100);

/// What came of the feed's first table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum FirstTable {
    #[default]
    Awaited,
    /// There is one, since then; control may know better.
    Held(Instant),
    /// It is the newest there is, as far as can be known.
    Current,
    /// The feed ended before there was one.
    Lost,
}

#[derive(Debug, Default)]
struct State {
    table: FirstTable,
    is_wanted: bool,
    /// Data threads that run.
    running: usize,
}

/// Where the edge's threads tell its main thread what came to be.
#[derive(Debug)]
pub struct Duty {
    state: Mutex<State>,
    changed: Condvar,
    /// What data threads go by: none while the edge is not to leave.
    orders: watch::Sender<Option<Timetable>>,
}

/// What standing by came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// There is a table.
    Warm,
    /// The edge is to serve.
    Serve,
    /// It is not wanted.
    Leave,
    /// No table will come: the feed's thread ended.
    Lost,
}

impl Default for Duty {
    fn default() -> Self {
        Duty {
            state: Mutex::default(),
            changed: Condvar::new(),
            orders: watch::Sender::new(None),
        }
    }
}

impl Duty {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state());
        self.changed.notify_all();
    }

    /// The supervisor wants this edge to serve.
    pub fn serve(&self) {
        self.change(|state| state.is_wanted = true);
    }

    /// The edge is to leave by this timetable; of two, the sooner counts.
    pub fn leave(&self, timetable: Timetable) {
        self.orders.send_modify(|leaving| {
            *leaving = Some(match *leaving {
                Some(before) => before.shortened_by(timetable),
                None => timetable,
            });
        });
        self.change(|_| {});
    }

    /// The timetable, if the edge is to leave.
    pub fn leaving(&self) -> Option<Timetable> {
        *self.orders.borrow()
    }

    /// What a data thread is told; one given before it was there counts.
    pub fn orders(&self) -> watch::Receiver<Option<Timetable>> {
        let mut orders = self.orders.subscribe();
        orders.mark_changed();
        orders
    }

    /// Waits for the first table, and [`CATCH_UP`] for it to be the newest: what
    /// is on disk may be a moment behind what control has promised to have done.
    pub fn until_warm(&self) -> Call {
        self.until(|state| match state.table {
            FirstTable::Awaited => Err(None),
            FirstTable::Held(since) => match CATCH_UP.checked_sub(since.elapsed()) {
                Some(left) => Err(Some(left)),
                None => Ok(Call::Warm),
            },
            FirstTable::Current => Ok(Call::Warm),
            FirstTable::Lost => Ok(Call::Lost),
        })
    }

    /// Waits for the word to serve.
    pub fn until_wanted(&self) -> Call {
        self.until(|state| match state.is_wanted {
            true => Ok(Call::Serve),
            false => Err(None),
        })
    }

    /// Waits until `check` gives a call; it may say when to look again though
    /// nothing changed.
    fn until(&self, mut check: impl FnMut(&State) -> Result<Call, Option<Duration>>) -> Call {
        let mut state = self.state();
        loop {
            if self.leaving().is_some() {
                return Call::Leave;
            }
            state = match check(&state) {
                Ok(call) => return call,
                Err(None) => {
                    let woken = self.changed.wait(state);
                    woken.unwrap_or_else(PoisonError::into_inner)
                }
                Err(Some(time)) => {
                    let woken = self.changed.wait_timeout(state, time);
                    woken.unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }

    /// Waits until no data thread runs, the edge is told to leave in another
    /// way than `known`, or `until` has come; whether threads still run.
    pub fn wait_running(&self, known: Option<Timetable>, until: Option<Instant>) -> bool {
        let mut state = self.state();
        loop {
            if state.running == 0 {
                return false;
            }
            if self.leaving() != known {
                return true;
            }
            let Some(until) = until else {
                let woken = self.changed.wait(state);
                state = woken.unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            let Some(left) = until.checked_duration_since(Instant::now()) else {
                return true;
            };
            let woken = self.changed.wait_timeout(state, left);
            (state, _) = woken.unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// A data thread counts as running until this is dropped, also by a panic.
#[derive(Debug)]
pub struct Running(Arc<Duty>);

impl Running {
    /// One more runs.
    pub fn begin(duty: &Arc<Duty>) -> Running {
        duty.change(|state| state.running += 1);
        Running(Arc::clone(duty))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.change(|state| state.running -= 1);
    }
}

/// The feed's way to say that there is a table; dropped without it, there will
/// be none.
#[derive(Debug)]
pub struct Herald(Arc<Duty>);

impl Herald {
    /// For this edge.
    pub fn new(duty: &Arc<Duty>) -> Herald {
        Herald(Arc::clone(duty))
    }

    /// There is one; `is_current`: and it is the newest there is, as far as can
    /// be known.
    pub fn table_held(&self, is_current: bool) {
        self.0.change(|state| match state.table {
            _ if is_current => state.table = FirstTable::Current,
            FirstTable::Awaited => state.table = FirstTable::Held(Instant::now()),
            _ => {}
        });
    }
}

impl Drop for Herald {
    fn drop(&mut self) {
        self.0.change(|state| {
            if state.table == FirstTable::Awaited {
                state.table = FirstTable::Lost;
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::edge::leaving::Occasion;

    fn timetable() -> Timetable {
        Timetable::new(Occasion::Drain, 0, Duration::from_secs(1))
    }

    /// What a thread that waits comes to, once `tell` was called.
    fn waited(
        wait: impl FnOnce(&Duty) -> Call + Send + 'static,
        tell: impl FnOnce(&Arc<Duty>),
    ) -> Call {
        let duty = Arc::<Duty>::default();
        let waiting = std::thread::spawn({
            let duty = Arc::clone(&duty);
            move || wait(&duty)
        });
        tell(&duty);
        waiting.join().unwrap()
    }

    #[test]
    fn each_word_wakes_who_waits_for_it() {
        for is_current in [true, false] {
            let told = |duty: &Arc<Duty>| Herald::new(duty).table_held(is_current);
            assert_eq!(waited(Duty::until_warm, told), Call::Warm);
        }
        let lost = waited(Duty::until_warm, |duty| drop(Herald::new(duty)));
        assert_eq!(lost, Call::Lost);
        let serve = waited(Duty::until_wanted, |duty| duty.serve());
        assert_eq!(serve, Call::Serve);
        let leave = waited(Duty::until_wanted, |duty| duty.leave(timetable()));
        assert_eq!(leave, Call::Leave);
    }

    #[test]
    fn a_table_that_may_be_behind_is_waited_for_a_moment() {
        let duty = Arc::<Duty>::default();
        let herald = Herald::new(&duty);
        let since = Instant::now();
        herald.table_held(false);
        assert_eq!(duty.until_warm(), Call::Warm);
        assert!(since.elapsed() >= CATCH_UP);
        herald.table_held(true);
        // Held once more is no step back.
        herald.table_held(false);
        assert_eq!(duty.state().table, FirstTable::Current);
    }

    #[test]
    fn a_thread_that_panics_runs_no_more() {
        let duty = Arc::<Duty>::default();
        let running = Running::begin(&duty);
        let soon = Instant::now() + Duration::from_millis(5);
        assert!(duty.wait_running(None, Some(soon)));
        let panicked = std::thread::spawn(move || {
            let _running = running;
            panic!("as a data thread might");
        });
        assert!(panicked.join().is_err());
        assert!(!duty.wait_running(None, None));
    }

    #[test]
    fn an_order_given_before_a_thread_was_there_counts() {
        let duty = Duty::default();
        duty.leave(timetable());
        let mut orders = duty.orders();
        assert!(orders.has_changed().unwrap());
        assert_eq!(*orders.borrow_and_update(), Some(timetable()));
    }
}
