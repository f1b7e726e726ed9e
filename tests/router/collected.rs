//! Bodies that are waited for before a backend is asked: what they cost others,
//! and what is let through as it comes.

use std::time::Duration;

use serde_json::json;

use crate::harness::{Backend, Client, Router, answer_ok, eventually, pause, stays};

/// A POST whose body is said to have so many bytes, and so much of it.
fn begin(router: &Router, path: &str, length: usize, start: &str) -> Client {
    let mut client = router.client();
    client.send(format!(
        "POST {path} HTTP/1.1\r\nHost: shop.example\r\nContent-Length: {length}\r\n\r\n{start}"
    ));
    client
}

/// Says 403 as soon as it has a head, and goes on reading.
fn forbids() -> Backend {
    Backend::script(|mut conn| {
        let Some(request) = conn.head() else { return };
        conn.note(request);
        conn.write("HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno");
        conn.until_closed();
    })
}

/// As [`Backend::echo`], but for ever about `/busy`.
fn echo_or_busy() -> Backend {
    Backend::script(|mut conn| {
        while let Some(request) = conn.request() {
            if request.target == "/busy" {
                conn.until_closed();
                return;
            }
            let body = String::from_utf8_lossy(&request.body);
            conn.write(answer_ok(&body));
        }
    })
}

/// Serves an app whose only backend has the one request that it may, until the
/// client is dropped: however long others pause, none of them goes there.
fn serve_busy(router: &Router, app: &str, backend: &Backend) -> Client {
    router.serve_with(app, &json!({ "max_concurrency": 1 }), &[backend]);
    let mut client = router.client();
    client.send(format!(
        "POST /busy HTTP/1.1\r\nHost: {app}.example\r\nContent-Length: 0\r\n\r\n"
    ));
    assert_eq!(backend.request().target, "/busy");
    client
}

#[test]
fn a_backend_sees_nothing_of_a_small_body_before_it_is_whole() {
    let router = Router::start();
    let echo = Backend::echo();
    router.serve("shop", &[&echo]);
    let mut client = begin(&router, "/small", 11, "hello");
    stays(Duration::from_secs(1), "nobody is asked", || {
        echo.connections() == 0
    });
    client.send(" wor");
    pause(Duration::from_millis(50));
    assert_eq!(echo.connections(), 0);
    client.send("ld");
    assert_eq!(client.answer().expect(200).text(), "hello world");
    let line = router.logged("/small");
    assert_eq!((&*line["queue"], &*line["tries"]), ("0ms", "1"));
}

#[test]
fn slow_bodies_delay_nobody_though_a_backend_takes_one_at_a_time() {
    let router = Router::with(&["edge.threads=1"]);
    let echo = Backend::echo();
    router.serve_with("shop", &json!({ "max_concurrency": 1 }), &[&echo]);
    let mut slow: Vec<Client> = (0..10).map(|_| begin(&router, "/slow", 8, "b")).collect();
    let quick = |number: usize| {
        let path = format!("/quick/{number}");
        router.get("shop", &path).expect(200);
        assert_eq!(router.logged(&path)["queue"], "0ms");
    };
    (0..5).for_each(quick);
    // Nor once they are silent for longer than any pause: one may be at the
    // backend by then, and takes nobody's place.
    stays(Duration::from_secs(3), "only the quick are served", || {
        echo.requests().len() == 5 && echo.open() <= 2
    });
    (5..10).for_each(quick);
    for client in &mut slow {
        client.send("odybody");
    }
    for client in &mut slow {
        assert_eq!(client.answer().expect(200).text(), "bodybody");
    }
}

#[test]
fn whoever_pauses_gets_an_early_answer() {
    let router = Router::start();
    let forbids = forbids();
    router.serve("shop", &[&forbids]);
    for length in [10, 1_000_000] {
        let mut client = begin(&router, "/early", length, "start");
        assert_eq!(client.answer().expect(403).text(), "no");
    }
    eventually("its connections are freed", || {
        (forbids.open() == 0).then_some(())
    });
}

