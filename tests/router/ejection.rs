//! Ejection: who crashed, hangs or fails is out of rotation within a few
//! requests; who fails like everybody else is not.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::harness::{
    Backend, Conduct, Instance, Load, Router, eventually, get, post, stays, within,
};

/// Asks until a backend is shown as ejected; gives how many requests it took.
/// Each must be answered 200.
#[track_caller]
fn ask_until_ejected(router: &Router, app: &str, id: &str, at_most: usize) -> usize {
    let mut client = router.client();
    for number in 0..at_most {
        client.send(get(app, &format!("/until/{number}")));
        client.answer().expect(200);
        if router.health(app, id) == "ejected" {
            return number + 1;
        }
    }
    panic!("{id} is not ejected after {at_most} requests: {}", {
        router.backend(app, id)
    });
}

/// Nobody of this app was ever ejected.
#[track_caller]
fn nobody_was_ejected(router: &Router, app: &str) {
    let view = router.admin_get(&format!("/apps/{app}")).expect(200).json();
    for backend in view["backends"].as_array().expect("a list") {
        let id = backend["id"].as_str().expect("it has one");
        let backend = router.backend(app, id);
        assert_eq!(backend["ejections"], 0, "{backend}");
    }
    let events = router.events("backend_ejected");
    let of_app = events.iter().filter(|event| event["app"] == app);
    assert_eq!(of_app.count(), 0, "{events:?}");
}

#[test]
fn a_refused_connection_ejects_at_once() {
    let router = Router::start();
    let (one, two) = (Instance::start("one"), Instance::start("two"));
    router.pool("shop", &json!({}), &[&one, &two]);
    let mut client = router.client();
    for number in 0..40 {
        client.send(get("shop", &format!("/warm/{number}")));
        client.answer().expect(200);
    }
    one.crash();
    let mut asked = 0;
    let mut ask = || {
        // On every thread: what one has met the others know.
        if asked % 2 == 0 {
            client = router.client();
        }
        client.send(get("shop", &format!("/after/{asked}")));
        assert_eq!(client.answer().expect(200).text(), "two");
        asked += 1;
    };
    // One that had a hiccup is met late.
    within(Duration::from_secs(90), "a request meets it", || {
        ask();
        (router.health("shop", "web.1") != "healthy").then_some(())
    });
    (0..200).for_each(|_| ask());
    let view = router.backend("shop", "web.1");
    assert!(
        matches!(view["health"].as_str(), Some("ejected" | "trial")),
        "{view}"
    );
    assert_eq!(view["ejections"], 1, "{view}");
    assert_eq!(view["share"], 0.0, "{view}");
    let reason = view["reason"].as_str().unwrap_or_default();
    assert!(reason.contains("refused"), "{view}");
    let event = router.wait_event("backend_ejected", "shop", "web.1");
    let text = event["text"].as_str().unwrap_or_default();
    assert!(text.contains("refuse"), "its reason: {event}");
    assert!(
        text.bytes().any(|it| it.is_ascii_digit()),
        "its numbers: {event}"
    );
    assert_eq!(router.health("shop", "web.2"), "healthy");
    eventually("all is logged", || {
        (router.tries("/after/").len() == asked).then_some(())
    });
    let tries = router.tries("/after/");
    let met_it = tries.iter().filter(|&&tries| tries > 1).count();
    assert_eq!(met_it, 1, "only the first meets the corpse: {tries:?}");
}

#[test]
fn a_connection_that_never_opens_ejects_at_once() {
    let router = Router::start();
    let (stuck, alive) = (Backend::never_accepts(), Instance::start("alive"));
    router.pool_at("shop", &json!({}), &[stuck.address(), alive.address()]);
    let mut client = router.client();
    let began = Instant::now();
    for number in 0..60 {
        client.send(get("shop", &format!("/{number}")));
        assert_eq!(client.answer().expect(200).text(), "alive");
    }
    assert!(
        began.elapsed() < Duration::from_secs(15),
        "{:?}",
        began.elapsed()
    );
    assert_eq!(router.health("shop", "web.1"), "ejected");
    eventually("all is logged", || {
        (router.tries("/").len() == 60).then_some(())
    });
    let tries = router.tries("/");
    assert_eq!(
        tries.iter().filter(|&&tries| tries > 1).count(),
        1,
        "{tries:?}"
    );
}

