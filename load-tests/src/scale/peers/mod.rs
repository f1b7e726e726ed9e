//! The peers with as many apps as they take: time to load, memory, the cost of
//! one change, and what a reload does to clients.
//!
//! Each is configured for size: what its documentation names for many hosts.
//! A map gives a host one address: there is no pool behind it, no second
//! backend, no health; only Envoy's clusters have both backends. Each must
//! answer within a bound of time and memory, or has given up at that number.

mod envoy;
mod haproxy;
mod nginx;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::apps::Apps;
use super::crowd::{Sockets, Traffic};
use super::figure::{failures, latencies_us, quantile};
use super::reloads::{RATE, SOCKETS};
use super::report::Found;
use super::router::{answering, answers};
use super::{Bench, traffic_hosts};
use crate::child::Running;
use crate::interrupt;
use crate::peer::{self, Peer};
use crate::process_cost::{Cost, proportional_kib};
use crate::statistics::median;

/// A peer that is not loaded after this has given up.
const LOAD_LIMIT: Duration = Duration::from_secs(60);
/// A peer that needs more has given up, KiB.
const MEMORY_LIMIT_KIB: u64 = 8 * 1024 * 1024;
/// How often memory is looked at while it loads.
const MEMORY_POLL: Duration = Duration::from_millis(500);
/// Reloads under clients.
const RELOADS: usize = 3;
/// How long one may take.
const RELOAD_LIMIT: Duration = Duration::from_secs(30);
/// After the last one: every WebSocket has echoed again.
const SETTLE: Duration = Duration::from_secs(6);
/// The app that is changed: among those with backends, without traffic.
const CHANGED: usize = 2_000;

/// Where a peer lives and what it must know.
#[derive(Clone, Debug)]
pub struct Place {
    /// Its folder.
    pub folder: PathBuf,
    /// Where traffic goes.
    pub address: SocketAddr,
    /// The apps.
    pub apps: Apps,
}

impl Place {
    /// An app's first address, the changed app's as it is now.
    fn address_of(&self, number: usize, changed: SocketAddr) -> SocketAddr {
        if number == CHANGED {
            changed
        } else {
            self.apps.addresses(number)[0]
        }
    }
}

/// What a peer can do.
trait Subject {
    /// For messages.
    fn name(&self) -> &'static str;

    /// Writes its files, the changed app behind that address.
    fn write(&self, place: &Place, changed: SocketAddr) -> Result<()>;

    /// Starts it.
    fn start(&self, place: &Place) -> Result<Running>;

    /// Whether it reads its files again when told.
    fn can_reload(&self) -> bool {
        true
    }

    /// Makes it read its files again.
    fn reload(&self, running: &Running) -> Result<()>;

    /// Changes one app without a reload; `None` if it cannot.
    fn change(&self, _place: &Place, _changed: SocketAddr) -> Result<Option<()>> {
        Ok(None)
    }
}

/// nginx, every host in a map.
pub fn nginx_map(bench: &mut Bench, found: &mut Found) -> Result<()> {
    version(Peer::Nginx, found)?;
    found.note("one address a host: no second backend, no retry, no upstream keepalive; a change is a reload");
    let counts = [usize::try_from(bench.options.apps)?];
    measure(bench, &nginx::Map, &counts, found)
}

/// nginx, a server block for every app.
pub fn nginx_servers(bench: &mut Bench, found: &mut Found) -> Result<()> {
    version(Peer::Nginx, found)?;
    found.note("one address a host; a change is a reload");
    measure(bench, &nginx::Servers, &[10_000, 30_000, 100_000], found)
}

/// HAProxy, every host in a map.
pub fn haproxy_map(bench: &mut Bench, found: &mut Found) -> Result<()> {
    version(Peer::Haproxy, found)?;
    found.note("one address a host: no second backend, no health; `set map` at runtime is lost on reload unless the file is changed too");
    let counts = [usize::try_from(bench.options.apps)?];
    measure(bench, &haproxy::Map, &counts, found)
}

