//! The ways of finding out how many requests a backend can have at once.
//!
//! Owns what each of them knows and does with an answer. The limits of others
//! are written after their sources, with their own defaults unless said
//! otherwise; the last is the router's own
//! [`portico::policy::concurrency::Limiter`].

use portico::policy::concurrency::{FIRST, Limiter, Next, Window};

use crate::engine::{MILLISECOND, Micros, SECOND};

/// A way of finding the limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// There is no limit.
    None,
    /// An operator told the right one.
    Told,
    /// An operator told four times the right one.
    ToldWrong,
    /// Netflix's `AIMDLimit`, told what is too long.
    Aimd,
    /// Netflix's `VegasLimit`.
    Vegas,
    /// Netflix's `Gradient2Limit`.
    Gradient2,
    /// Envoy's adaptive concurrency, with a line in front of it.
    Envoy,
    /// The same as it ships: who finds no room is refused at once.
    EnvoyAlone,
    /// Portico's.
    Portico,
}

impl Way {
    /// All of them, in the order of the report.
    pub const ALL: [Way; 9] = [
        Way::None,
        Way::Told,
        Way::ToldWrong,
        Way::Aimd,
        Way::Vegas,
        Way::Gradient2,
        Way::Envoy,
        Way::EnvoyAlone,
        Way::Portico,
    ];

    /// As the report calls it.
    pub fn name(self) -> &'static str {
        match self {
            Way::None => "no limit",
            Way::Told => "told 10",
            Way::ToldWrong => "told 40",
            Way::Aimd => "AIMD",
            Way::Vegas => "Vegas",
            Way::Gradient2 => "Gradient2",
            Way::Envoy => "Envoy + line",
            Way::EnvoyAlone => "Envoy",
            Way::Portico => "Portico",
        }
    }

    /// Whether those who find no room may wait.
    pub fn has_line(self) -> bool {
        self != Way::EnvoyAlone
    }

    /// One backend's limit, as it begins.
    pub fn limit(self) -> Limit {
        match self {
            Way::None => Limit::Fixed(u32::MAX),
            Way::Told => Limit::Fixed(10),
            Way::ToldWrong => Limit::Fixed(40),
            Way::Aimd => Limit::Aimd(20.0),
            Way::Vegas => Limit::Vegas(Vegas::default()),
            Way::Gradient2 => Limit::Gradient2(Gradient2::default()),
            Way::Envoy | Way::EnvoyAlone => Limit::Envoy(Envoy::default()),
            Way::Portico => Limit::Portico(Box::default()),
        }
    }
}

/// An answer, as a limit sees it.
#[derive(Clone, Copy, Debug)]
pub struct Heard {
    /// Now.
    pub now_us: Micros,
    /// What it took.
    pub took_us: Micros,
    /// Requests that the backend had, this one among them.
    pub in_flight: u32,
    /// Uniform from 0 to 1.
    pub random: f64,
}

/// One backend's limit.
pub enum Limit {
    /// It stays.
    Fixed(u32),
    /// One more with each answer, a tenth less with each that took too long.
    Aimd(f64),
    /// By the shortest answer.
    Vegas(Vegas),
    /// By two averages.
    Gradient2(Gradient2),
    /// By a shortest time that is measured now and then.
    Envoy(Envoy),
    /// The router's own.
    Portico(Box<Portico>),
}

/// The highest there may be, as the router's default.
const MOST: f64 = 200.0;

/// `AIMDLimit`'s `timeout`: what an operator would say of 20 ms.
const TOO_LONG_US: Micros = 50 * MILLISECOND;

impl Limit {
    /// Requests that the backend may have at once.
    pub fn now(&self) -> u32 {
        match self {
            Limit::Fixed(limit) => *limit,
            Limit::Aimd(limit) => *limit as u32,
            Limit::Vegas(vegas) => vegas.limit as u32,
            Limit::Gradient2(gradient) => gradient.limit as u32,
            Limit::Envoy(envoy) => envoy.now(),
            Limit::Portico(portico) => portico.limiter.limit(),
        }
    }

