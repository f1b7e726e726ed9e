//! From the cells of every thread to samples, as the feed carries them.
//!
//! Reads only; which series there are is [`metrics`](super::metrics)'s.

use super::Code;
use super::cells::EdgeCells;
use super::histogram::BUCKETS;
use super::metrics::{CODES, Counter, Gauge, Histogram, Row};
use crate::feed::messages::{HistogramSample, Sample};

/// One value of a row, as the feed carries it.
pub fn sample(row: &Row, values: &[&str], value: f64) -> Sample {
    Sample {
        name: row.name.to_owned(),
        labels: labels(row, values),
        value,
    }
}

fn labels(row: &Row, values: &[&str]) -> Vec<String> {
    debug_assert_eq!(row.labels.len(), values.len());
    let pairs = row.labels.iter().zip(values);
    pairs
        .flat_map(|(name, value)| [(*name).to_owned(), (*value).to_owned()])
        .collect()
}

/// The sum of every thread's cells, for the feed's
/// [`Report`](crate::feed::messages::Report). Series that never counted are
/// there with 0, so that a rate over them is 0 and not absent.
pub fn collect<C: AsRef<EdgeCells>>(cells: &[C]) -> (Vec<Sample>, Vec<HistogramSample>) {
    let all = || cells.iter().map(AsRef::as_ref);
    let mut samples = Vec::with_capacity(Counter::ALL.len() + Gauge::ALL.len() + Code::ALL.len());
    for &counter in Counter::ALL {
        let value: u64 = all().map(|cells| cells.counter(counter)).sum();
        samples.push(sample(counter.row(), counter.values(), value as f64));
    }
    for &gauge in Gauge::ALL {
        // A thread's part may be below zero where another raised what it lowered.
        let sum = all().fold(0u64, |sum, cells| sum.wrapping_add(cells.gauge(gauge)));
        let value = sum.cast_signed().max(0);
        samples.push(sample(gauge.row(), gauge.values(), value as f64));
    }
    for &code in Code::ALL {
        let value: u64 = all().map(|cells| cells.code(code)).sum();
        samples.push(sample(
            &CODES,
            &[code.name(), code.fault().name()],
            value as f64,
        ));
    }
    let histograms = Histogram::ALL.iter().map(|&histogram| {
        let mut buckets = vec![0; BUCKETS];
        let mut sum_us = 0;
        for cells in all() {
            sum_us += cells.add_buckets(histogram, &mut buckets);
        }
        HistogramSample {
            name: histogram.row().name.to_owned(),
            labels: labels(histogram.row(), histogram.values()),
            buckets,
            sum: sum_us as f64 / 1e6,
        }
    });
    (samples, histograms.collect())
}
