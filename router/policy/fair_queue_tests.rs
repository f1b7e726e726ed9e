//! A processor in virtual time that serves the lines round by round, and what
//! apps of any appetite get of it.

use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;

/// What serving one takes, and refusing one.
const SERVE_US: u64 = 10;
const REFUSE_US: u64 = 5;

/// An app: clients, each with one request at a time, and a rest between two.
#[derive(Clone, Copy, Debug)]
struct App {
    clients: usize,
    rest_us: u64,
    cost: u64,
}

#[derive(Clone, Debug, Default)]
struct Got {
    served: u64,
    refused: u64,
    longest_us: u64,
}

/// Runs apps on one processor for a time; what the app asks for beyond the cost
/// of a request takes its time, and is charged when it is done.
fn run(apps: &[App], most: u32, until_us: u64) -> Vec<Got> {
    let mut queue = FairQueue::default();
    let mut got = vec![Got::default(); apps.len()];
    // When each client asks next, in order; all rests of an app are alike.
    let mut resting: Vec<VecDeque<u64>> = apps
        .iter()
        .map(|app| (0..app.clients as u64).collect())
        .collect();
    let mut waiting: HashMap<Place, (usize, u64)> = HashMap::new();
    let mut now = 0;
    while now < until_us {
        for (at, app) in apps.iter().enumerate() {
            while resting[at].front().is_some_and(|due| *due <= now) {
                resting[at].pop_front();
                match queue.join(at + 1, REQUEST, now) {
                    Some(place) => {
                        waiting.insert(place, (at, now));
                    }
                    None => {
                        got[at].served += 1;
                        queue.charge(at + 1, app.cost - REQUEST);
                        now += SERVE_US * app.cost / REQUEST;
                        resting[at].push_back(now + app.rest_us);
                    }
                }
            }
        }
        let mut told = Vec::new();
        let round = queue.round(most, now, |place, turn| told.push((place, turn)));
        assert_eq!(round.stands, queue.waiting() > 0);
        assert!(round.served <= most && round.refused <= most / SERVED_EACH);
        if told.is_empty() {
            let next = resting.iter().filter_map(|line| line.front()).min();
            now = now.max(next.copied().unwrap_or(until_us));
        }
        for (place, turn) in told {
            let (at, since) = waiting.remove(&place).expect("it must have waited");
            queue.leave(place);
            let app = &apps[at];
            match turn {
                Turn::Served => {
                    got[at].served += 1;
                    got[at].longest_us = got[at].longest_us.max(now - since);
                    queue.charge(at + 1, app.cost - REQUEST);
                    now += SERVE_US * app.cost / REQUEST;
                }
                Turn::Refused => {
                    got[at].refused += 1;
                    now += REFUSE_US;
                }
            }
            resting[at].push_back(now + app.rest_us);
        }
    }
    assert_eq!(queue.waiting(), waiting.len());
    got
}

fn greedy(clients: usize) -> App {
    App {
        clients,
        rest_us: 0,
        cost: REQUEST,
    }
}

fn quiet(per_second: u64) -> App {
    App {
        clients: 1,
        rest_us: 1_000_000 / per_second,
        cost: REQUEST,
    }
}

#[test]
fn a_quiet_app_beside_a_flood_neither_waits_nor_is_refused() {
    let got = run(&[greedy(20_000), quiet(1_000)], 64, 2_000_000);
    assert_eq!(got[1].refused, 0);
    assert!(got[1].served >= 900, "{got:?}");
    assert!(got[1].longest_us <= 2_000, "{got:?}");
    assert!(got[0].refused > 0, "{got:?}");
    // The processor is not wasted on refusals.
    assert!(got[0].served > 160_000, "{got:?}");
    // Who is served did not wait for more than patience allows.
    assert!(got[0].longest_us <= PATIENCE_US + 2_000, "{got:?}");
}

#[test]
fn a_closed_loop_that_is_served_within_patience_is_never_refused() {
    let got = run(&[greedy(8_000)], 64, 2_000_000);
    assert_eq!(got[0].refused, 0);
    assert!(got[0].served >= 199_000, "{got:?}");
}

#[test]
fn what_an_answer_cost_besides_is_paid_for() {
    let dear = App {
        cost: 8 * REQUEST,
        ..greedy(1_000)
    };
    let got = run(&[greedy(1_000), dear], 64, 2_000_000);
    let ratio = got[0].served as f64 / got[1].served as f64;
    assert!((7.0..9.0).contains(&ratio), "{got:?}");
}

#[test]
fn who_is_late_is_served_after_all_when_the_flood_is_over() {
    let mut queue = FairQueue::default();
    let places: Vec<Place> = (0..1_000)
        .map(|_| queue.join(1, REQUEST, 0).unwrap())
        .collect();
    let mut told = HashMap::new();
    let at_us = PATIENCE_US + 1;
    let round = queue.round(64, at_us, |place, turn| {
        told.insert(place, turn);
    });
    // All but the last were late: the last is served, then those who can be.
    assert_eq!((round.served, round.stands), (64, true));
    assert_eq!(told[&places[999]], Turn::Served);
    assert_eq!(told[&places[0]], Turn::Served);
    while queue
        .round(64, at_us, |_, turn| assert_eq!(turn, Turn::Served))
        .stands
    {}
    assert_eq!(queue.waiting(), 0);
    assert!(queue.lines.is_empty() && queue.order.is_empty() && queue.late.is_empty());
}

