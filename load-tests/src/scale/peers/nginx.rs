//! nginx: hosts in a map whose values are addresses, and a server block for
//! every app.
//!
//! `proxy_pass` to a variable that holds an address needs no resolver, and has
//! no upstream keepalive. The hash sizes are what nginx asks for.

use std::fs;
use std::net::SocketAddr;

use anyhow::Result;
use rustix::process::Signal;

use super::{Place, Subject};
use crate::child::{Plan, Running, StopSignal};
use crate::scale::apps::Apps;

/// Every host in a map.
pub struct Map;

/// A server block for every app.
pub struct Servers;

impl Subject for Map {
    fn name(&self) -> &'static str {
        "nginx-map"
    }

    fn write(&self, place: &Place, changed: SocketAddr) -> Result<()> {
        let line = |number| {
            let address = place.address_of(number, changed);
            format!("{} {address};", Apps::host(number))
        };
        place.apps.write(&place.folder.join("hosts.map"), line)?;
        let (folder, address) = (place.folder.display(), place.address);
        let body = format!(
            "    map $host $backend {{
        default 127.0.0.1:9;
        include {folder}/hosts.map;
    }}
    server {{
        listen {address} backlog=4096;
        location / {{
            proxy_pass http://$backend;
        }}
    }}"
        );
        fs::write(place.folder.join("nginx.conf"), configuration(place, &body))?;
        Ok(())
    }

    fn start(&self, place: &Place) -> Result<Running> {
        start(self.name(), place)
    }

    fn reload(&self, running: &Running) -> Result<()> {
        running.signal(Signal::HUP)
    }
}

impl Subject for Servers {
    fn name(&self) -> &'static str {
        "nginx-servers"
    }

    fn write(&self, place: &Place, changed: SocketAddr) -> Result<()> {
        let listen = place.address;
        let block = |number| {
            let (host, address) = (Apps::host(number), place.address_of(number, changed));
            format!(
                "server {{ listen {listen}; server_name {host}; location / {{ proxy_pass http://{address}; }} }}"
            )
        };
        place
            .apps
            .write(&place.folder.join("servers.conf"), block)?;
        let hash_size = place.apps.count.next_power_of_two();
        let body = format!(
            "    server_names_hash_bucket_size 128;
    server_names_hash_max_size {hash_size};
    include {}/servers.conf;",
            place.folder.display()
        );
        fs::write(place.folder.join("nginx.conf"), configuration(place, &body))?;
        Ok(())
    }

    fn start(&self, place: &Place) -> Result<Running> {
        start(self.name(), place)
    }

    fn reload(&self, running: &Running) -> Result<()> {
        running.signal(Signal::HUP)
    }
}

fn start(name: &'static str, place: &Place) -> Result<Running> {
    let folder = &place.folder;
    Running::start(&Plan {
        name,
        command: vec![
            "nginx".into(),
            "-p".into(),
            folder.into(),
            "-e".into(),
            folder.join("error.log").into(),
            "-c".into(),
            folder.join("nginx.conf").into(),
        ],
        core: None,
        stop: StopSignal::Term,
        stdout: folder.join("stdout"),
        stderr: folder.join("stderr"),
    })
}

/// What both have: WebSockets, a buffered log, no limit of requests a connection.
fn configuration(place: &Place, body: &str) -> String {
    let folder = place.folder.display();
    let hash_size = place.apps.count.next_power_of_two();
    format!(
        r#"daemon off;
worker_processes auto;
pid {folder}/nginx.pid;
error_log {folder}/error.log warn;
events {{
    worker_connections 19900;
}}
http {{
    access_log {folder}/access.log combined buffer=64k flush=1s;
    keepalive_timeout 600s;
    keepalive_requests 1000000000;
    proxy_read_timeout 600s;
    proxy_http_version 1.1;
    proxy_set_header Host $http_host;
    proxy_set_header Upgrade $http_upgrade;
    proxy_set_header Connection $upstream_connection;
    client_body_temp_path {folder}/client_body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    map_hash_bucket_size 128;
    map_hash_max_size {hash_size};
    map $http_upgrade $upstream_connection {{
        default upgrade;
        '' '';
    }}
{body}
}}
"#
    )
}
