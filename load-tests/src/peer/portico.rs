//! Portico itself: the release binary beside this one, its apps imported
//! through the registration API like anyone's.

use std::fmt::Write;
use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::{Site, first_line, free_address};
use crate::child::{Plan, Running, StopSignal};
use crate::{interrupt, machine};

/// How long the import and every edge's table may take.
const READY_TIMEOUT: Duration = Duration::from_secs(30);

fn program() -> Result<PathBuf> {
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
    let program = program()?;
    let line = first_line(
        program
            .to_str()
            .context("the target folder's path must be text")?,
        &["--version"],
    )?;
    Ok(line.trim_start_matches("portico ").to_owned())
}

/// Starts supervisor, control and an edge of one thread; registers the apps.
pub fn start(site: &Site, address: SocketAddr) -> Result<Running> {
    let folder = &site.folder;
    let (api, admin) = (free_address()?, free_address()?);
    let state = folder.join("state");
    // A file of its own, empty: the harness's folder decides nothing.
    let settings = folder.join("portico.toml");
    fs::write(&settings, "")?;
    let mut command = vec![
        program()?.into(),
        "run".into(),
        "--config".into(),
        settings.into(),
    ];
    let overrides = [
        format!("state_dir=\"{}\"", state.display()),
        format!("edge.http=[\"{address}\"]"),
        "edge.threads=1".to_owned(),
        format!("api.listen=\"{api}\""),
        format!("admin.listen=\"{admin}\""),
        format!(
            "log.access=\"file:{}\"",
            folder.join("access.log").display()
        ),
    ];
    for setting in overrides {
        command.extend(["--set".into(), setting.into()]);
    }
    let mut running = Running::start(&Plan {
        name: "portico",
        command,
        core: site.core,
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
    import(site, api, fs::read_to_string(token)?.trim())?;
    interrupt::poll_until("portico's /readyz", READY_TIMEOUT, || {
        answers_200(&format!("http://{admin}/readyz"))
    })?;
    Ok(running)
}

fn answers_200(url: &str) -> bool {
    ureq::get(url)
        .call()
        .is_ok_and(|answer| answer.status().as_u16() == 200)
}

/// Every host an app with one backend.
fn import(site: &Site, api: SocketAddr, token: &str) -> Result<()> {
    let mut lines = String::new();
    for (number, host) in site.hosts.iter().enumerate() {
        writeln!(
            lines,
            r#"{{"app":"app-{number:05}","domains":["{host}"],"backends":{{"web.1":{{"address":"{}"}}}}}}"#,
            site.backend
        )?;
    }
    let url = format!("http://{api}/v1/import");
    let sent = ureq::post(&url)
        .header("Authorization", &format!("Bearer {token}"))
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
