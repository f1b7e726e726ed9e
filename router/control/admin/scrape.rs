//! Asking the edges for their numbers, at most a few times a second, however
//! many ask here.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::Instant;

use super::numbers::Numbers;
use super::procfs::Descriptors;
use crate::control::events::now_ms;
use crate::control::fleet::Fleet;
use crate::feed::messages::Report;

/// Apps with series of their own; the others are summed as `other`.
pub(super) const BUSIEST: usize = 50;
/// Numbers this old are given again.
const FRESH: Duration = Duration::from_millis(200);

/// The numbers of all edges at one moment.
#[derive(Debug)]
pub(super) struct Scraped {
    /// When they were asked, Unix milliseconds.
    pub at_ms: u64,
    /// What they reported, with what those counted that are gone.
    pub numbers: Numbers,
    /// What each edge has open.
    pub descriptors: Descriptors,
    /// Edges connected.
    pub edges: usize,
    /// Those of them that answered in time.
    pub answered: usize,
}

/// The last scrape, and whose turn it is.
#[derive(Debug, Default)]
pub(super) struct Scrape {
    last: Mutex<Option<(Instant, Arc<Scraped>)>>,
}

impl Scrape {
    /// Fresh numbers. Those who ask while a scrape runs share it.
    pub async fn numbers(&self, fleet: &Fleet) -> Arc<Scraped> {
        let mut last = self.last.lock().await;
        if let Some((_, scraped)) = last.as_ref().filter(|(at, _)| at.elapsed() < FRESH) {
            return Arc::clone(scraped);
        }
        let at_ms = now_ms();
        let heard = fleet.count(BUSIEST as u32).await;
        let (answered, descriptors) = (heard.reports.len(), descriptors(&heard.reports));
        let mut reports = heard.reports;
        reports.extend(heard.past);
        let scraped = Arc::new(Scraped {
            at_ms,
            numbers: Numbers::merge(&reports, BUSIEST),
            descriptors,
            edges: heard.edges,
            answered,
        });
        *last = Some((Instant::now(), Arc::clone(&scraped)));
        scraped
    }
}

/// By process id; those of a version that does not tell are left out.
fn descriptors(reports: &[Report]) -> Descriptors {
    let telling = reports.iter().filter(|report| report.open_descriptors > 0);
    telling
        .map(|report| (report.pid, report.open_descriptors))
        .collect()
}
