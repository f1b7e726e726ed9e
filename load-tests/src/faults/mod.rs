//! `faults`: backends crash, freeze and fail under load, behind Portico and its
//! peers; what do clients notice?
//!
//! Owns the campaign: which runs, in which order, and one run from its pool's
//! start to its figures. What happens in each scenario is data (`catalogue`);
//! who is measured is in `subject/`; how it is judged in `target`. Results are
//! kept in one file that later runs add to, so that a long campaign can be made
//! of short ones.

pub mod backend;
pub mod catalogue;
pub mod client;
mod figures;
mod plot;
mod pool;
pub mod record;
mod report;
mod subject;
mod target;

use std::fmt::{self, Display};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};

use crate::report::Report;
use crate::{campaign, interrupt, machine};
use catalogue::{SCENARIOS, SECONDS, Scenario};
use client::{Client, Exchange, Load};
use figures::{Evidence, Figures};
use pool::Pool;
use record::now_us;
use report::{Results, Run};
use subject::{HOST, Place, Subject};

/// Load before the measured part: connections are open, pools are warm.
const WARM_UP: Duration = Duration::from_millis(500);
/// From the start of the client's thread to its first request.
const HEAD_START: Duration = Duration::from_millis(20);

/// `faults`
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// Scenarios, by key; all if not given.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Who is put through them; everyone who is installed if not given.
    #[arg(long, value_enum, value_delimiter = ',')]
    proxy: Vec<Subject>,
    /// Times each is run; figures are medians, failures are summed.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=100))]
    rounds: u64,
    /// No new run is begun after this many minutes.
    #[arg(long, default_value_t = 120)]
    minutes: u64,
    /// One core for the proxy, the other for load and backends; without it, the scheduler decides.
    #[arg(long)]
    pin: bool,
    #[command(flatten)]
    results: campaign::Keeping,
}

/// Runs what is asked for; prints and writes the table after each run, so that nothing is lost.
pub fn run(options: &Options) -> Result<()> {
    let scenarios = chosen(&options.only)?;
    if options.results.list {
        for scenario in scenarios {
            let targets: Vec<String> = scenario.targets.iter().map(|one| one.words()).collect();
            println!(
                "{:12} {} — {}",
                scenario.key,
                scenario.title,
                targets.join("; ")
            );
        }
        return Ok(());
    }
    interrupt::install()?;
    machine::raise_file_limit()?;
    campaign::carry_out(&options.results, |results, out| {
        runs(options, &scenarios, results, out)
    })
}

fn runs(
    options: &Options,
    scenarios: &[&Scenario],
    results: &mut Results,
    out: &Path,
) -> Result<()> {
    let began = Instant::now();
    let subjects = campaign::who_is_here(
        &Subject::ALL,
        &options.proxy,
        Subject::name,
        Subject::version,
    )?;
    let mut failed = 0;
    for round in 1..=options.rounds {
        for scenario in scenarios {
            for (subject, version) in &subjects {
                // Without a proxy nobody survives a fault: it only shows the floor.
                if *subject == Subject::Direct && !scenario.steps.is_empty() {
                    continue;
                }
                if began.elapsed() > Duration::from_secs(options.minutes * 60) {
                    eprintln!("{} minutes are over: the rest is left out", options.minutes);
                    return Ok(());
                }
                let named = format!("{} {}", scenario.key, subject.name());
                let figures = match run_once(scenario, *subject, options) {
                    Ok(figures) => figures,
                    Err(error) => {
                        interrupt::pause(Duration::ZERO)?; // interrupted: that is the error
                        eprintln!("{named}: not measured: {error:#}");
                        failed += 1;
                        continue;
                    }
                };
                eprintln!("{named}: {figures}");
                results.add(Run {
                    scenario: scenario.key.to_owned(),
                    subject: *subject,
                    version: version.clone(),
                    date: Report::now()?,
                    pinned: options.pin,
                    realtime: machine::is_realtime(),
                    round,
                    figures,
                });
                results.write(out)?;
            }
        }
    }
    ensure!(failed == 0, "{failed} runs could not be measured");
    Ok(())
}

