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

/// Requests in flight below, those that wait for their answer above: one word,
/// so that a request that begins counts for both at once. Lowered with `SeqCst`,
/// before [`WaitQueue::wake_one`](crate::policy::admission::WaitQueue::wake_one):
/// the two together lose no wake-up.
#[derive(Debug, Default)]
pub struct Load(AtomicU64);

/// One reading of a [`Load`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Loaded {
    /// Requests in flight.
    pub in_flight: u32,
    /// Those that wait for the first byte of their answer.
    pub awaiting: u32,
}

const AWAITING: u64 = 1 << 32;

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

    /// A request waits for its client, and is nothing to the backend meanwhile.
    pub fn park(&self) {
        self.0.fetch_sub(AWAITING + 1, Ordering::SeqCst);
    }

    /// Its client has sent the rest.
    pub fn unpark(&self) {
        self.0.fetch_add(AWAITING + 1, Ordering::SeqCst);
    }

    /// A request has ended; `awaiting`: before its answer began.
    pub fn end(&self, awaiting: bool) {
        let less = if awaiting { AWAITING + 1 } else { 1 };
        self.0.fetch_sub(less, Ordering::SeqCst);
    }
}

impl Loaded {
    fn of(word: u64) -> Loaded {
        Loaded {
            in_flight: word as u32,
            awaiting: (word >> 32) as u32,
        }
    }
}

/// A backend that lets requests wait for so long before its very first answer is
/// slow rather than full: it gets more.
const UNANSWERED_US: u64 = 100_000;

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
    /// Now, by the process's clock.
    pub now_us: u64,
    /// Now, by the wall clock.
    pub wall_us: u64,
}

impl Capacity {
    /// Requests that may wait for an answer at once.
    #[inline]
    pub fn limit(&self) -> u32 {
        self.limit.load(Ordering::Relaxed)
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
    /// nobody has had an answer of for a while, it is not known how many it can
    /// have, but that it is slow.
    #[cold]
    pub fn press(&self, now_us: u64, most: u32) -> u32 {
        if self.until_us.load(Ordering::Relaxed) != 0 || self.limit() >= most {
            return 0;
        }
        let since_us = self.unanswered_us.load(Ordering::Relaxed);
        if since_us != 0 && now_us.saturating_sub(since_us) < UNANSWERED_US {
            return 0;
        }
        let word = &self.unanswered_us;
        let is_first = word
            .compare_exchange(
                since_us,
                now_us.max(1),
                Ordering::Relaxed,
                Ordering::Relaxed,
            )
            .is_ok();
        if since_us == 0 || !is_first {
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
                after_us,
                for_us,
                most_us,
            } => {
                self.limit.store(limit, Ordering::SeqCst);
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
    fn a_load_counts_both_at_once() {
        let load = Load::default();
        assert_eq!(
            load.begin(),
            Loaded {
                in_flight: 0,
                awaiting: 0
            }
        );
        assert_eq!(
            load.begin(),
            Loaded {
                in_flight: 1,
                awaiting: 1
            }
        );
        load.heard();
        assert_eq!(
            load.read(),
            Loaded {
                in_flight: 2,
                awaiting: 1
            }
        );
        load.end(false);
        load.end(true);
        assert_eq!(
            load.read(),
            Loaded {
                in_flight: 0,
                awaiting: 0
            }
        );
    }

    #[test]
    fn what_answers_nobody_for_long_gets_more_until_it_does() {
        let capacity = Capacity::default();
        let mut now_us = 1_000;
        assert_eq!(capacity.press(now_us, 200), 0);
        now_us += UNANSWERED_US - 1;
        assert_eq!(capacity.press(now_us, 200), 0);
        now_us += 1;
        assert_eq!(capacity.press(now_us, 200), FIRST);
        assert_eq!(capacity.limit(), 2 * FIRST);
        capacity.until_us.store(1, Ordering::Relaxed);
        assert_eq!(capacity.press(now_us + 10 * UNANSWERED_US, 200), 0);
    }

    #[test]
    fn answers_that_come_before_a_window_are_not_counted() {
        let capacity = Capacity::default();
        let heard = |took_us, now_us| Heard {
            took_us,
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
