//! The command line: what a person may ask of the program. Owns the names
//! of subcommands and options. Never does the work itself.

pub mod check;
pub mod demo;
pub mod operator;
pub mod ready;
mod settings_args;

use clap::{Parser, Subcommand};

use crate::supervisor::QUESTION;
pub use settings_args::SettingsArgs;

/// Done.
pub const DONE: u8 = 0;
/// It did not work.
pub const FAILED: u8 = 1;
/// The command line made no sense (clap's own code as well).
pub const USAGE: u8 = 2;
/// The settings were refused (`EX_USAGE` of sysexits, as linkerd has it).
pub const BAD_SETTINGS: u8 = 64;

/// Portico, an HTTP edge router for a platform's fleet.
#[derive(Debug, Parser)]
#[command(name = "portico", version, about, arg_required_else_help = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    /// Where the router is, for the operator's commands.
    #[command(flatten)]
    pub reach: operator::Reach,
}

/// Every subcommand.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the router: supervisor, edge and control, until SIGTERM
    Run(SettingsArgs),
    /// Run the router with three sample app instances behind it
    Demo(SettingsArgs),
    /// Ask a running router whether it serves: exit code 0 if so (for health checks)
    Ready(SettingsArgs),
    /// Check settings without binding or creating anything
    Check(SettingsArgs),
    /// Say whether this version can take a running router over, which asks before an upgrade
    #[command(hide = true, name = QUESTION)]
    Rehearse,
    /// What is asked of a running router.
    #[command(flatten)]
    Operator(operator::OperatorCommand),
}
