//! Requests that wait for room with backends that go down, or away: they get
//! what one that just came would get then.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::{Client, Conduct, Instance, Router, eventually, get, soon};

/// A router with one backend that has all it may, and clients that wait for room,
/// the first of them is the one that it has.
fn waiting(policy: &Value, clients: usize) -> (Router, Instance, Client, Vec<Client>) {
    let router = Router::start();
    let only = Instance::start("only");
    let mut policy = policy.clone();
    policy["max_concurrency"] = json!(1);
    router.pool("shop", &policy, &[&only]);
    router.get("shop", "/before").expect(200);
    only.does(Conduct::Silent);
    let ask = |path: &str| {
        let mut client = router.client();
        client.send(get("shop", path));
        client
    };
    let busy = ask("/busy");
    only.wait_for("/busy");
    let waiting: Vec<Client> = (0..clients).map(|n| ask(&format!("/{n}"))).collect();
    eventually("they wait", || {
        let queued = router.counted("portico_requests_queued", "");
        (queued == clients as f64).then_some(())
    });
    (router, only, busy, waiting)
}

#[test]
fn who_waits_for_room_is_held_when_all_go_down() {
    // Longer than anyone waits for room.
    let (router, only, mut busy, mut waiting) = waiting(&json!({ "boot_wait": "30s" }), 3);
    let began = Instant::now();
    only.crash();
    only.does(Conduct::Well);
    router.wait_health("shop", "web.1", &["ejected"]);
    while began.elapsed() < Duration::from_secs(7) {
        for client in &mut waiting {
            assert!(client.silent(Duration::from_millis(50)), "it must be held");
        }
    }
    only.restart();
    // What it had may be repeated, and was held, too.
    for client in waiting.iter_mut().chain([&mut busy]) {
        assert_eq!(client.answer().expect(200).text(), "only");
    }
    for number in 0..3 {
        assert_eq!(only.executed(&format!("/{number}")), 1);
    }
    eventually("they count as held", || {
        let served = router.counted("portico_boot_waits_total", "outcome=\"served\"");
        (served >= 3.0).then_some(())
    });
    router.wait_event("app_wanted", "shop", "");
}

#[test]
fn who_waits_for_room_is_not_held_where_nobody_is() {
    // Sooner than anyone would have waited for room.
    soon(Duration::from_secs(4), || {
        let (_router, only, _busy, mut waiting) = waiting(&json!({ "boot_wait": "0s" }), 3);
        let began = Instant::now();
        only.crash();
        for client in &mut waiting {
            let answer = client.answer().expect(503);
            let code = answer.code();
            assert!(matches!(code.as_deref(), Some("H21" | "H13")), "{code:?}");
        }
        began.elapsed()
    });
}

#[test]
fn who_waits_for_room_is_told_at_once_that_no_backend_is_left() {
    soon(Duration::from_secs(4), || {
        let (router, _only, _busy, mut waiting) = waiting(&json!({}), 3);
        let began = Instant::now();
        router
            .delete("/v1/apps/shop/backends/web.1?wait=active")
            .expect(200);
        for client in &mut waiting {
            client.answer().refused(503, "H14");
        }
        let took = began.elapsed();
        router.wait_event("app_wanted", "shop", "");
        eventually("they count as such", || {
            let gone = router.counted("portico_queue_waits_total", "outcome=\"gone\"");
            (gone == 3.0).then_some(())
        });
        took
    });
}

#[test]
fn who_is_held_is_told_at_once_that_the_app_is_gone() {
    let (router, only, _busy, mut waiting) = waiting(&json!({ "boot_wait": "60s" }), 3);
    only.crash();
    router.wait_event("app_wanted", "shop", "");
    router.delete("/v1/apps/shop?wait=active").expect(200);
    for client in &mut waiting {
        client.answer().refused(503, "H14");
    }
    // Some may have been waiting for room still.
    let gone = |family: &str| router.counted(family, "outcome=\"gone\"");
    eventually("they count as such", || {
        let held = gone("portico_boot_waits_total");
        let both = held + gone("portico_queue_waits_total");
        (held >= 1.0 && both >= 3.0).then_some(())
    });
    let late = router.counted("portico_boot_waits_total", "outcome=\"timeout\"");
    assert_eq!(late, 0.0);
}

#[test]
fn who_waits_for_room_waits_for_the_next_first_backend() {
    let (router, only, _busy, mut waiting) = waiting(&json!({ "boot_wait": "30s" }), 3);
    router
        .delete("/v1/apps/shop/backends/web.1?wait=active")
        .expect(200);
    router.wait_event("app_wanted", "shop", "");
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(6) {
        for client in &mut waiting {
            assert!(client.silent(Duration::from_millis(50)), "it must be held");
        }
    }
    only.does(Conduct::Well);
    router.place("shop", "web.2", only.address());
    for client in &mut waiting {
        assert_eq!(client.answer().expect(200).text(), "only");
    }
}

#[test]
fn who_waits_for_room_goes_elsewhere_when_its_backend_is_replaced() {
    let (router, _only, _busy, mut waiting) = waiting(&json!({}), 3);
    let other = Instance::start("other");
    router.place("shop", "web.1", other.address());
    for client in &mut waiting {
        assert_eq!(client.answer().expect(200).text(), "other");
    }
}
