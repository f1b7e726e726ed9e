//! `tenants`: a noisy app at five times its capacity, or at twice what the edge
//! can do at all, beside a quiet one of 100 requests a second.
//!
//! The quiet app is measured alone first, in the same run: that is the floor.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::Bench;
use super::client::Load;
use super::figures::{self, BACKENDS, Found, Tally, percent, quantile_ms};
use super::fleet::{BACKEND_RATE, Fleet, SERVICE_MS, SLOTS};
use super::flood::{AHEAD, Flood, Flow, Outcome};
use super::overload::{DEADLINE_US, HEAD_START_US, pause_until, play};
use super::shape::Shape;
use super::subject::{NOISY, QUIET, Started, Subject};
use crate::faults::client::{End, Exchange};
use crate::faults::record::now_us;
use crate::process_cost::Cost;
use crate::{http_client, interrupt, machine};

/// Key and title of each run.
pub const CASES: &[(&str, &str)] = &[
    ("apart", "noisy at 5×, each on backends of its own"),
    ("shared", "noisy at 5×, both on the same four backends"),
    (
        "edge",
        "noisy at twice what the edge can do, one core, one thread",
    ),
    (
        "edge-fresh",
        "the same, and every request on a connection of its own, the quiet app's too",
    ),
];

/// Requests of the quiet app a second.
const QUIET_RATE: f64 = 100.0;
/// Backends of the quiet app where they are its own.
const QUIET_BACKENDS: usize = 2;
/// How long the quiet app is alone, and how long it has its neighbour, ms.
const ALONE_MS: u64 = 5_000;
const BESIDE_MS: u64 = 8_000;
/// Load of the noisy app before it is too much, ms.
const NOISY_BEFORE_MS: u64 = 1_000;
/// What the noisy app offers, in multiples of its capacity, or of the edge's.
const NOISY_MULTIPLE: f64 = 5.0;
const EDGE_MULTIPLE: f64 = 2.0;
/// How long the edge's maximum is looked for, ms.
const MAXIMUM_MS: u64 = 3_000;

/// One case on one subject, everything started anew.
pub fn run(bench: &Bench, subject: Subject, case: &str, found: &mut Found) -> Result<()> {
    let folder = bench.folder()?;
    match case {
        "edge" => edge(bench, subject, folder.path(), true, found)?,
        "edge-fresh" => edge(bench, subject, folder.path(), false, found)?,
        _ => backends(bench, subject, folder.path(), case == "shared", found)?,
    }
    bench.keep_if_asked(folder);
    Ok(())
}

/// The backends are the bottleneck.
fn backends(
    bench: &Bench,
    subject: Subject,
    folder: &Path,
    shared: bool,
    found: &mut Found,
) -> Result<()> {
    let mut noisy = Fleet::start("noisy", BACKENDS + 1, SERVICE_MS, folder, None)?;
    let mut quiet = Fleet::start("quiet", QUIET_BACKENDS, SERVICE_MS, folder, None)?;
    let (spare, pool) = noisy.addresses.split_last().context("a spare backend")?;
    let own = if shared { pool } else { &quiet.addresses };
    let mut place = bench.place(folder, pool, *spare, own)?;
    if shared {
        // An expert keeps one worker of each backend free for the quiet app.
        place.limit = SLOTS - 1;
    }
    let mut proxy = subject.start(&place)?;
    let load = quiet_load(&proxy, ALONE_MS, None);
    alone(&load, found)?;
    let beside = quiet_load(&proxy, NOISY_BEFORE_MS + BESIDE_MS, None);
    let capacity = BACKEND_RATE * BACKENDS as f64;
    let load = Load {
        request: http_client::request(NOISY, "/").into_bytes(),
        shape: Shape::new([
            (0.5 * capacity, NOISY_BEFORE_MS),
            (NOISY_MULTIPLE * capacity, BESIDE_MS),
        ]),
        together_us: 200,
        connections_first: 64,
        ..beside
    };
    let mut noise = Vec::new();
    let exchanges = play(&beside, || {
        noise = play(&load, || Ok(()))?;
        Ok(())
    })?;
    proxy.check_alive()?;
    noisy.check_alive()?;
    quiet.check_alive()?;
    let tally = measured(&beside, &exchanges);
    found.put("quiet_success", tally.success());
    found.put("quiet_p99_ms", quantile_ms(&tally.answered_us, 0.99));
    found.put("quiet_max_ms", quantile_ms(&tally.answered_us, 1.0));
    // What was answered in that time, whenever it was due.
    let began_us = load.start_us + NOISY_BEFORE_MS * 1_000;
    let within = began_us..began_us + BESIDE_MS * 1_000;
    let good = noise
        .iter()
        .filter(|one| one.end == End::Answered && within.contains(&one.ended_us))
        .count();
    let of_quiet = if shared { QUIET_RATE } else { 0.0 };
    let allowed = (capacity - of_quiet) * BESIDE_MS as f64 / 1e3;
    found.put("noisy_goodput", percent(good as f64, allowed));
    figures::put_lateness(found, &tally);
    found.failed = tally.failed;
    Ok(())
}

