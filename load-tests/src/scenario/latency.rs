//! p50 and p99 at one stated rate, the same for every peer, open-loop.

use anyhow::Result;

use super::{Bench, Choices, throughput};
use crate::report::{HalfRate, Report};

/// `latency`
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    #[command(flatten)]
    choices: Choices,
    /// Requests due per second.
    #[arg(long, default_value_t = 10_000.0)]
    rate: f64,
    /// Seconds of each measured run.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
    /// Rounds; each loads every proxy once.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=100))]
    rounds: u64,
}

/// Measures, prints, writes the report's files.
pub fn run(options: &Options) -> Result<()> {
    let out = options.choices.out_folder()?;
    let bench = Bench::set_up(&options.choices)?;
    let mut started = Vec::new();
    for (peer, _) in &bench.peers {
        started.push(bench.start(*peer)?);
    }
    let mut rows: Vec<HalfRate> = bench
        .peers
        .iter()
        .map(|(peer, _)| HalfRate {
            peer: *peer,
            rate: options.rate,
            samples: Vec::new(),
        })
        .collect();
    for round in 1..=options.rounds {
        for (proxy, row) in started.iter_mut().zip(&mut rows) {
            let sample = throughput::open_loop_sample(
                &bench,
                proxy,
                options.rate,
                options.seconds,
                options.choices.connections,
            )?;
            eprintln!("round {round} {}: {sample}", proxy.peer.name());
            row.samples.push(sample);
        }
    }
    let report = Report {
        half_rate: Some(rows),
        ..bench.report("latency", &options.choices, options.rounds, options.seconds)?
    };
    let markdown = report.markdown();
    println!("{markdown}");
    std::fs::write(out.join("latency.md"), &markdown)?;
    std::fs::write(
        out.join("latency.json"),
        serde_json::to_vec_pretty(&report)?,
    )?;
    eprintln!("written: {}/latency.{{md,json}}", out.display());
    Ok(())
}
