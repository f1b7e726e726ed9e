//! `reloads`: settings changed and binaries replaced, again and again, under
//! requests and open WebSockets. Nobody may notice.
//!
//! A reload is SIGHUP with another value of a setting that concerns both
//! children; an upgrade is SIGUSR2 with the program's file replaced by a copy.
//! Either is over when new processes serve in the old ones' place.

use std::fs;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;

use super::crowd::{Sockets, Traffic};
use super::figure::{failures, latencies_us, quantile};
use super::report::Found;
use super::router::Router;
use super::{Bench, READY_LIMIT, traffic_hosts};
use crate::interrupt;
use crate::process_cost::{Cost, proportional_kib, tree};
use crate::statistics::median;

/// Apps of this scenario.
const APPS: usize = 10_000;
/// Requests per second.
pub const RATE: u64 = 500;
/// Open WebSockets.
pub const SOCKETS: usize = 1_000;
/// How long one reload or upgrade may take.
const STEP_LIMIT: Duration = Duration::from_secs(40);
/// How long a router that knows upgrades may take to begin one.
const UPGRADE_BEGINS: Duration = Duration::from_secs(3);
/// After the last one: every WebSocket has echoed again.
const SETTLE: Duration = Duration::from_secs(6);

/// Reloads and upgrades, by turns.
pub fn run(bench: &mut Bench, found: &mut Found) -> Result<()> {
    let (mut router, _) = bench.router("reloads", &bench.apps(APPS))?;
    let before_mib = proportional_kib(router.pid()) as f64 / 1024.0;
    let sockets = Sockets::open(router.site.address, &traffic_hosts(), SOCKETS)?;
    let traffic = Traffic::start(router.site.address, traffic_hosts(), RATE, bench.left())?;
    interrupt::pause(Duration::from_secs(1))?;
    let mut reloads = Vec::new();
    let mut upgrades = Vec::new();
    let mut knows_upgrades = true;
    let mut broke = None;
    for turn in 0..bench.options.times {
        if bench.left() < STEP_LIMIT {
            found.note(format!("the time was over after {turn}"));
            break;
        }
        let done = if knows_upgrades && turn % 2 == 1 {
            match upgrade(&mut router, bench) {
                Ok(None) => {
                    found.note("this program does not know upgrades: reloads only");
                    knows_upgrades = false;
                    reload(&mut router, turn).map(|took| reloads.push(took))
                }
                Ok(Some(took)) => {
                    upgrades.push(took);
                    Ok(())
                }
                Err(error) => Err(error),
            }
        } else {
            reload(&mut router, turn).map(|took| reloads.push(took))
        };
        if let Err(error) = done {
            broke = Some(error.context(format!("number {}", turn + 1)));
            break;
        }
    }
    interrupt::pause(SETTLE)?;
    found.put("reloads", reloads.len() as f64);
    found.put("upgrades", upgrades.len() as f64);
    clients(traffic, &sockets, found)?;
    times("reload", &reloads, found);
    times("upgrade", &upgrades, found);
    found.put("processes", tree(router.pid()).len() as f64);
    let after_mib = proportional_kib(router.pid()) as f64 / 1024.0;
    found.put("before_mib", before_mib);
    found.put("reload_memory_mib", after_mib);
    broke.map_or(Ok(()), Err)
}

/// What the clients saw.
fn clients(traffic: Traffic, sockets: &Sockets, found: &mut Found) -> Result<()> {
    let exchanges = traffic.end()?;
    let failed = failures(&exchanges);
    let latencies = latencies_us(&exchanges, &[(0, u64::MAX)]);
    let (cut, echoes) = sockets.cut_and_echoes();
    let ms = |share| quantile(&latencies, share) / 1e3;
    found.put("reload_requests", exchanges.len() as f64);
    found.put("reload_failed", failed.values().sum::<u64>() as f64);
    found.put("reload_sockets", SOCKETS as f64);
    found.put("reload_cut", cut as f64);
    found.put("reload_echoes", echoes as f64);
    found.put("reload_p99_ms", ms(0.99));
    found.put("reload_slowest_ms", ms(1.0));
    if !failed.is_empty() {
        found.note(format!("requests failed: {failed:?}"));
    }
    ensure!(
        sockets.counts.open.load(Ordering::Relaxed) + cut == SOCKETS as u64,
        "a WebSocket is neither open nor cut"
    );
    Ok(())
}

fn times(key: &str, all: &[Duration], found: &mut Found) {
    if all.is_empty() {
        return;
    }
    let seconds = || all.iter().map(Duration::as_secs_f64);
    found.put(&format!("{key}_s"), median(seconds()));
    found.put(&format!("{key}_max_s"), seconds().fold(f64::NAN, f64::max));
}

/// The processes that serve now.
fn serving(router: &Router) -> Result<(u32, u32)> {
    let pid = |role| router.process(role, "ready").map(|process| process.pid);
    Ok((pid("edge")?, pid("control")?))
}

