//! A backend that comes and goes: its share of the traffic stays bounded.
//!
//! Owns that bound.

use crate::engine::{MILLISECOND, SECOND};
use crate::faults::{Mode, Schedule};
use crate::load::Arrivals;
use crate::outages::shares_percent;
use crate::seeds;
use crate::world::{Setup, World};

/// Whatever it flaps between and how fast, from the second half-minute on a
/// backend that is as often gone as there gets at most 6 % of a fair share,
/// and no request that may be repeated fails. Frozen it gets at most a third:
/// where it is back before anyone misses it, only latency speaks against it.
#[test]
fn a_flapping_backend_gets_little() {
    let modes = [
        (Mode::Down, 1.5),
        (Mode::Answering(503), 1.5),
        (Mode::Resetting, 1.5),
        (Mode::Frozen, 8.0),
    ];
    for (mode, most_percent) in modes {
        for turn_us in [100 * MILLISECOND, 500 * MILLISECOND, 2 * SECOND] {
            seeds::each(2, |seed| {
                let length_us = 120 * SECOND;
                let faults = Schedule::default().flapping(0, SECOND, length_us, turn_us, mode);
                let record = World::new(Setup {
                    clients: vec![Arrivals::Independent(200.0).into()],
                    faults,
                    seed,
                    length_us,
                    ..Setup::default()
                })
                .run();
                record.assert_none_failed();
                for half_minute in 1..4 {
                    let from_us = half_minute * 30 * SECOND;
                    let shares = shares_percent(&record, 4, from_us, from_us + 30 * SECOND);
                    let share = shares[0];
                    assert!(share <= most_percent, "{mode:?}, {turn_us} µs: {share} %");
                }
            });
        }
    }
}
