//! What can be wrong with settings, in the operator's words. Never decides
//! an exit code: `main` does.

use std::fmt;
use std::path::PathBuf;

/// Where a value was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A settings file, and the line (from 1) of the value.
    File {
        /// The file as named by the operator.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
    },
    /// The command line.
    Override,
    /// Nowhere: the default stands.
    Default,
}

impl fmt::Display for Place {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::File { path, line } => write!(out, "{}:{line}", path.display()),
            Place::Override => out.write_str("--set"),
            Place::Default => out.write_str("default"),
        }
    }
}

/// Why settings were refused.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// The file could not be read.
    #[error("settings file {}: {source}", path.display())]
    Read {
        /// The file as named by the operator.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is not TOML.
    #[error("{place}: not valid TOML: {message}")]
    Syntax {
        /// The line that does not parse.
        place: Place,
        /// What the parser said.
        message: String,
    },
    /// No such key.
    #[error("{place}: unknown key {key} = {value}: expected a known key{hint}")]
    Unknown {
        /// Where it stands.
        place: Place,
        /// The full dotted key.
        key: String,
        /// The value as TOML writes it.
        value: String,
        /// `; did you mean …?`, or nothing.
        hint: String,
    },
    /// The value does not suit the key.
    #[error("{place}: {key} = {value}: expected {expected}{why}")]
    Value {
        /// Where it stands.
        place: Place,
        /// The full dotted key.
        key: &'static str,
        /// The value as TOML writes it.
        value: String,
        /// What the key takes.
        expected: &'static str,
        /// `; …`: what exactly is wrong, or nothing.
        why: String,
    },
    /// `--set` without a key or a value.
    #[error("--set {text}: expected KEY=TOML, such as --set edge.threads=2")]
    Override {
        /// What was given.
        text: String,
    },
}
