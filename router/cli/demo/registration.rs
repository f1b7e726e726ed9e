//! Registers the sample instances, through the API like any app would, once
//! the router is ready.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::DemoError;
use super::app::Instance;
use crate::cli::ready;
use crate::settings::Settings;

/// How long the router may take to get ready.
const PATIENCE: Duration = Duration::from_secs(30);
/// Between two looks.
const PAUSE: Duration = Duration::from_millis(50);
/// For one API call.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Hosts by which a browser on this machine may call.
const DOMAINS: [&str; 3] = ["localhost", "127.0.0.1", "demo.localhost"];

/// Waits, registers, and prints where to look.
pub(super) fn register(settings: &Settings, instances: &[Instance]) -> Result<(), DemoError> {
    wait_until_ready(settings)?;
    let addresses = ready::addresses(settings)?;
    let token = std::fs::read_to_string(settings.token_path())
        .map_err(|error| format!("{}: {error}", settings.token_path().display()))?;
    let api = Api {
        address: ready::reachable(addresses.api),
        token: token.trim().to_owned(),
    };
    api.put("/v1/apps/demo", &json!({ "domains": DOMAINS }))?;
    for instance in instances {
        let backend = json!({
            "address": instance.address.to_string(),
            "release": instance.release,
        });
        // The last one waits until the edge routes by it.
        let wait = if instance.id == "web.3" {
            "?wait=active"
        } else {
            ""
        };
        api.put(
            &format!("/v1/apps/demo/backends/{}{wait}", instance.id),
            &backend,
        )?;
    }
    let port = addresses.http.first().map_or(0, SocketAddr::port);
    eprintln!("\n  Three instances of the app `demo` are behind http://localhost:{port}/");
    eprintln!("  Operator token: {}", settings.token_path().display());
    eprintln!(
        "  Admin port:     http://{}/",
        ready::reachable(addresses.admin)
    );
    eprintln!("  Ctrl-C ends it all.\n");
    Ok(())
}

fn wait_until_ready(settings: &Settings) -> Result<(), DemoError> {
    let end = Instant::now() + PATIENCE;
    loop {
        match ready::ask(settings) {
            Ok(()) => return Ok(()),
            Err(error) if Instant::now() >= end => {
                return Err(format!("the router did not get ready: {error}").into());
            }
            Err(_) => std::thread::park_timeout(PAUSE),
        }
    }
}

struct Api {
    address: SocketAddr,
    token: String,
}

impl Api {
    fn put(&self, path: &str, body: &Value) -> Result<(), DemoError> {
        let url = format!("http://{}{path}", self.address);
        let agent: ureq::Agent = ureq::Agent::config_builder()
            .timeout_global(Some(TIMEOUT))
            .http_status_as_error(false)
            .build()
            .into();
        let request = agent
            .put(&url)
            .header("Authorization", format!("Bearer {}", self.token));
        let mut answer = request
            .send_json(body)
            .map_err(|error| format!("PUT {url}: {error}"))?;
        if answer.status().is_success() {
            return Ok(());
        }
        let said = answer.body_mut().read_to_string().unwrap_or_default();
        Err(format!("PUT {url}: {} {said}", answer.status()).into())
    }
}
