//! Failure that feeds itself: clients who ask again, and a spike they outlast.
//!
//! Owns these runs and their bounds.

use crate::engine::{MILLISECOND, Micros, SECOND};
use crate::faults::{Mode, Schedule};
use crate::overload::{CAPACITY, clients, independent, pool, seen};
use crate::record::Record;
use crate::seeds;
use crate::world::{Setup, World};

const FROM_US: Micros = 2 * SECOND;
const UNTIL_US: Micros = 4 * SECOND;
const END_US: Micros = 14 * SECOND;
/// What is asked all the time, of what the pool can do.
const USUAL: f64 = 0.75;

/// Clients who ask up to three times more when they were refused or have waited
/// for a second, and a spike of two seconds.
fn storm(seed: u64, pause_us: Micros, bare: bool) -> Record {
    let asking = |times, from_us, until_us| {
        clients(independent(times))
            .asking_again(3, pause_us)
            .between(from_us, until_us)
    };
    World::new(Setup {
        bare,
        length_us: END_US,
        ..pool(
            seed,
            vec![asking(USUAL, 0, END_US), asking(5.0, FROM_US, UNTIL_US)],
        )
    })
    .run()
}

#[test]
fn a_spike_that_ends_leaves_no_lasting_damage() {
    for pause_us in [0, 100 * MILLISECOND] {
        seeds::each(2, |seed| {
            let record = storm(seed, pause_us, false);
            let spike = seen(&record, FROM_US, UNTIL_US, None);
            let after = seen(&record, UNTIL_US + SECOND, END_US, None);
            assert!(spike.per_second >= 0.9 * CAPACITY, "{spike:?}");
            assert_eq!((after.shed, after.left), (0, 0));
            assert!(after.per_second >= 0.97 * USUAL * CAPACITY, "{after:?}");
        });
    }
}

/// What the router is spared: where it gives backends whatever comes, those who
/// left and ask again keep the backends busy for nobody, long after the spike.
#[test]
fn without_bounds_the_same_spike_does_not_end() {
    let record = storm(1, 0, true);
    let before = seen(&record, SECOND, FROM_US, None);
    let after = seen(&record, END_US - 3 * SECOND, END_US, None);
    assert!(before.per_second >= 0.95 * USUAL * CAPACITY, "{before:?}");
    assert!(after.per_second <= 0.2 * USUAL * CAPACITY, "{after:?}");
}

/// One of four goes bad while all are needed: what it costs is its part of the
/// goodput, never that of the others. (That retries stay within the budget is
/// checked in every run.)
#[test]
fn a_backend_that_goes_bad_under_load_starts_no_storm() {
    let modes = [
        Mode::Answering(503),
        Mode::Resetting,
        Mode::Slow(50),
        Mode::Frozen,
        Mode::Workers(1),
    ];
    for mode in modes {
        for times in [0.9, 1.5] {
            seeds::each(1, |seed| {
                let (from_us, until_us) = (2 * SECOND, 6 * SECOND);
                let record = World::new(Setup {
                    faults: Schedule::default().outage(0, from_us, until_us, mode),
                    length_us: 10 * SECOND,
                    ..pool(
                        seed,
                        vec![
                            clients(independent(times))
                                .asking_again(2, 10 * MILLISECOND)
                                .between(0, until_us),
                            clients(independent(0.5)).between(until_us, 10 * SECOND),
                        ],
                    )
                })
                .run();
                let bad = seen(&record, from_us, until_us, None);
                let amplified = record.executions as f64 / record.served.len() as f64;
                assert!(
                    bad.per_second >= 0.75 * 0.93 * CAPACITY,
                    "{mode:?}: {bad:?}"
                );
                assert!(amplified <= 1.2, "{mode:?}: {amplified} executions each");
                let after = seen(&record, until_us + 2 * SECOND, 10 * SECOND, None);
                assert_eq!((after.shed, after.left), (0, 0), "{mode:?}");
            });
        }
    }
}
