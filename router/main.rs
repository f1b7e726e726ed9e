//! The `portico` program: allocator, arguments, settings, role, exit code.

use std::process::ExitCode;

use clap::Parser;
use portico::cli::demo::{self, Stage};
use portico::cli::{self, Cli, Command, SettingsArgs};
use portico::heritage::{self, Heritage};
use portico::observe::process_log;
use portico::settings::Settings;
use portico::{control, edge, supervisor};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // Before anything is opened: the descriptors inherited are named by
    // number.
    match heritage::claim() {
        Ok(None) => {}
        Ok(Some(heritage)) => return serve(heritage),
        Err(error) => {
            eprintln!("portico: {error}");
            return ExitCode::from(cli::FAILED);
        }
    }
    let cli = Cli::parse();
    match cli.command {
        Command::Run(args) => run(&args),
        Command::Check(args) => check(&args),
        Command::Operator(command) => cli::operator::run(&command, &cli.reach),
        Command::Demo(args) => run_demo(&args),
        Command::Ready(args) => ready(&args),
    }
}

/// A child of the supervisor.
fn serve(heritage: Heritage) -> ExitCode {
    // The name that ps and top show; the binary's may read "exe".
    let name = |name| rustix::thread::set_name(name).unwrap_or_default();
    match heritage {
        Heritage::Edge(heritage) => {
            name(c"portico-edge");
            process_log::init("edge");
            edge::run(*heritage)
        }
        Heritage::Control(heritage) => {
            name(c"portico-control");
            process_log::init("control");
            control::run(*heritage)
        }
    }
}

/// `portico run`
fn run(args: &SettingsArgs) -> ExitCode {
    match load(args) {
        Ok(settings) => {
            if args.file().is_none() {
                eprintln!("portico: settings: {}", args.source());
            }
            supervisor::run(settings, reread(args))
        }
        Err(code) => code,
    }
}

/// `portico demo`
fn run_demo(args: &SettingsArgs) -> ExitCode {
    // The demo's own settings come first: those of the caller win.
    let args = demo::arguments(args);
    let settings = match load(&args) {
        Ok(settings) => settings,
        Err(code) => return code,
    };
    match Stage::set(&settings) {
        Ok(stage) => {
            let code = supervisor::run(settings, reread(&args));
            stage.strike(code)
        }
        Err(error) => {
            eprintln!("portico: demo: {error}");
            ExitCode::from(cli::FAILED)
        }
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

/// `portico ready`
fn ready(args: &SettingsArgs) -> ExitCode {
    let asked = match load(args) {
        Ok(settings) => cli::ready::ask(&settings),
        Err(code) => return code,
    };
    match asked {
        Ok(()) => {
            println!("ready");
            ExitCode::from(cli::DONE)
        }
        Err(error) => {
            eprintln!("portico: not ready: {error}");
            ExitCode::from(cli::FAILED)
        }
    }
}

/// Checked settings, or the exit code after the reason was said.
fn load(args: &SettingsArgs) -> Result<Settings, ExitCode> {
    args.load().map_err(|error| {
        eprintln!("portico: bad settings: {error}");
        ExitCode::from(cli::BAD_SETTINGS)
    })
}

/// What SIGHUP does: the same files and overrides again.
fn reread(args: &SettingsArgs) -> supervisor::Reread {
    let args = args.clone();
    Box::new(move || args.load().map_err(|error| error.to_string()))
}
