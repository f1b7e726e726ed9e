//! `slow-clients`: thousands of clients that drip a head or a body, never speak,
//! leave half-way or reset, beside well-behaved ones; and what memory they cost.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::Bench;
use super::client::Load;
use super::drip::{Drip, Seen};
use super::figures::{self, BACKENDS, Found, Tally, quantile_ms};
use super::fleet::{Fleet, SERVICE_MS};
use super::overload::{DEADLINE_US, HEAD_START_US, pause_until, play};
use super::shape::Shape;
use super::subject::{NOISY, Subject};
use crate::faults::record::now_us;
use crate::process_cost::proportional_kib;
use crate::{http_client, interrupt};

/// Key and title of each run.
pub const CASES: &[(&str, &str)] = &[(
    "all",
    "5,000 dripping heads, 1,000 dripping bodies, and others",
)];

/// Requests of the well-behaved a second.
const WELL_RATE: f64 = 500.0;
/// They are alone for this long, ms.
const BEFORE_MS: u64 = 3_000;
/// How long the hostile stay, ms.
const HOSTILE_MS: u64 = 20_000;
/// How often memory is looked at.
const MEMORY_POLL: Duration = Duration::from_millis(200);

/// One subject, everything started anew.
pub fn run(bench: &Bench, subject: Subject, _case: &str, found: &mut Found) -> Result<()> {
    let folder = bench.folder()?;
    let mut fleet = Fleet::start("backends", BACKENDS + 1, SERVICE_MS, folder.path(), None)?;
    let (spare, pool) = fleet.addresses.split_last().context("a spare backend")?;
    let place = bench.place(folder.path(), pool, *spare, pool)?;
    let mut proxy = subject.start(&place)?;
    let load = Load {
        address: proxy.address,
        request: http_client::request(NOISY, "/").into_bytes(),
        shape: Shape::steady(WELL_RATE, BEFORE_MS + HOSTILE_MS),
        start_us: now_us() + HEAD_START_US,
        deadline_us: DEADLINE_US,
        together_us: 0,
        connections_first: 64,
        core: None,
    };
    let attack_us = load.start_us + BEFORE_MS * 1_000;
    let end_us = attack_us + HOSTILE_MS * 1_000;
    let (mut before, mut peak) = (0, 0);
    let mut seen = Seen::default();
    let exchanges = play(&load, || {
        pause_until(attack_us - 500_000)?;
        before = proportional_kib(proxy.pid());
        peak = before;
        pause_until(attack_us)?;
        seen = attacked(&Drip::new(proxy.address, NOISY), || {
            while now_us() < end_us {
                peak = peak.max(proportional_kib(proxy.pid()));
                interrupt::pause(MEMORY_POLL)?;
            }
            Ok(())
        })?;
        Ok(())
    })?;
    proxy.check_alive()?;
    fleet.check_alive()?;
    let tally = Tally::of(&exchanges, attack_us, end_us);
    let mib = |kib: u64| kib as f64 / 1024.0;
    found.put("well_success", tally.success());
    found.put("well_p99_ms", quantile_ms(&tally.answered_us, 0.99));
    found.put("memory_before_mib", mib(before));
    found.put("memory_peak_mib", mib(peak));
    found.put("memory_growth_mib", mib(peak - before));
    found.put("hostile_open", seen.open_most as f64);
    found.put("hostile_opened", seen.opened as f64);
    found.put("hostile_ended", seen.ended as f64);
    figures::put_lateness(found, &tally);
    if !tally.refused_us.is_empty() {
        let refused = tally.refused_us.len();
        found
            .notes
            .push(format!("{refused} of the well-behaved refused"));
    }
    found.failed = tally.failed;
    drop(proxy);
    drop(fleet);
    bench.keep_if_asked(folder);
    Ok(())
}

/// The attack on a thread of its own while `meanwhile` lasts.
fn attacked(drip: &Drip, meanwhile: impl FnOnce() -> Result<()>) -> Result<Seen> {
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let running = scope.spawn(|| drip.run(&over));
        let played = meanwhile();
        over.store(true, Ordering::Relaxed);
        let Ok(seen) = running.join() else {
            bail!("the attack panicked");
        };
        played?;
        seen
    })
}