#[test]
fn those_that_pause_take_half_of_the_places_for_slow_clients() {
    let router = Router::with(&["edge.threads=1"]);
    let echo = Backend::echo();
    router.serve_with("shop", &json!({ "max_concurrency": 4 }), &[&echo]);
    let mut slow: Vec<Client> = (0..8).map(|_| begin(&router, "/slow", 4, "b")).collect();
    eventually("two are at the backend", || {
        (echo.open() == 2).then_some(())
    });
    stays(Duration::from_secs(3), "the others are not", || {
        echo.open() == 2
    });
    for _ in 0..5 {
        router.get("shop", "/quick").expect(200);
    }
    for client in &mut slow {
        client.send("ody");
        assert_eq!(client.answer().expect(200).text(), "body");
    }
}

#[test]
fn to_be_continued_is_said_before_anybody_is_asked() {
    let router = Router::start();
    let echo = Backend::echo();
    router.serve("shop", &[&echo]);
    let mut client = router.client();
    client.send(
        "POST / HTTP/1.1\r\nHost: shop.example\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n",
    );
    assert_eq!(client.head().expect("100 must come").status, 100);
    assert_eq!(echo.connections(), 0);
    client.send("he");
    pause(Duration::from_millis(50));
    assert_eq!(echo.connections(), 0);
    client.send("llo");
    let answer = client.answer().expect(200);
    assert!(answer.interim.is_empty(), "only one 100: {answer:?}");
    assert_eq!(answer.text(), "hello");
}

#[test]
fn a_client_that_leaves_halfway_never_reaches_a_backend() {
    let router = Router::start();
    let echo = Backend::echo();
    router.serve("shop", &[&echo]);
    for number in 0..3 {
        let path = format!("/left/{number}");
        let mut client = begin(&router, &path, 1_000, "half");
        match number {
            0 => drop(client),
            1 => client.reset(),
            _ => client.finish().closed(),
        }
        let line = router.logged_code(&path, "H27");
        assert_eq!((&*line["status"], &*line["tries"]), ("499", "0"));
    }
    assert_eq!(echo.connections(), 0);
    router.get("shop", "/").expect(200);
}

#[test]
fn a_client_that_stays_silent_is_let_go() {
    let router = Router::start();
    let echo = Backend::echo();
    let policy = json!({ "idle_timeout": "1s" });
    router.serve_with("shop", &policy, &[&echo]);
    begin(&router, "/silent", 1_000, "half").closed();
    let line = router.logged_code("/silent", "H28");
    assert_eq!((&*line["status"], &*line["tries"]), ("499", "0"));
    assert_eq!(echo.connections(), 0);
}

#[test]
fn a_chunked_body_streams() {
    let router = Router::start();
    let echo = Backend::echo();
    router.serve("shop", &[&echo]);
    let mut client = router.client();
    client.send(
        "POST / HTTP/1.1\r\nHost: shop.example\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
    );
    eventually("the first chunk is there", || {
        echo.received().ends_with(b"5\r\nhello\r\n").then_some(())
    });
    client.send("0\r\n\r\n");
    client.answer().expect(200);
}

#[test]
fn so_does_everything_to_an_app_that_keeps_nothing() {
    let router = Router::start();
    let echo = Backend::echo();
    router.serve_with("shop", &json!({ "replay_bytes": 0 }), &[&echo]);
    let mut client = begin(&router, "/", 5, "he");
    eventually("its beginning is there", || {
        echo.received().ends_with(b"he").then_some(())
    });
    client.send("llo");
    assert_eq!(client.answer().expect(200).text(), "hello");
}

#[test]
fn of_a_large_body_the_beginning_is_waited_for() {
    let router = Router::start();
    let echo = Backend::echo();
    router.serve("shop", &[&echo]);
    let body: String = ('a'..='z').cycle().take(300_000).collect();
    let mut client = begin(&router, "/", body.len(), &body[..4_000]);
    stays(Duration::from_secs(1), "nobody is asked", || {
        echo.connections() == 0
    });
    client.send(&body[4_000..10_000]);
    eventually("it streams", || {
        echo.received()
            .ends_with(&body.as_bytes()[9_900..10_000])
            .then_some(())
    });
    client.send(&body[10_000..]);
    assert!(client.answer().expect(200).text() == body, "torn");
    client.send("GET /next HTTP/1.1\r\nHost: shop.example\r\n\r\n");
    client.answer().expect(200);
}

