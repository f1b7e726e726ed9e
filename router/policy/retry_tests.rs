//! The budget's promise, over random traffic.

use proptest::prelude::*;

use super::*;

fn allowance(percent: u32, per_second: u32) -> Allowance {
    Allowance {
        percent,
        per_second,
    }
}

proptest! {
    /// Every request wants as many retries as it can get. What was granted in
    /// any window is at most what the module's page promises.
    #[test]
    fn retries_never_pass_the_promise(
        steps in proptest::collection::vec((0u64..3_000_000, 0u64..200, 0u64..200), 1..80),
        percent in 0u32..60,
        per_second in 0u32..20,
        hedge in any::<bool>(),
    ) {
        let allowance = allowance(percent, per_second);
        let kind = if hedge { Retry::Hedge } else { Retry::Again };
        let mut budget = Budget::default();
        budget.catch_up(0, 0, allowance);
        let (mut now_us, mut requests) = (0, 0);
        let mut granted: Vec<(u64, u64)> = Vec::new();
        let mut arrived: Vec<(u64, u64)> = Vec::new();
        for (wait_us, came, wanted) in steps {
            now_us += wait_us;
            requests += came;
            // As an edge does: the budget hears of requests as they come.
            budget.catch_up(now_us, requests, allowance);
            arrived.push((now_us, came));
            let got = (0..wanted).filter(|_| budget.withdraw(now_us, requests, allowance, kind));
            granted.push((now_us, got.count() as u64));
        }
        for (begin, &(from_us, _)) in granted.iter().enumerate() {
            for &(to_us, _) in &granted[begin..] {
                let inside = |&&(at, _): &&(u64, u64)| (from_us..=to_us).contains(&at);
                let got: u64 = granted.iter().filter(inside).map(|&(_, count)| count).sum();
                let recent = from_us.saturating_sub(10 * SECOND_US)..=to_us;
                let came: u64 = arrived
                    .iter()
                    .filter(|(at, _)| recent.contains(at))
                    .map(|&(_, count)| count)
                    .sum();
                // What came in one step is spread over the time since the step
                // before, so a little of it may count as more recent than it is.
                let slack: u64 = arrived.iter().map(|&(_, count)| count).max().unwrap_or(0);
                let most = (came + slack) * u64::from(percent) / 100
                    + u64::from(per_second) * (to_us - from_us + 2 * SECOND_US) / SECOND_US
                    + 1;
                prop_assert!(got <= most, "{got} > {most}");
            }
        }
    }
}

#[test]
fn a_fifth_of_the_traffic_may_be_repeated_and_ten_a_second() {
    let allowance = allowance(20, 10);
    let mut budget = Budget::default();
    let mut granted = 0;
    for step in 0..20_000u64 {
        let (now_us, requests) = (step * 1_000, step + 1);
        granted += u64::from(budget.withdraw(now_us, requests, allowance, Retry::Again));
    }
    // 20 s at 1,000 requests a second, each of which wants one.
    assert!((4_200..=4_221).contains(&granted), "{granted}");
}

#[test]
fn what_was_not_used_is_gone_after_ten_seconds() {
    let allowance = allowance(20, 0);
    let mut budget = Budget::default();
    budget.catch_up(0, 0, allowance);
    budget.catch_up(SECOND_US / 2, 1_000, allowance);
    let mut early = budget.clone();
    let all = |budget: &mut Budget, now_us| {
        let granted =
            (0..1_000).filter(|_| budget.withdraw(now_us, 1_000, allowance, Retry::Again));
        granted.count()
    };
    assert_eq!(all(&mut early, 9 * SECOND_US), 200);
    assert_eq!(all(&mut budget, 10 * SECOND_US), 0);
}

#[test]
fn hedges_leave_the_lower_half_to_retries() {
    let allowance = allowance(20, 10);
    let mut budget = Budget::default();
    budget.catch_up(0, 0, allowance);
    let mut of = |kind| {
        (0..1_000)
            .filter(|_| budget.withdraw(SECOND_US, 1_000, allowance, kind))
            .count()
    };
    assert_eq!(of(Retry::Hedge), 110);
    assert_eq!(of(Retry::Hedge), 0);
    assert_eq!(of(Retry::Again), 110);
    assert_eq!(of(Retry::Again), 0);
}

#[test]
fn an_app_that_allows_none_gets_none() {
    let mut budget = Budget::default();
    for step in 0..100 {
        let now_us = step * SECOND_US;
        assert!(!budget.withdraw(now_us, step * 50, allowance(0, 0), Retry::Again));
    }
}
