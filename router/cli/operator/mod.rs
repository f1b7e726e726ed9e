//! The operator's commands: what a person asks of a running router, through
//! its API and admin port.
//!
//! Owns the commands, their output and their errors. Never touches the store
//! or a process: what these commands can do, any client of the API can.
//!
//! What was asked for goes to standard output, everything else to standard
//! error. Exit codes: 0 done, 1 failed, 2 usage, 64 bad settings.

mod client;
mod events;
mod export;
mod import;
mod limit;
mod orders;
mod reach;
mod text;
mod top;
mod upgrade;
mod views;

use std::io;
use std::process::ExitCode;

use clap::{Args, Subcommand};

use super::{BAD_SETTINGS, DONE, FAILED, SettingsArgs, USAGE};
use crate::settings::SettingsError;
use client::Client;
pub use limit::Limit;
pub use reach::Reach;

/// Every command of an operator's.
#[derive(Debug, Subcommand)]
pub enum OperatorCommand {
    /// Register apps from NDJSON, one app a line
    Import(Import),
    /// Print every app as NDJSON, as import takes it
    Export(Plain),
    /// List apps
    Apps(Apps),
    /// Show an app: hosts, policy, traffic and backends
    App(Named),
    /// List an app's backends
    Backends(Named),
    /// Tell what happened
    Events(Events),
    /// Take a backend out of rotation, and remove it
    Drain(Drain),
    /// Take a backend out of rotation until it is readmitted
    Eject(Backend),
    /// Let a backend back into rotation, whoever took it out
    Readmit(Backend),
    /// Let a table go out that lacks more than was removed: the event shrink_refused says how much
    ConfirmShrink(Plain),
    /// List, show, set or remove named limits
    Limit(Limit),
    /// Watch the router work
    Top(Top),
    /// Replace a running router by the binary now on disk, cutting nobody off
    Upgrade(Upgrade),
}

/// `portico import`
#[derive(Args, Debug)]
pub struct Import {
    /// File of NDJSON; - for standard input
    pub file: String,
    /// Begin with this line, as an import that was interrupted says
    #[arg(long, value_name = "LINE", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    pub from: u64,
    /// Wait until every edge routes by it
    #[arg(long)]
    pub wait: bool,
    /// Let it leave more than a fifth fewer backends than there are
    #[arg(long)]
    pub confirm_shrink: bool,
    /// Do not tell how far it is
    #[arg(short, long)]
    pub quiet: bool,
    #[command(flatten)]
    settings: SettingsArgs,
}

/// A command without arguments of its own.
#[derive(Args, Debug)]
pub struct Plain {
    #[command(flatten)]
    settings: SettingsArgs,
}

/// `portico apps`
#[derive(Args, Debug)]
pub struct Apps {
    /// Only apps whose names come after this one
    #[arg(long, value_name = "NAME", default_value = "")]
    pub after: String,
    /// At most so many
    #[arg(long, value_name = "N")]
    pub limit: Option<usize>,
    #[command(flatten)]
    settings: SettingsArgs,
}

/// `portico app`, `portico backends`
#[derive(Args, Debug)]
pub struct Named {
    /// The app
    pub name: String,
    #[command(flatten)]
    settings: SettingsArgs,
}

/// `portico events`
#[derive(Args, Debug)]
pub struct Events {
    /// Go on as more happens, until interrupted
    #[arg(short, long)]
    pub follow: bool,
    /// So many of the latest
    #[arg(short = 'n', long, value_name = "N", default_value_t = 100)]
    pub limit: usize,
    #[command(flatten)]
    settings: SettingsArgs,
}

/// `portico drain`
#[derive(Args, Debug)]
pub struct Drain {
    /// The app
    pub app: String,
    /// The backend's id
    pub backend: String,
    /// How long it may take for the requests it has [default: 30s]
    #[arg(long = "for", value_name = "DURATION")]
    pub patience: Option<String>,
    #[command(flatten)]
    settings: SettingsArgs,
}

