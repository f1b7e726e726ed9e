//! Someone leaves half-way: clients that go, backends that break off or stall.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::harness::router::AT_ONCE;
use crate::harness::{Backend, Client, Router, eventually, patterned, pause, within};

/// Reads the request, says nothing, and waits for the other side to go.
fn silent() -> Backend {
    Backend::script(|mut conn| {
        if conn.request().is_some() {
            conn.until_closed();
        }
    })
}

fn wait_request(backend: &Backend) {
    backend.request();
}

#[test]
fn a_client_that_leaves_while_waiting_frees_its_backend_at_once() {
    let router = Router::start();
    let backend = silent();
    router.serve("shop", &[&backend]);
    let mut client = router.client();
    client.send("GET /left HTTP/1.1\r\nHost: shop.example\r\n\r\n");
    wait_request(&backend);
    drop(client);
    within(AT_ONCE, "the backend sees the close", || {
        (backend.open() == 0).then_some(())
    });
    let line = router.logged_code("/left", "H27");
    assert_eq!(line["status"], "499");
    assert_eq!(line["fault"], "client");
}

#[test]
fn a_client_that_resets_while_waiting_frees_its_backend_at_once() {
    let router = Router::start();
    let backend = silent();
    router.serve("shop", &[&backend]);
    let mut client = router.client();
    client.send("GET /reset HTTP/1.1\r\nHost: shop.example\r\n\r\n");
    wait_request(&backend);
    client.reset();
    within(AT_ONCE, "the backend sees the close", || {
        (backend.open() == 0).then_some(())
    });
    assert_eq!(router.logged_code("/reset", "H27")["status"], "499");
}

#[test]
fn a_client_that_leaves_mid_upload_frees_its_backend_at_once() {
    let router = Router::start();
    let backend = Backend::script(|mut conn| {
        if let Some(head) = conn.head() {
            conn.note(head);
            conn.until_closed();
        }
    });
    router.serve("shop", &[&backend]);
    let mut client = router.client();
    client.send("POST /upload HTTP/1.1\r\nHost: shop.example\r\nContent-Length: 1000\r\n\r\nsome");
    wait_request(&backend);
    drop(client);
    within(AT_ONCE, "the backend sees the close", || {
        (backend.open() == 0).then_some(())
    });
    assert_eq!(router.logged_code("/upload", "H27")["status"], "499");
}

#[test]
fn a_client_that_leaves_mid_answer_frees_its_backend_at_once() {
    let router = Router::start();
    let backend = Backend::script(|mut conn| {
        if conn.request().is_some() {
            conn.write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
            let chunk = [b"10000\r\n".as_slice(), &patterned(0x10000), b"\r\n"].concat();
            while conn.write(&chunk) {}
        }
    });
    router.serve("shop", &[&backend]);
    let mut client = router.client();
    client.send("GET /endless HTTP/1.1\r\nHost: shop.example\r\n\r\n");
    assert_eq!(client.head().expect("an answer must begin").status, 200);
    client.take(100_000);
    drop(client);
    within(AT_ONCE, "the backend sees the close", || {
        (backend.open() == 0).then_some(())
    });
    router.logged_code("/endless", "H27");
}

#[test]
fn a_client_that_stops_reading_stops_its_backend_not_the_router() {
    let router = Router::with(&["edge.threads=1"]);
    let flood = Backend::script(|mut conn| {
        if conn.request().is_some() {
            conn.write("HTTP/1.1 200 OK\r\n\r\n");
            let piece = patterned(1024 * 1024);
            while conn.write(&piece) {}
        }
    });
    let quiet = Backend::named("quiet");
    router.serve("flood", &[&flood]);
    router.serve("quiet", &[&quiet]);
    let mut stuck = router.client();
    stuck.send("GET / HTTP/1.1\r\nHost: flood.example\r\n\r\n");
    stuck.head().expect("an answer must begin");
    for _ in 0..20 {
        router.get("quiet", "/").expect(200);
    }
}

#[test]
fn a_slow_reader_of_a_large_answer_gets_its_last_byte() {
    let router = Router::with(&["edge.threads=1"]);
    let piece = patterned(24 * 1024 * 1024);
    let body = piece.clone();
    let backend = Backend::script(move |mut conn| {
        while conn.request().is_some() {
            conn.write(format!(
                "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n",
                body.len()
            ));
            conn.write(&body);
        }
    });
    router.serve("shop", &[&backend]);
    let mut client = router.client();
    client.send("GET /slow HTTP/1.1\r\nHost: shop.example\r\n\r\n");
    let answer = client.head().expect("an answer must begin");
    assert_eq!(answer.status, 200);
    let mut got = Vec::new();
    while got.len() < piece.len() {
        // Slower than the router: the end of the body waits there.
        pause(Duration::from_millis(1));
        got.extend_from_slice(&client.take(64 * 1024));
    }
    assert!(got == piece);
    client.send("GET /next HTTP/1.1\r\nHost: shop.example\r\n\r\n");
    assert_eq!(client.head().expect("kept in step").status, 200);
}

