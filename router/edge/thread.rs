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
use tokio::sync::Notify;

use super::Shared;
use super::budget::{self, FRUGAL, SCARCE, SPENT, TIGHT};
use super::buffer::Buffers;
use super::clock::{Clock, Micros};
use super::door::{Pass, Plight};
use super::gate::{self, Gate};
use super::journey::{Pipes, Work};
use super::leaving::{Place, Stand, Timetable};
use super::lines::Lines;
use super::listener;
use super::roster::{Awaits, Roster};
use super::upstream::{Pool, REGISTRATION_BYTES};
use crate::observe::access_log::LogBuffer;
use crate::observe::{Counter, EdgeCells, Gauge};
use crate::table::{App, Table};

/// How often a thread looks after itself: how busy it is, log lines handed on, dead backend
/// connections dropped, the heartbeat that the supervisor hears of.
const TICK: Duration = Duration::from_millis(100);

/// No time at all.
const NEVER: Micros = Micros::MAX;

/// Idle work boxes kept: requests served at once by a thread, about.
const KEPT_WORK: usize = 256;

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
    /// Its connections that wait for their clients.
    pub roster: Roster,
    /// Its connections whose requests wait in their apps' lines.
    pub lines: Lines,
    /// Its idle buffers.
    pub buffers: Buffers,
    /// Its pipes for large bodies.
    pub pipes: Pipes,
    /// Its idle backend connections.
    pub pool: Pool,
    /// Its access log lines on their way to the writer.
    pub log: RefCell<LogBuffer>,
    /// Where requests take turns once it has more to do than it can.
    pub gate: Gate,
    /// Its source of randomness for balancing.
    pub random: RefCell<fastrand::Rng>,
    #[expect(
        clippy::vec_box,
        reason = "taken and put back whole: a pointer moves, not the set"
    )]
    work: RefCell<Vec<Box<Work>>>,
    /// Looked at by every request: not leaving.
    is_serving: Cell<bool>,
    stand: Cell<Option<Stand>>,
    /// Places given in this edition of the timetable, of so many.
    places: Cell<Place>,
    connections: Cell<usize>,
    /// What a connection's task takes.
    task_bytes: Cell<usize>,
    /// What those take besides that have had a request.
    talk_bytes: Cell<usize>,
    /// Listeners that are accepted from.
    listeners: Cell<usize>,
    /// Told when the last connection or listener is gone.
    deserted: Notify,
}

impl Thread {
    fn new(index: usize, shared: &Arc<Shared>, log: LogBuffer) -> Rc<Self> {
        Rc::new(Thread {
            index,
            shared: Arc::clone(shared),
            table: Arc::clone(&shared.table),
            cells: Arc::clone(&shared.cells[index]),
            clock: Clock::since(shared.origin),
            roster: Roster::default(),
            lines: Lines::default(),
            buffers: Buffers::within(shared.budget),
            pipes: Pipes::default(),
            pool: Pool::default(),
            log: RefCell::new(log),
            gate: Gate::default(),
            random: RefCell::new(fastrand::Rng::new()),
            work: RefCell::default(),
            is_serving: Cell::new(true),
            stand: Cell::new(None),
            places: Cell::new(Place { index: 0, of: 0 }),
            connections: Cell::new(0),
            task_bytes: Cell::new(0),
            talk_bytes: Cell::new(0),
            listeners: Cell::new(0),
            deserted: Notify::new(),
        })
    }

    /// Whether connections may be kept: the edge is not leaving.
    pub fn is_serving(&self) -> bool {
        self.is_serving.get()
    }

    /// Where it stands in its timetable, once the edge leaves.
    pub fn stand(&self) -> Option<Stand> {
        self.stand.get()
    }

    /// The next connection's place in this edition of the timetable. Threads
    /// take turns: of two, one closes between two closings of the other.
    pub fn take_place(&self) -> Place {
        let mut places = self.places.get();
        let threads = self.shared.beats.len() as u64;
        let place = Place {
            index: places.index * threads + self.index as u64,
            of: places.of * threads,
        };
        places.index += 1;
        self.places.set(places);
        place
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

    /// One more connection is open, by this pass; counted until the guard is
    /// dropped.
    pub fn opened(self: &Rc<Self>, pass: Option<Pass>) -> Open {
        self.connections.set(self.connections.get() + 1);
        self.cells.up(Gauge::ConnectionsOpen);
        Open {
            thread: Rc::clone(self),
            talk_bytes: Cell::new(0),
            _pass: pass,
        }
    }

    /// Closes, for the sake of others, the connection that has waited longest
    /// for its client: an idle one, else one without a whole head. Whether there
    /// was one.
    pub fn dismiss_one(&self) -> bool {
        let idle = self.roster.dismiss(Awaits::Request);
        let longest = idle.or_else(|| self.roster.dismiss(Awaits::Head));
        longest.map(|slot| self.clock.expire(slot)).is_some()
    }

    /// Closes one for the sake of another connection, where there is none that
    /// waits for its client also one whose request waits in a long line. Whether
    /// there was one.
    pub fn make_place(&self) -> bool {
        if self.dismiss_one() {
            return true;
        }
        let waits = self.lines.dismiss(&mut self.random.borrow_mut());
        waits.map(|slot| self.clock.expire(slot)).is_some()
    }

    /// Serves a connection, in a task of its own.
    pub fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        self.task_bytes.set(size_of_val(&task));
        tokio::task::spawn_local(task);
    }

