//! From the cells of apps to the feed's reports: one app's sum over threads,
//! and the busiest few of a million.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::atomic::Ordering::Relaxed;

use super::{AppCells, Code};
use crate::feed::messages::{AppReport, BackendReport, Health};

impl AppCells {
    /// The report of one app from its threads' cells; `backends` are left to
    /// the caller.
    pub fn report(app: &str, cells: &[AppCells], queued: u64) -> AppReport {
        let mut report = AppReport {
            app: app.to_owned(),
            queued,
            ..AppReport::default()
        };
        for cells in cells {
            cells.add_to(&mut report);
        }
        report
    }

    fn add_to(&self, report: &mut AppReport) {
        report.responses.resize(self.responses.len(), 0);
        for (sum, cell) in report.responses.iter_mut().zip(&self.responses) {
            *sum += cell.load(Relaxed);
        }
        for &code in Code::ALL {
            let count = self.codes[code as usize].load(Relaxed);
            add_code(&mut report.codes, u64::from(code.number()), count);
        }
        report.bytes += self.bytes.load(Relaxed);
        report.in_flight += u64::from(self.in_flight.load(Relaxed));
        report.total_us += self.total_us.load(Relaxed);
    }
}

fn add_code(codes: &mut Vec<u64>, number: u64, count: u64) {
    if count == 0 {
        return;
    }
    match codes.chunks_exact_mut(2).find(|pair| pair[0] == number) {
        Some(pair) => pair[1] += count,
        None => codes.extend([number, count]),
    }
}

impl AppReport {
    /// Requests answered since the edge started.
    pub fn requests(&self) -> u64 {
        self.responses.iter().sum()
    }

    /// Adds another report's numbers to this one, backends by id.
    pub fn absorb(&mut self, other: &AppReport) {
        self.responses
            .resize(self.responses.len().max(other.responses.len()), 0);
        for (sum, count) in self.responses.iter_mut().zip(&other.responses) {
            *sum += count;
        }
        for pair in other.codes.chunks_exact(2) {
            add_code(&mut self.codes, pair[0], pair[1]);
        }
        self.bytes += other.bytes;
        self.in_flight += other.in_flight;
        self.queued += other.queued;
        self.total_us += other.total_us;
        for backend in &other.backends {
            match self.backends.iter_mut().find(|mine| mine.id == backend.id) {
                Some(mine) => mine.absorb(backend),
                None => self.backends.push(backend.clone()),
            }
        }
    }
}

impl BackendReport {
    /// Takes in how another edge sees the same backend: counts add up; of
    /// health, with its reason and since when, latency and share, the worse
    /// counts, so that one edge that cannot reach it shows.
    pub fn absorb(&mut self, other: &BackendReport) {
        self.in_flight += other.in_flight;
        self.requests += other.requests;
        self.failures += other.failures;
        self.ejections += other.ejections;
        self.latency_us = self.latency_us.max(other.latency_us);
        self.limit += other.limit;
        self.undisturbed_us = self.undisturbed_us.max(other.undisturbed_us);
        self.share_permille = self.share().min(other.share());
        let rank = |report: &BackendReport| (badness(report.health()), report.since_ms > 0);
        let is_worse = rank(other) > rank(self);
        let is_older = rank(other) == rank(self) && other.since_ms < self.since_ms;
        if is_worse || is_older {
            self.health = other.health;
            self.reason.clone_from(&other.reason);
            self.since_ms = other.since_ms;
        }
    }

    /// Its share of its weight, in thousandths; a healthy backend of which
    /// nothing is said has all of it.
    pub fn share(&self) -> u32 {
        match (self.health(), self.share_permille) {
            (Health::Healthy, 0) => 1_000,
            (_, share) => share,
        }
    }
}

/// Healthy is 0; out of rotation without a trial is worst.
fn badness(health: Health) -> u32 {
    match health {
        Health::Healthy => 0,
        Health::Ramping => 1,
        Health::Resting => 2,
        Health::Trial => 3,
        Health::Ejected => 4,
    }
}

/// The `top` apps with the most requests, busiest first, and all others summed
/// under an empty name at the end (left out if there are none). Memory is
/// O(`top`), whatever the number of apps.
pub fn busiest(reports: impl IntoIterator<Item = AppReport>, top: usize) -> Vec<AppReport> {
    let mut kept: BinaryHeap<Reverse<ByRequests>> = BinaryHeap::new();
    let mut other: Option<AppReport> = None;
    for report in reports {
        kept.push(Reverse(ByRequests(report)));
        if kept.len() > top
            && let Some(Reverse(ByRequests(least))) = kept.pop()
        {
            other.get_or_insert_default().absorb(&AppReport {
                backends: Vec::new(),
                ..least
            });
        }
    }
    let mut apps: Vec<_> = kept
        .into_iter()
        .map(|Reverse(ByRequests(report))| report)
        .collect();
    apps.sort_by(|a, b| {
        b.requests()
            .cmp(&a.requests())
            .then_with(|| a.app.cmp(&b.app))
    });
    apps.extend(other);
    apps
}

