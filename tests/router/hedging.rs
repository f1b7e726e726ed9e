//! Hedges and deadlines: a silent try is overtaken when the policy says so, a
//! request ends when its time is up.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::{Conduct, Instance, Load, Router, eventually, get, post, soon};

/// Two instances, the first of which takes this long.
fn slow_and_fast(router: &Router, policy: &Value, time: Duration) -> (Instance, Instance) {
    let (slow, fast) = (Instance::start("slow"), Instance::start("fast"));
    slow.does(Conduct::Slow(time));
    router.pool("shop", policy, &[&slow, &fast]);
    (slow, fast)
}

#[test]
fn a_hedge_after_a_set_time_overtakes_a_silent_try() {
    let router = Router::start();
    let (silent, fast) = (Instance::start("silent"), Instance::start("fast"));
    silent.does(Conduct::Silent);
    let policy = json!({ "hedge": "50ms", "ejection": false });
    router.pool("shop", &policy, &[&silent, &fast]);
    for number in 0..20 {
        let began = Instant::now();
        let answer = router.get("shop", &format!("/{number}")).expect(200);
        assert_eq!(answer.text(), "fast");
        assert!(
            began.elapsed() < Duration::from_secs(10),
            "{:?}",
            began.elapsed()
        );
    }
    assert!(silent.count() > 0, "it was met");
    eventually("the overtaken tries are dropped", || {
        (silent.open() == 0).then_some(())
    });
    let path = &silent.requests()[0].target;
    let line = router.logged(path);
    assert_eq!(line["tries"], "2", "{line:?}");
    assert_eq!(line["backend"], "web.2", "{line:?}");
    assert_eq!(fast.executed(path), 1);
}

#[test]
fn the_first_to_answer_wins_even_if_it_is_the_older() {
    let router = Router::start();
    // Both answer, the overtaken one first.
    let (one, two) = (Instance::start("one"), Instance::start("two"));
    one.does(Conduct::Slow(Duration::from_secs(1)));
    two.does(Conduct::Slow(Duration::from_secs(1)));
    let policy = json!({ "hedge": "100ms", "ejection": false });
    router.pool("shop", &policy, &[&one, &two]);
    for number in 0..4 {
        let path = format!("/{number}");
        router.get("shop", &path).expect(200);
        let line = router.logged(&path);
        let (ones, twos) = (one.executed(&path), two.executed(&path));
        assert_eq!(
            (ones, twos),
            (1, 1),
            "hedged once, each asked once: {line:?}"
        );
    }
    // The connection of the one left behind does not poison what follows.
    for number in 0..20 {
        one.does(Conduct::Well);
        two.does(Conduct::Well);
        router.get("shop", &format!("/next/{number}")).expect(200);
    }
}

#[test]
fn a_post_is_never_hedged() {
    let router = Router::start();
    let policy = json!({ "hedge": "20ms" });
    let (slow, fast) = slow_and_fast(&router, &policy, Duration::from_millis(300));
    for number in 0..10 {
        let path = format!("/{number}");
        router.send(post("shop", &path)).expect(200);
        assert_eq!(slow.executed(&path) + fast.executed(&path), 1, "{path}");
    }
}

#[test]
fn hedging_switched_off_is_off() {
    let router = Router::start();
    let policy = json!({ "hedge": "off", "ejection": false });
    let (slow, fast) = slow_and_fast(&router, &policy, Duration::from_millis(1_500));
    let load = Load::gets(&router, "shop", 40);
    load.wait(80);
    let sent = load.stop_all_well();
    eventually("each was executed once", || {
        (slow.count() + fast.count() == sent.len()).then_some(())
    });
    assert!(slow.count() > 0);
}

#[test]
fn hedges_stay_within_the_budget() {
    let router = Router::start();
    let (one, two) = (Instance::start("one"), Instance::start("two"));
    let late = Conduct::Slow(Duration::from_millis(60));
    one.does(late.clone());
    two.does(late);
    let policy = json!({ "hedge": "10ms", "ejection": false,
                         "retry_budget": { "percent": 10, "per_second": 1 } });
    router.pool("shop", &policy, &[&one, &two]);
    let began = Instant::now();
    let load = Load::gets(&router, "shop", 100);
    load.wait(200);
    let sent = load.stop_all_well();
    let tries = one.count() + two.count();
    let bound = sent.len() as f64 * 1.1 + began.elapsed().as_secs_f64() + 2.0 + 1.0;
    assert!(
        tries as f64 <= bound,
        "{tries} tries of {} requests",
        sent.len()
    );
    assert!(tries > sent.len(), "some were hedged");
}

