//! The one prober of an edge process: asks backends whether they are well,
//! outside of any request.
//!
//! Owns a thread with a runtime of its own, whatever the number of data
//! threads, and one time-ordered queue with two kinds of work: *return* probes
//! of backends that no connection could be opened to, so that the way back
//! harms no request; and *active* probes of every backend of an app whose
//! policy has a probe, hot or cold. Its probes go through the same connector as
//! traffic and the same codec. Never judges: what a probe found goes to the
//! backend's health, the same that requests are judged by. Never reads a body,
//! never holds up a data thread, never probes faster than its bounds.
//!
//! ```text
//! data threads ──posts──▶┐
//! hot apps ──sweep──────▶├─▶ queue ──pace──▶ probe ──finding──▶ health ──▶ event
//! table ──changed apps──▶┘     ▲                                  │
//!                              └──────────── next time ◀──────────┘
//! ```
//!
//! | file | what |
//! |---|---|
//! | [`life`] | the loop: what is watched, what is due, what came of it |
//! | [`queue`], [`pace`] | who is next, and when; the bounds |
//! | [`errand`] | what a backend is to be asked now, and how long to wait |
//! | [`ask`] | one probe |
//!
//! Nothing depends on a post arriving: one that is lost is made up for by the
//! sweep. A panic ends one life of the prober; the next one finds its work
//! again in the table.

mod ask;
mod errand;
#[cfg(test)]
mod fixture;
mod life;
mod pace;
mod queue;

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ecow::EcoString;
use tokio::runtime::Builder;
use tokio::sync::{mpsc, watch};

use self::life::Life;
use super::sync::EventSender;
use crate::observe::{Counter, EdgeCells};
use crate::table::Table;

/// After a panic, before the next life.
const PAUSE: Duration = Duration::from_secs(1);

/// Posts of data threads that may wait to be read.
const POSTS: usize = 1_024;

/// A backend that may need a return probe.
#[derive(Debug)]
struct Post {
    app: EcoString,
    key: u64,
}

/// The data threads' way to the prober; cheap to clone.
#[derive(Clone, Debug)]
pub struct Prober {
    posts: mpsc::Sender<Post>,
    dropped: Arc<AtomicU64>,
}

/// What data threads posted.
#[derive(Debug)]
pub struct Posts {
    queue: mpsc::Receiver<Post>,
    dropped: Arc<AtomicU64>,
}

/// A new way to a prober that is yet to start, and its end.
pub fn prober() -> (Prober, Posts) {
    let (posts, queue) = mpsc::channel(POSTS);
    let dropped = Arc::<AtomicU64>::default();
    let prober = Prober {
        posts,
        dropped: Arc::clone(&dropped),
    };
    (prober, Posts { queue, dropped })
}

impl Prober {
    /// Says that the backend with this key of this app is out because no
    /// connection to it opens. Never waits: a post that finds no room is
    /// dropped and counted, and the prober finds the backend by itself, within
    /// about a second. Said twice, it counts once.
    pub fn watch(&self, app: &EcoString, key: u64) {
        let post = Post {
            app: app.clone(),
            key,
        };
        if self.posts.try_send(post).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// What the prober needs.
pub struct ProberInputs {
    /// The table whose apps it probes for.
    pub table: Arc<Table>,
    /// Its own counters; nobody else writes them.
    pub cells: Arc<EdgeCells>,
    /// Where verdicts are told.
    pub events: EventSender,
    /// When every clock of the process reads zero.
    pub origin: Instant,
    /// What data threads post.
    pub posts: Posts,
}

impl fmt::Debug for ProberInputs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProberInputs").finish_non_exhaustive()
    }
}

/// The running prober.
#[derive(Debug)]
pub struct ProberHandle {
    stop: watch::Sender<bool>,
    thread: JoinHandle<()>,
}

impl ProberHandle {
    /// Ends it, and the probes under way. Waits for the thread, which waits for
    /// nothing.
    pub fn stop(self) {
        self.stop.send_replace(true);
        // A panic was logged when it happened.
        let _ = self.thread.join();
    }
}

/// Starts the prober.
///
/// # Panics
/// If the system has no thread left: the process cannot start.
pub fn start(mut inputs: ProberInputs) -> ProberHandle {
    let (stop, mut stopped) = watch::channel(false);
    let thread = std::thread::Builder::new()
        .name("prober".into())
        .spawn(move || {
            while let Err(panic) = live(&mut inputs, &mut stopped) {
                inputs.cells.inc(Counter::ProberPanics);
                tracing::error!(?panic, "the prober panicked; it starts anew");
                pause(&mut stopped);
            }
        })
        .expect("the prober's thread must start");
    ProberHandle { stop, thread }
}

/// One life of the prober.
fn live(inputs: &mut ProberInputs, stopped: &mut watch::Receiver<bool>) -> std::thread::Result<()> {
    let life = AssertUnwindSafe(|| runtime().block_on(Life::new(inputs).live(stopped)));
    catch_unwind(life)
}

/// Until the next life, or the stop.
fn pause(stopped: &mut watch::Receiver<bool>) {
    runtime().block_on(async {
        let _ = tokio::time::timeout(PAUSE, stopped.wait_for(|stopped| *stopped)).await;
    });
}

fn runtime() -> tokio::runtime::Runtime {
    Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build()
        .expect("the prober's runtime must start")
}
