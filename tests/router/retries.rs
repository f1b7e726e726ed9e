//! Retries: only what is safe, each time another backend, never a POST twice.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::json;

use crate::harness::{Backend, Router, answer_ok, eventually, patterned};

#[test]
fn a_backend_that_refuses_costs_no_request() {
    let router = Router::start();
    let (dead, alive) = (Backend::refuses(), Backend::named("alive"));
    router.serve("shop", &[&dead, &alive]);
    let mut client = router.client();
    for number in 0..100 {
        client.send(format!(
            "GET /{number} HTTP/1.1\r\nHost: shop.example\r\n\r\n"
        ));
        assert_eq!(client.answer().expect(200).text(), "alive");
    }
    for number in 0..100 {
        client.send(format!(
            "POST /p{number} HTTP/1.1\r\nHost: shop.example\r\nContent-Length: 4\r\n\r\nbody"
        ));
        assert_eq!(client.answer().expect(200).text(), "alive");
    }
    assert_eq!(alive.requests().len(), 200);
}

#[test]
fn a_backend_that_never_accepts_costs_no_request() {
    let router = Router::start();
    let (stuck, alive) = (Backend::never_accepts(), Backend::named("alive"));
    router.serve_with(
        "shop",
        &json!({ "connect_timeout": "1s" }),
        &[&stuck, &alive],
    );
    for number in 0..10 {
        assert_eq!(
            router.get("shop", &format!("/{number}")).expect(200).text(),
            "alive"
        );
    }
}

#[test]
fn a_retry_is_counted_in_the_log() {
    let router = Router::start();
    let (dead, alive) = (Backend::refuses(), Backend::named("alive"));
    router.serve("shop", &[&dead, &alive]);
    for number in 0..40 {
        router.get("shop", &format!("/{number}")).expect(200);
    }
    let lines: Vec<_> = (0..40)
        .map(|number| router.logged(&format!("/{number}")))
        .collect();
    assert!(lines.iter().any(|line| line["tries"] == "2"), "{lines:?}");
    assert!(
        lines.iter().all(|line| line["backend"] == "web.2"),
        "{lines:?}"
    );
}

/// Serves one request on each connection; the second on the same connection
/// is read and then dropped without a byte, as an app does whose keepalive
/// ended just then.
fn stale_after_one(record: Arc<AtomicBool>) -> Backend {
    Backend::script(move |mut conn| {
        if conn.request().is_none() {
            return;
        }
        conn.write(answer_ok("first"));
        if conn.request().is_some() {
            record.store(true, Ordering::SeqCst);
        }
    })
}

#[test]
fn a_get_on_a_reused_connection_that_died_is_retried() {
    let router = Router::with(&["edge.threads=1"]);
    let stale = Arc::new(AtomicBool::new(false));
    let backend = stale_after_one(stale.clone());
    router.serve("shop", &[&backend]);
    let mut client = router.client();
    for number in 0..10 {
        client.send(format!(
            "GET /{number} HTTP/1.1\r\nHost: shop.example\r\n\r\n"
        ));
        assert_eq!(client.answer().expect(200).text(), "first");
    }
    assert!(
        stale.load(Ordering::SeqCst),
        "the connection must have been reused"
    );
}

#[test]
fn a_post_on_a_reused_connection_that_died_is_not_repeated() {
    let router = Router::with(&["edge.threads=1"]);
    let backend = stale_after_one(Arc::default());
    router.serve("shop", &[&backend]);
    let mut client = router.client();
    client.send("GET /warm HTTP/1.1\r\nHost: shop.example\r\n\r\n");
    client.answer().expect(200);
    client.send("POST /once HTTP/1.1\r\nHost: shop.example\r\nContent-Length: 4\r\n\r\nbody");
    client.answer().refused(503, "H13");
    let posts = backend
        .requests()
        .iter()
        .filter(|request| request.method == "POST")
        .count();
    assert_eq!(posts, 1, "a POST runs at most once");
}

#[test]
fn a_post_with_an_idempotency_key_is_retried() {
    let router = Router::with(&["edge.threads=1"]);
    let backend = stale_after_one(Arc::default());
    router.serve("shop", &[&backend]);
    let mut client = router.client();
    client.send("GET /warm HTTP/1.1\r\nHost: shop.example\r\n\r\n");
    client.answer().expect(200);
    client.send(
        "POST /keyed HTTP/1.1\r\nHost: shop.example\r\nIdempotency-Key: k1\r\nContent-Length: 4\r\n\r\nbody",
    );
    client.answer().expect(200);
    let last = backend.requests().pop().expect("it must have been sent");
    assert_eq!(last.body, b"body", "the body is replayed whole");
}

