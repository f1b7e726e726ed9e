//! `churn`: a thousand changes a second at every app, under traffic of other
//! apps; how soon are they active, and does the traffic notice?
//!
//! Traffic runs all the time at one rate; changes come and go in it, so that
//! both halves of the comparison are of one run. Commit → active is read from
//! the router's own histogram; from outside, some changes wait until they are
//! active, and one app is swapped to and fro and asked at once: an answer of
//! the backend it had before is stale.

use std::time::{Duration, Instant};

use anyhow::Result;

use super::apps::{Apps, WITH_BACKENDS};
use super::crowd::Traffic;
use super::exposition::{Buckets, value};
use super::figure::{Window, failures, latencies_us, quantile};
use super::registrations::{Change, Plan, Registrations, Wanted};
use super::report::Found;
use super::router::{Router, answering};
use super::{Bench, traffic_hosts};
use crate::faults::record::now_us;
use crate::interrupt;
use crate::process_cost::Cost;

/// Requests per second.
const TRAFFIC_RATE: u64 = 500;
/// Changes per second.
const CHANGE_RATE: u64 = 1_000;
/// Keepalive connections to the API.
const CONNECTIONS: usize = 32;
/// Changes per second that wait until they are active.
const WAITING_RATE: u64 = 10;
/// Seconds of changes.
const CHANGES_SECONDS: u64 = 30;
/// Seconds of traffic alone, before and after.
const QUIET_SECONDS: u64 = 15;
/// The first requests are not measured.
const WARM_UP: Duration = Duration::from_secs(1);
/// How long the last changes may take to be answered.
const END_LIMIT: Duration = Duration::from_secs(20);
/// Between two swaps of the app that is asked at once.
const SWAP_INTERVAL: Duration = Duration::from_millis(250);
/// The histogram of commit → active.
const PROPAGATION: &str = "portico_propagation_seconds";

/// Runs traffic with and without changes.
pub fn run(bench: &mut Bench, found: &mut Found) -> Result<()> {
    let seconds = bench.seconds(CHANGES_SECONDS);
    let apps = bench.all_apps()?;
    let router = bench.fleet()?;
    let limit = Duration::from_secs(seconds + 2 * QUIET_SECONDS + 30);
    let traffic = Traffic::start(router.site.address, traffic_hosts(), TRAFFIC_RATE, limit)?;
    interrupt::pause(WARM_UP)?;
    let cost = || Cost::of_tree(router.pid());
    let quiet = || -> Result<(Window, Duration)> {
        let (from_us, before) = (now_us(), cost());
        interrupt::pause(Duration::from_secs(QUIET_SECONDS))?;
        Ok(((from_us, now_us()), cost().cpu_since(&before)))
    };
    let (first, quiet_cpu) = quiet()?;
    let metrics = router.admin("/metrics")?;
    let (from_us, before) = (now_us(), cost());
    let storm = storm(router, &apps, seconds)?;
    let window = (from_us, now_us());
    let storm_cpu = cost().cpu_since(&before);
    let later = router.admin("/metrics")?;
    let (second, _) = quiet()?;
    let exchanges = traffic.end()?;
    storm.report(found);
    propagation(&metrics, &later, found);
    let quiet = latencies_us(&exchanges, &[first, second]);
    let loud = latencies_us(&exchanges, &[window]);
    let ms = |sorted: &[u64], share| quantile(sorted, share) / 1e3;
    found.put("quiet_p99_ms", ms(&quiet, 0.99));
    found.put("busy_p99_ms", ms(&loud, 0.99));
    found.put("p99_ratio", ms(&loud, 0.99) / ms(&quiet, 0.99));
    found.put("quiet_p50_ms", ms(&quiet, 0.5));
    found.put("busy_p50_ms", ms(&loud, 0.5));
    found.put("quiet_p999_ms", ms(&quiet, 0.999));
    found.put("busy_p999_ms", ms(&loud, 0.999));
    let failed = failures(&exchanges);
    found.put("failed", failed.values().sum::<u64>() as f64);
    if !failed.is_empty() {
        found.note(format!("requests failed: {failed:?}"));
    }
    let length = (window.1 - window.0) as f64 / 1e6;
    let extra = storm_cpu.as_secs_f64() - quiet_cpu.as_secs_f64() / QUIET_SECONDS as f64 * length;
    found.put("change_cpu_ms", extra * 1e3 / storm.changes.len() as f64);
    Ok(())
}

/// What became of the changes.
struct Storm {
    changes: Vec<Change>,
    waiting: Vec<Change>,
    swaps: u64,
    stale: u64,
}

