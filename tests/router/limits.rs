//! Sizes at their limit pass, one more is refused, on both sides.

use crate::harness::{Answer, Backend, Router, eventually};

/// A GET with this target and these header lines.
fn get(target: &str, headers: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: shop.example\r\n{headers}\r\n")
}

/// Sends, allowing for a refusal before all is read; gives the answer, after
/// which the connection must close if it is a refusal.
#[track_caller]
fn ask(router: &Router, request: &str) -> Answer {
    let mut client = router.client();
    client.try_send(request);
    let answer = client.answer();
    if answer.status >= 400 {
        assert_eq!(answer.header("connection"), Some("close"), "{answer:?}");
        client.closed();
    }
    answer
}

fn padded(target_length: usize) -> String {
    format!("/{}", "x".repeat(target_length - 1))
}

#[test]
fn a_request_line_has_a_limit_of_8192_bytes() {
    let router = Router::start();
    let backend = Backend::named("ok");
    router.serve("shop", &[&backend]);
    // `GET `, the target, ` HTTP/1.1`: the line without its CRLF.
    let room = 8192 - "GET  HTTP/1.1".len();
    ask(&router, &get(&padded(room - 2), "")).expect(200);
    let connections = backend.connections();
    ask(&router, &get(&padded(room + 3), "")).refused(414, "H26");
    ask(&router, &get(&padded(100_000), "")).refused(414, "H26");
    ask(&router, &get(&padded(2_000_000), "")).refused(414, "H26");
    assert_eq!(backend.connections(), connections);
}

#[test]
fn a_header_line_has_a_limit_of_8192_bytes() {
    let router = Router::start();
    let backend = Backend::named("ok");
    router.serve("shop", &[&backend]);
    let line = |length: usize| format!("X-Long: {}\r\n", "v".repeat(length - "X-Long: ".len()));
    ask(&router, &get("/", &line(8190))).expect(200);
    ask(&router, &get("/", &line(8195))).refused(431, "H26");
    ask(&router, &get("/", &line(60_000))).refused(431, "H26");
    ask(&router, &get("/", &line(1_000_000))).refused(431, "H26");
    assert_eq!(backend.requests().len(), 1);
}

#[test]
fn a_request_has_a_limit_of_100_headers() {
    let router = Router::start();
    let backend = Backend::named("ok");
    router.serve("shop", &[&backend]);
    let headers = |count: usize| {
        (0..count)
            .map(|n| format!("X-{n}: v\r\n"))
            .collect::<String>()
    };
    // Host is one of the hundred.
    ask(&router, &get("/", &headers(99))).expect(200);
    ask(&router, &get("/", &headers(100))).refused(431, "H26");
    ask(&router, &get("/", &headers(5000))).refused(431, "H26");
    assert_eq!(backend.requests().len(), 1);
}

#[test]
fn a_whole_head_has_a_limit_of_64_kib() {
    let router = Router::start();
    let backend = Backend::named("ok");
    router.serve("shop", &[&backend]);
    let headers = |count: usize| {
        (0..count)
            .map(|n| format!("X-{n}: {}\r\n", "v".repeat(8000)))
            .collect::<String>()
    };
    ask(&router, &get("/", &headers(8))).expect(200);
    ask(&router, &get("/", &headers(9))).refused(431, "H26");
    ask(&router, &get("/", &headers(90))).refused(431, "H26");
    assert_eq!(backend.requests().len(), 1);
}

#[test]
fn an_endless_head_is_refused_not_collected() {
    let router = Router::start();
    let mut client = router.client();
    client.send("GET / HTTP/1.1\r\n");
    let line = format!("X-Fill: {}\r\n", "v".repeat(1000)).repeat(100);
    let mut sent = 0;
    while sent < 20_000_000 && client.try_send(&line) {
        sent += line.len();
    }
    assert!(sent < 20_000_000, "20 MB of head were swallowed");
}

