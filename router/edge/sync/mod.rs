//! The edge's end of the feed: keeps the table as control has it, for as long
//! as there is a control, and as it was for as long as there is none.
//!
//! Owns the thread that boots the table from disk, connects to control, applies
//! what it sends and answers what it asks; and the bounded queue of events for
//! operators. Never touches a request, never writes a file. Its threads give way
//! to the data threads: compiling a table of a million apps, or a thousand
//! changes a second, takes what CPU time these leave ([`give_way`]).
//!
//! An edge that stands by follows control all the same, so that it could serve
//! at any moment. One that is pinned ([`Footing::Proven`]) does not: it stays
//! with the table it booted from.
//!
//! **Invariant**: nothing that control is, does or sends withdraws service. A
//! control that is absent, dead, of another version or of another installation
//! is logged, counted and tried again; the table held is routed by meanwhile.

mod events;
mod link;
mod memory;
mod report;
mod wire;

pub use events::{EventQueue, EventSender, event_queue};
pub use memory::Holdings;

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use self::events::Events;
use self::link::{Link, LinkError};
use self::memory::Walk;
use self::wire::Wire;
use crate::feed::limits_file;
use crate::feed::messages::{AppView, Body, Collect, LimitSet, Nack, Removed};
use crate::feed::{LastKnownGood, NoTable, TableFiles, proven_files};
use crate::heritage::Footing;
use crate::observe::access_log::Log;
use crate::observe::{Counter, EdgeCells, Gauge};
use crate::table::{Moment, Table};

/// The first wait before connecting again.
const BACKOFF_FLOOR: Duration = Duration::from_millis(50);
/// The longest one.
const BACKOFF_CEILING: Duration = Duration::from_secs(1);
/// Refused records of the boot kept to be told to control.
const BOOT_NACKS: usize = 1_000;

/// How far the feed's threads stand back: with it, a busy data thread gets three
/// times their share of a core that they share, and need not wait for their
/// slice to end when it wakes. More would make changes late on a busy machine.
const NICENESS: i32 = 5;

/// What the feed's thread needs.
pub struct SyncInputs {
    /// The table it keeps; it is the only writer.
    pub table: Arc<Table>,
    /// Every data thread's counters, for reports.
    pub cells: Vec<Arc<EdgeCells>>,
    /// The prober's counters.
    pub prober_cells: Arc<EdgeCells>,
    /// What the data threads say they hold in memory.
    pub holdings: Arc<[Holdings]>,
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
    /// Which table it boots from, and whether it follows control then.
    pub footing: Footing,
    /// Whether nobody serves before this edge does.
    pub is_awaited: bool,
    /// Called as soon as a table is held, from disk or control's first whole
    /// one, with false; and with true, once, when it is the newest there is:
    /// control has brought it up to date, or is not there.
    pub ready: Box<dyn Fn(bool) + Send>,
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
    table: Arc<Table>,
    threads: Vec<JoinHandle<()>>,
}

impl SyncHandle {
    /// The edge stands by no more: control hears it at once.
    pub fn serves(&self) {
        self.wire.serves(&self.table);
    }