/// Changes at both rates, and the app that is swapped and asked, for so long.
fn storm(router: &Router, apps: &Apps, seconds: u64) -> Result<Storm> {
    let plan = |rate, connections| -> Result<Plan> {
        Ok(Plan {
            address: router.site.api,
            token: router.token()?,
            rate,
            count: usize::try_from(rate * seconds)?,
            connections,
        })
    };
    let count = apps.count;
    let changes = Registrations::start(plan(CHANGE_RATE, CONNECTIONS)?, move |number| {
        swap(number, count, "")
    });
    let waiting = Registrations::start(plan(WAITING_RATE, 16)?, move |number| {
        // Other apps than those of the crowd.
        swap(number + 500_000_003, count, "?wait=active")
    });
    let end = Instant::now() + Duration::from_secs(seconds);
    let (mut swaps, mut stale) = (0, 0);
    while Instant::now() < end {
        swaps += 1;
        stale += u64::from(!is_active_at_once(router, apps, swaps)?);
        interrupt::pause(SWAP_INTERVAL)?;
    }
    interrupt::poll_until("the last changes", END_LIMIT, || {
        changes.is_over() && waiting.is_over()
    })?;
    Ok(Storm {
        changes: changes.end()?,
        waiting: waiting.end()?,
        swaps,
        stale,
    })
}

/// A change of an app without traffic: each time another one, each time another address.
fn swap(number: usize, apps: usize, query: &str) -> Wanted {
    // 7,919 is prime to the number of apps: neighbours in time are far apart in the table.
    let idle = apps - WITH_BACKENDS;
    let app = WITH_BACKENDS + number.wrapping_mul(7_919) % idle;
    let port = 10_000 + number % 20_000;
    Wanted {
        path: format!("/v1/apps/{}/backends/web.1{query}", Apps::name(app)),
        body: format!(r#"{{"address":"127.64.0.1:{port}","release":"v2"}}"#),
    }
}

/// Gives one app another backend, waits until that is active, asks it.
fn is_active_at_once(router: &Router, apps: &Apps, swap: u64) -> Result<bool> {
    let app = WITH_BACKENDS - 1;
    let backend = apps.backends[usize::try_from(swap)? % apps.backends.len()];
    let body = format!(r#"{{"address":"{backend}"}}"#);
    for id in ["web.1", "web.2"] {
        let path = format!("/v1/apps/{}/backends/{id}?wait=active", Apps::name(app));
        router.put(&path, &body)?;
    }
    let answered = answering(router.site.address, &Apps::host(app));
    Ok(answered? == backend.to_string())
}

impl Storm {
    fn report(&self, found: &mut Found) {
        let lost = |changes: &[Change]| {
            changes
                .iter()
                .filter(|change| !change.is_acknowledged())
                .count() as f64
        };
        let sorted = |changes: &[Change]| {
            let mut all: Vec<u64> = changes
                .iter()
                .map(|one| one.ended_us - one.due_us)
                .collect();
            all.sort_unstable();
            all
        };
        let (all, waiting) = (sorted(&self.changes), sorted(&self.waiting));
        let ms = |sorted: &[u64], share| quantile(sorted, share) / 1e3;
        let span = self
            .changes
            .iter()
            .map(|one| one.ended_us)
            .max()
            .unwrap_or(0)
            - self.changes.iter().map(|one| one.due_us).min().unwrap_or(0);
        let rate = self.changes.len() as f64 / (span as f64 / 1e6);
        found.put("changes", self.changes.len() as f64);
        found.put("rate", rate);
        found.put("unacknowledged", lost(&self.changes) + lost(&self.waiting));
        found.put("put_p50_ms", ms(&all, 0.5));
        found.put("put_p99_ms", ms(&all, 0.99));
        found.put("change_ms", ms(&waiting, 0.5));
        found.put("active_p99_ms", ms(&waiting, 0.99));
        found.put("swaps", self.swaps as f64);
        found.put("stale", self.stale as f64);
    }
}

/// From the router's own histogram, what came between two scrapes.
fn propagation(before: &str, after: &str, found: &mut Found) {
    let grown = Buckets::of(after, PROPAGATION).map(|after| {
        let before = Buckets::of(before, PROPAGATION).unwrap_or_default();
        after.since(&before)
    });
    if grown.is_none() {
        found.note(format!(
            "{PROPAGATION} is not there: commit → active is not known"
        ));
    }
    let ms = |share| {
        grown
            .as_ref()
            .map_or(f64::NAN, |grown| grown.quantile(share) * 1e3)
    };
    found.put("propagation_p50_ms", ms(0.5));
    found.put("propagation_p99_ms", ms(0.99));
    let observed = grown.as_ref().map_or(f64::NAN, Buckets::count);
    found.put("propagation_count", observed);
    let revision = |text| value(text, "portico_control_revision").unwrap_or(f64::NAN);
    found.put("revisions", revision(after) - revision(before));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_reach_apps_without_traffic_only_and_differ() {
        let wanted: Vec<Wanted> = (0..2_000)
            .map(|number| swap(number, 1_000_000, ""))
            .collect();
        for one in &wanted {
            let app: usize = one.path[13..20].parse().unwrap();
            assert!((WITH_BACKENDS..1_000_000).contains(&app), "{}", one.path);
        }
        let paths: std::collections::BTreeSet<&str> =
            wanted.iter().map(|one| one.path.as_str()).collect();
        assert_eq!(paths.len(), wanted.len());
    }
}
