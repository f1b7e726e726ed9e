//! One run of the fleet: routers in front of one shared pool, for a while.
//!
//! Owns the run and what is measured of it. Nothing fails here: what differs
//! is who waits behind whom.

use fastrand::Rng;

use crate::engine::{Engine, MILLISECOND, Micros, SECOND};
use crate::load::{Arrivals, Service};
use crate::server::{Begun, Server};
use crate::strategies::{Router, Strategy};

/// What is run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Setup {
    /// How many routers, each with an equal part of the requests.
    pub routers: usize,
    /// How many backends, each with one worker.
    pub backends: usize,
    /// Requests arriving, as a share of what all backends could serve.
    pub load: f64,
    /// How long a request takes to serve.
    pub service: Service,
    /// How many times slower the first backend is than the others.
    pub slowness: u64,
    /// How requests are balanced.
    pub strategy: Strategy,
    /// Virtual time, without the warming up before it.
    pub length_us: Micros,
    /// Of all that is random.
    pub seed: u64,
}

/// What came out.
#[derive(Clone, Debug)]
pub struct Measured {
    /// Latencies of every request measured, sorted.
    latencies_us: Vec<u32>,
    /// Requests at the busiest backend, averaged over time.
    pub busiest: f64,
    /// Standard deviation of the requests each equal backend got, in percent of
    /// their mean.
    pub spread_percent: f64,
}

impl Measured {
    /// The latency that `share` of the requests stayed within.
    pub fn quantile_ms(&self, share: f64) -> f64 {
        let at = (self.latencies_us.len() as f64 * share) as usize;
        let last = self.latencies_us.len() - 1;
        f64::from(self.latencies_us[at.min(last)]) / 1_000.0
    }

    /// How many were measured.
    pub fn requests(&self) -> usize {
        self.latencies_us.len()
    }
}

#[derive(Clone, Copy, PartialEq)]
struct Request {
    number: u64,
    router: usize,
    arrived_us: Micros,
}

#[derive(Clone, Copy)]
enum Event {
    Arrival,
    Done {
        backend: usize,
        begun: Begun<Request>,
    },
    Sample,
}

/// Before anything is measured: queues fill, averages settle.
const WARM_UP_US: Micros = 10 * SECOND;
const SAMPLE_US: Micros = 20 * MILLISECOND;

struct Run {
    setup: Setup,
    engine: Engine<Event>,
    servers: Vec<Server<Request>>,
    routers: Vec<Router>,
    arrivals: Arrivals,
    /// Streams of their own, so that every strategy meets the same requests.
    arriving: Rng,
    serving: Rng,
    choosing: Rng,
    next_number: u64,
    latencies_us: Vec<u32>,
    chosen: Vec<u64>,
    busiest_sum: u64,
    samples: u64,
}

/// Runs it.
pub fn run(setup: Setup) -> Measured {
    let mut choosing = Rng::with_seed(setup.seed ^ 3);
    let capacity = (setup.backends as f64 - 1.0 + 1.0 / setup.slowness as f64) * SECOND as f64
        / setup.service.mean_us();
    let mut run = Run {
        setup,
        engine: Engine::new(),
        servers: (0..setup.backends)
            .map(|_| Server::new(setup.service, 1))
            .collect(),
        routers: (0..setup.routers)
            .map(|_| Router::new(setup.strategy, setup.backends, &mut choosing))
            .collect(),
        arrivals: Arrivals::Independent(capacity * setup.load),
        arriving: Rng::with_seed(setup.seed ^ 1),
        serving: Rng::with_seed(setup.seed ^ 2),
        choosing,
        next_number: 0,
        latencies_us: Vec::new(),
        chosen: vec![0; setup.backends],
        busiest_sum: 0,
        samples: 0,
    };
    run.servers[0].slow_down(setup.slowness);
    run.engine.at(0, Event::Arrival);
    run.engine.at(WARM_UP_US, Event::Sample);
    while let Some(event) = run.engine.next() {
        if run.engine.now_us() > WARM_UP_US + setup.length_us {
            break;
        }
        run.happen(event);
    }
    run.measured()
}

impl Run {
    fn happen(&mut self, event: Event) {
        let now_us = self.engine.now_us();
        match event {
            Event::Arrival => {
                self.arrive(now_us);
                let gap_us = self.arrivals.gap_us(&mut self.arriving);
                self.engine.after(gap_us, Event::Arrival);
            }
            Event::Done { backend, begun } => self.done(backend, begun, now_us),
            Event::Sample => {
                let held = self.servers.iter().map(Server::held).max();
                self.busiest_sum += held.unwrap_or(0) as u64;
                self.samples += 1;
                self.engine.after(SAMPLE_US, Event::Sample);
            }
        }
    }

    fn arrive(&mut self, now_us: Micros) {
        let router = self.arriving.usize(..self.routers.len());
        let request = Request {
            number: self.next_number,
            router,
            arrived_us: now_us,
        };
        self.next_number += 1;
        let backend = self.routers[router].choose(now_us, &mut self.choosing);
        if now_us >= WARM_UP_US {
            self.chosen[backend] += 1;
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
        let latency_us = now_us - request.arrived_us;
        self.routers[request.router].answered(backend, latency_us, now_us);
        if request.arrived_us >= WARM_UP_US {
            let latency_us = u32::try_from(latency_us).unwrap_or(u32::MAX);
            self.latencies_us.push(latency_us);
        }
        let begun = self.servers[backend].next(now_us, &mut self.serving);
        self.begin(backend, begun);
    }

    fn measured(mut self) -> Measured {
        // What is still waiting has waited this long at least: to leave it out
        // would flatter whoever overloads a backend.
        let end_us = WARM_UP_US + self.setup.length_us;
        for server in &self.servers {
            for request in server.requests() {
                if request.arrived_us >= WARM_UP_US {
                    let latency_us = end_us - request.arrived_us;
                    let latency_us = u32::try_from(latency_us).unwrap_or(u32::MAX);
                    self.latencies_us.push(latency_us);
                }
            }
        }
        self.latencies_us.sort_unstable();
        let equal = &self.chosen[usize::from(self.setup.slowness > 1)..];
        let mean = equal.iter().sum::<u64>() as f64 / equal.len() as f64;
        let variance = equal
            .iter()
            .map(|&count| (count as f64 - mean).powi(2))
            .sum::<f64>()
            / equal.len() as f64;
        Measured {
            latencies_us: self.latencies_us,
            busiest: self.busiest_sum as f64 / self.samples as f64,
            spread_percent: variance.sqrt() / mean * 100.0,
        }
    }
}