    /// The backend has as many as it may.
    pub fn note_full(&mut self) {
        if let Limit::Portico(portico) = self {
            portico.window.was_full = true;
        }
    }

    /// An answer came.
    pub fn hear(&mut self, heard: &Heard) {
        match self {
            Limit::Fixed(_) => {}
            Limit::Aimd(limit) => {
                if heard.took_us > TOO_LONG_US {
                    *limit *= 0.9;
                } else if f64::from(heard.in_flight) * 2.0 >= *limit {
                    *limit += 1.0;
                }
                *limit = limit.clamp(1.0, MOST);
            }
            Limit::Vegas(vegas) => vegas.hear(heard),
            Limit::Gradient2(gradient) => gradient.hear(heard),
            Limit::Envoy(envoy) => envoy.hear(heard),
            Limit::Portico(portico) => portico.hear(heard),
        }
    }
}

/// `VegasLimit` of Netflix's concurrency-limits: rises and sinks by what is
/// queued beside the shortest answer, which is forgotten now and then.
pub struct Vegas {
    limit: f64,
    shortest_us: f64,
    answers: f64,
    /// Forgets after so many times the limit, in answers.
    jitter: f64,
}

impl Default for Vegas {
    fn default() -> Self {
        Vegas {
            limit: 20.0,
            shortest_us: 0.0,
            answers: 0.0,
            jitter: 0.75,
        }
    }
}

impl Vegas {
    fn hear(&mut self, heard: &Heard) {
        let took_us = heard.took_us as f64;
        self.answers += 1.0;
        // `probeMultiplier` 30.
        if self.answers >= self.jitter * 30.0 * self.limit {
            self.answers = 0.0;
            self.jitter = 0.5 + heard.random / 2.0;
            self.shortest_us = took_us;
            return;
        }
        if self.shortest_us == 0.0 || took_us < self.shortest_us {
            self.shortest_us = took_us;
            return;
        }
        if f64::from(heard.in_flight) * 2.0 < self.limit {
            return;
        }
        let queued = (self.limit * (1.0 - self.shortest_us / took_us)).ceil();
        let log = self.limit.log10().max(1.0);
        let (alpha, beta) = (3.0 * log, 6.0 * log);
        if queued <= log {
            self.limit += beta;
        } else if queued < alpha {
            self.limit += log;
        } else if queued > beta {
            self.limit -= log;
        }
        self.limit = self.limit.clamp(1.0, MOST);
    }
}

/// `Gradient2Limit` of Netflix's concurrency-limits, `minLimit` 1 in place of
/// 20.
pub struct Gradient2 {
    limit: f64,
    long_us: f64,
    answers: f64,
}

impl Default for Gradient2 {
    fn default() -> Self {
        Gradient2 {
            limit: 20.0,
            long_us: 0.0,
            answers: 0.0,
        }
    }
}

impl Gradient2 {
    fn hear(&mut self, heard: &Heard) {
        let short_us = heard.took_us as f64;
        // `longWindow` 600, the first ten a plain average.
        self.answers += 1.0;
        let weight = if self.answers <= 10.0 {
            1.0 / self.answers
        } else {
            2.0 / 601.0
        };
        self.long_us += (short_us - self.long_us) * weight;
        if self.long_us / short_us > 2.0 {
            self.long_us *= 0.95;
        }
        if f64::from(heard.in_flight) < self.limit / 2.0 {
            return;
        }
        // `rttTolerance` 1.5, `queueSize` 4, `smoothing` 0.2.
        let gradient = (1.5 * self.long_us / short_us).clamp(0.5, 1.0);
        let wanted = self.limit * gradient + 4.0;
        self.limit = (self.limit * 0.8 + wanted * 0.2).clamp(1.0, MOST);
    }
}

/// `envoy.filters.http.adaptive_concurrency`, the values of its example: every
/// 60 s, give or take a tenth, the limit is 3 until 50 answers have come: their
/// median is what an answer takes; every 100 ms the limit follows the median of
/// the answers beside it.
pub struct Envoy {
    limit: f64,
    shortest_us: f64,
    /// Answers since the last update, or in the measurement.
    took_us: Vec<Micros>,
    is_measuring: bool,
    measure_at_us: Micros,
    update_at_us: Micros,
    /// The measurement begins when those sent before it are answered.
    draining: u32,
}

