//! What surrounds a body or replaces it: 1xx, Expect, trailers, HEAD, 204, 304.

use std::time::Duration;

use crate::harness::{Backend, Router, answer_ok, eventually, pause};

#[test]
fn early_hints_from_a_backend_reach_the_client() {
    let router = Router::start();
    let backend = Backend::script(|mut conn| {
        while conn.request().is_some() {
            conn.write("HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n");
            conn.write("HTTP/1.1 103 Early Hints\r\nLink: </b.css>; rel=preload\r\n\r\n");
            conn.write(answer_ok("page"));
        }
    });
    router.serve("shop", &[&backend]);
    let mut client = router.client();
    for _ in 0..2 {
        client.send("GET / HTTP/1.1\r\nHost: shop.example\r\n\r\n");
        let answer = client.answer().expect(200);
        let statuses: Vec<u16> = answer
            .interim
            .iter()
            .map(|interim| interim.status)
            .collect();
        assert_eq!(statuses, [103, 103]);
        assert_eq!(
            answer.interim[0].header("link"),
            Some("</a.css>; rel=preload")
        );
        assert_eq!(answer.text(), "page");
    }
}

#[test]
fn an_http_1_0_client_is_spared_1xx() {
    let router = Router::start();
    let backend = Backend::says(
        "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    );
    router.serve("shop", &[&backend]);
    let answer = router
        .send("GET / HTTP/1.0\r\nHost: shop.example\r\n\r\n")
        .expect(200);
    assert!(answer.interim.is_empty(), "{answer:?}");
}

#[test]
fn expect_100_continue_is_answered_by_the_router() {
    let router = Router::start();
    let backend = Backend::echo();
    router.serve("shop", &[&backend]);
    let mut client = router.client();
    client.send(
        "POST / HTTP/1.1\r\nHost: shop.example\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n",
    );
    let interim = client
        .head()
        .expect("100 must come before the body is sent");
    assert_eq!(interim.status, 100);
    client.send("hello");
    let answer = client.answer().expect(200);
    assert_eq!(answer.text(), "hello");
    assert!(answer.interim.is_empty(), "only one 100: {answer:?}");
}

#[test]
fn expect_100_continue_is_case_insensitive() {
    let router = Router::start();
    let backend = Backend::echo();
    router.serve("shop", &[&backend]);
    let mut client = router.client();
    client.send(
        "POST / HTTP/1.1\r\nHost: shop.example\r\nContent-Length: 2\r\nexpect: 100-Continue\r\n\r\n",
    );
    assert_eq!(client.head().expect("100 must come").status, 100);
    client.send("hi");
    client.answer().expect(200);
}

#[test]
fn no_100_is_sent_for_a_request_that_nobody_will_read() {
    let router = Router::start();
    let mut client = router.client();
    client.send(
        "POST / HTTP/1.1\r\nHost: nobody.example\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n",
    );
    let answer = client.answer().refused(404, "H30");
    assert!(answer.interim.is_empty(), "{answer:?}");
}

#[test]
fn an_unknown_expectation_is_417() {
    let router = Router::start();
    let backend = Backend::echo();
    router.serve("shop", &[&backend]);
    for value in ["200-ok", "100-continue, more", "100-continue;q=1"] {
        router
            .send(format!(
                "POST /expect HTTP/1.1\r\nHost: shop.example\r\nContent-Length: 2\r\nExpect: {value}\r\n\r\nhi"
            ))
            .refused(417, "H26");
    }
    assert_eq!(backend.connections(), 0);
    router.logged_code("/expect", "H26");
}

#[test]
fn a_100_from_a_backend_is_not_taken_for_the_answer() {
    let router = Router::start();
    let backend = Backend::script(|mut conn| {
        if conn.request().is_some() {
            conn.write("HTTP/1.1 100 Continue\r\n\r\n");
            conn.write(answer_ok("done"));
        }
    });
    router.serve("shop", &[&backend]);
    let answer = router.get("shop", "/").expect(200);
    assert_eq!(answer.text(), "done");
}

#[test]
fn trailers_of_a_request_reach_the_backend() {
    let router = Router::start();
    let backend = Backend::named("ok");
    router.serve("shop", &[&backend]);
    router
        .send(
            "POST / HTTP/1.1\r\nHost: shop.example\r\nTransfer-Encoding: chunked\r\n\
             Trailer: X-Sum\r\n\r\n2\r\nhi\r\n0\r\nX-Sum: 42\r\nX-More: a b\r\n\r\n",
        )
        .expect(200);
    let trailers = backend.request().trailers;
    assert_eq!(
        trailers,
        [
            ("X-Sum".to_owned(), "42".to_owned()),
            ("X-More".to_owned(), "a b".to_owned())
        ]
    );
}

#[test]
fn trailers_of_an_answer_reach_the_client() {
    let router = Router::start();
    let backend = Backend::says(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n\
         2\r\nhi\r\n0\r\nX-Sum: 42\r\n\r\n",
    );
    router.serve("shop", &[&backend]);
    let answer = router
        .send("GET / HTTP/1.1\r\nHost: shop.example\r\nTE: trailers\r\nConnection: TE\r\n\r\n")
        .expect(200);
    assert_eq!(answer.trailers, [("X-Sum".to_owned(), "42".to_owned())]);
}

#[test]
fn head_has_the_headers_of_get_and_no_body() {
    let router = Router::start();
    let backend = Backend::script(|mut conn| {
        while let Some(request) = conn.request() {
            if request.method == "HEAD" {
                conn.write("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n");
            } else {
                conn.write(answer_ok("hello"));
            }
        }
    });
    router.serve("shop", &[&backend]);
    let mut client = router.client();
    for _ in 0..2 {
        client.send("HEAD / HTTP/1.1\r\nHost: shop.example\r\n\r\n");
        let answer = client.answer_to("HEAD").expect(200);
        assert_eq!(answer.header("content-length"), Some("5"));
        client.send("GET / HTTP/1.1\r\nHost: shop.example\r\n\r\n");
        assert_eq!(client.answer().expect(200).text(), "hello");
    }
}

#[test]
fn head_answered_with_chunked_framing_awaits_no_body() {
    let router = Router::start();
    let backend =
        Backend::app(|_| b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec());
    router.serve("shop", &[&backend]);
    let mut client = router.client();
    for _ in 0..2 {
        client.send("HEAD / HTTP/1.1\r\nHost: shop.example\r\n\r\n");
        client.answer_to("HEAD").expect(200);
    }
}

#[test]
fn answers_204_and_304_have_no_body_whatever_their_headers_say() {
    let router = Router::start();
    let backend = Backend::app(|request| {
        let status = request.target.trim_start_matches('/');
        format!("HTTP/1.1 {status} X\r\nETag: \"1\"\r\n\r\n").into_bytes()
    });
    let lengthy = Backend::app(|_| b"HTTP/1.1 304 X\r\nContent-Length: 9000\r\n\r\n".to_vec());
    router.serve("shop", &[&backend]);
    router.serve("long", &[&lengthy]);
    let mut client = router.client();
    for status in [204, 304, 204] {
        client.send(format!(
            "GET /{status} HTTP/1.1\r\nHost: shop.example\r\n\r\n"
        ));
        let answer = client.answer().expect(status);
        assert!(answer.all("transfer-encoding").is_empty(), "{answer:?}");
        client.send("GET / HTTP/1.1\r\nHost: long.example\r\n\r\n");
        client.answer().expect(304);
    }
    assert_eq!(
        lengthy.connections().min(2),
        lengthy.connections(),
        "kept and reused"
    );
}

#[test]
fn the_routers_own_answer_to_head_has_no_body() {
    let router = Router::start();
    let mut client = router.client();
    for _ in 0..2 {
        client.send("HEAD / HTTP/1.1\r\nHost: nobody.example\r\n\r\n");
        client.answer_to("HEAD").refused(404, "H30");
    }
    client.send("GET / HTTP/1.1\r\nHost: nobody.example\r\n\r\n");
    assert!(!client.answer().expect(404).body.is_empty());
}

#[test]
fn connect_is_405() {
    let router = Router::start();
    let backend = Backend::named("never");
    router.serve("shop", &[&backend]);
    let answer = router.send("CONNECT shop.example:443 HTTP/1.1\r\nHost: shop.example:443\r\n\r\n");
    assert_eq!(answer.status, 405, "{answer:?}");
    assert_eq!(backend.connections(), 0);
}

#[test]
fn an_early_answer_is_passed_on_while_the_client_still_uploads() {
    let router = Router::start();
    let backend = Backend::script(|mut conn| {
        let Some(request) = conn.head() else { return };
        conn.note(request);
        conn.write("HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno");
        // Goes on reading, so that no reset takes the answer back.
        conn.until_closed();
    });
    router.serve("shop", &[&backend]);
    let mut client = router.client();
    client.send("POST / HTTP/1.1\r\nHost: shop.example\r\nContent-Length: 1000000\r\n\r\nstart");
    let answer = client.answer().expect(403);
    assert_eq!(answer.text(), "no");
    eventually("the backend connection is freed", || {
        (backend.open() == 0).then_some(())
    });
}

#[test]
fn an_interim_answer_does_not_shorten_the_wait_for_the_final_one() {
    let router = Router::start();
    let backend = Backend::script(|mut conn| {
        while conn.request().is_some() {
            conn.write("HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n");
            pause(Duration::from_millis(10_500));
            conn.write(answer_ok("late"));
        }
    });
    router.serve("shop", &[&backend]);
    assert_eq!(router.get("shop", "/").expect(200).text(), "late");
}