/// The edge is the bottleneck: it has a core and a thread, the rest the other
/// core. Connections are kept, or each has one request.
fn edge(
    bench: &Bench,
    subject: Subject,
    folder: &Path,
    kept: bool,
    found: &mut Found,
) -> Result<()> {
    let (proxy_core, load_core) = machine::pinned_cores()?;
    let mut noisy = Fleet::start("noisy", BACKENDS + 1, 0, folder, Some(load_core))?;
    let mut quiet = Fleet::start("quiet", QUIET_BACKENDS, SERVICE_MS, folder, Some(load_core))?;
    let (spare, pool) = noisy.addresses.split_last().context("a spare backend")?;
    let mut place = bench.place(folder, pool, *spare, &quiet.addresses)?;
    place.core = Some(proxy_core);
    place.threads = 1;
    // Nothing is known of the noisy app's backends that an expert could bound.
    place.limit = 1_000;
    let mut proxy = subject.start(&place)?;
    let request = match kept {
        true => http_client::request,
        false => http_client::last_request,
    };
    let quiet_load = |ms| Load {
        request: request(QUIET, "/").into_bytes(),
        ..quiet_load(&proxy, ms, Some(load_core))
    };
    alone(&quiet_load(ALONE_MS), found)?;
    let flow = Flow {
        address: proxy.address,
        request: request(NOISY, "/").into_bytes(),
        ahead: if kept { AHEAD } else { 1 },
        rate: None,
        ms: MAXIMUM_MS,
        core: Some(load_core),
    };
    let before = Cost::of_tree(proxy.pid());
    let most = flood(&flow, || Ok(()))?;
    let spent = Cost::of_tree(proxy.pid()).cpu_since(&before).as_secs_f64();
    found.put("edge_core", percent(spent * 1e3, MAXIMUM_MS as f64));
    let maximum = most.per_second(most.answered);
    found.put("edge_maximum", maximum);
    interrupt::pause(Duration::from_secs(1))?; // what the flood left behind
    let beside = quiet_load(NOISY_BEFORE_MS + BESIDE_MS);
    let mut exchanges = Vec::new();
    let flow = Flow {
        rate: Some(EDGE_MULTIPLE * maximum),
        ms: NOISY_BEFORE_MS + BESIDE_MS,
        ..flow
    };
    let outcome = flood(&flow, || {
        exchanges = play(&beside, || pause_until(beside.start_us))?;
        Ok(())
    })?;
    proxy.check_alive()?;
    noisy.check_alive()?;
    quiet.check_alive()?;
    put_edge(found, &outcome, &measured(&beside, &exchanges));
    Ok(())
}

fn put_edge(found: &mut Found, outcome: &Outcome, tally: &Tally) {
    found.put("edge_offered", outcome.per_second(outcome.offered));
    found.put("edge_taken", outcome.per_second(outcome.sent));
    found.put("edge_served", outcome.per_second(outcome.answered));
    found.put("edge_refused", outcome.per_second(outcome.refused));
    found.put("edge_quiet_success", tally.success());
    let p99_ms = quantile_ms(&tally.answered_us, 0.99);
    found.put("edge_quiet_p99_ms", p99_ms);
    let alone_ms = found.value("alone_p99_ms").unwrap_or(f64::NAN);
    found.put("edge_quiet_ratio", p99_ms / alone_ms);
    figures::put_lateness(found, tally);
    found.failed = tally.failed.clone();
    if !tally.refused_us.is_empty() {
        let refused = tally.refused_us.len();
        found
            .notes
            .push(format!("{refused} of the quiet app's refused"));
    }
    if outcome.broken > 0 {
        let broken = outcome.broken;
        found
            .notes
            .push(format!("{broken} of the noisy app's connections broken"));
    }
}

/// The quiet app without a neighbour.
fn alone(load: &Load, found: &mut Found) -> Result<()> {
    let exchanges = play(load, || Ok(()))?;
    let tally = measured(load, &exchanges);
    found.put("alone_p99_ms", quantile_ms(&tally.answered_us, 0.99));
    Ok(())
}

fn quiet_load(proxy: &Started, ms: u64, core: Option<usize>) -> Load {
    Load {
        address: proxy.address,
        request: http_client::request(QUIET, "/").into_bytes(),
        shape: Shape::steady(QUIET_RATE, ms),
        start_us: now_us() + HEAD_START_US,
        deadline_us: DEADLINE_US,
        together_us: 0,
        connections_first: 8,
        core,
    }
}

/// What became of all but the first second's.
fn measured(load: &Load, exchanges: &[Exchange]) -> Tally {
    let from_us = load.start_us + NOISY_BEFORE_MS * 1_000;
    Tally::of(exchanges, from_us, load.start_us + load.shape.ms() * 1_000)
}

/// The flood on a thread of its own, what happens meanwhile on this one.
fn flood(flow: &Flow, meanwhile: impl FnOnce() -> Result<()>) -> Result<Outcome> {
    let flood = Flood::new(flow)?;
    let interrupted = AtomicBool::new(false);
    thread::scope(|scope| {
        let running = scope.spawn(|| flood.run(&interrupted));
        let played = meanwhile().and_then(|()| {
            while !running.is_finished() {
                interrupt::pause(Duration::from_millis(20))?;
            }
            Ok(())
        });
        interrupted.store(played.is_err(), Ordering::Relaxed);
        let Ok(outcome) = running.join() else {
            bail!("the flood panicked");
        };
        played?;
        outcome
    })
}
