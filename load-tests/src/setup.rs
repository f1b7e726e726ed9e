//! Brings the peers: wrk, nginx, HAProxy and cmake from Debian's packages, and
//! the Pingora peer from its sources. Never installs what is there already.

use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::peer::Peer;

/// Program and the Debian package that holds it. cmake builds zlib-ng for Pingora.
const PACKAGES: [(&str, &str); 5] = [
    ("wrk", "wrk"),
    ("nginx", "nginx"),
    ("haproxy", "haproxy"),
    ("cmake", "cmake"),
    ("make", "make"),
];

/// `setup`
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// Leave the Pingora peer unbuilt (its build takes minutes).
    #[arg(long)]
    no_pingora: bool,
}

/// Installs and builds what is missing; lists what can be measured.
pub fn run(options: &Options) -> Result<()> {
    let missing: Vec<&str> = PACKAGES
        .into_iter()
        .filter(|(program, _)| !on_path(program))
        .map(|(_, package)| package)
        .collect();
    if !missing.is_empty() {
        let apt = |arguments: &[&str]| {
            let mut command = Command::new("apt-get");
            command
                .env("DEBIAN_FRONTEND", "noninteractive")
                .args(["-y", "--no-install-recommends"])
                .args(arguments);
            command
        };
        succeed(&mut apt(&["update"]))?;
        succeed(apt(&["install"]).args(&missing))
            .with_context(|| format!("installing {}", missing.join(", ")))?;
    }
    if !options.no_pingora {
        build_pingora()?;
    }
    for peer in Peer::ALL {
        match peer.version() {
            Ok(version) => println!("{}: {version}", peer.name()),
            Err(reason) => println!("{}: {reason:#}", peer.name()),
        }
    }
    Ok(())
}

fn build_pingora() -> Result<()> {
    let mut command = Command::new("cargo");
    command
        .args(["build", "--release", "--locked", "--manifest-path"])
        .arg(crate::peer::pingora_manifest());
    command
        .arg("--target-dir")
        .arg(crate::peer::pingora_target_folder()?);
    succeed(&mut command).context("building the Pingora peer")
}

fn succeed(command: &mut Command) -> Result<()> {
    let status = command
        .status()
        .with_context(|| format!("{} does not start", command.get_program().display()))?;
    ensure!(status.success(), "{command:?}: {status}");
    Ok(())
}

fn on_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into()])
        .any(|folder| folder.join(program).is_file())
}