#[test]
fn a_refusal_over_a_limit_is_logged_with_its_cause() {
    let router = Router::start();
    let headers: String = (0..150).map(|n| format!("X-{n}: v\r\n")).collect();
    ask(&router, &get("/many", &headers)).refused(431, "H26");
    let line = eventually("the refusal is logged", || {
        router
            .log()
            .lines()
            .map(crate::harness::logs::logfmt)
            .find(|line| line.get("code").is_some_and(|code| code == "H26"))
    });
    assert_eq!(line["status"], "431");
    assert_eq!(line["fault"], "client");
    assert!(!line["cause"].is_empty(), "{line:?}");
}

#[test]
fn an_answers_head_may_have_a_thousand_headers_and_no_more() {
    let router = Router::start();
    let answer = |count: usize| {
        let headers: String = (0..count).map(|n| format!("X-{n}: v\r\n")).collect();
        format!("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n{headers}\r\nok")
    };
    let (fits, breaks) = (Backend::says(answer(990)), Backend::says(answer(1100)));
    router.serve("fits", &[&fits]);
    router.serve("breaks", &[&breaks]);
    let whole = router.get("fits", "/").expect(200);
    assert_eq!(whole.header("x-989"), Some("v"));
    router.get("breaks", "/many").refused(502, "H25");
    router.logged_code("/many", "H25");
}

#[test]
fn an_answers_head_may_have_512_kb_and_no_more() {
    let router = Router::start();
    let answer = |bytes: usize| {
        let headers: String = (0..bytes / 8000)
            .map(|n| format!("X-{n:03}: {}\r\n", "v".repeat(7993)))
            .collect();
        format!("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n{headers}\r\nok")
    };
    let (fits, breaks) = (
        Backend::says(answer(480_000)),
        Backend::says(answer(600_000)),
    );
    router.serve("fits", &[&fits]);
    router.serve("breaks", &[&breaks]);
    let whole = router.get("fits", "/").expect(200);
    assert_eq!(whole.header("x-059").map(str::len), Some(7993));
    router.get("breaks", "/huge").refused(502, "H25");
    router.logged_code("/huge", "H25");
}

#[test]
fn an_answer_whose_framing_is_ambiguous_is_h25() {
    let router = Router::start();
    for (index, head) in [
        "Content-Length: 2\r\nContent-Length: 3",
        "Content-Length: 2\r\nTransfer-Encoding: chunked",
        "Content-Length: -2",
        "Content-Length: two",
        "Content-Length: +2",
        "Content-Length: 99999999999999999999999",
        "Transfer-Encoding: gzip, chunked, identity",
    ]
    .into_iter()
    .enumerate()
    {
        let backend = Backend::says(format!("HTTP/1.1 200 OK\r\n{head}\r\n\r\nok"));
        let app = format!("app{index}");
        router.serve(&app, &[&backend]);
        let path = format!("/framing/{index}");
        let answer = router.get(&app, &path);
        assert_eq!(
            (answer.status, answer.code().as_deref()),
            (502, Some("H25")),
            "{head:?}"
        );
        router.logged_code(&path, "H25");
    }
}

#[test]
fn a_bad_chunk_from_a_backend_cuts_the_answer() {
    let router = Router::start();
    for (index, body) in [
        "5\r\nhello\r\nzz\r\n",
        "5\r\nhelloXX0\r\n\r\n",
        "5\nhello\n0\n\n",
        "FFFFFFFFFFFFFFFFF\r\n",
    ]
    .into_iter()
    .enumerate()
    {
        let backend = Backend::says(format!(
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{body}"
        ));
        let app = format!("app{index}");
        router.serve(&app, &[&backend]);
        let path = format!("/chunk/{index}");
        let mut client = router.client();
        client.send(format!(
            "GET {path} HTTP/1.1\r\nHost: {app}.example\r\n\r\n"
        ));
        // Seen before the head went out it is a 502; after, a cut.
        let answer = client.answer();
        assert!(
            answer.status == 502 || !answer.complete,
            "{body:?}: {answer:?}"
        );
        let line = router.logged(&path);
        assert!(
            matches!(line["code"].as_str(), "H25" | "H18" | "H17"),
            "{body:?}: {line:?}"
        );
    }
}