/// Ordered by requests; an empty name (already summed) is always least; ties
/// by name, so that the same apps are kept from one report to the next.
struct ByRequests(AppReport);

impl ByRequests {
    fn key(&self) -> (bool, u64, Reverse<&str>) {
        (
            !self.0.app.is_empty(),
            self.0.requests(),
            Reverse(&self.0.app),
        )
    }
}

impl Ord for ByRequests {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.key().cmp(&other.key())
    }
}

impl PartialOrd for ByRequests {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for ByRequests {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for ByRequests {}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(app: &str, requests: u64) -> AppReport {
        let cells = AppCells::default();
        for _ in 0..requests {
            cells.begin();
            cells.answered(200, None, 10, 5);
        }
        AppCells::report(app, &[cells], 0)
    }

    #[test]
    fn an_apps_report_sums_its_threads() {
        let threads = [AppCells::default(), AppCells::default()];
        threads[0].begin();
        threads[0].begin();
        threads[0].answered(200, None, 12, 100);
        threads[1].begin();
        threads[1].answered(503, Some(Code::H12), 0, 900);
        let report = AppCells::report("shop", &threads, 7);
        assert_eq!(report.responses, [0, 1, 0, 0, 1]);
        assert_eq!(report.codes, [12, 1]);
        assert_eq!((report.bytes, report.in_flight, report.queued), (12, 1, 7));
        assert_eq!(report.total_us, 1000);
    }

    #[test]
    fn what_an_apps_requests_hold_is_summed_over_threads_until_they_end() {
        let threads = [AppCells::default(), AppCells::default()];
        threads[0].hold(0, 16);
        threads[0].hold(0, 1);
        threads[1].hold(0, 128);
        threads[0].hold(16, 2);
        assert_eq!(AppCells::held_bytes(&threads), 131 * 1024);
        threads[0].hold(2, 0);
        threads[0].hold(1, 0);
        threads[1].hold(128, 0);
        assert_eq!(AppCells::held_bytes(&threads), 0);
    }

    #[test]
    fn the_busiest_are_kept_and_the_rest_summed() {
        let reports = (1..=10).map(|n| report(&format!("app-{n:02}"), n));
        let top = busiest(reports, 3);
        let names: Vec<_> = top.iter().map(|report| report.app.as_str()).collect();
        assert_eq!(names, ["app-10", "app-09", "app-08", ""]);
        assert_eq!(top[3].requests(), (1..=7).sum::<u64>());
        assert_eq!(top.iter().map(AppReport::requests).sum::<u64>(), 55);
    }

    #[test]
    fn merging_busiest_lists_keeps_other_last_and_loses_nothing() {
        let one = busiest((1..=5).map(|n| report(&format!("a{n}"), n)), 2);
        let again = busiest(one, 1);
        let names: Vec<_> = again.iter().map(|report| report.app.as_str()).collect();
        assert_eq!(names, ["a5", ""]);
        assert_eq!(again.iter().map(AppReport::requests).sum::<u64>(), 15);
    }

    #[test]
    fn of_two_edges_views_of_a_backend_the_worse_counts() {
        let view = |health: Health, reason: &str, since_ms, latency_us, share_permille| {
            let backends = vec![BackendReport {
                id: "web.1".into(),
                in_flight: 1,
                ejections: 2,
                health: health.into(),
                reason: reason.into(),
                since_ms,
                latency_us,
                share_permille,
                ..BackendReport::default()
            }];
            AppReport {
                app: "shop".into(),
                backends,
                ..AppReport::default()
            }
        };
        let merged = |first: &AppReport, second: &AppReport| {
            let mut sum = first.clone();
            sum.absorb(second);
            sum.backends.remove(0)
        };
        let well = view(Health::Healthy, "reset", 900, 5_000, 1_000);
        let trial = view(Health::Trial, "silent", 700, 0, 0);
        let out = view(Health::Ejected, "connect_refused", 800, 0, 0);
        for (first, second) in [(&well, &out), (&out, &well), (&trial, &out), (&out, &trial)] {
            let worse = merged(first, second);
            assert_eq!(worse.health(), Health::Ejected);
            assert_eq!((&*worse.reason, worse.since_ms), ("connect_refused", 800));
            assert_eq!((worse.in_flight, worse.ejections), (2, 4));
            assert_eq!(worse.share_permille, 0);
        }
        assert_eq!(merged(&well, &out).latency_us, 5_000);
        let longer = view(Health::Ejected, "reset", 300, 0, 0);
        for (first, second) in [(&longer, &out), (&out, &longer)] {
            let merged = merged(first, second);
            assert_eq!((&*merged.reason, merged.since_ms), ("reset", 300));
        }
        let fresh = view(Health::Healthy, "", 0, 0, 1_000);
        for (first, second) in [(&fresh, &well), (&well, &fresh)] {
            assert_eq!(merged(first, second).reason, "reset");
        }
    }

    #[test]
    fn few_apps_leave_no_other() {
        assert_eq!(busiest([report("only", 1)], 5).len(), 1);
        assert!(busiest([], 5).is_empty());
    }
}
