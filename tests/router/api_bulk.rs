//! The registration API: import, export, watch.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;

use serde_json::{Value, json};

use crate::api_apps::problem;
use crate::harness::router::request;
use crate::harness::{Answer, Backend, DEADLINE, Router};

fn import(router: &Router, text: &str) -> Answer {
    let bearer = format!("Bearer {}", router.token());
    let headers = [
        ("Authorization", bearer.as_str()),
        ("Content-Type", "application/x-ndjson"),
    ];
    request(
        router.api(),
        "POST",
        "/v1/import?wait=active&timeout=15s",
        &headers,
        text,
    )
}

#[test]
fn what_is_exported_imports_the_same() {
    let router = Router::start();
    let backend = Backend::named("moved");
    let line = json!({
        "app": "shop",
        "domains": ["shop.example", "*.shop.example"],
        "policy": { "retries": 1, "first_byte_timeout": "7s" },
        "backends": {
            "web.1": { "address": backend.address().to_string(), "weight": 70, "release": "v3" },
            "web.2": { "address": "127.0.0.1:9", "weight": 0, "release": "" },
        },
    });
    let plain = json!({ "app": "blog", "domains": ["blog.example"] });
    import(&router, &format!("{line}\n{plain}\n")).expect(200);
    let export = router.read("/v1/export").expect(200);
    assert!(
        export
            .header("content-type")
            .is_some_and(|kind| kind.starts_with("application/x-ndjson")),
        "{export:?}"
    );
    let lines: Vec<Value> = export
        .text()
        .lines()
        .map(|line| serde_json::from_str(line).expect("each line must be JSON"))
        .collect();
    assert_eq!(lines.len(), 2);
    assert_eq!(lines[0]["app"], "blog");
    assert_eq!(lines[1]["domains"], line["domains"]);
    assert_eq!(lines[1]["policy"], line["policy"]);
    assert_eq!(lines[1]["backends"]["web.1"]["weight"], 70);

    let second = Router::start();
    import(&second, &export.text()).expect(200);
    assert_eq!(second.read("/v1/export").expect(200).text(), export.text());
    assert_eq!(second.get("shop", "/").expect(200).text(), "moved");
}

#[test]
fn good_lines_of_an_import_count_and_bad_ones_are_named() {
    let router = Router::start();
    let text = [
        r#"{"app":"one","domains":["one.example"]}"#,
        r#"{"app":"Bad Name","domains":[]}"#,
        "not json",
        r#"{"app":"two","domains":["two.example"],"typo":1}"#,
        r#"{"app":"three","domains":["one.example"]}"#,
        "",
        r#"{"app":"four","domains":["four.example"]}"#,
    ]
    .join("\n");
    let answer = import(&router, &text).expect(200).json();
    let errors = answer["errors"]
        .as_array()
        .unwrap_or_else(|| panic!("no `errors`: {answer}"));
    let lines: Vec<u64> = errors
        .iter()
        .filter_map(|error| error["line"].as_u64())
        .collect();
    assert_eq!(lines, [2, 3, 4, 5], "{answer}");
    router.read("/v1/apps/one").expect(200);
    router.read("/v1/apps/four").expect(200);
    for app in ["two", "three"] {
        problem(&router.read(&format!("/v1/apps/{app}")), 404);
    }
}

#[test]
fn ten_thousand_apps_are_imported_and_routed() {
    let router = Router::start();
    let backend = Backend::named("one of many");
    let address = backend.address();
    let text: String = (0..10_000)
        .map(|number| {
            format!(
                "{{\"app\":\"app-{number}\",\"domains\":[\"h{number}.test\"],\
                 \"backends\":{{\"web.1\":{{\"address\":\"{address}\"}}}}}}\n"
            )
        })
        .collect();
    import(&router, &text).expect(200);
    for number in [0, 1, 4_999, 9_999] {
        let answer = router.send(format!("GET / HTTP/1.1\r\nHost: h{number}.test\r\n\r\n"));
        assert_eq!(answer.expect(200).text(), "one of many");
    }
    assert_eq!(
        router.read("/v1/export").expect(200).text().lines().count(),
        10_000
    );
}

