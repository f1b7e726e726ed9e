//! The queue of requests that wait for a backend with room.
//!
//! Owns who is woken, in which order, and who is shed: first come, first served
//! while the line flows; newest first, and few, once it stands ([`standing`]).
//! Never bounds the whole time a request may wait: the caller drops its
//! [`Waiter`] when its patience ends, or when its client left.
//!
//! How it is used, so that no wake-up is lost:
//!
//! ```text
//! request                                check-in
//! pick → all full                        load -= 1           (SeqCst)
//! waiter = queue.join(…)                 queue.wake_one()
//! loop { pick again; else waiter.await }
//! waiter.served(…)
//! ```
//!
//! The pick *after* joining is what closes the gap: either it sees the room
//! that a check-in made, or that check-in sees the waiter.
//!
//! **Invariant**: a wake-up is used or passed on. A waiter dropped between
//! being woken and being served wakes the next.
//!
//! **Invariant**: who is held while the app is down, from its coming or since it
//! went down, is never shed: it waits as long as it was promised, and so does
//! everybody behind it.

mod line;
pub mod standing;

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use self::line::Line;
use self::standing::Pace;

/// Requests of one app that wait, over all threads.
#[derive(Debug, Default)]
pub struct WaitQueue {
    /// Waiters joined and not yet left: what the off path reads.
    waiting: AtomicU32,
    line: Mutex<Line>,
}

/// A request that asks for a place.
#[derive(Clone, Copy, Debug)]
pub struct Joining {
    /// Places that there may be.
    pub limit: u32,
    /// Now, microseconds.
    pub now_us: u64,
    /// The app's pace.
    pub pace: Pace,
    /// It is held while the app is down.
    pub held: bool,
}

/// Why there is no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoPlace {
    /// The line is as long as the app allows.
    Full,
    /// The line stands: nobody more would be served in time.
    Shed,
}

/// How a wait ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// It is this one's turn.
    Come,
    /// It waited too long in a line that stands.
    Shed,
}

impl WaitQueue {
    /// Waiters now.
    #[inline]
    pub fn waiting(&self) -> u32 {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Whether more is asked of the app than it can do: its line stands.
    pub fn is_standing(&self) -> bool {
        self.line().is_standing()
    }

    /// Joins the line. One that was allowed to grow longer (an app was down, and
    /// is up again) is not held against those who come while it gets shorter:
    /// until it is empty, the highest limit counts.
    ///
    /// # Errors
    /// There is no place.
    pub fn join(&self, joining: &Joining) -> Result<Waiter<'_>, NoPlace> {
        let mut line = self.line();
        let shed = line.shed_old(joining.now_us, &joining.pace);
        let place = line.join(joining, self.waiting());
        if place.is_ok() {
            // With the pick that follows it: see the module's page.
            self.waiting.fetch_add(1, Ordering::SeqCst);
        }
        drop(line);
        wake(shed);
        let ticket = place?;
        Ok(Waiter {
            queue: self,
            ticket,
            since_us: joining.now_us,
            held: joining.held,
            state: State::InLine,
        })
    }

    /// A request ended, or room was made otherwise: wakes the next in line.
    /// One load if nobody waits (on x86 a plain one).
    #[inline]
    pub fn wake_one(&self) {
        if self.waiting.load(Ordering::SeqCst) != 0 {
            self.wake_next();
        }
    }

    #[cold]
    fn wake_next(&self) {
        let mut line = self.line();
        let woken = line.take_next(self.waiting());
        drop(line);
        wake(woken);
    }

    /// Wakes everyone: the app changed, so each should look it up again.
    pub fn wake_all(&self) {
        if self.waiting.load(Ordering::SeqCst) == 0 {
            return;
        }
        let mut line = self.line();
        let woken = line.take_all(self.waiting());
        drop(line);
        wake(woken);
    }

    fn line(&self) -> MutexGuard<'_, Line> {
        // Each change of the line is one push, pop or removal.
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Outside the lock: a waker may run anything.
fn wake(woken: impl IntoIterator<Item = Waker>) {
    woken.into_iter().for_each(Waker::wake);
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// In line, or taken out of it and not told yet.
    InLine,
    /// Holds a wake-up that it must use or pass on.
    Woken,
    /// Used it, or never got one: it was shed.
    Done,
}

/// A place in line. Awaiting it ends when it is this one's turn, or when it was
/// shed; awaiting it again (its turn brought no room after all) puts it back at
/// its place: before all who joined later.
#[derive(Debug)]
#[must_use = "a waiter that is not awaited only holds a place"]
pub struct Waiter<'q> {
    queue: &'q WaitQueue,
    ticket: u64,
    since_us: u64,
    held: bool,
    state: State,
}

impl Waiter<'_> {
    /// Whether it is held, or was, while the app is down.
    pub fn is_held(&self) -> bool {
        self.held
    }

    /// The app went down while it waited: it is held from here on, at its place.
    pub fn hold(&mut self) {
        if !std::mem::replace(&mut self.held, true) {
            self.queue.line().hold(self.ticket, self.since_us);
        }
    }

    /// It got its backend, now: leaves, and uses up the wake-up it was awaited
    /// for. One that came since is passed on, as it is by a drop.
    pub fn served(mut self, now_us: u64, pace: &Pace) {
        if self.state == State::Woken {
            self.state = State::Done;
        }
        let mut line = self.queue.line();
        if !self.held {
            let waited_us = now_us.saturating_sub(self.since_us);
            line.served(waited_us, now_us, pace);
        }
        let shed = line.shed_old(now_us, pace);
        drop(line);
        wake(shed);
    }
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        let queue = self.queue;
        let mut line = queue.line();
        let was_woken = line.leave(self.ticket, self.held);
        if queue.waiting.fetch_sub(1, Ordering::SeqCst) == 1 {
            line.emptied();
        }
        drop(line);
        if was_woken && self.state != State::Done {
            queue.wake_one();
        }
    }
}

impl Future for Waiter<'_> {
    type Output = Turn;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Turn> {
        let this = &mut *self;
        let mut line = this.queue.line();
        if this.state == State::Woken {
            if line.use_spare() {
                return Poll::Ready(Turn::Come);
            }
            line.put_back(this.ticket, this.since_us, context.waker());
            this.state = State::InLine;
            return Poll::Pending;
        }
        match line.ask(this.ticket, context.waker()) {
            None => Poll::Pending,
            Some(Turn::Come) => {
                this.state = State::Woken;
                Poll::Ready(Turn::Come)
            }
            Some(Turn::Shed) => {
                this.state = State::Done;
                Poll::Ready(Turn::Shed)
            }
        }
    }
}

#[cfg(test)]
mod tests;
