//! `scale`: a million apps, changes all the time, reloads, upgrades, and
//! processes killed; what do clients notice, and where do the peers give up?
//!
//! Owns the campaign: which scenarios, in which order, within which time. What
//! each must meet stands in its own file, beside how it is measured. Portico
//! runs at its defaults, from a copy of its program, on the same cores as the
//! clients and backends: this is one machine, as small as the figures allow.
//! Results are kept in one file that later runs add to.

mod apps;
pub mod backend;
mod catalogue;
mod churn;
mod crowd;
mod exposition;
pub mod figure;
mod kills;
mod lookup;
mod million;
mod peers;
mod registrations;
mod reloads;
mod report;
mod router;
mod tries;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use self::apps::Apps;
use self::report::{Found, Results, Run};
use self::router::{Router, Site};
use crate::child::{OWN_PROGRAM, Plan, Running, StopSignal};
use crate::report::Report;
use crate::{campaign, interrupt, machine, peer};

/// Backends that exist.
const BACKENDS: usize = 4;
/// What each takes a request, ms: so there are requests in flight.
const SERVICE_MS: u64 = 3;
/// How long the import of all apps may take, at worst.
const IMPORT_LIMIT: Duration = Duration::from_secs(180);
/// How long a router may take to be ready.
const READY_LIMIT: Duration = Duration::from_secs(60);

/// `scale`
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// Scenarios, by key; all but `lookup` if not given.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Apps where there are many.
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(10_000..=4_000_000))]
    apps: u64,
    /// Seconds of changes, and of kills.
    #[arg(long)]
    seconds: Option<u64>,
    /// Reloads and upgrades in a row.
    #[arg(long, default_value_t = 100)]
    times: usize,
    /// The program to measure; `release/portico` beside this one if not given.
    #[arg(long)]
    portico: Option<PathBuf>,
    /// Where everything is put while it runs: on a disk, as Portico's store is.
    #[arg(long)]
    folder: Option<PathBuf>,
    #[command(flatten)]
    results: campaign::Keeping,
}

/// A scenario.
struct Scenario {
    /// Its name on the command line and in the JSON.
    key: &'static str,
    /// Its name in the report.
    title: &'static str,
    /// Who is put through it.
    subject: &'static str,
    /// It takes a part of its work up again within this, seconds.
    limit_seconds: u64,
    /// Finds the figures.
    run: fn(&mut Bench, &mut Found) -> Result<()>,
}

const fn portico(
    key: &'static str,
    title: &'static str,
    limit_seconds: u64,
    run: fn(&mut Bench, &mut Found) -> Result<()>,
) -> Scenario {
    Scenario {
        key,
        title,
        subject: "Portico",
        limit_seconds,
        run,
    }
}

const fn peer(
    key: &'static str,
    subject: &'static str,
    run: fn(&mut Bench, &mut Found) -> Result<()>,
) -> Scenario {
    Scenario {
        key,
        title: "peers",
        subject,
        limit_seconds: 150,
        run,
    }
}

/// Not run unless it is asked for by name: it builds the benchmark.
const LOOKUP: &str = "lookup";

/// Every scenario, in the order they are run.
const SCENARIOS: &[Scenario] = &[
    portico(
        "million",
        "all apps: import, memory, starts, takeovers",
        330,
        million::run,
    ),
    portico(
        "churn",
        "changes under traffic, at all apps",
        120,
        churn::run,
    ),
    portico(
        "reloads",
        "reloads and upgrades in a row, under traffic and WebSockets",
        180,
        reloads::run,
    ),
    portico(
        "kill-edge",
        "kill -9 of the serving edge, again and again",
        80,
        kills::edge,
    ),
    portico(
        "kill-control",
        "kill -9 of control, again and again, under registrations",
        80,
        kills::control,
    ),
    portico(
        "kill-both",
        "kill -9 of both at once, again and again",
        60,
        kills::both,
    ),
    peer("nginx-map", "nginx, map", peers::nginx_map),
    peer(
        "nginx-servers",
        "nginx, a server block an app",
        peers::nginx_servers,
    ),
    peer("haproxy-map", "HAProxy, map", peers::haproxy_map),
    peer("envoy", "Envoy, RDS and CDS files", peers::envoy),
    portico(
        LOOKUP,
        "host lookup (cargo bench --bench table)",
        900,
        lookup::run,
    ),
];

/// What scenarios work with, and leave to each other.
struct Bench {
    options: Options,
    folder: PathBuf,
    program: PathBuf,
    backends: Vec<SocketAddr>,
    /// A router with every app, once one scenario has made it.
    fleet: Option<Router>,
    deadline: Instant,
    _backends: Running,
}

/// Runs what is asked for; prints and writes the report after each scenario, so that nothing is lost.
pub fn run(options: &Options) -> Result<()> {
    let scenarios = chosen(&options.only)?;
    if options.results.list {
        for Scenario {
            key,
            title,
            subject,
            limit_seconds,
            ..
        } in scenarios
        {
            println!("{key:14} {subject}: {title} (within {limit_seconds} s)");
        }
        return Ok(());
    }
    interrupt::install()?;
    machine::raise_file_limit()?;
    campaign::carry_out(&options.results, |results, out| {
        runs(options, &scenarios, results, out)
    })
}