/// An event stream being read.
struct Watch {
    lines: BufReader<TcpStream>,
}

impl Watch {
    fn open(router: &Router, since: &str) -> Watch {
        let mut stream = TcpStream::connect(router.api()).expect("the API must listen");
        stream.set_read_timeout(Some(DEADLINE)).expect("settable");
        let text = format!(
            "GET /v1/watch?since={since} HTTP/1.1\r\nHost: api\r\nAuthorization: Bearer {}\r\n\
             Accept: text/event-stream\r\n\r\n",
            router.token()
        );
        stream
            .write_all(text.as_bytes())
            .expect("the API must read");
        let mut watch = Watch {
            lines: BufReader::new(stream),
        };
        let status = watch.line();
        assert!(status.starts_with("HTTP/1.1 200"), "{status}");
        let mut streams = false;
        loop {
            let line = watch.line().to_ascii_lowercase();
            streams |= line.starts_with("content-type: text/event-stream");
            if line.is_empty() {
                break;
            }
        }
        assert!(streams, "not an event stream");
        watch
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        let count = self
            .lines
            .read_line(&mut line)
            .expect("the stream must go on");
        assert!(count > 0, "the stream ended");
        line.trim_end().to_owned()
    }

    /// Reads on until a line says this; gives the last event id seen.
    fn until(&mut self, word: &str) -> Option<String> {
        let mut id = None;
        loop {
            let line = self.line();
            if let Some(value) = line.strip_prefix("id:") {
                id = Some(value.trim().to_owned());
            }
            if line.starts_with("data:") && line.contains(word) {
                return id;
            }
        }
    }
}

#[test]
fn a_watch_tells_of_changes_and_resumes_where_it_was() {
    let router = Router::start();
    let put = |app: &str| {
        let answer = router
            .put(&format!("/v1/apps/{app}"), &json!({ "domains": [] }))
            .expect(201);
        crate::api_apps::revision(&answer)
    };
    let start = put("first");
    let mut watch = Watch::open(&router, &start.to_string());
    put("second");
    watch.until("second");
    let seen = put("third");
    watch.until("third");
    drop(watch);
    put("fourth");
    router.delete("/v1/apps/first").expect(200);
    let mut resumed = Watch::open(&router, &seen.to_string());
    resumed.until("fourth");
    resumed.until("first");
}

/// The status of a watch from there; a stream is not read on.
fn watch_status(router: &Router, since: &str) -> u16 {
    let mut client = crate::harness::Client::connect(router.api());
    client.send(format!(
        "GET /v1/watch?since={since} HTTP/1.1\r\nHost: api\r\nAuthorization: Bearer {}\r\n\r\n",
        router.token()
    ));
    client.head().expect("an answer must come").status
}

#[test]
fn a_watch_from_before_what_is_kept_is_410() {
    let router = Router::start();
    router.serve("shop", &[]);
    assert_eq!(watch_status(&router, "1"), 200);
    // More changes than any bounded log keeps, in batches that a busy machine
    // takes in time.
    for round in 0..24 {
        let text: String = (0..10_000)
            .map(|number| {
                format!(
                    "{{\"app\":\"app-{number}\",\"domains\":[\"r{round}-{number}.test\"],\
                     \"backends\":{{\"web.1\":{{\"address\":\"127.0.0.1:{}\"}}}}}}\n",
                    round + 1
                )
            })
            .collect();
        import(&router, &text).expect(200);
    }
    assert_eq!(watch_status(&router, "1"), 410);
}

#[test]
fn a_watch_from_another_life_is_410_and_from_nonsense_400() {
    let router = Router::start();
    router.serve("shop", &[]);
    assert_eq!(watch_status(&router, "1000000"), 410);
    assert_eq!(watch_status(&router, "nonsense"), 400);
}
