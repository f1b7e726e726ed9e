//! The `portico` program: allocator, arguments, settings, role, exit code.

use std::process::ExitCode;

use clap::Parser;
use portico::cli::demo::{self, Stage};
use portico::cli::{self, Cli, Command, SettingsArgs};
use portico::heritage::{self, Heritage};
use portico::observe::process_log;
use portico::supervisor::{self, Renewable};
use portico::{control, edge};

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
        Command::Check(args) => cli::check::check(&args),
        Command::Operator(command) => cli::operator::run(&command, &cli.reach),
        Command::Demo(args) => run_demo(&args),
        Command::Ready(args) => cli::check::ready(&args),
        Command::Rehearse => supervisor::answer(),
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
    // In place of a supervisor before it, or rehearsing that: the settings in
    // force come with the state.
    if let Some(code) = supervisor::succeed(reread(args)) {
        return code;
    }
    match args.load_or_exit() {
        Ok(settings) => {
            if args.file().is_none() {
                eprintln!("portico: settings: {}", args.source());
            }
            supervisor::run(settings, reread(args), Renewable::Yes)
        }
        Err(code) => code,
    }
}

/// `portico demo`
fn run_demo(args: &SettingsArgs) -> ExitCode {
    // The demo's own settings come first: those of the caller win.
    let args = demo::arguments(args);
    let settings = match args.load_or_exit() {
        Ok(settings) => settings,
        Err(code) => return code,
    };
    match Stage::set(&settings) {
        Ok(stage) => {
            // Its sample instances are threads of this process.
            let code = supervisor::run(settings, reread(&args), Renewable::No);
            stage.strike(code)
        }
        Err(error) => {
            eprintln!("portico: demo: {error}");
            ExitCode::from(cli::FAILED)
        }
    }
}

/// What SIGHUP does: the same files and overrides again.
fn reread(args: &SettingsArgs) -> supervisor::Reread {
    let args = args.clone();
    Box::new(move || args.load().map_err(|error| error.to_string()))
}
