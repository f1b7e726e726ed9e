//! The queue of requests that wait for a backend with room.
//!
//! Owns who is woken, and in which order: first come, first served. Never
//! bounds time: the caller drops its [`Waiter`] when its patience ends.
//!
//! How it is used, so that no wake-up is lost:
//!
//! ```text
//! request                                check-in
//! pick → all full                        in_flight -= 1      (SeqCst)
//! waiter = queue.join(limit)             queue.wake_one()
//! loop { pick again; else waiter.await }
//! waiter.served()
//! ```
//!
//! The pick *after* joining is what closes the gap: either it sees the room
//! that a check-in made, or that check-in sees the waiter. A new request joins
//! without picking while others wait, or the line would mean nothing.
//!
//! **Invariant**: a wake-up is used or passed on. A waiter dropped between
//! being woken and being served wakes the next.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

/// Requests of one app that wait, over all threads.
#[derive(Debug, Default)]
pub struct WaitQueue {
    /// Waiters joined and not yet left: what the off path reads.
    waiting: AtomicU32,
    line: Mutex<Line>,
}

#[derive(Debug, Default)]
struct Line {
    next_ticket: u64,
    /// In the order of being served.
    places: VecDeque<Place>,
    /// The highest limit that anyone joined with since the line was empty.
    limit: u32,
    /// Wake-ups that found nobody in line while a woken waiter was picking: it
    /// takes one when it comes back instead of waiting.
    spare: u32,
}

/// One waiter in line.
#[derive(Debug)]
struct Place {
    ticket: u64,
    /// Set by its first poll.
    waker: Option<Waker>,
}

impl WaitQueue {
    /// Waiters now.
    #[inline]
    pub fn waiting(&self) -> u32 {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Joins the end of the line; `None` if `limit` are waiting already. A line
    /// that was allowed to grow longer (an app was down, and is up again) is
    /// not held against those who come while it gets shorter: until it is
    /// empty, the highest limit counts.
    pub fn join(&self, limit: u32) -> Option<Waiter<'_>> {
        let mut line = self.line();
        let waiting = self.waiting.load(Ordering::Relaxed);
        line.limit = match waiting {
            0 => limit,
            _ => line.limit.max(limit),
        };
        if waiting >= line.limit {
            return None;
        }
        let ticket = line.next_ticket;
        line.next_ticket += 1;
        line.places.push_back(Place {
            ticket,
            waker: None,
        });
        // With the pick that follows it: see the module's page.
        self.waiting.fetch_add(1, Ordering::SeqCst);
        Some(Waiter {
            queue: self,
            ticket,
            state: State::InLine,
        })
    }

    /// A request ended, or room was made otherwise: wakes the first in line.
    /// One load if nobody waits (on x86 a plain one).
    #[inline]
    pub fn wake_one(&self) {
        if self.waiting.load(Ordering::SeqCst) != 0 {
            self.wake_first();
        }
    }

    #[cold]
    fn wake_first(&self) {
        let mut line = self.line();
        let first = line.places.pop_front();
        if first.is_none() {
            line.spare = (line.spare + 1).min(self.waiting());
        }
        drop(line);
        // Woken outside the lock: the waker may run anything.
        if let Some(waker) = first.and_then(|place| place.waker) {
            waker.wake();
        }
    }

    /// Wakes everyone: the app changed, so each should look it up again.
    pub fn wake_all(&self) {
        if self.waiting.load(Ordering::SeqCst) == 0 {
            return;
        }
        let mut line = self.line();
        let places = std::mem::take(&mut line.places);
        line.spare = self.waiting().saturating_sub(places.len() as u32);
        drop(line);
        for waker in places.into_iter().filter_map(|place| place.waker) {
            waker.wake();
        }
    }

    fn line(&self) -> MutexGuard<'_, Line> {
        // Each change of the line is one push, pop or removal.
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// In line, or taken out of it by a wake-up not yet seen.
    InLine,
    /// Holds a wake-up that it must use or pass on.
    Woken,
    /// Used it.
    Served,
}

/// A place in line. Awaiting it ends when it is this one's turn; awaiting it
/// again (its turn brought no room after all) puts it back at its place: before
/// all who joined later.
#[derive(Debug)]
#[must_use = "a waiter that is not awaited only holds a place"]
pub struct Waiter<'q> {
    queue: &'q WaitQueue,
    ticket: u64,
    state: State,
}

impl Waiter<'_> {
    /// It got its backend: leaves, and uses up the wake-up it was awaited for.
    /// One that came since is passed on, as it is by a drop.
    pub fn served(mut self) {
        if self.state == State::Woken {
            self.state = State::Served;
        }
    }
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        let queue = self.queue;
        let mut line = queue.line();
        let place = line.places.iter().position(|at| at.ticket == self.ticket);
        if let Some(at) = place {
            line.places.remove(at);
        }
        if queue.waiting.fetch_sub(1, Ordering::SeqCst) == 1 {
            line.spare = 0;
        }
        drop(line);
        if place.is_none() && self.state != State::Served {
            queue.wake_one();
        }
    }
}

impl Future for Waiter<'_> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        let mut line = this.queue.line();
        if this.state == State::Woken {
            if line.spare > 0 {
                line.spare -= 1;
                return Poll::Ready(());
            }
            // Others were woken with it perhaps, and came back before it.
            let ticket = this.ticket;
            let at = line.places.partition_point(|place| place.ticket < ticket);
            let waker = Some(context.waker().clone());
            line.places.insert(at, Place { ticket, waker });
            this.state = State::InLine;
            return Poll::Pending;
        }
        let places = &mut line.places;
        match places.iter_mut().find(|place| place.ticket == this.ticket) {
            Some(place) => {
                place.waker = Some(context.waker().clone());
                Poll::Pending
            }
            None => {
                this.state = State::Woken;
                Poll::Ready(())
            }
        }
    }
}

#[cfg(test)]
#[path = "admission_tests.rs"]
mod tests;
