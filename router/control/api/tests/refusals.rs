//! What is refused, and how that is told; and what is open to all.

use super::*;

#[tokio::test]
#[expect(clippy::too_many_lines, reason = "a table")]
async fn what_is_wrong_with_a_body_is_named() {
    let api = Api::new();
    for (path, body, code, field) in [
        (
            "/v1/apps/a",
            json!({ "domainz": [] }),
            "unknown_field",
            "domainz",
        ),
        (
            "/v1/apps/a",
            json!({ "policy": { "retry": 1 } }),
            "unknown_field",
            "policy.retry",
        ),
        (
            "/v1/apps/a",
            json!({ "policy": { "retries": "x" } }),
            "invalid_field",
            "policy.retries",
        ),
        (
            "/v1/apps/a",
            json!({ "policy": { "retries": 11 } }),
            "invalid_field",
            "policy.retries",
        ),
        (
            "/v1/apps/a",
            json!({ "policy": { "connect_timeout": "5 s" } }),
            "invalid_field",
            "policy.connect_timeout",
        ),
        (
            "/v1/apps/a",
            json!({ "policy": { "idle_timeout": 0 } }),
            "invalid_field",
            "policy.idle_timeout",
        ),
        (
            "/v1/apps/a",
            json!({ "domains": ["ok.example", "a b"] }),
            "invalid_field",
            "domains[1]",
        ),
        (
            "/v1/apps/a",
            json!({ "policy": [] }),
            "invalid_field",
            "policy",
        ),
        (
            "/v1/apps/a",
            json!({ "domains": "a.example" }),
            "invalid_field",
            "domains",
        ),
        ("/v1/apps/Bad", json!({}), "invalid_field", "app"),
        (
            "/v1/apps/a/backends/w",
            json!({}),
            "missing_field",
            "address",
        ),
        (
            "/v1/apps/a/backends/w",
            json!({ "address": "localhost:1" }),
            "invalid_field",
            "address",
        ),
        (
            "/v1/apps/a/backends/w",
            json!({ "address": "10.0.0.1:1", "weight": 1001 }),
            "invalid_field",
            "weight",
        ),
        (
            "/v1/apps/a/backends/w",
            json!({ "address": "10.0.0.1:1", "weight": -1 }),
            "invalid_field",
            "weight",
        ),
        (
            "/v1/apps/a/backends/w",
            json!({ "address": "10.0.0.1:1", "lease_seconds": 0 }),
            "invalid_field",
            "lease_seconds",
        ),
        (
            "/v1/apps/a/backends/w",
            json!({ "address": "10.0.0.1:1", "release": "a\nb" }),
            "invalid_field",
            "release",
        ),
        (
            "/v1/apps/a/backends/.w",
            json!({ "address": "10.0.0.1:1" }),
            "invalid_field",
            "id",
        ),
        (
            "/v1/apps/a/backends/w",
            json!({ "address": "10.0.0.1:1", "port": 1 }),
            "unknown_field",
            "port",
        ),
    ] {
        let problem = api.put(path, body.clone()).await.problem(400, code);
        assert_eq!(problem["field"], field, "{body} {problem}");
    }
    assert_eq!(api.state.registry.revision(), 0);
}

