//! Which limits the edges go by: said by each once it holds a set, on every
//! thread. Edges that are pinned go by them too; those that stand by are not
//! waited for.

use std::time::Duration;

use super::{Fleet, Membership};

impl Fleet {
    /// Waits until every edge that serves, and at least one, goes by limits of
    /// this version. False: it took longer than `timeout`.
    pub async fn wait_limited(&self, version: u64, timeout: Duration) -> bool {
        let mut progress = self.progress.subscribe();
        let reached = progress.wait_for(|_| {
            let roster = self.roster();
            let statuses = roster.edges.values().map(|member| &member.status);
            let serving = statuses.filter(|status| !status.is_standby);
            let oldest = serving.map(|status| status.limits_version).min();
            oldest.is_some_and(|oldest| oldest >= version) && roster.missing().next().is_none()
        });
        tokio::time::timeout(timeout, reached)
            .await
            .is_ok_and(|seen| seen.is_ok())
    }
}

impl Membership {
    /// The edge goes by these limits.
    pub fn limited(&self, version: u64) {
        self.update(|status| status.limits_version = version);
    }
}