#[test]
fn bodies_of_any_size_come_whole_in_any_pieces() {
    let router = Router::start();
    let echo = Backend::echo();
    router.serve("shop", &[&echo]);
    let mut client = router.client();
    for length in [
        1, 255, 256, 300, 8_000, 15_900, 16_384, 40_000, 65_536, 65_537, 90_000,
    ] {
        let body: String = ('a'..='z').cycle().take(length).collect();
        for piece in [1_000, 7_001, 30_000] {
            client.send(format!(
                "POST / HTTP/1.1\r\nHost: shop.example\r\nContent-Length: {length}\r\n\r\n"
            ));
            for piece in body.as_bytes().chunks(piece) {
                client.send(piece);
            }
            let answer = client.answer().expect(200);
            assert!(answer.text() == body, "{length} by {piece} torn");
        }
    }
}

#[test]
fn what_follows_a_collected_body_is_the_next_request() {
    let router = Router::start();
    let echo =
        Backend::app(|request| answer_ok(&format!("{} {}", request.target, request.body.len())));
    router.serve("shop", &[&echo]);
    let mut client = begin(&router, "/1", 4, "");
    pause(Duration::from_millis(50));
    client.send("b");
    pause(Duration::from_millis(50));
    client.send("odyPOST /2 HTTP/1.1\r\nHost: shop.example\r\nContent-Length: 3\r\n\r\ntwoGET /3 HTTP/1.1\r\n");
    client.send("Host: shop.example\r\n\r\n");
    for answer in ["/1 4", "/2 3", "/3 0"] {
        assert_eq!(client.answer().expect(200).text(), answer);
    }
}

#[test]
fn a_body_goes_to_the_backends_there_are_when_it_is_whole() {
    let router = Router::start();
    let (old, new) = (echo_or_busy(), Backend::named("new"));
    let _busy = serve_busy(&router, "shop", &old);
    let mut client = begin(&router, "/", 4, "b");
    pause(Duration::from_millis(100));
    let moved = json!({ "address": new.address().to_string() });
    let place = "/v1/apps/shop/backends/web.1?wait=active";
    router.put(place, &moved).expect(200);
    client.send("ody");
    assert_eq!(client.answer().expect(200).text(), "new");
    assert_eq!(old.connections(), 1);
}

#[test]
fn a_body_whose_app_is_gone_when_it_is_whole_is_refused() {
    let router = Router::start();
    let old = echo_or_busy();
    let _busy = serve_busy(&router, "shop", &old);
    let mut orphan = begin(&router, "/", 4, "b");
    pause(Duration::from_millis(100));
    router.delete("/v1/apps/shop?wait=active").expect(200);
    orphan.send("ody");
    orphan.answer().refused(503, "H14");
    assert_eq!(old.connections(), 1);
}

#[test]
fn where_connections_run_short_those_with_half_a_body_go_first() {
    let router = Router::with(&["edge.threads=1", "edge.max_connections=4"]);
    let (echo, other) = (echo_or_busy(), Backend::named("ok"));
    router.serve("blog", &[&other]);
    let busy = serve_busy(&router, "shop", &echo);
    let mut slow: Vec<Client> = (0..3)
        .map(|number| begin(&router, &format!("/slow/{number}"), 4, "b"))
        .collect();
    eventually("all are there", || {
        (router.counted("portico_client_connections", "") >= 4.0).then_some(())
    });
    router.get("blog", "/").expect(200);
    router.logged_code("/slow/0", "H22");
    drop(busy);
    for client in &mut slow[1..] {
        client.send("ody");
        assert_eq!(client.answer().expect(200).text(), "body");
    }
}

/// Buffers may take this much in the test below.
const BUFFERS: f64 = 4_194_304.0;

#[test]
fn bodies_that_fill_the_buffers_stream_and_others_are_served() {
    let router = Router::with(&["edge.threads=1", "edge.buffer_bytes=4194304"]);
    let echo = Backend::echo();
    router.serve("shop", &[&echo]);
    let half = "x".repeat(40_000);
    let slow: Vec<Client> = (0..200)
        .map(|_| {
            let mut client = begin(&router, "/slow", 60_000, "");
            client.try_send(&half);
            client
        })
        .collect();
    router.wait_event("buffers_short", "", "");
    eventually("a request is answered", || {
        let mut client = router.client();
        client.try_send("GET / HTTP/1.1\r\nHost: shop.example\r\n\r\n");
        let answer = client.try_answer_to("GET").ok()?;
        (answer.status == 200).then_some(())
    });
    eventually("buffers are within their budget", || {
        (router.counted("portico_buffer_bytes", "") < BUFFERS).then_some(())
    });
    assert!(echo.open() > 50, "{} stream", echo.open());
    drop(slow);
}
