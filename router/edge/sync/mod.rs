//! The edge's end of the feed: keeps the table as control has it, for as long
//! as there is a control, and as it was for as long as there is none.
//!
//! Owns the thread that boots the table from disk, connects to control, applies
//! what it sends and answers what it asks; and the bounded queue of events for
//! operators. Never touches a request, never writes a file.
//!
//! **Invariant**: nothing that control is, does or sends withdraws service. A
//! control that is absent, dead, of another version or of another installation
//! is logged, counted and tried again; the table held is routed by meanwhile.

mod events;
mod link;
mod report;

pub use events::{EventQueue, EventSender, event_queue};

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use self::events::Events;
use self::link::{Link, LinkError, Wire};
use crate::feed::messages::{Nack, Removed};
use crate::feed::{LastKnownGood, NoTable, last_known_good};
use crate::observe::access_log::Log;
use crate::observe::{Counter, EdgeCells, Gauge};
use crate::table::{Moment, Table};

/// The first wait before connecting again.
const BACKOFF_FLOOR: Duration = Duration::from_millis(50);
/// The longest one.
const BACKOFF_CEILING: Duration = Duration::from_secs(1);
/// Refused records of the boot kept to be told to control.
const BOOT_NACKS: usize = 1_000;

/// What the feed's thread needs.
pub struct SyncInputs {
    /// The table it keeps; it is the only writer.
    pub table: Arc<Table>,
    /// Every data thread's counters, for reports.
    pub cells: Vec<Arc<EdgeCells>>,
    /// The prober's counters.
    pub prober_cells: Arc<EdgeCells>,
    /// The access log, whose losses are reported too; none in tests.
    pub log: Option<Arc<Log>>,
    /// Where any thread posts events for operators, and what is sent from.
    pub events: (EventSender, EventQueue),
    /// When every clock of the process reads zero.
    pub origin: Instant,
    /// Control's socket.
    pub feed_path: PathBuf,
    /// Where control writes snapshot and journal.
    pub table_dir: PathBuf,
    /// Called once, as soon as a table is held: from disk, or control's first
    /// whole one.
    pub ready: Box<dyn FnOnce() + Send>,
}

impl fmt::Debug for SyncInputs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SyncInputs")
            .field("feed_path", &self.feed_path)
            .field("table_dir", &self.table_dir)
            .finish_non_exhaustive()
    }
}

/// The running feed.
#[derive(Debug)]
pub struct SyncHandle {
    wire: Arc<Wire>,
    threads: Vec<JoinHandle<()>>,
}

impl SyncHandle {
    /// Ends the feed: the table stays as it is. Waits for the threads, which
    /// wait for nothing.
    pub fn stop(self) {
        self.wire.stop();
        for thread in self.threads {
            // A panic was logged when it happened.
            let _ = thread.join();
        }
    }
}

/// What is known of the table held.
#[derive(Debug, Default)]
struct Held {
    /// Whether there is one at all.
    is_some: bool,
    cluster_id: String,
    epoch: u64,
    /// Whether it is exactly its revision's; if not, a whole one is asked for.
    is_exact: bool,
    /// What was ever removed from it.
    removed: Removed,
}

/// The feed's thread.
pub struct Sync {
    table: Arc<Table>,
    /// Data threads of this edge.
    threads: usize,
    /// The data threads' cells, the prober's and, last, this thread's own.
    log: Option<Arc<Log>>,
    cells: Vec<Arc<EdgeCells>>,
    origin: Instant,
    feed_path: PathBuf,
    table_dir: PathBuf,
    ready: Option<Box<dyn FnOnce() + Send>>,
    held: Held,
    wire: Arc<Wire>,
    events: Events,
    boot_nacks: Vec<Nack>,
}

impl Sync {
    /// Starts it. `ready` may be called before this returns.
    ///
    /// # Panics
    /// If the system has no thread left: the process cannot start.
    pub fn start(inputs: SyncInputs) -> SyncHandle {
        let wire = Arc::new(Wire::default());
        let (sender, queue) = inputs.events;
        let (events, pump) = events::ends(sender, queue, Arc::clone(&wire));
        let threads = inputs.cells.len();
        let mut cells = inputs.cells;
        cells.extend([inputs.prober_cells, Arc::default()]);
        let mut sync = Sync {
            table: inputs.table,
            threads,
            cells,
            log: inputs.log,
            origin: inputs.origin,
            feed_path: inputs.feed_path,
            table_dir: inputs.table_dir,
            ready: Some(inputs.ready),
            held: Held::default(),
            wire: Arc::clone(&wire),
            events,
            boot_nacks: Vec::new(),
        };
        let spawn = |name: &str, run: Box<dyn FnOnce() + Send>| {
            std::thread::Builder::new()
                .name(name.to_owned())
                .spawn(run)
                .expect("the feed's threads must start")
        };
        let threads = vec![
            spawn("feed", Box::new(move || sync.run())),
            spawn("feed-events", Box::new(move || pump.run())),
        ];
        SyncHandle { wire, threads }
    }

