//! The limit, beside a backend that is nothing but a queue.

use std::collections::BinaryHeap;

use fastrand::Rng;

use super::*;

const SECOND_US: u64 = 1_000_000;
const MOST: u32 = 200;

/// How long a backend works on one request.
type Service = fn(&mut Rng) -> u64;

const STEADY: Service = |_| 20_000;
const MEMORYLESS: Service = |random| (-20_000.0 * (1.0 - random.f64()).ln()) as u64;
const MIXED: Service = |random| {
    if random.u32(..10) == 0 {
        110_000
    } else {
        10_000
    }
};

/// A backend with workers, behind a limit, with clients that always have
/// another request.
struct Bench {
    limiter: Limiter,
    service: Service,
    workers: usize,
    /// How much longer than `service` it takes.
    times: u64,
    /// Requests that clients have at once, if they have not always another.
    offered: u32,
    /// Apps that these are of.
    apps: u32,
    random: Rng,
    now_us: u64,
    /// When each worker is free.
    free_us: BinaryHeap<std::cmp::Reverse<u64>>,
    /// Requests under way: when each is answered, and when it was sent.
    under_way: BinaryHeap<std::cmp::Reverse<(u64, u64)>>,
    from_us: u64,
    until_us: u64,
    most_us: u64,
    window: Window,
    /// Answers, and the sum of what they took.
    answered: (u64, u64),
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

impl Bench {
    fn new(service: Service, workers: usize, seed: u64) -> Bench {
        Bench {
            limiter: Limiter::default(),
            service,
            workers,
            times: 1,
            offered: u32::MAX,
            apps: 1,
            random: Rng::with_seed(seed),
            now_us: 0,
            free_us: (0..workers).map(|_| std::cmp::Reverse(0)).collect(),
            under_way: BinaryHeap::new(),
            from_us: 0,
            until_us: 0,
            most_us: u64::MAX,
            window: NOTHING,
            answered: (0, 0),
        }
    }

    fn send(&mut self) {
        let std::cmp::Reverse(free_us) = self.free_us.pop().unwrap();
        let works_us = (self.service)(&mut self.random) * self.times;
        let done_us = free_us.max(self.now_us) + works_us;
        self.free_us.push(std::cmp::Reverse(done_us));
        self.under_way
            .push(std::cmp::Reverse((done_us, self.now_us)));
    }

    /// Runs for so long; gives answers a second and what they took on average.
    fn run(&mut self, for_us: u64) -> (f64, f64) {
        let until_us = self.now_us + for_us;
        self.answered = (0, 0);
        while self.now_us < until_us {
            let may = self.limiter.limit().min(self.offered) as usize;
            while self.under_way.len() < may {
                self.send();
            }
            self.window.was_full |= self.under_way.len() >= self.limiter.limit() as usize;
            let std::cmp::Reverse((done_us, sent_us)) = self.under_way.pop().unwrap();
            self.now_us = done_us;
            self.answer(sent_us);
        }
        let (answers, sum_us) = self.answered;
        let per_second = answers as f64 * 1e6 / for_us as f64;
        (per_second, sum_us as f64 / answers as f64)
    }

    fn answer(&mut self, sent_us: u64) {
        let took_us = self.now_us - sent_us;
        self.answered.0 += 1;
        self.answered.1 += took_us;
        if self.now_us >= self.from_us {
            self.window.answers += 1;
            self.window.sum_us += took_us.min(self.most_us);
        }
        if self.now_us < self.until_us {
            return;
        }
        self.window.length_us = self.now_us - self.from_us;
        self.window.apps = self.apps;
        let next = self
            .limiter
            .step(&self.window, self.now_us, self.now_us, MOST);
        match next {
            Next::Extend { for_us } => self.until_us = self.now_us + for_us,
            Next::Begin {
                limit,
                served: _,
                after_us,
                for_us,
                most_us,
            } => {
                assert!((1..=MOST).contains(&limit));
                self.from_us = self.now_us + after_us;
                self.until_us = self.from_us + for_us;
                self.most_us = most_us;
                self.window = NOTHING;
            }
        }
    }

