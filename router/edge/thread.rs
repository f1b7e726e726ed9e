//! One data thread: its runtime, its listeners, its share of everything.
//!
//! Owns what a connection on this thread may touch without a lock: buffers,
//! the pool of backend connections, the clock, the log buffer, the random
//! numbers. Nothing here is `Send`; threads share only the published table and
//! the counters behind it.

use std::cell::{Cell, RefCell};
use std::net::TcpListener;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use tokio::runtime::{Builder, LocalOptions};

use super::Shared;
use super::buffer::Buffers;
use super::clock::Clock;
use super::journey::{Pipes, Work};
use super::listener;
use super::upstream::Pool;
use crate::observe::access_log::LogBuffer;
use crate::observe::{EdgeCells, Gauge};
use crate::table::Table;

/// How often a thread looks after itself: log lines handed on, dead backend
/// connections dropped, the heartbeat that the supervisor hears of.
const TICK: Duration = Duration::from_millis(100);

/// Idle work boxes kept: requests served at once by a thread, about.
const KEPT_WORK: usize = 256;

/// Where a thread is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Accepting and serving.
    Serving,
    /// Accepting no more; connections close after the request they serve.
    Draining,
    /// Requests still served are cut (H24).
    Cutting,
}

/// What every connection of a thread shares.
pub struct Thread {
    /// Its number, from 0: the index of its cells everywhere.
    pub index: usize,
    /// The process-wide values.
    pub shared: Arc<Shared>,
    /// The routing table.
    pub table: Arc<Table>,
    /// Its counters; only this thread writes them.
    pub cells: Arc<EdgeCells>,
    /// Its clock and deadlines.
    pub clock: Clock,
    /// Its idle buffers.
    pub buffers: Buffers,
    /// Its pipes for large bodies.
    pub pipes: Pipes,
    /// Its idle backend connections.
    pub pool: Pool,
    /// Its access log lines on their way to the writer.
    pub log: RefCell<LogBuffer>,
    /// Its source of randomness for balancing.
    pub random: RefCell<fastrand::Rng>,
    #[expect(
        clippy::vec_box,
        reason = "taken and put back whole: a pointer moves, not the set"
    )]
    work: RefCell<Vec<Box<Work>>>,
    phase: Cell<Phase>,
    connections: Cell<usize>,
}

impl Thread {
    fn new(index: usize, shared: &Arc<Shared>, log: LogBuffer) -> Rc<Self> {
        Rc::new(Thread {
            index,
            shared: Arc::clone(shared),
            table: Arc::clone(&shared.table),
            cells: Arc::clone(&shared.cells[index]),
            clock: Clock::since(shared.origin),
            buffers: Buffers::default(),
            pipes: Pipes::default(),
            pool: Pool::default(),
            log: RefCell::new(log),
            random: RefCell::new(fastrand::Rng::new()),
            work: RefCell::default(),
            phase: Cell::new(Phase::Serving),
            connections: Cell::new(0),
        })
    }

    /// Where the thread is in its life.
    pub fn phase(&self) -> Phase {
        self.phase.get()
    }

    /// The working set of one request, recycled.
    pub fn take_work(&self) -> Box<Work> {
        self.work.borrow_mut().pop().unwrap_or_default()
    }

    /// Back for the next request.
    pub fn put_work(&self, mut work: Box<Work>) {
        work.reset(&self.buffers);
        let mut kept = self.work.borrow_mut();
        if kept.len() < KEPT_WORK {
            kept.push(work);
        }
    }

    /// One more connection is open; counted until the guard is dropped.
    pub fn opened(self: &Rc<Self>) -> Open {
        self.connections.set(self.connections.get() + 1);
        self.cells.up(Gauge::ConnectionsOpen);
        Open(Rc::clone(self))
    }

    fn enter(&self, phase: Phase) {
        self.phase.set(phase);
        self.clock.wake_all();
    }
}

/// An open client connection, counted.
pub struct Open(Rc<Thread>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.connections.set(self.0.connections.get() - 1);
        self.0.cells.down(Gauge::ConnectionsOpen);
    }
}

/// Runs a data thread until a drain is over.
pub fn run(index: usize, shared: &Arc<Shared>, listeners: Vec<TcpListener>, log: LogBuffer) {
    let runtime = Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build_local(LocalOptions::default())
        .expect("a data thread's runtime must start");
    let thread = Thread::new(index, shared, log);
    thread.cells.set(Gauge::Threads, 1);
    runtime.block_on(live(thread, listeners));
}

async fn live(thread: Rc<Thread>, listeners: Vec<TcpListener>) {
    tokio::task::spawn_local(thread.clock.clone().drive());
    let mut accepting = Vec::new();
    for listener in listeners {
        accepting.push(tokio::task::spawn_local(listener::accept(
            Rc::clone(&thread),
            listener,
        )));
    }
    let beat = &thread.shared.beats[thread.index];
    let mut order = thread.shared.orders.subscribe();
    // One given before this thread was there counts as well.
    order.mark_changed();
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut cut_at = None;
    loop {
        tokio::select! {
            _ = tick.tick() => keep_house(&thread, beat),
            changed = order.changed(), if thread.phase() == Phase::Serving => {
                if changed.is_err() || *order.borrow() == Phase::Draining {
                    thread.enter(Phase::Draining);
                    for task in accepting.drain(..) {
                        // Each takes what is in its backlog, then ends.
                        let _ = task.await;
                    }
                    cut_at = Some(tokio::time::Instant::now() + thread.shared.settings.edge.drain_timeout);
                }
            }
        }
        if let Some(at) = cut_at {
            if thread.connections.get() == 0 {
                break;
            }
            if tokio::time::Instant::now() >= at {
                thread.enter(Phase::Cutting);
                cut_at = Some(at + Duration::from_secs(3600));
            }
        }
        if thread.phase() == Phase::Cutting && thread.connections.get() == 0 {
            break;
        }
    }
    thread.log.borrow_mut().flush();
}

fn keep_house(thread: &Thread, beat: &AtomicU64) {
    beat.store(beat.load(Relaxed) + 1, Relaxed);
    thread.log.borrow_mut().flush();
    thread.clock.follow_system();
    let now = thread.clock.now();
    thread.pool.sweep(now);
    thread
        .cells
        .set(Gauge::BackendIdleConnections, thread.pool.held() as u64);
}
