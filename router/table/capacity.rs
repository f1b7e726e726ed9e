//! What a backend has in flight, and how much it can have at once.
//!
//! Owns the counts, and what is gathered of the answers for the limit that
//! [`crate::policy::concurrency`] learns. A request pays one addition when it
//! begins, two when its answer does, and one when it ends; a lock is taken once in
//! a window, by whoever finds it over.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use super::vitals::locked;
use crate::policy::concurrency::{FIRST, Limiter, Next, Window};

/// Three counts in one word, so that a request that begins counts for all at once.
/// Lowered with `SeqCst`, before
/// [`WaitQueue::wake_one`](crate::policy::admission::WaitQueue::wake_one): the two
/// together lose no wake-up.
#[derive(Debug, Default)]
pub struct Load(AtomicU64);

/// One reading of a [`Load`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Loaded {
    /// Requests in flight.
    pub in_flight: u32,
    /// Those that wait for the first byte of their answer.
    pub awaiting: u32,
    /// Those that wait for their client to send the rest of their body.
    pub parked: u32,
}

const COUNT_BITS: u32 = 21;
const COUNT: u64 = (1 << COUNT_BITS) - 1;
const AWAITING: u64 = 1 << COUNT_BITS;
const PARKED: u64 = 1 << (2 * COUNT_BITS);

impl Load {
    /// What it is now.
    #[inline]
    pub fn read(&self) -> Loaded {
        Loaded::of(self.0.load(Ordering::SeqCst))
    }

    /// One more request, which waits for its answer; what there was before.
    pub fn begin(&self) -> Loaded {
        Loaded::of(self.0.fetch_add(AWAITING + 1, Ordering::SeqCst))
    }

    /// A request's answer has begun.
    pub fn heard(&self) {
        self.0.fetch_sub(AWAITING, Ordering::SeqCst);
    }

    /// A request that waited for its answer waits for its client.
    pub fn park(&self) {
        self.0.fetch_add(PARKED - AWAITING, Ordering::SeqCst);
    }

    /// Its client has sent the rest.
    pub fn unpark(&self) {
        self.0.fetch_sub(PARKED - AWAITING, Ordering::SeqCst);
    }

    /// A request that waited for its answer has ended.
    pub fn end(&self) {
        self.0.fetch_sub(AWAITING + 1, Ordering::SeqCst);
    }

    /// One whose answer had begun has.
    pub fn end_heard(&self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }

    /// One whose client had not sent everything has.
    pub fn end_parked(&self) {
        self.0.fetch_sub(PARKED + 1, Ordering::SeqCst);
    }
}

impl Loaded {
    fn of(word: u64) -> Loaded {
        let count = |at: u32| ((word >> (at * COUNT_BITS)) & COUNT) as u32;
        Loaded {
            in_flight: count(0),
            awaiting: count(1),
            parked: count(2),
        }
    }

    /// Whether there is no room for one more, by what the app allows and what was
    /// learned. Clients that are slow to send do not take the places of others:
    /// they have as many of their own.
    #[inline]
    pub fn is_full(self, most: u32, limit: u32) -> bool {
        self.awaiting >= limit
            || self.in_flight - self.parked >= most
            || self.in_flight >= most.saturating_mul(2)
    }
}

/// A backend that has answered nobody for so long has requests that take long, or
/// is slow: it gets more. Longer than what many routers that begin at once make
/// each other wait for.
const UNANSWERED_US: u64 = 1_000_000;

/// Answers in the upper bits of a tally, the sum of their times in the lower.
const SUM_BITS: u32 = 44;
const SUM: u64 = (1 << SUM_BITS) - 1;
/// One answer adds at most this, an hour: the sum has room for 4,000 of them.
const LONGEST_US: u64 = 3_600_000_000;

/// What is gathered of a backend's answers, and the limit learned from them.
#[derive(Debug)]
pub(super) struct Capacity {
    /// Answers to requests that were sent since the window began.
    tally: AtomicU64,
    limit: AtomicU32,
    /// What can be worked on at once.
    served: AtomicU32,
    /// Whether it was reached in this window.
    was_full: AtomicBool,
    /// From when, and until when answers are gathered, microseconds.
    from_us: AtomicU64,
    until_us: AtomicU64,
    /// No answer counts for more.
    most_us: AtomicU64,
    /// Since when requests wait for the very first answer; 0: they do not.
    unanswered_us: AtomicU64,
    limiter: Mutex<Limiter>,
}

