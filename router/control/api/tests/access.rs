//! Who may do what.

use super::*;

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
