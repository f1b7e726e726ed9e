//! What chance decides: when requests arrive, how long serving one takes.
//!
//! Owns the distributions. Arrivals are open loop: they come when they come,
//! however slow the answers are.

use fastrand::Rng;

use crate::engine::{Micros, SECOND};

/// When requests arrive.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Arrivals {
    /// Independent of each other, so many a second on average (a Poisson
    /// process).
    Independent(f64),
    /// One every so often.
    Even(f64),
}

impl Arrivals {
    /// Time to the next one.
    pub fn gap_us(self, random: &mut Rng) -> Micros {
        match self {
            Arrivals::Independent(per_second) => exponential_us(SECOND as f64 / per_second, random),
            Arrivals::Even(per_second) => (SECOND as f64 / per_second) as Micros,
        }
    }
}

/// How long a backend works on a request, without waiting.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Service {
    /// Always as long.
    Constant(Micros),
    /// Memoryless, of this mean.
    Exponential(Micros),
    /// Either of two, the second so often in a thousand.
    Bimodal {
        /// Most.
        short_us: Micros,
        /// Some.
        long_us: Micros,
        /// How many of a thousand are long.
        long_permille: u64,
    },
}

impl Service {
    /// How long this one takes.
    pub fn draw_us(self, random: &mut Rng) -> Micros {
        match self {
            Service::Constant(us) => us,
            Service::Exponential(mean_us) => exponential_us(mean_us as f64, random),
            Service::Bimodal {
                short_us,
                long_us,
                long_permille,
            } => {
                if random.u64(..1_000) < long_permille {
                    long_us
                } else {
                    short_us
                }
            }
        }
    }

    /// The average.
    pub fn mean_us(self) -> f64 {
        match self {
            Service::Constant(us) | Service::Exponential(us) => us as f64,
            Service::Bimodal {
                short_us,
                long_us,
                long_permille,
            } => {
                let long = long_permille as f64 / 1_000.0;
                short_us as f64 * (1.0 - long) + long_us as f64 * long
            }
        }
    }
}

/// Of an exponential distribution, at least 1 µs.
pub fn exponential_us(mean_us: f64, random: &mut Rng) -> Micros {
    (-mean_us * (1.0 - random.f64()).ln()).max(1.0) as Micros
}
