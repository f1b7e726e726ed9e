//! What a run found: samples, their medians, and the table for people.
//!
//! The JSON is these types as they are; the Markdown is made here. A figure
//! never stands without date, machine, versions and command.

use std::fmt::{self, Display, Write};

use anyhow::{Context, Result};
use serde::{Serialize, Serializer};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::machine::Machine;
use crate::open_loop;
use crate::peer::Peer;
use crate::scenario::throughput::BASES;
use crate::statistics::{median, spread};

/// One run at full rate.
#[derive(Clone, Debug, Serialize)]
pub struct Sample {
    /// Requests answered.
    pub requests: u64,
    /// Per second.
    pub requests_per_second: f64,
    /// The proxy's CPU time, all its processes, µs a request.
    pub cpu_us_per_request: f64,
    /// Share of its core the proxy used; near 1 means that it was the bottleneck.
    pub proxy_core_share: f64,
    /// Median latency, µs.
    pub p50_us: f64,
    /// 99th percentile, µs.
    pub p99_us: f64,
    /// Socket errors and bad statuses.
    pub errors: u64,
    /// Lines its access log grew by; what is still in its buffer counts in the next run.
    pub logged: Option<u64>,
    /// Peak resident memory since its start, KiB.
    pub peak_resident_kib: u64,
}

impl Display for Sample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:.2} µs/request, {:.0} requests/s, core {:.0} %, p99 {:.2} ms, {} errors",
            self.cpu_us_per_request,
            self.requests_per_second,
            self.proxy_core_share * 100.0,
            self.p99_us / 1e3,
            self.errors
        )
    }
}

/// One proxy's samples with one body.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// Who.
    pub peer: Peer,
    /// One a round.
    pub samples: Vec<Sample>,
}

impl Row {
    /// No samples yet.
    pub fn new(peer: Peer) -> Self {
        Self {
            peer,
            samples: Vec::new(),
        }
    }

    fn median(&self, field: impl Fn(&Sample) -> f64) -> f64 {
        median(self.samples.iter().map(field))
    }

    /// Median CPU µs a request.
    pub fn cpu_us(&self) -> f64 {
        self.median(|sample| sample.cpu_us_per_request)
    }

    /// Median requests/s.
    pub fn requests_per_second(&self) -> f64 {
        self.median(|sample| sample.requests_per_second)
    }

    /// Share of all requests that its access log shows.
    fn logged_share(&self) -> Option<f64> {
        let logged: Option<u64> = self.samples.iter().map(|sample| sample.logged).sum();
        let requests: u64 = self.samples.iter().map(|sample| sample.requests).sum();
        Some(logged? as f64 / requests as f64)
    }

    /// Median over the rounds of each round's own ratio of CPU per request.
    pub fn cpu_ratio_to(&self, base: &Self) -> f64 {
        let pairs = self.samples.iter().zip(&base.samples);
        median(pairs.map(|(own, other)| own.cpu_us_per_request / other.cpu_us_per_request))
    }
}

/// All proxies with one body.
#[derive(Clone, Debug, Serialize)]
pub struct Table {
    /// `12 B`, …
    pub body: String,
    /// One a proxy.
    pub rows: Vec<Row>,
}

impl Table {
    /// A proxy's row.
    pub fn row(&self, peer: Peer) -> Option<&Row> {
        self.rows.iter().find(|row| row.peer == peer)
    }
}

/// One open-loop run.
#[derive(Clone, Debug, Serialize)]
pub struct HalfRateSample {
    /// The proxy's CPU time, µs a request.
    pub cpu_us_per_request: f64,
    /// Latencies and errors.
    pub outcome: open_loop::Outcome,
}

impl Display for HalfRateSample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            cpu_us_per_request,
            outcome,
        } = self;
        let (p50, p99, errors) = (outcome.p50_us, outcome.p99_us, outcome.errors);
        write!(
            f,
            "{cpu_us_per_request:.2} µs/request, p50 {p50} µs, p99 {p99} µs, {errors} errors"
        )
    }
}

/// One proxy's open-loop runs.
#[derive(Clone, Debug, Serialize)]
pub struct HalfRate {
    /// Who.
    pub peer: Peer,
    /// Requests due per second.
    pub rate: f64,
    /// One a round.
    pub samples: Vec<HalfRateSample>,
}

impl HalfRate {
    fn median(&self, field: impl Fn(&HalfRateSample) -> f64) -> f64 {
        median(self.samples.iter().map(field))
    }

    fn best_p99_us(&self) -> u64 {
        self.samples
            .iter()
            .map(|sample| sample.outcome.p99_us)
            .min()
            .unwrap_or(0)
    }

    /// Median of the runs' p99, µs.
    pub fn p99_us(&self) -> f64 {
        self.median(|sample| sample.outcome.p99_us as f64)
    }
}

/// A whole run.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The subcommand.
    pub scenario: String,
    /// RFC 3339, UTC.
    pub date: String,
    /// As it was called.
    pub command: String,
    /// Where.
    pub machine: Machine,
    /// Who was measured.
    pub versions: Vec<(Peer, String)>,
    /// Who was not, and why.
    pub absent: Vec<(Peer, String)>,
    /// Keepalive connections of the load.
    pub connections: usize,
    /// Apps each proxy knew.
    pub apps: usize,
    /// Rounds.
    pub rounds: u64,
    /// Seconds of each run.
    pub seconds: u64,
    /// Full rate, one a body.
    pub tables: Vec<Table>,
    /// Open loop.
    pub half_rate: Option<Vec<HalfRate>>,
}

