//! Prometheus' text format: rows and their series, encoded by the `prometheus`
//! crate.
//!
//! Owns how a row becomes a family. Never gathers a number.

use prometheus::TextEncoder;
use prometheus::proto::{
    Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType,
};

use super::numbers::{Numbers, Observed};
use crate::control::propagation::Spread;
use crate::observe::histogram::bound;
use crate::observe::metrics::{self, Kind, Row};

/// The content type of [`Exposition::text`].
pub(super) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Families in the making.
#[derive(Debug, Default)]
pub(super) struct Exposition {
    families: Vec<MetricFamily>,
}

impl Exposition {
    /// Every series that edges reported, in the order of the rows.
    pub fn numbers(&mut self, numbers: &Numbers) {
        for row in metrics::rows() {
            if row.kind == Kind::Histogram {
                self.histograms(row, numbers);
            } else {
                let pairs = numbers.series(row).map(|(labels, value)| {
                    let pairs = labels.chunks_exact(2);
                    (
                        pairs
                            .map(|pair| (pair[0].clone(), pair[1].clone()))
                            .collect(),
                        value,
                    )
                });
                self.push(row, pairs.collect::<Vec<_>>());
            }
        }
    }

    /// A counter or gauge: label values in the order of the row's labels, and
    /// the value. Nothing is exported for a row without series.
    pub fn row<'a>(&mut self, row: &Row, series: impl IntoIterator<Item = (Vec<&'a str>, f64)>) {
        let named = series.into_iter().map(|(values, value)| {
            debug_assert_eq!(values.len(), row.labels.len(), "{}", row.name);
            let pairs = row.labels.iter().zip(values);
            (
                pairs
                    .map(|(name, value)| ((*name).to_owned(), value.to_owned()))
                    .collect(),
                value,
            )
        });
        self.push(row, named.collect::<Vec<_>>());
    }

    /// A histogram of control's own.
    pub fn spread(&mut self, row: &Row, spread: &Spread) {
        let mut metric = Metric::default();
        metric.set_histogram(histogram(&Observed {
            buckets: spread.buckets.to_vec(),
            sum: spread.sum_us as f64 / 1e6,
        }));
        self.family(row, vec![metric]);
    }

    fn push(&mut self, row: &Row, series: Vec<(Vec<(String, String)>, f64)>) {
        let metrics = series.into_iter().map(|(labels, value)| {
            let mut metric = Metric::from_label(label_pairs(labels));
            match row.kind {
                Kind::Counter => {
                    let mut counter = Counter::default();
                    counter.set_value(value);
                    metric.set_counter(counter);
                }
                Kind::Gauge | Kind::Histogram => {
                    let mut gauge = Gauge::default();
                    gauge.set_value(value);
                    metric.set_gauge(gauge);
                }
            }
            metric
        });
        let metrics = metrics.collect();
        self.family(row, metrics);
    }

    fn histograms(&mut self, row: &Row, numbers: &Numbers) {
        let metrics = numbers.histograms(row).map(|(labels, observed)| {
            let pairs = labels.chunks_exact(2);
            let pairs = pairs
                .map(|pair| (pair[0].clone(), pair[1].clone()))
                .collect();
            let mut metric = Metric::from_label(label_pairs(pairs));
            metric.set_histogram(histogram(observed));
            metric
        });
        let metrics = metrics.collect();
        self.family(row, metrics);
    }

    fn family(&mut self, row: &Row, metrics: Vec<Metric>) {
        if metrics.is_empty() {
            return;
        }
        let mut family = MetricFamily::default();
        family.set_name(row.name.to_owned());
        family.set_help(row.help.to_owned());
        family.set_field_type(match row.kind {
            Kind::Counter => MetricType::COUNTER,
            Kind::Gauge => MetricType::GAUGE,
            Kind::Histogram => MetricType::HISTOGRAM,
        });
        family.set_metric(metrics);
        self.families.push(family);
    }

    /// The page.
    pub fn text(&self) -> String {
        let encoded = TextEncoder::new().encode_to_string(&self.families);
        encoded.expect("families must have names and series")
    }
}

fn label_pairs(labels: Vec<(String, String)>) -> Vec<LabelPair> {
    let pairs = labels.into_iter().map(|(name, value)| {
        let mut pair = LabelPair::default();
        pair.set_name(name);
        pair.set_value(value);
        pair
    });
    pairs.collect()
}

fn histogram(observed: &Observed) -> Histogram {
    let mut cumulative = 0;
    let mut buckets = Vec::with_capacity(observed.buckets.len());
    for (index, &count) in observed.buckets.iter().enumerate() {
        cumulative += count;
        if let Some(micros) = bound(index) {
            let mut bucket = Bucket::default();
            bucket.set_upper_bound(micros as f64 / 1e6);
            bucket.set_cumulative_count(cumulative);
            buckets.push(bucket);
        }
    }
    let mut histogram = Histogram::default();
    histogram.set_sample_count(cumulative);
    histogram.set_sample_sum(observed.sum);
    histogram.set_bucket(buckets);
    histogram
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::feed::messages::Report;
    use crate::observe::{self, EdgeCells};

    fn text() -> String {
        let cells = EdgeCells::default();
        cells.inc(observe::Counter::Responses2xx);
        cells.inc_code(observe::Code::H12);
        cells.observe(observe::Histogram::Total, 80);
        cells.observe(observe::Histogram::Total, 100_000_000);
        let (samples, histograms) = metrics::collect(&[cells]);
        let report = Report {
            samples,
            histograms,
            ..Report::default()
        };
        let mut exposition = Exposition::default();
        exposition.numbers(&Numbers::merge(&[report], 10));
        exposition.text()
    }

    #[test]
    fn counters_and_histograms_read_as_prometheus_expects() {
        let text = text();
        for line in [
            "# TYPE portico_requests_total counter",
            "portico_requests_total{class=\"2xx\"} 1",
            "portico_coded_requests_total{code=\"H12\",fault=\"app\"} 1",
            "# TYPE portico_request_duration_seconds histogram",
            "portico_request_duration_seconds_bucket{le=\"0.000064\"} 0",
            "portico_request_duration_seconds_bucket{le=\"0.00008\"} 1",
            "portico_request_duration_seconds_bucket{le=\"67.108864\"} 1",
            "portico_request_duration_seconds_bucket{le=\"+Inf\"} 2",
            "portico_request_duration_seconds_count 2",
            "portico_request_duration_seconds_sum 100.00008",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
    }

    #[test]
    fn every_row_is_explained_once() {
        let text = text();
        let elsewhere = ["portico_access_log", "portico_limit_"];
        let is_here = |row: &&Row| !elsewhere.iter().any(|start| row.name.starts_with(start));
        for row in metrics::rows().filter(is_here) {
            let help = format!("# HELP {} ", row.name);
            assert_eq!(
                text.lines().filter(|line| line.starts_with(&help)).count(),
                1,
                "{help}"
            );
        }
    }
}
