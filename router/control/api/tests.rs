//! The API in process: every status, against a store on disk.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, Request, StatusCode, header};
use futures_util::StreamExt;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::watch;
use tower::ServiceExt;

use super::{ApiState, router};
use crate::control::boot;
use crate::control::events::Events;
use crate::control::fleet::Fleet;
use crate::control::registry::Registry;
use crate::control::tokens::Tokens;
use crate::feed::messages::EdgeHello;

const OPERATOR: &str = "operator-token-of-the-tests";

/// An API over a store of its own.
struct Api {
    router: Router,
    state: ApiState,
    stop: watch::Sender<bool>,
    dir: TempDir,
}

/// An answer, read whole.
struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("a JSON body")
    }

    fn etag(&self) -> String {
        self.headers[header::ETAG].to_str().unwrap().to_owned()
    }

    #[track_caller]
    fn is(self, status: u16) -> Answer {
        let text = String::from_utf8_lossy(&self.body);
        assert_eq!(self.status.as_u16(), status, "{text}");
        self
    }

    /// A problem with this status and code, in the one shape all have.
    #[track_caller]
    fn problem(self, status: u16, code: &str) -> Value {
        let answer = self.is(status);
        assert_eq!(
            answer.headers[header::CONTENT_TYPE],
            "application/problem+json"
        );
        let body = answer.json();
        assert_eq!(body["code"], code, "{body}");
        assert_eq!(body["status"], status);
        assert!(
            body["title"].is_string() && body["detail"].is_string() && body["type"].is_string()
        );
        body
    }
}

impl Api {
    fn new() -> Api {
        Api::at(tempfile::tempdir().unwrap())
    }

    fn at(dir: TempDir) -> Api {
        let events = Arc::<Events>::default();
        let (store, mut contents) = boot::open(dir.path(), &events, |_| None).unwrap();
        let tokens = Arc::new(Tokens::new(OPERATOR, std::mem::take(&mut contents.tokens)));
        let (registry, _writer) = Registry::start(store, contents, tokens).unwrap();
        let fleet = Arc::new(Fleet::new(events.clone()));
        let (stop, stopping) = watch::channel(false);
        let state = ApiState {
            registry,
            fleet,
            events,
            stopping,
        };
        Api {
            router: router(state.clone()),
            state,
            stop,
            dir,
        }
    }

    async fn send(&self, request: Request<Body>) -> Answer {
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
        Answer {
            status: parts.status,
            headers: parts.headers,
            body,
        }
    }

