//! The data plane: takes requests at the public ports, answers each once.
//!
//! Owns the data threads and everything a request meets on its way. Boots from
//! the last-known-good table and serves before it looks for control; goes on
//! without control for ever. Never opens a file to write (the access log comes
//! open), never blocks a data thread, never shares a lock between two requests.
//!
//! | file | what |
//! |---|---|
//! | [`duty`] | what the process is told: stand by, serve, leave |
//! | [`leaving`] | when an edge that leaves closes which connection |
//! | [`thread`] | a data thread's life and what its connections share |
//! | [`listener`] | accepting |
//! | [`door`], [`roster`] | how many connections there may be; who goes first |
//! | [`gate`] | whose turn it is, once a thread has more to do than it can |
//! | [`journey`] | a request's way, top to bottom |
//! | [`http1`] | the HTTP/1.1 codec: bytes in, spans out |
//! | [`proxy_protocol`] | who the client behind a trusted balancer is |
//! | [`upstream`] | connections to backends |
//! | [`probe`] | the prober: backends asked outside of any request |
//! | [`sync`] | the feed's thread: the table kept as control has it |
//! | [`verdict`] | what is judged of a backend becomes a counter and an event |
//! | [`wanted`] | how many apps without a backend are told of |
//! | [`answers`] | errors become responses |
//! | [`clock`], [`buffer`] | time and memory of a thread |
//! | [`budget`] | how much of it all buffers may take |

pub mod answers;
pub mod budget;
pub mod buffer;
pub mod clock;
pub mod door;
pub mod duty;
pub mod gate;
pub mod http1;
pub mod journey;
pub mod leaving;
pub mod lines;
pub mod listener;
pub mod probe;
pub mod proxy_protocol;
pub mod roster;
pub mod sync;
pub mod thread;
pub mod upstream;
pub mod verdict;
pub mod wanted;

use std::cell::RefCell;
use std::net::TcpListener;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use self::budget::Budget;
use self::clock::Micros;
use self::door::Door;
use self::duty::{Call, Duty, Herald, Running};
use self::gate::Episodes;
use self::leaving::{Occasion, Timetable};
use self::probe::{Prober, ProberHandle, ProberInputs, prober};
use self::sync::{EventSender, Holdings, Sync, SyncInputs, event_queue};
use self::wanted::Wanted;
use crate::heritage::{EdgeHeritage, Lifeline, Order};
use crate::observe::access_log::Log;
use crate::observe::{EdgeCells, Gauge};
use crate::settings::Settings;
use crate::table::Table;

/// A data thread that has not ticked for this long is stuck, and the process
/// stops answering the supervisor's pings.
const STALLED: Duration = Duration::from_secs(5);

/// How long the last log lines may take to reach a slow sink.
const LOG_PATIENCE: Duration = Duration::from_secs(2);

/// How long an edge that leaves goes on probing once its last idle connection
/// is closed: no request of it looks for a backend later than that.
const PROBES_KEPT: Duration = Duration::from_secs(75);

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
    /// How many connections clients may have.
    pub door: Door,
    /// How many bytes its buffers may take.
    pub budget: Budget,
    /// What each thread says it holds in memory.
    pub holdings: Arc<[Holdings]>,
    /// What the process is told to do.
    pub duty: Arc<Duty>,
    /// When every clock of the process reads zero.
    pub origin: Instant,
    /// Where events for operators are posted.
    pub events: EventSender,
    /// What operators are told of overload.
    pub episodes: Episodes,
    /// Who is told of backends that no connection opens to.
    pub prober: Prober,
    /// How many apps may be told of as wanted.
    pub wanted: Wanted,
}

impl Shared {
    /// Of an edge that has this many data threads and has just begun.
    pub fn new(
        settings: Settings,
        table: Table,
        threads: usize,
        events: EventSender,
        prober: Prober,
    ) -> Shared {
        Shared {
            table: Arc::new(table),
            cells: (0..threads).map(|_| Arc::default()).collect(),
            beats: (0..threads).map(|_| AtomicU64::new(0)).collect(),
            holdings: (0..threads).map(|_| Holdings::default()).collect(),
            duty: Arc::default(),
            origin: Instant::now(),
            events,
            episodes: Episodes::default(),
            prober,
            wanted: Wanted::default(),
            door: Door::new(&settings.edge.clients),
            budget: Budget::new(&settings.edge.clients),
            settings,
        }
    }

    /// Now, by the process's clocks.
    fn now(&self) -> Micros {
        Micros::try_from(self.origin.elapsed().as_micros()).unwrap_or(Micros::MAX)
    }

    /// Client connections open now, over all threads.
    fn connections(&self) -> u64 {
        let open = |cells: &Arc<EdgeCells>| cells.gauge(Gauge::ConnectionsOpen);
        self.cells.iter().map(open).sum()
    }
}