    fn run(&mut self) {
        self.boot();
        let mut backoff = BACKOFF_FLOOR;
        let mut told = String::new();
        while !self.wire.is_stopped() {
            let (error, did_talk) = self.link_once();
            if self.wire.is_stopped() {
                break;
            }
            self.own().set(Gauge::FeedConnected, 0);
            if let Some(reason) = error.refusal() {
                self.own().inc(reason);
            }
            if did_talk {
                backoff = BACKOFF_FLOOR;
                told.clear();
            }
            // An absent control fails the same way many times: said once.
            let text = error.to_string();
            if text != told {
                tracing::warn!("the feed: {text}; the table held is served");
                told = text;
            }
            if error.needs_whole_table() {
                self.held.is_exact = false;
            }
            self.wire.wait(backoff.mul_f64(0.5 + fastrand::f64()));
            backoff = (backoff * 2).min(BACKOFF_CEILING);
        }
    }

    /// One connection, from its start to its end; a panic ends it too.
    fn link_once(&mut self) -> (LinkError, bool) {
        let mut did_talk = false;
        let linked = AssertUnwindSafe(|| Link::run(self, &mut did_talk));
        let error = match catch_unwind(linked) {
            Ok(error) => error,
            Err(_) => LinkError::Panicked,
        };
        self.wire.unlink();
        (error, did_talk)
    }

    /// Takes the last-known-good table from disk.
    fn boot(&mut self) {
        let table = Arc::clone(&self.table);
        let mut install = table.install();
        let found = catch_unwind(AssertUnwindSafe(|| {
            last_known_good(&self.table_dir, |apps| install.part(&apps))
        }));
        let found = match found {
            Ok(Ok(found)) => found,
            Ok(Err(NoTable::None)) => {
                tracing::info!("no table on disk yet: waiting for control");
                return;
            }
            Ok(Err(error)) => {
                tracing::error!("the table on disk: {error}; waiting for control");
                return;
            }
            Err(_) => {
                tracing::error!("reading the table on disk panicked; waiting for control");
                return;
            }
        };
        let nacks = install.finish(found.revision);
        self.told_of(&found, &nacks);
        self.boot_nacks = nacks;
        self.boot_nacks.truncate(BOOT_NACKS);
        let LastKnownGood {
            cluster_id,
            epoch,
            is_exact,
            removed,
            ..
        } = found;
        self.hold(Held {
            is_some: true,
            cluster_id,
            epoch,
            is_exact,
            removed,
        });
    }

    fn told_of(&self, found: &LastKnownGood, nacks: &[Nack]) {
        tracing::info!(
            apps = found.apps,
            revision = found.revision,
            is_exact = found.is_exact,
            "serving the table on disk"
        );
        for line in &found.damage {
            tracing::warn!("{line}");
            self.events.post("table_damaged", "", line.clone());
        }
        self.own().add(Counter::FeedNacks, nacks.len() as u64);
        for nack in nacks.iter().take(20) {
            tracing::warn!(app = nack.key, "a record on disk: {}", nack.reason);
        }
    }

    /// A table is held, as of now.
    fn hold(&mut self, held: Held) {
        self.held = held;
        self.show_table();
        if let Some(ready) = self.ready.take() {
            ready();
        }
    }

    fn show_table(&self) {
        self.own().set(Gauge::TableRevision, self.table.revision());
        self.own().set(Gauge::TableApps, self.table.len() as u64);
    }

    /// Now, by the process's clocks and the system's.
    fn moment(&self) -> Moment {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH);
        Moment {
            now_us: self.origin.elapsed().as_micros() as u64,
            unix_ms: since_epoch.map_or(0, |since| since.as_millis() as u64),
        }
    }

    /// This thread's own counters.
    fn own(&self) -> &EdgeCells {
        self.cells.last().expect("there must be its own cells")
    }
}

impl fmt::Debug for Sync {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sync")
            .field("held", &self.held)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