/// An answer's time, and when it is told.
#[derive(Clone, Copy, Debug)]
pub(super) struct Heard {
    /// From the request's end to the answer's first byte, or to when it was
    /// given up.
    pub took_us: u64,
    /// Requests that wait for an answer of its backend now.
    pub awaiting: u32,
    /// Apps that have requests for it.
    pub apps: u32,
    /// Now, by the process's clock.
    pub now_us: u64,
    /// Now, by the wall clock.
    pub wall_us: u64,
}

impl Capacity {
    /// Another one that goes on from what this one has learned; `apart`, from 0 to
    /// 1, is its address's own.
    pub fn inherited(&self, apart: f64) -> Capacity {
        let limiter = locked(&self.limiter).clone().shared(apart);
        Capacity {
            limit: AtomicU32::new(limiter.limit()),
            served: AtomicU32::new(limiter.limit()),
            limiter: Mutex::new(limiter),
            ..Capacity::default()
        }
    }

    /// Requests that may wait for an answer at once.
    #[inline]
    pub fn limit(&self) -> u32 {
        self.limit.load(Ordering::Relaxed)
    }

    /// Requests that can be worked on at once, as far as is known.
    #[inline]
    pub fn served(&self) -> u32 {
        self.served.load(Ordering::Relaxed)
    }

    /// What an undisturbed answer takes, microseconds; 0: unknown.
    pub fn base_us(&self) -> u64 {
        locked(&self.limiter).base_us()
    }

    /// It has as many as it may.
    #[inline]
    pub fn note_full(&self) {
        if !self.was_full.load(Ordering::Relaxed) {
            self.was_full.store(true, Ordering::Relaxed);
        }
    }

    /// An answer came. How many requests more may be sent than before, if that
    /// is found now; `most` is what the app allows.
    #[inline]
    pub fn hear(&self, heard: &Heard, most: u32) -> u32 {
        if heard.now_us >= self.from_us.load(Ordering::Relaxed) {
            let counted = heard.took_us.min(self.most_us.load(Ordering::Relaxed));
            self.tally
                .fetch_add((1 << SUM_BITS) | counted.min(LONGEST_US), Ordering::Relaxed);
        }
        if heard.now_us < self.until_us.load(Ordering::Relaxed) {
            return 0;
        }
        self.step(heard, most)
    }

    /// Requests wait for room. How many more may be sent than before: of one that
    /// has all it may and of which nobody has had an answer for a while, it is not
    /// known how many it can have, but that some take long.
    #[cold]
    pub fn press(&self, awaiting: u32, now_us: u64, most: u32) -> u32 {
        let quiet_us = now_us.saturating_sub(self.until_us.load(Ordering::Relaxed));
        let heard_lately = || quiet_us < UNANSWERED_US.max(4 * self.base_us());
        let limit = self.limit();
        if limit >= most || awaiting < limit || heard_lately() {
            return 0;
        }
        let since_us = self.unanswered_us.load(Ordering::Relaxed);
        let was_ever_heard = self.until_us.load(Ordering::Relaxed) != 0;
        let is_due = since_us != 0 && now_us.saturating_sub(since_us) >= UNANSWERED_US;
        if since_us != 0 && !is_due {
            return 0;
        }
        let (word, now_us) = (&self.unanswered_us, now_us.max(1));
        let is_first = word
            .compare_exchange(since_us, now_us, Ordering::Relaxed, Ordering::Relaxed)
            .is_ok();
        if !is_first || !(is_due || was_ever_heard) {
            return 0;
        }
        let before = self.limit();
        let mut limiter = locked(&self.limiter);
        limiter.raise(most);
        self.limit.store(limiter.limit(), Ordering::SeqCst);
        limiter.limit().saturating_sub(before)
    }

