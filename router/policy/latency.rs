//! How long backends take to begin their answers: an average for each, a sketch
//! of all answers for an app.
//!
//! Owns the two measures and what is read from them. Never decides anything,
//! never reads a clock. Both are made for many threads without a lock: a
//! measurement lost to a race is a measurement less, nothing else.
//!
//! The average is quick to rise and slow to fall (after Finagle's peak EWMA),
//! and what is read of it halves for each ten seconds without a measurement: a
//! backend that nobody asks any more is given another chance, a little at a
//! time.
//!
//! The sketch is log-linear (after HdrHistogram): four cells to each doubling,
//! so a quantile is at most a quarter too long, in 384 bytes.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

/// Without a measurement for so long, an average is read as half. As Finagle's
/// ten seconds, and for the same reason: each router of many asks a slow backend
/// anew after a while, and a few seconds apart a hundred of them are more than
/// it can bear.
const HALF_LIFE_US: u64 = 10_000_000;

/// One answer counts for at most so many times the average.
const MOST_TIMES: u64 = 4;

/// The longest time told apart, microseconds.
const LONGEST_US: u64 = 64_000_000;

/// One backend's average time to the first byte. One word: the average in
/// microseconds above, when it was measured in 1,024 µs below.
#[derive(Debug, Default)]
pub struct Average(AtomicU64);

impl Average {
    /// Takes in a measurement; `usual_us` is what its peers take, 0 if that is
    /// unknown.
    #[inline]
    pub fn note(&self, took_us: u64, usual_us: u64, now_us: u64) {
        // One long answer among short ones is no slow backend; nor is one whose
        // first answer was long, as first ones are.
        let most_us = match (self.measured_us(), usual_us) {
            (0, 0) => LONGEST_US,
            (0, usual_us) => 2 * usual_us,
            (average_us, _) => MOST_TIMES * average_us,
        };
        self.take_in(took_us.min(most_us), now_us);
    }

    fn take_in(&self, took_us: u64, now_us: u64) {
        let took_us = took_us.clamp(1, LONGEST_US);
        let word = self.0.load(Relaxed);
        let average_us = match word >> 32 {
            0 => took_us,
            _ => {
                // What has not been measured for long may be anything down to
                // what is read of it: a measurement between says which.
                let (before_us, read_us) = (word >> 32, decayed(word, now_us));
                if took_us > before_us {
                    before_us + (took_us - before_us).div_ceil(4)
                } else if took_us >= read_us {
                    took_us
                } else {
                    read_us - (read_us - took_us) / 8
                }
            }
        };
        self.0
            .store(average_us << 32 | u64::from(ticks(now_us)), Relaxed);
    }

    /// A try that has not answered yet took at least so long: counts only if it
    /// raises the average.
    pub fn note_at_least(&self, took_us: u64, now_us: u64) {
        if took_us > self.measured_us() {
            self.take_in(took_us, now_us);
        }
    }

    /// The average as it counts now, microseconds; 0: unknown, or forgotten.
    #[inline]
    pub fn read_us(&self, now_us: u64) -> u64 {
        decayed(self.0.load(Relaxed), now_us)
    }

    /// The average as last measured, however long ago; 0: unknown.
    pub fn measured_us(&self) -> u64 {
        self.0.load(Relaxed) >> 32
    }

    /// Forgets everything: what came back is another process.
    pub fn forget(&self) {
        self.0.store(0, Relaxed);
    }
}

fn ticks(now_us: u64) -> u32 {
    (now_us >> 10) as u32
}

/// Halved for each half-life, and in a straight line between.
fn decayed(word: u64, now_us: u64) -> u64 {
    let average_us = word >> 32;
    let age = ticks(now_us).wrapping_sub(word as u32);
    // Another thread's clock reading may be a little older than the word's.
    if age > u32::MAX / 2 {
        return average_us;
    }
    let age_us = u64::from(age) << 10;
    let halved = average_us >> (age_us / HALF_LIFE_US).min(63);
    halved - halved * (age_us % HALF_LIFE_US) / (2 * HALF_LIFE_US)
}

/// Cells to each doubling, as a power of two.
const SPLIT_BITS: u32 = 2;
/// Below 64 µs everything is one cell.
const FIRST_BITS: u32 = 6;
/// 64 µs to 64 s, and one at either end.
const CELLS: usize = 20 * (1 << SPLIT_BITS) + 2;

/// So many answers, and all cells are halved: what is older counts less.
const FULL: u32 = 2_048;

/// One thread's sketch of an app's times to the first byte. One thread writes,
/// all read; on cache lines of its own.
#[derive(Debug)]
#[repr(align(64))]
pub struct Sketch {
    cells: [AtomicU32; CELLS],
    len: AtomicU32,
}

