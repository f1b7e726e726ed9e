//! Sudden truth: who moves, leaves or drains gets no request from the moment
//! the API says so, whatever was kept, queued or under way.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::harness::load::Sent;
use crate::harness::{Client, Conduct, Instance, Load, Router, eventually, get, post};

/// Fails if a request that began between these moments was executed there.
#[track_caller]
fn nothing_between(instance: &Instance, from: Instant, to: Instant, sent: &[Sent]) {
    let within: Vec<&Sent> = sent
        .iter()
        .filter(|sent| sent.at > from && sent.at < to)
        .collect();
    assert!(!within.is_empty(), "nothing was sent meanwhile");
    for sent in within {
        assert_eq!(instance.executed(&sent.path), 0, "{sent:?}");
    }
}

#[test]
fn a_moved_backend_is_not_asked_at_its_old_address() {
    let router = Router::start();
    let (old, new) = (Instance::start("old"), Instance::start("new"));
    router.pool("shop", &json!({}), &[&old]);
    let load = Load::gets(&router, "shop", 200);
    load.wait(100);
    router.place("shop", "web.1", new.address());
    let moved = Instant::now();
    load.wait(100);
    // What begins while the way back is being asked for may meet either.
    let asked = Instant::now();
    router.place("shop", "web.1", old.address());
    let back = Instant::now();
    load.wait(100);
    let sent = load.stop_all_well();
    nothing_between(&old, moved, asked, &sent);
    nothing_between(&new, back, Instant::now(), &sent);
}

#[test]
fn a_removed_backend_is_not_asked_again() {
    let router = Router::start();
    let (leaves, stays) = (Instance::start("leaves"), Instance::start("stays"));
    router.pool("shop", &json!({}), &[&leaves, &stays]);
    let load = Load::gets(&router, "shop", 200);
    load.wait(100);
    router
        .delete("/v1/apps/shop/backends/web.1?wait=active")
        .expect(200);
    let removed = Instant::now();
    load.wait(100);
    let sent = load.stop_all_well();
    nothing_between(&leaves, removed, Instant::now(), &sent);
}

#[test]
fn a_removed_app_is_not_found_at_once() {
    let router = Router::start();
    let one = Instance::start("one");
    router.pool("shop", &json!({}), &[&one]);
    let mut client = router.client();
    client.send(get("shop", "/"));
    client.answer().expect(200);
    router.delete("/v1/apps/shop?wait=active").expect(200);
    client.send(get("shop", "/after"));
    client.answer().refused(404, "H30");
    assert_eq!(one.executed("/after"), 0);
}

#[test]
fn a_request_that_waits_in_the_queue_goes_where_the_backend_went() {
    let router = Router::start();
    let (old, new) = (Instance::start("old"), Instance::start("new"));
    router.pool("shop", &json!({ "max_concurrency": 1 }), &[&old]);
    old.does(Conduct::Silent);
    let (mut first, mut queued) = (router.client(), router.client());
    first.send(post("shop", "/first"));
    old.wait_for("/first");
    queued.send(post("shop", "/queued"));
    assert!(queued.silent(Duration::from_millis(100)), "it must wait");
    router.place("shop", "web.1", new.address());
    assert_eq!(queued.answer().expect(200).text(), "new");
    assert_eq!(old.executed("/queued"), 0);
    // What was in flight is finished where it was.
    old.does(Conduct::Well);
    assert_eq!(first.answer().expect(200).text(), "old");
}

#[test]
fn a_request_that_waits_in_the_queue_does_not_go_to_a_backend_that_left() {
    let router = Router::start();
    let (leaves, comes) = (Instance::start("leaves"), Instance::start("comes"));
    router.pool("shop", &json!({ "max_concurrency": 1 }), &[&leaves]);
    leaves.does(Conduct::Silent);
    let (mut first, mut queued) = (router.client(), router.client());
    first.send(post("shop", "/first"));
    leaves.wait_for("/first");
    queued.send(post("shop", "/queued"));
    assert!(queued.silent(Duration::from_millis(100)), "it must wait");
    router.place("shop", "web.2", comes.address());
    assert_eq!(queued.answer().expect(200).text(), "comes");
    let mut next = router.client();
    comes.does(Conduct::Silent);
    next.send(post("shop", "/keeps/comes/busy"));
    comes.wait_for("/keeps/comes/busy");
    queued.send(post("shop", "/queued/again"));
    assert!(queued.silent(Duration::from_millis(100)), "it must wait");
    router
        .delete("/v1/apps/shop/backends/web.1?wait=active")
        .expect(200);
    leaves.does(Conduct::Well);
    first.answer().expect(200);
    comes.does(Conduct::Well);
    assert_eq!(queued.answer().expect(200).text(), "comes");
    assert_eq!(leaves.executed("/queued/again"), 0);
}

#[test]
fn a_request_that_waits_for_a_boot_goes_where_the_backend_went() {
    let router = Router::start();
    let (old, new) = (Instance::start("old"), Instance::start("new"));
    router.pool("shop", &json!({ "boot_wait": "30s" }), &[&old]);
    router.get("shop", "/before").expect(200);
    old.crash();
    let mut held = router.client();
    held.send(get("shop", "/held"));
    assert!(held.silent(Duration::from_millis(200)), "it must be held");
    router.place("shop", "web.1", new.address());
    let moved = Instant::now();
    assert_eq!(held.answer().expect(200).text(), "new");
    assert!(
        moved.elapsed() < Duration::from_secs(10),
        "{:?}",
        moved.elapsed()
    );
}

