//! The registration API: who may do what, and what bad input gets.

use serde_json::{Value, json};

use crate::api_apps::problem;
use crate::harness::router::request;
use crate::harness::{Answer, Client, Router};

/// A call with this `Authorization`, or none.
fn call(
    router: &Router,
    method: &str,
    path: &str,
    token: Option<&str>,
    body: Option<&Value>,
) -> Answer {
    let bearer = token.map(|token| format!("Bearer {token}"));
    let mut headers = vec![("Content-Type", "application/json")];
    if let Some(bearer) = &bearer {
        headers.push(("Authorization", bearer));
    }
    let body = body.map(Value::to_string).unwrap_or_default();
    request(router.api(), method, path, &headers, &body)
}

/// Issues a token; gives its id and its secret.
fn issue(router: &Router, scopes: &[&str]) -> (String, String) {
    let answer = router
        .post("/v1/tokens", &json!({ "name": "test", "scopes": scopes }))
        .expect(201);
    let body = answer.json();
    let text = |key: &str| body[key].as_str().map(str::to_owned);
    (
        text("id").unwrap_or_else(|| panic!("no `id`: {body}")),
        text("token").unwrap_or_else(|| panic!("no `token`: {body}")),
    )
}

#[test]
fn without_a_token_nothing_is_done_or_told() {
    let router = Router::start();
    router.serve("shop", &[]);
    let record = json!({ "domains": [] });
    for (method, path, body) in [
        ("GET", "/v1/apps", None),
        ("GET", "/v1/apps/shop", None),
        ("GET", "/v1/export", None),
        ("GET", "/v1/watch", None),
        ("PUT", "/v1/apps/evil", Some(&record)),
        ("DELETE", "/v1/apps/shop", None),
        ("POST", "/v1/tokens", Some(&record)),
        ("POST", "/v1/import", Some(&record)),
        ("POST", "/v1/heartbeats", Some(&record)),
    ] {
        for token in [None, Some("wrong"), Some("")] {
            let answer = call(&router, method, path, token, body);
            problem(&answer, 401);
            assert!(
                answer.header("www-authenticate").is_some(),
                "{method} {path}"
            );
        }
    }
    router.read("/v1/apps/shop").expect(200);
    problem(&router.read("/v1/apps/evil"), 404);
}

#[test]
fn the_token_file_is_for_its_owner_only() {
    use std::os::unix::fs::PermissionsExt;
    let router = Router::start();
    router.token();
    let file = std::fs::metadata(router.state_dir().join("token")).expect("it must be there");
    assert_eq!(file.permissions().mode() & 0o777, 0o600);
}

#[test]
fn an_apps_token_touches_only_that_app() {
    let router = Router::start();
    router.serve("shop", &[]);
    router.serve("blog", &[]);
    let (_, secret) = issue(&router, &["app:shop"]);
    let token = Some(secret.as_str());
    let backend = json!({ "address": "127.0.0.1:9" });
    let wanted = json!({ "name": "more", "scopes": ["operator"] });
    call(
        &router,
        "PUT",
        "/v1/apps/shop/backends/web.1",
        token,
        Some(&backend),
    )
    .expect(201);
    call(&router, "GET", "/v1/apps/shop", token, None).expect(200);
    for (method, path, body) in [
        ("GET", "/v1/apps/blog", None),
        ("PUT", "/v1/apps/blog/backends/web.1", Some(&backend)),
        ("DELETE", "/v1/apps/blog", None),
        ("GET", "/v1/export", None),
        ("POST", "/v1/tokens", Some(&wanted)),
    ] {
        problem(&call(&router, method, path, token, body), 403);
    }
    let beats = json!({ "backends": [["blog", "web.1"]] });
    let answer = call(&router, "POST", "/v1/heartbeats", token, Some(&beats));
    assert!(
        answer.status == 403 || answer.json()["unknown"] == json!([["blog", "web.1"]]),
        "{answer:?}"
    );
    let line = json!({ "app": "blog", "domains": [] }).to_string();
    let bearer = format!("Bearer {secret}");
    let headers = [
        ("Authorization", bearer.as_str()),
        ("Content-Type", "application/x-ndjson"),
    ];
    let answer = request(router.api(), "POST", "/v1/import", &headers, &line);
    assert!(
        answer.status == 403
            || !answer.json()["errors"]
                .as_array()
                .expect("a list")
                .is_empty()
    );
    assert_eq!(
        router.read("/v1/apps/blog").json()["domains"],
        json!(["blog.example"])
    );
}

