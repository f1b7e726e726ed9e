//! 502, 503 and 504 from an app: asked again elsewhere where one backend fails,
//! passed on as they are where all do; and what `Retry-After` asks for.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::harness::{Conduct, Instance, Router, eventually, get, post, with_body};

#[test]
fn a_get_answered_502_503_or_504_is_asked_elsewhere() {
    let router = Router::start();
    for status in [502, 503, 504] {
        let (bad, good) = (Instance::start("bad"), Instance::start("good"));
        let app = format!("app{status}");
        router.pool(&app, &json!({}), &[&bad, &good]);
        bad.does(Conduct::Answers(status, ""));
        let mut client = router.client();
        for number in 0..200 {
            client.send(get(&app, &format!("/{status}/{number}")));
            assert_eq!(client.answer().expect(200).text(), "good");
            if router.health(&app, "web.1") == "ejected" {
                break;
            }
        }
        assert_eq!(router.health(&app, "web.1"), "ejected", "{status}");
        let met = bad.count();
        assert!((1..=20).contains(&met), "out after {met} of its own");
        router.wait_event("backend_ejected", &app, "web.1");
        let start = format!("/{status}/");
        eventually("those that met it say two tries", || {
            let tries = router.tries(&start);
            assert!(tries.iter().all(|&tries| tries <= 2), "{tries:?}");
            (tries.iter().filter(|&&tries| tries == 2).count() == met).then_some(())
        });
        let line = router.logged(&bad.requests()[0].target);
        assert_eq!(line["backend"], "web.2", "who answered: {line:?}");
        assert_eq!(line["status"], "200");
        bad.does(Conduct::Well);
        eventually("a trial brings it back", || {
            client.send(get(&app, "/back"));
            client.answer().expect(200);
            let health = router.health(&app, "web.1");
            matches!(health.as_str(), "healthy" | "ramping").then_some(())
        });
        router.wait_event("backend_readmitted", &app, "web.1");
    }
}

#[test]
fn a_post_answered_503_is_passed_on_and_executed_once() {
    let router = Router::start();
    let (bad, good) = (Instance::start("bad"), Instance::start("good"));
    router.pool("shop", &json!({}), &[&bad, &good]);
    bad.does(Conduct::Answers(503, "X-Own: yes\r\n"));
    let mut passed_on = 0;
    for number in 0..60 {
        let path = format!("/{number}");
        let answer = router.send(post("shop", &path));
        assert_eq!(bad.executed(&path) + good.executed(&path), 1, "{path}");
        if answer.status == 503 {
            assert_eq!(answer.text(), "bad says 503");
            assert_eq!(answer.header("x-own"), Some("yes"));
            assert_eq!(answer.header("proxy-status"), None, "{answer:?}");
            passed_on += 1;
        } else {
            answer.expect(200);
        }
    }
    assert!((1..=20).contains(&passed_on), "{passed_on} met it");
}

#[test]
fn a_post_with_an_idempotency_key_is_asked_elsewhere() {
    let router = Router::start();
    for (app, conduct) in [
        ("failing", Conduct::Answers(503, "")),
        ("resetting", Conduct::Resets),
    ] {
        let (bad, good) = (Instance::start("bad"), Instance::start("good"));
        router.pool(app, &json!({}), &[&bad, &good]);
        bad.does(conduct);
        for number in 0..40 {
            let path = format!("/{number}");
            let key = format!("Idempotency-Key: key-{number}\r\n");
            let answer = router.send(with_body("POST", app, &path, &key, "all of it"));
            assert_eq!(answer.expect(200).text(), "good");
            assert_eq!(good.executed(&path), 1, "{path}");
        }
        assert!(bad.count() > 0, "it was met");
        let bodies = good.requests();
        assert!(
            bodies.iter().all(|it| it.body == b"all of it"),
            "{bodies:?}"
        );
    }
}

