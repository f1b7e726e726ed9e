//! The gate of a data thread: where requests take turns once the thread has more
//! to do than it can.
//!
//! Owns the thread's measures of itself, the lines and the task that serves them
//! in rounds. Decides nothing: whether the gate is shut is
//! [`overload`](crate::policy::overload)'s, who is next is
//! [`fair_queue`](crate::policy::fair_queue)'s.
//!
//! ```text
//!  every 10 ms: how late, how busy? ──▶ Overload ──▶ shut or open
//!
//!  request ──▶ open: passes, for the price of a load
//!          └─▶ shut: its app's line ──▶ a round: its turn, or refused (H22)
//! ```
//!
//! How late the thread is, a task of its own finds out, which waits in the
//! thread's queue as requests do. (What the runtime was started with does not: it
//! is looked at after some sixty others, and is on time while a thousand wait.)
//!
//! The rounds pace themselves. The task that serves them goes to the end of the
//! thread's queue like any other: it comes back when everything that was ready
//! has been looked at, what it let pass before included. So the queue of the
//! thread, which has no idea of apps, is never longer than a round, and what
//! waits does so in its app's line: there the connection is not read either, so
//! that a client that sends more than its app's share is slowed down by it.
//! The thread is as busy as before, and answers as many requests.
//!
//! **Invariant**: while the gate is open, a request takes no more notice of it
//! than reading a flag, and an idle thread does not wake for it.

mod episode;

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use rustix::time::{ClockId, clock_gettime};
use tokio::sync::Notify;

use self::episode::Episode;
pub use self::episode::Episodes;
use super::clock::Micros;
use super::thread::Thread;
use crate::observe::{Gauge, Histogram};
use crate::policy::fair_queue::{FairQueue, Key, Place, REQUEST, Turn};
use crate::policy::overload::{Measure, Overload, Pace};
use crate::settings::Shed;
use crate::table::App;

/// How often a thread that has anything to do looks how late it is.
const LOOK_US: Micros = 10_000;
/// A thread that is less busy than this is looked at when its house is kept.
const AWAKE_PERCENT: u64 = 2;

/// Opening a connection for a request and closing it cost about so much more.
const CONNECTION: u64 = 2 * REQUEST;
/// Passing on so many bytes costs one unit.
const BYTES_A_UNIT: u64 = 512;
/// No end of an answer costs more than a hundred requests: a pipe that was open for
/// days is no reason for its app to stand for minutes.
const MOST_CHARGED: u64 = 100 * REQUEST;
/// A request that its app's own line turned away after its turn here is of use to
/// nobody, and its client asks again at once: of apps that want more than there
/// is, one that cannot use it is not to have as much as another.
const IN_VAIN: u64 = 3 * REQUEST;
/// What is smaller comes with the request.
const FREE_BYTES: u64 = 16 * 1024;

/// Who has no app: an unknown host.
const NOBODY: Key = 0;

/// An app's line: one for all its versions.
pub fn line_of(app: Option<&Arc<App>>) -> Key {
    app.map_or(NOBODY, |app| Arc::as_ptr(app.live()).addr())
}

/// A data thread's gate.
#[derive(Default)]
pub struct Gate {
    is_shut: Cell<bool>,
    /// Nobody looks how the thread does until it is roused.
    rests: Cell<bool>,
    roused: Notify,
    roused_at: Cell<Micros>,
    inner: RefCell<Inner>,
}

#[derive(Default)]
struct Inner {
    queue: FairQueue,
    /// What those who wait were told, by place.
    told: Vec<Told>,
    /// Of the task that serves rounds, while nobody waits.
    keeper: Option<Waker>,
    pace: Pace,
    /// What the thread had of the processor by the last round.
    worked_us: Micros,
    overload: Overload,
    last: Reading,
    /// Somebody had to wait for another since it was last looked at.
    stood: bool,
    episode: Episode,
}

/// What one who waits was told.
enum Told {
    Nothing(Option<Waker>),
    Turn(Turn),
}

/// The thread's clocks at a moment.
#[derive(Clone, Copy, Default)]
struct Reading {
    at: Micros,
    busy_us: Micros,
    worked_us: Micros,
}

impl Reading {
    fn now(at: Micros) -> Self {
        let busy = tokio::runtime::Handle::current()
            .metrics()
            .worker_total_busy_duration(0);
        Reading {
            at,
            busy_us: u64::try_from(busy.as_micros()).unwrap_or(u64::MAX),
            worked_us: worked_us(),
        }
    }
}

/// What this thread has had of the processor.
fn worked_us() -> Micros {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    let micros = time.tv_sec * 1_000_000 + time.tv_nsec / 1_000;
    u64::try_from(micros).unwrap_or(0)
}

impl Gate {
    /// Whether requests take turns.
    #[inline]
    pub fn is_shut(&self) -> bool {
        self.is_shut.get()
    }