#[test]
fn a_reading_token_reads_everything_and_changes_nothing() {
    let router = Router::start();
    router.serve("shop", &[]);
    let (_, token) = issue(&router, &["read"]);
    let token = Some(token.as_str());
    call(&router, "GET", "/v1/apps", token, None).expect(200);
    call(&router, "GET", "/v1/export", token, None).expect(200);
    let record = json!({ "domains": [] });
    problem(
        &call(&router, "PUT", "/v1/apps/shop", token, Some(&record)),
        403,
    );
    problem(&call(&router, "DELETE", "/v1/apps/shop", token, None), 403);
    let wanted = json!({ "name": "more", "scopes": ["operator"] });
    problem(
        &call(&router, "POST", "/v1/tokens", token, Some(&wanted)),
        403,
    );
}

#[test]
fn a_removed_token_is_refused_and_an_issued_one_survives_a_restart() {
    let router = Router::start();
    let (kept_id, kept) = issue(&router, &["operator"]);
    let (gone_id, gone) = issue(&router, &["operator"]);
    assert_ne!(kept_id, gone_id);
    call(&router, "GET", "/v1/apps", Some(&gone), None).expect(200);
    let removed = router.delete(&format!("/v1/tokens/{gone_id}"));
    assert!(matches!(removed.status, 200 | 204), "{removed:?}");
    problem(&call(&router, "GET", "/v1/apps", Some(&gone), None), 401);
    problem(&router.delete(&format!("/v1/tokens/{gone_id}")), 404);
    let router = router.stop().start();
    call(&router, "GET", "/v1/apps", Some(&kept), None).expect(200);
    problem(&call(&router, "GET", "/v1/apps", Some(&gone), None), 401);
}

#[test]
fn tokens_are_stored_hashed() {
    let router = Router::start();
    let (_, secret) = issue(&router, &["read"]);
    let setup = router.stop();
    let mut looked_at = 0;
    let mut folders = vec![setup.state_dir()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("readable").flatten() {
            if entry.path().is_dir() {
                folders.push(entry.path());
            } else if let Ok(bytes) = std::fs::read(entry.path()) {
                looked_at += 1;
                let found = crate::harness::find(&bytes, secret.as_bytes());
                assert!(found.is_none(), "the secret stands in {:?}", entry.path());
            }
        }
    }
    assert!(looked_at > 0);
}

#[test]
fn a_bad_scope_is_named() {
    let router = Router::start();
    for scopes in [
        json!(["root"]),
        json!([]),
        json!(["app:Bad Name"]),
        json!("operator"),
    ] {
        let problem = problem(
            &router.post("/v1/tokens", &json!({ "name": "x", "scopes": scopes })),
            400,
        );
        assert!(problem.to_string().contains("scope"), "{problem}");
    }
}

#[test]
fn bad_names_are_refused() {
    let router = Router::start();
    let record = json!({ "domains": [] });
    let too_long = "a".repeat(64);
    for name in [
        "Shop", "1shop", "-shop", "shop_1", "shop.1", "sh%20op", &too_long,
    ] {
        problem(&router.put(&format!("/v1/apps/{name}"), &record), 400);
    }
    router
        .put(&format!("/v1/apps/{}", "a".repeat(63)), &record)
        .expect(201);
}

#[test]
fn a_bad_field_names_itself() {
    let router = Router::start();
    router.serve("shop", &[]);
    for (path, body, field) in [
        ("/v1/apps/x", json!({ "domains": [], "typo": 1 }), "typo"),
        ("/v1/apps/x", json!({ "domains": "a.example" }), "domains"),
        ("/v1/apps/x", json!({ "domains": [1] }), "domains"),
        (
            "/v1/apps/x",
            json!({ "domains": [], "policy": { "typo": 1 } }),
            "typo",
        ),
        (
            "/v1/apps/x",
            json!({ "domains": [], "policy": { "retries": -1 } }),
            "retries",
        ),
        (
            "/v1/apps/x",
            json!({ "domains": [], "policy": { "retries": "two" } }),
            "retries",
        ),
        (
            "/v1/apps/x",
            json!({ "domains": [], "policy": { "connect_timeout": "soon" } }),
            "connect_timeout",
        ),
        (
            "/v1/apps/x",
            json!({ "domains": [], "policy": { "idle_timeout": "-1s" } }),
            "idle_timeout",
        ),
        (
            "/v1/apps/x",
            json!({ "domains": [], "policy": { "max_concurrency": 0 } }),
            "max_concurrency",
        ),
        (
            "/v1/apps/shop/backends/a",
            json!({ "address": "127.0.0.1:9", "typo": 1 }),
            "typo",
        ),
        ("/v1/apps/shop/backends/a", json!({}), "address"),
        (
            "/v1/apps/shop/backends/a",
            json!({ "address": "127.0.0.1:9", "weight": -5 }),
            "weight",
        ),
        (
            "/v1/apps/shop/backends/a",
            json!({ "address": "127.0.0.1:9", "lease_seconds": "x" }),
            "lease_seconds",
        ),
    ] {
        let problem = problem(&router.put(path, &body), 400);
        assert!(
            problem.to_string().contains(field),
            "{body}: `{field}` not named in {problem}"
        );
    }
    problem(&router.read("/v1/apps/x"), 404);
}

