//! Active probes: as configured, at the rate configured whatever the threads,
//! bounded in what they read and how long.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::instance::PROBE_PATH;
use crate::harness::{Conduct, Instance, Router, eventually, get, stays};

/// A policy that probes ten times a second, with these fields besides.
fn probing(more: &Value) -> Value {
    let mut probe = json!({ "path": PROBE_PATH, "interval": "100ms", "timeout": "100ms",
                            "rise": 2, "fall": 3 });
    let fields = probe.as_object_mut().expect("an object");
    for (key, value) in more.as_object().expect("an object") {
        fields.insert(key.clone(), value.clone());
    }
    json!({ "probe": probe, "slow_start": "0s" })
}

/// Waits for this many probes beyond those there are.
#[track_caller]
fn wait_probes(instance: &Instance, more: usize) {
    let enough = instance.probes().len() + more;
    eventually("it is probed", || {
        (instance.probes().len() >= enough).then_some(())
    });
}

#[test]
fn a_backend_that_fails_its_probes_is_out_and_comes_back_without_a_request() {
    let router = Router::start();
    let (one, two) = (Instance::start("one"), Instance::start("two"));
    // None may be too late on a busy machine: it would count among those that fail.
    let patient = json!({ "interval": "500ms", "timeout": "500ms" });
    router.pool("shop", &probing(&patient), &[&one, &two]);
    wait_probes(&one, 3);
    assert_eq!(router.health("shop", "web.1"), "healthy");
    let before = one.probes().len();
    one.does_to_probes(Conduct::Answers(500, ""));
    router.wait_health("shop", "web.1", &["ejected"]);
    let failed = one.probes().len() - before;
    assert!(failed >= 3, "out after {failed} failed probes, not `fall`");
    router.wait_event("backend_ejected", "shop", "web.1");
    let mut client = router.client();
    for number in 0..50 {
        client.send(get("shop", &format!("/{number}")));
        assert_eq!(client.answer().expect(200).text(), "two");
    }
    let before = one.probes().len();
    one.does_to_probes(Conduct::Well);
    router.wait_health("shop", "web.1", &["healthy"]);
    let passed = one.probes().len() - before;
    assert!(passed >= 2, "in after {passed} passed probes, not `rise`");
    assert_eq!(one.count(), 0, "no request was its trial");
    router.wait_event("backend_readmitted", "shop", "web.1");
}

#[test]
fn a_probe_is_a_plain_request() {
    let router = Router::start();
    let one = Instance::start("one");
    router.pool(
        "shop",
        &probing(&json!({ "host": "probe.internal" })),
        &[&one],
    );
    wait_probes(&one, 1);
    let probe = one.probes().remove(0);
    assert_eq!(
        (probe.method.as_str(), probe.target.as_str()),
        ("GET", PROBE_PATH)
    );
    assert_eq!(probe.header("host"), Some("probe.internal"));
    assert!(probe.body.is_empty());
    let other = Instance::start("other");
    router.pool("blog", &probing(&json!({})), &[&other]);
    wait_probes(&other, 1);
    let address = other.address().to_string();
    assert_eq!(other.probes()[0].header("host"), Some(address.as_str()));
}

#[test]
fn fewer_failures_than_fall_change_nothing() {
    let router = Router::start();
    let (one, two) = (Instance::start("one"), Instance::start("two"));
    let policy = probing(&json!({ "fall": 100 }));
    router.pool("shop", &policy, &[&one, &two]);
    one.does_to_probes(Conduct::Answers(503, ""));
    wait_probes(&one, 8);
    assert_eq!(router.health("shop", "web.1"), "healthy");
    assert!(router.events("backend_ejected").is_empty());
}

#[test]
fn statuses_pass_as_configured() {
    let router = Router::start();
    let pool = ["one", "two", "three"].map(Instance::start);
    pool[0].does_to_probes(Conduct::Answers(301, ""));
    pool[1].does_to_probes(Conduct::Answers(201, ""));
    pool[2].does_to_probes(Conduct::Answers(204, ""));
    let policy = probing(&json!({ "status": "200,204,300-399" }));
    router.pool("shop", &policy, &[&pool[0], &pool[1], &pool[2]]);
    router.wait_health("shop", "web.2", &["ejected"]);
    wait_probes(&pool[0], 4);
    wait_probes(&pool[2], 4);
    assert_eq!(router.health("shop", "web.1"), "healthy");
    assert_eq!(router.health("shop", "web.3"), "healthy");
}

#[test]
fn a_tcp_probe_only_connects() {
    let router = Router::start();
    let (one, two) = (Instance::start("one"), Instance::start("two"));
    let probe =
        json!({ "tcp": true, "interval": "100ms", "timeout": "100ms", "rise": 1, "fall": 1 });
    router.pool(
        "shop",
        &json!({ "probe": probe, "slow_start": "0s" }),
        &[&one, &two],
    );
    eventually("it is connected to", || {
        (one.connections() >= 3).then_some(())
    });
    assert!(
        one.probes().is_empty() && one.count() == 0,
        "nothing is asked"
    );
    one.crash();
    router.wait_health("shop", "web.1", &["ejected"]);
    one.restart();
    router.wait_health("shop", "web.1", &["healthy"]);
    eventually("its connections are closed", || {
        (one.open() <= 1).then_some(())
    });
}

