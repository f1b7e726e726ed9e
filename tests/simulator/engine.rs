//! Virtual time: a heap of events and the clock they move.
//!
//! Owns the order of events: by time, then in the order they were set. Never
//! reads a real clock, so that a run depends on its seed alone.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

/// A time of a run or a span of it, in microseconds.
pub type Micros = u64;

/// One second.
pub const SECOND: Micros = 1_000_000;
/// One millisecond.
pub const MILLISECOND: Micros = 1_000;

struct Entry<E> {
    at_us: Micros,
    number: u64,
    event: E,
}

impl<E> Ord for Entry<E> {
    /// Earlier is greater: the heap gives out its greatest.
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at_us, other.number).cmp(&(self.at_us, self.number))
    }
}

impl<E> PartialOrd for Entry<E> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<E> PartialEq for Entry<E> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl<E> Eq for Entry<E> {}

/// What is to happen, and what time it is.
pub struct Engine<E> {
    heap: BinaryHeap<Entry<E>>,
    now_us: Micros,
    next_number: u64,
}

impl<E> Engine<E> {
    /// Nothing to happen; the time is 0.
    pub fn new() -> Self {
        Engine {
            heap: BinaryHeap::new(),
            now_us: 0,
            next_number: 0,
        }
    }

    /// The time of the last event taken.
    pub fn now_us(&self) -> Micros {
        self.now_us
    }

    /// Events taken so far and still to come.
    pub fn events(&self) -> u64 {
        self.next_number
    }

    /// Sets an event; one of the past happens now.
    pub fn at(&mut self, at_us: Micros, event: E) {
        self.heap.push(Entry {
            at_us: at_us.max(self.now_us),
            number: self.next_number,
            event,
        });
        self.next_number += 1;
    }

    /// Sets an event `delay_us` from now.
    pub fn after(&mut self, delay_us: Micros, event: E) {
        self.at(self.now_us + delay_us, event);
    }

    /// Takes the next event and moves the clock to it.
    pub fn next(&mut self) -> Option<E> {
        let entry = self.heap.pop()?;
        self.now_us = entry.at_us;
        Some(entry.event)
    }
}
