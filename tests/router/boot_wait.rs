//! Requests that find every backend down: held while it may come back, failed
//! when it does not.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::harness::router::request;
use crate::harness::{Client, Conduct, Instance, Load, Router, eventually, get, post, soon};

#[test]
fn requests_wait_for_a_pool_of_one_to_restart() {
    let router = Router::start();
    let only = Instance::start("only");
    // Far more than a busy machine needs.
    router.pool("shop", &json!({ "boot_wait": "20s" }), &[&only]);
    router.get("shop", "/before").expect(200);
    only.crash();
    let mut held: Vec<(String, Client)> = Vec::new();
    for number in 0..6 {
        let path = format!("/held/{number}");
        let mut client = router.client();
        client.send(match number % 2 {
            0 => get("shop", &path),
            _ => post("shop", &path),
        });
        held.push((path, client));
    }
    for (_, client) in &mut held {
        assert!(client.silent(Duration::from_millis(60)), "it must be held");
    }
    only.restart();
    let restarted = Instant::now();
    for (path, client) in &mut held {
        assert_eq!(client.answer().expect(200).text(), "only", "{path}");
        assert_eq!(only.executed(path), 1, "{path}");
    }
    assert!(
        restarted.elapsed() < Duration::from_secs(10),
        "{:?}",
        restarted.elapsed()
    );
    let line = router.logged("/held/1");
    assert_eq!(line["status"], "200", "{line:?}");
}

#[test]
fn by_default_a_restart_within_five_seconds_is_waited_for() {
    let router = Router::start();
    let only = Instance::start("only");
    router.pool("shop", &json!({}), &[&only]);
    router.get("shop", "/before").expect(200);
    only.crash();
    let mut client = router.client();
    client.send(get("shop", "/held"));
    assert!(client.silent(Duration::from_millis(500)), "it must be held");
    only.restart();
    assert_eq!(client.answer().expect(200).text(), "only");
}

#[test]
fn a_pool_of_one_that_crashes_under_load_loses_only_what_was_in_flight() {
    let router = Router::start();
    let only = Instance::start("only");
    router.pool("shop", &json!({ "boot_wait": "20s" }), &[&only]);
    let load = Load::gets(&router, "shop", 40);
    for _ in 0..2 {
        load.wait(30);
        only.crash();
        // Nothing is answered meanwhile; the next come due.
        crate::harness::pause(Duration::from_millis(400));
        only.restart();
    }
    load.wait(30);
    let sent = load.stop();
    let failed: Vec<_> = sent.iter().filter(|sent| !sent.is(200)).collect();
    assert!(
        failed.len() <= 4,
        "{} failed: {:?}",
        failed.len(),
        failed[0]
    );
    for sent in failed {
        let answer = sent.result.as_ref().expect("an answer must come");
        assert_eq!(answer.code().as_deref(), Some("H13"), "{sent:?}");
    }
}

#[test]
fn the_wait_ends_with_the_code_of_what_was_met() {
    soon(Duration::from_secs(4), || {
        let router = Router::start();
        let only = Instance::start("only");
        router.pool("shop", &json!({ "boot_wait": "600ms" }), &[&only]);
        router.get("shop", "/before").expect(200);
        only.crash();
        let began = Instant::now();
        let answer = router.get("shop", "/in-vain").expect(503);
        let took = began.elapsed();
        assert!(took >= Duration::from_millis(500), "{took:?}");
        let code = answer.code().expect("the router's own");
        assert!(matches!(code.as_str(), "H10" | "H19" | "H21"), "{answer:?}");
        assert!(
            answer.header("retry-after").is_some(),
            "waiting helps: {answer:?}"
        );
        let line = router.logged_code("/in-vain", &code);
        assert_eq!(line["fault"], "app");
        took
    });
}

#[test]
fn who_never_served_is_not_waited_for() {
    soon(Duration::from_secs(3), || {
        let router = Router::start();
        let never = Instance::down("never");
        router.pool("shop", &json!({}), &[&never]);
        let began = Instant::now();
        router.get("shop", "/at-once").refused(503, "H21");
        began.elapsed()
    });
}

