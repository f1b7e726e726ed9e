//! The retry budget: retries never become the outage; and what was retried or
//! withheld is counted by its reason.

use std::time::Instant;

use serde_json::{Value, json};

use crate::harness::{Client, Conduct, Instance, Router, eventually, get, post, with_body};

/// Asks from four clients at once; gives how many requests that were.
fn storm(router: &Router, app: &'static str, each: usize) -> usize {
    let address = router.http();
    let clients: Vec<_> = (0..4)
        .map(|client_number| {
            std::thread::spawn(move || {
                let mut client = Client::connect(address);
                for number in 0..each {
                    client.send(get(app, &format!("/{client_number}/{number}")));
                    client.answer();
                }
            })
        })
        .collect();
    for client in clients {
        client.join().expect("every request must be answered");
    }
    4 * each
}

/// What an app that fails everywhere costs: tries beyond the first, and the
/// seconds it took.
fn failing_app(router: &Router, policy: &Value, conduct: &Conduct, each: usize) -> (usize, f64) {
    let pool = ["one", "two", "three"].map(Instance::start);
    router.pool("shop", policy, &[&pool[0], &pool[1], &pool[2]]);
    for instance in &pool {
        instance.does(conduct.clone());
    }
    let began = Instant::now();
    let requests = storm(router, "shop", each);
    let seconds = began.elapsed().as_secs_f64();
    let tries: usize = pool.iter().map(Instance::count).sum();
    assert!(tries >= requests, "{tries} tries of {requests} requests");
    (tries - requests, seconds)
}

#[test]
fn tries_of_a_failing_app_stay_within_the_default_budget() {
    for conduct in [Conduct::Answers(503, ""), Conduct::Resets] {
        let router = Router::start();
        let (retries, seconds) = failing_app(&router, &json!({}), &conduct, 250);
        let bound = 1_000.0 * 0.2 + 10.0 * seconds + 20.0 + 1.0;
        assert!(
            retries as f64 <= bound,
            "{conduct:?}: {retries} retries, at most {bound}"
        );
        assert!(retries > 0, "{conduct:?}: nothing was retried");
        assert!(
            router.counted("portico_retries_withheld_total", "\"budget\"") >= 1.0,
            "{conduct:?}: what was withheld is counted"
        );
    }
}

#[test]
fn a_policys_own_budget_holds() {
    let router = Router::start();
    let policy = json!({ "retry_budget": { "percent": 0, "per_second": 5 } });
    let (retries, seconds) = failing_app(&router, &policy, &Conduct::Answers(503, ""), 200);
    let bound = 5.0 * seconds + 10.0 + 1.0;
    assert!(
        retries as f64 <= bound,
        "{retries} retries, at most {bound}"
    );
    assert!(retries > 0);
}

#[test]
fn a_budget_of_nothing_retries_nothing() {
    let router = Router::start();
    let policy = json!({ "retry_budget": { "percent": 0, "per_second": 0 } });
    let (retries, _) = failing_app(&router, &policy, &Conduct::Answers(503, ""), 50);
    assert_eq!(retries, 0);
    assert!(router.counted("portico_retries_withheld_total", "\"budget\"") >= 1.0);
}

#[test]
fn a_budget_is_the_apps_own() {
    let router = Router::start();
    let policy = json!({ "retry_budget": { "percent": 0, "per_second": 1 } });
    failing_app(&router, &policy, &Conduct::Answers(503, ""), 20);
    // Another app's retries are its own matter.
    let (bad, good) = (Instance::start("bad"), Instance::start("good"));
    router.pool("blog", &json!({}), &[&bad, &good]);
    bad.does(Conduct::Answers(503, ""));
    for number in 0..30 {
        router.get("blog", &format!("/blog/{number}")).expect(200);
    }
}

#[test]
fn one_failing_backend_of_three_is_well_within_the_budget() {
    let router = Router::start();
    let pool = ["bad", "good", "fine"].map(Instance::start);
    router.pool("shop", &json!({}), &[&pool[0], &pool[1], &pool[2]]);
    pool[0].does(Conduct::Resets);
    let address = router.http();
    let mut client = Client::connect(address);
    for number in 0..300 {
        client.send(get("shop", &format!("/{number}")));
        client.answer().expect(200);
    }
}

#[test]
fn no_backend_is_tried_twice_while_another_is_left() {
    let router = Router::start();
    let pool = ["one", "two", "three"].map(Instance::start);
    let policy = json!({ "ejection": false, "retries": 2,
                         "retry_budget": { "percent": 100, "per_second": 1000 } });
    router.pool("shop", &policy, &[&pool[0], &pool[1], &pool[2]]);
    pool[0].does(Conduct::Resets);
    pool[1].does(Conduct::Answers(503, ""));
    let mut client = router.client();
    for number in 0..60 {
        let path = format!("/{number}");
        client.send(get("shop", &path));
        assert_eq!(client.answer().expect(200).text(), "three");
        let times = pool.each_ref().map(|it| it.executed(&path));
        assert!(times.iter().all(|&times| times <= 1), "{path}: {times:?}");
    }
    assert!(pool[0].count() > 0 && pool[1].count() > 0, "both were met");
}

#[test]
fn retries_are_counted_by_what_made_them() {
    let router = Router::start();
    let reasons = [
        ("connect", None),
        ("closed_new", Some(Conduct::Resets)),
        ("status", Some(Conduct::Answers(503, ""))),
    ];
    for (reason, conduct) in reasons {
        let label = format!("\"{reason}\"");
        let app = format!("app-{}", reason.replace('_', "-"));
        let (bad, good) = (Instance::start("bad"), Instance::start("good"));
        // A new connection for each request: none is found dead.
        router.pool(&app, &json!({ "backend_keepalive": false }), &[&bad, &good]);
        match conduct {
            Some(conduct) => bad.does(conduct),
            None => bad.crash(),
        }
        assert!(
            router.counted("portico_retries_total", &label) < 1.0,
            "{reason}"
        );
        for number in 0..30 {
            router.get(&app, &format!("/{number}")).expect(200);
        }
        eventually("it is counted", || {
            (router.counted("portico_retries_total", &label) >= 1.0).then_some(())
        });
    }
}

#[test]
fn what_was_not_retried_is_counted_by_why() {
    let router = Router::start();
    let only = Instance::start("only");
    let (bad, good) = (Instance::start("bad"), Instance::start("good"));
    let large = "x".repeat(200_000);
    router.pool("alone", &json!({}), &[&only]);
    let policy = json!({ "ejection": false, "replay_bytes": 1_000 });
    router.pool("pair", &policy, &[&bad, &good]);
    let untried = json!({ "ejection": false, "retries": 0 });
    router.pool("once", &untried, &[&bad, &good]);
    only.does(Conduct::Resets);
    bad.does(Conduct::Resets);
    let count =
        |reason: &str| router.counted("portico_retries_withheld_total", &format!("\"{reason}\""));
    let cases = [
        ("no_backend", get("alone", "/")),
        ("not_idempotent", post("pair", "/")),
        (
            "body_not_replayable",
            with_body("PUT", "pair", "/", "", &large),
        ),
        ("tries", get("once", "/")),
    ];
    for (reason, request) in cases {
        assert!(count(reason) < 1.0, "{reason}");
        eventually(&format!("{reason} is counted"), || {
            router.send(&request);
            (count(reason) >= 1.0).then_some(())
        });
    }
}
