//! What saturation is measured by.
//!
//! Owns the pool that the overload runs share, and the figures of a span of a
//! run: goodput, latencies, refusals. Says nothing of bounds: they are with the
//! runs, in [`spikes`](super::spikes), [`storms`](super::storms),
//! [`shared`](super::shared) and [`calm`](super::calm).

use crate::clients::Clients;
use crate::engine::{MILLISECOND, Micros, SECOND};
use crate::load::{Arrivals, Service};
use crate::record::{Failed, Failure, Record};
use crate::world::Setup;

/// What the pool answers a second at most: 4 backends of 10 workers, 20 ms.
pub const CAPACITY: f64 = 2_000.0;

/// What a request takes that waits nowhere.
pub const SERVICE_US: Micros = 20 * MILLISECOND;

/// Either kind of service of the same mean.
pub const SERVICES: [Service; 3] = [
    Service::Constant(SERVICE_US),
    Service::Exponential(SERVICE_US),
    Service::Bimodal {
        short_us: 10 * MILLISECOND,
        long_us: 110 * MILLISECOND,
        long_permille: 100,
    },
];

/// Clients wait no longer than this.
pub const PATIENCE_US: Micros = SECOND;

/// The pool, with these clients.
pub fn pool(seed: u64, clients: Vec<Clients>) -> Setup {
    Setup {
        workers: 10,
        service: SERVICES[0],
        clients,
        seed,
        ..Setup::default()
    }
}

/// Requests at so many times the pool's capacity, one every so often.
pub fn even(times: f64) -> Arrivals {
    Arrivals::Even(times * CAPACITY)
}

/// The same, independent of each other.
pub fn independent(times: f64) -> Arrivals {
    Arrivals::Independent(times * CAPACITY)
}

/// Clients that leave after [`PATIENCE_US`].
pub fn clients(arrivals: Arrivals) -> Clients {
    Clients::from(arrivals).with_patience(PATIENCE_US)
}

/// What was seen of a span.
#[derive(Debug)]
pub struct Seen {
    /// Answers a second.
    pub per_second: f64,
    /// From arrival to answer, of 99 of a hundred.
    pub p99_us: u32,
    /// The same from being sent to a backend.
    pub inside_p99_us: u32,
    /// Refused for want of room.
    pub shed: usize,
    /// How long that took, at the median.
    pub refusal_us: u64,
    /// Clients that left.
    pub left: usize,
}

fn is_shed(failed: &Failed) -> bool {
    let shed = [Failure::QueueFull, Failure::Shed, Failure::QueueTimedOut];
    shed.iter().any(|&reason| failed.ending == Err(reason))
}

/// The span from one moment to another, at one router or all.
pub fn seen(record: &Record, from_us: Micros, until_us: Micros, router: Option<usize>) -> Seen {
    let span = from_us..until_us;
    let is_here = |one: usize| router.is_none_or(|router| router == one);
    let served: Vec<_> = record
        .served
        .iter()
        .filter(|served| span.contains(&served.at_us) && is_here(served.router))
        .collect();
    let failed: Vec<_> = record
        .failed
        .iter()
        .filter(|failed| span.contains(&failed.at_us) && is_here(failed.router))
        .collect();
    let refused = failed.iter().filter(|failed| is_shed(failed));
    let refused: Vec<u64> = refused
        .map(|failed| failed.at_us - failed.arrived_us)
        .collect();
    let left = Err(Failure::ClientLeft);
    Seen {
        per_second: served.len() as f64 * SECOND as f64 / (until_us - from_us) as f64,
        p99_us: within(served.iter().map(|served| served.took_us), 0.99),
        inside_p99_us: within(served.iter().map(|served| served.inside_us), 0.99),
        shed: refused.len(),
        refusal_us: within(refused.into_iter(), 0.5),
        left: failed.iter().filter(|failed| failed.ending == left).count(),
    }
}

/// The value that so large a share of them stays within.
fn within<T: Ord + Copy + Default>(values: impl Iterator<Item = T>, share: f64) -> T {
    let mut values: Vec<T> = values.collect();
    values.sort_unstable();
    let at = (values.len() as f64 * share) as usize;
    values
        .get(at.min(values.len().saturating_sub(1)))
        .copied()
        .unwrap_or_default()
}
