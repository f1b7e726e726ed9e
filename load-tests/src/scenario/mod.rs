//! Scenarios, one file each, and the bench they all stand on.

pub mod idle;
pub mod latency;
pub mod throughput;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

use crate::child::{OWN_PROGRAM, Plan, Running, StopSignal};
use crate::machine::Machine;
use crate::open_loop;
use crate::peer::{self, Peer, Site, Started};
use crate::report::Report;
use crate::{interrupt, machine};

/// What every scenario lets its caller choose.
#[derive(Clone, Debug, clap::Args)]
pub struct Choices {
    /// Who is measured; everyone who is installed if not given.
    #[arg(long, value_enum, value_delimiter = ',')]
    pub peers: Vec<Peer>,
    /// Apps (hosts) each proxy knows; the load asks for one of them.
    #[arg(long, default_value_t = 10_000)]
    pub apps: usize,
    /// Keepalive connections of the load.
    #[arg(long, default_value_t = 64)]
    pub connections: usize,
    /// Where the JSON, the table and the plot are written; `target/load-tests` if not given.
    #[arg(long)]
    pub out: Option<PathBuf>,
}

impl Choices {
    /// The report's folder, made.
    pub fn out_folder(&self) -> Result<PathBuf> {
        let folder = match &self.out {
            Some(folder) => folder.clone(),
            None => machine::target_folder()?.join("load-tests"),
        };
        std::fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
        Ok(folder)
    }
}

/// A backend, a folder, two cores: what peers are started on.
#[derive(Debug)]
pub struct Bench {
    // Dropped in this order: the backend ends before its folder goes.
    _backend: Running,
    backend_address: SocketAddr,
    hosts: Vec<String>,
    /// The build that [`Peer::Before`] is.
    pub before: Option<PathBuf>,
    proxy_core: usize,
    /// The core of load and backend.
    pub load_core: usize,
    /// Who is measured, with versions, in the report's order.
    pub peers: Vec<(Peer, String)>,
    /// Who is not, and why.
    pub absent: Vec<(Peer, String)>,
    folder: TempDir,
}

impl Bench {
    /// Starts the backend; finds out who can be measured.
    pub fn set_up(choices: &Choices) -> Result<Self> {
        interrupt::install()?;
        machine::raise_file_limit()?;
        if choices.apps == 0 || choices.connections == 0 {
            bail!("--apps and --connections must be at least 1");
        }
        let (proxy_core, load_core) = machine::pinned_cores()?;
        let (peers, absent) = who_is_here(&choices.peers)?;
        let folder = tempfile::Builder::new()
            .prefix("portico-load-tests.")
            .tempdir()?;
        // nginx's workers give up root, and must still find their files.
        std::fs::set_permissions(
            folder.path(),
            std::os::unix::fs::PermissionsExt::from_mode(0o755),
        )?;
        let backend_address = peer::free_address()?;
        let mut backend = Running::start(&Plan {
            name: "backend",
            command: vec![
                OWN_PROGRAM.into(),
                "backend".into(),
                backend_address.to_string().into(),
            ],
            core: Some(load_core),
            stop: StopSignal::Kill,
            stdout: folder.path().join("backend.out"),
            stderr: folder.path().join("backend.err"),
        })?;
        peer::wait_ready(
            "backend",
            &mut backend,
            backend_address,
            "backend.example",
            "/12",
        )?;
        let hosts = peer::hosts(choices.apps);
        Ok(Self {
            _backend: backend,
            backend_address,
            hosts,
            before: None,
            proxy_core,
            load_core,
            peers,
            absent,
            folder,
        })
    }

    /// Starts one peer, in a folder of its own.
    pub fn start(&self, peer: Peer) -> Result<Started> {
        let folder = self.folder.path().join(peer.name().replace(' ', "-"));
        std::fs::create_dir_all(&folder)?;
        let portico = match (peer, &self.before) {
            (Peer::Before, Some(program)) => program.clone(),
            // Who measures no Portico needs none.
            _ => peer::portico_program().unwrap_or_default(),
        };
        let site = Site {
            folder,
            portico,
            backend: self.backend_address,
            hosts: self.hosts.clone(),
            core: self.proxy_core,
        };
        peer.start(&site)
            .with_context(|| format!("starting {}", peer.name()))
    }

    /// The host the load asks for.
    pub fn test_host(&self) -> &str {
        &self.hosts[self.hosts.len() / 2]
    }

    /// The bench's folder: gone when the bench is.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// A report of this bench's conditions, without figures yet.
    fn report(
        &self,
        scenario: &str,
        choices: &Choices,
        rounds: u64,
        seconds: u64,
    ) -> Result<Report> {
        Ok(Report {
            scenario: scenario.to_owned(),
            date: Report::now()?,
            command: Report::command(),
            machine: Machine::here(),
            versions: self.peers.clone(),
            absent: self.absent.clone(),
            connections: choices.connections,
            apps: choices.apps,
            rounds,
            seconds,
            tables: Vec::new(),
            half_rate: None,
        })
    }

    /// Open-loop load on a started peer, from the load's core.
    pub fn pace(
        &self,
        started: &Started,
        rate: f64,
        seconds: u64,
        connections: usize,
    ) -> Result<open_loop::Outcome> {
        let stdout = self.folder().join("pace.out");
        let arguments = [
            "pace".to_owned(),
            started.address.to_string(),
            format!("--host={}", self.test_host()),
            format!("--rate={rate}"),
            format!("--seconds={seconds}"),
            format!("--connections={connections}"),
        ];
        let mut command = vec![OWN_PROGRAM.into()];
        command.extend(arguments.map(Into::into));
        let plan = Plan {
            name: "pace",
            command,
            core: Some(self.load_core),
            stop: StopSignal::Kill,
            stdout: stdout.clone(),
            stderr: self.folder().join("pace.err"),
        };
        std::fs::write(&stdout, "")?; // the last run's outcome must not be read again
        Running::start(&plan)?.finish(Duration::from_secs(seconds + 15))?;
        serde_json::from_str(&std::fs::read_to_string(stdout)?)
            .context("reading the open-loop client's outcome")
    }
}

/// A peer with its version, or with why it is not measured.
type Named = (Peer, String);

/// Who of `wanted` (everyone if empty) can be measured; an error if nobody can.
fn who_is_here(wanted: &[Peer]) -> Result<(Vec<Named>, Vec<Named>)> {
    let (mut here, mut absent) = (Vec::new(), Vec::new());
    for peer in Peer::ALL {
        if !wanted.is_empty() && !wanted.contains(&peer) {
            continue;
        }
        match peer.version() {
            Ok(version) => here.push((peer, version)),
            Err(reason) => {
                eprintln!("{}: not measured: {reason:#}", peer.name());
                absent.push((peer, format!("{reason:#}")));
            }
        }
    }
    if here.is_empty() {
        bail!("nobody to measure; `load-tests setup` installs the peers");
    }
    Ok((here, absent))
}
