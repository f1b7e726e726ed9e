//! One run: routers in front of a pool, each with a limit for every backend and
//! a line for those who find no room.
//!
//! Owns the run and what is measured of it. The line is the same for every way
//! of finding the limit, and stands by the router's own
//! [`portico::policy::admission::standing`].

use std::collections::VecDeque;

use fastrand::Rng;
use portico::policy::admission::standing::{Pace, Standing};

use crate::engine::{Engine, MILLISECOND, Micros, SECOND};
use crate::limits::{Heard, Limit, Way};
use crate::load::{Arrivals, Service};
use crate::server::{Begun, Server};

/// Backends of a pool.
pub const BACKENDS: usize = 4;
/// Workers of a backend.
pub const WORKERS: usize = 10;
/// Clients leave after this.
const PATIENCE_US: Micros = SECOND;
/// Places in a line that does not stand.
const PLACES: u32 = 50 * BACKENDS as u32;
/// Before anything is measured: limits are found.
pub const WARM_UP_US: Micros = 5 * SECOND;
/// How often the limit and the answers are looked at for the drawing.
pub const SAMPLE_US: Micros = 200 * MILLISECOND;

/// What is run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scenario {
    /// As the report calls it.
    pub name: &'static str,
    /// Routers, each with an equal part of the requests.
    pub routers: usize,
    /// Requests arriving, as a share of what the pool can do at first.
    pub load: f64,
    /// How long a request takes to serve.
    pub service: Service,
    /// From then on it takes twice as long.
    pub doubles_us: Option<Micros>,
    /// So many requests within 20 ms, each second.
    pub burst: u32,
    /// All of it.
    pub length_us: Micros,
}

impl Scenario {
    /// Requests that the pool can answer while it is measured.
    fn could(&self) -> f64 {
        let per_us = (BACKENDS * WORKERS) as f64 / self.service.mean_us();
        let slow_us = self.doubles_us.map_or(0, |at_us| self.length_us - at_us);
        per_us * ((self.length_us - WARM_UP_US) as f64 - slow_us as f64 / 2.0)
    }
}

/// A moment of a run.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// The first router's limit for the first backend; 0: none.
    pub limit: u32,
    /// From arrival to answer since the last sample, the mean; 0: none came.
    pub took_us: f64,
}

/// What came out.
#[derive(Clone, Debug, Default)]
pub struct Measured {
    /// Answered in time, of what could be or of what came, whichever is less.
    pub goodput: f64,
    /// From arrival to answer, sorted.
    latencies_us: Vec<u32>,
    /// Refused.
    pub shed: u64,
    /// All that came.
    pub came: u64,
    /// In order, [`SAMPLE_US`] apart.
    pub samples: Vec<Sample>,
}

impl Measured {
    /// The latency that 99 of a hundred answers stayed within.
    pub fn p99_ms(&self) -> f64 {
        let at = self.latencies_us.len() * 99 / 100;
        let us = self.latencies_us.get(at).or(self.latencies_us.last());
        f64::from(us.copied().unwrap_or(0)) / 1_000.0
    }

    /// Refused, of all that came.
    pub fn shed_percent(&self) -> f64 {
        self.shed as f64 * 100.0 / self.came.max(1) as f64
    }
}

#[derive(Clone, Copy, PartialEq)]
struct Request {
    number: u64,
    router: usize,
    arrived_us: Micros,
    sent_us: Micros,
}

#[derive(Clone, Copy)]
enum Event {
    Arrival,
    Burst(u32),
    Done {
        backend: usize,
        begun: Begun<Request>,
    },
    Sample,
}

/// What a router knows of a backend.
struct Known {
    in_flight: u32,
    limit: Limit,
}

struct Router {
    backends: Vec<Known>,
    line: VecDeque<Request>,
    standing: Standing,
    usual_us: f64,
}

struct Run {
    scenario: Scenario,
    has_line: bool,
    engine: Engine<Event>,
    servers: Vec<Server<Request>>,
    routers: Vec<Router>,
    arrivals: Arrivals,
    arriving: Rng,
    serving: Rng,
    choosing: Rng,
    next_number: u64,
    good: u64,
    since_sample: (u32, f64),
    measured: Measured,
}

/// Runs it.
pub fn run(scenario: Scenario, way: Way) -> Measured {
    let router = |_| Router {
        backends: (0..BACKENDS)
            .map(|_| Known {
                in_flight: 0,
                limit: way.limit(),
            })
            .collect(),
        line: VecDeque::new(),
        standing: Standing::default(),
        usual_us: 0.0,
    };
    let capacity = (BACKENDS * WORKERS) as f64 * SECOND as f64 / scenario.service.mean_us();
    let mut run = Run {
        scenario,
        has_line: way.has_line(),
        engine: Engine::new(),
        servers: (0..BACKENDS)
            .map(|_| Server::new(scenario.service, WORKERS))
            .collect(),
        routers: (0..scenario.routers).map(router).collect(),
        arrivals: Arrivals::Independent(capacity * scenario.load),
        arriving: Rng::with_seed(1),
        serving: Rng::with_seed(2),
        choosing: Rng::with_seed(3),
        next_number: 0,
        good: 0,
        since_sample: (0, 0.0),
        measured: Measured::default(),
    };
    run.engine.at(0, Event::Arrival);
    run.engine.at(SAMPLE_US, Event::Sample);
    if scenario.burst > 0 {
        run.engine.at(SECOND, Event::Burst(0));
    }
    while let Some(event) = run.engine.next() {
        if run.engine.now_us() > scenario.length_us {
            break;
        }
        run.happen(event);
    }
    let possible = scenario.could().min(run.measured.came as f64);
    run.measured.goodput = run.good as f64 / possible;
    run.measured.latencies_us.sort_unstable();
    run.measured
}

