//! The `portico` program: allocator, arguments, settings, role, exit code.

use std::process::ExitCode;

use clap::Parser;
use portico::cli::{self, Cli, Command, SettingsArgs};
use portico::settings::Settings;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Check(args) => check(&args),
    }
}

/// `portico check`
fn check(args: &SettingsArgs) -> ExitCode {
    match load(args) {
        Ok(_) => {
            println!("OK: {}", args.source());
            ExitCode::from(cli::DONE)
        }
        Err(code) => code,
    }
}

/// Checked settings, or the exit code after the reason was said.
fn load(args: &SettingsArgs) -> Result<Settings, ExitCode> {
    args.load().map_err(|error| {
        eprintln!("portico: bad settings: {error}");
        ExitCode::from(cli::BAD_SETTINGS)
    })
}
