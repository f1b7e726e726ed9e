//! What a request costs: full rate over bodies of three sizes, then half rate.
//!
//! All proxies run side by side; in each round each is loaded in turn, so that
//! what drifts on a shared machine drifts for all. Figures are medians over the
//! rounds, ratios are medians of each round's own ratio.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::{Bench, Choices};
use crate::peer::{self, Peer, Started};
use crate::plot;
use crate::process_cost::Cost;
use crate::report::{HalfRate, HalfRateSample, Report, Row, Sample, Table};
use crate::{interrupt, open_loop, wrk};

/// Seconds of load before the first round of each size.
const WARM_UP_SECONDS: u64 = 1;
/// Seconds of an open-loop run.
const HALF_RATE_SECONDS: u64 = 2;
/// Open-loop runs for each round at full rate: a shared machine stalls for
/// milliseconds now and then, which is all a p99 shows; many short runs let
/// the median pass over them.
const HALF_RATE_RUNS: u64 = 3;

/// A body's size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Body {
    /// 12 bytes.
    #[value(name = "12")]
    Small,
    /// 10 KiB.
    #[value(name = "10k")]
    Medium,
    /// 1 MiB.
    #[value(name = "1m")]
    Large,
}

impl Body {
    fn path(self) -> &'static str {
        match self {
            Self::Small => "/12",
            Self::Medium => "/10k",
            Self::Large => "/1m",
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Small => "12 B",
            Self::Medium => "10 KiB",
            Self::Large => "1 MiB",
        }
    }
}

/// `throughput`
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    #[command(flatten)]
    choices: Choices,
    /// Seconds of each measured run.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
    /// Rounds; each loads every proxy once.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=100))]
    rounds: u64,
    /// Bodies' sizes.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "12,10k,1m")]
    bodies: Vec<Body>,
    /// An earlier build of Portico to measure beside this one: the report gives the ratio.
    #[arg(long)]
    before: Option<PathBuf>,
    /// Leave out the open-loop part at half of each one's maximum.
    #[arg(long)]
    no_half_rate: bool,
}

/// Measures, prints, writes the report's files.
pub fn run(options: &Options) -> Result<()> {
    let out = options.choices.out_folder()?;
    let mut bench = Bench::set_up(&options.choices)?;
    if let Some(program) = &options.before {
        let version = peer::portico_version(program)?;
        // Beside Portico in every round, so that what drifts, drifts for both.
        let behind = bench
            .peers
            .iter()
            .position(|(peer, _)| *peer == Peer::Portico);
        let place = behind.map_or(0, |place| place + 1);
        bench.peers.insert(place, (Peer::Before, version));
        bench.before = Some(program.canonicalize()?);
    }
    let mut started = Vec::new();
    for (peer, version) in &bench.peers {
        eprintln!("starting {} {version}", peer.name());
        started.push(bench.start(*peer)?);
    }
    let mut tables = Vec::new();
    for body in &options.bodies {
        tables.push(measure_body(options, &bench, &mut started, *body)?);
    }
    let half_rate = match tables.first() {
        Some(table) if !options.no_half_rate => {
            Some(measure_half_rate(options, &bench, &mut started, table)?)
        }
        _ => None,
    };
    let report = Report {
        tables,
        half_rate,
        ..bench.report(
            "throughput",
            &options.choices,
            options.rounds,
            options.seconds,
        )?
    };
    let markdown = report.markdown();
    println!("{markdown}");
    std::fs::write(out.join("throughput.md"), &markdown)?;
    std::fs::write(
        out.join("throughput.json"),
        serde_json::to_vec_pretty(&report)?,
    )?;
    std::fs::write(out.join("throughput.svg"), plot::throughput(&report))?;
    eprintln!("written: {}/throughput.{{md,json,svg}}", out.display());
    Ok(())
}

