//! `million`: every app imported; what it costs to hold them, to start with
//! them, and to lose a process.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::apps::Apps;
use super::figure::Kill;
use super::report::Found;
use super::router::{Router, Site, kill};
use super::tries::{Tries, Try, back_after_ms};
use super::{Bench, READY_LIMIT, reloads};
use crate::faults::record::now_us;
use crate::process_cost::{Cost, proportional_kib};
use crate::statistics::median;
use crate::{interrupt, process_cost};

/// Takeovers measured.
const TAKEOVERS: usize = 5;
/// Cold starts, and restarts of control.
const STARTS: usize = 3;
/// How long a standby may take to be there, where there is one at all.
const STANDBY_LIMIT: Duration = Duration::from_secs(20);
/// How long service may be away.
const BACK_LIMIT: Duration = Duration::from_secs(30);
/// Tries before and after a kill.
const TRIES_AROUND: Duration = Duration::from_millis(300);
/// Reloads with every app.
const RELOADS: usize = 3;

/// Imports, then measures.
pub fn run(bench: &mut Bench, found: &mut Found) -> Result<()> {
    import(bench, found)?;
    let mut router = bench.fleet.take().context("it must be there")?;
    let done: Result<()> = (|| {
        memory(&router, found)?;
        takeovers(&mut router, found)?;
        control_restarts(&mut router, found)?;
        reloads::with_all_apps(&mut router, RELOADS, found)
    })();
    let site = router.crash()?;
    let site = cold_starts(site, found)?;
    let router = without_control(site, found)?;
    bench.fleet = Some(router);
    done
}

fn import(bench: &mut Bench, found: &mut Found) -> Result<()> {
    let apps = bench.all_apps()?;
    bench.fleet = None;
    let (router, took) = bench.router("million", &apps)?;
    let cost = Cost::of_tree(router.pid()).cpu_since(&Cost::default());
    found.put("apps", apps.count as f64);
    found.put("import_s", took.as_secs_f64());
    found.put("import_cpu_s", cost.as_secs_f64());
    bench.fleet = Some(router);
    Ok(())
}

/// Waits for the standby where one comes; `None` where none does.
fn standby(router: &Router) -> Option<u32> {
    let found = router.wait_process(("edge", "standby"), STANDBY_LIMIT, |_| true);
    found.ok().map(|process| process.pid)
}

fn memory(router: &Router, found: &mut Found) -> Result<()> {
    if standby(router).is_none() {
        found.note("no standby came: takeovers are cold starts of an edge");
    }
    for (process, now, peak) in router.memory_by_process()? {
        let (role, state) = (&process.role, &process.state);
        for (key, mib) in [("", now), ("_peak", peak)] {
            found.put_if_known(&format!("{role}_{state}{key}_mib"), mib);
        }
    }
    let all = proportional_kib(router.pid()) as f64 / 1024.0;
    found.put("memory_mib", all);
    found.memory = router.memory();
    let state = fs::read_dir(router.site.state())?.flatten();
    let store = state.filter_map(|file| Some(file.metadata().ok()?.len()));
    let store: u64 = store.sum();
    found.put("store_mib", store as f64 / 1_048_576.0);
    Ok(())
}

/// Tries around `act`, until service is back; what `act` made, and the tries.
fn tries_around<T>(router: &Router, act: impl FnOnce() -> Result<T>) -> Result<(T, Vec<Try>)> {
    let host = Apps::host(1);
    let tries = Tries::start(router.site.address, &host);
    let acted: Result<T> = (|| {
        interrupt::pause(TRIES_AROUND)?;
        let done = act()?;
        interrupt::poll_until("service back", BACK_LIMIT, || router.answers(&host))?;
        interrupt::pause(TRIES_AROUND)?;
        Ok(done)
    })();
    let tries = tries.end();
    Ok((acted?, tries))
}

fn takeovers(router: &mut Router, found: &mut Found) -> Result<()> {
    let mut back = Vec::new();
    let mut dying = Vec::new();
    for _ in 0..TAKEOVERS {
        router.wait_ready(READY_LIMIT)?;
        if back.is_empty() || found.notes.is_empty() {
            // Without one the next takeover would be of another kind.
            let _ = standby(router);
        }
        let pid = router.process("edge", "ready")?.pid;
        let (Kill { at_us, gone_us }, tries) = tries_around(router, || kill(pid))?;
        back.push(back_after_ms(&tries, at_us, gone_us).context("service came back unseen")?);
        dying.push((gone_us - at_us) as f64 / 1e3);
    }
    let worst = |all: &[f64]| all.iter().copied().fold(f64::NAN, f64::max);
    found.put("takeover_ms", median(back.iter().copied()));
    found.put("takeover_max_ms", worst(&back));
    found.put("death_ms", median(dying));
    Ok(())
}

fn control_restarts(router: &mut Router, found: &mut Found) -> Result<()> {
    let path = format!("/v1/apps/{}", Apps::name(2));
    let mut back = Vec::new();
    for _ in 0..STARTS {
        router.wait_ready(READY_LIMIT)?;
        let pid = router.process("control", "ready")?.pid;
        let began = Instant::now();
        kill(pid)?;
        interrupt::poll_until("the API back", BACK_LIMIT, || {
            router.api(&path).is_ok_and(|(status, _)| status == 200)
        })?;
        back.push(began.elapsed().as_secs_f64());
    }
    found.put("control_restart_s", median(back));
    Ok(())
}

/// Starts it with nothing of it running; the time to the first proxied answer.
fn cold_start(site: Site) -> Result<(Router, f64)> {
    let host = Apps::host(1);
    let began_us = now_us();
    let tries = Tries::start(site.address, &host);
    let started: Result<Router> = (|| {
        let router = site.start()?;
        interrupt::poll_until("the first answer", BACK_LIMIT, || router.answers(&host))?;
        Ok(router)
    })();
    let tries = tries.end();
    let router = started?;
    let seconds = back_after_ms(&tries, began_us, began_us).context("it answered unseen")? / 1e3;
    Ok((router, seconds))
}

fn cold_starts(mut site: Site, found: &mut Found) -> Result<Site> {
    let mut starts = Vec::new();
    let mut control = Vec::new();
    for _ in 0..STARTS {
        let began = Instant::now();
        let (mut router, seconds) = cold_start(site)?;
        starts.push(seconds);
        router.wait_ready(READY_LIMIT)?;
        control.push(began.elapsed().as_secs_f64());
        site = router.crash()?;
    }
    let worst = starts.iter().copied().fold(f64::NAN, f64::max);
    found.put("load_s", median(starts));
    found.put("load_max_s", worst);
    found.put("ready_s", median(control));
    Ok(site)
}

/// The store replaced by what cannot be opened; put back at the end.
fn without_control(site: Site, found: &mut Found) -> Result<Router> {
    let store = site.state().join("store.redb");
    let aside = site.state().join("store.aside");
    let has_store = store.exists();
    ensure!(has_store, "{} is not there", store.display());
    fs::rename(&store, &aside)?;
    fs::create_dir(&store)?;
    let started = cold_start(site);
    let (router, seconds) = started?;
    let roles = process_cost::tree(router.pid()).len();
    found.put("start_without_control_s", seconds);
    found.put("processes_without_control", roles as f64);
    let site = router.crash()?;
    fs::remove_dir(&store)?;
    fs::rename(&aside, &store)?;
    let mut router = site.start()?;
    router.wait_ready(READY_LIMIT)?;
    Ok(router)
}
