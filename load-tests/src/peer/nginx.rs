//! Debian's nginx, configured as its experts do.
//!
//! One worker; hosts in a `map`; upstream keepalive (HTTP/1.1, empty
//! `Connection`); request counts per connection raised so that none is closed;
//! the access log buffered; no temporary files; buffers of 16 KiB, the best of
//! those tried from 4 to 128 KiB: a 10 KiB answer fits one, and 64 connections'
//! buffers fit the core's cache (64 KiB each cost 1 MiB bodies twice the CPU).

use std::fs;
use std::net::SocketAddr;

use anyhow::Result;

use super::{Site, first_line, free_address};
use crate::child::{Plan, Running, StopSignal};

/// As `nginx -v` says.
pub fn version() -> Result<String> {
    let line = first_line("nginx", &["-v"])?;
    Ok(line.rsplit('/').next().unwrap_or(&line).to_owned())
}

/// Starts master and worker.
pub fn start(site: &Site, address: SocketAddr) -> Result<Running> {
    let folder = &site.folder;
    let map: String = site
        .hosts
        .iter()
        .map(|host| format!("{host} apps;\n"))
        .collect();
    fs::write(folder.join("hosts.map"), map)?;
    fs::write(folder.join("nginx.conf"), configuration(site, address)?)?;
    let configuration = folder.join("nginx.conf");
    Running::start(&Plan {
        name: "nginx",
        command: vec![
            "nginx".into(),
            "-p".into(),
            folder.into(),
            "-e".into(),
            folder.join("error.log").into(),
            "-c".into(),
            configuration.into(),
        ],
        core: Some(site.core),
        stop: StopSignal::Term,
        stdout: folder.join("stdout"),
        stderr: folder.join("stderr"),
    })
}

fn configuration(site: &Site, address: SocketAddr) -> Result<String> {
    let folder = site.folder.display();
    let backend = site.backend;
    let status = free_address()?;
    Ok(format!(
        r#"daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/error.log warn;
events {{
    use epoll;
    worker_connections 19900;
    multi_accept on;
}}
http {{
    log_format request '$msec $remote_addr $request_method "$request_uri" $host $status $body_bytes_sent '
                       '$request_time $upstream_addr $upstream_connect_time $upstream_header_time $request_id';
    access_log {folder}/access.log request buffer=64k flush=1s;
    sendfile on;
    tcp_nodelay on;
    tcp_nopush on;
    server_tokens off;
    keepalive_timeout 600s;
    keepalive_requests 1000000000;
    client_body_temp_path {folder}/client_body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    map_hash_bucket_size 128;
    map_hash_max_size 65536;
    map $host $pool {{
        default no_such_app;
        include {folder}/hosts.map;
    }}
    upstream no_such_app {{
        server 127.0.0.1:9 down;
    }}
    upstream apps {{
        server {backend} max_fails=0;
        keepalive 256;
        keepalive_requests 1000000000;
        keepalive_timeout 600s;
    }}
    server {{
        listen {address} backlog=4096;
        location / {{
            proxy_pass http://$pool;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header Host $http_host;
            proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
            proxy_set_header X-Forwarded-Proto $scheme;
            proxy_set_header X-Request-Id $request_id;
            proxy_buffer_size 16k;
            proxy_buffers 8 16k;
            proxy_busy_buffers_size 32k;
            proxy_max_temp_file_size 0;
        }}
    }}
    server {{
        listen {status};
        location = /status {{
            stub_status;
        }}
    }}
}}
"#
    ))
}
