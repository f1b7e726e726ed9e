//! Settings: raw TOML → checked values.
//!
//! Owns every key, its default, its check and its message. Nothing is bound,
//! opened or created here; the files named are only named.
//!
//! **Invariant**: a `Settings` in hand is valid; whoever holds one checks
//! nothing again.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// Every setting, checked.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Where the store, the token and the snapshot live.
    pub state_dir: PathBuf,
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
#[derive(Clone, Debug, PartialEq)]
pub struct Edge {
    /// Plain HTTP listeners.
    pub http: Vec<SocketAddr>,
    /// Data threads, at least 1 (0 in the file means one per core).
    pub threads: usize,
    /// Whose `X-Forwarded-*` is believed.
    pub trusted_proxies: Vec<ipnet::IpNet>,
    /// How long a drain waits for requests in flight.
    pub drain_timeout: Duration,
}

/// `api.*` and `admin.*`
#[derive(Clone, Debug, PartialEq)]
pub struct Listen {
    /// The address bound.
    pub listen: SocketAddr,
}

/// `auth.*`
#[derive(Clone, Debug, PartialEq)]
pub struct Auth {
    /// Where the operator token comes from.
    pub tokens: Tokens,
}

/// `auth.tokens`
#[derive(Clone, Debug, PartialEq)]
pub enum Tokens {
    /// Generated into `<state_dir>/token` on first start.
    Auto,
}

/// `log.*`
#[derive(Clone, Debug, PartialEq)]
pub struct Log {
    /// Where access log lines go.
    pub access: AccessLog,
    /// How they look.
    pub format: LogFormat,
}

/// `log.access`
#[derive(Clone, Debug, PartialEq)]
pub enum AccessLog {
    /// Standard output.
    Stdout,
    /// Nowhere.
    Off,
    /// Appended to this file; SIGHUP reopens it.
    File(PathBuf),
}

/// `log.format`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// `key=value` pairs.
    Logfmt,
    /// One JSON object a line, same keys.
    Json,
}
