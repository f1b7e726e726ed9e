//! The `load-tests` program: runs Portico and its peers side by side on pinned
//! cores, and prints what each costs.
//!
//! Owns the command line only. Scenarios of cost are under `scenario/`, one file
//! each, those of failing backends under `faults/`, those of size, changes and
//! dying processes under `scale/`, those of too much load under `saturation/`, what these three have in common is
//! `campaign`; what is started is under `peer/`, one file
//! each; what is read from the system is in `process_cost`. Never part of the
//! router: nothing here enters its dependency graph.
//!
//! Where do I change X: a peer's configuration → `peer/NAME.rs`; a new
//! scenario → a file in `scenario/` and a line in [`Scenario`]; a fault →
//! `faults/catalogue.rs`; a figure at scale → its scenario in `scale/`; a load, or what it must meet →
//! `saturation/catalogue.rs`; what is printed → `report.rs` and `plot.rs`.

mod backend;
mod campaign;
mod child;
mod faults;
mod http_client;
mod interrupt;
mod machine;
mod open_loop;
mod peer;
mod plot;
mod process_cost;
mod relay;
mod report;
mod saturation;
mod scale;
mod scenario;
mod setup;
mod statistics;
mod template;
mod wrk;

use std::net::SocketAddr;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Runs Portico and its peers side by side, and prints what each costs.
#[derive(Debug, Parser)]
#[command(version, about)]
struct Arguments {
    #[command(subcommand)]
    scenario: Scenario,
}

#[derive(Debug, Subcommand)]
enum Scenario {
    /// CPU per request, requests/s, p50 and p99, memory: at full rate, then at half of it.
    Throughput(scenario::throughput::Options),
    /// Resident memory of idle keepalive connections.
    Idle(scenario::idle::Options),
    /// p50 and p99 at one stated rate, the same for every peer.
    Latency(scenario::latency::Options),
    /// Backends that crash, freeze and fail under load: who notices.
    Faults(faults::Options),
    /// A million apps, changes, reloads, upgrades, processes killed: who notices, who gives up.
    Scale(scale::Options),
    /// More load than backends, edge or memory can take: goodput, refusals, neighbours.
    Saturation(saturation::Options),
    /// Installs what is missing from Debian's packages, and builds the Pingora peer.
    Setup(setup::Options),
    /// (started by the harness) The backend every proxy proxies to.
    #[command(hide = true)]
    Backend {
        /// Where it listens.
        listen: SocketAddr,
    },
    /// (started by the harness) A backend that misbehaves on order.
    #[command(hide = true)]
    FaultBackend(faults::backend::Options),
    /// (started by the harness) Backends that answer with their address, and echo WebSockets.
    #[command(hide = true)]
    ScaleBackend(scale::backend::Options),
    /// (started by the harness) Backends that serve a few at once and queue the rest.
    #[command(hide = true)]
    SaturationBackend(saturation::backend::Options),
    /// (started by the harness) The bare L4 relay: the floor.
    #[command(hide = true)]
    Relay {
        /// Where it listens.
        listen: SocketAddr,
        /// Where it connects.
        upstream: SocketAddr,
    },
    /// (started by the harness) Open-loop load on one address; prints JSON.
    #[command(hide = true)]
    Pace(open_loop::Options),
    /// (started by the harness) Pins itself, asks to die with the harness, becomes the command.
    #[command(hide = true)]
    Exec(child::ExecOptions),
}

fn main() -> ExitCode {
    let done = match Arguments::parse().scenario {
        Scenario::Throughput(options) => scenario::throughput::run(&options),
        Scenario::Idle(options) => scenario::idle::run(&options),
        Scenario::Latency(options) => scenario::latency::run(&options),
        Scenario::Faults(options) => faults::run(&options),
        Scenario::Scale(options) => scale::run(&options),
        Scenario::Saturation(options) => saturation::run(&options),
        Scenario::Setup(options) => setup::run(&options),
        Scenario::Backend { listen } => backend::serve(listen),
        Scenario::FaultBackend(options) => faults::backend::serve(&options),
        Scenario::ScaleBackend(options) => scale::backend::serve(&options),
        Scenario::SaturationBackend(options) => saturation::backend::serve(&options),
        Scenario::Relay { listen, upstream } => relay::serve(listen, upstream),
        Scenario::Pace(options) => open_loop::run(&options),
        Scenario::Exec(options) => child::become_command(&options),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("load-tests: {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_makes_sense() {
        Arguments::command().debug_assert();
    }
}