#[test]
fn a_budget_of_nothing_hedges_nothing() {
    let router = Router::start();
    let policy = json!({ "hedge": "10ms", "ejection": false,
                         "retry_budget": { "percent": 0, "per_second": 0 } });
    let (slow, fast) = slow_and_fast(&router, &policy, Duration::from_millis(100));
    let mut client = router.client();
    for number in 0..30 {
        client.send(get("shop", &format!("/{number}")));
        client.answer().expect(200);
    }
    assert_eq!(slow.count() + fast.count(), 30);
}

#[test]
fn a_try_that_takes_too_long_goes_to_another() {
    let router = Router::start();
    let (silent, fast) = (Instance::start("silent"), Instance::start("fast"));
    silent.does(Conduct::Silent);
    let policy = json!({ "try_timeout": "500ms", "hedge": "off" });
    router.pool("shop", &policy, &[&silent, &fast]);
    for number in 0..20 {
        let path = format!("/{number}");
        assert_eq!(router.get("shop", &path).expect(200).text(), "fast");
    }
    let met = silent.requests();
    assert!(!met.is_empty(), "it was met");
    assert_eq!(router.logged(&met[0].target)["tries"], "2");
    assert!(met.len() <= 20, "out after {} of its own", met.len());
}

#[test]
fn a_try_timeout_does_not_cut_the_only_backend() {
    let router = Router::start();
    let only = Instance::start("only");
    only.does(Conduct::Slow(Duration::from_millis(600)));
    let policy = json!({ "try_timeout": "100ms", "hedge": "off" });
    router.pool("shop", &policy, &[&only]);
    router.get("shop", "/late").expect(200);
    assert_eq!(only.count(), 1);
}

#[test]
fn a_try_timeout_runs_no_post_twice() {
    let router = Router::start();
    let policy = json!({ "try_timeout": "100ms", "hedge": "off", "first_byte_timeout": "2s" });
    let (slow, fast) = slow_and_fast(&router, &policy, Duration::from_millis(500));
    for number in 0..8 {
        let path = format!("/{number}");
        let answer = router.send(post("shop", &path));
        assert!(
            answer.status == 200 || answer.code().as_deref() == Some("H12"),
            "{answer:?}"
        );
        assert_eq!(slow.executed(&path) + fast.executed(&path), 1, "{path}");
    }
}

/// Fails unless the answer is H12 and came about when it had to.
#[track_caller]
fn ended_by_its_deadline(router: &Router, path: &str, deadline: Duration) {
    let began = Instant::now();
    router.get("shop", path).refused(503, "H12");
    let took = began.elapsed();
    assert!(took >= deadline - Duration::from_millis(60), "{took:?}");
    // Far below any other timeout.
    assert!(took < deadline + Duration::from_secs(10), "{took:?}");
    router.logged_code(path, "H12");
}

#[test]
fn a_deadline_bounds_all_tries_together() {
    let router = Router::start();
    let pool = ["one", "two", "three"].map(Instance::start);
    for instance in &pool {
        instance.does(Conduct::Silent);
    }
    let policy = json!({ "deadline": "3s", "try_timeout": "1700ms", "hedge": "off" });
    router.pool("shop", &policy, &[&pool[0], &pool[1], &pool[2]]);
    ended_by_its_deadline(&router, "/silent", Duration::from_secs(3));
    let tries: usize = pool.iter().map(|it| it.executed("/silent")).sum();
    assert!((1..=2).contains(&tries), "{tries} tries in two tries' time");
}

#[test]
fn a_deadline_bounds_the_wait_in_the_queue() {
    // Sooner than the queue's own time ends.
    soon(Duration::from_millis(3_500), || {
        let router = Router::start();
        let busy = Instance::start("busy");
        busy.does(Conduct::Silent);
        router.pool(
            "shop",
            &json!({ "max_concurrency": 1, "deadline": "700ms" }),
            &[&busy],
        );
        let mut first = router.client();
        first.send(get("shop", "/first"));
        busy.wait_for("/first");
        let began = Instant::now();
        let answer = router.get("shop", "/queued").expect(503);
        let took = began.elapsed();
        let code = answer.code();
        assert!(matches!(code.as_deref(), Some("H11" | "H12")), "{answer:?}");
        first.answer().refused(503, "H12");
        took
    });
}

#[test]
fn an_answer_in_time_is_not_cut_by_the_deadline() {
    let router = Router::start();
    let backend = crate::harness::Backend::script(|mut conn| {
        while conn.request().is_some() {
            conn.write("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n");
            for _ in 0..6 {
                crate::harness::pause(Duration::from_millis(500));
                conn.write("x");
            }
        }
    });
    router.serve_with("shop", &json!({ "deadline": "2s" }), &[&backend]);
    let answer = router.get("shop", "/long").expect(200);
    assert!(answer.complete, "the deadline is for the first byte");
}