/// Waits until others serve in the place of these, and the router is ready.
fn wait_replaced(router: &mut Router, (edge, control): (u32, u32)) -> Result<()> {
    interrupt::poll_until("new processes serving", STEP_LIMIT, || {
        let all = router.processes().unwrap_or_default();
        let is = |role: &str, fits: &dyn Fn(u32) -> bool| {
            let mut ready = all
                .iter()
                .filter(|one| one.role == role && one.state == "ready");
            ready.any(|one| fits(one.pid))
        };
        let replaced = |role, old| is(role, &|pid| pid != old) && !is(role, &|pid| pid == old);
        replaced("edge", edge) && replaced("control", control)
    })
    .with_context(|| format!("processes: {:?}", router.processes()))?;
    router.wait_ready(READY_LIMIT)
}

/// One SIGHUP with a setting changed.
fn reload(router: &mut Router, turn: usize) -> Result<Duration> {
    let old = serving(router)?;
    // A value that differs from the last one's, and concerns nobody here.
    router.site.write_settings(&format!(
        "edge.trusted_proxies = [\"192.0.2.{}/32\"]",
        turn % 250 + 1
    ))?;
    let began = Instant::now();
    router.signal(Signal::HUP)?;
    wait_replaced(router, old)?;
    Ok(began.elapsed())
}

/// The supervisor's word on its last upgrade: which, and where it is.
fn upgrade_status(router: &Router) -> Option<(u64, String, String)> {
    let all = router.processes().ok()?;
    let row = all.iter().find_map(|process| process.upgrade.as_ref())?;
    let text = |key: &str| row[key].as_str().unwrap_or_default().to_owned();
    Some((row["attempt"].as_u64()?, text("stage"), text("text")))
}

/// One SIGUSR2 with the program's file replaced; `None` if the router does not know it.
fn upgrade(router: &mut Router, bench: &Bench) -> Result<Option<Duration>> {
    let old = serving(router)?;
    let supervisor = router.process("supervisor", "ready")?.pid;
    let attempt = upgrade_status(router).map_or(0, |(attempt, _, _)| attempt);
    let next = router.site.program.with_extension("next");
    fs::copy(&bench.program, &next)?;
    fs::rename(&next, &router.site.program)?;
    let began = Instant::now();
    router.signal(Signal::USR2)?;
    let mut last = None;
    let mut is_new = || {
        last = upgrade_status(router).filter(|(now, _, _)| *now > attempt);
        last.is_some()
    };
    if interrupt::poll_until("the upgrade's beginning", UPGRADE_BEGINS, &mut is_new).is_err() {
        interrupt::pause(Duration::ZERO)?;
        ensure!(attempt == 0, "an upgrade did not begin");
        return Ok(None);
    }
    interrupt::poll_until("the upgrade's end", STEP_LIMIT, || {
        last = upgrade_status(router).or(last.take());
        last.as_ref()
            .is_some_and(|(_, stage, _)| stage != "running")
    })
    .with_context(|| format!("{last:?}"))?;
    let (_, stage, text) = last.context("it must have a status")?;
    ensure!(stage == "done", "the upgrade is {stage}: {text}");
    wait_replaced(router, old)?;
    let took = began.elapsed();
    let now = router.process("supervisor", "ready")?.pid;
    ensure!(
        now == supervisor,
        "the supervisor's pid was {supervisor} and is {now}"
    );
    Ok(Some(took))
}

/// A few reloads of a router that holds every app, with the same clients.
pub fn with_all_apps(router: &mut Router, times: usize, found: &mut Found) -> Result<()> {
    router.wait_ready(READY_LIMIT)?;
    let sockets = Sockets::open(router.site.address, &traffic_hosts(), SOCKETS)?;
    let limit = STEP_LIMIT * u32::try_from(times + 1)?;
    let traffic = Traffic::start(router.site.address, traffic_hosts(), RATE, limit)?;
    interrupt::pause(Duration::from_secs(1))?;
    let mut took = Vec::new();
    let mut cpu = Vec::new();
    for turn in 0..times {
        let before = Cost::of_tree(router.pid());
        took.push(reload(router, turn)?.as_secs_f64());
        cpu.push(Cost::of_tree(router.pid()).cpu_since(&before).as_secs_f64());
    }
    interrupt::pause(SETTLE)?;
    found.put("reload_s", median(took));
    found.put("reload_cpu_s", median(cpu));
    let memory = proportional_kib(router.pid()) as f64 / 1024.0;
    found.put("reload_memory_mib", memory);
    clients(traffic, &sockets, found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slowest_of_all_is_told() {
        let mut found = Found::default();
        times("reload", &[], &mut found);
        assert!(found.figures.is_empty());
        let all = [1, 5, 3].map(Duration::from_secs);
        times("reload", &all, &mut found);
        let values: Vec<f64> = found.figures.iter().map(|figure| figure.value).collect();
        assert_eq!(values, [3.0, 5.0]);
    }
}
