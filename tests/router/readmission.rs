//! Readmission: who is well again is back within seconds, by one trial, and
//! its share rises from little.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::harness::{Conduct, Instance, Load, Router, eventually, get, within};

/// Generous beside the two seconds that are meant: other tests run too.
const SOON: Duration = Duration::from_secs(15);

#[test]
fn a_crashed_backend_is_back_soon_after_its_restart() {
    let router = Router::start();
    let (one, two) = (Instance::start("one"), Instance::start("two"));
    router.pool("shop", &json!({ "slow_start": "0s" }), &[&one, &two]);
    let load = Load::gets(&router, "shop", 50);
    load.wait(20);
    one.crash();
    router.wait_health("shop", "web.1", &["ejected"]);
    let connections = one.connections();
    one.restart();
    let restarted = Instant::now();
    router.wait_health("shop", "web.1", &["healthy", "ramping"]);
    assert!(restarted.elapsed() < SOON, "{:?}", restarted.elapsed());
    // A hiccup at its first answers counts against it for tens of seconds.
    let (before, share) = (one.count(), Duration::from_secs(90));
    within(share, "it serves again", || {
        (one.count() > before + 10).then_some(())
    });
    load.stop_all_well();
    assert!(one.connections() > connections);
    router.wait_event("backend_readmitted", "shop", "web.1");
    assert_eq!(router.backend("shop", "web.1")["ejections"], 1);
}

#[test]
fn a_crashed_backend_comes_back_without_traffic() {
    let router = Router::start();
    let (one, two) = (Instance::start("one"), Instance::start("two"));
    router.pool("shop", &json!({}), &[&one, &two]);
    one.crash();
    let mut client = router.client();
    eventually("a request meets it", || {
        client.send(get("shop", "/"));
        client.answer().expect(200);
        (router.health("shop", "web.1") == "ejected").then_some(())
    });
    let requests = one.count();
    one.restart();
    router.wait_health("shop", "web.1", &["healthy", "ramping"]);
    assert_eq!(one.count(), requests, "a connection was enough to know");
}

#[test]
fn a_readmitted_backends_share_rises_from_little() {
    let router = Router::start();
    let (one, two) = (Instance::start("one"), Instance::start("two"));
    router.pool("shop", &json!({ "slow_start": "2m" }), &[&one, &two]);
    let mut client = router.client();
    one.crash();
    for number in 0..40 {
        client.send(get("shop", &format!("/{number}")));
        client.answer().expect(200);
    }
    one.restart();
    let view = router.wait_health("shop", "web.1", &["ramping"]);
    let share = |view: &serde_json::Value| {
        view["share"]
            .as_f64()
            .unwrap_or_else(|| panic!("no share in {view}"))
    };
    let first = share(&view);
    assert!(first < 0.5, "{view}");
    let (ones, twos) = (one.count(), two.count());
    for number in 0..400 {
        client.send(get("shop", &format!("/ramp/{number}")));
        client.answer().expect(200);
    }
    let (ones, twos) = (one.count() - ones, two.count() - twos);
    assert!(ones * 3 < twos, "{ones} of its own, {twos} of its peer's");
    assert!(ones > 0, "a tenth is not nothing");
    eventually("its share rises", || {
        (share(&router.backend("shop", "web.1")) > first).then_some(())
    });
}

#[test]
fn slow_start_of_nothing_is_none() {
    let router = Router::start();
    let (one, two) = (Instance::start("one"), Instance::start("two"));
    router.pool("shop", &json!({ "slow_start": "0s" }), &[&one, &two]);
    one.crash();
    let mut client = router.client();
    for number in 0..40 {
        client.send(get("shop", &format!("/{number}")));
        client.answer().expect(200);
    }
    one.restart();
    router.wait_health("shop", "web.1", &["healthy"]);
}

#[test]
fn a_new_backend_starts_slowly() {
    let router = Router::start();
    let (one, two) = (Instance::start("one"), Instance::start("two"));
    router.pool("shop", &json!({ "slow_start": "2m" }), &[&one]);
    let mut client = router.client();
    for number in 0..20 {
        client.send(get("shop", &format!("/{number}")));
        client.answer().expect(200);
    }
    router.place("shop", "web.2", two.address());
    for number in 0..300 {
        client.send(get("shop", &format!("/both/{number}")));
        client.answer().expect(200);
    }
    let new = two.count();
    assert!(new > 0 && new < 100, "{new} of 300 for the new one");
}

#[test]
fn one_trial_at_a_time_meets_who_still_fails() {
    let router = Router::start();
    let (bad, good) = (Instance::start("bad"), Instance::start("good"));
    router.pool("shop", &json!({ "slow_start": "0s" }), &[&bad, &good]);
    bad.does(Conduct::Answers(503, ""));
    let load = Load::gets(&router, "shop", 100);
    router.wait_health("shop", "web.1", &["ejected", "trial"]);
    let (ejected, before) = (Instant::now(), bad.count());
    // Trials every half second at the most often: a few in this time, where its
    // share of the traffic would be a hundred.
    load.wait(200);
    let (trials, time) = (bad.count() - before, ejected.elapsed());
    let most = time.as_secs_f64() / 0.45 + 2.0;
    assert!((trials as f64) <= most, "{trials} trials in {time:?}");
    bad.does(Conduct::Well);
    let mended = Instant::now();
    router.wait_health("shop", "web.1", &["healthy", "ramping"]);
    assert!(mended.elapsed() < SOON, "{:?}", mended.elapsed());
    load.stop_all_well();
    router.wait_event("backend_readmitted", "shop", "web.1");
}

