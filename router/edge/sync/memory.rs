//! What an edge's memory goes to, for control's question.
//!
//! Owns the thread that walks the table for it: a million apps take a fifth of
//! a second, in which neither a change nor a request may wait. It holds no lock
//! that either takes for longer than a moment. One walk at a time; an answer is
//! good for a few seconds, so asking often costs nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, Instant};

use super::wire::Wire;
use crate::feed::messages::{Body, MemoryPart, Report};
use crate::observe::EdgeCells;
use crate::table::Table;

/// Reports that may wait for the walk; those beyond go without.
const QUEUED: usize = 4;

/// How long the parts found by a walk are good for.
const FRESH: Duration = Duration::from_secs(5);

/// What a data thread holds in memory, as it last said; bytes.
#[derive(Debug, Default)]
pub struct Holdings {
    /// Read buffers that wait for their next use.
    pub buffers: AtomicU64,
    /// Client connections: their tasks.
    pub connections: AtomicU64,
    /// Idle backend connections.
    pub pool: AtomicU64,
    /// Log lines on their way.
    pub log: AtomicU64,
}

/// Where reports go to have the memory's parts added.
pub(super) struct Walk {
    reports: SyncSender<(Report, u64)>,
}

/// The walker's side.
pub(super) struct Walker {
    reports: Receiver<(Report, u64)>,
    wire: Arc<Wire>,
    table: Arc<Table>,
    /// Every thread's counters.
    cells: usize,
    holdings: Arc<[Holdings]>,
    found: Option<(Instant, Vec<MemoryPart>)>,
}

/// Both sides of it; `cells` is how many sets of counters there are.
pub(super) fn walk(
    wire: Arc<Wire>,
    table: Arc<Table>,
    cells: usize,
    holdings: Arc<[Holdings]>,
) -> (Walk, Walker) {
    let (sender, reports) = sync_channel(QUEUED);
    let walker = Walker {
        reports,
        wire,
        table,
        cells,
        holdings,
        found: None,
    };
    (Walk { reports: sender }, walker)
}

impl Walk {
    /// Sends the report, with the parts, once they are found; gives it back if
    /// too many wait already.
    pub(super) fn send(&self, report: Report, epoch: u64) -> Option<Report> {
        match self.reports.try_send((report, epoch)) {
            Ok(()) => None,
            Err(TrySendError::Full((report, _)) | TrySendError::Disconnected((report, _))) => {
                Some(report)
            }
        }
    }
}

impl Walker {
    /// Until the feed's thread ends.
    pub(super) fn run(mut self) {
        while let Ok((mut report, epoch)) = self.reports.recv() {
            report.memory = self.parts();
            // Whoever asked is gone with a link that is.
            let _ = self
                .wire
                .send(epoch, self.table.revision(), Body::Report(report));
        }
    }

    fn parts(&mut self) -> Vec<MemoryPart> {
        if let Some((at, parts)) = &self.found
            && at.elapsed() < FRESH
        {
            return parts.clone();
        }
        let parts = self.walk();
        self.found = Some((Instant::now(), parts.clone()));
        parts
    }

    fn walk(&self) -> Vec<MemoryPart> {
        let table = self.table.memory();
        let held = |part: fn(&Holdings) -> &AtomicU64| {
            let each = self.holdings.iter();
            each.map(|held| part(held).load(Relaxed)).sum::<u64>()
        };
        let mut parts = vec![
            part("routes", table.routes as u64),
            part("names", table.names as u64),
            part("apps", table.apps as u64),
            part("backends", table.backends as u64),
            part("shared", table.shared as u64),
            part("live", table.live as u64),
            part("limits", self.table.limits.bytes() as u64),
            part("connections", held(|held| &held.connections)),
            part("backend_connections", held(|held| &held.pool)),
            part("buffers", held(|held| &held.buffers)),
            part("log", held(|held| &held.log)),
            part("counters", (self.cells * size_of::<EdgeCells>()) as u64),
        ];
        if let Some(bytes) = resident_bytes() {
            parts.push(part("resident", bytes));
        }
        parts
    }
}

fn part(name: &str, bytes: u64) -> MemoryPart {
    MemoryPart {
        part: name.to_owned(),
        bytes,
    }
}

/// What of this process is in memory, by the kernel's account.
fn resident_bytes() -> Option<u64> {
    let pages = std::fs::read_to_string("/proc/self/statm").ok()?;
    let resident: u64 = pages.split_whitespace().nth(1)?.parse().ok()?;
    Some(resident * rustix::param::page_size() as u64)
}
