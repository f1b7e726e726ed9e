//! `portico check` and `portico ready`: looking, without touching anything.

use std::process::ExitCode;

use super::{DONE, FAILED, SettingsArgs, ready as readiness};

/// `portico check`
pub fn check(args: &SettingsArgs) -> ExitCode {
    match args.load_or_exit() {
        Ok(_) => {
            println!("OK: {}", args.source());
            ExitCode::from(DONE)
        }
        Err(code) => code,
    }
}

/// `portico ready`
pub fn ready(args: &SettingsArgs) -> ExitCode {
    let asked = match args.load_or_exit() {
        Ok(settings) => readiness::ask(&settings),
        Err(code) => return code,
    };
    match asked {
        Ok(()) => {
            println!("ready");
            ExitCode::from(DONE)
        }
        Err(error) => {
            eprintln!("portico: not ready: {error}");
            ExitCode::from(FAILED)
        }
    }
}
