//! A run: routers, backends, requests, and what happens to them in which order.
//!
//! Owns the set-up and the dispatch of events. What a router does with a
//! request is in [`journey`](super::journey), how it waits in
//! [`waiting`](super::waiting), how it looks for backends that went away in
//! [`prober`](super::prober).

use std::mem;
use std::sync::Arc;

use fastrand::Rng;
use portico::feed::messages::PolicyRecord;
use portico::policy::health::Verdict;
use portico::table::Table;

use crate::arena::{Arena, Id};
use crate::attempt::{Attempt, Streaming};
use crate::backend::{AT_ONCE_US, Backend, Job, Receipt, Reply};
use crate::clients::Clients;
use crate::engine::{Engine, Micros, SECOND};
use crate::faults::{Change, Mode, Schedule};
use crate::journey::{Asked, Request};
use crate::load::{Arrivals, Service};
use crate::record::Record;
use crate::router::{Router, THREADS, Woken};
use crate::rules::{check_amplification, check_budget};
use crate::server::Begun;

/// One way over the network.
pub const NETWORK_US: Micros = 100;

/// What is run.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Routers, each with an equal part of the requests; or apps of routers.
    pub routers: usize,
    /// So many in a row are apps of one router, on the same backends.
    pub apps: usize,
    /// The weight of each backend.
    pub weights: Vec<u32>,
    /// Workers of each backend.
    pub workers: usize,
    /// How long a request takes to serve.
    pub service: Service,
    /// How long an answer's body takes after its head.
    pub body_us: Micros,
    /// Who asks.
    pub clients: Vec<Clients>,
    /// How many of a hundred may be repeated.
    pub repeatable_percent: u32,
    /// The app's policy.
    pub policy: PolicyRecord,
    /// What goes wrong.
    pub faults: Schedule,
    /// How many backends the routers know from a moment on, those first in
    /// order; all of them until then.
    pub members: Vec<(Micros, usize)>,
    /// How far each router's wall clock is ahead of the first's.
    pub ahead_us: Vec<Micros>,
    /// Routers choose at random, and give a backend whatever comes: as one
    /// without any of this would.
    pub bare: bool,
    /// No request comes after this; those under way are seen to their end.
    pub length_us: Micros,
    /// Of all that is random.
    pub seed: u64,
}

impl Default for Setup {
    /// The issue's: 4 backends of 5 ms, 1,000 requests a second, 10 s.
    fn default() -> Self {
        Setup {
            routers: 1,
            apps: 1,
            weights: vec![100; 4],
            workers: 1_000,
            service: Service::Constant(5_000),
            body_us: 0,
            clients: vec![Arrivals::Independent(1_000.0).into()],
            repeatable_percent: 100,
            policy: PolicyRecord::default(),
            faults: Schedule::default(),
            members: Vec::new(),
            ahead_us: Vec::new(),
            bare: false,
            length_us: 10 * SECOND,
            seed: 1,
        }
    }
}

/// What happens.
#[derive(Clone, Copy)]
pub enum Event {
    Arrival(usize),
    Again(Asked),
    ClientLeaves(Id),
    Streamed(Id),
    Members(usize),
    Connected(Id),
    Refused(Id),
    ConnectTimedOut(Id),
    Delivered(Id),
    Served {
        backend: usize,
        begun: Begun<Job>,
    },
    Answered {
        attempt: Id,
        reply: Reply,
    },
    Closed(Id),
    AttemptDue(Id),
    WaitOver {
        request: Id,
        wait: u64,
    },
    WaitLook {
        request: Id,
        wait: u64,
    },
    ProbeDue {
        router: usize,
        backend: usize,
    },
    Probed {
        router: usize,
        backend: usize,
        passed: bool,
    },
    Change(Change),
}

/// A run.
pub struct World {
    pub(super) setup: Setup,
    pub(super) engine: Engine<Event>,
    pub(super) backends: Vec<Backend>,
    pub(super) routers: Vec<Router>,
    pub(super) requests: Arena<Request>,
    pub(super) attempts: Arena<Attempt>,
    pub(super) streaming: Arena<Streaming>,
    pub(super) woken: Woken,
    /// Streams of their own, so that a change of policy meets the same
    /// requests.
    pub(super) arriving: Vec<Rng>,
    pub(super) serving: Rng,
    pub(super) choosing: Rng,
    /// How often each request was begun by a backend, by serial number.
    executions: Vec<u8>,
    /// What was seen.
    pub record: Record,
}

