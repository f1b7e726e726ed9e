//! Many at once.

use super::*;

#[tokio::test]
async fn an_import_counts_its_lines_and_names_the_bad_ones() {
    let api = Api::new();
    api.put("/v1/apps/holder", json!({ "domains": ["held.example"] }))
        .await
        .is(201);
    let long = format!(
        "{{\"app\":\"long\",\"domains\":[\"{}\"]}}",
        "x".repeat(request::BODY_MAX_BYTES)
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
async fn an_import_asked_for_lines_tells_how_far_it_is() {
    let api = Api::new();
    let (sender, body) = lines_one_by_one();
    let request = Request::builder()
        .method("POST")
        .uri("/v1/import")
        .header("authorization", format!("Bearer {OPERATOR}"))
        .header("content-type", "application/x-ndjson")
        .header("accept", "application/json;q=0.5, application/x-ndjson")
        .body(body)
        .unwrap();
    sender.send("{\"app\":\"a\"}\n".into()).await.unwrap();
    let response = api.router.clone().oneshot(request).await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(
        response.headers()[header::CONTENT_TYPE],
        "application/x-ndjson"
    );
    let mut told = response.into_body().into_data_stream();
    let mut next =
        async || -> Value { serde_json::from_slice(&told.next().await.unwrap().unwrap()).unwrap() };
    let first = next().await;
    assert_eq!(
        (&first["done"], &first["lines"]),
        (&json!(false), &json!(1))
    );
    sender
        .send("no json\n{\"app\":\"b\"}".into())
        .await
        .unwrap();
    drop(sender);
    let mut last = next().await;
    while last["done"] == false {
        last = next().await;
    }
    let counts = ["lines", "created", "failed"].map(|key| last[key].as_u64().unwrap());
    assert_eq!(counts, [3, 2, 1], "{last}");
    assert_eq!(last["errors"][0]["line"], 2);
    assert!(last["lines_per_second"].as_f64().unwrap() > 0.0);
    assert_eq!(last["problem"], Value::Null);
    assert_eq!(last["revision"], api.state.registry.revision());
}

type Piece = String;

/// A body whose pieces are sent as the test goes.
fn lines_one_by_one() -> (tokio::sync::mpsc::Sender<Piece>, Body) {
    let (sender, pieces) = tokio::sync::mpsc::channel::<Piece>(1);
    let pieces = tokio_stream::wrappers::ReceiverStream::new(pieces);
    let body = Body::from_stream(pieces.map(Ok::<_, std::convert::Infallible>));
    (sender, body)
}
