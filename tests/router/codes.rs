//! The router's own answers: which code, which status, what the page says.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::harness::{Answer, Backend, Router, eventually};

/// What every answer of the router's own has in common.
#[track_caller]
fn well_made(answer: &Answer) {
    let proxy_status = answer
        .header("proxy-status")
        .expect("it must have a Proxy-Status");
    let mut parts = proxy_status.split(';').map(str::trim);
    assert_eq!(parts.next(), Some("portico"), "{proxy_status}");
    assert!(
        parts.next().is_some_and(|part| part.starts_with("error=")),
        "{proxy_status}"
    );
    assert!(
        parts
            .next()
            .is_some_and(|part| part.starts_with("details=\"H")),
        "{proxy_status}"
    );
    assert!(answer.header("via").is_some(), "{answer:?}");
    assert!(answer.header("x-request-id").is_some(), "{answer:?}");
    assert!(answer.header("content-length").is_some(), "{answer:?}");
}

#[test]
fn h30_no_app_for_this_host() {
    let router = Router::start();
    let answer = router.get("nobody", "/none").refused(404, "H30");
    well_made(&answer);
    assert_eq!(answer.header("retry-after"), None, "waiting does not help");
    let line = router.logged_code("/none", "H30");
    assert_eq!(line["fault"], "client");
    assert_eq!(line["at"], "error");
    assert_eq!(line["app"], "");
}

#[test]
fn h14_no_backend_registered() {
    let router = Router::start();
    router.serve("shop", &[]);
    let answer = router.get("shop", "/empty").refused(503, "H14");
    well_made(&answer);
    let line = router.logged_code("/empty", "H14");
    assert_eq!(line["fault"], "app");
    assert_eq!(line["app"], "shop");
    assert_eq!(line["backend"], "");
}

#[test]
fn h80_maintenance_mode() {
    let router = Router::start();
    let backend = Backend::named("never");
    router.serve_with("shop", &json!({ "maintenance": true }), &[&backend]);
    let answer = router.get("shop", "/closed").refused(503, "H80");
    well_made(&answer);
    assert!(
        answer.header("retry-after").is_some(),
        "waiting helps: {answer:?}"
    );
    assert_eq!(backend.connections(), 0);
    router.logged_code("/closed", "H80");
}

#[test]
fn h10_or_h21_when_every_backend_refuses() {
    let router = Router::start();
    let (one, two) = (Backend::refuses(), Backend::refuses());
    router.serve("shop", &[&one, &two]);
    let answer = router.get("shop", "/refused").expect(503);
    well_made(&answer);
    let code = answer.code().expect("it must have a code");
    assert!(matches!(code.as_str(), "H10" | "H21"), "{code}");
    let line = router.logged_code("/refused", &code);
    assert_eq!(line["fault"], "app");
    assert!(
        line["tries"].parse::<u32>().is_ok_and(|tries| tries >= 2),
        "{line:?}"
    );
}

#[test]
fn h19_when_connecting_takes_too_long() {
    let router = Router::start();
    let backend = Backend::never_accepts();
    router.serve_with("shop", &json!({ "connect_timeout": "300ms" }), &[&backend]);
    let started = Instant::now();
    let answer = router.get("shop", "/filtered").refused(503, "H19");
    assert!(started.elapsed() >= Duration::from_millis(250));
    assert!(
        started.elapsed() < Duration::from_secs(10),
        "{:?}",
        started.elapsed()
    );
    well_made(&answer);
    router.logged_code("/filtered", "H19");
}

#[test]
fn h11_when_the_queue_is_full() {
    let router = Router::start();
    let (release, wait) = std::sync::mpsc::sync_channel::<()>(10);
    let wait = std::sync::Mutex::new(wait);
    let backend = Backend::script(move |mut conn| {
        while conn.request().is_some() {
            let _ = wait.lock().expect("no script panics").recv();
            conn.write(crate::harness::answer_ok("done"));
        }
    });
    router.serve_with(
        "shop",
        &json!({ "max_concurrency": 1, "queue": 1 }),
        &[&backend],
    );
    let ask = |path: &str| {
        let mut client = router.client();
        client.send(format!("GET {path} HTTP/1.1\r\nHost: shop.example\r\n\r\n"));
        client
    };
    let mut first = ask("/first");
    backend.request();
    // One of the next two waits in the queue, the other is refused at once.
    let (mut second, mut third) = (ask("/second"), ask("/third"));
    let refused = eventually("one of two is refused", || {
        if !second.silent(Duration::from_millis(20)) {
            return Some(2);
        }
        (!third.silent(Duration::from_millis(20))).then_some(3)
    });
    let (mut refused, mut queued, path) = if refused == 2 {
        (second, third, "/second")
    } else {
        (third, second, "/third")
    };
    let answer = refused.answer().refused(503, "H11");
    well_made(&answer);
    assert!(
        answer.header("retry-after").is_some(),
        "waiting helps: {answer:?}"
    );
    router.logged_code(path, "H11");
    release.send(()).expect("the backend must be there");
    first.answer().expect(200);
    release.send(()).expect("the backend must be there");
    queued.answer().expect(200);
    assert_eq!(backend.requests().len(), 2);
}

