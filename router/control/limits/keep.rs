//! The limits on disk, beside the table: what an edge goes by while there is no
//! control.
//!
//! Owns when the file is written: after each change, once those who wait have
//! been told. Never in a change's way: a disk that fails is said, and tried
//! again.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::Limits;
use crate::control::events::Events;
use crate::feed::limits_file;
use crate::feed::messages::LimitSet;

/// After a failure.
const RETRY: Duration = Duration::from_secs(10);

/// Keeps the file, for as long as it is polled.
pub async fn keep(folder: PathBuf, cluster_id: String, limits: Arc<Limits>, events: Arc<Events>) {
    let mut holding = limits.follow();
    let mut is_failing = false;
    loop {
        let set = LimitSet {
            cluster_id: cluster_id.clone(),
            ..holding.borrow_and_update().as_ref().clone()
        };
        let failed = write(&folder, set).await.err();
        if let Some(error) = &failed
            && !is_failing
        {
            let text = format!(
                "the limits on disk cannot be kept up to date: {error}; they hold all the same, and it is tried \
                 again every {} s",
                RETRY.as_secs()
            );
            events.say("limits_not_kept", "", "", text);
        }
        is_failing = failed.is_some();
        if !wait(&mut holding, is_failing).await {
            return;
        }
    }
}

/// Until there is something to write. False: there never will be.
async fn wait(holding: &mut watch::Receiver<Arc<LimitSet>>, is_failing: bool) -> bool {
    if is_failing {
        tokio::time::sleep(RETRY).await;
        return true;
    }
    holding.changed().await.is_ok()
}

/// Writes on a thread that may wait for the disk.
async fn write(folder: &Path, set: LimitSet) -> Result<(), String> {
    let folder = folder.to_owned();
    let written = tokio::task::spawn_blocking(move || limits_file::write(&folder, &set)).await;
    match written {
        Ok(written) => written.map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    }
}
