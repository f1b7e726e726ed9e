//! Figures from evidence made by hand.

use super::*;
use crate::faults::catalogue::SCENARIOS;

/// Requests due every millisecond from 1 s on, each answered 5 ms later.
struct Made {
    scenario: Scenario,
    exchanges: Vec<Exchange>,
    records: Vec<Vec<Record>>,
    done: Vec<Done>,
}

const START_US: u64 = 1_000_000;

fn due_us(request: usize) -> u64 {
    START_US + request as u64 * 1_000
}

fn record(at_us: u64, event: Event, request: usize) -> Record {
    Record {
        at_us,
        event,
        request: request as u64,
    }
}

impl Made {
    fn new(key: &str, requests: usize, backends: usize) -> Self {
        let exchanges = (0..requests).map(|request| Exchange {
            due_us: due_us(request),
            sent_us: due_us(request),
            ended_us: due_us(request) + SERVICE_US,
            end: End::Answered,
        });
        Self {
            scenario: *SCENARIOS.iter().find(|one| one.key == key).unwrap(),
            exchanges: exchanges.collect(),
            records: vec![Vec::new(); backends],
            done: Vec::new(),
        }
    }

    fn act(&mut self, backend: usize, action: Action, at_us: u64) {
        self.done.push(Done {
            backend,
            action,
            at_us,
            done_us: at_us + 100,
        });
    }

    fn figures(&self, warm_up: usize) -> Figures {
        Evidence {
            scenario: &self.scenario,
            exchanges: &self.exchanges,
            warm_up,
            records: &self.records,
            done: &self.done,
        }
        .figures()
    }
}

#[test]
fn latencies_count_what_was_answered_or_given_up_after_the_warm_up() {
    let mut made = Made::new("none", 110, 1);
    made.exchanges[5].ended_us += 900_000; // warm-up: not counted
    made.exchanges[50].end = End::Deadline;
    made.exchanges[50].ended_us = due_us(50) + 1_000_000;
    made.exchanges[51].end = End::Status(503);
    made.exchanges[51].ended_us = due_us(51) + 10;
    let figures = made.figures(10);
    assert_eq!(figures.requests, 100);
    assert_eq!(
        figures.failed,
        BTreeMap::from([("503".to_owned(), 1), ("deadline".to_owned(), 1)])
    );
    assert_eq!((figures.p50_us, figures.max_us), (5_000, 1_000_000));
    assert_eq!(figures.slow, 1);
}

#[test]
fn tries_are_hits_and_twice_is_told_of_posts() {
    let mut made = Made::new("kill-post", 10, 2);
    for request in 0..10 {
        made.records[request % 2].push(record(due_us(request), Event::Began, request));
    }
    made.records[0].push(record(due_us(9), Event::Began, 3));
    let figures = made.figures(2);
    assert_eq!(figures.tries, 9);
    assert_eq!(figures.executed_twice, Some(1));
    assert!((figures.amplification() - 9.0 / 8.0).abs() < 1e-9);
    made.scenario.method = Method::Get;
    assert_eq!(made.figures(2).executed_twice, None);
}

#[test]
fn a_crash_excuses_only_what_was_on_the_crashed() {
    let mut made = Made::new("kill-post", 10, 2);
    made.act(0, Action::Crash, due_us(4) + 500);
    // 3 was read by the crashed, 4 by the other one, 2 by nobody yet; 9 comes later.
    for request in [2, 3, 4, 9] {
        made.exchanges[request].end = End::Broken;
    }
    made.records[0].push(record(due_us(3), Event::Began, 3));
    made.records[1].push(record(due_us(4), Event::Began, 4));
    let figures = made.figures(0);
    assert_eq!((figures.failed_total(), figures.failed_in_flight), (4, 2));
    // The proxy had held 2 for long when the crash came.
    made.exchanges[2].due_us -= 60_000;
    made.exchanges[2].sent_us -= 60_000;
    assert_eq!(made.figures(0).failed_in_flight, 1);
}

#[test]
fn out_is_when_it_gets_nothing_for_a_while() {
    let mut made = Made::new("503", 4_000, 1);
    made.act(0, Action::Behave(Behaviour::Refusing), due_us(1_000));
    made.act(0, Action::Behave(Behaviour::Well), due_us(3_000));
    let records = &mut made.records[0];
    records.push(record(due_us(998), Event::Began, 998)); // before: not counted
    records.push(record(due_us(1_000), Event::Behaves, 0));
    for request in [1_001, 1_005, 1_200] {
        records.push(record(due_us(request), Event::Began, request));
    }
    records.push(record(due_us(1_700), Event::Began, 1_700)); // a trial
    records.push(record(due_us(3_000), Event::Behaves, 0));
    assert_eq!(made.figures(0).until_out, Some(3));
}