#[test]
fn who_never_served_is_waited_for_if_the_policy_says_so() {
    let router = Router::start();
    let booting = Instance::down("booting");
    router.pool("shop", &json!({ "boot_wait": "20s" }), &[&booting]);
    let mut client = router.client();
    client.send(get("shop", "/early"));
    assert!(client.silent(Duration::from_millis(300)), "it must be held");
    booting.restart();
    assert_eq!(client.answer().expect(200).text(), "booting");
}

#[test]
fn a_wait_of_nothing_is_none() {
    soon(Duration::from_secs(3), || {
        let router = Router::start();
        let only = Instance::start("only");
        router.pool("shop", &json!({ "boot_wait": "0s" }), &[&only]);
        router.get("shop", "/before").expect(200);
        only.crash();
        let began = Instant::now();
        router.get("shop", "/at-once").expect(503);
        began.elapsed()
    });
}

#[test]
fn a_client_that_leaves_while_held_is_let_go() {
    let router = Router::start();
    let only = Instance::start("only");
    router.pool("shop", &json!({ "boot_wait": "30s" }), &[&only]);
    router.get("shop", "/before").expect(200);
    only.crash();
    let mut client = router.client();
    client.send(get("shop", "/left"));
    assert!(client.silent(Duration::from_millis(200)), "it must be held");
    drop(client);
    let line = router.logged_code("/left", "H27");
    assert_eq!(line["status"], "499");
    only.restart();
    router.get("shop", "/after").expect(200);
    assert_eq!(only.executed("/left"), 0);
}

#[test]
fn a_held_request_with_a_body_arrives_whole() {
    let router = Router::start();
    let only = Instance::start("only");
    router.pool("shop", &json!({ "boot_wait": "20s" }), &[&only]);
    router.get("shop", "/before").expect(200);
    only.crash();
    let body = "0123456789".repeat(30_000);
    let mut client = router.client();
    let address = router.http();
    let large = crate::harness::with_body("PUT", "shop", "/large", "", &body);
    let uploading = std::thread::spawn(move || {
        let mut other = Client::connect(address);
        other.send(large);
        other.answer().expect(200);
    });
    client.send("PUT /slow HTTP/1.1\r\nHost: shop.example\r\nContent-Length: 8\r\n\r\nhalf");
    assert!(client.silent(Duration::from_millis(300)), "it must be held");
    only.restart();
    client.send("more");
    client.answer().expect(200);
    assert_eq!(only.wait_for("/slow").body, b"halfmore");
    uploading.join().expect("the large one must be answered");
    assert!(only.wait_for("/large").body == body.as_bytes(), "torn");
}

#[test]
fn requests_that_wait_are_no_more_than_the_queue_allows() {
    let router = Router::start();
    let only = Instance::start("only");
    let policy = json!({ "boot_wait": "20s", "queue": 3 });
    router.pool("shop", &policy, &[&only]);
    router.get("shop", "/before").expect(200);
    only.crash();
    let mut clients: Vec<Client> = (0..10)
        .map(|number| {
            let mut client = router.client();
            client.send(get("shop", &format!("/{number}")));
            client
        })
        .collect();
    let held = eventually("those beyond the queue are refused", || {
        let held: Vec<bool> = clients
            .iter_mut()
            .map(|client| client.silent(Duration::from_millis(30)))
            .collect();
        (held.iter().filter(|&&held| held).count() <= 3).then_some(held)
    });
    only.restart();
    for (mut client, held) in clients.into_iter().zip(held) {
        let answer = client.answer();
        if held {
            answer.expect(200);
        } else {
            // No place to wait in: the code of what it met, or of the line.
            let code = answer.expect(503).code();
            assert!(
                matches!(code.as_deref(), Some("H10" | "H11" | "H21")),
                "{code:?}"
            );
        }
    }
}

