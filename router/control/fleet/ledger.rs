//! What edges counted, those that are gone included.
//!
//! Owns each edge's last report and the sum of those that left, so that totals
//! do not fall when an edge is replaced or dies: a total that falls is taken
//! for one that began anew, and all of it is counted twice. What an edge that
//! was killed counted after its last report is lost.
//!
//! An edge is known by its process id: one that lost its connection and came
//! back is the same one. A process that counts less than the one of that id
//! did is another.
//!
//! **Invariant**: bounded: reports of [`EDGES`] edges, and one sum.

use std::collections::BTreeMap;

use crate::feed::messages::{AppReport, HistogramSample, Report, Sample};
use crate::observe::busiest;
use crate::observe::metrics::{self, Kind};

/// Edges whose reports are held apart.
const EDGES: usize = 96;
/// Apps of the sum that are held apart.
const APPS: usize = 100;

/// The last reports.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    edges: BTreeMap<u32, Entry>,
    /// Those that will not report again, added up.
    gone: Option<Report>,
    heard: u64,
}

#[derive(Debug)]
struct Entry {
    report: Report,
    /// Rises with each report of any edge.
    heard: u64,
}

impl Ledger {
    /// The edge of this process reports.
    pub fn hear(&mut self, pid: u32, report: &Report) {
        self.heard += 1;
        let entry = Entry {
            report: counted(report),
            heard: self.heard,
        };
        match self.edges.insert(pid, entry) {
            Some(before) if is_less(report, &before.report) => self.add(&before.report),
            _ => {}
        }
        if self.edges.len() > EDGES {
            let oldest = self.edges.iter().min_by_key(|(_, entry)| entry.heard);
            if let Some(pid) = oldest.map(|(pid, _)| *pid)
                && let Some(entry) = self.edges.remove(&pid)
            {
                self.add(&entry.report);
            }
        }
    }

    /// What everybody but the edges of these processes counted.
    pub fn but(&self, pids: &[u32]) -> Vec<Report> {
        let others = self.edges.iter().filter(|(pid, _)| !pids.contains(pid));
        let others = others.map(|(_, entry)| entry.report.clone());
        others.chain(self.gone.clone()).collect()
    }

    fn add(&mut self, report: &Report) {
        let gone = self.gone.get_or_insert_default();
        for sample in &report.samples {
            let is_it =
                |known: &&mut Sample| known.name == sample.name && known.labels == sample.labels;
            match gone.samples.iter_mut().find(is_it) {
                Some(known) => known.value += sample.value,
                None => gone.samples.push(sample.clone()),
            }
        }
        for histogram in &report.histograms {
            let is_it = |known: &&mut HistogramSample| {
                known.name == histogram.name && known.labels == histogram.labels
            };
            match gone.histograms.iter_mut().find(is_it) {
                Some(known) => {
                    let longer = known.buckets.len().max(histogram.buckets.len());
                    known.buckets.resize(longer, 0);
                    for (sum, count) in known.buckets.iter_mut().zip(&histogram.buckets) {
                        *sum += count;
                    }
                    known.sum += histogram.sum;
                }
                None => gone.histograms.push(histogram.clone()),
            }
        }
        let mut apps: BTreeMap<String, AppReport> = BTreeMap::new();
        for app in gone.apps.drain(..).chain(report.apps.iter().cloned()) {
            match apps.get_mut(&app.app) {
                Some(sum) => sum.absorb(&app),
                None => drop(apps.insert(app.app.clone(), app)),
            }
        }
        gone.apps = busiest(apps.into_values(), APPS);
    }
}

/// What of a report adds up over time: neither gauges nor what is under way.
fn counted(report: &Report) -> Report {
    let is_counter =
        |sample: &&Sample| metrics::row(&sample.name).is_some_and(|row| row.kind == Kind::Counter);
    let ended = |app: &AppReport| AppReport {
        in_flight: 0,
        queued: 0,
        backends: Vec::new(),
        ..app.clone()
    };
    Report {
        samples: report.samples.iter().filter(is_counter).cloned().collect(),
        histograms: report.histograms.clone(),
        apps: report.apps.iter().map(ended).collect(),
        ..Report::default()
    }
}

/// Whether any counter stands below what it was.
fn is_less(now: &Report, before: &Report) -> bool {
    let value = |sample: &Sample| {
        let is_it = |other: &&Sample| other.name == sample.name && other.labels == sample.labels;
        now.samples.iter().find(is_it).map(|found| found.value)
    };
    before
        .samples
        .iter()
        .any(|sample| value(sample).is_some_and(|value| value < sample.value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::{Counter, EdgeCells, Gauge, Histogram};

    fn report(requests: u64) -> Report {
        let cells = EdgeCells::default();
        for _ in 0..requests {
            cells.inc(Counter::Responses2xx);
            cells.observe(Histogram::Total, 500);
        }
        cells.set(Gauge::InFlight, 3);
        let (samples, histograms) = metrics::collect(&[cells]);
        let app = AppReport {
            app: "shop".into(),
            responses: vec![0, requests, 0, 0, 0],
            in_flight: 2,
            ..AppReport::default()
        };
        Report {
            samples,
            histograms,
            apps: vec![app],
            ..Report::default()
        }
    }

    fn total(reports: &[Report]) -> (f64, u64, u64) {
        let samples = reports.iter().flat_map(|report| &report.samples);
        let counted = samples.filter(|sample| {
            sample.name == "portico_requests_total" && sample.labels.contains(&"2xx".to_owned())
        });
        let timed = reports.iter().flat_map(|report| &report.histograms);
        let apps = reports.iter().flat_map(|report| &report.apps);
        (
            counted.map(|sample| sample.value).sum(),
            timed.flat_map(|it| &it.buckets).sum(),
            apps.map(AppReport::requests).sum(),
        )
    }

    #[test]
    fn an_edge_that_left_still_counts_and_has_nothing_under_way() {
        let mut ledger = Ledger::default();
        ledger.hear(7, &report(5));
        ledger.hear(8, &report(2));
        let left = ledger.but(&[8]);
        assert_eq!(total(&left), (5.0, 5, 5));
        assert_eq!(left[0].apps[0].in_flight, 0);
        let gauges = left[0].samples.iter();
        assert_eq!(
            gauges
                .filter(|it| it.name == "portico_requests_in_flight")
                .count(),
            0
        );
        // Its connection was cut, and it is back: not counted twice.
        ledger.hear(7, &report(6));
        assert_eq!(total(&ledger.but(&[7, 8])), (0.0, 0, 0));
        assert_eq!(total(&ledger.but(&[])), (8.0, 8, 8));
    }

    #[test]
    fn another_process_of_the_same_id_is_another_edge() {
        let mut ledger = Ledger::default();
        ledger.hear(7, &report(5));
        ledger.hear(7, &report(1));
        assert_eq!(total(&ledger.but(&[])), (6.0, 6, 6));
        assert_eq!(total(&ledger.but(&[7])), (5.0, 5, 5));
    }

    #[test]
    fn many_edges_are_summed_up() {
        let mut ledger = Ledger::default();
        for pid in 1..=3 * EDGES as u32 {
            ledger.hear(pid, &report(2));
        }
        assert_eq!(ledger.edges.len(), EDGES);
        let reports = ledger.but(&[]);
        assert_eq!(reports.len(), EDGES + 1);
        let all = 6 * EDGES as u64;
        assert_eq!(total(&reports), (all as f64, all, all));
    }
}
