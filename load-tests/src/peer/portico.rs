//! Portico itself: the release binary beside this one, its apps imported
//! through the registration API like anyone's.

use std::fmt::Write;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::{Site, first_line, free_address};
use crate::child::{Plan, Running, StopSignal};
use crate::{interrupt, machine};

/// A Portico that is up, and how to speak with it.
#[derive(Debug)]
pub struct Launched {
    /// The supervisor's process; control and edge are its children.
    pub running: Running,
    api: SocketAddr,
    admin: SocketAddr,
    token: String,
}

/// How long the import and every edge's table may take.
const READY_TIMEOUT: Duration = Duration::from_secs(30);

/// The release build beside this program.
pub fn program() -> Result<PathBuf> {
    let program = machine::target_folder()?.join("release/portico");
    ensure!(
        program.exists(),
        "{} is not there: run `cargo build --release`",
        program.display()
    );
    Ok(program)
}

/// As `portico --version` says.
pub fn version() -> Result<String> {
    version_of(&program()?)
}

/// The same of any build.
pub fn version_of(program: &Path) -> Result<String> {
    let named = program.to_str();
    let line = first_line(
        named.context("a program's path must be text")?,
        &["--version"],
    )?;
    Ok(line.trim_start_matches("portico ").to_owned())
}

/// Starts supervisor, control and an edge of one thread; registers the apps.
pub fn start(site: &Site, address: SocketAddr) -> Result<Running> {
    let log = site.folder.join("access.log");
    let settings = [
        "edge.threads=1".to_owned(),
        format!("log.access=\"file:{}\"", log.display()),
    ];
    let launched = Launching {
        program: &site.portico,
        folder: &site.folder,
        address,
        core: Some(site.core),
        settings: &settings,
    }
    .launch()?;
    launched.import(site)?;
    launched.wait_active()?;
    Ok(launched.running)
}

/// A Portico to be started at its defaults but for where it listens and keeps
/// its state, and for `settings`.
#[derive(Clone, Copy, Debug)]
pub struct Launching<'a> {
    /// The build.
    pub program: &'a Path,
    /// Its own folder.
    pub folder: &'a Path,
    /// Where it serves.
    pub address: SocketAddr,
    /// The core it runs on; `None` leaves it to the scheduler.
    pub core: Option<usize>,
    /// `KEY=TOML`.
    pub settings: &'a [String],
}

impl Launching<'_> {
    /// Starts it; returns once its API answers.
    pub fn launch(self) -> Result<Launched> {
        let Self {
            folder, address, ..
        } = self;
        let (api, admin) = (free_address()?, free_address()?);
        let state = folder.join("state");
        // A file of its own, empty: the harness's folder decides nothing.
        let empty = folder.join("portico.toml");
        fs::write(&empty, "")?;
        let mut command = vec![
            self.program.into(),
            "run".into(),
            "--config".into(),
            empty.into(),
        ];
        let places = [
            format!("state_dir=\"{}\"", state.display()),
            format!("edge.http=[\"{address}\"]"),
            format!("api.listen=\"{api}\""),
            format!("admin.listen=\"{admin}\""),
        ];
        for setting in places.iter().chain(self.settings) {
            command.extend(["--set".into(), setting.into()]);
        }
        let mut running = Running::start(&Plan {
            name: "portico",
            command,
            core: self.core,
            stop: StopSignal::Term,
            stdout: folder.join("stdout"),
            stderr: folder.join("stderr"),
        })?;
        let token = state.join("token");
        let mut ended = Ok(());
        interrupt::poll_until("portico's API", READY_TIMEOUT, || {
            ended = running.check_alive();
            ended.is_err() || (token.exists() && answers_200(&format!("http://{api}/healthz")))
        })?;
        ended?;
        Ok(Launched {
            running,
            api,
            admin,
            token: fs::read_to_string(token)?.trim().to_owned(),
        })
    }
}

fn answers_200(url: &str) -> bool {
    ureq::get(url)
        .call()
        .is_ok_and(|answer| answer.status().as_u16() == 200)
}

impl Launched {
    /// Every host an app with one backend.
    fn import(&self, site: &Site) -> Result<()> {
        let mut lines = String::new();
        for (number, host) in site.hosts.iter().enumerate() {
            writeln!(
                lines,
                r#"{{"app":"app-{number:05}","domains":["{host}"],"backends":{{"web.1":{{"address":"{}"}}}}}}"#,
                site.backend
            )?;
        }
        let url = format!("http://{}/v1/import", self.api);
        let sent = ureq::post(&url)
            .header("Authorization", &self.authorization())
            .header("Content-Type", "application/x-ndjson")
            .send(lines.as_str());
        let answer = sent
            .context("importing the apps")?
            .body_mut()
            .read_to_string()?;
        ensure!(
            !answer.contains("\"error\""),
            "importing the apps: {}",
            answer.chars().take(400).collect::<String>()
        );
        Ok(())
    }

    /// One call of the registration API: `PUT path` with a JSON body, and whatever it says an error.
    pub fn put(&self, path: &str, body: &str) -> Result<()> {
        self.put_at(self.api, path, body)
    }

    /// The same on the admin port.
    pub fn put_admin(&self, path: &str, body: &str) -> Result<()> {
        self.put_at(self.admin, path, body)
    }

    fn put_at(&self, at: SocketAddr, path: &str, body: &str) -> Result<()> {
        let sent = ureq::put(&format!("http://{at}{path}"))
            .header("Authorization", &self.authorization())
            .header("Content-Type", "application/json")
            .send(body);
        sent.with_context(|| format!("PUT {path} {body}"))?;
        Ok(())
    }

    /// `DELETE path` of the registration API.
    pub fn delete(&self, path: &str) -> Result<()> {
        let sent = ureq::delete(&format!("http://{}{path}", self.api))
            .header("Authorization", &self.authorization())
            .call();
        sent.with_context(|| format!("DELETE {path}"))?;
        Ok(())
    }

    /// Waits until every edge serves its table.
    pub fn wait_active(&self) -> Result<()> {
        let url = format!("http://{}/readyz", self.admin);
        interrupt::poll_until("portico's /readyz", READY_TIMEOUT, || answers_200(&url))
    }

    fn authorization(&self) -> String {
        format!("Bearer {}", self.token)
    }
}