#[test]
fn a_503_from_every_backend_is_passed_on_as_it_is() {
    let router = Router::start();
    let pool = ["one", "two", "three"].map(Instance::start);
    router.pool("shop", &json!({}), &[&pool[0], &pool[1], &pool[2]]);
    for instance in &pool {
        instance.does(Conduct::Answers(503, "X-Own: yes\r\n"));
    }
    let began = Instant::now();
    let mut client = router.client();
    for number in 0..400 {
        client.send(get("shop", &format!("/{number}")));
        let answer = client.answer().expect(503);
        assert!(answer.text().ends_with(" says 503"), "{answer:?}");
        assert_eq!(answer.header("x-own"), Some("yes"));
        assert_eq!(answer.header("proxy-status"), None, "{answer:?}");
        assert_eq!(answer.header("connection"), None, "{answer:?}");
    }
    let tries: usize = pool.iter().map(Instance::count).sum();
    let bound = 400.0 * 1.2 + 10.0 * began.elapsed().as_secs_f64() + 20.0 + 1.0;
    assert!(tries as f64 <= bound, "{tries} tries of 400 requests");
    let line = router.logged("/399");
    assert_eq!(line.get("code").map_or("", String::as_str), "", "{line:?}");
    // Nobody is out for good: who is mended first serves at once.
    pool[1].does(Conduct::Well);
    eventually("the mended one is found", || {
        client.send(get("shop", "/mended"));
        (client.answer().status == 200).then_some(())
    });
    pool[0].does(Conduct::Well);
    pool[2].does(Conduct::Well);
    for id in ["web.1", "web.2", "web.3"] {
        eventually("all come back", || {
            client.send(get("shop", "/back"));
            client.answer().expect(200);
            let health = router.health("shop", id);
            matches!(health.as_str(), "healthy" | "ramping").then_some(())
        });
    }
}

#[test]
fn who_asks_for_rest_gets_it_and_is_not_ejected() {
    let router = Router::start();
    let (tired, good) = (Instance::start("tired"), Instance::start("good"));
    router.pool("shop", &json!({}), &[&tired, &good]);
    tired.does(Conduct::Answers(503, "Retry-After: 25\r\n"));
    let mut client = router.client();
    for number in 0..150 {
        client.send(get("shop", &format!("/{number}")));
        assert_eq!(client.answer().expect(200).text(), "good");
    }
    assert_eq!(tired.count(), 2, "asked twice, then left alone");
    let view = router.backend("shop", "web.1");
    assert_eq!(view["health"], "resting", "{view}");
    assert_eq!(view["ejections"], 0, "{view}");
    router.wait_event("backend_resting", "shop", "web.1");
    // Used last, not never.
    good.crash();
    tired.does(Conduct::Well);
    client.send(get("shop", "/last"));
    assert_eq!(client.answer().expect(200).text(), "tired");
}

#[test]
fn a_rest_ends() {
    let router = Router::start();
    let (tired, good) = (Instance::start("tired"), Instance::start("good"));
    router.pool("shop", &json!({ "slow_start": "0s" }), &[&tired, &good]);
    tired.does(Conduct::Answers(503, "Retry-After: 1\r\n"));
    let mut client = router.client();
    let rests = eventually("it is met", || {
        let asked = Instant::now();
        client.send(get("shop", "/"));
        client.answer().expect(200);
        (tired.count() == 2).then_some(asked)
    });
    tired.does(Conduct::Well);
    eventually("it serves again", || {
        client.send(get("shop", "/"));
        client.answer().expect(200);
        (tired.count() > 5).then_some(())
    });
    assert!(
        rests.elapsed() > Duration::from_millis(800),
        "{:?}",
        rests.elapsed()
    );
}

#[test]
fn when_all_rest_the_client_is_told_to() {
    let router = Router::start();
    let (one, two) = (Instance::start("one"), Instance::start("two"));
    router.pool("shop", &json!({}), &[&one, &two]);
    one.does(Conduct::Answers(503, "Retry-After: 25\r\n"));
    two.does(Conduct::Answers(503, "Retry-After: 25\r\n"));
    for number in 0..20 {
        let answer = router.get("shop", &format!("/{number}")).expect(503);
        assert_eq!(answer.header("retry-after"), Some("25"), "{answer:?}");
        assert!(answer.text().ends_with(" says 503"), "{answer:?}");
    }
    one.does(Conduct::Well);
    two.does(Conduct::Well);
    router.get("shop", "/well").expect(200);
}

#[test]
fn a_retry_after_that_is_nonsense_asks_for_nothing() {
    let router = Router::start();
    let (odd, good) = (Instance::start("odd"), Instance::start("good"));
    router.pool("shop", &json!({}), &[&odd, &good]);
    let mut client = router.client();
    for lines in [
        "Retry-After: soon\r\n",
        "Retry-After: -5\r\n",
        "Retry-After: 99999999999999999999999\r\n",
        "Retry-After:\r\n",
        "Retry-After: 0\r\n",
        "Retry-After: 5\r\nRetry-After: 7\r\n",
    ] {
        odd.does(Conduct::Answers(503, lines));
        for number in 0..10 {
            client.send(get("shop", &format!("/{number}")));
            assert_eq!(client.answer().expect(200).text(), "good", "{lines:?}");
        }
    }
    assert!(odd.count() > 0, "it was met");
}