#[tokio::test]
async fn what_is_no_json_is_refused_with_its_place() {
    let api = Api::new();
    let raw = |body: Vec<u8>, kind: &str| {
        let request =
            Request::put("/v1/apps/a").header("authorization", format!("Bearer {OPERATOR}"));
        request
            .header("content-type", kind)
            .body(Body::from(body))
            .unwrap()
    };
    let json = "application/json";
    let broken = api
        .send(raw(b"{\n  \"domains\": [,]}".to_vec(), json))
        .await
        .problem(400, "invalid_json");
    assert_eq!(
        (broken["line"].as_u64(), broken["column"].as_u64()),
        (Some(2), Some(15))
    );
    for bad in [
        "",
        "{",
        "[]",
        "null",
        "{} {}",
        "{\"domains\":[]}x",
        "\"\u{7f}\"",
    ] {
        api.send(raw(bad.into(), json)).await.is(400);
    }
    api.send(raw(vec![b'{', 0xff, b'}'], json))
        .await
        .problem(400, "invalid_json");
    let deep = "[".repeat(100_000);
    api.send(raw(format!("{{\"domains\":{deep}").into_bytes(), json))
        .await
        .is(400);
    let huge = format!(
        "{{\"domains\":[\"{}\"]}}",
        "a".repeat(request::BODY_MAX_BYTES)
    );
    api.send(raw(huge.into_bytes(), json))
        .await
        .problem(413, "body_too_large");
    api.send(raw(b"{}".to_vec(), "text/plain"))
        .await
        .problem(415, "unsupported_media_type");
    api.send(raw(b"{}".to_vec(), "application/json; charset=utf-8"))
        .await
        .is(201);
}

#[tokio::test]
async fn routes_methods_and_queries_that_do_not_exist_are_problems() {
    let api = Api::new();
    api.get("/").await.problem(404, "not_found");
    api.get("/v2/apps").await.problem(404, "not_found");
    let method = api.call("PATCH", "/v1/apps/a", None).await;
    assert!(method.headers.contains_key(header::ALLOW));
    method.problem(405, "method_not_allowed");
    api.call("POST", "/v1/watch", None)
        .await
        .problem(405, "method_not_allowed");
    for query in [
        "limit=x",
        "limit=0",
        "limit=1001",
        "after=a&x=1",
        "limit=1&limit=2",
    ] {
        api.get(&format!("/v1/apps?{query}")).await.is(400);
    }
    let problem = api
        .put("/v1/apps/a?wait=soon", json!({}))
        .await
        .problem(400, "invalid_query");
    assert!(
        problem["detail"].as_str().unwrap().contains("active"),
        "{problem}"
    );
    api.put("/v1/apps/a?timeout=2h", json!({}))
        .await
        .problem(400, "invalid_field");
    api.put("/v1/apps/a?wiat=active", json!({}))
        .await
        .problem(400, "invalid_query");
    api.call("DELETE", "/v1/apps/a/backends/w?drain=never", None)
        .await
        .problem(400, "invalid_query");
    api.call("DELETE", "/v1/apps/a/backends/w?drain=2h", None)
        .await
        .problem(400, "invalid_field");
    api.call("PUT", "/v1/apps/a/domains/%ff", None)
        .await
        .problem(400, "invalid_path");
}

#[tokio::test]
async fn a_panic_is_an_answer() {
    let api = Api::new();
    let broken = Router::new()
        .route(
            "/",
            axum::routing::get(async || -> StatusCode { panic!("on purpose") }),
        )
        .layer(tower_http::catch_panic::CatchPanicLayer::custom(panicked));
    let api = Api {
        router: broken,
        ..api
    };
    api.get("/").await.problem(500, "internal");
}

#[tokio::test]
async fn the_document_and_the_health_are_open() {
    let api = Api::new();
    let open = async |path: &str| {
        api.send(Request::get(path).body(Body::empty()).unwrap())
            .await
            .is(200)
            .json()
    };
    let document = open("/openapi.json").await;
    for (path, method) in [
        ("/v1/apps/{app}", "put"),
        ("/v1/apps", "get"),
        ("/v1/apps/{app}/domains/{host}", "put"),
        ("/v1/apps/{app}/backends/{id}", "delete"),
        ("/v1/apps/{app}/backends/{id}/heartbeat", "post"),
        ("/v1/heartbeats", "post"),
        ("/v1/import", "post"),
        ("/v1/export", "get"),
        ("/v1/watch", "get"),
        ("/v1/tokens/{id}", "delete"),
    ] {
        assert!(
            document["paths"][path][method].is_object(),
            "{method} {path}"
        );
    }
    assert_eq!(
        document["components"]["securitySchemes"]["bearer"]["scheme"],
        "bearer"
    );
    assert_eq!(open("/healthz").await["status"], "ok");
}
