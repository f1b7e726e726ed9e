//! The registration API: backends, leases, heartbeats, draining.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::api_apps::{problem, revision};
use crate::harness::{Backend, Router, eventually, pause};

fn place(router: &Router, id: &str, backend: &Backend, extra: serde_json::Value) -> u16 {
    let mut record = extra;
    record["address"] = json!(backend.address().to_string());
    let answer = router.put(&format!("/v1/apps/shop/backends/{id}?wait=active"), &record);
    revision(&answer);
    answer.status
}

#[test]
fn a_backend_is_registered_renewed_and_removed() {
    let router = Router::start();
    let backend = Backend::named("here");
    router.serve("shop", &[]);
    assert_eq!(
        place(
            &router,
            "web.1",
            &backend,
            json!({ "weight": 50, "release": "v1" })
        ),
        201
    );
    assert_eq!(
        place(
            &router,
            "web.1",
            &backend,
            json!({ "weight": 50, "release": "v1" })
        ),
        200
    );
    let app = router.read("/v1/apps/shop").expect(200).json();
    let registered = &app["backends"]["web.1"];
    assert_eq!(
        registered["address"],
        backend.address().to_string(),
        "{app}"
    );
    assert_eq!(registered["weight"], 50, "{app}");
    assert_eq!(registered["release"], "v1", "{app}");
    router.get("shop", "/").expect(200);
    router
        .delete("/v1/apps/shop/backends/web.1?wait=active")
        .expect(200);
    router.get("shop", "/").refused(503, "H14");
    problem(&router.delete("/v1/apps/shop/backends/web.1"), 404);
}

#[test]
fn a_backend_of_no_app_is_404() {
    let router = Router::start();
    let record = json!({ "address": "127.0.0.1:9" });
    problem(&router.put("/v1/apps/nobody/backends/web.1", &record), 404);
}

#[test]
fn a_heartbeat_renews_and_tells_the_unknown_to_register() {
    let router = Router::start();
    let backend = Backend::named("here");
    router.serve("shop", &[]);
    place(&router, "web.1", &backend, json!({ "lease_seconds": 30 }));
    router
        .post("/v1/apps/shop/backends/web.1/heartbeat", &json!({}))
        .expect(204);
    problem(
        &router.post("/v1/apps/shop/backends/web.2/heartbeat", &json!({})),
        404,
    );
    problem(
        &router.post("/v1/apps/nobody/backends/web.1/heartbeat", &json!({})),
        404,
    );
}

#[test]
fn a_heartbeat_needs_no_body() {
    let router = Router::start();
    let backend = Backend::named("here");
    router.serve("shop", &[]);
    place(&router, "web.1", &backend, json!({ "lease_seconds": 30 }));
    router
        .call("POST", "/v1/apps/shop/backends/web.1/heartbeat", &[], None)
        .expect(204);
}

#[test]
fn many_heartbeats_at_once_answer_those_unknown() {
    let router = Router::start();
    let backend = Backend::named("here");
    router.serve("shop", &[]);
    place(&router, "web.1", &backend, json!({ "lease_seconds": 30 }));
    let beats = json!({ "backends": [["shop", "web.1"], ["shop", "web.9"], ["nobody", "web.1"]] });
    let answer = router.post("/v1/heartbeats", &beats).expect(200).json();
    assert_eq!(
        answer["unknown"],
        json!([["shop", "web.9"], ["nobody", "web.1"]]),
        "{answer}"
    );
}

#[test]
fn an_expired_lease_makes_a_backend_suspect_and_a_heartbeat_readmits_it() {
    let router = Router::start();
    let (leased, steady) = (Backend::named("leased"), Backend::named("steady"));
    router.serve("shop", &[]);
    // Enough leases elsewhere that one expiry is no mass expiry.
    for number in 0..10 {
        place(
            &router,
            &format!("other.{number}"),
            &steady,
            json!({ "lease_seconds": 3600 }),
        );
    }
    place(&router, "web.1", &leased, json!({ "lease_seconds": 1 }));
    eventually("only the others are used", || {
        let before = leased.requests().len();
        for _ in 0..40 {
            router.get("shop", "/").expect(200);
        }
        (leased.requests().len() == before).then_some(())
    });
    let before = leased.requests().len();
    // A second may be over before it has one in eleven requests.
    eventually("it is used again", || {
        router
            .post("/v1/apps/shop/backends/web.1/heartbeat", &json!({}))
            .expect(204);
        router.get("shop", "/").expect(200);
        (leased.requests().len() > before).then_some(())
    });
}

#[test]
fn a_suspect_backend_is_used_if_nothing_better_is_left() {
    let router = Router::start();
    let backend = Backend::named("alone");
    router.serve("shop", &[]);
    place(&router, "web.1", &backend, json!({ "lease_seconds": 1 }));
    let until = Instant::now() + Duration::from_secs(3);
    while Instant::now() < until {
        router.get("shop", "/").expect(200);
        pause(Duration::from_millis(50));
    }
    eventually("an event or the app's view tells of it", || {
        let app = router.read("/v1/apps/shop").expect(200).text();
        app.contains("suspect").then_some(())
    });
}

