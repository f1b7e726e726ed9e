//! Following changes.

use super::*;

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

    // What an operator ejects is told as such, and the app shows it.
    api.put("/v1/apps/c", json!({})).await.is(201);
    api.put("/v1/apps/c/backends/w", json!({ "address": "10.0.0.1:1" }))
        .await
        .is(201);
    for ejected in [true, false] {
        let change = api
            .state
            .registry
            .change(move |staging| staging.set_ejected("c", "w", ejected));
        change.await.unwrap();
        let path = format!("/v1/watch?since={}", api.state.registry.revision() - 1);
        let told = watch_until(&api, &path, &[], |text| text.contains("\nid: ")).await;
        let kind = ["backend_readmitted", "backend_ejected"][usize::from(ejected)];
        assert!(told.contains(&format!("\"kind\":\"{kind}\"")), "{told}");
        assert_eq!(told.contains("\"ejected\":true"), ejected, "{told}");
    }
    api.call("DELETE", "/v1/apps/c", None).await.is(200);

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
        text.contains("id: 10")
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