const ENVOY_MEASURES_EVERY_US: Micros = 60 * SECOND;
const ENVOY_LEAST: f64 = 3.0;
const ENVOY_ANSWERS: usize = 50;
const ENVOY_UPDATE_US: Micros = 100 * MILLISECOND;
/// `min_rtt_calc_params.buffer`.
const ENVOY_BUFFER: f64 = 1.25;

impl Default for Envoy {
    fn default() -> Self {
        Envoy {
            limit: ENVOY_LEAST,
            shortest_us: 0.0,
            took_us: Vec::new(),
            is_measuring: true,
            measure_at_us: 0,
            update_at_us: 0,
            draining: 0,
        }
    }
}

impl Envoy {
    fn now(&self) -> u32 {
        if self.is_measuring {
            ENVOY_LEAST as u32
        } else {
            self.limit as u32
        }
    }

    fn hear(&mut self, heard: &Heard) {
        if self.draining > 0 {
            self.draining -= 1;
            return;
        }
        self.took_us.push(heard.took_us);
        if self.is_measuring {
            if self.took_us.len() >= ENVOY_ANSWERS {
                self.shortest_us = self.median_us();
                self.is_measuring = false;
                let jitter = 1.0 + 0.1 * heard.random;
                let every_us = ENVOY_MEASURES_EVERY_US as f64 * jitter;
                self.measure_at_us = heard.now_us + every_us as Micros;
                self.update_at_us = heard.now_us + ENVOY_UPDATE_US;
            }
            return;
        }
        if heard.now_us >= self.measure_at_us {
            self.is_measuring = true;
            self.took_us.clear();
            self.draining = heard.in_flight.saturating_sub(1);
            return;
        }
        if heard.now_us >= self.update_at_us {
            self.update_at_us = heard.now_us + ENVOY_UPDATE_US;
            let took_us = self.median_us();
            let gradient = (self.shortest_us * ENVOY_BUFFER / took_us).clamp(0.5, 2.0);
            let wanted = self.limit * gradient;
            self.limit = (wanted + wanted.sqrt()).clamp(ENVOY_LEAST, MOST);
        }
    }

    fn median_us(&mut self) -> f64 {
        self.took_us.sort_unstable();
        let median_us = self.took_us[self.took_us.len() / 2];
        self.took_us.clear();
        median_us as f64
    }
}

/// The router's own, fed as `portico::table` does.
pub struct Portico {
    limiter: Limiter,
    window: Window,
    from_us: Micros,
    until_us: Micros,
    most_us: Micros,
}

const NOTHING: Window = Window {
    answers: 0,
    sum_us: 0,
    length_us: 0,
    was_full: false,
    awaiting: 0,
    late_us: 0,
    apps: 1,
};

impl Default for Portico {
    fn default() -> Self {
        assert_eq!(Limiter::default().limit(), FIRST);
        Portico {
            limiter: Limiter::default(),
            window: NOTHING,
            from_us: 0,
            until_us: 0,
            most_us: Micros::MAX,
        }
    }
}

impl Portico {
    fn hear(&mut self, heard: &Heard) {
        let now_us = heard.now_us;
        if now_us >= self.from_us {
            self.window.answers += 1;
            self.window.sum_us += heard.took_us.min(self.most_us);
        }
        if now_us < self.until_us {
            return;
        }
        self.window.length_us = now_us - self.from_us;
        match self.limiter.step(&self.window, now_us, now_us, MOST as u32) {
            Next::Extend { for_us } => self.until_us = now_us + for_us,
            Next::Begin {
                after_us,
                for_us,
                most_us,
                ..
            } => {
                self.from_us = now_us + after_us;
                self.until_us = self.from_us + for_us;
                self.most_us = most_us;
                self.window = NOTHING;
            }
        }
    }
}
