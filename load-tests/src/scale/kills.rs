//! `kill-edge`, `kill-control`, `kill-both`: kill -9 every two seconds, under
//! requests and registrations.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::apps::Apps;
use super::crowd::Traffic;
use super::figure::{Kill, Losses, failures, latencies_us, longest_gap_us, quantile};
use super::registrations::{Change, Plan, Registrations, Wanted};
use super::report::Found;
use super::router::{Router, kill};
use super::{Bench, READY_LIMIT, traffic_hosts};
use crate::interrupt;

/// Apps of these scenarios.
const APPS: usize = 10_000;
/// Requests per second.
const RATE: u64 = 1_000;
/// New backends per second.
const REGISTRATION_RATE: u64 = 100;
/// Between two kills.
const INTERVAL: Duration = Duration::from_secs(2);
/// How long the process table may be without who is to be killed.
const WHO_LIMIT: Duration = Duration::from_millis(1_500);
/// Load after the last kill.
const SETTLE: Duration = Duration::from_secs(2);

/// Who is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Victims {
    Edge,
    Control,
    Both,
}

impl Victims {
    fn roles(self) -> &'static [&'static str] {
        match self {
            Self::Edge => &["edge"],
            Self::Control => &["control"],
            Self::Both => &["control", "edge"],
        }
    }
}

/// The serving edge.
pub fn edge(bench: &mut Bench, found: &mut Found) -> Result<()> {
    measure(bench, Victims::Edge, 60, found)
}

/// Control.
pub fn control(bench: &mut Bench, found: &mut Found) -> Result<()> {
    measure(bench, Victims::Control, 60, found)
}

/// Both, control first.
pub fn both(bench: &mut Bench, found: &mut Found) -> Result<()> {
    measure(bench, Victims::Both, 30, found)
}

fn measure(bench: &mut Bench, victims: Victims, usual: u64, found: &mut Found) -> Result<()> {
    let seconds = bench.seconds(usual);
    let name = format!("kills-{victims:?}").to_lowercase();
    let (mut router, _) = bench.router(&name, &bench.apps(APPS))?;
    // Where one comes at all, it is there before the first kill.
    let standby = router.wait_process(("edge", "standby"), Duration::from_secs(15), |_| true);
    if standby.is_err() {
        found.note("no standby came");
    }
    let limit = Duration::from_secs(seconds + 30);
    let traffic = Traffic::start(router.site.address, traffic_hosts(), RATE, limit)?;
    let plan = Plan {
        address: router.site.api,
        token: router.token()?,
        rate: REGISTRATION_RATE,
        count: usize::try_from(REGISTRATION_RATE * seconds)?,
        connections: 8,
    };
    let registrations = Registrations::start(plan, registration);
    interrupt::pause(Duration::from_secs(1))?;
    let kills = rounds(&router, victims, seconds, found)?;
    interrupt::pause(SETTLE)?;
    let exchanges = traffic.end()?;
    interrupt::poll_until("the last registrations", Duration::from_secs(20), || {
        registrations.is_over()
    })?;
    let changes = registrations.end()?;
    router.wait_ready(READY_LIMIT)?;
    found.put("kills", kills.len() as f64);
    found.put("requests", exchanges.len() as f64);
    let losses = Losses::of(&exchanges, &kills);
    found.put("refused", losses.refused as f64);
    found.put("others", losses.others as f64);
    let lost = match victims {
        Victims::Control => "control_in_flight_lost",
        Victims::Edge | Victims::Both => "in_flight_lost",
    };
    found.put(lost, losses.in_flight as f64);
    found.put("in_flight", losses.in_flight_all as f64);
    let latencies = latencies_us(&exchanges, &[(0, u64::MAX)]);
    let gap = longest_gap_us(&exchanges) as f64 / 1e3;
    found.put("gap_ms", gap);
    found.put("kills_p99_ms", quantile(&latencies, 0.99) / 1e3);
    found.put("kills_slowest_ms", quantile(&latencies, 1.0) / 1e3);
    let failed = failures(&exchanges);
    if !failed.is_empty() {
        found.note(format!("requests failed: {failed:?}"));
    }
    truth(&router, &changes, found)
}