#[test]
fn probes_that_are_answered_badly_fail_and_are_bounded() {
    let router = Router::start();
    let cases: [(&str, Conduct); 6] = [
        ("garbage", Conduct::Says(b"\0\x01garbage\r\n\r\n\r\n")),
        ("nothing", Conduct::Says(b"")),
        ("silence", Conduct::Silent),
        ("a reset", Conduct::Resets),
        (
            "endless headers",
            Conduct::Floods(b"HTTP/1.1 200 OK\r\n", b"X-More: and more\r\n"),
        ),
        (
            "endless interim answers",
            Conduct::Floods(b"", b"HTTP/1.1 103 Early Hints\r\n\r\n"),
        ),
    ];
    for (number, (what, conduct)) in cases.into_iter().enumerate() {
        let app = format!("app{number}");
        let (bad, good) = (Instance::start("bad"), Instance::start("good"));
        bad.does_to_probes(conduct);
        router.pool(&app, &probing(&json!({})), &[&bad, &good]);
        let view = router.wait_health(&app, "web.1", &["ejected"]);
        assert_eq!(router.health(&app, "web.2"), "healthy", "{what}");
        assert!(
            view["reason"].as_str().is_some_and(|it| !it.is_empty()),
            "{view}"
        );
        stays(Duration::from_millis(300), what, || bad.open() <= 3);
        router.get(&app, "/").expect(200);
    }
}

#[test]
fn an_endless_body_is_not_read() {
    let router = Router::start();
    let (endless, good) = (Instance::start("endless"), Instance::start("good"));
    endless.does_to_probes(Conduct::Floods(b"HTTP/1.1 200 OK\r\n\r\n", b"on and on"));
    router.pool("shop", &probing(&json!({})), &[&endless, &good]);
    wait_probes(&endless, 5);
    assert_eq!(
        router.health("shop", "web.1"),
        "healthy",
        "its head said 200"
    );
    stays(Duration::from_millis(300), "probes end", || {
        endless.open() <= 3
    });
}

#[test]
fn a_lone_backend_that_fails_its_probes_still_serves() {
    let router = Router::start();
    let only = Instance::start("only");
    only.does_to_probes(Conduct::Answers(500, ""));
    router.pool("shop", &probing(&json!({ "fall": 1 })), &[&only]);
    wait_probes(&only, 4);
    for number in 0..10 {
        let answer = router.get("shop", &format!("/{number}"));
        assert_eq!(answer.expect(200).text(), "only");
    }
}

#[test]
fn all_that_fail_their_probes_still_serve() {
    let router = Router::start();
    let (one, two) = (Instance::start("one"), Instance::start("two"));
    one.does_to_probes(Conduct::Answers(500, ""));
    two.does_to_probes(Conduct::Answers(500, ""));
    router.pool("shop", &probing(&json!({ "fall": 1 })), &[&one, &two]);
    wait_probes(&one, 4);
    wait_probes(&two, 4);
    for number in 0..20 {
        router.get("shop", &format!("/{number}")).expect(200);
    }
}

#[test]
fn one_prober_probes_whatever_the_threads() {
    let router = Router::with(&["edge.threads=4"]);
    let (one, two) = (Instance::start("one"), Instance::start("two"));
    let began = Instant::now();
    router.pool(
        "shop",
        &probing(&json!({ "interval": "200ms" })),
        &[&one, &two],
    );
    // Traffic on every thread makes no more of them.
    for number in 0..40 {
        router.get("shop", &format!("/{number}")).expect(200);
    }
    wait_probes(&one, 12);
    for instance in [&one, &two] {
        let probes = instance.probes().len();
        let most = began.elapsed().as_secs_f64() / 0.18 + 2.0;
        assert!(probes as f64 <= most, "{probes} in {:?}", began.elapsed());
    }
}

#[test]
fn probes_follow_a_changed_policy() {
    let router = Router::start();
    let one = Instance::start("one");
    router.pool("shop", &json!({}), &[&one]);
    stays(
        Duration::from_millis(300),
        "nobody asked for probes",
        || one.probes().is_empty(),
    );
    let record = |policy: Value| json!({ "domains": ["shop.example"], "policy": policy });
    let put = |policy: Value| {
        router
            .put("/v1/apps/shop?wait=active", &record(policy))
            .expect(200);
    };
    put(probing(&json!({})));
    wait_probes(&one, 3);
    put(probing(&json!({ "path": "/other" })));
    one.wait_for("/other");
    put(json!({}));
    no_more_probes(&one);
}