    /// Joins a line; `None`: its turn is now. `is_first`: of its connection.
    pub fn join(&self, key: Key, is_first: bool) -> Option<InLine<'_>> {
        let cost = match is_first {
            true => REQUEST + CONNECTION,
            false => REQUEST,
        };
        let mut inner = self.inner.borrow_mut();
        let worked_us = inner.worked_us;
        let place = inner.queue.join(key, cost, worked_us)?;
        let told = Told::Nothing(None);
        match inner.told.get_mut(place.index()) {
            Some(slot) => *slot = told,
            None => inner.told.push(told),
        }
        if let Some(keeper) = inner.keeper.take() {
            keeper.wake();
        }
        Some(InLine { gate: self, place })
    }

    /// Connections that are accepted in one go while it is shut.
    pub fn accepts(&self) -> u32 {
        self.inner.borrow().pace.accepted()
    }

    /// What a request of this line cost beyond itself: by the bytes passed on, and
    /// by its having been `in_vain`.
    #[inline]
    pub fn charge(&self, bytes: u64, in_vain: bool, key: impl FnOnce() -> Key) {
        if (bytes > FREE_BYTES || in_vain) && self.is_shut() {
            let cost = if in_vain {
                IN_VAIN
            } else {
                (bytes / BYTES_A_UNIT).min(MOST_CHARGED)
            };
            self.inner.borrow_mut().queue.charge(key(), cost);
        }
    }

    /// Whether the app of this line asks for more than there is: then nothing is
    /// done for it that could be left out.
    pub fn is_crowded(&self, key: impl FnOnce() -> Key) -> bool {
        self.is_shut() && self.inner.borrow().queue.stands(key())
    }

    /// A request of this app was refused.
    pub fn refused(&self, app: Option<&Arc<App>>) {
        let mut inner = self.inner.borrow_mut();
        inner.episode.refused(app.map(|app| &app.name));
    }

    /// Has the thread looked after, unless it is.
    pub fn rouse(&self, now: Micros) {
        if self.rests.replace(false) {
            self.roused_at.set(now);
            self.roused.notify_one();
        }
    }

    /// Looks how the thread does; `due`: when that was to be. Whether it is to be
    /// looked at again soon.
    fn look(&self, thread: &Thread, due: Micros) -> bool {
        let inner = &mut *self.inner.borrow_mut();
        let reading = Reading::now(thread.clock.now());
        let measure = Measure {
            elapsed_us: reading.at.saturating_sub(inner.last.at),
            busy_us: reading.busy_us.saturating_sub(inner.last.busy_us),
            worked_us: reading.worked_us.saturating_sub(inner.last.worked_us),
            lag_us: reading.at.saturating_sub(due),
            stood: std::mem::take(&mut inner.stood),
        };
        inner.last = reading;
        thread.cells.observe(Histogram::LoopLag, measure.lag_us);
        if thread.shared.settings.edge.shed == Shed::Auto {
            let is_shut = inner.overload.take(&measure);
            inner.turn_to(thread, is_shut, &measure);
            self.is_shut.set(is_shut);
        }
        measure.is_busy(AWAKE_PERCENT)
    }

    /// Serves a round; whether somebody still waits. `took_us`: since the last
    /// one, if there was one just before.
    fn round(&self, took_us: Option<Micros>) -> bool {
        let inner = &mut *self.inner.borrow_mut();
        if let Some(took_us) = took_us {
            inner.pace.took(took_us);
        }
        inner.worked_us = worked_us();
        let told = &mut inner.told;
        let tell = |place: Place, turn| {
            let before = std::mem::replace(&mut told[place.index()], Told::Turn(turn));
            if let Told::Nothing(Some(waker)) = before {
                waker.wake();
            }
        };
        let most = inner.pace.most();
        let round = inner.queue.round(most, inner.worked_us, tell);
        inner.stood |= round.stands;
        round.stands
    }

    fn poll_anyone(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut inner = self.inner.borrow_mut();
        if inner.queue.waiting() > 0 {
            return Poll::Ready(());
        }
        inner.keeper = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl Inner {
    /// The gate is shut or open from here on; operators are told if it matters.
    fn turn_to(&mut self, thread: &Thread, is_shut: bool, measure: &Measure) {
        let cells = &thread.cells;
        cells.set(Gauge::ThreadsSaturated, u64::from(is_shut));
        let (now, episodes) = (self.last.at, &thread.shared.episodes);
        if !is_shut {
            if let Some(text) = episodes.end(&std::mem::take(&mut self.episode), now) {
                tracing::info!("{text}");
                thread.shared.events.post("overload_ended", "", "", text);
            }
            return;
        }
        self.episode.goes_on(now, measure);
        if let Some(text) = episodes.tell(&mut self.episode, thread.index, now) {
            tracing::warn!("{text}");
            thread.shared.events.post("overload_began", "", "", text);
        }
    }
}

/// A place in a line, left when dropped.
pub struct InLine<'g> {
    gate: &'g Gate,
    place: Place,
}

impl InLine<'_> {
    /// Ready when its turn has come, or will not.
    pub fn poll(&self, cx: &mut Context<'_>) -> Poll<Turn> {
        let mut inner = self.gate.inner.borrow_mut();
        match &mut inner.told[self.place.index()] {
            Told::Turn(turn) => Poll::Ready(*turn),
            Told::Nothing(waker) => {
                if !waker.as_ref().is_some_and(|it| it.will_wake(cx.waker())) {
                    *waker = Some(cx.waker().clone());
                }
                Poll::Pending
            }
        }
    }
}

impl Drop for InLine<'_> {
    fn drop(&mut self) {
        let mut inner = self.gate.inner.borrow_mut();
        inner.told[self.place.index()] = Told::Nothing(None);
        inner.queue.leave(self.place);
    }
}

/// Looks how the thread does, for as long as it lives.
pub async fn watch(thread: Rc<Thread>) {
    let (gate, clock) = (&thread.gate, &thread.clock);
    loop {
        gate.rests.set(true);
        gate.roused.notified().await;
        let mut due = gate.roused_at.get();
        while gate.look(&thread, due) {
            due = clock.recent() + LOOK_US;
            clock.sleep_until(due).await;
        }
    }
}

/// Serves those who wait at the thread's gate, for as long as the thread lives.
pub async fn keep(thread: Rc<Thread>) {
    let gate = &thread.gate;
    loop {
        poll_fn(|cx| gate.poll_anyone(cx)).await;
        let mut began = thread.clock.now();
        let mut took = None;
        while gate.round(took) {
            tokio::task::yield_now().await;
            let now = thread.clock.now();
            took = Some(now - began);
            began = now;
        }
    }
}
