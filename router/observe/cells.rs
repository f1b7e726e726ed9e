//! The cells behind the metrics: plain numbers that one thread writes and the
//! collector reads.
//!
//! An increment is a relaxed load and a relaxed store: no `lock` prefix, no
//! shared cache line. That is right only because of the one rule here.
//!
//! **Invariant**: each [`EdgeCells`], and each thread's [`AppCells`], has a
//! single writer. A second one would lose counts (never more than that).

use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicU32, AtomicU64};

use super::histogram::{BUCKETS, bucket};
use super::metrics::{Counter, Gauge, Histogram};
use super::{Code, Fault};

const CODES: usize = Code::ALL.len();

#[inline]
fn bump(cell: &AtomicU64, by: u64) {
    cell.store(cell.load(Relaxed).wrapping_add(by), Relaxed);
}

#[inline]
fn bump_small(cell: &AtomicU32, by: u32) {
    cell.store(cell.load(Relaxed).wrapping_add(by), Relaxed);
}

/// One histogram's cells.
#[derive(Debug)]
struct HistogramCells {
    sum_us: AtomicU64,
    buckets: [AtomicU64; BUCKETS],
}

/// One thread's counters, gauges and histograms. Alone on its cache lines (a
/// pair of them: the prefetcher fetches two).
#[derive(Debug)]
#[repr(align(128))]
pub struct EdgeCells {
    counters: [AtomicU64; Counter::ALL.len()],
    gauges: [AtomicU64; Gauge::ALL.len()],
    codes: [AtomicU64; CODES],
    histograms: [HistogramCells; Histogram::ALL.len()],
}

fn zeros<const N: usize>() -> [AtomicU64; N] {
    std::array::from_fn(|_| AtomicU64::new(0))
}

impl Default for EdgeCells {
    fn default() -> Self {
        EdgeCells {
            counters: zeros(),
            gauges: zeros(),
            codes: zeros(),
            histograms: std::array::from_fn(|_| HistogramCells {
                sum_us: AtomicU64::new(0),
                buckets: zeros(),
            }),
        }
    }
}

impl AsRef<EdgeCells> for EdgeCells {
    fn as_ref(&self) -> &EdgeCells {
        self
    }
}

impl EdgeCells {
    /// Counts one.
    #[inline]
    pub fn inc(&self, counter: Counter) {
        self.add(counter, 1);
    }

    /// Counts `n`.
    #[inline]
    pub fn add(&self, counter: Counter, n: u64) {
        bump(&self.counters[counter as usize], n);
    }

    /// Counts a request that ended with `code`.
    #[inline]
    pub fn inc_code(&self, code: Code) {
        bump(&self.codes[code as usize], 1);
    }

    /// Raises a gauge by one; each `up` has its [`down`](Self::down).
    #[inline]
    pub fn up(&self, gauge: Gauge) {
        bump(&self.gauges[gauge as usize], 1);
    }

    /// Lowers a gauge by one.
    #[inline]
    pub fn down(&self, gauge: Gauge) {
        bump(&self.gauges[gauge as usize], 1u64.wrapping_neg());
    }

    /// Sets this thread's part of a gauge.
    #[inline]
    pub fn set(&self, gauge: Gauge, value: u64) {
        self.gauges[gauge as usize].store(value, Relaxed);
    }

    /// Observes `micros` microseconds.
    #[inline]
    pub fn observe(&self, histogram: Histogram, micros: u64) {
        let cells = &self.histograms[histogram as usize];
        bump(&cells.buckets[bucket(micros)], 1);
        bump(&cells.sum_us, micros);
    }

    /// A counter's value.
    pub fn counter(&self, counter: Counter) -> u64 {
        self.counters[counter as usize].load(Relaxed)
    }

    /// A gauge's value: this thread's part.
    pub fn gauge(&self, gauge: Gauge) -> u64 {
        self.gauges[gauge as usize].load(Relaxed)
    }

    /// Requests that ended with `code`.
    pub fn code(&self, code: Code) -> u64 {
        self.codes[code as usize].load(Relaxed)
    }

    /// Adds a histogram's buckets to `into`; returns its sum, microseconds.
    pub(super) fn add_buckets(&self, histogram: Histogram, into: &mut [u64]) -> u64 {
        let cells = &self.histograms[histogram as usize];
        for (into, cell) in into.iter_mut().zip(&cells.buckets) {
            *into += cell.load(Relaxed);
        }
        cells.sum_us.load(Relaxed)
    }
}

/// One edge thread's counters for one app; only that thread writes. What a
/// request that goes well writes is one cache line.
#[derive(Debug)]
#[repr(C, align(64))]
pub struct AppCells {
    pub(super) responses: [AtomicU64; 5],
    pub(super) bytes: AtomicU64,
    pub(super) total_us: AtomicU64,
    pub(super) in_flight: AtomicU32,
    held_kib: AtomicU32,
    pub(super) codes: [AtomicU64; CODES],
}

const _: () = assert!(std::mem::offset_of!(AppCells, codes) == 64);

impl Default for AppCells {
    fn default() -> Self {
        AppCells {
            responses: zeros(),
            bytes: AtomicU64::new(0),
            total_us: AtomicU64::new(0),
            in_flight: AtomicU32::new(0),
            held_kib: AtomicU32::new(0),
            codes: zeros(),
        }
    }
}

impl AppCells {
    /// Requests that began, over all threads.
    pub fn begun(threads: &[AppCells]) -> u64 {
        let of_thread = |cells: &AppCells| {
            let ended = cells.responses.iter().map(|cell| cell.load(Relaxed));
            ended.sum::<u64>() + u64::from(cells.in_flight.load(Relaxed))
        };
        threads.iter().map(of_thread).sum()
    }

    /// A request for the app began; [`answered`](Self::answered) ends it, on
    /// the same thread.
    #[inline]
    pub fn begin(&self) {
        bump_small(&self.in_flight, 1);
    }

    /// A request ended: the status sent (or 499), the code if it had one, the
    /// body bytes sent and the time it took.
    #[inline]
    pub fn answered(&self, status: u16, code: Option<Code>, bytes: u64, total_us: u64) {
        let class = usize::from(status / 100).clamp(1, 5) - 1;
        bump(&self.responses[class], 1);
        bump(&self.bytes, bytes);
        bump(&self.total_us, total_us);
        bump_small(&self.in_flight, 1u32.wrapping_neg());
        if let Some(code) = code {
            bump(&self.codes[code as usize], 1);
        }
    }

    /// One of its requests holds so many KiB of buffers where it held so many
    /// before; none when it ends.
    #[inline]
    pub fn hold(&self, before_kib: u32, now_kib: u32) {
        bump_small(&self.held_kib, now_kib.wrapping_sub(before_kib));
    }

    /// Bytes of buffers that its requests hold, over all threads.
    pub fn held_bytes(threads: &[AppCells]) -> u64 {
        let held_kib = threads.iter().map(|cells| cells.held_kib.load(Relaxed));
        held_kib.map(u64::from).sum::<u64>() * 1024
    }

    /// Requests that ended with a code of `fault`.
    pub fn faults(&self, fault: Fault) -> u64 {
        let codes = Code::ALL.iter().filter(|code| code.fault() == fault);
        codes
            .map(|&code| self.codes[code as usize].load(Relaxed))
            .sum()
    }
}