/// Runs the edge: it stands by until it is told to serve, and serves until it is
/// told to leave, and has.
pub fn run(heritage: EdgeHeritage) -> ExitCode {
    let EdgeHeritage {
        settings,
        listeners,
        footing,
        is_awaited,
        feed_path,
        table_dir,
        log,
        lifeline,
    } = heritage;
    let log = match Log::open(&settings.log, log) {
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
    let table = Table::new(threads);
    let shared = Shared::new(settings, table, threads, events.clone(), prober);
    let shared = Arc::new(shared);
    let log = Arc::new(log);
    attend(&lifeline, &shared, &log);
    let herald = Herald::new(&shared.duty);
    let feed = Sync::start(SyncInputs {
        table: Arc::clone(&shared.table),
        cells: shared.cells.clone(),
        prober_cells: Arc::clone(&prober_cells),
        holdings: Arc::clone(&shared.holdings),
        log: Some(Arc::clone(&log)),
        origin: shared.origin,
        events: (events, queue),
        feed_path,
        table_dir,
        footing,
        is_awaited,
        ready: Box::new(move |is_current| herald.table_held(is_current)),
    });
    let called = stand_by(&shared.duty, &lifeline);
    if let Err(code) = called.and_then(|()| open(&listeners)) {
        feed.stop();
        return code;
    }
    // First those whom clients wait for.
    let running = start_threads(listeners, &shared, &log);
    lifeline.ready();
    let probing = probe::start(ProberInputs {
        table: Arc::clone(&shared.table),
        cells: prober_cells,
        events: shared.events.clone(),
        origin: shared.origin,
        posts,
    });
    feed.serves();
    see_out(&shared, probing);
    let code = join_threads(running);
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
fn stand_by(duty: &Duty, lifeline: &Lifeline) -> Result<(), ExitCode> {
    match duty.until_warm() {
        Call::Lost => {
            tracing::error!("no table will come: the feed's thread ended");
            return Err(ExitCode::FAILURE);
        }
        Call::Leave => return Err(ExitCode::SUCCESS),
        Call::Warm | Call::Serve => {}
    }
    lifeline.warm();
    match duty.until_wanted() {
        Call::Leave => Err(ExitCode::SUCCESS),
        _ => Ok(()),
    }
}

/// Lets clients in: from here on somebody accepts them.
///
/// # Errors
/// The exit code: whoever serves goes on.
fn open(listeners: &[Vec<TcpListener>]) -> Result<(), ExitCode> {
    listener::open(listeners).map_err(|error| {
        tracing::error!(%error, setting = "edge.http", "a public listener cannot be opened");
        ExitCode::FAILURE
    })
}

/// Waits until the data threads have ended, which is after the edge was told to
/// leave; sees meanwhile to what has its time.
fn see_out(shared: &Shared, probing: ProberHandle) {
    let duty = &shared.duty;
    let mut probing = Some(probing);
    let mut timetable = None;
    let mut is_forced = false;
    let mut until = None;
    while duty.wait_running(timetable, until) {
        let told = duty.leaving();
        if told != timetable {
            timetable = told;
            is_forced = false;
        }
        let Some(timetable) = timetable else {
            continue;
        };
        let now = shared.now();
        let kept = Micros::try_from(PROBES_KEPT.as_micros()).unwrap_or(0);
        let probes_until = timetable.idle_until().saturating_add(kept);
        if now >= probes_until
            && let Some(probing) = probing.take()
        {
            // Its successor probes: two would be twice as much.
            probing.stop();
        }
        if now >= timetable.forced_from() && !is_forced {
            is_forced = true;
            tell_forced(shared, &timetable);
        }
        let probes_until = probing.as_ref().map(|_| probes_until);
        let forced_from = (!is_forced).then(|| timetable.forced_from());
        let next = probes_until.into_iter().chain(forced_from).min();
        until = next.map(|at| shared.origin + Duration::from_micros(at));
    }
    if let Some(probing) = probing {
        probing.stop();
    }
}

/// The time of an edge that leaves is nearly up.
fn tell_forced(shared: &Shared, timetable: &Timetable) {
    let left = shared.connections();
    if left == 0 {
        return;
    }
    let setting = match timetable.occasion {
        Occasion::HandOver => "edge.handover_timeout",
        Occasion::Drain => "edge.drain_timeout",
    };
    let text = format!(
        "{left} connections of edge {} are left at nine tenths of {setting}: \
         they are closed one after another",
        std::process::id()
    );
    tracing::warn!("{text}");
    shared.events.post("connections_forced", "", "", text);
}

/// When an edge told to leave now closes its connections.
fn timetable(shared: &Shared, occasion: Occasion) -> Timetable {
    let settings = &shared.settings.edge;
    let limit = match occasion {
        Occasion::HandOver => settings.handover_timeout,
        Occasion::Drain => settings.drain_timeout,
    };
    tracing::info!(
        ?occasion,
        ?limit,
        connections = shared.connections(),
        "leaving: nothing new is accepted"
    );
    Timetable::new(occasion, shared.now(), limit)
}

/// Starts a data thread for each set of sockets.
fn start_threads(
    listeners: Vec<Vec<TcpListener>>,
    shared: &Arc<Shared>,
    log: &Log,
) -> Vec<JoinHandle<()>> {
    let started = listeners.into_iter().enumerate().map(|(index, sockets)| {
        let (shared, buffer) = (Arc::clone(shared), log.buffer());
        let running = Running::begin(&shared.duty);
        let data = move || {
            let _running = running;
            thread::run(index, &shared, sockets, buffer);
        };
        let spawned = std::thread::Builder::new()
            .name(format!("edge-{index}"))
            .spawn(data);
        spawned.expect("a data thread must start")
    });
    started.collect()
}

/// Takes leave of data threads that have ended.
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
            Order::Serve => shared.duty.serve(),
            Order::Reopen(file) => {
                if let Some(file) = file {
                    log.reopen(file.into());
                }
            }
            Order::HandOver => shared.duty.leave(timetable(&shared, Occasion::HandOver)),
            Order::Drain | Order::Orphaned => {
                shared.duty.leave(timetable(&shared, Occasion::Drain));
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

    /// Of a thread that has not begun, or has ended with its last connection,
    /// there is none: a beat of 0 is not a stall.
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

#[cfg(test)]
#[path = "life_tests.rs"]
mod tests;