impl World {
    /// Nothing has happened yet.
    pub fn new(setup: Setup) -> Self {
        let backends = setup.weights.len();
        let mut engine = Engine::new();
        for (number, clients) in setup.clients.iter().enumerate() {
            engine.at(clients.from_us, Event::Arrival(number));
        }
        for &(at_us, members) in &setup.members {
            engine.at(at_us, Event::Members(members));
        }
        for &change in &setup.faults.changes {
            engine.at(change.at_us, Event::Change(change));
        }
        World {
            engine,
            backends: (0..backends)
                .map(|_| Backend::new(setup.service, setup.workers))
                .collect(),
            routers: routers(&setup),
            requests: Arena::new(),
            attempts: Arena::new(),
            streaming: Arena::new(),
            woken: Woken::default(),
            arriving: (0..setup.clients.len() as u64)
                .map(|number| Rng::with_seed(setup.seed ^ 0xa551 ^ (number << 32)))
                .collect(),
            serving: Rng::with_seed(setup.seed ^ 0x5e52),
            choosing: Rng::with_seed(setup.seed ^ 0xc453),
            executions: Vec::new(),
            record: Record::new(setup.routers, backends),
            setup,
        }
    }

    /// Runs to the end of the last request.
    pub fn run(mut self) -> Record {
        while let Some(event) = self.engine.next() {
            self.happen(event);
            self.ring();
            let left = self.requests.len() + self.streaming.len();
            if self.now_us() > self.setup.length_us && left == 0 {
                break;
            }
        }
        self.settle();
        self.record.events = self.engine.events();
        check_budget(&self.setup, &self.record);
        check_amplification(&self.record);
        mem::take(&mut self.record)
    }

    /// What was being run, for whoever reads a failure.
    fn describe(&self) -> String {
        let faults = &self.setup.faults.changes;
        let mut faults: Vec<_> = faults
            .iter()
            .map(|change| (change.at_us, change.backend, change.mode))
            .collect();
        faults.sort_by_key(|&(at_us, backend, _)| (at_us, backend));
        let faults: Vec<String> = faults
            .iter()
            .map(|(at_us, backend, mode)| format!("{at_us} µs, backend {backend}: {mode:?}"))
            .collect();
        let plain = Setup {
            faults: Schedule::default(),
            ..self.setup.clone()
        };
        format!("{plain:?}\n{}", faults.join("\n"))
    }

    /// What must be left when nothing is under way: nothing.
    fn settle(&self) {
        assert_eq!(self.requests.len(), 0, "requests never ended");
        assert_eq!(self.attempts.len(), 0, "tries never ended");
        for router in &self.routers {
            assert_eq!(router.live.queue.waiting(), 0, "someone is still in line");
            for backend in &router.app.backends {
                assert_eq!(backend.in_flight(), 0, "a try was never let go");
            }
        }
    }

