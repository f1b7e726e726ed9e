//! Debian's HAProxy, configured as its experts do.
//!
//! One thread; hosts in a map file; `http-reuse always`; the log to standard
//! output, which is a file here (HAProxy writes no log file itself: this is a
//! write per line, and a syslog datagram per line would cost it the same);
//! Prometheus counters on. Once with its default buffers of 16 KiB and once with
//! 64 KiB, which halve what a 1 MiB body costs it and make small ones dearer.

use std::fs;
use std::net::SocketAddr;

use anyhow::Result;

use super::{Site, first_line, free_address};
use crate::child::{Plan, Running, StopSignal};

/// As `haproxy -v` says.
pub fn version() -> Result<String> {
    let line = first_line("haproxy", &["-v"])?;
    Ok(line.split([' ', '-']).nth(2).unwrap_or(&line).to_owned())
}

/// Starts it in the foreground, with buffers of this size.
pub fn start(site: &Site, address: SocketAddr, buffer_bytes: u32) -> Result<Running> {
    let folder = &site.folder;
    let map: String = site
        .hosts
        .iter()
        .map(|host| format!("{host} apps\n"))
        .collect();
    fs::write(folder.join("hosts.map"), map)?;
    fs::write(
        folder.join("haproxy.cfg"),
        configuration(site, address, buffer_bytes)?,
    )?;
    Running::start(&Plan {
        name: "haproxy",
        command: vec![
            "haproxy".into(),
            "-db".into(),
            "-f".into(),
            folder.join("haproxy.cfg").into(),
        ],
        core: Some(site.core),
        stop: StopSignal::Term,
        stdout: folder.join("access.log"),
        stderr: folder.join("stderr"),
    })
}

fn configuration(site: &Site, address: SocketAddr, buffer_bytes: u32) -> Result<String> {
    let folder = site.folder.display();
    let backend = site.backend;
    let metrics = free_address()?;
    Ok(format!(
        r"global
    nbthread 1
    maxconn 15000
    no strict-limits
    tune.bufsize {buffer_bytes}
    log stdout format raw local0 info

defaults
    mode http
    log global
    option httplog
    option dontlognull
    option http-keep-alive
    http-reuse always
    timeout connect 5s
    timeout client 600s
    timeout server 600s
    timeout http-request 10s
    timeout http-keep-alive 600s
    maxconn 15000

frontend public
    bind {address} backlog 4096
    option forwardfor
    unique-id-format %[uuid()]
    unique-id-header X-Request-Id
    http-request set-header X-Forwarded-Proto http
    use_backend %[req.hdr(host),lower,map_str({folder}/hosts.map)]

backend apps
    server backend {backend}

frontend metrics
    bind {metrics}
    option dontlog-normal
    http-request use-service prometheus-exporter if {{ path /metrics }}
"
    ))
}