    /// Gives way to what the process's buffers take of their budget.
    fn save_memory(&self) {
        let pressure = self.shared.budget.pressure();
        self.buffers.save(pressure >= FRUGAL);
        if self.index == 0 {
            self.cells.set(Gauge::BufferBytes, budget::held_bytes());
        }
        if pressure < TIGHT {
            return;
        }
        self.tell(Plight::Memory);
        let heads_go = self.shared.budget.is_share(self.nobodys_bytes());
        for slot in self.roster.press(heads_go) {
            self.clock.expire(slot);
        }
    }

    /// Bytes of buffers in use that no app holds: of heads that are not whole.
    fn nobodys_bytes(&self) -> u64 {
        let shared = &self.shared;
        let idle = shared
            .holdings
            .iter()
            .map(|held| held.buffers.load(Relaxed));
        let taken = shared
            .cells
            .iter()
            .map(|cells| cells.gauge(Gauge::BufferTakenBytes));
        budget::held_bytes().saturating_sub(idle.chain(taken).sum())
    }

    /// A request of the app holds so many KiB of buffers where it held so many
    /// before.
    #[inline]
    pub fn took(&self, app: &App, before_kib: u32, now_kib: u32) {
        app.live().cells[self.index].hold(before_kib, now_kib);
        let taken = self.cells.gauge(Gauge::BufferTakenBytes) + u64::from(now_kib) * 1024;
        let taken = taken - u64::from(before_kib) * 1024;
        self.cells.set(Gauge::BufferTakenBytes, taken);
    }

    /// Whether the app's requests hold its share of the buffers.
    pub fn has_its_share(&self, app: &App) -> bool {
        self.shared.budget.is_share(app.live().held_bytes())
    }

    /// Whether nothing is to be held for the app that it can do without.
    #[inline]
    pub fn is_tight_for(&self, app: &App) -> bool {
        self.shared.budget.pressure() >= TIGHT && self.has_its_share(app)
    }

    /// Whether no request of the app is to begin.
    #[inline]
    pub fn is_scarce_for(&self, app: &App) -> bool {
        self.shared.budget.pressure() >= SCARCE && self.has_its_share(app)
    }

    /// Whether no request of the app is to take more than it has.
    #[inline]
    pub fn is_spent_for(&self, app: &App) -> bool {
        self.shared.budget.pressure() >= SPENT && self.has_its_share(app)
    }

    /// Tells an operator, unless it was told a moment ago.
    pub fn tell(&self, plight: Plight) {
        self.tell_of(plight, "");
    }

    /// The same, of an app.
    fn tell_of(&self, plight: Plight, app: &str) {
        if let Some((kind, text)) = self.shared.door.tell(plight, self.clock.now()) {
            tracing::warn!(kind, app, "{text}");
            self.shared.events.post(kind, app, "", text);
        }
    }

    /// A request of the app is refused for want of memory.
    pub fn shed_for_memory(&self, app: &App) {
        self.cells.inc(Counter::ShedMemory);
        self.tell_of(Plight::Share, &app.name);
    }

    /// Says what the thread holds in memory.
    fn take_stock(&self) {
        let held = &self.shared.holdings[self.index];
        let each = self.task_bytes.get() + REGISTRATION_BYTES;
        let say = |part: &AtomicU64, bytes: usize| part.store(bytes as u64, Relaxed);
        say(&held.buffers, self.buffers.idle_bytes());
        let connections = self.connections.get() * each + self.talk_bytes.get();
        say(&held.connections, connections);
        say(&held.pool, self.pool.bytes());
        say(&held.log, self.log.borrow().held_bytes());
    }

    /// One more listener is accepted from, until the guard is dropped.
    pub fn listening(self: &Rc<Self>) -> Listening {
        self.listeners.set(self.listeners.get() + 1);
        Listening(Rc::clone(self))
    }

    /// Whether it leaves, and nobody is left.
    fn is_deserted(&self) -> bool {
        !self.is_serving() && self.connections.get() + self.listeners.get() == 0
    }

    fn look_deserted(&self) {
        if self.is_deserted() {
            self.deserted.notify_one();
        }
    }