    async fn call_with(
        &self,
        method: &str,
        path: &str,
        body: Option<Value>,
        headers: &[(&str, &str)],
    ) -> Answer {
        let mut request = Request::builder().method(method).uri(path);
        if !headers.iter().any(|(name, _)| *name == "authorization") {
            request = request.header("authorization", format!("Bearer {OPERATOR}"));
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let body = match body {
            None => Body::empty(),
            Some(value) => {
                request = request.header("content-type", "application/json");
                Body::from(value.to_string())
            }
        };
        self.send(request.body(body).unwrap()).await
    }

    async fn call(&self, method: &str, path: &str, body: Option<Value>) -> Answer {
        self.call_with(method, path, body, &[]).await
    }

    async fn as_token(&self, token: &str, method: &str, path: &str, body: Option<Value>) -> Answer {
        let bearer = format!("Bearer {token}");
        self.call_with(method, path, body, &[("authorization", &bearer)])
            .await
    }

    async fn get(&self, path: &str) -> Answer {
        self.call("GET", path, None).await
    }

    async fn put(&self, path: &str, body: Value) -> Answer {
        self.call("PUT", path, Some(body)).await
    }

    async fn import(&self, lines: &str) -> Value {
        let request = Request::post("/v1/import")
            .header("authorization", format!("Bearer {OPERATOR}"))
            .header("content-type", "application/x-ndjson");
        self.send(request.body(Body::from(lines.to_owned())).unwrap())
            .await
            .is(200)
            .json()
    }

    async fn token(&self, scopes: Value) -> String {
        let issued = self
            .call("POST", "/v1/tokens", Some(json!({ "scopes": scopes })))
            .await
            .is(201)
            .json();
        issued["token"].as_str().unwrap().to_owned()
    }

    /// As after a restart of control.
    async fn restart(self) -> Api {
        let Api {
            router,
            state,
            stop,
            dir,
        } = self;
        drop((router, stop));
        state.registry.close().await;
        Api::at(dir)
    }
}

#[tokio::test]
async fn an_app_is_created_replaced_read_and_removed() {
    let api = Api::new();
    let body = json!({ "domains": ["Shop.Example", "*.shop.example"], "policy": { "retries": 1, "idle_timeout": "90s" } });
    let created = api.put("/v1/apps/shop", body.clone()).await.is(201);
    assert_eq!(created.json()["revision"], 1);
    assert_eq!(
        created.json()["domains"],
        json!(["shop.example", "*.shop.example"])
    );
    assert_eq!(
        created.json()["policy"],
        json!({ "retries": 1, "idle_timeout": "90s" })
    );
    let same = api.put("/v1/apps/shop", body).await.is(200);
    assert_eq!(same.json()["revision"], 1, "the same again is no change");
    assert_eq!(same.etag(), created.etag());
    let replaced = api
        .put("/v1/apps/shop", json!({ "domains": ["new.example"] }))
        .await
        .is(200);
    assert_eq!(replaced.json()["revision"], 2);
    assert_eq!(replaced.json()["policy"], json!({}));
    let read = api.get("/v1/apps/shop").await.is(200);
    assert_eq!(read.json(), replaced.json());
    assert_eq!(read.etag(), "\"2\"");
    api.call_with("GET", "/v1/apps/shop", None, &[("if-none-match", "\"2\"")])
        .await
        .is(304);
    let removed = api.call("DELETE", "/v1/apps/shop", None).await.is(200);
    assert_eq!(removed.json()["revision"], 3);
    api.get("/v1/apps/shop").await.problem(404, "app_not_found");
    api.call("DELETE", "/v1/apps/shop", None)
        .await
        .problem(404, "app_not_found");
    // Its hosts are free again, and it begins anew.
    api.put("/v1/apps/other", json!({ "domains": ["new.example"] }))
        .await
        .is(201);
}

#[tokio::test]
async fn a_host_has_one_holder() {
    let api = Api::new();
    api.put("/v1/apps/a", json!({ "domains": ["x.example"] }))
        .await
        .is(201);
    api.put("/v1/apps/b", json!({})).await.is(201);
    let taken = api
        .put("/v1/apps/b", json!({ "domains": ["X.example."] }))
        .await
        .problem(409, "host_taken");
    assert_eq!(
        (taken["holder"].as_str(), taken["host"].as_str()),
        (Some("a"), Some("x.example"))
    );
    let taken = api
        .call("PUT", "/v1/apps/b/domains/x.example", None)
        .await
        .problem(409, "host_taken");
    assert_eq!(taken["holder"], "a");
    api.call("PUT", "/v1/apps/a/domains/x.example", None)
        .await
        .is(200);
    let claimed = api
        .call("PUT", "/v1/apps/b/domains/*.Example", None)
        .await
        .is(201)
        .json();
    assert_eq!(claimed["domain"], "*.example");
    api.call("PUT", "/v1/apps/b/domains/x.example/api", None)
        .await
        .is(201);
    api.call("PUT", "/v1/apps/b/domains/x.example%2Fv2", None)
        .await
        .is(201);
    assert_eq!(
        api.get("/v1/apps/b").await.json()["domains"],
        json!(["*.example", "x.example/api", "x.example/v2"])
    );
    api.call("DELETE", "/v1/apps/b/domains/x.example", None)
        .await
        .problem(404, "domain_not_found");
    api.call("DELETE", "/v1/apps/a/domains/x.example", None)
        .await
        .is(200);
    api.call("PUT", "/v1/apps/b/domains/x.example", None)
        .await
        .is(201);
    api.call("PUT", "/v1/apps/none/domains/y.example", None)
        .await
        .problem(404, "app_not_found");
}

#[tokio::test]
async fn backends_are_registered_renewed_and_removed() {
    let api = Api::new();
    let one = "/v1/apps/shop/backends/web.1";
    api.put(one, json!({ "address": "127.0.0.1:9001" }))
        .await
        .problem(404, "app_not_found");
    api.put("/v1/apps/shop", json!({ "domains": ["shop.example"] }))
        .await
        .is(201);
    let body =
        json!({ "address": "127.0.0.1:9001", "weight": 50, "release": "v1", "lease_seconds": 30 });
    let registered = api.put(one, body.clone()).await.is(201).json();
    assert_eq!(registered["standing"], "active");
    let renewed = api.put(one, body).await.is(200).json();
    assert_eq!(renewed, registered);
    api.call("POST", &format!("{one}/heartbeat"), None)
        .await
        .is(204);
    let moved = api
        .put(one, json!({ "address": "[::1]:9001" }))
        .await
        .is(200)
        .json();
    assert_eq!(
        (moved["revision"].as_u64(), moved["weight"].as_u64()),
        (Some(3), Some(100))
    );
    assert_eq!(moved.get("lease_seconds"), None);
    api.call("POST", &format!("{one}/heartbeat"), None)
        .await
        .is(204);
    // Replacing the app keeps its backends.
    api.put("/v1/apps/shop", json!({})).await.is(200);
    let app = api.get("/v1/apps/shop").await.json();
    assert_eq!(app["backends"]["web.1"]["address"], "[::1]:9001");
    let draining = api
        .call("DELETE", &format!("{one}?drain=30s"), None)
        .await
        .is(200)
        .json();
    assert_eq!(draining["standing"], "draining");
    let gone = api.call("DELETE", one, None).await.is(200).json();
    assert_eq!(gone.get("standing"), None);
    api.call("DELETE", one, None)
        .await
        .problem(404, "backend_not_found");
    api.get(one).await.problem(404, "backend_not_found");
    api.call("POST", &format!("{one}/heartbeat"), None)
        .await
        .problem(404, "backend_not_found");
    api.call("POST", "/v1/apps/none/backends/web.1/heartbeat", None)
        .await
        .problem(404, "app_not_found");
}

#[tokio::test]
async fn many_heartbeats_at_once_say_who_must_register_again() {
    let api = Api::new();
    api.put("/v1/apps/a", json!({})).await.is(201);
    api.put(
        "/v1/apps/a/backends/w1",
        json!({ "address": "10.0.0.1:1", "lease_seconds": 5 }),
    )
    .await
    .is(201);
    api.put("/v1/apps/a/backends/w2", json!({ "address": "10.0.0.2:1" }))
        .await
        .is(201);
    let told = json!({ "backends": [["a", "w1"], ["a", "w2"], ["a", "w3"], ["b", "w1"]] });
    let revision = api.state.registry.revision();
    let heard = api
        .call("POST", "/v1/heartbeats", Some(told))
        .await
        .is(200)
        .json();
    assert_eq!(
        heard,
        json!({ "renewed": 2, "unknown": [["a", "w3"], ["b", "w1"]] })
    );
    assert_eq!(
        api.state.registry.revision(),
        revision,
        "a renewal is no revision"
    );
    let many = json!({ "backends": vec![["a", "w1"]; 10_001] });
    api.call("POST", "/v1/heartbeats", Some(many))
        .await
        .problem(422, "too_many");
}

#[tokio::test]
async fn a_lost_race_is_told() {
    let api = Api::new();
    let create_only = [("if-none-match", "*")];
    let first = api
        .call_with("PUT", "/v1/apps/a", Some(json!({})), &create_only)
        .await
        .is(201)
        .etag();
    let lost = api
        .call_with("PUT", "/v1/apps/a", Some(json!({})), &create_only)
        .await
        .problem(412, "precondition_failed");
    assert_eq!(lost["revision"], 1);
    let at_first = [("if-match", first.as_str())];
    let body = Some(json!({ "domains": ["a.example"] }));
    api.call_with("PUT", "/v1/apps/a", body.clone(), &at_first)
        .await
        .is(200);
    api.call_with("PUT", "/v1/apps/a", body, &at_first)
        .await
        .problem(412, "precondition_failed");
    api.call_with("DELETE", "/v1/apps/a", None, &at_first)
        .await
        .problem(412, "precondition_failed");
    api.call_with("PUT", "/v1/apps/a/domains/b.example", None, &at_first)
        .await
        .problem(412, "precondition_failed");
    api.call_with("PUT", "/v1/apps/b", Some(json!({})), &[("if-match", "*")])
        .await
        .problem(412, "precondition_failed");
    api.call_with(
        "DELETE",
        "/v1/apps/a",
        None,
        &[("if-match", "\"9\", \"2\"")],
    )
    .await
    .is(200);
}

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
        "a".repeat(super::request::BODY_MAX_BYTES)
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
async fn only_known_callers_within_their_scopes() {
    let api = Api::new();
    for header in ["Bearer wrong", "Bearer ", "Basic b3BlcmF0b3I6", "nonsense"] {
        let refused = api
            .call_with("GET", "/v1/apps", None, &[("authorization", header)])
            .await;
        assert_eq!(
            refused.headers[header::WWW_AUTHENTICATE],
            "Bearer realm=\"portico\""
        );
        refused.problem(401, "unauthorized");
    }
    let bare = api
        .send(Request::get("/v1/apps").body(Body::empty()).unwrap())
        .await;
    bare.problem(401, "unauthorized");

    api.put("/v1/apps/shop", json!({})).await.is(201);
    api.put("/v1/apps/other", json!({})).await.is(201);
    let shop = api.token(json!(["app:shop"])).await;
    let reader = api.token(json!(["read"])).await;
    let backend = Some(json!({ "address": "10.0.0.1:1", "lease_seconds": 9 }));
    api.as_token(&shop, "PUT", "/v1/apps/shop/backends/w", backend.clone())
        .await
        .is(201);
    api.as_token(&shop, "POST", "/v1/apps/shop/backends/w/heartbeat", None)
        .await
        .is(204);
    api.as_token(&shop, "GET", "/v1/apps/shop", None)
        .await
        .is(200);
    let own = Some(json!({ "backends": [["shop", "w"]] }));
    api.as_token(&shop, "POST", "/v1/heartbeats", own.clone())
        .await
        .is(200);
    for (method, path, body) in [
        ("PUT", "/v1/apps/other", Some(json!({}))),
        ("GET", "/v1/apps/other", None),
        ("DELETE", "/v1/apps/other", None),
        ("PUT", "/v1/apps/other/backends/w", backend),
        ("POST", "/v1/apps/other/backends/w/heartbeat", None),
        (
            "POST",
            "/v1/heartbeats",
            Some(json!({ "backends": [["shop", "w"], ["other", "w"]] })),
        ),
        ("GET", "/v1/apps", None),
        ("GET", "/v1/export", None),
        ("POST", "/v1/import", None),
        (
            "POST",
            "/v1/tokens",
            Some(json!({ "scopes": ["operator"] })),
        ),
        ("GET", "/v1/tokens", None),
        ("DELETE", "/v1/tokens/x", None),
    ] {
        api.as_token(&shop, method, path, body)
            .await
            .problem(403, "forbidden");
    }
    api.as_token(&reader, "GET", "/v1/apps", None).await.is(200);
    api.as_token(&reader, "GET", "/v1/export", None)
        .await
        .is(200);
    api.as_token(&reader, "PUT", "/v1/apps/shop", Some(json!({})))
        .await
        .problem(403, "forbidden");
    api.as_token(&reader, "POST", "/v1/heartbeats", own)
        .await
        .problem(403, "forbidden");
}

#[tokio::test]
async fn tokens_are_issued_once_kept_hashed_and_withdrawn() {
    let api = Api::new();
    let body = json!({ "scopes": ["app:shop", "read"], "name": "deploy" });
    let issued = api
        .call("POST", "/v1/tokens", Some(body))
        .await
        .is(201)
        .json();
    let (id, secret) = (
        issued["id"].as_str().unwrap(),
        issued["secret"].as_str().unwrap().to_owned(),
    );
    for (body, field) in [
        (json!({ "scopes": [] }), "scopes"),
        (json!({ "scopes": ["app:Bad"] }), "scopes[0]"),
        (json!({ "scopes": ["read", "all"] }), "scopes[1]"),
        (json!({ "scopes": ["read"], "name": "a\tb" }), "name"),
        (json!({ "scopes": ["read"], "ttl": 1 }), "ttl"),
        (json!({}), "scopes"),
    ] {
        assert_eq!(
            api.call("POST", "/v1/tokens", Some(body))
                .await
                .is(400)
                .json()["field"],
            field
        );
    }
    let api = api.restart().await;
    let disk = std::fs::read(api.dir.path().join("store.redb")).unwrap();
    assert!(memchr::memmem::find(&disk, id.as_bytes()).is_some());
    assert!(
        memchr::memmem::find(&disk, secret.as_bytes()).is_none(),
        "a secret is on disk"
    );
    api.as_token(&secret, "GET", "/v1/apps", None).await.is(200);
    let list = api.get("/v1/tokens").await.is(200);
    assert!(!String::from_utf8_lossy(&list.body).contains(&secret));
    assert_eq!(list.json()["tokens"][0]["name"], "deploy");
    api.call("DELETE", &format!("/v1/tokens/{id}"), None)
        .await
        .is(200);
    api.as_token(&secret, "GET", "/v1/apps", None)
        .await
        .problem(401, "unauthorized");
    api.call("DELETE", &format!("/v1/tokens/{id}"), None)
        .await
        .problem(404, "token_not_found");
}

#[tokio::test]
async fn apps_are_listed_in_pages_by_name() {
    let api = Api::new();
    let lines: String = (0..25)
        .map(|n| format!("{{\"app\":\"app-{n:02}\"}}\n"))
        .collect();
    api.import(&lines).await;
    let (mut names, mut after) = (Vec::new(), String::new());
    loop {
        let page = api
            .get(&format!("/v1/apps?limit=10&after={after}"))
            .await
            .is(200)
            .json();
        names.extend(
            page["apps"]
                .as_array()
                .unwrap()
                .iter()
                .map(|app| app["app"].as_str().unwrap().to_owned()),
        );
        match page["next"].as_str() {
            Some(next) => after = next.to_owned(),
            None => break,
        }
    }
    assert_eq!(
        names,
        (0..25).map(|n| format!("app-{n:02}")).collect::<Vec<_>>()
    );
}

#[tokio::test]
async fn an_import_counts_its_lines_and_names_the_bad_ones() {
    let api = Api::new();
    api.put("/v1/apps/holder", json!({ "domains": ["held.example"] }))
        .await
        .is(201);
    let long = format!(
        "{{\"app\":\"long\",\"domains\":[\"{}\"]}}",
        "x".repeat(super::request::BODY_MAX_BYTES)
    );
    let lines = [
        r#"{"app":"a","domains":["a.example"],"backends":{"web.1":{"address":"10.0.0.1:80","weight":7,"release":"v1"}}}"#,
        "",
        r#"{"app":"b","domains":["a.example"]}"#,
        r#"{"app":"c","domain":[]}"#,
        "not json",
        r#"{"app":"d","backends":{"w":{"address":"nowhere"}}}"#,
        r#"{"app":"e","domains":["held.example"]}"#,
        &long,
        "  \r",
        r#"{"app":"holder","domains":["held.example"]}"#,
        r#"{"app":"f"}"#,
    ];
    let done = api.import(&lines.join("\n")).await;
    let counts = ["lines", "created", "updated", "unchanged", "failed"]
        .map(|key| done[key].as_u64().unwrap());
    assert_eq!(counts, [9, 2, 0, 1, 6], "{done}");
    let errors: Vec<(u64, &str)> = done["errors"]
        .as_array()
        .unwrap()
        .iter()
        .map(|error| {
            (
                error["line"].as_u64().unwrap(),
                error["code"].as_str().unwrap(),
            )
        })
        .collect();
    assert_eq!(
        {
            let mut sorted = errors.clone();
            sorted.sort_unstable();
            sorted
        },
        [
            (3, "host_taken"),
            (4, "unknown_field"),
            (5, "invalid_json"),
            (6, "invalid_field"),
            (7, "host_taken"),
            (8, "line_too_long"),
        ]
    );
    assert_eq!(done["revision"], api.state.registry.revision());
    let again = api.import(lines[0]).await;
    assert_eq!(
        (again["unchanged"].as_u64(), &again["revision"]),
        (Some(1), &done["revision"])
    );
    let request = Request::post("/v1/import").header("authorization", format!("Bearer {OPERATOR}"));
    let request = request
        .header("content-type", "application/json")
        .body(Body::empty())
        .unwrap();
    api.send(request)
        .await
        .problem(415, "unsupported_media_type");
}

#[tokio::test]
async fn an_export_imports_back_the_same() {
    let api = Api::new();
    let lines: String = (0..1_203)
        .map(|n| {
            let body = json!({
                "app": format!("app-{n:04}"), "domains": [format!("{n}.example"), format!("*.{n}.example")],
                "policy": { "retries": n % 5, "maintenance": n % 2 == 0 },
                "backends": { "w": { "address": "10.0.0.1:80", "weight": 9, "release": "r", "lease_seconds": 60 } },
            });
            format!("{body}\n")
        })
        .collect();
    let done = api.import(&lines).await;
    assert_eq!(
        (done["created"].as_u64(), done["failed"].as_u64()),
        (Some(1_203), Some(0))
    );
    let exported = api.get("/v1/export").await.is(200);
    assert_eq!(
        exported.headers[header::CONTENT_TYPE],
        "application/x-ndjson"
    );
    let text = String::from_utf8(exported.body.to_vec()).unwrap();
    assert_eq!(text.lines().count(), 1_203);
    let back = api.import(&text).await;
    assert_eq!(back["unchanged"], 1_203, "{back}");
    let other = Api::new();
    assert_eq!(other.import(&text).await["created"], 1_203);
    let again = other.get("/v1/export").await.is(200);
    assert_eq!(again.body, exported.body);
}

#[tokio::test]
async fn what_was_acknowledged_is_there_after_a_restart() {
    let api = Api::new();
    api.put(
        "/v1/apps/a",
        json!({ "domains": ["a.example"], "policy": { "queue": 3 } }),
    )
    .await
    .is(201);
    api.put(
        "/v1/apps/a/backends/w",
        json!({ "address": "10.0.0.1:1", "lease_seconds": 3 }),
    )
    .await
    .is(201);
    api.put("/v1/apps/gone", json!({ "domains": ["gone.example"] }))
        .await
        .is(201);
    api.call("DELETE", "/v1/apps/gone", None).await.is(200);
    let before = api.get("/v1/apps").await.json();
    let api = api.restart().await;
    assert_eq!(api.get("/v1/apps").await.json(), before);
    assert_eq!(api.state.registry.revision(), 4);
    api.put("/v1/apps/b", json!({ "domains": ["a.example"] }))
        .await
        .problem(409, "host_taken");
    api.put("/v1/apps/b", json!({ "domains": ["gone.example"] }))
        .await
        .is(201);
    assert_eq!(api.state.registry.leases().0, 1);
}

#[tokio::test]
async fn a_panic_is_an_answer() {
    let api = Api::new();
    let broken = Router::new()
        .route(
            "/",
            axum::routing::get(async || -> StatusCode { panic!("on purpose") }),
        )
        .layer(tower_http::catch_panic::CatchPanicLayer::custom(
            super::panicked,
        ));
    let api = Api {
        router: broken,
        ..api
    };
    api.get("/").await.problem(500, "internal");
}

#[tokio::test]
async fn waiting_for_active_needs_every_edge() {
    let api = Api::new();
    let late = api
        .put("/v1/apps/a?wait=active&timeout=20ms", json!({}))
        .await
        .problem(504, "not_active_in_time");
    assert_eq!(late["revision"], 1);
    assert!(
        late["detail"].as_str().unwrap().contains("stands"),
        "{late}"
    );
    api.get("/v1/apps/a").await.is(200);
    let (edge, _asks) = api.state.fleet.admit(&EdgeHello::default(), Some(1));
    let mut head = api.state.registry.head();
    let waiting = api.put("/v1/apps/b?wait=active&timeout=10s", json!({}));
    let routing = async {
        head.wait_for(|revision| *revision == 2).await.unwrap();
        edge.acked(2, 2);
    };
    let (answer, ()) = tokio::join!(waiting, routing);
    answer.is(201);
    api.put("/v1/apps/b?wait=active&timeout=1ms", json!({}))
        .await
        .is(200);
}

/// Reads events off a watch until one satisfies `enough`.
async fn watch_until(
    api: &Api,
    path: &str,
    headers: &[(&str, &str)],
    enough: impl Fn(&str) -> bool,
) -> String {
    let mut request = Request::get(path);
    if !headers.iter().any(|(name, _)| *name == "authorization") {
        request = request.header("authorization", format!("Bearer {OPERATOR}"));
    }
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let response = api
        .router
        .clone()
        .oneshot(request.body(Body::empty()).unwrap())
        .await
        .unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(
        response.headers()[header::CONTENT_TYPE],
        "text/event-stream"
    );
    let mut chunks = response.into_body().into_data_stream();
    let mut text = String::new();
    let reading = async {
        while !enough(&text) {
            match chunks.next().await {
                Some(chunk) => text.push_str(std::str::from_utf8(&chunk.unwrap()).unwrap()),
                None => break,
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(10), reading)
        .await
        .expect("events in time");
    text
}

#[tokio::test]
async fn a_watch_resumes_where_it_was_and_says_when_it_cannot() {
    let api = Api::new();
    api.put("/v1/apps/a", json!({ "domains": ["a.example"] }))
        .await
        .is(201);
    api.put("/v1/apps/a/backends/w", json!({ "address": "10.0.0.1:1" }))
        .await
        .is(201);
    api.call("DELETE", "/v1/apps/a", None).await.is(200);
    let all = watch_until(&api, "/v1/watch?since=0", &[], |text| {
        text.contains("id: 3")
    })
    .await;
    assert_eq!(all.matches("event: change").count(), 3, "{all}");
    assert!(all.contains("app_put") && all.contains("backend_put") && all.contains("app_deleted"));
    let rest = watch_until(
        &api,
        "/v1/watch?since=0",
        &[("last-event-id", "2")],
        |text| text.contains("id: 3"),
    )
    .await;
    assert_eq!(rest.matches("event: change").count(), 1, "{rest}");
    api.get("/v1/watch?since=99")
        .await
        .problem(410, "compacted");
    api.call_with("GET", "/v1/watch", None, &[("last-event-id", "x")])
        .await
        .problem(400, "invalid_field");

    // Live, over a restart, and only what the caller may see.
    let api = api.restart().await;
    let token = format!("Bearer {}", api.token(json!(["app:b"])).await);
    let changing = async {
        tokio::task::yield_now().await;
        api.put("/v1/apps/other", json!({})).await.is(201);
        api.put("/v1/apps/b", json!({})).await.is(201);
    };
    let scoped = [("authorization", token.as_str())];
    let watching = watch_until(&api, "/v1/watch?since=2", &scoped, |text| {
        text.contains("id: 5")
    });
    let (seen, ()) = tokio::join!(watching, changing);
    assert_eq!(seen.matches("event: change").count(), 1, "{seen}");
    assert!(!seen.contains("other"), "{seen}");

    // A stop ends it.
    let stopping = async {
        tokio::task::yield_now().await;
        api.stop.send_replace(true);
    };
    let (_, ()) = tokio::join!(watch_until(&api, "/v1/watch", &[], |_| false), stopping);
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
