//! A proxy of a few lines on Pingora: `load-tests/peers/pingora`, a workspace
//! of its own, built by the `setup` subcommand into `target/pingora`.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};

use super::Site;
use crate::child::{Plan, Running, StopSignal};
use crate::machine;

/// Where its workspace lies.
pub fn manifest() -> PathBuf {
    PathBuf::from(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/peers/pingora/Cargo.toml"
    ))
}

/// Where it is built.
pub fn target_folder() -> Result<PathBuf> {
    Ok(machine::target_folder()?.join("pingora"))
}

fn program() -> Result<PathBuf> {
    Ok(target_folder()?.join("release/pingora-peer"))
}

/// Of the crate `pingora-proxy` in its lock file.
pub fn version() -> Result<String> {
    ensure!(program()?.exists(), "not built: run `load-tests setup`");
    let lock = fs::read_to_string(manifest().with_file_name("Cargo.lock"))
        .context("reading the Pingora peer's lock file")?;
    let version = lock
        .split("name = \"pingora-proxy\"\nversion = \"")
        .nth(1)
        .and_then(|rest| rest.split('"').next());
    Ok(version
        .context("no pingora-proxy in the lock file")?
        .to_owned())
}

/// Starts it with one data thread.
pub fn start(site: &Site, address: SocketAddr) -> Result<Running> {
    let folder = &site.folder;
    let hosts = folder.join("hosts");
    fs::write(&hosts, site.hosts.join("\n"))?;
    let command = vec![
        program()?.into(),
        address.to_string().into(),
        site.backend.to_string().into(),
        folder.join("access.log").into(),
        hosts.into(),
    ];
    Running::start(&Plan {
        name: "pingora",
        command,
        core: Some(site.core),
        stop: StopSignal::Kill, // its graceful end takes minutes
        stdout: folder.join("stdout"),
        stderr: folder.join("stderr"),
    })
}