fn measure_body(
    options: &Options,
    bench: &Bench,
    started: &mut [Started],
    body: Body,
) -> Result<Table> {
    for proxy in started.iter() {
        wrk::run(
            &load(options, bench, proxy, body, WARM_UP_SECONDS),
            bench.folder(),
        )?;
        proxy.take_logged()?;
    }
    let mut rows: Vec<Row> = started.iter().map(|proxy| Row::new(proxy.peer)).collect();
    for round in 1..=options.rounds {
        for (proxy, row) in started.iter_mut().zip(&mut rows) {
            let sample = measure(options, bench, proxy, body)?;
            eprintln!(
                "{} round {round} {}: {sample}",
                body.name(),
                proxy.peer.name()
            );
            row.samples.push(sample);
        }
    }
    Ok(Table {
        body: body.name().to_owned(),
        rows,
    })
}

fn load<'a>(
    options: &Options,
    bench: &'a Bench,
    proxy: &Started,
    body: Body,
    seconds: u64,
) -> wrk::Load<'a> {
    wrk::Load {
        address: proxy.address,
        host: bench.test_host(),
        path: body.path(),
        connections: options.choices.connections,
        seconds,
        core: bench.load_core,
    }
}

/// One run of wrk, with the proxy's cost read on either side of it.
fn measure(options: &Options, bench: &Bench, proxy: &mut Started, body: Body) -> Result<Sample> {
    let before = Cost::of_tree(proxy.running.pid());
    let began = Instant::now();
    let outcome = wrk::run(
        &load(options, bench, proxy, body, options.seconds),
        bench.folder(),
    )?;
    let lasted = began.elapsed();
    let after = Cost::of_tree(proxy.running.pid());
    proxy.running.check_alive()?;
    ensure!(
        outcome.requests > 0,
        "{} answered nothing",
        proxy.peer.name()
    );
    let cpu = after.cpu_since(&before);
    Ok(Sample {
        requests: outcome.requests,
        requests_per_second: outcome.requests_per_second,
        cpu_us_per_request: cpu.as_secs_f64() * 1e6 / outcome.requests as f64,
        proxy_core_share: cpu.as_secs_f64() / lasted.as_secs_f64(),
        p50_us: outcome.p50_us,
        p99_us: outcome.p99_us,
        errors: outcome.errors,
        logged: proxy.take_logged()?,
        peak_resident_kib: after.peak_resident_kib,
    })
}

/// Open-loop load at half of each proxy's own maximum, with the first table's body.
fn measure_half_rate(
    options: &Options,
    bench: &Bench,
    started: &mut [Started],
    table: &Table,
) -> Result<Vec<HalfRate>> {
    let mut rows = Vec::new();
    for proxy in started.iter() {
        let maximum = table
            .row(proxy.peer)
            .context("each proxy must have a row")?
            .requests_per_second();
        rows.push(HalfRate {
            peer: proxy.peer,
            rate: (maximum / 2.0).round(),
            samples: Vec::new(),
        });
    }
    for round in 1..=options.rounds * HALF_RATE_RUNS {
        for (proxy, row) in started.iter_mut().zip(&mut rows) {
            interrupt::pause(Duration::from_millis(200))?;
            let sample = open_loop_sample(
                bench,
                proxy,
                row.rate,
                HALF_RATE_SECONDS,
                options.choices.connections,
            )?;
            eprintln!(
                "half rate round {round} {}: {} requests/s: {sample}",
                proxy.peer.name(),
                row.rate
            );
            row.samples.push(sample);
        }
    }
    Ok(rows)
}

/// One open-loop run, with the proxy's cost read on either side of it.
pub fn open_loop_sample(
    bench: &Bench,
    proxy: &mut Started,
    rate: f64,
    seconds: u64,
    connections: usize,
) -> Result<HalfRateSample> {
    let before = Cost::of_tree(proxy.running.pid());
    let outcome = bench.pace(proxy, rate, seconds, connections)?;
    let after = Cost::of_tree(proxy.running.pid());
    proxy.running.check_alive()?;
    proxy.take_logged()?;
    let sent = rate * (Duration::from_secs(seconds) + open_loop::WARM_UP).as_secs_f64();
    Ok(HalfRateSample {
        cpu_us_per_request: after.cpu_since(&before).as_secs_f64() * 1e6 / sent,
        outcome,
    })
}

/// Against whom ratios are given.
pub const BASES: [Peer; 4] = [Peer::Before, Peer::Nginx, Peer::Haproxy, Peer::Relay];
