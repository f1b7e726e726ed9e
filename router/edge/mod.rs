//! The data plane: takes requests at the public ports, answers each once.
//!
//! Owns the data threads and everything a request meets on its way. Boots from
//! the last-known-good table and serves before it looks for control; goes on
//! without control for ever. Never writes a file but the access log, never
//! blocks a data thread, never shares a lock between two requests.
//!
//! | file | what |
//! |---|---|
//! | [`thread`] | a data thread's life and what its connections share |
//! | [`listener`] | accepting |
//! | [`journey`] | a request's way, top to bottom |
//! | [`http1`] | the HTTP/1.1 codec: bytes in, spans out |
//! | [`proxy_protocol`] | who the client behind a trusted balancer is |
//! | [`upstream`] | connections to backends |
//! | [`probe`] | the prober: backends asked outside of any request |
//! | [`sync`] | the feed's thread: the table kept as control has it |
//! | [`verdict`] | what is judged of a backend becomes a counter and an event |
//! | [`answers`] | errors become responses |
//! | [`clock`], [`buffer`] | time and memory of a thread |

pub mod answers;
pub mod buffer;
pub mod clock;
pub mod http1;
pub mod journey;
pub mod listener;
pub mod probe;
pub mod proxy_protocol;
pub mod sync;
pub mod thread;
pub mod upstream;
pub mod verdict;

use std::cell::RefCell;
use std::net::TcpListener;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use self::probe::{Prober, ProberInputs, prober};
use self::sync::{EventSender, Sync, SyncInputs, event_queue};
use self::thread::Phase;
use crate::heritage::{EdgeHeritage, Lifeline, Order};
use crate::observe::EdgeCells;
use crate::observe::access_log::Log;
use crate::settings::Settings;
use crate::table::Table;

/// A data thread that has not ticked for this long is stuck, and the process
/// stops answering the supervisor's pings.
const STALLED: Duration = Duration::from_secs(5);

/// How often an edge that waits for its first table looks for orders.
const ORDERS_HEARD: Duration = Duration::from_millis(100);

/// How often an edge that stands by looks for orders.
const STANDBY_LOOK: Duration = Duration::from_millis(1);

/// How long the last log lines may take to reach a slow sink.
const LOG_PATIENCE: Duration = Duration::from_secs(2);

/// What all data threads share; nothing in it is locked for a request.
pub struct Shared {
    /// Checked settings.
    pub settings: Settings,
    /// The routing table.
    pub table: Arc<Table>,
    /// One set of counters for each thread.
    pub cells: Vec<Arc<EdgeCells>>,
    /// One heartbeat for each thread: it only rises.
    pub beats: Box<[AtomicU64]>,
    /// Whether the supervisor wants this edge to serve; until then it stands by.
    pub is_wanted: AtomicBool,
    /// What the threads are told: the phase to be in.
    pub orders: watch::Sender<Phase>,
    /// When every clock of the process reads zero.
    pub origin: Instant,
    /// Where events for operators are posted.
    pub events: EventSender,
    /// Who is told of backends that no connection opens to.
    pub prober: Prober,
}

/// Runs the edge until it is told to drain, and has.
pub fn run(heritage: EdgeHeritage) -> ExitCode {
    let EdgeHeritage {
        settings,
        listeners,
        footing: _,
        feed_path,
        lifeline,
    } = heritage;
    let log = match Log::open(&settings.log) {
        Ok(log) => log,
        Err(error) => {
            tracing::error!(%error, setting = "log.access", "the access log cannot be opened");
            return ExitCode::FAILURE;
        }
    };
    let threads = listeners.len();
    let (events, queue) = event_queue();
    let (prober, posts) = prober();
    let prober_cells = Arc::<EdgeCells>::default();
    let shared = Arc::new(Shared {
        table: Arc::new(Table::new(threads)),
        cells: (0..threads).map(|_| Arc::default()).collect(),
        beats: (0..threads).map(|_| AtomicU64::new(0)).collect(),
        is_wanted: AtomicBool::new(false),
        orders: watch::Sender::new(Phase::Serving),
        origin: Instant::now(),
        events: events.clone(),
        prober,
        settings,
    });
    let log = Arc::new(log);
    attend(&lifeline, &shared, &log);
    let (held, table_held) = mpsc::sync_channel(1);
    let feed = Sync::start(SyncInputs {
        table: Arc::clone(&shared.table),
        cells: shared.cells.clone(),
        prober_cells: Arc::clone(&prober_cells),
        log: Some(Arc::clone(&log)),
        origin: shared.origin,
        events: (events, queue),
        feed_path,
        table_dir: shared.settings.table_dir(),
        ready: Box::new(move || {
            let _ = held.send(());
        }),
    });
    if let Err(code) = stand_by(&table_held, &shared, &lifeline) {
        feed.stop();
        return code;
    }
    let probing = probe::start(ProberInputs {
        table: Arc::clone(&shared.table),
        cells: prober_cells,
        events: shared.events.clone(),
        origin: shared.origin,
        posts,
    });
    let running = start_threads(listeners, &shared, &log);
    lifeline.ready();
    let code = join_threads(running);
    probing.stop();
    feed.stop();
    log.close(LOG_PATIENCE);
    code
}