fn runs(
    options: &Options,
    scenarios: &[&Scenario],
    results: &mut Results,
    out: &Path,
) -> Result<()> {
    let folder = campaign::folder("portico-scale.", options.folder.as_deref())?;
    let mut bench = Bench::new(options, folder.path())?;
    let mut failed = 0;
    for scenario in scenarios {
        let began = Instant::now();
        bench.deadline = began + Duration::from_secs(scenario.limit_seconds);
        let mut found = Found::default();
        let done = (scenario.run)(&mut bench, &mut found);
        interrupt::pause(Duration::ZERO)?; // interrupted: that is the error
        if let Err(error) = &done {
            eprintln!(
                "{} {}: broke off: {error:#}",
                scenario.key, scenario.subject
            );
            found.notes.push(format!("broke off: {error:#}"));
            failed += 1;
        }
        let run = Run {
            scenario: scenario.key.to_owned(),
            title: scenario.title.to_owned(),
            subject: scenario.subject.to_owned(),
            date: Report::now()?,
            command: Report::command(),
            took_seconds: began.elapsed().as_secs_f64(),
            found,
        };
        eprintln!("{run}");
        results.add(run);
        results.write(out)?;
    }
    if options.results.keep {
        eprintln!("kept: {}", folder.keep().display());
    }
    drop(bench);
    ensure!(failed == 0, "{failed} scenarios broke off");
    Ok(())
}

impl Bench {
    fn new(options: &Options, folder: &Path) -> Result<Self> {
        let program = match &options.portico {
            Some(program) => program.canonicalize()?,
            None => machine::target_folder()?.join("release/portico"),
        };
        ensure!(
            program.exists(),
            "{} is not there: run `cargo build --release`",
            program.display()
        );
        let backends: Vec<SocketAddr> = (0..BACKENDS)
            .map(|_| peer::free_address())
            .collect::<Result<_>>()?;
        let mut command = vec![
            OWN_PROGRAM.into(),
            "scale-backend".into(),
            "--service-ms".into(),
            SERVICE_MS.to_string().into(),
        ];
        command.extend(backends.iter().map(|address| address.to_string().into()));
        let running = Running::start(&Plan {
            name: "backends",
            command,
            core: None,
            stop: StopSignal::Kill,
            stdout: folder.join("backends.stdout"),
            stderr: folder.join("backends.stderr"),
        })?;
        let all_answer = || backends.iter().all(|one| router::answers(*one, "backend"));
        interrupt::poll_until("the backends", Duration::from_secs(5), all_answer)?;
        Ok(Self {
            options: options.clone(),
            folder: folder.to_owned(),
            program,
            backends,
            fleet: None,
            deadline: Instant::now(),
            _backends: running,
        })
    }

    /// What is left of this scenario's time.
    fn left(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }

    /// Seconds of a scenario that lasts as long as one likes.
    fn seconds(&self, usual: u64) -> u64 {
        self.options.seconds.unwrap_or(usual)
    }

    /// As many apps as the scenarios with many have.
    fn all_apps(&self) -> Result<Apps> {
        Ok(self.apps(usize::try_from(self.options.apps)?))
    }

    fn apps(&self, count: usize) -> Apps {
        Apps {
            count,
            backends: self.backends.clone(),
        }
    }

    /// A router of its own, with these apps, ready; the time of their import.
    fn router(&self, name: &str, apps: &Apps) -> Result<(Router, Duration)> {
        let mut router = Site::new(&self.program, self.folder.join(name))?.start()?;
        router.wait_ready(READY_LIMIT)?;
        let file = self.folder.join(format!("{name}.ndjson"));
        apps.write_import(&file)?;
        let path = file.to_str().context("a folder's name must be text")?;
        let took = router.operate(&["import", "--wait", path], IMPORT_LIMIT)?;
        std::fs::remove_file(&file)?;
        ensure!(
            router.answers(&Apps::host(0)),
            "the first app is imported and does not answer"
        );
        Ok((router, took))
    }

    /// The router with every app, made if there is none, running and ready.
    fn fleet(&mut self) -> Result<&mut Router> {
        if self.fleet.is_none() {
            let (router, _) = self.router("million", &self.all_apps()?)?;
            self.fleet = Some(router);
        }
        let fleet = self.fleet.as_mut().context("it must be there")?;
        fleet.wait_ready(READY_LIMIT)?;
        Ok(fleet)
    }
}

/// The hosts that traffic asks for: apps whose backends exist.
fn traffic_hosts() -> Vec<String> {
    (0..1_000).map(Apps::host).collect()
}

/// The scenarios of these keys, in the table's order.
fn chosen(keys: &[String]) -> Result<Vec<&'static Scenario>> {
    for key in keys {
        if !SCENARIOS.iter().any(|scenario| scenario.key == key) {
            let known: Vec<&str> = SCENARIOS.iter().map(|scenario| scenario.key).collect();
            bail!("no scenario {key:?}; there are {}", known.join(", "));
        }
    }
    let is_asked = |scenario: &&Scenario| match keys {
        [] => scenario.key != LOOKUP,
        keys => keys.iter().any(|key| key == scenario.key),
    };
    Ok(SCENARIOS.iter().filter(is_asked).collect())
}