/// `portico eject`, `portico readmit`
#[derive(Args, Debug)]
pub struct Backend {
    /// The app
    pub app: String,
    /// The backend's id
    pub backend: String,
    /// Wait until every edge goes by it
    #[arg(long)]
    pub wait: bool,
    #[command(flatten)]
    settings: SettingsArgs,
}

/// `portico top`
#[derive(Args, Debug)]
pub struct Top {
    /// Print one table, over one interval, and end
    #[arg(long)]
    pub once: bool,
    /// Seconds between readings
    #[arg(long, value_name = "SECONDS", default_value_t = 2.0, value_parser = interval)]
    pub interval: f64,
    #[command(flatten)]
    settings: SettingsArgs,
}

/// `portico upgrade`
#[derive(Args, Debug)]
pub struct Upgrade {
    /// Seconds to wait for the outcome; the upgrade goes on without
    #[arg(long, value_name = "SECONDS", default_value_t = 300, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub timeout: u64,
    #[command(flatten)]
    settings: SettingsArgs,
}

fn interval(text: &str) -> Result<f64, String> {
    let seconds: f64 = text
        .parse()
        .map_err(|_| "expected a number of seconds".to_owned())?;
    if (0.2..=3_600.0).contains(&seconds) {
        Ok(seconds)
    } else {
        Err("expected 0.2 to 3600".into())
    }
}

/// Why a command failed; said as `portico: …` on standard error.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// An option that makes no sense.
    #[error("{0}")]
    Usage(String),
    /// The settings that say where the router is are bad.
    #[error("bad settings: {0}")]
    Settings(#[from] SettingsError),
    /// The router could not be asked, or did not do it.
    #[error("{0}")]
    Failed(String),
    /// Standard output is gone: whoever read it has enough.
    #[error("standard output: {0}")]
    Output(#[source] io::Error),
}

impl OperatorCommand {
    fn settings(&self) -> &SettingsArgs {
        match self {
            OperatorCommand::Import(args) => &args.settings,
            OperatorCommand::Export(args) | OperatorCommand::ConfirmShrink(args) => &args.settings,
            OperatorCommand::Apps(args) => &args.settings,
            OperatorCommand::App(args) | OperatorCommand::Backends(args) => &args.settings,
            OperatorCommand::Events(args) => &args.settings,
            OperatorCommand::Drain(args) => &args.settings,
            OperatorCommand::Eject(args) | OperatorCommand::Readmit(args) => &args.settings,
            OperatorCommand::Limit(args) => &args.settings,
            OperatorCommand::Top(args) => &args.settings,
            OperatorCommand::Upgrade(args) => &args.settings,
        }
    }
}

/// Does what was asked; the exit code says how it went.
pub fn run(command: &OperatorCommand, reach: &Reach) -> ExitCode {
    let client = Client::new(reach, command.settings());
    let done = match command {
        OperatorCommand::Import(args) => import::import(&client, args),
        OperatorCommand::Export(_) => export::export(&client),
        OperatorCommand::Apps(args) => views::apps(&client, args),
        OperatorCommand::App(args) => views::app(&client, &args.name),
        OperatorCommand::Backends(args) => views::backends(&client, &args.name),
        OperatorCommand::Events(args) => events::events(&client, args),
        OperatorCommand::Drain(args) => orders::drain(&client, args),
        OperatorCommand::Eject(args) => orders::eject(&client, args),
        OperatorCommand::Readmit(args) => orders::readmit(&client, args),
        OperatorCommand::ConfirmShrink(_) => orders::confirm_shrink(&client),
        OperatorCommand::Limit(args) => limit::limit(&client, args),
        OperatorCommand::Top(args) => top::top(&client, args),
        OperatorCommand::Upgrade(args) => upgrade::upgrade(&client, args),
    };
    let (code, error) = match done {
        Ok(()) => return ExitCode::from(DONE),
        Err(CommandError::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => {
            return ExitCode::from(DONE);
        }
        Err(error @ CommandError::Usage(_)) => (USAGE, error),
        Err(error @ CommandError::Settings(_)) => (BAD_SETTINGS, error),
        Err(error) => (FAILED, error),
    };
    eprintln!("portico: {error}");
    ExitCode::from(code)
}

#[cfg(test)]
mod tests;