/// Waits for a table, then until the supervisor wants this edge to serve.
///
/// Without a table every host would be unknown: the backlog holds clients until
/// there is one, from disk or from control.
///
/// # Errors
/// The exit code, if it is not wanted any more: nothing was accepted, so
/// nothing is in flight.
fn stand_by(
    table_held: &mpsc::Receiver<()>,
    shared: &Shared,
    lifeline: &Lifeline,
) -> Result<(), ExitCode> {
    let is_dismissed = || *shared.orders.borrow() != Phase::Serving;
    while let Err(missing) = table_held.recv_timeout(ORDERS_HEARD) {
        if missing == mpsc::RecvTimeoutError::Disconnected {
            tracing::error!("no table will come: the feed's thread ended");
            return Err(ExitCode::FAILURE);
        }
        if is_dismissed() {
            return Err(ExitCode::SUCCESS);
        }
    }
    lifeline.warm();
    while !shared.is_wanted.load(Relaxed) {
        if is_dismissed() {
            return Err(ExitCode::SUCCESS);
        }
        std::thread::park_timeout(STANDBY_LOOK);
    }
    Ok(())
}

/// Starts a data thread for each set of sockets.
fn start_threads(
    listeners: Vec<Vec<TcpListener>>,
    shared: &Arc<Shared>,
    log: &Log,
) -> Vec<JoinHandle<()>> {
    let started = listeners.into_iter().enumerate().map(|(index, sockets)| {
        let (shared, buffer) = (Arc::clone(shared), log.buffer());
        let data = move || thread::run(index, &shared, sockets, buffer);
        let spawned = std::thread::Builder::new()
            .name(format!("edge-{index}"))
            .spawn(data);
        spawned.expect("a data thread must start")
    });
    started.collect()
}

/// Waits for the data threads' end, which is that of a drain.
fn join_threads(running: Vec<JoinHandle<()>>) -> ExitCode {
    let mut code = ExitCode::SUCCESS;
    for thread in running {
        if thread.join().is_err() {
            code = ExitCode::FAILURE;
        }
    }
    code
}

/// Answers the supervisor on a thread of its own, for as long as the process
/// lives.
fn attend(lifeline: &Lifeline, shared: &Arc<Shared>, log: &Arc<Log>) {
    let (lifeline, shared, log) = (lifeline.clone(), Arc::clone(shared), Arc::clone(log));
    let pulse = RefCell::new(Pulse::new(shared.beats.len()));
    let attended = move || {
        let alive = || pulse.borrow_mut().is_felt(&shared.beats);
        lifeline.serve(alive, |order| match order {
            Order::Serve => {
                shared.is_wanted.store(true, Relaxed);
            }
            Order::Reopen => log.reopen(),
            // Replaced, not sent: it must hold for threads that start later.
            Order::HandOver | Order::Drain | Order::Orphaned => {
                shared.orders.send_replace(Phase::Draining);
            }
            Order::Processes(_) => {}
        });
    };
    let spawned = std::thread::Builder::new()
        .name("lifeline".into())
        .spawn(attended);
    spawned.expect("the lifeline's thread must start");
}

/// Whether every data thread still ticks.
struct Pulse {
    last: Vec<(u64, Instant)>,
}

impl Pulse {
    fn new(threads: usize) -> Self {
        Pulse {
            last: vec![(0, Instant::now()); threads],
        }
    }

    /// Before the first table there are no threads yet: a beat of 0 is not a
    /// stall.
    fn is_felt(&mut self, beats: &[AtomicU64]) -> bool {
        let now = Instant::now();
        beats.iter().zip(&mut self.last).all(|(beat, last)| {
            let beat = beat.load(Relaxed);
            if beat != last.0 || beat == 0 {
                *last = (beat, now);
            }
            now.duration_since(last.1) < STALLED
        })
    }
}
