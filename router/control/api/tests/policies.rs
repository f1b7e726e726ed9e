//! Policies: what is taken, in which form it comes back, what is refused.

use super::*;

/// Every key, written as a person might, and as it is read back.
fn whole() -> (Value, Value) {
    let given = json!({
        "connect_timeout": "1.5s", "first_byte_timeout": 30, "idle_timeout": "1m",
        "backend_keepalive": true, "replay_bytes": 1024, "retries": 3, "max_concurrency": 50,
        "queue": 0, "maintenance": false, "try_timeout": "2s", "deadline": "10s",
        "boot_wait": "0s", "slow_start": 0.25, "hedge": "p99.0",
        "retry_budget": { "percent": 0, "per_second": 10_000 }, "ejection": false,
        "probe": { "path": "/healthz?x=1", "host": "shop.example:80", "interval": "1m",
            "timeout": "500ms", "rise": 1, "fall": 100, "status": "300-399, 204", "tcp": false },
    });
    let read = json!({
        "connect_timeout": "1500ms", "first_byte_timeout": "30s", "idle_timeout": "60s",
        "backend_keepalive": true, "replay_bytes": 1024, "retries": 3, "max_concurrency": 50,
        "queue": 0, "maintenance": false, "try_timeout": "2s", "deadline": "10s",
        "boot_wait": "0s", "slow_start": "250ms", "hedge": "p99",
        "retry_budget": { "percent": 0, "per_second": 10_000 }, "ejection": false,
        "probe": { "path": "/healthz?x=1", "host": "shop.example:80", "interval": "60s",
            "timeout": "500ms", "rise": 1, "fall": 100, "status": "204,300-399" },
    });
    (given, read)
}

#[tokio::test]
async fn a_policy_reads_back_in_one_form_everywhere() {
    let api = Api::new();
    let (given, read) = whole();
    let put = api
        .put("/v1/apps/shop", json!({ "policy": given }))
        .await
        .is(201);
    assert_eq!(put.json()["policy"], read);
    let again = api
        .put("/v1/apps/shop", json!({ "policy": read }))
        .await
        .is(200)
        .json();
    assert_eq!(again["revision"], 1, "its own form is no change");
    let api = api.restart().await;
    assert_eq!(api.get("/v1/apps/shop").await.json()["policy"], read);
    let exported = api.get("/v1/export").await.is(200);
    let line = exported.json();
    assert_eq!(line["policy"], read);
    let done = api.import(&line.to_string()).await;
    assert_eq!(done["unchanged"], 1, "{done}");
    let record = api.state.registry.app("shop").unwrap().policy.unwrap();
    assert_eq!(
        (record.retry_percent, record.retry_per_second),
        (Some(0), Some(10_000))
    );
}

#[tokio::test]
async fn short_policies_read_back_as_they_were_given() {
    let api = Api::new();
    for policy in [
        json!({}),
        json!({ "hedge": "auto" }),
        json!({ "hedge": "off" }),
        json!({ "hedge": "50ms" }),
        json!({ "retry_budget": { "percent": 100 } }),
        json!({ "ejection": true }),
        json!({ "probe": { "tcp": true } }),
        json!({ "probe": { "path": "/" } }),
        json!({ "probe": { "path": "/", "interval": "100ms" } }),
        json!({ "probe": { "tcp": true, "interval": "1s", "timeout": "1s", "rise": 1, "fall": 1 } }),
        json!({ "try_timeout": "1s", "deadline": "1s", "first_byte_timeout": "1s" }),
    ] {
        let answer = api
            .put("/v1/apps/shop", json!({ "policy": policy }))
            .await
            .json();
        assert_eq!(answer["policy"], policy, "{answer}");
    }
    for nothing in [json!({ "retry_budget": {} }), json!({ "probe": null })] {
        let answer = api.put("/v1/apps/shop", json!({ "policy": nothing })).await;
        assert_eq!(answer.is(200).json()["policy"], json!({}), "{nothing}");
    }
}