    /// Ends the feed: the table stays as it is. Its last word is a report that
    /// nobody asked for (id 0), so call it once nothing is counted any more.
    /// Waits for the threads, which wait half a second at most.
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
    footing: Footing,
    /// Whether nobody serves before this edge does.
    is_awaited: bool,
    /// It stays with the table it booted from.
    is_pinned: bool,
    /// None once the table was the newest there is.
    ready: Option<Box<dyn Fn(bool) + Send>>,
    held: Held,
    wire: Arc<Wire>,
    events: Events,
    walk: Walk,
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
        let table = Arc::clone(&inputs.table);
        let wired = Arc::clone(&wire);
        let (walk, walker) = memory::walk(wired, inputs.table, cells.len(), inputs.holdings);
        let mut sync = Sync {
            table: Arc::clone(&table),
            threads,
            cells,
            log: inputs.log,
            origin: inputs.origin,
            feed_path: inputs.feed_path,
            table_dir: inputs.table_dir,
            footing: inputs.footing,
            is_awaited: inputs.is_awaited,
            is_pinned: false,
            ready: Some(inputs.ready),
            held: Held::default(),
            wire: Arc::clone(&wire),
            events,
            walk,
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
            spawn(
                "feed-events",
                Box::new(move || {
                    give_way();
                    pump.run();
                }),
            ),
            spawn(
                "feed-memory",
                Box::new(move || {
                    give_way();
                    walker.run();
                }),
            ),
        ];
        SyncHandle {
            wire,
            table,
            threads,
        }
    }

    fn run(&mut self) {
        // Clients wait for the first edge's table; for another's nobody does.
        if !self.is_awaited {
            give_way();
        }
        self.boot_limits();
        self.boot();
        if self.is_awaited {
            give_way();
        }
        let mut backoff = BACKOFF_FLOOR;
        let mut told = String::new();
        while !self.wire.is_stopped() {
            let (error, did_talk) = self.link_once();
            self.settle();
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
        if self.wire.is_stopped() {
            self.say_last_word();
        }
        self.wire.unlink();
        (error, did_talk)
    }

    /// Control's totals are to have what was counted since it last asked. If it
    /// is not there, it is told nothing.
    fn say_last_word(&self) {
        let report = report::of(self, &Collect::default());
        let _ = self
            .wire
            .send(self.held.epoch, self.table.revision(), Body::Report(report));
    }

    /// Takes the limits that held last from disk: without control they hold on.
    fn boot_limits(&self) {
        match limits_file::read(&self.table_dir) {
            Ok(Some(set)) => self.hold_limits(&set),
            Ok(None) => {}
            Err(error) => {
                let text = format!("{error}; no limit holds until control says which do");
                tracing::error!("{text}");
                self.events.post("limits_damaged", "", text);
            }
        }
    }

    /// Every thread goes by these limits from here on.
    fn hold_limits(&self, set: &LimitSet) {
        let now_ns = self.moment().now_us.saturating_mul(1_000);
        for name in self.table.limits.install(set, now_ns) {
            let text =
                format!("the limit {name} cannot be used as it was sent; what it was, it stays");
            tracing::warn!("{text}");
            self.events.post("limit_refused", "", text);
        }
    }

    /// Takes the last-known-good table from disk.
    fn boot(&mut self) {
        let read = catch_unwind(AssertUnwindSafe(|| self.read_table()));
        let (found, nacks) = match read {
            Ok(Ok(read)) => read,
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
        self.told_of(&found, &nacks);
        if self.footing == Footing::Proven {
            self.pin(&found);
        }
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

    /// Publishes the table on disk, read on all cores; returns what it is and
    /// what of it could not be used.
    fn read_table(&self) -> Result<(LastKnownGood, Vec<Nack>), NoTable> {
        let files = match self.footing {
            Footing::Newest => TableFiles::newest(&self.table_dir)?,
            Footing::Proven => proven_files(&self.table_dir)?,
        };
        let install = self.table.install_about(files.apps());
        let found = files.read(boot_threads(), &|| {
            let mut thread = install.thread();
            move |app: &AppView<'_>, _: &[u8]| thread.take(app)
        });
        let nacks = install.finish(found.revision);
        Ok((found, nacks))
    }

    /// The table stays as it is: on a newer one, edges crashed.
    fn pin(&mut self, found: &LastKnownGood) {
        self.is_pinned = true;
        self.own().set(Gauge::TablePinned, 1);
        let text = format!(
            "edge {} stays with the table of revision {}: edges on a newer one crashed one after \
             another",
            std::process::id(),
            found.revision
        );
        tracing::warn!("{text}");
        self.events.post("edge_pinned", "", text);
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

    /// Whether the table held is one that control may be told of by its
    /// revision.
    fn is_named(&self) -> bool {
        self.held.is_some && (self.held.is_exact || self.is_pinned)
    }

    /// A table is held, as of now.
    fn hold(&mut self, held: Held) {
        self.held = held;
        self.show_table();
        if let Some(ready) = &self.ready {
            ready(false);
        }
    }

    /// No newer table than the one held, if one is, is to be had now.
    fn settle(&mut self) {
        if self.held.is_some
            && let Some(ready) = self.ready.take()
        {
            ready(true);
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

/// Lowers this thread's priority, so that the data threads come first. On Linux
/// it is a thread's own; it cannot be raised again without privileges, and need
/// not be.
fn give_way() {
    // Refused, it shares the cores evenly: no reason not to serve.
    let _ = rustix::process::nice(NICENESS);
}

/// Threads that read the table on disk; they stand back if this one does.
fn boot_threads() -> usize {
    const MOST: usize = 8;
    std::thread::available_parallelism().map_or(1, |cores| cores.get().min(MOST))
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
