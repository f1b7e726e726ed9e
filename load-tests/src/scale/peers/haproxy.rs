//! HAProxy: hosts in a map file whose values are addresses; the destination is
//! set from it. Master and worker, so that it can reload.

use std::fs;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;

use super::{CHANGED, Place, Subject};
use crate::child::{Plan, Running, StopSignal};
use crate::scale::apps::Apps;

/// How long one order at runtime may take.
const ORDER_TIMEOUT: Duration = Duration::from_secs(10);

/// Every host in a map file.
pub struct Map;

impl Subject for Map {
    fn name(&self) -> &'static str {
        "haproxy-map"
    }

    fn write(&self, place: &Place, changed: SocketAddr) -> Result<()> {
        let line = |number| {
            let address = place.address_of(number, changed);
            format!("{} {address}", Apps::host(number))
        };
        place.apps.write(&place.folder.join("hosts.map"), line)?;
        fs::write(place.folder.join("haproxy.cfg"), configuration(place))?;
        Ok(())
    }

    fn start(&self, place: &Place) -> Result<Running> {
        let folder = &place.folder;
        Running::start(&Plan {
            name: self.name(),
            command: vec![
                "haproxy".into(),
                "-W".into(),
                "-f".into(),
                folder.join("haproxy.cfg").into(),
            ],
            core: None,
            stop: StopSignal::Term,
            stdout: folder.join("access.log"),
            stderr: folder.join("stderr"),
        })
    }

    fn reload(&self, running: &Running) -> Result<()> {
        running.signal(Signal::USR2)
    }

    fn change(&self, place: &Place, changed: SocketAddr) -> Result<Option<()>> {
        let map = place.folder.join("hosts.map");
        let mut stream = UnixStream::connect(place.folder.join("orders"))?;
        stream.set_read_timeout(Some(ORDER_TIMEOUT))?;
        let host = Apps::host(CHANGED);
        writeln!(stream, "set map {} {host} {changed}", map.display())?;
        let mut said = String::new();
        stream.read_to_string(&mut said).context("set map")?;
        ensure!(said.trim().is_empty(), "set map: {said}");
        Ok(Some(()))
    }
}

fn configuration(place: &Place) -> String {
    let (folder, address) = (place.folder.display(), place.address);
    format!(
        r"global
    maxconn 15000
    no strict-limits
    log stdout format raw local0 info
    stats socket {folder}/orders mode 600 level admin expose-fd listeners

defaults
    mode http
    log global
    option httplog
    option http-keep-alive
    timeout connect 5s
    timeout client 600s
    timeout server 600s
    timeout tunnel 600s
    timeout http-request 10s

frontend public
    bind {address} backlog 4096
    option forwardfor
    http-request set-var(txn.backend) req.hdr(host),lower,map_str({folder}/hosts.map)
    http-request deny deny_status 404 unless {{ var(txn.backend) -m found }}
    http-request set-dst var(txn.backend),field(1,:)
    http-request set-dst-port var(txn.backend),field(2,:)
    default_backend apps

backend apps
    server app 0.0.0.0:0
"
    )
}