/// Envoy, a virtual host and a cluster for every app.
pub fn envoy(bench: &mut Bench, found: &mut Found) -> Result<()> {
    version(Peer::Envoy, found)?;
    found.note("a cluster an app, both backends in it; a change is a new CDS file, moved into place: it has no reload");
    measure(
        bench,
        &envoy::Files,
        &[1_000, 10_000, 30_000, 100_000],
        found,
    )
}

fn version(peer: Peer, found: &mut Found) -> Result<()> {
    let version = peer.version()?;
    found.note(format!("{} {version}", peer.name()));
    Ok(())
}

/// A peer that is loaded.
struct Loaded {
    running: Running,
    place: Place,
    seconds: f64,
    cpu: Duration,
}

/// Goes up in the number of apps until it gives up; measures the last that went well.
fn measure(
    bench: &mut Bench,
    subject: &dyn Subject,
    counts: &[usize],
    found: &mut Found,
) -> Result<()> {
    let mut best: Option<Loaded> = None;
    for count in counts {
        if bench.left() < LOAD_LIMIT {
            found.note(format!("the time was over before {count} apps"));
            break;
        }
        match load(bench, subject, *count) {
            Ok(loaded) => {
                let mib = proportional_kib(loaded.running.pid()) as f64 / 1024.0;
                found.note(format!(
                    "{count} apps: {:.1} s, {mib:.0} MiB",
                    loaded.seconds
                ));
                // The smaller one goes before a larger one comes.
                best = Some(loaded);
            }
            Err(error) => {
                interrupt::pause(Duration::ZERO)?;
                found.note(format!("gives up at {count} apps: {error:#}"));
                found.put("gives_up", *count as f64);
                break;
            }
        }
    }
    let Some(loaded) = best.take() else {
        bail!("it reached none of {counts:?}");
    };
    // It was kept while the next one failed: the figures are of a quiet one.
    let Loaded {
        running,
        place,
        seconds,
        cpu,
    } = loaded;
    found.put("apps", place.apps.count as f64);
    found.put("load_s", seconds);
    found.put("load_cpu_s", cpu.as_secs_f64());
    let mib = proportional_kib(running.pid()) as f64 / 1024.0;
    found.put("memory_mib", mib);
    changes(subject, &running, &place, found)?;
    if !subject.can_reload() {
        return Ok(());
    }
    reloads(subject, &running, &place, found)
}

/// Writes the files and starts it; an error if it exceeds a bound.
fn load(bench: &Bench, subject: &dyn Subject, count: usize) -> Result<Loaded> {
    let apps = bench.apps(count);
    let folder = bench.folder.join(format!("{}-{count}", subject.name()));
    std::fs::create_dir_all(&folder)?;
    let place = Place {
        folder,
        address: peer::free_address()?,
        apps,
    };
    subject.write(&place, place.apps.addresses(CHANGED)[0])?;
    // What starts from the disk's cache starts as after a crash.
    let began = Instant::now();
    let mut running = subject.start(&place)?;
    let mut looked = began;
    let mut failure = None;
    let host = Apps::host(1);
    let waited = interrupt::poll_until("the first answer", LOAD_LIMIT, || {
        if let Err(error) = running.check_alive() {
            failure = Some(error);
        } else if looked.elapsed() > MEMORY_POLL {
            looked = Instant::now();
            let kib = proportional_kib(running.pid());
            if kib > MEMORY_LIMIT_KIB {
                failure = Some(anyhow::anyhow!("over {} GiB", MEMORY_LIMIT_KIB >> 20));
            }
        }
        failure.is_some() || answers(place.address, &host)
    });
    let seconds = began.elapsed().as_secs_f64();
    if let Some(failure) = failure {
        return Err(failure);
    }
    waited?;
    let cpu = Cost::of_tree(running.pid()).cpu_since(&Cost::default());
    Ok(Loaded {
        running,
        place,
        seconds,
        cpu,
    })
}

/// The backend that the changed app shall have next: another one each time.
fn next_backend(place: &Place, turn: usize) -> SocketAddr {
    let now = CHANGED + 1 + turn;
    place.apps.backends[now % place.apps.backends.len()]
}