impl Run {
    fn happen(&mut self, event: Event) {
        let now_us = self.engine.now_us();
        match event {
            Event::Arrival => {
                let gap_us = self.arrivals.gap_us(&mut self.arriving);
                self.engine.after(gap_us, Event::Arrival);
                self.arrive(now_us);
            }
            Event::Burst(number) => {
                self.arrive(now_us);
                let next_us = if number + 1 < self.scenario.burst {
                    20 * MILLISECOND / u64::from(self.scenario.burst)
                } else {
                    SECOND - 20 * MILLISECOND
                };
                let next = (number + 1) % self.scenario.burst;
                self.engine.after(next_us, Event::Burst(next));
            }
            Event::Done { backend, begun } => self.done(backend, begun, now_us),
            Event::Sample => {
                let (answers, sum_us) = std::mem::take(&mut self.since_sample);
                let limit = self.routers[0].backends[0].limit.now();
                self.measured.samples.push(Sample {
                    limit: if limit == u32::MAX { 0 } else { limit },
                    took_us: sum_us / f64::from(answers.max(1)),
                });
                self.engine.after(SAMPLE_US, Event::Sample);
                if self
                    .scenario
                    .doubles_us
                    .is_some_and(|at_us| now_us >= at_us)
                {
                    self.servers
                        .iter_mut()
                        .for_each(|server| server.slow_down(2));
                }
            }
        }
    }

    fn is_measured(&self, request: &Request) -> bool {
        request.arrived_us >= WARM_UP_US
    }

    fn arrive(&mut self, now_us: Micros) {
        let request = Request {
            number: self.next_number,
            router: self.arriving.usize(..self.routers.len()),
            arrived_us: now_us,
            sent_us: 0,
        };
        self.next_number += 1;
        self.measured.came += u64::from(self.is_measured(&request));
        if let Some(backend) = self.choose(request.router) {
            return self.send(backend, request);
        }
        if !self.has_line {
            self.measured.shed += u64::from(self.is_measured(&request));
            return;
        }
        let router = &mut self.routers[request.router];
        let pace = Pace::of(router.usual_us as u64);
        router.standing.asked();
        let places = router.standing.places(PLACES, now_us, &pace);
        let old = |first: &Request| now_us - first.arrived_us > pace.depth_us;
        let mut refused = 0;
        while router.standing.is_standing() && router.line.front().is_some_and(old) {
            router.line.pop_front();
            router.standing.shed(now_us);
            refused += 1;
        }
        if router.line.len() < places as usize {
            router.line.push_back(request);
        } else {
            router.standing.shed(now_us);
            refused += 1;
        }
        if self.is_measured(&request) {
            self.measured.shed += refused;
        }
    }

    /// Whoever has room and the fewest.
    fn choose(&mut self, router: usize) -> Option<usize> {
        let backends = &self.routers[router].backends;
        let has_room = |&at: &usize| backends[at].in_flight < backends[at].limit.now();
        let start = self.choosing.usize(..BACKENDS);
        let order = (0..BACKENDS).map(|step| (start + step) % BACKENDS);
        order
            .filter(has_room)
            .min_by_key(|&at| backends[at].in_flight)
    }

    fn send(&mut self, backend: usize, mut request: Request) {
        let now_us = self.engine.now_us();
        request.sent_us = now_us;
        let known = &mut self.routers[request.router].backends[backend];
        known.in_flight += 1;
        if known.in_flight >= known.limit.now() {
            known.limit.note_full();
        }
        let begun = self.servers[backend].accept(request, now_us, &mut self.serving);
        self.begin(backend, begun);
    }

    fn begin(&mut self, backend: usize, begun: Option<Begun<Request>>) {
        if let Some(begun) = begun {
            self.engine
                .at(begun.done_at_us, Event::Done { backend, begun });
        }
    }

    fn done(&mut self, backend: usize, begun: Begun<Request>, now_us: Micros) {
        let request = begun.job;
        self.servers[backend].finish(request, begun.epoch);
        let begun = self.servers[backend].next(now_us, &mut self.serving);
        self.begin(backend, begun);
        let took_us = now_us - request.sent_us;
        let router = &mut self.routers[request.router];
        router.usual_us += (took_us as f64 - router.usual_us) * 0.02;
        let known = &mut router.backends[backend];
        known.limit.hear(&Heard {
            now_us,
            took_us,
            in_flight: known.in_flight,
            random: self.choosing.f64(),
        });
        known.in_flight -= 1;
        self.count(&request, now_us);
        self.call(request.router, now_us);
    }

    fn count(&mut self, request: &Request, now_us: Micros) {
        let latency_us = now_us - request.arrived_us;
        self.since_sample.0 += 1;
        self.since_sample.1 += latency_us as f64;
        if now_us >= WARM_UP_US {
            self.good += u64::from(latency_us <= PATIENCE_US);
            let latency_us = u32::try_from(latency_us).unwrap_or(u32::MAX);
            self.measured.latencies_us.push(latency_us);
        }
    }

    /// Those in line, while there is room.
    fn call(&mut self, at: usize, now_us: Micros) {
        while !self.routers[at].line.is_empty() {
            let Some(backend) = self.choose(at) else {
                return;
            };
            let router = &mut self.routers[at];
            let pace = Pace::of(router.usual_us as u64);
            let next = if router.standing.is_standing() {
                router.line.pop_back()
            } else {
                router.line.pop_front()
            };
            let next = next.expect("someone must be in line");
            let waited_us = now_us - next.arrived_us;
            let waiting = router.line.len() as u32;
            router.standing.served(waited_us, waiting, now_us, &pace);
            if router.line.is_empty() {
                router.standing.emptied();
            }
            self.send(backend, next);
        }
    }
}