    /// From here on by this timetable; every connection looks at it.
    fn enter(&self, timetable: Timetable) {
        let before = self.stand.get();
        let edition = before.map_or(0, |stand| stand.edition) + 1;
        let is_forced = self.clock.now() >= timetable.forced_from();
        self.stand.set(Some(Stand {
            timetable,
            edition,
            is_forced,
        }));
        self.places.set(Place {
            index: 0,
            of: self.connections.get() as u64,
        });
        self.is_serving.set(false);
        self.clock.wake_all();
    }
}

/// An open client connection, counted.
pub struct Open {
    thread: Rc<Thread>,
    talk_bytes: Cell<usize>,
    _pass: Option<Pass>,
}

impl Open {
    /// Its thread.
    pub fn thread(&self) -> &Rc<Thread> {
        &self.thread
    }

    /// Its requests take so many bytes besides its task.
    pub fn talks(&self, bytes: usize) {
        let all = &self.thread.talk_bytes;
        all.set(all.get() - self.talk_bytes.replace(bytes) + bytes);
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.talks(0);
        let thread = &self.thread;
        thread.connections.set(thread.connections.get() - 1);
        thread.cells.down(Gauge::ConnectionsOpen);
        thread.look_deserted();
    }
}

/// A listener that is accepted from, counted.
pub struct Listening(Rc<Thread>);

impl Listening {
    /// The thread that accepts.
    pub fn thread(&self) -> &Rc<Thread> {
        &self.0
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.0.listeners.set(self.0.listeners.get() - 1);
        self.0.look_deserted();
    }
}

/// Runs a data thread until it is told to leave and its last connection ended.
pub fn run(index: usize, shared: &Arc<Shared>, listeners: Vec<TcpListener>, log: LogBuffer) {
    let runtime = Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build_local(LocalOptions::default())
        .expect("a data thread's runtime must start");
    let thread = Thread::new(index, shared, log);
    thread.cells.set(Gauge::Threads, 1);
    runtime.block_on(live(&thread, listeners));
    thread.cells.set(Gauge::Threads, 0);
    thread.cells.set(Gauge::ConnectionsLeaving, 0);
    thread.log.borrow_mut().hand_over();
    // It ended well: the others go on, and the process is not stuck.
    shared.beats[index].store(0, Relaxed);
}

async fn live(thread: &Rc<Thread>, listeners: Vec<TcpListener>) {
    tokio::task::spawn_local(thread.clock.clone().drive());
    tokio::task::spawn_local(gate::keep(Rc::clone(thread)));
    tokio::task::spawn_local(gate::watch(Rc::clone(thread)));
    for listener in listeners {
        tokio::task::spawn_local(listener::accept(thread.listening(), listener));
    }
    let beat = &thread.shared.beats[thread.index];
    let mut orders = thread.shared.duty.orders();
    let clock = &thread.clock;
    let mut house_at = clock.now();
    loop {
        let forced_at = thread.stand().filter(|stand| !stand.is_forced);
        let forced_at = forced_at.map_or(NEVER, |stand| stand.timetable.forced_from());
        tokio::select! {
            () = clock.sleep_until(house_at) => {
                let now = clock.now();
                house_at = now + micros(TICK);
                thread.gate.rouse(now);
                keep_house(thread, beat);
            }
            () = thread.deserted.notified() => {}
            () = thread.clock.sleep_until(forced_at), if forced_at != NEVER => {
                if let Some(stand) = thread.stand() {
                    thread.enter(stand.timetable);
                }
            }
            Ok(()) = orders.changed() => {
                let told = *orders.borrow_and_update();
                if let Some(timetable) = told {
                    thread.enter(timetable);
                }
            }
        }
        if thread.is_deserted() {
            return;
        }
    }
}

fn micros(time: Duration) -> Micros {
    Micros::try_from(time.as_micros()).unwrap_or(NEVER)
}

/// Closes connections that wait, for those that another thread turned away. A
/// thread that has none leaves it to the others.
fn make_room(thread: &Thread) {
    let door = &thread.shared.door;
    if door.is_wanting() && thread.shared.connections() < door.most() as u64 {
        door.forgo();
    }
    while door.is_wanting() && thread.make_place() {
        door.met();
    }
}

fn keep_house(thread: &Thread, beat: &AtomicU64) {
    beat.store(beat.load(Relaxed) + 1, Relaxed);
    thread.log.borrow_mut().flush();
    thread.clock.follow_system();
    let now = thread.clock.now();
    thread.pool.sweep(now);
    make_room(thread);
    thread.take_stock();
    thread.save_memory();
    if let Some(text) = thread.shared.wanted.sum_up(now) {
        thread.shared.events.post("apps_wanted", "", "", text);
    }
    let cells = &thread.cells;
    cells.set(Gauge::BackendIdleConnections, thread.pool.held() as u64);
    if !thread.is_serving() {
        cells.set(Gauge::ConnectionsLeaving, thread.connections.get() as u64);
    }
}