/// Waits until the changed app is answered by that backend.
fn wait_active(place: &Place, backend: SocketAddr) -> Result<()> {
    let host = Apps::host(CHANGED);
    let wanted = backend.to_string();
    let mut last = None;
    interrupt::poll_until("the change active", RELOAD_LIMIT, || {
        last = Some(answering(place.address, &host));
        matches!(&last, Some(Ok(backend)) if *backend == wanted)
    })
    .with_context(|| format!("last: {last:?}"))
}

/// One change at a time, each until it is active.
fn changes(
    subject: &dyn Subject,
    running: &Running,
    place: &Place,
    found: &mut Found,
) -> Result<()> {
    let mut took = Vec::new();
    let before = Cost::of_tree(running.pid());
    for turn in 0..5 {
        let backend = next_backend(place, turn);
        let began = Instant::now();
        if subject.change(place, backend)?.is_none() {
            return Ok(());
        }
        wait_active(place, backend)?;
        took.push(began.elapsed().as_secs_f64() * 1e3);
    }
    let cpu = Cost::of_tree(running.pid())
        .cpu_since(&before)
        .as_secs_f64()
        * 1e3;
    let count = took.len() as f64;
    found.put("change_ms", median(took));
    found.put("change_cpu_ms", cpu / count);
    Ok(())
}

/// Reloads with one app changed, under requests and WebSockets.
fn reloads(
    subject: &dyn Subject,
    running: &Running,
    place: &Place,
    found: &mut Found,
) -> Result<()> {
    let sockets = Sockets::open(place.address, &traffic_hosts(), SOCKETS)?;
    let limit = RELOAD_LIMIT * u32::try_from(RELOADS + 1)?;
    let traffic = Traffic::start(place.address, traffic_hosts(), RATE, limit)?;
    interrupt::pause(Duration::from_secs(1))?;
    let mut took = Vec::new();
    let mut cpu = Vec::new();
    for turn in 0..RELOADS {
        let backend = next_backend(place, turn + 5);
        subject.write(place, backend)?;
        let before = Cost::of_tree(running.pid());
        let began = Instant::now();
        subject.reload(running)?;
        wait_active(place, backend)?;
        took.push(began.elapsed().as_secs_f64());
        cpu.push(
            Cost::of_tree(running.pid())
                .cpu_since(&before)
                .as_secs_f64(),
        );
    }
    interrupt::pause(SETTLE)?;
    let exchanges = traffic.end()?;
    let (reload_s, cpu_s) = (median(took), median(cpu));
    if !found.figures.iter().any(|figure| figure.key == "change_ms") {
        found.put("change_ms", reload_s * 1e3);
        found.put("change_cpu_ms", cpu_s * 1e3);
    }
    found.put("reload_s", reload_s);
    found.put("reload_cpu_s", cpu_s);
    let failed = failures(&exchanges);
    let (cut, echoes) = sockets.cut_and_echoes();
    found.put("reload_failed", failed.values().sum::<u64>() as f64);
    found.put("reload_cut", cut as f64);
    found.put("reload_echoes", echoes as f64);
    let p99 = quantile(&latencies_us(&exchanges, &[(0, u64::MAX)]), 0.99) / 1e3;
    found.put("reload_p99_ms", p99);
    let mib = proportional_kib(running.pid()) as f64 / 1024.0;
    found.put("reload_memory_mib", mib);
    if !failed.is_empty() {
        found.note(format!("requests failed under reloads: {failed:?}"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_change_is_to_another_backend() {
        let backend = |port| SocketAddr::from(([127, 0, 0, 1], port));
        let place = Place {
            folder: PathBuf::new(),
            address: backend(80),
            apps: Apps {
                count: 10_000,
                backends: (1..=4).map(backend).collect(),
            },
        };
        let mut last = place.apps.addresses(CHANGED)[0];
        for turn in 0..9 {
            let next = next_backend(&place, turn);
            assert_ne!(next, last);
            last = next;
        }
        assert_eq!(place.address_of(CHANGED, backend(9)), backend(9));
        assert_ne!(place.address_of(CHANGED + 1, backend(9)), backend(9));
    }
}