/// Fails unless connections end, but for one that may be under way.
#[track_caller]
fn no_more_probes(instance: &Instance) {
    let seen = instance.connections();
    stays(Duration::from_millis(600), "no further probe", || {
        instance.connections() <= seen + 1
    });
}

#[test]
fn probes_end_with_their_backend_and_their_app() {
    let router = Router::start();
    let pool = ["one", "two"].map(Instance::start);
    router.pool("shop", &probing(&json!({})), &[&pool[0], &pool[1]]);
    wait_probes(&pool[0], 2);
    wait_probes(&pool[1], 2);
    router
        .delete("/v1/apps/shop/backends/web.1?wait=active")
        .expect(200);
    no_more_probes(&pool[0]);
    wait_probes(&pool[1], 3);
    router.delete("/v1/apps/shop?wait=active").expect(200);
    no_more_probes(&pool[1]);
}

#[test]
fn probes_go_to_the_new_address_of_a_backend() {
    let router = Router::start();
    let (old, new) = (Instance::start("old"), Instance::start("new"));
    router.pool("shop", &probing(&json!({})), &[&old]);
    wait_probes(&old, 2);
    router.place("shop", "web.1", new.address());
    wait_probes(&new, 3);
    no_more_probes(&old);
}

#[test]
fn probes_go_on_when_control_is_gone_and_when_the_edge_is_new() {
    let router = Router::start();
    let (one, two) = (Instance::start("one"), Instance::start("two"));
    router.pool("shop", &probing(&json!({})), &[&one, &two]);
    wait_probes(&one, 2);
    let kill = rustix::process::Signal::KILL;
    crate::harness::processes::signal(router.process("control"), kill);
    wait_probes(&one, 5);
    router.wait_ready();
    crate::harness::processes::signal(router.process("edge"), kill);
    wait_probes(&one, 5);
    router.wait_ready();
    one.does_to_probes(Conduct::Answers(500, ""));
    router.wait_health("shop", "web.1", &["ejected"]);
}

/// `portico limit`, done when every edge goes by it.
#[track_caller]
fn limit(router: &Router, arguments: &[&str]) {
    let output = router.run(&[&["limit", "probes", "--wait"], arguments].concat());
    let wrong = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {wrong}");
}

#[test]
fn a_limit_of_zero_stops_probes_until_it_is_lifted() {
    let router = Router::start();
    let (one, two) = (Instance::start("one"), Instance::start("two"));
    router.pool("shop", &probing(&json!({})), &[&one, &two]);
    wait_probes(&one, 3);
    limit(&router, &["0"]);
    no_more_probes(&one);
    no_more_probes(&two);
    // Those are counted that were put off, and say nothing of their backend.
    eventually("it is counted", || {
        let refused = router.counted("portico_limit_refused_total", "limit=\"probes\"");
        (refused >= 4.0).then_some(())
    });
    assert_eq!(router.health("shop", "web.1"), "healthy");
    // That one that crashed is back is found all the same.
    one.crash();
    eventually("a request finds that it is gone", || {
        router.get("shop", "/").expect(200);
        (router.health("shop", "web.1") == "ejected").then_some(())
    });
    one.restart();
    router.wait_health("shop", "web.1", &["healthy"]);
    no_more_probes(&one);
    // An edge that starts meanwhile makes none either.
    let edge = router.process("edge");
    crate::harness::processes::signal(edge, rustix::process::Signal::KILL);
    eventually("another edge serves", || {
        (router.process("edge") != edge).then_some(())
    });
    router.wait_ready();
    router.get("shop", "/").expect(200);
    no_more_probes(&two);
    limit(&router, &["--delete"]);
    wait_probes(&one, 3);
    wait_probes(&two, 3);
}

#[test]
fn a_limit_bounds_the_rate_of_all_probes_together() {
    let router = Router::with(&["edge.threads=4"]);
    let pool = ["one", "two", "three"].map(Instance::start);
    router.pool(
        "shop",
        &probing(&json!({})),
        &[&pool[0], &pool[1], &pool[2]],
    );
    pool.iter().for_each(|instance| wait_probes(instance, 2));
    limit(&router, &["300/m", "--burst", "1"]);
    let began = Instant::now();
    let probes = || -> usize { pool.iter().map(|one| one.probes().len()).sum() };
    let before = probes();
    eventually("they go on", || {
        let made = probes() - before;
        // Each may have had one under way.
        let most = began.elapsed().as_secs_f64() * 5.0 + 1.0 + pool.len() as f64;
        assert!(made as f64 <= most, "{made} in {:?}", began.elapsed());
        (made >= 20).then_some(())
    });
    // None is left out for good.
    pool.iter().for_each(|instance| wait_probes(instance, 1));
    limit(&router, &["--delete"]);
    let (lifted, before) = (Instant::now(), probes());
    eventually("all are probed as often as before", || {
        let made = (probes() - before) as f64;
        let unlimited = lifted.elapsed().as_secs_f64() * 10.0;
        (made >= 30.0 && made > unlimited).then_some(())
    });
}