/// One scenario on one subject, everything started anew.
fn run_once(scenario: &Scenario, subject: Subject, options: &Options) -> Result<Figures> {
    let (proxy_core, load_core) = if options.pin {
        let (proxy, load) = machine::pinned_cores()?;
        (Some(proxy), Some(load))
    } else {
        (None, None)
    };
    let folder = campaign::folder_in_memory("portico-faults.")?;
    let mut pool = Pool::start(scenario.backends, folder.path(), load_core)?;
    let place = Place {
        folder: folder.path().join("proxy"),
        backends: pool.addresses(),
        core: proxy_core,
    };
    std::fs::create_dir(&place.folder)?;
    let mut proxy = subject.start(&place)?;
    let measured = usize::try_from(SECONDS * scenario.rate)?;
    let warm_up = usize::try_from(WARM_UP.as_millis() as u64 * scenario.rate / 1_000)?;
    let start_us = now_us() + HEAD_START.as_micros() as u64;
    let load = Load {
        address: proxy.address,
        hosts: vec![HOST.to_owned()],
        method: scenario.method,
        rate: scenario.rate,
        requests: warm_up + measured,
        start_us,
        deadline_us: scenario.deadline_ms * 1_000,
    };
    let fault_zero_us = start_us + WARM_UP.as_micros() as u64;
    let exchanges = play(scenario, &load, &mut pool, fault_zero_us)?;
    proxy.check_alive()?;
    pool.check_alive()?;
    let figures = Evidence {
        scenario,
        exchanges: &exchanges,
        warm_up,
        records: &pool.records()?,
        done: &pool.done,
    }
    .figures();
    // The proxy goes before its backends, so that its log's end is not about that.
    drop(proxy);
    drop(pool);
    if options.results.keep {
        eprintln!("kept: {}", folder.keep().display());
    }
    Ok(figures)
}

/// The load on a thread of its own, the steps on this one, both by one clock.
fn play(scenario: &Scenario, load: &Load, pool: &mut Pool, zero_us: u64) -> Result<Vec<Exchange>> {
    let client = Client::new(load)?;
    let interrupted = AtomicBool::new(false);
    thread::scope(|scope| {
        let running = scope.spawn(|| client.run(&interrupted));
        let played = (|| -> Result<()> {
            for step in scenario.steps {
                pause_until(zero_us + step.at_ms * 1_000)?;
                for backend in step.backends {
                    pool.act(*backend, step.action)?;
                }
            }
            pause_until(zero_us + SECONDS * 1_000_000)?;
            while !running.is_finished() {
                interrupt::pause(Duration::from_millis(20))?;
            }
            Ok(())
        })();
        interrupted.store(played.is_err(), Ordering::Relaxed);
        let exchanges = match running.join() {
            Ok(exchanges) => exchanges,
            Err(_) => bail!("the client panicked"),
        };
        played?;
        exchanges
    })
}

fn pause_until(at_us: u64) -> Result<()> {
    interrupt::pause(Duration::from_micros(at_us.saturating_sub(now_us())))
}

/// The scenarios of these keys, in the table's order.
fn chosen(keys: &[String]) -> Result<Vec<&'static Scenario>> {
    for key in keys {
        if !SCENARIOS.iter().any(|scenario| scenario.key == key) {
            let known: Vec<&str> = SCENARIOS.iter().map(|scenario| scenario.key).collect();
            bail!("no scenario {key:?}; there are {}", known.join(", "));
        }
    }
    Ok(SCENARIOS
        .iter()
        .filter(|scenario| keys.is_empty() || keys.iter().any(|key| key == scenario.key))
        .collect())
}

impl Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = |us: u64| us as f64 / 1e3;
        write!(
            f,
            "{} failed {:?}, p50 {:.2}, p99 {:.2}, p99.9 {:.2}, max {:.1} ms, {} slow, {:.3} tries; \
             until out {:?}, back {:?} ms, first success {:?} ms, twice {:?}, lost in flight {}; noise {:.1} ms",
            self.failed_total(),
            self.failed,
            ms(self.p50_us),
            ms(self.p99_us),
            ms(self.p999_us),
            ms(self.max_us),
            self.slow,
            self.amplification(),
            self.until_out,
            self.back_ms,
            self.first_success_ms,
            self.executed_twice,
            self.failed_in_flight,
            ms(self.noise_max_us),
        )
    }
}