#[test]
fn heartbeats_keep_a_short_lease_alive() {
    let router = Router::start();
    let (leased, steady) = (Backend::named("leased"), Backend::named("steady"));
    router.serve("shop", &[]);
    place(&router, "steady", &steady, json!({}));
    place(&router, "web.1", &leased, json!({ "lease_seconds": 4 }));
    let until = Instant::now() + Duration::from_secs(9);
    while Instant::now() < until {
        router
            .post("/v1/apps/shop/backends/web.1/heartbeat", &json!({}))
            .expect(204);
        pause(Duration::from_millis(300));
    }
    let before = leased.requests().len();
    for _ in 0..40 {
        router.get("shop", "/").expect(200);
    }
    assert!(
        leased.requests().len() > before,
        "it must not have become suspect"
    );
}

#[test]
fn without_a_lease_a_backend_stays() {
    let router = Router::start();
    let backend = Backend::named("stays");
    router.serve("shop", &[]);
    place(&router, "web.1", &backend, json!({}));
    let app = router.read("/v1/apps/shop").expect(200).json();
    let lease = &app["backends"]["web.1"]["lease_seconds"];
    assert!(lease.is_null() || *lease == 0, "{app}");
    problem(
        &router.post("/v1/apps/shop/backends/web.9/heartbeat", &json!({})),
        404,
    );
}

#[test]
fn a_draining_backend_gets_nothing_new_and_finishes_what_it_has() {
    let router = Router::start();
    let (release, wait) = std::sync::mpsc::sync_channel::<()>(10);
    let wait = std::sync::Mutex::new(wait);
    let leaving = Backend::script(move |mut conn| {
        while conn.request().is_some() {
            let _ = wait.lock().expect("no script panics").recv();
            conn.write(crate::harness::answer_ok("leaving"));
        }
    });
    router.serve("shop", &[&leaving]);
    let mut client = router.client();
    client.send("GET /last HTTP/1.1\r\nHost: shop.example\r\n\r\n");
    leaving.request();
    let staying = Backend::named("staying");
    place(&router, "web.2", &staying, json!({}));
    router
        .delete("/v1/apps/shop/backends/web.1?drain=30s&wait=active")
        .expect(200);
    for _ in 0..30 {
        assert_eq!(router.get("shop", "/").expect(200).text(), "staying");
    }
    release.send(()).expect("the backend must be there");
    assert_eq!(client.answer().expect(200).text(), "leaving");
    eventually("it is gone once its last is answered", || {
        let app = router.read("/v1/apps/shop").expect(200).json();
        app["backends"]["web.1"].is_null().then_some(())
    });
    assert_eq!(leaving.requests().len(), 1);
}

#[test]
fn a_drain_ends_when_its_time_is_up() {
    let router = Router::start();
    let stuck = Backend::script(|mut conn| {
        if conn.request().is_some() {
            conn.until_closed();
        }
    });
    router.serve("shop", &[&stuck]);
    let mut client = router.client();
    client.send("GET /stuck HTTP/1.1\r\nHost: shop.example\r\n\r\n");
    stuck.request();
    router
        .delete("/v1/apps/shop/backends/web.1?drain=1s")
        .expect(200);
    eventually("it is gone when the time is up", || {
        let app = router.read("/v1/apps/shop").expect(200).json();
        app["backends"]["web.1"].is_null().then_some(())
    });
}

#[test]
fn addresses_are_an_ip_and_a_port() {
    let router = Router::start();
    router.serve("shop", &[]);
    for good in ["127.0.0.1:9001", "[::1]:9001", "10.1.2.3:1"] {
        let record = json!({ "address": good });
        let path = format!("/v1/apps/shop/backends/b{}", good.len());
        let status = router.put(&path, &record).status;
        assert!(matches!(status, 200 | 201), "{good}: {status}");
    }
    for bad in [
        "localhost:80",
        "127.0.0.1",
        "127.0.0.1:0",
        "127.0.0.1:99999",
        ":80",
        "",
        "::1:80",
        "http://127.0.0.1:80",
        "127.0.0.1:80/x",
    ] {
        let answer = router.put("/v1/apps/shop/backends/bad", &json!({ "address": bad }));
        let problem = problem(&answer, 400);
        assert!(problem.to_string().contains("address"), "{bad}: {problem}");
    }
}

#[test]
fn a_change_is_seen_whole_or_not_at_all() {
    // Two backends are swapped by importing both at once, over and over: a
    // request must never meet an app with none.
    let router = Router::start();
    let (one, two) = (Backend::named("one"), Backend::named("two"));
    router.serve("shop", &[&one]);
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let (address, stopping) = (router.http(), stop.clone());
    let traffic = std::thread::spawn(move || {
        let mut client = crate::harness::Client::connect(address);
        while !stopping.load(std::sync::atomic::Ordering::SeqCst) {
            client.send("GET / HTTP/1.1\r\nHost: shop.example\r\n\r\n");
            client.answer().expect(200);
        }
    });
    for round in 0..60 {
        let backend = if round % 2 == 0 { &two } else { &one };
        let record = json!({ "address": backend.address().to_string() });
        router
            .put("/v1/apps/shop/backends/web.1", &record)
            .expect(200);
    }
    stop.store(true, std::sync::atomic::Ordering::SeqCst);
    traffic.join().expect("no request may fail");
}
