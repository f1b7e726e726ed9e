//! Registering: apps, hosts, backends, conditions, and what stays of it.

use super::*;

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
        edge.acked(2, &crate::feed::messages::Ack::default());
    };
    let (answer, ()) = tokio::join!(waiting, routing);
    answer.is(201);
    api.put("/v1/apps/b?wait=active&timeout=1ms", json!({}))
        .await
        .is(200);
}

#[tokio::test]
async fn what_an_operator_ejected_stays_out_until_it_is_another_instance() {
    let api = Api::new();
    let line = json!({ "app": "shop", "domains": [], "policy": {}, "backends": {
        "web.1": { "address": "10.0.0.1:80", "weight": 100, "release": "" } } });
    api.import(&line.to_string()).await;
    let eject = api
        .state
        .registry
        .change(|staging| staging.set_ejected("shop", "web.1", true));
    assert!(eject.await.unwrap().changed);
    let path = "/v1/apps/shop/backends/web.1";
    let ejected = async |api: &Api| api.get(path).await.is(200).json()["ejected"].clone();
    assert_eq!(ejected(&api).await, true);
    let whole = api.get("/v1/apps/shop").await.json();
    assert_eq!(whole["backends"]["web.1"]["ejected"], true);
    let api = api.restart().await;
    assert_eq!(ejected(&api).await, true, "it survives a restart");
    let same = json!({ "address": "10.0.0.1:80", "weight": 50, "release": "v2" });
    assert_eq!(api.put(path, same).await.is(200).json()["ejected"], true);
    // An export says nothing of it, and an import of the same does not end it.
    let exported = api.get("/v1/export").await.json();
    assert_eq!(exported["backends"]["web.1"]["ejected"], Value::Null);
    assert_eq!(api.import(&exported.to_string()).await["unchanged"], 1);
    assert_eq!(ejected(&api).await, true);
    api.put("/v1/apps/shop", json!({ "domains": ["a.example"] }))
        .await
        .is(200);
    assert_eq!(ejected(&api).await, true, "the app's own change keeps it");
    let record = api.state.registry.app("shop").unwrap();
    assert!(record.backends[0].ejected_at_ms > 0);
    let other = json!({ "address": "10.0.0.2:80" });
    let moved = api.put(path, other).await.is(200).json();
    assert_eq!(moved["ejected"], Value::Null, "{moved}");
    let record = api.state.registry.app("shop").unwrap();
    assert_eq!(record.backends[0].ejected_at_ms, 0);
}
