//! Who is put under load: Portico as it comes and told each backend's capacity,
//! each peer as it comes and as its experts would configure it for just this,
//! and Envoy with the filter that finds the capacity out by itself.

use std::io::Write;
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use anyhow::{Context, Result};
use rustix::process::Signal;
use serde::{Deserialize, Serialize};

use super::fleet::{BACKEND_RATE, SLOTS};
use crate::child::Running;
use crate::peer::{self, Launched, Launching, Peer};
use crate::template::Blanks;

/// The host of the app under load.
pub const NOISY: &str = "noisy.saturation.example";
/// The host of the app beside it.
pub const QUIET: &str = "quiet.saturation.example";

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
    /// This repository's router: nothing tuned, apps registered without a policy.
    Portico,
    /// The same; apps are registered with each backend's `max_concurrency`.
    PorticoLimit,
    /// Debian's nginx, nothing said about overload.
    NginxDefaults,
    /// Debian's nginx, told the capacity.
    NginxExpert,
    /// Debian's HAProxy, nothing said about overload.
    HaproxyDefaults,
    /// Debian's HAProxy, told the capacity.
    HaproxyExpert,
    /// Envoy, nothing said about overload.
    EnvoyDefaults,
    /// Envoy, told the capacity.
    EnvoyExpert,
    /// Envoy with its adaptive concurrency filter, told nothing.
    EnvoyAdaptive,
}

/// What changes mid-run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Every request takes twice as long.
    ServiceDoubles,
    /// One more backend is registered.
    BackendJoins,
    /// The last backend is deregistered, and goes on living.
    BackendLeaves,
}

/// What a subject is started with.
#[derive(Clone, Debug)]
pub struct Place {
    /// Its own folder.
    pub folder: PathBuf,
    /// The build, if it is Portico.
    pub program: PathBuf,
    /// The noisy app's backends.
    pub noisy: Vec<SocketAddr>,
    /// The backend that may join them.
    pub spare: SocketAddr,
    /// The quiet app's.
    pub quiet: Vec<SocketAddr>,
    /// What an expert lets the noisy app have of each of its backends at once.
    pub limit: u64,
    /// The core it runs on; `None` leaves it to the scheduler.
    pub core: Option<usize>,
    /// Data threads; 0 leaves it to the proxy.
    pub threads: usize,
    /// More settings, if it is Portico: `KEY=TOML`.
    pub settings: Vec<String>,
}

/// A subject that answers; ended when dropped.
#[derive(Debug)]
pub struct Started {
    /// Where the load goes.
    pub address: SocketAddr,
    place: Place,
    means: Means,
}

/// How it is spoken with.
#[derive(Debug)]
enum Means {
    Api(Launched),
    /// A template, what the file is called, and who reads it.
    File(&'static str, &'static str, Running),
}

impl Subject {
    /// Everyone, in the order of the table.
    pub const ALL: [Self; 9] = [
        Self::Portico,
        Self::PorticoLimit,
        Self::NginxDefaults,
        Self::NginxExpert,
        Self::HaproxyDefaults,
        Self::HaproxyExpert,
        Self::EnvoyDefaults,
        Self::EnvoyExpert,
        Self::EnvoyAdaptive,
    ];