#[test]
fn a_stall_makes_nobody_late() {
    let mut queue = FairQueue::default();
    for _ in 0..1_000 {
        queue.join(1, REQUEST, 500);
    }
    // An hour went by, in which the processor did nothing.
    while queue
        .round(8, 600, |_, turn| assert_eq!(turn, Turn::Served))
        .stands
    {}
}

#[test]
fn lines_that_nobody_uses_are_forgotten_even_where_one_always_stands() {
    let mut queue = FairQueue::default();
    let mut held = VecDeque::new();
    for key in 2..100_000 {
        while queue.waiting() < 64 {
            held.extend(queue.join(1, REQUEST, 0));
        }
        if let Some(place) = queue.join(key, REQUEST, 0) {
            queue.leave(place);
        }
        queue.round(8, 0, |_, _| {});
        held.drain(..8).for_each(|place| queue.leave(place));
    }
    assert!(queue.lines.len() <= 2 * SWEPT_FROM, "{}", queue.lines.len());
    assert!(queue.places.len() <= 128, "{}", queue.places.len());
}

/// What each app gets if the least demands are met in full and the others share
/// evenly what is left: the water level.
fn max_min(mut demands: Vec<f64>, mut supply: f64) -> f64 {
    demands.sort_by(f64::total_cmp);
    let mut left = demands.len() as f64;
    for demand in demands {
        if demand >= supply / left {
            return supply / left;
        }
        supply -= demand;
        left -= 1.0;
    }
    f64::INFINITY
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    /// Max-min fairness: an app below the water level gets all it asks for and
    /// is not refused, one above it gets the level.
    #[test]
    fn every_app_gets_what_it_asks_for_or_the_same_as_the_others(
        rates in prop::collection::vec(50u64..5_000, 1..6),
        crowds in prop::collection::vec(200usize..15_000, 1..4),
        most in 8u32..256,
    ) {
        let quiets = rates.iter().map(|rate| quiet(*rate));
        let apps: Vec<App> = quiets.chain(crowds.iter().map(|n| greedy(*n))).collect();
        let seconds = 1.0;
        let got = run(&apps, most, 1_000_000);
        let asked: f64 = rates.iter().map(|rate| *rate as f64).sum();
        let refused: u64 = got.iter().map(|got| got.refused).sum();
        let supply = 1e6 / SERVE_US as f64 - refused as f64 / seconds * 0.5;
        let demands = rates.iter().map(|rate| *rate as f64);
        let level = max_min(demands.chain(crowds.iter().map(|_| 1e9)).collect(), supply);
        prop_assume!(asked < supply);
        for (at, got) in got.iter().enumerate() {
            let rate = got.served as f64 / seconds;
            if at < rates.len() {
                prop_assert_eq!(got.refused, 0);
                // Its client waits for the answer before it rests.
                let asked = 1e6 / (1e6 / rates[at] as f64 + 3_000.0);
                prop_assert!(rate >= asked.min(level) * 0.9, "{} of {}: {:?}", rate, asked, got);
            } else {
                prop_assert!(rate >= level * 0.9, "{} of {}: {:?}", rate, level, got);
            }
        }
    }

    /// Places may be left at any time, before their turn and after.
    #[test]
    fn lines_hold_together_whoever_leaves(
        steps in prop::collection::vec((0usize..5, 0u64..8, any::<prop::sample::Index>()), 1..400),
    ) {
        let mut queue = FairQueue::default();
        let mut held: Vec<Place> = Vec::new();
        let mut waiting: std::collections::HashSet<Place> = Default::default();
        let mut worked_us = 0;
        for (key, step, which) in steps {
            match step {
                0..=3 => {
                    if let Some(place) = queue.join(key, REQUEST * (1 + step), worked_us) {
                        prop_assert!(!held.contains(&place), "given twice");
                        held.push(place);
                        waiting.insert(place);
                    }
                }
                4 | 5 if !held.is_empty() => {
                    let place = held.swap_remove(which.index(held.len()));
                    waiting.remove(&place);
                    queue.leave(place);
                }
                6 => worked_us += PATIENCE_US / 2,
                _ => {
                    let mut told = Vec::new();
                    queue.round(3, worked_us, |place, _| told.push(place));
                    for place in told {
                        prop_assert!(waiting.remove(&place), "told one who does not wait");
                    }
                }
            }
            prop_assert_eq!(queue.waiting(), waiting.len());
            let in_order: Vec<Key> = queue.order.iter().map(|(_, key)| *key).collect();
            for key in &in_order {
                prop_assert!(queue.lines[key].in_time.first != NONE);
            }
            let standing = queue.lines.values().filter(|line| line.in_time.first != NONE);
            prop_assert_eq!(in_order.len(), standing.count());
        }
        for _ in 0..1_000 {
            queue.round(3, worked_us, |_, _| {});
        }
        prop_assert_eq!(queue.waiting(), 0);
    }
}
