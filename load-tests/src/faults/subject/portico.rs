//! Portico as it comes: only told where to listen and keep its state; the app
//! registered through the API like anyone's, with no policy.

use std::net::SocketAddr;

use anyhow::Result;

use super::{HOST, Place};
use crate::child::Running;
use crate::peer;

/// Starts it and registers the pool, one backend after the other.
pub fn start(place: &Place) -> Result<(SocketAddr, Running)> {
    let address = peer::free_address()?;
    let launched = peer::Launching {
        program: &peer::portico_program()?,
        folder: &place.folder,
        address,
        core: place.core,
        settings: &[],
    }
    .launch()?;
    launched.put("/v1/apps/faults", &format!(r#"{{"domains":["{HOST}"]}}"#))?;
    for (number, backend) in place.backends.iter().enumerate() {
        launched.put(
            &format!("/v1/apps/faults/backends/web.{}?wait=active", number + 1),
            &format!(r#"{{"address":"{backend}"}}"#),
        )?;
    }
    launched.wait_active()?;
    Ok((address, launched.running))
}
