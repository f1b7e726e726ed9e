//! The numbers of all edges as one: reports merged series by series.
//!
//! Never invents a metric: a series whose row this version does not know is
//! left out.

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::collections::btree_map::Entry;

use crate::feed::messages::{AppReport, BackendReport, HistogramSample, Report};
use crate::observe::histogram::BUCKETS;
use crate::observe::metrics::{self, Merge, Row};
use crate::observe::{Histogram, busiest};

/// Label names and values, in turn, as the feed carries them.
pub(super) type Labels = Vec<String>;

/// A histogram over all edges.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Observed {
    /// Observations per bucket of [`crate::observe::histogram`].
    pub buckets: Vec<u64>,
    /// Their sum, seconds.
    pub sum: f64,
}

/// Every series that edges reported, added up.
#[derive(Clone, Debug, Default)]
pub(super) struct Numbers {
    values: BTreeMap<&'static str, BTreeMap<Labels, f64>>,
    histograms: BTreeMap<&'static str, BTreeMap<Labels, Observed>>,
    /// The busiest apps, busiest first; `other` last, under an empty name.
    pub apps: Vec<AppReport>,
    /// Backends that are not well on an edge or more, by app and id; the first
    /// of them.
    pub unwell: BTreeMap<(String, String), BackendReport>,
    /// How many there are, at least.
    pub unwell_total: u64,
}

impl Numbers {
    /// Merges reports; keeps the `top` busiest apps.
    pub fn merge(reports: &[Report], top: usize) -> Numbers {
        let mut numbers = Numbers::default();
        for report in reports {
            for sample in &report.samples {
                if let Some(row) = metrics::row(&sample.name) {
                    numbers.add(row, &sample.labels, sample.value);
                }
            }
            for histogram in &report.histograms {
                numbers.add_histogram(histogram);
            }
        }
        numbers.apps = merge_apps(reports, top);
        for report in reports {
            numbers.add_unwell(report);
        }
        numbers
    }

    fn add(&mut self, row: &'static Row, labels: &Labels, value: f64) {
        let series = self.values.entry(row.name).or_default();
        match series.get_mut(labels) {
            None => {
                series.insert(labels.clone(), value);
            }
            Some(sum) => match row.merge {
                Merge::Sum => *sum += value,
                Merge::Min => *sum = sum.min(value),
            },
        }
    }

    fn add_histogram(&mut self, histogram: &HistogramSample) {
        let Some(row) = metrics::row(&histogram.name) else {
            return;
        };
        if histogram.buckets.len() != BUCKETS {
            return;
        }
        let series = self.histograms.entry(row.name).or_default();
        let observed = series
            .entry(histogram.labels.clone())
            .or_insert_with(|| Observed {
                buckets: vec![0; BUCKETS],
                sum: 0.0,
            });
        for (sum, count) in observed.buckets.iter_mut().zip(&histogram.buckets) {
            *sum += count;
        }
        observed.sum += histogram.sum;
    }

    fn add_unwell(&mut self, report: &Report) {
        for unwell in &report.unwell {
            let Some(backend) = &unwell.backend else {
                continue;
            };
            let key = (unwell.app.clone(), backend.id.clone());
            match self.unwell.entry(key) {
                Entry::Occupied(mut known) => known.get_mut().absorb(backend),
                Entry::Vacant(vacant) => {
                    vacant.insert(backend.clone());
                }
            }
        }
        let named = self.unwell.len() as u64;
        self.unwell_total = self.unwell_total.max(report.unwell_total).max(named);
    }

    /// The series of a row.
    pub fn series(&self, row: &Row) -> impl Iterator<Item = (&Labels, f64)> {
        let series = self.values.get(row.name).into_iter().flatten();
        series.map(|(labels, value)| (labels, *value))
    }

    /// The histograms of a row.
    pub fn histograms(&self, row: &Row) -> impl Iterator<Item = (&Labels, &Observed)> {
        self.histograms.get(row.name).into_iter().flatten()
    }

    /// The sum of a row's series: its total.
    pub fn total(&self, row: &Row) -> f64 {
        // Not `sum`: of nothing, that is -0.
        self.series(row).fold(0.0, |sum, (_, value)| sum + value)
    }

