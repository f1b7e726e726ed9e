//! What an idle keepalive connection costs: resident memory before and after
//! opening many, each after one request.

use std::fmt::Write;
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context, Result};
use serde::Serialize;

use super::{Bench, Choices};
use crate::machine::{self, Machine};
use crate::peer::{Peer, Started};
use crate::process_cost::Cost;
use crate::report::Report;
use crate::{http_client, interrupt};

/// Descriptors a proxy, the backend and the harness need besides.
const DESCRIPTORS_RESERVED: u64 = 200;
/// How long a proxy has to settle before its memory is read.
const SETTLE: Duration = Duration::from_millis(1500);

/// `idle`
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    #[command(flatten)]
    choices: Choices,
    /// Connections; fewer where the limit of open files says so.
    #[arg(long = "idle-connections", default_value_t = 10_000)]
    idle_connections: u64,
}

/// One proxy's memory.
#[derive(Clone, Debug, Serialize)]
struct IdleRow {
    peer: Peer,
    version: String,
    connections: u64,
    resident_before_kib: u64,
    resident_after_kib: u64,
    kib_per_connection: f64,
}

#[derive(Debug, Serialize)]
struct IdleReport {
    date: String,
    command: String,
    machine: Machine,
    file_limit: u64,
    apps: usize,
    rows: Vec<IdleRow>,
}

/// Measures each peer by itself, prints, writes the report's files.
pub fn run(options: &Options) -> Result<()> {
    let out = options.choices.out_folder()?;
    let bench = Bench::set_up(&options.choices)?;
    let file_limit = machine::raise_file_limit()?;
    let mut rows = Vec::new();
    for (peer, version) in &bench.peers {
        // The relay opens one upstream connection for each client's.
        let descriptors_each = if *peer == Peer::Relay { 2 } else { 1 };
        let room = file_limit.saturating_sub(DESCRIPTORS_RESERVED) / descriptors_each;
        let row = measure(&bench, *peer, version, options.idle_connections.min(room));
        match row {
            Ok(row) => {
                eprintln!(
                    "{}: {:.2} KiB per connection",
                    peer.name(),
                    row.kib_per_connection
                );
                rows.push(row);
            }
            Err(error) => eprintln!("{}: not measured: {error:#}", peer.name()),
        }
        interrupt::pause(Duration::ZERO)?;
    }
    let report = IdleReport {
        date: Report::now()?,
        command: Report::command(),
        machine: Machine::here(),
        file_limit,
        apps: options.choices.apps,
        rows,
    };
    let markdown = markdown(&report);
    println!("{markdown}");
    std::fs::write(out.join("idle.md"), &markdown)?;
    std::fs::write(out.join("idle.json"), serde_json::to_vec_pretty(&report)?)?;
    eprintln!("written: {}/idle.{{md,json}}", out.display());
    Ok(())
}

fn measure(bench: &Bench, peer: Peer, version: &str, connections: u64) -> Result<IdleRow> {
    let started = bench.start(peer)?;
    // The pools and arenas that any traffic makes are not the connections' cost.
    let warm = open(&started, bench.test_host(), connections.min(64))?;
    interrupt::pause(SETTLE)?;
    let before = Cost::of_tree(started.running.pid());
    let mut held = open(&started, bench.test_host(), connections - warm.len() as u64)?;
    held.extend(warm);
    interrupt::pause(SETTLE)?;
    let after = Cost::of_tree(started.running.pid());
    confirm_open(&mut held, bench.test_host())?;
    let opened = connections.saturating_sub(64).max(1);
    let grown = after.resident_kib.saturating_sub(before.resident_kib);
    Ok(IdleRow {
        peer,
        version: version.to_owned(),
        connections,
        resident_before_kib: before.resident_kib,
        resident_after_kib: after.resident_kib,
        kib_per_connection: grown as f64 / opened as f64,
    })
}

fn open(started: &Started, host: &str, count: u64) -> Result<Vec<TcpStream>> {
    let request = http_client::request(host, "/12");
    (0..count)
        .map(|number| {
            let mut stream = http_client::connect(started.address)?;
            let answer = http_client::exchange(&mut stream, &request)
                .with_context(|| format!("connection {number}"))?;
            anyhow::ensure!(
                answer.status == 200,
                "connection {number}: status {}",
                answer.status
            );
            Ok(stream)
        })
        .collect()
}

/// A connection the proxy had closed would have cost nothing: every hundredth is asked again.
fn confirm_open(held: &mut [TcpStream], host: &str) -> Result<()> {
    let request = http_client::request(host, "/12");
    for stream in held.iter_mut().step_by(100) {
        http_client::exchange(stream, &request).context("an idle connection had been closed")?;
    }
    Ok(())
}

fn markdown(report: &IdleReport) -> String {
    let machine = &report.machine;
    let mut text = format!(
        "Idle keepalive connections, one request each, {} apps. {}; {}, {} cores, Linux {}; `{}`.\n\n\
         | proxy | connections | KiB per connection | resident before, MiB | after, MiB |\n|---|---:|---:|---:|---:|\n",
        report.apps, report.date, machine.cpu, machine.cores, machine.kernel, report.command
    );
    for row in &report.rows {
        let (before, after) = (
            row.resident_before_kib as f64 / 1024.0,
            row.resident_after_kib as f64 / 1024.0,
        );
        writeln!(
            text,
            "| {} {} | {} | {:.2} | {before:.1} | {after:.1} |",
            row.peer.name(),
            row.version,
            row.connections,
            row.kib_per_connection
        )
        .expect("writing to a String must succeed");
    }
    text
}