    /// What it could answer a second at most.
    fn capacity(&self) -> f64 {
        self.workers as f64 * 1e6 / (20_000.0 * self.times as f64)
    }
}

#[test]
fn a_backend_is_kept_busy_and_hardly_anyone_waits_inside() {
    for workers in [1, 2, 5, 10, 30, 100] {
        let mut bench = Bench::new(STEADY, workers, 1);
        bench.run(10 * SECOND_US);
        let (per_second, mean_us) = bench.run(10 * SECOND_US);
        let share = per_second / bench.capacity();
        assert!(share > 0.97, "{workers} workers: {share} of what they can");
        let most_us = 20_000.0 * (1.0 + 1.7 / workers as f64).max(1.15);
        assert!(mean_us < most_us, "{workers} workers: {mean_us} µs");
    }
}

#[test]
fn times_that_vary_are_no_queue() {
    for service in [MEMORYLESS, MIXED] {
        for seed in 1..=5 {
            let mut bench = Bench::new(service, 10, seed);
            bench.run(5 * SECOND_US);
            let (per_second, mean_us) = bench.run(20 * SECOND_US);
            let share = per_second / bench.capacity();
            assert!(share > 0.93, "seed {seed}: {share} of what it can");
            assert!(mean_us < 36_000.0, "seed {seed}: {mean_us} µs");
        }
    }
}

#[test]
fn work_that_takes_twice_as_long_is_no_queue() {
    let mut bench = Bench::new(STEADY, 10, 1);
    bench.run(5 * SECOND_US);
    for times in [2, 1, 3, 1] {
        bench.times = times;
        bench.run(SECOND_US);
        let (per_second, mean_us) = bench.run(5 * SECOND_US);
        let share = per_second / bench.capacity();
        assert!(
            share > 0.96,
            "{times} times as long: {share} of what it can"
        );
        let most_us = 20_000.0 * times as f64 * 1.25;
        assert!(mean_us < most_us, "{times} times as long: {mean_us} µs");
    }
}

#[test]
fn where_several_apps_share_a_place_is_kept_free_but_for_moments() {
    // Of fifty one more or less cannot be told.
    for (workers, most, least) in [
        (1, 1.02, 0.95),
        (4, 0.85, 0.7),
        (10, 0.92, 0.85),
        (50, 1.01, 0.95),
    ] {
        let mut bench = Bench::new(STEADY, workers, 1);
        bench.apps = 2;
        bench.run(10 * SECOND_US);
        let (per_second, _) = bench.run(20 * SECOND_US);
        let share = per_second / bench.capacity();
        assert!(
            (least..most).contains(&share),
            "{workers} workers: {share} of what they can"
        );
        bench.apps = 1;
        bench.run(3 * SECOND_US);
        let (per_second, _) = bench.run(5 * SECOND_US);
        let share = per_second / bench.capacity();
        assert!(
            share > 0.97,
            "{workers} workers, one app: {share} of what they can"
        );
    }
}

#[test]
fn where_several_apps_share_changes_are_noticed_all_the_same() {
    let mut bench = Bench::new(STEADY, 10, 1);
    bench.apps = 2;
    bench.run(10 * SECOND_US);
    for times in [2, 1] {
        bench.times = times;
        bench.run(3 * SECOND_US);
        let (per_second, mean_us) = bench.run(10 * SECOND_US);
        let share = per_second / bench.capacity();
        assert!(
            (0.8..0.95).contains(&share),
            "{times} times as long: {share} of what it can"
        );
        let most_us = 20_000.0 * times as f64 * 1.05;
        assert!(mean_us < most_us, "{times} times as long: {mean_us} µs");
    }
    // Half of the workers go.
    for _ in 0..5 {
        bench.free_us.pop();
    }
    bench.workers = 5;
    bench.run(10 * SECOND_US);
    let (per_second, mean_us) = bench.run(10 * SECOND_US);
    let share = per_second / bench.capacity();
    assert!(share > 0.7, "{share} of what is left");
    assert!(mean_us < 23_000.0, "{mean_us} µs");
}

#[test]
fn the_change_itself_costs_little() {
    let mut bench = Bench::new(STEADY, 10, 1);
    bench.run(5 * SECOND_US);
    bench.times = 2;
    let (per_second, _) = bench.run(SECOND_US);
    let share = per_second / bench.capacity();
    assert!(share > 0.85, "{share} of what it can in the first second");
}

#[test]
fn where_nobody_is_turned_away_the_limit_bounds_nothing() {
    for offered in [1, 3, 10, 40, 120] {
        let mut bench = Bench::new(MIXED, 200, 1);
        bench.offered = offered;
        for _ in 0..50 {
            bench.run(SECOND_US / 5);
            let limit = bench.limiter.limit();
            let grown = bench.now_us > SECOND_US;
            assert!(
                limit > offered || !grown,
                "{offered} at once, {limit} allowed at {} µs",
                bench.now_us
            );
        }
    }
}

#[test]
fn a_limit_is_found_from_nothing_within_half_a_second() {
    let mut bench = Bench::new(STEADY, 100, 1);
    bench.run(SECOND_US / 2);
    assert!(bench.limiter.limit() >= 100, "{}", bench.limiter.limit());
    let mut bench = Bench::new(STEADY, 10, 1);
    bench.run(SECOND_US / 2);
    assert!(bench.limiter.limit() <= 13, "{}", bench.limiter.limit());
}

#[test]
fn answers_that_come_at_once_are_not_queued_for() {
    // What a router takes itself is part of what it measures: here a tenth of a
    // millisecond, or ten times that while it is busy.
    let mut bench = Bench::new(
        |random| if random.u32(..2) == 0 { 100 } else { 1_000 },
        4,
        1,
    );
    bench.run(SECOND_US);
    for _ in 0..10 {
        bench.run(SECOND_US / 2);
        let limit = bench.limiter.limit();
        assert!(limit >= FIRST, "{limit}");
    }
}

#[test]
fn a_router_that_stood_still_learns_nothing_from_it() {
    let mut limiter = Limiter::default();
    let window = |mean_us: u64, late_us| Window {
        answers: 40,
        sum_us: 40 * mean_us,
        length_us: 50_000 + late_us,
        was_full: true,
        awaiting: 0,
        late_us,
        apps: 1,
    };
    for second in 1..=20 {
        let now_us = second * 100_000;
        limiter.step(&window(20_000, 0), now_us, now_us, MOST);
    }
    let before = limiter.limit;
    limiter.step(&window(420_000, 400_000), 9_000_000, 9_000_000, MOST);
    assert_eq!(limiter.limit, before);
    limiter.step(&window(420_000, 0), 9_100_000, 9_100_000, MOST);
    assert!(limiter.limit < before, "had it not stood still, it would");
}

#[test]
fn a_window_that_became_full_raises_nothing() {
    let mut limiter = Limiter::default();
    let mut now_us = 0;
    let mut step = |limiter: &mut Limiter, was_full| {
        now_us += 100_000;
        let window = Window {
            answers: 40,
            sum_us: 40 * 20_000,
            length_us: 100_000,
            was_full,
            awaiting: 0,
            late_us: 0,
            apps: 1,
        };
        limiter.step(&window, now_us, now_us, MOST);
        limiter.limit()
    };
    for _ in 0..5 {
        assert_eq!(step(&mut limiter, false), FIRST);
    }
    assert_eq!(step(&mut limiter, true), FIRST);
    assert_eq!(step(&mut limiter, true), 2 * FIRST);
}

#[test]
fn a_limit_that_sank_below_two_while_in_doubt_rises_again() {
    let mut limiter = Limiter {
        limit: 3.0,
        applied: 3,
        base_us: 20_000.0,
        is_new: false,
        windows: 10,
        ..Limiter::default()
    };
    assert!(!limiter.is_base_known);
    let mut now_us = 0;
    let mut step = |limiter: &mut Limiter, mean_us: u64| {
        now_us += 100_000;
        let window = Window {
            answers: 40,
            sum_us: 40 * mean_us,
            length_us: 100_000,
            was_full: true,
            awaiting: 0,
            late_us: 0,
            apps: 1,
        };
        limiter.step(&window, now_us, now_us, MOST);
    };
    // Somebody else takes most of the backend.
    limiter.next_dip_us = 500_000;
    step(&mut limiter, 60_000);
    assert!(limiter.limit < 2.0, "{limiter:?}");
    // And leaves it; answers differ, as they do.
    for round in 0..60 {
        step(&mut limiter, if round % 2 == 0 { 16_000 } else { 24_000 });
    }
    assert!(limiter.limit > 3.0, "{limiter:?}");
}
