//! Portico as these scenarios hold it: a folder and addresses that outlive a
//! run, processes by role, settings that change, and signals.
//!
//! It runs at its defaults: told where to listen and keep its state, nothing
//! else. Its program is a copy in its own folder, so that an upgrade has a file
//! to replace.

use std::fs;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use memchr::memmem;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{
    Pid, PidfdFlags, Signal, kill_process, pidfd_open, pidfd_send_signal, test_kill_process,
};
use serde_json::Value;

use super::figure::Kill;
use crate::child::{Plan, Running, StopSignal};
use crate::faults::record::now_us;
use crate::{http_client, interrupt, peer, process_cost};

/// A call to the API or the admin port.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a killed process may take to be gone.
const DEATH_TIMEOUT: Duration = Duration::from_secs(10);

/// Where a router lives, whether it runs or not.
#[derive(Debug)]
pub struct Site {
    /// The program it is started from.
    pub program: PathBuf,
    folder: PathBuf,
    /// Where traffic goes.
    pub address: SocketAddr,
    /// Its registration API.
    pub api: SocketAddr,
    admin: SocketAddr,
}

/// A row of the process table.
#[derive(Clone, Debug, PartialEq)]
pub struct Process {
    /// `supervisor`, `control`, `edge`.
    pub role: String,
    /// 0 if there is none.
    pub pid: u32,
    /// `starting`, `standby`, `ready`, `draining`, `waiting`.
    pub state: String,
    /// Of the supervisor: how the last upgrade went.
    pub upgrade: Option<Value>,
}

/// A router that runs; ended when dropped.
#[derive(Debug)]
pub struct Router {
    /// Where it lives.
    pub site: Site,
    running: Running,
    agent: ureq::Agent,
}

impl Site {
    /// A folder for it, a copy of the program in it, and free addresses.
    pub fn new(program: &Path, folder: PathBuf) -> Result<Self> {
        fs::create_dir_all(&folder)?;
        let own = folder.join("portico");
        fs::copy(program, &own).with_context(|| format!("copying {}", program.display()))?;
        let site = Self {
            program: own,
            folder,
            address: peer::free_address()?,
            api: peer::free_address()?,
            admin: peer::free_address()?,
        };
        site.write_settings("")?;
        Ok(site)
    }

    /// The folder of its state.
    pub fn state(&self) -> PathBuf {
        self.folder.join("state")
    }

    /// Its settings: where it listens and keeps its state, and what `more` says.
    pub fn write_settings(&self, more: &str) -> Result<()> {
        let text = format!(
            "state_dir = \"{}\"\napi.listen = \"{}\"\nadmin.listen = \"{}\"\nedge.http = [\"{}\"]\n{more}\n",
            self.state().display(),
            self.api,
            self.admin,
            self.address
        );
        fs::write(self.folder.join("portico.toml"), text)?;
        Ok(())
    }

    /// Starts it; does not wait for anything.
    pub fn start(self) -> Result<Router> {
        let running = Running::start(&Plan {
            name: "portico",
            command: vec![
                self.program.clone().into(),
                "run".into(),
                "--config".into(),
                self.folder.join("portico.toml").into(),
            ],
            core: None,
            stop: StopSignal::Term,
            stdout: self.folder.join("stdout"),
            stderr: self.folder.join("stderr"),
        })?;
        let agent = ureq::Agent::config_builder()
            .timeout_global(Some(CALL_TIMEOUT))
            .http_status_as_error(false)
            .max_idle_connections(0)
            .build()
            .new_agent();
        Ok(Router {
            site: self,
            running,
            agent,
        })
    }
}

impl Router {
    /// The supervisor's pid.
    pub fn pid(&self) -> u32 {
        self.running.pid()
    }

    /// The operator's token.
    pub fn token(&self) -> Result<String> {
        let file = self.site.state().join("token");
        Ok(fs::read_to_string(file)?.trim().to_owned())
    }

    /// Waits until every edge serves its table.
    pub fn wait_ready(&mut self, limit: Duration) -> Result<()> {
        let mut ended = Ok(());
        let waited = interrupt::poll_until("portico's /readyz", limit, || {
            ended = self.running.check_alive();
            ended.is_err() || self.is_ready()
        });
        ended?;
        waited.with_context(|| format!("processes: {:?}", self.processes()))
    }

