//! The registration API: apps and domains.

use serde_json::{Value, json};

use crate::harness::{Answer, Backend, Router};

/// An error of the API's: its status, its type, and a code of its own.
#[track_caller]
pub fn problem(answer: &Answer, status: u16) -> Value {
    assert_eq!(answer.status, status, "{}", answer.text());
    let kind = answer.header("content-type").unwrap_or_default();
    assert!(
        kind.starts_with("application/problem+json"),
        "{kind}: {}",
        answer.text()
    );
    let problem = answer.json();
    assert!(
        problem["code"]
            .as_str()
            .is_some_and(|code| !code.is_empty()),
        "{problem}"
    );
    assert!(
        problem["title"].is_string() || problem["detail"].is_string(),
        "{problem}"
    );
    if !problem["status"].is_null() {
        assert_eq!(problem["status"], status);
    }
    problem
}

#[track_caller]
pub fn revision(answer: &Answer) -> u64 {
    answer.json()["revision"]
        .as_u64()
        .unwrap_or_else(|| panic!("a change must answer with its revision: {}", answer.text()))
}

#[test]
fn an_app_is_created_replaced_read_and_removed() {
    let router = Router::start();
    let first = json!({ "domains": ["a.example", "*.a.example"], "policy": { "retries": 1 } });
    let created = router.put("/v1/apps/shop", &first).expect(201);
    let read = router.read("/v1/apps/shop").expect(200);
    assert_eq!(read.json()["domains"], json!(["a.example", "*.a.example"]));
    assert_eq!(read.json()["policy"]["retries"], 1);

    let second = json!({ "domains": ["b.example"] });
    let replaced = router.put("/v1/apps/shop", &second).expect(200);
    assert!(revision(&replaced) > revision(&created));
    let read = router.read("/v1/apps/shop").expect(200);
    assert_eq!(read.json()["domains"], json!(["b.example"]));
    assert!(
        read.json()["policy"]["retries"].is_null(),
        "replaced, not merged: {}",
        read.text()
    );

    let removed = router.delete("/v1/apps/shop").expect(200);
    assert!(revision(&removed) > revision(&replaced));
    problem(&router.read("/v1/apps/shop"), 404);
    problem(&router.delete("/v1/apps/shop"), 404);
}

#[test]
fn putting_the_same_twice_is_harmless() {
    let router = Router::start();
    let record = json!({ "domains": ["a.example"] });
    router.put("/v1/apps/shop", &record).expect(201);
    let once = router.read("/v1/apps/shop").expect(200);
    router.put("/v1/apps/shop", &record).expect(200);
    let twice = router.read("/v1/apps/shop").expect(200);
    assert_eq!(once.json()["domains"], twice.json()["domains"]);
}

#[test]
fn replacing_an_app_keeps_its_backends() {
    let router = Router::start();
    let backend = Backend::named("here");
    router.serve("shop", &[&backend]);
    let record = json!({ "domains": ["shop.example", "other.example"] });
    router.put("/v1/apps/shop?wait=active", &record).expect(200);
    assert_eq!(router.get("shop", "/").expect(200).text(), "here");
    assert_eq!(router.get("other", "/").expect(200).text(), "here");
}

#[test]
fn wait_active_means_that_the_next_request_is_routed() {
    let router = Router::start();
    let backend = Backend::named("at once");
    for number in 0..30 {
        let app = format!("app{number}");
        router.serve(&app, &[&backend]);
        assert_eq!(router.get(&app, "/").expect(200).text(), "at once");
        router
            .delete(&format!("/v1/apps/{app}?wait=active"))
            .expect(200);
        router.get(&app, "/").refused(404, "H30");
    }
}

#[test]
fn wait_active_gives_up_in_time_when_no_edge_answers() {
    let router = Router::start();
    let edge = router.process("edge");
    crate::harness::processes::signal(edge, rustix::process::Signal::STOP);
    let answer = router.put(
        "/v1/apps/shop?wait=active&timeout=300ms",
        &json!({ "domains": ["a.example"] }),
    );
    crate::harness::processes::signal(edge, rustix::process::Signal::CONT);
    assert_eq!(answer.status, 504, "{}", answer.text());
    // Durable all the same.
    router.read("/v1/apps/shop").expect(200);
}

#[test]
fn domains_are_claimed_and_released() {
    let router = Router::start();
    let backend = Backend::named("shop");
    router.serve("shop", &[&backend]);
    router.serve("blog", &[]);
    revision(
        &router
            .put("/v1/apps/shop/domains/new.example?wait=active", &json!({}))
            .expect(201),
    );
    assert_eq!(router.get("new", "/").expect(200).text(), "shop");
    router
        .put("/v1/apps/shop/domains/new.example", &json!({}))
        .expect(200);
    problem(
        &router.put("/v1/apps/blog/domains/new.example", &json!({})),
        409,
    );
    problem(
        &router.put("/v1/apps/blog", &json!({ "domains": ["new.example"] })),
        409,
    );
    router
        .delete("/v1/apps/shop/domains/new.example?wait=active")
        .expect(200);
    router.get("new", "/").refused(404, "H30");
    router
        .put("/v1/apps/blog/domains/new.example", &json!({}))
        .expect(201);
    problem(&router.delete("/v1/apps/shop/domains/new.example"), 404);
    problem(
        &router.put("/v1/apps/nobody/domains/x.example", &json!({})),
        404,
    );
}

#[test]
fn a_put_that_loses_one_domain_changes_none() {
    let router = Router::start();
    router.serve("shop", &[]);
    let record = json!({ "domains": ["free.example", "shop.example"] });
    problem(&router.put("/v1/apps/blog", &record), 409);
    problem(&router.read("/v1/apps/blog"), 404);
    router
        .put("/v1/apps/third", &json!({ "domains": ["free.example"] }))
        .expect(201);
}

