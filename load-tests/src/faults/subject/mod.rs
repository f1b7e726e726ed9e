//! Who is put through the faults: Portico as it comes, each peer as it comes
//! and as its experts would configure it for just these faults, and a backend
//! without any proxy, which shows what the harness and the machine add.

mod portico;

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::child::Running;
use crate::peer::{self, Peer};
use crate::template::Blanks;

/// The host asked for.
pub const HOST: &str = "faults.example";

/// A proxy with a configuration.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    clap::ValueEnum,
    Serialize,
    Deserialize,
)]
#[serde(rename_all = "kebab-case")]
pub enum Subject {
    /// No proxy: one backend, asked directly.
    Direct,
    /// This repository's router: nothing tuned, the app registered without a policy.
    Portico,
    /// Debian's nginx, nothing said about failures.
    NginxDefaults,
    /// Debian's nginx, tuned for these faults.
    NginxExpert,
    /// Debian's HAProxy, nothing said about failures but `check`.
    HaproxyDefaults,
    /// Debian's HAProxy, tuned for these faults.
    HaproxyExpert,
    /// Envoy, nothing said about failures.
    EnvoyDefaults,
    /// Envoy, tuned for these faults.
    EnvoyExpert,
}

/// What a subject is started with.
#[derive(Debug)]
pub struct Place {
    /// Its own folder.
    pub folder: PathBuf,
    /// The pool.
    pub backends: Vec<SocketAddr>,
    /// The core it runs on; `None` leaves it to the scheduler.
    pub core: Option<usize>,
}

/// A subject that answers; ended when dropped.
#[derive(Debug)]
pub struct Started {
    /// Where the load goes.
    pub address: SocketAddr,
    running: Option<Running>,
}

impl Started {
    /// An error if it has ended by itself.
    pub fn check_alive(&mut self) -> Result<()> {
        self.running.as_mut().map_or(Ok(()), Running::check_alive)
    }
}

impl Subject {
    /// Everyone, in the order of the table.
    pub const ALL: [Self; 8] = [
        Self::Portico,
        Self::NginxDefaults,
        Self::NginxExpert,
        Self::HaproxyDefaults,
        Self::HaproxyExpert,
        Self::EnvoyDefaults,
        Self::EnvoyExpert,
        Self::Direct,
    ];

    /// As the report calls it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Direct => "no proxy",
            Self::Portico => "Portico defaults",
            Self::NginxDefaults => "nginx defaults",
            Self::NginxExpert => "nginx expert",
            Self::HaproxyDefaults => "HAProxy defaults",
            Self::HaproxyExpert => "HAProxy expert",
            Self::EnvoyDefaults => "Envoy defaults",
            Self::EnvoyExpert => "Envoy expert",
        }
    }

    /// Its version; an error says how to get it.
    pub fn version(self) -> Result<String> {
        match self {
            Self::Direct => Ok(String::new()),
            Self::Portico => Peer::Portico.version(),
            Self::NginxDefaults | Self::NginxExpert => Peer::Nginx.version(),
            Self::HaproxyDefaults | Self::HaproxyExpert => Peer::Haproxy.version(),
            Self::EnvoyDefaults | Self::EnvoyExpert => Peer::Envoy.version(),
        }
    }

    /// Starts it and waits until it answers for the pool.
    pub fn start(self, place: &Place) -> Result<Started> {
        let (address, mut running) = match self {
            Self::Direct => {
                let first = place.backends.first().context("a pool must not be empty")?;
                return Ok(Started {
                    address: *first,
                    running: None,
                });
            }
            Self::Portico => portico::start(place)?,
            _ => self.start_from_template(place)?,
        };
        peer::wait_ready(self.name(), &mut running, address, HOST, "/healthz")?;
        Ok(Started {
            address,
            running: Some(running),
        })
    }

    /// A peer's configuration, with blanks, and what to call the file.
    fn template(self) -> Option<(&'static str, &'static str)> {
        macro_rules! peer {
            ($name:literal) => {
                include_str!(concat!("../../../peers/faults/", $name))
            };
        }
        match self {
            Self::Direct | Self::Portico => None,
            Self::NginxDefaults => Some((peer!("nginx-defaults.conf"), "nginx.conf")),
            Self::NginxExpert => Some((peer!("nginx-expert.conf"), "nginx.conf")),
            Self::HaproxyDefaults => Some((peer!("haproxy-defaults.cfg"), "haproxy.cfg")),
            Self::HaproxyExpert => Some((peer!("haproxy-expert.cfg"), "haproxy.cfg")),
            Self::EnvoyDefaults => Some((peer!("envoy-defaults.yaml"), "envoy.yaml")),
            Self::EnvoyExpert => Some((peer!("envoy-expert.yaml"), "envoy.yaml")),
        }
    }

    fn start_from_template(self, place: &Place) -> Result<(SocketAddr, Running)> {
        let address = peer::free_address()?;
        let folder = &place.folder;
        let (template, name) = self.template().context("it must be configured by a file")?;
        let blanks = Blanks {
            listen: address,
            folder,
            groups: &[("BACKEND", &place.backends)],
            words: &[],
        };
        std::fs::write(folder.join(name), blanks.fill(template))?;
        let running = peer::start_configured(self.name(), name, folder, place.core, 0)?;
        Ok((address, running))
    }
}