    /// Whether `/readyz` answers 200.
    pub fn is_ready(&self) -> bool {
        let url = format!("http://{}/readyz", self.site.admin);
        let answer = self.agent.get(&url).call();
        answer.is_ok_and(|answer| answer.status().as_u16() == 200)
    }

    fn get(&self, url: &str) -> Result<(u16, String)> {
        let token = self.token()?;
        let call = self
            .agent
            .get(url)
            .header("Authorization", &format!("Bearer {token}"));
        let mut answer = call.call().with_context(|| format!("GET {url}"))?;
        let body = answer.body_mut().with_config().limit(256 << 20);
        let body = body.read_to_string()?;
        Ok((answer.status().as_u16(), body))
    }

    /// The body of a GET on the admin port; an error if it is not answered with 200.
    pub fn admin(&self, path: &str) -> Result<String> {
        let (status, body) = self.get(&format!("http://{}{path}", self.site.admin))?;
        ensure!(status == 200, "GET {path}: {status} {body}");
        Ok(body)
    }

    /// Status and body of a GET on the API.
    pub fn api(&self, path: &str) -> Result<(u16, String)> {
        self.get(&format!("http://{}{path}", self.site.api))
    }

    /// `PUT path` on the API; an error if it is refused.
    pub fn put(&self, path: &str, body: &str) -> Result<()> {
        let call = self
            .agent
            .put(&format!("http://{}{path}", self.site.api))
            .header("Authorization", &format!("Bearer {}", self.token()?))
            .header("Content-Type", "application/json");
        let mut answer = call.send(body).with_context(|| format!("PUT {path}"))?;
        let status = answer.status().as_u16();
        if status >= 300 {
            bail!(
                "PUT {path}: {status} {}",
                answer.body_mut().read_to_string()?
            );
        }
        Ok(())
    }

    /// What the admin port says of memory, if it does.
    pub fn memory(&self) -> Option<Value> {
        serde_json::from_str(&self.admin("/memory").ok()?).ok()
    }

    /// The process table.
    pub fn processes(&self) -> Result<Vec<Process>> {
        processes(&self.admin("/processes")?)
    }

    /// The one process of this role in this state.
    pub fn process(&self, role: &str, state: &str) -> Result<Process> {
        let all = self.processes()?;
        let found = all
            .iter()
            .find(|one| one.role == role && one.state == state);
        found
            .cloned()
            .with_context(|| format!("no {role} is {state}: {all:?}"))
    }

    /// Waits until a process of this role is in this state and `fits`.
    pub fn wait_process(
        &self,
        (role, state): (&str, &str),
        limit: Duration,
        fits: impl Fn(&Process) -> bool,
    ) -> Result<Process> {
        let mut found = None;
        interrupt::poll_until(&format!("a {role} that is {state}"), limit, || {
            let all = self.processes().unwrap_or_default();
            found = all
                .into_iter()
                .find(|one| one.role == role && one.state == state && fits(one));
            found.is_some()
        })?;
        found.context("it must have been found")
    }

    /// Resident now and at its peak, MiB, of every process, by role; of equal roles the pid tells.
    pub fn memory_by_process(&self) -> Result<Vec<(Process, f64, f64)>> {
        let rows = self.processes()?.into_iter().filter(|one| one.pid != 0);
        let sized = rows.map(|one| {
            let (now, peak) = process_cost::resident_kib(one.pid);
            (one, now as f64 / 1024.0, peak as f64 / 1024.0)
        });
        Ok(sized.collect())
    }

    /// Signals the supervisor.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        self.running.signal(signal)
    }

    /// Ends everything by SIGKILL, at once; returns where it lived.
    pub fn crash(self) -> Result<Site> {
        let pids = process_cost::tree(self.running.pid());
        self.running.crash()?;
        for pid in &pids {
            // Failing means it is gone already.
            let _ = kill_process(as_pid(*pid)?, Signal::KILL);
        }
        interrupt::poll_until("every process gone", DEATH_TIMEOUT, || {
            pids.iter()
                .all(|pid| as_pid(*pid).is_ok_and(|pid| test_kill_process(pid).is_err()))
        })?;
        Ok(self.site)
    }

    /// Runs `portico COMMAND…` against it; its time. An error with what it said if it fails.
    pub fn operate(&self, arguments: &[&str], limit: Duration) -> Result<Duration> {
        let said = self.site.folder.join("operator");
        let file = fs::File::create(&said)?;
        let began = Instant::now();
        let mut child = std::process::Command::new(&self.site.program)
            .args(["--api", &format!("http://{}", self.site.api)])
            .args(["--admin", &format!("http://{}", self.site.admin)])
            .args(arguments)
            .env("PORTICO_TOKEN", self.token()?)
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()?;
        let ended = interrupt::wait_exit(&mut child, limit);
        let took = began.elapsed();
        if !matches!(ended, Ok(Some(_))) {
            let _ = child.kill();
            child.wait()?;
        }
        let words = fs::read_to_string(&said).unwrap_or_default();
        match ended? {
            Some(status) if status.success() => Ok(took),
            Some(status) => bail!("portico {}: {status}: {words}", arguments.join(" ")),
            None => bail!("portico {}: not within {limit:?}", arguments.join(" ")),
        }
    }

    /// Whether one request for this host is answered with 200.
    pub fn answers(&self, host: &str) -> bool {
        answers(self.site.address, host)
    }
}