#[test]
fn one_app_that_waits_holds_up_no_other() {
    let router = Router::with(&["edge.threads=1"]);
    let (down, up) = (Instance::start("down"), Instance::start("up"));
    router.pool("shop", &json!({ "boot_wait": "20s" }), &[&down]);
    router.pool("blog", &json!({}), &[&up]);
    router.get("shop", "/before").expect(200);
    down.crash();
    let mut waiting: Vec<Client> = (0..20)
        .map(|number| {
            let mut client = router.client();
            client.send(get("shop", &format!("/{number}")));
            client
        })
        .collect();
    for number in 0..30 {
        router.get("blog", &format!("/blog/{number}")).expect(200);
    }
    assert!(waiting[0].silent(Duration::from_millis(20)));
    down.restart();
    for client in &mut waiting {
        client.answer().expect(200);
    }
}

#[test]
fn a_backend_that_hangs_is_not_one_that_is_down() {
    let router = Router::start();
    let only = Instance::start("only");
    let policy = json!({ "first_byte_timeout": "1s", "boot_wait": "20s" });
    router.pool("shop", &policy, &[&only]);
    router.get("shop", "/before").expect(200);
    only.does(Conduct::Silent);
    let began = Instant::now();
    router.get("shop", "/hangs").refused(503, "H12");
    assert!(
        began.elapsed() < Duration::from_secs(10),
        "{:?}",
        began.elapsed()
    );
}

#[test]
fn an_app_without_a_backend_is_wanted_and_may_be_waited_for() {
    let router = Router::start();
    let only = Instance::start("only");
    let app = json!({ "domains": ["shop.example"], "policy": { "boot_wait": "20s" } });
    router.put("/v1/apps/shop?wait=active", &app).expect(201);
    let mut client = router.client();
    client.send(get("shop", "/first"));
    router.wait_event("app_wanted", "shop", "");
    assert!(client.silent(Duration::from_millis(100)), "it must be held");
    router.place("shop", "web.1", only.address());
    assert_eq!(client.answer().expect(200).text(), "only");
    assert_eq!(router.events("app_wanted").len(), 1, "told once in a while");
}

#[test]
fn a_wait_for_a_first_backend_ends_with_h14() {
    let router = Router::start();
    let app = json!({ "domains": ["shop.example"], "policy": { "boot_wait": "300ms" } });
    router.put("/v1/apps/shop?wait=active", &app).expect(201);
    let began = Instant::now();
    let answer = router.get("shop", "/");
    assert_eq!(answer.code().as_deref(), Some("H14"), "{answer:?}");
    assert!(began.elapsed() >= Duration::from_millis(300));
    let app = json!({ "domains": ["other.example"] });
    router.put("/v1/apps/other?wait=active", &app).expect(201);
    let answer = router.get("other", "/");
    assert_eq!(answer.code().as_deref(), Some("H14"), "not without asking");
    router.wait_event("app_wanted", "other", "");
}

#[test]
fn who_asks_for_every_app_does_not_fill_the_events() {
    const APPS: usize = 400;
    let router = Router::start();
    let lines: Vec<String> = (0..APPS)
        .map(|n| json!({ "app": format!("app-{n}"), "domains": [format!("app-{n}.example")] }))
        .map(|line| line.to_string())
        .collect();
    let bearer = format!("Bearer {}", router.token());
    let headers = [
        ("Authorization", bearer.as_str()),
        ("Content-Type", "application/x-ndjson"),
    ];
    let path = "/v1/import?wait=active";
    request(router.api(), "POST", path, &headers, &lines.join("\n")).expect(200);
    let began = Instant::now();
    let mut client = router.client();
    for n in 0..APPS {
        client.send(get(&format!("app-{n}"), "/"));
        assert_eq!(client.answer().code().as_deref(), Some("H14"));
    }
    let took = began.elapsed();
    let untold = eventually("what was left out is counted", || {
        let untold = router.counted("portico_wanted_untold_total", "");
        let told = router.events("app_wanted").len();
        (told + untold as usize == APPS).then_some(untold)
    });
    let most = 101.0 + took.as_secs_f64() * 10.0;
    let told = APPS as f64 - untold;
    assert!(told <= most && told >= 100.0, "{told} in {took:?}");
    let summed = router.wait_event("apps_wanted", "", "");
    assert!(
        summed["text"]
            .as_str()
            .is_some_and(|it| it.contains("10/s"))
    );
}
