//! `overload`: more than the backends can serve, at fixed times, told to nobody.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::Bench;
use super::catalogue::Case;
use super::client::{Client, Load};
use super::figures::{self, BACKENDS, Found};
use super::fleet::{BACKEND_RATE, Fleet, SERVICE_MS};
use super::shape::Shape;
use super::subject::{Change, NOISY, Started, Subject};
use crate::faults::client::Exchange;
use crate::faults::record::now_us;
use crate::process_cost::Cost;
use crate::{http_client, interrupt};

/// How long a client waits.
pub const DEADLINE_US: u64 = 1_000_000;
/// From the start of the client's thread to its first request.
pub const HEAD_START_US: u64 = 50_000;
/// Requests due within this are sent together: at 20,000 a second there is one
/// each 50 µs, and a wake for each would be what the client's CPU goes into.
const TOGETHER_US: u64 = 200;

/// One case on one subject, everything started anew.
pub fn run(bench: &Bench, subject: Subject, case: &Case, found: &mut Found) -> Result<()> {
    let folder = bench.folder()?;
    let mut fleet = Fleet::start("backends", BACKENDS + 1, SERVICE_MS, folder.path(), None)?;
    let (spare, pool) = fleet.addresses.split_last().context("a spare backend")?;
    let place = bench.place(folder.path(), pool, *spare, pool)?;
    let mut proxy = subject.start(&place)?;
    let capacity = BACKEND_RATE * BACKENDS as f64;
    let phases = case.phases.iter();
    let load = Load {
        address: proxy.address,
        request: http_client::request(NOISY, "/").into_bytes(),
        shape: Shape::new(phases.map(|(multiple, ms)| (multiple * capacity, *ms))),
        start_us: now_us() + HEAD_START_US,
        deadline_us: DEADLINE_US,
        together_us: TOGETHER_US,
        connections_first: 64,
        core: None,
    };
    let mut changed_us = None;
    let mut cost = None;
    let exchanges = play(&load, || {
        pause_until(load.start_us + case.measured_ms.0 * 1_000)?;
        let (began, before) = (Instant::now(), Cost::of_tree(proxy.pid()));
        if let Some((change, at_ms)) = case.change {
            pause_until(load.start_us + at_ms * 1_000)?;
            make(change, &mut proxy, &fleet)?;
            changed_us = Some(now_us());
        }
        pause_until(load.start_us + case.measured_ms.1 * 1_000)?;
        let spent = Cost::of_tree(proxy.pid()).cpu_since(&before);
        cost = Some(spent.as_secs_f64() / began.elapsed().as_secs_f64());
        Ok(())
    })?;
    proxy.check_alive()?;
    fleet.check_alive()?;
    figures::overload(found, case, &exchanges, load.start_us, changed_us);
    found.put("cores", cost.unwrap_or(f64::NAN));
    // The proxy goes before its backends, so that its log's end is not about that.
    drop(proxy);
    drop(fleet);
    bench.keep_if_asked(folder);
    Ok(())
}

fn make(change: Change, proxy: &mut Started, fleet: &Fleet) -> Result<()> {
    match change {
        Change::ServiceDoubles => fleet.take_ms(2 * SERVICE_MS),
        Change::BackendJoins | Change::BackendLeaves => proxy.change_pool(change),
    }
}

/// The load on a thread of its own, what happens meanwhile on this one.
pub fn play(load: &Load, meanwhile: impl FnOnce() -> Result<()>) -> Result<Vec<Exchange>> {
    let client = Client::new(load)?;
    let interrupted = AtomicBool::new(false);
    thread::scope(|scope| {
        let running = scope.spawn(|| client.run(&interrupted));
        let played = meanwhile().and_then(|()| {
            while !running.is_finished() {
                interrupt::pause(Duration::from_millis(20))?;
            }
            Ok(())
        });
        interrupted.store(played.is_err(), Ordering::Relaxed);
        let exchanges = match running.join() {
            Ok(exchanges) => exchanges,
            Err(_) => bail!("the client panicked"),
        };
        played?;
        exchanges
    })
}

/// Waits until a time of CLOCK_MONOTONIC, µs.
pub fn pause_until(at_us: u64) -> Result<()> {
    interrupt::pause(Duration::from_micros(at_us.saturating_sub(now_us())))
}