#[test]
fn a_retry_goes_where_the_backend_went() {
    let router = Router::start();
    let (old, new) = (Instance::start("old"), Instance::start("new"));
    router.pool("shop", &json!({ "hedge": "off" }), &[&old]);
    old.does(Conduct::Silent);
    let mut client = router.client();
    client.send(get("shop", "/moving"));
    old.wait_for("/moving");
    router.place("shop", "web.1", new.address());
    old.crash();
    assert_eq!(client.answer().expect(200).text(), "new");
}

#[test]
fn a_moved_backend_brings_no_ejection_with_it() {
    let router = Router::start();
    let (old, new, peer) = (
        Instance::start("old"),
        Instance::start("new"),
        Instance::start("peer"),
    );
    let policy = json!({ "slow_start": "0s" });
    router.pool("shop", &policy, &[&old, &peer]);
    old.does(Conduct::Resets);
    let mut client = router.client();
    eventually("it is ejected", || {
        client.send(get("shop", "/"));
        client.answer().expect(200);
        (router.health("shop", "web.1") == "ejected").then_some(())
    });
    router.place("shop", "web.1", new.address());
    assert_eq!(router.health("shop", "web.1"), "healthy");
    let asked = old.count();
    for number in 0..60 {
        client.send(get("shop", &format!("/{number}")));
        client.answer().expect(200);
    }
    assert!(new.count() > 0, "it is asked at its new address");
    assert_eq!(old.count(), asked, "not even a trial");
}

#[test]
fn a_crashed_backend_that_left_is_not_probed_on() {
    let router = Router::start();
    let (gone, peer) = (Instance::start("gone"), Instance::start("peer"));
    router.pool("shop", &json!({}), &[&gone, &peer]);
    gone.crash();
    let mut client = router.client();
    eventually("it is ejected", || {
        client.send(get("shop", "/"));
        client.answer().expect(200);
        (router.health("shop", "web.1") == "ejected").then_some(())
    });
    router
        .delete("/v1/apps/shop/backends/web.1?wait=active")
        .expect(200);
    gone.restart();
    let before = gone.connections();
    crate::harness::stays(
        Duration::from_millis(2_500),
        "nobody comes back to it",
        || gone.connections() <= before + 1,
    );
}

#[test]
fn a_drained_backend_finishes_what_it_has_and_gets_nothing_new() {
    for by_operator in [false, true] {
        let router = Router::start();
        let (leaves, stays) = (Instance::start("leaves"), Instance::start("stays"));
        router.pool("shop", &json!({ "hedge": "off" }), &[&leaves, &stays]);
        leaves.does(Conduct::Silent);
        let mut under_way: Vec<Client> = Vec::new();
        for number in 0..20 {
            let path = format!("/under-way/{number}");
            let mut client = router.client();
            client.send(post("shop", &path));
            eventually("somebody reads it", || {
                (leaves.executed(&path) + stays.executed(&path) > 0).then_some(())
            });
            under_way.push(client);
        }
        let held = leaves.count();
        assert!(held > 0, "some must be under way there");
        if by_operator {
            let answer = router.order("/apps/shop/backends/web.1/drain?drain=60s");
            assert_eq!(answer.status, 200, "{answer:?}");
            eventually("it drains", || {
                let view = router.backend("shop", "web.1");
                (view["standing"] == "draining").then_some(())
            });
            // The order does not wait for the edges; the next change does.
            router
                .put("/v1/apps/other?wait=active", &json!({}))
                .expect(201);
        } else {
            router
                .delete("/v1/apps/shop/backends/web.1?drain=60s&wait=active")
                .expect(200);
        }
        for number in 0..60 {
            let path = format!("/new/{number}");
            assert_eq!(router.get("shop", &path).expect(200).text(), "stays");
        }
        assert_eq!(leaves.count(), held);
        leaves.does(Conduct::Well);
        for mut client in under_way {
            client.answer().expect(200);
        }
        eventually("it is gone once it is done", || {
            (router.read("/v1/apps/shop/backends/web.1").status == 404).then_some(())
        });
    }
}

#[test]
fn a_rolling_deploy_that_drains_loses_nothing() {
    let router = Router::start();
    let olds = ["one", "two", "three"].map(Instance::start);
    router.pool("shop", &json!({}), &[&olds[0], &olds[1], &olds[2]]);
    let gets = Load::gets(&router, "shop", 60);
    let posts = Load::posts(&router, "shop", 40);
    gets.wait(30);
    let mut news = Vec::new();
    for (index, old) in olds.iter().enumerate() {
        let new = Instance::start("new");
        router.place("shop", &format!("new.{index}"), new.address());
        news.push(new);
        let id = format!("web.{}", index + 1);
        let path = format!("/v1/apps/shop/backends/{id}?drain=20s&wait=active");
        router.delete(&path).expect(200);
        eventually("it is gone once it is done", || {
            let answer = router.read(&format!("/v1/apps/shop/backends/{id}"));
            (answer.status == 404).then_some(())
        });
        old.crash();
        gets.wait(20);
    }
    gets.stop_all_well();
    let sent = posts.stop_all_well();
    for sent in &sent {
        let everyone = olds.iter().chain(&news);
        let times: usize = everyone.map(|it| it.executed(&sent.path)).sum();
        assert_eq!(times, 1, "{sent:?}");
    }
}