#[test]
fn a_put_with_a_body_is_replayed_whole() {
    let router = Router::with(&["edge.threads=1"]);
    let backend = stale_after_one(Arc::default());
    router.serve("shop", &[&backend]);
    let body = String::from_utf8(patterned(8000).iter().map(|b| b'a' + b % 26).collect())
        .expect("letters");
    let mut client = router.client();
    for framing in ["length", "chunks"] {
        client.send("GET /warm HTTP/1.1\r\nHost: shop.example\r\n\r\n");
        client.answer().expect(200);
        if framing == "length" {
            client.send(format!(
                "PUT /put HTTP/1.1\r\nHost: shop.example\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            ));
        } else {
            client.send(format!(
                "PUT /put HTTP/1.1\r\nHost: shop.example\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n",
                body.len()
            ));
        }
        client.answer().expect(200);
        let last = backend.requests().pop().expect("it must have been sent");
        assert_eq!(
            (last.method.as_str(), last.body == body.as_bytes()),
            ("PUT", true)
        );
        // The retry's connection is warm; use it up for the next round.
        client.send("POST /use HTTP/1.1\r\nHost: shop.example\r\nContent-Length: 0\r\n\r\n");
        client.answer();
    }
}

#[test]
fn a_body_beyond_the_replay_buffer_is_not_retried_half() {
    let router = Router::with(&["edge.threads=1"]);
    let backend = stale_after_one(Arc::default());
    router.serve_with("shop", &json!({ "replay_bytes": 1000 }), &[&backend]);
    let mut client = router.client();
    client.send("GET /warm HTTP/1.1\r\nHost: shop.example\r\n\r\n");
    client.answer().expect(200);
    let body = "x".repeat(100_000);
    client.send(format!(
        "PUT /big HTTP/1.1\r\nHost: shop.example\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    ));
    client.answer().refused(503, "H13");
    for request in backend.requests() {
        assert!(
            request.method != "PUT" || request.body.len() == body.len(),
            "a torn body arrived"
        );
    }
}

#[test]
fn an_answer_that_has_begun_is_never_retried() {
    let router = Router::start();
    let cut = Backend::says("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf");
    router.serve("shop", &[&cut]);
    let mut client = router.client();
    client.send("GET /begun HTTP/1.1\r\nHost: shop.example\r\n\r\n");
    let answer = client.answer().expect(200);
    assert!(!answer.complete);
    router.logged_code("/begun", "H18");
    assert_eq!(cut.requests().len(), 1);
}

#[test]
fn retries_switched_off_are_off() {
    let router = Router::start();
    let (one, two) = (Backend::refuses(), Backend::refuses());
    router.serve_with("shop", &json!({ "retries": 0 }), &[&one, &two]);
    router.get("shop", "/once").expect(503);
    assert_eq!(router.logged("/once")["tries"], "1");
}

#[test]
fn a_dying_backend_under_load_costs_no_get() {
    let router = Router::start();
    let (one, two) = (Backend::named("one"), Backend::named("two"));
    router.serve("shop", &[&one, &two]);
    let stop = Arc::new(AtomicBool::new(false));
    let address = router.http();
    let clients: Vec<_> = (0..4)
        .map(|_| {
            let stop = stop.clone();
            std::thread::spawn(move || {
                let mut client = crate::harness::Client::connect(address);
                let mut count = 0;
                while !stop.load(Ordering::SeqCst) {
                    client.send("GET / HTTP/1.1\r\nHost: shop.example\r\n\r\n");
                    client.answer().expect(200);
                    count += 1;
                }
                count
            })
        })
        .collect();
    eventually("both serve", || {
        (one.requests().len() > 100 && two.requests().len() > 100).then_some(())
    });
    one.stop();
    let before = two.requests().len();
    eventually("the other serves on", || {
        (two.requests().len() > before + 500).then_some(())
    });
    stop.store(true, Ordering::SeqCst);
    for client in clients {
        assert!(client.join().expect("no request may fail") > 0);
    }
}