#[test]
fn hosts_are_lower_cased_and_idna_checked() {
    let router = Router::start();
    let record = json!({ "domains": ["Shop.EXAMPLE", "bücher.example"] });
    router.put("/v1/apps/shop", &record).expect(201);
    let read = router.read("/v1/apps/shop").expect(200).json();
    assert_eq!(
        read["domains"],
        json!(["shop.example", "xn--bcher-kva.example"])
    );
    for bad in [
        "",
        "a b",
        "-",
        "a..b",
        "*.*.b",
        "a.*.b",
        "http://a",
        "a:80",
        "[::1",
        &"x".repeat(300),
    ] {
        let answer = router.put("/v1/apps/bad", &json!({ "domains": [bad] }));
        let problem = problem(&answer, 400);
        assert!(
            problem.to_string().contains("domains"),
            "the field is not named: {problem}"
        );
    }
}

#[test]
fn a_listing_pages_through_every_app_once() {
    let router = Router::start();
    for number in 0..25 {
        router
            .put(
                &format!("/v1/apps/app-{number:02}"),
                &json!({ "domains": [] }),
            )
            .expect(201);
    }
    let mut seen = Vec::new();
    let mut after = String::new();
    for _ in 0..10 {
        let page = router
            .read(&format!("/v1/apps?after={after}&limit=10"))
            .expect(200)
            .json();
        let apps = page["apps"]
            .as_array()
            .unwrap_or_else(|| panic!("no `apps`: {page}"));
        assert!(apps.len() <= 10);
        let names: Vec<String> = apps
            .iter()
            .map(|app| {
                let name = if app.is_string() { app } else { &app["app"] };
                name.as_str()
                    .unwrap_or_else(|| panic!("no name: {app}"))
                    .to_owned()
            })
            .collect();
        let Some(last) = names.last() else { break };
        after = last.clone();
        seen.extend(names);
    }
    let expected: Vec<String> = (0..25).map(|number| format!("app-{number:02}")).collect();
    assert_eq!(seen, expected);
}

#[test]
fn if_match_lets_one_of_two_win() {
    let router = Router::start();
    router
        .put("/v1/apps/shop", &json!({ "domains": ["a.example"] }))
        .expect(201);
    let etag = router
        .read("/v1/apps/shop")
        .header("etag")
        .expect("an ETag")
        .to_owned();
    assert!(etag.starts_with('"') && etag.ends_with('"'), "{etag}");
    let change = |domain: &str| {
        let record = json!({ "domains": [domain] });
        router.call(
            "PUT",
            "/v1/apps/shop",
            &[("If-Match", &etag)],
            Some(&record),
        )
    };
    change("b.example").expect(200);
    problem(&change("c.example"), 412);
    let now = router.read("/v1/apps/shop").expect(200);
    assert_eq!(now.json()["domains"], json!(["b.example"]));
    assert_ne!(now.header("etag"), Some(etag.as_str()));
    problem(
        &router.call("DELETE", "/v1/apps/shop", &[("If-Match", &etag)], None),
        412,
    );
    router.read("/v1/apps/shop").expect(200);
}

#[test]
fn if_match_on_an_app_that_is_not_there_fails() {
    let router = Router::start();
    let record = json!({ "domains": [] });
    problem(
        &router.call(
            "PUT",
            "/v1/apps/shop",
            &[("If-Match", "\"1\"")],
            Some(&record),
        ),
        412,
    );
    let created = router.call(
        "PUT",
        "/v1/apps/shop",
        &[("If-None-Match", "*")],
        Some(&record),
    );
    created.expect(201);
}

#[test]
fn every_policy_key_is_kept_and_durations_read_alike() {
    let router = Router::start();
    let policy = json!({
        "connect_timeout": "2s", "first_byte_timeout": "250ms", "idle_timeout": "1m",
        "backend_keepalive": false, "replay_bytes": 1000, "retries": 3,
        "max_concurrency": 7, "queue": 9, "maintenance": false,
    });
    router
        .put("/v1/apps/shop", &json!({ "domains": [], "policy": policy }))
        .expect(201);
    let read = router.read("/v1/apps/shop").expect(200).json()["policy"].clone();
    for (key, value) in policy.as_object().expect("an object") {
        if key == "idle_timeout" {
            assert!(read[key] == "1m" || read[key] == "60s", "{read}");
        } else if key != "maintenance" {
            assert_eq!(&read[key], value, "{key}: {read}");
        }
    }
    let seconds = json!({ "domains": [], "policy": { "connect_timeout": 3 } });
    router.put("/v1/apps/shop", &seconds).expect(200);
    assert_eq!(
        router.read("/v1/apps/shop").json()["policy"]["connect_timeout"],
        "3s"
    );
}

#[test]
fn what_is_documented_is_served() {
    let router = Router::start();
    let request = |path: &str| crate::harness::router::request(router.api(), "GET", path, &[], "");
    let document = request("/openapi.json").expect(200).json();
    assert!(
        document["openapi"]
            .as_str()
            .is_some_and(|version| version.starts_with("3."))
    );
    for path in [
        "/v1/apps",
        "/v1/apps/{app}",
        "/v1/apps/{app}/domains/{host}",
        "/v1/apps/{app}/backends/{id}",
        "/v1/apps/{app}/backends/{id}/heartbeat",
        "/v1/heartbeats",
        "/v1/import",
        "/v1/export",
        "/v1/watch",
        "/v1/tokens",
        "/v1/tokens/{id}",
        "/healthz",
    ] {
        assert!(
            document["paths"][path].is_object(),
            "{path} is not documented"
        );
    }
    request("/healthz").expect(200);
}