#[test]
fn bad_queries_are_refused() {
    let router = Router::start();
    router.serve("shop", &[&crate::harness::Backend::refuses()]);
    for path in ["/v1/apps?limit=many", "/v1/apps?limit=-1"] {
        problem(&router.read(path), 400);
    }
    problem(
        &router.delete("/v1/apps/shop/backends/web.1?drain=soon"),
        400,
    );
    let record = json!({ "domains": ["shop.example"] });
    problem(&router.put("/v1/apps/shop?wait=forever", &record), 400);
    problem(
        &router.put("/v1/apps/shop?wait=active&timeout=x", &record),
        400,
    );
}

#[test]
fn what_is_not_json_or_not_said_to_be_is_refused() {
    let router = Router::start();
    let bearer = format!("Bearer {}", router.token());
    let put = |kind: &str, body: &str| {
        let headers = [("Authorization", bearer.as_str()), ("Content-Type", kind)];
        request(router.api(), "PUT", "/v1/apps/shop", &headers, body)
    };
    problem(&put("application/json", "{"), 400);
    problem(&put("application/json", "[]"), 400);
    problem(&put("application/json", "\u{0}\u{1}"), 400);
    problem(&put("application/json", ""), 400);
    problem(&put("text/plain", "{\"domains\":[]}"), 415);
    problem(&put("application/json", &"[".repeat(100_000)), 400);
    let import = request(
        router.api(),
        "POST",
        "/v1/import",
        &[
            ("Authorization", bearer.as_str()),
            ("Content-Type", "application/json"),
        ],
        "{}",
    );
    problem(&import, 415);
}

#[test]
fn a_body_over_the_limit_is_413() {
    let router = Router::start();
    let mut client = Client::connect(router.api());
    client.send(format!(
        "PUT /v1/apps/shop HTTP/1.1\r\nHost: api\r\nAuthorization: Bearer {}\r\n\
         Content-Type: application/json\r\nContent-Length: 4000000000\r\n\r\n{{",
        router.token()
    ));
    problem(&client.answer(), 413);
    let mut client = Client::connect(router.api());
    client.send(format!(
        "PUT /v1/apps/shop HTTP/1.1\r\nHost: api\r\nAuthorization: Bearer {}\r\n\
         Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n",
        router.token()
    ));
    let chunk = format!("10000\r\n{}\r\n", " ".repeat(0x10000));
    let mut sent = 0;
    while sent < 400 && client.try_send(&chunk) {
        sent += 1;
    }
    assert!(
        sent < 400 || client.answer().status == 413,
        "26 MB were swallowed"
    );
}

#[test]
fn unknown_paths_and_methods_are_problems_too() {
    let router = Router::start();
    problem(&router.read("/v1/nonsense"), 404);
    problem(&router.read("/"), 404);
    problem(&router.call("PATCH", "/v1/apps/shop", &[], None), 405);
}

#[test]
fn garbage_at_the_api_and_admin_ports_harms_nobody() {
    let router = Router::start();
    for address in [router.api(), router.admin()] {
        for bytes in [
            &b"\x16\x03\x01\0\0"[..],
            b"GET\r\n\r\n",
            b"\0\0\0\0\r\n\r\n",
            b"x",
        ] {
            let mut client = Client::connect(address);
            client.try_send(bytes);
            client.finish();
            client.rest();
        }
    }
    router.read("/v1/apps").expect(200);
    router.wait_ready();
}
