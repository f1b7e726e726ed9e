//! `portico ready`: asks a running router, found through its state folder,
//! whether it serves. For health checks of containers without a shell.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use crate::settings::Settings;

/// A health check has little time; a router that takes longer is not well.
const TIMEOUT: Duration = Duration::from_secs(3);

/// The addresses a running supervisor bound.
#[derive(Debug, serde::Deserialize)]
pub struct Addresses {
    /// `edge.http`
    pub http: Vec<SocketAddr>,
    /// `api.listen`
    pub api: SocketAddr,
    /// `admin.listen`
    pub admin: SocketAddr,
}

/// Why a router is not ready, or cannot be asked.
#[derive(Debug, thiserror::Error)]
pub enum ReadyError {
    /// No `addresses.json`: it does not run, or with another `state_dir`.
    #[error("no router runs with state_dir {path}: {why}")]
    NotRunning {
        /// The state folder.
        path: String,
        /// What is wrong with the file.
        why: String,
    },
    /// It answered, but not with 200.
    #[error("{url} answers {status}")]
    Status {
        /// What was asked.
        url: String,
        /// Its answer.
        status: u16,
    },
    /// It did not answer.
    #[error("{url}: {source}")]
    Unreachable {
        /// What was asked.
        url: String,
        /// What the client said.
        source: Box<ureq::Error>,
    },
}

/// Reads what the supervisor bound.
///
/// # Errors
/// [`ReadyError::NotRunning`].
pub fn addresses(settings: &Settings) -> Result<Addresses, ReadyError> {
    let not_running = |why: String| ReadyError::NotRunning {
        path: settings.state_dir.display().to_string(),
        why,
    };
    let text = std::fs::read_to_string(settings.state_dir.join("addresses.json"))
        .map_err(|error| not_running(format!("addresses.json: {error}")))?;
    serde_json::from_str(&text).map_err(|error| not_running(format!("addresses.json: {error}")))
}

/// Asks `/readyz` on the admin port.
///
/// # Errors
/// The router does not run, does not answer, or says it is not ready.
pub fn ask(settings: &Settings) -> Result<(), ReadyError> {
    let admin = reachable(addresses(settings)?.admin);
    let url = format!("http://{admin}/readyz");
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .timeout_global(Some(TIMEOUT))
        .http_status_as_error(false)
        .build()
        .into();
    match agent.get(&url).call() {
        Ok(answer) if answer.status().is_success() => Ok(()),
        Ok(answer) => Err(ReadyError::Status {
            status: answer.status().as_u16(),
            url,
        }),
        Err(source) => Err(ReadyError::Unreachable {
            url,
            source: Box::new(source),
        }),
    }
}

/// An address this machine can connect to: a wildcard one is its loopback.
pub fn reachable(bound: SocketAddr) -> SocketAddr {
    let ip = match bound.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, bound.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wildcard_is_asked_on_loopback() {
        let cases = [
            ("0.0.0.0:1", "127.0.0.1:1"),
            ("[::]:2", "[::1]:2"),
            ("192.0.2.1:3", "192.0.2.1:3"),
        ];
        for (bound, asked) in cases {
            assert_eq!(reachable(bound.parse().unwrap()).to_string(), asked);
        }
    }

    #[test]
    fn a_router_that_does_not_run_is_not_ready() {
        let temp = tempfile::tempdir().unwrap();
        let settings = Settings {
            state_dir: temp.path().to_owned(),
            ..Settings::default()
        };
        let said = ask(&settings).unwrap_err().to_string();
        assert!(said.contains("no router runs"), "{said}");
    }
}