    /// A row with one label, by that label's value.
    pub fn by_label(&self, row: &Row) -> BTreeMap<String, f64> {
        let labelled = self
            .series(row)
            .filter_map(|(labels, value)| labels.get(1).map(|label| (label.clone(), value)));
        labelled.collect()
    }

    /// A histogram without labels; empty if no edge reported it.
    pub fn observed(&self, histogram: Histogram) -> Observed {
        let observed = self.histograms(histogram.row()).next();
        observed.map_or_else(
            || Observed {
                buckets: vec![0; BUCKETS],
                sum: 0.0,
            },
            |(_, observed)| observed.clone(),
        )
    }
}

/// Each app once, over all edges; then the busiest.
fn merge_apps(reports: &[Report], top: usize) -> Vec<AppReport> {
    let mut by_name: HashMap<&str, AppReport> = HashMap::new();
    for app in reports.iter().flat_map(|report| &report.apps) {
        match by_name.get_mut(app.app.as_str()) {
            Some(sum) => sum.absorb(app),
            None => {
                by_name.insert(&app.app, app.clone());
            }
        }
    }
    busiest(by_name.into_values(), top)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::feed::messages::UnwellBackend;
    use crate::observe::{AppCells, Counter, EdgeCells, Gauge};

    fn report(requests: u64, revision: u64, app: &str) -> Report {
        let cells = EdgeCells::default();
        let app_cells = AppCells::default();
        for _ in 0..requests {
            cells.inc(Counter::Responses2xx);
            cells.observe(Histogram::Total, 500);
            app_cells.begin();
            app_cells.answered(200, None, 1, 500);
        }
        cells.set(Gauge::TableRevision, revision);
        let (samples, histograms) = metrics::collect(&[cells]);
        let apps = vec![AppCells::report(app, &[app_cells], 0)];
        Report {
            id: 1,
            samples,
            histograms,
            apps,
            ..Report::default()
        }
    }

    #[test]
    fn counters_add_up_and_the_oldest_revision_counts() {
        let numbers = Numbers::merge(&[report(3, 8, "a"), report(4, 7, "b")], 10);
        assert_eq!(numbers.total(Counter::Responses2xx.row()), 7.0);
        assert_eq!(numbers.by_label(Counter::Responses2xx.row())["2xx"], 7.0);
        assert_eq!(numbers.total(Gauge::TableRevision.row()), 7.0);
        let observed = numbers.observed(Histogram::Total);
        assert_eq!(observed.buckets.iter().sum::<u64>(), 7);
        assert!((observed.sum - 0.0035).abs() < 1e-9);
    }

    #[test]
    fn an_app_on_two_edges_is_one_app() {
        let reports = [report(3, 1, "a"), report(4, 1, "a"), report(5, 1, "b")];
        let numbers = Numbers::merge(&reports, 10);
        let apps: Vec<_> = numbers
            .apps
            .iter()
            .map(|app| (&*app.app, app.requests()))
            .collect();
        assert_eq!(apps, [("a", 7), ("b", 5)]);
    }

    #[test]
    fn a_backend_unwell_on_two_edges_is_one() {
        let report = |ids: &[&str], total| Report {
            unwell: ids
                .iter()
                .map(|id| UnwellBackend {
                    app: "shop".into(),
                    backend: Some(BackendReport {
                        id: (*id).into(),
                        failures: 1,
                        ..BackendReport::default()
                    }),
                })
                .collect(),
            unwell_total: total,
            ..Report::default()
        };
        let numbers = Numbers::merge(&[report(&["a", "b"], 2), report(&["b", "c"], 2)], 10);
        let failures: Vec<u64> = numbers.unwell.values().map(|it| it.failures).collect();
        assert_eq!(failures, [1, 2, 1]);
        assert_eq!(numbers.unwell_total, 3);
        let numbers = Numbers::merge(&[report(&["a"], 200), report(&["a"], 1)], 10);
        assert_eq!(numbers.unwell_total, 200);
    }

    #[test]
    fn what_this_version_does_not_know_is_left_out() {
        let mut strange = report(1, 1, "a");
        strange.samples[0].name = "portico_from_the_future_total".into();
        for histogram in &mut strange.histograms {
            histogram.buckets.push(1);
        }
        let numbers = Numbers::merge(&[strange], 10);
        assert!(!numbers.values.contains_key("portico_from_the_future_total"));
        assert!(numbers.histograms.is_empty());
    }
}