impl Default for Sketch {
    fn default() -> Self {
        Sketch {
            cells: std::array::from_fn(|_| AtomicU32::new(0)),
            len: AtomicU32::new(0),
        }
    }
}

fn cell_of(took_us: u64) -> usize {
    if took_us < 1 << FIRST_BITS {
        return 0;
    }
    let octave = took_us.ilog2();
    let within = (took_us >> (octave - SPLIT_BITS)) as usize & ((1 << SPLIT_BITS) - 1);
    let cell = 1 + ((octave - FIRST_BITS) << SPLIT_BITS) as usize + within;
    cell.min(CELLS - 1)
}

/// Where a cell ends, microseconds.
fn end_of(cell: usize) -> u64 {
    let (octave, within) = (cell as u64 >> SPLIT_BITS, cell as u64 & 3);
    ((1 << SPLIT_BITS) + within) << (octave + u64::from(FIRST_BITS - SPLIT_BITS))
}

impl Sketch {
    /// Takes in an answer; whether what is read from the sketch should be read
    /// anew: after every fourth while there are few, after every 64th later.
    #[inline]
    pub fn note(&self, took_us: u64) -> bool {
        let cell = &self.cells[cell_of(took_us)];
        cell.store(cell.load(Relaxed) + 1, Relaxed);
        let len = self.len.load(Relaxed) + 1;
        self.len.store(len, Relaxed);
        if len >= FULL {
            self.halve();
        }
        len.is_multiple_of(64) || (len < 64 && len.is_multiple_of(4))
    }

    #[cold]
    fn halve(&self) {
        let mut len = 0;
        for cell in &self.cells {
            let half = cell.load(Relaxed) / 2;
            cell.store(half, Relaxed);
            len += half;
        }
        self.len.store(len, Relaxed);
    }
}

/// Several threads' sketches, added up.
#[derive(Debug)]
pub struct Merged {
    cells: [u32; CELLS],
    len: u64,
}

impl Merged {
    /// The sum of sketches.
    pub fn of<'s>(sketches: impl IntoIterator<Item = &'s Sketch>) -> Merged {
        let mut merged = Merged {
            cells: [0; CELLS],
            len: 0,
        };
        for sketch in sketches {
            for (sum, cell) in merged.cells.iter_mut().zip(&sketch.cells) {
                *sum += cell.load(Relaxed);
            }
        }
        merged.len = merged.cells.iter().map(|&cell| u64::from(cell)).sum();
        merged
    }

    /// Answers in it, older ones counted less.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The time within which so many thousandths of the answers came,
    /// microseconds, at most a quarter too long; `None` without any.
    pub fn quantile_us(&self, permille: u16) -> Option<u64> {
        if self.len == 0 {
            return None;
        }
        let rank = (self.len * u64::from(permille)).div_ceil(1_000).max(1);
        let mut below = 0;
        for (cell, &count) in self.cells.iter().enumerate() {
            below += u64::from(count);
            if below >= rank {
                return Some(end_of(cell));
            }
        }
        Some(LONGEST_US)
    }
}

/// Answers before an app's times are known.
const ENOUGH: u64 = 20;

/// A try of an app whose times are unknown is overdue after this.
pub const UNKNOWN_US: u64 = 1_000_000;
/// No try is overdue before this, whatever was learned.
const LEARNED_FLOOR_US: u64 = 100_000;
/// Far longer than nearly all: so many times the 99th percentile.
const LEARNED_TIMES: u64 = 3;
/// A chosen quantile is not gone by below this.
const QUANTILE_FLOOR_US: u64 = 1_000;

impl Merged {
    /// The app's median; `None` before 20 answers.
    pub fn median_us(&self) -> Option<u64> {
        self.known(500)
    }

    /// When a try is far longer than nearly all of the app's answers took.
    pub fn learned_us(&self) -> u64 {
        self.known(990).map_or(UNKNOWN_US, |p99_us| {
            (LEARNED_TIMES * p99_us).max(LEARNED_FLOOR_US)
        })
    }

    /// When so many thousandths of the app's answers would have come.
    pub fn chosen_us(&self, permille: u16) -> u64 {
        let known = self.known(permille);
        known.map_or(UNKNOWN_US, |us| us.max(QUANTILE_FLOOR_US))
    }

    fn known(&self, permille: u16) -> Option<u64> {
        self.quantile_us(permille).filter(|_| self.len >= ENOUGH)
    }
}

#[cfg(test)]
#[path = "latency_tests.rs"]
mod tests;