/// Whether one request on a new connection is answered with 200.
pub fn answers(address: SocketAddr, host: &str) -> bool {
    let asked = http_client::connect(address).and_then(|mut stream| {
        http_client::exchange(&mut stream, &http_client::request(host, "/0"))
    });
    asked.is_ok_and(|answer| answer.status == 200)
}

/// Which backend answers one request on a new connection, as its answer says.
pub fn answering(address: SocketAddr, host: &str) -> Result<String> {
    let mut stream = http_client::connect(address)?;
    stream.write_all(http_client::request(host, "/0").as_bytes())?;
    let mut answer = Vec::new();
    let mut chunk = [0_u8; 2048];
    while memmem::find(&answer, b"\r\n\r\n").is_none() {
        let read = stream.read(&mut chunk)?;
        ensure!(read > 0, "closed without an answer");
        answer.extend_from_slice(&chunk[..read]);
    }
    let head = String::from_utf8_lossy(&answer);
    let named = |line: &str| {
        let (name, value) = line.split_once(": ")?;
        name.eq_ignore_ascii_case("x-backend")
            .then(|| value.to_owned())
    };
    let backend = head.split("\r\n").find_map(named);
    backend.with_context(|| format!("not a backend's answer: {head}"))
}

fn processes(json: &str) -> Result<Vec<Process>> {
    let table: Value = serde_json::from_str(json)?;
    let rows = table["processes"].as_array().context("no process table")?;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let row = |row: &Value| Process {
        role: text(&row["role"]),
        pid: row["pid"]
            .as_u64()
            .and_then(|pid| u32::try_from(pid).ok())
            .unwrap_or(0),
        state: text(&row["state"]),
        upgrade: row.get("upgrade").filter(|one| !one.is_null()).cloned(),
    };
    Ok(rows.iter().map(row).collect())
}

fn as_pid(pid: u32) -> Result<Pid> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    pid.context("not a pid")
}

/// Kills a process that need not be ours by SIGKILL; returns once it is gone.
pub fn kill(pid: u32) -> Result<Kill> {
    let pidfd = pidfd_open(as_pid(pid)?, PidfdFlags::empty())
        .with_context(|| format!("process {pid} is gone already"))?;
    let at_us = now_us();
    pidfd_send_signal(&pidfd, Signal::KILL)?;
    let limit = Timespec::try_from(DEATH_TIMEOUT)?;
    let ended = poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&limit))?;
    ensure!(ended == 1, "process {pid} survives SIGKILL");
    Ok(Kill {
        at_us,
        gone_us: now_us(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_process_table_is_read() {
        let json = r#"{"processes":[{"role":"supervisor","pid":7,"state":"ready","upgrade":{"stage":"done"}},
            {"role":"edge","pid":0,"state":"waiting","last_exit":null}]}"#;
        let rows = processes(json).unwrap();
        assert_eq!(rows[0].upgrade.as_ref().unwrap()["stage"], "done");
        assert_eq!(
            rows[1],
            Process {
                role: "edge".into(),
                pid: 0,
                state: "waiting".into(),
                upgrade: None
            }
        );
        assert!(processes("{}").is_err());
    }

    #[test]
    fn a_killed_process_is_gone_when_it_is_said_so() {
        let mut child = std::process::Command::new("sleep")
            .arg("60")
            .spawn()
            .unwrap();
        let kill = kill(child.id()).unwrap();
        assert!(kill.gone_us >= kill.at_us);
        assert!(child.try_wait().unwrap().is_some());
    }
}