/// Kills until the time is up.
fn rounds(router: &Router, victims: Victims, seconds: u64, found: &mut Found) -> Result<Vec<Kill>> {
    let began = Instant::now();
    let mut kills = Vec::new();
    let mut missed = 0;
    for round in 0.. {
        let due = INTERVAL * round;
        if due >= Duration::from_secs(seconds) {
            break;
        }
        interrupt::pause(due.saturating_sub(began.elapsed()))?;
        let mut who = Vec::new();
        let known = interrupt::poll_until("who is to be killed", WHO_LIMIT, || {
            let ready = |role: &&str| router.process(role, "ready");
            who = victims.roles().iter().flat_map(ready).collect();
            who.len() == victims.roles().len()
        });
        interrupt::pause(Duration::ZERO)?;
        if known.is_err() {
            missed += 1;
            continue;
        }
        // All signals first: the first death must not warn the second.
        for killed in std::thread::scope(|scope| {
            let killing: Vec<_> = who
                .iter()
                .map(|one| scope.spawn(|| kill(one.pid)))
                .collect();
            killing
                .into_iter()
                .map(|one| one.join())
                .collect::<Vec<_>>()
        }) {
            match killed {
                Ok(Ok(kill)) => kills.push(kill),
                _ => missed += 1,
            }
        }
    }
    if missed > 0 {
        found.note(format!("{missed} times nobody was there to be killed"));
    }
    ensure!(!kills.is_empty(), "nobody could be killed");
    Ok(kills)
}

/// A backend of its own for each number, so that each can be looked for.
fn registration(number: usize) -> Wanted {
    let app = Apps::name(2_000 + number % (APPS - 2_000));
    Wanted {
        path: format!("/v1/apps/{app}/backends/{}", backend(number)),
        body: format!(r#"{{"address":"{}"}}"#, address(number)),
    }
}

fn backend(number: usize) -> String {
    format!("new.{number}")
}

fn address(number: usize) -> String {
    format!("127.127.{}.{}:9003", number >> 8 & 255, number & 255)
}

/// Whether everything that was acknowledged is still there.
fn truth(router: &Router, changes: &[Change], found: &mut Found) -> Result<()> {
    let (status, export) = router.api("/v1/export")?;
    ensure!(status == 200, "/v1/export: {status}");
    let there = registered(&export)?;
    let acknowledged: Vec<&Change> = changes.iter().filter(|one| one.is_acknowledged()).collect();
    let lost = acknowledged
        .iter()
        .filter(|one| !there.contains(&(backend(one.number), address(one.number))));
    found.put("acknowledged", acknowledged.len() as f64);
    found.put("lost", lost.count() as f64);
    let without = changes.len() - acknowledged.len();
    found.put("unanswered", without as f64);
    Ok(())
}

/// Every backend of an export with its address.
fn registered(export: &str) -> Result<BTreeSet<(String, String)>> {
    let mut there = BTreeSet::new();
    for line in export.lines() {
        let app: Value = serde_json::from_str(line).context("a line of the export")?;
        let backends = app["backends"].as_object().into_iter().flatten();
        there.extend(backends.map(|(id, backend)| {
            let address = backend["address"].as_str().unwrap_or_default();
            (id.clone(), address.to_owned())
        }));
    }
    Ok(there)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_registered_is_found_in_the_export() {
        let wanted = registration(300);
        let line = format!(
            r#"{{"app":"a","domains":[],"backends":{{"{}":{}}}}}"#,
            wanted.path.rsplit('/').next().unwrap(),
            wanted.body
        );
        let there = registered(&line).unwrap();
        assert!(there.contains(&(backend(300), address(300))));
        assert!(!there.contains(&(backend(300), address(301))));
        assert!(registered("not json").is_err());
    }
}