    /// The time.
    pub fn now_us(&self) -> Micros {
        self.engine.now_us()
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Arrival(clients) => self.next_of(clients),
            Event::Again(asked) => self.again(asked),
            Event::ClientLeaves(request) => self.client_leaves(request),
            Event::Streamed(stream) => self.streamed(stream),
            Event::Members(members) => self.refresh(members),
            Event::Connected(attempt) => self.connected(attempt),
            Event::Refused(attempt) => self.refused(attempt),
            Event::ConnectTimedOut(attempt) => self.connect_timed_out(attempt),
            Event::Delivered(attempt) => self.deliver(attempt),
            Event::Served { backend, begun } => self.served(backend, begun),
            Event::Answered { attempt, reply } => self.answered(attempt, reply),
            Event::Closed(attempt) => self.closed(attempt),
            Event::AttemptDue(attempt) => self.attempt_due(attempt),
            Event::WaitOver { request, wait } => self.wait_over(request, wait),
            Event::WaitLook { request, wait } => self.look(request, wait),
            Event::ProbeDue { router, backend } => self.probe(router, backend),
            Event::Probed {
                router,
                backend,
                passed,
            } => self.probed(router, backend, passed),
            Event::Change(change) => self.change(change),
        }
    }

    /// Wakes whom the last event woke.
    fn ring(&mut self) {
        loop {
            let woken = self.woken.lock().map(|mut woken| mem::take(&mut *woken));
            let woken = woken.expect("nothing must panic holding it");
            if woken.is_empty() {
                return;
            }
            for request in woken {
                self.look_again(request);
            }
        }
    }

    /// A request arrives at its backend, whoever still waits for it.
    fn deliver(&mut self, id: Id) {
        let Some(attempt) = self.attempts.get(id) else {
            // Given up on the way: the connection was closed before.
            return;
        };
        let (backend, serial) = (attempt.backend, self.serial(attempt.request));
        let now_us = self.now_us();
        let job = Job {
            attempt: id,
            serial,
        };
        match self.backends[backend].receive(job, now_us, &mut self.serving) {
            Receipt::Lost | Receipt::Queued => {}
            Receipt::Begun(begun) => self.begun(backend, begun),
            Receipt::Reset => self.engine.after(NETWORK_US, Event::Closed(id)),
            Receipt::ReadThenClosed => {
                self.executed(serial);
                self.engine.after(NETWORK_US, Event::Closed(id));
            }
            Receipt::Answered(reply) => {
                self.executed(serial);
                let attempt = id;
                self.engine
                    .after(AT_ONCE_US + NETWORK_US, Event::Answered { attempt, reply });
            }
        }
    }

    fn begun(&mut self, backend: usize, begun: Begun<Job>) {
        self.executed(begun.job.serial);
        self.engine
            .at(begun.done_at_us, Event::Served { backend, begun });
    }

    /// A backend begins to work on a request: **invariant**, at most once if
    /// it must not be repeated.
    fn executed(&mut self, serial: u64) {
        let serial = serial as usize;
        if self.executions.len() <= serial {
            self.executions.resize(serial + 1, 0);
        }
        self.executions[serial] = self.executions[serial].saturating_add(1);
        let times = self.executions[serial];
        self.record.executions += 1;
        assert!(
            times == 1 || self.record.repeatable[serial],
            "request {serial} must not be repeated and was executed {times} times"
        );
    }

    fn served(&mut self, backend: usize, begun: Begun<Job>) {
        let now_us = self.now_us();
        let (holds, next) = self.backends[backend].finish(begun, now_us, &mut self.serving);
        if !holds {
            return;
        }
        if self.backends[backend].mode != Mode::Unreachable {
            let (attempt, reply) = (begun.job.attempt, Reply::OK);
            self.engine
                .after(NETWORK_US, Event::Answered { attempt, reply });
        }
        if let Some(next) = next {
            self.begun(backend, next);
        }
    }

    fn change(&mut self, change: Change) {
        let Change { backend, mode, .. } = change;
        let now_us = self.now_us();
        let (died, served) = self.backends[backend].change(mode, now_us, &mut self.serving);
        for job in died {
            self.engine.after(NETWORK_US, Event::Closed(job.attempt));
        }
        for begun in served {
            self.resumed(backend, begun);
        }
        if mode == Mode::Down {
            for router in &mut self.routers {
                router.idle[backend] = 0;
            }
        }
    }

    /// Every router gets a table in which the first so many backends are.
    fn refresh(&mut self, members: usize) {
        for router in &mut self.routers {
            router.refresh(&self.setup.weights[..members], &self.setup.policy);
        }
    }

    /// After a thaw: what was begun before goes on, what waited begins.
    fn resumed(&mut self, backend: usize, begun: Begun<Job>) {
        if begun.is_new {
            self.begun(backend, begun);
        } else {
            self.engine
                .at(begun.done_at_us, Event::Served { backend, begun });
        }
    }

    /// Notes a decision, and checks what must hold after any.
    pub(super) fn pronounced(&mut self, router: usize, backend: usize, verdict: Verdict) {
        let now_us = self.now_us();
        self.check_ejection(router, backend, &verdict);
        self.record.verdict(now_us, router, backend, verdict);
        if verdict.wants_probe() {
            self.set_probe(router, backend);
        }
    }
}

/// The routers of a run, or the apps of its routers.
fn routers(setup: &Setup) -> Vec<Router> {
    let mut table = Arc::new(Table::new(THREADS));
    let router = |number: usize| {
        if number.is_multiple_of(setup.apps) {
            table = Arc::new(Table::new(THREADS));
        }
        let name = format!("shop{number}");
        Router::new(Arc::clone(&table), name, &setup.weights, &setup.policy)
    };
    (0..setup.routers).map(router).collect()
}

impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("at {} µs of {}", self.now_us(), self.describe());
        }
    }
}