#[test]
fn a_half_closed_client_still_gets_its_answer() {
    // RFC 9112, section 9.6: half-closing after the request is legal. A router
    // may not tell it from leaving until the answer is due; it must not hang.
    let router = Router::start();
    let backend = Backend::named("late");
    router.serve("shop", &[&backend]);
    let mut client = router.client();
    client
        .send("GET /half HTTP/1.1\r\nHost: shop.example\r\n\r\n")
        .finish();
    let rest = String::from_utf8_lossy(&client.rest()).into_owned();
    assert!(rest.is_empty() || rest.ends_with("late"), "{rest}");
    let line = router.logged("/half");
    assert!(line["status"] == "200" || line["code"] == "H27", "{line:?}");
}

#[test]
fn h13_a_backend_that_closes_without_an_answer() {
    let router = Router::start();
    let backend = Backend::says("");
    router.serve("shop", &[&backend]);
    router
        .send("POST /mute HTTP/1.1\r\nHost: shop.example\r\nContent-Length: 2\r\n\r\nhi")
        .refused(503, "H13");
    assert_eq!(backend.requests().len(), 1, "a POST runs at most once");
    router.logged_code("/mute", "H13");
}

#[test]
fn h13_a_backend_that_resets_without_an_answer() {
    let router = Router::start();
    let backend = Backend::script(|mut conn| {
        if conn.request().is_some() {
            conn.reset();
        }
    });
    router.serve("shop", &[&backend]);
    router
        .send("POST /rst HTTP/1.1\r\nHost: shop.example\r\nContent-Length: 2\r\n\r\nhi")
        .refused(503, "H13");
    router.logged_code("/rst", "H13");
}

#[test]
fn h18_a_backend_that_breaks_off_within_a_known_length() {
    let router = Router::start();
    let backend = Backend::says("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly this");
    router.serve("shop", &[&backend]);
    let mut client = router.client();
    client.send("GET /cut HTTP/1.1\r\nHost: shop.example\r\n\r\n");
    let answer = client.answer().expect(200);
    assert!(
        !answer.complete,
        "the client must be able to tell: {answer:?}"
    );
    assert_eq!(answer.text(), "only this");
    let line = router.logged_code("/cut", "H18");
    assert_eq!(line["fault"], "app");
}

#[test]
fn h18_a_backend_that_breaks_off_between_chunks() {
    let router = Router::start();
    let backend =
        Backend::says("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n");
    router.serve("shop", &[&backend]);
    let mut client = router.client();
    client.send("GET /chunk HTTP/1.1\r\nHost: shop.example\r\n\r\n");
    let answer = client.answer().expect(200);
    assert!(
        !answer.complete,
        "no last chunk may be invented: {answer:?}"
    );
    router.logged_code("/chunk", "H18");
}

#[test]
fn h18_is_not_hidden_from_an_http_1_0_client_by_a_clean_end() {
    let router = Router::start();
    let backend =
        Backend::says("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n");
    router.serve("shop", &[&backend]);
    let mut client = router.client();
    client.send("GET /old HTTP/1.0\r\nHost: shop.example\r\n\r\n");
    // Close-delimited: only a reset can tell the client; at least the log must.
    client.rest();
    router.logged_code("/old", "H18");
}

#[test]
fn h15_a_backend_that_stalls_mid_answer_is_cut() {
    let router = Router::start();
    let backend = Backend::script(|mut conn| {
        if conn.request().is_some() {
            conn.write("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf");
            conn.until_closed();
        }
    });
    router.serve_with("shop", &json!({ "idle_timeout": "300ms" }), &[&backend]);
    let mut client = router.client();
    client.send("GET /stall HTTP/1.1\r\nHost: shop.example\r\n\r\n");
    let answer = client.answer().expect(200);
    assert!(!answer.complete);
    router.logged_code("/stall", "H15");
    eventually("the backend is freed", || {
        (backend.open() == 0).then_some(())
    });
}

#[test]
fn a_slow_but_steady_answer_outlives_the_idle_timeout() {
    let router = Router::start();
    let backend = Backend::script(|mut conn| {
        if conn.request().is_some() {
            conn.write("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n");
            for _ in 0..10 {
                pause(Duration::from_millis(400));
                conn.write("x");
            }
        }
    });
    router.serve_with("shop", &json!({ "idle_timeout": "3s" }), &[&backend]);
    let answer = router.get("shop", "/steady").expect(200);
    assert!(answer.complete, "the idle time is rolling");
}

