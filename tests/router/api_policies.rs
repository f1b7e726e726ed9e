//! The registration API: what an app's policy may say of crashes, how it is
//! read back, and what nonsense gets.

use serde_json::{Value, json};

use crate::api_apps::problem;
use crate::harness::{Backend, Router};

/// Every key of a policy, in the form it is read back in.
fn whole() -> Value {
    json!({
        "connect_timeout": "5s", "first_byte_timeout": "30s", "idle_timeout": "55s",
        "backend_keepalive": true, "replay_bytes": 65_536, "retries": 2, "max_concurrency": 200,
        "queue": 100, "maintenance": false, "try_timeout": "2s", "deadline": "10s",
        "boot_wait": "3s", "slow_start": "0s", "hedge": "p99.9",
        "retry_budget": { "percent": 20, "per_second": 10 }, "ejection": true,
        "probe": { "path": "/healthz", "host": "shop.example", "interval": "5s", "timeout": "2s",
            "rise": 2, "fall": 3, "status": "200,204,300-399" },
    })
}

#[test]
fn a_policy_survives_restarts_exports_and_imports() {
    let router = Router::start();
    router.serve_with("shop", &whole(), &[]);
    let exported = router.read("/v1/export").expect(200).json();
    assert_eq!(exported["policy"], whole());
    let router = router.crash().start();
    let read = router.read("/v1/apps/shop").expect(200).json();
    assert_eq!(read["policy"], whole());
    let other = Router::start();
    let bearer = format!("Bearer {}", other.token());
    let headers = [
        ("Authorization", bearer.as_str()),
        ("Content-Type", "application/x-ndjson"),
    ];
    let line = exported.to_string();
    crate::harness::router::request(other.api(), "POST", "/v1/import", &headers, &line).expect(200);
    let read = other.read("/v1/apps/shop").expect(200).json();
    assert_eq!(read["policy"], whole());
}

#[test]
fn every_spelling_of_a_hedge_and_a_probe_is_routed_by() {
    let router = Router::start();
    let backend = Backend::named("there");
    router.serve("shop", &[&backend]);
    for policy in [
        json!({ "hedge": "auto" }),
        json!({ "hedge": "off" }),
        json!({ "hedge": "p50" }),
        json!({ "hedge": "50ms" }),
        json!({ "ejection": false }),
        json!({ "retry_budget": { "percent": 0, "per_second": 0 } }),
        json!({ "boot_wait": "0s", "slow_start": "1m" }),
        json!({ "probe": { "tcp": true, "interval": "100ms" } }),
        json!({ "probe": { "path": "/", "status": "100-599" } }),
    ] {
        let record = json!({ "domains": ["shop.example"], "policy": policy });
        // An edge that could not use the record would not route by it.
        router.put("/v1/apps/shop?wait=active", &record).expect(200);
        assert_eq!(router.get("shop", "/").expect(200).text(), "there");
    }
    let metrics = router.admin_get("/metrics").expect(200).text();
    assert!(
        metrics
            .lines()
            .filter(|line| line.starts_with("portico_control_edge_nacks"))
            .all(|line| line.ends_with(" 0")),
        "{metrics}"
    );
}

#[test]
fn nonsense_is_refused_naming_the_field() {
    let router = Router::start();
    for (policy, field) in [
        (json!({ "try_timeout": "-1s" }), "policy.try_timeout"),
        (json!({ "deadline": 0 }), "policy.deadline"),
        (json!({ "boot_wait": "48h" }), "policy.boot_wait"),
        (json!({ "slow_start": -3 }), "policy.slow_start"),
        (
            json!({ "try_timeout": "5s", "deadline": "1s" }),
            "policy.try_timeout",
        ),
        (json!({ "hedge": "p0" }), "policy.hedge"),
        (json!({ "hedge": "-50ms" }), "policy.hedge"),
        (json!({ "hedge": 50 }), "policy.hedge"),
        (
            json!({ "retry_budget": { "percent": 101 } }),
            "policy.retry_budget.percent",
        ),
        (
            json!({ "retry_budget": { "per_second": -1 } }),
            "policy.retry_budget.per_second",
        ),
        (
            json!({ "retry_budget": { "per_minute": 1 } }),
            "policy.retry_budget.per_minute",
        ),
        (json!({ "ejection": "off" }), "policy.ejection"),
        (
            json!({ "probe": { "path": "/", "interval": "1ms" } }),
            "policy.probe.interval",
        ),
        (
            json!({ "probe": { "path": "/", "timeout": "6s" } }),
            "policy.probe.timeout",
        ),
        (
            json!({ "probe": { "path": "/", "rise": -1 } }),
            "policy.probe.rise",
        ),
        (
            json!({ "probe": { "path": "/", "fall": 0 } }),
            "policy.probe.fall",
        ),
        (
            json!({ "probe": { "path": "healthz" } }),
            "policy.probe.path",
        ),
        (
            json!({ "probe": { "tcp": true, "path": "/healthz" } }),
            "policy.probe.path",
        ),
        (
            json!({ "probe": { "path": "/", "status": "200-299,299-300" } }),
            "policy.probe.status",
        ),
        (
            json!({ "probe": { "path": "/", "status": "700" } }),
            "policy.probe.status",
        ),
        (
            json!({ "probe": { "path": "/", "every": "5s" } }),
            "policy.probe.every",
        ),
        (json!({ "probes": [] }), "policy.probes"),
    ] {
        let record = json!({ "domains": [], "policy": policy });
        let problem = problem(&router.put("/v1/apps/x", &record), 400);
        assert_eq!(problem["field"], field, "{policy}: {problem}");
    }
    problem(&router.read("/v1/apps/x"), 404);
}

#[test]
fn the_document_shows_every_key() {
    let router = Router::start();
    let document = router.read("/openapi.json").expect(200).json();
    let shown = &document["components"]["schemas"]["Policy"]["properties"];
    for key in whole().as_object().expect("an object").keys() {
        assert!(shown[key].is_object(), "{key} is not in {shown}");
    }
}
