//! `--config` and `--set`, shared by every command that reads settings.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;

use super::BAD_SETTINGS;
use crate::settings::{DEFAULT_FILE, Settings, SettingsError};

/// Where settings come from.
#[derive(Args, Clone, Debug, Default)]
pub struct SettingsArgs {
    /// Settings file [default: config/portico.toml if it exists, else the built-in defaults]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Override one setting, such as edge.threads=2; may be repeated
    #[arg(long = "set", value_name = "KEY=TOML")]
    pub overrides: Vec<String>,
}

impl SettingsArgs {
    /// The file that [`SettingsArgs::load`] reads, if any.
    pub fn file(&self) -> Option<PathBuf> {
        let default = || Some(PathBuf::from(DEFAULT_FILE)).filter(|path| path.exists());
        self.config.clone().or_else(default)
    }

    /// Reads and checks the settings.
    ///
    /// # Errors
    /// As [`Settings::load`].
    pub fn load(&self) -> Result<Settings, SettingsError> {
        Settings::load(self.file().as_deref(), &self.overrides)
    }

    /// As [`SettingsArgs::load`], for a command that cannot go on without.
    ///
    /// # Errors
    /// The exit code, after the reason was said.
    pub fn load_or_exit(&self) -> Result<Settings, ExitCode> {
        self.load().map_err(|error| {
            eprintln!("portico: bad settings: {error}");
            ExitCode::from(BAD_SETTINGS)
        })
    }

    /// The source, as a message names it.
    pub fn source(&self) -> String {
        match self.file() {
            Some(path) => path.display().to_string(),
            None => format!(
                "built-in defaults ({} does not exist)",
                Path::new(DEFAULT_FILE).display()
            ),
        }
    }
}
