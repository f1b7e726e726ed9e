//! Settings: raw TOML → checked values.
//!
//! Owns every key, its default, its check and its message; each key is one
//! [`Row`]. Nothing is bound, opened or created here: the files named are
//! only named.
//!
//! **Invariant**: a [`Settings`] in hand is valid; whoever holds one checks
//! nothing again.

mod clients;
mod error;
mod rows;
mod source;
#[cfg(test)]
mod tests;
mod values;

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use clients::Clients;
pub use error::{Place, SettingsError};
pub use rows::{ROWS, Row};

/// The file read when no `--config` is given and it exists.
pub const DEFAULT_FILE: &str = "config/portico.toml";

/// Every setting, checked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    /// Where the store, the token and the snapshot live.
    pub state_dir: PathBuf,
    /// Whom control runs as, if the router was started by root.
    #[serde(default)]
    pub user: User,
    /// Where files say the numbers of limits; `None`: nowhere.
    #[serde(default)]
    pub rates_dir: Option<PathBuf>,
    /// The data plane.
    pub edge: Edge,
    /// The registration API.
    pub api: Listen,
    /// The admin port.
    pub admin: Listen,
    /// Who may change things.
    pub auth: Auth,
    /// What is logged, and where.
    pub log: Log,
}

/// `edge.*`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Edge {
    /// Plain HTTP listeners.
    pub http: Vec<SocketAddr>,
    /// Data threads, at least 1 (0 in the file means one per core).
    pub threads: usize,
    /// What the file says about `threads`: 0 is kept as 0 here, so that the
    /// settings can be shown as they were written.
    pub threads_asked: usize,
    /// Whose `X-Forwarded-*` is believed.
    pub trusted_proxies: Vec<ipnet::IpNet>,
    /// How long a shutdown waits for requests in flight.
    pub drain_timeout: Duration,
    /// How long an edge that was replaced keeps what is open on it.
    #[serde(default = "handover_timeout")]
    pub handover_timeout: Duration,
    /// Whether a second edge stands by, its table loaded.
    #[serde(default)]
    pub standby: Standby,
    /// What it does once it has more to do than it can.
    #[serde(default)]
    pub shed: Shed,
    /// Whom the edge runs as, if the router was started by root.
    #[serde(default)]
    pub user: User,
    /// What clients are given, and held to.
    #[serde(default)]
    pub clients: Clients,
}

impl Edge {
    /// Whether an address, in its canonical form or not, is a trusted proxy's.
    pub fn trusts(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.trusted_proxies
            .iter()
            .any(|net| net.contains(&address))
    }
}

/// `edge.standby`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Standby {
    /// While there is memory for it.
    #[default]
    Auto,
    /// Always.
    On,
    /// Never.
    Off,
}

/// `edge.shed`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Shed {
    /// Apps take turns, and those that ask for more than their share are
    /// refused what is too much.
    #[default]
    Auto,
    /// Everybody is served as he comes.
    Off,
}

/// `user` and `edge.user`: only meant for a router that root started.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum User {
    /// The account made for it where there is one, else ids that nobody has.
    #[default]
    Auto,
    /// Root stays root.
    Root,
    /// This account.
    Name(String),
    /// This user id, and the group id of the same number.
    Id(u32),
}

fn handover_timeout() -> Duration {
    Duration::from_secs(3600)
}

/// `api.*` and `admin.*`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Listen {
    /// The address bound.
    pub listen: SocketAddr,
}

/// `auth.*`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Auth {
    /// Where the operator token comes from.
    pub tokens: Tokens,
}

/// `auth.tokens`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Tokens {
    /// Generated into `<state_dir>/token` on first start.
    Auto,
}

/// `log.*`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Log {
    /// Where access log lines go.
    pub access: AccessLog,
    /// How they look.
    pub format: LogFormat,
}

/// `log.access`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum AccessLog {
    /// Standard output.
    Stdout,
    /// Nowhere.
    Off,
    /// Appended to this file; SIGHUP reopens it.
    File(PathBuf),
}

/// `log.format`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LogFormat {
    /// `key=value` pairs.
    Logfmt,
    /// One JSON object a line, same keys.
    Json,
}

impl Default for Settings {
    fn default() -> Self {
        let any = |port| SocketAddr::from(([0, 0, 0, 0], port));
        let loopback = |port| SocketAddr::from(([127, 0, 0, 1], port));
        Settings {
            state_dir: PathBuf::from("data"),
            user: User::Auto,
            rates_dir: None,
            edge: Edge {
                http: vec![any(8080)],
                threads: cores(),
                threads_asked: 0,
                trusted_proxies: Vec::new(),
                drain_timeout: Duration::from_secs(30),
                handover_timeout: handover_timeout(),
                standby: Standby::Auto,
                shed: Shed::Auto,
                user: User::Auto,
                clients: Clients::default(),
            },
            api: Listen {
                listen: loopback(8081),
            },
            admin: Listen {
                listen: loopback(8082),
            },
            auth: Auth {
                tokens: Tokens::Auto,
            },
            log: Log {
                access: AccessLog::Stdout,
                format: LogFormat::Logfmt,
            },
        }
    }
}

impl Settings {
    /// Reads `file` (if any), then applies each `KEY=TOML` of `overrides` in
    /// order, then checks the whole.
    ///
    /// # Errors
    /// The first thing wrong: it names the key, its value, what was expected,
    /// and the place (`file:line` or `--set`).
    pub fn load(file: Option<&Path>, overrides: &[String]) -> Result<Settings, SettingsError> {
        let mut settings = Settings::default();
        let mut given = Vec::new();
        if let Some(path) = file {
            given.extend(source::read_file(path)?);
        }
        for text in overrides {
            given.extend(source::read_override(text)?);
        }
        for entry in &given {
            rows::apply(&mut settings, entry)?;
        }
        rows::check_listeners(&settings, &given)?;
        Ok(settings)
    }

    /// Every key with its value as TOML would write it, in the order of the
    /// documentation.
    pub fn entries(&self) -> Vec<(&'static str, toml::Value)> {
        ROWS.iter().map(|row| (row.key, (row.show)(self))).collect()
    }

    /// `rates_dir` as the file would write it.
    fn rates_dir_text(&self) -> String {
        let folder = self.rates_dir.as_ref();
        folder.map_or(String::new(), |path| path.display().to_string())
    }

    /// Where the operator token is kept.
    pub fn token_path(&self) -> PathBuf {
        self.state_dir.join("token")
    }

    /// Where control keeps the table's snapshot and journal, for edges to boot
    /// from.
    pub fn table_dir(&self) -> PathBuf {
        self.state_dir.join("table")
    }

    /// The unix socket on which edges find control.
    pub fn feed_path(&self) -> PathBuf {
        self.state_dir.join("feed.sock")
    }
}

/// A path as messages show it. The children work inside the state folder and
/// name what is in it from there; people need to know which folder that is.
pub fn absolute(path: &Path) -> PathBuf {
    // A folder that is gone has no name any more.
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

/// One data thread per core the process may run on.
fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}