#[test]
fn a_trial_that_fails_costs_no_get() {
    let router = Router::start();
    let (bad, good) = (Instance::start("bad"), Instance::start("good"));
    router.pool("shop", &json!({}), &[&bad, &good]);
    for conduct in [Conduct::Resets, Conduct::Answers(502, ""), Conduct::Silent] {
        bad.does(conduct.clone());
        let load = Load::gets(&router, "shop", 50);
        if conduct != Conduct::Silent {
            // Who is silent may get no request for a while without being out.
            router.wait_health("shop", "web.1", &["ejected", "trial"]);
        }
        load.wait(80);
        load.stop_all_well();
        bad.does(Conduct::Well);
        eventually("traffic brings it back", || {
            router.get("shop", "/back").expect(200);
            let health = router.health("shop", "web.1");
            matches!(health.as_str(), "healthy" | "ramping").then_some(())
        });
    }
}

#[test]
fn repeated_ejections_keep_it_out_longer() {
    let router = Router::start();
    let (bad, good) = (Instance::start("bad"), Instance::start("good"));
    router.pool("shop", &json!({ "slow_start": "0s" }), &[&bad, &good]);
    let load = Load::gets(&router, "shop", 100);
    let mut holds = Vec::new();
    for _ in 0..4 {
        bad.does(Conduct::Resets);
        router.wait_health("shop", "web.1", &["ejected", "trial"]);
        let out = Instant::now();
        bad.does(Conduct::Well);
        router.wait_health("shop", "web.1", &["healthy", "ramping"]);
        holds.push(out.elapsed());
    }
    load.stop_all_well();
    // 0.5, 1, 2 and 4 s, more or less.
    assert!(holds[3] > holds[0] * 2, "{holds:?}");
    assert_eq!(router.backend("shop", "web.1")["ejections"], 4);
}

#[test]
fn all_down_then_one_back_serves_at_once() {
    let router = Router::start();
    let pool = ["one", "two", "three", "four"].map(Instance::start);
    let policy = json!({ "boot_wait": "0s" });
    router.pool("shop", &policy, &[&pool[0], &pool[1], &pool[2], &pool[3]]);
    router.get("shop", "/").expect(200);
    for instance in &pool {
        instance.crash();
    }
    for number in 0..20 {
        router.get("shop", &format!("/down/{number}")).expect(503);
    }
    pool[2].restart();
    let restarted = Instant::now();
    eventually("the first success", || {
        (router.get("shop", "/up").status == 200).then_some(())
    });
    assert!(restarted.elapsed() < SOON, "{:?}", restarted.elapsed());
}

#[test]
fn an_operators_readmission_forgets_an_ejection() {
    let router = Router::start();
    let (bad, good) = (Instance::start("bad"), Instance::start("good"));
    router.pool("shop", &json!({ "slow_start": "0s" }), &[&bad, &good]);
    bad.does(Conduct::Resets);
    let mut client = router.client();
    eventually("it is ejected", || {
        client.send(get("shop", "/"));
        client.answer().expect(200);
        (router.health("shop", "web.1") == "ejected").then_some(())
    });
    bad.does(Conduct::Well);
    // Without traffic no trial takes place.
    let answer = router.order("/apps/shop/backends/web.1/readmit");
    assert_eq!(answer.status, 200, "{answer:?}");
    router.wait_health("shop", "web.1", &["healthy"]);
}

#[test]
fn an_operators_ejection_holds_until_readmission() {
    let router = Router::start();
    let (one, two) = (Instance::start("one"), Instance::start("two"));
    let policy = json!({ "slow_start": "0s", "boot_wait": "0s" });
    router.pool("shop", &policy, &[&one, &two]);
    let answer = router.order("/apps/shop/backends/web.1/eject");
    assert_eq!(answer.status, 200, "{answer:?}");
    let mut client = router.client();
    let mut served = |paths: &str, count: usize| {
        let before = one.count();
        for number in 0..count {
            client.send(get("shop", &format!("/{paths}/{number}")));
            client.answer().expect(200);
        }
        one.count() - before
    };
    eventually("it gets nothing more", || {
        (served("settle", 20) == 0).then_some(())
    });
    assert_eq!(served("out", 100), 0);
    // Not even where it is all there is.
    two.crash();
    let mut alone = router.client();
    alone.send(get("shop", "/alone"));
    let refused = alone.answer();
    assert_eq!(refused.status, 503, "{refused:?}");
    two.restart();
    let answer = router.order("/apps/shop/backends/web.1/readmit");
    assert_eq!(answer.status, 200, "{answer:?}");
    eventually("it serves again", || (served("in", 10) > 0).then_some(()));
}