#[test]
fn one_that_is_never_left_alone_counts_until_it_recovers() {
    let mut made = Made::new("503", 4_000, 1);
    made.act(0, Action::Behave(Behaviour::Refusing), due_us(1_000));
    made.act(0, Action::Behave(Behaviour::Well), due_us(3_000));
    made.records[0].push(record(due_us(1_000), Event::Behaves, 0));
    for request in (1_000..3_000).step_by(100) {
        made.records[0].push(record(due_us(request) + 1, Event::Began, request));
    }
    made.records[0].push(record(due_us(3_000), Event::Behaves, 0));
    for request in 3_000..3_100 {
        made.records[0].push(record(due_us(request) + 1, Event::Began, request));
    }
    assert_eq!(made.figures(0).until_out, Some(20));
}

#[test]
fn back_is_the_fifth_answer_to_a_request_due_since() {
    let mut made = Made::new("freeze", 9_000, 1);
    made.act(0, Action::Freeze, due_us(1_000));
    made.act(0, Action::Thaw, due_us(3_000));
    for request in [2_000, 2_001, 2_002, 2_003, 2_004, 2_005] {
        // What had piled up comes out at once, and is no sign of being back.
        made.records[0].push(record(due_us(3_001), Event::Answered, request));
    }
    for request in [3_100, 3_200, 3_300, 3_400, 3_500] {
        made.records[0].push(record(due_us(request), Event::Answered, request));
    }
    let figures = made.figures(0);
    assert_eq!((figures.back_ms, figures.never_back), (Some(499), false));
    made.records[0].pop();
    let figures = made.figures(0);
    assert_eq!((figures.back_ms, figures.never_back), (None, true));
}

#[test]
fn the_first_success_counts_from_when_one_listens() {
    let mut made = Made::new("all-down", 4_000, 2);
    made.act(0, Action::Crash, due_us(1_000));
    assert_eq!(made.figures(0).first_success_ms, None, "one still lives");
    made.act(1, Action::Crash, due_us(1_001));
    made.act(0, Action::Return, due_us(2_000));
    for exchange in &mut made.exchanges[1_000..2_200] {
        exchange.end = End::Status(503);
    }
    made.records[0].push(record(due_us(2_020), Event::Listening, 0));
    // The first that is answered again is 2,200, 5 ms after it was due.
    let figures = made.figures(0);
    assert_eq!(figures.first_success_ms, Some(185.0));
    assert_eq!(figures.failed_since_back, Some(0));
    made.exchanges[2_319].end = End::Status(503); // 299 ms after: may still fail
    made.exchanges[2_320].end = End::Status(503);
    assert_eq!(made.figures(0).failed_since_back, Some(1));
}

#[test]
fn noise_is_the_clients_lateness_and_that_of_unhampered_backends() {
    let mut made = Made::new("slow", 100, 2);
    made.exchanges[7].sent_us += 300;
    made.act(0, Action::Behave(Behaviour::Slow), due_us(1));
    made.records[0].push(record(due_us(2), Event::Began, 2));
    made.records[0].push(record(due_us(2) + 500_000, Event::Answered, 2));
    made.records[1].push(record(due_us(3), Event::Began, 3));
    made.records[1].push(record(due_us(3) + 5_700, Event::Answered, 3));
    assert_eq!(made.figures(0).noise_max_us, 700);
}

#[test]
fn quantiles_are_values_that_occurred() {
    let sorted: Vec<u64> = (1..=100).collect();
    assert_eq!(quantile(&sorted, 0.99), 99);
    assert_eq!(quantile(&sorted, 1.0), 100);
    assert_eq!(quantile(&[], 0.5), 0);
}

#[test]
fn the_timeline_has_a_bucket_for_each_tenth_of_a_second() {
    let mut made = Made::new("kill", 250, 1);
    made.exchanges[120].ended_us += 40_000;
    made.exchanges[130].end = End::NotConnected;
    let timeline = made.figures(0).timeline;
    assert_eq!(
        timeline,
        [(5_000, 5_000, 0), (5_000, 45_000, 1), (5_000, 5_000, 0)]
    );
}
