//! The bare L4 relay of `relay.rs`, as a process of its own.

use std::net::SocketAddr;

use anyhow::Result;

use super::Site;
use crate::child::{OWN_PROGRAM, Plan, Running, StopSignal};

/// Its shape; it is part of this program.
pub fn version() -> Result<String> {
    Ok("tokio, current_thread".to_owned())
}

/// Starts it.
pub fn start(site: &Site, address: SocketAddr) -> Result<Running> {
    Running::start(&Plan {
        name: "relay",
        command: vec![
            OWN_PROGRAM.into(),
            "relay".into(),
            address.to_string().into(),
            site.backend.to_string().into(),
        ],
        core: Some(site.core),
        stop: StopSignal::Kill,
        stdout: site.folder.join("stdout"),
        stderr: site.folder.join("stderr"),
    })
}
