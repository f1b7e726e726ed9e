//! What an edge tells control when asked: its counters, its busiest apps, one
//! app with its backends, and the backends that are not well.
//!
//! Reads only; bounded by what is asked for, whatever the number of apps.

use super::Sync;
use crate::feed::messages::{AppReport, BackendReport, Collect, Health, Report, UnwellBackend};
use crate::heritage::open_descriptors;
use crate::observe::{Counter, busiest, metrics};
use crate::table::App;

/// Apps of a report where control names no number.
const TOP: usize = 100;
/// Backends named that are not well; the others are counted.
const UNWELL: usize = 100;

/// What control asked for.
pub(super) fn of(sync: &Sync, collect: &Collect) -> Report {
    sync.own()
        .add(Counter::EventsDropped, sync.events.newly_dropped());
    let mut report = Report {
        id: collect.id,
        pid: std::process::id(),
        open_descriptors: open_descriptors().unwrap_or(0),
        ..Report::default()
    };
    let moment = sync.moment();
    if !collect.app.is_empty() {
        let app = sync.table.app(&collect.app);
        report.apps = app.iter().map(|app| app.report(Some(moment))).collect();
        return report;
    }
    (report.samples, report.histograms) = metrics::collect(&sync.cells);
    report
        .samples
        .extend(sync.log.iter().flat_map(|log| log.samples()));
    report.samples.extend(sync.table.limits.samples());
    let top = match collect.top {
        0 => TOP,
        top => top as usize,
    };
    let mut unwell = Unwell::default();
    let hot = sync.table.hot_apps().map(|app| {
        let mut seen = app.report(Some(moment));
        unwell.take(&app, &mut seen);
        seen
    });
    report.apps = busiest(hot, top);
    report.unwell = unwell.named;
    report.unwell_total = unwell.total;
    report
}

/// Backends that are not well, the first of them by name.
#[derive(Debug, Default)]
struct Unwell {
    named: Vec<UnwellBackend>,
    total: u64,
}

impl Unwell {
    /// Takes them out of an app's report, which is left without backends.
    fn take(&mut self, app: &App, report: &mut AppReport) {
        let seen = std::mem::take(&mut report.backends);
        for (mut seen, backend) in seen.into_iter().zip(&app.backends) {
            if backend.ejected {
                seen.set_health(Health::Ejected);
                "operator".clone_into(&mut seen.reason);
                seen.since_ms = 0;
            }
            if !is_unwell(&seen) {
                continue;
            }
            self.total += 1;
            if self.named.len() < UNWELL {
                self.named.push(UnwellBackend {
                    app: report.app.clone(),
                    backend: Some(seen),
                });
            }
        }
    }
}

/// Whether an operator should see it. A backend that ramps up because it is new
/// is well.
fn is_unwell(backend: &BackendReport) -> bool {
    match backend.health() {
        Health::Healthy => false,
        Health::Ramping => backend.ejections > 0,
        Health::Resting | Health::Ejected | Health::Trial => true,
    }
}