#[test]
fn a_refused_post_is_sent_elsewhere() {
    let router = Router::start();
    let (one, two) = (Instance::start("one"), Instance::start("two"));
    router.pool("shop", &json!({}), &[&one, &two]);
    one.crash();
    let mut client = router.client();
    for number in 0..50 {
        client.send(post("shop", &format!("/{number}")));
        assert_eq!(client.answer().expect(200).text(), "two");
    }
    assert_eq!(two.count(), 50, "each is executed once");
    assert_eq!(router.health("shop", "web.1"), "ejected");
}

#[test]
fn a_crash_under_load_costs_no_get() {
    let router = Router::start();
    let pool = ["one", "two", "three", "four"].map(Instance::start);
    router.pool(
        "shop",
        &json!({}),
        &[&pool[0], &pool[1], &pool[2], &pool[3]],
    );
    let load = Load::gets(&router, "shop", 150);
    load.wait(150);
    pool[0].crash();
    load.wait(100);
    pool[1].crash();
    pool[2].crash();
    load.wait(100);
    pool[0].restart();
    pool[1].restart();
    pool[2].restart();
    load.wait(150);
    load.stop_all_well();
}

#[test]
fn a_crash_under_load_runs_no_post_twice() {
    let router = Router::start();
    let (one, two) = (Instance::start("one"), Instance::start("two"));
    router.pool("shop", &json!({}), &[&one, &two]);
    let load = Load::posts(&router, "shop", 100);
    for _ in 0..3 {
        load.wait(60);
        one.crash();
        load.wait(60);
        one.restart();
    }
    let sent = load.stop();
    let mut failed = 0;
    for sent in &sent {
        let executed = one.executed(&sent.path) + two.executed(&sent.path);
        assert!(executed <= 1, "executed {executed} times: {sent:?}");
        if sent.is(200) {
            assert_eq!(executed, 1, "answered by nobody: {sent:?}");
        } else {
            // In flight on the one that crashed: it may have been executed.
            let answer = sent.result.as_ref().expect("an answer must come");
            assert_eq!(answer.code().as_deref(), Some("H13"), "{sent:?}");
            failed += 1;
        }
    }
    // At 100 a second and an instant each, two were in flight at most; the
    // machine may be busy.
    assert!(failed <= 3 * 6, "{failed} of {} failed", sent.len());
}

#[test]
fn resets_after_reading_eject_and_cost_no_get() {
    let router = Router::start();
    let (bad, good) = (Instance::start("bad"), Instance::start("good"));
    router.pool("shop", &json!({}), &[&bad, &good]);
    bad.does(Conduct::Resets);
    ask_until_ejected(&router, "shop", "web.1", 200);
    assert!(bad.count() <= 20, "out after {} of its own", bad.count());
    router.wait_event("backend_ejected", "shop", "web.1");
}

#[test]
fn a_post_that_was_reset_is_executed_once_and_fails_once() {
    let router = Router::start();
    let (bad, good) = (Instance::start("bad"), Instance::start("good"));
    router.pool("shop", &json!({}), &[&bad, &good]);
    bad.does(Conduct::Resets);
    let mut failed = 0;
    for number in 0..60 {
        let path = format!("/{number}");
        let answer = router.send(post("shop", &path));
        let executed = (bad.executed(&path), good.executed(&path));
        if answer.status == 200 {
            assert_eq!(executed, (0, 1), "{path}");
        } else {
            answer.refused(503, "H13");
            assert_eq!(executed, (1, 0), "{path}");
            failed += 1;
        }
    }
    assert!(
        (1..=20).contains(&failed),
        "{failed} failed before it was out"
    );
    assert!(router.counted("portico_retries_withheld_total", "\"not_idempotent\"") >= 1.0);
}

#[test]
fn a_backend_that_answers_500_where_its_peers_do_not_is_ejected() {
    let router = Router::start();
    let pool = ["bad", "good", "fine"].map(Instance::start);
    router.pool("shop", &json!({}), &[&pool[0], &pool[1], &pool[2]]);
    pool[0].does(Conduct::Answers(500, ""));
    let mut client = router.client();
    let mut failed = 0;
    for number in 0..600 {
        client.send(get("shop", &format!("/{number}")));
        let answer = client.answer();
        if answer.status == 500 {
            assert_eq!(
                answer.text(),
                "bad says 500",
                "an app's own error is passed on"
            );
            failed += 1;
        }
        if number % 10 == 0 && router.health("shop", "web.1") == "ejected" {
            break;
        }
    }
    assert!((20..=60).contains(&failed), "out after {failed} of its own");
    router.wait_event("backend_ejected", "shop", "web.1");
}

