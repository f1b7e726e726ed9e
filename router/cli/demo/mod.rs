//! `portico demo`: the router with three sample instances behind it.
//!
//! Owns the sample app, its registration through the public API, and the
//! temporary state folder. The router itself is the one of `portico run`.

mod app;
mod registration;

use std::path::PathBuf;
use std::process::ExitCode;
use std::thread::JoinHandle;

use super::SettingsArgs;
use crate::settings::Settings;

/// Why the demo could not be set up.
pub type DemoError = Box<dyn std::error::Error + Send + Sync>;

/// The demo's settings, before the caller's: a state folder of its own, and
/// no access log between the lines meant for people.
pub fn arguments(asked: &SettingsArgs) -> SettingsArgs {
    let mut args = asked.clone();
    let own = [
        format!("state_dir={:?}", scratch().display().to_string()),
        "log.access=off".to_owned(),
    ];
    args.overrides.splice(0..0, own);
    args
}

/// The state folder unless the caller names another.
fn scratch() -> PathBuf {
    std::env::temp_dir().join(format!("portico-demo-{}", std::process::id()))
}

/// Everything of the demo that is not the router.
pub struct Stage {
    registration: JoinHandle<Result<(), DemoError>>,
}

impl Stage {
    /// Starts the sample instances, and a thread that registers them as soon
    /// as the router is ready and then says where to look. Returns at once.
    ///
    /// # Errors
    /// No free port for the instances, or no thread.
    pub fn set(settings: &Settings) -> Result<Stage, DemoError> {
        let instances = app::start()?;
        let settings = settings.clone();
        let work = move || {
            let outcome = registration::register(&settings, &instances);
            if outcome.is_err() {
                // Without its app the demo shows nothing: end it as Ctrl-C would.
                let own = rustix::process::getpid();
                let _ = rustix::process::kill_process(own, rustix::process::Signal::TERM);
            }
            outcome
        };
        let thread = std::thread::Builder::new().name("registration".into());
        Ok(Stage {
            registration: thread.spawn(work)?,
        })
    }

    /// After the router ended with `code`: cleans up, and says what went
    /// wrong on this side, if anything did.
    pub fn strike(self, code: ExitCode) -> ExitCode {
        let registered = self
            .registration
            .is_finished()
            .then(|| self.registration.join());
        // Absent if the caller chose another folder.
        let _ = std::fs::remove_dir_all(scratch());
        match registered {
            Some(Ok(Err(error))) => {
                eprintln!("portico: demo: {error}");
                ExitCode::FAILURE
            }
            _ => code,
        }
    }
}