#[test]
fn h11_when_the_wait_in_the_queue_is_too_long() {
    let router = Router::start();
    let backend = Backend::script(|mut conn| {
        if conn.request().is_some() {
            conn.until_closed();
        }
    });
    router.serve_with(
        "shop",
        &json!({ "max_concurrency": 1, "queue": 10 }),
        &[&backend],
    );
    let mut first = router.client();
    first.send("GET / HTTP/1.1\r\nHost: shop.example\r\n\r\n");
    backend.request();
    let started = Instant::now();
    router.get("shop", "/waits").refused(503, "H11");
    let waited = started.elapsed();
    assert!(
        waited >= Duration::from_secs(4) && waited < Duration::from_secs(20),
        "{waited:?}"
    );
    let line = router.logged_code("/waits", "H11");
    let queue: u64 = line["queue"]
        .trim_end_matches("ms")
        .parse()
        .expect("a number of ms");
    assert!((4000..20_000).contains(&queue), "{line:?}");
}

#[test]
fn a_queued_client_that_leaves_gives_up_its_place() {
    let router = Router::start();
    let (release, wait) = std::sync::mpsc::sync_channel::<()>(10);
    let wait = std::sync::Mutex::new(wait);
    let backend = Backend::script(move |mut conn| {
        while conn.request().is_some() {
            let _ = wait.lock().expect("no script panics").recv();
            conn.write(crate::harness::answer_ok("done"));
        }
    });
    router.serve_with(
        "shop",
        &json!({ "max_concurrency": 1, "queue": 1 }),
        &[&backend],
    );
    let mut first = router.client();
    first.send("GET /first HTTP/1.1\r\nHost: shop.example\r\n\r\n");
    backend.request();
    let mut leaves = router.client();
    leaves.send("GET /leaves HTTP/1.1\r\nHost: shop.example\r\n\r\n");
    assert!(leaves.silent(Duration::from_millis(100)));
    drop(leaves);
    router.logged_code("/leaves", "H27");
    let mut next = router.client();
    next.send("GET /next HTTP/1.1\r\nHost: shop.example\r\n\r\n");
    release.send(()).expect("the backend must be there");
    first.answer().expect(200);
    release.send(()).expect("the backend must be there");
    next.answer().expect(200);
}

#[test]
fn the_page_is_html_or_problem_json_as_the_client_accepts() {
    let router = Router::start();
    let ask = |accept: &str| {
        router
            .send(format!(
                "GET / HTTP/1.1\r\nHost: nobody.example\r\n{accept}\r\n"
            ))
            .refused(404, "H30")
    };
    for accept in [
        "Accept: text/html,application/xhtml+xml,*/*;q=0.8\r\n",
        "Accept: text/html\r\n",
    ] {
        let answer = ask(accept);
        let kind = answer.header("content-type").expect("it must have a type");
        assert!(kind.starts_with("text/html"), "{kind} for {accept}");
        assert!(
            answer.text().contains("H30") && answer.text().contains("<"),
            "{}",
            answer.text()
        );
        assert!(answer.text().len() < 8192, "a small page");
    }
    for accept in [
        "Accept: application/json\r\n",
        "Accept: application/problem+json\r\n",
    ] {
        let answer = ask(accept);
        let kind = answer.header("content-type").expect("it must have a type");
        assert!(
            kind.starts_with("application/problem+json"),
            "{kind} for {accept}"
        );
        let problem = answer.json();
        assert_eq!(problem["status"], 404, "{problem}");
        assert!(problem.to_string().contains("H30"), "{problem}");
    }
}

#[test]
fn what_the_client_sent_is_not_echoed_into_the_page() {
    let router = Router::start();
    let answer = router.send(
        "GET /<script>alert(1)</script> HTTP/1.1\r\nHost: nobody.example\r\nAccept: text/html\r\n\r\n",
    );
    assert!(answer.status >= 400);
    assert!(
        !answer.text().contains("<script>alert"),
        "{}",
        answer.text()
    );
}

#[test]
fn an_apps_own_errors_are_never_replaced() {
    let router = Router::start();
    let backend = Backend::app(|request| {
        let status = request.target.trim_start_matches('/');
        format!("HTTP/1.1 {status} Own\r\nContent-Length: 3\r\n\r\nown").into_bytes()
    });
    router.serve("shop", &[&backend]);
    for status in [400, 404, 429, 500, 502, 503, 504] {
        let answer = router.get("shop", &format!("/{status}")).expect(status);
        assert_eq!(answer.text(), "own");
        assert_eq!(answer.header("proxy-status"), None, "{answer:?}");
        let line = router.logged(&format!("/{status}"));
        assert_eq!(
            line.get("code").map(String::as_str).unwrap_or_default(),
            "",
            "{line:?}"
        );
    }
}