#[test]
fn a_500_from_every_backend_ejects_nobody() {
    let router = Router::start();
    let pool = ["one", "two", "three"].map(Instance::start);
    router.pool("shop", &json!({}), &[&pool[0], &pool[1], &pool[2]]);
    for instance in &pool {
        instance.does(Conduct::Answers(500, ""));
    }
    let mut client = router.client();
    for number in 0..300 {
        client.send(get("shop", &format!("/{number}")));
        let answer = client.answer().expect(500);
        assert!(answer.text().ends_with("says 500"), "{answer:?}");
        assert_eq!(answer.header("proxy-status"), None, "{answer:?}");
    }
    assert_eq!(
        pool.iter().map(Instance::count).sum::<usize>(),
        300,
        "a 500 is never retried"
    );
    assert!(pool.iter().all(|it| it.count() > 30), "all go on serving");
    nobody_was_ejected(&router, "shop");
}

#[test]
fn a_pool_of_one_is_never_ejected_for_what_it_answers() {
    let router = Router::start();
    let only = Instance::start("only");
    router.pool("shop", &json!({}), &[&only]);
    for conduct in [
        Conduct::Answers(503, ""),
        Conduct::Resets,
        Conduct::Answers(504, ""),
        Conduct::Says(b"not HTTP at all\r\n\r\n"),
    ] {
        only.does(conduct.clone());
        for number in 0..40 {
            let answer = router.get("shop", &format!("/{number}"));
            assert!(answer.status >= 500, "{conduct:?}: {answer:?}");
        }
        only.does(Conduct::Well);
        router.get("shop", "/well").expect(200);
    }
    nobody_was_ejected(&router, "shop");
}

#[test]
fn of_two_that_fail_alike_nobody_stays_out() {
    let router = Router::start();
    let (one, two) = (Instance::start("one"), Instance::start("two"));
    router.pool("shop", &json!({}), &[&one, &two]);
    one.does(Conduct::Resets);
    two.does(Conduct::Resets);
    for number in 0..60 {
        router
            .get("shop", &format!("/{number}"))
            .refused(503, "H13");
    }
    one.does(Conduct::Well);
    two.does(Conduct::Well);
    router.get("shop", "/well").expect(200);
    for id in ["web.1", "web.2"] {
        eventually("traffic brings it back", || {
            router.get("shop", "/back").expect(200);
            let health = router.health("shop", id);
            matches!(health.as_str(), "healthy" | "ramping").then_some(())
        });
    }
}

#[test]
fn ejection_switched_off_is_off() {
    let router = Router::start();
    let (bad, good) = (Instance::start("bad"), Instance::start("good"));
    router.pool("shop", &json!({ "ejection": false }), &[&bad, &good]);
    bad.does(Conduct::Resets);
    for number in 0..100 {
        let answer = router.send(post("shop", &format!("/{number}")));
        assert!(answer.status == 200 || answer.code().as_deref() == Some("H13"));
    }
    assert!(
        bad.count() > 20,
        "it goes on getting requests: {}",
        bad.count()
    );
    nobody_was_ejected(&router, "shop");
}

#[test]
fn a_flapping_backend_costs_no_get() {
    let router = Router::start();
    let (flaps, good) = (Instance::start("flaps"), Instance::start("good"));
    router.pool("shop", &json!({}), &[&flaps, &good]);
    let load = Load::gets(&router, "shop", 100);
    for _ in 0..4 {
        load.wait(50);
        flaps.crash();
        load.wait(50);
        flaps.restart();
    }
    load.stop_all_well();
}

#[test]
fn a_rolling_restart_without_a_word_costs_no_get() {
    let router = Router::start();
    let pool = ["one", "two", "three", "four"].map(Instance::start);
    router.pool(
        "shop",
        &json!({}),
        &[&pool[0], &pool[1], &pool[2], &pool[3]],
    );
    let load = Load::gets(&router, "shop", 100);
    load.wait(50);
    for instance in &pool {
        instance.crash();
        load.wait(40);
        instance.restart();
        load.wait(40);
    }
    load.stop_all_well();
}

#[test]
fn an_ejection_is_this_backends_only() {
    let router = Router::start();
    let (bad, good) = (Instance::start("bad"), Instance::start("good"));
    router.pool("shop", &json!({}), &[&bad, &good]);
    // The same ids and addresses under another app, without traffic.
    router.pool("blog", &json!({}), &[&bad, &good]);
    bad.does(Conduct::Resets);
    ask_until_ejected(&router, "shop", "web.1", 200);
    let before = router.backend("blog", "web.1");
    assert_eq!(before["ejections"], 0, "{before}");
    assert_eq!(router.health("shop", "web.2"), "healthy");
    stays(Duration::from_millis(200), "its peer stays in", || {
        router.health("shop", "web.2") == "healthy"
    });
}