#[test]
fn h28_a_client_that_stalls_mid_upload_is_cut() {
    let router = Router::start();
    let backend = Backend::script(|mut conn| {
        if let Some(head) = conn.head() {
            conn.note(head);
            conn.until_closed();
        }
    });
    router.serve_with("shop", &json!({ "idle_timeout": "300ms" }), &[&backend]);
    let mut client = router.client();
    let started = Instant::now();
    client.send("POST /stalled HTTP/1.1\r\nHost: shop.example\r\nContent-Length: 10\r\n\r\nhalf");
    client.rest();
    assert!(
        started.elapsed() >= Duration::from_millis(250),
        "cut before its time"
    );
    let line = router.logged_code("/stalled", "H28");
    assert_eq!(line["status"], "499");
    eventually("the backend is freed", || {
        (backend.open() == 0).then_some(())
    });
}

#[test]
fn h12_no_first_byte_in_time() {
    let router = Router::start();
    let backend = silent();
    router.serve_with("shop", &json!({ "first_byte_timeout": "1s" }), &[&backend]);
    let started = Instant::now();
    let mut client = router.client();
    client.send("GET /never HTTP/1.1\r\nHost: shop.example\r\n\r\n");
    client.answer().refused(503, "H12");
    assert!(
        started.elapsed() >= Duration::from_millis(900),
        "gave up before its time"
    );
    router.logged_code("/never", "H12");
    eventually("the backend is freed", || {
        (backend.open() == 0).then_some(())
    });
    assert_eq!(
        backend.requests().len(),
        1,
        "a request that may be running is not repeated"
    );
}

#[test]
fn the_first_byte_timeout_starts_at_the_end_of_the_request() {
    let router = Router::start();
    let backend = Backend::echo();
    router.serve_with("shop", &json!({ "first_byte_timeout": "2s" }), &[&backend]);
    let mut client = router.client();
    client.send("POST / HTTP/1.1\r\nHost: shop.example\r\nContent-Length: 8\r\n\r\n");
    for byte in b"slowbody" {
        pause(Duration::from_millis(300));
        client.send([*byte]);
    }
    client.answer().expect(200);
}

#[test]
fn h17_an_answer_that_is_not_http() {
    let router = Router::start();
    for (index, bytes) in [
        "SSH-2.0-OpenSSH_9.2\r\n\r\n",
        "HTTP/1.1 2OO OK\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 99 Low\r\nContent-Length: 0\r\n\r\n",
        "HTTP/3.7 200 OK\r\nContent-Length: 0\r\n\r\n",
        "\0\0\0\0\0\0\0\0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nBad Header : x\r\nContent-Length: 0\r\n\r\n",
    ]
    .into_iter()
    .enumerate()
    {
        let backend = Backend::says(bytes);
        let app = format!("app{index}");
        router.serve(&app, &[&backend]);
        let path = format!("/garbage/{index}");
        let request =
            format!("POST {path} HTTP/1.1\r\nHost: {app}.example\r\nContent-Length: 0\r\n\r\n");
        let answer = router.send(request);
        let code = answer.code();
        assert!(
            (answer.status, code.as_deref()) == (503, Some("H17"))
                || (answer.status, code.as_deref()) == (502, Some("H25")),
            "{bytes:?}: {answer:?}"
        );
        if index < 2 {
            assert_eq!(code.as_deref(), Some("H17"), "{bytes:?}");
        }
        router.logged(&path);
    }
}

#[test]
fn an_endless_line_instead_of_an_answer_is_refused_not_collected() {
    let router = Router::start();
    let backend = Backend::script(|mut conn| {
        if conn.request().is_some() {
            let piece = vec![b'x'; 64 * 1024];
            while conn.write(&piece) {}
        }
    });
    router.serve("shop", &[&backend]);
    let answer = router.get("shop", "/endless");
    assert!(
        matches!(answer.code().as_deref(), Some("H17" | "H25")),
        "{answer:?}"
    );
    eventually("the backend is freed", || {
        (backend.open() == 0).then_some(())
    });
}

#[test]
fn bytes_after_an_answer_are_never_taken_for_the_next_answer() {
    let router = Router::with(&["edge.threads=1"]);
    let backend = Backend::script(|mut conn| {
        while let Some(request) = conn.request() {
            if request.target == "/first" {
                conn.write(
                    "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok\
                     HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison",
                );
            } else {
                conn.write(crate::harness::answer_ok("clean"));
            }
        }
    });
    router.serve("shop", &[&backend]);
    let mut client = router.client();
    client.send("GET /first HTTP/1.1\r\nHost: shop.example\r\n\r\n");
    assert_eq!(client.answer().expect(200).text(), "ok");
    client.send("GET /second HTTP/1.1\r\nHost: shop.example\r\n\r\n");
    assert_eq!(client.answer().expect(200).text(), "clean");
}

#[test]
fn h26_408_a_head_that_does_not_arrive_in_time() {
    let router = Router::start();
    let started = Instant::now();
    let mut client = Client::connect(router.http());
    client.send("GET /slow HTTP/1.1\r\nHost: sh");
    let answer = client.answer().refused(408, "H26");
    assert!(
        started.elapsed() >= Duration::from_secs(9),
        "{:?}",
        started.elapsed()
    );
    assert_eq!(answer.header("connection"), Some("close"));
    client.closed();
}
