//! Anything may go wrong: random pools, random faults, several routers.
//!
//! Owns the rules that hold in every run, whatever its policy and its faults.

use fastrand::Rng;
use portico::feed::messages::{HedgeRecord, PolicyRecord};

use crate::engine::{MILLISECOND, SECOND};
use crate::faults::Schedule;
use crate::load::{Arrivals, Service};
use crate::world::{Setup, World};

fn pick<T: Copy>(random: &mut Rng, among: &[T]) -> T {
    among[random.usize(..among.len())]
}

fn weights(random: &mut Rng) -> Vec<u32> {
    let backends = random.usize(1..=12);
    let kind = random.u8(..6);
    (0..backends)
        .map(|_| match kind {
            0 => random.u32(1..=300),
            1 => pick(random, &[0, 100, 100]),
            _ => 100,
        })
        .collect()
}

fn policy(random: &mut Rng) -> PolicyRecord {
    let mut policy = PolicyRecord::default();
    // Half of the runs go by the defaults.
    if random.bool() {
        return policy;
    }
    policy.retries = pick(random, &[None, Some(0), Some(1), Some(5)]);
    policy.max_concurrency = pick(random, &[None, None, Some(1), Some(10)]);
    policy.slow_start_ms = pick(random, &[None, Some(0), Some(1_000)]);
    policy.retry_percent = pick(random, &[None, Some(0), Some(1), Some(100)]);
    policy.retry_per_second = pick(random, &[None, Some(0), Some(1)]);
    policy.ejection = pick(random, &[None, None, Some(false)]);
    policy.boot_wait_ms = pick(random, &[None, Some(0), Some(500)]);
    let hedge = HedgeRecord::default();
    let quantile = HedgeRecord {
        permille: Some(950),
        ..hedge
    };
    let after = HedgeRecord {
        after_ms: Some(20),
        ..hedge
    };
    policy.hedge = pick(
        random,
        &[None, None, Some(hedge), Some(quantile), Some(after)],
    );
    policy
}

/// A run of random everything.
pub fn setup(seed: u64) -> Setup {
    let mut random = Rng::with_seed(seed);
    let random = &mut random;
    let weights = weights(random);
    let mean_us = random.u64(1..20) * MILLISECOND;
    let bimodal = Service::Bimodal {
        short_us: mean_us / 2,
        long_us: mean_us * 10,
        long_permille: 50,
    };
    let service = pick(
        random,
        &[
            Service::Constant(mean_us),
            Service::Exponential(mean_us),
            bimodal,
        ],
    );
    let per_second = random.f64() * 900.0 + 50.0;
    let arrivals = pick(
        random,
        &[
            Arrivals::Independent(per_second),
            Arrivals::Even(per_second),
        ],
    );
    let length_us = random.u64(5..25) * SECOND;
    Setup {
        routers: random.usize(1..=4),
        faults: Schedule::random(weights.len(), length_us, random),
        weights,
        workers: pick(random, &[1, 10, 1_000, 1_000]),
        service,
        clients: vec![arrivals.into()],
        repeatable_percent: random.u32(50..=100),
        policy: policy(random),
        length_us,
        seed,
        ..Setup::default()
    }
}

#[test]
fn whatever_goes_wrong_every_rule_holds() {
    crate::seeds::each(150, |seed| {
        let record = World::new(setup(seed)).run();
        assert_eq!(
            record.requests(),
            record.passed + record.failed.len() as u64
        );
    });
}
