//! A reverse proxy of a few lines on Pingora, as the peer Portico is measured against.
//!
//! Does what the other peers' configurations do and no more: finds the pool of
//! the request's host in a map, proxies to it over kept-alive connections, adds
//! `X-Forwarded-For`, `X-Forwarded-Proto` and `X-Request-Id`, and writes one
//! access log line a request to a file through a buffer. Never a product.
//!
//! Usage: `pingora-peer LISTEN UPSTREAM LOG_FILE HOSTS_FILE` (one host a line).

use std::collections::HashSet;
use std::error::Error;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use pingora_core::server::Server;
use pingora_core::server::configuration::ServerConf;
use pingora_core::upstreams::peer::HttpPeer;
use pingora_core::{Error as PingoraError, Result as PingoraResult};
use pingora_http::RequestHeader;
use pingora_proxy::{ProxyHttp, Session};

/// Log bytes held before a write, as nginx's `buffer=64k`.
const LOG_BUFFER_BYTES: usize = 64 * 1024;

/// Idle upstream connections kept: above the harness's connections.
const UPSTREAM_POOL: usize = 256;

struct Peer {
    upstream: SocketAddr,
    hosts: HashSet<String>,
    log: Mutex<BufWriter<File>>,
    boot: u64,
    requests: AtomicU64,
}

impl Peer {
    /// Unique is all a request id here must be; cheap favours this peer.
    fn request_id(&self) -> String {
        let count = self.requests.fetch_add(1, Ordering::Relaxed);
        format!("{:016x}{count:016x}", self.boot)
    }
}

#[async_trait]
impl ProxyHttp for Peer {
    type CTX = String;

    fn new_ctx(&self) -> String {
        self.request_id()
    }

    async fn upstream_peer(
        &self,
        session: &mut Session,
        _id: &mut String,
    ) -> PingoraResult<Box<HttpPeer>> {
        let host = session
            .req_header()
            .headers
            .get("host")
            .and_then(|value| value.to_str().ok());
        match host {
            Some(host) if self.hosts.contains(host) => {
                Ok(Box::new(HttpPeer::new(self.upstream, false, String::new())))
            }
            _ => Err(PingoraError::new(pingora_core::ErrorType::HTTPStatus(404))),
        }
    }

    async fn upstream_request_filter(
        &self,
        session: &mut Session,
        upstream_request: &mut RequestHeader,
        id: &mut String,
    ) -> PingoraResult<()> {
        let client = session
            .client_addr()
            .and_then(|address| address.as_inet())
            .map(|address| address.ip().to_string());
        upstream_request.insert_header("X-Forwarded-For", client.unwrap_or_default())?;
        upstream_request.insert_header("X-Forwarded-Proto", "http")?;
        upstream_request.insert_header("X-Request-Id", id.as_str())?;
        Ok(())
    }

    async fn logging(&self, session: &mut Session, _error: Option<&PingoraError>, id: &mut String) {
        let status = session
            .response_written()
            .map_or(0, |head| head.status.as_u16());
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_millis());
        let head = session.req_header();
        let mut log = self
            .log
            .lock()
            .expect("the log's lock must not be poisoned");
        // A full disk must not end the measurement: the line is lost, as nginx loses it.
        let _ = writeln!(
            log,
            "{now} {} {} {:?} {status} {} {id}",
            head.method,
            head.uri,
            head.headers.get("host"),
            session.body_bytes_sent()
        );
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().collect();
    let [_, listen, upstream, log, hosts] = args.as_slice() else {
        return Err("usage: pingora-peer LISTEN UPSTREAM LOG_FILE HOSTS_FILE".into());
    };
    let conf = ServerConf {
        threads: 1,
        upstream_keepalive_pool_size: UPSTREAM_POOL,
        ..ServerConf::default()
    };
    let mut server = Server::new_with_opt_and_conf(None, conf);
    server.bootstrap();
    let peer = Peer {
        upstream: upstream.parse()?,
        hosts: fs::read_to_string(hosts)?
            .lines()
            .map(str::to_owned)
            .collect(),
        log: Mutex::new(BufWriter::with_capacity(
            LOG_BUFFER_BYTES,
            File::options().create(true).append(true).open(log)?,
        )),
        boot: SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos() as u64,
        requests: AtomicU64::new(0),
    };
    let mut service = pingora_proxy::http_proxy_service(&Arc::clone(&server.configuration), peer);
    service.add_tcp(listen);
    server.add_service(service);
    server.run_forever();
}