    /// As the report calls it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Portico => "Portico defaults",
            Self::PorticoLimit => "Portico max_concurrency",
            Self::NginxDefaults => "nginx defaults",
            Self::NginxExpert => "nginx expert",
            Self::HaproxyDefaults => "HAProxy defaults",
            Self::HaproxyExpert => "HAProxy expert",
            Self::EnvoyDefaults => "Envoy defaults",
            Self::EnvoyExpert => "Envoy expert",
            Self::EnvoyAdaptive => "Envoy adaptive",
        }
    }

    /// Whether it is judged.
    pub fn is_portico(self) -> bool {
        matches!(self, Self::Portico | Self::PorticoLimit)
    }

    /// Its version; an error says how to get it.
    pub fn version(self, program: &std::path::Path) -> Result<String> {
        match self {
            Self::Portico | Self::PorticoLimit => peer::portico_version(program),
            Self::NginxDefaults | Self::NginxExpert => Peer::Nginx.version(),
            Self::HaproxyDefaults | Self::HaproxyExpert => Peer::Haproxy.version(),
            Self::EnvoyDefaults | Self::EnvoyExpert | Self::EnvoyAdaptive => Peer::Envoy.version(),
        }
    }

    /// A peer's configuration, with blanks, and what to call the file.
    fn template(self) -> Option<(&'static str, &'static str)> {
        macro_rules! peer {
            ($name:literal) => {
                include_str!(concat!("../../peers/saturation/", $name))
            };
        }
        match self {
            Self::Portico | Self::PorticoLimit => None,
            Self::NginxDefaults => Some((peer!("nginx-defaults.conf"), "nginx.conf")),
            Self::NginxExpert => Some((peer!("nginx-expert.conf"), "nginx.conf")),
            Self::HaproxyDefaults => Some((peer!("haproxy-defaults.cfg"), "haproxy.cfg")),
            Self::HaproxyExpert => Some((peer!("haproxy-expert.cfg"), "haproxy.cfg")),
            Self::EnvoyDefaults => Some((peer!("envoy-defaults.yaml"), "envoy.yaml")),
            Self::EnvoyExpert => Some((peer!("envoy-expert.yaml"), "envoy.yaml")),
            Self::EnvoyAdaptive => Some((peer!("envoy-adaptive.yaml"), "envoy.yaml")),
        }
    }

    /// Starts it and waits until it answers for both apps.
    pub fn start(self, place: &Place) -> Result<Started> {
        let address = peer::free_address()?;
        let means = match self.template() {
            None => Means::Api(self.start_portico(place, address)?),
            Some((template, name)) => {
                place.write(template, name, address)?;
                let Place { folder, core, .. } = place;
                let running =
                    peer::start_configured(self.name(), name, folder, *core, place.threads)?;
                Means::File(template, name, running)
            }
        };
        let mut started = Started {
            address,
            place: place.clone(),
            means,
        };
        for host in [NOISY, QUIET] {
            peer::wait_ready(self.name(), started.running(), address, host, "/")?;
        }
        Ok(started)
    }

    fn start_portico(self, place: &Place, address: SocketAddr) -> Result<Launched> {
        let mut settings = place.settings.clone();
        if place.threads > 0 {
            settings.push(format!("edge.threads={}", place.threads));
        }
        let launched = Launching {
            program: &place.program,
            folder: &place.folder,
            address,
            core: place.core,
            settings: &settings,
        }
        .launch()?;
        let policy = match self {
            Self::PorticoLimit => format!(r#","policy":{{"max_concurrency":{SLOTS}}}"#),
            _ => String::new(),
        };
        for (app, host, backends) in [
            ("noisy", NOISY, &place.noisy),
            ("quiet", QUIET, &place.quiet),
        ] {
            launched.put(
                &format!("/v1/apps/{app}"),
                &format!(r#"{{"domains":["{host}"]{policy}}}"#),
            )?;
            for (number, backend) in backends.iter().enumerate() {
                register(&launched, app, number + 1, *backend)?;
            }
        }
        launched.wait_active()?;
        Ok(launched)
    }
}

fn register(launched: &Launched, app: &str, number: usize, backend: SocketAddr) -> Result<()> {
    launched.put(
        &format!("/v1/apps/{app}/backends/web.{number}?wait=active"),
        &format!(r#"{{"address":"{backend}"}}"#),
    )
}

impl Place {
    /// Writes a peer's files.
    fn write(&self, template: &str, name: &str, listen: SocketAddr) -> Result<()> {
        let capacity = self.limit * self.noisy.len() as u64;
        let threads = match self.threads {
            0 => "auto".to_owned(),
            threads => threads.to_string(),
        };
        let rate = BACKEND_RATE * self.noisy.len() as f64;
        let blanks = Blanks {
            listen,
            folder: &self.folder,
            groups: &[
                ("BACKEND", &self.noisy),
                ("QUIET", &self.quiet),
                ("SPARE", &[self.spare]),
            ],
            words: &[
                ("AHEAD", (self.limit + 2).to_string()),
                ("LOOSE", (self.limit + 4).to_string()),
                ("QUEUE", (2 * capacity).to_string()),
                ("RATE", rate.to_string()),
                ("NOISY_HOST", NOISY.to_owned()),
                ("QUIET_HOST", QUIET.to_owned()),
                ("THREADS", threads),
            ],
        };
        if name == "envoy.yaml" {
            // Under another name first: Envoy looks when a file is moved into its place.
            let endpoints = include_str!("../../peers/saturation/envoy-endpoints.yaml");
            let new = self.folder.join("endpoints.new");
            std::fs::write(&new, blanks.fill(endpoints))?;
            std::fs::rename(new, self.folder.join("endpoints.yaml"))?;
        }
        std::fs::write(self.folder.join(name), blanks.fill(template))?;
        Ok(())
    }
}

impl Started {
    fn running(&mut self) -> &mut Running {
        match &mut self.means {
            Means::Api(launched) => &mut launched.running,
            Means::File(_, _, running) => running,
        }
    }

    /// The pid its cost is counted from, its children's included.
    pub fn pid(&self) -> u32 {
        match &self.means {
            Means::Api(launched) => launched.running.pid(),
            Means::File(_, _, running) => running.pid(),
        }
    }

    /// An error if it has ended by itself.
    pub fn check_alive(&mut self) -> Result<()> {
        self.running().check_alive()
    }

    /// Portico's API and admin port.
    pub fn portico(&self) -> Result<&Launched> {
        match &self.means {
            Means::Api(launched) => Ok(launched),
            Means::File(..) => anyhow::bail!("not Portico"),
        }
    }

    /// Registers or deregisters a backend of the noisy app, by the subject's own
    /// means: the API, HAProxy's socket, a reload of nginx, a file that Envoy watches.
    pub fn change_pool(&mut self, change: Change) -> Result<()> {
        let joins = change == Change::BackendJoins;
        let last = self.place.noisy.len();
        if joins {
            self.place.noisy.push(self.place.spare);
        } else {
            self.place.noisy.pop().context("a backend to leave")?;
        }
        match &self.means {
            Means::Api(launched) if joins => {
                register(launched, "noisy", last + 1, self.place.spare)
            }
            Means::Api(launched) => {
                launched.delete(&format!("/v1/apps/noisy/backends/web.{last}?drain=5s"))
            }
            Means::File(_, "haproxy.cfg", _) => {
                let order = if joins {
                    "set server app/spare1 state ready\n".to_owned()
                } else {
                    format!("set server app/web{last} state maint\n")
                };
                UnixStream::connect(self.place.folder.join("admin.sock"))?
                    .write_all(order.as_bytes())
                    .context("ordering HAProxy")
            }
            Means::File(template, name, running) => {
                self.place.write(template, name, self.address)?;
                if *name == "nginx.conf" {
                    running.signal(Signal::HUP)?;
                }
                Ok(())
            }
        }
    }
}