#[tokio::test]
#[expect(clippy::too_many_lines, reason = "a table")]
async fn nonsense_is_refused_by_the_name_of_its_field() {
    let api = Api::new();
    for (policy, field) in [
        (json!({ "try_timeout": 0 }), "policy.try_timeout"),
        (json!({ "try_timeout": "25h" }), "policy.try_timeout"),
        (json!({ "try_timeout": -1 }), "policy.try_timeout"),
        (json!({ "deadline": "0s" }), "policy.deadline"),
        (json!({ "deadline": "soon" }), "policy.deadline"),
        (json!({ "boot_wait": "-5s" }), "policy.boot_wait"),
        (json!({ "boot_wait": "1000h" }), "policy.boot_wait"),
        (json!({ "slow_start": "25h" }), "policy.slow_start"),
        (json!({ "slow_start": true }), "policy.slow_start"),
        (
            json!({ "try_timeout": "2s", "deadline": "1s" }),
            "policy.try_timeout",
        ),
        (
            json!({ "try_timeout": "2s", "first_byte_timeout": "1s" }),
            "policy.try_timeout",
        ),
        (json!({ "hedge": "sometimes" }), "policy.hedge"),
        (json!({ "hedge": "p100" }), "policy.hedge"),
        (json!({ "hedge": "0s" }), "policy.hedge"),
        (json!({ "hedge": "25h" }), "policy.hedge"),
        (json!({ "hedge": 0.95 }), "policy.hedge"),
        (json!({ "ejection": "yes" }), "policy.ejection"),
        (json!({ "retry_budget": 20 }), "policy.retry_budget"),
        (json!({ "retry_budget": [20, 10] }), "policy.retry_budget"),
        (
            json!({ "retry_budget": { "percent": 101 } }),
            "policy.retry_budget.percent",
        ),
        (
            json!({ "retry_budget": { "percent": -1 } }),
            "policy.retry_budget.percent",
        ),
        (
            json!({ "retry_budget": { "per_second": 10_001 } }),
            "policy.retry_budget.per_second",
        ),
        (
            json!({ "retry_budget": { "per_second": 0.5 } }),
            "policy.retry_budget.per_second",
        ),
        (json!({ "probe": true }), "policy.probe"),
        (json!({ "probe": {} }), "policy.probe.path"),
        (json!({ "probe": { "tcp": false } }), "policy.probe.path"),
        (json!({ "probe": { "path": "" } }), "policy.probe.path"),
        (
            json!({ "probe": { "path": "healthz" } }),
            "policy.probe.path",
        ),
        (json!({ "probe": { "path": "/a b" } }), "policy.probe.path"),
        (json!({ "probe": { "path": "/a#b" } }), "policy.probe.path"),
        (
            json!({ "probe": { "path": "/a\r\nx: y" } }),
            "policy.probe.path",
        ),
        (
            json!({ "probe": { "path": format!("/{}", "a".repeat(2_048)) } }),
            "policy.probe.path",
        ),
        (
            json!({ "probe": { "tcp": true, "path": "/" } }),
            "policy.probe.path",
        ),
        (
            json!({ "probe": { "tcp": true, "host": "a" } }),
            "policy.probe.host",
        ),
        (
            json!({ "probe": { "tcp": true, "status": "200" } }),
            "policy.probe.status",
        ),
        (json!({ "probe": { "tcp": 1 } }), "policy.probe.tcp"),
        (
            json!({ "probe": { "path": "/", "host": "" } }),
            "policy.probe.host",
        ),
        (
            json!({ "probe": { "path": "/", "host": "a b" } }),
            "policy.probe.host",
        ),
        (
            json!({ "probe": { "path": "/", "interval": "99ms" } }),
            "policy.probe.interval",
        ),
        (
            json!({ "probe": { "path": "/", "interval": "-5s" } }),
            "policy.probe.interval",
        ),
        (
            json!({ "probe": { "path": "/", "interval": "61m" } }),
            "policy.probe.interval",
        ),
        (
            json!({ "probe": { "path": "/", "timeout": "0s" } }),
            "policy.probe.timeout",
        ),
        (
            json!({ "probe": { "path": "/", "interval": "1s", "timeout": "2s" } }),
            "policy.probe.timeout",
        ),
        (
            json!({ "probe": { "path": "/", "rise": 0 } }),
            "policy.probe.rise",
        ),
        (
            json!({ "probe": { "path": "/", "fall": 101 } }),
            "policy.probe.fall",
        ),
        (
            json!({ "probe": { "path": "/", "status": "" } }),
            "policy.probe.status",
        ),
        (
            json!({ "probe": { "path": "/", "status": "200-299,250-399" } }),
            "policy.probe.status",
        ),
        (
            json!({ "probe": { "path": "/", "status": "399-200" } }),
            "policy.probe.status",
        ),
    ] {
        let body = json!({ "policy": policy });
        let problem = api
            .put("/v1/apps/a", body)
            .await
            .problem(400, "invalid_field");
        assert_eq!(problem["field"], field, "{policy} {problem}");
        let line = json!({ "app": "a", "policy": policy });
        let done = api.import(&line.to_string()).await;
        assert_eq!(done["errors"][0]["field"], field, "{done}");
    }
    for (policy, field) in [
        (json!({ "hedging": "off" }), "policy.hedging"),
        (
            json!({ "retry_budget": { "percentage": 1 } }),
            "policy.retry_budget.percentage",
        ),
        (
            json!({ "probe": { "path": "/", "port": 1 } }),
            "policy.probe.port",
        ),
    ] {
        let body = json!({ "policy": policy });
        let problem = api
            .put("/v1/apps/a", body)
            .await
            .problem(400, "unknown_field");
        assert_eq!(problem["field"], field, "{policy} {problem}");
    }
    assert_eq!(api.state.registry.revision(), 0);
}

#[tokio::test]
async fn the_document_shows_what_a_policy_may_say() {
    let api = Api::new();
    let document = api.get("/openapi.json").await.is(200).json();
    let schemas = &document["components"]["schemas"];
    let policy = &schemas["Policy"]["properties"];
    for key in whole().0.as_object().unwrap().keys() {
        assert!(policy[key].is_object(), "{key} is not in {policy}");
    }
    for (schema, keys) in [
        ("Probe", &["path", "tcp", "interval", "status"][..]),
        ("RetryBudget", &["percent", "per_second"]),
    ] {
        for key in keys {
            assert!(
                schemas[schema]["properties"][key].is_object(),
                "{schema}.{key}"
            );
        }
    }
    assert_eq!(schemas["Hedge"]["type"], "string");
}