impl Report {
    /// The date, for [`Report::date`].
    pub fn now() -> Result<String> {
        OffsetDateTime::now_utc()
            .replace_nanosecond(0)?
            .format(&Rfc3339)
            .context("formatting the date")
    }

    /// The command as anyone would type it, for [`Report::command`].
    pub fn command() -> String {
        let arguments: Vec<String> = std::env::args().skip(1).collect();
        format!(
            "cargo run --release -p load-tests -- {}",
            arguments.join(" ")
        )
    }

    /// One line of where and how.
    pub fn conditions(&self) -> String {
        let Machine {
            cpu,
            cores,
            kernel,
            system,
            ..
        } = &self.machine;
        format!(
            "{}; {cpu}, {cores} cores, {system}, Linux {kernel}; one core for the proxy, one for load and backend; {} keepalive connections, {} apps, medians of {} rounds of {} s",
            self.date, self.connections, self.apps, self.rounds, self.seconds
        )
    }

    /// The tables, ready for a README.
    pub fn markdown(&self) -> String {
        let mut text = String::new();
        self.write_markdown(&mut text)
            .expect("writing to a String must succeed");
        text
    }

    fn write_markdown(&self, text: &mut String) -> fmt::Result {
        writeln!(text, "{}. `{}`\n", self.conditions(), self.command)?;
        for table in &self.tables {
            self.write_table(text, table)?;
        }
        if let Some(rows) = &self.half_rate {
            self.write_half_rate(text, rows)?;
        }
        for (peer, reason) in &self.absent {
            writeln!(text, "Not measured: {} ({reason}).", peer.name())?;
        }
        Ok(())
    }

    fn write_table(&self, text: &mut String, table: &Table) -> fmt::Result {
        // Without an earlier build there is nothing to compare this one with.
        let bases = BASES
            .into_iter()
            .filter(|base| *base != Peer::Before || table.row(Peer::Before).is_some());
        let bases: Vec<Peer> = bases.collect();
        write!(
            text,
            "| {} body, full rate | CPU µs/request (spread) ",
            table.body
        )?;
        for base in &bases {
            write!(text, "| × {} ", base.name())?;
        }
        writeln!(
            text,
            "| requests/s | p50 ms | p99 ms | core | peak MiB | logged | errors |"
        )?;
        writeln!(text, "|---|---:{}", "|---:".repeat(bases.len() + 7) + "|")?;
        for row in &table.rows {
            let cpu: Vec<f64> = row
                .samples
                .iter()
                .map(|sample| sample.cpu_us_per_request)
                .collect();
            write!(
                text,
                "| {} | {:.2} (±{:.0} %) ",
                self.named(row.peer),
                row.cpu_us(),
                spread(&cpu) * 50.0
            )?;
            for base in &bases {
                match table.row(*base) {
                    Some(base) => write!(text, "| {:.2} ", row.cpu_ratio_to(base))?,
                    None => write!(text, "| – ")?,
                }
            }
            writeln!(
                text,
                "| {:.0} | {:.2} | {:.2} | {:.0} % | {:.1} | {} | {} |",
                row.requests_per_second(),
                row.median(|sample| sample.p50_us) / 1e3,
                row.median(|sample| sample.p99_us) / 1e3,
                row.median(|sample| sample.proxy_core_share) * 100.0,
                row.median(|sample| sample.peak_resident_kib as f64) / 1024.0,
                row.logged_share()
                    .map_or("–".to_owned(), |share| format!("{:.1} %", share * 100.0)),
                row.samples.iter().map(|sample| sample.errors).sum::<u64>(),
            )?;
        }
        writeln!(text)
    }

    fn write_half_rate(&self, text: &mut String, rows: &[HalfRate]) -> fmt::Result {
        let body = self
            .tables
            .first()
            .map_or("12 B", |table| table.body.as_str());
        let rate = if self.tables.is_empty() {
            "one rate"
        } else {
            "half of each one's own maximum"
        };
        writeln!(
            text,
            "| {body} body, open loop at {rate} | requests/s due | p50 µs | p99 µs | p99 of the best run | p99.9 µs | CPU µs/request | errors |"
        )?;
        writeln!(text, "|---|---:|---:|---:|---:|---:|---:|---:|")?;
        for row in rows {
            writeln!(
                text,
                "| {} | {:.0} | {:.0} | {:.0} | {} | {:.0} | {:.2} | {} |",
                self.named(row.peer),
                row.rate,
                row.median(|sample| sample.outcome.p50_us as f64),
                row.p99_us(),
                row.best_p99_us(),
                row.median(|sample| sample.outcome.p999_us as f64),
                row.median(|sample| sample.cpu_us_per_request),
                row.samples
                    .iter()
                    .map(|sample| sample.outcome.errors)
                    .sum::<u64>(),
            )?;
        }
        writeln!(text)
    }

    fn named(&self, peer: Peer) -> String {
        let version = self.versions.iter().find(|(measured, _)| *measured == peer);
        format!(
            "{} {}",
            peer.name(),
            version.map_or("", |(_, version)| version)
        )
    }
}

impl Serialize for Peer {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}