    #[cold]
    fn step(&self, heard: &Heard, most: u32) -> u32 {
        let Ok(mut limiter) = self.limiter.try_lock() else {
            return 0;
        };
        let tally = self.tally.load(Ordering::Relaxed);
        let from_us = self.from_us.load(Ordering::Relaxed);
        let window = Window {
            answers: (tally >> SUM_BITS) as u32,
            sum_us: tally & SUM,
            length_us: heard.now_us.saturating_sub(from_us),
            was_full: self.was_full.load(Ordering::Relaxed),
            awaiting: heard.awaiting,
            apps: heard.apps,
            late_us: match self.until_us.load(Ordering::Relaxed) {
                0 => 0,
                until_us => heard.now_us.saturating_sub(until_us),
            },
        };
        let before = self.limit();
        let until_us = match limiter.step(&window, heard.now_us, heard.wall_us, most) {
            Next::Extend { for_us } => heard.now_us + for_us,
            Next::Begin {
                limit,
                served,
                after_us,
                for_us,
                most_us,
            } => {
                self.limit.store(limit, Ordering::SeqCst);
                self.served.store(served, Ordering::Relaxed);
                self.most_us.store(most_us, Ordering::Relaxed);
                self.was_full.store(false, Ordering::Relaxed);
                let from_us = heard.now_us + after_us;
                self.from_us.store(from_us, Ordering::Relaxed);
                self.tally.store(0, Ordering::Relaxed);
                from_us + for_us
            }
        };
        self.until_us.store(until_us, Ordering::Relaxed);
        self.limit().saturating_sub(before)
    }
}

impl Default for Capacity {
    fn default() -> Self {
        Capacity {
            tally: AtomicU64::new(0),
            limit: AtomicU32::new(FIRST),
            served: AtomicU32::new(FIRST),
            was_full: AtomicBool::new(false),
            from_us: AtomicU64::new(0),
            until_us: AtomicU64::new(0),
            most_us: AtomicU64::new(u64::MAX),
            unanswered_us: AtomicU64::new(0),
            limiter: Mutex::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_load_counts_all_at_once() {
        let load = Load::default();
        let read = |in_flight, awaiting, parked| Loaded {
            in_flight,
            awaiting,
            parked,
        };
        assert_eq!(load.begin(), read(0, 0, 0));
        assert_eq!(load.begin(), read(1, 1, 0));
        load.park();
        assert_eq!(load.read(), read(2, 1, 1));
        load.begin();
        load.heard();
        assert_eq!(load.read(), read(3, 1, 1));
        load.unpark();
        load.park();
        load.end_heard();
        load.end_parked();
        assert_eq!(load.read(), read(1, 1, 0));
        load.end();
        assert_eq!(load.read(), read(0, 0, 0));
    }

    #[test]
    fn clients_that_are_slow_to_send_have_as_many_places_of_their_own() {
        let loaded = |in_flight, awaiting, parked| Loaded {
            in_flight,
            awaiting,
            parked,
        };
        assert!(loaded(10, 0, 0).is_full(10, 16));
        assert!(!loaded(19, 0, 10).is_full(10, 16));
        assert!(loaded(20, 0, 10).is_full(10, 16));
        assert!(loaded(20, 0, 20).is_full(10, 16));
        assert!(loaded(16, 16, 0).is_full(200, 16));
        assert!(!loaded(200, 0, 0).is_full(u32::MAX, 16));
    }

    #[test]
    fn what_answers_nobody_for_long_gets_more_until_it_does() {
        let capacity = Capacity::default();
        let mut now_us = 10 * UNANSWERED_US;
        assert_eq!(capacity.press(FIRST - 1, now_us, 200), 0, "it has room");
        assert_eq!(capacity.press(FIRST, now_us, 200), 0);
        now_us += UNANSWERED_US - 1;
        assert_eq!(capacity.press(FIRST, now_us, 200), 0);
        now_us += 1;
        assert_eq!(capacity.press(FIRST, now_us, 200), FIRST);
        assert_eq!(capacity.limit(), 2 * FIRST);
        capacity.until_us.store(now_us, Ordering::Relaxed);
        now_us += UNANSWERED_US - 1;
        assert_eq!(capacity.press(2 * FIRST, now_us, 200), 0, "heard of lately");
    }

    #[test]
    fn answers_that_come_before_a_window_are_not_counted() {
        let capacity = Capacity::default();
        let heard = |took_us, now_us| Heard {
            took_us,
            awaiting: 0,
            apps: 1,
            now_us,
            wall_us: now_us,
        };
        capacity.from_us.store(2_000, Ordering::Relaxed);
        capacity.until_us.store(u64::MAX, Ordering::Relaxed);
        capacity.hear(&heard(900, 1_999), 200);
        assert_eq!(capacity.tally.load(Ordering::Relaxed), 0);
        capacity.hear(&heard(900, 2_000), 200);
        assert_eq!(
            capacity.tally.load(Ordering::Relaxed),
            (1 << SUM_BITS) | 900
        );
    }
}
